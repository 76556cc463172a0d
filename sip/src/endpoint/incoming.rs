//! Requests that come in.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

use super::call::{Call, DialogKey, Phase};
use super::{
    CallKey, Ended, Endpoint, Event, Invite, RequestKey, ServerMachine, ServerTransaction, SlotKey,
};
use crate::message::build::{Extra, Template};
use crate::message::normalise::normalise;
use crate::message::{CSeq, Malformed, Message, Party, Start, Via, address, is_our_version};
use crate::scan::user_of;
use crate::transaction::invite_server::InviteServer;
use crate::transaction::key::Key;
use crate::transaction::{Acts, Reliable, server};
use crate::{Body, Flow, Transport};

/// What this endpoint does; the rest of [`KNOWN`] is 405, everything else 501 (RFC 3261 §8.2.1).
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO";
const KNOWN: [&str; 9] = [
    "REGISTER",
    "SUBSCRIBE",
    "NOTIFY",
    "REFER",
    "PUBLISH",
    "MESSAGE",
    "PRACK",
    "UPDATE",
    "BENOTIFY",
];

const SDP: &str = "application/sdp";
const DTMF: &str = "application/dtmf-relay";

/// Seconds asked for when the endpoint itself is full.
const RETRY_AFTER_S: u32 = 5;

/// A status with the header lines that explain it.
struct Refusal(u16, Extra);

impl Refusal {
    fn new(status: u16) -> Self {
        Self(status, Extra::default())
    }

    fn with(status: u16, name: &str, value: &str) -> Self {
        Self(status, Extra::default().line(name, value))
    }
}

/// The fault is told, so that whoever sent it can mend it.
impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self(
            400,
            Extra::default().line("Warning", format_args!("399 plenum \"{malformed}\"")),
        )
    }
}

/// What every request has.
struct Identity {
    call_id: String,
    from: Party,
    to: Party,
    cseq: CSeq,
}

impl Identity {
    fn of(request: &Message<'_>, method: &str) -> Result<Self, Malformed> {
        let identity = Self {
            call_id: request.call_id()?.to_owned(),
            from: request.from()?,
            to: request.to()?,
            cseq: request.cseq()?,
        };
        // Methods are compared with case (RFC 3261 §7.1).
        if identity.cseq.method != method {
            return Err(Malformed("CSeq names another method"));
        }
        Ok(identity)
    }
}

impl Endpoint {
    /// One message, a datagram or a whole frame of a stream.
    pub fn handle_message(&mut self, now: Instant, flow: Flow, message: &[u8]) {
        let normal = normalise(message);
        let broken = normal.is_err();
        let Ok(message) = Message::parse(normal.as_deref().unwrap_or(message)) else {
            self.counters.malformed += 1;
            return;
        };
        match message.start {
            Start::Request {
                method,
                uri,
                version,
            } => {
                let refused = broken.then(|| Malformed("Message cannot be read").into());
                self.on_request(now, flow, &message, (method, uri, version), refused);
            }
            Start::Response { status } if !broken => self.on_response(now, &message, status),
            Start::Response { .. } => self.counters.malformed += 1,
        }
    }

