//! A call: one INVITE dialog, from its first request to its BYE (RFC 3261 §12 to §15).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{CallKey, ClientMachine, ClientTransaction, Ended, Endpoint, Event, SlotKey, Wake};
use crate::message::Party;
use crate::message::build::{Extra, Request};
use crate::transaction::{Acts, Reliable, client};
use crate::{Body, Flow};

/// A dialog by what an incoming request says of it. Our tags are unique, so the peer's need not be here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DialogKey {
    pub(super) call_id: String,
    pub(super) local_tag: String,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) generation: u32,
    /// Where requests of ours go.
    pub(super) flow: Flow,
    pub(super) call_id: String,
    /// Our From and To values: addresses with tags.
    pub(super) local: String,
    pub(super) remote: String,
    pub(super) local_tag: String,
    pub(super) remote_tag: Option<String>,
    /// Number of our latest request, and of the peer's.
    pub(super) local_cseq: u32,
    pub(super) remote_cseq: Option<u32>,
    pub(super) routes: Vec<String>,
    /// The peer's Contact: Request-URI of our requests.
    pub(super) target: String,
    /// The value of our Contact.
    pub(super) contact: String,
    pub(super) phase: Phase,
    /// The user has been told that it is over.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Somebody called and has no final answer.
    Incoming { invite: SlotKey },
    /// We called and have no final answer.
    Outgoing { invite: SlotKey, cancelling: bool },
    /// Accepted, by us or by the peer.
    Up {
        /// Our 2xx that waits for its ACK.
        answer: Option<Answer>,
        /// A re-INVITE of the peer that waits for our answer.
        reinvite: Option<SlotKey>,
        /// Our ACK of the peer's 2xx, for when that comes again.
        ack: Option<Bytes>,
        /// BYE as soon as the ACK has come (RFC 3261 §15), for this reason.
        bye: Option<Option<String>>,
    },
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Bytes,
    pub(super) flow: Flow,
    pub(super) cseq: u32,
}

impl Call {
    pub(super) fn dialog(&self) -> DialogKey {
        DialogKey {
            call_id: self.call_id.clone(),
            local_tag: self.local_tag.clone(),
        }
    }

    /// A BYE is still to be sent.
    pub(super) fn owes_bye(&self) -> bool {
        matches!(self.phase, Phase::Up { bye: Some(_), .. })
    }

    /// Whether a request or response with this tag is the peer's.
    pub(super) fn is_with(&self, peer: &Party) -> bool {
        self.remote_tag == peer.tag
    }
}

impl Endpoint {
    pub(super) fn call(&mut self, key: CallKey) -> Option<&mut Call> {
        self.calls
            .get_mut(key.slot as usize)
            .map(|call| &mut **call)
            .filter(|call| call.generation == key.generation)
    }

    pub(super) fn call_keys(
        &self,
        wanted: impl Fn(&Call) -> bool,
    ) -> impl Iterator<Item = CallKey> {
        let key = |slot: usize, call: &Call| CallKey {
            slot: slot as u32,
            generation: call.generation,
        };
        self.calls
            .iter()
            .filter(move |(_, call)| wanted(call))
            .map(move |(slot, call)| key(slot, call))
    }

    pub(super) fn add_call(&mut self, call: Call) -> CallKey {
        let dialog = call.dialog();
        let key = CallKey {
            generation: call.generation,
            slot: self.calls.insert(Box::new(call)) as u32,
        };
        self.call_of.insert(dialog, key);
        key
    }

    pub(super) fn drop_call(&mut self, key: CallKey) {
        if self.call(key).is_some() {
            let call = self.calls.remove(key.slot as usize);
            self.call_of.remove(&call.dialog());
        }
    }

    /// Tells the user once that the call is over.
    pub(super) fn end(&mut self, _now: Instant, key: CallKey, cause: Ended) {
        if let Some(call) = self.call(key)
            && !std::mem::replace(&mut call.ended, true)
        {
            self.tell(Event::Ended { call: key, cause });
        }
    }

    /// Sends our 2xx, now and until its ACK comes.
    pub(super) fn await_ack(&mut self, now: Instant, key: CallKey, answer: Answer) {
        let (t1, patience) = (self.config.timers.t1, self.config.timers.patience());
        let Some(call) = self.call(key) else { return };
        if let Phase::Up {
            answer: waiting, ..
        } = &mut call.phase
        {
            *waiting = Some(answer);
        }
        let CallKey { slot, generation } = key;
        self.arm(
            now + t1,
            Wake::Answer {
                slot,
                generation,
                interval: t1,
            },
        );
        self.arm(now + patience, Wake::AckTimeout { slot, generation });
    }

