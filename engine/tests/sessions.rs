//! What happens to a call between its INVITE and its BYE: reliable provisional responses, changes by UPDATE
//! and re-INVITE, sessions that are refreshed or expire.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/sound.rs"]
mod sound;

use agent::{Agent, Dialog, Message, SDP, check_nothing_left, participants_of, serve};
use common::Server;
use simd_json::prelude::*;
use sound::Sound;

#[track_caller]
fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

fn statuses(server: &Server) -> Vec<String> {
    let all = participants_of(server, "staff");
    let status = |one: &simd_json::OwnedValue| one["status"].as_str().unwrap().to_owned();
    all.iter().map(status).collect()
}

#[test]
fn ringing_arrives_for_certain_where_the_caller_wants_that() {
    let server = serve(&["rooms.answer_after_ms=1500"]);
    let mut alice = Agent::new(&server, "alice");
    let mut dialog = alice.dialog(&server.uri("staff"));
    let offer = alice.sdp("sendrecv");
    let lines = ["Require: 100rel", "Supported: 100rel"];
    let branch = alice.send(&mut dialog, "INVITE", &lines, Some((SDP, &offer)));
    let is_ringing = |message: &Message| message.status() == Some(180);
    let ringing = alice.next("ringing", is_ringing);
    assert!(ringing.header("Require").contains("100rel"), "{ringing:?}");
    // Said again as long as there is no PRACK.
    let again = alice.next("ringing again", is_ringing);
    let rseq = again.header("RSeq").to_owned();
    assert_eq!(rseq, ringing.header("RSeq"));
    let mut early = Dialog {
        remote: ringing.header("To").to_owned(),
        target: agent::uri_in(ringing.header("Contact")).to_owned(),
        ..dialog.clone()
    };
    let wrong = format!(
        "RAck: {} {} INVITE",
        rseq.parse::<u32>().unwrap() + 1,
        dialog.cseq
    );
    check(&alice.ask(&mut early, "PRACK", &[&wrong], None), 481);
    let right = format!("RAck: {rseq} {} INVITE", dialog.cseq);
    check(&alice.ask(&mut early, "PRACK", &[&right], None), 200);
    check(&alice.ask(&mut early, "PRACK", &[&right], None), 481);
    let answer = alice.answer(&mut dialog, "INVITE", &branch);
    check(&answer, 200);
    assert!(
        answer
            .find("Require")
            .is_none_or(|it| !it.contains("100rel"))
    );
    alice.ack(&mut dialog, None);
    dialog.cseq = early.cseq;
    server.wait_until("he is in", |server| server.participants() == 1);
    alice.hang_up(dialog);
    check_nothing_left(&server);
}

#[test]
fn a_caller_without_that_wish_hears_ringing_too_and_may_give_up() {
    let server = serve(&["rooms.answer_after_ms=60000"]);
    let mut alice = Agent::new(&server, "alice");
    let mut dialog = alice.dialog(&server.uri("staff"));
    let offer = alice.sdp("sendrecv");
    for lines in [&[][..], &["Supported: 100rel"], &["Require: 100rel"]] {
        let branch = alice.send(&mut dialog, "INVITE", lines, Some((SDP, &offer)));
        let ringing = alice.next("ringing", |message| message.status() == Some(180));
        assert_eq!(ringing.find("RSeq").is_some(), lines == ["Require: 100rel"]);
        alice.cancel(&mut dialog, &branch);
        // What is over is not said again.
        alice.discard();
        dialog = alice.dialog(&server.uri("staff"));
    }
    check_nothing_left(&server);
}

#[test]
fn an_update_holds_and_resumes() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    for (direction, answered, status) in [
        ("inactive", "a=inactive", "on-hold"),
        ("sendrecv", "a=sendrecv", "connected"),
        ("sendonly", "a=recvonly", "on-hold"),
        ("sendrecv", "a=sendrecv", "connected"),
    ] {
        let offer = alice.sdp(direction);
        let answer = alice.ask(&mut call, "UPDATE", &[], Some((SDP, &offer)));
        check(&answer, 200);
        assert!(answer.body.contains(answered), "{answer:?}");
        server.wait_until("it is so", |server| statuses(server) == [status]);
    }
    // No offer changes nothing.
    let answer = alice.ask(&mut call, "UPDATE", &[], None);
    check(&answer, 200);
    assert!(answer.body.is_empty());
    // What is refused changes nothing either.
    let offer = alice.sdp("inactive").replace("RTP/AVP 0 101", "RTP/AVP 3");
    check(
        &alice.ask(&mut call, "UPDATE", &[], Some((SDP, &offer))),
        488,
    );
    assert_eq!(statuses(&server), ["connected"]);
    alice.hang_up(call);
    check_nothing_left(&server);
}

