//! Rules of one server, with others played by the tests.

use cfw::dist_conf::load::SvrLoad;
use cfw::dist_conf::message::{
    ConfInfo, ConfState, Element, Op, Request, Response, SysOp, System, UserStatus, Users,
};
use sip::CallKey;

use super::super::*;
use super::net::{MAX, Phone, config, id, load, room, user};
use crate::focus::liaison::{Arrival, Order, Verdict};

/// Server M, and what it has said.
struct One {
    cluster: Cluster,
    now: Instant,
    said: Vec<Output>,
    numbers: u64,
    epoch: u64,
}

impl One {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut one = Self {
            cluster: Cluster::new(config, 1, 1, now),
            now,
            said: Vec::new(),
            numbers: 0,
            epoch: 1,
        };
        one.hear(Input::Load(load(100)));
        one
    }

    fn hear(&mut self, input: Input) {
        self.cluster.handle(self.now, input);
        self.said
            .extend(std::iter::from_fn(|| self.cluster.poll_output()));
    }

    fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.cluster.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.cluster.handle_timeout(self.now);
            self.said
                .extend(std::iter::from_fn(|| self.cluster.poll_output()));
        }
        self.now = end;
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The channel with the server of this name: opened by it when it is new.
    fn channel(name: &str) -> ChannelId {
        ChannelId::Accepted(u32::from(name.as_bytes()[0]))
    }

    /// A server comes, and says who it is and how loaded.
    fn meet(&mut self, name: &str, current: u32) {
        let (channel, svr_id) = (Self::channel(name), Some(id(name)));
        self.hear(Input::ChannelUp { channel, svr_id });
        let system = System {
            svr_id: id(name),
            active_svrs: 1,
            uri: Some(format!("sip:{name}:5060")),
            cfw_uri: Some(format!("sip:cfw@{name}:5060")),
            state: SvrState::Active,
            epoch: 1,
        };
        let info = ConfInfo {
            full: true,
            part: 1,
            parts: 1,
            systems: vec![system],
            ..ConfInfo::default()
        };
        let elements = vec![
            Element::ConfInfo(info),
            Element::Load(report(name, current)),
        ];
        assert_eq!(self.request(name, 1, elements).status, 200);
    }

    fn request(&mut self, name: &str, seq: u64, elements: Vec<Element>) -> Response {
        let request = Request {
            svr_id: Some(id(name)),
            epoch: self.epoch,
            seq,
            elements,
        };
        self.ask(name, request).expect("an answer at once")
    }

    fn ask(&mut self, name: &str, request: Request) -> Option<Response> {
        let (channel, number) = (Self::channel(name), self.number());
        self.hear(Input::Request {
            channel,
            id: number,
            request,
        });
        self.said.iter().find_map(|output| match output {
            Output::Respond { id, response, .. } if *id == number => Some(response.clone()),
            _ => None,
        })
    }

    fn arrive(&mut self, name: &str, hopped: bool) -> Option<Verdict> {
        let call = CallKey::invented(self.number() as u32);
        let asked = Arrival {
            room: room(name),
            participants: 0,
            hopped,
            from: "sip:caller@phone".to_owned(),
        };
        let (shard, report) = (0, Report::Asked { call, asked });
        self.hear(Input::Report { shard, report });
        self.said.iter().find_map(|output| match output {
            Output::Order {
                order:
                    Order::Placed {
                        call: placed,
                        verdict,
                    },
                ..
            } if *placed == call => Some(verdict.clone()),
            _ => None,
        })
    }

    fn join(&mut self, name: &str, entity: &str) {
        let user = Box::new(user(entity, entity, Phone::default()));
        let (shard, report) = (
            0,
            Report::User {
                room: room(name),
                user,
            },
        );
        self.hear(Input::Report { shard, report });
    }

    /// Requests sent to this server since this was asked last.
    fn take_requests(&mut self, name: &str) -> Vec<Request> {
        let said = std::mem::take(&mut self.said);
        let of_peer = |output| match output {
            Output::Send {
                channel, request, ..
            } if channel == Self::channel(name) => Some(request),
            _ => None,
        };
        said.into_iter().filter_map(of_peer).collect()
    }

    fn answers(&self) -> Vec<(u64, u16)> {
        let answer = |output: &Output| match output {
            Output::Answered { id, status, .. } => Some((*id, *status)),
            _ => None,
        };
        self.said.iter().filter_map(answer).collect()
    }
}

