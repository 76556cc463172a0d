//! How calls come to their room by other ways than its name: the conference factory, Replaces and Join.

#[path = "common/agent.rs"]
mod agent;
mod common;

use agent::{Agent, Dialog, Message, check_nothing_left, participants_of, serve, uri_in};
use common::Server;
use simd_json::prelude::*;

#[track_caller]
fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

/// Who is in a room, in any order.
fn entities(server: &Server, room: &str) -> Vec<String> {
    let all = participants_of(server, room);
    let entity = |one: &simd_json::OwnedValue| one["entity"].as_str().unwrap().to_owned();
    all.iter().map(entity).collect()
}

/// The room in a Contact.
fn room_of(contact: &str) -> &str {
    let uri = uri_in(contact).strip_prefix("sip:").unwrap();
    uri.split_once('@').unwrap().0
}

#[test]
fn the_factory_makes_a_room_for_each_who_calls_it() {
    let server = serve(&["rooms.auto_create=false"]);
    let mut alice = Agent::new(&server, "alice");
    let factory = server.uri("conference");
    let mut outside = alice.dialog(&factory);
    check(&alice.ask(&mut outside, "OPTIONS", &[], None), 200);
    let (first, answer) = alice.call_with(&factory, &[]);
    let contact = answer.header("Contact").to_owned();
    assert!(contact.ends_with(";isfocus"), "{contact}");
    let (second, answer) = alice.call_with(&factory, &[]);
    let other = answer.header("Contact").to_owned();
    let rooms = [room_of(&contact), room_of(&other)];
    assert_ne!(rooms[0], rooms[1]);
    assert!(
        rooms
            .iter()
            .all(|room| !room.is_empty() && *room != "conference")
    );

    // Whoever is told the URI gets in.
    let mut bob = Agent::new(&server, "bob");
    let guest = bob.call(uri_in(&contact));
    server.wait_until("two meet and one is alone", |server| {
        entities(server, rooms[0]).len() == 2 && entities(server, rooms[1]).len() == 1
    });
    let mut stranger = bob.dialog(&server.uri("conference-0"));
    check(&bob.invite(&mut stranger, &[]), 404);
    bob.hang_up(guest);
    alice.hang_up(first);
    alice.hang_up(second);
    check_nothing_left(&server);
}

#[test]
fn a_room_says_what_it_is() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let (call, answer) = alice.call_with(&server.uri("staff"), &[]);
    assert!(answer.header("Contact").contains(";isfocus"));
    let mut outside = alice.dialog(&server.uri("staff"));
    let answer = alice.ask(&mut outside, "OPTIONS", &[], None);
    check(&answer, 200);
    assert!(answer.header("Contact").contains(";isfocus"), "{answer:?}");
    for method in ["INVITE", "UPDATE", "PRACK", "REFER", "SUBSCRIBE", "MESSAGE"] {
        let mut known = answer.header("Allow").split(", ");
        assert!(known.any(|one| one == method), "{method} in {answer:?}");
    }
    let events = answer.header("Allow-Events");
    assert!(events.contains("conference") && events.contains("refer"));
    for option in ["100rel", "timer", "replaces", "join"] {
        let mut known = answer.header("Supported").split(", ");
        assert!(known.any(|one| one == option), "{option} in {answer:?}");
    }
    assert!(answer.header("Accept").contains("application/sdp"));
    alice.hang_up(call);
    check_nothing_left(&server);
}

/// A call as Replaces and Join name it: the server's tag is the one that is here To's.
fn name(header: &str, dialog: &Dialog) -> String {
    format!(
        "{header}: {};to-tag={};from-tag={}",
        dialog.call_id,
        dialog.remote_tag(),
        dialog.local_tag()
    )
}

#[test]
fn a_call_takes_the_place_of_another() {
    // As many as fit: the new one needs no place of its own.
    let server = serve(&["rooms.max_participants=1"]);
    let mut desk = Agent::new(&server, "desk");
    let old = desk.call(&server.uri("staff"));
    server.wait_until("the desk is in", |server| server.participants() == 1);
    let mut mobile = Agent::new(&server, "mobile");
    // The Request-URI may name anything: the dialog says where it goes.
    let (new, answer) = mobile.call_with(&server.uri("elsewhere"), &[&name("Replaces", &old)]);
    assert_eq!(room_of(answer.header("Contact")), "staff");
    let bye = desk.accept("BYE");
    assert_eq!(bye.header("Call-ID"), old.call_id);
    assert!(bye.header("Reason").contains("replaced"), "{bye:?}");
    server.wait_until("the mobile alone is in", |server| {
        entities(server, "staff") == [mobile.uri()]
    });
    assert!(entities(&server, "elsewhere").is_empty());

    // What it has replaced is over.
    let mut late = mobile.dialog(&server.uri("staff"));
    let refused = mobile.invite(&mut late, &[&name("Replaces", &old)]);
    assert!(matches!(refused.status(), Some(481 | 603)), "{refused:?}");
    mobile.hang_up(new);
    check_nothing_left(&server);
}

