//! Calls that a conference makes itself, asked for by REFER or over HTTP, and who is thrown out by REFER.

#[path = "common/agent.rs"]
mod agent;
mod common;

use std::time::Instant;

use agent::{Agent, Dialog, Message, authorization, check_nothing_left, participants_of, serve};
use common::{PATIENCE, Server, scratch};
use simd_json::prelude::*;
use sip::sipfrag;

/// Trusts those who refer from outside.
const TRUSTING: &str = "auth.trusted=127.0.0.0/8";

#[track_caller]
fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

/// Asks for a call to `target`, within `dialog`.
#[track_caller]
fn refer(agent: &mut Agent, dialog: &mut Dialog, target: &str) {
    let line = format!("Refer-To: <{target}>");
    let answer = agent.ask(dialog, "REFER", &[&line], None);
    // RFC 7647 §5: no 202.
    check(&answer, 200);
}

/// What the next NOTIFY says of a call, and whether it is the last of it.
#[track_caller]
fn told(agent: &mut Agent) -> (u16, bool) {
    let notify = agent.accept("NOTIFY");
    assert!(notify.header("Event").starts_with("refer"), "{notify:?}");
    let kind = notify.header("Content-Type");
    assert!(kind.starts_with("message/sipfrag"), "{kind}");
    let status = sipfrag::read(notify.body.as_bytes()).expect("a status line");
    let state = notify.header("Subscription-State");
    let is_last = state.starts_with("terminated;reason=noresource");
    assert!(is_last || state.starts_with("active;expires="), "{state}");
    (status, is_last)
}

/// How a call went, as the NOTIFYs say.
#[track_caller]
fn progress(agent: &mut Agent) -> Vec<u16> {
    let mut statuses = Vec::new();
    loop {
        let (status, is_last) = told(agent);
        statuses.push(status);
        if is_last {
            return statuses;
        }
    }
}

/// Rings, is picked up, and gives its end of the call.
#[track_caller]
fn pick_up(callee: &mut Agent) -> Dialog {
    let invite = callee.request("INVITE");
    callee.reply(&invite, 180, &[], None);
    callee.pick_up(&invite)
}

#[track_caller]
fn is_in(server: &Server, room: &str, agent: &Agent) {
    let uri = agent.uri();
    server.wait_until("the one called is in", |server| {
        let all = participants_of(server, room);
        all.iter().any(|one| one["entity"] == uri.as_str())
    });
}

