//! Which way messages take: proxies that stay in the path or leave it (RFC 3261 §12, §16), responses
//! (§18.2.2), peers that move.

mod common;

use common::peer::{PEER, Peer, answer, header, headers, tcp, udp, uri};
use sip::{CallKey, Event, Flow, Named};

const PROXY: &str = "192.0.2.80:5060";

/// The endpoint hangs up: its BYE, and where it went.
#[track_caller]
fn bye(peer: &mut Peer, call: CallKey) -> (Flow, String) {
    peer.endpoint.bye(peer.now, call, None);
    assert!(matches!(peer.event(), Event::Ended { .. }));
    let (flow, bye) = peer.next_over("BYE");
    peer.say_over(flow, &answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
    (flow, bye)
}

/// A call that came by proxies which recorded these routes, topmost first.
fn called_by(routes: &[&str], contact: &str) -> (Peer, CallKey, String) {
    let mut peer = Peer::new();
    peer.flow = udp(PROXY);
    let routes: Vec<String> = routes
        .iter()
        .map(|route| format!("+Record-Route: {route}"))
        .collect();
    let via = format!("Via: SIP/2.0/UDP {PROXY};rport;branch=z9hG4bKq");
    let second = format!("+Via: SIP/2.0/UDP {PEER};branch=z9hG4bKr");
    let contact = format!("Contact: <{contact}>");
    let mut lines = vec![via.as_str(), second.as_str(), contact.as_str()];
    lines.extend(routes.iter().map(String::as_str));
    let (call, ok) = peer.called(&lines);
    assert_eq!(headers(&ok, "Via").len(), 2);
    let recorded: Vec<&str> = routes
        .iter()
        .map(|route| route.split_once(": ").unwrap().1)
        .collect();
    assert_eq!(headers(&ok, "Record-Route"), recorded);
    (peer, call, ok)
}

#[test]
fn as_callee_we_go_back_by_the_proxies_that_stay() {
    let contact = format!("sip:a@{PEER}");
    let loose = ["<sip:192.0.2.80;lr>", "<sip:p2.test;lr=on>"];
    let (mut peer, call, _) = called_by(&loose, &contact);
    let (flow, message) = bye(&mut peer, call);
    assert_eq!(uri(&message), contact);
    assert_eq!(headers(&message, "Route"), loose);
    assert_eq!(flow, udp(PROXY));

    // The first one is strict: it is the Request-URI, and the peer is the last Route.
    let strict = ["<sip:192.0.2.80>", "<sip:p2.test;lr>"];
    let (mut peer, call, _) = called_by(&strict, &contact);
    let (flow, message) = bye(&mut peer, call);
    assert_eq!(uri(&message), "sip:192.0.2.80");
    let last = format!("<{contact}>");
    assert_eq!(headers(&message, "Route"), ["<sip:p2.test;lr>", &last]);
    assert_eq!(flow, udp(PROXY));

    // `lr` of something else is none.
    let name = ["<sip:lr@192.0.2.80;maddr=lr>"];
    let (mut peer, call, _) = called_by(&name, &contact);
    assert_eq!(uri(&bye(&mut peer, call).1), "sip:lr@192.0.2.80;maddr=lr");
}

#[test]
fn a_proxy_is_reached_as_it_recorded_itself() {
    let contact = format!("sip:a@{PEER}");
    for (route, expected) in [
        ("<sip:192.0.2.81:5070;lr>", udp("192.0.2.81:5070")),
        (
            "<sip:192.0.2.81;transport=tcp;lr>",
            tcp("192.0.2.81:5060", 0),
        ),
        // A name is not ours to look up, nor is a transport that nobody listens to: back the way it came.
        ("<sip:p.test;lr>", udp(PROXY)),
        ("<sip:192.0.2.81;transport=ws;lr>", udp(PROXY)),
        ("<sips:192.0.2.81;lr>", udp(PROXY)),
        ("<sip:[2001:db8::1];lr>", udp(PROXY)),
    ] {
        let (mut peer, call, _) = called_by(&[route], &contact);
        assert_eq!(bye(&mut peer, call).0, expected, "{route}");
    }
}

#[test]
fn a_proxy_that_leaves_the_path_is_not_asked_again() {
    let (mut peer, call, ok) = called_by(&[], "sip:a@192.0.2.99:5062");
    // Nor is it where the peer has moved to, when it brings another request.
    let via = format!("Via: SIP/2.0/UDP {PROXY};rport;branch=z9hG4bKs");
    let second = format!("+Via: SIP/2.0/UDP {PEER};branch=z9hG4bKt");
    let options = peer.within(&ok, "OPTIONS", 2, &[&via, &second]);
    peer.say(&options);
    peer.next("SIP/2.0 200");
    let (flow, message) = bye(&mut peer, call);
    assert_eq!(flow, udp("192.0.2.99:5062"));
    assert_eq!(uri(&message), "sip:a@192.0.2.99:5062");
    assert!(headers(&message, "Route").is_empty());
}

#[test]
fn a_caller_behind_a_nat_is_where_he_speaks_from() {
    let mut peer = Peer::new();
    peer.flow = udp("198.51.100.7:31000");
    let (call, ok) = peer.called(&["Contact: <sip:a@10.0.0.7:5060>"]);
    assert!(header(&ok, "Via").contains(";received=198.51.100.7;rport=31000"));
    // His mapping changes within the call.
    peer.flow = udp("198.51.100.7:31999");
    let info = peer.within(&ok, "INFO", 2, &[]);
    peer.say(&info);
    assert_eq!(peer.next_over("SIP/2.0 200").0, peer.flow);
    let (flow, message) = bye(&mut peer, call);
    assert_eq!(flow, udp("198.51.100.7:31999"));
    assert_eq!(uri(&message), "sip:a@10.0.0.7:5060");
}

#[test]
fn responses_go_where_the_via_says() {
    for (via, from, to) in [
        ("192.0.2.9:5070;rport", "192.0.2.9:31000", "192.0.2.9:31000"),
        // Without rport: the port it names, at the address it came from.
        ("192.0.2.9:5070", "192.0.2.9:31000", "192.0.2.9:5070"),
        ("10.0.0.9:5070", "192.0.2.9:31000", "192.0.2.9:5070"),
        ("phone.test", "192.0.2.9:31000", "192.0.2.9:5060"),
    ] {
        let mut peer = Peer::new();
        peer.flow = udp(from);
        let via = format!("Via: SIP/2.0/UDP {via};branch=z9hG4bKv");
        let options = peer.make("NEWMETHOD", &[&via]);
        peer.say(&options);
        assert_eq!(peer.next_over("SIP/2.0 501").0, udp(to), "{via}");
        // A call is answered there too, and its 200 is repeated there.
        let invite = peer.make("INVITE", &[&via]);
        peer.say(&invite);
        let call = peer.invite().call;
        peer.endpoint
            .accept(peer.now, call, "room", common::body("v=0"));
        assert_eq!(peer.next_over("SIP/2.0 200").0, udp(to), "{via}");
        peer.pass(std::time::Duration::from_millis(500));
        let (flow, ok) = peer.next_over("SIP/2.0 200");
        assert_eq!(flow, udp(to), "{via}");
        let ack = peer.within(&ok, "ACK", 1, &[]);
        peer.say(&ack);
        peer.event();
        bye(&mut peer, call);
    }
    // On a connection, back on it.
    let mut peer = Peer::new();
    peer.flow = tcp("192.0.2.9:31000", 8);
    let options = peer.make("NEWMETHOD", &["Via: SIP/2.0/TCP x:1;branch=z9hG4bKv"]);
    peer.say(&options);
    assert_eq!(peer.next_over("SIP/2.0 501").0, peer.flow);
}

#[test]
fn a_peer_may_come_back_over_another_connection() {
    let mut peer = Peer::new();
    peer.flow = tcp("192.0.2.9:31000", 8);
    let (call, ok) = peer.called(&["Contact: <sip:a@192.0.2.9;transport=tcp>"]);
    assert!(header(&ok, "Contact").contains(";transport=tcp"));
    peer.flow = tcp("192.0.2.9:31001", 9);
    let info = peer.within(&ok, "INFO", 2, &[]);
    peer.say(&info);
    assert_eq!(peer.next_over("SIP/2.0 200").0, peer.flow);
    // The old one closes, which is no matter any more.
    peer.endpoint
        .handle_flow_closed(peer.now, tcp("192.0.2.9:31000", 8));
    peer.nothing();
    assert_eq!(bye(&mut peer, call).0, tcp("192.0.2.9:31001", 9));
}

#[test]
fn a_call_over_a_connection_that_closed_goes_on_by_a_new_one() {
    let mut peer = Peer::new();
    peer.flow = tcp("192.0.2.9:31000", 8);
    let (call, _) = peer.called(&["Contact: <sip:a@192.0.2.9:5070;transport=tcp>"]);
    peer.endpoint
        .handle_flow_closed(peer.now, tcp("192.0.2.9:31000", 8));
    peer.nothing();
    assert_eq!(bye(&mut peer, call).0, tcp("192.0.2.9:5070", 0));

    // By the proxy, where there is one, and not past it.
    let mut peer = Peer::new();
    peer.flow = tcp("192.0.2.80:31000", 8);
    let lines = [
        "Contact: <sip:a@192.0.2.9:5070;transport=tcp>",
        "Record-Route: <sip:192.0.2.80;transport=tcp;lr>",
    ];
    let (call, _) = peer.called(&lines);
    peer.endpoint
        .handle_flow_closed(peer.now, tcp("192.0.2.80:31000", 8));
    assert_eq!(bye(&mut peer, call).0, tcp("192.0.2.80:5060", 0));
}

#[test]
fn a_call_that_is_not_answered_ends_with_its_connection_and_leaves_nothing() {
    let mut peer = Peer::new();
    peer.flow = tcp("192.0.2.9:31000", 8);
    let invite = peer.make("INVITE", &["Via: SIP/2.0/TCP x:1;branch=z9hG4bKv"]);
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.handle_flow_closed(peer.now, peer.flow);
    assert!(matches!(
        peer.event(),
        Event::Ended { call: c, cause: sip::Ended::TransportFailed } if c == call
    ));
    // Nobody hears it, but it ends the transaction.
    peer.next("SIP/2.0 487");
    peer.assert_forgotten();
}

#[test]
fn a_call_of_ours_ends_when_its_connection_cannot_be_made_or_is_lost() {
    let mut peer = Peer::new();
    peer.flow = tcp(PEER, 0);
    let (call, _) = peer.call(|_| {});
    // Another connection to somebody else is none of its business.
    peer.endpoint
        .handle_flow_failed(peer.now, tcp("192.0.2.10:5060", 0));
    peer.nothing();
    peer.endpoint.handle_flow_failed(peer.now, tcp(PEER, 0));
    assert!(matches!(
        peer.event(),
        Event::Rejected { call: c, status: 503, .. } if c == call
    ));
    peer.assert_forgotten();

    let mut peer = Peer::new();
    peer.flow = tcp(PEER, 4);
    let (call, _) = peer.call(|_| {});
    peer.endpoint.handle_flow_closed(peer.now, tcp(PEER, 4));
    assert!(matches!(
        peer.event(),
        Event::Ended { call: c, cause: sip::Ended::TransportFailed } if c == call
    ));
    peer.assert_forgotten();
}

#[test]
fn as_caller_we_follow_the_route_that_the_answer_recorded() {
    let loose = [
        "Record-Route: <sip:p2.test;lr>",
        "Record-Route: <sip:192.0.2.80;lr>",
        "Contact: <sip:b@192.0.2.3>",
    ];
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|invitation| invitation.target = "sip:b@b.test".to_owned());
    assert_eq!(uri(&invite), "sip:b@b.test");
    peer.say(&answer(&invite, 200, "b", &loose));
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    for (flow, message) in [peer.next_over("ACK"), bye(&mut peer, call)] {
        assert_eq!(uri(&message), "sip:b@192.0.2.3");
        // Ours is the far end of the record.
        let routes = ["<sip:192.0.2.80;lr>", "<sip:p2.test;lr>"];
        assert_eq!(headers(&message, "Route"), routes);
        assert_eq!(flow, udp(PROXY));
    }

    let strict = [
        "Record-Route: <sip:192.0.2.80>",
        "Contact: <sip:b@192.0.2.3>",
    ];
    let mut peer = Peer::new();
    let (call, _, ack) = peer.calling(&strict);
    for message in [ack, bye(&mut peer, call).1] {
        assert_eq!(uri(&message), "sip:192.0.2.80");
        assert_eq!(headers(&message, "Route"), ["<sip:b@192.0.2.3>"]);
    }
}

