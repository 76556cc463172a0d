//! A channel from its INVITE to its BYE, and the connections channels are on.
//!
//! ```text
//!  we call:     Resolving ─> Inviting ─> Connecting ─> Up ─> Lost (passive) ─> BYE
//!  we are called:            Answered ──────┘
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cfw::channel::{
    Channel, CloseReason, Code, Config, Event, Incoming, Outgoing, Refused, Role, Unclaimed,
};
use cfw::dist_conf::PACKAGE;
use cfw::sdp::{self, Agreement, Local};
use sip::{Body, CallKey};

use super::{ConnId, Fingerprint, Hub, Output, UNCLAIMED_MAX};
use crate::cluster::mesh::UNANSWERED_MAX;
use crate::cluster::{ChannelId, Input, Lost, RequestId};

/// Time for TCP and SYNC once the INVITE is answered.
pub(super) const CONNECT_BUDGET: Duration = Duration::from_secs(1);

/// The same where the other side connects: its ACK and its SYNC may each have to come twice.
pub(super) const ANSWERED_BUDGET: Duration = Duration::from_secs(5);

/// For so long whoever was connected to may come back by a re-INVITE before we say BYE.
const LOST_BUDGET: Duration = Duration::from_secs(2);

/// How far a channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its name is being looked up.
    Resolving,
    Inviting,
    /// We have said 200; ACK and connection are to come.
    Answered,
    /// The connection is being made, or SYNC is on its way.
    Connecting,
    Up,
    /// The connection has gone; the rules think no more of it.
    Lost,
}

/// One channel.
pub(super) struct Link {
    pub(super) stage: Stage,
    pub(super) deadline: Option<Instant>,
    pub(super) call: Option<CallKey>,
    /// Whom we called.
    pub(super) uri: Option<String>,
    /// Where its SIP comes from.
    pub(super) signalling: Option<IpAddr>,
    /// Our end.
    pub(super) local: Local,
    /// It, as it was described last.
    pub(super) described: Option<Body>,
    /// What the two descriptions came to.
    pub(super) agreed: Option<Agreement>,
    pub(super) conn: Option<ConnId>,
    pub(super) channel: Option<Channel>,
    /// The peer's requests that are not answered.
    pub(super) asked: BTreeMap<RequestId, Incoming>,
    pub(super) next_request: RequestId,
    /// Ours.
    pub(super) sent: BTreeMap<Outgoing, RequestId>,
}

