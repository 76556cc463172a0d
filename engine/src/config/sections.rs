//! How each section is read, and what in it must fit together.

use std::path::PathBuf;

use cfw::SvrId;
use sip::SessionPolicy;
use sip::digest::Credentials;

use super::values::Values;
use super::{
    AbuseConfig, AuthConfig, CertificateFiles, ClusterConfig, ConfigError, HttpConfig, LoadConfig,
    LogConfig, RoomsConfig, RtpConfig, ServerConfig, SipConfig, SipListen, TALKERS_MAX, TlsConfig,
    TraceConfig, Weights, parse,
};

/// Longest that a caller may be left ringing.
const ANSWER_AFTER_MS_MAX: u64 = 60_000;
/// Deepest jitter buffer: beyond 200 ms a conversation is walkie-talkie.
const JITTER_MS_MAX: u64 = 200;
/// Most SIP messages a core remembers while nobody watches.
const TRACE_KEEP_MAX: u64 = 65_536;
/// Longest of the waits given in seconds: a day.
const SECONDS_MAX: u64 = 86_400;

/// Highest of the rates: what no core can handle.
const RATE_MAX: u64 = 1_000_000;

impl ServerConfig {
    pub(super) fn from_values(
        values: &mut Values,
        cores_available: &[usize],
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            id: values.parsed("server.id", "A", parse::svr_id)?,
            cores: values.parsed("server.cores", "all", |text| {
                parse::cores(text, cores_available)
            })?,
            drain_timeout_s: values.integer("server.drain_timeout_s", 30, 0..=SECONDS_MAX)?,
        })
    }
}

impl SipConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let listen: Vec<SipListen> = values.list(
            "sip.listen",
            &["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"],
            str::parse,
        )?;
        if listen.is_empty() {
            return Err(ConfigError::new(
                "sip.listen",
                "empty: no call could ever arrive",
            ));
        }
        let advertise = values.optional("sip.advertise", str::parse)?;
        if let (None, Some(any)) = (
            &advertise,
            listen
                .iter()
                .find(|listen| listen.address.ip().is_unspecified()),
        ) {
            let reason = format!(
                "needed because {any} listens on every address and cannot stand in Contact"
            );
            return Err(ConfigError::new("sip.advertise", reason));
        }
        let tls = TlsConfig::from_values(values)?;
        if let (None, Some(secure)) = (
            &tls.certificate,
            listen.iter().find(|listen| listen.is_secure()),
        ) {
            return Err(ConfigError::new(
                "sip.tls.certificate",
                format!("needed because sip.listen has {secure}"),
            ));
        }
        let origins = values.list("sip.origins", &[], parse::origin)?;
        let session = SessionPolicy {
            expires_s: values.integer("sip.session_expires_s", 1_800, 0..=SECONDS_MAX)?,
            min_s: values.integer("sip.session_min_s", 90, 1..=SECONDS_MAX)?,
        };
        let text = |text: &str| Ok(text.to_owned());
        Ok(Self {
            listen,
            advertise,
            tls,
            origins,
            session,
            outbound_proxy: values.optional("sip.outbound_proxy", str::parse)?,
            outbound: Credentials {
                username: values.parsed("sip.outbound_user", "", text)?,
                password: values.parsed("sip.outbound_password", "", text)?,
                realm: None,
            },
        })
    }
}

impl TlsConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let mut file = |key| values.optional(key, |text| Ok(PathBuf::from(text)));
        let chain = file("sip.tls.certificate")?;
        let key = file("sip.tls.key")?;
        let certificate = match (chain, key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) => None,
            (Some(_), None) => {
                let reason = "needed because sip.tls.certificate is given";
                return Err(ConfigError::new("sip.tls.key", reason));
            }
            (None, Some(_)) => {
                let reason = "needed because sip.tls.key is given";
                return Err(ConfigError::new("sip.tls.certificate", reason));
            }
        };
        Ok(Self {
            certificate,
            client_ca: file("sip.tls.client_ca")?,
            ca: file("sip.tls.ca")?,
        })
    }
}

impl AuthConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        Ok(Self {
            realm: values.parsed("auth.realm", "plenum", parse::realm)?,
            users: values.optional("auth.users", |text| Ok(PathBuf::from(text)))?,
            secret: values.optional("auth.secret", parse::secret)?,
            auth_int: values.boolean("auth.auth_int", false)?,
            trusted: values.list("auth.trusted", &[], str::parse)?,
        })
    }
}

impl AbuseConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        const SCANNERS: [&str; 7] = [
            "friendly-scanner",
            "sipvicious",
            "sipcli/",
            "VaxSIPUserAgent",
            "pplsip",
            "sundayddr",
            "sip-scan",
        ];
        Ok(Self {
            fault_rate: values.integer("abuse.fault_rate", 10, 0..=RATE_MAX)?,
            mute_s: values.integer("abuse.mute_s", 60, 1..=SECONDS_MAX)?,
            flood_rate: values.integer("abuse.flood_rate", 0, 0..=RATE_MAX)?,
            trusted: values.list("abuse.trusted", &[], str::parse)?,
            drop_user_agents: values.list(
                "abuse.drop_user_agents",
                &SCANNERS,
                parse::user_agent,
            )?,
        })
    }
}

