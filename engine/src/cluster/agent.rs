//! What the hub's decisions meet: sockets, clocks, mail, programs. One thread, none of a media core's
//! executors.
//!
//! ```text
//!   shards ──mail──> ┌───────┐ ──mail──> shards: SIP to send, orders
//!   HTTP   ──mail──> │ Agent │ ──────> Board: what other threads see of the cluster
//!   connections <──> │ (Hub) │ ──────> start and stop programs
//!                    └───────┘
//! ```
//! Mail wakes nobody: the thread looks at its inbox every few milliseconds, more often while there is
//! something in it, so that posting costs a media core no system call.

mod board;
mod connection;
mod hooks;
mod tls;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::ReservedState;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

pub use board::{Board, Glimpse};
pub use tls::TlsIdentity;

use super::hub::{self, ConnId, Hub};
use super::{Input, LocalLoad, Output as Act};
use crate::focus::RoomName;
use crate::focus::liaison::{Order, Report};
use crate::meters::{ClusterMeters, Meters, ServerLoad, ServerState, State};
use crate::shard::core::stream_holder;
use crate::shard::mailbox::{HubQuery, Mail, Mailboxes, Outbox};
use crate::shard::{ShardIndex, guard};
use connection::{Connections, Event, Happened};
use hooks::Hooks;

/// How often the inbox is looked at while there is something in it, and while there is not.
const LOOK_BUSY: Duration = Duration::from_millis(1);
const LOOK_IDLE: Duration = Duration::from_millis(4);

/// For so long after the last mail the inbox counts as busy.
const BUSY_AFTER_MAIL: Duration = Duration::from_millis(100);

/// Mail read before anything else gets its turn.
const MAIL_PER_LOOK: usize = 1_024;

/// The rules hear of the load this often, and at once when it crosses a limit.
const LOAD_EVERY: Duration = Duration::from_secs(1);

/// How often other threads get a new [`Glimpse`].
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// What connections have to tell; a full queue holds up who reads from them.
const EVENTS_MAX: usize = 256;

/// How long the end of the process is held up for answers to the BYEs to other servers.
const GOODBYE: Duration = Duration::from_millis(500);

/// What the thread is made of; moved to it.
pub struct Plan {
    pub hub: hub::Config,
    pub mailboxes: Mailboxes,
    pub load: Arc<ServerLoad>,
    pub state: Arc<ServerState>,
    pub meters: Arc<Meters>,
    pub cluster_meters: Arc<ClusterMeters>,
    pub board: Arc<Board>,
    /// Which shards have nothing left to do, and last this thread.
    pub quiet: Arc<[AtomicBool]>,
    /// Where control channels come in.
    pub listener: TcpListener,
    /// Control channels speak TLS.
    pub tls: Option<TlsIdentity>,
    pub start_hook: Option<PathBuf>,
    pub stop_hook: Option<PathBuf>,
    /// Where the configuration names other servers: callers may be sent there from the start.
    pub has_others: bool,
}

/// The thread while it runs.
#[derive(Debug)]
pub struct Agent {
    thread: JoinHandle<()>,
}

impl Agent {
    /// Starts the thread, and sets the server's state to what the rules begin with.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn spawn(plan: Plan) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        plan.listener.set_nonblocking(true)?;
        plan.state.set_in_cluster(plan.has_others);
        plan.state.set(match plan.hub.cluster.standby {
            true => State::Standby,
            false => State::Active,
        });
        let thread = thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || {
                guard::this_thread_is_a_shard();
                let tasks = LocalSet::new();
                runtime.block_on(tasks.run_until(async {
                    let (events, happened) = mpsc::channel(EVENTS_MAX);
                    match Running::new(plan, events) {
                        Ok(mut running) => running.run(happened).await,
                        Err(error) => tracing::error!(%error, "no control channels"),
                    }
                }));
                // A name being looked up, or a program, must not hold up the end of the process.
                runtime.shutdown_background();
            })?;
        Ok(Self { thread })
    }

    /// Waits for the end, which comes with that of the shards.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the cluster's thread panicked");
        }
    }
}

