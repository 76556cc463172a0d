//! Subscriptions (RFC 6665), in a dialog of their own or of a call, and those that a REFER makes
//! (RFC 3515).

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::peer::{PEER, Peer, answer, body_of, cseq, header, headers, tcp, udp, uri};
use common::{Pair, body};
use sip::{Body, Ended, Event, Method, SubscriptionKey, Transport};

const SECOND: Duration = Duration::from_secs(1);
const CONFERENCE: &str = "Event: conference";

fn text(text: &str) -> Body {
    Body {
        content_type: "text/plain".to_owned(),
        content: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A subscription to `conference` for as long as asked (or given): its key and the 200.
#[track_caller]
fn subscribed(peer: &mut Peer, expires_s: u32) -> (SubscriptionKey, String) {
    let subscribe = peer.make("SUBSCRIBE", &[CONFERENCE, "Expires: 600"]);
    peer.say(&subscribe);
    let request = peer.request();
    assert_eq!((request.method, request.call), (Method::Subscribe, None));
    assert_eq!(request.user.as_deref(), Some("room"));
    assert_eq!(request.header("event"), Some("conference"));
    let key = peer
        .endpoint
        .accept_subscription(peer.now, request.key, "conference", expires_s, "room")
        .expect("a subscription");
    let ok = peer.next("SIP/2.0 200");
    assert_eq!(header(&ok, "Expires"), expires_s.to_string());
    assert!(header(&ok, "Contact").starts_with("<sip:room@192.0.2.1:5060>"));
    assert!(header(&ok, "To").contains(";tag="));
    (key, ok)
}

#[track_caller]
fn notified(peer: &mut Peer, state: &str, content: &str) -> String {
    let notify = peer.next("NOTIFY");
    assert_eq!(header(&notify, "Subscription-State"), state);
    assert_eq!(body_of(&notify), content);
    notify
}

#[track_caller]
fn agree(peer: &mut Peer, notify: &str) {
    peer.say(&answer(notify, 200, "", &[]));
}

#[track_caller]
fn lost(peer: &mut Peer, key: SubscriptionKey) {
    match peer.event() {
        Event::SubscriptionLost { subscription } => assert_eq!(subscription, key),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn end(peer: &mut Peer, key: SubscriptionKey) {
    peer.endpoint
        .end_subscription(peer.now, key, "noresource", None);
    let last = notified(peer, "terminated;reason=noresource", "");
    agree(peer, &last);
    peer.assert_forgotten();
}

#[test]
fn notices_come_one_after_the_other_in_order() {
    let mut peer = Peer::new();
    let (key, ok) = subscribed(&mut peer, 600);
    peer.nothing();
    for n in 0..4 {
        peer.endpoint
            .notify(peer.now, key, Some(text(&n.to_string())));
    }
    let first = notified(&mut peer, "active;expires=600", "0");
    assert_eq!(uri(&first), format!("sip:a@{PEER}"));
    assert_eq!(header(&first, "From"), header(&ok, "To"));
    assert_eq!(header(&first, "To"), header(&ok, "From"));
    assert_eq!(header(&first, "Event"), "conference");
    assert_eq!(header(&first, "Content-Type"), "text/plain");
    assert!(header(&first, "Contact").contains("sip:room@192.0.2.1"));
    peer.nothing();
    peer.pass(SECOND / 4);
    agree(&mut peer, &first);
    let second = notified(&mut peer, "active;expires=599", "1");
    assert_eq!(cseq(&second), cseq(&first) + 1);
    // The answer to the first once more is no answer to the second.
    agree(&mut peer, &first);
    peer.nothing();
    agree(&mut peer, &second);
    let third = notified(&mut peer, "active;expires=599", "2");
    agree(&mut peer, &third);
    let fourth = notified(&mut peer, "active;expires=599", "3");
    peer.endpoint
        .end_subscription(peer.now, key, "noresource", Some(text("last")));
    peer.endpoint.notify(peer.now, key, Some(text("too late")));
    peer.nothing();
    agree(&mut peer, &fourth);
    let last = notified(&mut peer, "terminated;reason=noresource", "last");
    agree(&mut peer, &last);
    peer.assert_forgotten();
}

#[test]
fn a_subscriber_who_answers_slowly_misses_what_is_old() {
    let mut peer = Peer::new();
    let (key, _) = subscribed(&mut peer, 600);
    for n in 0..40 {
        peer.endpoint
            .notify(peer.now, key, Some(text(&n.to_string())));
    }
    peer.endpoint
        .end_subscription(peer.now, key, "noresource", Some(text("last")));
    let mut got = Vec::new();
    while let Some((_, notify)) = peer.sent.pop_front().or_else(|| {
        peer.collect();
        peer.sent.pop_front()
    }) {
        got.push(body_of(&notify).to_owned());
        agree(&mut peer, &notify);
    }
    let mut expected = vec!["0".to_owned()];
    expected.extend((25..40).map(|n| n.to_string()));
    expected.push("last".to_owned());
    assert_eq!(got, expected);
    peer.assert_forgotten();
}

#[test]
fn a_subscription_is_prolonged_and_moved() {
    let mut peer = Peer::new();
    let (key, ok) = subscribed(&mut peer, 600);
    peer.pass(SECOND * 500);
    let moved = "Contact: <sip:moved@192.0.2.9:5060>";
    let lines = [CONFERENCE, "Expires: 700", moved];
    let again = peer.within(&ok, "SUBSCRIBE", 2, &lines);
    peer.say(&again);
    let answered = peer.next("SIP/2.0 200");
    assert_eq!(header(&answered, "Expires"), "700");
    assert_eq!(header(&answered, "Contact"), header(&ok, "Contact"));
    match peer.event() {
        Event::Resubscribed { subscription } => assert_eq!(subscription, key),
        other => panic!("{other:?}"),
    }
    peer.endpoint.notify(peer.now, key, Some(text("all")));
    let notify = notified(&mut peer, "active;expires=700", "all");
    assert_eq!(uri(&notify), "sip:moved@192.0.2.9:5060");
    agree(&mut peer, &notify);
    // The old end of time means nothing any more.
    peer.pass(SECOND * 699);
    peer.nothing();
    end(&mut peer, key);
}

#[test]
fn what_is_wrong_with_a_resubscription_is_said() {
    let mut peer = Peer::new();
    let (key, ok) = subscribed(&mut peer, 600);
    for (number, method, lines, status) in [
        (1, "SUBSCRIBE", &[CONFERENCE][..], 500),
        (3, "SUBSCRIBE", &["Event: presence"], 481),
        (4, "SUBSCRIBE", &[CONFERENCE, "Expires: 5"], 423),
        (5, "BYE", &[], 481),
        (6, "INVITE", &[], 481),
        (
            7,
            "SUBSCRIBE",
            &[CONFERENCE, "From: <sip:a@example.test>;tag=stranger"],
            481,
        ),
    ] {
        let message = peer.within(&ok, method, number, lines);
        peer.say(&message);
        peer.next(&format!("SIP/2.0 {status}"));
        if method == "INVITE" {
            let via = format!("Via: {}", header(&message, "Via"));
            let ack = peer.within(&ok, "ACK", number, &[&via]);
            peer.say(&ack);
        }
        peer.nothing();
    }
    end(&mut peer, key);
}

#[test]
fn whoever_wants_no_more_gets_the_last_notice() {
    let mut peer = Peer::new();
    let (key, ok) = subscribed(&mut peer, 600);
    let over = peer.within(&ok, "SUBSCRIBE", 2, &[CONFERENCE, "Expires: 0"]);
    peer.say(&over);
    assert_eq!(header(&peer.next("SIP/2.0 200"), "Expires"), "0");
    match peer.event() {
        Event::Unsubscribed {
            subscription,
            expired,
        } => assert_eq!((subscription, expired), (key, false)),
        other => panic!("{other:?}"),
    }
    peer.endpoint
        .end_subscription(peer.now, key, "timeout", Some(text("all")));
    let last = notified(&mut peer, "terminated;reason=timeout", "all");
    // Who is told the last thing has no subscription any more.
    let again = peer.within(&ok, "SUBSCRIBE", 3, &[CONFERENCE]);
    peer.say(&again);
    peer.next("SIP/2.0 481");
    agree(&mut peer, &last);
    peer.assert_forgotten();
}

#[test]
fn a_subscription_runs_out() {
    let mut peer = Peer::new();
    let (key, _) = subscribed(&mut peer, 60);
    assert_eq!(peer.wait(SECOND * 60), SECOND * 60);
    match peer.event() {
        Event::Unsubscribed {
            subscription,
            expired,
        } => assert_eq!((subscription, expired), (key, true)),
        other => panic!("{other:?}"),
    }
    end(&mut peer, key);
}

#[test]
fn the_state_may_be_fetched_once() {
    let mut peer = Peer::new();
    let subscribe = peer.make("SUBSCRIBE", &[CONFERENCE, "Expires: 0"]);
    peer.say(&subscribe);
    let request = peer.request();
    let key = peer
        .endpoint
        .accept_subscription(peer.now, request.key, "conference", 0, "room")
        .unwrap();
    assert_eq!(header(&peer.next("SIP/2.0 200"), "Expires"), "0");
    peer.endpoint
        .end_subscription(peer.now, key, "timeout", Some(text("all")));
    let last = notified(&mut peer, "terminated;reason=timeout", "all");
    agree(&mut peer, &last);
    peer.assert_forgotten();
}

#[test]
fn who_refuses_a_notice_is_lost() {
    for status in [481, 500, 401] {
        let mut peer = Peer::new();
        let (key, ok) = subscribed(&mut peer, 600);
        peer.endpoint.notify(peer.now, key, Some(text("one")));
        peer.endpoint.notify(peer.now, key, Some(text("two")));
        let notify = notified(&mut peer, "active;expires=600", "one");
        peer.say(&answer(&notify, status, "", &[]));
        lost(&mut peer, key);
        let again = peer.within(&ok, "SUBSCRIBE", 2, &[CONFERENCE]);
        peer.say(&again);
        peer.next("SIP/2.0 481");
        peer.assert_forgotten();
    }
    // With the last notice waiting there is nobody left to tell.
    let mut peer = Peer::new();
    let (key, _) = subscribed(&mut peer, 600);
    peer.endpoint.notify(peer.now, key, Some(text("one")));
    peer.endpoint
        .end_subscription(peer.now, key, "noresource", None);
    let notify = notified(&mut peer, "active;expires=600", "one");
    peer.say(&answer(&notify, 481, "", &[]));
    peer.assert_forgotten();
}

#[test]
fn who_does_not_answer_a_notice_is_lost() {
    let mut peer = Peer::new();
    let (key, _) = subscribed(&mut peer, 600);
    peer.endpoint.notify(peer.now, key, None);
    peer.pass(SECOND * 32);
    assert!(peer.sent.len() > 5, "it was repeated");
    peer.sent.clear();
    lost(&mut peer, key);
    peer.assert_forgotten();
}

#[test]
fn what_cannot_be_subscribed_to_is_refused() {
    for (lines, status, name, value) in [
        (
            &["Expires: 600"][..],
            489,
            "Allow-Events",
            "conference, refer",
        ),
        (&[CONFERENCE, "Expires: 59"], 423, "Min-Expires", "60"),
        (
            &[CONFERENCE, "Contact:"],
            400,
            "Warning",
            "399 plenum \"Missing Contact\"",
        ),
    ] {
        let mut peer = Peer::new();
        let subscribe = peer.make("SUBSCRIBE", lines);
        peer.say(&subscribe);
        let refusal = peer.next(&format!("SIP/2.0 {status}"));
        assert_eq!(header(&refusal, name), value);
        peer.assert_forgotten();
    }
    // Packages are the user's.
    let mut peer = Peer::new();
    let subscribe = peer.make("SUBSCRIBE", &["Event: presence"]);
    peer.say(&subscribe);
    let request = peer.request();
    let refusal = sip::Rejection::new(489).header("Allow-Events", "conference".to_owned());
    peer.endpoint
        .refuse_request(peer.now, request.key, &refusal);
    assert_eq!(
        header(&peer.next("SIP/2.0 489"), "Allow-Events"),
        "conference"
    );
    peer.assert_forgotten();
}

#[test]
fn there_are_only_so_many_subscriptions() {
    let mut peer = Peer::with(|config| config.calls_max = 1);
    let (key, _) = subscribed(&mut peer, 600);
    let subscribe = peer.make("SUBSCRIBE", &[CONFERENCE, "Call-ID: other"]);
    peer.say(&subscribe);
    let request = peer.request();
    let second =
        peer.endpoint
            .accept_subscription(peer.now, request.key, "conference", 600, "room");
    assert_eq!(second, None);
    assert!(
        header(&peer.next("SIP/2.0 503"), "Retry-After")
            .parse::<u32>()
            .is_ok()
    );
    end(&mut peer, key);
}

#[test]
fn a_caller_subscribes_within_his_call() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let subscribe = peer.within(&ok, "SUBSCRIBE", 2, &[CONFERENCE]);
    peer.say(&subscribe);
    let request = peer.request();
    assert_eq!(request.call, Some(call));
    let key = peer
        .endpoint
        .accept_subscription(peer.now, request.key, "conference", 600, "room")
        .unwrap();
    peer.next("SIP/2.0 200");
    peer.endpoint.notify(peer.now, key, Some(text("one")));
    let notify = notified(&mut peer, "active;expires=600", "one");
    assert_eq!(header(&notify, "From"), header(&ok, "To"));
    assert_eq!(header(&notify, "Call-ID"), header(&ok, "Call-ID"));
    agree(&mut peer, &notify);
    let again = peer.within(&ok, "SUBSCRIBE", 3, &[CONFERENCE, "Expires: 300"]);
    peer.say(&again);
    let answered = peer.next("SIP/2.0 200");
    assert_eq!(header(&answered, "Expires"), "300");
    assert!(header(&answered, "Contact").contains("sip:room@"));
    assert!(matches!(peer.event(), Event::Resubscribed { subscription } if subscription == key));
    // Its end is not that of the call.
    peer.endpoint
        .end_subscription(peer.now, key, "noresource", None);
    let last = notified(&mut peer, "terminated;reason=noresource", "");
    agree(&mut peer, &last);
    peer.hang_up(call);
}

#[test]
fn the_end_of_the_call_takes_its_subscriptions_with_it() {
    for ours in [true, false] {
        let mut peer = Peer::new();
        let (call, ok) = peer.called(&[]);
        let subscribe = peer.within(&ok, "SUBSCRIBE", 2, &[CONFERENCE]);
        peer.say(&subscribe);
        let request = peer.request();
        let key = peer
            .endpoint
            .accept_subscription(peer.now, request.key, "conference", 600, "room")
            .unwrap();
        peer.next("SIP/2.0 200");
        // Another one is still being thought about.
        let refer = peer.within(&ok, "REFER", 3, &["Refer-To: <sip:b@192.0.2.3>"]);
        peer.say(&refer);
        let late = peer.request();
        if ours {
            peer.endpoint.bye(peer.now, call, None);
            let bye = peer.next("BYE");
            agree(&mut peer, &bye);
        } else {
            let bye = peer.within(&ok, "BYE", 4, &[]);
            peer.say(&bye);
            peer.next("SIP/2.0 200");
        }
        assert!(matches!(peer.event(), Event::Ended { .. }));
        lost(&mut peer, key);
        peer.endpoint.notify(peer.now, key, None);
        let refused = peer
            .endpoint
            .accept_subscription(peer.now, late.key, "refer", 60, "room");
        assert_eq!(refused, None);
        peer.next("SIP/2.0 481");
        peer.assert_forgotten();
    }
}

#[test]
fn a_refer_without_a_call_makes_a_dialog_of_its_own() {
    let mut peer = Peer::new();
    let refer = peer.make("REFER", &["Refer-To: <sip:b@192.0.2.3>"]);
    peer.say(&refer);
    let request = peer.request();
    assert_eq!((request.method, request.call), (Method::Refer, None));
    assert_eq!(request.header("Refer-To"), Some("<sip:b@192.0.2.3>"));
    let key = peer
        .endpoint
        .accept_subscription(peer.now, request.key, "refer", 60, "room")
        .unwrap();
    let ok = peer.next("SIP/2.0 200");
    assert!(headers(&ok, "Expires").is_empty());
    assert!(header(&ok, "Contact").contains("sip:room@"));
    peer.endpoint
        .notify(peer.now, key, Some(text("SIP/2.0 100 Trying")));
    let notify = notified(&mut peer, "active;expires=60", "SIP/2.0 100 Trying");
    assert_eq!(header(&notify, "Event"), "refer");
    agree(&mut peer, &notify);
    // It is prolonged as any other.
    let again = peer.within(&ok, "SUBSCRIBE", 2, &["Event: refer", "Expires: 90"]);
    peer.say(&again);
    peer.next("SIP/2.0 200");
    assert!(matches!(peer.event(), Event::Resubscribed { .. }));
    end(&mut peer, key);
}

#[test]
fn refers_within_a_call_are_told_apart_by_their_number() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let to = "Refer-To: <sip:b@192.0.2.3>";
    let first = peer.within(&ok, "REFER", 5, &[to]);
    peer.say(&first);
    let first = peer.request();
    let second = peer.within(&ok, "REFER", 6, &[to]);
    peer.say(&second);
    let second = peer.request();
    // Something comes before the user has made up his mind.
    let info = peer.within(&ok, "INFO", 7, &[]);
    peer.say(&info);
    peer.next("SIP/2.0 200");
    let mut keys = Vec::new();
    for (request, event) in [(first, "refer"), (second, "refer;id=6")] {
        assert_eq!(request.call, Some(call));
        let key = peer
            .endpoint
            .accept_subscription(peer.now, request.key, "refer", 60, "room")
            .unwrap();
        peer.next("SIP/2.0 200");
        peer.endpoint.notify(peer.now, key, None);
        let notify = notified(&mut peer, "active;expires=60", "");
        assert_eq!(header(&notify, "Event"), event);
        agree(&mut peer, &notify);
        keys.push(key);
    }
    let over = ["Event: refer ; id=6", "Expires: 0"];
    let over = peer.within(&ok, "SUBSCRIBE", 8, &over);
    peer.say(&over);
    peer.next("SIP/2.0 200");
    match peer.event() {
        Event::Unsubscribed { subscription, .. } => assert_eq!(subscription, keys[1]),
        other => panic!("{other:?}"),
    }
    for key in keys {
        peer.endpoint
            .end_subscription(peer.now, key, "noresource", None);
        let last = notified(&mut peer, "terminated;reason=noresource", "");
        agree(&mut peer, &last);
    }
    peer.hang_up(call);
}

#[test]
fn a_refer_may_do_without_a_subscription() {
    let mut peer = Peer::new();
    let lines = ["Refer-To: <sip:b@192.0.2.3>", "Refer-Sub: false"];
    let refer = peer.make("REFER", &lines);
    peer.say(&refer);
    let request = peer.request();
    peer.endpoint.respond_request(
        peer.now,
        request.key,
        200,
        &[("Refer-Sub", "false".to_owned())],
    );
    assert_eq!(header(&peer.next("SIP/2.0 200"), "Refer-Sub"), "false");
    peer.assert_forgotten();
}

#[test]
fn a_large_notice_goes_by_tcp() {
    let mut peer = Peer::new();
    let (key, _) = subscribed(&mut peer, 600);
    let large = "x".repeat(1_400);
    peer.endpoint.notify(peer.now, key, Some(text(&large)));
    let (flow, notify) = peer.next_over("NOTIFY");
    assert_eq!(flow, tcp(PEER, 0));
    assert!(header(&notify, "Via").starts_with("SIP/2.0/TCP 192.0.2.1:5060;"));
    // Nothing is repeated on a connection.
    peer.pass(SECOND * 10);
    peer.nothing();
    peer.say_over(tcp(PEER, 4), &answer(&notify, 200, "", &[]));
    // Small ones stay with UDP.
    peer.endpoint.notify(peer.now, key, Some(text("small")));
    let (flow, notify) = peer.next_over("NOTIFY");
    assert_eq!(flow, udp(PEER));
    agree(&mut peer, &notify);
    end(&mut peer, key);
}

#[test]
fn a_large_notice_goes_by_udp_where_no_connection_can_be_made() {
    let mut peer = Peer::new();
    let (call, ok) = peer.called(&[]);
    let subscribe = peer.within(&ok, "SUBSCRIBE", 2, &[CONFERENCE]);
    peer.say(&subscribe);
    let request = peer.request();
    let key = peer
        .endpoint
        .accept_subscription(peer.now, request.key, "conference", 600, "room")
        .unwrap();
    peer.next("SIP/2.0 200");
    let large = "x".repeat(1_400);
    peer.endpoint.notify(peer.now, key, Some(text(&large)));
    let (flow, first) = peer.next_over("NOTIFY");
    // Another request of the dialog overtakes it.
    let message = peer
        .endpoint
        .request_in_call(peer.now, call, "MESSAGE", &[], None);
    let overtook = peer.next("MESSAGE");
    agree(&mut peer, &overtook);
    assert!(
        matches!(peer.event(), Event::Answered { request, status: 200 } if Some(request) == message)
    );
    peer.endpoint.handle_flow_failed(peer.now, flow);
    let (flow, again) = peer.next_over("NOTIFY");
    assert_eq!(flow, udp(PEER));
    assert_eq!(body_of(&again), large);
    assert!(header(&again, "Via").starts_with("SIP/2.0/UDP "));
    assert_ne!(header(&again, "Via"), header(&first, "Via"));
    assert!(cseq(&again) > cseq(&overtook));
    agree(&mut peer, &again);
    // From now on at once.
    peer.endpoint.notify(peer.now, key, Some(text(&large)));
    let (flow, notify) = peer.next_over("NOTIFY");
    assert_eq!(flow, udp(PEER));
    agree(&mut peer, &notify);
    peer.endpoint.bye(peer.now, call, None);
    let bye = peer.next("BYE");
    assert!(matches!(peer.event(), Event::Ended { .. }));
    lost(&mut peer, key);
    agree(&mut peer, &bye);
    peer.assert_forgotten();
}

#[test]
fn without_a_tcp_listener_everything_goes_by_udp() {
    let mut peer = Peer::with(|config| config.listeners.truncate(1));
    let (key, _) = subscribed(&mut peer, 600);
    peer.endpoint
        .notify(peer.now, key, Some(text(&"x".repeat(1_400))));
    let (flow, notify) = peer.next_over("NOTIFY");
    assert_eq!(flow, udp(PEER));
    agree(&mut peer, &notify);
    end(&mut peer, key);
}

#[test]
fn a_subscriber_over_a_connection_that_closed_is_reached_anew_or_lost() {
    for (transport, reachable) in [("tcp", true), ("ws", false)] {
        let mut peer = Peer::new();
        let flow = tcp("192.0.2.9:40000", 5);
        let contact = format!("Contact: <sip:a@{PEER};transport={transport}>");
        let via = "Via: SIP/2.0/TCP 192.0.2.9:40000;branch=z9hG4bKt";
        let subscribe = peer.make("SUBSCRIBE", &[CONFERENCE, &contact, via]);
        peer.say_over(flow, &subscribe);
        let request = peer.request();
        let key = peer
            .endpoint
            .accept_subscription(peer.now, request.key, "conference", 600, "room")
            .unwrap();
        assert_eq!(peer.next_over("SIP/2.0 200").0, flow);
        peer.endpoint.notify(peer.now, key, Some(text("one")));
        let (over, notify) = peer.next_over("NOTIFY");
        assert_eq!(over, flow);
        peer.say_over(flow, &answer(&notify, 200, "", &[]));
        peer.endpoint.handle_flow_closed(peer.now, flow);
        peer.endpoint.notify(peer.now, key, Some(text("two")));
        let (over, notify) = peer.next_over("NOTIFY");
        if reachable {
            assert_eq!(over, tcp(PEER, 0));
            peer.say_over(tcp(PEER, 6), &answer(&notify, 200, "", &[]));
            peer.endpoint
                .end_subscription(peer.now, key, "noresource", None);
            let (_, last) = peer.next_over("NOTIFY");
            peer.say_over(tcp(PEER, 6), &answer(&last, 200, "", &[]));
        } else {
            assert_eq!(over, flow);
            peer.endpoint.handle_flow_failed(peer.now, flow);
            lost(&mut peer, key);
        }
        peer.assert_forgotten();
    }
}

#[test]
fn a_message_is_the_users_with_and_without_a_call() {
    let mut pair = Pair::configured(Transport::Udp, Box::new(|_, _| false), |_, config| {
        config.focus = true;
    });
    let (caller, callee) = pair.up();
    assert!(pair.ends[0].takes_messages(caller) && pair.ends[1].takes_messages(callee));
    for status in [200, 415] {
        let hello = text("hello");
        let sent = pair.ends[0].request_in_call(pair.now, caller, "MESSAGE", &[], Some(&hello));
        let request = pair.expect(1, |event| match event {
            Event::Request(request) => Some(request),
            _ => None,
        });
        assert_eq!(
            (request.method, request.call),
            (Method::Message, Some(callee))
        );
        assert_eq!(request.body, Some(hello));
        let now = pair.now;
        pair.ends[1].respond_request(now, request.key, status, &[]);
        let answered = pair.expect(0, |event| match event {
            Event::Answered { request, status } => Some((Some(request), status)),
            _ => None,
        });
        assert_eq!(answered, (sent, status));
    }
    pair.ends[0].bye(pair.now, caller, None);
    assert_eq!(pair.expect_ended(0), Ended::LocalBye);
    assert_eq!(pair.expect_ended(1), Ended::PeerBye);
    let late = pair.ends[0].request_in_call(pair.now, caller, "MESSAGE", &[], Some(&body("x")));
    assert_eq!(late, None);
    pair.assert_forgotten();

    let mut peer = Peer::new();
    let lines = ["Contact:", "Content-Type: text/plain", "\nhello"];
    let message = peer.make("MESSAGE", &lines);
    peer.say(&message);
    let request = peer.request();
    assert_eq!((request.method, request.call), (Method::Message, None));
    assert_eq!(request.body, Some(text("hello")));
    peer.endpoint
        .respond_request(peer.now, request.key, 202, &[]);
    peer.next("SIP/2.0 202");
    peer.assert_forgotten();
}

#[test]
fn a_message_that_nobody_answers_is_told_as_408() {
    let mut peer = Peer::new();
    let (call, _) = peer.called(&[]);
    let sent = peer
        .endpoint
        .request_in_call(peer.now, call, "MESSAGE", &[], Some(&text("hello")));
    peer.next("MESSAGE");
    peer.pass(SECOND * 32);
    peer.sent.clear();
    assert!(
        matches!(peer.event(), Event::Answered { request, status: 408 } if Some(request) == sent)
    );
    peer.hang_up(call);
}
