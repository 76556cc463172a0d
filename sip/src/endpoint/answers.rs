//! Answers to INVITEs of ours.

use std::time::Instant;

use super::call::{Abilities, Call, Phase, Up};
use super::changing::body_of;
use super::client::Purpose;
use super::dialog::{Dialog, direct};
use super::incoming::Identity;
use super::{CallKey, Ended, Endpoint, Event, SlotKey};
use crate::message::build::Extra;
use crate::message::{Message, Start, address};
use crate::{Body, Flow, ListenerIdentity};

/// Peers that a forking proxy may bring us to by one INVITE; whoever comes later hangs up himself when no
/// ACK comes.
const FORKS_MAX: usize = 16;

impl Endpoint {
    /// A response to our INVITE that is news.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        flow: Flow,
        transaction: SlotKey,
        key: CallKey,
        response: &Message<'_>,
        status: u16,
    ) {
        // A peer whom only the size of the INVITE made answer over TCP is where UDP would have gone.
        let udp = self.client(transaction).and_then(|client| client.udp);
        let flow = udp.unwrap_or(flow);
        let is_success = (200..300).contains(&status);
        let waits = self
            .call(key)
            .is_some_and(|call| matches!(call.phase, Phase::Outgoing { .. }));
        if !waits {
            if is_success {
                self.on_another_success(now, flow, transaction, key, response);
            }
            return;
        }
        match status {
            100..200 => self.on_progress(now, flow, key, response, status),
            200..300 => self.on_accepted(now, flow, transaction, key, response),
            _ => {
                let retry_after = response.header("Retry-After").and_then(|value| {
                    value
                        .split(|c: char| !c.is_ascii_digit())
                        .next()
                        .and_then(|seconds| seconds.parse().ok())
                });
                let contacts = if status / 100 == 3 {
                    response.contacts()
                } else {
                    Vec::new()
                };
                self.on_refusal(now, key, status, retry_after, contacts);
            }
        }
    }

    fn on_progress(
        &mut self,
        now: Instant,
        flow: Flow,
        key: CallKey,
        response: &Message<'_>,
        status: u16,
    ) {
        if self.call(key).is_some_and(|call| call.is_cancelling()) {
            // It could not be cancelled before (RFC 3261 §9.1).
            return self.send_cancel(now, key);
        }
        if status > 100 && self.acknowledge_provisional(now, flow, key, response) {
            self.tell(Event::Progress { call: key, status });
        }
    }

    fn on_accepted(
        &mut self,
        now: Instant,
        flow: Flow,
        transaction: SlotKey,
        key: CallKey,
        response: &Message<'_>,
    ) {
        let (Ok(to), Ok(cseq)) = (response.to(), response.cseq()) else {
            return;
        };
        if let Some(client) = self.client(transaction) {
            client.answered.push(to.tag.clone());
        }
        let listeners = self.config.listeners.clone();
        let Some(call) = self.call(key) else { return };
        let cancelling = call.is_cancelling();
        call.peer = Abilities::of(response);
        call.dialog.remote = to.value;
        call.dialog.remote_tag = to.tag;
        call.dialog.learn(response, flow, &listeners);
        let is_offered = call.is_offered(response) && !cancelling;
        call.phase = Phase::Up(Up {
            unacknowledged: is_offered.then_some((transaction, cseq.number)),
            ..Up::default()
        });
        if !is_offered {
            self.acknowledge(transaction, key, cseq.number, None);
        }
        if cancelling {
            // Answer and CANCEL crossed.
            self.end(key, Ended::Cancelled);
            return self.send_bye(now, key, None);
        }
        self.session_answered(now, key, response);
        self.tell(Event::Accepted {
            call: key,
            body: body_of(response),
        });
    }

    /// RFC 3261 §13.2.2.4: the ACK of a 2xx is a request of its own, with the credentials of the INVITE,
    /// repeated when the 2xx is.
    pub(super) fn acknowledge(
        &mut self,
        transaction: SlotKey,
        key: CallKey,
        cseq: u32,
        answer: Option<&Body>,
    ) {
        let branch = self.new_branch();
        let Some(flow) = self.call(key).map(|call| call.dialog.flow) else {
            return;
        };
        let via = self.via(&flow, &branch);
        let extra = self.ack_lines(transaction);
        let Some(call) = self.call(key) else { return };
        let ack = call.dialog.request("ACK", &via, cseq, extra, answer);
        if let Some(up) = call.up() {
            up.ack = Some((cseq, ack.clone()));
        }
        self.transmit(flow, ack);
    }

    fn ack_lines(&mut self, transaction: SlotKey) -> Extra {
        let extra = Extra::default().line("User-Agent", &self.config.user_agent);
        let Some(client) = self.client(transaction) else {
            return extra;
        };
        let Ok(invite) = Message::parse(client.request()) else {
            return extra;
        };
        let names = ["Authorization", "Proxy-Authorization"];
        let lines = names
            .iter()
            .filter_map(|name| Some((name, invite.header(name)?)));
        lines.fold(extra, |extra, (name, value)| extra.line(name, value))
    }

    /// A 2xx that our call does not wait for. It came again because its ACK was lost; or a fork has brought
    /// us to a second peer, or the first one after all was over, who is told at once that he is not needed
    /// (RFC 3261 §13.2.2.4).
    fn on_another_success(
        &mut self,
        now: Instant,
        flow: Flow,
        transaction: SlotKey,
        key: CallKey,
        response: &Message<'_>,
    ) {
        let (Ok(to), Ok(cseq)) = (response.to(), response.cseq()) else {
            return;
        };
        if let Some(call) = self.call(key)
            && call.dialog.remote_tag == to.tag
        {
            let flow = call.dialog.flow;
            if let Some((number, ack)) = call.up().and_then(|up| up.ack.clone())
                && number == cseq.number
            {
                self.transmit(flow, ack);
            }
            return;
        }
        let extra = self.ack_lines(transaction);
        let Some(client) = self.client(transaction) else {
            return;
        };
        let is_new = !client.answered.contains(&to.tag);
        if is_new && client.answered.len() >= FORKS_MAX {
            return;
        }
        let request = client.request().clone();
        let credentials = client.credentials.clone();
        let Ok(invite) = Message::parse(&request) else {
            return;
        };
        let (Start::Request { uri, .. }, Ok(identity)) =
            (invite.start, Identity::of(&invite, "INVITE"))
        else {
            return;
        };
        if is_new {
            client.answered.push(to.tag.clone());
        }
        let mut other = Dialog {
            flow,
            call_id: identity.call_id,
            local: identity.from.value,
            remote: to.value,
            local_tag: identity.from.tag.unwrap_or_default(),
            remote_tag: to.tag,
            local_cseq: cseq.number,
            remote_cseq: None,
            routes: Vec::new(),
            target: uri.to_owned(),
            contact: String::new(),
            only_udp: true,
        };
        other.learn(response, flow, &self.config.listeners);
        let branch = self.new_branch();
        let via = self.via(&other.flow, &branch);
        let ack = other.request("ACK", &via, cseq.number, extra, None);
        self.transmit(other.flow, ack);
        if is_new {
            let branch = self.new_branch();
            let via = self.via(&other.flow, &branch);
            let extra = Extra::default().line("User-Agent", &self.config.user_agent);
            let bye = other.request("BYE", &via, cseq.number + 1, extra, None);
            let bye = self.start_client(now, branch, other.flow, bye, Purpose::Bye(other.key()));
            if let Some(bye) = self.client(bye) {
                bye.credentials = credentials;
            }
        }
    }

    pub(super) fn on_refusal(
        &mut self,
        now: Instant,
        key: CallKey,
        status: u16,
        retry_after_s: Option<u32>,
        contacts: Vec<String>,
    ) {
        let Some(call) = self.call(key) else { return };
        if !matches!(call.phase, Phase::Outgoing { .. }) {
            return;
        }
        if call.is_cancelling() {
            self.end(key, Ended::Cancelled);
        } else if contacts.is_empty() {
            self.tell(Event::Rejected {
                call: key,
                status,
                retry_after_s,
            });
        } else {
            self.tell(Event::Redirected {
                call: key,
                contacts,
            });
        }
        self.drop_call(now, key);
    }

    /// The INVITE of a call goes out in another form.
    pub(super) fn replace_invite(&mut self, key: CallKey, transaction: SlotKey) {
        if let Some(Call {
            phase: Phase::Outgoing { invite, .. },
            ..
        }) = self.call(key)
        {
            *invite = transaction;
        }
    }
}

impl Dialog {
    /// What a response that makes a dialog says of the peer (RFC 3261 §12.1.2).
    pub(super) fn learn(
        &mut self,
        response: &Message<'_>,
        flow: Flow,
        listeners: &[ListenerIdentity],
    ) {
        self.routes = response.all("Record-Route").map(str::to_owned).collect();
        self.routes.reverse();
        let was_direct = direct(&self.target, flow, listeners) == Some(flow);
        if let Some(target) = response.contact().ok().flatten() {
            self.target = target;
        }
        let next_hop = match self.routes.first() {
            Some(route) => address(route).and_then(|uri| direct(&uri, flow, listeners)),
            // A peer that answered himself is where he answered from, whatever his NAT makes him say.
            None if was_direct => None,
            None => direct(&self.target, flow, listeners),
        };
        self.flow = next_hop.unwrap_or(flow);
    }
}
