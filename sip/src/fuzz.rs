//! Bodies of fuzz targets: plain functions that must not panic on any bytes. Tests run them too.

// Each run has an epoch of its own; nothing depends on which.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::frame::Framer;
use crate::refer::{self, DialogId, Method, ReferTo};
use crate::sipfrag;
use crate::{Config, Endpoint, Event, Flow, ListenerIdentity, Output, Rejection, Transport, scan};

/// One datagram: the scan, and an endpoint that answers whatever it makes of it.
pub fn message(bytes: &[u8]) {
    if let Ok(glance) = scan(bytes) {
        let _ = (glance.owner(), glance.user(), glance.is_for_room());
    }
    scan::headers(bytes, "Via", Some(b'v')).for_each(drop);
    let mut endpoint = endpoint();
    let now = Instant::now();
    endpoint.handle_message(now, flow(Transport::Udp), bytes);
    settle(&mut endpoint, now);
    // The same again is a retransmission.
    endpoint.handle_message(now, flow(Transport::Udp), bytes);
    settle(&mut endpoint, now);
    endpoint.handle_timeout(now + Duration::from_secs(64));
    settle(&mut endpoint, now);
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
                    settle(&mut endpoint, now);
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
    Endpoint::new(Config::new(
        1,
        vec![identity(Transport::Udp), identity(Transport::Tcp)],
        7,
    ))
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

fn settle(endpoint: &mut Endpoint, now: Instant) {
    while let Some(output) = endpoint.poll_output() {
        match output {
            Output::Event(Event::Invite(invite)) if invite.body.is_some() => {
                endpoint.accept(
                    now,
                    invite.call,
                    "room",
                    invite.body.unwrap_or_else(|| unreachable!("it has one")),
                );
            }
            Output::Event(Event::Invite(invite)) => {
                endpoint.reject(now, invite.call, Rejection::new(488))
            }
            Output::Event(Event::Reinvite { call, .. }) => {
                endpoint.reject(now, call, Rejection::new(488))
            }
            Output::Event(Event::Options { request, .. }) => {
                endpoint.respond_options(now, request, None)
            }
            Output::Event(_) | Output::Transmit { .. } => {}
        }
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
