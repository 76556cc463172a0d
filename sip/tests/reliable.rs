//! Provisional responses that arrive for certain (RFC 3262), as either side of a call.

mod common;

use std::time::Duration;

use common::peer::{Peer, answer, cseq, header, headers, uri};
use common::{Pair, sdp_lines};
use sip::{Ended, Event, Invitation};

const SECOND: Duration = Duration::from_secs(1);

/// An INVITE that demands PRACKs, answered by 180.
fn ringing() -> (Peer, sip::CallKey, String) {
    let mut peer = Peer::new();
    let lines = sdp_lines(&["Require: 100rel"]);
    let invite = peer.make("INVITE", &lines);
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.ring(peer.now, call, "room");
    let ringing = peer.next("SIP/2.0 180");
    (peer, call, ringing)
}

fn prack(peer: &mut Peer, ringing: &str, number: u32) -> String {
    let rack = format!("RAck: {} 1 INVITE", header(ringing, "RSeq"));
    peer.within(ringing, "PRACK", number, &[&rack])
}

#[test]
fn a_caller_who_demands_it_gets_ringing_until_he_acknowledges_it() {
    let (mut peer, call, ringing) = ringing();
    assert_eq!(header(&ringing, "Require"), "100rel");
    assert!(header(&ringing, "RSeq").parse::<u32>().unwrap() > 0);
    assert!(header(&ringing, "Contact").contains("sip:room@192.0.2.1"));
    // After 0.5, 1.5 and 3.5 seconds, not every T2.
    for wait in [500, 1_000, 2_000] {
        peer.pass(Duration::from_millis(wait - 1));
        peer.nothing();
        peer.pass(Duration::from_millis(1));
        assert_eq!(peer.next("SIP/2.0 180"), ringing);
    }
    let message = prack(&mut peer, &ringing, 2);
    peer.say(&message);
    peer.next("SIP/2.0 200");
    peer.pass(SECOND * 20);
    peer.nothing();
    // The ACK has the number of the INVITE, which is not the latest of the dialog any more.
    peer.endpoint
        .accept(peer.now, call, "room", common::body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.pass(SECOND * 40);
    peer.hang_up(call);
}

#[test]
fn the_next_ringing_waits_for_the_acknowledgement_and_counts_on() {
    let (mut peer, call, first) = ringing();
    peer.endpoint.ring(peer.now, call, "room");
    peer.nothing();
    let message = prack(&mut peer, &first, 2);
    peer.say(&message);
    peer.next("SIP/2.0 200");
    peer.endpoint.ring(peer.now, call, "room");
    let second = peer.next("SIP/2.0 180");
    let number = |ringing: &str| header(ringing, "RSeq").parse::<u32>().unwrap();
    assert_eq!(number(&second), number(&first) + 1);
    peer.endpoint.bye(peer.now, call, None);
    peer.next("SIP/2.0 480");
    assert!(matches!(peer.event(), Event::Ended { .. }));
    let ack = peer.within(&second, "ACK", 1, &[]);
    peer.say(&ack);
}

#[test]
fn a_prack_of_nothing_is_refused() {
    let (mut peer, call, ringing) = ringing();
    let rseq: u32 = header(&ringing, "RSeq").parse().unwrap();
    for (number, rack) in [
        (2, format!("{} 1 INVITE", rseq + 1)),
        (3, format!("{rseq} 2 INVITE")),
        (4, format!("{rseq} 1 UPDATE")),
        (5, "x".to_owned()),
    ] {
        let rack = format!("RAck: {rack}");
        let message = peer.within(&ringing, "PRACK", number, &[&rack]);
        peer.say(&message);
        peer.next("SIP/2.0 481");
    }
    let message = prack(&mut peer, &ringing, 6);
    peer.say(&message);
    peer.next("SIP/2.0 200");
    // The same message again is answered again; another one comes for nothing (RFC 3262 §3).
    peer.say(&message);
    peer.next("SIP/2.0 200");
    let another = prack(&mut peer, &ringing, 7);
    peer.say(&another);
    peer.next("SIP/2.0 481");
    peer.endpoint
        .accept(peer.now, call, "room", common::body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.hang_up(call);
}

#[test]
fn a_prack_that_the_answer_overtook_is_welcome() {
    let (mut peer, call, ringing) = ringing();
    peer.endpoint
        .accept(peer.now, call, "room", common::body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let message = prack(&mut peer, &ringing, 2);
    peer.say(&message);
    peer.next("SIP/2.0 200");
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.pass(SECOND * 40);
    peer.hang_up(call);
}

#[test]
fn ringing_that_nobody_acknowledges_ends_the_call() {
    let (mut peer, _, ringing) = ringing();
    peer.pass(SECOND * 32 - Duration::from_millis(1));
    assert_eq!(peer.sent.len(), 6, "0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s");
    peer.sent.clear();
    assert!(peer.events.is_empty());
    peer.pass(Duration::from_millis(1));
    peer.next("SIP/2.0 504");
    assert!(matches!(
        peer.event(),
        Event::Ended {
            cause: Ended::PrackTimeout,
            ..
        }
    ));
    let invite_via = header(&ringing, "Via").replace(";received=192.0.2.9;rport=5060", "");
    let ack = peer.within(&ringing, "ACK", 1, &[&format!("Via: {invite_via}")]);
    peer.say(&ack);
    peer.assert_forgotten();
}

#[test]
fn without_an_offer_there_is_nothing_to_say_reliably() {
    // RFC 3262 §5: the first reliable response would have to carry our offer.
    let mut peer = Peer::new();
    let invite = peer.make("INVITE", &["Require: 100rel"]);
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.ring(peer.now, call, "room");
    peer.nothing();
    peer.endpoint
        .accept(peer.now, call, "room", common::body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.hang_up(call);
}

#[test]
fn who_merely_supports_it_is_rung_the_plain_way() {
    let mut peer = Peer::new();
    let invite = peer.make("INVITE", &["Supported: 100rel"]);
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.ring(peer.now, call, "room");
    let ringing = peer.next("SIP/2.0 180");
    assert!(headers(&ringing, "RSeq").is_empty() && headers(&ringing, "Require").is_empty());
    peer.pass(SECOND * 20);
    peer.nothing();
}

#[test]
fn cancel_and_rejection_stop_the_repetition() {
    for cancelled in [true, false] {
        let (mut peer, call, ringing) = ringing();
        let via = header(&ringing, "Via").replace(";received=192.0.2.9;rport=5060", "");
        let via = format!("Via: {via};rport");
        if cancelled {
            let cancel = peer.make("CANCEL", &[&via]);
            peer.say(&cancel);
            peer.next("SIP/2.0 200");
            peer.next("SIP/2.0 487");
            assert!(matches!(
                peer.event(),
                Event::Ended {
                    cause: Ended::Cancelled,
                    ..
                }
            ));
        } else {
            peer.endpoint
                .reject(peer.now, call, sip::Rejection::new(486));
            peer.next("SIP/2.0 486");
        }
        let ack = peer.within(&ringing, "ACK", 1, &[&via]);
        peer.say(&ack);
        peer.assert_forgotten();
    }
}

#[test]
fn our_prack_goes_out_once_for_each_new_number() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    assert!(header(&invite, "Supported").contains("100rel"));
    let contact = "Contact: <sip:a@192.0.2.9:5060;x=1>";
    let ring = |rseq: u32, tag: &str| {
        let rseq = format!("RSeq: {rseq}");
        answer(&invite, 180, tag, &["Require: 100rel", &rseq, contact])
    };
    let progress = |peer: &mut Peer| {
        assert!(matches!(peer.event(), Event::Progress { status: 180, .. }));
    };
    peer.say(&ring(7, "one"));
    let prack = peer.next("PRACK");
    assert_eq!(header(&prack, "RAck"), "7 1 INVITE");
    assert_eq!(uri(&prack), "sip:a@192.0.2.9:5060;x=1");
    assert!(header(&prack, "To").ends_with(";tag=one"));
    assert_eq!(cseq(&prack), 2);
    progress(&mut peer);
    peer.say(&answer(&prack, 200, "", &[]));
    // Again, and one that is not its turn: neither PRACK nor news.
    peer.say(&ring(7, "one"));
    peer.say(&ring(9, "one"));
    peer.nothing();
    peer.say(&ring(8, "one"));
    let prack = peer.next("PRACK");
    assert_eq!((header(&prack, "RAck"), cseq(&prack)), ("8 1 INVITE", 3));
    progress(&mut peer);
    // Another branch of a fork counts for itself.
    peer.say(&ring(40, "two"));
    let other = peer.next("PRACK");
    assert_eq!(header(&other, "RAck"), "40 1 INVITE");
    assert!(header(&other, "To").ends_with(";tag=two"));
    progress(&mut peer);
    // A PRACK that is not answered is repeated as any request is.
    peer.pass(Duration::from_millis(500));
    assert_eq!(peer.sent.len(), 2);
    peer.sent.clear();
    peer.say(&answer(&prack, 200, "", &[]));
    peer.say(&answer(&other, 200, "", &[]));
    peer.say(&answer(&invite, 200, "two", &[]));
    let ack = peer.next("ACK");
    assert_eq!(cseq(&ack), 1);
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    peer.endpoint.bye(peer.now, call, None);
    let bye = peer.next("BYE");
    assert_eq!(cseq(&bye), 5);
    assert!(matches!(peer.event(), Event::Ended { .. }));
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
}

#[test]
fn our_prack_takes_the_way_that_the_response_recorded() {
    for (route, request_uri, routes) in [
        (
            "<sip:p1.test;lr>",
            "sip:a@192.0.2.9:5060",
            vec!["<sip:p1.test;lr>"],
        ),
        // A strict router is the Request-URI, and the peer comes last.
        (
            "<sip:p1.test>",
            "sip:p1.test",
            vec!["<sip:a@192.0.2.9:5060>"],
        ),
    ] {
        let mut peer = Peer::new();
        let (call, invite) = peer.call(|_| {});
        let recorded = format!("Record-Route: {route}");
        let lines = ["Require: 100rel", "RSeq: 1", recorded.as_str()];
        peer.say(&answer(&invite, 183, "peer", &lines));
        let prack = peer.next("PRACK");
        assert_eq!(uri(&prack), request_uri);
        assert_eq!(headers(&prack, "Route"), routes);
        assert!(matches!(peer.event(), Event::Progress { status: 183, .. }));
        peer.say(&answer(&prack, 200, "", &[]));
        peer.say(&answer(&invite, 486, "peer", &[]));
        peer.next("ACK");
        assert!(matches!(peer.event(), Event::Rejected { call: c, status: 486, .. } if c == call));
        peer.assert_forgotten();
    }
}

#[test]
fn half_of_all_messages_may_be_lost() {
    for seed in 0..20_u64 {
        let mut pair = Pair::losing(move |n, _| {
            (n as u64 + seed * 77).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1
        });
        let invitation = Invitation {
            target: format!("sip:room@{}", common::address(1)),
            from: "sip:caller@192.0.2.1".to_owned(),
            contact_user: "caller".to_owned(),
            body: Some(common::body("offer")),
            headers: vec![("Require", "100rel".to_owned())],
            ..Invitation::default()
        };
        let flow = pair.flow(1);
        let caller = pair.ends[0].invite(pair.now, flow, invitation).unwrap();
        let callee = pair.expect_invite().call;
        pair.ends[1].ring(pair.now, callee, "room");
        // Once, however often it comes.
        pair.expect(0, |event| {
            matches!(event, Event::Progress { status: 180, .. }).then_some(())
        });
        let now = pair.now;
        pair.ends[1].accept(now, callee, "room", common::body("answer"));
        pair.expect_accepted();
        pair.expect_established();
        assert!(pair.count("PRACK") > 0);
        pair.ends[0].bye(pair.now, caller, None);
        assert_eq!(pair.expect_ended(0), Ended::LocalBye);
        assert_eq!(pair.expect_ended(1), Ended::PeerBye);
        pair.assert_forgotten();
    }
}
