//! Floods and scanners: who is in a call notices nothing.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use common::{PATIENCE, Phone, Server};

/// Datagrams of the flood; `PLENUM_FLOOD_COUNT` makes it a million.
fn flood_count() -> usize {
    let given = std::env::var("PLENUM_FLOOD_COUNT").ok();
    given.map_or(100_000, |count| count.parse().expect("a number"))
}

/// What the server may grow by, whatever is thrown at it.
const GROWTH_MAX: u64 = 8 << 20;

/// What was unwanted for this reason, on all cores.
fn unwanted(server: &Server, reason: &str) -> u64 {
    let (code, text) = server.get("/metrics");
    assert_eq!(code, 200);
    let label = format!("reason=\"{reason}\"");
    let values: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with("plenum_sip_unwanted_total{") && line.contains(&label))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {label} in\n{text}");
    values.iter().sum()
}

fn resident_bytes(server: &Server) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// Noise, cut messages and messages with noise in them, each a little different.
fn garbage(number: usize) -> Vec<u8> {
    let noise = |len: usize| {
        let mut state = number as u32 | 1;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(len)
    };
    let invite = b"INVITE sip:lobby@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\nTo: <sip:";
    match number % 3 {
        0 => noise(20 + number % 1_000).collect(),
        1 => invite[..1 + number % invite.len()].to_vec(),
        _ => invite
            .iter()
            .copied()
            .zip(noise(invite.len()))
            .map(|(octet, noise)| if noise < 16 { noise } else { octet })
            .collect(),
    }
}

