//! Rules of one server, with others played by the tests.

use cfw::dist_conf::load::SvrLoad;
use cfw::dist_conf::message::{
    ConfInfo, Element, Op, ParticipantOp, Request, ReservedState, ReservedSvr, ReservedSvrs,
    Response, SysOp, System, UserStatus,
};

use super::super::*;
use super::net::{MAX, Phone, config, id, load, room, user};
use super::one::{One, report, told};
use crate::focus::liaison::{Closed, Order, Verdict};

#[test]
fn messages_of_others_and_of_earlier_lives_are_not_believed() {
    let one = &mut One::new(config("M", &[]));
    one.epoch = 5;
    one.meet("B", 100);
    let lie = Request {
        svr_id: Some(id("C")),
        epoch: 5,
        seq: 2,
        elements: vec![Element::Load(report("C", 0))],
    };
    assert_eq!(one.ask("B", lie).unwrap().status, 403);
    assert_eq!(
        one.request("B", 2, vec![Element::Load(report("C", 0))])
            .status,
        403
    );
    one.epoch = 4;
    assert_eq!(
        one.request("B", 2, vec![Element::Load(report("B", 0))])
            .status,
        299
    );
    one.epoch = 5;
    assert_eq!(
        one.request("B", 1, vec![Element::Load(report("B", 0))])
            .status,
        299
    );
    let wrong = SvrLoad {
        min_load: MAX,
        ..report("B", 0)
    };
    assert_eq!(one.request("B", 2, vec![Element::Load(wrong)]).status, 400);
    assert_eq!(one.cluster.servers(one.now)[0].load, 100);
    assert_eq!(one.cluster.servers(one.now).len(), 1);
}

#[test]
fn by_the_paper_alone_a_load_is_enough() {
    let one = &mut One::new(config("M", &[]));
    let (channel, svr_id) = (One::channel("B"), None);
    one.hear(Input::ChannelUp { channel, svr_id });
    let bare = Request {
        svr_id: None,
        epoch: 0,
        seq: 0,
        elements: vec![Element::Load(report("B", 70))],
    };
    assert_eq!(one.ask("B", bare.clone()).unwrap().status, 200);
    assert_eq!(one.ask("B", bare).unwrap().status, 200);
    assert_eq!(one.cluster.servers(one.now)[0].load, 70);
}

#[test]
fn a_gap_is_filled_by_a_snapshot() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.take_requests("B");
    one.request("B", 2, vec![Element::Load(report("B", 100))]);
    assert_eq!(one.take_requests("B"), []);
    one.request("B", 4, vec![Element::Load(report("B", 100))]);
    let asked = one.take_requests("B");
    let [request] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    let is_query = |request: &Request| matches!(&request.elements[..], [Element::ConfInfo(info)] if info.query);
    assert!(is_query(request));
    // If that does not help, it is asked again, but not at once.
    for seq in [6, 8, 10] {
        one.request("B", seq, vec![Element::Load(report("B", 100))]);
    }
    assert_eq!(one.take_requests("B"), []);
    one.wait(1_000);
    let asked = one.take_requests("B");
    assert_eq!(asked.iter().filter(|it| is_query(it)).count(), 1);
    // What has come whole meanwhile need not be asked for.
    one.request("B", 12, vec![Element::Load(report("B", 100))]);
    let whole = ConfInfo {
        full: true,
        ..ConfInfo::default()
    };
    one.request("B", 13, vec![Element::ConfInfo(whole)]);
    one.wait(5_000);
    assert!(!one.take_requests("B").iter().any(is_query));
}

