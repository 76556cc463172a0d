//! RFC 4475 against the real binary: every message comes to what it is to come to, and the server goes on.

mod common;
#[path = "../../sip/tests/torture/mod.rs"]
mod messages;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use common::{PATIENCE, Phone, Server};
use messages::{Outcome, Torture, messages};
use sip::frame::{Frame, Framer};

/// One client with its way to the server.
enum Client {
    Udp(UdpSocket),
    Tcp(TcpStream, Framer),
}

impl Client {
    fn udp(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.sip).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::Udp(socket)
    }

    fn tcp(server: &Server) -> Self {
        let stream = TcpStream::connect(server.sip).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::Tcp(stream, Framer::default())
    }

    /// As Via names it.
    fn sent_by(&self) -> (&'static str, String) {
        match self {
            Self::Udp(socket) => ("UDP", socket.local_addr().unwrap().to_string()),
            Self::Tcp(stream, _) => ("TCP", stream.local_addr().unwrap().to_string()),
        }
    }

    fn send(&mut self, message: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.send(message).unwrap()),
            Self::Tcp(stream, _) => stream.write_all(message).unwrap(),
        }
    }

    /// The next message; None: the connection is closed.
    fn receive(&mut self) -> Option<String> {
        let mut bytes = [0; 65_536];
        match self {
            Self::Udp(socket) => {
                let len = socket.recv(&mut bytes).expect("an answer");
                Some(String::from_utf8_lossy(&bytes[..len]).into_owned())
            }
            Self::Tcp(stream, framer) => loop {
                if let Some(Frame::Message(message)) = framer.next().unwrap() {
                    return Some(String::from_utf8_lossy(&message).into_owned());
                }
                // With unread octets behind it, a connection is reset.
                let len = match stream.read(&mut bytes) {
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                    read => read.expect("an answer"),
                };
                if len == 0 {
                    return None;
                }
                framer.push(&bytes[..len]);
            },
        }
    }

    /// A request of the dialog, or for the transaction, that a response belongs to.
    fn follow_up(&self, response: &str, method: &str, number: u32, via: &str) -> String {
        let line =
            |name: &str| format!("{name}: {}\r\n", header(response, name).unwrap_or_default());
        let uri = header(response, "Contact").unwrap_or("sip:attic@house.test");
        let uri = uri.split(['<', '>']).nth(1).unwrap_or(uri);
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n{}{}{}\
             CSeq: {number} {method}\r\nContent-Length: 0\r\n\r\n",
            line("From"),
            line("To"),
            line("Call-ID")
        )
    }

    fn new_via(&self, branch: &str) -> String {
        let (transport, sent_by) = self.sent_by();
        format!("SIP/2.0/{transport} {sent_by};branch=z9hG4bK{branch}")
    }

    /// Acknowledges the final response of an INVITE, and hangs up if it was taken.
    fn settle(&mut self, response: &str) {
        let Some(number) = header(response, "CSeq").and_then(|cseq| cseq.strip_suffix(" INVITE"))
        else {
            return;
        };
        let number: u32 = number.parse().unwrap_or(0);
        if status(response) >= 300 {
            let via = header(response, "Via").unwrap_or_default();
            let via = via.split(";received=").next().unwrap_or_default();
            let ack = self.follow_up(response, "ACK", number, via);
            return self.send(ack.as_bytes());
        }
        let ack = self.follow_up(response, "ACK", number, &self.new_via("ack"));
        self.send(ack.as_bytes());
        let bye = self.follow_up(response, "BYE", number + 1, &self.new_via("bye"));
        self.send(bye.as_bytes());
    }

    /// Sends an OPTIONS that is right; its answer comes in any case.
    fn probe(&mut self) {
        let via = self.new_via("probe");
        // Not the same one as of another client.
        let (_, tag) = self.sent_by();
        let tag = tag.replace(':', "-");
        let probe = format!(
            "OPTIONS sip:attic@house.test SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n\
             From: <sip:probe@tree.test>;tag={tag}\r\nTo: <sip:attic@house.test>\r\nCall-ID: {PROBE}\r\n\
             CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        self.send(probe.as_bytes());
    }

    /// Final responses until there are as many as wanted, a probe is answered and calls are hung up;
    /// repetitions count once.
    fn finals(&mut self, wanted: usize) -> Vec<u16> {
        self.probe();
        let (mut finals, mut calls, mut is_probed) = (Vec::<String>::new(), 0, false);
        while finals.len() < wanted || calls > 0 || !is_probed {
            let response = self.receive().expect("the connection stays");
            let cseq = header(&response, "CSeq").unwrap_or_default();
            if header(&response, "Call-ID") == Some(PROBE) {
                is_probed = true;
            } else if cseq.ends_with(" BYE") {
                assert_eq!(status(&response), 200, "{response}");
                calls -= 1;
            } else if status(&response) >= 200 && !finals.contains(&response) {
                calls += usize::from(status(&response) < 300 && cseq.ends_with(" INVITE"));
                self.settle(&response);
                finals.push(response);
            }
        }
        finals.iter().map(|response| status(response)).collect()
    }
}

