//! A server's place in its cluster: from the configuration to the thread that holds its control channels.

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use sip::Transport;

use super::{ServeError, public_address, sip_config};
use crate::cluster;
use crate::cluster::agent::{self, Agent, Board, TlsIdentity};
use crate::cluster::hub::{self, Place};
use crate::config::{Config, Redirect};
use crate::focus::RoomName;
use crate::io::tls::provider;
use crate::meters::{ClusterMeters, Meters, ServerLoad, ServerState};
use crate::shard::mailbox::Mailboxes;

/// Dialogs of control channels: more servers than a full mesh can have.
const CHANNELS_MAX: usize = 4_096;

/// What this server's place in the cluster is made of.
pub(super) struct Joining {
    pub(super) listener: TcpListener,
    pub(super) mailboxes: Mailboxes,
    pub(super) load: Arc<ServerLoad>,
    pub(super) state: Arc<ServerState>,
    pub(super) meters: Arc<Meters>,
    pub(super) cluster_meters: Arc<ClusterMeters>,
    pub(super) board: Arc<Board>,
    pub(super) quiet: Arc<[AtomicBool]>,
    pub(super) seed: u64,
}

impl Joining {
    /// Starts the cluster's thread; from now on calls are taken.
    pub(super) fn join(self, config: &Config) -> Result<Agent, ServeError> {
        let files = config.sip.tls.certificate.as_ref();
        let tls = files
            .filter(|_| config.cluster.tls)
            .map(TlsIdentity::load)
            .transpose()
            .map_err(|error| ServeError::Start(error.to_string()))?;
        let listening = self.listener.local_addr();
        let listening = listening.map_err(|error| ServeError::Start(error.to_string()))?;
        let place = Place {
            address: channels_address(config, listening.ip())?,
            port: listening.port(),
            fingerprint: tls.as_ref().map(TlsIdentity::fingerprint),
        };
        tracing::info!(%listening, tls = tls.is_some(), "control channels");
        let mut secret = [0; 32];
        let filled = provider().secure_random.fill(&mut secret);
        filled.map_err(|_| ServeError::Start("no random numbers".to_owned()))?;
        let hub = hub::Config {
            cluster: cluster_config(config, self.mailboxes.shards()),
            epoch: agent::epoch(),
            sip: sip::Config {
                focus: false,
                calls_max: CHANNELS_MAX,
                ..sip_config(config, self.mailboxes.hub(), self.seed)
            },
            seed: self.seed.rotate_left(32),
            secret,
            trusted: config.cluster.trusted.clone(),
            place,
        };
        let plan = agent::Plan {
            hub,
            mailboxes: self.mailboxes,
            load: self.load,
            state: self.state,
            meters: self.meters,
            cluster_meters: self.cluster_meters,
            board: self.board,
            quiet: self.quiet,
            listener: self.listener,
            tls,
            start_hook: config.cluster.start_hook.clone(),
            stop_hook: config.cluster.stop_hook.clone(),
            has_others: !config.cluster.peers.is_empty() || !config.cluster.reserved.is_empty(),
        };
        Agent::spawn(plan).map_err(|error| ServeError::Start(error.to_string()))
    }
}

/// The rules' part of the configuration.
fn cluster_config(config: &Config, shards: usize) -> cluster::Config {
    // Servers reach one another as they listen: over UDP, if that is there.
    let carries = |transport: Transport| {
        let mut listen = config.sip.listen.iter();
        listen.position(|listen| listen.transport == transport)
    };
    let listener = [Transport::Udp, Transport::Tcp, Transport::Tls]
        .into_iter()
        .find_map(carries)
        .unwrap_or(0);
    let transport = config.sip.listen[listener].transport.uri_parameter();
    let transport = transport.map_or_else(String::new, |name| format!(";transport={name}"));
    let address = public_address(config, listener);
    let own = &config.cluster;
    cluster::Config {
        svr_id: config.server.id,
        uri: format!("sip:{address}{transport}"),
        cfw_uri: format!("sip:{}@{address}{transport}", RoomName::CONTROL),
        started: SystemTime::now(),
        shards,
        peers: own.peers.clone(),
        reserved: own.reserved.clone(),
        relay: own.redirect == Redirect::Relay,
        recall: own.recall,
        standby: own.standby,
        start_hook: own.start_hook.is_some(),
        stop_hook: own.stop_hook.is_some(),
        drain_after: Duration::from_secs(own.drain_after_s.into()),
        drain_deadline: Duration::from_secs(own.drain_deadline_s.into()),
        grow_at: own.grow_at,
    }
}

/// Where others connect to: the advertised host, if the listening address is none to be reached at.
fn channels_address(config: &Config, listening: IpAddr) -> Result<IpAddr, ServeError> {
    let advertise = match &config.sip.advertise {
        Some(advertise) if listening.is_unspecified() || config.cluster.listen.is_none() => {
            advertise.host.trim_matches(['[', ']'])
        }
        _ => return Ok(listening),
    };
    let found = (advertise, 0).to_socket_addrs();
    let mut found = found.map_err(|error| {
        ServeError::Start(format!(
            "sip.advertise: {advertise} has no address: {error}"
        ))
    })?;
    found
        .next()
        .map(|address| address.ip())
        .ok_or_else(|| ServeError::Start(format!("sip.advertise: {advertise} has no address")))
}

pub(super) fn bind_channels(config: &Config) -> Result<TcpListener, ServeError> {
    let any_port = SocketAddr::new(config.sip.listen[0].address.ip(), 0);
    let address = config.cluster.listen.unwrap_or(any_port);
    TcpListener::bind(address).map_err(|error| ServeError::Bind {
        key: "cluster.listen",
        address,
        error,
    })
}
