//! One request in, the status of the response out: RFC 3261 §8.2 and, in spirit, RFC 4475.

use std::time::Instant;

use sip::{Config, Endpoint, Event, Flow, ListenerIdentity, Output, Transport};

struct Callee {
    endpoint: Endpoint,
    now: Instant,
}

impl Callee {
    fn new() -> Self {
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: "192.0.2.1:5060".to_owned(),
        };
        Self {
            endpoint: Endpoint::new(Config::new(0, vec![identity], 7)),
            now: Instant::now(),
        }
    }

    /// First lines of what comes back; calls are accepted, OPTIONS answered.
    fn receive(&mut self, message: &str) -> Vec<String> {
        let flow = Flow {
            transport: Transport::Udp,
            peer: ([192, 0, 2, 9], 5060).into(),
            listener: 0,
            stream: 0,
        };
        self.endpoint
            .handle_message(self.now, flow, message.as_bytes());
        let mut lines = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { message, .. } => {
                    lines.push(String::from_utf8(message.to_vec()).unwrap())
                }
                Output::Event(Event::Invite(invite)) => {
                    let body = sip::Body {
                        content_type: "application/sdp".to_owned(),
                        content: "v=0".into(),
                    };
                    self.endpoint.accept(self.now, invite.call, "room", body);
                }
                Output::Event(Event::Options { request, .. }) => {
                    self.endpoint.respond_options(self.now, request, None)
                }
                Output::Event(_) => {}
            }
        }
        lines
    }
}

