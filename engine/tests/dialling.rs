//! Calls that a conference makes itself when it is asked by REFER, and who is thrown out by REFER.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/meeting.rs"]
mod meeting;

use agent::{Agent, authorization, check_nothing_left, participants_of, serve};
use common::scratch;
use meeting::{Meeting, TRUSTING, check, is_in, pick_up, progress, refer, told};
use simd_json::prelude::*;
use sip::sipfrag;

#[test]
fn a_trusted_stranger_has_somebody_called() {
    let meeting = Meeting::new(&[TRUSTING]);
    let mut bob = meeting.agent("bob");
    let mut stranger = meeting.agent("stranger");
    let mut dialog = stranger.dialog(&meeting.room);
    refer(&mut stranger, &mut dialog, &bob.uri());
    let invite = bob.request("INVITE");
    assert_eq!(agent::uri_in(invite.header("From")), meeting.room);
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
    meeting.is_in(&bob);
    assert_eq!(meeting.participants().len(), 2);
    bob.hang_up(called);
    meeting.end();
}

#[test]
fn a_participant_has_several_called_within_his_call() {
    let mut meeting = Meeting::new(&[]);
    let mut events = Vec::new();
    let mut calls = Vec::new();
    for name in ["bob", "carol"] {
        let mut callee = meeting.agent(name);
        meeting.refer(&callee.uri());
        let called = pick_up(&mut callee);
        let mut statuses = Vec::new();
        while statuses.last() != Some(&200) {
            let notify = meeting.alice.accept("NOTIFY");
            assert_eq!(notify.header("Call-ID"), meeting.call.call_id);
            statuses.push(sipfrag::read(notify.body.as_bytes()).unwrap());
            events.push(notify.header("Event").to_owned());
        }
        assert_eq!(statuses, [100, 180, 200]);
        meeting.is_in(&callee);
        calls.push((callee, called));
    }
    // The second of a dialog has a number to be told by (RFC 3515 §2.4.6).
    assert_eq!(events[0], "refer");
    assert!(events[3].starts_with("refer;id="), "{events:?}");
    meeting.alice.fence(&mut meeting.call);
    for (mut callee, called) in calls {
        callee.hang_up(called);
    }
    meeting.end();
}

#[test]
fn who_wants_to_hear_nothing_is_told_nothing() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    let line = format!("Refer-To: <{}>", bob.uri());
    let lines = ["Refer-Sub: false", &line];
    let answer = meeting.ask("REFER", &lines);
    check(&answer, 200);
    assert_eq!(answer.header("Refer-Sub"), "false");
    let called = pick_up(&mut bob);
    meeting.is_in(&bob);
    meeting.alice.fence(&mut meeting.call);
    assert!(!meeting.alice.has("NOTIFY"));
    bob.hang_up(called);
    meeting.end();
}

#[test]
fn a_referrer_may_hang_up_before_the_end() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    meeting.refer(&bob.uri());
    let invite = bob.request("INVITE");
    bob.reply(&invite, 180, &[], None);
    let Meeting {
        server,
        mut alice,
        call,
        ..
    } = meeting;
    alice.hang_up(call);
    let called = bob.pick_up(&invite);
    is_in(&server, "staff", &bob);
    bob.hang_up(called);
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

