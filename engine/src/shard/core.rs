//! One turn of a shard, without a runtime: time, datagrams, stream messages and mail in; datagrams,
//! stream writes and mail out.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sip::overload::{Feedback, LossController};
use sip::{Endpoint, Flow, Transport};

use super::ShardIndex;
use super::arrivals::{Arrival, Arrivals, Doorman};
use super::directory::{Directory, Spread};
use super::mailbox::{Mail, Mailboxes, Outbox, Query};
use super::place::Placement;
use super::span::Spans;
use super::stage::{Moment, Stage};
use super::view;
use super::waits::Waits;
use crate::config::Config;
use crate::focus::{Access, Focus, Means};
use crate::io::stream::StreamEvent;
use crate::io::{MediaIo, SocketId, Token};
use crate::load::gate::Gate;
use crate::memory;
use crate::meters::{CoreMeters, Ledger, Meters, Phase, ServerLoad};
use crate::trace::{Tracer, Watchers};

mod orders;
mod parts;
mod signalling;

/// SIP messages handled in one turn. More wait in the sockets, so that a flood of signalling delays
/// media by a bounded time: 256 INVITEs of 20 µs are 5 ms.
const SIP_PER_TURN_MAX: usize = 256;

/// The same while the shard is behind: sound before new calls.
const SIP_PER_TURN_PRESSED: usize = 16;

/// A turn that begins this late is behind: a quarter of the usual frame.
const PRESSED: Duration = Duration::from_millis(5);

/// Mail handled in one turn, for the same reason.
const MAIL_PER_TURN_MAX: usize = 512;

/// How long a stopping shard waits for the answers to its BYEs.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Turns while there is something to do, and while there is not.
const TURN_BUSY: Duration = Duration::from_millis(1);
const TURN_IDLE: Duration = Duration::from_millis(5);

/// A shard counts as busy this long after the last SIP message.
const BUSY_AFTER_SIP: Duration = Duration::from_millis(100);

/// Gauges are read once a second at most.
const GAUGES_EVERY: Duration = Duration::from_millis(100);

/// Proxies before us are told anew how much to hold back each time the load was measured; they forget
/// it when nothing has come from us for a while.
const FEEDBACK_EVERY: Duration = Duration::from_secs(1);
const FEEDBACK_VALIDITY: Duration = Duration::from_secs(3);

/// What all shards of the process share.
#[derive(Clone)]
pub struct Common {
    pub config: Arc<Config>,
    pub meters: Arc<Meters>,
    pub mailboxes: Mailboxes,
    pub spread: Spread,
    pub load: Arc<ServerLoad>,
    pub access: Arc<Access>,
    /// Who watches SIP messages.
    pub watchers: Watchers,
    /// Which shards have nothing left to do, and last the hub. They end together: one that ended alone would
    /// leave mail unread that others still forward to it.
    pub quiet: Arc<[AtomicBool]>,
}

pub struct Core<I> {
    index: ShardIndex,
    common: Common,
    sip: Endpoint,
    focus: Focus,
    stage: Stage<I>,
    directory: Directory,
    placement: Placement,
    spans: Spans,
    outbox: Outbox,
    /// One per listening address; None for those with connections, which live outside.
    sip_sockets: Vec<Option<SocketId>>,
    /// SIP messages taken in and not handled yet.
    arrived: Arrivals,
    gate: Gate,
    loss: LossController,
    next_feedback: Instant,
    tracer: Tracer,
    waits: Waits,
    last_sip: Option<Instant>,
    ending: Ending,
    ledger: Ledger,
    /// When this turn was to begin.
    due: Instant,
    next_gauges: Instant,
    /// There was work since memory was last given back.
    worked: bool,
}

/// How far the shard is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Ends when the last call has gone.
    Draining,
    /// BYEs are out; ends when they are answered, or then.
    Stopping {
        until: Instant,
    },
}

/// What a turn leaves to the runtime.
#[derive(Debug)]
pub struct Turned {
    /// When the next turn is due.
    pub next: Instant,
    /// There will be no further turn.
    pub ended: bool,
}

