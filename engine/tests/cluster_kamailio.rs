//! A cluster behind Kamailio, with the configuration that operators get in `engine/examples/kamailio`.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/crowd.rs"]
mod crowd;

use common::cluster::{mesh, state, wait_for};
use common::kamailio::Kamailio;
use common::program::is_installed;
use common::{Phone, Server};
use crowd::{Crowd, NEITHER, Voice};

/// Enough that two servers both get some of them.
const ROOMS: usize = 12;

fn call_each(proxy: &Kamailio) {
    let call = |room| {
        let uri = format!("sip:room{room}@{}", proxy.address());
        Phone::call(&uri, &["--seconds", "1"])
    };
    let phones: Vec<Phone> = (0..ROOMS).map(call).collect();
    for phone in phones {
        phone.succeed();
    }
}

fn order(server: &Server, what: &str) {
    let (code, body) = server.post(&format!("/api/v1/{what}"), "");
    assert!((200..300).contains(&code), "{code} {body}");
}

#[test]
fn calls_go_past_a_server_that_stands_by_until_it_is_back() {
    if !is_installed("kamailio") {
        return;
    }
    let [a, b] = mesh(["A", "B"], &[]);
    let proxy = Kamailio::start(&[&a, &b].map(|server| format!("sip:{}", server.sip)));
    // All that came, without those that went elsewhere.
    let calls = |server: &Server| {
        server.metric("plenum_calls_total")
            - server.metric("plenum_calls_redirected_total")
            - server.metric("plenum_calls_rejected_total")
    };
    call_each(&proxy);
    assert!(calls(&a) > 0.0 && calls(&b) > 0.0);

    order(&a, "drain");
    a.wait_until("it stands by", |a| state(a) == "standby");
    let before = calls(&a);
    // The first ones may come before Kamailio has asked, and are sent on.
    call_each(&proxy);
    assert_eq!(calls(&a), before);

    order(&a, "undrain");
    a.wait_until("it is active", |a| state(a) == "active");
    wait_for("it gets calls again", || {
        call_each(&proxy);
        calls(&a) > before
    });
}

/// Phones that follow no redirect get to the other server all the same, and never hear of it.
#[test]
fn kamailio_follows_where_a_full_server_sends_a_caller() {
    if !is_installed("kamailio") {
        return;
    }
    let [a, b] = mesh(["A", "B"], &["load.max=400"]);
    let proxy = Kamailio::start(&[format!("sip:{}", a.sip)]);
    let crowd = Crowd::new();
    for number in 0..6 {
        let (name, uri) = (
            format!("caller{number}"),
            format!("sip:lobby@{}", proxy.address()),
        );
        let who = crowd.call(&name, &uri, NEITHER, Voice::Silence);
        crowd.wait_until("the caller is in", |crowd| crowd.server(who).is_some());
        assert_eq!(crowd.story(who).redirects, 0);
    }
    assert!(crowd.on(&a) > 0 && crowd.on(&b) > 0, "{crowd:?}");
    assert!(a.metric("plenum_calls_redirected_total") > 0.0);
    crowd.hang_up_all();
    wait_for("all have left", || a.participants() + b.participants() == 0);
}
