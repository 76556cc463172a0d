//! A scripted SIP user agent: it says what a test has it say and keeps what the server says until the test
//! asks for it. By itself it only answers repetitions as it answered before.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use simd_json::OwnedValue;
use simd_json::prelude::*;
use sip::digest::{self, Credentials};

use crate::common::{PATIENCE, Server};

pub const SDP: &str = "application/sdp";

/// What an agent takes, unless a test says otherwise.
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, NOTIFY";

/// How long one look for messages waits.
const LOOK: Duration = Duration::from_millis(5);

/// Makes tags, branches and Call-IDs of one test process differ.
static NEXT: AtomicU32 = AtomicU32::new(1);

fn fresh(prefix: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}x{number}", std::process::id())
}

/// A server whose participants may be silent for as long as a test takes.
pub fn serve(sets: &[&str]) -> Server {
    Server::start(&[&["rtp.timeout_s=0"], sets].concat())
}

/// Nobody is left, and nothing of anybody.
#[track_caller]
pub fn check_nothing_left(server: &Server) {
    server.wait_until("nothing is left", |server| {
        server.participants() == 0
            && server.metric("plenum_sip_dialogs") == 0.0
            && server.metric("plenum_sip_subscriptions") == 0.0
    });
}

/// The participants of a room over HTTP; none if there is no such room.
pub fn participants_of(server: &Server, room: &str) -> Vec<OwnedValue> {
    match server.get(&format!("/api/v1/conferences/{room}")) {
        (200, body) => crate::common::json(body)["participants"]
            .as_array()
            .expect("a list")
            .to_vec(),
        (404, _) => Vec::new(),
        (code, body) => panic!("{code} {body}"),
    }
}

/// A message of the server.
#[derive(Clone, Debug)]
pub struct Message {
    pub start: String,
    headers: Vec<(String, String)>,
    pub body: String,
    way: Way,
}

/// How it came, and how its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Udp(SocketAddr),
    /// By the connection of this number.
    Tcp(usize),
}

impl Message {
    /// One that came in a datagram.
    pub fn parse_from(text: &str, from: SocketAddr) -> Self {
        Self::parse(text, Way::Udp(from))
    }

    fn parse(text: &str, way: Way) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("an empty line");
        let mut lines = head.split("\r\n");
        let start = lines.next().expect("a start line").to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.trim().to_owned(), value.trim().to_owned())
            })
            .collect();
        Self {
            start,
            headers,
            body: body.to_owned(),
            way,
        }
    }

    /// None of a request.
    pub fn status(&self) -> Option<u16> {
        let code = self.start.strip_prefix("SIP/2.0 ")?;
        Some(code.split(' ').next()?.parse().expect("a status"))
    }

    pub fn is(&self, method: &str) -> bool {
        self.start.split(' ').next() == Some(method)
    }

    /// The Request-URI.
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).expect("a Request-URI")
    }

    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.find(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub fn is_over_tcp(&self) -> bool {
        matches!(self.way, Way::Tcp(_))
    }

    fn branch(&self) -> &str {
        parameter(self.header("Via"), "branch").expect("a branch")
    }

    /// Where the SDP in it wants RTP.
    pub fn media_address(&self) -> SocketAddr {
        let after = |prefix: &str| {
            let lines = self.body.lines();
            let line = lines.filter_map(|line| line.strip_prefix(prefix)).next();
            line.unwrap_or_else(|| panic!("no {prefix} in {self:?}"))
                .split(' ')
                .next()
                .expect("a word")
        };
        let ip: IpAddr = after("c=IN IP4 ").parse().expect("an address");
        SocketAddr::new(ip, after("m=audio ").parse().expect("a port"))
    }
}

