//! Whoever is let in counts, and whoever is not hears why, as does the cluster.

use cfw::dist_conf::message::ConfUser;

use super::cluster::{room, somebody, take_over};
use super::*;
use crate::focus::liaison::{Closed, Order, Report};

#[test]
fn calls_that_ring_count_until_they_are_over() {
    let mut server = Server::in_cluster(41, "A", &[]);
    let phone = Phone::new(&server);
    let user = ConfUser {
        display_name: None,
        ssrc: None,
        muted: false,
        ..somebody("B", "0.1", &phone.uri())
    };
    let order = take_over(user, &phone, false);
    let measure = |server: &Server| {
        (0..60).for_each(|_| server.load.update(0, 0.0));
        server.load.expected()
    };
    server.order(ShardIndex(0), order.clone());
    let invite = server.expect(&phone, "INVITE", SOON);
    assert_eq!(measure(&server), 100);
    phone.answer(&invite, 486);
    server.expect(&phone, "ACK", SOON);
    assert_eq!(measure(&server), 0);
    // Whoever answers is measured from then on.
    server.order(ShardIndex(0), order);
    let invite = server.expect(&phone, "INVITE", SOON);
    assert_eq!(measure(&server), 100);
    phone.answer_with(&invite, 200, WITH_SDP, SDP);
    server.expect(&phone, "ACK", SOON);
    assert_eq!(server.load.expected(), 100);
    assert_eq!(measure(&server), 0);
}

#[test]
fn who_joins_a_call_passes_neither_the_cap_nor_a_drain() {
    let mut server = Server::in_cluster(42, "A", &[]);
    let first = Phone::new(&server);
    let to = first.call(&mut server, "staff");
    let tag = to.split_once("tag=").unwrap().1;
    let port = first.socket.local_addr().unwrap().port();
    let lines = format!("{WITH_SDP}Join: {port}staff;to-tag={tag};from-tag=p\r\n");
    let join = |server: &mut Server, expected: &str| {
        let phone = Phone::new(server);
        phone.request("INVITE", "staff", None, &lines, SDP);
        server.expect(&phone, expected, SOON);
    };
    join(&mut server, "SIP/2.0 200");
    server.state.set(State::Draining);
    join(&mut server, "SIP/2.0 503");
    server.state.set(State::Active);
    server.load.update(2 * cluster::TOO_MUCH, 0.0);
    join(&mut server, "SIP/2.0 503");
    server.load.update(0, 0.0);
    join(&mut server, "SIP/2.0 200");
}

#[test]
fn the_cluster_hears_of_refusals_that_it_was_not_asked_about() {
    let mut server = Server::in_cluster(43, "A", &["rooms.max_participants=1"]);
    let refused = |server: &mut Server| {
        let (_, refused) = server.report(|report| match report {
            Report::Refused {
                from, status, why, ..
            } => Some((from.clone(), *status, why.clone())),
            _ => None,
        });
        refused
    };
    Phone::new(&server).call(&mut server, "staff");
    server.turn();
    let full = Phone::new(&server);
    full.request("INVITE", "staff", None, WITH_SDP, SDP);
    server.expect(&full, "SIP/2.0 486", SOON);
    let why = "the room has as many participants as it may".to_owned();
    assert_eq!(refused(&mut server), (full.uri(), 486, why));

    server.order_all(&Order::Closed {
        room: room("hall"),
        why: Some(Closed::Locked),
    });
    server.turn();
    for state in [State::Active, State::Draining] {
        server.state.set(state);
        let locked = Phone::new(&server);
        locked.request("INVITE", "hall", None, WITH_SDP, SDP);
        server.expect(&locked, "SIP/2.0 403", SOON);
        let why = "The conference is locked".to_owned();
        assert_eq!(refused(&mut server), (locked.uri(), 403, why));
    }

    let patient = Phone::new(&server);
    patient.request("INVITE", "else", None, WITH_SDP, SDP);
    server.expect(&patient, "SIP/2.0 503", Duration::from_secs(7));
    let why = "the cluster has not said in time where he goes".to_owned();
    assert_eq!(refused(&mut server), (patient.uri(), 503, why));
}
