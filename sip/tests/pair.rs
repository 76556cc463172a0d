//! Call flows of RFC 3261 between two endpoints.

mod common;

use std::time::Duration;

use common::{Pair, address, body};
use sip::{CallKey, Config, Ended, Endpoint, Event, ListenerIdentity, Rejection, Sizes, Transport};

#[test]
fn a_call_is_made_and_ended_by_either_end() {
    for hangs_up in [0, 1] {
        let mut pair = Pair::new();
        let calls = <[CallKey; 2]>::from(pair.up());
        pair.ends[hangs_up].bye(pair.now, calls[hangs_up], Some("done"));
        assert_eq!(pair.expect_ended(hangs_up), Ended::LocalBye);
        assert_eq!(pair.expect_ended(1 - hangs_up), Ended::PeerBye);
        pair.pass(Duration::from_secs(1));
        assert_eq!(
            pair.sent.len(),
            5,
            "INVITE, 200, ACK, BYE, 200: {:?}",
            pair.sent
        );
        pair.assert_forgotten();
    }
}

#[test]
fn what_is_held_is_counted_and_comes_down_to_nothing() {
    let mut pair = Pair::new();
    let (caller, _) = pair.up();
    let sizes = pair.ends.each_ref().map(Endpoint::sizes);
    assert_eq!(sizes.map(|sizes| sizes.calls), [1, 1]);
    pair.ends[0].bye(pair.now, caller, None);
    let before = sizes[0].client_transactions;
    assert_eq!(pair.ends[0].sizes().client_transactions, before + 1);
    assert!(pair.ends[0].sizes().timers > 0);
    assert_eq!(pair.expect_ended(0), Ended::LocalBye);
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
    assert!(pair.ends[1].sizes().server_transactions > 0);
    pair.assert_forgotten();
    for end in &pair.ends {
        assert_eq!(end.sizes(), Sizes::default());
    }
}

#[test]
fn each_message_may_be_lost_once() {
    for lost in 0..5 {
        let mut pair = Pair::losing(move |n, _| n == lost);
        let (caller, _) = pair.up();
        pair.ends[0].bye(pair.now, caller, None);
        assert_eq!(pair.expect_ended(0), Ended::LocalBye);
        assert_eq!(pair.expect_ended(1), Ended::PeerBye);
        pair.assert_forgotten();
    }
}

#[test]
fn half_of_all_messages_may_be_lost() {
    for seed in 0..20_u64 {
        let mut pair = Pair::losing(move |n, _| {
            (n as u64 + seed * 77).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1
        });
        let (_, callee) = pair.up();
        pair.ends[1].bye(pair.now, callee, None);
        assert_eq!(pair.expect_ended(1), Ended::LocalBye);
        assert_eq!(pair.expect_ended(0), Ended::PeerBye);
        pair.assert_forgotten();
    }
}

#[test]
fn trying_is_said_only_when_the_answer_takes_time() {
    let mut pair = Pair::new();
    pair.up();
    assert_eq!(pair.count("SIP/2.0 100"), 0);

    let mut pair = Pair::new();
    pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    pair.pass(Duration::from_millis(300));
    assert_eq!((pair.count("SIP/2.0 100"), pair.count("INVITE")), (1, 1));
    pair.ends[1].ring(pair.now, callee, "room");
    pair.expect(0, |event| {
        matches!(event, Event::Progress { status: 180, .. }).then_some(())
    });
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_call() {
    let mut pair = Pair::losing(|_, line| line.starts_with("ACK"));
    pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    let answered = pair.now;
    pair.ends[1].accept(answered, callee, "room", body("answer"));
    assert_eq!(pair.expect_ended(1), Ended::AckTimeout);
    // 64*T1 (RFC 3261 §13.3.1.4); the 200 goes out at 0, 0.5, 1.5, 3.5, 7.5 and then every 4 s.
    assert_eq!((pair.now - answered).as_secs(), 32);
    assert_eq!(pair.count("SIP/2.0 200"), 11);
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.count("BYE"), 1);
}

#[test]
fn nobody_answers() {
    let mut pair = Pair::losing(|_, _| true);
    pair.call(Some(body("offer")));
    assert_eq!(pair.expect_rejected().0, 408);
    assert_eq!(pair.count("INVITE"), 7);
    pair.assert_forgotten();
}

#[test]
fn a_refusal_is_repeated_until_it_is_acknowledged() {
    let mut pair = Pair::losing(|n, line| line.starts_with("ACK") && n < 8);
    pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    pair.ends[1].reject(
        pair.now,
        callee,
        Rejection::new(503)
            .retry_after(7)
            .warning(399, "no \"room\""),
    );
    assert_eq!(pair.expect_rejected(), (503, Some(7)));
    pair.pass(Duration::from_secs(40));
    assert!(pair.count("SIP/2.0 503") > 2);
    assert_eq!(
        pair.count("SIP/2.0 503"),
        pair.count("ACK"),
        "each one is acknowledged"
    );
    pair.assert_forgotten();
}

