//! Provisional responses that arrive for certain (RFC 3262): ours, repeated until a PRACK comes, and the
//! peer's, acknowledged by one.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::call::Call;
use super::client::Purpose;
use super::incoming::{Identity, Refusal};
use super::{CallKey, Ended, Endpoint, SlotKey, Wake};
use crate::Flow;
use crate::message::Message;
use crate::message::build::Extra;

/// Branches of a fork that are kept apart.
const BRANCHES_MAX: usize = 16;

/// What we sent reliably while the INVITE has no final response.
#[derive(Debug)]
pub(super) struct Reliability {
    /// Number of the latest reliable response; the first one begins low enough for all to come.
    rseq: u32,
    /// Number of the INVITE.
    cseq: u32,
    /// The INVITE has an offer; else the first reliable response would have to (RFC 3262 §5).
    has_offer: bool,
    /// Not acknowledged yet; a PRACK may come even after the final response.
    outstanding: bool,
    /// What is repeated, and until when.
    waiting: Option<(Bytes, Flow, Instant)>,
}

impl Endpoint {
    /// Notes that the caller demands reliable provisional responses.
    pub(super) fn reliability(&mut self, cseq: u32, has_offer: bool) -> Box<Reliability> {
        Box::new(Reliability {
            rseq: (self.random() % 0x7FFF_0000) as u32,
            cseq,
            has_offer,
            outstanding: false,
            waiting: None,
        })
    }

    /// Sends a provisional response with a body or not, reliably where the caller demands it. One at a
    /// time: another while the last is not acknowledged is left out (RFC 3262 §3), and so is every one to
    /// an INVITE without an offer.
    pub(super) fn provisional(&mut self, now: Instant, key: CallKey, invite: SlotKey, status: u16) {
        let (t1, patience) = (self.config.timers.t1, self.config.timers.patience());
        let contact = self.call(key).map(|call| call.dialog.contact.clone());
        let extra = Extra::default().record_routes();
        let extra = match contact {
            Some(contact) if !contact.is_empty() => extra.line("Contact", contact),
            _ => extra,
        };
        let Some(reliability) = self.call(key).and_then(|call| call.reliability.as_mut()) else {
            drop(self.respond(now, invite, status, extra, None));
            return;
        };
        if reliability.outstanding || !reliability.has_offer {
            return;
        }
        reliability.outstanding = true;
        reliability.rseq += 1;
        let rseq = reliability.rseq;
        let extra = extra.line("Require", "100rel").line("RSeq", rseq);
        let Some(flow) = self.server(invite).map(|server| server.template.flow) else {
            return;
        };
        let response = self.respond(now, invite, status, extra, None);
        if let Some(reliability) = self.call(key).and_then(|call| call.reliability.as_mut()) {
            reliability.waiting = Some((response, flow, now + patience));
        }
        self.arm(now + t1, Wake::Reliable(key, rseq, t1));
    }

    pub(super) fn on_reliable_due(
        &mut self,
        now: Instant,
        key: CallKey,
        rseq: u32,
        interval: Duration,
    ) {
        let Some(call) = self.call(key) else { return };
        let Some((response, flow, until)) = call
            .reliability
            .as_ref()
            .filter(|reliability| reliability.rseq == rseq)
            .and_then(|reliability| reliability.waiting.clone())
        else {
            return;
        };
        let super::call::Phase::Incoming { invite } = call.phase else {
            return;
        };
        if now >= until {
            self.respond(now, invite, 504, Extra::default(), None);
            self.end(key, Ended::PrackTimeout);
            return self.drop_call(now, key);
        }
        self.transmit(flow, response);
        let interval = (interval * 2).min(until - now);
        self.arm(now + interval, Wake::Reliable(key, rseq, interval));
    }

    pub(super) fn on_prack(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let mut parts = request
            .header("RAck")
            .unwrap_or_default()
            .split_whitespace();
        let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
        let (rseq, cseq) = (number(), number());
        let is_invite = parts.next() == Some("INVITE");
        let reliability = self.call(key).and_then(|call| call.reliability.as_mut());
        match reliability {
            Some(reliability)
                if reliability.outstanding
                    && is_invite
                    && rseq == Some(reliability.rseq)
                    && cseq == Some(reliability.cseq) =>
            {
                reliability.outstanding = false;
                reliability.waiting = None;
                self.respond(now, transaction, 200, Extra::default(), None);
                Ok(())
            }
            _ => Err(Refusal::new(481)),
        }
    }

    /// A provisional response to our INVITE that wants a PRACK gets one (RFC 3262 §4). Tells whether the
    /// response is news: neither a repetition nor one whose turn has not come.
    pub(super) fn acknowledge_provisional(
        &mut self,
        now: Instant,
        flow: Flow,
        key: CallKey,
        response: &Message<'_>,
    ) -> bool {
        let Ok(identity) = Identity::of(response, "INVITE") else {
            return false;
        };
        let wants = response
            .words("Require")
            .any(|option| option.eq_ignore_ascii_case("100rel"));
        let rseq: Option<u32> = response.header("RSeq").and_then(|rseq| rseq.parse().ok());
        let rseq = rseq.filter(|_| wants);
        let Some(tag) = identity.to.tag.clone() else {
            return rseq.is_none();
        };
        let branch = self.new_branch();
        let user_agent = self.config.user_agent.clone();
        let listeners = self.config.listeners.clone();
        let Some(call) = self.call(key) else {
            return false;
        };
        let known = call.branches.iter().position(|(known, _)| *known == tag);
        let has_room = call.branches.len() < BRANCHES_MAX;
        let Some(rseq) = rseq else {
            if known.is_none() && has_room {
                call.branches.push((tag, None));
            }
            return true;
        };
        match known.map(|place| &mut call.branches[place].1) {
            Some(last) if last.is_none_or(|last| rseq == last.wrapping_add(1)) => {
                *last = Some(rseq);
            }
            // Again, or out of order: its turn comes when it is sent anew.
            Some(_) => return false,
            None if has_room => call.branches.push((tag, Some(rseq))),
            None => return false,
        }
        call.dialog.local_cseq += 1;
        let mut early = call.dialog.clone();
        early.remote = identity.to.value;
        early.learn(response, flow, &listeners);
        let rack = format!("{rseq} {} INVITE", identity.cseq.number);
        let extra = Extra::default()
            .line("RAck", rack)
            .line("User-Agent", user_agent);
        let via = self.via(&early.flow, &branch);
        let request = early.request("PRACK", &via, early.local_cseq, extra, None);
        self.start_client(now, branch, early.flow, request, Purpose::Prack(key));
        true
    }
}

impl Call {
    /// The caller has a final response: nothing provisional is repeated.
    pub(super) fn settle_reliability(&mut self) {
        if let Some(reliability) = &mut self.reliability {
            reliability.waiting = None;
        }
    }
}
