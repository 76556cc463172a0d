//! Bodies of fuzz targets: plain functions that must not panic on any bytes. Tests run them too.

// Each run has an epoch of its own; nothing depends on which.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::digest::Credentials;
use crate::frame::Framer;
use crate::refer::{self, DialogId, Method, ReferTo};
use crate::sipfrag;
use crate::{
    Body, Config, Endpoint, Event, Flow, Invitation, ListenerIdentity, Output, Rejection,
    Transport, scan,
};

/// What stands between the datagrams of one input.
const NEXT: &[u8] = b"\n----\n";

/// Datagrams: the scan, and an endpoint that answers whatever it makes of them. Where the first one is a
/// response, the endpoint has placed a call. `@TAG`, `@INVITE`, `@BRANCH` and `@CALL` stand for what the
/// endpoint said last, so that they can be of its dialogs and transactions.
pub fn message(bytes: &[u8]) {
    if let Ok(glance) = scan(bytes) {
        let _ = (glance.owner(), glance.user(), glance.is_for_room());
    }
    scan::headers(bytes, "Via", Some(b'v')).for_each(drop);
    let mut endpoint = endpoint();
    let mut now = Instant::now();
    let mut said = Said::default();
    if bytes.starts_with(b"SIP/") {
        call(&mut endpoint, now);
        said = settle(&mut endpoint, now, said);
    }
    let datagrams: Vec<&[u8]> = split(bytes).take(DATAGRAMS_MAX).collect();
    for datagram in &datagrams {
        let datagram = said.filled_in(datagram);
        endpoint.handle_message(now, flow(Transport::Udp), &datagram);
        said = settle(&mut endpoint, now, said);
        // The same again is a retransmission.
        endpoint.handle_message(now, flow(Transport::Udp), &datagram);
        said = settle(&mut endpoint, now, said);
        now += Duration::from_millis(100);
    }
    // Sessions and subscriptions have their time too.
    for _ in 0..8 {
        now += Duration::from_secs(64);
        endpoint.handle_timeout(now);
        said = settle(&mut endpoint, now, said);
    }
}

/// More than any flow has.
const DATAGRAMS_MAX: usize = 16;

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let whole = rest?;
        let at = whole.windows(NEXT.len()).position(|part| part == NEXT);
        rest = at.map(|at| &whole[at + NEXT.len()..]);
        Some(at.map_or(whole, |at| &whole[..at]))
    })
}

fn call(endpoint: &mut Endpoint, now: Instant) {
    let invitation = Invitation {
        from_display: None,
        target: "sip:b@192.0.2.2".to_owned(),
        from: "sip:room@192.0.2.1".to_owned(),
        contact_user: "room".to_owned(),
        body: Some(description()),
        headers: Vec::new(),
        credentials: Some(Credentials {
            username: "u".to_owned(),
            password: "p".to_owned(),
            realm: None,
        }),
    };
    let _ = endpoint.invite(now, flow(Transport::Udp), invitation);
}

fn description() -> Body {
    Body {
        content_type: "application/sdp".to_owned(),
        content: "v=0".into(),
    }
}

/// What the endpoint called its dialog and its transaction, last.
#[derive(Default)]
struct Said {
    tag: String,
    /// Of our latest INVITE, and of our latest other request.
    invite: String,
    branch: String,
    call_id: String,
}

fn text(part: &[u8]) -> String {
    String::from_utf8_lossy(part).into_owned()
}

impl Said {
    /// Our tag is that of From in a request and that of To in a response.
    fn note(&mut self, message: &[u8]) {
        let Ok(glance) = scan(message) else { return };
        self.call_id = text(glance.call_id);
        let tag = match glance.start {
            scan::Start::Request { method, .. } => {
                let branch = glance.branch.map(text).unwrap_or_default();
                match method {
                    b"ACK" => {}
                    b"INVITE" => self.invite = branch,
                    _ => self.branch = branch,
                }
                glance.from_tag
            }
            scan::Start::Response { .. } => glance.to_tag,
        };
        self.tag = tag.map(text).unwrap_or_default();
    }

    fn filled_in(&self, datagram: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(datagram.len());
        let mut rest = datagram;
        'octets: while let [octet, tail @ ..] = rest {
            for (name, value) in [
                ("@TAG", &self.tag),
                ("@INVITE", &self.invite),
                ("@BRANCH", &self.branch),
                ("@CALL", &self.call_id),
            ] {
                if let Some(after) = rest.strip_prefix(name.as_bytes()) {
                    filled.extend_from_slice(value.as_bytes());
                    rest = after;
                    continue 'octets;
                }
            }
            filled.push(*octet);
            rest = tail;
        }
        filled
    }
}

