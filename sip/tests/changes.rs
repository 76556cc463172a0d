//! What the user of an endpoint may do in a call that is up: other terms by re-INVITE, an answer in the ACK,
//! a REFER and what the peer says of it.

mod common;

use std::time::Duration;

use common::peer::{Peer, answer, body_of, header, headers};
use common::{Pair, body};
use sip::{Body, CallKey, Ended, Event, Rejection};

const SECOND: Duration = Duration::from_secs(1);

fn changed(pair: &mut Pair) -> (u16, Option<Body>) {
    pair.expect(0, |event| match event {
        Event::Changed { status, body, .. } => Some((status, body)),
        _ => None,
    })
}

#[track_caller]
fn reinvited(pair: &mut Pair, offer: Option<&str>) {
    let asked = pair.expect(1, |event| match event {
        Event::Reinvite { body, .. } => Some(body),
        _ => None,
    });
    assert_eq!(asked, offer.map(body));
}

#[test]
fn an_offer_of_the_users_is_sent_and_its_answer_told() {
    let mut pair = Pair::new();
    let (caller, callee) = pair.up();
    assert!(pair.ends[0].reinvite(pair.now, caller, Some(&body("new"))));
    // One after the other.
    assert!(!pair.ends[0].reinvite(pair.now, caller, Some(&body("newer"))));
    reinvited(&mut pair, Some("new"));
    pair.ends[1].accept(pair.now, callee, "room", body("fine"));
    assert_eq!(changed(&mut pair), (200, Some(body("fine"))));
    assert_eq!(pair.expect_established(), None);
    assert!(pair.ends[0].reinvite(pair.now, caller, Some(&body("newer"))));
    reinvited(&mut pair, Some("newer"));
    pair.ends[1].reject(pair.now, callee, Rejection::new(488));
    assert_eq!(changed(&mut pair), (488, None));
    pair.ends[1].bye(pair.now, callee, None);
    assert_eq!(pair.expect_ended(1), Ended::LocalBye);
    assert_eq!(pair.expect_ended(0), Ended::PeerBye);
    assert!(!pair.ends[0].reinvite(pair.now, caller, None));
    pair.assert_forgotten();
}

