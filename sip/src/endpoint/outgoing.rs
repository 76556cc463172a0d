//! What the user of the endpoint may do.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::abilities::{SUPPORTED, capabilities};
use super::call::{Answer, Call, Phase, Up, reason_line};
use super::client::{Purpose, cancel_key};
use super::dialog::{Dialog, DialogKey, Usage};
use super::{
    CallKey, ClientMachine, Ended, Endpoint, Invitation, Rejection, RequestKey, ServerMachine,
    SlotKey,
};
use crate::message::Message;
use crate::message::build::{Extra, follow_up};
use crate::{Body, Flow};

/// What a Replaces or Join header may name (RFC 3891 §3, RFC 3911 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A call that is answered.
    Confirmed(CallKey),
    /// One of ours that rings; who rings here cannot be replaced (RFC 3891 §3).
    Early(CallKey),
    /// One that has just ended.
    Over,
    Unknown,
}

/// Enough of a call's dialog to call its peer back from elsewhere, in place of it (RFC 3891).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// His last Contact: a URI.
    pub contact: String,
    pub call_id: String,
    /// Ours, and his; his is empty where he has none (RFC 2543).
    pub local_tag: String,
    pub remote_tag: String,
    /// He says that he takes REFER (Allow), and knows Replaces (Supported).
    pub takes_refer: bool,
    pub knows_replaces: bool,
}

/// The endpoint has as many calls as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyCalls;

impl fmt::Display for TooManyCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many calls")
    }
}

impl std::error::Error for TooManyCalls {}

impl Endpoint {
    /// Lets the caller hear ringing (180). `contact_user` is the user part of our Contact.
    pub fn ring(&mut self, now: Instant, key: CallKey, contact_user: &str) {
        self.progress(now, key, 180, contact_user);
    }

    /// Whether the peer waits for our answer to an INVITE, re-INVITE or UPDATE. He has taken it back else,
    /// or was refused meanwhile.
    pub fn is_asked(&mut self, key: CallKey) -> bool {
        match self.call(key).map(|call| &call.phase) {
            Some(Phase::Incoming { .. }) => true,
            Some(Phase::Up(up)) => up.change.is_some(),
            Some(Phase::Outgoing { .. }) | None => false,
        }
    }

    /// Accepts an INVITE, re-INVITE or UPDATE with 200. `contact_user` is the user part of our Contact.
    pub fn accept(&mut self, now: Instant, key: CallKey, contact_user: &str, body: Body) {
        let Some(call) = self.call(key) else { return };
        let transaction = match &mut call.phase {
            Phase::Incoming { invite } => {
                let invite = *invite;
                call.phase = Phase::Up(Up::default());
                call.settle_reliability();
                invite
            }
            Phase::Up(up) => match up.change.take() {
                Some(change) => change,
                None => return,
            },
            Phase::Outgoing { .. } => return,
        };
        let flow = call.dialog.flow;
        call.described = Some(body.clone());
        let contact = self.contact_value(contact_user, &flow);
        let extra = Extra::default()
            .record_routes()
            .line("Contact", &contact)
            .line("Allow", self.allow())
            .line("Supported", SUPPORTED);
        let extra = self.agree_on_session(now, key, extra);
        if let Some(call) = self.call(key) {
            call.dialog.contact = contact;
        }
        let Some(server) = self.server(transaction) else {
            return;
        };
        // Other requests of the dialog, such as a PRACK, may have come since.
        let (answer_flow, cseq) = (server.template.flow, server.cseq);
        let is_invite = matches!(server.machine, ServerMachine::Invite(_));
        let response = self.respond(now, transaction, 200, extra, Some(&body));
        if is_invite {
            let answer = Answer {
                response,
                flow: answer_flow,
                cseq,
            };
            self.await_ack(now, key, answer);
        }
    }

    /// Refuses an INVITE, which ends the call without an event, or a re-INVITE or UPDATE, which does not.
    pub fn reject(&mut self, now: Instant, key: CallKey, rejection: Rejection) {
        let Some(call) = self.call(key) else { return };
        match &mut call.phase {
            Phase::Incoming { invite } => {
                let invite = *invite;
                self.respond(now, invite, rejection.status, extra(&rejection), None);
                self.drop_call(now, key);
            }
            Phase::Up(up) => {
                if let Some(change) = up.change.take() {
                    self.respond(now, change, rejection.status, extra(&rejection), None);
                }
            }
            Phase::Outgoing { .. } => {}
        }
    }

