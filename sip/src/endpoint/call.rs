//! A call: one INVITE dialog, from its first request to its BYE (RFC 3261 §12 to §15).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::Purpose;
use super::dialog::{Dialog, Usage};
use super::reliable::Reliability;
use super::session::{Session, Wish};
use super::{CallKey, Ended, Endpoint, Event, SlotKey, SubscriptionKey, Wake};
use crate::message::Message;
use crate::message::build::Extra;
use crate::{Body, Flow, digest};

#[derive(Debug)]
pub(super) struct Call {
    pub(super) generation: u32,
    pub(super) dialog: Dialog,
    pub(super) phase: Phase,
    /// The user has been told that it is over.
    pub(super) ended: bool,
    pub(super) peer: Abilities,
    /// What the peer's latest INVITE or UPDATE wants of the session timer.
    pub(super) wish: Wish,
    pub(super) session: Option<Session>,
    /// The last description of ours, to be said again when the session is refreshed.
    pub(super) described: Option<Body>,
    /// Our provisional responses that want a PRACK, as server.
    pub(super) reliability: Option<Box<Reliability>>,
    /// The peers that a forking proxy brought us to, as client: their tags, with the number of the last
    /// provisional response acknowledged, if any was.
    pub(super) branches: Vec<(String, Option<u32>)>,
    pub(super) credentials: Option<Arc<digest::Credentials>>,
    /// Subscriptions within this dialog, and how many REFERs have come in it.
    pub(super) subscriptions: Vec<SubscriptionKey>,
    pub(super) refers: u32,
    /// We have sent a REFER in it, and are told how that goes.
    pub(super) referring: bool,
}

/// What the peer can do, by its Allow and Supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) update: bool,
    pub(super) message: bool,
    pub(super) refer: bool,
    pub(super) timer: bool,
    pub(super) replaces: bool,
}

impl Abilities {
    /// What a later request of a peer says: one without Allow changes nothing of what he takes.
    pub(super) fn learn(&mut self, message: &Message<'_>) {
        let before = *self;
        *self = Self::of(message);
        if message.header("Allow").is_none() {
            self.update = before.update;
            self.message = before.message;
            self.refer = before.refer;
        }
        if message.header("Supported").is_none() {
            self.replaces = before.replaces;
        }
    }

    pub(super) fn of(message: &Message<'_>) -> Self {
        let mut abilities = Self::default();
        for method in message.words("Allow") {
            abilities.update |= method == "UPDATE";
            abilities.message |= method == "MESSAGE";
            abilities.refer |= method == "REFER";
        }
        for option in message.words("Supported").chain(message.words("Require")) {
            abilities.timer |= option.eq_ignore_ascii_case("timer");
            abilities.replaces |= option.eq_ignore_ascii_case("replaces");
        }
        abilities
    }
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Somebody called and has no final answer.
    Incoming { invite: SlotKey },
    /// We called and have no final answer.
    Outgoing {
        invite: SlotKey,
        /// The user wants it no more.
        cancelling: bool,
        /// The CANCEL is on its way.
        cancelled: bool,
    },
    /// Accepted, by us or by the peer.
    Up(Up),
}

#[derive(Debug, Default)]
pub(super) struct Up {
    /// Our 2xx that waits for its ACK.
    pub(super) answer: Option<Answer>,
    /// A re-INVITE or UPDATE of the peer that waits for our answer.
    pub(super) change: Option<SlotKey>,
    /// A re-INVITE or UPDATE of ours waits for the peer's answer.
    pub(super) refreshing: bool,
    /// The offer of a re-INVITE that the user has asked for.
    pub(super) offered: Option<Box<Body>>,
    /// The 2xx to an INVITE of ours, by its transaction and number, whose offer the user has not answered.
    pub(super) unacknowledged: Option<(SlotKey, u32)>,
    /// Our ACK of the peer's 2xx with its number, for when that comes again.
    pub(super) ack: Option<(u32, Bytes)>,
    /// BYE as soon as the ACK has come (RFC 3261 §15), for this reason.
    pub(super) bye: Option<Option<String>>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Bytes,
    pub(super) flow: Flow,
    pub(super) cseq: u32,
}

impl Call {
    pub(super) fn new(generation: u32, dialog: Dialog, phase: Phase) -> Self {
        Self {
            generation,
            dialog,
            phase,
            ended: false,
            peer: Abilities::default(),
            wish: Wish::default(),
            session: None,
            described: None,
            reliability: None,
            branches: Vec::new(),
            credentials: None,
            subscriptions: Vec::new(),
            refers: 0,
            referring: false,
        }
    }