/// A phone on hold plays music to whoever it holds; one that only ever speaks, as an announcer does, is heard.
#[test]
fn the_music_of_who_holds_is_not_mixed() {
    let server = serve(&[]);
    let mut bob = Agent::new(&server, "bob");
    let (listening, answer) = bob.call_with(&server.uri("staff"), &[]);
    let ear = Sound::start(&bob.rtp, answer.media_address(), false);
    let hears = |ear: &Sound, what: &str, is_loud: bool| {
        server.wait_until(what, |_| {
            let (packets, loud) = (ear.packets(), ear.loud());
            while ear.packets() < packets + 20 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            (ear.loud() > loud + 10) == is_loud && (is_loud || ear.loud() == loud)
        });
    };
    let mut alice = Agent::new(&server, "alice");
    let (mut call, answer) = alice.call_with(&server.uri("staff"), &[]);
    let voice = Sound::start(&alice.rtp, answer.media_address(), true);
    hears(&ear, "alice speaks", true);
    for (direction, is_heard) in [("sendonly", false), ("sendrecv", true)] {
        let offer = alice.sdp(direction);
        check(
            &alice.ask(&mut call, "INVITE", &[], Some((SDP, &offer))),
            200,
        );
        alice.ack(&mut call, None);
        hears(&ear, direction, is_heard);
    }
    drop(voice);
    alice.hang_up(call);

    let mut announcer = Agent::new(&server, "announcer");
    let mut call = announcer.dialog(&server.uri("staff"));
    let offer = announcer.sdp("sendonly");
    let answer = announcer.ask(&mut call, "INVITE", &[], Some((SDP, &offer)));
    check(&answer, 200);
    announcer.ack(&mut call, None);
    let voice = Sound::start(&announcer.rtp, answer.media_address(), true);
    hears(&ear, "the announcer speaks", true);
    drop((voice, ear));
    announcer.hang_up(call);
    bob.hang_up(listening);
    check_nothing_left(&server);
}

#[test]
fn a_reinvite_without_an_offer_gets_one() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    let offer = alice.ask(&mut call, "INVITE", &[], None);
    check(&offer, 200);
    assert!(offer.body.contains("m=audio"), "{offer:?}");
    let hold = alice.sdp("inactive");
    alice.ack(&mut call, Some(&hold));
    server.wait_until("it holds", |server| statuses(server) == ["on-hold"]);
    alice.hang_up(call);

    // So does an INVITE; what is no answer to it ends the call.
    let mut call = alice.dialog(&server.uri("staff"));
    let offer = alice.ask(&mut call, "INVITE", &[], None);
    check(&offer, 200);
    let answer = alice.sdp("sendrecv");
    alice.ack(&mut call, Some(&answer));
    server.wait_until("he is in", |server| statuses(server) == ["connected"]);
    alice.hang_up(call);
    let mut call = alice.dialog(&server.uri("staff"));
    check(&alice.ask(&mut call, "INVITE", &[], None), 200);
    alice.ack(&mut call, None);
    let bye = alice.accept("BYE");
    assert!(bye.header("Reason").contains("no usable answer"), "{bye:?}");
    check_nothing_left(&server);
}

/// A call with such a session timer; gives what the server said of it.
#[track_caller]
fn timed(agent: &mut Agent, server: &Server, expires: &str) -> (Dialog, String) {
    let expires = format!("Session-Expires: {expires}");
    let lines = ["Supported: timer", &expires];
    let (call, answer) = agent.call_with(&server.uri("staff"), &lines);
    let agreed = answer.header("Session-Expires").to_owned();
    let requires = answer.find("Require") == Some("timer");
    assert_eq!(requires, agreed.ends_with(";refresher=uac"), "{answer:?}");
    (call, agreed)
}