/// A valid request with lines replaced (by header name) or added.
fn request(method: &str, uri: &str, changes: &[&str]) -> String {
    let mut lines: Vec<String> = [
        "Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1",
        "Max-Forwards: 70",
        "From: <sip:a@example.test>;tag=f",
        "To: <sip:room@192.0.2.1>",
        "Call-ID: c1",
        &format!("CSeq: 1 {method}"),
        "Contact: <sip:a@192.0.2.9>",
    ]
    .map(str::to_owned)
    .into();
    let name = |line: &str| {
        line.split(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    for change in changes {
        lines.retain(|line| name(line) != name(change));
        // An empty value takes the header away.
        if !change.ends_with(':') {
            lines.push((*change).to_owned());
        }
    }
    format!("{method} {uri} SIP/2.0\r\n{}\r\n\r\n", lines.join("\r\n"))
}

const ROOM: &str = "sip:room@192.0.2.1";

#[track_caller]
fn check(message: &str, status: u16, also: &[&str]) {
    let answers = Callee::new().receive(message);
    let [answer] = &answers[..] else {
        panic!("{} answers to\n{message}", answers.len())
    };
    assert!(
        answer.starts_with(&format!("SIP/2.0 {status} ")),
        "{answer}\nto\n{message}"
    );
    for line in also {
        assert!(answer.contains(line), "no {line:?} in\n{answer}");
    }
}

#[test]
fn what_is_asked_for_wrongly_is_answered_rightly() {
    check(
        &request("REGISTER", ROOM, &[]),
        405,
        &["Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, PRACK, UPDATE\r\n"],
    );
    check(&request("NEWMETHOD", ROOM, &[]), 501, &[]);
    check(&request("INVITE", "tel:+1234", &[]), 416, &[]);
    check(
        &request("INVITE", "soap.beep://192.0.2.103:3002", &[]),
        416,
        &[],
    );
    check(
        &request("INVITE", ROOM, &["Require: 100rel, x"]),
        420,
        &["Unsupported: x\r\n"],
    );
    check(&request("BYE", ROOM, &[]), 481, &[]);
    check(&request("CANCEL", ROOM, &[]), 481, &[]);
    check(
        &request("BYE", ROOM, &["To: <sip:room@192.0.2.1>;tag=gone"]),
        481,
        &[],
    );
    check(
        &request("INVITE", ROOM, &[]).replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"),
        505,
        &[],
    );
    let typed = |kind: &str| format!("{}x", request("INVITE", ROOM, &["Content-Length: 1", kind]));
    check(
        &typed("Content-Type: text/plain"),
        415,
        &["Accept: application/sdp\r\n"],
    );
    let encoded = format!(
        "{}x",
        request(
            "INVITE",
            ROOM,
            &["Content-Type: application/sdp", "Content-Encoding: gzip"]
        )
    );
    check(&encoded, 415, &["Accept-Encoding: identity\r\n"]);
    check(
        &request("OPTIONS", "sip:192.0.2.1", &[]),
        200,
        &["Allow: ", "Accept: application/sdp\r\n"],
    );
}

#[test]
fn syntax_errors_are_400_where_there_is_somebody_to_tell() {
    for change in [
        "From:",
        "To:",
        "Call-ID:",
        "CSeq:",
        "CSeq: 36893488147419103232 INVITE",
        "CSeq: 1 OPTIONS",
        "CSeq: one INVITE",
        "Contact:",
        "To: \"unbalanced <sip:room@192.0.2.1>",
        "From: <sip:a@example.test;tag=f",
        "Content-Length: 9999",
        "Content-Length: -9",
    ] {
        check(&request("INVITE", ROOM, &[change]), 400, &[]);
    }
    check(&request("INVITE", "<sip:room@192.0.2.1>", &[]), 400, &[]);
    check(
        &request("INVITE", ROOM, &[]).replace("\r\nCSeq", "\r\nCall-ID: other\r\nCSeq"),
        400,
        &[],
    );
}

#[test]
fn what_names_no_transaction_is_dropped_and_counted() {
    for message in [
        "",
        "\0\0\0",
        "hello",
        "INVITE sip:a@b SIP/2.0\r\n\r\n",
        "SIP/2.0 200\r\n\r\n",
        &request("INVITE", ROOM, &["Via:"]),
    ] {
        let mut callee = Callee::new();
        assert!(callee.receive(message).is_empty(), "{message}");
        assert_eq!(callee.endpoint.counters().malformed, 1, "{message}");
    }
    // An ACK is never answered.
    assert!(Callee::new().receive(&request("ACK", ROOM, &[])).is_empty());
}

#[test]
fn every_way_of_writing_is_understood() {
    let short = "INVITE sip:room@192.0.2.1 SIP/2.0\r\nTO :\r\n sip:room@192.0.2.1 ;   x-y = z\r\nfrom : \"J Rosenberg \\\\\\\"\"       \
        <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8\r\nMaX-fOrWaRdS: 0068\r\nCall-ID: wsinv.ndaksdj@192.0.2.1\r\n\
        CSeq: 0009\r\n  INVITE\r\nv:  SIP/2.0/UDP\t192.0.2.9;branch=390skdjuw, SIP/2.0/TCP other;branch=z9hG4bK30239\r\n\
        NewFangledHeader:   newfangled value\r\n continued\r\nm:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com>\r\n\r\n";
    check(
        short,
        200,
        &[
            "Via: SIP/2.0/TCP other;branch=z9hG4bK30239\r\n",
            "Call-ID: wsinv.ndaksdj@192.0.2.1\r\n",
        ],
    );
    check(
        &request("INVITE", "sip:sips%3Auser%40example.com@example.net", &[]),
        200,
        &[],
    );
    check(&request("INVITE", ROOM, &["Max-Forwards: 0"]), 200, &[]);
    check(
        &request("INVITE", ROOM, &["Record-Route: <sip:p1;lr>, <sip:p2;lr>"]),
        200,
        &["Record-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n"],
    );
    // RFC 2543: neither branch nor tag.
    check(
        &request(
            "INVITE",
            ROOM,
            &["Via: SIP/2.0/UDP 192.0.2.9", "From: sip:a@example.test"],
        ),
        200,
        &[],
    );
}

#[test]
fn a_request_that_came_by_two_ways_is_merged() {
    let mut callee = Callee::new();
    assert!(callee.receive(&request("INVITE", ROOM, &[]))[0].starts_with("SIP/2.0 200"));
    let other_way = request(
        "INVITE",
        ROOM,
        &["Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK2"],
    );
    assert!(callee.receive(&other_way)[0].starts_with("SIP/2.0 482"));
    // The first one again is a retransmission, which the core's 200 answers in its own time.
    assert!(callee.receive(&request("INVITE", ROOM, &[])).is_empty());
    assert_eq!(callee.endpoint.counters().retransmissions_received, 1);
}

#[test]
fn within_a_dialog_numbers_rise() {
    let mut callee = Callee::new();
    let answer = callee
        .receive(&request("INVITE", ROOM, &["CSeq: 10 INVITE"]))
        .remove(0);
    let to = answer
        .lines()
        .find(|line| line.starts_with("To:"))
        .unwrap()
        .to_owned();
    let within = |method: &str, number: u32, branch: u32, more: &[&str]| {
        let cseq = format!("CSeq: {number} {method}");
        let via = format!("Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKd{branch}");
        request(method, ROOM, &[&[to.as_str(), &cseq, &via], more].concat())
    };
    // Before the ACK, a re-INVITE has to wait.
    assert!(callee.receive(&within("INVITE", 11, 1, &[]))[0].starts_with("SIP/2.0 500"));
    assert!(callee.receive(&within("ACK", 10, 2, &[])).is_empty());
    assert!(callee.receive(&within("OPTIONS", 10, 3, &[]))[0].starts_with("SIP/2.0 500"));
    assert!(callee.receive(&within("OPTIONS", 100, 4, &[]))[0].starts_with("SIP/2.0 200"));
    assert!(
        callee.receive(&within("INFO", 101, 5, &["Info-Package: x"]))[0].starts_with("SIP/2.0 469")
    );
    assert!(
        callee.receive(&within(
            "INFO",
            102,
            6,
            &["Content-Type: application/dtmf-relay"]
        ))[0]
            .starts_with("SIP/2.0 200")
    );
    assert!(
        callee.receive(&within("INFO", 103, 7, &["Content-Type: text/plain"]))[0]
            .starts_with("SIP/2.0 415")
    );
    let stranger = within("BYE", 104, 8, &["From: <sip:a@example.test>;tag=stranger"]);
    assert!(callee.receive(&stranger)[0].starts_with("SIP/2.0 481"));
    assert!(callee.receive(&within("BYE", 105, 9, &[]))[0].starts_with("SIP/2.0 200"));
    assert!(callee.receive(&within("BYE", 106, 10, &[]))[0].starts_with("SIP/2.0 481"));
}

#[test]
fn no_damage_to_a_valid_request_panics() {
    let whole = request(
        "INVITE",
        ROOM,
        &[
            "Record-Route: <sip:p1;lr>",
            "Require: x",
            "Content-Type: application/sdp",
        ],
    ) + "v=0\r\n";
    for at in 0..whole.len() {
        sip::fuzz::message(&whole.as_bytes()[..at]);
        for octet in [0, b'\r', b'\n', b';', b'<', b'"', b':', b'%', b' ', 0xFF] {
            let mut damaged = whole.clone().into_bytes();
            damaged[at] = octet;
            sip::fuzz::message(&damaged);
        }
    }
    sip::fuzz::stream(whole.as_bytes());
}
