//! `plenum serve`: from a configuration to a server that takes calls, and to its end.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sip::{ListenerIdentity, Transport};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::sync::oneshot;

use crate::admin::{Admin, AdminThread, ClusterView, ConferenceView, ShardQueries};
use crate::cluster::agent::Board;
use crate::cluster::{self, Decision, Wanted};
use crate::config::{Config, ConfigError, SipListen};
use crate::focus::{Access, RoomName};
use crate::io::tls::Tls;
use crate::limits;
use crate::load::{Admission, Calibration};
use crate::log::LogHandle;
use crate::meters::{ClusterMeters, Meters, ServerLoad, ServerState, State};
use crate::random::Random;
use crate::shard::core::Common;
use crate::shard::directory::Spread;
use crate::shard::mailbox::{DialOrder, HubQuery, Mail, Mailboxes, Query};
use crate::shard::run::{Plan, Sockets};
use crate::shard::{ShardIndex, guard, run};
use crate::trace::{Batch, Watchers};

mod joining;

use joining::{Joining, bind_channels};

/// Bursts of SIP that a shard cannot read at once wait in the kernel: 4 MiB is about 2,000 INVITEs.
const SIP_BUFFER: usize = 4 << 20;

/// Connections waiting to be accepted, as many as the kernel grants.
const BACKLOG: i32 = 4_096;

/// A peer with a connection who vanished without a word is noticed after this.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Calls and transactions one shard keeps; a call costs some kilobytes, so this bounds memory, not ambition.
const CALLS_MAX: usize = 200_000;

/// The kernel takes apart the rings of a server that has just ended, and frees its addresses, in its own
/// time; a restart waits this long for it.
const LINGER: Duration = Duration::from_secs(1);

