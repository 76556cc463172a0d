//! `plenum serve`: from a configuration to a server that takes calls, and to its end.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use sip::ListenerIdentity;

use crate::admin::{Admin, AdminThread, ShardQueries};
use crate::cluster::agent::Board;
use crate::config::{Config, ConfigError};
use crate::focus::Access;
use crate::io::tls::Tls;
use crate::limits;
use crate::load::{Admission, Calibration};
use crate::log::LogHandle;
use crate::meters::{ClusterMeters, Meters, ServerLoad, ServerState};
use crate::random::Random;
use crate::shard::core::Common;
use crate::shard::directory::Spread;
use crate::shard::mailbox::Mailboxes;
use crate::shard::run::Plan;
use crate::shard::{ShardIndex, guard, run};
use crate::trace::Watchers;

mod control;
mod joining;
mod sockets;

use control::Control;
use joining::{Joining, bind_channels};
use sockets::bind_sip;

/// Calls and transactions one shard keeps; a call costs some kilobytes, so this bounds memory, not ambition.
const CALLS_MAX: usize = 200_000;

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
