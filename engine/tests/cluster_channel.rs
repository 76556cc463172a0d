//! Two real servers find each other by their control channel, and lose each other.

#[path = "common/capture.rs"]
mod capture;
#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use capture::{Capture, Filter};
use certificates::Authority;
use common::cluster::{Place, wait_for, wait_until_meshed};
use common::{PATIENCE, Server, free_port, scratch};
use simd_json::prelude::*;

/// `svr_id` and state of the servers that this one sees.
fn seen_by(server: &Server) -> Vec<(String, String)> {
    let status = server.status();
    let servers = status["cluster"]["servers"].as_array().expect("a list");
    let text = |value: &simd_json::OwnedValue| value.as_str().unwrap_or("").to_owned();
    servers
        .iter()
        .map(|server| (text(&server["svr_id"]), text(&server["state"])))
        .collect()
}

fn sees(server: &Server, svr_id: &str, state: &str) -> bool {
    seen_by(server) == [(svr_id.to_owned(), state.to_owned())]
}

fn pair(sets: &[&str]) -> (Server, Server) {
    let mut first_sets = vec!["server.id=A", "load.max=500", "load.min=50"];
    first_sets.extend(sets);
    let first = Server::start(&first_sets);
    let peer = format!("cluster.peers=sip:cfw@{}", first.sip);
    let mut second_sets = vec!["server.id=B", "load.max=700", &peer];
    second_sets.extend(sets);
    let second = first.start_beside(&second_sets);
    first.wait_until("A sees B", |first| sees(first, "B", "active"));
    second.wait_until("B sees A", |second| sees(second, "A", "active"));
    (first, second)
}

#[test]
fn two_servers_see_each_other_until_one_is_killed() {
    let (first, mut second) = pair(&[]);
    let told = first.status();
    let peer = &told["cluster"]["servers"][0];
    assert_eq!(peer["max"].as_u64(), Some(700));
    assert_eq!(
        peer["uri"].as_str(),
        Some(format!("sip:cfw@{}", second.sip).as_str())
    );
    // Loads come once a second.
    let is_fresh = |server: &Server| {
        let status = server.status();
        let age = status["cluster"]["servers"][0]["age_ms"].as_u64();
        age.is_some_and(|age| age < 2_000)
    };
    second.wait_until("loads are told", is_fresh);
    for server in [&first, &second] {
        assert_eq!(server.metric("plenum_cluster_channels"), 1.0);
        assert!(server.metric("plenum_cluster_messages_received_total") > 0.0);
        assert!(server.metric("plenum_cluster_bytes_sent_total") > 0.0);
        assert_eq!(server.get("/readyz").0, 200);
    }
    second.signal("KILL");
    second.wait_for_end();
    first.wait_until("B is gone", |first| {
        seen_by(first)
            .iter()
            .all(|(_, state)| state == "dead" || state == "suspect")
    });
    assert_eq!(first.metric("plenum_cluster_channels"), 0.0);
    assert_eq!(first.get("/readyz").0, 200);
}

/// Two servers, and what goes over the wire between them, where one may see that.
fn pair_watched(sets: &[&str]) -> (Server, Server, Option<Capture>) {
    let places = ["A", "B"].map(Place::new);
    let sip = places.each_ref().map(|place| place.sip).to_vec();
    let capture = Capture::start(Filter {
        sip,
        ..Filter::default()
    });
    let first = places[0].start(&places, sets);
    let second = places[1].start_beside(&first, &places, sets);
    wait_until_meshed(&[&first, &second]);
    (first, second, capture)
}

#[test]
fn a_server_that_ends_says_so_and_is_not_held_up() {
    let (first, mut second, capture) = pair_watched(&[]);
    let start = Instant::now();
    second.signal("INT");
    assert!(second.wait_for_end().success());
    assert!(start.elapsed() < PATIENCE);
    first.wait_until("the channel is gone", |first| {
        first.metric("plenum_cluster_channels") == 0.0
    });
    if let Some(capture) = capture {
        wait_for("it has said BYE", || {
            let mut messages = capture.sip().into_iter();
            messages.any(|(flow, text)| flow == (second.sip, first.sip) && text.starts_with("BYE "))
        });
    }
}

/// Ports of this machine at which a description of the channel says that one listens.
fn listeners(capture: &Capture) -> BTreeSet<u16> {
    let port = |line: &str| {
        line.strip_prefix("m=application ")?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    let messages = capture.sip().into_iter();
    let ports = messages.flat_map(|(_, text)| text.lines().filter_map(port).collect::<Vec<u16>>());
    // RFC 4145 §4.1: whoever connects says 9.
    ports.filter(|port| *port != 9).collect()
}

#[test]
fn channels_speak_tls_between_those_whose_fingerprints_match() {
    // Who signed it does not matter: SDP tells the fingerprint.
    let files = Authority::new("cluster-channel").sign("server");
    let [certificate, key] = files.sets();
    let (first, second, capture) = pair_watched(&["cluster.tls=true", &certificate, &key]);
    if let Some(capture) = capture {
        const HANDSHAKE: u8 = 0x16;
        let mut seen = 0;
        for port in listeners(&capture) {
            for (there, back) in capture.connections_to(([127, 0, 0, 1], port).into()) {
                for said in [there, back].map(|flow| capture.stream(flow).unwrap_or_default()) {
                    assert!(said.first().is_none_or(|first| *first == HANDSHAKE));
                    assert!(!said.windows(4).any(|word| word == b"CFW "), "in the clear");
                    seen += said.len();
                }
            }
        }
        // Load reports at least.
        assert!(seen > 1_000, "{seen} octets of {:?}", listeners(&capture));
    }
    drop((second, first));
}

#[test]
fn who_is_not_trusted_gets_no_channel() {
    let first = Server::start(&["server.id=A", "cluster.trusted="]);
    let peer = format!("cluster.peers=sip:cfw@{}", first.sip);
    let second = first.start_beside(&["server.id=B", &peer]);
    first.wait_until("a channel is refused", |first| {
        first.metric("plenum_cluster_refused_total") > 0.0
    });
    assert_eq!(seen_by(&first), []);
    assert_eq!(second.metric("plenum_cluster_channels"), 0.0);
}

#[test]
fn a_peer_that_is_not_there_yet_is_found_when_it_comes() {
    let port = free_port();
    let peer = format!("cluster.peers=sip:cfw@127.0.0.1:{port}");
    let first = Server::start(&["server.id=A", &peer, "log.level=debug"]);
    // Nobody is there, and it has found out.
    first.wait_until("a dial has failed", |first| {
        first.log().contains("control channel ended")
    });
    let address = ([127, 0, 0, 1], port).into();
    let listen = format!("udp:127.0.0.1:{port}");
    let _second = first.start_beside_on(address, &listen, &["server.id=B"]);
    first.wait_until("B is found", |first| sees(first, "B", "active"));
}
