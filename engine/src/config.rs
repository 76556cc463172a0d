//! What the operator wrote, checked once.
//!
//! ```text
//! defaults < plenum.toml < environment PLENUM_SECTION_KEY < --set section.key=value
//!                        └────── values: one layered table ──────┘ ──parse──> Config
//! ```
//!
//! A [`Config`] cannot be wrong: every field has been parsed into a type that admits only what the
//! server can do, so nothing behind it checks again. Every key, its default and its reason stand in
//! `example.toml`.

mod parse;
mod sections;
mod values;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use cfw::SvrId;
pub use parse::{
    Access, Advertise, Control, LogFormat, LogLevel, Network, PortRange, Redirect, SipListen,
    TrunkCodec,
};
use sip::SessionPolicy;
use sip::digest::Credentials;
use values::Values;

/// Most talkers a mix can hold: above this nobody understands a word, and the mixing tables are
/// sized by it.
pub const TALKERS_MAX: u64 = 64;

/// Everything the operator can choose. Field by field as in `example.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub sip: SipConfig,
    pub auth: AuthConfig,
    pub abuse: AbuseConfig,
    pub rtp: RtpConfig,
    pub load: LoadConfig,
    pub cluster: ClusterConfig,
    pub rooms: RoomsConfig,
    pub http: HttpConfig,
    pub log: LogConfig,
    pub trace: TraceConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub id: SvrId,
    /// Processors that get a shard: at least one, rising, all of them usable by this process.
    pub cores: Vec<usize>,
    /// How long a draining server lets calls finish, in seconds.
    pub drain_timeout_s: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipConfig {
    /// At least one, none twice.
    pub listen: Vec<SipListen>,
    /// Put in Contact and Via instead of the listening address.
    pub advertise: Option<Advertise>,
    pub tls: TlsConfig,
    /// Web pages that may connect by WebSocket; empty = any.
    pub origins: Vec<String>,
    pub session: SessionPolicy,
    /// Where calls of the server's own go; None = straight to their target.
    pub outbound_proxy: Option<SipListen>,
    /// For challenges to calls of the server's own; without a name they are not answered.
    pub outbound: Credentials,
}

/// How callers prove who they are.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthConfig {
    pub realm: String,
    /// The file of those who may call, see [`Users`](crate::users::Users); None = nobody is known.
    pub users: Option<PathBuf>,
    /// Signs nonces, the same on all servers of a cluster; None = a new one at each start.
    pub secret: Option<String>,
    pub auth_int: bool,
    /// Callers from there need no proof.
    pub trusted: Vec<Network>,
}

/// Without the secret.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("realm", &self.realm)
            .field("users", &self.users)
            .field("auth_int", &self.auth_int)
            .field("trusted", &self.trusted)
            .finish_non_exhaustive()
    }
}

/// PEM files, not read here: see [`Tls`](crate::io::tls::Tls).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate and its private key; needed where somebody listens with TLS.
    pub certificate: Option<CertificateFiles>,
    /// Callers need a certificate that one of these signed; None = they need none.
    pub client_ca: Option<PathBuf>,
    /// Who is trusted to sign the certificates of those we connect to; None = whom the system trusts.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and the ones between it and its authority.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// What a sender may do before he is no longer listened to, see [`Gate`](crate::load::gate::Gate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbuseConfig {
    /// Unwanted messages a second that one source may go on sending to a core; 0 = any.
    pub fault_rate: u32,
    /// For how many seconds who sends more is muted, at least 1.
    pub mute_s: u32,
    /// Messages of any kind a second from one source to a core; 0 = any.
    pub flood_rate: u32,
    /// Sources for which none of this counts.
    pub trusted: Vec<Network>,
    /// How the User-Agent of those begins who get no answer; in lower case.
    pub drop_user_agents: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpConfig {
    pub address: IpAddr,
    /// Put in SDP instead of `address`.
    pub advertise: Option<IpAddr>,
    pub ports: PortRange,
    /// Depth of the jitter buffer in milliseconds.
    pub jitter_ms: u32,
    /// A call without media for this many seconds is ended; 0 = never.
    pub timeout_s: u32,
    /// Participants who can be told apart by where their packets come from share ports.
    pub shared_ports: bool,
}