#[test]
fn a_redirect_gives_the_contacts_in_order() {
    let mut pair = Pair::new();
    pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    let contacts = [
        ("sip:room@b;crt-hop=1".to_owned(), 0.5),
        ("sip:room@a".to_owned(), 1.0),
    ];
    pair.ends[1].redirect(pair.now, callee, &contacts);
    let contacts = pair.expect(0, |event| {
        if let Event::Redirected { contacts, .. } = event {
            Some(contacts)
        } else {
            None
        }
    });
    assert_eq!(contacts, ["sip:room@a", "sip:room@b;crt-hop=1"]);
    pair.assert_forgotten();
}

#[test]
fn cancel_before_anything_came_back_waits_for_a_provisional_response() {
    let mut pair = Pair::new();
    let call = pair.call(Some(body("offer")));
    pair.ends[0].cancel(pair.now, call);
    pair.expect_invite();
    assert_eq!(pair.expect_ended(1), Ended::Cancelled);
    assert_eq!(pair.expect_ended(0), Ended::Cancelled);
    pair.pass(Duration::from_secs(1));
    assert_eq!(
        (
            pair.count("CANCEL"),
            pair.count("SIP/2.0 487"),
            pair.count("ACK")
        ),
        (1, 1, 1)
    );
    pair.assert_forgotten();
}

#[test]
fn cancel_while_it_rings_ends_the_call() {
    let mut pair = Pair::new();
    let call = pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    pair.ends[1].ring(pair.now, callee, "room");
    pair.expect(0, |event| {
        matches!(event, Event::Progress { status: 180, .. }).then_some(())
    });
    pair.ends[0].cancel(pair.now, call);
    assert_eq!(pair.expect_ended(1), Ended::Cancelled);
    assert_eq!(pair.expect_ended(0), Ended::Cancelled);
    pair.assert_forgotten();
}

#[test]
fn cancel_that_crosses_the_answer_becomes_a_bye() {
    let mut pair = Pair::new();
    let call = pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    pair.ends[1].accept(pair.now, callee, "room", body("answer"));
    pair.ends[0].cancel(pair.now, call);
    assert_eq!(pair.expect_ended(0), Ended::Cancelled);
    pair.expect_established();
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn an_invite_without_an_offer_gets_one() {
    let mut pair = Pair::new();
    let caller = pair.call(None);
    let invite = pair.expect_invite();
    assert_eq!(invite.body, None);
    pair.ends[1].accept(pair.now, invite.call, "room", body("offer of the callee"));
    assert_eq!(pair.expect_accepted(), Some(body("offer of the callee")));
    pair.ends[0].acknowledge_offer(caller, None);
    assert_eq!(
        pair.expect_established(),
        None,
        "this client's ACK has no answer, and that is told"
    );
}

#[test]
fn bye_waits_for_the_ack_of_our_answer() {
    let mut pair = Pair::new();
    pair.call(Some(body("offer")));
    let callee = pair.expect_invite().call;
    pair.ends[1].accept(pair.now, callee, "room", body("answer"));
    pair.ends[1].bye(pair.now, callee, None);
    assert_eq!(pair.expect_ended(1), Ended::LocalBye);
    assert_eq!(pair.count("BYE"), 0);
    pair.expect_accepted();
    assert_eq!(pair.expect_ended(0), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn byes_that_cross_end_the_call_once() {
    let mut pair = Pair::new();
    let (caller, callee) = pair.up();
    pair.ends[0].bye(pair.now, caller, None);
    pair.ends[1].bye(pair.now, callee, None);
    assert_eq!(pair.expect_ended(0), Ended::LocalBye);
    assert_eq!(pair.expect_ended(1), Ended::LocalBye);
    pair.assert_forgotten();
}

#[test]
fn a_connection_that_closes_takes_the_calls_with_it_that_cannot_be_had_anew() {
    let mut pair = Pair::with(Transport::Ws, Box::new(|_, _| false));
    pair.up();
    let flow = pair.flow(0);
    pair.ends[1].handle_flow_closed(pair.now, flow);
    assert_eq!(pair.expect_ended(1), Ended::TransportFailed);
}

#[test]
fn a_call_outlives_its_connection_where_another_can_be_made() {
    let mut pair = Pair::with(Transport::Tcp, Box::new(|_, _| false));
    let (_, callee) = pair.up();
    let flow = pair.flow(0);
    pair.ends[1].handle_flow_closed(pair.now, flow);
    pair.ends[1].bye(pair.now, callee, None);
    assert_eq!(pair.expect_ended(1), Ended::LocalBye);
    assert_eq!(pair.expect_ended(0), Ended::PeerBye);
    pair.assert_forgotten();
}

#[test]
fn an_endpoint_takes_no_more_calls_than_it_may() {
    let mut pair = Pair::new();
    let identity = ListenerIdentity {
        transport: Transport::Udp,
        sent_by: address(1).to_string(),
    };
    pair.ends[1] = Endpoint::new(Config {
        calls_max: 1,
        ..Config::new(1, vec![identity], 9)
    });
    pair.up();
    pair.call(Some(body("offer")));
    let (status, retry_after) = pair.expect_rejected();
    assert_eq!(status, 503);
    assert!(retry_after.is_some());
}