    fn on_request(
        &mut self,
        now: Instant,
        flow: Flow,
        request: &Message<'_>,
        line: (&str, &str, &str),
        refused: Option<Refusal>,
    ) {
        let (method, uri, version) = line;
        let Ok(via) = request.via() else {
            self.counters.malformed += 1;
            return;
        };
        let key = Key::of(request, method, &via);
        if method == "ACK" {
            return self.on_ack(now, request, &key);
        }
        if let Some(&known) = self.server_of.get(&key) {
            return self.on_retransmission(now, known);
        }
        let identity = Identity::of(request, method);
        let transaction = self.add_server(now, flow, request, method, &via, key);
        let result = match (refused, &identity) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(malformed)) => Err((*malformed).into()),
            (None, Ok(_)) if !is_our_version(version) => Err(Refusal::new(505)),
            (None, Ok(identity)) => {
                self.on_new_request(now, flow, request, method, uri, identity, transaction, &via)
            }
        };
        if let Err(Refusal(status, extra)) = result {
            if status == 400 {
                self.counters.malformed += 1;
            }
            self.respond(now, transaction, status, extra, None);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a request's parts, taken apart once by the caller"
    )]
    fn on_new_request(
        &mut self,
        now: Instant,
        flow: Flow,
        request: &Message<'_>,
        method: &str,
        uri: &str,
        identity: &Identity,
        transaction: SlotKey,
        via: &Via,
    ) -> Result<(), Refusal> {
        if method == "CANCEL" {
            return self.on_cancel(now, request, transaction, via);
        }
        if KNOWN.contains(&method) {
            return Err(Refusal::with(405, "Allow", ALLOW));
        }
        if !ALLOW.split(", ").any(|known| known == method) {
            return Err(Refusal::with(501, "Allow", ALLOW));
        }
        if let Some(tag) = &identity.to.tag {
            let dialog = DialogKey {
                call_id: identity.call_id.clone(),
                local_tag: tag.clone(),
            };
            return self.on_in_dialog(now, request, method, identity, &dialog, transaction);
        }
        match uri.split_once(':') {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("sip") => {}
            Some((scheme, _))
                if scheme
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c)) =>
            {
                return Err(Refusal::new(416));
            }
            _ => return Err(Malformed("Bad Request-URI").into()),
        }
        if rsip::Uri::try_from(uri).is_err() || uri.contains(['<', '>', '"']) {
            return Err(Malformed("Bad Request-URI").into());
        }
        self.refuse_merged(transaction, identity)?;
        let unknown: Vec<&str> = request.words("Require").collect();
        if !unknown.is_empty() {
            return Err(Refusal::with(420, "Unsupported", &unknown.join(", ")));
        }
        match method {
            "INVITE" => self.on_invite(now, flow, request, uri, identity, transaction),
            "OPTIONS" => {
                self.tell(Event::Options {
                    request: RequestKey(transaction),
                    user: user_of(uri).map(Into::into),
                });
                Ok(())
            }
            // BYE and INFO belong to a dialog.
            _ => Err(Refusal::new(481)),
        }
    }

    fn on_invite(
        &mut self,
        _now: Instant,
        flow: Flow,
        request: &Message<'_>,
        uri: &str,
        identity: &Identity,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let body = session_description(request)?;
        let target = request.contact()?.ok_or(Malformed("Missing Contact"))?;
        if self.calls.len() >= self.config.calls_max {
            return Err(Refusal::with(
                503,
                "Retry-After",
                &RETRY_AFTER_S.to_string(),
            ));
        }
        let Some(server) = self.server(transaction) else {
            return Ok(());
        };
        let local_tag = server.tag.clone();
        let generation = self.next_generation();
        let routes: Vec<String> = request.all("Record-Route").map(str::to_owned).collect();
        // A proxy between that does not stay in the path leaves us to reach the caller by his Contact.
        let passed_through = routes.is_empty() && request.all("Via").count() > 1;
        let call = self.add_call(Call {
            generation,
            flow: if passed_through {
                direct(&target, flow).unwrap_or(flow)
            } else {
                flow
            },
            call_id: identity.call_id.clone(),
            local: format!("{};tag={local_tag}", identity.to.value),
            remote: identity.from.value.clone(),
            local_tag,
            remote_tag: identity.from.tag.clone(),
            local_cseq: 0,
            remote_cseq: Some(identity.cseq.number),
            routes,
            target,
            contact: String::new(),
            phase: Phase::Incoming {
                invite: transaction,
            },
            ended: false,
        });
        if let Some(server) = self.server(transaction) {
            server.call = Some(call);
        }
        self.tell(Event::Invite(Invite {
            call,
            room_user: user_of(uri).map(Into::into),
            request_uri: uri.to_owned(),
            from_uri: identity.from.uri.clone(),
            from_display: identity.from.display_name.clone(),
            call_id: identity.call_id.clone(),
            flow,
            body,
        }));
        Ok(())
    }

    /// A request within a dialog (RFC 3261 §12.2.2).
    fn on_in_dialog(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        method: &str,
        identity: &Identity,
        dialog: &DialogKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let key = *self.call_of.get(dialog).ok_or_else(|| Refusal::new(481))?;
        let Some(call) = self.call(key).filter(|call| call.is_with(&identity.from)) else {
            return Err(Refusal::new(481));
        };
        if call
            .remote_cseq
            .is_some_and(|last| identity.cseq.number <= last)
        {
            return Err(Refusal::new(500));
        }
        call.remote_cseq = Some(identity.cseq.number);
        match method {
            "BYE" => {
                self.respond(now, transaction, 200, Extra::default(), None);
                self.on_bye(now, key);
                Ok(())
            }
            "INVITE" => self.on_reinvite(request, key, transaction),
            "INFO" => match (
                request.header("Info-Package"),
                request.header("Content-Type"),
            ) {
                (Some(_), _) => Err(Refusal::with(469, "Recv-Info", "")),
                (None, Some(kind)) if !is_media_type(kind, DTMF) => {
                    Err(Refusal::with(415, "Accept", DTMF))
                }
                _ => {
                    self.respond(now, transaction, 200, Extra::default(), None);
                    Ok(())
                }
            },
            _ => {
                let extra = capabilities();
                self.respond(now, transaction, 200, extra, None);
                Ok(())
            }
        }
    }

    fn on_bye(&mut self, now: Instant, key: CallKey) {
        if let Some(Call {
            phase: Phase::Incoming { invite },
            ..
        }) = self.call(key)
        {
            // RFC 3261 §15.1.2: pending requests get 487.
            let invite = *invite;
            self.respond(now, invite, 487, Extra::default(), None);
        }
        self.end(now, key, Ended::PeerBye);
        self.drop_call(key);
    }

    fn on_reinvite(
        &mut self,
        request: &Message<'_>,
        key: CallKey,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let body = session_description(request)?;
        let target = request.contact()?;
        let wait = 1 + self.random() % 10;
        let Some(call) = self.call(key) else {
            return Err(Refusal::new(481));
        };
        match &mut call.phase {
            Phase::Up {
                reinvite: reinvite @ None,
                answer: None,
                bye: None,
                ..
            } => *reinvite = Some(transaction),
            Phase::Up { bye: Some(_), .. } => return Err(Refusal::new(481)),
            // RFC 3261 §14.2: one after the other.
            Phase::Up { .. } | Phase::Incoming { .. } => {
                return Err(Refusal::with(500, "Retry-After", &wait.to_string()));
            }
            Phase::Outgoing { .. } => return Err(Refusal::new(491)),
        }
        if let Some(target) = target {
            call.target = target;
        }
        if let Some(server) = self.server(transaction) {
            server.call = Some(key);
        }
        self.tell(Event::Reinvite { call: key, body });
        Ok(())
    }

    fn on_cancel(
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
            Some(Phase::Up { reinvite, .. }) => *reinvite = None,
            Some(_) => {
                self.end(now, key, Ended::Cancelled);
                self.drop_call(key);
            }
            None => {}
        }
    }

    fn on_ack(&mut self, now: Instant, ack: &Message<'_>, key: &Key) {
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
        let Some(&key) = self.call_of.get(&dialog) else {
            return;
        };
        let Some(call) = self.call(key).filter(|call| call.remote_tag == from.tag) else {
            return;
        };
        let Phase::Up { answer, bye, .. } = &mut call.phase else {
            return;
        };
        if answer
            .as_ref()
            .is_none_or(|answer| answer.cseq != cseq.number)
        {
            return;
        }
        *answer = None;
        match bye.take() {
            Some(reason) => self.send_bye(now, key, reason.as_deref()),
            // A body that is no session description is no answer; the user sees that there is none.
            None => self.tell(Event::Established {
                call: key,
                body: session_description(ack).unwrap_or(None),
            }),
        }
    }

    fn on_retransmission(&mut self, now: Instant, key: SlotKey) {
        self.counters.retransmissions_received += 1;
        let Some(server) = self.server(key) else {
            return;
        };
        let mut acts = Acts::default();
        match &server.machine {
            ServerMachine::Invite(machine) => machine.on_retransmission(&mut acts),
            ServerMachine::Other(machine) => machine.on_retransmission(&mut acts),
        }
        self.act_server(now, key, acts);
    }

    /// RFC 3261 §8.2.2.2: the same request that came by another way.
    fn refuse_merged(&mut self, transaction: SlotKey, identity: &Identity) -> Result<(), Refusal> {
        let Identity {
            call_id,
            from,
            cseq,
            ..
        } = identity;
        let name = format!(
            "{call_id} {} {} {}",
            from.tag.as_deref().unwrap_or_default(),
            cseq.number,
            cseq.method
        );
        if self.server_by_identity.contains_key(&name) {
            return Err(Refusal::new(482));
        }
        self.server_by_identity.insert(name.clone(), transaction);
        if let Some(server) = self.server(transaction) {
            server.identity = name;
        }
        Ok(())
    }

    fn add_server(
        &mut self,
        now: Instant,
        flow: Flow,
        request: &Message<'_>,
        method: &str,
        via: &Via,
        key: Key,
    ) -> SlotKey {
        let generation = self.next_generation();
        let reliable = Reliable(flow.transport.is_reliable());
        let mut acts = Acts::default();
        let machine = match method {
            "INVITE" => {
                ServerMachine::Invite(InviteServer::new(self.config.timers, reliable, &mut acts))
            }
            _ => ServerMachine::Other(server::Server::new(self.config.timers, reliable)),
        };
        let server = ServerTransaction {
            generation,
            key: key.clone(),
            template: Template::new(request, via, flow),
            machine,
            call: None,
            tag: self.new_tag(),
            identity: String::new(),
        };
        let slot = SlotKey {
            slot: self.servers.insert(Box::new(server)) as u32,
            generation,
        };
        self.server_of.insert(key, slot);
        self.act_server(now, slot, acts);
        slot
    }

    /// Answers a request outside of what a dialog adds.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        key: SlotKey,
        status: u16,
        extra: Extra,
        body: Option<&Body>,
    ) -> Bytes {
        let user_agent = self.config.user_agent.clone();
        let Some(server) = self.server(key) else {
            return Bytes::new();
        };
        let tag = (!server.template.has_to_tag()).then(|| server.tag.clone());
        let response = server.template.response(
            status,
            tag.as_deref(),
            &extra.line("Server", user_agent),
            body,
        );
        let mut acts = Acts::default();
        match &mut server.machine {
            ServerMachine::Invite(machine) => machine.respond(status, response.clone(), &mut acts),
            ServerMachine::Other(machine) => machine.respond(response.clone(), &mut acts),
        }
        self.act_server(now, key, acts);
        response
    }
}