#[test]
fn as_caller_we_go_straight_to_a_peer_whose_proxy_left() {
    // We called a name by way of a proxy, which recorded nothing.
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|invitation| invitation.target = "sip:b@b.test".to_owned());
    peer.say(&answer(
        &invite,
        200,
        "b",
        &["Contact: <sip:b@192.0.2.3:5062>"],
    ));
    assert_eq!(peer.next_over("ACK").0, udp("192.0.2.3:5062"));
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    assert_eq!(bye(&mut peer, call).0, udp("192.0.2.3:5062"));

    // A peer that was called directly is where he answered from, whatever his NAT makes him say.
    let mut peer = Peer::new();
    let (call, _, _) = peer.calling(&["Contact: <sip:a@10.0.0.7:5060>"]);
    assert_eq!(bye(&mut peer, call).0, udp(PEER));
}

#[test]
fn a_large_invite_goes_by_tcp_or_after_all_by_udp() {
    let large = format!("v=0{}", " ".repeat(1_400));
    let mut peer = Peer::new();
    let invitation = sip::Invitation {
        target: format!("sip:a@{PEER}"),
        from: "sip:room@192.0.2.1".to_owned(),
        contact_user: "room".to_owned(),
        body: Some(common::body(&large)),
        ..sip::Invitation::default()
    };
    let call = peer
        .endpoint
        .invite(peer.now, peer.flow, invitation)
        .unwrap();
    let (flow, invite) = peer.next_over("INVITE");
    assert_eq!(flow, tcp(PEER, 0));
    peer.endpoint.handle_flow_failed(peer.now, flow);
    let (flow, again) = peer.next_over("INVITE");
    assert_eq!(flow, udp(PEER));
    assert_eq!(header(&again, "Call-ID"), header(&invite, "Call-ID"));
    assert!(again.ends_with(&large));
    peer.say(&answer(&again, 180, "b", &[]));
    assert!(matches!(peer.event(), Event::Progress { .. }));
    // CANCEL means the INVITE that is out.
    peer.endpoint.cancel(peer.now, call);
    let (flow, cancel) = peer.next_over("CANCEL");
    assert_eq!(flow, udp(PEER));
    assert_eq!(header(&cancel, "Via"), header(&again, "Via"));
    peer.say(&answer(&cancel, 200, "b", &[]));
    peer.say(&answer(&again, 487, "b", &[]));
    peer.next("ACK");
    assert!(matches!(peer.event(), Event::Ended { .. }));
    peer.assert_forgotten();
}

