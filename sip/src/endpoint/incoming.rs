//! Requests that come in.

use std::time::Instant;

use bytes::Bytes;

use super::abilities::{SDP, SUPPORTED, accepts, session_description};
use super::call::{Abilities, Call, Phase};
use super::dialog::{Dialog, DialogKey};
use super::event::{Invite, Method, Request};
use super::subscription::expires_asked;
use super::{CallKey, Endpoint, Event, RequestKey, ServerMachine, SlotKey};
use crate::message::build::Extra;
use crate::message::normalise::{Normal, normalise};
use crate::message::uri::{Uri, has_headers};
use crate::message::{CSeq, Malformed, Message, Party, Start, Via, is_our_version};
use crate::scan::user_of;
use crate::transaction::Acts;
use crate::transaction::key::Key;
use crate::{Body, Flow};

/// Seconds asked for when the endpoint itself is full.
pub(super) const RETRY_AFTER_S: u32 = 5;

/// A status with the header lines that explain it.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) u16, pub(super) Extra);

impl Refusal {
    pub(super) fn new(status: u16) -> Self {
        Self(status, Extra::default())
    }

    pub(super) fn with(status: u16, name: &str, value: &str) -> Self {
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

/// What every message has.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) call_id: String,
    pub(super) from: Party,
    pub(super) to: Party,
    pub(super) cseq: CSeq,
}

impl Identity {
    pub(super) fn of(message: &Message<'_>, method: &str) -> Result<Self, Malformed> {
        let identity = Self {
            call_id: message.call_id()?.to_owned(),
            from: message.from()?,
            to: message.to()?,
            cseq: message.cseq()?,
        };
        // Methods are compared with case (RFC 3261 §7.1).
        if identity.cseq.method != method {
            return Err(Malformed("CSeq names another method"));
        }
        message.check_contacts()?;
        Ok(identity)
    }

    /// What a request that came by two ways has the same on both (RFC 3261 §8.2.2.2).
    fn name(&self) -> String {
        let from_tag = self.from.tag.as_deref().unwrap_or_default();
        let CSeq { number, method } = &self.cseq;
        format!("{} {from_tag} {number} {method}", self.call_id)
    }
}

/// A request taken apart.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) message: &'a Message<'a>,
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    pub(super) identity: &'a Identity,
    pub(super) flow: Flow,
    pub(super) via: &'a Via,
}

impl Endpoint {
    /// One message, a datagram or a whole frame of a stream.
    pub fn handle_message(&mut self, now: Instant, flow: Flow, message: &[u8]) {
        let Ok(Normal { text, fault }) = normalise(message) else {
            self.counters.malformed += 1;
            return;
        };
        let Ok(message) = Message::parse(&text) else {
            self.counters.malformed += 1;
            return;
        };
        let fault = fault.map(Malformed::from).or(message.fault);
        match message.start {
            Start::Request {
                method,
                uri,
                version,
            } => self.on_request(now, flow, &message, (method, uri, version), fault),
            Start::Response { status } if fault.is_none() => {
                self.on_response(now, flow, &message, status);
            }
            Start::Response { .. } => self.counters.malformed += 1,
        }
    }

    fn on_request(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Message<'_>,
        line: (&str, &str, &str),
        fault: Option<Malformed>,
    ) {
        let (method, uri, version) = line;
        let Ok(via) = message.via() else {
            self.counters.malformed += 1;
            return;
        };
        let key = Key::of(message, method, &via);
        let fault = fault.or(via.fault);
        if method == "ACK" {
            if fault.is_some() {
                self.counters.malformed += 1;
                return;
            }
            return self.on_ack(now, message, &key);
        }
        if let Some(&known) = self.server_of.get(&key) {
            return self.on_retransmission(now, known);
        }
        let is_ours = is_our_version(version) && via.is_our_version;
        let judged = match (fault, Identity::of(message, method)) {
            // What another version calls well-formed is not ours to say.
            _ if !is_ours => Err(Refusal::new(505)),
            (Some(malformed), _) => Err(malformed.into()),
            _ if !self.recognises(method) => Err(Refusal::with(501, "Allow", self.allow())),
            (None, Err(malformed)) => Err(malformed.into()),
            (None, Ok(identity)) => {
                let judged = self.judge(message, method, uri, &identity, &via);
                judged.map(|()| identity)
            }
        };
        let identity = match judged {
            Ok(identity) => identity,
            Err(refusal) => return self.refuse(flow, message, &via, refusal),
        };
        // Who is in a call is served for longer; others come again.
        let is_known = identity.to.tag.is_some() || method == "CANCEL";
        let most = self.config.transactions_max * if is_known { 2 } else { 1 };
        if self.servers.len() >= most {
            self.counters.dropped += 1;
            return;
        }
        let incoming = Incoming {
            message,
            method,
            uri,
            identity: &identity,
            flow,
            via: &via,
        };
        let transaction = self.add_server(now, &incoming, key);
        if let Err(Refusal(status, extra)) = self.on_new_request(now, &incoming, transaction) {
            self.respond(now, transaction, status, extra, None);
        }
    }

