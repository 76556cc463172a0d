//! The hub: a server's control channels with the others, from SIP to the rules and back, without I/O.
//!
//! ```text
//!   SIP ──────────> Endpoint ──┐                               ┌──> SIP
//!   connections ──> Channel ───┼─ Link, one each ── Cluster ───┼──> connections
//!   shards, load, operator ────┘                               └──> shards, state, programs, log
//! ```
//! The INVITE of a channel names by SDP who connects and by which `cfw-id` the connection will be known;
//! `links` follows it from there to its end, `talk` turns what is said on it into the values that the
//! rules ([`Cluster`]) speak, and back. Whose address neither the configuration names nor a peer has told is
//! refused with 403.
//!
//! As [`Cluster`] it reads no clock: many hubs run in one thread with virtual time.

mod describe;
mod dialogs;
mod links;
mod talk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use sip::{CallKey, Endpoint, Flow};

use super::{ChannelId, Cluster, Input, Output as Act};
use crate::config::Network;
use bytes::Bytes;
use describe::Host;
pub use describe::Place;
use links::{Conn, Link};
use sha2::{Digest, Sha256};

/// Channels and what is on its way to become one.
const LINKS_MAX: usize = 1_024;

/// Connections that have not said yet which channel they are of.
const UNCLAIMED_MAX: usize = 64;

/// Hosts whose channels are accepted, besides the trusted networks.
const KNOWN_MAX: usize = 1_024;

/// What the hub is.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: super::Config,
    /// Higher in every later life of the server.
    pub epoch: u64,
    /// The owner in it is one that no shard has.
    pub sip: sip::Config,
    pub seed: u64,
    /// Nobody else knows it: names of channels come from it, by which alone a connection is taken for the one
    /// that was agreed on.
    pub secret: [u8; 32],
    /// Who may open a channel, besides the servers that are known.
    pub trusted: Vec<Network>,
    /// Where connections of channels come in.
    pub place: Place,
}

/// Names a connection; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

#[cfg(test)]
impl ConnId {
    /// For tests of what carries connections.
    pub(super) const fn invented(number: u64) -> Self {
        Self(number)
    }
}

/// SHA-256 of a certificate (RFC 8122).
pub type Fingerprint = [u8; 32];

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send a SIP message.
    Transmit {
        flow: Flow,
        message: Bytes,
    },
    /// Look a name up: [`Hub::resolved`].
    Resolve {
        ticket: u64,
        host: String,
        port: u16,
    },
    /// Connect, with TLS if there is to be: [`Hub::ready`] or [`Hub::closed`].
    Connect {
        conn: ConnId,
        host: String,
        port: u16,
    },
    Write {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    /// End a connection once what was written has gone out; nothing more is said about it.
    Close {
        conn: ConnId,
    },
    /// What the rules want besides: [`Act::Order`], [`Act::State`], [`Act::Kept`], [`Act::RunHook`],
    /// [`Act::Answered`] or [`Act::Decided`].
    Act(Act),
}

/// Since the hub was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests and responses with content, in the package's messages.
    pub messages_in: u64,
    pub messages_out: u64,
    /// Of connections.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Channels that came up, and those of them that are.
    pub opened: u64,
    pub up: u64,
    /// INVITEs and connections refused.
    pub refused: u64,
}

/// A name that is being looked up.
struct Lookup {
    name: String,
    port: u16,
    /// It is to be called there.
    waiting: Option<ChannelId>,
}

/// One server's channels and rules. Give it what happens by the other methods, call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says so, and after
/// either do everything that [`poll_output`](Self::poll_output) gives.
pub struct Hub {
    sip: Endpoint,
    cluster: Cluster,
    trusted: Vec<Network>,
    place: Place,
    /// By the rules' name for the channel; in order, so that every run is the same.
    links: BTreeMap<ChannelId, Link>,
    by_call: HashMap<CallKey, ChannelId>,
    conns: BTreeMap<ConnId, Conn>,
    lookups: HashMap<u64, Lookup>,
    /// Answers for which nobody waited any more, by name and port.
    late: HashMap<(String, u16), Vec<SocketAddr>>,
    /// Addresses of servers that the configuration names, and of those that the rules have dialled as a peer
    /// told of them, by the name in their URI.
    known: BTreeMap<String, Vec<IpAddr>>,
    secret: [u8; 32],
    next_conn: u64,
    next_accepted: u32,
    next_ticket: u64,
    /// Where the SIP message came from that is being handled.
    from: Option<Flow>,
    leaving: bool,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Hub {
    pub fn new(config: Config, now: Instant) -> Self {
        let cluster = Cluster::new(config.cluster, config.epoch, config.seed, now);
        let mut hub = Self {
            sip: Endpoint::new(config.sip),
            cluster,
            trusted: config.trusted,
            place: config.place,
            links: BTreeMap::new(),
            by_call: HashMap::new(),
            conns: BTreeMap::new(),
            lookups: HashMap::new(),
            late: HashMap::new(),
            known: BTreeMap::new(),
            secret: config.secret,
            next_conn: 0,
            next_accepted: 0,
            next_ticket: 0,
            from: None,
            leaving: false,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        };
        hub.know_the_configured(now);
        hub.settle(now);
        hub
    }

    /// From their addresses channels are accepted.
    fn know_the_configured(&mut self, now: Instant) {
        let config = self.cluster.config();
        let reserved = config.reserved.iter().map(|(_, uri)| uri);
        let uris: Vec<String> = config.peers.iter().chain(reserved).cloned().collect();
        for host in uris.iter().filter_map(|uri| Host::of(uri)) {
            if self.know(&host) {
                self.look_up(now, host, None);
            }
        }
    }

    /// From there channels are accepted. True: it is a new name, to be looked up.
    fn know(&mut self, host: &Host) -> bool {
        if self.known.contains_key(&host.name) || self.known.len() >= KNOWN_MAX {
            return false;
        }
        let address: Option<IpAddr> = host.name.parse().ok();
        let canonical = address.map(|address| address.to_canonical());
        self.known
            .insert(host.name.clone(), canonical.into_iter().collect());
        address.is_none()
    }

    /// What is to be done next, until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(Link::deadline);
        let conns = self.conns.values().filter_map(Conn::deadline);
        let own = [self.sip.poll_timeout(), self.cluster.poll_timeout()];
        links.chain(conns).chain(own.into_iter().flatten()).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        self.sip.handle_timeout(now);
        self.cluster.handle_timeout(now);
        self.look_at_links(now);
        self.settle(now);
    }

