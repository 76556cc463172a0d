//! What participants say without sound: keys, by INFO and in the media, and texts to all.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/sound.rs"]
mod sound;

use agent::{Agent, Dialog, Message, check_nothing_left, participants_of, serve};
use common::Server;
use simd_json::prelude::*;
use sound::Sound;

const WITH_MESSAGE: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE";

#[track_caller]
fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

fn is_muted(server: &Server) -> bool {
    let all = participants_of(server, "staff");
    all.iter().any(|one| one["muted"] == true)
}

#[test]
fn star_six_by_info_mutes_and_unmutes() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    server.wait_until("alice is in", |server| server.participants() == 1);
    assert!(!is_muted(&server));
    let relay = "application/dtmf-relay";
    for (kind, star, six) in [
        (
            relay,
            "Signal=*\r\nDuration=160\r\n",
            "Signal=6\r\nDuration=160\r\n",
        ),
        (relay, "Signal= 10\r\n", "Signal= 6\r\n"),
        ("application/dtmf", "*", "6"),
        // Pressed once more, and a number before it.
        ("application/dtmf", "9**", "6"),
    ] {
        for expected in [true, false] {
            for keys in [star, six] {
                // A key a message where the body is the key.
                let each: Vec<String> = match kind == relay {
                    true => vec![keys.to_owned()],
                    false => keys.chars().map(String::from).collect(),
                };
                for body in each {
                    check(&alice.ask(&mut call, "INFO", &[], Some((kind, &body))), 200);
                }
            }
            assert_eq!(is_muted(&server), expected, "{star:?}");
        }
    }
    // Other things that INFO carries.
    check(&alice.ask(&mut call, "INFO", &[], None), 200);
    let other = alice.ask(&mut call, "INFO", &[], Some(("text/plain", "*6")));
    check(&other, 415);
    let package = alice.ask(
        &mut call,
        "INFO",
        &["Info-Package: x"],
        Some((relay, "Signal=1\r\n")),
    );
    check(&package, 469);
    assert!(!is_muted(&server));
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn star_six_in_the_media_mutes_and_unmutes() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let (call, answer) = alice.call_with(&server.uri("staff"), &[]);
    assert!(answer.body.contains("telephone-event/8000"), "{answer:?}");
    let speech = Sound::start(&alice.rtp, answer.media_address(), true);
    let mut bob = Agent::new(&server, "bob");
    let (other, answer) = bob.call_with(&server.uri("staff"), &[]);
    let ear = Sound::start(&bob.rtp, answer.media_address(), false);
    server.wait_until("bob hears her", |_| ear.loud() > 10);
    speech.press("*6");
    server.wait_until("she is muted", is_muted);
    // What is on its way is heard out; then there is silence.
    let mut last = (ear.packets(), ear.loud());
    server.wait_until("bob hears nothing", |_| {
        let now = (ear.packets(), ear.loud());
        let is_silent = now.0 > last.0 + 25 && now.1 == last.1;
        if now.1 != last.1 {
            last = now;
        }
        is_silent
    });
    speech.press("*6");
    let before = ear.loud();
    server.wait_until("bob hears her again", |_| ear.loud() > before + 10);
    assert!(!is_muted(&server));
    drop((speech, ear));
    alice.hang_up(call);
    bob.hang_up(other);
    check_nothing_left(&server);
}

/// Somebody who takes texts, or not.
fn guest(server: &Server, name: &str, takes_texts: bool) -> (Agent, Dialog) {
    let mut agent = Agent::new(server, name);
    if takes_texts {
        agent.allow = WITH_MESSAGE;
    }
    let call = agent.call(&server.uri("staff"));
    (agent, call)
}

#[test]
fn texts_reach_all_others_who_take_them() {
    let server = serve(&[]);
    let (mut alice, mut call) = guest(&server, "alice", true);
    let (mut bob, mut bobs) = guest(&server, "bob", true);
    let (mut carol, mut carols) = guest(&server, "carol", false);
    let mut elsewhere = Agent::new(&server, "elsewhere");
    elsewhere.allow = WITH_MESSAGE;
    let mut other = elsewhere.call(&server.uri("other"));

    let text = "Grüße, all";
    let body = Some(("text/plain;charset=utf-8", text));
    check(&alice.ask(&mut call, "MESSAGE", &[], body), 202);
    let message = bob.accept("MESSAGE");
    assert_eq!(message.body, text);
    assert_eq!(message.header("Content-Type"), "text/plain;charset=utf-8");
    assert_eq!(message.header("Call-ID"), bobs.call_id);
    let author = message.header("Reply-To");
    assert!(author.contains(&alice.uri()), "{author}");

    // From outside it reaches her as well.
    let mut stranger = Agent::new(&server, "stranger");
    let mut outside = stranger.dialog(&server.uri("staff"));
    check(&stranger.ask(&mut outside, "MESSAGE", &[], body), 202);
    for (agent, _) in [(&mut alice, 0), (&mut bob, 1)] {
        let message = agent.accept("MESSAGE");
        let author = message.header("Reply-To");
        assert!(author.contains(&stranger.uri()), "{author}");
    }
    for (agent, dialog) in [
        (&mut alice, &mut call),
        (&mut bob, &mut bobs),
        (&mut carol, &mut carols),
        (&mut elsewhere, &mut other),
    ] {
        agent.fence(dialog);
        assert!(!agent.has("MESSAGE"));
    }

    // Who cannot show one says so, and stays.
    check(&alice.ask(&mut call, "MESSAGE", &[], body), 202);
    let message = bob.request("MESSAGE");
    bob.reply(&message, 415, &[], None);
    bob.fence(&mut bobs);
    assert_eq!(participants_of(&server, "staff").len(), 3);
    alice.hang_up(call);
    bob.hang_up(bobs);
    carol.hang_up(carols);
    elsewhere.hang_up(other);
    check_nothing_left(&server);
}

#[test]
fn texts_that_are_none_and_texts_to_nobody() {
    let server = serve(&[]);
    let (mut alice, mut call) = guest(&server, "alice", true);
    let (mut bob, mut bobs) = guest(&server, "bob", true);
    let image = alice.ask(&mut call, "MESSAGE", &[], Some(("image/png", "x")));
    check(&image, 415);
    assert!(image.header("Accept").contains("text/plain"), "{image:?}");
    let long = "x".repeat(10_000);
    check(
        &alice.ask(&mut call, "MESSAGE", &[], Some(("text/plain", &long))),
        413,
    );
    check(&alice.ask(&mut call, "MESSAGE", &[], None), 400);
    let mut nowhere = alice.dialog(&server.uri("nowhere"));
    let text = Some(("text/plain", "hello"));
    check(&alice.ask(&mut nowhere, "MESSAGE", &[], text), 404);
    bob.fence(&mut bobs);
    assert!(!bob.has("MESSAGE"));
    bob.hang_up(bobs);
    // Alone in the room: nobody is there to be told, which is no fault.
    check(&alice.ask(&mut call, "MESSAGE", &[], text), 202);
    alice.hang_up(call);
    check_nothing_left(&server);
}