impl<I: MediaIo> Core<I> {
    /// `sip_sockets` are this shard's own, one per listening address in the order of the configuration.
    pub fn new(
        index: ShardIndex,
        common: Common,
        sip: Endpoint,
        mut focus: Focus,
        mut stage: Stage<I>,
        now: Instant,
        sip_sockets: Vec<Option<UdpSocket>>,
    ) -> std::io::Result<Self> {
        let sip_sockets = sip_sockets
            .into_iter()
            .enumerate()
            .map(|(listener, socket)| {
                socket
                    .map(|socket| stage.io().adopt(socket, Token(listener as u64)))
                    .transpose()
            });
        let sip_sockets = sip_sockets.collect::<std::io::Result<_>>()?;
        // Who asks as soon as the server is ready is told the truth.
        stage.flush(&common.meters.cores[usize::from(index.0)]);
        focus.join_cluster(index);
        let shards = common.mailboxes.shards();
        let config = &common.config;
        let tracer = Tracer::new(&config.trace, &config.sip.listen, common.watchers.clone())?;
        Ok(Self {
            index,
            sip,
            focus,
            stage,
            directory: Directory::default(),
            placement: Placement::new(now, shards),
            spans: Spans::default(),
            outbox: Outbox::new(common.mailboxes.clone()),
            gate: Gate::new(&common.config.abuse, now),
            common,
            sip_sockets,
            arrived: Arrivals::default(),
            loss: LossController::default(),
            next_feedback: now,
            tracer,
            waits: Waits::new(now),
            last_sip: None,
            ending: Ending::No,
            ledger: Ledger::new(now),
            due: now,
            next_gauges: now,
            worked: false,
        })
    }

    /// One turn. `streams` is emptied; `writes` gets what is to be written to connections of this shard,
    /// or to new ones where the flow has no number.
    ///
    /// Sound comes first: rooms tick and their packets leave before signalling is looked at. When turns
    /// come late, what is put off is in this order: statistics and RTCP reports, then new signalling
    /// messages beyond a few, and at last, beyond 100 ms, sound itself.
    pub fn turn(
        &mut self,
        now: Instant,
        wall: SystemTime,
        streams: &mut Vec<StreamEvent>,
        writes: &mut Vec<(Flow, Bytes)>,
    ) -> Turned {
        let meters = self.common.meters.clone();
        let meters = &meters.cores[usize::from(self.index.0)];
        let ntp = ntp(wall);
        let pressed = now.saturating_duration_since(self.due) >= PRESSED;
        meters.turns_pressed.add(u64::from(pressed));
        self.ledger.lap_at(now, meters, Phase::Idle);
        self.tracer.begin(wall);
        if now >= self.next_feedback {
            self.tell_upstream(now, wall, meters);
        }

        self.harvest(now, meters);
        self.ledger.lap(meters, Phase::Harvest);
        let moment = Moment { now, ntp, pressed };
        self.stage.tick(moment, &mut self.ledger, meters);
        self.stage.flush(meters);
        self.ledger.lap(meters, Phase::Send);

        let sip_max = if pressed {
            SIP_PER_TURN_PRESSED
        } else {
            SIP_PER_TURN_MAX
        };
        self.take_arrived(now, sip_max, meters);
        self.take_streams(now, streams, meters);
        self.ledger.lap(meters, Phase::Sip);
        self.read_mail(now, writes, meters);
        self.ledger.lap(meters, Phase::Mail);

        let mut means = Means {
            now,
            wall,
            ntp,
            sip: &mut self.sip,
            stage: &mut self.stage,
            meters,
        };
        act_on_incidents(&mut self.focus, &mut means);
        means.sip.handle_timeout(now);
        self.focus.handle_timeout(&mut means);
        self.drain_sip(now, wall, ntp, writes, meters);
        self.ledger.lap(meters, Phase::Sip);
        self.tell_homes(now);
        self.report();
        self.look_up();
        self.tell_of_muted(meters);
        self.outbox.retry();
        self.ledger.lap(meters, Phase::Mail);
        self.stage.flush(meters);
        self.ledger.lap(meters, Phase::Send);
        self.keep_house(now, meters);
        self.ledger.lap(meters, Phase::House);

        self.due = self.next_turn(now);
        Turned {
            next: self.due,
            ended: self.has_ended(now),
        }
    }

    fn harvest(&mut self, now: Instant, meters: &CoreMeters) {
        let Self {
            stage,
            arrived,
            gate,
            common,
            ..
        } = self;
        let mut keep = |listener: u64, from: SocketAddr, datagram: &[u8]| {
            // Keep-alives of RFC 5626 §4.4.1 and NAT openers carry no message.
            if datagram
                .iter()
                .all(|octet| matches!(octet, b'\r' | b'\n' | 0))
            {
                return;
            }
            let flow = Flow {
                transport: Transport::Udp,
                peer: from,
                listener: listener as u16,
                stream: 0,
            };
            let Some(way) = doorman(gate, common, meters).look(now, from.ip(), datagram) else {
                return;
            };
            let lost = !arrived.has_room(&way)
                || arrived.push(Arrival {
                    flow,
                    message: Bytes::copy_from_slice(datagram),
                    way,
                });
            meters.mailbox_dropped.add(u64::from(lost));
        };
        if let Err(error) = stage.harvest(now, meters, &mut keep) {
            // epoll fails only by our own mistake; half a server must not go on.
            panic!("cannot read from the network: {error}");
        }
    }