/// How far the thread is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// The process ends when the last call has gone.
    Draining,
    /// BYEs to the other servers are out.
    Leaving {
        until: Instant,
    },
}

struct Running {
    hub: Hub,
    mailboxes: Mailboxes,
    outbox: Outbox,
    load: Arc<ServerLoad>,
    state: Arc<ServerState>,
    meters: Arc<Meters>,
    cluster_meters: Arc<ClusterMeters>,
    board: Arc<Board>,
    quiet: Arc<[AtomicBool]>,
    connections: Connections,
    events: Sender<Event>,
    hooks: Hooks,
    has_others: bool,
    /// Questions of the operator that wait for an answer.
    asked: HashMap<u64, oneshot::Sender<(u16, String)>>,
    next_question: u64,
    ending: Ending,
    last_mail: Instant,
    next_load: Instant,
    told: LocalLoad,
    next_show: Instant,
    /// Calls between this server's conferences and those of others.
    trunks: HashSet<(RoomName, SvrId)>,
    /// Orders for each shard, posted together.
    orders: Vec<Vec<Order>>,
}

impl Running {
    fn new(plan: Plan, events: Sender<Event>) -> io::Result<Self> {
        let now = Instant::now();
        let connections = Connections::new(plan.listener, plan.tls, events.clone())?;
        Ok(Self {
            hub: Hub::new(plan.hub, now),
            outbox: Outbox::new(plan.mailboxes.clone()),
            orders: (0..plan.mailboxes.shards()).map(|_| Vec::new()).collect(),
            mailboxes: plan.mailboxes,
            load: plan.load,
            state: plan.state,
            meters: plan.meters,
            cluster_meters: plan.cluster_meters,
            board: plan.board,
            quiet: plan.quiet,
            connections,
            hooks: Hooks {
                start: plan.start_hook,
                stop: plan.stop_hook,
                time_max: hooks::TIME_MAX,
                events: events.clone(),
                running: HashSet::new(),
            },
            events,
            has_others: plan.has_others,
            asked: HashMap::new(),
            next_question: 0,
            ending: Ending::No,
            last_mail: now,
            next_load: now,
            told: LocalLoad::default(),
            next_show: now,
            trunks: HashSet::new(),
        })
    }

    async fn run(&mut self, mut happened: Receiver<Event>) {
        loop {
            let event = tokio::time::timeout(self.rest(), happened.recv()).await;
            let now = Instant::now();
            if let Ok(Some(event)) = event {
                self.on_event(now, event);
                // What else has come meanwhile.
                for _ in 0..EVENTS_MAX {
                    match happened.try_recv() {
                        Ok(event) => self.on_event(now, event),
                        Err(_) => break,
                    }
                }
            }
            self.read_mail(now);
            self.tell_load(now);
            self.hub.handle_timeout(now);
            self.act(now);
            self.outbox.retry();
            self.show(now);
            if self.has_ended(now) {
                return;
            }
        }
    }

