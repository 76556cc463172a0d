//! A server gives its callers away and stands by: with phones that know Replaces, with those that know REFER
//! only, and with those that know neither.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/crowd.rs"]
mod crowd;

use std::time::Duration;

use common::Server;
use common::cluster::{listed, mesh, peers, state, wait_for};
use crowd::{Crowd, NEITHER, REFER, REPLACES, Skills, Voice, Who};

/// So long may a caller hear nothing when he is moved.
const GAP_MAX: Duration = Duration::from_millis(200);

/// He is moved to and fro so often until nobody hears a longer gap: a machine that stalls makes one, too.
const ROUNDS: usize = 6;

/// Callers of the server that is emptied.
const CALLERS: usize = 6;

const ROOM: &str = "lobby";

fn order(server: &Server, what: &str) {
    let (code, body) = server.post(&format!("/api/v1/{what}"), "");
    assert!((200..300).contains(&code), "{code} {body}");
}

/// A speaker on the one server, and callers on the other who hear him.
fn call_in(crowd: &Crowd, speaker_on: &Server, callers_on: &Server, skills: Skills) -> Vec<Who> {
    let tone = Voice::Tone { hz: 500.0 };
    let before = crowd.up();
    let speaker = crowd.call("speaker", &speaker_on.uri(ROOM), NEITHER, tone);
    crowd.wait_until("he is in", |crowd| crowd.server(speaker).is_some());
    let callers: Vec<Who> = (0..CALLERS)
        .map(|number| {
            let name = format!("caller{number}");
            crowd.call(&name, &callers_on.uri(ROOM), skills, Voice::Silence)
        })
        .collect();
    crowd.wait_until("they are in", |crowd| crowd.up() == before + CALLERS + 1);
    for &who in &callers {
        hear(crowd, who);
    }
    callers
}

fn hear(crowd: &Crowd, who: Who) {
    crowd.forget(who);
    crowd.wait_until("he hears the speaker", |crowd| {
        crowd.heard(who).iter().filter(|one| one.is_loud()).count() > 25
    });
}

fn check_standby(server: &Server, other: &Server) {
    server.wait_until("it stands by", |server| {
        state(server) == "standby" && server.participants() == 0
    });
    let id = common::cluster::svr_id(server);
    other.wait_until("the other one knows", |other| {
        let is_it = |peer: &common::cluster::Peer| peer.svr_id == id && peer.state == "standby";
        peers(other).iter().any(is_it)
    });
}

fn check_all_on(crowd: &Crowd, server: &Server, everybody: usize) {
    wait_for("all are on one server", || {
        let list = listed(server, ROOM);
        let id = common::cluster::svr_id(server);
        list.len() == everybody && list.iter().all(|one| one.svr_id == id)
    });
    assert_eq!(crowd.on(server), everybody);
}

fn end(crowd: &Crowd, servers: &[&Server]) {
    crowd.hang_up_all();
    wait_for("all have left", || {
        servers.iter().all(|server| server.participants() == 0)
    });
}

/// See [`ROUNDS`].
#[test]
fn phones_that_know_replaces_move_without_a_gap() {
    let [a, b] = mesh(["A", "B"], &["load.max=5000"]);
    let crowd = Crowd::new();
    let callers = call_in(&crowd, &b, &a, REPLACES);
    let mut servers = [&a, &b];
    let mut gaps = Vec::new();
    for round in 0..ROUNDS {
        let [from, to] = servers;
        for &who in &callers {
            hear(&crowd, who);
        }
        callers.iter().for_each(|&who| crowd.forget(who));
        order(from, "drain");
        check_standby(from, to);
        check_all_on(&crowd, to, CALLERS + 1);
        let longest = callers.iter().map(|&who| {
            // Up to here, and some time beyond.
            crowd.wait_until("he hears on", |crowd| crowd.heard(who).len() > 50);
            crowd.gap(who)
        });
        let longest = longest.max().expect("callers");
        println!("moved with a gap of {longest:?} at most");
        for &who in &callers {
            let story = crowd.story(who);
            assert_eq!(story.replaced as usize, round + 1, "{story:?}");
            assert!(story.refused.is_empty(), "{story:?}");
        }
        if longest <= GAP_MAX {
            order(from, "undrain");
            from.wait_until("it takes calls again", |from| state(from) == "active");
            let late = crowd.call("late", &from.uri(ROOM), NEITHER, Voice::Silence);
            crowd.wait_until("he is in", |crowd| crowd.server(late) == Some(from.sip));
            return end(&crowd, &servers);
        }
        gaps.push(longest);
        order(from, "undrain");
        from.wait_until("it takes calls again", |from| state(from) == "active");
        servers.reverse();
    }
    panic!("always a gap above {GAP_MAX:?}: {gaps:?}");
}

