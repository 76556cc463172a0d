//! What the user of the endpoint may do.

use std::fmt;
use std::time::Instant;

use super::call::{Answer, Call, Phase};
use super::incoming::{ALLOW, capabilities};
use super::{CallKey, ClientMachine, Ended, Endpoint, Invitation, Rejection, RequestKey, SlotKey};
use crate::message::Message;
use crate::message::build::{Extra, Request, follow_up};
use crate::transaction::invite_client::InviteClient;
use crate::transaction::{Acts, Reliable, client};
use crate::{Body, Flow};

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
    /// Lets the caller hear ringing (180).
    pub fn ring(&mut self, now: Instant, call: CallKey) {
        if let Some(Call {
            phase: Phase::Incoming { invite },
            ..
        }) = self.call(call)
        {
            let invite = *invite;
            self.respond(now, invite, 180, Extra::default().record_routes(), None);
        }
    }

    /// Accepts an INVITE or re-INVITE with 200. `contact_user` is the user part of our Contact.
    pub fn accept(&mut self, now: Instant, key: CallKey, contact_user: &str, body: Body) {
        let Some(call) = self.call(key) else { return };
        let invite = match &mut call.phase {
            Phase::Incoming { invite } => *invite,
            Phase::Up { reinvite, .. } => match reinvite.take() {
                Some(reinvite) => reinvite,
                None => return,
            },
            Phase::Outgoing { .. } => return,
        };
        if matches!(call.phase, Phase::Incoming { .. }) {
            call.phase = Phase::Up {
                answer: None,
                reinvite: None,
                ack: None,
                bye: None,
            };
        }
        let (flow, cseq) = (call.flow, call.remote_cseq.unwrap_or_default());
        let contact = self.contact_value(contact_user, &flow);
        let extra = Extra::default()
            .record_routes()
            .line("Contact", &contact)
            .line("Allow", ALLOW)
            .line("Supported", "");
        if let Some(call) = self.call(key) {
            call.contact = contact;
        }
        let Some(answer_flow) = self.server(invite).map(|server| server.template.flow) else {
            return;
        };
        let response = self.respond(now, invite, 200, extra, Some(&body));
        self.await_ack(
            now,
            key,
            Answer {
                response,
                flow: answer_flow,
                cseq,
            },
        );
    }

    /// Refuses an INVITE, which ends the call without an event, or a re-INVITE, which does not.
    pub fn reject(&mut self, now: Instant, key: CallKey, rejection: Rejection) {
        let Some(call) = self.call(key) else { return };
        match &mut call.phase {
            Phase::Incoming { invite } => {
                let invite = *invite;
                self.respond(now, invite, rejection.status, extra(&rejection), None);
                self.drop_call(key);
            }
            Phase::Up { reinvite, .. } => {
                if let Some(reinvite) = reinvite.take() {
                    self.respond(now, reinvite, rejection.status, extra(&rejection), None);
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
            self.drop_call(key);
        }
    }

    /// Ends a call in whatever state it is; [`Ended`] is told at once, the far end as soon as it may be.
    pub fn bye(&mut self, now: Instant, key: CallKey, reason: Option<&str>) {
        let Some(call) = self.call(key) else { return };
        match &mut call.phase {
            Phase::Incoming { invite } => {
                let invite = *invite;
                self.respond(now, invite, 480, Extra::default(), None);
                self.end(now, key, Ended::LocalBye);
                self.drop_call(key);
            }
            Phase::Outgoing { .. } => self.cancel(now, key),
            Phase::Up {
                answer: Some(_),
                bye,
                ..
            } => {
                // RFC 3261 §15: not before the ACK.
                *bye = Some(reason.map(str::to_owned));
                self.end(now, key, Ended::LocalBye);
            }
            Phase::Up { .. } => {
                self.end(now, key, Ended::LocalBye);
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
            contact_user,
            body,
        } = invitation;
        let (local_tag, branch, call_id) = (
            self.new_tag(),
            self.new_branch(),
            format!("{:016x}{:016x}", self.random(), self.random()),
        );
        let generation = self.next_generation();
        let local = format!("<{from}>;tag={local_tag}");
        let remote = format!("<{target}>");
        let contact = self.contact_value(&contact_user, &flow);
        let request = Request {
            method: "INVITE",
            uri: &target,
            via: &self.via(&flow, &branch),
            from: &local,
            to: &remote,
            call_id: &call_id,
            cseq: 1,
            routes: &[],
            extra: Extra::default()
                .line("Contact", &contact)
                .line("Allow", ALLOW)
                .line("User-Agent", &self.config.user_agent),
            body: body.as_ref(),
        }
        .write();
        let nowhere = SlotKey {
            slot: u32::MAX,
            generation: 0,
        };
        let key = self.add_call(Call {
            generation,
            flow,
            call_id,
            local,
            remote,
            local_tag,
            remote_tag: None,
            local_cseq: 1,
            remote_cseq: None,
            routes: Vec::new(),
            target,
            contact,
            phase: Phase::Outgoing {
                invite: nowhere,
                cancelling: false,
            },
            ended: false,
        });
        let mut acts = Acts::default();
        let machine = InviteClient::new(
            self.config.timers,
            Reliable(flow.transport.is_reliable()),
            request,
            &mut acts,
        );
        let transaction = self.add_client(
            now,
            branch,
            flow,
            ClientMachine::Invite { machine, call: key },
            acts,
        );
        if let Some(Call {
            phase: Phase::Outgoing { invite, .. },
            ..
        }) = self.call(key)
        {
            *invite = transaction;
        }
        Ok(key)
    }

    /// Takes back a call that is not answered; the far end is told as soon as it has said anything.
    pub fn cancel(&mut self, now: Instant, key: CallKey) {
        let Some(Call {
            phase: Phase::Outgoing { invite, cancelling },
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
            |client| matches!(&client.machine, ClientMachine::Invite { machine, .. } if machine.is_proceeding()),
        );
        if proceeding {
            self.send_cancel(now, key);
        }
    }

    pub(super) fn send_cancel(&mut self, now: Instant, key: CallKey) {
        let Some(Call {
            phase: Phase::Outgoing { invite, .. },
            ..
        }) = self.call(key)
        else {
            return;
        };
        let invite = *invite;
        let Some(client) = self.client(invite) else {
            return;
        };
        let ClientMachine::Invite { machine, .. } = &client.machine else {
            return;
        };
        let (request, flow, branch) = (
            machine.request().clone(),
            client.flow,
            client.branch.clone(),
        );
        let Ok(request) = Message::parse(&request) else {
            return;
        };
        let cancel = follow_up(&request, "CANCEL", request.header("To").unwrap_or_default());
        let mut acts = Acts::default();
        let machine = client::Client::new(
            self.config.timers,
            Reliable(flow.transport.is_reliable()),
            cancel,
            &mut acts,
        );
        // A CANCEL shares its INVITE's branch; responses are told apart by CSeq.
        self.add_client(
            now,
            cancel_key(&branch),
            flow,
            ClientMachine::Other { machine },
            acts,
        );
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
                self.respond(now, key, 200, capabilities().line("Contact", contact), None);
            }
            Some(rejection) => {
                drop(self.respond(now, key, rejection.status, extra(&rejection), None))
            }
        }
    }
}

/// Where the transaction of a CANCEL is found.
pub(super) fn cancel_key(branch: &str) -> String {
    format!("{branch} CANCEL")
}

fn extra(rejection: &Rejection) -> Extra {
    let mut extra = Extra::default();
    if let Some(seconds) = rejection.retry_after_s {
        extra = extra.line("Retry-After", seconds);
    }
    if let Some((code, text)) = &rejection.warning {
        extra = extra.line("Warning", format_args!("{code} plenum \"{text}\""));
    }
    extra
}
