//! Requests of ours in another form: a challenge answered, a larger Session-Expires, UDP instead of TCP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::client::Purpose;
use super::dialog::Usage;
use super::{ClientTransaction, Endpoint, SlotKey};
use crate::Flow;
use crate::digest::{self, Credentials};
use crate::message::build::again;
use crate::message::{Message, Start};

/// Forms in which a request is tried: challenged by a proxy and by the far end, and an interval too small.
const FORMS_MAX: u8 = 4;

/// A request as it is about to be sent.
pub(super) struct Attempt {
    pub(super) flow: Flow,
    /// The way it would have taken, had it not been too large.
    pub(super) udp: Option<Flow>,
    pub(super) request: Bytes,
    pub(super) purpose: Purpose,
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) forms: u8,
}

impl Attempt {
    pub(super) fn new(flow: Flow, request: Bytes, purpose: Purpose) -> Self {
        Self {
            flow,
            udp: None,
            request,
            purpose,
            credentials: None,
            forms: 1,
        }
    }
}

impl Endpoint {
    /// Sends a refused request once more, if what was wrong with it can be mended.
    pub(super) fn try_otherwise(
        &mut self,
        now: Instant,
        response: &Message<'_>,
        status: u16,
        attempt: Attempt,
    ) -> bool {
        if attempt.forms >= FORMS_MAX || self.is_unwanted(&attempt.purpose) {
            return false;
        }
        let set = match status {
            401 | 407 => self.answer_challenge(response, status, &attempt),
            422 => longer_session(response, &attempt.request),
            _ => None,
        };
        let Some(set) = set else {
            return false;
        };
        self.send_again(now, attempt, &set)
    }

    /// The request in another form: with a branch and a number of its own, and with these headers.
    fn send_again(
        &mut self,
        now: Instant,
        attempt: Attempt,
        set: &[(&'static str, String)],
    ) -> bool {
        let Some(cseq) = self.next_number(&attempt) else {
            return false;
        };
        let branch = self.new_branch();
        let via = self.via(&attempt.flow, &branch);
        let purpose = attempt.purpose.clone();
        let attempt = Attempt {
            request: again(&attempt.request, &via, Some(cseq), set),
            forms: attempt.forms + 1,
            ..attempt
        };
        let key = self.launch(now, branch, attempt);
        match purpose {
            Purpose::Invite(call) => self.replace_invite(call, key),
            // The end of a fork has the name of a dialog that may live.
            Purpose::Bye(dialog)
                if !matches!(self.dialog_of.get(&dialog), Some(Usage::Call(_))) =>
            {
                self.dialog_of.insert(dialog, Usage::Closing(key));
            }
            _ => {}
        }
        true
    }

    /// The number of a request that is sent again; None when its dialog is gone.
    fn next_number(&mut self, attempt: &Attempt) -> Option<u32> {
        match attempt.purpose.usage() {
            Some(usage) => {
                let dialog = self.dialog(usage)?;
                dialog.local_cseq += 1;
                Some(dialog.local_cseq)
            }
            // The last request of its dialog.
            None => {
                let request = Message::parse(&attempt.request).ok()?;
                let number = request.cseq().ok()?.number;
                (attempt.purpose != Purpose::Cancel).then_some(number + 1)
            }
        }
    }

    /// An INVITE that has been cancelled is not worth another form.
    fn is_unwanted(&mut self, purpose: &Purpose) -> bool {
        let Purpose::Invite(call) = purpose else {
            return false;
        };
        self.call(*call).is_none_or(|call| call.is_cancelling())
    }

    fn answer_challenge(
        &mut self,
        response: &Message<'_>,
        status: u16,
        attempt: &Attempt,
    ) -> Option<Vec<(&'static str, String)>> {
        let credentials = attempt.credentials.as_ref()?;
        let (asks, answers) = match status {
            401 => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let challenges: Vec<&str> = response.all(asks).collect();
        let cnonce = format!("{:016x}", self.random());
        let request = Message::parse(&attempt.request).ok()?;
        let Start::Request { method, uri, .. } = request.start else {
            return None;
        };
        let answer = digest::answer(
            challenges,
            credentials,
            &digest::Request {
                method,
                uri,
                body: request.body,
            },
            &cnonce,
            1,
        )?;
        // Challenged again for the same means that the password is wrong.
        if request.header(answers).is_some() && !answer.stale {
            return None;
        }
        Some(vec![(answers, answer.value)])
    }

    /// Nothing can be sent on this flow: a connection that could not be made, or is gone. What waits on it
    /// has failed, or goes by UDP after all (RFC 3261 §18.1.1).
    pub fn handle_flow_failed(&mut self, now: Instant, flow: Flow) {
        let is_it = |client: &ClientTransaction| {
            client.is_pending()
                && client.flow.transport == flow.transport
                && client.flow.stream == flow.stream
                && client.flow.peer == flow.peer
        };
        let failed: Vec<SlotKey> = self
            .clients
            .iter()
            .filter(|(_, client)| is_it(client))
            .map(|(slot, client)| SlotKey {
                slot: slot as u32,
                generation: client.generation,
            })
            .collect();
        for key in failed {
            let Some(client) = self.client(key) else {
                continue;
            };
            let (udp, attempt) = (client.udp, client.attempt(flow));
            self.drop_client(key);
            match udp {
                Some(udp) => self.fall_back(now, key, udp, attempt),
                None => self.on_outcome(now, flow, key, attempt.purpose, 503, None),
            }
        }
    }

    /// Its number is a new one: others of the dialog may have overtaken it.
    fn fall_back(&mut self, now: Instant, failed: SlotKey, udp: Flow, attempt: Attempt) {
        if let Some(usage) = attempt.purpose.usage()
            && let Some(dialog) = self.dialog(usage)
        {
            dialog.only_udp = true;
        }
        let (flow, purpose) = (attempt.flow, attempt.purpose.clone());
        let attempt = Attempt {
            flow: udp,
            udp: None,
            ..attempt
        };
        if self.is_unwanted(&purpose) || !self.send_again(now, attempt, &[]) {
            self.on_outcome(now, flow, failed, purpose, 503, None);
        }
    }
}

impl ClientTransaction {
    /// The attempt that this is, for another; `flow` is where it was answered.
    pub(super) fn attempt(&self, flow: Flow) -> Attempt {
        // The same connection, whose number is known by now.
        let is_connection = self.flow.transport == flow.transport && flow.transport.is_reliable();
        Attempt {
            flow: if is_connection { flow } else { self.flow },
            udp: self.udp,
            request: self.request().clone(),
            purpose: self.purpose.clone(),
            credentials: self.credentials.clone(),
            forms: self.forms,
        }
    }
}

/// RFC 4028 §7.4: the interval that the far end accepts.
fn longer_session(response: &Message<'_>, request: &Bytes) -> Option<Vec<(&'static str, String)>> {
    let least: u32 = response
        .header("Min-SE")?
        .split(';')
        .next()?
        .trim()
        .parse()
        .ok()?;
    let request = Message::parse(request).ok()?;
    let asked = super::session::Wish::of(&request).expires?;
    let value = request.header("Session-Expires").unwrap_or_default();
    let refresher = value.find(';').map_or("", |at| &value[at..]);
    (least > asked && Duration::from_secs(least.into()) <= super::session::LONGEST).then(|| {
        vec![
            ("Session-Expires", format!("{least}{refresher}")),
            ("Min-SE", least.to_string()),
        ]
    })
}
