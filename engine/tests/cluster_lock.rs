//! A conference that is locked is so on every server, also where nobody of it is.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/crowd.rs"]
mod crowd;

use common::Server;
use common::cluster::{listed, mesh, state, wait_for};
use crowd::{Crowd, NEITHER, REPLACES, Voice};

const ROOM: &str = "lobby";

fn order(server: &Server, what: &str) {
    let (code, body) = server.post(&format!("/api/v1/{what}"), "");
    assert!((200..300).contains(&code), "{code} {body}");
}

/// Strangers call until the last of them gets in, or does not.
fn call_until(crowd: &Crowd, server: &Server, gets_in: bool) {
    let mut number = 0;
    wait_for("a stranger gets in, or is refused", || {
        number += 1;
        let name = format!("stranger{number}");
        let who = crowd.call(&name, &server.uri(ROOM), NEITHER, Voice::Silence);
        crowd.wait_until("he is in, or refused", |crowd| {
            crowd.server(who).is_some() || crowd.story(who).status >= Some(400)
        });
        let is_in = crowd.server(who).is_some();
        match is_in {
            true => crowd.hang_up(who),
            false => assert_eq!(crowd.story(who).status, Some(403)),
        }
        is_in == gets_in
    });
}

#[test]
fn nobody_gets_into_a_locked_conference_and_who_is_in_it_may_be_moved() {
    let [a, b] = mesh(["A", "B"], &["load.max=5000"]);
    let crowd = Crowd::new();
    let member = crowd.call("member", &a.uri(ROOM), REPLACES, Voice::Silence);
    crowd.wait_until("he is in", |crowd| crowd.server(member).is_some());
    wait_for("B knows him", || listed(&b, ROOM).len() == 1);

    order(&b, &format!("conferences/{ROOM}/lock"));
    for server in [&b, &a] {
        call_until(&crowd, server, false);
    }

    // The other server calls him: had he to call it, anybody could say that he is he.
    order(&a, "drain");
    crowd.wait_until("he is there", |crowd| crowd.server(member) == Some(b.sip));
    a.wait_until("it stands by", |a| state(a) == "standby");

    // A gives the conference to B as it goes, and until B has heard so neither may change it.
    let unlock = format!("/api/v1/conferences/{ROOM}/unlock");
    wait_for("it is unlocked", || b.post(&unlock, "").0 == 200);
    call_until(&crowd, &b, true);
    crowd.hang_up_all();
    wait_for("all have left", || b.participants() == 0);
}
