//! Requests of ours on their way: which transport they take, what becomes of them, and when they are sent
//! once more in another form (a challenge answered, a larger Session-Expires, UDP instead of TCP).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::dialog::{DialogKey, Usage, listener_for};
use super::{
    CallKey, ClientKey, ClientMachine, ClientTransaction, Endpoint, Event, SlotKey,
    SubscriptionKey, Wake,
};
use crate::digest::{self, Credentials};
use crate::message::build::{Extra, again};
use crate::message::{Message, Start};
use crate::transaction::invite_client::InviteClient;
use crate::transaction::{Acts, Reliable, Timer, client};
use crate::{Body, Flow, Transport};

/// Longest request that goes by UDP where the path's MTU is unknown (RFC 3261 §18.1.1).
const UDP_LEN_MAX: usize = 1_300;

/// Forms in which a request is tried: challenged by a proxy and by the far end, and an interval too small.
const FORMS_MAX: u8 = 4;

/// What a request of ours is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It begins a call.
    Invite(CallKey),
    /// It refreshes the session of a call, by re-INVITE or UPDATE.
    Refresh(CallKey),
    Bye(DialogKey),
    Cancel,
    Prack(CallKey),
    Notify(SubscriptionKey),
    /// The user wants to know what comes of it.
    User(ClientKey, Usage),
}

impl Purpose {
    /// The dialog whose numbers and credentials it takes.
    fn usage(&self) -> Option<Usage> {
        match self {
            Self::Invite(call) | Self::Refresh(call) | Self::Prack(call) => {
                Some(Usage::Call(*call))
            }
            Self::Notify(subscription) => Some(Usage::Subscription(*subscription)),
            Self::User(_, usage) => Some(*usage),
            Self::Bye(_) | Self::Cancel => None,
        }
    }
}

/// A request as it is about to be sent.
struct Attempt {
    flow: Flow,
    /// The way it would have taken, had it not been too large.
    udp: Option<Flow>,
    request: Bytes,
    purpose: Purpose,
    credentials: Option<Arc<Credentials>>,
    forms: u8,
}

