//! One endpoint, and a far end that is written by hand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sip::{
    Body, CallKey, Config, Endpoint, Event, Flow, Invitation, Invite, ListenerIdentity, Output,
    Request, Transport,
};

/// Where the far end sends from.
pub const PEER: &str = "192.0.2.9:5060";
pub const ROOM: &str = "sip:room@192.0.2.1";

pub struct Peer {
    pub now: Instant,
    pub endpoint: Endpoint,
    /// What the endpoint sent and said, oldest first.
    pub sent: VecDeque<(Flow, String)>,
    pub events: VecDeque<Event>,
    pub flow: Flow,
    branches: u32,
}

impl Peer {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The endpoint listens on UDP (0) and TCP (1), and is a focus.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let listen = |transport| ListenerIdentity {
            transport,
            sent_by: "192.0.2.1:5060".to_owned(),
        };
        let mut config = Config::new(0, vec![listen(Transport::Udp), listen(Transport::Tcp)], 7);
        config.focus = true;
        change(&mut config);
        Self {
            now: Instant::now(),
            endpoint: Endpoint::new(config),
            sent: VecDeque::new(),
            events: VecDeque::new(),
            flow: udp(PEER),
            branches: 0,
        }
    }

    /// Takes what the endpoint gives out.
    pub fn collect(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Event(event) => self.events.push_back(event),
                Output::Transmit { flow, message } => {
                    let text = String::from_utf8(message.to_vec()).expect("text");
                    self.sent.push_back((flow, text));
                }
            }
        }
    }

    /// The far end says this, the usual way.
    pub fn say(&mut self, message: &str) {
        self.say_over(self.flow, message);
    }

    pub fn say_over(&mut self, flow: Flow, message: &str) {
        self.endpoint
            .handle_message(self.now, flow, message.as_bytes());
        self.collect();
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.collect();
        while let Some(next) = self.endpoint.poll_timeout().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.endpoint.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
    }

    /// Lets time pass until the endpoint sends or says something; how much did.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> Duration {
        let began = self.now;
        self.collect();
        while self.sent.is_empty() && self.events.is_empty() {
            let next = self.endpoint.poll_timeout().expect("a timer");
            assert!(next <= began + limit, "nothing came");
            self.now = self.now.max(next);
            self.endpoint.handle_timeout(self.now);
            self.collect();
        }
        self.now - began
    }

    /// What the endpoint sent next, and that it begins so.
    #[track_caller]
    pub fn next(&mut self, start: &str) -> String {
        self.next_over(start).1
    }

    #[track_caller]
    pub fn next_over(&mut self, start: &str) -> (Flow, String) {
        self.collect();
        let (flow, text) = self.sent.pop_front().unwrap_or_else(|| {
            panic!(
                "nothing was sent instead of {start}; events {:?}",
                self.events
            )
        });
        assert!(text.starts_with(start), "{text}\ninstead of {start}");
        (flow, text)
    }

    #[track_caller]
    pub fn nothing(&mut self) {
        self.collect();
        assert!(self.sent.is_empty(), "{:#?}", self.sent);
        assert!(self.events.is_empty(), "{:#?}", self.events);
    }

    #[track_caller]
    pub fn event(&mut self) -> Event {
        self.collect();
        self.events.pop_front().expect("an event")
    }

    #[track_caller]
    pub fn invite(&mut self) -> Invite {
        match self.event() {
            Event::Invite(invite) => *invite,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn request(&mut self) -> Request {
        match self.event() {
            Event::Request(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    pub fn branch(&mut self) -> String {
        self.branches += 1;
        format!("z9hG4bKp{}", self.branches)
    }

    /// A request outside of a dialog, with a branch of its own.
    pub fn make(&mut self, method: &str, changes: &[&str]) -> String {
        let via = format!("Via: SIP/2.0/UDP {PEER};rport;branch={}", self.branch());
        request(method, ROOM, &[&[via.as_str()], changes].concat())
    }

    /// A request within the dialog of this answer (a message of the endpoint in it, request or
    /// response to the far end's).
    pub fn within(&mut self, answer: &str, method: &str, number: u32, changes: &[&str]) -> String {
        let to = format!("To: {}", header(answer, "To"));
        let call_id = format!("Call-ID: {}", header(answer, "Call-ID"));
        let cseq = format!("CSeq: {number} {method}");
        self.make(method, &[&[to.as_str(), &call_id, &cseq], changes].concat())
    }

    /// A call of the far end that the endpoint has accepted: its key and the 200. CSeq is 1.
    pub fn called(&mut self, changes: &[&str]) -> (CallKey, String) {
        let invite = self.make("INVITE", changes);
        self.say(&invite);
        let call = self.invite().call;
        self.endpoint.accept(self.now, call, "room", sdp("v=0"));
        let answer = self.next("SIP/2.0 200");
        let ack = self.within(&answer, "ACK", 1, &[]);
        self.say(&ack);
        assert!(matches!(self.event(), Event::Established { .. }));
        self.nothing();
        (call, answer)
    }

    /// A call of the endpoint, and its INVITE.
    pub fn call(&mut self, change: impl FnOnce(&mut Invitation)) -> (CallKey, String) {
        let mut invitation = Invitation {
            target: format!("sip:a@{PEER}"),
            from: ROOM.to_owned(),
            contact_user: "room".to_owned(),
            body: Some(sdp("v=0")),
            ..Invitation::default()
        };
        change(&mut invitation);
        let call = self
            .endpoint
            .invite(self.now, self.flow, invitation)
            .expect("room for a call");
        (call, self.next("INVITE"))
    }

    /// A call of the endpoint that the far end has accepted: its key, the INVITE and the ACK.
    pub fn calling(&mut self, changes: &[&str]) -> (CallKey, String, String) {
        let (call, invite) = self.call(|_| {});
        self.say(&answer(&invite, 200, "peer", changes));
        let ack = self.next("ACK");
        assert!(matches!(self.event(), Event::Accepted { .. }));
        self.nothing();
        (call, invite, ack)
    }

    /// The far end answers the endpoint's request with 200 and nothing more comes of it.
    #[track_caller]
    pub fn hang_up(&mut self, call: CallKey) {
        self.endpoint.bye(self.now, call, None);
        assert!(matches!(self.event(), Event::Ended { .. }));
        let bye = self.next("BYE");
        self.say(&answer(&bye, 200, "", &[]));
        self.assert_forgotten();
    }

    #[track_caller]
    pub fn assert_forgotten(&mut self) {
        self.nothing();
        self.pass(Duration::from_secs(70));
        self.nothing();
        assert!(self.endpoint.is_idle());
        assert!(
            self.endpoint.poll_timeout().is_none(),
            "a timer is still armed"
        );
    }
}

pub fn udp(peer: &str) -> Flow {
    Flow {
        transport: Transport::Udp,
        peer: peer.parse().expect("an address"),
        listener: 0,
        stream: 0,
    }
}

pub fn tcp(peer: &str, stream: u64) -> Flow {
    Flow {
        transport: Transport::Tcp,
        listener: 1,
        stream,
        ..udp(peer)
    }
}

pub fn sdp(text: &str) -> Body {
    super::body(text)
}

/// A valid request of tag `f` with lines replaced by name (the last one counts) or, with a `+` before
/// them, added; a line without a value takes the header away, one that begins with a line end is the body.
pub fn request(method: &str, uri: &str, changes: &[&str]) -> String {
    let mut lines: Vec<String> = [
        format!("Via: SIP/2.0/UDP {PEER};rport;branch=z9hG4bK0"),
        "Max-Forwards: 70".to_owned(),
        "From: <sip:a@example.test>;tag=f".to_owned(),
        format!("To: <{ROOM}>"),
        "Call-ID: c1".to_owned(),
        format!("CSeq: 1 {method}"),
        format!("Contact: <sip:a@{PEER}>"),
    ]
    .into();
    let mut body = "";
    for change in changes {
        if let Some(added) = change.strip_prefix('+') {
            lines.push(added.to_owned());
        } else if let Some(content) = change.strip_prefix('\n') {
            body = content;
        } else {
            let same = |line: &String| name(line).eq_ignore_ascii_case(name(change));
            match lines.iter().position(same) {
                Some(place) => lines[place] = (*change).to_owned(),
                None => lines.push((*change).to_owned()),
            }
        }
    }
    lines.retain(|line| !line.ends_with(':'));
    format!(
        "{method} {uri} SIP/2.0\r\n{}\r\nContent-Length: {}\r\n\r\n{body}",
        lines.join("\r\n"),
        body.len()
    )
}

fn name(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

/// The far end's answer to a request of the endpoint, with this To-tag unless there is one already.
pub fn answer(request: &str, status: u16, tag: &str, lines: &[&str]) -> String {
    let mut text = format!("SIP/2.0 {status} X\r\n");
    for via in headers(request, "Via") {
        text += &format!("Via: {via}\r\n");
    }
    for name in ["From", "Call-ID", "CSeq"] {
        text += &format!("{name}: {}\r\n", header(request, name));
    }
    let to = header(request, "To");
    let tag = match tag {
        "" => String::new(),
        _ if to.contains(";tag=") => String::new(),
        tag => format!(";tag={tag}"),
    };
    text += &format!("To: {to}{tag}\r\n");
    if !lines.iter().any(|line| line.starts_with("Contact:")) {
        text += &format!("Contact: <sip:a@{PEER}>\r\n");
    }
    for line in lines {
        text += &format!("{line}\r\n");
    }
    text + "Content-Length: 0\r\n\r\n"
}

pub fn headers<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[track_caller]
pub fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let values = headers(message, name);
    assert_eq!(values.len(), 1, "{name} in\n{message}");
    values[0]
}

pub fn cseq(message: &str) -> u32 {
    let number = header(message, "CSeq").split(' ').next();
    number.and_then(|number| number.parse().ok()).expect("CSeq")
}

pub fn uri(request: &str) -> &str {
    request.split(' ').nth(1).unwrap_or_default()
}

pub fn body_of(message: &str) -> &str {
    message.split_once("\r\n\r\n").expect("an end of headers").1
}
