//! Garbage, strangers and silence.

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use common::{Phone, Server, read_wav, scratch, share_of_pitch};
use simd_json::prelude::*;

fn invite(server: &Server, call_id: &str, sdp: &str) -> String {
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{call_id};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:eve@127.0.0.1>;tag={call_id}\r\nTo: <{uri}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:eve@127.0.0.1:9>\r\nContent-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{sdp}",
        uri = server.uri("lobby"),
        len = sdp.len(),
    )
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

#[test]
fn garbage_does_not_disturb_a_call() {
    let mut server = Server::start(&[]);
    let record = scratch("garbage.wav");
    let talker = Phone::call(&server.uri("lobby"), &["--tone", "440", "--seconds", "6"]);
    let listener = Phone::call(
        &server.uri("lobby"),
        &["--record", record.to_str().unwrap(), "--seconds", "5"],
    );
    server.wait_until("both are in", |server| server.participants() == 2);

    let eve = UdpSocket::bind("127.0.0.1:0").unwrap();
    let whole = invite(&server, "cut", SDP);
    // Every truncation of a valid INVITE, and every length of noise.
    for len in (0..whole.len()).step_by(7) {
        eve.send_to(&whole.as_bytes()[..len], server.sip).unwrap();
        let noise: Vec<u8> = (0..len).map(|i| (i * 31 + len * 17) as u8).collect();
        eve.send_to(&noise, server.sip).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    for start in [
        "SIP/2.0 999999999999 X\r\n\r\n",
        "INVITE sip: SIP/2.0\r\nVia:\r\n\r\n",
        "\r\n\r\n",
        "ACK\0\0\0",
        "v: x\r\ni: \r\n\r\n",
    ] {
        eve.send_to(start.as_bytes(), server.sip).unwrap();
        let mut stream = TcpStream::connect(server.sip).unwrap();
        stream.write_all(start.as_bytes()).unwrap();
    }
    // A body that never comes, a length that cannot be, a header that never ends.
    for framing in [
        "Content-Length: 99999999999999999999",
        "Content-Length: -1",
        "X: ",
    ] {
        let mut stream = TcpStream::connect(server.sip).unwrap();
        let _ = stream.write_all(format!("OPTIONS sip:x@y SIP/2.0\r\n{framing}").as_bytes());
        let _ = stream.write_all(&[b'x'; 200_000]);
    }
    // And at the media ports.
    let (_, body) = server.get("/api/v1/conferences/lobby");
    assert!(body.contains("lobby"));
    for port in rtp_ports_in_use(&server) {
        for len in 0..64 {
            eve.send_to(&vec![0x80 ^ len as u8; len], ("127.0.0.1", port))
                .unwrap();
        }
    }

    listener.succeed();
    talker.succeed();
    assert!(server.lives());
    let samples = read_wav(&record);
    std::fs::remove_file(record).unwrap();
    assert!(
        share_of_pitch(&samples[8_000..], 440.0) > 0.95,
        "the tone goes through unharmed"
    );
    assert!(server.metric("plenum_sip_malformed_total") > 0.0);
    assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
}

/// The UDP ports the server has open besides SIP, as the kernel tells.
fn rtp_ports_in_use(server: &Server) -> Vec<u16> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .filter_map(|entry| {
            std::fs::read_link(entry.ok()?.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let ports: Vec<u16> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(columns[1].rsplit(':').next()?, 16).ok()?;
            (sockets.iter().any(|inode| inode == columns[9]) && port != server.sip.port())
                .then_some(port)
        })
        .collect();
    assert!(
        ports.len() >= 2,
        "calls have a port for RTP and one for RTCP: {ports:?}"
    );
    ports
}

#[test]
fn a_stranger_can_neither_speak_nor_take_the_stream() {
    let server = Server::start(&[]);
    let record = scratch("stranger.wav");
    let talker = Phone::call(&server.uri("lobby"), &["--tone", "440", "--seconds", "6"]);
    let listener = Phone::call(
        &server.uri("lobby"),
        &["--record", record.to_str().unwrap(), "--seconds", "5"],
    );
    server.wait_until("both are in", |server| server.participants() == 2);
    std::thread::sleep(Duration::from_secs(1));
    let eve = UdpSocket::bind("127.0.0.1:0").unwrap();
    eve.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let ports = rtp_ports_in_use(&server);
    // Two seconds of well-formed loud RTP from somewhere else: a square wave of four samples.
    const STRANGERS_HZ: f64 = 2_000.0;
    for sequence in 0..100_u16 {
        let mut packet = vec![0x80, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend((u32::from(sequence) * 160).to_be_bytes());
        packet.extend(0xE7E_u32.to_be_bytes());
        packet.extend((0..160).map(|i| if i % 4 < 2 { 0x80 } else { 0x00 }));
        for &port in &ports {
            eve.send_to(&packet, ("127.0.0.1", port)).unwrap();
        }
        let mut stolen = [0; 2_048];
        if let Ok((len, _)) = eve.recv_from(&mut stolen) {
            panic!(
                "a stream went to the stranger: {:02x?}",
                &stolen[..len.min(16)]
            );
        }
        std::thread::sleep(Duration::from_millis(19));
    }
    listener.succeed();
    talker.succeed();
    let samples = read_wav(&record);
    std::fs::remove_file(record).unwrap();
    assert!(
        share_of_pitch(&samples[16_000..], STRANGERS_HZ) < 0.01,
        "the stranger is heard"
    );
    assert!(share_of_pitch(&samples[16_000..], 440.0) > 0.8);
}

#[test]
fn a_call_whose_media_never_come_is_ended() {
    let server = Server::start(&["rtp.timeout_s=1"]);
    let eve = UdpSocket::bind("127.0.0.1:0").unwrap();
    eve.set_read_timeout(Some(common::PATIENCE)).unwrap();
    eve.send_to(invite(&server, "silent", SDP).as_bytes(), server.sip)
        .unwrap();
    let ok = response(&eve, "SIP/2.0 200");
    let header = |name: &str| {
        ok.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    let ack = format!(
        "ACK {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKack;rport\r\nMax-Forwards: 70\r\n{from}\r\n{to}\r\n\
         Call-ID: silent\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
        uri = server.uri("lobby"),
        from = header("From:"),
        to = header("To:"),
    );
    eve.send_to(ack.as_bytes(), server.sip).unwrap();
    server.wait_until("the call is up", |server| {
        server.metric("plenum_media_timeouts_total") == 0.0 || server.participants() == 0
    });
    server.wait_until("it is ended", |server| {
        server.participants() == 0 && server.metric("plenum_media_timeouts_total") >= 1.0
    });
}

fn response(socket: &UdpSocket, start: &str) -> String {
    let mut datagram = [0; 4_096];
    loop {
        let len = socket.recv(&mut datagram).expect("an answer");
        let text = String::from_utf8_lossy(&datagram[..len]).into_owned();
        if text.starts_with(start) {
            return text;
        }
    }
}

#[test]
fn a_phone_that_vanishes_is_ended_and_its_ports_come_back() {
    let server = Server::start(&["rtp.timeout_s=1"]);
    let free = server.metric("plenum_ports_free");
    // Dropping the phone kills it without a word.
    let phone = Phone::call(&server.uri("lobby"), &["--tone", "440"]);
    server.wait_until("the call is up", |server| server.participants() == 1);
    assert!(server.metric("plenum_ports_free") < free);
    drop(phone);
    server.wait_until("the call is ended", |server| server.participants() == 0);
    server.wait_until("the ports are back", |server| {
        server.metric("plenum_ports_free") == free
    });
}

#[test]
fn a_tcp_peer_that_breaks_the_framing_is_closed_and_others_go_on() {
    let server = Server::start(&[]);
    let mut bad = TcpStream::connect(server.sip).unwrap();
    bad.set_read_timeout(Some(common::PATIENCE)).unwrap();
    bad.write_all(b"OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nContent-Length: nonsense\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    bad.read_to_end(&mut rest)
        .expect("the server closes the connection");

    let mut ping = TcpStream::connect(server.sip).unwrap();
    ping.set_read_timeout(Some(common::PATIENCE)).unwrap();
    ping.write_all(b"\r\n\r\n").unwrap();
    let mut pong = [0; 2];
    ping.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
    assert_eq!(server.status()["state"], "active");
}
