//! Calls that a conference makes itself when it is asked over HTTP.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/meeting.rs"]
mod meeting;

use agent::{Agent, check_nothing_left, serve};
use meeting::{is_in, pick_up};
use simd_json::prelude::*;

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