    /// Sends the caller elsewhere (302): URIs with their q values, which differ so that the caller tries
    /// them one after the other (RFC 3261 §8.1.3.4). The call is over, without an event.
    pub fn redirect(&mut self, now: Instant, key: CallKey, contacts: &[(String, f32)]) {
        if let Some(Call {
            phase: Phase::Incoming { invite },
            ..
        }) = self.call(key)
        {
            let invite = *invite;
            // No Expires: such a contact is good for this one call (RFC 3261 §21.3.3).
            let line = |extra: Extra, (uri, q): &(String, f32)| {
                extra.line("Contact", format_args!("<{uri}>;q={q:.3}"))
            };
            let extra = contacts.iter().fold(Extra::default(), line);
            self.respond(now, invite, 302, extra, None);
            self.drop_call(now, key);
        }
    }

    /// Ends a call in whatever state it is; [`Ended`] is told at once, the far end as soon as it may be.
    pub fn bye(&mut self, now: Instant, key: CallKey, reason: Option<&str>) {
        let Some(call) = self.call(key) else { return };
        match &mut call.phase {
            Phase::Incoming { invite } => {
                let invite = *invite;
                let extra = reason_line(Extra::default(), reason);
                self.respond(now, invite, 480, extra, None);
                self.end(key, Ended::LocalBye);
                self.drop_call(now, key);
            }
            Phase::Outgoing { .. } => self.cancel(now, key),
            Phase::Up(Up {
                answer: Some(_),
                bye,
                ..
            }) => {
                // RFC 3261 §15: not before the ACK.
                *bye = Some(reason.map(str::to_owned));
                self.end(key, Ended::LocalBye);
            }
            Phase::Up(_) => {
                // An offer that nobody will answer any more.
                self.acknowledge_offer(key, None);
                self.end(key, Ended::LocalBye);
                self.send_bye(now, key, reason);
            }
        }
    }

    /// Places a call on this flow.
    ///
    /// # Errors
    /// The endpoint has as many calls as it may.
    pub fn invite(
        &mut self,
        now: Instant,
        flow: Flow,
        invitation: Invitation,
    ) -> Result<CallKey, TooManyCalls> {
        if self.calls.len() >= self.config.calls_max {
            return Err(TooManyCalls);
        }
        let Invitation {
            target,
            from,
            from_display,
            contact_user,
            body,
            headers,
            credentials,
        } = invitation;
        let local_tag = self.new_tag();
        let call_id = format!("{:016x}{:016x}", self.random(), self.random());
        let nowhere = SlotKey {
            slot: u32::MAX,
            generation: 0,
        };
        let dialog = Dialog {
            flow,
            call_id,
            local: format!("{}<{from}>;tag={local_tag}", display_name(from_display)),
            remote: format!("<{target}>"),
            local_tag,
            remote_tag: None,
            local_cseq: 0,
            remote_cseq: None,
            routes: Vec::new(),
            target,
            contact: self.contact_value(&contact_user, &flow),
            only_udp: false,
        };
        let extra = Extra::default()
            .line("Contact", &dialog.contact)
            .line("Allow", self.allow())
            .line("Supported", SUPPORTED);
        let extra = self.ask_for_session(extra, None);
        let extra = headers
            .iter()
            .fold(extra, |extra, (name, value)| extra.line(name, value));
        let phase = Phase::Outgoing {
            invite: nowhere,
            cancelling: false,
            cancelled: false,
        };
        let mut call = Call::new(self.next_generation(), dialog, phase);
        call.credentials = credentials.map(Arc::new);
        call.described = body.clone();
        let key = self.add_call(call);
        let purpose = Purpose::Invite(key);
        let usage = Usage::Call(key);
        if let Some(invite) =
            self.send_in_dialog(now, usage, "INVITE", extra, body.as_ref(), purpose)
        {
            self.replace_invite(key, invite);
        }
        Ok(key)
    }

    /// Takes back a call that is not answered; the far end is told as soon as it has said anything.
    pub fn cancel(&mut self, now: Instant, key: CallKey) {
        let Some(Call {
            phase: Phase::Outgoing {
                invite, cancelling, ..
            },
            ..
        }) = self.call(key)
        else {
            return;
        };
        if std::mem::replace(cancelling, true) {
            return;
        }
        let invite = *invite;
        let proceeding = self.client(invite).is_some_and(
            |client| matches!(&client.machine, ClientMachine::Invite(machine) if machine.is_proceeding()),
        );
        if proceeding {
            self.send_cancel(now, key);
        }
    }

    pub(super) fn send_cancel(&mut self, now: Instant, key: CallKey) {
        let Some(Call {
            phase: Phase::Outgoing {
                invite, cancelled, ..
            },
            ..
        }) = self.call(key)
        else {
            return;
        };
        if std::mem::replace(cancelled, true) {
            return;
        }
        let invite = *invite;
        let Some(client) = self.client(invite) else {
            return;
        };
        let (request, flow, branch) =
            (client.request().clone(), client.flow, client.branch.clone());
        if self.client_of.contains_key(&cancel_key(&branch)) {
            return;
        }
        self.abandon(now, invite);
        let Ok(request) = Message::parse(&request) else {
            return;
        };
        let cancel = follow_up(&request, "CANCEL", request.header("To").unwrap_or_default());
        self.start_client(now, branch, flow, cancel, Purpose::Cancel);
        // RFC 3261 §9.1: no 487 may ever come, from a peer of before RFC 3261 for one.
        self.abandon(now, invite);
    }

