//! Whoever is let in counts, and whoever is not hears why.

use cfw::dist_conf::message::{ConfUser, Reach, UserStatus};

use super::cluster::room;
use super::*;
use crate::focus::liaison::Order;

#[test]
fn calls_that_ring_count_until_they_are_over() {
    let mut server = Server::in_cluster(41, "A", &[]);
    let phone = Phone::new(&server);
    let user = ConfUser {
        entity: phone.uri(),
        svr_id: Some("B".parse().unwrap()),
        endpoint: "0.1".to_owned(),
        display_name: None,
        status: UserStatus::Connected,
        ssrc: None,
        codec: None,
        role: None,
        muted: false,
        joined: None,
        reach: None,
    };
    let take_over = || Order::TakeOver {
        room: room("staff"),
        user: Box::new(user.clone()),
        reach: Reach {
            contact: phone.uri(),
            call_id: "there".to_owned(),
            local_tag: "server".to_owned(),
            remote_tag: "phone".to_owned(),
            refer: false,
            replaces: false,
        },
    };
    let measure = |server: &Server| {
        (0..60).for_each(|_| server.load.update(0, 0.0));
        server.load.expected()
    };
    server.order(ShardIndex(0), take_over());
    let invite = server.expect(&phone, "INVITE", SOON);
    assert_eq!(measure(&server), 100);
    phone.answer(&invite, 486);
    server.expect(&phone, "ACK", SOON);
    assert_eq!(measure(&server), 0);
    // Whoever answers is measured from then on.
    server.order(ShardIndex(0), take_over());
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