fn report(name: &str, current: u32) -> SvrLoad {
    SvrLoad {
        svr_id: id(name),
        current,
        max_load: MAX,
        min_load: 0,
        state: SvrState::Active,
        hot: None,
    }
}

fn redirect(targets: &[&str]) -> Verdict {
    let contact = |target: &&str| format!("sip:r@{target}:5060;crt-hop=1");
    Verdict::Redirect {
        contacts: targets.iter().map(contact).collect(),
    }
}

const REFUSED: u16 = 503;

#[test]
fn a_caller_goes_where_there_is_room() {
    let full = |current| LocalLoad {
        full: true,
        ..load(current)
    };
    let capped = LocalLoad {
        capped: true,
        ..full(550)
    };
    // Own load, loads of B and C, whether he was sent here; where he goes, None = 503.
    for (own, b, c, hopped, expected) in [
        (load(490), 0, 0, false, Some(Verdict::Accept)),
        (full(500), 300, 200, false, Some(redirect(&["C", "B"]))),
        (full(500), 200, 200, false, Some(redirect(&["B", "C"]))),
        (full(500), 200, 500, false, Some(redirect(&["B"]))),
        // Still full though below the maximum: it has to clear first.
        (full(460), 499, 500, false, Some(redirect(&["B"]))),
        (full(500), 0, 0, true, Some(Verdict::Accept)),
        (full(600), 0, 0, true, None),
        (capped, 0, 0, true, None),
        (capped, 0, 0, false, Some(redirect(&["B", "C"]))),
        (full(590), 500, 500, false, Some(Verdict::Accept)),
        (full(600), 520, 540, false, Some(redirect(&["B"]))),
        (full(600), 560, 590, false, None),
    ] {
        let one = &mut One::new(config("M", &[]));
        one.meet("B", b);
        one.meet("C", c);
        one.hear(Input::Load(own));
        let verdict = one.arrive("r", hopped);
        match (&verdict, &expected) {
            (
                Some(Verdict::Refuse {
                    status,
                    retry_after_s,
                }),
                None,
            ) => {
                assert_eq!(*status, REFUSED);
                assert!((3..=8).contains(retry_after_s));
            }
            _ => assert_eq!(verdict, expected, "{own:?} {b} {c} {hopped}"),
        }
    }
}

#[test]
fn every_redirect_has_its_reason() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.hear(Input::Load(load(500)));
    one.arrive("r", false);
    let decision = one.cluster.decisions().next_back().unwrap();
    assert_eq!(decision.what, What::Redirect);
    assert_eq!(decision.server.as_deref(), Some("B"));
    assert_eq!(decision.status, Some(302));
    assert_eq!(decision.room.as_deref(), Some("r"));
    assert_eq!(decision.reason, "this server is full");
    let loads: Vec<_> = decision
        .seen
        .iter()
        .map(|it| (it.svr_id.as_str(), it.load))
        .collect();
    assert_eq!(loads, [("M", 500), ("B", 100)]);
    assert!(
        one.said
            .iter()
            .any(|output| matches!(output, Output::Decided(_)))
    );
}

#[test]
fn old_reports_rank_last_and_then_not_at_all() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.meet("C", 300);
    one.hear(Input::Load(load(500)));
    let mut seq = 1;
    for (waited, expected) in [
        (2_000, redirect(&["B", "C"])),
        (2_000, redirect(&["C", "B"])),
        (1_500, redirect(&["C"])),
    ] {
        one.wait(waited);
        seq += 1;
        one.request("C", seq, vec![Element::Load(report("C", 300))]);
        assert_eq!(one.arrive("r", false), Some(expected));
    }
}

