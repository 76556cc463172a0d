//! Callers who are connected to another server by a leg of ours, where whoever is before us follows no 302.
//!
//! ```text
//!   caller                      here                     other server
//!     INVITE, offer ──────────>   INVITE, same offer ───────────>
//!     <────────────────── 180     <────────────────── 180
//!     <────────── 200, answer     <────────── 200, same answer
//!     ACK ────────────────────>   ACK ──────────────────────────>
//!     <══════════════════════ sound ════════════════════════════>
//! ```
//! The sound takes no part in it: each side learns the other's address from the descriptions, which go
//! through unchanged. What either side does later (other terms, keys, texts, BYE) is done to the other.

use std::collections::HashMap;

use cfw::SvrId;
use sip::{Body, CallKey, Event, Flow, Invitation, Invite, Method, Rejection, Request};

use super::access::Entry;
use super::lookups::{Host, Then};
use super::marks::Marks;
use super::{Focus, Means};
use crate::io::MediaIo;

/// Callers connected elsewhere at once.
const RELAYED_MAX: usize = 10_000;

/// Keys by INFO, as most phones write them.
const DTMF_RELAY: &str = "application/dtmf-relay";

/// Why a caller's call ends whose other server is no more, for people who read traces.
const LOST: &str = "server lost";

#[derive(Default)]
pub(super) struct Relays {
    /// Each leg by the other.
    other: HashMap<CallKey, Leg>,
}

#[derive(Clone)]
struct Leg {
    other: CallKey,
    server: SvrId,
    /// User part of our Contact on this leg.
    user: String,
}

impl Relays {
    pub(super) fn len(&self) -> usize {
        self.other.len() / 2
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &CallKey> {
        self.other.keys()
    }

    fn tie(&mut self, caller: CallKey, callee: CallKey, server: SvrId, user: &str) {
        let leg = |other| Leg {
            other,
            server,
            user: user.to_owned(),
        };
        self.other.insert(caller, leg(callee));
        self.other.insert(callee, leg(caller));
    }

    /// Unties both legs; gives the other.
    fn untie(&mut self, call: CallKey) -> Option<Leg> {
        let leg = self.other.remove(&call)?;
        self.other.remove(&leg.other);
        Some(leg)
    }
}

impl Focus {
    /// Connects a caller to another server.
    pub(super) fn relay<I: MediaIo>(
        &mut self,
        invite: Invite,
        entry: &Entry,
        target: &str,
        server: SvrId,
        means: &mut Means<'_, I>,
    ) {
        let caller = invite.call;
        // Who has a number to key in does that there.
        let own = (*entry == Entry::Free).then_some(self.config.server.id);
        let target = Marks::relay(target, own);
        let flow = means.sip.flow_to(&target);
        let host = Host::of(&target);
        let invitation = Invitation {
            target,
            from: invite.from_uri,
            from_display: invite.from_display,
            contact_user: invite.room_user.unwrap_or_default(),
            body: invite.body,
            headers: Vec::new(),
            credentials: None,
        };
        match host.filter(|_| flow.is_none()) {
            Some(host) => {
                let invitation = Box::new(invitation);
                let then = Then::Relay {
                    caller,
                    server,
                    invitation,
                };
                if self.lookups.begin(host, then).is_err() {
                    self.turn_away(caller, means);
                }
            }
            None => self.relay_over(caller, server, invitation, flow, means),
        }
    }

    /// Calls the other server, unless the caller has gone since.
    pub(super) fn relay_over<I: MediaIo>(
        &mut self,
        caller: CallKey,
        server: SvrId,
        invitation: Invitation,
        flow: Option<Flow>,
        means: &mut Means<'_, I>,
    ) {
        if means.sip.peer_of(caller).is_none() {
            return;
        }
        let user = invitation.contact_user.clone();
        let callee = flow
            .filter(|_| self.relays.len() < RELAYED_MAX)
            .and_then(|flow| means.sip.invite(means.now, flow, invitation).ok());
        match callee {
            Some(callee) => self.relays.tie(caller, callee, server, &user),
            None => self.turn_away(caller, means),
        }
    }