    /// A SIP message for this endpoint.
    pub fn handle_sip(&mut self, now: Instant, flow: Flow, message: &[u8]) {
        self.from = Some(flow);
        self.sip.handle_message(now, flow, message);
        self.settle(now);
        self.from = None;
    }

    /// A SIP connection has ended.
    pub fn handle_flow_closed(&mut self, now: Instant, flow: Flow) {
        self.sip.handle_flow_closed(now, flow);
        self.settle(now);
    }

    /// A SIP connection could not be made.
    pub fn handle_flow_failed(&mut self, now: Instant, flow: Flow) {
        self.sip.handle_flow_failed(now, flow);
        self.settle(now);
    }

    /// A name has been looked up; no address if there is none.
    pub fn resolved(&mut self, now: Instant, ticket: u64, addresses: &[SocketAddr]) {
        self.on_resolved(now, ticket, addresses);
        self.settle(now);
    }

    /// Somebody has connected. What is told of this connection comes under the number returned. None: nobody
    /// is expected from there, and the connection is to be dropped without a word.
    pub fn accepted(&mut self, now: Instant, peer: SocketAddr) -> Option<ConnId> {
        let conn = self.on_connection(peer);
        self.settle(now);
        conn
    }

    /// A connection is there for use: of a channel of ours, or one that was accepted. `fingerprint` is that
    /// of the peer's certificate.
    pub fn ready(&mut self, now: Instant, conn: ConnId, fingerprint: Option<Fingerprint>) {
        self.on_ready(now, conn, fingerprint);
        self.settle(now);
    }

    pub fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        self.counters.bytes_in += bytes.len() as u64;
        self.on_bytes(now, conn, bytes);
        self.settle(now);
    }

    /// A connection has ended, or could not be made.
    pub fn closed(&mut self, now: Instant, conn: ConnId) {
        self.on_closed(now, conn);
        self.settle(now);
    }

    /// What happens besides: [`Input::Load`], [`Input::Report`], [`Input::Operator`], [`Input::HookDone`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.cluster.handle(now, input);
        self.settle(now);
    }

    /// Says BYE to all peers, so that they know at once, and answers nobody any more.
    pub fn shut_down(&mut self, now: Instant) {
        self.leaving = true;
        let calls: Vec<CallKey> = self.by_call.keys().copied().collect();
        for call in calls {
            self.sip.bye(now, call, Some("server shutting down"));
        }
        self.settle(now);
    }

    /// No request of ours waits for an answer.
    pub fn is_quiet(&self) -> bool {
        self.sip.is_idle()
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn counters(&self) -> Counters {
        let is_up = |link: &&Link| link.is_up();
        Counters {
            up: self.links.values().filter(is_up).count() as u64,
            ..self.counters
        }
    }

    /// Channels, whatever state they are in; none is left when all servers have gone.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Dialogs of channels, and calls on their way to one.
    #[cfg(test)]
    pub(crate) fn dialogs(&self) -> usize {
        self.sip.sizes().calls
    }

    /// Passes on what one part has for another, until all rest.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.sip.poll_output() {
                match output {
                    sip::Output::Transmit { flow, message } => {
                        self.outputs.push_back(Output::Transmit { flow, message });
                    }
                    sip::Output::Event(event) => self.on_sip_event(now, event),
                }
            } else if let Some(act) = self.cluster.poll_output() {
                self.on_act(now, act);
            } else {
                return;
            }
        }
    }

    fn on_act(&mut self, now: Instant, act: Act) {
        match act {
            Act::Dial { channel, uri, .. } => self.dial(now, channel, &uri),
            Act::Close { channel, reason } => self.close(now, channel, &reason),
            Act::Send {
                channel,
                id,
                request,
            } => self.send(now, channel, id, request),
            Act::Respond {
                channel,
                id,
                response,
            } => self.respond(now, channel, id, response),
            act => self.outputs.push_back(Output::Act(act)),
        }
    }

    /// Somebody whose channels are accepted.
    fn is_peer(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(address))
            || self.known.values().flatten().any(|known| *known == address)
    }

    /// What follows from the secret, one half of it; the other takes its place, so that whoever sees what came
    /// of it knows neither what was before nor what comes next.
    fn random(&mut self) -> [u8; 32] {
        let hash = |use_: &[u8], secret: [u8; 32]| {
            let hash = Sha256::new().chain_update(use_).chain_update(secret);
            <[u8; 32]>::from(hash.finalize())
        };
        let told = hash(b"told", self.secret);
        self.secret = hash(b"kept", self.secret);
        told
    }
}