#[test]
fn a_snapshot_comes_in_parts_and_ends_ghosts() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let users = |numbers: std::ops::Range<usize>| -> Vec<_> {
        numbers
            .map(|it| {
                user(
                    &format!("sip:{it}@phone"),
                    &it.to_string(),
                    Phone::default(),
                )
            })
            .collect()
    };
    let info = |part, parts, full, users| {
        Element::ConfInfo(ConfInfo {
            full,
            part,
            parts,
            ..told("B", users)
        })
    };
    let count = |one: &One| one.cluster.conference("r").map_or(0, |it| it.users.len());
    one.request("B", 2, vec![info(1, 1, false, users(0..5))]);
    assert_eq!(count(one), 5);
    // Nothing is half applied, and what changes meanwhile comes after.
    one.request("B", 3, vec![info(1, 2, true, users(3..6))]);
    let mut gone = users(3..4);
    gone[0].status = UserStatus::Disconnected;
    one.request("B", 4, vec![info(1, 1, false, gone)]);
    assert_eq!(count(one), 5);
    one.request("B", 5, vec![info(2, 2, true, users(6..7))]);
    assert_eq!(count(one), 3);
    // Nobody tells of users of others.
    let mut foreign = users(8..9);
    foreign[0].svr_id = Some(id("C"));
    one.request("B", 6, vec![info(1, 1, false, foreign)]);
    assert_eq!(count(one), 3);
    // Ours is as big as it has to be, and each part waits until the one before is there.
    for number in 0..3_000 {
        one.join("big", &format!("sip:{number}@phone"));
    }
    let query = ConfInfo {
        query: true,
        ..ConfInfo::default()
    };
    one.take_requests("B");
    assert_eq!(
        one.request("B", 7, vec![Element::ConfInfo(query)])
            .conf_info,
        None
    );
    let mut parts: Vec<ConfInfo> = Vec::new();
    while let Some(request) = one.take_requests("B").pop() {
        let full = request
            .elements
            .into_iter()
            .find_map(|element| match element {
                Element::ConfInfo(info) if info.full => Some(info),
                _ => None,
            });
        parts.push(full.expect("a part"));
        let response = Response::new(Some(id("B")), request.seq, 200);
        one.hear(Input::Response {
            channel: One::channel("B"),
            id: request.seq,
            result: Ok(response),
        });
    }
    let users = |info: &ConfInfo| {
        info.conferences
            .iter()
            .map(|it| it.users.len())
            .sum::<usize>()
    };
    let numbers: Vec<_> = parts.iter().map(|info| (info.part, info.parts)).collect();
    let count = parts.len() as u32;
    assert!((2..8).contains(&count), "{count}");
    assert!(
        numbers
            .into_iter()
            .eq((1..=count).map(|part| (part, count)))
    );
    assert_eq!(parts.iter().map(users).sum::<usize>(), 3_000);
}

#[test]
fn who_was_told_of_before_a_server_died_is_known() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let part = |full, parts, name: &str| {
        Element::ConfInfo(ConfInfo {
            full,
            parts,
            ..told("B", vec![user(name, name, Phone::default())])
        })
    };
    one.request("B", 2, vec![part(true, 2, "sip:a@phone")]);
    one.request("B", 3, vec![part(false, 1, "sip:b@phone")]);
    assert!(one.cluster.conference("r").is_none());
    one.hear(Input::ChannelDown {
        channel: One::channel("B"),
        why: Lost::Reset,
    });
    assert_eq!(one.cluster.conference("r").unwrap().users.len(), 2);
}

#[test]
fn operations_meet_the_conferences_version() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let op = |op, base_ver| SysOp {
        op,
        conf_obj_id: "r".to_owned(),
        base_ver,
        mode: None,
        conf_uri: None,
        max_users: Some(1),
        locked: None,
        subject: None,
    };
    for (seq, (operation, base_ver, status, ver)) in [
        (Op::Modify, None, 404, None),
        (Op::Create, None, 200, Some(1)),
        (Op::Create, None, 409, Some(1)),
        (Op::Modify, Some(1), 200, Some(2)),
        (Op::Modify, Some(1), 409, Some(2)),
        (Op::Modify, None, 200, Some(3)),
        (Op::Delete, Some(3), 200, Some(3)),
    ]
    .into_iter()
    .enumerate()
    {
        let seq = seq as u64 + 2;
        let response = one.request("B", seq, vec![Element::Sys(op(operation, base_ver))]);
        assert_eq!(response.status, status, "{operation:?} {base_ver:?}");
        assert_eq!(response.results[0].status, status);
        assert_eq!(response.results[0].ver, ver);
    }
    // One user is as many as it may have.
    one.join("r", "sip:one@phone");
    one.hear(Input::Load(load(500)));
    let refused = Verdict::Refuse {
        status: 486,
        retry_after_s: 0,
    };
    assert_eq!(one.arrive("r", false), Some(refused.clone()));
    assert_eq!(one.arrive("r", true), Some(refused));
    // All shards know it, and whoever is in it may be moved.
    let full = |shard: usize| {
        let room = room("r");
        let why = Some(Closed::Full);
        let order = Order::Closed { room, why };
        Output::Order { shard, order }
    };
    assert!(
        [0, 1]
            .map(full)
            .iter()
            .all(|order| one.said.contains(order))
    );
    one.leave("r", "sip:one@phone");
    one.join("r", "sip:caller@phone");
    assert_eq!(one.arrive("r", true), Some(Verdict::Accept));
}