    /// Does to the other leg what has happened on one; gives back what is not of a relayed call.
    pub(super) fn pass_on<I: MediaIo>(
        &mut self,
        event: Event,
        means: &mut Means<'_, I>,
    ) -> Option<Event> {
        if self.relays.other.is_empty() {
            return Some(event);
        }
        let call = match &event {
            Event::Reinvite { call, .. }
            | Event::Established { call, .. }
            | Event::Progress { call, .. }
            | Event::Accepted { call, .. }
            | Event::Redirected { call, .. }
            | Event::Rejected { call, .. }
            | Event::Changed { call, .. }
            | Event::Ended { call, .. }
            | Event::Dtmf { call, .. } => *call,
            _ => return Some(event),
        };
        let Some(leg) = self.relays.other.get(&call).cloned() else {
            return Some(event);
        };
        let (now, other) = (means.now, leg.other);
        match event {
            Event::Progress { status, .. } => means.sip.progress(now, other, status, &leg.user),
            Event::Accepted { body, .. } => self.pass_success(call, &leg, body, means),
            Event::Changed {
                status: 200..300,
                body,
                ..
            } => self.pass_success(call, &leg, body, means),
            Event::Changed { status, .. } => means.sip.reject(now, other, refusal(status)),
            // The answer to an offer that came over the other leg, if one did.
            Event::Established { body, .. } => means.sip.acknowledge_offer(other, body.as_ref()),
            Event::Reinvite { body, .. } => {
                if !means.sip.reinvite(now, other, body.as_ref()) {
                    means.sip.reject(now, call, Rejection::new(491));
                }
            }
            Event::Dtmf { digit, .. } => {
                let key = Body {
                    content_type: DTMF_RELAY.to_owned(),
                    content: format!("Signal={digit}\r\nDuration=160\r\n").into(),
                };
                means
                    .sip
                    .request_in_call(now, other, "INFO", &[], Some(&key));
            }
            Event::Rejected {
                status,
                retry_after_s,
                ..
            } => {
                self.relays.untie(call);
                means.meters.calls_rejected.add(1);
                let refused = refusal(status);
                let refused = match retry_after_s {
                    Some(seconds) => refused.retry_after(seconds),
                    None => refused,
                };
                means.sip.reject(now, other, refused);
            }
            // He was sent there because there is nowhere else.
            Event::Redirected { .. } => {
                self.relays.untie(call);
                self.turn_away(other, means);
            }
            Event::Ended { .. } => {
                self.relays.untie(call);
                means.sip.bye(now, other, None);
            }
            other => return Some(other),
        }
        None
    }

    /// Does with a request within a relayed call what is to be done; false if it is for the room.
    pub(super) fn pass_request_on<I: MediaIo>(
        &mut self,
        request: &Request,
        means: &mut Means<'_, I>,
    ) -> bool {
        let leg = request.call.and_then(|call| self.relays.other.get(&call));
        let Some(leg) = leg else { return false };
        let (now, other) = (means.now, leg.other);
        match request.method {
            Method::Message => {
                means.sip.respond_request(now, request.key, 202, &[]);
                if means.sip.takes_messages(other) {
                    let author = request.header("Reply-To");
                    let author = author.map(|value| ("Reply-To", value.to_owned()));
                    let body = request.body.as_ref();
                    means
                        .sip
                        .request_in_call(now, other, "MESSAGE", author.as_slice(), body);
                }
                true
            }
            // Who is asked to call elsewhere is the one on the other leg; we would call for ourselves.
            Method::Refer => {
                let rejection = Rejection::new(603);
                means.sip.refuse_request(now, request.key, &rejection);
                true
            }
            // Who is in the conference is known here as well.
            Method::Subscribe => false,
        }
    }

    /// The far end of a leg has taken an INVITE of ours: whoever sent it to us hears so.
    fn pass_success<I: MediaIo>(
        &mut self,
        call: CallKey,
        leg: &Leg,
        body: Option<Body>,
        means: &mut Means<'_, I>,
    ) {
        let (now, other) = (means.now, leg.other);
        match body {
            Some(body) if means.sip.is_asked(other) => {
                means.sip.accept(now, other, &leg.user, body);
            }
            // He has taken it back meanwhile, so that nobody answers what the far end may offer.
            Some(_) => means.sip.acknowledge_offer(call, None),
            // No session can come of it.
            None => {
                self.relays.untie(call);
                means.sip.reject(now, other, refusal(500));
                means.sip.bye(now, other, None);
                means.sip.bye(now, call, None);
            }
        }
    }

    /// Ends the calls of those who were connected to a server that is dead: nobody would tell them else
    /// that they are heard by nobody, and whoever is before us may call again.
    pub(super) fn end_relays_to<I: MediaIo>(&mut self, server: SvrId, means: &mut Means<'_, I>) {
        let legs = self.relays.other.iter();
        let to_it = legs.filter(|(_, leg)| leg.server == server);
        let mut calls: Vec<CallKey> = to_it.map(|(&call, _)| call).collect();
        // In order, so that every run is the same.
        calls.sort_unstable();
        for call in calls {
            self.relays.untie(call);
            means.sip.bye(means.now, call, Some(LOST));
        }
    }
}

/// A refusal of the far end, as the near one gets it. A challenge is not his to answer.
fn refusal(status: u16) -> Rejection {
    match status {
        401 | 407 => Rejection::new(403),
        300..400 => Rejection::new(503),
        408 => Rejection::new(504),
        400..700 => Rejection::new(status),
        _ => Rejection::new(500),
    }
}