#[test]
fn whom_we_sent_counts_until_reports_show_him() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.hear(Input::Load(load(500)));
    let predicted = |one: &One| one.cluster.servers(one.now)[0].predicted;
    for _ in 0..10 {
        one.arrive("r", false);
    }
    assert_eq!(predicted(one), 200);
    // A report that shows none of them, one that shows half, one that shows all and others.
    for (seq, reported, expected) in [(2, 100, 200), (3, 150, 200), (4, 260, 260)] {
        one.wait(500);
        one.request("B", seq, vec![Element::Load(report("B", reported))]);
        assert_eq!(predicted(one), expected);
    }
    // They have not come after all.
    one.wait(2_000);
    one.request("B", 5, vec![Element::Load(report("B", 100))]);
    assert_eq!(predicted(one), 100);
}

#[test]
fn upstreams_that_follow_nothing_are_relayed() {
    let relay = Config {
        relay: true,
        ..config("M", &[])
    };
    let one = &mut One::new(relay);
    one.meet("B", 100);
    one.hear(Input::Load(load(500)));
    let target = "sip:r@B:5060;crt-hop=1".to_owned();
    assert_eq!(one.arrive("r", false), Some(Verdict::Relay { target }));
}

#[test]
fn nobody_is_sent_to_who_drains_or_stands_by() {
    for state in [SvrState::Draining, SvrState::Standby, SvrState::Full] {
        let one = &mut One::new(config("M", &[]));
        one.meet("B", 100);
        let load_of_b = SvrLoad {
            state,
            ..report("B", 100)
        };
        one.request("B", 2, vec![Element::Load(load_of_b)]);
        one.hear(Input::Load(load(500)));
        assert_eq!(one.arrive("r", false), Some(Verdict::Accept), "{state}");
    }
}

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
    assert!(matches!(&request.elements[..], [Element::ConfInfo(info)] if info.query));
}