#[test]
fn who_is_not_the_owner_passes_operations_on() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let mut info = told("B", Vec::new());
    info.conferences[0].ver = 4;
    one.request("B", 2, vec![Element::ConfInfo(info)]);
    one.take_requests("B");
    let (room, locked) = (room("r"), true);
    let wanted = Wanted::Lock { room, locked };
    one.hear(Input::Operator { id: 9, wanted });
    let sent = one.said.iter().find_map(|output| match output {
        Output::Send { id, request, .. } => Some((*id, request.clone())),
        _ => None,
    });
    let (number, request) = sent.unwrap();
    assert!(matches!(&request.elements[..], [Element::Sys(op)] if op.locked == Some(true)));
    assert_eq!(one.answers(), []);
    let channel = One::channel("B");
    let result = Err(408);
    one.hear(Input::Response {
        channel,
        id: number,
        result,
    });
    assert_eq!(one.answers(), [(9, 504)]);
}

#[test]
fn a_peer_that_answers_nothing_is_left() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.wait(12_000);
    let channel = One::channel("B");
    let closed =
        |output: &Output| matches!(output, Output::Close { channel: it, .. } if *it == channel);
    assert!(one.said.iter().any(closed));
    assert_ne!(one.cluster.servers(one.now)[0].life, Life::Alive);
    // Nor is more kept for it than the limit.
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    for number in 0..1_200 {
        one.join(&format!("r{number}"), "sip:x@phone");
        one.wait(21);
        if number % 100 == 0 {
            one.request("B", number + 2, vec![Element::Load(report("B", 0))]);
        }
    }
    assert!(one.said.iter().any(closed));
}

#[test]
fn no_two_servers_have_one_name() {
    let one = &mut One::new(config("M", &[]));
    let (channel, svr_id) = (ChannelId::Accepted(1), Some(id("M")));
    one.hear(Input::ChannelUp { channel, svr_id });
    assert!(
        one.said
            .iter()
            .any(|output| matches!(output, Output::Close { .. }))
    );
    assert_eq!(one.cluster.servers(one.now), []);
}

#[test]
fn a_shard_that_gets_a_part_is_told_of_all() {
    let one = &mut One::new(config("M", &[]));
    one.join("r", "sip:a@phone");
    one.join("r", "sip:b@phone");
    one.said.clear();
    let watched = true;
    let report = Report::Watched {
        room: room("r"),
        watched,
    };
    one.hear(Input::Report { shard: 1, report });
    let told = |one: &One| {
        let remote = |output: &Output| match output {
            Output::Order {
                shard,
                order: Order::Remote { user, .. },
            } => Some((*shard, user.entity.clone(), user.status)),
            _ => None,
        };
        one.said.iter().filter_map(remote).collect::<Vec<_>>()
    };
    let connected = UserStatus::Connected;
    let both = ["sip:a@phone", "sip:b@phone"].map(|it| (1, it.to_owned(), connected));
    assert_eq!(told(one), both);
    one.said.clear();
    one.join("r", "sip:c@phone");
    assert_eq!(told(one), [(1, "sip:c@phone".to_owned(), connected)]);
}

/// He would get in without it, or be asked for it twice.
#[test]
fn who_has_yet_to_key_in_a_number_is_neither_moved_nor_taken_over() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let phone = Phone {
        refer: true,
        replaces: true,
    };
    let mut here = user("sip:one@phone", "0.1", phone);
    let mut stands = |one: &mut One, status| {
        here.status = status;
        let (room, user) = (room("r"), Box::new(here.clone()));
        let (shard, report) = (0, Report::User { room, user });
        one.hear(Input::Report { shard, report });
    };
    stands(one, UserStatus::Pending);
    let wanted = Wanted::Drain { deadline: None };
    one.hear(Input::Operator { id: 1, wanted });
    let is_moved = |one: &One| {
        let is_move = |output: &Output| {
            matches!(
                output,
                Output::Order {
                    order: Order::Move { .. },
                    ..
                }
            )
        };
        one.said.iter().any(is_move)
    };
    one.wait(2_000);
    assert!(!is_moved(one));
    stands(one, UserStatus::Connected);
    one.wait(200);
    assert!(is_moved(one));

    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    for (seq, status, expected) in [
        (2, UserStatus::Pending, Some(403)),
        (4, UserStatus::Connected, None),
    ] {
        let mut there = user("sip:two@phone", "0.2", phone);
        there.status = status;
        let reach = there.reach.clone();
        let mut info = told("B", vec![there]);
        info.conferences[0].ver = seq;
        one.request("B", seq, vec![Element::ConfInfo(info)]);
        let op = ParticipantOp {
            op: Op::Create,
            conf_obj_id: "r".to_owned(),
            entity: "sip:two@phone".to_owned(),
            endpoint: Some("0.2".to_owned()),
            svr_id: Some(id("B")),
            move_to: Some(id("M")),
            muted: Some(false),
            role: None,
            reach,
        };
        let request = Request {
            svr_id: Some(id("B")),
            epoch: one.epoch,
            seq: seq + 1,
            elements: vec![Element::Participant(op)],
        };
        let answer = one.ask("B", request);
        let refused = answer.and_then(|answer| answer.results.first().map(|it| it.status));
        assert_eq!(refused, expected);
    }
}

