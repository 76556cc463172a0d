//! UPDATE (RFC 3311) and re-INVITE, one after the other, and what else comes within a call: INFO, BYE.

mod common;

use std::time::Duration;

use common::peer::{Peer, answer, body_of, header, headers, uri};
use common::{Pair, body, sdp_lines};
use sip::{Ended, Event, Rejection, Transport};

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn change(peer: &mut Peer) -> Option<String> {
    match peer.event() {
        Event::Reinvite { body, .. } => {
            body.map(|body| String::from_utf8(body.content.to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// The ACK of a refusal, which shares the branch of its INVITE.
fn acknowledge(peer: &mut Peer, invite: &str, answer: &str) {
    let via = format!("Via: {}", header(invite, "Via"));
    let number = common::peer::cseq(invite);
    let ack = peer.within(answer, "ACK", number, &[&via]);
    peer.say(&ack);
    peer.nothing();
}

#[test]
fn an_update_without_an_offer_is_answered_at_once_and_moves_the_peer() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let moved = "Contact: <sip:a@192.0.2.9:5060;moved>";
    let update = peer.within(&ok, "UPDATE", 2, &[moved]);
    peer.say(&update);
    let answered = peer.next("SIP/2.0 200");
    assert!(header(&answered, "Contact").contains("sip:room@192.0.2.1"));
    assert_eq!(body_of(&answered), "");
    peer.nothing();
    peer.endpoint.bye(peer.now, call, None);
    peer.event();
    let bye = peer.next("BYE");
    assert_eq!(uri(&bye), "sip:a@192.0.2.9:5060;moved");
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
}

#[test]
fn an_update_with_an_offer_is_the_users_and_needs_no_ack() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let lines = ["Content-Type: application/sdp", "\nnew"];
    let update = peer.within(&ok, "UPDATE", 2, &lines);
    peer.say(&update);
    assert_eq!(change(&mut peer).as_deref(), Some("new"));
    peer.nothing();
    peer.endpoint.accept(peer.now, call, "room", body("mine"));
    let answered = peer.next("SIP/2.0 200");
    assert_eq!(body_of(&answered), "mine");
    assert_eq!(header(&answered, "CSeq"), "2 UPDATE");
    // Neither is the 200 repeated nor the call ended for want of an ACK.
    peer.pass(SECOND * 40);
    peer.nothing();

    let update = peer.within(&ok, "UPDATE", 3, &lines);
    peer.say(&update);
    assert_eq!(change(&mut peer).as_deref(), Some("new"));
    peer.endpoint.reject(peer.now, call, Rejection::new(488));
    peer.next("SIP/2.0 488");
    peer.pass(SECOND * 40);
    peer.hang_up(call);
}

#[test]
fn one_change_after_the_other() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let first = peer.within(&ok, "UPDATE", 2, &sdp_lines(&[]));
    peer.say(&first);
    change(&mut peer);
    for (number, method) in [(3, "UPDATE"), (4, "INVITE")] {
        let second = peer.within(&ok, method, number, &sdp_lines(&[]));
        peer.say(&second);
        let refusal = peer.next("SIP/2.0 500");
        assert!(header(&refusal, "Retry-After").parse::<u32>().unwrap() <= 10);
        if method == "INVITE" {
            acknowledge(&mut peer, &second, &ok);
        }
    }
    // The first one is not forgotten over that.
    peer.endpoint.accept(peer.now, call, "room", body("mine"));
    let answered = peer.next("SIP/2.0 200");
    assert_eq!(header(&answered, "CSeq"), "2 UPDATE");
    peer.hang_up(call);
}

#[test]
fn before_the_ack_of_the_first_answer_every_offer_has_to_wait() {
    let mut peer = Peer::new();
    let invite = peer.make("INVITE", &sdp_lines(&[]));
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.accept(peer.now, call, "room", body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let second = peer.within(&ok, "INVITE", 2, &sdp_lines(&[]));
    peer.say(&second);
    let refusal = peer.next("SIP/2.0 500");
    assert!(header(&refusal, "Retry-After").parse::<u32>().unwrap() <= 10);
    acknowledge(&mut peer, &second, &ok);
    let update = peer.within(&ok, "UPDATE", 3, &sdp_lines(&[]));
    peer.say(&update);
    peer.next("SIP/2.0 500");
    // The ACK of the first is still recognised.
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.hang_up(call);
}

#[test]
fn an_offer_before_the_first_one_is_answered_has_to_wait() {
    let mut peer = Peer::new();
    let lines = ["Supported: timer", "Session-Expires: 700;refresher=uas"];
    let invite = peer.make("INVITE", &sdp_lines(&lines));
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.ring(peer.now, call, "room");
    let ringing = peer.next("SIP/2.0 180");
    let offer = peer.within(&ringing, "UPDATE", 2, &sdp_lines(&[]));
    peer.say(&offer);
    peer.next("SIP/2.0 500");
    let refresh = peer.within(&ringing, "UPDATE", 3, &[]);
    peer.say(&refresh);
    peer.next("SIP/2.0 200");
    peer.endpoint.accept(peer.now, call, "room", body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    // The INVITE gets what the INVITE asked for.
    assert_eq!(header(&ok, "Session-Expires"), "700;refresher=uas");
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.hang_up(call);
}

#[test]
fn a_change_while_our_refresh_is_out_is_glare() {
    for allow in ["Allow: UPDATE", "Allow: INVITE"] {
        let mut peer = Peer::new();
        let lines = [
            "Supported: timer",
            "Session-Expires: 120;refresher=uas",
            allow,
        ];
        let (call, ok) = peer.called(&sdp_lines(&lines));
        peer.pass(SECOND * 60);
        let (_, refresh) = peer.sent.pop_front().unwrap();
        for (number, method) in [(2, "INVITE"), (3, "UPDATE")] {
            let theirs = peer.within(&ok, method, number, &sdp_lines(&[]));
            peer.say(&theirs);
            peer.next("SIP/2.0 491");
            if method == "INVITE" {
                acknowledge(&mut peer, &theirs, &ok);
            }
        }
        peer.say(&answer(&refresh, 200, "", &["Session-Expires: 120"]));
        peer.sent.clear();
        let theirs = peer.within(&ok, "UPDATE", 4, &sdp_lines(&[]));
        peer.say(&theirs);
        change(&mut peer);
        peer.endpoint.accept(peer.now, call, "room", body("v=0"));
        peer.next("SIP/2.0 200");
        peer.hang_up(call);
    }
}

#[test]
fn an_early_update_of_a_fork_that_loses_does_not_count_for_the_one_that_wins() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    peer.say(&answer(&invite, 180, "one", &[]));
    assert!(matches!(peer.event(), Event::Progress { .. }));
    let from = |tag: &str| format!("From: {};tag={tag}", header(&invite, "To"));
    let to = format!("To: {}", header(&invite, "From"));
    let call_id = format!("Call-ID: {}", header(&invite, "Call-ID"));
    let request = |peer: &mut Peer, method: &str, number: u32, tag: &str, more: &[&str]| {
        let cseq = format!("CSeq: {number} {method}");
        let from = from(tag);
        let lines = [&[from.as_str(), &to, &call_id, &cseq], more].concat();
        let message = peer.make(method, &lines);
        peer.say(&message);
    };
    let elsewhere = ["Contact: <sip:elsewhere@192.0.2.77>"];
    request(&mut peer, "UPDATE", 700, "one", &elsewhere);
    peer.next("SIP/2.0 200");
    // Our offer is not answered yet (RFC 3311 §5.2).
    request(&mut peer, "UPDATE", 701, "one", &sdp_lines(&[]));
    peer.next("SIP/2.0 491");
    // The callee must not hang up before it has answered (RFC 3261 §15).
    request(&mut peer, "BYE", 702, "one", &[]);
    peer.next("SIP/2.0 481");
    peer.say(&answer(&invite, 200, "two", &[]));
    let (flow, ack) = peer.next_over("ACK");
    assert_eq!(uri(&ack), "sip:a@192.0.2.9:5060");
    assert_eq!(flow, peer.flow);
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    request(&mut peer, "BYE", 1, "two", &[]);
    peer.next("SIP/2.0 200");
    assert!(matches!(
        peer.event(),
        Event::Ended { call: c, cause: Ended::PeerBye } if c == call
    ));
    peer.assert_forgotten();
}

#[test]
fn a_demand_that_we_do_not_know_is_refused_within_a_call_too() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let update = peer.within(&ok, "UPDATE", 2, &["Require: timer, precondition"]);
    peer.say(&update);
    let refusal = peer.next("SIP/2.0 420");
    assert_eq!(header(&refusal, "Unsupported"), "precondition");
    peer.hang_up(call);
}

#[test]
fn who_hangs_up_with_a_change_pending_has_it_answered() {
    for ours in [true, false] {
        for method in ["INVITE", "UPDATE"] {
            let mut peer = Peer::new();
            let (call, ok) = peer.called(&[]);
            let offer = peer.within(&ok, method, 2, &sdp_lines(&[]));
            peer.say(&offer);
            change(&mut peer);
            if ours {
                peer.endpoint.bye(peer.now, call, None);
                let bye = peer.next("BYE");
                peer.say(&answer(&bye, 200, "", &[]));
            } else {
                let bye = peer.within(&ok, "BYE", 3, &[]);
                peer.say(&bye);
                peer.next("SIP/2.0 200");
            }
            peer.next("SIP/2.0 487");
            assert!(matches!(peer.event(), Event::Ended { .. }));
            if method == "INVITE" {
                acknowledge(&mut peer, &offer, &ok);
            }
            peer.assert_forgotten();
        }
    }
}

#[test]
fn a_change_may_be_cancelled_without_ending_the_call() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let offer = peer.within(&ok, "INVITE", 2, &sdp_lines(&[]));
    peer.say(&offer);
    change(&mut peer);
    assert!(peer.endpoint.is_asked(call));
    let via = format!("Via: {}", header(&offer, "Via"));
    let cancel = peer.within(&ok, "CANCEL", 2, &[&via]);
    peer.say(&cancel);
    assert!(!peer.endpoint.is_asked(call));
    peer.next("SIP/2.0 200");
    peer.next("SIP/2.0 487");
    acknowledge(&mut peer, &offer, &ok);
    // An answer that comes too late changes nothing.
    peer.endpoint.accept(peer.now, call, "room", body("late"));
    peer.nothing();
    peer.hang_up(call);
}

#[test]
fn byes_that_cross_are_both_right() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut pair = Pair::with(transport, Box::new(|_, _| false));
        let (caller, callee) = pair.up();
        pair.ends[0].bye(pair.now, caller, None);
        pair.ends[1].bye(pair.now, callee, None);
        assert_eq!(pair.expect_ended(0), Ended::LocalBye);
        assert_eq!(pair.expect_ended(1), Ended::LocalBye);
        pair.pass(SECOND);
        assert_eq!(
            (pair.count("BYE"), pair.count("SIP/2.0 200")),
            (2, 3),
            "one 200 is that of the INVITE: {:?}",
            pair.sent
        );
        pair.assert_forgotten();
    }
}