    /// Until something is due, or the inbox is to be looked at.
    fn rest(&self) -> Duration {
        let now = Instant::now();
        let busy = now < self.last_mail + BUSY_AFTER_MAIL;
        let look = now + if busy { LOOK_BUSY } else { LOOK_IDLE };
        let due = self.hub.poll_timeout().map_or(look, |due| due.min(look));
        due.saturating_duration_since(now)
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Accepted { stream, peer } => {
                // A stranger costs no handshake.
                if let Some(conn) = self.hub.accepted(now, peer) {
                    self.connections.serve(conn, stream);
                }
            }
            Event::Connection { conn, happened } => match happened {
                Happened::Ready { fingerprint } => self.hub.ready(now, conn, fingerprint),
                Happened::Bytes(bytes) => self.hub.received(now, conn, &bytes),
                Happened::Closed => {
                    self.connections.forget(conn);
                    self.hub.closed(now, conn);
                }
            },
            Event::Resolved { ticket, addresses } => {
                self.hub.resolved(now, ticket, &addresses);
            }
            Event::HookDone {
                hook,
                svr_id,
                result,
            } => {
                self.hooks.done(svr_id);
                self.tell_of_hook(now, hook, svr_id, result);
            }
        }
    }

    fn tell_of_hook(
        &mut self,
        now: Instant,
        hook: super::Hook,
        svr_id: SvrId,
        result: Result<(), String>,
    ) {
        let done = Input::HookDone {
            hook,
            svr_id,
            result,
        };
        self.hub.handle(now, done);
    }

    fn read_mail(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_LOOK {
            let Some(mail) = self.mailboxes.read(self.mailboxes.hub()) else {
                return;
            };
            self.last_mail = now;
            match mail {
                Mail::SipToOwner { flow, message } => self.hub.handle_sip(now, flow, &message),
                Mail::FlowClosed { flow } => self.hub.handle_flow_closed(now, flow),
                Mail::FlowFailed { flow } => self.hub.handle_flow_failed(now, flow),
                Mail::Reports { from, reports } => {
                    for report in reports {
                        self.count_trunk(&report);
                        let shard = usize::from(from.0);
                        self.hub.handle(now, Input::Report { shard, report });
                    }
                }
                Mail::Hub(query) => self.answer(now, query),
                // Who is leaving is past that.
                Mail::Drain if self.ending == Ending::No => self.ending = Ending::Draining,
                Mail::Undrain if self.ending == Ending::Draining => self.ending = Ending::No,
                Mail::Stop => self.leave(now),
                // Of shards among themselves.
                _ => {}
            }
        }
    }

    fn count_trunk(&mut self, report: &Report) {
        if let Report::Trunk { room, peer, up } = report {
            let trunk = (room.clone(), *peer);
            match up {
                true => self.trunks.insert(trunk),
                false => self.trunks.remove(&trunk),
            };
            self.cluster_meters.trunks.set(self.trunks.len() as u64);
        }
    }

    fn answer(&mut self, now: Instant, query: HubQuery) {
        // Who asked may have gone meanwhile; then nobody misses the answer.
        match query {
            HubQuery::Operator { wanted, reply } => {
                let id = self.next_question;
                self.next_question += 1;
                self.asked.retain(|_, reply| !reply.is_closed());
                self.asked.insert(id, reply);
                self.hub.handle(now, Input::Operator { id, wanted });
            }
            HubQuery::Roster { room, reply } => {
                let cluster = self.hub.cluster();
                let found = match &room {
                    Some(room) => cluster.conference(room).into_iter().collect(),
                    None => {
                        let all = cluster.conferences();
                        all.filter_map(|room| cluster.conference(room)).collect()
                    }
                };
                drop(reply.send(found));
            }
            HubQuery::Decisions { reply } => {
                drop(reply.send(self.hub.cluster().decisions().cloned().collect()));
            }
        }
    }

    fn tell_load(&mut self, now: Instant) {
        let participants = self.meters.cores.iter();
        let load = LocalLoad {
            current: self.load.expected(),
            max: self.load.max(),
            min: self.load.min(),
            hot: self.load.hot() as f32,
            full: self.load.is_full(),
            capped: self.load.is_over_hard_cap(),
            participants: participants
                .map(|core| core.participants.get())
                .sum::<u64>()
                .min(u32::MAX.into()) as u32,
            cost: self.load.cost(),
        };
        let told = &self.told;
        let crossed = (load.full, load.capped, load.max, load.min)
            != (told.full, told.capped, told.max, told.min);
        // A tenth of the maximum is worth telling at once.
        let moved = load.current.abs_diff(told.current) > load.max / 10;
        if now >= self.next_load || crossed || moved {
            self.next_load = now + LOAD_EVERY;
            self.told = load;
            self.hub.handle(now, Input::Load(load));
        }
    }

    /// Does what the hub wants done.
    fn act(&mut self, now: Instant) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                hub::Output::Transmit { flow, message } => {
                    let holder = match flow.stream {
                        0 => ShardIndex(0),
                        stream => stream_holder(stream),
                    };
                    self.outbox.post(holder, Mail::Transmit { flow, message });
                }
                hub::Output::Resolve { ticket, host, port } => {
                    connection::resolve(self.events.clone(), ticket, host, port);
                }
                hub::Output::Connect { conn, host, port } => {
                    self.connections.connect(conn, host, port);
                }
                hub::Output::Write { conn, bytes } => self.write(now, conn, bytes),
                hub::Output::Close { conn } => self.connections.close(conn),
                hub::Output::Act(act) => self.obey(now, act),
            }
        }
        for (shard, orders) in self.orders.iter_mut().enumerate() {
            if !orders.is_empty() {
                let orders = std::mem::take(orders);
                self.outbox
                    .post(ShardIndex(shard as u16), Mail::Orders(orders));
            }
        }
    }

    fn write(&mut self, now: Instant, conn: ConnId, bytes: Vec<u8>) {
        if !self.connections.write(conn, bytes) {
            tracing::warn!(?conn, "a control channel is not read from: given up");
            self.connections.abort(conn);
            self.hub.closed(now, conn);
        }
    }

    /// What the rules want of this server.
    fn obey(&mut self, now: Instant, act: Act) {
        match act {
            Act::Order { shard, order } => {
                if let Some(orders) = self.orders.get_mut(shard) {
                    orders.push(order);
                }
            }
            Act::State(state) if self.ending == Ending::No => self.state.set(match state {
                SvrState::Active | SvrState::Full => State::Active,
                SvrState::Draining => State::Draining,
                SvrState::Standby => State::Standby,
            }),
            Act::Kept(units) => self.load.keep(units),
            Act::RunHook { hook, svr_id, uri } => {
                if let Err(reason) = self.hooks.run(hook, svr_id, uri) {
                    self.tell_of_hook(now, hook, svr_id, Err(reason));
                }
            }
            Act::Answered { id, status, reason } => {
                if let Some(reply) = self.asked.remove(&id) {
                    drop(reply.send((status, reason)));
                }
            }
            Act::Decided(decision) => {
                self.cluster_meters.decided(decision.what);
                tracing::info!(
                    what = ?decision.what,
                    room = decision.room,
                    who = decision.who,
                    server = decision.server,
                    status = decision.status,
                    reason = decision.reason,
                    "decided"
                );
            }
            // A server that is about to end stays draining; channels are the hub's own.
            _ => {}
        }
    }

    fn show(&mut self, now: Instant) {
        if now < self.next_show {
            return;
        }
        self.next_show = now + SHOW_EVERY;
        let counters = self.hub.counters();
        self.cluster_meters.show(&counters);
        let cluster = self.hub.cluster();
        let servers = cluster.servers(now);
        let in_cluster = self.has_others || !servers.is_empty();
        self.state.set_in_cluster(in_cluster);
        let reserved = cluster.reserved();
        let free = reserved.iter();
        let free = free.filter(|server| server.state == ReservedState::Free);
        self.cluster_meters.reserved_free.set(free.count() as u64);
        self.board.show(Glimpse {
            at: Some(now),
            reserved,
            servers,
        });
    }

    fn leave(&mut self, now: Instant) {
        if !matches!(self.ending, Ending::Leaving { .. }) {
            self.ending = Ending::Leaving {
                until: now + GOODBYE,
            };
            self.hub.shut_down(now);
            self.act(now);
        }
    }

    /// With the last shard, after the other servers have been told.
    fn has_ended(&mut self, now: Instant) -> bool {
        let Some((own, shards)) = self.quiet.split_last() else {
            return true;
        };
        let shards_rest = shards.iter().all(|shard| shard.load(Ordering::Relaxed));
        match self.ending {
            Ending::No => false,
            Ending::Draining if shards_rest => {
                self.leave(now);
                false
            }
            Ending::Draining => false,
            Ending::Leaving { until } => {
                let ended = now >= until || self.hub.is_quiet();
                own.store(ended, Ordering::Relaxed);
                ended
            }
        }
    }
}

/// Of this life of the server: later lives have higher ones.
pub fn epoch() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