impl Link {
    pub(super) fn new(stage: Stage, deadline: Instant, local: Local) -> Self {
        Self {
            stage,
            deadline: Some(deadline),
            call: None,
            uri: None,
            signalling: None,
            local,
            described: None,
            agreed: None,
            conn: None,
            channel: None,
            asked: BTreeMap::new(),
            next_request: 0,
            sent: BTreeMap::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// The rules think of it by this name.
    pub(super) fn is_known_as(&self, id: ChannelId) -> bool {
        match id {
            ChannelId::Dialled(_) => self.stage != Stage::Lost,
            ChannelId::Accepted(_) => self.is_up(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let channel = self.channel.as_ref().and_then(Channel::poll_timeout);
        self.deadline.into_iter().chain(channel).min()
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.agreed.as_ref().map(|agreed| agreed.role)
    }

    /// Our end of the channel.
    fn config(&self) -> Option<Config> {
        let agreed = self.agreed.as_ref()?;
        let packages = PACKAGE.parse().into_iter().collect();
        Some(Config {
            peer_dialog_id: Some(agreed.peer_cfw_id.clone()),
            // The rules are the first to find a peer too slow.
            transactions_max: UNANSWERED_MAX,
            ..Config::new(agreed.cfw_id, packages)
        })
    }

    /// Whether this certificate is one that the peer's description announces; without TLS there is none to
    /// show.
    fn is_known_by(&self, shown: Option<&Fingerprint>) -> bool {
        let Some(agreed) = &self.agreed else {
            return false;
        };
        match shown {
            None => !agreed.tls,
            Some(shown) => agreed
                .peer_fingerprints
                .iter()
                .any(|known| known.hash == SHA_256 && known.bytes == shown),
        }
    }
}

/// The hash of the fingerprints that connections tell.
const SHA_256: &str = "sha-256";

/// One connection.
pub(super) struct Conn {
    peer: SocketAddr,
    fingerprint: Option<Fingerprint>,
    /// The channel it is of; None until SYNC says it.
    link: Option<ChannelId>,
    unclaimed: Option<Unclaimed>,
}

impl Conn {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unclaimed.as_ref().map(Unclaimed::deadline)
    }
}

impl Hub {
    pub(super) fn new_conn(&mut self, conn: Conn) -> ConnId {
        self.next_conn += 1;
        let id = ConnId(self.next_conn);
        self.conns.insert(id, conn);
        id
    }

    /// An end of a channel. Nobody can guess its name: whoever connects shows by it which channel he means.
    pub(super) fn new_local(&mut self) -> Local {
        let random = self.random();
        let (mut id, mut session) = ([0; 12], [0; 8]);
        id.copy_from_slice(&random[..12]);
        session.copy_from_slice(&random[12..20]);
        let session = u64::from_be_bytes(session);
        self.place.local(sdp::cfw_id(id), session)
    }

    /// What is due by time alone.
    pub(super) fn look_at_links(&mut self, now: Instant) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let late = |(id, conn): (&ConnId, &Conn)| is_due(conn.deadline()).then_some(*id);
        let late: Vec<ConnId> = self.conns.iter().filter_map(late).collect();
        for conn in late {
            self.drop_conn(conn);
        }
        let due = |(id, link): (&ChannelId, &Link)| is_due(link.deadline()).then_some(*id);
        let due: Vec<ChannelId> = self.links.iter().filter_map(due).collect();
        for id in due {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            if is_due(link.deadline) {
                self.end(now, id, Lost::Timeout, "no control channel in time");
            } else {
                if let Some(channel) = &mut link.channel {
                    channel.handle_timeout(now);
                }
                self.pump(now, id);
            }
        }
    }

    /// Connects to where the peer listens.
    pub(super) fn connect(&mut self, now: Instant, id: ChannelId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let Some(agreed) = &link.agreed else {
            return;
        };
        let (host, port) = (agreed.peer_host.clone(), agreed.peer_port);
        let Some(host) = host else {
            return self.end(now, id, Lost::Refused(488), "no address");
        };
        link.stage = Stage::Connecting;
        link.deadline = Some(now + CONNECT_BUDGET);
        let conn = self.new_conn(Conn {
            peer: ([0, 0, 0, 0], port).into(),
            fingerprint: None,
            link: Some(id),
            unclaimed: None,
        });
        if let Some(link) = self.links.get_mut(&id) {
            link.conn = Some(conn);
        }
        self.outputs.push_back(Output::Connect { conn, host, port });
    }

    pub(super) fn on_connection(&mut self, peer: SocketAddr) -> Option<ConnId> {
        let waiting = self.conns.values().filter(|conn| conn.link.is_none());
        let is_welcome = waiting.count() < UNCLAIMED_MAX && self.is_expected(peer.ip());
        if !is_welcome {
            self.counters.refused += 1;
            tracing::debug!(%peer, "connection to the control channels refused");
            return None;
        }
        Some(self.new_conn(Conn {
            peer,
            fingerprint: None,
            link: None,
            unclaimed: None,
        }))
    }

    /// Somebody from there may be about to connect.
    fn is_expected(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_caller = |link: &Link| {
            link.signalling
                .is_some_and(|known| known.to_canonical() == address)
        };
        self.is_peer(address) || self.links.values().any(is_caller)
    }

    pub(super) fn on_ready(&mut self, now: Instant, id: ConnId, fingerprint: Option<Fingerprint>) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.fingerprint = fingerprint;
        let Some(channel_id) = conn.link else {
            conn.unclaimed = Some(Unclaimed::new(now));
            return;
        };
        let Some(link) = self.links.get_mut(&channel_id) else {
            return;
        };
        if !link.is_known_by(fingerprint.as_ref()) {
            return self.end(now, channel_id, Lost::Refused(403), "another certificate");
        }
        link.channel = link.config().map(|config| Channel::active(now, config));
        self.pump(now, channel_id);
    }

    pub(super) fn on_bytes(&mut self, now: Instant, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if let Some(channel_id) = conn.link {
            if let Some(channel) = self.channel(channel_id) {
                channel.handle_bytes(now, bytes);
            }
            return self.pump(now, channel_id);
        }
        let Some(mut unclaimed) = conn.unclaimed.take() else {
            return;
        };
        if let Err(Refused { output, reason }) = unclaimed.handle_bytes(bytes) {
            tracing::debug!(peer = %conn.peer, %reason, "connection refused");
            self.counters.refused += 1;
            self.write(id, output);
            return self.drop_conn(id);
        }
        let Some(dialog) = unclaimed.dialog_id() else {
            conn.unclaimed = Some(unclaimed);
            return;
        };
        let waits = |link: &Link| {
            let agreed = link.agreed.as_ref();
            link.stage == Stage::Answered
                && link.role() == Some(Role::Passive)
                && agreed.is_some_and(|agreed| agreed.peer_cfw_id == dialog)
                && link.is_known_by(conn.fingerprint.as_ref())
        };
        let found = self.links.iter().find(|(_, link)| waits(link));
        let Some(channel_id) = found.map(|(id, _)| *id) else {
            self.counters.refused += 1;
            self.write(id, unclaimed.refuse(Code::UNKNOWN));
            return self.drop_conn(id);
        };
        conn.link = Some(channel_id);
        if let Some(link) = self.links.get_mut(&channel_id) {
            link.conn = Some(id);
            link.stage = Stage::Connecting;
            link.channel = link.config().map(|config| unclaimed.claim(now, config));
        }
        self.pump(now, channel_id);
    }

    pub(super) fn on_closed(&mut self, now: Instant, id: ConnId) {
        let Some(Conn { link, .. }) = self.conns.remove(&id) else {
            return;
        };
        let Some(channel_id) = link else {
            return;
        };
        let Some(link) = self.links.get_mut(&channel_id) else {
            return;
        };
        link.conn = None;
        match &mut link.channel {
            Some(channel) => {
                channel.handle_disconnect();
                self.pump(now, channel_id);
            }
            None => self.end(now, channel_id, Lost::Reset, "no connection"),
        }
    }

    pub(super) fn channel(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.links.get_mut(&id)?.channel.as_mut()
    }

    /// Sends what a channel has to send, and hears what it has to tell.
    pub(super) fn pump(&mut self, now: Instant, id: ChannelId) {
        loop {
            self.flush(id);
            let Some(event) = self.channel(id).and_then(Channel::poll_event) else {
                return;
            };
            match event {
                Event::Ready { .. } => self.on_up(now, id),
                Event::Control {
                    id: request,
                    content,
                    ..
                } => self.on_control(now, id, request, &content),
                Event::Abandoned { id: request } => self.on_abandoned(id, request),
                Event::Answered {
                    id: request,
                    content,
                } => self.on_answer(now, id, request, &content),
                Event::Failed {
                    id: request,
                    failure,
                } => self.on_failure(now, id, request, failure),
                Event::Closed(reason) => return self.on_channel_closed(now, id, reason),
                // Requests that take long are the rules' to wait for; there is one package only.
                Event::Extended { .. }
                | Event::Updated { .. }
                | Event::NoCommonPackage { .. }
                | Event::Renegotiated { .. }
                | Event::NotRenegotiated => {}
            }
        }
    }

    fn flush(&mut self, id: ChannelId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let (Some(channel), Some(conn)) = (&mut link.channel, link.conn) else {
            return;
        };
        let bytes = channel.output().to_vec();
        channel.consume(bytes.len());
        self.write(conn, bytes);
    }

    fn write(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.counters.bytes_out += bytes.len() as u64;
            self.outputs.push_back(Output::Write { conn, bytes });
        }
    }