/// Loads are in units: weighted messages and packets a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadConfig {
    /// max-load; 0 = what the machine is found to carry, see [`derive`](Self::derive).
    pub max: u32,
    /// min-load, below `max`; 0 = never drain.
    pub min: u32,
    /// Utilisation of the busiest core from which on the server is full, whatever its load; 1 = never.
    pub hot_max: f64,
    pub weights: Weights,
}

/// What a message or packet of each kind counts; finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    pub sip: f64,
    pub audio: f64,
    pub video: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            sip: 1.0,
            audio: 1.0,
            video: 1.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// Where the control channels of the other servers go.
    pub peers: Vec<String>,
    /// Servers that may be added, and where their control channels go.
    pub reserved: Vec<(SvrId, String)>,
    /// Addresses whose control channel is accepted.
    pub trusted: Vec<Network>,
    pub redirect: Redirect,
    /// Where connections of control channels come in; None = any free port of the SIP address.
    pub listen: Option<SocketAddr>,
    /// Control channels speak TLS.
    pub tls: bool,
    pub trunk_codec: TrunkCodec,
    /// Users of a server that died are called back.
    pub recall: bool,
    /// Takes no callers until another server asks for it.
    pub standby: bool,
    /// Programs that start and stop a reserved server.
    pub start_hook: Option<PathBuf>,
    pub stop_hook: Option<PathBuf>,
    /// Seconds below min-load after which the server gives its users away.
    pub drain_after_s: u32,
    /// Seconds that may take before it is given up.
    pub drain_deadline_s: u32,
    /// Mean share of max-load at which a reserved server is added; above 0, at most 1.
    pub grow_at: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsConfig {
    pub auto_create: bool,
    /// 0 = as many as the server carries.
    pub max_participants: u32,
    /// 1 to [`TALKERS_MAX`].
    pub max_talkers: u32,
    /// Participants of one room on one core from which on others go to the next core; 0 = no limit.
    pub span_at: u32,
    /// How long a caller hears ringing before the room answers, in milliseconds.
    pub answer_after_ms: u32,
    /// Rooms that exist from the start.
    pub names: Vec<String>,
    /// Who gets in, where `policies` say nothing of the room.
    pub access: Access,
    /// Who gets into which room.
    pub policies: Vec<(String, Access)>,
    /// Who may have the conference call somebody, or throw somebody out.
    pub control: Control,
    /// Shortest time between two NOTIFYs to one subscriber, in milliseconds.
    pub notify_ms: u32,
}

impl RoomsConfig {
    pub fn access_to(&self, room: &str) -> &Access {
        let policy = self.policies.iter().find(|(name, _)| name == room);
        policy.map_or(&self.access, |(_, access)| access)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// What is remembered of SIP messages, and who else is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceConfig {
    /// Messages each core remembers while nobody watches; 0 = none.
    pub keep: u32,
    /// The capture server (HEP3 over UDP) that gets a copy of every message.
    pub hep: Option<SocketAddr>,
    /// Capture agent id by which that server knows us.
    pub hep_id: u32,
    /// Authenticate key, sent as it is.
    pub hep_password: Option<String>,
}

/// Why there is no [`Config`]: one line that begins with the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `section.key`, or the file, variable or argument when it is no key.
    pub key: String,
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the layers, later ones winning: defaults, `file`, `environment` (all variables of the
    /// process; others than `PLENUM_SECTION_KEY` are left alone), `sets` (`section.key=value`).
    /// `cores_available` are the processors this process may run on.
    ///
    /// # Errors
    /// The first key that is unknown or has a value the server cannot use.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        sets: &[String],
        cores_available: &[usize],
    ) -> Result<Self, ConfigError> {
        let mut values = Values::default();
        if let Some(path) = file {
            values.add_file(path)?;
        }
        values.add_environment(environment)?;
        for set in sets {
            values.add_set(set)?;
        }
        Self::from_values(values, cores_available)
    }