    fn read_mail(&mut self, now: Instant, writes: &mut Vec<(Flow, Bytes)>, meters: &CoreMeters) {
        for _ in 0..MAIL_PER_TURN_MAX {
            let Some(mail) = self.common.mailboxes.read(self.index) else {
                return;
            };
            match mail {
                Mail::SipToHome {
                    flow,
                    room,
                    message,
                } => {
                    self.last_sip = Some(now);
                    let owner = self.owner_of(now, &room);
                    self.hand_to_room(now, owner, room, (flow, message), meters);
                }
                Mail::SipToPart {
                    flow,
                    message,
                    sought,
                } => {
                    self.last_sip = Some(now);
                    self.take_part(now, sought, (flow, message), meters);
                }
                Mail::SipToOwner { flow, message } => {
                    self.last_sip = Some(now);
                    self.handle(now, flow, &message, meters);
                }
                Mail::Write { flow, message } => writes.push((flow, message)),
                Mail::FlowClosed { flow } => self.sip.handle_flow_closed(now, flow),
                Mail::RoomOpened { room, owner } => self.room_opened(now, room, owner),
                Mail::RoomClosed { room, owner } => self.directory.closed(now, &room, owner),
                Mail::JoinPart { room, part, end } => self.stage.join_part(&room, part, *end),
                Mail::Muted { source } => self.gate.mute(now, source),
                Mail::Query(query) => self.answer(query),
                Mail::Dial(order) => self.dial(now, *order, meters),
                Mail::Resolved { ticket, addresses } => {
                    self.with_focus(now, meters, |focus, means| {
                        focus.resolved(ticket, &addresses, means);
                    });
                }
                Mail::Reload(config, access) => {
                    self.stage
                        .set_talkers_max(config.rooms.max_talkers as usize);
                    self.focus.set_config(config.clone(), access);
                    self.gate.configure(&config.abuse);
                    self.common.config = config;
                }
                Mail::Transmit { flow, message } => {
                    self.judge(now, &flow, &message, meters);
                    self.transmit(flow, message, writes, meters);
                }
                Mail::Orders(orders) => self.obey(now, orders, meters),
                // For the hub.
                Mail::FlowFailed { .. } | Mail::Reports { .. } | Mail::Hub(_) => {}
                Mail::Drain => self.ending = Ending::Draining,
                Mail::Undrain if self.ending == Ending::Draining => self.ending = Ending::No,
                Mail::Undrain => {}
                Mail::Stop => self.stop(now, meters),
            }
        }
    }

    fn answer(&self, query: Query) {
        let views =
            |name: Option<&str>| view::conferences(self.stage.rooms(), name, &self.common.config);
        // Who asked may have gone meanwhile; then nobody misses the answer.
        match query {
            Query::Conferences { reply } => drop(reply.send(views(None))),
            Query::Conference { id, reply } => drop(reply.send(views(Some(&id)).pop())),
            Query::Trace { from, reply } => drop(reply.send(self.tracer.since(from))),
        }
    }

    fn stop(&mut self, now: Instant, meters: &CoreMeters) {
        self.ending = Ending::Stopping {
            until: now + STOP_TIMEOUT,
        };
        self.with_focus(now, meters, |focus, means| {
            focus.end_all("server shutting down", means);
        });
    }