/// A stream: framing, then every message that comes out of it.
pub fn stream(bytes: &[u8]) {
    let mut endpoint = endpoint();
    let now = Instant::now();
    let mut framer = Framer::default();
    for piece in bytes.chunks(7) {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(crate::frame::Frame::Message(message))) => {
                    endpoint.handle_message(now, flow(Transport::Tcp), &message);
                    settle(&mut endpoint, now, Said::default());
                }
                Ok(Some(crate::frame::Frame::Ping)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// A header value as REFER and INVITE bring it, and a fragment of the NOTIFY that answers.
pub fn refer_headers(bytes: &[u8]) {
    let _ = sipfrag::read(bytes);
    let Ok(value) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(refer) = ReferTo::parse(value) {
        let is_clean = |text: &str| !text.contains(char::is_control);
        assert!(is_clean(&refer.uri) && is_clean(refer.method.as_str()));
        for (name, value) in &refer.headers {
            assert!(is_clean(name) && is_clean(value));
        }
        // What is left of the URI asks for nothing else.
        let again = ReferTo::parse(&format!("<{}>", refer.uri));
        let plain = ReferTo {
            uri: refer.uri,
            method: Method::Invite,
            headers: Vec::new(),
        };
        assert!(again == Ok(plain) || value.len() > refer::VALUE_LEN_MAX - 2);
        if let Some(replaces) = refer.headers.iter().find(|(name, _)| name == "Replaces") {
            dialog(&replaces.1);
        }
    }
    dialog(value);
}

fn dialog(value: &str) {
    let joined = DialogId::join(value);
    let Ok(replaced) = DialogId::replaces(value) else {
        assert!(joined.is_err());
        return;
    };
    let DialogId {
        call_id,
        to_tag,
        from_tag,
        ..
    } = &replaced;
    let written = format!("{call_id};to-tag={to_tag};from-tag={from_tag}");
    assert_eq!(DialogId::replaces(&written), joined);
}

fn endpoint() -> Endpoint {
    let identity = |transport| ListenerIdentity {
        transport,
        sent_by: "192.0.2.1:5060".to_owned(),
    };
    let listeners = vec![identity(Transport::Udp), identity(Transport::Tcp)];
    Endpoint::new(Config {
        focus: true,
        ..Config::new(1, listeners, 7)
    })
}

fn flow(transport: Transport) -> Flow {
    let peer: SocketAddr = ([192, 0, 2, 2], 5060).into();
    Flow {
        transport,
        peer,
        listener: u16::from(transport == Transport::Tcp),
        stream: u64::from(transport == Transport::Tcp),
    }
}

/// Answers everything, the way a focus would; gives what was said last.
fn settle(endpoint: &mut Endpoint, now: Instant, mut said: Said) -> Said {
    while let Some(output) = endpoint.poll_output() {
        match output {
            Output::Transmit { message, .. } => said.note(&message),
            Output::Event(event) => answer(endpoint, now, event),
        }
    }
    said
}

fn answer(endpoint: &mut Endpoint, now: Instant, event: Event) {
    match event {
        Event::Invite(invite) => match &invite.body {
            Some(body) => {
                endpoint.ring(now, invite.call, "room");
                for named in [&invite.replaces, &invite.join].into_iter().flatten() {
                    if let Ok(id) = DialogId::replaces(named) {
                        endpoint.named(&id.call_id, &id.to_tag, &id.from_tag);
                    }
                }
                endpoint.accept(now, invite.call, "room", body.clone());
            }
            None => endpoint.reject(now, invite.call, Rejection::new(488)),
        },
        Event::Reinvite { call, body } => match body {
            Some(body) => endpoint.accept(now, call, "room", body),
            None => endpoint.reject(now, call, Rejection::new(488)),
        },
        Event::Options { request, .. } => endpoint.respond_options(now, request, None),
        Event::Request(request) => {
            if request.method == crate::Method::Message {
                endpoint.respond_request(now, request.key, 200, &[]);
                return;
            }
            let event = request.header("Event").unwrap_or("refer").to_owned();
            let accepted = endpoint.accept_subscription(now, request.key, &event, 120, "room");
            if let Some(key) = accepted {
                endpoint.notify(now, key, Some(description()));
                endpoint.notify(now, key, request.body);
            }
        }
        Event::Resubscribed { subscription } => endpoint.notify(now, subscription, None),
        Event::Unsubscribed { subscription, .. } => {
            endpoint.end_subscription(now, subscription, "timeout", None);
        }
        Event::Established { call, .. } | Event::Accepted { call, .. } => {
            endpoint.request_in_call(now, call, "MESSAGE", &[], Some(&description()));
        }
        Event::Dtmf { call, digit: '#' } => endpoint.bye(now, call, Some("asked for")),
        Event::Dtmf { .. }
        | Event::Progress { .. }
        | Event::Redirected { .. }
        | Event::Rejected { .. }
        | Event::Ended { .. }
        | Event::Answered { .. }
        | Event::Changed { .. }
        | Event::Referred { .. }
        | Event::SubscriptionLost { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_header_values_never_panic(
            value in "(sips?:|tel:|<|>|[ab@;?&=%\"]|%0[ad]|method=|Replaces=|to-tag=1|from-tag=2){0,12}",
            bytes: Vec<u8>,
        ) {
            refer_headers(value.as_bytes());
            refer_headers(&bytes);
        }
    }
}