#[test]
fn the_server_refreshes_by_update_or_reinvite() {
    let server = serve(&["sip.session_min_s=2"]);
    let with_update = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE";
    let without = "INVITE, ACK, BYE, CANCEL, OPTIONS";
    for (allow, method) in [(with_update, "UPDATE"), (without, "INVITE")] {
        let mut alice = Agent::new(&server, "alice");
        alice.allow = allow;
        let (call, agreed) = timed(&mut alice, &server, "3;refresher=uas");
        assert_eq!(agreed, "3;refresher=uas");
        for _ in 0..2 {
            let refresh = alice.request(method);
            assert_eq!(refresh.header("Session-Expires"), "3;refresher=uac");
            assert_eq!(refresh.header("Call-ID"), call.call_id);
            let lines = ["Session-Expires: 3;refresher=uac", "Require: timer"];
            if method == "INVITE" {
                assert!(refresh.body.contains("m=audio"), "{refresh:?}");
                let answer = alice.sdp("sendrecv");
                alice.reply(&refresh, 200, &lines, Some((SDP, &answer)));
                alice.request("ACK");
            } else {
                assert!(refresh.body.is_empty(), "{refresh:?}");
                alice.reply(&refresh, 200, &lines, None);
            }
        }
        assert_eq!(statuses(&server), ["connected"]);
        alice.hang_up(call);
        check_nothing_left(&server);
    }
}

#[test]
fn a_phone_that_knows_the_call_no_more_ends_it_at_the_refresh() {
    let server = serve(&["sip.session_min_s=2"]);
    let mut alice = Agent::new(&server, "alice");
    alice.allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE";
    let _lost = timed(&mut alice, &server, "2;refresher=uas");
    let refresh = alice.request("UPDATE");
    alice.reply(&refresh, 481, &[], None);
    alice.accept("BYE");
    check_nothing_left(&server);
}

#[test]
fn a_phone_that_refreshes_stays_and_one_that_does_not_goes() {
    let server = serve(&["sip.session_min_s=2"]);
    let mut alice = Agent::new(&server, "alice");
    let (mut call, agreed) = timed(&mut alice, &server, "3;refresher=uac");
    assert_eq!(agreed, "3;refresher=uac");
    let mut idle = Agent::new(&server, "idle");
    let (lost, _) = timed(&mut idle, &server, "3;refresher=uac");
    // Refreshed until the other has gone, which would take as long.
    let lines = ["Supported: timer", "Session-Expires: 3;refresher=uac"];
    while !idle.has("BYE") {
        let answer = alice.ask(&mut call, "UPDATE", &lines, None);
        check(&answer, 200);
        assert_eq!(answer.header("Session-Expires"), "3;refresher=uac");
    }
    let bye = idle.accept("BYE");
    assert_eq!(bye.header("Call-ID"), lost.call_id);
    assert!(bye.header("Reason").contains("session expired"), "{bye:?}");
    server.wait_until("one is left", |server| server.participants() == 1);
    assert!(!alice.has("BYE"));
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn sessions_that_are_too_short_are_refused_with_what_is_long_enough() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut dialog = alice.dialog(&server.uri("staff"));
    let lines = ["Supported: timer", "Session-Expires: 60"];
    let refusal = alice.invite(&mut dialog, &lines);
    check(&refusal, 422);
    assert_eq!(refusal.header("Min-SE"), "90");
    let lines = ["Supported: timer", "Session-Expires: 90", "Min-SE: 90"];
    let answer = alice.invite(&mut dialog, &lines);
    check(&answer, 200);
    assert!(
        answer.header("Session-Expires").starts_with("90;"),
        "{answer:?}"
    );
    alice.ack(&mut dialog, None);
    alice.hang_up(dialog);

    // Asked of who can, left alone who cannot.
    let (call, answer) = alice.call_with(&server.uri("staff"), &["Supported: timer"]);
    assert!(
        answer.header("Session-Expires").starts_with("1800;"),
        "{answer:?}"
    );
    alice.hang_up(call);
    let (call, answer) = alice.call_with(&server.uri("staff"), &[]);
    assert_eq!(answer.find("Session-Expires"), None);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn an_extension_that_nobody_knows_is_refused_by_name() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut dialog = alice.dialog(&server.uri("staff"));
    let refusal = alice.invite(&mut dialog, &["Require: telepathy, 100rel"]);
    check(&refusal, 420);
    assert_eq!(refusal.header("Unsupported"), "telepathy");
    check_nothing_left(&server);
}