    fn on_up(&mut self, now: Instant, id: ChannelId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.stage = Stage::Up;
        link.deadline = None;
        self.counters.opened += 1;
        let up = Input::ChannelUp {
            channel: id,
            svr_id: None,
        };
        self.cluster.handle(now, up);
    }

    fn on_channel_closed(&mut self, now: Instant, id: ChannelId, reason: CloseReason) {
        let why = match reason {
            CloseReason::Local => Lost::Closed,
            CloseReason::Disconnected => Lost::Reset,
            CloseReason::KeepAlive | CloseReason::SyncTimedOut | CloseReason::SlowPeer => {
                Lost::Timeout
            }
            CloseReason::SyncRefused(code) => Lost::Refused(code.0),
            CloseReason::NoCommonPackage => Lost::Refused(Code::NO_COMMON_PACKAGE.0),
            CloseReason::NotSynced => Lost::Refused(Code::FORBIDDEN.0),
            CloseReason::UnknownDialog => Lost::Refused(Code::UNKNOWN.0),
            CloseReason::BadSync | CloseReason::Malformed(_) => Lost::Refused(Code::SYNTAX_ERROR.0),
        };
        let link = self.links.get_mut(&id);
        // Whoever connected may do so again (RFC 4145 §6.2).
        let may_return = why == Lost::Reset
            && link
                .as_ref()
                .is_some_and(|link| link.role() == Some(Role::Passive) && link.is_up());
        match link {
            Some(link) if may_return && !self.leaving => {
                link.stage = Stage::Lost;
                link.deadline = Some(now + LOST_BUDGET);
                link.channel = None;
                link.asked.clear();
                link.sent.clear();
                let down = Input::ChannelDown { channel: id, why };
                self.cluster.handle(now, down);
            }
            _ => self.end(now, id, why, &reason.to_string()),
        }
    }

    /// Ends a channel for a reason of ours, and tells the rules if they think of it.
    pub(super) fn end(&mut self, now: Instant, id: ChannelId, why: Lost, reason: &str) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let is_known = link.is_known_as(id);
        tracing::debug!(?id, ?why, reason, stage = ?link.stage, "control channel ended");
        self.close(now, id, reason);
        if is_known {
            let down = Input::ChannelDown { channel: id, why };
            self.cluster.handle(now, down);
        }
    }

    /// Ends a channel without a word to the rules.
    pub(super) fn close(&mut self, now: Instant, id: ChannelId, reason: &str) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        for lookup in self.lookups.values_mut() {
            lookup.waiting = lookup.waiting.filter(|waiting| *waiting != id);
        }
        if let Some(call) = link.call {
            self.by_call.remove(&call);
            self.sip.bye(now, call, Some(reason));
        }
        if let Some(conn) = link.conn {
            if let Some(channel) = &mut link.channel {
                let bytes = channel.output().to_vec();
                self.write(conn, bytes);
            }
            self.drop_conn(conn);
        }
    }

    pub(super) fn drop_conn(&mut self, conn: ConnId) {
        if self.conns.remove(&conn).is_some() {
            self.outputs.push_back(Output::Close { conn });
        }
    }
}
