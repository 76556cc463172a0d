//! Callers of servers that die are called back.

use cfw::dist_conf::message::{ConfUser, Element};

use super::super::*;
use super::net::*;
use super::one::{One, snapshot};
use super::service::check_agreement;
use crate::focus::liaison::Order;

#[test]
fn users_of_a_dead_server_are_called_back() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.fill("A", "r", 30);
    net.fill("B", "r", 2);
    net.fill("C", "r", 2);
    net.fill("A", "alone", 3);
    net.run(1_000);
    check_agreement(net, "r");
    assert_eq!(net.at("B").cluster.conference("r").unwrap().owner, id("A"));
    net.kill("A");
    net.run(500);
    assert_eq!(net.life("A", "B"), Some(Life::Dead));
    net.run(2_500);
    assert_eq!(net.count("B") + net.count("C"), 37);
    assert!(
        net.count("B") > 8 && net.count("C") > 8,
        "{}",
        net.count("B")
    );
    check_agreement(net, "r");
    check_agreement(net, "alone");
    for name in ["B", "C"] {
        let conference = net.at(name).cluster.conference("r").unwrap();
        assert_eq!((conference.owner, conference.epoch), (id("B"), 2));
    }
}

#[test]
fn nobody_is_called_back_where_that_is_off() {
    let off = |name| Config {
        recall: false,
        ..config(name, &["A", "B"])
    };
    let net = &mut Net::new(vec![off("A"), off("B")]);
    net.run(3_000);
    net.fill("A", "r", 3);
    net.fill("B", "r", 1);
    net.run(1_000);
    net.kill("A");
    net.run(3_000);
    assert_eq!(net.count("B"), 1);
    let users = |net: &Net| net.at("B").cluster.conference("r").unwrap().users.len();
    assert_eq!(users(net), 4);
    net.run(31_000);
    assert_eq!(users(net), 1);
}

#[test]
fn callers_of_a_server_that_restarts_quickly_are_called_back() {
    // Before it is dead to the others, while they call its users, and after.
    for (wait, clock_runs) in [
        (100, true),
        (310, true),
        (340, true),
        (360, true),
        (1_500, true),
        (100, false),
        (340, false),
    ] {
        let names = ["A", "B", "C"];
        let net = &mut Net::mesh(&names);
        net.fill("A", "r", 50);
        net.fill("B", "r", 1);
        net.fill("C", "r", 1);
        net.run(1_000);
        net.kill("A");
        net.run(wait);
        net.clock_runs = clock_runs;
        net.start(config("A", &names));
        net.run(5_000);
        let count = names.iter().map(|name| net.count(name)).sum::<usize>();
        assert_eq!(count, 52, "restarted after {wait} ms");
        check_agreement(net, "r");
    }
}

#[test]
fn who_is_there_still_is_not_called_back() {
    for seq in [1, 3] {
        let one = &mut One::new(config("M", &[]));
        one.meet("B", 100);
        let users = snapshot("B", 30);
        one.request("B", 2, vec![Element::ConfInfo(users.clone())]);
        let (channel, why) = (One::channel("B"), Lost::Reset);
        one.hear(Input::ChannelDown { channel, why });
        one.wait(1_010);
        let called = |one: &One| one.said.iter().filter(|it| is_take_over(it)).count();
        assert_eq!(called(one), 20);
        // It is there again, and tells of the same users: the rest is not called.
        let svr_id = Some(id("B"));
        one.hear(Input::ChannelUp { channel, svr_id });
        one.wait(40);
        one.request("B", seq, vec![Element::ConfInfo(users)]);
        one.wait(5_000);
        assert_eq!(called(one), 20, "number {seq}");
    }
}

