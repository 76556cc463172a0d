//! Several servers at once.

use cfw::dist_conf::message::Element;

use super::super::*;
use super::net::*;
use super::one::{One, snapshot};
use crate::focus::liaison::Closed;

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
