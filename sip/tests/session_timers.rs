//! Session timers (RFC 4028): refreshed by either side in either way, and what happens when nobody does.

mod common;

use std::time::Duration;

use common::peer::{Peer, answer, body_of, cseq, header, headers};
use common::{Pair, body, sdp_lines};
use sip::{Ended, Event, SessionPolicy, Transport};

const SECOND: Duration = Duration::from_secs(1);
const ALLOW: &str = "Allow: INVITE, ACK, BYE, UPDATE";

fn pair(caller: SessionPolicy, callee: SessionPolicy) -> Pair {
    Pair::configured(
        Transport::Udp,
        Box::new(|_, _| false),
        move |end, config| {
            config.session = [caller, callee][end];
        },
    )
}

const fn policy(expires_s: u32, min_s: u32) -> SessionPolicy {
    SessionPolicy { expires_s, min_s }
}

#[track_caller]
fn ended(peer: &mut Peer, expected: Ended) {
    match peer.event() {
        Event::Ended { cause, .. } => assert_eq!(cause, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_of_us_refresh_by_update_for_as_long_as_the_call_lasts() {
    let mut pair = pair(policy(100, 90), policy(1_800, 90));
    let (caller, _) = pair.up();
    pair.pass(SECOND * 1_000);
    // The caller refreshes at half of the interval, and each time the interval begins anew.
    assert_eq!(pair.count("UPDATE"), 19);
    assert_eq!(pair.count("BYE"), 0);
    pair.ends[0].bye(pair.now, caller, None);
    assert_eq!(pair.expect_ended(0), Ended::LocalBye);
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn an_interval_too_small_is_asked_for_again_as_the_callee_wants_it() {
    let mut pair = pair(policy(90, 90), policy(1_800, 300));
    let (caller, _) = pair.up();
    assert_eq!(
        (pair.count("SIP/2.0 422"), pair.count("INVITE")),
        (1, 2),
        "{:?}",
        pair.sent
    );
    pair.pass(SECOND * 310);
    assert_eq!(pair.count("UPDATE"), 2);
    pair.ends[0].bye(pair.now, caller, None);
    pair.expect_ended(0);
    pair.expect_ended(1);
    pair.assert_forgotten();
}

#[test]
fn without_a_wish_of_either_there_is_no_timer() {
    let mut pair = pair(policy(0, 90), policy(0, 90));
    let (caller, _) = pair.up();
    pair.pass(SECOND * 90_000);
    assert_eq!(pair.sent.len(), 3);
    assert!(pair.ends.iter().all(|end| end.poll_timeout().is_none()));
    pair.ends[0].bye(pair.now, caller, None);
    pair.expect_ended(0);
    pair.expect_ended(1);
    pair.assert_forgotten();
}

#[test]
fn when_the_refreshing_side_vanishes_the_other_one_ends_the_call() {
    let mut pair = pair(policy(90, 90), policy(1_800, 90));
    pair.up();
    let answered = pair.now;
    // Nothing of the caller's gets through any more.
    pair.loss = Box::new(|_, line| line.starts_with("UPDATE") || line.ends_with("OK"));
    // 90 s less a third; our refresh of second 45 has failed by second 77.
    assert_eq!(pair.expect_ended(1), Ended::SessionExpired);
    assert_eq!((pair.now - answered).as_secs(), 59);
    // Its BYE arrives.
    assert_eq!(pair.expect_ended(0), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn a_refresh_without_an_answer_ends_the_call() {
    let mut pair = pair(policy(200, 90), policy(1_800, 90));
    pair.up();
    let answered = pair.now;
    pair.loss = Box::new(|_, line| !line.starts_with("BYE"));
    pair.pass(SECOND * 99);
    assert_eq!(pair.expect_ended(0), Ended::SessionExpired);
    // The caller has had the answer for as long as the ACK took.
    let waited = pair.now - answered + common::DELAY;
    assert_eq!(waited.as_secs(), 132, "100 s and 64*T1");
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
}

/// What the 200 to an INVITE with these lines says of the timer.
#[track_caller]
fn agreed(config: SessionPolicy, lines: &[&str]) -> (Vec<String>, bool) {
    let mut peer = Peer::with(|own| own.session = config);
    let invite = peer.make("INVITE", &sdp_lines(lines));
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.accept(peer.now, call, "room", body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let expires = headers(&ok, "Session-Expires");
    let expires = expires.into_iter().map(str::to_owned).collect();
    (expires, headers(&ok, "Require").contains(&"timer"))
}

#[test]
fn the_callee_agrees_on_what_is_asked() {
    let own = policy(1_800, 90);
    for (lines, expires, required) in [
        (
            &["Supported: timer", "Session-Expires: 600"][..],
            Some("600;refresher=uac"),
            true,
        ),
        (
            &["Supported: timer", "Session-Expires: 600;refresher=uas"],
            Some("600;refresher=uas"),
            false,
        ),
        (
            &["Supported: timer", "x: 600 ; Refresher = UAC"],
            Some("600;refresher=uac"),
            true,
        ),
        // He can, but does not ask.
        (&["Supported: timer"], Some("1800;refresher=uac"), true),
        (
            &["Supported: timer", "Min-SE: 2400"],
            Some("2400;refresher=uac"),
            true,
        ),
        // A proxy asks for one who cannot, and who can neither be refused nor refresh.
        (
            &["Session-Expires: 600;refresher=uac"],
            Some("600;refresher=uas"),
            false,
        ),
        (&["Session-Expires: 1"], Some("90;refresher=uas"), false),
        // Nobody waits longer than a day, and says so.
        (
            &["Supported: timer", "Session-Expires: 4000000000"],
            Some("86400;refresher=uac"),
            true,
        ),
        (&[], None, false),
    ] {
        let expected = (
            expires.map(str::to_owned).into_iter().collect::<Vec<_>>(),
            required,
        );
        assert_eq!(agreed(own, lines), expected, "{lines:?}");
    }
    let none = policy(0, 90);
    assert_eq!(agreed(none, &["Supported: timer"]), (vec![], false));
    let asked = ["Supported: timer", "Session-Expires: 100"];
    assert_eq!(
        agreed(none, &asked),
        (vec!["100;refresher=uac".to_owned()], true)
    );
}

#[test]
fn an_interval_below_ours_is_refused_with_ours() {
    let mut peer = Peer::with(|own| own.session = policy(1_800, 300));
    let lines = ["Supported: timer", "Session-Expires: 299"];
    let invite = peer.make("INVITE", &sdp_lines(&lines));
    peer.say(&invite);
    let refusal = peer.next("SIP/2.0 422");
    assert_eq!(header(&refusal, "Min-SE"), "300");
    let via = header(&invite, "Via");
    let ack = peer.within(&refusal, "ACK", 1, &[&format!("Via: {via}")]);
    peer.say(&ack);
    peer.assert_forgotten();
}

#[test]
fn as_callee_we_refresh_if_the_caller_wants_us_to() {
    let mut peer = Peer::new();
    let lines = [
        "Supported: timer",
        "Session-Expires: 120;refresher=uas",
        ALLOW,
    ];
    let (call, _) = peer.called(&sdp_lines(&lines));
    for _ in 0..3 {
        peer.pass(SECOND * 60);
        let update = peer.next("UPDATE");
        // In the UPDATE we are the UAC.
        assert_eq!(header(&update, "Session-Expires"), "120;refresher=uac");
        assert!(header(&update, "Contact").contains("sip:room@192.0.2.1"));
        assert_eq!(body_of(&update), "");
        let lines = ["Session-Expires: 120;refresher=uac", "Require: timer"];
        peer.say(&answer(&update, 200, "", &lines));
        peer.nothing();
    }
    peer.hang_up(call);
}

#[test]
fn who_knows_no_update_is_refreshed_by_an_invite_with_the_same_description() {
    let mut peer = Peer::new();
    let lines = [
        "Supported: timer",
        "Session-Expires: 120;refresher=uas",
        "Allow: INVITE, ACK",
    ];
    let (call, _) = peer.called(&sdp_lines(&lines));
    peer.pass(SECOND * 60);
    let invite = peer.next("INVITE");
    assert_eq!(body_of(&invite), "v=0");
    assert_eq!(header(&invite, "Session-Expires"), "120;refresher=uac");
    assert!(header(&invite, "Allow").contains("SUBSCRIBE"));
    peer.say(&answer(&invite, 100, "", &[]));
    let ok = answer(&invite, 200, "", &["Session-Expires: 120;refresher=uac"]);
    peer.say(&ok);
    let ack = peer.next("ACK");
    assert_eq!(cseq(&ack), cseq(&invite));
    // The 200 again means that the ACK was lost.
    peer.say(&ok);
    peer.next("ACK");
    peer.nothing();
    peer.pass(SECOND * 60);
    let again = peer.next("INVITE");
    assert!(cseq(&again) > cseq(&invite));
    peer.say(&answer(
        &again,
        200,
        "",
        &["Session-Expires: 120;refresher=uac"],
    ));
    peer.next("ACK");
    peer.hang_up(call);
}

#[test]
fn a_refreshing_invite_that_is_only_worked_on_ends_the_call() {
    let mut peer = Peer::new();
    let lines = ["Supported: timer", "Session-Expires: 900;refresher=uas"];
    let (_, _) = peer.called(&sdp_lines(&lines));
    peer.pass(SECOND * 450);
    let invite = peer.next("INVITE");
    peer.say(&answer(&invite, 100, "", &[]));
    peer.pass(SECOND * 32);
    ended(&mut peer, Ended::SessionExpired);
    let bye = peer.next("BYE");
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
}

#[test]
fn a_caller_who_does_not_refresh_in_time_is_hung_up_on() {
    let mut peer = Peer::new();
    let lines = ["Supported: timer", "Session-Expires: 120"];
    let (_, _) = peer.called(&sdp_lines(&lines));
    // 32 s before the end, since that is less than a third.
    peer.pass(SECOND * 88 - Duration::from_millis(1));
    peer.nothing();
    peer.pass(Duration::from_millis(1));
    ended(&mut peer, Ended::SessionExpired);
    let bye = peer.next("BYE");
    assert!(header(&bye, "Reason").contains("session expired"));
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
}

#[test]
fn the_caller_refreshes_by_either_request() {
    let mut peer = Peer::new();
    let lines = ["Supported: timer", "Session-Expires: 120"];
    let (call, ok) = peer.called(&sdp_lines(&lines));
    peer.pass(SECOND * 80);
    let lines = ["Supported: timer", "Session-Expires: 120;refresher=uac"];
    let update = peer.within(&ok, "UPDATE", 2, &lines);
    peer.say(&update);
    let answered = peer.next("SIP/2.0 200");
    assert_eq!(header(&answered, "Session-Expires"), "120;refresher=uac");
    assert!(header(&answered, "Contact").contains("room"));
    peer.nothing();
    peer.pass(SECOND * 80);
    let invite = peer.within(&ok, "INVITE", 3, &sdp_lines(&lines));
    peer.say(&invite);
    assert!(matches!(
        peer.event(),
        Event::Reinvite { body: Some(_), .. }
    ));
    peer.endpoint.accept(peer.now, call, "room", body("v=0"));
    let answered = peer.next("SIP/2.0 200");
    assert_eq!(header(&answered, "Session-Expires"), "120;refresher=uac");
    let ack = peer.within(&ok, "ACK", 3, &[]);
    peer.say(&ack);
    assert!(matches!(peer.event(), Event::Established { .. }));
    peer.pass(SECOND * 87);
    peer.nothing();
    peer.hang_up(call);
}

#[test]
fn a_refresh_may_be_refused_for_its_interval() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&sdp_lines(&["Supported: timer"]));
    for (number, method) in [(2, "UPDATE"), (3, "INVITE")] {
        let lines = ["Supported: timer", "Session-Expires: 30"];
        let refresh = peer.within(&ok, method, number, &lines);
        peer.say(&refresh);
        assert_eq!(header(&peer.next("SIP/2.0 422"), "Min-SE"), "90");
        if method == "INVITE" {
            let via = format!("Via: {}", header(&refresh, "Via"));
            let ack = peer.within(&ok, "ACK", number, &[&via]);
            peer.say(&ack);
        }
    }
    peer.hang_up(call);
}

#[test]
fn as_caller_we_do_what_the_answer_says() {
    let ours = [
        "Session-Expires: 200;refresher=uac",
        "Require: timer",
        ALLOW,
    ];
    let theirs = ["Session-Expires: 200;refresher=uas", ALLOW];
    let mut peer = Peer::new();
    let (call, invite, _) = peer.calling(&ours);
    assert_eq!(header(&invite, "Session-Expires"), "1800");
    assert_eq!(header(&invite, "Min-SE"), "90");
    peer.pass(SECOND * 100);
    let update = peer.next("UPDATE");
    peer.say(&answer(&update, 200, "", &ours));
    peer.hang_up(call);

    let mut peer = Peer::new();
    peer.calling(&theirs);
    peer.pass(SECOND * 168 - Duration::from_millis(1));
    peer.nothing();
    peer.pass(Duration::from_millis(1));
    ended(&mut peer, Ended::SessionExpired);
    let bye = peer.next("BYE");
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();

    let mut peer = Peer::new();
    let (call, _, _) = peer.calling(&[ALLOW]);
    peer.pass(SECOND * 10_000);
    peer.nothing();
    peer.hang_up(call);
}

#[test]
fn an_absurd_interval_does_not_make_us_refresh_without_a_pause() {
    for absurd in ["0", "1", "89"] {
        let mut peer = Peer::new();
        let lines = format!("Session-Expires: {absurd};refresher=uac");
        let (call, _, _) = peer.calling(&[&lines, ALLOW]);
        peer.pass(SECOND * 45 - Duration::from_millis(1));
        peer.nothing();
        peer.pass(Duration::from_millis(1));
        let update = peer.next("UPDATE");
        peer.say(&answer(&update, 200, "", &[]));
        peer.hang_up(call);
    }
}

#[test]
fn an_interval_refused_is_asked_for_as_the_far_end_wants_it() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    peer.say(&answer(&invite, 422, "x", &["Min-SE: 3600"]));
    peer.next("ACK");
    let again = peer.next("INVITE");
    assert_eq!(header(&again, "Session-Expires"), "3600");
    assert_eq!(header(&again, "Min-SE"), "3600");
    assert_eq!(header(&again, "Call-ID"), header(&invite, "Call-ID"));
    assert_eq!(cseq(&again), 2);
    assert!(!header(&again, "To").contains("tag"));
    let lines = ["Session-Expires: 3600;refresher=uac", ALLOW];
    peer.say(&answer(&again, 200, "y", &lines));
    assert_eq!(cseq(&peer.next("ACK")), 2);
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    // A refresh may meet it too, and stays ours.
    peer.pass(SECOND * 1_800);
    let update = peer.next("UPDATE");
    peer.say(&answer(&update, 422, "", &["Min-SE: 4000"]));
    let again = peer.next("UPDATE");
    assert_eq!(header(&again, "Session-Expires"), "4000;refresher=uac");
    let lines = ["Session-Expires: 4000;refresher=uac"];
    peer.say(&answer(&again, 200, "", &lines));
    peer.hang_up(call);

    // Without Min-SE, or with one that is no larger, there is nothing to try.
    for lines in [&[][..], &["Min-SE: 1800"], &["Min-SE: 99999999"]] {
        let mut peer = Peer::new();
        let (_, invite) = peer.call(|_| {});
        peer.say(&answer(&invite, 422, "x", lines));
        peer.next("ACK");
        assert!(matches!(peer.event(), Event::Rejected { status: 422, .. }));
        peer.assert_forgotten();
    }
}

#[test]
fn a_refresh_that_finds_nobody_ends_the_call() {
    for status in [481, 408] {
        let mut peer = Peer::new();
        peer.calling(&["Session-Expires: 200;refresher=uac", ALLOW]);
        peer.pass(SECOND * 100);
        let update = peer.next("UPDATE");
        peer.say(&answer(&update, status, "", &[]));
        ended(&mut peer, Ended::SessionExpired);
        let bye = peer.next("BYE");
        peer.say(&answer(&bye, 481, "", &[]));
        peer.assert_forgotten();
    }
}

#[test]
fn a_refresh_that_crosses_another_request_is_tried_again() {
    let mut peer = Peer::new();
    let lines = ["Session-Expires: 200;refresher=uac", ALLOW];
    let (call, _, _) = peer.calling(&lines);
    peer.pass(SECOND * 100);
    let update = peer.next("UPDATE");
    peer.say(&answer(&update, 491, "", &[]));
    // Anywhere between 2.1 and 4 seconds (RFC 3261 §14.1).
    let waited = peer.wait(SECOND * 4);
    assert!(waited >= Duration::from_millis(2_100), "{waited:?}");
    let again = peer.next("UPDATE");
    assert!(cseq(&again) > cseq(&update));
    peer.say(&answer(&again, 200, "", &lines));
    peer.hang_up(call);
}

#[test]
fn refreshes_that_are_refused_again_and_again_let_the_session_expire() {
    for status in [500, 491] {
        let mut peer = Peer::new();
        peer.calling(&["Session-Expires: 200;refresher=uac", ALLOW]);
        let began = peer.now;
        peer.pass(SECOND * 100);
        let cause = loop {
            while let Some((_, message)) = peer.sent.pop_front() {
                if message.starts_with("UPDATE") {
                    peer.say(&answer(&message, status, "", &[]));
                }
            }
            match peer.events.pop_front() {
                Some(Event::Ended { cause, .. }) => break cause,
                Some(other) => panic!("{other:?}"),
                None => peer.pass(Duration::from_millis(100)),
            }
            assert!(peer.now - began < SECOND * 400, "never");
        };
        assert_eq!(cause, Ended::SessionExpired);
        assert_eq!((peer.now - began).as_secs(), 168);
    }
}

#[test]
fn our_refresh_waits_for_a_change_of_theirs() {
    let mut peer = Peer::new();
    let lines = [
        "Supported: timer",
        "Session-Expires: 120;refresher=uas",
        ALLOW,
    ];
    let (call, ok) = peer.called(&sdp_lines(&lines));
    peer.pass(SECOND * 59);
    // This one asks for no timer any more, and its sender still takes UPDATE.
    let invite = peer.within(&ok, "INVITE", 2, &sdp_lines(&["Supported: timer"]));
    peer.say(&invite);
    assert!(matches!(peer.event(), Event::Reinvite { .. }));
    peer.pass(SECOND * 2);
    assert!(peer.next("SIP/2.0 100").contains("INVITE"));
    peer.nothing();
    peer.endpoint
        .reject(peer.now, call, sip::Rejection::new(488));
    peer.next("SIP/2.0 488");
    let via = format!("Via: {}", header(&invite, "Via"));
    let ack = peer.within(&ok, "ACK", 2, &[&via]);
    peer.say(&ack);
    assert!(peer.wait(SECOND * 2) > Duration::ZERO);
    let update = peer.next("UPDATE");
    peer.say(&answer(&update, 200, "", &[]));
    peer.hang_up(call);
}

#[test]
fn who_takes_no_update_after_all_is_refreshed_by_an_invite() {
    for status in [405, 501] {
        let mut peer = Peer::new();
        let lines = ["Session-Expires: 200;refresher=uac", ALLOW];
        let (call, _, _) = peer.calling(&lines);
        peer.pass(SECOND * 100);
        let update = peer.next("UPDATE");
        peer.say(&answer(&update, status, "", &[]));
        assert_eq!(peer.wait(SECOND), Duration::ZERO);
        let invite = peer.next("INVITE");
        assert_eq!(body_of(&invite), "v=0");
        peer.say(&answer(&invite, 200, "", &lines[..1]));
        peer.next("ACK");
        peer.hang_up(call);
    }
}