    fn from_values(mut values: Values, cores_available: &[usize]) -> Result<Self, ConfigError> {
        let server = ServerConfig::from_values(&mut values, cores_available)?;
        let load = LoadConfig::from_values(&mut values)?;
        let sip = SipConfig::from_values(&mut values)?;
        let cluster = ClusterConfig::from_values(&mut values)?;
        if cluster.tls && sip.tls.certificate.is_none() {
            let reason = "needed because cluster.tls is true";
            return Err(ConfigError::new("sip.tls.certificate", reason));
        }
        if sip.advertise.is_none()
            && let Some(any) = cluster.listen.filter(|listen| listen.ip().is_unspecified())
        {
            let reason = format!("needed because cluster.listen is {any}, which nobody can call");
            return Err(ConfigError::new("sip.advertise", reason));
        }
        Ok(Self {
            server,
            sip,
            auth: AuthConfig::from_values(&mut values)?,
            abuse: AbuseConfig::from_values(&mut values)?,
            rtp: RtpConfig::from_values(&mut values)?,
            load,
            cluster,
            rooms: RoomsConfig::from_values(&mut values)?,
            http: HttpConfig::from_values(&mut values)?,
            log: LogConfig::from_values(&mut values)?,
            trace: TraceConfig::from_values(&mut values)?,
        })
    }

    /// What a running server takes over from `new`, and what it cannot without a restart.
    pub fn reload_from(&self, new: &Self) -> Reload {
        let (taken_over, needs_restart) = self
            .changed_keys(new)
            .into_iter()
            .partition(|key| RELOADABLE.iter().any(|prefix| key.starts_with(prefix)));
        let config = Self {
            auth: new.auth.clone(),
            abuse: new.abuse.clone(),
            load: new.load,
            rooms: new.rooms.clone(),
            log: LogConfig {
                level: new.log.level,
                ..self.log
            },
            sip: SipConfig {
                tls: new.sip.tls.clone(),
                ..self.sip.clone()
            },
            ..self.clone()
        };
        Reload {
            config,
            taken_over,
            needs_restart,
        }
    }

    fn changed_keys(&self, new: &Self) -> Vec<&'static str> {
        macro_rules! changed {
            ($($section:ident.$key:ident),* $(,)?) => {
                [$((concat!(stringify!($section), ".", stringify!($key)), self.$section.$key != new.$section.$key)),*]
                    .into_iter()
                    .filter_map(|(key, changed)| changed.then_some(key))
                    .collect()
            };
        }
        changed![
            server.id,
            server.cores,
            server.drain_timeout_s,
            sip.listen,
            sip.advertise,
            sip.tls,
            sip.origins,
            sip.session,
            sip.outbound_proxy,
            sip.outbound,
            auth.realm,
            auth.users,
            auth.secret,
            auth.auth_int,
            auth.trusted,
            abuse.fault_rate,
            abuse.mute_s,
            abuse.flood_rate,
            abuse.trusted,
            abuse.drop_user_agents,
            rtp.address,
            rtp.advertise,
            rtp.ports,
            rtp.jitter_ms,
            rtp.timeout_s,
            rtp.shared_ports,
            load.max,
            load.min,
            load.hot_max,
            load.weights,
            cluster.peers,
            cluster.reserved,
            cluster.trusted,
            cluster.redirect,
            cluster.listen,
            cluster.tls,
            cluster.trunk_codec,
            cluster.recall,
            cluster.standby,
            cluster.start_hook,
            cluster.stop_hook,
            cluster.drain_after_s,
            cluster.drain_deadline_s,
            cluster.grow_at,
            rooms.auto_create,
            rooms.max_participants,
            rooms.max_talkers,
            rooms.span_at,
            rooms.answer_after_ms,
            rooms.names,
            rooms.access,
            rooms.policies,
            rooms.control,
            rooms.notify_ms,
            http.listen,
            log.level,
            log.format,
            trace.keep,
            trace.hep,
            trace.hep_id,
            trace.hep_password,
        ]
    }
}

/// Prefixes of the keys that a running server can change.
const RELOADABLE: [&str; 6] = ["auth.", "abuse.", "load.", "rooms.", "log.level", "sip.tls"];

/// The outcome of [`Config::reload_from`].
#[derive(Debug, Clone, PartialEq)]
pub struct Reload {
    /// The old configuration with what can be reloaded taken from the new one.
    pub config: Config,
    /// Keys that changed and count from now on.
    pub taken_over: Vec<&'static str>,
    /// Keys that changed and stay as they were until a restart.
    pub needs_restart: Vec<&'static str>,
}

#[cfg(test)]
mod tests;