/// Why the server did not start, or ended otherwise than it was told to.
#[derive(Debug)]
pub enum ServeError {
    Forbidden(limits::Forbidden),
    /// An address could not be had.
    Bind {
        key: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
    /// What the machine carries is not above what the configuration wants.
    Load(ConfigError),
    Start(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(forbidden) => forbidden.fmt(f),
            Self::Bind {
                key,
                address,
                error,
            } => write!(f, "{key}: cannot listen on {address}: {error}"),
            Self::Load(error) => error.fmt(f),
            Self::Start(reason) => write!(f, "cannot start: {reason}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves until told to end by a signal or over HTTP. `tls` is of this configuration; `reload` reads the
/// configuration anew (SIGHUP).
///
/// # Errors
/// The server could not start.
pub fn serve(
    config: Config,
    tls: Tls,
    access: Access,
    log: LogHandle,
    reload: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
) -> Result<(), ServeError> {
    limits::prepare().map_err(ServeError::Forbidden)?;
    guard::install();
    let mut config = config;
    let shards = config.server.cores.len();
    let mut sockets = bind_sip(&mut config, shards)?;
    let channels = bind_channels(&config)?;
    let http = TcpListener::bind(config.http.listen).map_err(|error| ServeError::Bind {
        key: "http.listen",
        address: config.http.listen,
        error,
    })?;

    let derived = derive_load(&config)?;
    config.load.derive(derived).map_err(ServeError::Load)?;
    let config = Arc::new(config);
    let meters = Arc::new(Meters::new(&config.server.cores));
    let load = Arc::new(ServerLoad::new(&config.load));
    let state = Arc::new(ServerState::default());
    let mailboxes = Mailboxes::new(shards);
    let watchers = Watchers::default();
    let common = Common {
        config: config.clone(),
        meters: meters.clone(),
        mailboxes: mailboxes.clone(),
        spread: Spread::default(),
        load: load.clone(),
        access: Arc::new(access),
        watchers: watchers.clone(),
        quiet: (0..=shards).map(|_| AtomicBool::new(false)).collect(),
    };
    let cluster_meters = Arc::new(ClusterMeters::default());
    let board = Arc::new(Board::default());
    let tls = Arc::new(tls);
    let control = Control {
        config: config.clone(),
        tls: tls.clone(),
        derived,
        load: load.clone(),
        state: state.clone(),
        mailboxes: mailboxes.clone(),
        board: board.clone(),
        drains: Arc::default(),
        log,
    };
    // Before any thread starts, so that no signal finds a thread that does not expect it.
    let signals = control
        .clone()
        .listen_to_signals(reload)
        .map_err(|error| ServeError::Start(error.to_string()))?;

    let mut seeds = Random::from_entropy();
    let (ready, readiness) = mpsc::channel();
    let mut handles = Vec::new();
    for (index, &cpu) in config.server.cores.iter().enumerate() {
        let index = ShardIndex(index as u16);
        let plan = Plan {
            index,
            cpu,
            common: common.clone(),
            admission: Admission {
                load: load.clone(),
                state: state.clone(),
            },
            sip: sip_config(&config, index, seeds.next_u64()),
            sockets: sockets.remove(0),
            seed: seeds.next_u64(),
            tls: tls.clone(),
        };
        handles.push(run::spawn(plan, ready.clone()).map_err(ServeError::Start)?);
    }
    drop(ready);
    for _ in 0..shards {
        let started = readiness
            .recv()
            .unwrap_or_else(|_| Err("a shard ended before it began".to_owned()));
        started.map_err(ServeError::Start)?;
    }

    let shards: Arc<dyn ShardQueries> = Arc::new(control);
    let admin = Admin {
        config: config.clone(),
        meters: meters.clone(),
        cluster_meters: cluster_meters.clone(),
        load: load.clone(),
        state: state.clone(),
        shards,
        watchers,
        started: Instant::now(),
    };
    let admin =
        AdminThread::start(http, admin).map_err(|error| ServeError::Start(error.to_string()))?;
    let cluster = Joining {
        listener: channels,
        mailboxes,
        load,
        state,
        meters,
        cluster_meters,
        board,
        quiet: common.quiet.clone(),
        seed: seeds.next_u64(),
    };
    let agent = cluster.join(&config)?;
    announce(&config, admin.local_address());

    for handle in handles {
        // A panic on a shard has aborted the process before it could come here.
        handle
            .join()
            .map_err(|error| ServeError::Start(error.to_string()))?;
    }
    agent.join();
    signals.close();
    drop(admin);
    tracing::info!("ended");
    Ok(())
}

/// What the cores together are trusted with, as far as this machine tells.
fn derive_load(config: &Config) -> Result<u32, ServeError> {
    let cores = &config.server.cores;
    let found = Calibration::find(cores[0]);
    let found = found.map_err(|error| ServeError::Start(format!("calibration: {error}")))?;
    let each = found.units_per_core();
    tracing::info!(?found, units_per_core = each, "calibrated");
    Ok(each.saturating_mul(u32::try_from(cores.len()).unwrap_or(u32::MAX)))
}

/// The line that scripts wait for.
fn announce(config: &Config, http: SocketAddr) {
    let id = &config.server.id;
    println!(
        "plenum {id} ready sip={} http=http://{http}",
        config.sip.listen[0].address
    );
    tracing::info!(svr_id = %id, cores = ?config.server.cores, max_load = config.load.max, "taking calls");
}

/// What ends, drains, reloads and questions the shards from outside.
#[derive(Clone)]
struct Control {
    config: Arc<Config>,
    tls: Arc<Tls>,
    /// Max-load where the configuration names none.
    derived: u32,
    load: Arc<ServerLoad>,
    state: Arc<ServerState>,
    mailboxes: Mailboxes,
    board: Arc<Board>,
    /// How often a drain of the process began or was called off: even while there is none.
    drains: Arc<AtomicU64>,
    log: LogHandle,
}

impl Control {
    fn listen_to_signals(
        self,
        reload: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> io::Result<signal_hook::iterator::Handle> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let handle = signals.handle();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut control = self;
                for signal in signals.forever() {
                    match signal {
                        SIGTERM => control.drain_and_end(),
                        SIGINT => control.stop(),
                        _ => control.reload(reload()),
                    }
                }
            })?;
        Ok(handle)
    }

    fn stop(&self) {
        tracing::info!("ending now: BYE to all");
        self.state.set(State::Draining);
        self.tell_all(|| Mail::Stop);
    }

    fn reload(&mut self, new: Result<Config, ConfigError>) {
        let derive = |mut new: Config| new.load.derive(self.derived).map(|()| new);
        let new = match new.and_then(derive) {
            Ok(new) => new,
            Err(error) => return tracing::error!(%error, "configuration not reloaded"),
        };
        let access = match Access::load(&new.auth) {
            Ok(access) => Arc::new(access),
            Err(error) => return tracing::error!(%error, "configuration not reloaded"),
        };
        if let Err(error) = self.tls.reload(&new.sip.tls) {
            return tracing::error!(%error, "configuration not reloaded");
        }
        let reload = self.config.reload_from(&new);
        tracing::info!(changed = ?reload.taken_over, needs_restart = ?reload.needs_restart, "configuration reloaded");
        self.config = Arc::new(reload.config);
        self.load.configure(&self.config.load);
        self.log.set_level(self.config.log.level);
        self.tell_all(|| Mail::Reload(self.config.clone(), access.clone()));
    }

    /// Ends the process when the last call has gone, or when the time for that is over. In a cluster users
    /// are moved to other servers meanwhile.
    fn drain_and_end(&self) {
        let began = self.drains.load(Ordering::Relaxed);
        let is_first = began.is_multiple_of(2)
            && self
                .drains
                .compare_exchange(began, began + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !is_first {
            return;
        }
        let limit = Duration::from_secs(self.config.server.drain_timeout_s.into());
        tracing::info!(limit_s = limit.as_secs(), "draining: no new calls");
        self.state.set(State::Draining);
        let control = self.clone();
        // Not waited for: when the calls are gone sooner, the process ends under it.
        thread::spawn(move || {
            control.tell_all(|| Mail::Drain);
            if control.state.is_in_cluster() {
                let deadline = Some(limit);
                drop(control.order(Wanted::Drain { deadline }));
            }
            thread::sleep(limit);
            if control.drains.load(Ordering::Relaxed) == began + 1 {
                control.stop();
            }
        });
    }

    /// Posts to every shard and to the hub, waiting for inboxes that are full.
    fn tell_all(&self, mail: impl Fn() -> Mail) {
        for shard in 0..=self.mailboxes.shards() {
            while self
                .mailboxes
                .post(ShardIndex(shard as u16), mail())
                .is_err()
            {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Asks the hub; one whose inbox is full drops the question, which the asker notices.
    fn ask_hub<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> HubQuery,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let mail = Mail::Hub(question(reply));
        drop(self.mailboxes.post(self.mailboxes.hub(), mail));
        answer
    }

    /// Asks every shard; one whose inbox is full drops the question, which the asker notices.
    fn ask_all<T>(
        &self,
        question: impl Fn(ShardIndex, oneshot::Sender<T>) -> Query,
    ) -> Vec<oneshot::Receiver<T>> {
        (0..self.mailboxes.shards())
            .map(|shard| {
                let shard = ShardIndex(shard as u16);
                let (reply, answer) = oneshot::channel();
                drop(
                    self.mailboxes
                        .post(shard, Mail::Query(question(shard, reply))),
                );
                answer
            })
            .collect()
    }
}

impl ShardQueries for Control {
    fn conferences(&self) -> Vec<oneshot::Receiver<Vec<ConferenceView>>> {
        self.ask_all(|_, reply| Query::Conferences { reply })
    }

    fn conference(&self, id: &str) -> Vec<oneshot::Receiver<Option<ConferenceView>>> {
        self.ask_all(|_, reply| Query::Conference {
            id: id.to_owned(),
            reply,
        })
    }

    fn dial(&self, room: RoomName, target: String) -> oneshot::Receiver<u16> {
        let (reply, answer) = oneshot::channel();
        let order = DialOrder {
            room,
            target,
            reply,
            is_placed: false,
        };
        // Any shard finds the one that has the room. A full inbox drops the order, which the asker notices.
        drop(
            self.mailboxes
                .post(ShardIndex(0), Mail::Dial(Box::new(order))),
        );
        answer
    }

    fn trace(&self, from: &[Option<u64>]) -> Vec<oneshot::Receiver<Batch>> {
        self.ask_all(|shard, reply| Query::Trace {
            from: from.get(usize::from(shard.0)).copied().flatten(),
            reply,
        })
    }

    fn drain(&self) {
        if self.state.is_in_cluster() {
            tracing::info!("giving all users away");
            drop(self.order(Wanted::Drain { deadline: None }));
        } else {
            self.drain_and_end();
        }
    }

    fn undrain(&self) {
        let began = self.drains.load(Ordering::Relaxed);
        if !began.is_multiple_of(2) {
            let next = self.drains.fetch_add(1, Ordering::Relaxed);
            tracing::info!(number = next, "not draining any more");
            self.tell_all(|| Mail::Undrain);
            self.state.set(State::Active);
        }
        drop(self.order(Wanted::Undrain));
    }

    fn cluster(&self) -> ClusterView {
        ClusterView::of(&self.board.look())
    }

    fn order(&self, wanted: Wanted) -> oneshot::Receiver<(u16, String)> {
        self.ask_hub(|reply| HubQuery::Operator { wanted, reply })
    }

    fn roster(&self, id: Option<&str>) -> oneshot::Receiver<Vec<cluster::ConferenceView>> {
        let room = id.map(str::to_owned);
        self.ask_hub(|reply| HubQuery::Roster { room, reply })
    }

    fn decisions(&self) -> oneshot::Receiver<Vec<Decision>> {
        self.ask_hub(|reply| HubQuery::Decisions { reply })
    }
}

/// Where others reach the listener: the advertised address, or the bound one.
pub fn public_address(config: &Config, listener: usize) -> String {
    let address = config.sip.listen[listener].address;
    match &config.sip.advertise {
        None => address.to_string(),
        Some(advertise) => format!(
            "{}:{}",
            advertise.host,
            advertise.port.unwrap_or_else(|| address.port())
        ),
    }
}

fn sip_config(config: &Config, owner: ShardIndex, seed: u64) -> sip::Config {
    let listeners = config
        .sip
        .listen
        .iter()
        .enumerate()
        .map(|(index, listen)| ListenerIdentity {
            transport: listen.transport,
            sent_by: public_address(config, index),
        });
    let user_agent = format!("plenum/{}", env!("CARGO_PKG_VERSION"));
    sip::Config {
        calls_max: CALLS_MAX,
        user_agent,
        focus: true,
        session: config.sip.session,
        ..sip::Config::new(owner.0, listeners.collect(), seed)
    }
}

/// Binds every address once per shard, and puts the ports the system chose into the configuration.
fn bind_sip(config: &mut Config, shards: usize) -> Result<Vec<Sockets>, ServeError> {
    let mut shares: Vec<Sockets> = (0..shards)
        .map(|_| Sockets {
            udp: Vec::new(),
            streams: Vec::new(),
        })
        .collect();
    for (index, listen) in config.sip.listen.iter_mut().enumerate() {
        let bound = bind_one(listen, index as u16, &mut shares);
        bound.map_err(|error| ServeError::Bind {
            key: "sip.listen",
            address: listen.address,
            error,
        })?;
    }
    Ok(shares)
}

fn bind_one(listen: &mut SipListen, index: u16, shares: &mut [Sockets]) -> io::Result<()> {
    // SO_REUSEPORT would let a second server of the same user take half of our calls unnoticed. A socket
    // without it finds out whether anybody is there.
    let start = Instant::now();
    while let Err(error) = socket(listen, false) {
        if error.kind() != io::ErrorKind::AddrInUse || start.elapsed() > LINGER {
            return Err(error);
        }
        thread::sleep(LINGER / 20);
    }
    for share in shares {
        let socket = socket(listen, true)?;
        if let Some(address) = socket.local_addr()?.as_socket() {
            listen.address = address;
        }
        match listen.transport {
            Transport::Udp => {
                // As much as the system allows; less only loses bursts.
                let _ = socket.set_recv_buffer_size(SIP_BUFFER);
                share.udp.push(Some(UdpSocket::from(socket)));
            }
            _ => {
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                socket.listen(BACKLOG)?;
                share.udp.push(None);
                let listener = TcpListener::from(socket);
                share.streams.push((index, listen.transport, listener));
            }
        }
    }
    Ok(())
}

fn socket(listen: &SipListen, shared: bool) -> io::Result<Socket> {
    let (kind, protocol) = match listen.transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        _ => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(listen.address), kind, Some(protocol))?;
    if listen.transport.is_reliable() {
        // Connections of a server that has just ended do not keep the next one out.
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&listen.address.into())?;
    Ok(socket)
}