#[test]
fn what_cannot_be_replaced() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let call = alice.call(&server.uri("staff"));
    let mut bob = Agent::new(&server, "bob");
    let mut answer = |lines: &[&str]| {
        let mut dialog = bob.dialog(&server.uri("staff"));
        bob.invite(&mut dialog, lines).status()
    };
    let right = name("Replaces", &call);
    let unknown = "Replaces: nobody;to-tag=1;from-tag=2";
    assert_eq!(answer(&[unknown]), Some(481));
    let swapped = Dialog {
        local: call.remote.clone(),
        remote: call.local.clone(),
        ..call.clone()
    };
    assert_eq!(answer(&[&name("Replaces", &swapped)]), Some(481));
    let stranger = format!(
        "Replaces: {};to-tag={};from-tag=x",
        call.call_id,
        call.remote_tag()
    );
    assert_eq!(answer(&[&stranger]), Some(481));
    assert_eq!(answer(&[&format!("{right};early-only")]), Some(486));
    assert_eq!(answer(&[&right, &right]), Some(400));
    assert_eq!(answer(&[&right, &name("Join", &call)]), Some(400));
    assert_eq!(answer(&["Replaces: x"]), Some(400));
    assert_eq!(answer(&["Join: nobody;to-tag=1;from-tag=2"]), Some(481));
    assert_eq!(entities(&server, "staff"), [alice.uri()]);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_call_joins_another_wherever_that_is() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let (call, answer) = alice.call_with(&server.uri("conference"), &[]);
    let room = room_of(answer.header("Contact")).to_owned();
    let mut bob = Agent::new(&server, "bob");
    let (guest, answer) = bob.call_with(&server.uri("elsewhere"), &[&name("Join", &call)]);
    assert_eq!(room_of(answer.header("Contact")), room);
    server.wait_until("both are in one room", |server| {
        entities(server, &room).len() == 2
    });
    assert!(entities(&server, "elsewhere").is_empty());
    bob.hang_up(guest);
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_replacing_call_that_is_refused_leaves_the_old_one() {
    let server = serve(&[]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.call(&server.uri("staff"));
    let mut bob = Agent::new(&server, "bob");
    let mut dialog = bob.dialog(&server.uri("staff"));
    let offer = bob.sdp("sendrecv").replace("RTP/AVP 0 101", "RTP/AVP 3");
    let line = name("Replaces", &call);
    let body = Some((agent::SDP, offer.as_str()));
    check(&bob.ask(&mut dialog, "INVITE", &[&line], body), 488);
    alice.fence(&mut call);
    assert!(!alice.has("BYE"));
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn a_room_with_a_password_is_not_joined_by_naming_a_call_in_it() {
    let server = serve(&[
        "rooms.policies=staff=authenticated",
        "auth.trusted=127.0.0.9",
    ]);
    let mut alice = Agent::at([127, 0, 0, 9], &server, "alice");
    let call = alice.call(&server.uri("staff"));
    let mut bob = Agent::new(&server, "bob");
    for header in ["Replaces", "Join"] {
        let mut dialog = bob.dialog(&server.uri("lobby"));
        check(&bob.invite(&mut dialog, &[&name(header, &call)]), 401);
    }
    alice.hang_up(call);
    check_nothing_left(&server);
}

#[test]
fn who_rings_has_his_place() {
    let server = serve(&["rooms.max_participants=1", "rooms.answer_after_ms=60000"]);
    let mut alice = Agent::new(&server, "alice");
    let mut call = alice.dialog(&server.uri("staff"));
    let offer = alice.sdp("sendrecv");
    let branch = alice.send(&mut call, "INVITE", &[], Some((agent::SDP, &offer)));
    alice.next("ringing", |message| message.status() == Some(180));
    let mut bob = Agent::new(&server, "bob");
    let mut late = bob.dialog(&server.uri("staff"));
    check(&bob.invite(&mut late, &[]), 486);
    alice.cancel(&mut call, &branch);
    check_nothing_left(&server);
}