    /// Lends the focus the shard's means, outside of what a turn has it do anyway.
    fn with_focus<T>(
        &mut self,
        now: Instant,
        meters: &CoreMeters,
        work: impl FnOnce(&mut Focus, &mut Means<'_, I>) -> T,
    ) -> T {
        let wall = SystemTime::now();
        let mut means = Means {
            now,
            wall,
            ntp: ntp(wall),
            sip: &mut self.sip,
            stage: &mut self.stage,
            meters,
        };
        work(&mut self.focus, &mut means)
    }

    fn tell_of_muted(&mut self, meters: &CoreMeters) {
        for source in self.gate.take_muted() {
            meters.mutes.add(1);
            tracing::debug!(%source, "muted: too much of what it sends is unwanted");
            for shard in (0..self.common.mailboxes.shards()).map(|shard| ShardIndex(shard as u16)) {
                if shard != self.index {
                    self.outbox.post(shard, Mail::Muted { source });
                }
            }
        }
    }

    /// Proxies before us are told how much to hold back (RFC 7339).
    fn tell_upstream(&mut self, now: Instant, wall: SystemTime, meters: &CoreMeters) {
        self.next_feedback = now + FEEDBACK_EVERY;
        let percent = self.loss.update(self.common.load.pressure());
        meters.overload_percent.set(percent.into());
        let feedback = Feedback::new(percent, FEEDBACK_VALIDITY, wall);
        self.sip.set_overload(Some(feedback));
    }

    /// What nobody misses for a while.
    fn keep_house(&mut self, now: Instant, meters: &CoreMeters) {
        meters.turns.add(1);
        self.directory.expire(now);
        self.spans.expire(now);
        if now < self.next_gauges {
            return;
        }
        self.next_gauges = now + GAUGES_EVERY;
        let mut conferences = 0;
        let mut participants = 0;
        for room in self.stage.rooms().filter(|room| !room.is_empty()) {
            conferences += 1;
            participants += room.len() as u64;
        }
        meters.conferences.set(conferences);
        meters.participants.set(participants);
        let sizes = self.sip.sizes();
        meters.sip_dialogs.set(sizes.calls as u64);
        meters
            .sip_server_transactions
            .set(sizes.server_transactions as u64);
        meters
            .sip_client_transactions
            .set(sizes.client_transactions as u64);
        meters.sip_subscriptions.set(sizes.subscriptions as u64);
        meters.sip_timers.set(sizes.timers as u64);
        self.tracer.keep_house(meters);
        self.waits.expire(now);
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
        meters.cpu_ns.set(cpu.as_nanos() as u64);
        let rests = self.focus.calls() == 0 && self.sip.poll_timeout().is_none();
        if rests && self.worked {
            memory::give_back();
        }
        self.worked = !rests;
    }

    fn next_turn(&self, now: Instant) -> Instant {
        let listening = self
            .last_sip
            .is_some_and(|last| now < last + BUSY_AFTER_SIP);
        let busy = listening || self.focus.calls() > 0;
        let latest = now + if busy { TURN_BUSY } else { TURN_IDLE };
        // Never sooner than a turn: what is due earlier is done together then. Rooms set the beat.
        let soonest = now + TURN_BUSY;
        let due = [self.sip.poll_timeout(), self.focus.poll_timeout()];
        let due = due.into_iter().flatten().map(|due| due.max(soonest));
        let work_waits = !self.arrived.is_empty();
        due.chain(self.stage.next_tick())
            .chain(work_waits.then_some(now))
            .fold(latest, Instant::min)
    }

    /// No call is up, and every BYE is answered.
    fn is_quiet(&self) -> bool {
        self.focus.calls() == 0 && self.sip.is_idle()
    }

    fn has_ended(&self, now: Instant) -> bool {
        let quiet = &self.common.quiet;
        quiet[usize::from(self.index.0)].store(self.is_quiet(), Ordering::Relaxed);
        let all_quiet = || quiet.iter().all(|shard| shard.load(Ordering::Relaxed));
        match self.ending {
            Ending::No => false,
            Ending::Draining => all_quiet(),
            Ending::Stopping { until } => now >= until || all_quiet(),
        }
    }
}

fn act_on_incidents<I: MediaIo>(focus: &mut Focus, means: &mut Means<'_, I>) {
    for seat in std::mem::take(&mut means.stage.incidents().vanished) {
        means.meters.media_timeouts.add(1);
        focus.end(seat, "no media received", means);
    }
    for (seat, key) in std::mem::take(&mut means.stage.incidents().keys) {
        focus.on_key(seat, key, means);
    }
    for seat in std::mem::take(&mut means.stage.incidents().stranded) {
        focus.end(seat, "conference failed", means);
    }
}

fn doorman<'a>(gate: &'a mut Gate, common: &'a Common, meters: &'a CoreMeters) -> Doorman<'a> {
    Doorman {
        gate,
        meters,
        spread: &common.spread,
        shards: common.mailboxes.shards(),
        drop_user_agents: &common.config.abuse.drop_user_agents,
    }
}

/// The number of the first connection of a shard; `stream_holder` reads it back.
pub fn first_stream(shard: ShardIndex) -> u64 {
    u64::from(shard.0) << STREAM_SHARD_SHIFT | 1
}

/// The shard that holds a connection.
pub fn stream_holder(stream: u64) -> ShardIndex {
    ShardIndex((stream >> STREAM_SHARD_SHIFT) as u16)
}

/// 2^48 connections per shard before numbers meet.
const STREAM_SHARD_SHIFT: u32 = 48;

/// NTP timestamp (RFC 3550 §4): seconds since 1900 in the upper half, their fraction in the lower.
pub fn ntp(wall: SystemTime) -> u64 {
    const UNIX_EPOCH_IN_NTP_S: u64 = 2_208_988_800;
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs() + UNIX_EPOCH_IN_NTP_S) << 32 | fraction
}

#[cfg(test)]
mod tests;