#[test]
fn whom_only_the_size_of_the_invite_made_answer_over_tcp_is_reached_by_udp() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|invitation| {
        invitation.body = Some(common::body(&"x".repeat(1_400)));
    });
    let lines = ["Contact: <sip:a@10.0.0.7>", "Require: 100rel", "RSeq: 1"];
    peer.say_over(tcp(PEER, 3), &answer(&invite, 180, "b", &lines));
    let (flow, prack) = peer.next_over("PRACK");
    assert_eq!(flow, udp(PEER));
    peer.say(&answer(&prack, 200, "", &[]));
    assert!(matches!(peer.event(), Event::Progress { .. }));
    let lines = ["Contact: <sip:a@10.0.0.7>"];
    peer.say_over(tcp(PEER, 3), &answer(&invite, 200, "b", &lines));
    let (flow, ack) = peer.next_over("ACK");
    assert_eq!(flow, udp(PEER));
    assert!(header(&ack, "Via").starts_with("SIP/2.0/UDP "));
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    assert_eq!(bye(&mut peer, call).0, udp(PEER));
}

#[test]
fn an_invite_that_its_credentials_make_large_goes_by_tcp() {
    let mut peer = Peer::new();
    let (_, invite) = peer.call(|invitation| {
        invitation.body = Some(common::body(&"x".repeat(600)));
        invitation.credentials = Some(sip::digest::Credentials {
            username: "alice".to_owned(),
            password: "x".to_owned(),
            realm: None,
        });
    });
    assert!(invite.len() < 1_300);
    let challenge =
        "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=MD5";
    peer.say(&answer(&invite, 401, "b", &[challenge]));
    peer.next("ACK");
    let (flow, again) = peer.next_over("INVITE");
    assert!(again.len() > 1_300, "{}", again.len());
    assert_eq!(flow, tcp(PEER, 0));
    // It is answered on the connection, where its ACK goes too; what follows goes by UDP again.
    peer.say_over(tcp(PEER, 3), &answer(&again, 403, "b", &[]));
    assert_eq!(peer.next_over("ACK").0, tcp(PEER, 0));
    assert!(matches!(peer.event(), Event::Rejected { status: 403, .. }));
    peer.assert_forgotten();
}

