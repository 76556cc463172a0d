//! Where callers go, and what the loads say that decide it.

use cfw::dist_conf::load::SvrLoad;
use cfw::dist_conf::message::{Element, Op, ParticipantOp, Request};
use sip::CallKey;

use super::super::*;
use super::net::{Phone, config, id, load, room, user};
use super::one::{One, report};
use crate::focus::liaison::Verdict;

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
    let server = "B".parse().unwrap();
    assert_eq!(
        one.arrive("r", false),
        Some(Verdict::Relay { target, server })
    );
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

fn loads(one: &mut One) -> Vec<u32> {
    let requests = one.take_requests("B").into_iter();
    let elements = requests.flat_map(|request| request.elements);
    let current = elements.filter_map(|element| match element {
        Element::Load(load) => Some(load.current),
        _ => None,
    });
    current.collect()
}

#[test]
fn loads_are_told_each_second_and_when_they_change() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.wait(1_000);
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
fn no_old_loads_pile_up_where_nobody_answers() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    loads(one);
    // That something else is not answered yet is no sign of age.
    for number in 0..20 {
        one.join("r", &format!("sip:{number}@phone"));
        one.wait(21);
    }
    one.wait(8_000);
    assert_eq!(loads(one).len(), 4);
    one.wait(1_000);
    assert_eq!(loads(one).len(), 1);
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
fn everybody_who_is_let_in_stays_below_the_hard_cap() {
    let one = &mut One::new(config("M", &[]));
    let full = |current| LocalLoad {
        full: true,
        ..load(current)
    };
    // Of 10 units each: three more reach 600, which is the cap.
    one.hear(Input::Load(full(570)));
    for expected in [true, true, true, false] {
        let accepted = one.arrive("r", true) == Some(Verdict::Accept);
        assert_eq!(accepted, expected);
    }
    one.hear(Input::Load(full(595)));
    one.wait(200);
    one.hear(Input::Load(full(595)));
    assert_ne!(one.arrive("r", true), Some(Verdict::Accept));
}

#[test]
fn who_is_called_counts_while_his_phones_name_is_looked_up() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let op = ParticipantOp {
        op: Op::Create,
        conf_obj_id: "r".to_owned(),
        entity: "sip:x@phone".to_owned(),
        endpoint: Some("x".to_owned()),
        svr_id: Some(id("B")),
        move_to: Some(id("M")),
        muted: None,
        role: None,
        reach: user("sip:x@phone", "x", Phone::default()).reach,
    };
    let request = Request {
        svr_id: Some(id("B")),
        epoch: 1,
        seq: 2,
        elements: vec![Element::Participant(op)],
    };
    assert_eq!(one.ask("B", request), None);
    let told = |one: &One| one.cluster.own_report().map(|report| report.current);
    assert_eq!(told(one), Some(110));
    for (waited, expected) in [(3_000, 110), (6_000, 110), (2_000, 100)] {
        one.wait(waited);
        one.hear(Input::Load(load(100)));
        assert_eq!(told(one), Some(expected));
    }
}

/// As [`One::wait`], while B says each second that it is there.
fn wait_with_b(one: &mut One, seconds: u64, seq: &mut u64) {
    for _ in 0..seconds {
        one.wait(1_000);
        *seq += 1;
        one.request("B", *seq, vec![Element::Load(report("B", 100))]);
    }
}

#[test]
fn who_was_sent_wakes_only_a_server_that_was_active_until_lately() {
    let standby = || Config {
        standby: true,
        ..config("M", &[])
    };
    let one = &mut One::new(standby());
    one.meet("B", 100);
    wait_with_b(one, 5, &mut 1);
    assert_eq!(one.arrive("r", true), Some(Verdict::Accept));
    assert_eq!(one.cluster.state(), SvrState::Active);
    // Nobody can know any more that it takes callers.
    let one = &mut One::new(standby());
    one.meet("B", 100);
    let seq = &mut 1;
    wait_with_b(one, 12, seq);
    assert_eq!(one.arrive("r", true), Some(redirect(&["B"])));
    assert_eq!(one.cluster.state(), SvrState::Standby);
    // The same where it gives its users away.
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    one.join("r", "sip:a@phone");
    let (id, wanted) = (1, Wanted::Drain { deadline: None });
    one.hear(Input::Operator { id, wanted });
    assert_eq!(one.arrive("r", true), Some(Verdict::Accept));
    let seq = &mut 1;
    wait_with_b(one, 12, seq);
    assert_eq!(one.arrive("r", true), Some(redirect(&["B"])));
}

#[test]
fn a_server_stands_by_when_nobody_is_on_his_way() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let (id, wanted) = (1, Wanted::Drain { deadline: None });
    one.hear(Input::Operator { id, wanted });
    one.wait(90);
    assert_eq!(one.arrive("r", true), Some(Verdict::Accept));
    one.wait(60);
    assert_eq!(one.cluster.state(), SvrState::Draining);
    one.join("r", "sip:a@phone");
    one.wait(1_000);
    assert_eq!(one.cluster.state(), SvrState::Draining);
    let (room, endpoint) = (room("r"), "sip:a@phone".to_owned());
    let (shard, report) = (0, Report::UserGone { room, endpoint });
    one.hear(Input::Report { shard, report });
    one.wait(1_000);
    assert_eq!(one.cluster.state(), SvrState::Standby);
}

#[test]
fn what_is_kept_fills_a_server_at_most() {
    let one = &mut One::new(config("M", &[]));
    one.meet("B", 100);
    let told = |one: &One| one.cluster.own_report().map(|report| report.current);
    let expect = |one: &mut One, name: &str, participants| {
        let id = one.number();
        let room = room(name);
        let wanted = Wanted::Expect { room, participants };
        one.hear(Input::Operator { id, wanted });
        one.answers().last().map(|(_, status)| *status)
    };
    expect(one, "meeting", 10);
    assert_eq!(told(one), Some(200));
    // What others count of this server it counts itself.
    assert_eq!(one.cluster.total(one.now), (300.0, 1_000.0));
    expect(one, "meeting", 1_000_000);
    assert_eq!(told(one), Some(500));
    one.hear(Input::Load(load(550)));
    assert_eq!(told(one), Some(550));
    let answers: Vec<_> = (0..1_024)
        .map(|number| expect(one, &format!("r{number}"), 1))
        .collect();
    assert_eq!(answers[..1_023], [Some(200); 1_023]);
    assert_eq!(answers[1_023], Some(503));
    assert_eq!(expect(one, "r7", 2), Some(200));
}