    pub(super) fn up(&mut self) -> Option<&mut Up> {
        match &mut self.phase {
            Phase::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    /// We called, and want it no more.
    pub(super) fn is_cancelling(&self) -> bool {
        matches!(
            self.phase,
            Phase::Outgoing {
                cancelling: true,
                ..
            }
        )
    }

    /// A BYE is still to be sent.
    pub(super) fn owes_bye(&self) -> bool {
        matches!(self.phase, Phase::Up(Up { bye: Some(_), .. }))
    }
}

impl Endpoint {
    pub(super) fn call(&mut self, key: CallKey) -> Option<&mut Call> {
        self.calls
            .get_mut(key.slot as usize)
            .map(|call| &mut **call)
            .filter(|call| call.generation == key.generation)
    }

    pub(super) fn add_call(&mut self, call: Call) -> CallKey {
        let dialog = call.dialog.key();
        let key = CallKey {
            generation: call.generation,
            slot: self.calls.insert(Box::new(call)) as u32,
        };
        self.dialog_of.insert(dialog, Usage::Call(key));
        key
    }

    pub(super) fn drop_call(&mut self, now: Instant, key: CallKey) {
        if let Some(call) = self.call(key) {
            let unanswered = match &call.phase {
                Phase::Incoming { invite } => Some(*invite),
                Phase::Up(up) => up.change,
                Phase::Outgoing { .. } => None,
            };
            // Who asked last is told too (RFC 3261 §15.1.2); what has an answer already keeps it.
            if let Some(request) = unanswered {
                self.respond(now, request, 487, Extra::default(), None);
            }
            let call = self.calls.remove(key.slot as usize);
            let dialog = call.dialog.key();
            if self.dialog_of.get(&dialog) == Some(&Usage::Call(key)) {
                self.dialog_of.remove(&dialog);
            }
            for subscription in call.subscriptions {
                self.lose_subscription(subscription);
            }
        }
    }

    /// Tells the user once that the call is over.
    pub(super) fn end(&mut self, key: CallKey, cause: Ended) {
        if let Some(call) = self.call(key)
            && !std::mem::replace(&mut call.ended, true)
        {
            self.tell(Event::Ended { call: key, cause });
        }
    }

    /// Sends our 2xx, now and until its ACK comes.
    pub(super) fn await_ack(&mut self, now: Instant, key: CallKey, answer: Answer) {
        let (t1, patience) = (self.config.timers.t1, self.config.timers.patience());
        let Some(up) = self.call(key).and_then(Call::up) else {
            return;
        };
        let cseq = answer.cseq;
        up.answer = Some(answer);
        let interval = t1;
        self.arm(now + t1, Wake::Answer(key, cseq, interval));
        self.arm(now + patience, Wake::AckTimeout(key, cseq));
    }

    /// RFC 3261 §13.3.1.4: the 2xx is repeated by us, on reliable transports too.
    pub(super) fn on_answer_due(
        &mut self,
        now: Instant,
        key: CallKey,
        cseq: u32,
        interval: Duration,
    ) {
        let t2 = self.config.timers.t2;
        let waiting = self.call(key).and_then(Call::up);
        let Some(answer) = waiting
            .and_then(|up| up.answer.as_ref())
            .filter(|answer| answer.cseq == cseq)
        else {
            return;
        };
        let (flow, response) = (answer.flow, answer.response.clone());
        self.transmit(flow, response);
        let interval = (interval * 2).min(t2);
        self.arm(now + interval, Wake::Answer(key, cseq, interval));
    }

    /// Nobody acknowledges: the dialog is confirmed to be of no use, and ended.
    pub(super) fn on_ack_timeout(&mut self, now: Instant, key: CallKey, cseq: u32) {
        let waiting = self.call(key).and_then(Call::up);
        if waiting.is_some_and(|up| up.answer.as_ref().is_some_and(|a| a.cseq == cseq)) {
            self.end(key, Ended::AckTimeout);
            self.send_bye(now, key, Some("ACK timeout"));
        }
    }

    /// Sends BYE and lets go of the call; the BYE's transaction lives on without it.
    pub(super) fn send_bye(&mut self, now: Instant, key: CallKey, reason: Option<&str>) {
        let Some(dialog) = self.call(key).map(|call| call.dialog.key()) else {
            return;
        };
        let extra = reason_line(Extra::default(), reason);
        let purpose = Purpose::Bye(dialog.clone());
        let bye = self.send_in_dialog(now, Usage::Call(key), "BYE", extra, None, purpose);
        self.drop_call(now, key);
        if let Some(bye) = bye {
            self.dialog_of.insert(dialog, Usage::Closing(bye));
        }
    }

    /// A connection has gone. Calls over it go on, since their sound does, and are reached over a new
    /// connection where one can be made; a browser's cannot.
    pub fn handle_flow_closed(&mut self, now: Instant, flow: Flow) {
        let of_flow =
            |other: &Flow| other.stream == flow.stream && other.transport == flow.transport;
        let keys: Vec<CallKey> = self
            .calls
            .iter()
            .filter(|(_, call)| of_flow(&call.dialog.flow))
            .map(|(slot, call)| CallKey {
                slot: slot as u32,
                generation: call.generation,
            })
            .collect();
        for key in keys {
            let listeners = self.config.listeners.clone();
            let Some(call) = self.call(key) else { continue };
            match call.dialog.reached_anew(&listeners) {
                Some(anew) if call.is_up() => call.dialog.flow = anew,
                _ => {
                    self.end(key, Ended::TransportFailed);
                    self.drop_call(now, key);
                }
            }
        }
        self.on_subscribers_flow_closed(flow);
        self.handle_flow_failed(now, flow);
    }
}

/// RFC 3326: for people who read traces.
pub(super) fn reason_line(extra: Extra, reason: Option<&str>) -> Extra {
    match reason {
        Some(text) => extra.line("Reason", format_args!("SIP;text=\"{text}\"")),
        None => extra,
    }
}