#[test]
fn who_finds_no_room_when_his_server_dies_is_called_once_there_is_some() {
    let reserved = Config {
        reserved: vec![(id("R"), "sip:cfw@R:5060".to_owned())],
        ..config("M", &[])
    };
    let one = &mut One::new(reserved);
    one.meet("B", 100);
    one.request("B", 2, vec![Element::ConfInfo(snapshot("B", 3))]);
    one.hear(Input::Load(LocalLoad {
        capped: true,
        ..load(600)
    }));
    let (channel, why) = (One::channel("B"), Lost::Reset);
    one.hear(Input::ChannelDown { channel, why });
    one.wait(5_000);
    let claims = |what| {
        let decisions = one.cluster.decisions();
        decisions.filter(|it| it.what == what).count()
    };
    assert_eq!((claims(What::Claim) > 0, claims(What::Recall)), (true, 3));
    assert!(!one.said.iter().any(is_take_over));
    one.hear(Input::Load(load(100)));
    one.wait(300);
    assert_eq!(one.said.iter().filter(|it| is_take_over(it)).count(), 3);
}

#[test]
fn users_of_two_servers_may_have_one_name() {
    let one = &mut One::new(config("M", &[]));
    for name in ["B", "C"] {
        one.meet(name, 100);
        one.request(name, 2, vec![Element::ConfInfo(snapshot(name, 1))]);
    }
    for name in ["B", "C"] {
        let (channel, why) = (One::channel(name), Lost::Reset);
        one.hear(Input::ChannelDown { channel, why });
    }
    one.wait(1_500);
    assert_eq!(one.said.iter().filter(|it| is_take_over(it)).count(), 2);
    let users = |one: &One| one.cluster.conference("r").unwrap().users;
    assert_eq!(users(one).len(), 2);
    for (svr_id, left) in [("C", vec![id("B")]), ("B", vec![])] {
        let report = Report::Done {
            room: room("r"),
            svr_id: id(svr_id),
            endpoint: "0".to_owned(),
            status: 200,
        };
        one.hear(Input::Report { shard: 0, report });
        let servers: Vec<_> = users(one).iter().filter_map(|user| user.svr_id).collect();
        assert_eq!(servers, left);
    }
}

#[test]
fn of_two_phones_of_a_user_the_one_that_is_back_is_not_missed() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let mut info = snapshot("B", 2);
    for user in &mut info.conferences[0].users {
        user.entity = "sip:x@phone".to_owned();
    }
    let second = info.conferences[0].users[1].clone();
    one.request("B", 2, vec![Element::ConfInfo(info)]);
    let (channel, why) = (One::channel("B"), Lost::Reset);
    one.hear(Input::ChannelDown { channel, why });
    one.wait(1_500);
    assert_eq!(one.said.iter().filter(|it| is_take_over(it)).count(), 2);
    let user = Box::new(ConfUser {
        endpoint: "new".to_owned(),
        ..second
    });
    let report = Report::User {
        room: room("r"),
        user,
    };
    one.hear(Input::Report { shard: 0, report });
    let users = one.cluster.conference("r").unwrap().users;
    let endpoints: Vec<_> = users.iter().map(|user| user.endpoint.as_str()).collect();
    assert_eq!(endpoints, ["0", "new"]);
}

#[test]
fn a_restarted_server_has_no_ghosts() {
    for clock_runs in [true, false] {
        check_restart(clock_runs);
    }
}

fn check_restart(clock_runs: bool) {
    let net = &mut Net::mesh(&["A", "B"]);
    net.clock_runs = clock_runs;
    net.phone = Phone::default();
    net.fill("A", "r", 3);
    net.fill("B", "r", 1);
    net.run(1_000);
    net.kill("A");
    net.run(50);
    net.start(config("A", &["B"]));
    net.run(1_000);
    net.fill("A", "r", 2);
    net.run(1_000);
    net.leave(id("A"), "r", "sip:r-A-0@phone");
    net.leave(id("A"), "r", "sip:r-A-1@phone");
    net.run(40_000);
    assert_eq!(net.life("A", "B"), Some(Life::Alive));
    check_agreement(net, "r");
    assert_eq!(net.at("B").cluster.conference("r").unwrap().users.len(), 1);
}

fn is_take_over(output: &Output) -> bool {
    let Output::Order { order, .. } = output else {
        return false;
    };
    matches!(order, Order::TakeOver { .. })
}