/// The value of a parameter behind an address or in a Via.
pub fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let behind = value.rsplit_once('>').map_or(value, |(_, behind)| behind);
    behind.split(';').skip(1).find_map(|parameter| {
        let (known, value) = parameter.split_once('=')?;
        known.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

/// What stands between angle brackets.
pub fn uri_in(value: &str) -> &str {
    let inner = value.split_once('<').map_or(value, |(_, rest)| rest);
    inner.split('>').next().expect("something")
}

/// What agent and server share between requests; without a tag of the server's before its first answer.
#[derive(Clone, Debug)]
pub struct Dialog {
    pub call_id: String,
    /// The agent's From value.
    pub local: String,
    /// Its To value.
    pub remote: String,
    /// The Request-URI.
    pub target: String,
    pub cseq: u32,
}

impl Dialog {
    pub fn local_tag(&self) -> &str {
        parameter(&self.local, "tag").expect("a tag")
    }

    pub fn remote_tag(&self) -> &str {
        parameter(&self.remote, "tag").expect("a tag")
    }
}

pub struct Agent {
    socket: UdpSocket,
    listener: Option<TcpListener>,
    streams: Vec<(TcpStream, Vec<u8>)>,
    server: SocketAddr,
    pub address: SocketAddr,
    name: String,
    /// The methods it says it takes.
    pub allow: &'static str,
    /// Where its sound goes to.
    pub rtp: UdpSocket,
    inbox: VecDeque<Message>,
    /// Requests that have come, by branch and method.
    seen: HashSet<String>,
    /// What they were answered with at last.
    answered: HashMap<String, String>,
}

impl Agent {
    pub fn new(server: &Server, name: &str) -> Self {
        Self::at([127, 0, 0, 1], server, name)
    }

    /// On one of the addresses that loopback has.
    pub fn at(ip: [u8; 4], server: &Server, name: &str) -> Self {
        let socket = UdpSocket::bind((IpAddr::from(ip), 0)).expect("a port");
        Self::on(socket, None, server, name)
    }

    /// At an address that is known beforehand.
    pub fn bound(address: SocketAddr, server: &Server, name: &str) -> Self {
        let socket = UdpSocket::bind(address).expect("the port is free");
        Self::on(socket, None, server, name)
    }

    /// One that listens with TCP on the port of its UDP, too.
    pub fn with_tcp(server: &Server, name: &str) -> Self {
        loop {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let address = socket.local_addr().expect("an address");
            if let Ok(listener) = TcpListener::bind(address) {
                listener.set_nonblocking(true).expect("an option");
                return Self::on(socket, Some(listener), server, name);
            }
        }
    }

    fn on(socket: UdpSocket, listener: Option<TcpListener>, server: &Server, name: &str) -> Self {
        socket.set_read_timeout(Some(LOOK)).expect("an option");
        let address = socket.local_addr().expect("an address");
        Self {
            address,
            socket,
            listener,
            streams: Vec::new(),
            server: server.sip,
            name: name.to_owned(),
            allow: ALLOW,
            rtp: UdpSocket::bind((address.ip(), 0)).expect("a port"),
            inbox: VecDeque::new(),
            seen: HashSet::new(),
            answered: HashMap::new(),
        }
    }

    /// Its address of record, as the roster names it.
    pub fn uri(&self) -> String {
        format!("sip:{}@{}", self.name, self.address)
    }

    /// What it offers and answers: PCMU and keys, in this direction.
    pub fn sdp(&self, direction: &str) -> String {
        let (ip, port) = (
            self.address.ip(),
            self.rtp.local_addr().expect("an address").port(),
        );
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na={direction}\r\n"
        )
    }

    /// A dialog that is yet to be.
    pub fn dialog(&self, uri: &str) -> Dialog {
        Dialog {
            call_id: fresh("call"),
            local: format!("\"{}\" <{}>;tag={}", self.name, self.uri(), fresh("tag")),
            remote: format!("<{uri}>"),
            target: uri.to_owned(),
            cseq: 0,
        }
    }

    /// Sends a request with these further header lines; gives its branch.
    pub fn send(
        &mut self,
        dialog: &mut Dialog,
        method: &str,
        lines: &[&str],
        body: Option<(&str, &str)>,
    ) -> String {
        let branch = fresh("z9hG4bK");
        if !matches!(method, "ACK" | "CANCEL") {
            dialog.cseq += 1;
        }
        self.send_as(dialog, method, &branch, lines, body);
        branch
    }

    fn send_as(
        &mut self,
        dialog: &Dialog,
        method: &str,
        branch: &str,
        lines: &[&str],
        body: Option<(&str, &str)>,
    ) {
        let Dialog {
            call_id,
            local,
            remote,
            target,
            cseq,
        } = dialog;
        let address = self.address;
        let mut text = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch={branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: {local}\r\nTo: {remote}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n"
        );
        if method != "CANCEL" {
            let _ = write!(text, "Contact: <{}>\r\n", self.uri());
        }
        if method == "INVITE" {
            let _ = write!(text, "Allow: {}\r\n", self.allow);
        }
        finish(&mut text, lines, body);
        let server = self.server;
        self.socket.send_to(text.as_bytes(), server).expect("sent");
    }

    /// Sends a request and gives its final answer. What is refused to an INVITE is acknowledged; what makes
    /// a dialog is noted in it.
    #[track_caller]
    pub fn ask(
        &mut self,
        dialog: &mut Dialog,
        method: &str,
        lines: &[&str],
        body: Option<(&str, &str)>,
    ) -> Message {
        let branch = self.send(dialog, method, lines, body);
        self.answer(dialog, method, &branch)
    }

    /// The final answer to what was sent with this branch.
    #[track_caller]
    pub fn answer(&mut self, dialog: &mut Dialog, method: &str, branch: &str) -> Message {
        let is_final = |message: &Message| {
            message.status().is_some_and(|status| status >= 200)
                && message.branch() == branch
                && message.header("CSeq").ends_with(method)
        };
        let answer = self.next(&format!("an answer to {method}"), is_final);
        let refused = answer.status() >= Some(300);
        if method == "INVITE" && refused {
            let remote = answer.header("To").to_owned();
            let dialog = Dialog {
                remote,
                ..dialog.clone()
            };
            self.send_as(&dialog, "ACK", branch, &[], None);
        }
        if !refused && parameter(&dialog.remote, "tag").is_none() {
            dialog.remote = answer.header("To").to_owned();
        }
        if !refused && let Some(contact) = answer.find("Contact") {
            dialog.target = uri_in(contact).to_owned();
        }
        answer
    }

    /// Calls with an offer, up to the ACK.
    #[track_caller]
    pub fn call(&mut self, uri: &str) -> Dialog {
        self.call_with(uri, &[]).0
    }

    /// The same with further header lines; gives the 200, too.
    #[track_caller]
    pub fn call_with(&mut self, uri: &str, lines: &[&str]) -> (Dialog, Message) {
        let mut dialog = self.dialog(uri);
        let answer = self.invite(&mut dialog, lines);
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        self.ack(&mut dialog, None);
        (dialog, answer)
    }

    /// An INVITE with an offer, up to its final answer.
    #[track_caller]
    pub fn invite(&mut self, dialog: &mut Dialog, lines: &[&str]) -> Message {
        let offer = self.sdp("sendrecv");
        self.ask(dialog, "INVITE", lines, Some((SDP, &offer)))
    }

    pub fn ack(&mut self, dialog: &mut Dialog, answer: Option<&str>) {
        self.send(dialog, "ACK", &[], answer.map(|answer| (SDP, answer)));
    }

    #[track_caller]
    pub fn hang_up(&mut self, mut dialog: Dialog) {
        let answer = self.ask(&mut dialog, "BYE", &[], None);
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }

    /// Takes back an INVITE that was sent with this branch.
    #[track_caller]
    pub fn cancel(&mut self, dialog: &mut Dialog, branch: &str) {
        self.send_as(dialog, "CANCEL", branch, &[], None);
        let answer = self.answer(&mut dialog.clone(), "CANCEL", branch);
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        let answer = self.answer(dialog, "INVITE", branch);
        assert_eq!(answer.status(), Some(487), "{answer:?}");
    }

    /// Comes back when the server has handled all that was sent before within this dialog, and what it
    /// sent of it before is here.
    #[track_caller]
    pub fn fence(&mut self, dialog: &mut Dialog) {
        let answer = self.ask(dialog, "OPTIONS", &[], None);
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }

    /// The next request of this method, not answered yet.
    #[track_caller]
    pub fn request(&mut self, method: &str) -> Message {
        self.next(method, |message| message.is(method))
    }

    /// The next request of this method, answered with 200.
    #[track_caller]
    pub fn accept(&mut self, method: &str) -> Message {
        let request = self.request(method);
        self.reply(&request, 200, &[], None);
        request
    }

    /// Refuses the next INVITE, up to the ACK; gives the INVITE.
    #[track_caller]
    pub fn refuse(&mut self, status: u16, lines: &[&str]) -> Message {
        let invite = self.request("INVITE");
        self.reply(&invite, status, lines, None);
        self.request("ACK");
        invite
    }

    /// Whether such a request has come and was not asked for.
    pub fn has(&mut self, method: &str) -> bool {
        self.look();
        self.inbox.iter().any(|message| message.is(method))
    }

    /// Forgets what has come and was not asked for.
    pub fn discard(&mut self) {
        self.inbox.clear();
    }

    /// The next message of this kind.
    #[track_caller]
    pub fn next(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Message {
        let start = Instant::now();
        loop {
            if let Some(place) = self.inbox.iter().position(&is_it) {
                return self.inbox.remove(place).expect("just found");
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} never got {what}, but {:#?}",
                self.name,
                self.inbox
            );
            self.look();
        }
    }

    /// Answers a request; one that has no To-tag gets one that is the same for a whole call.
    pub fn reply(
        &mut self,
        request: &Message,
        status: u16,
        lines: &[&str],
        body: Option<(&str, &str)>,
    ) {
        let mut text = format!("SIP/2.0 {status} Whatever\r\n");
        for name in ["Via", "Record-Route", "From", "Call-ID", "CSeq"] {
            for value in request.headers(name) {
                let _ = write!(text, "{name}: {value}\r\n");
            }
        }
        let _ = write!(text, "To: {}\r\n", self.own(request));
        if !lines.iter().any(|line| line.starts_with("Contact:")) {
            let _ = write!(text, "Contact: <{}>\r\n", self.uri());
        }
        if request.is("INVITE") {
            let _ = write!(text, "Allow: {}\r\n", self.allow);
        }
        finish(&mut text, lines, body);
        self.transmit(request.way, &text);
        if status >= 200 {
            self.answered.insert(name_of(request), text);
        }
    }

    /// The To value of our answers to a request.
    fn own(&self, request: &Message) -> String {
        let to = request.header("To");
        match parameter(to, "tag") {
            Some(_) => to.to_owned(),
            None => format!("{to};tag={}{}", self.name, self.address.port()),
        }
    }

    /// Accepts a call of the server's; gives the dialog once the ACK has come.
    #[track_caller]
    pub fn pick_up(&mut self, invite: &Message) -> Dialog {
        let answer = self.sdp("sendrecv");
        self.reply(invite, 200, &[], Some((SDP, &answer)));
        self.request("ACK");
        self.called(invite)
    }

    /// Its end of a call that it has accepted.
    pub fn called(&self, invite: &Message) -> Dialog {
        Dialog {
            call_id: invite.header("Call-ID").to_owned(),
            local: self.own(invite),
            remote: invite.header("From").to_owned(),
            target: uri_in(invite.header("Contact")).to_owned(),
            cseq: 0,
        }
    }

    fn transmit(&mut self, way: Way, text: &str) {
        match way {
            Way::Udp(to) => drop(self.socket.send_to(text.as_bytes(), to).expect("sent")),
            Way::Tcp(number) => self.streams[number]
                .0
                .write_all(text.as_bytes())
                .expect("sent"),
        }
    }

    /// Takes in what is there, or comes within a moment.
    fn look(&mut self) {
        let mut datagram = [0; 65_536];
        match self.socket.recv_from(&mut datagram) {
            Ok((len, from)) => {
                // What is no text are media for whoever had this port before.
                if let Ok(text) = str::from_utf8(&datagram[..len]) {
                    self.take(Message::parse(text, Way::Udp(from)));
                }
            }
            Err(error) => assert!(is_nothing(&error), "{error}"),
        }
        if let Some(listener) = &self.listener
            && let Ok((stream, _)) = listener.accept()
        {
            stream.set_nonblocking(true).expect("an option");
            self.streams.push((stream, Vec::new()));
        }
        for number in 0..self.streams.len() {
            while let Some(text) = self.read(number) {
                self.take(Message::parse(&text, Way::Tcp(number)));
            }
        }
    }

    /// The next whole message of a connection.
    fn read(&mut self, number: usize) -> Option<String> {
        let (stream, bytes) = &mut self.streams[number];
        let mut piece = [0; 16_384];
        match stream.read(&mut piece) {
            Ok(len) => bytes.extend_from_slice(&piece[..len]),
            Err(error) => assert!(is_nothing(&error), "{error}"),
        }
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let text = str::from_utf8(&bytes[..head]).expect("a text");
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        (bytes.len() >= head + length).then(|| {
            let message = bytes.drain(..head + length).collect();
            String::from_utf8(message).expect("a text")
        })
    }

    fn take(&mut self, message: Message) {
        if message.status().is_none() && !message.is("ACK") {
            let name = name_of(&message);
            if let Some(answer) = self.answered.get(&name).cloned() {
                return self.transmit(message.way, &answer);
            }
            if !self.seen.insert(name) {
                return;
            }
        }
        self.inbox.push_back(message);
    }
}

fn is_nothing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn name_of(request: &Message) -> String {
    let method = request.start.split(' ').next().expect("a method");
    format!("{} {method}", request.branch())
}

fn finish(text: &mut String, lines: &[&str], body: Option<(&str, &str)>) {
    for line in lines {
        let _ = write!(text, "{line}\r\n");
    }
    let (kind, content) = body.unwrap_or_default();
    if !kind.is_empty() {
        let _ = write!(text, "Content-Type: {kind}\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{content}", content.len());
}

/// A request's answer to the challenges of a 401: its Authorization line, for the `count`th use of the nonce.
pub fn authorization(
    challenge: &Message,
    (user, password): (&str, &str),
    (method, uri): (&str, &str),
    body: &str,
    count: u32,
) -> String {
    let challenges: Vec<&str> = challenge.headers("WWW-Authenticate").collect();
    answer_to(&challenges, (user, password), (method, uri), body, count)
}

/// The same for some of them.
pub fn answer_to(
    challenges: &[&str],
    (user, password): (&str, &str),
    (method, uri): (&str, &str),
    body: &str,
    count: u32,
) -> String {
    let credentials = Credentials {
        username: user.to_owned(),
        password: password.to_owned(),
        realm: None,
    };
    let request = digest::Request {
        method,
        uri,
        body: body.as_bytes(),
    };
    let answer = digest::answer(
        challenges.iter().copied(),
        &credentials,
        &request,
        "0a4f113b",
        count,
    );
    let value = answer.expect("a challenge that can be answered").value;
    format!("Authorization: {value}")
}
