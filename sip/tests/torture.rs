//! RFC 4475 against an endpoint: every message comes to what it is to come to, over UDP and over a stream.

#[path = "torture/mod.rs"]
mod messages;

use std::time::{Duration, Instant};

use messages::{Outcome, Torture, messages};
use sip::frame::{Frame, Framer};
use sip::{Body, Config, Endpoint, Event, Flow, ListenerIdentity, Output, Transport};

struct Callee {
    endpoint: Endpoint,
    now: Instant,
}

impl Callee {
    fn new() -> Self {
        let identity = |transport| ListenerIdentity {
            transport,
            sent_by: "192.0.2.1:5060".to_owned(),
        };
        let identities = vec![identity(Transport::Udp), identity(Transport::Tcp)];
        Self {
            endpoint: Endpoint::new(Config::new(0, identities, 7)),
            now: Instant::now(),
        }
    }

    /// Final statuses of what comes back; calls are accepted, OPTIONS answered.
    fn receive(&mut self, transport: Transport, message: &[u8]) -> Vec<u16> {
        let flow = Flow {
            transport,
            peer: ([192, 0, 2, 9], 50_701).into(),
            listener: u16::from(transport == Transport::Tcp),
            stream: u64::from(transport == Transport::Tcp),
        };
        self.endpoint.handle_message(self.now, flow, message);
        let mut finals = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit {
                    flow: back,
                    message,
                } => {
                    assert_eq!(back, flow, "answers go where the message came from");
                    finals.extend(status(&message).filter(|&status| status >= 200));
                }
                Output::Event(Event::Invite(invite)) => {
                    let body = Body {
                        content_type: "application/sdp".to_owned(),
                        content: "v=0".into(),
                    };
                    self.endpoint.accept(self.now, invite.call, "room", body);
                }
                Output::Event(Event::Options { request, .. }) => {
                    self.endpoint.respond_options(self.now, request, None);
                }
                Output::Event(_) => {}
            }
        }
        finals
    }

    fn receive_stream(&mut self, bytes: &[u8]) -> Outcome {
        let mut framer = Framer::default();
        framer.push(bytes);
        let mut finals = Vec::new();
        loop {
            match framer.next() {
                Ok(Some(Frame::Message(message))) => {
                    finals.extend(self.receive(Transport::Tcp, &message));
                }
                Ok(Some(Frame::Ping)) => {}
                Ok(None) if framer.is_within() => return Outcome::Waits,
                Ok(None) => return Outcome::Answers(finals.leak()),
                Err(_) => return Outcome::Closed,
            }
        }
    }

    /// Lets all timers run out.
    fn rest(&mut self) {
        for _ in 0..10_000 {
            while self.endpoint.poll_output().is_some() {}
            let Some(when) = self.endpoint.poll_timeout() else {
                break;
            };
            self.now = when;
            self.endpoint.handle_timeout(when);
        }
        assert!(self.endpoint.is_empty(), "{:?}", self.endpoint.sizes());
    }
}

fn status(message: &[u8]) -> Option<u16> {
    let line = message.strip_prefix(b"SIP/2.0 ")?;
    str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

#[test]
fn every_message_is_met_as_it_should_be() {
    // All failures, not the first.
    let mut wrong = Vec::new();
    for Torture {
        name,
        bytes,
        udp,
        tcp,
    } in messages()
    {
        let mut callee = Callee::new();
        let met = Outcome::Answers(callee.receive(Transport::Udp, &bytes).leak());
        if met != udp {
            wrong.push(format!("{name} over UDP: {met:?}, not {udp:?}"));
        }
        callee.rest();
        let mut callee = Callee::new();
        let met = callee.receive_stream(&bytes);
        if met != tcp {
            wrong.push(format!("{name} over TCP: {met:?}, not {tcp:?}"));
        }
        callee.rest();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_well_formed_is_not_counted_as_malformed() {
    for message in messages() {
        let mut callee = Callee::new();
        callee.receive(Transport::Udp, &message.bytes);
        let is_malformed = message.udp == Outcome::Answers(&[400]) || message.name == "bigcode";
        let counted = callee.endpoint.counters().malformed;
        assert_eq!(counted, u64::from(is_malformed), "{}", message.name);
    }
}

#[test]
fn one_endpoint_takes_them_all_twice_and_forgets_them() {
    let (mut datagrams, mut streams) = (Callee::new(), Callee::new());
    for message in [messages(), messages()].concat() {
        datagrams.receive(Transport::Udp, &message.bytes);
        streams.receive_stream(&message.bytes);
        datagrams.now += Duration::from_millis(3);
    }
    datagrams.rest();
    streams.rest();
}

#[test]
fn a_version_of_the_future_is_505_wherever_it_stands() {
    let message = messages::message("badvers").bytes;
    let text = String::from_utf8(message).unwrap();
    for (from, to) in [
        (
            "OPTIONS sip:attic@house.test SIP/7.0",
            "OPTIONS sip:attic@house.test SIP/2.0",
        ),
        ("Via: SIP/7.0", "Via: SIP/2.0"),
        ("From: Owl", "From: Owl,"),
    ] {
        assert!(text.contains(from));
        let text = text.replace(from, to);
        assert_eq!(
            Callee::new().receive(Transport::Udp, text.as_bytes()),
            [505],
            "{text}"
        );
    }
}

#[test]
fn an_rfc_2543_caller_is_hung_up_on_at_his_from() {
    let message = messages::message("inv2543").bytes;
    let mut callee = Callee::new();
    assert_eq!(callee.receive(Transport::Udp, &message), [200]);
    // Nobody acknowledges: after 64*T1 there is a BYE to whom the From names, by the way he
    // came, which is a strict router's (RFC 3261 §12.2.1.1).
    let mut bye = None;
    while bye.is_none() {
        let when = callee.endpoint.poll_timeout().expect("a BYE to come");
        callee.endpoint.handle_timeout(when);
        while let Some(output) = callee.endpoint.poll_output() {
            if let Output::Transmit { message, .. } = output
                && message.starts_with(b"BYE ")
            {
                bye = Some(String::from_utf8(message.to_vec()).unwrap());
            }
        }
    }
    let bye = bye.unwrap();
    assert!(
        bye.starts_with("BYE sip:attic@house.test;maddr=nest.test SIP/2.0\r\n"),
        "{bye}"
    );
    assert!(
        bye.contains("\r\nRoute: <sip:+15550101@tree.test;user=phone>\r\n"),
        "{bye}"
    );
}

/// Fuzzing starts from these messages too; `WRITE_SEEDS=1` writes them anew.
#[test]
fn fuzz_targets_begin_with_these_messages() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../perf/fuzz/corpus-seeds/sip_message"
    );
    for message in messages() {
        let path = format!("{folder}/torture-{}", message.name);
        if std::env::var_os("WRITE_SEEDS").is_some() {
            std::fs::write(&path, &message.bytes).unwrap();
        }
        let seed = std::fs::read(&path).unwrap_or_default();
        assert!(seed == message.bytes, "{path} is another message");
    }
}
