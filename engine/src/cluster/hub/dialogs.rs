//! The dialogs of control channels: who calls whom, and on what terms (RFC 6230 §4, RFC 4145).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cfw::channel::Role;
use cfw::sdp::{self, Agreement, Connection};
use sip::{Body, CallKey, Ended, Event, Flow, Invitation, Invite, Rejection, RequestKey};

use super::describe::Host;
use super::links::{ANSWERED_BUDGET, Link, Stage};
use super::{Hub, LINKS_MAX, Lookup, Output, describe};
use crate::cluster::{ChannelId, Input, Lost};
use crate::focus::RoomName;

/// Time for the answer to an INVITE.
const INVITE_BUDGET: Duration = Duration::from_secs(2);

/// Seconds after which a caller may try again who finds too many channels.
const RETRY_AFTER_S: u32 = 5;

impl Hub {
    /// Calls the server at `uri`.
    pub(super) fn dial(&mut self, now: Instant, id: ChannelId, uri: &str) {
        if self.leaving || self.links.len() >= LINKS_MAX {
            let why = Lost::Refused(503);
            return self
                .cluster
                .handle(now, Input::ChannelDown { channel: id, why });
        }
        let host = Host::of(uri);
        if let Some(host) = &host {
            self.know(host);
        }
        let local = self.new_local();
        let mut link = Link::new(Stage::Resolving, now + INVITE_BUDGET, local);
        link.uri = Some(uri.to_owned());
        self.links.insert(id, link);
        match (self.sip.flow_to(uri), host) {
            (Some(flow), _) => self.invite(now, id, flow),
            (None, Some(host)) => self.look_up(now, host, Some(id)),
            (None, None) => self.end(now, id, Lost::Refused(416), "no address"),
        }
    }

    /// The answer may take longer than a dial may: then it is kept for the next one.
    pub(super) fn look_up(&mut self, now: Instant, host: Host, waiting: Option<ChannelId>) {
        let Host { name, port, .. } = host;
        if let (Some(id), Some(addresses)) = (waiting, self.late.remove(&(name.clone(), port))) {
            return self.invite_one_of(now, id, &addresses);
        }
        let mut underway = self.lookups.values_mut();
        if let Some(lookup) = underway.find(|it| it.name == name && it.port == port) {
            lookup.waiting = waiting.or(lookup.waiting);
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let lookup = Lookup {
            name: name.clone(),
            port,
            waiting,
        };
        self.lookups.insert(ticket, lookup);
        self.outputs.push_back(Output::Resolve {
            ticket,
            host: name,
            port,
        });
    }

    pub(super) fn on_resolved(&mut self, now: Instant, ticket: u64, addresses: &[SocketAddr]) {
        let Some(lookup) = self.lookups.remove(&ticket) else {
            return;
        };
        let Lookup {
            name,
            port,
            waiting,
        } = lookup;
        if let Some(known) = self.known.get_mut(&name)
            && !addresses.is_empty()
        {
            *known = addresses
                .iter()
                .map(|address| address.ip().to_canonical())
                .collect();
        }
        match waiting {
            Some(id) => self.invite_one_of(now, id, addresses),
            None if addresses.is_empty() || self.late.len() >= LINKS_MAX => {}
            None => drop(self.late.insert((name, port), addresses.to_vec())),
        }
    }

    fn invite_one_of(&mut self, now: Instant, id: ChannelId, addresses: &[SocketAddr]) {
        let uri = self.links.get(&id).and_then(|link| link.uri.as_deref());
        let Some(transport) = uri.and_then(Host::of).map(|host| host.transport) else {
            return;
        };
        // The first that one of our listeners can speak to.
        let mut flows = addresses.iter();
        match flows.find_map(|&peer| self.sip.flow_over(transport, peer)) {
            Some(flow) => self.invite(now, id, flow),
            None => self.end(now, id, Lost::Refused(404), "no such host"),
        }
    }

    fn invite(&mut self, now: Instant, id: ChannelId, flow: Flow) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let body = describe::offer(&link.local);
        let invitation = Invitation {
            target: link.uri.clone().unwrap_or_default(),
            from: self.cluster.config().cfw_uri.clone(),
            contact_user: RoomName::CONTROL.to_owned(),
            body: Some(body.clone()),
            ..Invitation::default()
        };
        link.stage = Stage::Inviting;
        link.signalling = Some(flow.peer.ip());
        link.described = Some(body);
        match self.sip.invite(now, flow, invitation) {
            Ok(call) => {
                link.call = Some(call);
                self.by_call.insert(call, id);
            }
            Err(_) => self.end(now, id, Lost::Refused(503), "too many calls"),
        }
    }

