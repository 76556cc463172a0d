//! Requests of ours on their way: which transport they take, what becomes of them, and when they are sent
//! once more in another form (a challenge answered, a larger Session-Expires, UDP instead of TCP).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::dialog::{DialogKey, Usage, listener_for};
use super::{
    CallKey, ClientKey, ClientMachine, ClientTransaction, Endpoint, Event, SlotKey,
    SubscriptionKey, Wake,
};
use crate::digest;
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
        Some(self.start_client(now, branch, flow, request, purpose))
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
        let only_udp = purpose
            .usage()
            .and_then(|usage| self.dialog(usage))
            .is_some_and(|dialog| dialog.only_udp);
        let roomier =
            (flow.transport == Transport::Udp && request.len() > UDP_LEN_MAX && !only_udp)
                .then(|| self.over_tcp(flow))
                .flatten();
        match roomier {
            Some(tcp) => {
                let request = again(&request, &self.via(&tcp, &branch), None, &[]);
                let key = self.run_client(now, branch, tcp, request, purpose, 1);
                if let Some(client) = self.client(key) {
                    client.udp = Some(flow);
                }
                key
            }
            None => self.run_client(now, branch, flow, request, purpose, 1),
        }
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

    fn run_client(
        &mut self,
        now: Instant,
        branch: String,
        flow: Flow,
        request: Bytes,
        purpose: Purpose,
        forms: u8,
    ) -> SlotKey {
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
            udp: None,
            purpose,
            forms,
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
        let (purpose, request, forms) = (
            client.purpose.clone(),
            client.request().clone(),
            client.forms,
        );
        let deliver = acts.deliver;
        self.act_client(now, key, &mut acts);
        if !deliver {
            return;
        }
        if status >= 300
            && forms < FORMS_MAX
            && self.try_otherwise(now, flow, response, status, &purpose, &request, forms)
        {
            return;
        }
        self.on_outcome(now, flow, purpose, status, Some(response));
    }

    /// What came of a request; 408 without a response means that none came, 503 that it could not be sent.
    fn on_outcome(
        &mut self,
        now: Instant,
        flow: Flow,
        purpose: Purpose,
        status: u16,
        response: Option<&Message<'_>>,
    ) {
        match purpose {
            Purpose::Invite(call) => match response {
                Some(response) => self.on_answer(now, flow, call, response, status),
                None => self.on_refusal(now, call, status, None, Vec::new()),
            },
            Purpose::Refresh(call) => self.on_refreshed(now, call, status, response),
            Purpose::Notify(subscription) => self.on_notified(now, subscription, status),
            Purpose::User(request, _) => self.tell(Event::Answered { request, status }),
            Purpose::Bye(_) | Purpose::Cancel | Purpose::Prack(_) => {}
        }
    }

    /// Sends a refused request once more, if what was wrong with it can be mended.
    #[expect(clippy::too_many_arguments, reason = "a response and what it answers")]
    fn try_otherwise(
        &mut self,
        now: Instant,
        flow: Flow,
        response: &Message<'_>,
        status: u16,
        purpose: &Purpose,
        request: &Bytes,
        forms: u8,
    ) -> bool {
        let set = match status {
            401 | 407 => self.answer_challenge(response, status, purpose, request),
            422 => longer_session(response, request),
            _ => None,
        };
        let (Some(set), Some(usage)) = (set, purpose.usage()) else {
            return false;
        };
        let branch = self.new_branch();
        let Some(dialog) = self.dialog(usage) else {
            return false;
        };
        dialog.local_cseq += 1;
        let cseq = dialog.local_cseq;
        let via = self.via(&flow, &branch);
        let request = again(request, &via, Some(cseq), &set);
        let key = self.run_client(now, branch, flow, request, purpose.clone(), forms + 1);
        if let Purpose::Invite(call) = purpose {
            self.replace_invite(*call, key);
        }
        true
    }

    fn answer_challenge(
        &mut self,
        response: &Message<'_>,
        status: u16,
        purpose: &Purpose,
        request: &Bytes,
    ) -> Option<Vec<(&'static str, String)>> {
        let (Purpose::Invite(call) | Purpose::Refresh(call)) = *purpose else {
            return None;
        };
        let (asks, answers) = match status {
            401 => ("WWW-Authenticate", "Authorization"),
            _ => ("Proxy-Authenticate", "Proxy-Authorization"),
        };
        let challenges: Vec<&str> = response.all(asks).collect();
        let cnonce = format!("{:016x}", self.random());
        let credentials = self.call(call)?.credentials.clone()?;
        let request = Message::parse(request).ok()?;
        let Start::Request { method, uri, .. } = request.start else {
            return None;
        };
        let answer = digest::answer(
            challenges,
            &credentials,
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
            self.on_outcome(now, flow, purpose, 408, None);
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
            let (purpose, udp, request) =
                (client.purpose.clone(), client.udp, client.request().clone());
            self.drop_client(key);
            match udp {
                Some(udp) => self.fall_back(now, udp, &request, purpose),
                None => self.on_outcome(now, flow, purpose, 503, None),
            }
        }
    }

    fn fall_back(&mut self, now: Instant, udp: Flow, request: &Bytes, purpose: Purpose) {
        if let Some(usage) = purpose.usage()
            && let Some(dialog) = self.dialog(usage)
        {
            dialog.only_udp = true;
        }
        let branch = self.new_branch();
        let request = again(request, &self.via(&udp, &branch), None, &[]);
        let call = match purpose {
            Purpose::Invite(call) => Some(call),
            _ => None,
        };
        let key = self.run_client(now, branch, udp, request, purpose, 1);
        if let Some(call) = call {
            self.replace_invite(call, key);
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
        self.call(call)?.is_up().then_some(())?;
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