/// What a 200 to OPTIONS tells (RFC 3261 §11.2).
pub(super) fn capabilities() -> Extra {
    Extra::default()
        .line("Allow", ALLOW)
        .line("Accept", SDP)
        .line("Accept-Encoding", "identity")
        .line("Supported", "")
}

/// The body, if it is a session description; None without a body.
fn session_description(message: &Message<'_>) -> Result<Option<Body>, Refusal> {
    if message.body.is_empty() {
        return Ok(None);
    }
    if message
        .words("Content-Encoding")
        .any(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Err(Refusal::with(415, "Accept-Encoding", "identity"));
    }
    match message.header("Content-Type") {
        Some(kind) if is_media_type(kind, SDP) => Ok(Some(Body {
            content_type: SDP.to_owned(),
            content: Bytes::copy_from_slice(message.body),
        })),
        _ => Err(Refusal::with(415, "Accept", SDP)),
    }
}

fn is_media_type(value: &str, wanted: &str) -> bool {
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(wanted)
}

/// The flow straight to a Contact, where that is an address.
fn direct(target: &str, flow: Flow) -> Option<Flow> {
    if flow.transport != Transport::Udp {
        return None;
    }
    let uri = rsip::Uri::try_from(address(target)?.as_str()).ok()?;
    let port = uri
        .host_with_port
        .port
        .as_ref()
        .map_or(5060, |port| *port.value());
    let ip: IpAddr = uri.host_with_port.host.to_string().parse().ok()?;
    Some(Flow {
        peer: SocketAddr::new(ip, port),
        ..flow
    })
}
