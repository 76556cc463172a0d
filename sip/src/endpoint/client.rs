//! Requests of ours on their way: which transport they take, and what becomes of them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::attempt::Attempt;
use super::dialog::{DialogKey, Usage, listener_for};
use super::{
    CallKey, ClientKey, ClientMachine, ClientTransaction, Endpoint, Event, SlotKey,
    SubscriptionKey, Wake,
};
use crate::digest::Credentials;
use crate::message::Message;
use crate::message::build::{Extra, again};
use crate::transaction::invite_client::InviteClient;
use crate::transaction::{Acts, Reliable, Timer, client};
use crate::{Body, Flow, Transport};

/// Longest request that goes by UDP where the path's MTU is unknown (RFC 3261 §18.1.1).
const UDP_LEN_MAX: usize = 1_300;

/// What a request of ours is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It begins a call.
    Invite(CallKey),
    /// It refreshes the session of a call, by re-INVITE or UPDATE.
    Refresh(CallKey),
    /// It changes the terms of a call, as the user wants.
    Change(CallKey),
    Bye(DialogKey),
    Cancel,
    Prack(CallKey),
    Notify(SubscriptionKey),
    /// The user wants to know what comes of it.
    User(ClientKey, Usage),
}

impl Purpose {
    /// The dialog whose numbers and credentials it takes.
    pub(super) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Invite(call) | Self::Refresh(call) | Self::Change(call) | Self::Prack(call) => {
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

    pub(super) fn launch(&mut self, now: Instant, branch: String, attempt: Attempt) -> SlotKey {
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
        let is_refresh = matches!(purpose, Purpose::Refresh(_) | Purpose::Change(_));
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
    pub(super) fn on_outcome(
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
            Purpose::Change(call) => self.on_changed(now, transaction, call, status, response),
            Purpose::Notify(subscription) => self.on_notified(now, subscription, status),
            Purpose::User(request, _) => self.tell(Event::Answered { request, status }),
            Purpose::Bye(_) | Purpose::Cancel | Purpose::Prack(_) => {}
        }
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

    /// Asks the peer of a call to call `target`, a URI, by REFER (RFC 3515); the REFER's own answer is told
    /// by [`Event::Answered`], what comes of it by [`Event::Referred`]. Only a focus takes the NOTIFYs that
    /// say so. Each header value is one line.
    pub fn refer(
        &mut self,
        now: Instant,
        call: CallKey,
        target: &str,
        headers: &[(&str, String)],
    ) -> Option<ClientKey> {
        let contact = self.call(call)?.dialog.contact.clone();
        let mut lines = vec![("Refer-To", format!("<{target}>")), ("Contact", contact)];
        lines.extend_from_slice(headers);
        let request = self.request_in_call(now, call, "REFER", &lines, None)?;
        self.call(call)?.referring = true;
        Some(request)
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