/// Who was connected there by a leg of ours would hear nothing of it else.
#[test]
fn all_shards_are_told_of_a_server_that_is_dead() {
    let one = &mut One::new(Config {
        shards: 2,
        ..config("M", &[])
    });
    one.meet("B", 100);
    let (channel, why) = (One::channel("B"), Lost::Reset);
    one.hear(Input::ChannelDown { channel, why });
    one.wait(10_000);
    let told = one.said.iter().filter_map(|output| match output {
        Output::Order {
            shard,
            order: Order::ServerLost(server),
        } => Some((*shard, *server)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(0, id("B")), (1, id("B"))]);
}

/// When this URI was dialled, in milliseconds, while `until_ms` pass; each channel ends as `end` has it.
fn dials(
    one: &mut One,
    uri: &str,
    until_ms: u64,
    mut end: impl FnMut(&mut One, ChannelId),
) -> Vec<u64> {
    let began = one.now;
    let mut dials = Vec::new();
    while one.now < began + Duration::from_millis(until_ms) {
        let dialled = one.said.drain(..).find_map(|output| match output {
            Output::Dial {
                channel, uri: it, ..
            } if it == uri => Some(channel),
            _ => None,
        });
        match dialled {
            Some(channel) => {
                dials.push((one.now - began).as_millis() as u64);
                end(one, channel);
            }
            None => one.wait(10),
        }
    }
    dials
}

#[test]
fn a_server_that_closes_each_channel_is_dialled_less_and_less() {
    let uri = "sip:cfw@B:5060";
    let one = &mut One::new(config("M", &["B"]));
    let times = dials(one, uri, 20_000, |one, channel| {
        let svr_id = Some(id("B"));
        one.hear(Input::ChannelUp { channel, svr_id });
        let why = Lost::Reset;
        one.hear(Input::ChannelDown { channel, why });
    });
    let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((4..=6).contains(&waits.len()), "{times:?}");
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    // A channel that has lasted was no failure.
    let mut lasts = true;
    let times = dials(one, uri, 60_000, |one, channel| {
        let svr_id = Some(id("B"));
        one.hear(Input::ChannelUp { channel, svr_id });
        if lasts {
            for seq in 1..15 {
                one.wait(1_000);
                let elements = vec![Element::Load(report("B", 0))];
                let (svr_id, epoch, request_id) = (Some(id("B")), 1, seq);
                let request = Request {
                    svr_id,
                    epoch,
                    seq,
                    elements,
                };
                one.hear(Input::Request {
                    channel,
                    id: request_id,
                    request,
                });
            }
        }
        lasts = false;
        let why = Lost::Reset;
        one.hear(Input::ChannelDown { channel, why });
    });
    let after = times[1] - times[0];
    assert!(after < 14_000 + 350, "{times:?}");
}

#[test]
fn addresses_where_nobody_is_are_forgotten() {
    let system = |name: &str, address: &str| System {
        svr_id: id(name),
        active_svrs: 2,
        uri: None,
        cfw_uri: Some(format!("sip:cfw@{address}:5060")),
        state: SvrState::Active,
        epoch: 1,
    };
    let told = |systems| {
        vec![Element::ConfInfo(ConfInfo {
            systems,
            ..ConfInfo::default()
        })]
    };
    let one = &mut One::new(config("M", &["P"]));
    let count = one.cluster.addresses.len();
    one.meet("B", 100);
    // A server of which B has told, and where nobody answers.
    one.request("B", 2, told(vec![system("B", "B"), system("C", "C")]));
    assert_eq!(one.cluster.addresses.len(), count + 1);
    let mut seq = 2;
    let mut tries = 0;
    for _ in 0..900 {
        for output in std::mem::take(&mut one.said) {
            if let Output::Dial { channel, uri, .. } = output {
                tries += usize::from(uri == "sip:cfw@C:5060");
                let why = Lost::Reset;
                one.hear(Input::ChannelDown { channel, why });
            }
        }
        one.wait(1_000);
        seq += 1;
        one.request("B", seq, vec![Element::Load(report("B", 0))]);
    }
    assert_eq!((tries, one.cluster.addresses.len()), (20, count));
    // A server that moves is dialled where it is now, and not where it was.
    let channel = One::channel("B");
    for place in 0..5 {
        seq += 1;
        one.request("B", seq, told(vec![system("B", &format!("B{place}"))]));
        let why = Lost::Reset;
        one.hear(Input::ChannelDown { channel, why });
        let svr_id = Some(id("B"));
        one.hear(Input::ChannelUp { channel, svr_id });
    }
    assert!(
        one.cluster.addresses.len() <= count + 2,
        "{:?}",
        one.cluster.addresses
    );
}

fn reserved_list(servers: &[(&str, ReservedState, Option<&str>)]) -> Vec<Element> {
    let server = |(name, state, by): &(&str, ReservedState, Option<&str>)| ReservedSvr {
        svr_id: id(name),
        uri: Some(format!("sip:cfw@{name}:5060")),
        state: *state,
        by: by.map(id),
    };
    vec![Element::Reserved(ReservedSvrs {
        ver: 1,
        servers: servers.iter().map(server).collect(),
    })]
}

#[test]
fn reserves_that_nobody_lists_any_more_are_forgotten() {
    use ReservedState::Free;
    let reserved = vec![(id("R"), "sip:cfw@R:5060".to_owned())];
    let one = &mut One::new(Config {
        reserved,
        ..config("M", &[])
    });
    one.meet("B", 100);
    one.meet("C", 100);
    let listed = |one: &One| {
        let servers = one.cluster.reserved().into_iter();
        servers
            .map(|server| server.svr_id.to_string())
            .collect::<Vec<_>>()
    };
    one.request(
        "B",
        2,
        reserved_list(&[("S", Free, None), ("T", Free, None)]),
    );
    one.request("C", 2, reserved_list(&[("T", Free, None)]));
    one.wait(1_100);
    assert_eq!(listed(one), ["R", "S", "T"]);
    // Hearsay is not passed on.
    let told = one.cluster.reserved_list().servers;
    assert_eq!(
        told.iter().map(|it| it.svr_id).collect::<Vec<_>>(),
        [id("R")]
    );
    one.request("B", 3, reserved_list(&[]));
    one.wait(1_100);
    assert_eq!(listed(one), ["R", "T"]);
    let (channel, why) = (One::channel("C"), Lost::Reset);
    one.hear(Input::ChannelDown { channel, why });
    one.wait(2_100);
    assert_eq!(listed(one), ["R"]);
}

#[test]
fn claims_count_from_whoever_claims_and_not_for_ever() {
    use ReservedState::{Claimed, Free};
    let reserved = vec![(id("R"), "sip:cfw@R:5060".to_owned())];
    let one = &mut One::new(Config {
        reserved,
        ..config("M", &[])
    });
    one.meet("B", 100);
    let state = |one: &One| one.cluster.reserved()[0].state;
    // A claim of somebody else, or one that this server made and that comes back.
    for by in ["C", "M"] {
        one.request(
            "B",
            one.numbers + 2,
            reserved_list(&[("R", Claimed, Some(by))]),
        );
        assert_eq!(state(one), Free);
    }
    one.request(
        "B",
        one.numbers + 2,
        reserved_list(&[("R", Claimed, Some("B"))]),
    );
    assert_eq!(state(one), Claimed);
    for _ in 0..41 {
        one.wait(1_000);
        let seq = one.numbers + 2;
        one.request("B", seq, vec![Element::Load(report("B", 100))]);
    }
    assert_eq!(state(one), Free);
    // Nor is a server woken by a claim that a third one repeats.
    let one = &mut One::new(Config {
        standby: true,
        ..config("M", &[])
    });
    one.meet("B", 100);
    one.request("B", 2, reserved_list(&[("M", Claimed, Some("C"))]));
    assert_eq!(one.cluster.state(), SvrState::Standby);
    one.request("B", 3, reserved_list(&[("M", Claimed, None)]));
    assert_eq!(one.cluster.state(), SvrState::Active);
}