#[test]
fn a_refer_has_one_target() {
    let mut meeting = Meeting::new(&[TRUSTING]);
    let one = "Refer-To: <sip:a@127.0.0.1:1>";
    check(&meeting.ask("REFER", &[one, one]), 400);
    let both = "Refer-To: <sip:a@127.0.0.1:1>, <sip:b@127.0.0.1:1>";
    check(&meeting.ask("REFER", &[both]), 400);
    check(&meeting.ask("REFER", &[]), 400);
    check(&meeting.ask("REFER", &["Refer-To: <"]), 400);
    let mut nowhere = meeting.alice.dialog(&meeting.server.uri("nowhere"));
    check(&meeting.alice.ask(&mut nowhere, "REFER", &[one], None), 404);
    meeting.end();
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
        let mut meeting = Meeting::new(&[&set, &format!("rooms.control={control}")]);
        let mut bob = meeting.agent("bob");
        let line = format!("Refer-To: <{}>", bob.uri());
        let lines = ["Refer-Sub: false", &line];
        let mut outside = meeting.alice.dialog(&meeting.room);
        check(
            &meeting.alice.ask(&mut outside, "REFER", &lines, None),
            stranger,
        );
        let answer = meeting.ask("REFER", &lines);
        check(&answer, member);
        if member == 401 {
            let uri = meeting.call.target.clone();
            let user = ("alice", "open sesame");
            let by = authorization(&answer, user, ("REFER", &uri), "", 1);
            let lines = ["Refer-Sub: false", &line, &by];
            check(&meeting.ask("REFER", &lines), 200);
        }
        if member != 403 {
            let called = pick_up(&mut bob);
            bob.hang_up(called);
        }
        meeting.end();
    }
    std::fs::remove_file(users).unwrap();
}

#[test]
fn who_was_called_is_a_participant_like_all() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    bob.allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, MESSAGE";
    meeting.refer(&bob.uri());
    let invite = bob.request("INVITE");
    let mut called = bob.pick_up(&invite);
    assert_eq!(meeting.progress(), [100, 200]);
    meeting.is_in(&bob);
    let hold = bob.sdp("inactive");
    check(
        &bob.ask(&mut called, "UPDATE", &[], Some((agent::SDP, &hold))),
        200,
    );
    meeting.server.wait_until("bob holds", |server| {
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
    check(
        &meeting.alice.ask(&mut meeting.call, "MESSAGE", &[], text),
        202,
    );
    assert_eq!(bob.accept("MESSAGE").body, "welcome");
    for key in ["*", "6"] {
        let body = Some(("application/dtmf", key));
        check(&bob.ask(&mut called, "INFO", &[], body), 200);
    }
    meeting.server.wait_until("bob is muted", |server| {
        let all = participants_of(server, "staff");
        all.iter().any(|one| one["muted"] == true)
    });
    // He goes on at another of his phones.
    let mut mobile = meeting.agent("mobile");
    let line = format!(
        "Replaces: {};to-tag={};from-tag={}",
        called.call_id,
        called.remote_tag(),
        called.local_tag()
    );
    let (moved, _) = mobile.call_with(&meeting.room, &[&line]);
    bob.accept("BYE");
    mobile.hang_up(moved);
    meeting.end();
}

#[test]
fn a_participant_throws_another_out() {
    let mut meeting = Meeting::new(&[]);
    let mut bob = meeting.agent("bob");
    let _gone = bob.call(&meeting.room);
    meeting
        .server
        .wait_until("both are in", |server| server.participants() == 2);
    meeting.refer(&format!("{};method=BYE", bob.uri()));
    assert_eq!(meeting.progress(), [100, 200]);
    let bye = bob.accept("BYE");
    assert!(bye.header("Reason").contains("ejected"), "{bye:?}");
    meeting
        .server
        .wait_until("one is left", |server| server.participants() == 1);
    let line = format!("Refer-To: <{};method=BYE>", bob.uri());
    check(&meeting.ask("REFER", &[&line]), 404);

    // Who still rings is called no more, and whoever asked for him hears of it.
    let mut carol = meeting.agent("carol");
    meeting.refer(&carol.uri());
    let invite = carol.request("INVITE");
    carol.reply(&invite, 180, &[], None);
    assert_eq!(meeting.told(), (100, false));
    assert_eq!(meeting.told(), (180, false));
    let line = format!("Refer-To: <{};method=BYE>", carol.uri());
    let lines = ["Refer-Sub: false", &line];
    check(&meeting.ask("REFER", &lines), 200);
    carol.accept("CANCEL");
    carol.reply(&invite, 487, &[], None);
    carol.request("ACK");
    assert_eq!(meeting.progress(), [487]);
    meeting.end();
}