impl RtpConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let address = values.parsed("rtp.address", "127.0.0.1", parse::ip_address)?;
        let advertise = values.optional("rtp.advertise", parse::ip_address)?;
        match advertise {
            None if address.is_unspecified() => {
                let reason = format!("needed because rtp.address {address} cannot stand in SDP");
                return Err(ConfigError::new("rtp.advertise", reason));
            }
            Some(advertise) if advertise.is_unspecified() => {
                return Err(ConfigError::new(
                    "rtp.advertise",
                    format!("{advertise} cannot stand in SDP"),
                ));
            }
            _ => {}
        }
        Ok(Self {
            address,
            advertise,
            ports: values.parsed("rtp.ports", "16384-32767", str::parse)?,
            jitter_ms: values.integer("rtp.jitter_ms", 15, 0..=JITTER_MS_MAX)?,
            timeout_s: values.integer("rtp.timeout_s", 30, 0..=SECONDS_MAX)?,
            shared_ports: values.boolean("rtp.shared_ports", true)?,
        })
    }
}

impl LoadConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let config = Self {
            max: values.integer("load.max", 0, 0..=u64::from(u32::MAX))?,
            min: values.integer("load.min", 0, 0..=u64::from(u32::MAX))?,
            hot_max: values.weight("load.hot_max", 0.9)?,
            weights: Weights {
                sip: values.weight("load.weights.sip", 1.0)?,
                audio: values.weight("load.weights.audio", 1.0)?,
                video: values.weight("load.weights.video", 1.0)?,
            },
        };
        if config.hot_max == 0.0 || config.hot_max > 1.0 {
            let reason = format!("{} is not above 0 and at most 1", config.hot_max);
            return Err(ConfigError::new("load.hot_max", reason));
        }
        if config.max != 0 {
            config.check_order()?;
        }
        Ok(config)
    }

    /// Takes over what the machine is found to carry, if the operator has not said.
    ///
    /// # Errors
    /// That is not above min-load.
    pub fn derive(&mut self, max: u32) -> Result<(), ConfigError> {
        if self.max == 0 {
            self.max = max.max(1);
        }
        self.check_order()
    }

    fn check_order(&self) -> Result<(), ConfigError> {
        if self.min < self.max {
            return Ok(());
        }
        Err(ConfigError::new(
            "load.min",
            format!("{} is not below load.max, which is {}", self.min, self.max),
        ))
    }
}

impl ClusterConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        let program = |text: &str| Ok(PathBuf::from(text));
        let config = Self {
            peers: values.list("cluster.peers", &[], parse::peer)?,
            reserved: values.list("cluster.reserved", &[], parse::reserved)?,
            trusted: values.list("cluster.trusted", &["127.0.0.0/8", "::1"], str::parse)?,
            redirect: values.parsed("cluster.redirect", "302", str::parse)?,
            listen: values.optional("cluster.listen", parse::socket_address)?,
            tls: values.boolean("cluster.tls", false)?,
            trunk_codec: values.parsed("cluster.trunk_codec", "l16", str::parse)?,
            recall: values.boolean("cluster.recall", true)?,
            standby: values.boolean("cluster.standby", false)?,
            start_hook: values.optional("cluster.start_hook", program)?,
            stop_hook: values.optional("cluster.stop_hook", program)?,
            drain_after_s: values.integer("cluster.drain_after_s", 60, 0..=SECONDS_MAX)?,
            drain_deadline_s: values.integer("cluster.drain_deadline_s", 600, 1..=SECONDS_MAX)?,
            grow_at: values.weight("cluster.grow_at", 0.85)?,
        };
        if let Some((id, _)) = config.reserved_twice() {
            let reason = format!("{id} stands twice");
            return Err(ConfigError::new("cluster.reserved", reason));
        }
        if config.grow_at == 0.0 || config.grow_at > 1.0 {
            let reason = format!("{} is not above 0 and at most 1", config.grow_at);
            return Err(ConfigError::new("cluster.grow_at", reason));
        }
        Ok(config)
    }

    fn reserved_twice(&self) -> Option<&(SvrId, String)> {
        let is_repeated = |(at, (id, _)): &(usize, &(SvrId, String))| {
            self.reserved[..*at].iter().any(|(other, _)| other == id)
        };
        let mut entries = self.reserved.iter().enumerate();
        entries.find(is_repeated).map(|(_, entry)| entry)
    }
}

impl HttpConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        Ok(Self {
            listen: values.parsed("http.listen", "127.0.0.1:8080", parse::socket_address)?,
        })
    }
}

impl LogConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        Ok(Self {
            level: values.parsed("log.level", "info", str::parse)?,
            format: values.parsed("log.format", "text", str::parse)?,
        })
    }
}

impl TraceConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        Ok(Self {
            keep: values.integer("trace.keep", 0, 0..=TRACE_KEEP_MAX)?,
            hep: values.optional("trace.hep", parse::udp_address)?,
            hep_id: values.integer("trace.hep_id", 2001, 0..=u64::from(u32::MAX))?,
            hep_password: values.optional("trace.hep_password", parse::hep_password)?,
        })
    }
}

impl RoomsConfig {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, ConfigError> {
        Ok(Self {
            auto_create: values.boolean("rooms.auto_create", true)?,
            max_participants: values.integer(
                "rooms.max_participants",
                0,
                0..=u64::from(u32::MAX),
            )?,
            max_talkers: values.integer("rooms.max_talkers", 8, 1..=TALKERS_MAX)?,
            span_at: values.integer("rooms.span_at", 1_000, 0..=u64::from(u32::MAX))?,
            answer_after_ms: values.integer("rooms.answer_after_ms", 0, 0..=ANSWER_AFTER_MS_MAX)?,
            names: values.list("rooms.names", &[], parse::room_name)?,
            access: values.parsed("rooms.access", "open", str::parse)?,
            policies: values.list("rooms.policies", &[], parse::policy)?,
            control: values.parsed("rooms.control", "members", str::parse)?,
            notify_ms: values.integer("rooms.notify_ms", 5_000, 0..=60_000)?,
        })
    }
}