#[test]
fn a_server_with_little_to_do_gives_its_callers_away_by_itself() {
    // A caller is a hundred units. The servers wait twice this time from when they met.
    let [a, b] = mesh(
        ["A", "B"],
        &["load.max=5000", "load.min=350", "cluster.drain_after_s=6"],
    );
    let crowd = Crowd::new();
    // First, as to listen takes a while: B is not the one that has little to do.
    let rest: Vec<Who> = (0..4)
        .map(|number| {
            crowd.call(
                &format!("rest{number}"),
                &b.uri(ROOM),
                NEITHER,
                Voice::Silence,
            )
        })
        .collect();
    crowd.wait_until("they are in", |crowd| crowd.up() == rest.len());
    let callers = call_in(&crowd, &b, &a, REPLACES);
    assert_eq!(crowd.up(), CALLERS + 5);
    let (gone, left) = callers.split_at(CALLERS - 2);
    gone.iter().for_each(|&who| crowd.hang_up(who));
    check_standby(&a, &b);
    check_all_on(&crowd, &b, 1 + rest.len() + left.len());
    for &who in left {
        assert_eq!(crowd.story(who).replaced, 1);
        hear(&crowd, who);
    }
    assert_eq!(state(&b), "active", "never the last");
    end(&crowd, &[&a, &b]);
}

#[test]
fn phones_that_know_refer_only_are_asked_to_call_elsewhere() {
    let [a, b] = mesh(["A", "B"], &["load.max=5000"]);
    let crowd = Crowd::new();
    let callers = call_in(&crowd, &b, &a, REFER);
    order(&a, "drain");
    check_standby(&a, &b);
    check_all_on(&crowd, &b, CALLERS + 1);
    for &who in &callers {
        let story = crowd.story(who);
        assert_eq!((story.referred, story.replaced), (1, 0), "{story:?}");
        hear(&crowd, who);
    }
    end(&crowd, &[&a, &b]);
}

/// Whoever called a room with a number anew would be asked for it once more.
#[test]
fn nobody_is_asked_to_call_a_room_with_a_number() {
    let sets = [
        "load.max=5000",
        "rooms.policies=lobby=pin:4711",
        "auth.trusted=127.0.0.0/8",
    ];
    let [a, b] = mesh(["A", "B"], &sets);
    let crowd = Crowd::new();
    let both = Skills {
        replaces: true,
        refer: true,
    };
    let callers = call_in(&crowd, &b, &a, both);
    order(&a, "drain");
    check_standby(&a, &b);
    check_all_on(&crowd, &b, CALLERS + 1);
    for &who in &callers {
        let story = crowd.story(who);
        assert_eq!((story.referred, story.replaced), (0, 1), "{story:?}");
        hear(&crowd, who);
    }
    end(&crowd, &[&a, &b]);
}

#[test]
fn phones_that_know_neither_are_waited_for_until_the_deadline() {
    let sets = ["load.max=5000", "cluster.drain_deadline_s=4"];
    let [a, b] = mesh(["A", "B"], &sets);
    let crowd = Crowd::new();
    let callers = call_in(&crowd, &b, &a, NEITHER);
    order(&a, "drain");
    a.wait_until("it drains", |a| state(a) == "draining");
    // New ones go elsewhere meanwhile, and nobody is hung up.
    let late = crowd.call("late", &a.uri(ROOM), NEITHER, Voice::Silence);
    crowd.wait_until("he is in", |crowd| crowd.server(late).is_some());
    assert_eq!(crowd.server(late), Some(b.sip));
    assert_eq!(crowd.story(late).redirects, 1);
    assert_eq!(a.participants(), CALLERS as u64);

    // It gives up, and takes calls again.
    a.wait_until("it is active again", |a| state(a) == "active");
    assert_eq!(a.participants(), CALLERS as u64);
    assert!(callers.iter().all(|&who| crowd.story(who).byes == 0));
    let again = crowd.call("again", &a.uri(ROOM), NEITHER, Voice::Silence);
    crowd.wait_until("he is in", |crowd| crowd.server(again) == Some(a.sip));
    crowd.hang_up(again);

    // Once they have left by themselves there is nothing to wait for.
    order(&a, "drain");
    a.wait_until("it drains", |a| state(a) == "draining");
    callers.iter().for_each(|&who| crowd.hang_up(who));
    check_standby(&a, &b);
    end(&crowd, &[&a, &b]);
}

#[test]
fn a_drain_can_be_taken_back() {
    let [a, b] = mesh(["A", "B"], &["load.max=5000"]);
    let crowd = Crowd::new();
    let callers = call_in(&crowd, &b, &a, NEITHER);
    order(&a, "drain");
    a.wait_until("it drains", |a| state(a) == "draining");
    order(&a, "undrain");
    a.wait_until("it is active", |a| state(a) == "active");
    assert_eq!(a.participants(), CALLERS as u64);
    let late = crowd.call("late", &a.uri(ROOM), NEITHER, Voice::Silence);
    crowd.wait_until("he is in", |crowd| crowd.server(late) == Some(a.sip));
    assert!(callers.iter().all(|&who| crowd.story(who).byes == 0));
    end(&crowd, &[&a, &b]);
}
