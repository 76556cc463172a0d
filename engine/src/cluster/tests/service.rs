//! Several servers at once.

use cfw::dist_conf::message::{ConfInfo, ConfUser, Element};

use super::super::*;
use super::net::*;
use super::one::{One, told};
use crate::focus::liaison::{Closed, Order};

fn count_redirects(net: &Net, at: &str) -> usize {
    let decisions = net.at(at).cluster.decisions();
    decisions.filter(|it| it.what == What::Redirect).count()
}

/// All servers, and all their shards with a part, know the same users.
pub(super) fn check_agreement(net: &Net, name: &str) {
    let all: BTreeSet<(SvrId, String)> = net
        .servers
        .iter()
        .flat_map(|(svr_id, server)| {
            let users = server.users.keys().filter(|(room, _)| room == name);
            users.map(|(_, endpoint)| (*svr_id, endpoint.clone()))
        })
        .collect();
    let is_connected = |server: &Server| !server.cluster.servers(net.now).is_empty();
    for (own, server) in net
        .servers
        .iter()
        .filter(|(_, server)| is_connected(server))
    {
        let known = server.cluster.conference(name);
        let users = known.into_iter().flat_map(|it| it.users);
        let users: BTreeSet<_> = users
            .map(|user| (user.svr_id.unwrap(), user.endpoint))
            .collect();
        assert_eq!(users, all, "as {own} knows them");
        for shard in 0..2 {
            let here = |(svr_id, endpoint): &(SvrId, String)| {
                let user = server.users.get(&(name.to_owned(), endpoint.clone()));
                svr_id == own && user.is_some_and(|(on, _)| *on == shard)
            };
            if !all.iter().any(here) {
                continue;
            }
            let told = server
                .remote
                .iter()
                .filter(|it| it.0 == shard && it.1 == name);
            let told: BTreeSet<_> = told.map(|it| (it.2, it.3.clone())).collect();
            let expected = all.iter().filter(|user| !here(user)).cloned().collect();
            assert_eq!(told, expected, "as shard {shard} of {own} was told");
        }
    }
}

#[test]
fn a_full_mesh_comes_of_one_address() {
    // Each knows only the one before it.
    let net = &mut Net::new(vec![
        config("A", &[]),
        config("B", &["A"]),
        config("C", &["B"]),
        config("D", &["C"]),
    ]);
    net.run(5_000);
    for a in ["A", "B", "C", "D"] {
        for b in ["A", "B", "C", "D"] {
            let expected = (a != b).then_some(Life::Alive);
            assert_eq!(net.life(a, b), expected, "{a} as {b} sees it");
        }
    }
}

#[test]
fn of_two_channels_one_stays() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.run(10_000);
    for (own, server) in &net.servers {
        assert_eq!(server.cluster.links.len(), 2, "{own}");
        for peer in server.cluster.peers.values() {
            assert_eq!(peer.links.len(), 1);
        }
    }
}