#[test]
fn a_trusted_stranger_has_somebody_called() {
    let server = serve(&[TRUSTING]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    let mut stranger = Agent::new(&server, "stranger");
    let mut dialog = stranger.dialog(&room);
    refer(&mut stranger, &mut dialog, &bob.uri());
    let invite = bob.request("INVITE");
    assert_eq!(agent::uri_in(invite.header("From")), room);
    assert!(invite.header("Contact").contains("isfocus"), "{invite:?}");
    assert!(
        invite.header("Contact").contains("sip:staff@"),
        "{invite:?}"
    );
    let by = invite.header("Referred-By");
    assert!(by.contains(&stranger.uri()), "{by}");
    assert!(invite.body.contains("m=audio"), "{invite:?}");
    bob.reply(&invite, 180, &[], None);
    let called = bob.pick_up(&invite);
    assert_eq!(progress(&mut stranger), [100, 180, 200]);
    is_in(&server, "staff", &bob);
    assert_eq!(participants_of(&server, "staff").len(), 2);
    bob.hang_up(called);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_participant_has_several_called_within_his_call() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut events = Vec::new();
    let mut calls = Vec::new();
    for name in ["bob", "carol"] {
        let mut callee = Agent::new(&server, name);
        refer(&mut alice, &mut call, &callee.uri());
        let called = pick_up(&mut callee);
        let mut statuses = Vec::new();
        while statuses.last() != Some(&200) {
            let notify = alice.accept("NOTIFY");
            assert_eq!(notify.header("Call-ID"), call.call_id);
            statuses.push(sipfrag::read(notify.body.as_bytes()).unwrap());
            events.push(notify.header("Event").to_owned());
        }
        assert_eq!(statuses, [100, 180, 200]);
        is_in(&server, "staff", &callee);
        calls.push((callee, called));
    }
    // The second of a dialog has a number to be told by (RFC 3515 §2.4.6).
    assert_eq!(events[0], "refer");
    assert!(events[3].starts_with("refer;id="), "{events:?}");
    alice.fence(&mut call);
    for (mut callee, called) in calls {
        callee.hang_up(called);
    }
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn who_cannot_be_had_is_told_with_his_status() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    for status in [486, 480, 603] {
        let mut bob = Agent::new(&server, "bob");
        refer(&mut alice, &mut call, &bob.uri());
        let invite = bob.request("INVITE");
        bob.reply(&invite, status, &[], None);
        bob.request("ACK");
        assert_eq!(progress(&mut alice), [100, status]);
    }
    // A callee who answers without a codec of ours.
    let mut bob = Agent::new(&server, "bob");
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    let answer = bob.sdp("sendrecv").replace("RTP/AVP 0 101", "RTP/AVP 3");
    bob.reply(&invite, 200, &[], Some((agent::SDP, &answer)));
    bob.request("ACK");
    assert_eq!(progress(&mut alice), [100, 488]);
    bob.accept("BYE");
    assert_eq!(participants_of(&server, "staff").len(), 1);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_redirected_call_goes_on_to_where_it_is_sent() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    let mut desk = Agent::new(&server, "desk");
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    // The second of them is preferred.
    let contact = format!("Contact: <sip:x@127.0.0.1:1>;q=0.1, <{}>;q=0.9", desk.uri());
    bob.reply(&invite, 302, &[&contact], None);
    bob.request("ACK");
    let called = pick_up(&mut desk);
    assert_eq!(progress(&mut alice), [100, 180, 200]);
    is_in(&server, "staff", &desk);
    desk.hang_up(called);

    // In a circle it does not go for ever.
    refer(&mut alice, &mut call, &bob.uri());
    let contact = format!("Contact: <{}>", bob.uri());
    let mut rounds = 0;
    let mut is_over = false;
    let start = Instant::now();
    while !is_over {
        assert!(rounds < 10, "round and round");
        assert!(start.elapsed() < PATIENCE, "after {rounds} rounds");
        if alice.has("NOTIFY") {
            is_over = told(&mut alice).1;
        }
        if bob.has("INVITE") {
            let invite = bob.request("INVITE");
            bob.reply(&invite, 302, &[&contact], None);
            bob.request("ACK");
            rounds += 1;
        }
    }
    assert!(rounds > 0);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_callee_who_challenges_gets_the_servers_password() {
    let server = serve(&["sip.outbound_user=plenum", "sip.outbound_password=secret"]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut trunk = Agent::new(&server, "trunk");
    for (status, asks, answers) in [
        (401, "WWW-Authenticate", "Authorization"),
        (407, "Proxy-Authenticate", "Proxy-Authorization"),
    ] {
        refer(&mut alice, &mut call, &trunk.uri());
        let invite = trunk.request("INVITE");
        let challenge =
            format!("{asks}: Digest realm=\"t\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"");
        trunk.reply(&invite, status, &[&challenge], None);
        trunk.request("ACK");
        let second = trunk.request("INVITE");
        let answer = second.header(answers);
        assert!(answer.contains("username=\"plenum\""), "{answer}");
        assert!(second.header("CSeq") > invite.header("CSeq"));
        assert_eq!(second.header("Call-ID"), invite.header("Call-ID"));
        let called = trunk.pick_up(&second);
        assert_eq!(progress(&mut alice), [100, 200]);
        trunk.hang_up(called);
    }
    // Asked again for the same: the password is wrong, and that is that.
    refer(&mut alice, &mut call, &trunk.uri());
    for nonce in ["n2", "n3"] {
        let invite = trunk.request("INVITE");
        let challenge =
            format!("WWW-Authenticate: Digest realm=\"t\", nonce=\"{nonce}\", qop=\"auth\"");
        trunk.reply(&invite, 401, &[&challenge], None);
        trunk.request("ACK");
    }
    assert_eq!(progress(&mut alice), [100, 401]);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn names_are_looked_up() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    let target = format!("sip:bob@localhost:{}", bob.address.port());
    refer(&mut alice, &mut call, &target);
    let called = pick_up(&mut bob);
    assert_eq!(progress(&mut alice), [100, 180, 200]);
    bob.hang_up(called);
    refer(&mut alice, &mut call, "sip:bob@nobody.invalid");
    assert_eq!(progress(&mut alice), [100, 404]);
    // Such URIs no call can be made to.
    refer(&mut alice, &mut call, "tel:+49123");
    assert_eq!(progress(&mut alice), [100, 416]);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn all_calls_take_the_outbound_proxy() {
    let proxy = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    drop(proxy);
    let server = serve(&[&format!("sip.outbound_proxy=udp:{address}")]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut proxy = Agent::bound(address, &server, "proxy");
    refer(&mut alice, &mut call, "sip:bob@example.invalid");
    let invite = proxy.request("INVITE");
    assert_eq!(invite.uri(), "sip:bob@example.invalid");
    let called = proxy.pick_up(&invite);
    assert_eq!(progress(&mut alice), [100, 200]);
    proxy.hang_up(called);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_participant_throws_another_out() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    let _gone = bob.call(&room);
    server.wait_until("both are in", |server| server.participants() == 2);
    refer(&mut alice, &mut call, &format!("{};method=BYE", bob.uri()));
    assert_eq!(progress(&mut alice), [100, 200]);
    let bye = bob.accept("BYE");
    assert!(bye.header("Reason").contains("ejected"), "{bye:?}");
    server.wait_until("one is left", |server| server.participants() == 1);
    let line = format!("Refer-To: <{};method=BYE>", bob.uri());
    check(&alice.ask(&mut call, "REFER", &[&line], None), 404);

    // Who still rings is called no more, and whoever asked for him hears of it.
    let mut carol = Agent::new(&server, "carol");
    refer(&mut alice, &mut call, &carol.uri());
    let invite = carol.request("INVITE");
    carol.reply(&invite, 180, &[], None);
    assert_eq!(told(&mut alice), (100, false));
    assert_eq!(told(&mut alice), (180, false));
    let line = format!("Refer-To: <{};method=BYE>", carol.uri());
    let lines = ["Refer-Sub: false", &line];
    check(&alice.ask(&mut call, "REFER", &lines, None), 200);
    carol.accept("CANCEL");
    carol.reply(&invite, 487, &[], None);
    carol.request("ACK");
    assert_eq!(progress(&mut alice), [487]);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn who_wants_to_hear_nothing_is_told_nothing() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    let line = format!("Refer-To: <{}>", bob.uri());
    let lines = ["Refer-Sub: false", &line];
    let answer = alice.ask(&mut call, "REFER", &lines, None);
    check(&answer, 200);
    assert_eq!(answer.header("Refer-Sub"), "false");
    let called = pick_up(&mut bob);
    is_in(&server, "staff", &bob);
    alice.fence(&mut call);
    assert!(!alice.has("NOTIFY"));
    bob.hang_up(called);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn who_may_control_a_conference() {
    let users = scratch("control-users");
    std::fs::write(&users, "[alice]\npassword = \"open sesame\"\n").unwrap();
    let set = format!("auth.users={}", users.display());
    for (control, member, stranger) in [
        ("members", 200, 401),
        ("authenticated", 401, 401),
        ("nobody", 403, 403),
    ] {
        let server = serve(&[&set, &format!("rooms.control={control}")]);
        let room = server.uri("staff");
        let mut alice = Agent::new(&server, "alice");
        let mut call = alice.call(&room);
        let mut bob = Agent::new(&server, "bob");
        let line = format!("Refer-To: <{}>", bob.uri());
        let lines = ["Refer-Sub: false", &line];
        let mut outside = alice.dialog(&room);
        check(&alice.ask(&mut outside, "REFER", &lines, None), stranger);
        let answer = alice.ask(&mut call, "REFER", &lines, None);
        check(&answer, member);
        if member == 401 {
            let uri = call.target.clone();
            let user = ("alice", "open sesame");
            let by = authorization(&answer, user, ("REFER", &uri), "", 1);
            let lines = ["Refer-Sub: false", &line, &by];
            check(&alice.ask(&mut call, "REFER", &lines, None), 200);
        }
        if member != 403 {
            let called = pick_up(&mut bob);
            bob.hang_up(called);
        }
        alice.hang_up(call);
        check_nothing_left(&server);
    }
    std::fs::remove_file(users).unwrap();
}

#[test]
fn a_refer_has_one_target() {
    let server = serve(&[TRUSTING]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let one = "Refer-To: <sip:a@127.0.0.1:1>";
    check(&alice.ask(&mut call, "REFER", &[one, one], None), 400);
    let both = "Refer-To: <sip:a@127.0.0.1:1>, <sip:b@127.0.0.1:1>";
    check(&alice.ask(&mut call, "REFER", &[both], None), 400);
    check(&alice.ask(&mut call, "REFER", &[], None), 400);
    check(&alice.ask(&mut call, "REFER", &["Refer-To: <"], None), 400);
    let mut nowhere = alice.dialog(&server.uri("nowhere"));
    check(&alice.ask(&mut nowhere, "REFER", &[one], None), 404);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_referrer_may_hang_up_before_the_end() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    bob.reply(&invite, 180, &[], None);
    alice.hang_up(call);
    let called = bob.pick_up(&invite);
    is_in(&server, "staff", &bob);
    bob.hang_up(called);
    check_nothing_left(&server);
}

#[test]
fn ringing_of_a_callee_that_wants_it_acknowledged() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    let mut bob = Agent::new(&server, "bob");
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    assert!(invite.header("Supported").contains("100rel"), "{invite:?}");
    for (status, rseq) in [(180, "RSeq: 41"), (183, "RSeq: 42")] {
        bob.reply(&invite, status, &["Require: 100rel", rseq], None);
        let prack = bob.accept("PRACK");
        let number = invite.header("CSeq").split(' ').next().unwrap();
        let rack = format!("{} {number} INVITE", rseq.trim_start_matches("RSeq: "));
        assert_eq!(prack.header("RAck"), rack);
    }
    let called = bob.pick_up(&invite);
    assert_eq!(progress(&mut alice), [100, 180, 183, 200]);
    bob.hang_up(called);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn who_was_called_is_a_participant_like_all() {
    let server = serve(&[]);
    let room = server.uri("staff");
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&room);
    let mut bob = Agent::new(&server, "bob");
    bob.allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, MESSAGE";
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    let mut called = bob.pick_up(&invite);
    assert_eq!(progress(&mut alice), [100, 200]);
    is_in(&server, "staff", &bob);
    let hold = bob.sdp("inactive");
    check(
        &bob.ask(&mut called, "UPDATE", &[], Some((agent::SDP, &hold))),
        200,
    );
    server.wait_until("bob holds", |server| {
        let all = participants_of(server, "staff");
        all.iter().any(|one| one["status"] == "on-hold")
    });
    let resume = bob.sdp("sendrecv");
    check(
        &bob.ask(&mut called, "INVITE", &[], Some((agent::SDP, &resume))),
        200,
    );
    bob.ack(&mut called, None);
    let text = Some(("text/plain", "welcome"));
    check(&alice.ask(&mut call, "MESSAGE", &[], text), 202);
    assert_eq!(bob.accept("MESSAGE").body, "welcome");
    for key in ["*", "6"] {
        let body = Some(("application/dtmf", key));
        check(&bob.ask(&mut called, "INFO", &[], body), 200);
    }
    server.wait_until("bob is muted", |server| {
        let all = participants_of(server, "staff");
        all.iter().any(|one| one["muted"] == true)
    });
    // He goes on at another of his phones.
    let mut mobile = Agent::new(&server, "mobile");
    let line = format!(
        "Replaces: {};to-tag={};from-tag={}",
        called.call_id,
        called.remote_tag(),
        called.local_tag()
    );
    let (moved, _) = mobile.call_with(&room, &[&line]);
    bob.accept("BYE");
    mobile.hang_up(moved);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn the_server_refreshes_the_sessions_of_its_own_calls() {
    let server = serve(&["sip.session_min_s=2"]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    let mut bob = Agent::new(&server, "bob");
    bob.allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE";
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    // Longer than it asked for, then as short as it may be.
    bob.reply(&invite, 422, &["Min-SE: 2000"], None);
    bob.request("ACK");
    let invite = bob.request("INVITE");
    assert!(invite.header("Session-Expires").starts_with("2000"));
    let timer = ["Session-Expires: 2;refresher=uac", "Require: timer"];
    let answer = bob.sdp("sendrecv");
    bob.reply(&invite, 200, &timer, Some((agent::SDP, &answer)));
    bob.request("ACK");
    let called = bob.called(&invite);
    for _ in 0..2 {
        let refresh = bob.request("UPDATE");
        bob.reply(&refresh, 200, &timer, None);
    }
    bob.hang_up(called);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_full_room_calls_nobody() {
    let server = serve(&["rooms.max_participants=2"]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    let mut bob = Agent::new(&server, "bob");
    let mut carol = Agent::new(&server, "carol");
    refer(&mut alice, &mut call, &bob.uri());
    let invite = bob.request("INVITE");
    // He has his place while he rings.
    let mut outside = carol.dialog(&server.uri("staff"));
    check(&carol.invite(&mut outside, &[]), 486);
    assert_eq!(told(&mut alice), (100, false));
    let line = format!("Refer-To: <{}>", carol.uri());
    check(&alice.ask(&mut call, "REFER", &[&line], None), 200);
    assert_eq!(progress(&mut alice), [100, 486]);
    // And keeps it when he is sent on.
    let contact = format!("Contact: <{}>", carol.uri());
    bob.reply(&invite, 302, &[&contact], None);
    bob.request("ACK");
    let called = pick_up(&mut carol);
    assert_eq!(progress(&mut alice), [180, 200]);
    carol.hang_up(called);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_referrer_may_stop_listening() {
    let server = serve(&[TRUSTING, "rooms.names=lounge"]);
    let mut alice = Agent::new(&server, "alice");
    let mut dialog = alice.dialog(&server.uri("lounge"));
    let mut bob = Agent::new(&server, "bob");
    refer(&mut alice, &mut dialog, &bob.uri());
    let invite = bob.request("INVITE");
    assert_eq!(told(&mut alice), (100, false));
    let lines = ["Event: refer", "Expires: 0"];
    check(&alice.ask(&mut dialog, "SUBSCRIBE", &lines, None), 200);
    let last = alice.accept("NOTIFY");
    assert!(last.header("Subscription-State").starts_with("terminated"));
    let called = bob.pick_up(&invite);
    is_in(&server, "lounge", &bob);
    assert!(!alice.has("NOTIFY"));
    bob.hang_up(called);
    check_nothing_left(&server);
}

fn participants(room: &str) -> String {
    format!("/api/v1/conferences/{room}/participants")
}

#[test]
fn a_call_is_asked_for_over_http() {
    let server = serve(&[]);
    let mut bob = Agent::new(&server, "bob");
    let body = format!("{{\"uri\":\"{}\"}}", bob.uri());
    let (code, answer) = server.post(&participants("staff"), &body);
    assert_eq!(code, 202, "{answer}");
    let answer = common::json(answer);
    assert_eq!(answer["uri"], bob.uri().as_str());
    assert_eq!(answer["status"], "dialing-out");
    let called = pick_up(&mut bob);
    is_in(&server, "staff", &bob);
    bob.hang_up(called);
    check_nothing_left(&server);

    // Of a name that nobody has nobody hears.
    let (code, answer) = server.post(&participants("staff"), "{\"uri\":\"sip:x@nobody.invalid\"}");
    assert_eq!(code, 202, "{answer}");
    check_nothing_left(&server);
}

#[test]
fn http_says_why_no_call_is_made() {
    let server = serve(&[
        "rooms.auto_create=false",
        "rooms.names=staff",
        "rooms.max_participants=1",
    ]);
    let ask = |room: &str, body: &str| {
        let (code, answer) = server.post(&participants(room), body);
        let answer = common::json(answer);
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty())
        );
        code
    };
    let uri = "{\"uri\":\"sip:bob@127.0.0.1:1\"}";
    assert_eq!(ask("nowhere", uri), 404);
    assert_eq!(ask("conference", uri), 400);
    assert_eq!(ask("staff", "{\"uri\":\"tel:+49123\"}"), 400);
    assert_eq!(ask("staff", "{\"uri\":\"sip:a b@c\"}"), 400);
    assert_eq!(
        ask("staff", "{\"uri\":\"sip:a@127.0.0.1>\\r\\nX: y\"}"),
        400
    );
    assert_eq!(ask("staff", "{\"uri\":7}"), 400);
    assert_eq!(ask("staff", "{"), 400);
    assert_eq!(ask("staff", "{}"), 400);
    assert_eq!(
        ask("staff", "{\"uri\":\"sip:a@127.0.0.1\",\"more\":1}"),
        400
    );
    // A room does not call itself.
    let itself = format!("{{\"uri\":\"{};transport=tcp\"}}", server.uri("staff"));
    assert_eq!(ask("staff", &itself), 400);
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&server.uri("staff"));
    assert_eq!(ask("staff", uri), 409);
    alice.hang_up(call);
    check_nothing_left(&server);
}