#[test]
fn a_snapshot_comes_in_parts_and_ends_ghosts() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let told = |name: &str, users: std::ops::Range<usize>| Users {
        conf_obj_id: name.to_owned(),
        owner: Some(id("B")),
        ver: 1,
        epoch: 1,
        state: ConfState::Active,
        locked: false,
        max_users: None,
        subject: None,
        full: false,
        users: users
            .map(|it| {
                user(
                    &format!("sip:{it}@phone"),
                    &it.to_string(),
                    Phone::default(),
                )
            })
            .collect(),
    };
    let info = |part, parts, full, users: Users| {
        Element::ConfInfo(ConfInfo {
            full,
            part,
            parts,
            conferences: vec![users],
            ..ConfInfo::default()
        })
    };
    let count = |one: &One| one.cluster.conference("r").map_or(0, |it| it.users.len());
    one.request("B", 2, vec![info(1, 1, false, told("r", 0..5))]);
    assert_eq!(count(one), 5);
    one.request("B", 3, vec![info(1, 2, true, told("r", 3..6))]);
    assert_eq!(count(one), 6);
    one.request("B", 4, vec![info(2, 2, true, told("r", 6..7))]);
    assert_eq!(count(one), 4);
    // Nobody tells of users of others.
    let mut foreign = told("r", 8..9);
    foreign.users[0].svr_id = Some(id("C"));
    one.request("B", 5, vec![info(1, 1, false, foreign)]);
    assert_eq!(count(one), 4);
    // Ours is as big as it has to be.
    for number in 0..1_000 {
        one.join("big", &format!("sip:{number}@phone"));
    }
    let query = ConfInfo {
        query: true,
        ..ConfInfo::default()
    };
    one.take_requests("B");
    assert_eq!(
        one.request("B", 6, vec![Element::ConfInfo(query)])
            .conf_info,
        None
    );
    let parts: Vec<ConfInfo> = one
        .take_requests("B")
        .into_iter()
        .flat_map(|request| request.elements)
        .filter_map(|element| match element {
            Element::ConfInfo(info) if info.full => Some(info),
            _ => None,
        })
        .collect();
    let users = |info: &ConfInfo| {
        info.conferences
            .iter()
            .map(|it| it.users.len())
            .sum::<usize>()
    };
    let numbers: Vec<_> = parts.iter().map(|info| (info.part, info.parts)).collect();
    assert_eq!(numbers, [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(parts.iter().map(users).sum::<usize>(), 1_000);
    assert!(parts.iter().all(|info| users(info) <= 400));
}

#[test]
fn loads_are_told_each_second_and_when_they_change() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.wait(1_000);
    let loads = |one: &mut One| {
        let requests = one.take_requests("B").into_iter();
        let elements = requests.flat_map(|request| request.elements);
        elements
            .filter_map(|element| match element {
                Element::Load(load) => Some(load.current),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    loads(one);
    one.wait(3_000);
    assert_eq!(loads(one), [100, 100, 100]);
    one.wait(300);
    one.hear(Input::Load(load(105)));
    assert_eq!(loads(one), [] as [u32; 0]);
    one.hear(Input::Load(load(150)));
    one.hear(Input::Load(load(200)));
    one.hear(Input::Load(load(250)));
    assert_eq!(loads(one), [150]);
    one.wait(200);
    assert_eq!(loads(one), [250]);
    // Full is told at once.
    one.wait(1_000);
    one.hear(Input::Load(load(480)));
    one.wait(250);
    loads(one);
    one.hear(Input::Load(load(500)));
    assert_eq!(loads(one), [500]);
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
    assert_eq!(one.arrive("r", false), Some(refused));
}

#[test]
fn who_is_not_the_owner_passes_operations_on() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let users = Users {
        conf_obj_id: "r".to_owned(),
        owner: Some(id("B")),
        ver: 4,
        epoch: 1,
        state: ConfState::Active,
        locked: false,
        max_users: None,
        subject: None,
        full: false,
        users: Vec::new(),
    };
    let info = ConfInfo {
        conferences: vec![users],
        ..ConfInfo::default()
    };
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
fn room_is_kept_for_who_is_expected() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let (expected, participants) = (room("meeting"), 30);
    let wanted = Wanted::Expect {
        room: expected,
        participants,
    };
    one.hear(Input::Operator { id: 1, wanted });
    assert!(one.said.contains(&Output::Kept(300)));
    one.hear(Input::Load(load(250)));
    assert_eq!(one.arrive("r", false), Some(redirect(&["B"])));
    assert_eq!(one.arrive("meeting", false), Some(Verdict::Accept));
    for number in 0..30 {
        one.join("meeting", &format!("sip:{number}@phone"));
    }
    assert!(one.said.contains(&Output::Kept(0)));
    // Until they are measured they count beside the load.
    assert_eq!(one.arrive("r", false), Some(redirect(&["B"])));
    one.wait(200);
    one.hear(Input::Load(load(400)));
    assert_eq!(one.arrive("r", false), Some(Verdict::Accept));
}

#[test]
fn who_waits_may_go() {
    let reserved = Config {
        reserved: vec![(id("R"), "sip:cfw@R:5060".to_owned())],
        ..config("M", &[])
    };
    let one = &mut One::new(reserved);
    one.hear(Input::Load(load(500)));
    assert_eq!(one.arrive("r", false), None);
    assert_eq!(one.cluster.held(), 1);
    let call = CallKey::invented(one.numbers as u32);
    let (shard, report) = (0, Report::Withdrawn { call });
    one.hear(Input::Report { shard, report });
    assert_eq!(one.cluster.held(), 0);
    // The server that was dialled does not come; after a minute it is tried again.
    let dials = |one: &One| {
        let outputs = one.said.iter();
        outputs
            .filter(|output| matches!(output, Output::Dial { .. }))
            .count()
    };
    one.wait(10_000);
    assert_eq!(
        (dials(one), one.arrive("r", false)),
        (1, Some(Verdict::Accept))
    );
    one.wait(55_000);
    assert_eq!((one.arrive("r", false), dials(one)), (None, 2));
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
