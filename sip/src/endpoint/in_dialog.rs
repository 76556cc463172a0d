//! Requests within a dialog (RFC 3261 §12.2.2), and those that refer to a transaction: ACK and CANCEL.

use std::time::Instant;

use super::abilities::{SUPPORTED, capabilities, is_media_type, session_description};
use super::call::{Abilities, Call, Phase};
use super::dialog::{DialogKey, Usage};
use super::event::Method;
use super::incoming::{Identity, Incoming, Refusal};
use super::{CallKey, Ended, Endpoint, Event, ServerMachine, ServerTransaction, SlotKey};
use crate::message::build::Extra;
use crate::message::{Message, Via};
use crate::sipfrag;
use crate::transaction::Acts;
use crate::transaction::key::Key;

/// Keys by INFO, in the two forms that phones have (both without an RFC).
const DTMF_RELAY: &str = "application/dtmf-relay";
const DTMF: &str = "application/dtmf";

impl Endpoint {
    pub(super) fn on_in_dialog(
        &mut self,
        now: Instant,
        incoming: &Incoming<'_>,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let &Incoming {
            message,
            method,
            identity,
            flow,
            ..
        } = incoming;
        let dialog = DialogKey {
            call_id: identity.call_id.clone(),
            local_tag: identity.to.tag.clone().unwrap_or_default(),
        };
        let key = match self.dialog_of.get(&dialog) {
            Some(&Usage::Call(key)) => key,
            Some(&Usage::Subscription(key)) => {
                return self.on_subscribed_again(now, message, identity, key, transaction, flow);
            }
            // Both hang up at once: both are right.
            Some(&Usage::Closing(_)) if method == "BYE" => {
                self.respond(now, transaction, 200, Extra::default(), None);
                return Ok(());
            }
            Some(&Usage::Closing(_)) | None => return Err(Refusal::new(481)),
        };
        let known = self
            .call(key)
            .filter(|call| call.dialog.is_with(&identity.from) || call.is_early(message));
        let Some(call) = known else {
            return Err(Refusal::new(481));
        };
        if matches!(call.phase, Phase::Outgoing { .. }) {
            return self.on_early(now, incoming, key, transaction);
        }
        let number = identity.cseq.number;
        if call.dialog.remote_cseq.is_some_and(|last| number <= last) {
            return Err(Refusal::new(500));
        }
        call.dialog.remote_cseq = Some(number);
        call.dialog.follow(message, flow);
        // The user has been told that it is over; only our BYE has to wait for an ACK.
        if call.ended && method != "BYE" {
            return Err(Refusal::new(481));
        }
        match method {
            "BYE" => {
                self.respond(now, transaction, 200, Extra::default(), None);
                self.on_bye(now, key);
                Ok(())
            }
            "INVITE" => self.on_change(message, key, transaction),
            "UPDATE" => self.on_update(now, message, key, transaction),
            "PRACK" => self.on_prack(now, message, key, transaction),
            "INFO" => self.on_info(now, message, key, transaction),
            "NOTIFY" => self.on_notify(now, message, key, transaction),
            "OPTIONS" => {
                let extra = capabilities(self.allow());
                self.respond(now, transaction, 200, extra, None);
                Ok(())
            }
            _ => {
                if method == "SUBSCRIBE"
                    && let Some(known) = self.subscription_in_call(key, message)
                {
                    return self.on_subscribed_again(
                        now,
                        message,
                        identity,
                        known,
                        transaction,
                        flow,
                    );
                }
                let method = Method::of(method).ok_or_else(|| Refusal::new(501))?;
                self.on_users_request(incoming, method, Some(key), transaction)
            }
        }
    }

    /// What a far end of our INVITE asks before it has answered: it may be one of several, and not the one
    /// that will be the peer. So nothing is learned from it, and it must not hang up (RFC 3261 §15).
    fn on_early(
        &mut self,
        now: Instant,
        incoming: &Incoming<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let message = incoming.message;
        match incoming.method {
            // Our offer has no answer yet (RFC 3311 §5.2).
            "UPDATE" if !message.body.is_empty() => Err(Refusal::new(491)),
            "UPDATE" => {
                let contact = self.call(key).map(|call| call.dialog.contact.clone());
                let extra = Extra::default()
                    .line("Supported", SUPPORTED)
                    .line("Contact", contact.unwrap_or_default());
                self.respond(now, transaction, 200, extra, None);
                Ok(())
            }
            "INFO" => self.on_info(now, message, key, transaction),
            "OPTIONS" => {
                let extra = capabilities(self.allow());
                self.respond(now, transaction, 200, extra, None);
                Ok(())
            }
            "INVITE" => Err(Refusal::new(491)),
            _ => Err(Refusal::new(481)),
        }
    }

    fn on_bye(&mut self, now: Instant, key: CallKey) {
        self.end(key, Ended::PeerBye);
        self.drop_call(now, key);
    }

    /// A re-INVITE, or an UPDATE that offers other terms.
    fn on_change(
        &mut self,
        request: &Message<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let body = session_description(request)?;
        let target = request.contact()?;
        let wait = self.random() % 11;
        let peer = Abilities::of(request);
        let wish = self.wish(request, peer)?;
        let Some(call) = self.call(key) else {
            return Err(Refusal::new(481));
        };
        match &mut call.phase {
            Phase::Up(up) if up.refreshing || up.unacknowledged.is_some() => {
                return Err(Refusal::new(491));
            }
            // RFC 3261 §14.2, RFC 3311 §5.2: one after the other.
            Phase::Up(up) if up.change.is_some() || up.answer.is_some() => {
                return Err(Refusal::with(500, "Retry-After", &wait.to_string()));
            }
            Phase::Incoming { .. } => {
                return Err(Refusal::with(500, "Retry-After", &wait.to_string()));
            }
            // See `on_early`.
            Phase::Outgoing { .. } => return Err(Refusal::new(481)),
            Phase::Up(up) => up.change = Some(transaction),
        }
        call.peer.learn(request);
        call.wish = wish;
        if let Some(target) = target {
            call.dialog.target = target;
        }
        if let Some(server) = self.server(transaction) {
            server.call = Some(key);
        }
        self.tell(Event::Reinvite { call: key, body });
        Ok(())
    }

    fn on_update(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        if !request.body.is_empty() {
            return self.on_change(request, key, transaction);
        }
        // No offer: it refreshes the session, or moves the peer's Contact.
        let target = request.contact()?;
        let peer = Abilities::of(request);
        let wish = self.wish(request, peer)?;
        let Some(call) = self.call(key) else {
            return Err(Refusal::new(481));
        };
        // What it wants is for its own answer only: an INVITE that waits for one wants what it wants.
        let wish_before = std::mem::replace(&mut call.wish, wish);
        if let Some(target) = target {
            call.dialog.target = target;
        }
        let is_up = call.is_up();
        let contact = call.dialog.contact.clone();
        let mut extra = Extra::default().line("Supported", SUPPORTED);
        if !contact.is_empty() {
            extra = extra.line("Contact", contact);
        }
        if is_up {
            call.peer.timer = peer.timer;
            extra = self.agree_on_session(now, key, extra);
        }
        if let Some(call) = self.call(key) {
            call.wish = wish_before;
        }
        self.respond(now, transaction, 200, extra, None);
        Ok(())
    }

    fn on_info(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let content_type = request.header("Content-Type");
        let digit = match (request.header("Info-Package"), content_type) {
            (Some(_), _) => return Err(Refusal::with(469, "Recv-Info", "")),
            (None, Some(kind)) if is_media_type(kind, DTMF_RELAY) => relayed_digit(request.body),
            (None, Some(kind)) if is_media_type(kind, DTMF) => plain_digit(request.body),
            (None, Some(_)) => {
                let accept = format!("{DTMF_RELAY}, {DTMF}");
                return Err(Refusal::with(415, "Accept", &accept));
            }
            // Older phones ask so whether the call is alive.
            (None, None) => None,
        };
        self.respond(now, transaction, 200, Extra::default(), None);
        if let Some(digit) = digit {
            self.tell(Event::Dtmf { call: key, digit });
        }
        Ok(())
    }

    /// Of the subscription that a REFER of ours has made; we have no others.
    fn on_notify(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let word = |name| {
            let value = request.header(name).unwrap_or_default();
            value.split(';').next().unwrap_or_default().trim()
        };
        let is_ours = self.call(key).is_some_and(|call| call.referring);
        if !is_ours || !word("Event").eq_ignore_ascii_case("refer") {
            return Err(Refusal::new(481));
        }
        let is_over = word("Subscription-State").eq_ignore_ascii_case("terminated");
        if let Some(call) = self.call(key).filter(|_| is_over) {
            call.referring = false;
        }
        self.respond(now, transaction, 200, Extra::default(), None);
        self.tell(Event::Referred {
            call: key,
            status: sipfrag::read(request.body),
            is_over,
        });
        Ok(())
    }

    pub(super) fn on_cancel(
        &mut self,
        now: Instant,
        cancel: &Message<'_>,
        transaction: SlotKey,
        via: &Via,
    ) -> Result<(), Refusal> {
        let cancelled = Key::of_cancelled(cancel, via);
        let invite = *self
            .server_of
            .get(&cancelled)
            .ok_or_else(|| Refusal::new(481))?;
        let Some(server) = self.server(invite) else {
            return Err(Refusal::new(481));
        };
        let (tag, call) = (server.tag.clone(), server.call);
        let pending =
            matches!(&server.machine, ServerMachine::Invite(machine) if machine.is_pending());
        if let Some(server) = self.server(transaction) {
            // One To-tag for the INVITE and its CANCEL (RFC 3261 §9.2).
            server.tag = tag;
        }
        self.respond(now, transaction, 200, Extra::default(), None);
        if pending {
            self.respond(now, invite, 487, Extra::default(), None);
            if let Some(key) = call {
                self.on_cancelled(now, key);
            }
        }
        Ok(())
    }

    /// What was cancelled is a call, or a change of one that goes on without it.
    fn on_cancelled(&mut self, now: Instant, key: CallKey) {
        match self.call(key).map(|call| &mut call.phase) {
            Some(Phase::Up(up)) => up.change = None,
            Some(_) => {
                self.end(key, Ended::Cancelled);
                self.drop_call(now, key);
            }
            None => {}
        }
    }

    pub(super) fn on_ack(&mut self, now: Instant, ack: &Message<'_>, key: &Key) {
        if let Some(&transaction) = self.server_of.get(key)
            && let Some(ServerTransaction {
                machine: ServerMachine::Invite(machine),
                ..
            }) = self.server(transaction)
        {
            let mut acts = Acts::default();
            machine.on_ack(&mut acts);
            self.act_server(now, transaction, acts);
        }
        let Ok(Identity {
            call_id,
            from,
            to,
            cseq,
        }) = Identity::of(ack, "ACK")
        else {
            return;
        };
        let dialog = DialogKey {
            call_id,
            local_tag: to.tag.unwrap_or_default(),
        };
        let Some(&Usage::Call(key)) = self.dialog_of.get(&dialog) else {
            return;
        };
        let known = self
            .call(key)
            .filter(|call| call.dialog.remote_tag == from.tag);
        let Some(up) = known.and_then(Call::up) else {
            return;
        };
        if up
            .answer
            .as_ref()
            .is_none_or(|answer| answer.cseq != cseq.number)
        {
            return;
        }
        up.answer = None;
        match up.bye.take() {
            Some(reason) => self.send_bye(now, key, reason.as_deref()),
            // A body that is no session description is no answer; the user sees that there is none.
            None => self.tell(Event::Established {
                call: key,
                body: session_description(ack).unwrap_or(None),
            }),
        }
    }
}

impl Call {
    /// From a far end of our INVITE that is not the peer yet (RFC 3261 §12.3).
    fn is_early(&self, request: &Message<'_>) -> bool {
        matches!(self.phase, Phase::Outgoing { .. })
            && request.from().is_ok_and(|from| from.tag.is_some())
    }
}

/// `Signal=5` on a line of its own.
fn relayed_digit(body: &[u8]) -> Option<char> {
    let text = str::from_utf8(body).ok()?;
    let signal = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        name.trim().eq_ignore_ascii_case("Signal").then_some(value)
    })?;
    digit(signal.trim())
}

fn plain_digit(body: &[u8]) -> Option<char> {
    digit(str::from_utf8(body).ok()?.trim())
}

/// What is printed on the key; some phones send the number of the event instead.
fn digit(text: &str) -> Option<char> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(digit), None) if "0123456789*#ABCDabcd".contains(digit) => {
            Some(digit.to_ascii_uppercase())
        }
        (Some('1'), Some('0')) if text == "10" => Some('*'),
        (Some('1'), Some('1')) if text == "11" => Some('#'),
        _ => None,
    }
}