    /// What can be told from the request alone, before anything is remembered of it.
    fn judge(
        &self,
        message: &Message<'_>,
        method: &str,
        uri: &str,
        identity: &Identity,
        via: &Via,
    ) -> Result<(), Refusal> {
        let allow = self.allow();
        let is_ours = allow.split(", ").any(|known| known == method);
        if !is_ours {
            return Err(Refusal::with(405, "Allow", allow));
        }
        // Of a transaction, or a dialog, that is unknown nothing need be remembered.
        if method == "CANCEL" {
            let known = self
                .server_of
                .contains_key(&Key::of_cancelled(message, via));
            return known.then_some(()).ok_or_else(|| Refusal::new(481));
        }
        if let Some(tag) = &identity.to.tag {
            let dialog = DialogKey {
                call_id: identity.call_id.clone(),
                local_tag: tag.clone(),
            };
            if !self.dialog_of.contains_key(&dialog) {
                return Err(Refusal::new(481));
            }
        }
        let unknown: Vec<&str> = message
            .words("Require")
            .filter(|option| {
                let is_it = |known: &str| known.eq_ignore_ascii_case(option);
                !SUPPORTED.split(", ").any(is_it)
            })
            .collect();
        let bad_extension = || Refusal::with(420, "Unsupported", &unknown.join(", "));
        if identity.to.tag.is_some() {
            return match unknown.is_empty() {
                true => Ok(()),
                false => Err(bad_extension()),
            };
        }
        match uri.split_once(':') {
            Some((scheme, _))
                if scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips") => {}
            Some((scheme, _))
                if scheme
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c)) =>
            {
                return Err(Refusal::new(416));
            }
            _ => return Err(Malformed("Bad Request-URI").into()),
        }
        if Uri::parse(uri).is_none() || has_headers(uri) {
            return Err(Malformed("Bad Request-URI").into());
        }
        // The same request that came by another way (RFC 3261 §8.2.2.2).
        if self.server_by_identity.contains_key(&identity.name()) {
            return Err(Refusal::new(482));
        }
        if !unknown.is_empty() {
            return Err(bad_extension());
        }
        match method {
            // They belong to a dialog.
            "BYE" | "INFO" | "PRACK" | "UPDATE" | "NOTIFY" => Err(Refusal::new(481)),
            _ => Ok(()),
        }
    }

    fn on_new_request(
        &mut self,
        now: Instant,
        incoming: &Incoming<'_>,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let &Incoming {
            message,
            method,
            uri,
            identity,
            ..
        } = incoming;
        if method == "CANCEL" {
            return self.on_cancel(now, message, transaction, incoming.via);
        }
        if identity.to.tag.is_some() {
            return self.on_in_dialog(now, incoming, transaction);
        }
        let name = identity.name();
        self.server_by_identity.insert(name.clone(), transaction);
        if let Some(server) = self.server(transaction) {
            server.identity = name;
        }
        match Method::of(method) {
            Some(method) => self.on_users_request(incoming, method, None, transaction),
            None if method == "INVITE" => self.on_invite(incoming, transaction),
            None => {
                self.tell(Event::Options {
                    request: RequestKey(transaction),
                    user: user_of(uri).map(Into::into),
                });
                Ok(())
            }
        }
    }

    fn on_invite(&mut self, incoming: &Incoming<'_>, transaction: SlotKey) -> Result<(), Refusal> {
        let &Incoming {
            message,
            uri,
            identity,
            flow,
            ..
        } = incoming;
        let body = session_description(message)?;
        if body.is_none() && !accepts(message, SDP) {
            return Err(Refusal::with(406, "Accept", SDP));
        }
        let peer = Abilities::of(message);
        let wish = self.wish(message, peer)?;
        let replaces = only_one(message, "Replaces")?;
        let join = only_one(message, "Join")?;
        if replaces.is_some() && join.is_some() {
            return Err(Malformed("Replaces and Join in one request").into());
        }
        let wants_prack = message
            .words("Require")
            .any(|option| option.eq_ignore_ascii_case("100rel"));
        if self.calls.len() >= self.config.calls_max {
            let seconds = RETRY_AFTER_S.to_string();
            return Err(Refusal::with(503, "Retry-After", &seconds));
        }
        let dialog = self.dialog_of_request(incoming, transaction)?;
        let generation = self.next_generation();
        let phase = Phase::Incoming {
            invite: transaction,
        };
        let mut call = Call::new(generation, dialog, phase);
        call.peer = peer;
        call.wish = wish;
        let has_offer = body.is_some();
        if wants_prack {
            call.reliability = Some(self.reliability(identity.cseq.number, has_offer));
        }
        let call = self.add_call(call);
        if let Some(server) = self.server(transaction) {
            server.call = Some(call);
        }
        let names = ["Authorization", "Proxy-Authorization"];
        let authorization = names.into_iter().flat_map(|name| message.all(name));
        self.tell(Event::Invite(Box::new(Invite {
            call,
            room_user: user_of(uri).map(Into::into),
            request_uri: uri.to_owned(),
            from_uri: identity.from.uri.clone(),
            from_display: identity.from.display_name.clone(),
            call_id: identity.call_id.clone(),
            flow,
            proxied: message.all("Via").count() > 1,
            body,
            authorization: authorization.map(str::to_owned).collect(),
            replaces,
            join,
        })));
        Ok(())
    }

    /// The dialog that a request outside of one begins, should it be accepted.
    fn dialog_of_request(
        &mut self,
        incoming: &Incoming<'_>,
        transaction: SlotKey,
    ) -> Result<Dialog, Refusal> {
        let &Incoming {
            message,
            identity,
            flow,
            ..
        } = incoming;
        let target = match message.contact()? {
            Some(target) => target,
            // Before RFC 3261 a caller could do without.
            None if !incoming.via.is_rfc_3261() => identity.from.uri.clone(),
            None => return Err(Malformed("Missing Contact").into()),
        };
        let tag = self.server(transaction).map(|server| server.tag.clone());
        Ok(Dialog::accepted(
            message,
            identity,
            flow,
            target,
            tag.unwrap_or_default(),
            &self.config.listeners,
        ))
    }

    /// A request whose meaning is the user's.
    pub(super) fn on_users_request(
        &mut self,
        incoming: &Incoming<'_>,
        method: Method,
        call: Option<CallKey>,
        transaction: SlotKey,
    ) -> Result<(), Refusal> {
        let &Incoming {
            message,
            uri,
            identity,
            flow,
            ..
        } = incoming;
        if method == Method::Subscribe {
            expires_asked(message)?;
            if message.header("Event").is_none() {
                return Err(Refusal::with(489, "Allow-Events", "conference, refer"));
            }
        }
        let dialog = match (call, method) {
            (None, Method::Subscribe | Method::Refer) => {
                Some(Box::new(self.dialog_of_request(incoming, transaction)?))
            }
            _ => None,
        };
        if let Some(server) = self.server(transaction) {
            server.call = call;
            server.dialog = dialog;
            server.is_refer = method == Method::Refer;
        }
        let content_type = message
            .header("Content-Type")
            .filter(|_| !message.body.is_empty());
        let request = Request {
            key: RequestKey(transaction),
            method,
            call,
            user: user_of(uri).map(Into::into),
            request_uri: uri.to_owned(),
            from_uri: identity.from.uri.clone(),
            from_display: identity.from.display_name.clone(),
            flow,
            body: content_type.map(|content_type| Body {
                content_type: content_type.to_owned(),
                content: Bytes::copy_from_slice(message.body),
            }),
            headers: message
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        };
        self.tell(Event::Request(Box::new(request)));
        Ok(())
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
}

/// The value of a header that may stand once.
fn only_one(message: &Message<'_>, name: &str) -> Result<Option<String>, Malformed> {
    let mut values = message.all(name);
    let value = values.next().map(str::to_owned);
    match values.next() {
        Some(_) => Err(Malformed("Header occurs more than once")),
        None => Ok(value),
    }
}