    /// RFC 3261 §13.3.1.4: the 2xx is repeated by us, on reliable transports too.
    pub(super) fn on_answer_due(&mut self, now: Instant, key: CallKey, interval: Duration) {
        let t2 = self.config.timers.t2;
        let Some(Call {
            phase:
                Phase::Up {
                    answer: Some(answer),
                    ..
                },
            ..
        }) = self.call(key)
        else {
            return;
        };
        let (flow, response) = (answer.flow, answer.response.clone());
        self.transmit(flow, response);
        let interval = (interval * 2).min(t2);
        let CallKey { slot, generation } = key;
        self.arm(
            now + interval,
            Wake::Answer {
                slot,
                generation,
                interval,
            },
        );
    }

    /// Nobody acknowledges: the dialog is confirmed to be of no use, and ended.
    pub(super) fn on_ack_timeout(&mut self, now: Instant, key: CallKey) {
        let Some(Call {
            phase: Phase::Up {
                answer: Some(_), ..
            },
            ..
        }) = self.call(key)
        else {
            return;
        };
        self.end(now, key, Ended::AckTimeout);
        self.send_bye(now, key, Some("ACK timeout"));
    }

    /// Sends BYE and lets go of the call; the BYE's transaction lives on without it.
    pub(super) fn send_bye(&mut self, now: Instant, key: CallKey, reason: Option<&str>) {
        let extra = match reason {
            // RFC 3326: for people who read traces.
            Some(text) => Extra::default().line("Reason", format_args!("SIP;text=\"{text}\"")),
            None => Extra::default(),
        };
        self.send_in_dialog(now, key, "BYE", extra);
        self.drop_call(key);
    }

    fn send_in_dialog(&mut self, now: Instant, key: CallKey, method: &str, extra: Extra) {
        let branch = self.new_branch();
        let Some(call) = self.call(key) else { return };
        call.local_cseq += 1;
        let (flow, cseq) = (call.flow, call.local_cseq);
        let request = self.in_dialog(key, method, &branch, cseq, extra, None);
        let timers = self.config.timers;
        let mut acts = Acts::default();
        let machine = client::Client::new(
            timers,
            Reliable(flow.transport.is_reliable()),
            request,
            &mut acts,
        );
        self.add_client(now, branch, flow, ClientMachine::Other { machine }, acts);
    }

    /// A request within the dialog as text.
    pub(super) fn in_dialog(
        &self,
        key: CallKey,
        method: &str,
        branch: &str,
        cseq: u32,
        extra: Extra,
        body: Option<&Body>,
    ) -> Bytes {
        let Some(call) = self.calls.get(key.slot as usize) else {
            return Bytes::new();
        };
        Request {
            method,
            uri: &call.target,
            via: &self.via(&call.flow, branch),
            from: &call.local,
            to: &call.remote,
            call_id: &call.call_id,
            cseq,
            routes: &call.routes,
            extra: extra.line("User-Agent", &self.config.user_agent),
            body,
        }
        .write()
    }

    pub(super) fn via(&self, flow: &Flow, branch: &str) -> String {
        format!(
            "SIP/2.0/{} {};branch={branch};rport",
            flow.transport.name(),
            self.identity(flow).sent_by
        )
    }

    pub(super) fn add_client(
        &mut self,
        now: Instant,
        branch: String,
        flow: Flow,
        machine: ClientMachine,
        mut acts: Acts,
    ) -> SlotKey {
        let generation = self.next_generation();
        let client = ClientTransaction {
            generation,
            branch: branch.clone(),
            flow,
            machine,
        };
        let key = SlotKey {
            slot: self.clients.insert(Box::new(client)) as u32,
            generation,
        };
        self.client_of.insert(branch, key);
        self.act_client(now, key, &mut acts);
        key
    }

    /// Our Contact's value on this flow.
    pub(super) fn contact_value(&self, user: &str, flow: &Flow) -> String {
        let user = escape(user);
        let sent_by = &self.identity(flow).sent_by;
        let transport = match flow.transport.uri_parameter() {
            None => String::new(),
            Some(name) => format!(";transport={name}"),
        };
        let focus = if self.config.focus { ";isfocus" } else { "" };
        format!("<sip:{user}@{sent_by}{transport}>{focus}")
    }
}

/// Escapes what RFC 3261 §25.1 does not allow in a user part.
fn escape(user: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(user.len());
    for octet in user.bytes() {
        match octet {
            b'0'..=b'9'
            | b'a'..=b'z'
            | b'A'..=b'Z'
            | b'-'
            | b'_'
            | b'.'
            | b'!'
            | b'~'
            | b'*'
            | b'\''
            | b'('
            | b')'
            | b'&'
            | b'='
            | b'+'
            | b'$'
            | b','
            | b';'
            | b'?'
            | b'/' => escaped.push(octet.into()),
            _ => drop(write!(escaped, "%{octet:02X}")),
        }
    }
    escaped
}