#[test]
fn calls_are_found_by_replaces_and_join() {
    let mut peer = Peer::new();
    let tag = |message: &str, name: &str| {
        let value = header(message, name);
        value.split(";tag=").nth(1).unwrap_or_default().to_owned()
    };
    // Somebody rings here: RFC 3891 lets nobody replace that.
    let invite = peer.make("INVITE", &[]);
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint.ring(peer.now, call, "room");
    let ringing = peer.next("SIP/2.0 180");
    let ours = tag(&ringing, "To");
    assert_eq!(peer.endpoint.named("c1", &ours, "f"), Named::Unknown);
    peer.endpoint
        .accept(peer.now, call, "room", common::body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    assert_eq!(
        peer.endpoint.named("c1", &ours, "f"),
        Named::Confirmed(call)
    );
    for (call_id, to, from) in [
        ("c1", ours.as_str(), "g"),
        ("c1", "f", ours.as_str()),
        ("c2", ours.as_str(), "f"),
        ("c1", ours.as_str(), "0"),
    ] {
        assert_eq!(peer.endpoint.named(call_id, to, from), Named::Unknown);
    }
    // It is over for its user before the ACK has come, and until the BYE is answered.
    peer.endpoint.bye(peer.now, call, None);
    assert!(matches!(peer.event(), Event::Ended { .. }));
    assert_eq!(peer.endpoint.named("c1", &ours, "f"), Named::Over);
    let ack = peer.within(&ok, "ACK", 1, &[]);
    peer.say(&ack);
    let bye = peer.next("BYE");
    assert_eq!(peer.endpoint.named("c1", &ours, "f"), Named::Over);
    peer.say(&answer(&bye, 200, "", &[]));
    peer.assert_forgotten();
    assert_eq!(peer.endpoint.named("c1", &ours, "f"), Named::Unknown);

    // One of ours rings at two peers.
    let (call, invite) = peer.call(|_| {});
    let (call_id, ours) = (header(&invite, "Call-ID"), tag(&invite, "From"));
    assert_eq!(peer.endpoint.named(call_id, &ours, "b1"), Named::Unknown);
    peer.say(&answer(&invite, 180, "b1", &[]));
    peer.say(&answer(&invite, 180, "b2", &["Require: 100rel", "RSeq: 1"]));
    let prack = peer.next("PRACK");
    peer.say(&answer(&prack, 200, "", &[]));
    peer.events.clear();
    for known in ["b1", "b2"] {
        assert_eq!(
            peer.endpoint.named(call_id, &ours, known),
            Named::Early(call)
        );
    }
    assert_eq!(peer.endpoint.named(call_id, &ours, "b3"), Named::Unknown);
    peer.say(&answer(&invite, 200, "b2", &[]));
    peer.next("ACK");
    peer.event();
    assert_eq!(
        peer.endpoint.named(call_id, &ours, "b2"),
        Named::Confirmed(call)
    );
    assert_eq!(peer.endpoint.named(call_id, &ours, "b1"), Named::Unknown);
    peer.hang_up(call);
}

#[test]
fn a_peer_without_a_tag_is_called_0() {
    let mut peer = Peer::new();
    let lines = ["From: <sip:a@example.test>"];
    let invite = peer.make("INVITE", &lines);
    peer.say(&invite);
    let call = peer.invite().call;
    peer.endpoint
        .accept(peer.now, call, "room", common::body("v=0"));
    let ok = peer.next("SIP/2.0 200");
    let ours = header(&ok, "To").split(";tag=").nth(1).unwrap();
    assert_eq!(peer.endpoint.named("c1", ours, "0"), Named::Confirmed(call));
    let ack = peer.within(&ok, "ACK", 1, &lines);
    peer.say(&ack);
    peer.event();
    peer.hang_up(call);
}

#[test]
fn an_invite_may_replace_or_join_one_call() {
    let replaces = "Replaces: c0;to-tag=1;from-tag=2";
    for lines in [
        &[replaces, "+Replaces: c9;to-tag=1;from-tag=2"][..],
        &[
            "Join: c0;to-tag=1;from-tag=2",
            "+Join: c9;to-tag=1;from-tag=2",
        ],
        &[replaces, "Join: c0;to-tag=1;from-tag=2"],
    ] {
        let mut peer = Peer::new();
        let invite = peer.make("INVITE", lines);
        peer.say(&invite);
        let refusal = peer.next("SIP/2.0 400");
        let via = format!("Via: {}", header(&invite, "Via"));
        let ack = peer.within(&refusal, "ACK", 1, &[&via]);
        peer.say(&ack);
        peer.assert_forgotten();
    }
    let mut peer = Peer::new();
    let lines = ["Require: replaces", replaces];
    let invite = peer.make("INVITE", &lines);
    peer.say(&invite);
    let invite = peer.invite();
    assert_eq!(
        (invite.replaces.as_deref(), invite.join),
        (Some("c0;to-tag=1;from-tag=2"), None)
    );
}