#[test]
fn a_flood_of_garbage_disturbs_no_call_and_takes_no_memory() {
    const PHONES: u64 = 6;
    // Longer than the flood.
    let seconds = (6 + flood_count() / 50_000).to_string();
    let mut server = Server::start(&[]);
    let phones: Vec<Phone> = (0..PHONES)
        .map(|number| {
            let room = server.uri(&format!("room{}", number % 2));
            Phone::call(&room, &["--tone", "440", "--seconds", &seconds])
        })
        .collect();
    server.wait_until("all are in", |server| server.participants() == PHONES);
    let before = resident_bytes(&server);

    let eve = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..flood_count() {
        // A send that finds no room is part of a flood.
        let _ = eve.send_to(&garbage(number), server.sip);
        if number % 500 == 499 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    server.wait_until("the flood is seen", |server| unwanted(server, "muted") > 0);
    assert_eq!(server.participants(), PHONES, "all calls are still up");
    let grown = resident_bytes(&server).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grown by {grown} bytes");

    // They hang up from the address that is muted, and lost nothing.
    for phone in phones {
        let summary = phone.succeed();
        assert!(summary.contains(" lost=0 "), "{summary}");
    }
    server.wait_until("all have left", |server| server.participants() == 0);
    assert!(server.lives());
    assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
    // What its bucket holds and what leaks from it meanwhile, once for each time the mute was over.
    let garbage = unwanted(&server, "garbage");
    assert!((100..1_000).contains(&garbage), "{garbage}");
    assert!(unwanted(&server, "muted") > garbage);
    assert!(server.metric("plenum_sip_mutes_total") >= 1.0);
}

/// Somebody with a socket.
struct Peer {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Peer {
    fn of(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            server: server.sip,
        }
    }

    fn send(&self, message: impl AsRef<[u8]>) {
        self.socket.send_to(message.as_ref(), self.server).unwrap();
    }

    fn receive(&self) -> String {
        let mut datagram = [0; 4_096];
        let len = self.socket.recv(&mut datagram).expect("an answer");
        String::from_utf8_lossy(&datagram[..len]).into_owned()
    }

    /// The next final response.
    fn answer(&self) -> String {
        loop {
            let text = self.receive();
            if !text.starts_with("SIP/2.0 1") {
                return text;
            }
        }
    }

    fn request(&self, method: &str, user: &str, call_id: &str, also: &Also<'_>) -> String {
        let host = self.server;
        let uri = if user.is_empty() {
            format!("sip:{host}")
        } else {
            format!("sip:{user}@{host}")
        };
        let Also {
            to,
            via,
            headers,
            body,
        } = also;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{call_id}{method};rport{via}\r\nMax-Forwards: 70\r\n\
             From: <sip:eve@127.0.0.1>;tag=e\r\nTo: <{uri}>{to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:eve@127.0.0.1:9>\r\n{headers}Content-Length: {len}\r\n\r\n{body}",
            cseq = if method == "BYE" { 2 } else { 1 },
            len = body.len(),
        )
    }
}

/// What a request may have more.
#[derive(Default)]
struct Also<'a> {
    /// Behind the address in To, such as its tag.
    to: &'a str,
    /// Behind the other parameters of Via.
    via: &'a str,
    headers: &'a str,
    body: &'a str,
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

#[test]
fn who_is_muted_can_hang_up_and_nothing_else() {
    let server = Server::start(&[]);
    let eve = Peer::of(&server);
    let call = Also {
        headers: "Content-Type: application/sdp\r\n",
        body: SDP,
        ..Also::default()
    };
    eve.send(eve.request("INVITE", "lobby", "call", &call));
    let ok = eve.answer();
    assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
    let to = ok.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = &to[to.find(";tag=").unwrap()..];
    let in_dialog = |to| Also {
        to,
        ..Also::default()
    };
    eve.send(eve.request("ACK", "lobby", "call", &in_dialog(tag)));

    server.wait_until("her call is up", |server| server.participants() == 1);
    server.wait_until("she is muted", |server| {
        (0..100).for_each(|number| eve.send(garbage(number * 3)));
        server.metric("plenum_sip_mutes_total") >= 1.0
    });
    let dropped = unwanted(&server, "muted");
    // None of these is answered: what comes back first is the answer to the BYE.
    eve.send(eve.request("OPTIONS", "", "options", &Also::default()));
    eve.send(eve.request("INVITE", "lobby", "another", &call));
    eve.send(eve.request("REGISTER", "", "register", &Also::default()));
    server.wait_until("they are dropped", |server| {
        unwanted(server, "muted") >= dropped + 3
    });
    assert_eq!(unwanted(&server, "register"), 0);
    // A tag that only looks like one of ours is dropped too, once all cores know of her.
    let dropped = unwanted(&server, "muted");
    let owner = tag[";tag=".len()..].split('-').next().unwrap();
    let forged = format!(";tag={owner}-0000000000000000");
    server.wait_until("a forged tag is seen through", |server| {
        eve.send(eve.request("BYE", "lobby", "forged", &in_dialog(&forged)));
        unwanted(server, "muted") > dropped
    });

    eve.send(eve.request("BYE", "lobby", "call", &in_dialog(tag)));
    let bye = loop {
        let text = eve.answer();
        if !text.contains("Call-ID: forged") && !text.contains("Call-ID: call\r\nCSeq: 1 INVITE") {
            break text;
        }
    };
    assert!(
        bye.starts_with("SIP/2.0 200") && bye.contains("CSeq: 2 BYE"),
        "{bye}"
    );
    server.wait_until("she has left", |server| server.participants() == 0);
}

#[test]
fn scanners_are_counted_by_what_they_try() {
    let server = Server::start(&["rooms.auto_create=false", "rooms.names=blue"]);
    let eve = Peer::of(&server);
    for number in 0..30 {
        let call_id = format!("register{number}");
        eve.send(eve.request("REGISTER", "", &call_id, &Also::default()));
        let answer = eve.answer();
        assert!(answer.starts_with("SIP/2.0 405 "), "{answer}");
        assert!(answer.contains("Allow: INVITE") && answer.contains(&call_id));
    }
    assert_eq!(unwanted(&server, "register"), 30);

    let call = Also {
        headers: "Content-Type: application/sdp\r\n",
        body: SDP,
        ..Also::default()
    };
    let invite = eve.request("INVITE", "00441904911000", "phone", &call);
    eve.send(&invite);
    let refused = eve.answer();
    assert!(refused.starts_with("SIP/2.0 404 "), "{refused}");
    assert!(unwanted(&server, "unknown_room") >= 1);

    // A known scanner is not answered even where others are.
    let scanner = Also {
        headers: "User-Agent: friendly-scanner\r\n",
        ..Also::default()
    };
    eve.send(eve.request("OPTIONS", "", "scanner", &scanner));
    eve.send(eve.request("OPTIONS", "", "phone2", &Also::default()));
    let answer = loop {
        let text = eve.answer();
        // The 404 is sent until it is acknowledged.
        if !text.starts_with("SIP/2.0 404") {
            break text;
        }
    };
    assert!(answer.contains("Call-ID: phone2"), "{answer}");
    assert_eq!(unwanted(&server, "user_agent"), 1);
    assert_eq!(server.metric("plenum_sip_mutes_total"), 0.0);
}

#[test]
fn proxies_that_ask_are_told_how_much_to_hold_back() {
    // Two callers are 200 units a second: there is room for the second, and then for nobody.
    let server = Server::start(&["load.max=120"]);
    let proxy = Peer::of(&server);
    let mut asked = 0;
    let mut feedback = |via: &str| {
        asked += 1;
        let also = Also {
            via,
            ..Also::default()
        };
        proxy.send(proxy.request("OPTIONS", "", &format!("ask{asked}"), &also));
        let answer = proxy.answer();
        // Beyond its limits the server says so besides.
        let statuses = ["SIP/2.0 200 ", "SIP/2.0 503 "];
        assert!(
            statuses.iter().any(|status| answer.starts_with(status)),
            "{answer}"
        );
        let via = answer.lines().find(|line| line.starts_with("Via:"));
        via.unwrap().to_owned()
    };
    let idle = feedback(";oc;oc-algo=\"loss,rate\"");
    assert!(
        idle.contains(";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq="),
        "{idle}"
    );
    assert!(!feedback("").contains("oc"));

    let phones: Vec<Phone> = (0..2)
        .map(|_| Phone::call(&server.uri("lobby"), &["--tone", "440"]))
        .collect();
    server.wait_until("overload is told", |_| {
        feedback(";oc;oc-algo=\"loss\"").contains(";oc=100;oc-algo=\"loss\";oc-validity=3000;")
    });
    assert!(server.metric("plenum_overload_percent") >= 100.0);
    drop(phones);
}