#[test]
fn keys_are_told_by_info_in_either_form() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let mut number = 1;
    for (kind, content, digit) in [
        (
            "application/dtmf-relay",
            "Signal=5\r\nDuration=160\r\n",
            Some('5'),
        ),
        (
            "application/dtmf-relay",
            "Signal= * \r\nDuration= 160",
            Some('*'),
        ),
        ("application/dtmf-relay", "signal = 11\n", Some('#')),
        ("application/dtmf-relay", "Signal=a", Some('A')),
        ("application/dtmf-relay", "Signal=16", None),
        ("application/dtmf-relay", "Duration=160", None),
        ("application/dtmf", "7", Some('7')),
        ("application/dtmf;x=y", " 10\r\n", Some('*')),
        ("Application/DTMF", "77", None),
    ] {
        number += 1;
        let kind = format!("Content-Type: {kind}");
        let content = format!("\n{content}");
        let info = peer.within(&ok, "INFO", number, &[&kind, &content]);
        peer.say(&info);
        assert!(headers(&peer.next("SIP/2.0 200"), "Recv-Info").is_empty());
        if let Some(expected) = digit {
            match peer.event() {
                Event::Dtmf { call: c, digit } => assert_eq!((c, digit), (call, expected)),
                other => panic!("{other:?}"),
            }
        }
        // The same datagram again is no second key.
        peer.say(&info);
        peer.next("SIP/2.0 200");
        peer.nothing();
    }
    let info = peer.within(&ok, "INFO", 90, &["Info-Package: x"]);
    peer.say(&info);
    assert!(peer.next("SIP/2.0 469").contains("Recv-Info:"));
    let info = peer.within(&ok, "INFO", 91, &["Content-Type: text/plain", "\nx"]);
    peer.say(&info);
    assert!(header(&peer.next("SIP/2.0 415"), "Accept").contains("application/dtmf-relay"));
    let info = peer.within(&ok, "INFO", 92, &[]);
    peer.say(&info);
    peer.next("SIP/2.0 200");
    peer.hang_up(call);
}
