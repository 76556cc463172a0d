//! One INVITE, several peers: a proxy has forked it (RFC 3261 §13.2.2.4).

mod common;

use std::time::Duration;

use common::peer::{Peer, answer, cseq, header, headers, uri};
use sip::{Ended, Event};

#[test]
fn a_second_peer_is_told_that_he_is_not_needed() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    let one = answer(&invite, 200, "one", &["Contact: <sip:one@192.0.2.9>"]);
    let two = answer(
        &invite,
        200,
        "two",
        &[
            "Contact: <sip:two@192.0.2.10>",
            "Record-Route: <sip:192.0.2.9;lr>",
        ],
    );
    peer.say(&one);
    assert_eq!(uri(&peer.next("ACK")), "sip:one@192.0.2.9");
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    peer.say(&two);
    let (flow, ack) = peer.next_over("ACK");
    assert_eq!(flow, peer.flow, "by the proxy on the way");
    assert_eq!(uri(&ack), "sip:two@192.0.2.10");
    assert_eq!(header(&ack, "Route"), "<sip:192.0.2.9;lr>");
    assert!(header(&ack, "To").ends_with(";tag=two"));
    assert_eq!(cseq(&ack), 1);
    let bye = peer.next("BYE");
    assert_eq!(uri(&bye), "sip:two@192.0.2.10");
    assert!(header(&bye, "To").ends_with(";tag=two"));
    assert_eq!(header(&bye, "From"), header(&invite, "From"));
    assert_eq!(cseq(&bye), 2);
    // His 200 again: the ACK was lost, the BYE is under way.
    peer.say(&two);
    peer.next("ACK");
    peer.nothing();
    // That of the first one again.
    peer.say(&one);
    assert!(header(&peer.next("ACK"), "To").ends_with(";tag=one"));
    peer.nothing();
    peer.say(&answer(&bye, 200, "", &[]));
    // The call goes on: the BYE of the second did not end it.
    let dialog = [
        format!("From: {};tag=one", header(&invite, "To")),
        format!("To: {}", header(&invite, "From")),
        format!("Call-ID: {}", header(&invite, "Call-ID")),
    ];
    let mut lines: Vec<&str> = dialog.iter().map(String::as_str).collect();
    lines.push("CSeq: 5 OPTIONS");
    let options = peer.make("OPTIONS", &lines);
    peer.say(&options);
    peer.next("SIP/2.0 200");
    peer.hang_up(call);
}

#[test]
fn who_answers_after_all_is_over_is_hung_up_on_as_well() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    peer.say(&answer(&invite, 200, "one", &[]));
    peer.next("ACK");
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    peer.endpoint.bye(peer.now, call, None);
    let bye = peer.next("BYE");
    assert!(matches!(
        peer.event(),
        Event::Ended {
            cause: Ended::LocalBye,
            ..
        }
    ));
    peer.say(&answer(&bye, 200, "", &[]));
    peer.pass(Duration::from_secs(10));
    peer.say(&answer(&invite, 200, "late", &[]));
    assert!(header(&peer.next("ACK"), "To").ends_with(";tag=late"));
    let bye = peer.next("BYE");
    peer.say(&answer(&bye, 200, "", &[]));
    // The one who was hung up on says 200 once more: an ACK is all he lacks.
    peer.say(&answer(&invite, 200, "one", &[]));
    peer.next("ACK");
    peer.assert_forgotten();
}

#[test]
fn not_even_a_proxy_gone_mad_makes_us_remember_without_end() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    peer.say(&answer(&invite, 200, "one", &[]));
    peer.next("ACK");
    peer.event();
    for n in 0..100 {
        peer.say(&answer(&invite, 200, &format!("mad{n}"), &[]));
    }
    let byes = peer
        .sent
        .iter()
        .filter(|(_, text)| text.starts_with("BYE"))
        .count();
    assert_eq!(byes, 15);
    while let Some((_, text)) = peer.sent.pop_front() {
        if text.starts_with("BYE") {
            peer.say(&answer(&text, 200, "", &[]));
        }
    }
    peer.hang_up(call);
}

#[test]
fn a_200_that_comes_again_is_acknowledged_again() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    let ok = answer(&invite, 200, "one", &[]);
    peer.say(&ok);
    let first = peer.next("ACK");
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    for _ in 0..3 {
        peer.pass(Duration::from_secs(4));
        peer.say(&ok);
        assert_eq!(peer.next("ACK"), first);
        peer.nothing();
    }
    // Ringing that the answer overtook is no news.
    peer.say(&answer(&invite, 180, "two", &[]));
    peer.nothing();
    assert!(headers(&first, "Contact").is_empty());
    peer.hang_up(call);
}