    /// The call that a Replaces or Join header names. The tags are as the header has them: seen from us,
    /// `to_tag` is ours (RFC 3891 §3).
    pub fn named(&mut self, call_id: &str, to_tag: &str, from_tag: &str) -> Named {
        let dialog = DialogKey {
            call_id: call_id.to_owned(),
            local_tag: to_tag.to_owned(),
        };
        let key = match self.dialog_of.get(&dialog) {
            Some(&Usage::Call(key)) => key,
            Some(&Usage::Closing(_)) => return Named::Over,
            Some(&Usage::Subscription(_)) | None => return Named::Unknown,
        };
        let Some(call) = self.call(key) else {
            return Named::Unknown;
        };
        match call.phase {
            Phase::Up(_) => {
                // A peer of before RFC 3261 has no tag, which is then called 0.
                let tag = call.dialog.remote_tag.as_deref().unwrap_or("0");
                match (tag == from_tag, call.ended) {
                    (true, false) => Named::Confirmed(key),
                    (true, true) => Named::Over,
                    (false, _) => Named::Unknown,
                }
            }
            Phase::Outgoing { .. } if call.branches.iter().any(|(tag, _)| tag == from_tag) => {
                Named::Early(key)
            }
            Phase::Outgoing { .. } | Phase::Incoming { .. } => Named::Unknown,
        }
    }

    /// The way on which a call's requests go to its peer.
    pub fn flow_of(&self, key: CallKey) -> Option<Flow> {
        let call = self.calls.get(key.slot as usize)?;
        (call.generation == key.generation).then_some(call.dialog.flow)
    }

    /// The far end of a call and the names of its dialog; of a call of ours that is not answered, what is
    /// known of it so far.
    pub fn peer_of(&self, key: CallKey) -> Option<Peer> {
        let call = self.calls.get(key.slot as usize)?;
        (call.generation == key.generation).then(|| Peer {
            contact: call.dialog.target.clone(),
            call_id: call.dialog.call_id.clone(),
            local_tag: call.dialog.local_tag.clone(),
            remote_tag: call.dialog.remote_tag.clone().unwrap_or_default(),
            takes_refer: call.peer.refer,
            knows_replaces: call.peer.replaces,
        })
    }

    /// Whether the peer of a call says that he takes MESSAGE.
    pub fn takes_messages(&mut self, key: CallKey) -> bool {
        self.call(key).is_some_and(|call| call.peer.message)
    }

    /// Answers a request whose meaning is the user's. Each header value is one line.
    pub fn respond_request(
        &mut self,
        now: Instant,
        request: RequestKey,
        status: u16,
        headers: &[(&str, String)],
    ) {
        let extra = headers
            .iter()
            .fold(Extra::default(), |extra, (name, value)| {
                extra.line(name, value)
            });
        self.respond(now, request.0, status, extra, None);
    }

    /// Refuses one.
    pub fn refuse_request(&mut self, now: Instant, request: RequestKey, rejection: &Rejection) {
        self.respond(now, request.0, rejection.status, extra(rejection), None);
    }

    /// Answers an OPTIONS: None says what can be had here, a rejection why a call would be refused.
    pub fn respond_options(
        &mut self,
        now: Instant,
        request: RequestKey,
        refused: Option<Rejection>,
    ) {
        let RequestKey(key) = request;
        let Some(flow) = self.server(key).map(|server| server.template.flow) else {
            return;
        };
        match refused {
            None => {
                let contact = format!(
                    "<sip:{}>{}",
                    self.identity(&flow).sent_by,
                    if self.config.focus { ";isfocus" } else { "" }
                );
                let mut extra = capabilities(self.allow()).line("Contact", contact);
                if self.config.focus {
                    extra = extra.line("Allow-Events", "conference, refer");
                }
                self.respond(now, key, 200, extra, None);
            }
            Some(rejection) => {
                drop(self.respond(now, key, rejection.status, extra(&rejection), None))
            }
        }
    }
}

/// A name in quotes, as it stands before an address (RFC 3261 §25.1).
fn display_name(name: Option<String>) -> String {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return String::new();
    };
    let mut quoted = String::from("\"");
    for character in name.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted + "\" "
}

fn extra(rejection: &Rejection) -> Extra {
    rejection
        .headers
        .iter()
        .fold(Extra::default(), |extra, (name, value)| {
            extra.line(name, value)
        })
}
