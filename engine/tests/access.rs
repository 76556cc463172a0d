//! Who gets in: users with a password, trusted addresses, those who key in a number.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/sound.rs"]
mod sound;

use std::path::PathBuf;

use agent::{
    Agent, Dialog, Message, SDP, answer_to, authorization, check_nothing_left, participants_of,
    serve,
};
use common::{Phone, Server, scratch};
use simd_json::prelude::*;
use sound::Sound;

const ALICE: (&str, &str) = ("alice", "open sesame");

/// A users file that is gone at the end of the test.
struct Users(PathBuf);

impl Users {
    fn new(name: &str) -> Self {
        let users = Self(scratch(name));
        users.write("[alice]\npassword = \"open sesame\"\n");
        users
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn set(&self) -> String {
        format!("auth.users={}", self.0.display())
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[track_caller]
fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

/// Sends a request that is challenged, and gives the challenge.
#[track_caller]
fn challenged(
    agent: &mut Agent,
    dialog: &mut Dialog,
    method: &str,
    lines: &[&str],
    body: Option<(&str, &str)>,
) -> Message {
    let challenge = agent.ask(dialog, method, lines, body);
    check(&challenge, 401);
    challenge
}

/// Answers the challenge to an INVITE so, and gives what comes of it.
#[track_caller]
fn invite_as(
    agent: &mut Agent,
    dialog: &mut Dialog,
    challenge: &Message,
    user: (&str, &str),
) -> Message {
    let line = authorization(challenge, user, ("INVITE", &dialog.target), "", 1);
    agent.invite(dialog, &[&line])
}

fn users_only(users: &Users) -> Server {
    serve(&["rooms.access=authenticated", &users.set()])
}

#[test]
fn a_user_is_challenged_by_both_algorithms_and_gets_in_with_either() {
    let users = Users::new("both");
    let server = users_only(&users);
    let mut agent = Agent::new(&server, "alice");
    for (place, algorithm) in [(0, "SHA-256"), (1, "MD5")] {
        let mut dialog = agent.dialog(&server.uri("board"));
        let challenge = agent.invite(&mut dialog, &[]);
        check(&challenge, 401);
        let challenges: Vec<&str> = challenge.headers("WWW-Authenticate").collect();
        assert_eq!(challenges.len(), 2, "{challenges:?}");
        let named = format!("algorithm={algorithm}");
        assert!(challenges[place].contains(&named), "{challenges:?}");
        assert!(challenges[place].contains("realm=\"plenum\""));
        // A phone that knows this one only.
        let one = [challenges[place]];
        let line = answer_to(&one, ALICE, ("INVITE", &dialog.target), "", 1);
        let answer = agent.invite(&mut dialog, &[&line]);
        check(&answer, 200);
        agent.ack(&mut dialog, None);
        server.wait_until("he is in", |server| server.participants() == 1);
        // Who is in is not asked again.
        agent.fence(&mut dialog);
        agent.hang_up(dialog);
        check_nothing_left(&server);
    }
}

#[test]
fn wrong_passwords_and_unknown_users_stay_outside() {
    let users = Users::new("wrong");
    let server = users_only(&users);
    let mut agent = Agent::new(&server, "mallory");
    for user in [("alice", "wrong"), ("mallory", "open sesame")] {
        let mut dialog = agent.dialog(&server.uri("board"));
        let challenge = agent.invite(&mut dialog, &[]);
        let refusal = invite_as(&mut agent, &mut dialog, &challenge, user);
        check(&refusal, 401);
        // He is not told that only the nonce was wrong, which would have his phone try for ever.
        for value in refusal.headers("WWW-Authenticate") {
            assert!(!value.contains("stale=true"), "{value}");
        }
    }
    assert_eq!(server.participants(), 0);
    check_nothing_left(&server);
}

#[test]
fn an_authorization_is_good_once_and_for_its_own_request_only() {
    let users = Users::new("replay");
    let server = users_only(&users);
    let mut alice = Agent::new(&server, "alice");
    let mut dialog = alice.dialog(&server.uri("board"));
    let challenge = alice.invite(&mut dialog, &[]);
    let uri = dialog.target.clone();
    let line = authorization(&challenge, ALICE, ("INVITE", &uri), "", 1);
    check(&alice.invite(&mut dialog, &[&line]), 200);
    alice.ack(&mut dialog, None);

    // Somebody who has overheard it.
    let mut mallory = Agent::new(&server, "mallory");
    let mut replay = mallory.dialog(&server.uri("board"));
    let refusal = mallory.invite(&mut replay, &[&line]);
    check(&refusal, 401);
    let challenges: Vec<&str> = refusal.headers("WWW-Authenticate").collect();
    assert!(challenges.iter().all(|value| value.contains("stale=true")));
    let mut elsewhere = mallory.dialog(&server.uri("other"));
    check(&mallory.invite(&mut elsewhere, &[&line]), 401);

    // The next use of the same nonce is another number.
    let mut second = alice.dialog(&server.uri("board"));
    let line = authorization(&challenge, ALICE, ("INVITE", &uri), "", 2);
    check(&alice.invite(&mut second, &[&line]), 200);
    alice.ack(&mut second, None);
    alice.hang_up(dialog);
    alice.hang_up(second);
    check_nothing_left(&server);
}

#[test]
fn a_nonce_of_another_server_is_stale_and_the_new_one_is_good() {
    let users = Users::new("stale");
    let server = users_only(&users);
    let mut agent = Agent::new(&server, "alice");
    let mut dialog = agent.dialog(&server.uri("board"));
    let mut challenge = agent.invite(&mut dialog, &[]);
    // As if this server had begun anew since.
    let other = server.start_beside(&["rooms.access=authenticated", &users.set()]);
    let mut there = Agent::new(&other, "alice");
    let mut call = there.dialog(&other.uri("board"));
    let refusal = invite_as(&mut there, &mut call, &challenge, ALICE);
    check(&refusal, 401);
    let stale = |message: &Message| {
        let mut values = message.headers("WWW-Authenticate");
        values.any(|value| value.contains("stale=true"))
    };
    assert!(stale(&refusal), "{refusal:?}");
    challenge = refusal;
    check(&invite_as(&mut there, &mut call, &challenge, ALICE), 200);
    there.ack(&mut call, None);
    there.hang_up(call);
    check_nothing_left(&other);
    check_nothing_left(&server);
}

#[test]
fn servers_of_one_secret_take_each_others_challenges() {
    let users = Users::new("secret");
    let users_set = users.set();
    let sets = [
        "rooms.access=authenticated",
        &users_set,
        "auth.secret=0123456789abcdef0123456789abcdef",
    ];
    let one = serve(&sets);
    let other = one.start_beside(&sets);
    let mut agent = Agent::new(&one, "alice");
    let mut dialog = agent.dialog(&one.uri("board"));
    let challenge = agent.invite(&mut dialog, &[]);
    let mut there = Agent::new(&other, "alice");
    let mut call = there.dialog(&other.uri("board"));
    check(&invite_as(&mut there, &mut call, &challenge, ALICE), 200);
    there.ack(&mut call, None);
    there.hang_up(call);
    check_nothing_left(&other);
    check_nothing_left(&one);
}

#[test]
fn sighup_reads_the_users_again() {
    let users = Users::new("reload");
    let server = users_only(&users);
    let mut agent = Agent::new(&server, "bob");
    let bob = ("bob", "new here");
    let mut answer = |server: &Server| {
        let mut dialog = agent.dialog(&server.uri("board"));
        let challenge = agent.invite(&mut dialog, &[]);
        let answer = invite_as(&mut agent, &mut dialog, &challenge, bob);
        if answer.status() == Some(200) {
            agent.ack(&mut dialog, None);
            agent.hang_up(dialog);
        }
        answer.status()
    };
    assert_eq!(answer(&server), Some(401));
    users.write("[bob]\npassword = \"new here\"\n");
    server.signal("HUP");
    server.wait_until("bob gets in", |server| answer(server) == Some(200));
    // What cannot be read changes nothing.
    users.write("[bob]\npasswort = \"x\"\n");
    server.signal("HUP");
    server.wait_until("it says so", |server| server.log().contains("passwort"));
    assert_eq!(answer(&server), Some(200));
    check_nothing_left(&server);
}

#[test]
fn trusted_addresses_need_no_password_and_rooms_have_policies_of_their_own() {
    let users = Users::new("policies");
    let server = serve(&[
        &users.set(),
        "auth.trusted=127.0.0.9",
        "rooms.policies=board=authenticated,sales=pin:4711",
    ]);
    let mut stranger = Agent::new(&server, "stranger");
    let mut trusted = Agent::at([127, 0, 0, 9], &server, "trusted");
    let open = stranger.call(&server.uri("lobby"));
    let mut board = stranger.dialog(&server.uri("board"));
    check(&stranger.invite(&mut board, &[]), 401);
    let inside = trusted.call(&server.uri("board"));
    let sales = trusted.call(&server.uri("sales"));
    server.wait_until("nobody waits for a number", |server| {
        participants_of(server, "sales")
            .iter()
            .any(|one| one["muted"] == false)
    });
    trusted.hang_up(sales);
    trusted.hang_up(inside);
    stranger.hang_up(open);
    check_nothing_left(&server);
}

#[test]
fn other_requests_than_calls_are_challenged_too() {
    let users = Users::new("requests");
    let server = users_only(&users);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.dialog(&server.uri("board"));
    let challenge = alice.invite(&mut call, &[]);
    check(&invite_as(&mut alice, &mut call, &challenge, ALICE), 200);
    alice.ack(&mut call, None);

    let uri = server.uri("board");
    let mut outside = Agent::new(&server, "outside");
    let to = format!("Refer-To: <sip:nobody@{};method=BYE>", outside.address);
    let text = Some(("text/plain", "hello"));
    for (method, lines, body, accepted) in [
        (
            "SUBSCRIBE",
            vec!["Event: conference", "Expires: 0"],
            None,
            200,
        ),
        ("MESSAGE", vec![], text, 202),
        ("REFER", vec![to.as_str()], None, 404),
    ] {
        let mut dialog = outside.dialog(&uri);
        let challenge = challenged(&mut outside, &mut dialog, method, &lines, body);
        let content = body.map_or("", |(_, content)| content);
        let wrong = ("alice", "wrong");
        let wrong = authorization(&challenge, wrong, (method, &uri), content, 1);
        let lines_of = |line: &str| [lines.as_slice(), &[line]].concat().join("\r\n");
        let refused = outside.ask(&mut dialog, method, &[&lines_of(&wrong)], body);
        check(&refused, 401);
        let right = authorization(&challenge, ALICE, (method, &uri), content, 2);
        let answer = outside.ask(&mut dialog, method, &[&lines_of(&right)], body);
        check(&answer, accepted);
        if method == "SUBSCRIBE" {
            let notify = outside.accept("NOTIFY");
            assert!(notify.body.contains("sip:alice@"), "{notify:?}");
        }
    }
    alice.hang_up(call);
    check_nothing_left(&server);
}

/// A caller of a room with a number, and his sound.
fn caller(server: &Server, name: &str, is_tone: bool) -> (Agent, Dialog, Sound) {
    let mut agent = Agent::new(server, name);
    let (dialog, answer) = agent.call_with(&server.uri("sales"), &[]);
    let sound = Sound::start(&agent.rtp, answer.media_address(), is_tone);
    (agent, dialog, sound)
}

/// The one called so, as the HTTP interface has him.
fn is_talking(server: &Server, name: &str) -> bool {
    let is_he = |one: &simd_json::OwnedValue| {
        let entity = one["entity"].as_str().unwrap();
        entity.starts_with(&format!("sip:{name}@"))
    };
    let all = participants_of(server, "sales");
    all.iter().any(|one| is_he(one) && one["talking"] == true)
}

#[test]
fn before_his_number_a_caller_neither_hears_nor_is_heard() {
    let server = serve(&["rooms.access=pin:4711", "auth.trusted=127.0.0.9"]);
    let mut inside = Agent::at([127, 0, 0, 9], &server, "inside");
    let (inner, answer) = inside.call_with(&server.uri("sales"), &[]);
    let speech = Sound::start(&inside.rtp, answer.media_address(), true);
    server.wait_until("the member talks", |server| is_talking(server, "inside"));

    let (mut agent, mut dialog, sound) = caller(&server, "caller", true);
    server.wait_until("both are there", |server| server.participants() == 2);
    // The member hears silence for as long as it takes to be sure of it.
    let before = speech.packets();
    server.wait_until("sound has flowed", |_| speech.packets() > before + 50);
    assert!(!is_talking(&server, "caller"));
    assert_eq!(speech.loud(), 0, "the caller is heard");
    assert_eq!(sound.loud(), 0, "the caller hears");

    sound.press("0815#");
    agent.fence(&mut dialog);
    assert_eq!(speech.loud(), 0, "the caller is heard with a wrong number");
    sound.press("4711#");
    server.wait_until("both hear each other", |_| {
        speech.loud() > 10 && sound.loud() > 10
    });
    assert!(is_talking(&server, "caller"));
    drop((sound, speech));
    agent.hang_up(dialog);
    inside.hang_up(inner);
    check_nothing_left(&server);
}

#[test]
fn a_caller_whose_ack_is_missing_is_not_heard_either() {
    let server = serve(&["rooms.access=pin:4711", "auth.trusted=127.0.0.9"]);
    let mut inside = Agent::at([127, 0, 0, 9], &server, "inside");
    let (inner, answer) = inside.call_with(&server.uri("sales"), &[]);
    let ear = Sound::start(&inside.rtp, answer.media_address(), false);
    let mut agent = Agent::new(&server, "caller");
    let mut dialog = agent.dialog(&server.uri("sales"));
    let answer = agent.invite(&mut dialog, &[]);
    check(&answer, 200);
    let sound = Sound::start(&agent.rtp, answer.media_address(), true);
    let (received, before) = ("plenum_rtp_received_total", ear.packets());
    server.wait_until("his sound arrives", |server| {
        server.metric(received) > 100.0 && ear.packets() > before + 50
    });
    assert_eq!(ear.loud(), 0, "the caller is heard");
    agent.ack(&mut dialog, None);
    drop((sound, ear));
    agent.hang_up(dialog);
    inside.hang_up(inner);
    check_nothing_left(&server);
}

#[test]
fn three_wrong_numbers_end_the_call() {
    let server = serve(&["rooms.access=pin:4711"]);
    let (mut agent, _, sound) = caller(&server, "caller", false);
    sound.press("1#2#3#");
    let bye = agent.accept("BYE");
    assert!(bye.header("Reason").contains("wrong PIN"), "{bye:?}");
    check_nothing_left(&server);
}

#[test]
fn a_number_may_come_by_info() {
    let server = serve(&["rooms.access=pin:4711"]);
    let (mut agent, mut dialog, sound) = caller(&server, "caller", true);
    server.wait_until("he is there", |server| server.participants() == 1);
    assert!(!is_talking(&server, "caller"));
    for key in "4711#".chars() {
        let body = format!("Signal={key}\r\nDuration=160\r\n");
        let body = Some(("application/dtmf-relay", body.as_str()));
        check(&agent.ask(&mut dialog, "INFO", &[], body), 200);
    }
    server.wait_until("he is heard", |server| is_talking(server, "caller"));
    drop(sound);
    agent.hang_up(dialog);
    check_nothing_left(&server);
}

#[test]
fn who_has_not_keyed_in_the_number_reads_and_writes_nothing() {
    let server = serve(&["rooms.access=pin:4711", "auth.trusted=127.0.0.9"]);
    let mut inside = Agent::at([127, 0, 0, 9], &server, "inside");
    inside.allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE";
    let mut inner = inside.call(&server.uri("sales"));
    let (mut agent, mut dialog, sound) = caller(&server, "caller", false);
    let lines = ["Event: conference", "Expires: 0"];
    let text = Some(("text/plain", "let me in"));
    let refer = format!("Refer-To: <sip:x@{}>", agent.address);
    let mut outside = agent.dialog(&server.uri("sales"));
    for dialog in [&mut dialog, &mut outside] {
        check(&agent.ask(dialog, "SUBSCRIBE", &lines, None), 401);
        check(&agent.ask(dialog, "MESSAGE", &[], text), 401);
        check(&agent.ask(dialog, "REFER", &[&refer], None), 401);
    }
    inside.fence(&mut inner);
    assert!(!inside.has("MESSAGE"));
    sound.press("4711#");
    server.wait_until("he is in", |server| {
        let all = participants_of(server, "sales");
        all.iter().all(|one| one["muted"] == false)
    });
    check(&agent.ask(&mut dialog, "MESSAGE", &[], text), 202);
    assert_eq!(inside.accept("MESSAGE").body, "let me in");
    check(&agent.ask(&mut dialog, "SUBSCRIBE", &lines, None), 200);
    agent.accept("NOTIFY");
    drop(sound);
    agent.hang_up(dialog);
    inside.hang_up(inner);
    check_nothing_left(&server);
}

#[test]
fn a_room_with_a_number_takes_no_offer_from_a_phone_that_gives_up() {
    let server = serve(&["rooms.access=pin:4711", "rooms.answer_after_ms=60000"]);
    let mut agent = Agent::new(&server, "caller");
    let mut dialog = agent.dialog(&server.uri("sales"));
    let offer = agent.sdp("sendrecv");
    let branch = agent.send(&mut dialog, "INVITE", &[], Some((SDP, &offer)));
    agent.next("ringing", |message| message.status() == Some(180));
    agent.cancel(&mut dialog, &branch);
    check_nothing_left(&server);
}

/// Our own phone answers challenges, and gives up when its password is wrong.
#[test]
fn plenum_call_knows_a_password() {
    let users = Users::new("users-call.toml");
    let server = Server::start(&[&users.set(), "rooms.access=authenticated"]);
    let call = |password: &str| {
        let identity = ["--user", "alice", "--password", password];
        let arguments = [&identity[..], &["--tone", "440", "--seconds", "1"]].concat();
        Phone::call(&server.uri("board"), &arguments).finish()
    };
    assert!(call("open sesame").status.success());
    let refused = call("open barley");
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("refused with 401"), "{said}");
    check_nothing_left(&server);
}
