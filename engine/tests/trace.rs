//! What `plenum trace`, a capture server and `/metrics` see of real calls.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{PATIENCE, PLENUM, Phone, Server, free_port, json, wait};
use simd_json::prelude::*;

/// `plenum trace` of this server, in the background.
struct Trace(Child);

impl Trace {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let child = Command::new(PLENUM)
            .args(["trace", "--http", &format!("http://{}", server.http)])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("plenum runs"))
    }

    /// What it prints up to such a line; then it is ended.
    fn read_until(mut self, last: impl Fn(&str) -> bool) -> String {
        let mut lines = BufReader::new(self.0.stdout.take().unwrap());
        let mut text = String::new();
        loop {
            let start = text.len();
            let read = lines.read_line(&mut text).unwrap();
            assert!(read > 0, "it ended:\n{text}");
            if last(&text[start..]) {
                return text;
            }
        }
    }

    /// Its standard output and error when it has ended by itself.
    #[track_caller]
    fn finish(mut self) -> (String, String) {
        // A ladder is shorter than a pipe.
        let status = wait(&mut self.0);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let (out, err) = (self.0.stdout.take().unwrap(), self.0.stderr.take().unwrap());
        { out }.read_to_string(&mut stdout).unwrap();
        { err }.read_to_string(&mut stderr).unwrap();
        assert!(status.success(), "{stderr}");
        (stdout, stderr)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The arrows of a ladder: which way, and what.
fn arrows(ladder: &str) -> Vec<(char, String)> {
    let arrow = |line: &str| {
        let arrow = line.split('│').nth(1)?;
        let way = arrow.chars().find(|c| "<>".contains(*c))?;
        let label = arrow.trim_matches(|c| "<>─ ".contains(c));
        Some((way, label.to_owned()))
    };
    ladder.lines().filter_map(arrow).collect()
}

const CALL: [(char, &str); 5] = [
    ('>', "INVITE with SDP"),
    ('<', "200 OK with SDP"),
    ('>', "ACK"),
    ('>', "BYE"),
    ('<', "200 OK"),
];

#[track_caller]
fn check_is_one_call(ladder: &str) {
    let arrows = arrows(ladder);
    // A message that was sent again on a busy machine changes nothing.
    let mut once: Vec<(char, &str)> = Vec::new();
    for (way, label) in &arrows {
        if label != "100 Trying" && once.last() != Some(&(*way, label.as_str())) {
            once.push((*way, label));
        }
    }
    assert_eq!(once, CALL, "{ladder}");
}

fn call(server: &Server, room: &str) {
    Phone::call(&server.uri(room), &["--tone", "440", "--seconds", "1"]).succeed();
}

#[test]
fn a_watched_room_is_a_ladder_and_an_unwatched_server_remembers_nothing() {
    let server = Server::start(&[]);
    call(&server, "lobby");
    assert_eq!(server.metric("plenum_trace_messages"), 0.0);
    let (ladder, hint) = Trace::start(&server, &[]).finish();
    assert_eq!(ladder, "");
    assert!(hint.contains("trace.keep"), "{hint}");
    let (ladder, hint) = Trace::start(&server, &["--seconds", "1"]).finish();
    assert_eq!(
        (ladder.as_str(), hint.as_str()),
        ("", "plenum: no such messages\n")
    );

    let watcher = Trace::start(&server, &["--room", "blue", "--follow"]);
    server.wait_until("it watches", |server| {
        server.metric("plenum_trace_watchers") == 1.0
    });
    call(&server, "lobby");
    call(&server, "blue");
    let ladder = watcher.read_until(|line| line.contains(" 200 OK ") && line.contains(" BYE "));
    check_is_one_call(&ladder);
    assert!(
        ladder.contains(&format!("to {}", server.uri("blue"))),
        "{ladder}"
    );
    assert!(
        ladder.contains(&format!("server {}", server.sip)),
        "{ladder}"
    );
    server.wait_until("all is forgotten", |server| {
        server.metric("plenum_trace_messages") == 0.0
            && server.metric("plenum_trace_watchers") == 0.0
    });
}

#[test]
fn one_can_look_back_at_a_call_and_at_its_messages() {
    let server = Server::start(&["trace.keep=100"]);
    call(&server, "lobby");
    let uri = format!("{};transport=tcp", server.uri("lobby"));
    Phone::call(&uri, &["--tone", "440", "--seconds", "1"]).succeed();
    let (ladder, _) = Trace::start(&server, &[]).finish();
    let calls: Vec<&str> = ladder
        .lines()
        .filter_map(|line| line.strip_prefix("call ")?.split(' ').next())
        .collect();
    assert_eq!(calls.len(), 2, "{ladder}");
    assert!(
        ladder.contains("1 INVITE  UDP") && ladder.contains("1 INVITE  TCP"),
        "{ladder}"
    );
    for call in calls {
        let (ladder, _) = Trace::start(&server, &["--call", call, "--raw"]).finish();
        check_is_one_call(&ladder);
        assert_eq!(
            ladder.matches(&format!("Call-ID: {call}")).count(),
            arrows(&ladder).len()
        );
        assert!(ladder.contains("m=audio"), "{ladder}");
    }
}

#[test]
fn whoever_does_not_read_misses_something_and_holds_up_nobody() {
    let server = Server::start(&["server.cores=0"]);
    let mut idler = TcpStream::connect(server.http).unwrap();
    write!(
        idler,
        "GET /api/v1/trace HTTP/1.1\r\nHost: {}\r\n\r\n",
        server.http
    )
    .unwrap();
    server.wait_until("it watches", |server| {
        server.metric("plenum_trace_watchers") == 1.0
    });
    // More than its connection can hold, and the memory of the server.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let padding = "x".repeat(8_000);
    let own = socket.local_addr().unwrap();
    let mut sent = 0;
    server.wait_until("the idler is dropped", |server| {
        for _ in 0..100 {
            sent += 1;
            let request = format!(
                "OPTIONS {} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{sent}\r\nMax-Forwards: 70\r\n\
                 From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: {sent}\r\nCSeq: 1 OPTIONS\r\nSubject: {padding}\r\n\
                 Content-Length: 0\r\n\r\n",
                server.uri("lobby")
            );
            let _ = socket.send_to(request.as_bytes(), server.sip);
            let mut answer = [0; 2_048];
            while socket.recv(&mut answer).is_ok() {}
        }
        assert!(server.metric("plenum_trace_messages") <= 4_096.0);
        server.metric("plenum_trace_watchers") == 0.0
    });
    call(&server, "lobby");
    drop(idler);
}

/// A HEP3 packet taken apart: chunks by type.
fn chunks(packet: &[u8]) -> HashMap<u16, Vec<u8>> {
    let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    assert_eq!(&packet[..4], b"HEP3");
    assert_eq!(usize::from(number(4)), packet.len());
    let mut chunks = HashMap::new();
    let mut at = 6;
    while at < packet.len() {
        let (vendor, kind, len) = (number(at), number(at + 2), usize::from(number(at + 4)));
        assert_eq!(vendor, 0);
        chunks.insert(kind, packet[at + 6..at + len].to_vec());
        at += len;
    }
    chunks
}

#[test]
fn a_capture_server_gets_every_message() {
    let homer = UdpSocket::bind(("127.0.0.1", free_port())).unwrap();
    homer
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let hep = format!("trace.hep=udp:{}", homer.local_addr().unwrap());
    let server = Server::start(&[&hep, "trace.hep_id=77", "trace.hep_password=hush"]);
    let phone = Phone::call(&server.uri("lobby"), &["--tone", "440", "--seconds", "1"]);
    let mut packets = Vec::new();
    let mut packet = [0; 65_536];
    let start = Instant::now();
    let of_bye = |chunks: &HashMap<u16, Vec<u8>>| {
        chunks[&0x0F].starts_with(b"SIP/2.0 200")
            && String::from_utf8_lossy(&chunks[&0x0F]).contains(" BYE\r\n")
    };
    while !packets.last().is_some_and(of_bye) {
        assert!(start.elapsed() < PATIENCE, "{packets:?}");
        if let Ok(len) = homer.recv(&mut packet) {
            packets.push(chunks(&packet[..len]));
        }
    }
    phone.succeed();
    let first = &packets[0];
    assert!(first[&0x0F].starts_with(b"INVITE sip:lobby@"));
    let (call_id, own_port) = (
        first[&0x11].clone(),
        server.sip.port().to_be_bytes().to_vec(),
    );
    for packet in &packets {
        let out = packet[&0x0F].starts_with(b"SIP/2.0");
        let (own, peer) = if out { (0x07, 0x08) } else { (0x08, 0x07) };
        assert_eq!(packet[&0x11], call_id);
        assert!(
            String::from_utf8_lossy(&packet[&0x0F]).contains(str::from_utf8(&call_id).unwrap())
        );
        assert_eq!((&packet[&own], &packet[&peer]), (&own_port, &first[&0x07]));
        for (kind, value) in [
            (0x01, &[2][..]),
            (0x02, &[17]),
            (0x03, &[127, 0, 0, 1]),
            (0x04, &[127, 0, 0, 1]),
            (0x0B, &[1]),
            (0x0C, &[0, 0, 0, 77]),
            (0x0E, b"hush"),
        ] {
            assert_eq!(packet[&kind], value, "chunk {kind:#x}");
        }
    }
    let messages =
        server.metric("plenum_sip_received_total") + server.metric("plenum_sip_sent_total");
    assert_eq!(packets.len() as f64, messages);
    assert_eq!(server.metric("plenum_hep_sent_total"), messages);
    assert_eq!(server.metric("plenum_hep_failed_total"), 0.0);
}

#[test]
fn messages_are_counted_by_method_and_status() {
    let server = Server::start(&[]);
    let labelled = |name: &str, label: &str| server.metric(&format!("{name}_total{{{label}}}"));
    let received = |method: &str| {
        labelled(
            "plenum_sip_requests_received",
            &format!("method=\"{method}\""),
        )
    };
    let sent =
        |status: &str| labelled("plenum_sip_responses_sent", &format!("status=\"{status}\""));
    assert_eq!(received("INVITE"), 0.0);

    let phone = Phone::call(&server.uri("lobby"), &["--tone", "440"]);
    server.wait_until("the call is up", |server| {
        server.participants() == 1 && server.metric("plenum_sip_dialogs") == 1.0
    });
    server.signal("TERM");
    let refused = Phone::call(&server.uri("lobby"), &["--seconds", "1"]).finish();
    assert_eq!(refused.status.code(), Some(1));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"DANCE sip:a SIP/2.0\r\n\r\n", server.sip)
        .unwrap();
    server.wait_until("all is counted", |_| {
        received("other") == 1.0 && received("ACK") >= 2.0
    });

    assert!(received("INVITE") >= 2.0);
    assert!(sent("200") >= 1.0 && sent("503") >= 1.0);
    assert_eq!((sent("486"), received("BYE")), (0.0, 0.0));
    assert_eq!(server.metric("plenum_call_setup_seconds_count"), 2.0);
    assert!(server.metric("plenum_call_setup_seconds_sum") > 0.0);
    let transactions = server.metric("plenum_sip_transactions");
    assert!(transactions >= 1.0, "{transactions}");
    drop(phone);
}

#[test]
fn a_trace_can_be_read_as_json() {
    let server = Server::start(&["trace.keep=10"]);
    call(&server, "lobby");
    let (code, body) = server.get("/api/v1/trace?seconds=0&room=lobby");
    assert_eq!(code, 200);
    let first = body
        .lines()
        .find(|line| line.starts_with('{'))
        .expect("a line");
    let first = json(first.to_owned());
    assert_eq!(first["message"]["direction"], "in");
    assert_eq!(first["message"]["transport"], "UDP");
    assert_eq!(first["message"]["local"], server.sip.to_string());
    assert!(
        first["message"]["text"]
            .as_str()
            .unwrap()
            .starts_with("INVITE sip:lobby@")
    );
}
