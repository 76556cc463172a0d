//! What is refused without being remembered, and what is dropped when memory is short (RFC 3261 §8.2.7).

mod common;

use std::time::Duration;

use common::peer::{Peer, ROOM, header, request, udp};
use common::sdp_lines;
use sip::Event;

#[test]
fn a_bad_request_gets_the_same_answer_each_time_and_no_memory() {
    let via = "Via: SIP/2.0/UDP 192.0.2.9:5060;rport;branch=z9hG4bK7";
    for (status, message) in [
        (501, request("NEWMETHOD", ROOM, &[via])),
        (405, request("REGISTER", ROOM, &[via])),
        (416, request("INVITE", "tel:+1", &[via])),
        (420, request("INVITE", ROOM, &[via, "Require: x"])),
        (400, request("INVITE", ROOM, &[via, "CSeq: x"])),
        (481, request("BYE", ROOM, &[via])),
        (481, request("CANCEL", ROOM, &[via])),
        (481, request("PRACK", ROOM, &[via])),
        (
            481,
            request("INFO", ROOM, &[via, "To: <sip:room@192.0.2.1>;tag=gone"]),
        ),
        (
            481,
            request("INVITE", ROOM, &[via, "To: <sip:room@192.0.2.1>;tag=gone"]),
        ),
    ] {
        let mut peer = Peer::new();
        peer.say(&message);
        let first = peer.next(&format!("SIP/2.0 {status}"));
        assert!(
            peer.endpoint.poll_timeout().is_none(),
            "a timer for\n{message}"
        );
        peer.pass(Duration::from_secs(1));
        peer.say(&message);
        assert_eq!(peer.next("SIP/2.0"), first);
        assert_eq!(header(&first, "To").matches(";tag=").count(), 1);
        // Its ACK is absorbed.
        if message.starts_with("INVITE") {
            let to = format!("To: {}", header(&first, "To"));
            peer.say(&request("ACK", ROOM, &[via, &to]));
        }
        peer.assert_forgotten();
        // Another request is another matter: its tag is another one.
        peer.say(&message.replace("z9hG4bK7", "z9hG4bK8"));
        let other = peer.next("SIP/2.0");
        let is_within = message.contains("tag=gone");
        assert_eq!(header(&other, "To") == header(&first, "To"), is_within);
    }
}

#[test]
fn when_memory_is_short_who_is_in_a_call_is_served_for_longer() {
    let mut peer = Peer::with(|config| config.transactions_max = 3);
    let (call, ok) = peer.called(&[]);
    let invite = peer.make("INVITE", &["Call-ID: second"]);
    peer.say(&invite);
    let second = peer.invite().call;
    let options = peer.make("OPTIONS", &["Call-ID: third"]);
    peer.say(&options);
    let Event::Options { request: key, .. } = peer.event() else {
        panic!("no OPTIONS");
    };
    peer.endpoint.respond_options(peer.now, key, None);
    peer.next("SIP/2.0 200");
    // Three are remembered.
    for _ in 0..2 {
        let options = peer.make("OPTIONS", &["Call-ID: fourth"]);
        peer.say(&options);
    }
    peer.nothing();
    assert_eq!(peer.endpoint.counters().dropped, 2);
    // Retransmissions cost nothing.
    peer.say(&options);
    peer.next("SIP/2.0 200");
    let info = peer.within(&ok, "INFO", 2, &[]);
    peer.say(&info);
    peer.next("SIP/2.0 200");
    let via = format!("Via: {}", header(&invite, "Via"));
    let cancel = peer.make("CANCEL", &["Call-ID: second", &via]);
    peer.say(&cancel);
    peer.next("SIP/2.0 200");
    let refusal = peer.next("SIP/2.0 487");
    assert!(matches!(peer.event(), Event::Ended { call: c, .. } if c == second));
    let ack = peer.within(&refusal, "ACK", 1, &[&via]);
    peer.say(&ack);
    assert_eq!(peer.endpoint.counters().dropped, 2);
    // Even to them there is an end, as long as it lasts.
    for number in 3..6 {
        let info = peer.within(&ok, "INFO", number, &[]);
        peer.say(&info);
    }
    assert_eq!(peer.sent.len(), 1);
    peer.next("SIP/2.0 200");
    assert_eq!(peer.endpoint.counters().dropped, 4);
    peer.pass(Duration::from_secs(40));
    let options = peer.make("OPTIONS", &["Call-ID: fifth"]);
    peer.say(&options);
    let Event::Options { request: key, .. } = peer.event() else {
        panic!("no OPTIONS");
    };
    peer.endpoint.respond_options(peer.now, key, None);
    peer.next("SIP/2.0 200");
    peer.hang_up(call);
}

#[test]
fn who_guesses_tags_costs_nothing() {
    let mut peer = Peer::new();
    let (call, _) = peer.called(&sdp_lines(&[]));
    peer.pass(Duration::from_secs(70));
    assert!(peer.endpoint.poll_timeout().is_none());
    for n in 0..100 {
        let to = format!("To: <sip:room@192.0.2.1>;tag=0-{n:016x}");
        let message = peer.make("BYE", &[&to]);
        peer.say_over(udp("198.51.100.1:5060"), &message);
        peer.next("SIP/2.0 481");
    }
    assert!(peer.endpoint.poll_timeout().is_none());
    peer.hang_up(call);
}