impl Attempt {
    fn new(flow: Flow, request: Bytes, purpose: Purpose) -> Self {
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
    /// Sends a request within a dialog; None when that is gone.
    pub(super) fn send_in_dialog(
        &mut self,
        now: Instant,
        usage: Usage,
        method: &str,
        extra: Extra,
        body: Option<&Body>,
        purpose: Purpose,
    ) -> Option<SlotKey> {
        let branch = self.new_branch();
        let extra = extra.line("User-Agent", &self.config.user_agent);
        let dialog = self.dialog(usage)?;
        dialog.local_cseq += 1;
        let (flow, cseq) = (dialog.flow, dialog.local_cseq);
        let via = self.via(&flow, &branch);
        let request = self.dialog(usage)?.request(method, &via, cseq, extra, body);
        let credentials = self.credentials(usage);
        Some(self.launch(
            now,
            branch,
            Attempt {
                credentials,
                ..Attempt::new(flow, request, purpose)
            },
        ))
    }

    fn credentials(&mut self, usage: Usage) -> Option<Arc<Credentials>> {
        match usage {
            Usage::Call(call) => self.call(call)?.credentials.clone(),
            Usage::Subscription(_) | Usage::Closing(_) => None,
        }
    }

    /// Starts the transaction of a request, over TCP where it is too large for UDP.
    pub(super) fn start_client(
        &mut self,
        now: Instant,
        branch: String,
        flow: Flow,
        request: Bytes,
        purpose: Purpose,
    ) -> SlotKey {
        let usage = purpose.usage();
        let credentials = usage.and_then(|usage| self.credentials(usage));
        self.launch(
            now,
            branch,
            Attempt {
                credentials,
                ..Attempt::new(flow, request, purpose)
            },
        )
    }

    fn launch(&mut self, now: Instant, branch: String, attempt: Attempt) -> SlotKey {
        let only_udp = attempt
            .purpose
            .usage()
            .and_then(|usage| self.dialog(usage))
            .is_some_and(|dialog| dialog.only_udp);
        let flow = attempt.flow;
        let is_large = flow.transport == Transport::Udp && attempt.request.len() > UDP_LEN_MAX;
        let roomier = (is_large && !only_udp)
            .then(|| self.over_tcp(flow))
            .flatten();
        let attempt = match roomier {
            Some(tcp) => Attempt {
                request: again(&attempt.request, &self.via(&tcp, &branch), None, &[]),
                flow: tcp,
                udp: Some(flow),
                ..attempt
            },
            None => attempt,
        };
        self.run_client(now, branch, attempt)
    }

    fn over_tcp(&self, flow: Flow) -> Option<Flow> {
        let transport = Transport::Tcp;
        let listeners = &self.config.listeners;
        Some(Flow {
            transport,
            peer: flow.peer,
            listener: listener_for(transport, flow.listener, flow.peer.ip(), listeners)?,
            stream: 0,
        })
    }

    fn run_client(&mut self, now: Instant, branch: String, attempt: Attempt) -> SlotKey {
        let Attempt {
            flow,
            udp,
            request,
            purpose,
            credentials,
            forms,
        } = attempt;
        let generation = self.next_generation();
        let timers = self.config.timers;
        let reliable = Reliable(flow.transport.is_reliable());
        let mut acts = Acts::default();
        let is_invite = request.starts_with(b"INVITE ");
        let is_refresh = matches!(purpose, Purpose::Refresh(_));
        let machine = if is_invite {
            ClientMachine::Invite(InviteClient::new(timers, reliable, request, &mut acts))
        } else {
            ClientMachine::Other(client::Client::new(timers, reliable, request, &mut acts))
        };
        // A CANCEL shares its INVITE's branch; responses are told apart by CSeq.
        let name = match purpose {
            Purpose::Cancel => cancel_key(&branch),
            _ => branch,
        };
        let client = ClientTransaction {
            generation,
            branch: name.clone(),
            flow,
            udp,
            purpose,
            credentials,
            forms,
            answered: Vec::new(),
            machine,
        };
        let key = SlotKey {
            slot: self.clients.insert(Box::new(client)) as u32,
            generation,
        };
        self.client_of.insert(name, key);
        self.act_client(now, key, &mut acts);
        // Nobody is asked anything by a refresh: once 100 has come, the answer must not take forever.
        if is_invite && is_refresh {
            self.abandon(now, key);
        }
        key
    }

    /// Gives an INVITE as long as any other request, whatever provisional responses come: they would let it
    /// wait for ever.
    pub(super) fn abandon(&mut self, now: Instant, invite: SlotKey) {
        let patience = self.config.timers.patience();
        self.arm(now + patience, Wake::Client(invite, Timer::Abandon));
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        flow: Flow,
        response: &Message<'_>,
        status: u16,
    ) {
        let (Ok(via), Ok(to)) = (response.via(), response.to()) else {
            self.counters.malformed += 1;
            return;
        };
        let (Some(branch), Ok(cseq)) = (via.branch, response.cseq()) else {
            return;
        };
        let name = if cseq.method == "CANCEL" {
            cancel_key(&branch)
        } else {
            branch
        };
        let Some(&key) = self.client_of.get(&name) else {
            return;
        };
        let Some(client) = self.client(key) else {
            return;
        };
        if client.request_method() != cseq.method {
            return;
        }
        let mut acts = Acts::default();
        match &mut client.machine {
            ClientMachine::Invite(machine) => {
                let request = machine.request().clone();
                let ack = || match Message::parse(&request) {
                    Ok(request) => crate::message::build::follow_up(&request, "ACK", &to.value),
                    Err(_) => unreachable!("we wrote it"),
                };
                machine.on_response(status, ack, &mut acts);
            }
            ClientMachine::Other(machine) => machine.on_response(status, &mut acts),
        }
        let purpose = client.purpose.clone();
        let attempt = (status >= 300).then(|| client.attempt(flow));
        let deliver = acts.deliver;
        self.act_client(now, key, &mut acts);
        if !deliver {
            return;
        }
        if let Some(attempt) = attempt
            && self.try_otherwise(now, response, status, attempt)
        {
            return;
        }
        self.on_outcome(now, flow, key, purpose, status, Some(response));
    }

    /// What came of a request; 408 without a response means that none came, 503 that it could not be sent.
    fn on_outcome(
        &mut self,
        now: Instant,
        flow: Flow,
        transaction: SlotKey,
        purpose: Purpose,
        status: u16,
        response: Option<&Message<'_>>,
    ) {
        match purpose {
            Purpose::Invite(call) => match response {
                Some(response) => self.on_answer(now, flow, transaction, call, response, status),
                None => self.on_refusal(now, call, status, None, Vec::new()),
            },
            Purpose::Refresh(call) => self.on_refreshed(now, transaction, call, status, response),
            Purpose::Notify(subscription) => self.on_notified(now, subscription, status),
            Purpose::User(request, _) => self.tell(Event::Answered { request, status }),
            Purpose::Bye(_) | Purpose::Cancel | Purpose::Prack(_) => {}
        }
    }

    /// Sends a refused request once more, if what was wrong with it can be mended.
    fn try_otherwise(
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

    pub(super) fn on_client_timer(&mut self, now: Instant, key: SlotKey, timer: Timer) {
        let Some(client) = self.client(key) else {
            return;
        };
        let mut acts = Acts::default();
        match &mut client.machine {
            ClientMachine::Invite(machine) => machine.on_timer(timer, &mut acts),
            ClientMachine::Other(machine) => machine.on_timer(timer, &mut acts),
        }
        self.act_client(now, key, &mut acts);
    }

    /// Does what a client machine wants done.
    fn act_client(&mut self, now: Instant, key: SlotKey, acts: &mut Acts) {
        let Some(client) = self.client(key) else {
            return;
        };
        let (flow, purpose) = (client.flow, client.purpose.clone());
        if let Some(message) = acts.send.take() {
            self.transmit(flow, message);
        }
        for (after, timer) in acts.arm.iter_mut().filter_map(Option::take) {
            self.arm(now + after, Wake::Client(key, timer));
        }
        if acts.terminated {
            self.drop_client(key);
        }
        if acts.timed_out {
            self.on_outcome(now, flow, key, purpose, 408, None);
        }
    }

    pub(super) fn drop_client(&mut self, key: SlotKey) {
        if self.client(key).is_some() {
            let client = self.clients.remove(key.slot as usize);
            self.client_of.remove(&client.branch);
            if let Purpose::Bye(dialog) = &client.purpose
                && self.dialog_of.get(dialog) == Some(&Usage::Closing(key))
            {
                self.dialog_of.remove(dialog);
            }
        }
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

    /// Sends a request of the user's within a call; what comes of it is told by [`Event::Answered`].
    /// Each header value is one line.
    pub fn request_in_call(
        &mut self,
        now: Instant,
        call: CallKey,
        method: &str,
        headers: &[(&str, String)],
        body: Option<&Body>,
    ) -> Option<ClientKey> {
        let known = self.call(call)?;
        (known.is_up() && !known.ended).then_some(())?;
        let extra = headers
            .iter()
            .fold(Extra::default(), |extra, (name, value)| {
                extra.line(name, value)
            });
        let request = ClientKey(self.next_generation());
        let usage = Usage::Call(call);
        let purpose = Purpose::User(request, usage);
        self.send_in_dialog(now, usage, method, extra, body, purpose)?;
        Some(request)
    }
}

impl ClientTransaction {
    /// The attempt that this is, for another; `flow` is where it was answered.
    fn attempt(&self, flow: Flow) -> Attempt {
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

    pub(super) fn is_pending(&self) -> bool {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.is_pending(),
            ClientMachine::Other(machine) => machine.is_pending(),
        }
    }

    pub(super) fn request(&self) -> &Bytes {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.request(),
            ClientMachine::Other(machine) => machine.request(),
        }
    }

    fn request_method(&self) -> &str {
        let method = self.request().split(|&octet| octet == b' ').next();
        method
            .and_then(|method| str::from_utf8(method).ok())
            .unwrap_or_default()
    }
}

/// Where the transaction of a CANCEL is found.
pub(super) fn cancel_key(branch: &str) -> String {
    format!("{branch} CANCEL")
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