#[test]
fn whoever_dials_first_two_servers_have_one_channel() {
    let active = ["A", "B", "C", "D"];
    for seed in 0..40 {
        let net = &mut Net::new(Vec::new());
        net.jitter = Some(Random::new(seed));
        for name in active {
            net.start(config(name, &active));
            net.run(seed % 30);
        }
        let standby = Config {
            standby: true,
            ..config("E", &active)
        };
        net.start(standby);
        net.run(10_000);
        for (own, server) in &net.servers {
            assert_eq!(server.cluster.links.len(), 4, "{own}, seed {seed}");
            assert_eq!(server.channels.len(), 4, "{own}, seed {seed}");
            for peer in server.cluster.peers.values() {
                assert_eq!(
                    (peer.links.len(), peer.life),
                    (1, Life::Alive),
                    "{own}, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn a_hundred_callers_at_once_spread() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.fill("A", "r", 50);
    net.run(2_000);
    assert_eq!(net.count("A"), 50);
    for number in 0..100 {
        net.call("A", "r", &format!("sip:late-{number}@phone"));
    }
    net.run(1_000);
    assert_eq!(
        (net.count("A"), net.count("B"), net.count("C")),
        (50, 50, 50)
    );
    assert_eq!(count_redirects(net, "A"), 100);
    net.run(1_000);
    check_agreement(net, "r");
}

#[test]
fn when_all_are_full_callers_are_taken_up_to_the_hard_cap() {
    let net = &mut Net::mesh(&["A", "B"]);
    for number in 0..200 {
        net.call("A", "r", &format!("sip:{number}@phone"));
        net.run(50);
    }
    net.run(1_000);
    let refused = net.ends.values().filter(|end| **end == Err(503)).count();
    assert_eq!(net.count("A") + net.count("B") + refused, 200);
    assert!((56..=60).contains(&net.count("A")), "{}", net.count("A"));
    assert!((54..=60).contains(&net.count("B")), "{}", net.count("B"));
}

fn with_reserve(hooks: bool) -> Vec<Config> {
    let reserved = |mut config: Config| {
        config.reserved = vec![
            (id("C"), "sip:cfw@C:5060".to_owned()),
            (id("D"), "sip:cfw@D:5060".to_owned()),
        ];
        config.start_hook = hooks;
        config
    };
    vec![reserved(config("A", &["B"])), reserved(config("B", &["A"]))]
}

#[test]
fn two_servers_add_the_same_reserve() {
    let net = &mut Net::new(with_reserve(false));
    for name in ["C", "D"] {
        let standby = Config {
            standby: true,
            ..config(name, &[])
        };
        net.start(standby);
    }
    net.run(3_000);
    net.fill("A", "r", 50);
    net.fill("B", "r", 50);
    net.run(2_000);
    for number in 0..20 {
        net.call("A", "r", &format!("sip:a-{number}@phone"));
        net.call("B", "r", &format!("sip:b-{number}@phone"));
    }
    net.run(1_000);
    assert_eq!(net.count("C"), 40);
    assert_eq!(net.count("D"), 0);
    assert_eq!(net.at("C").cluster.state(), SvrState::Active);
    for name in ["A", "B"] {
        let cluster = &net.at(name).cluster;
        assert_eq!(cluster.held(), 0);
        let states: Vec<_> = cluster.reserved().iter().map(|it| it.state).collect();
        use cfw::dist_conf::message::ReservedState::{Active, Free};
        assert_eq!(states, [Active, Free], "{name}");
        assert_eq!(net.life("C", name), Some(Life::Alive));
    }
    net.run(1_000);
    check_agreement(net, "r");
}

#[test]
fn a_reserve_that_cannot_be_reached_is_passed_over() {
    let net = &mut Net::new(with_reserve(false));
    net.start(config("D", &[]));
    net.run(3_000);
    net.fill("A", "r", 50);
    net.fill("B", "r", 50);
    net.run(2_000);
    net.call("A", "r", "sip:x@phone");
    net.run(1_000);
    assert_eq!(net.ends["sip:x@phone"], Ok(id("D")));
}

#[test]
fn callers_who_wait_in_vain_get_an_end() {
    let net = &mut Net::new(with_reserve(false));
    for reserve in ["C", "D"] {
        net.cut("A", reserve);
        net.cut("B", reserve);
    }
    net.run(3_000);
    net.fill("A", "r", 50);
    net.fill("B", "r", 50);
    net.run(2_000);
    for number in 0..300 {
        net.call("A", "r", &format!("sip:x-{number}@phone"));
    }
    net.run(100);
    assert_eq!(net.at("A").cluster.held(), 256);
    net.run(6_000);
    assert_eq!(net.at("A").cluster.held(), 0);
    assert_eq!(net.ends.len(), 400);
    assert!(net.count("A") <= 60 && net.count("B") <= 60);
}

#[test]
fn a_reserve_is_started_by_a_program() {
    let net = &mut Net::new(with_reserve(true));
    net.run(3_000);
    net.fill("A", "r", 50);
    net.fill("B", "r", 50);
    net.run(2_000);
    net.call("B", "r", "sip:x@phone");
    net.run(100);
    assert_eq!(net.at("B").hooks, [(Hook::Start, id("C"))]);
    assert_eq!(net.at("A").hooks, []);
    // The program has ended, and the server needs a moment more.
    let (hook, svr_id, result) = (Hook::Start, id("C"), Ok(()));
    net.input(
        id("B"),
        Input::HookDone {
            hook,
            svr_id,
            result,
        },
    );
    net.run(800);
    net.start(config("C", &[]));
    net.run(1_500);
    assert_eq!(net.ends["sip:x@phone"], Ok(id("C")));
}

#[test]
fn a_listed_server_that_has_emptied_is_stopped_by_a_program() {
    let mut configs = with_reserve(false);
    for config in &mut configs {
        config.stop_hook = true;
    }
    let net = &mut Net::new(configs);
    net.start(config("C", &["A", "B"]));
    net.run(3_000);
    net.fill("C", "r", 3);
    net.run(1_000);
    for name in ["C", "B"] {
        let wanted = Wanted::Drain { deadline: None };
        net.input(id(name), Input::Operator { id: 1, wanted });
        net.run(3_000);
        assert_eq!(net.at(name).cluster.state(), SvrState::Standby);
    }
    // B has listed itself: no program knows it.
    assert_eq!(net.at("A").hooks, [(Hook::Stop, id("C"))]);
    assert_eq!(net.at("B").hooks, []);
}

#[test]
fn one_is_added_before_all_are_full() {
    let mut configs = with_reserve(false);
    for config in &mut configs {
        config.grow_at = 0.85;
    }
    let net = &mut Net::new(configs);
    net.start(config("C", &[]));
    net.run(3_000);
    net.fill("A", "r", 44);
    net.fill("B", "r", 44);
    net.run(6_000);
    assert_eq!(net.life("C", "A"), Some(Life::Alive));
    let claims = |name| {
        let decisions = net.at(name).cluster.decisions();
        decisions.filter(|it| it.what == What::Claim).count()
    };
    assert_eq!((claims("A"), claims("B")), (2, 0));
}

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
fn a_cut_link_ends_nothing() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    for name in ["A", "B", "C"] {
        net.fill(name, "r", 3);
    }
    net.run(1_000);
    net.cut("A", "B");
    net.run(30_000);
    assert_eq!(net.life("A", "B"), Some(Life::Suspect));
    assert_eq!(net.life("B", "A"), Some(Life::Suspect));
    assert_eq!(net.life("A", "C"), Some(Life::Alive));
    for name in ["A", "B", "C"] {
        assert_eq!(net.at(name).cluster.conference("r").unwrap().users.len(), 9);
    }
    net.fill("A", "r2", 1);
    net.heal();
    net.run(45_000);
    assert_eq!(net.life("A", "B"), Some(Life::Alive));
    check_agreement(net, "r");
    check_agreement(net, "r2");
}

#[test]
fn two_halves_go_on_and_meet_again() {
    let net = &mut Net::mesh(&["A", "B", "C", "D"]);
    for name in ["A", "B", "C", "D"] {
        net.fill(name, "r", 2);
    }
    net.run(1_000);
    for a in ["A", "B"] {
        for b in ["C", "D"] {
            net.cut(a, b);
        }
    }
    net.run(20_000);
    assert_eq!(net.life("C", "A"), Some(Life::Dead));
    assert_eq!(net.life("A", "C"), Some(Life::Dead));
    // The half without A adopts; only the half with A would call users of the other back. Their phones
    // cannot be reached in this net: nobody moves.
    net.heal();
    net.run(60_000);
    for a in ["A", "B", "C", "D"] {
        for b in ["A", "B", "C", "D"] {
            assert_eq!(net.life(a, b), (a != b).then_some(Life::Alive));
        }
    }
    check_agreement(net, "r");
    let view = |name| {
        let it = net.at(name).cluster.conference("r").unwrap();
        (it.owner, it.epoch, it.ver)
    };
    for name in ["B", "C", "D"] {
        assert_eq!(view(name), view("A"), "{name}");
    }
}

#[test]
fn a_stopped_process_suspects_nobody_when_it_goes_on() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    for name in ["A", "B", "C"] {
        net.fill(name, "r", 2);
    }
    net.run(1_000);
    net.stop("A", true);
    net.run(20_000);
    assert_eq!(net.life("A", "B"), Some(Life::Dead));
    net.stop("A", false);
    net.run(40_000);
    let decisions = net.at("A").cluster.decisions();
    assert_eq!(decisions.filter(|it| it.what == What::Recall).count(), 0);
    for name in ["B", "C"] {
        assert_eq!(net.life(name, "A"), Some(Life::Alive));
        assert_eq!(net.life("A", name), Some(Life::Alive));
    }
    check_agreement(net, "r");
}

#[test]
fn a_restarted_server_has_no_ghosts() {
    for clock_runs in [true, false] {
        check_restart(clock_runs);
    }
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
fn what_is_known_changes_while_no_more_can_be_known() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.request("B", 2, vec![Element::ConfInfo(snapshot("B", 1))]);
    let rosters = &mut one.cluster.rosters;
    let conference = rosters.get("r").unwrap().clone();
    for number in 0..roster::CONFERENCES_MAX {
        let empty = roster::Conference::new(conference.object.clone(), one.now);
        rosters.conferences.insert(number.to_string(), empty);
    }
    let mut info = snapshot("B", 2);
    info.conferences[0].users[0].muted = true;
    one.request("B", 3, vec![Element::ConfInfo(info)]);
    let users = one.cluster.conference("r").unwrap().users;
    let muted: Vec<bool> = users.iter().map(|user| user.muted).collect();
    assert_eq!(muted, [true]);
}

#[test]
fn the_highest_version_is_no_end() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let mut info = snapshot("B", 1);
    (info.conferences[0].ver, info.conferences[0].epoch) = (u64::MAX, u64::MAX);
    one.request("B", 2, vec![Element::ConfInfo(info)]);
    let (channel, why) = (One::channel("B"), Lost::Reset);
    one.hear(Input::ChannelDown { channel, why });
    one.wait(1_500);
    let (room, locked) = (room("r"), true);
    let wanted = Wanted::Lock { room, locked };
    one.hear(Input::Operator { id: 1, wanted });
    let conference = one.cluster.conference("r").unwrap();
    assert_eq!((conference.owner, conference.locked), (id("M"), true));
}

fn is_take_over(output: &Output) -> bool {
    let Output::Order { order, .. } = output else {
        return false;
    };
    matches!(order, Order::TakeOver { .. })
}

/// A snapshot of a server with so many users, who know Replaces, in one conference.
fn snapshot(name: &str, count: usize) -> ConfInfo {
    let phone = Phone {
        refer: false,
        replaces: true,
    };
    let number = |it| user(&format!("sip:{it}@phone"), &format!("{it}"), phone);
    ConfInfo {
        full: true,
        ..told(name, (0..count).map(number).collect())
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

#[test]
fn the_operator_drains_and_takes_back() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.fill("A", "r", 30);
    net.fill("B", "r", 10);
    net.run(1_000);
    let drain = Input::Operator {
        id: 7,
        wanted: Wanted::Drain { deadline: None },
    };
    net.input(id("A"), drain);
    assert_eq!(net.at("A").answers, [(7, 200)]);
    net.run(5_000);
    assert_eq!(net.count("A"), 0);
    assert_eq!(net.at("A").cluster.state(), SvrState::Standby);
    // The loads of the two end up as near as they can.
    assert_eq!((net.count("B"), net.count("C")), (20, 20));
    check_agreement(net, "r");
    assert_ne!(net.at("A").cluster.conference("r").unwrap().owner, id("A"));
    let free = net.at("B").cluster.reserved();
    assert_eq!(
        free.iter().map(|it| it.svr_id).collect::<Vec<_>>(),
        [id("A")]
    );
    net.call("A", "r", "sip:late@phone");
    net.run(100);
    assert_ne!(net.ends["sip:late@phone"], Ok(id("A")));
    let wanted = Wanted::Undrain;
    net.input(id("A"), Input::Operator { id: 8, wanted });
    net.call("A", "r", "sip:later@phone");
    net.run(100);
    assert_eq!(net.ends["sip:later@phone"], Ok(id("A")));
}

#[test]
fn phones_without_refer_are_called_by_the_other_server() {
    let net = &mut Net::mesh(&["A", "B"]);
    net.phone = Phone {
        refer: false,
        replaces: true,
    };
    net.fill("A", "r", 10);
    net.fill("B", "r", 1);
    net.run(1_000);
    let wanted = Wanted::Drain { deadline: None };
    net.input(id("A"), Input::Operator { id: 1, wanted });
    net.run(4_000);
    assert_eq!((net.count("A"), net.count("B")), (0, 11));
    assert_eq!(net.at("A").cluster.state(), SvrState::Standby);
    check_agreement(net, "r");
}

#[test]
fn phones_that_can_do_nothing_stay_until_the_deadline() {
    let net = &mut Net::mesh(&["A", "B"]);
    net.phone = Phone::default();
    net.fill("A", "r", 2);
    net.run(1_000);
    let deadline = Some(Duration::from_secs(10));
    let wanted = Wanted::Drain { deadline };
    net.input(id("A"), Input::Operator { id: 1, wanted });
    net.run(9_000);
    assert_eq!(net.at("A").cluster.state(), SvrState::Draining);
    net.run(3_000);
    assert_eq!(net.at("A").cluster.state(), SvrState::Active);
    assert_eq!(net.count("A"), 2);
}

#[test]
fn an_idle_server_is_drained_alone_and_comes_back_when_it_is_needed() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    for name in ["A", "B", "C"] {
        net.servers.get_mut(&id(name)).unwrap().min = 100;
        net.fill(name, "r", 8);
    }
    net.run(130_000);
    let state = |net: &Net, name| net.at(name).cluster.state();
    let all = |net: &Net| ["A", "B", "C"].map(|name| state(net, name));
    assert_eq!(
        all(net),
        [SvrState::Standby, SvrState::Active, SvrState::Active]
    );
    assert_eq!((net.count("B"), net.count("C")), (12, 12));
    check_agreement(net, "r");
    for number in 0..120 {
        net.call("B", "r", &format!("sip:new-{number}@phone"));
        net.run(20);
    }
    net.run(3_000);
    assert_eq!(state(net, "A"), SvrState::Active);
    assert!(net.count("A") > 0);
    check_agreement(net, "r");
}

#[test]
fn sound_is_shared_by_pairs_that_have_somebody() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.fill("A", "r", 1);
    net.fill("B", "r", 1);
    net.run(200);
    let trunks = |net: &Net, name| {
        let trunks = net.at(name).trunks.iter();
        trunks
            .map(|(_, peer)| peer.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (trunks(net, "A"), trunks(net, "B")),
        (vec!["B".to_owned()], vec![])
    );
    net.fill("C", "r", 1);
    net.run(200);
    assert_eq!(trunks(net, "A"), ["B", "C"]);
    assert_eq!(trunks(net, "B"), ["C"]);
    net.leave(id("A"), "r", "sip:r-A-0@phone");
    net.run(200);
    assert_eq!(trunks(net, "A"), Vec::<String>::new());
    assert_eq!(trunks(net, "B"), ["C"]);
    net.leave(id("C"), "r", "sip:r-C-0@phone");
    net.run(200);
    assert_eq!(trunks(net, "B"), Vec::<String>::new());
}

#[test]
fn an_empty_conference_ends_everywhere_after_its_grace() {
    let net = &mut Net::mesh(&["A", "B"]);
    net.fill("B", "r", 1);
    net.run(200);
    net.leave(id("B"), "r", "sip:r-B-0@phone");
    net.run(20_000);
    assert!(net.at("A").cluster.conference("r").is_some());
    net.run(15_000);
    assert!(net.at("B").cluster.conference("r").is_none());
    net.run(2_000);
    assert!(net.at("A").cluster.conference("r").is_none());
}

#[test]
fn users_anywhere_are_ended_and_rooms_locked_from_anywhere() {
    let net = &mut Net::mesh(&["A", "B"]);
    net.fill("A", "r", 1);
    net.fill("B", "r", 1);
    net.run(500);
    let wanted = Wanted::User {
        room: room("r"),
        entity: "sip:r-A-0@phone".to_owned(),
        endpoint: None,
        what: Wish::End("bye".to_owned()),
    };
    net.input(id("B"), Input::Operator { id: 1, wanted });
    let locked = true;
    let room = room("r");
    net.input(
        id("B"),
        Input::Operator {
            id: 2,
            wanted: Wanted::Lock { room, locked },
        },
    );
    net.run(500);
    assert_eq!(net.at("B").answers, [(1, 200), (2, 200)]);
    assert_eq!(net.count("A"), 0);
    for name in ["A", "B"] {
        assert!(
            net.at(name).cluster.conference("r").unwrap().locked,
            "{name}"
        );
    }
}

#[test]
fn a_locked_room_is_locked_everywhere_until_it_ends() {
    let net = &mut Net::mesh(&["A", "B", "C"]);
    net.fill("A", "r", 2);
    net.run(500);
    let (room, locked) = (room("r"), true);
    let wanted = Wanted::Lock { room, locked };
    net.input(id("B"), Input::Operator { id: 1, wanted });
    net.run(500);
    // Also at one that came later.
    net.start(config("D", &["A"]));
    net.run(3_000);
    for name in ["A", "B", "C", "D"] {
        for shard in 0..2 {
            let key = (shard, "r".to_owned());
            assert_eq!(net.at(name).closed.get(&key), Some(&Closed::Locked));
        }
        let (caller, stranger) = (format!("sip:{name}@phone"), format!("sip:x-{name}@phone"));
        net.call(name, "r", &caller);
        net.call_as_sent(name, "r", &stranger);
        net.run(100);
        assert_eq!(net.ends[&caller], Err(403));
        assert_eq!(net.ends[&stranger], Err(403));
    }
    // Who is in it is taken over: nobody believes him that he is, if he calls.
    let wanted = Wanted::Drain { deadline: None };
    net.input(id("A"), Input::Operator { id: 2, wanted });
    net.run(3_000);
    assert_eq!(net.count("A"), 0);
    let users = net.at("B").cluster.conference("r").unwrap().users;
    assert_eq!(users.len(), 2);
    for user in users {
        net.leave(user.svr_id.unwrap(), "r", &user.endpoint);
    }
    net.run(100_000);
    for name in ["A", "B", "C", "D"] {
        assert!(net.at(name).closed.is_empty(), "{name}");
    }
    net.call("C", "r", "sip:late@phone");
    net.run(100);
    assert_eq!(net.ends["sip:late@phone"], Ok(id("C")));
}