    pub(super) fn on_sip_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Invite(invite) => self.on_invite(now, *invite),
            Event::Reinvite { call, body } => self.on_reinvite(now, call, body),
            Event::Established { call, .. } => self.on_established(now, call),
            Event::Accepted { call, body } => self.on_accepted(now, call, body),
            Event::Redirected { call, .. } => self.on_refused(now, call, Lost::Refused(302)),
            Event::Rejected { call, status, .. } => {
                let why = match status {
                    408 => Lost::Timeout,
                    status => Lost::Refused(status),
                };
                self.on_refused(now, call, why);
            }
            Event::Ended { call, cause } => {
                let why = match cause {
                    Ended::PeerBye | Ended::Cancelled => Lost::Bye,
                    Ended::LocalBye => Lost::Closed,
                    Ended::TransportFailed => Lost::Reset,
                    Ended::AckTimeout | Ended::PrackTimeout | Ended::SessionExpired => {
                        Lost::Timeout
                    }
                };
                self.on_refused(now, call, why);
            }
            Event::Options { request, .. } => self.on_options(now, request),
            Event::Request(request) => {
                let rejection = Rejection::new(405);
                self.sip.refuse_request(now, request.key, &rejection);
            }
            // Keys, and what belongs to subscriptions, which nobody has here.
            _ => {}
        }
    }

    fn on_options(&mut self, now: Instant, request: RequestKey) {
        let from = self.from.map(|flow| flow.peer.ip());
        let is_peer = from.is_some_and(|from| self.is_peer(from));
        let refused = (!is_peer).then(|| Rejection::new(403));
        self.sip.respond_options(now, request, refused);
    }

    fn on_invite(&mut self, now: Instant, invite: Invite) {
        let Invite {
            call, flow, body, ..
        } = invite;
        let local = self.new_local();
        let mut link = Link::new(Stage::Answered, now + ANSWERED_BUDGET, local);
        let (body, agreed) = match self.judge(flow, body, &link) {
            Ok(answer) => answer,
            Err(rejection) => {
                self.counters.refused += 1;
                return self.sip.reject(now, call, rejection);
            }
        };
        self.next_accepted += 1;
        let id = ChannelId::Accepted(self.next_accepted);
        link.call = Some(call);
        link.signalling = Some(flow.peer.ip());
        link.described = Some(body.clone());
        link.agreed = Some(agreed);
        self.links.insert(id, link);
        self.by_call.insert(call, id);
        self.sip.accept(now, call, RoomName::CONTROL, body);
    }

    /// Whether a channel is to be had, and on what terms.
    fn judge(
        &self,
        flow: Flow,
        body: Option<Body>,
        link: &Link,
    ) -> Result<(Body, Agreement), Rejection> {
        if !self.is_peer(flow.peer.ip()) {
            tracing::debug!(peer = %flow.peer, "control channel refused: not a server that is known");
            return Err(Rejection::new(403));
        }
        if self.leaving || self.links.len() >= LINKS_MAX {
            return Err(Rejection::new(503).retry_after(RETRY_AFTER_S));
        }
        // Who expects our offer would have to be called back to be known.
        let body = body.ok_or_else(|| Rejection::new(488).warning(399, "an offer is needed"))?;
        let offer = describe::read(&body).map_err(rejection)?;
        describe::answer(&offer, &link.local, false).map_err(rejection)
    }

    /// The session is refreshed, or whoever was connected wants to connect again.
    fn on_reinvite(&mut self, now: Instant, call: CallKey, body: Option<Body>) {
        let id = self.by_call.get(&call).copied();
        let link = id.and_then(|id| self.links.get_mut(&id));
        let (Some(id), Some(link)) = (id, link) else {
            return self.sip.reject(now, call, Rejection::new(481));
        };
        let offer = match body.as_ref().map(describe::read).transpose() {
            Ok(offer) => offer,
            Err(error) => return self.sip.reject(now, call, rejection(error)),
        };
        let known = link.agreed.as_ref().map(|agreed| &agreed.peer_cfw_id);
        let answer = match offer {
            // It never changes for as long as the dialog lives (RFC 6230 §4.1).
            Some(offer) if known != Some(&offer.cfw_id) => Err(Rejection::new(488)),
            Some(offer) => {
                link.local.version += 1;
                // One that is there may stay; where there is none, it can only be a new one (RFC 4145 §5).
                let stays = link.is_up() && offer.connection == Connection::Existing;
                match describe::answer(&offer, &link.local, stays) {
                    Ok((body, _)) if stays => {
                        link.described = Some(body.clone());
                        Ok(body)
                    }
                    Ok((body, agreed)) => {
                        self.revive(now, id, body.clone(), agreed);
                        Ok(body)
                    }
                    Err(error) => Err(rejection(error)),
                }
            }
            // Whoever asks for an offer hears what was said before.
            None => link.described.clone().ok_or_else(|| Rejection::new(488)),
        };
        match answer {
            Ok(body) => self.sip.accept(now, call, RoomName::CONTROL, body),
            Err(rejection) => self.sip.reject(now, call, rejection),
        }
    }

    /// The connection there was is closed (RFC 4145 §5), and another is to come. To the rules it is another
    /// channel.
    fn revive(&mut self, now: Instant, id: ChannelId, described: Body, agreed: Agreement) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        if link.is_known_as(id) {
            let why = Lost::Reset;
            self.cluster
                .handle(now, Input::ChannelDown { channel: id, why });
        }
        if let Some(conn) = link.conn.take() {
            self.drop_conn(conn);
        }
        link.channel = None;
        link.asked.clear();
        link.sent.clear();
        self.next_accepted += 1;
        let id = ChannelId::Accepted(self.next_accepted);
        link.stage = Stage::Answered;
        link.deadline = Some(now + ANSWERED_BUDGET);
        link.described = Some(described);
        link.agreed = Some(agreed);
        if let Some(call) = link.call {
            self.by_call.insert(call, id);
        }
        self.links.insert(id, link);
    }

    /// The ACK has come: if we are to connect, now is the time (RFC 6230 §6).
    fn on_established(&mut self, now: Instant, call: CallKey) {
        let Some(&id) = self.by_call.get(&call) else {
            return;
        };
        let waits =
            |link: &Link| link.stage == Stage::Answered && link.role() == Some(Role::Active);
        if self.links.get(&id).is_some_and(waits) {
            self.connect(now, id);
        }
    }

    fn on_accepted(&mut self, now: Instant, call: CallKey, body: Option<Body>) {
        let Some(&id) = self.by_call.get(&call) else {
            return self.sip.bye(now, call, None);
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let answer = body.ok_or(sdp::Rejection::Malformed);
        match answer.and_then(|body| describe::accept(&link.local, &body)) {
            Ok(agreed) => {
                let role = agreed.role;
                link.agreed = Some(agreed);
                match role {
                    Role::Active => self.connect(now, id),
                    Role::Passive => {
                        link.stage = Stage::Answered;
                        link.deadline = Some(now + ANSWERED_BUDGET);
                    }
                }
            }
            Err(error) => self.end(now, id, Lost::Refused(488), &error.to_string()),
        }
    }

    /// A call is over, and so is its channel.
    fn on_refused(&mut self, now: Instant, call: CallKey, why: Lost) {
        if let Some(id) = self.by_call.remove(&call) {
            if let Some(link) = self.links.get_mut(&id) {
                link.call = None;
            }
            self.end(now, id, why, "the dialog is over");
        }
    }
}

fn rejection(error: sdp::Rejection) -> Rejection {
    Rejection::new(error.status()).warning(399, &error.to_string())
}