#[test]
fn an_offer_asked_for_is_answered_in_the_ack_also_where_acks_are_lost() {
    let lost = std::cell::Cell::new(2);
    let mut pair = Pair::losing(move |_, line| {
        let loses = line.starts_with("ACK") && lost.get() > 0;
        lost.set(lost.get() - u32::from(loses));
        loses
    });
    let caller = pair.call(None);
    let callee = pair.expect_invite().call;
    pair.ends[1].accept(pair.now, callee, "room", body("offer"));
    assert_eq!(pair.expect_accepted(), Some(body("offer")));
    // Nothing is said before the user has answered.
    pair.pass(SECOND);
    assert_eq!(pair.count("ACK"), 0);
    pair.ends[0].acknowledge_offer(caller, Some(&body("answer")));
    assert_eq!(pair.expect_established(), Some(body("answer")));
    assert_eq!(pair.count("ACK"), 3);

    assert!(pair.ends[0].reinvite(pair.now, caller, None));
    reinvited(&mut pair, None);
    pair.ends[1].accept(pair.now, callee, "room", body("second"));
    assert_eq!(changed(&mut pair), (200, Some(body("second"))));
    pair.ends[0].acknowledge_offer(caller, Some(&body("fine")));
    assert_eq!(pair.expect_established(), Some(body("fine")));
    pair.ends[0].bye(pair.now, caller, None);
    assert_eq!(pair.expect_ended(0), Ended::LocalBye);
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn who_hangs_up_instead_of_answering_says_ack_first() {
    let mut pair = Pair::new();
    let caller = pair.call(None);
    let callee = pair.expect_invite().call;
    pair.ends[1].accept(pair.now, callee, "room", body("offer"));
    pair.expect_accepted();
    pair.ends[0].bye(pair.now, caller, None);
    pair.expect_ended(0);
    assert_eq!(pair.expect_established(), None);
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn a_change_that_nobody_answers_ends_the_call() {
    let mut peer = Peer::new();
    let (call, ..) = peer.calling(&[]);
    assert!(peer.endpoint.reinvite(peer.now, call, Some(&body("new"))));
    let invite = peer.next("INVITE");
    assert_eq!(body_of(&invite), "new");
    // A 2xx that comes again is acknowledged again.
    let ok = answer(&invite, 200, "", &[]);
    peer.say(&ok);
    let ack = peer.next("ACK");
    assert!(matches!(peer.event(), Event::Changed { status: 200, .. }));
    peer.say(&ok);
    assert_eq!(peer.next("ACK"), ack);
    peer.nothing();
    assert!(peer.endpoint.reinvite(peer.now, call, Some(&body("newer"))));
    let invite = peer.next("INVITE");
    // That is no answer to the next change.
    peer.say(&ok);
    assert_eq!(peer.next("ACK"), ack);
    peer.nothing();
    peer.say(&answer(&invite, 481, "", &[]));
    peer.next("ACK");
    assert!(matches!(peer.event(), Event::Changed { status: 481, .. }));
    assert!(matches!(
        peer.event(),
        Event::Ended {
            cause: Ended::SessionExpired,
            ..
        }
    ));
    let bye = peer.next("BYE");
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
}

#[test]
fn a_2xx_that_comes_again_is_no_answer_to_a_refresh() {
    let mut peer = Peer::with(|config| config.session.min_s = 20);
    let timed = ["Session-Expires: 40;refresher=uac", "Allow: INVITE, BYE"];
    let (call, ..) = peer.calling(&timed);
    assert!(peer.endpoint.reinvite(peer.now, call, Some(&body("new"))));
    let invite = peer.next("INVITE");
    let ok = answer(&invite, 200, "", &timed);
    peer.say(&ok);
    let ack = peer.next("ACK");
    assert!(matches!(peer.event(), Event::Changed { status: 200, .. }));
    peer.pass(21 * SECOND);
    let refresh = peer.next("INVITE");
    peer.sent.clear();
    peer.say(&ok);
    assert_eq!(peer.next("ACK"), ack);
    // The refresh is still under way, and no change may meet it.
    assert!(!peer.endpoint.reinvite(peer.now, call, Some(&body("newer"))));
    peer.say(&answer(&refresh, 200, "", &timed));
    assert_ne!(peer.next("ACK"), ack);
    assert!(peer.endpoint.reinvite(peer.now, call, Some(&body("newer"))));
    let invite = peer.next("INVITE");
    peer.say(&answer(&invite, 200, "", &[]));
    peer.next("ACK");
    assert!(matches!(peer.event(), Event::Changed { status: 200, .. }));
    peer.hang_up(call);
}

#[test]
fn names_are_written_so_that_they_are_read() {
    let mut peer = Peer::new();
    for (name, from) in [
        (None, "<sip:room@192.0.2.1>"),
        (Some(""), "<sip:room@192.0.2.1>"),
        (
            Some("Ann \"Lee\"\r\n\\"),
            "\"Ann \\\"Lee\\\"\\\\\" <sip:room@192.0.2.1>",
        ),
    ] {
        let name = name.map(str::to_owned);
        let (_, invite) = peer.call(|invitation| invitation.from_display = name);
        let found = header(&invite, "From");
        assert_eq!(found.split(";tag=").next(), Some(from));
    }
}

#[track_caller]
fn refer(peer: &mut Peer, call: CallKey) -> String {
    let by = [("Referred-By", "<sip:room@192.0.2.1>".to_owned())];
    let target = "sip:room@192.0.2.2;crt-hop=1";
    let asked = peer.endpoint.refer(peer.now, call, target, &by);
    assert!(asked.is_some());
    let refer = peer.next("REFER");
    assert_eq!(header(&refer, "Refer-To"), format!("<{target}>"));
    assert!(header(&refer, "Contact").contains("sip:room@192.0.2.1"));
    assert_eq!(headers(&refer, "Referred-By").len(), 1);
    refer
}

#[test]
fn the_peer_says_how_a_refer_of_ours_goes() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&["Allow: INVITE, REFER", "Supported: replaces"]);
    let known = peer.endpoint.peer_of(call).unwrap();
    assert!(known.takes_refer && known.knows_replaces);
    assert_eq!(known.call_id, header(&ok, "Call-ID"));
    assert_eq!(known.remote_tag, "f");
    assert!(header(&ok, "To").ends_with(&known.local_tag));
    let notify = |peer: &mut Peer, number, state: &str, fragment: &str| {
        let lines = [
            "Event: refer",
            &format!("Subscription-State: {state}"),
            "Content-Type: message/sipfrag;version=2.0",
            &format!("\n{fragment}"),
        ];
        let notify = peer.within(&ok, "NOTIFY", number, &lines);
        peer.say(&notify);
    };
    // Before it is asked for, nobody wants to hear it.
    notify(&mut peer, 2, "active", "SIP/2.0 100 Trying");
    peer.next("SIP/2.0 481");
    let asked = refer(&mut peer, call);
    peer.say(&answer(&asked, 202, "", &[]));
    assert!(matches!(peer.event(), Event::Answered { status: 202, .. }));
    for (number, state, status, is_over) in [
        (3, "active;expires=60", 100, false),
        (4, "terminated;reason=noresource", 200, true),
    ] {
        notify(&mut peer, number, state, &format!("SIP/2.0 {status} X"));
        peer.next("SIP/2.0 200");
        let Event::Referred {
            status: told,
            is_over: over,
            ..
        } = peer.event()
        else {
            panic!("no word of it");
        };
        assert_eq!((told, over), (Some(status), is_over));
    }
    notify(&mut peer, 5, "active", "SIP/2.0 100 Trying");
    peer.next("SIP/2.0 481");
    peer.hang_up(call);
}

#[test]
fn events_that_nobody_asked_for_are_refused() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    refer(&mut peer, call);
    let other = peer.within(&ok, "NOTIFY", 2, &["Event: dialog"]);
    peer.say(&other);
    peer.next("SIP/2.0 481");
    let outside = peer.make("NOTIFY", &["Event: refer", "Call-ID: c2"]);
    peer.say(&outside);
    peer.next("SIP/2.0 481");
}