const PROBE: &str = "probe";

fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = message.lines().take_while(|line| !line.is_empty());
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn status(response: &str) -> u16 {
    let code = response.split(' ').nth(1).expect("a status line");
    code.parse().expect("a status")
}

/// What comes of a message in a datagram.
fn meet_over_udp(server: &Server, message: &Torture, wanted: Outcome) -> Outcome {
    let Outcome::Answers(wanted) = wanted else {
        panic!("a datagram is whole: {}", message.name)
    };
    let mut client = Client::udp(server);
    let (_, here) = client.sent_by();
    client.send(&message.sent_from(&here));
    Outcome::Answers(client.finals(wanted.len()).leak())
}

/// What comes of a message on a connection of its own.
fn meet_over_tcp(server: &Server, message: &Torture, wanted: Outcome) -> Outcome {
    let mut client = Client::tcp(server);
    let (_, here) = client.sent_by();
    client.send(&message.sent_from(&here));
    match wanted {
        Outcome::Answers(wanted) => Outcome::Answers(client.finals(wanted.len()).leak()),
        Outcome::Closed => match client.receive() {
            None => Outcome::Closed,
            Some(response) => panic!("{}: {response}", message.name),
        },
        Outcome::Waits => {
            // Others are served meanwhile; nothing comes until the rest has come.
            Client::tcp(server).finals(0);
            if let Client::Tcp(stream, _) = &mut client {
                stream.set_nonblocking(true).unwrap();
                let early = stream.read(&mut [0; 1]).map_err(|error| error.kind());
                assert_eq!(early, Err(ErrorKind::WouldBlock), "{}", message.name);
                stream.set_nonblocking(false).unwrap();
            }
            let text = String::from_utf8_lossy(&message.bytes);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let promised: usize = header(head, "Content-Length").unwrap().parse().unwrap();
            client.send(&vec![b'\n'; promised - body.len()]);
            client.finals(1);
            Outcome::Waits
        }
    }
}

/// What this server makes of a message, where an endpoint alone cannot tell.
fn wanted(message: &Torture, outcome: Outcome) -> Outcome {
    match message.name {
        // It takes texts, and this one is for a room in which nobody is.
        "mpart01" => Outcome::Answers(&[404]),
        _ => outcome,
    }
}

/// Sends all messages, one after the other; then the server is as it was before.
fn check(transport: &str, meet: impl Fn(&Server, &Torture) -> (Outcome, Outcome)) {
    // What is wrong with these messages is no abuse.
    let mut server = Server::start(&["abuse.trusted=127.0.0.0/8"]);
    let free = server.metric("plenum_ports_free");
    // All failures, not the first.
    let mut wrong = Vec::new();
    for message in messages() {
        let (met, wanted) = meet(&server, &message);
        if met != wanted {
            wrong.push(format!(
                "{} over {transport}: {met:?}, not {wanted:?}",
                message.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    server.wait_until("all have left", |server| {
        server.participants() == 0 && server.metric("plenum_ports_free") == free
    });
    let phone = Phone::call(&server.uri("lobby"), &["--tone", "440", "--seconds", "2"]);
    phone.succeed();
    server.wait_until("the phone has left", |server| server.participants() == 0);
    assert!(server.lives());
    assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
    // Transactions are remembered for 64*T1 (RFC 3261 §17), and then no more.
    let start = Instant::now();
    while server.metric("plenum_sip_transactions") > 0.0 {
        assert!(start.elapsed() < 3 * PATIENCE, "transactions never end");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn every_datagram_is_met_as_it_should_be_and_the_server_goes_on() {
    check("UDP", |server, message| {
        let wanted = wanted(message, message.udp);
        (meet_over_udp(server, message, wanted), wanted)
    });
}

#[test]
fn every_message_on_a_stream_is_met_as_it_should_be_and_the_server_goes_on() {
    check("TCP", |server, message| {
        let wanted = wanted(message, message.tcp);
        (meet_over_tcp(server, message, wanted), wanted)
    });
}
