//! Snapshots are cut into parts that are short enough, and come out of a collector as they went in.

use cfw::dist_conf::message::{
    ConfInfo, ConfState, ConfUser, Element, Message, Request, System, UserStatus, Users,
};
use cfw::dist_conf::parts::{CollectError, Collector, ITEMS_MAX, PARTS_MAX, split};
use cfw::dist_conf::{self, load::SvrState};
use proptest::prelude::*;

fn user(number: usize) -> ConfUser {
    ConfUser {
        entity: format!("sip:user{number}@example.com"),
        svr_id: None,
        endpoint: number.to_string(),
        display_name: None,
        status: UserStatus::Connected,
        ssrc: None,
        codec: None,
        role: None,
        muted: false,
        joined: None,
        reach: None,
    }
}

fn conference(name: usize, users: usize) -> Users {
    Users {
        conf_obj_id: format!("room{name}"),
        owner: None,
        ver: 3,
        epoch: 1,
        state: ConfState::Active,
        locked: false,
        max_users: None,
        subject: Some("subject".to_owned()),
        full: true,
        users: (0..users).map(user).collect(),
    }
}

fn system(number: usize) -> System {
    System {
        svr_id: format!("srv-{number}").parse().unwrap(),
        active_svrs: 3,
        uri: None,
        cfw_uri: None,
        state: SvrState::Active,
        epoch: 0,
    }
}

fn snapshot(systems: usize, conferences: &[usize]) -> ConfInfo {
    let conferences = conferences.iter().enumerate();
    ConfInfo {
        full: true,
        systems: (0..systems).map(system).collect(),
        conferences: conferences.map(|(name, &n)| conference(name, n)).collect(),
        ..ConfInfo::default()
    }
}

/// A change that concerns one user.
fn delta(name: usize) -> ConfInfo {
    let mut info = snapshot(0, &[]);
    info.full = false;
    info.conferences = vec![conference(name, 1)];
    info
}

fn xml_len(info: &ConfInfo) -> usize {
    let request = Request {
        svr_id: Some("a-server-with-the-longest-of-ids".parse().unwrap()),
        epoch: u64::MAX,
        seq: u64::MAX,
        elements: vec![Element::ConfInfo(info.clone())],
    };
    dist_conf::write(&Message::Request(request)).len()
}

#[test]
fn what_is_short_stays_whole() {
    let info = snapshot(2, &[3, 0]);
    assert_eq!(split(info.clone(), 4096), vec![info.clone()]);
    let empty = ConfInfo::default();
    assert_eq!(split(empty.clone(), 0), [empty]);
    assert_eq!(Collector::default().handle(info.clone()), Ok(vec![info]));
}

#[test]
fn a_big_conference_is_cut_between_its_users() {
    let parts = split(snapshot(1, &[100]), 2048);
    assert!(parts.len() > 3);
    for (part, number) in parts.iter().zip(1..) {
        assert_eq!((part.part, part.parts), (number, parts.len() as u32));
        let [conference] = part.conferences.as_slice() else {
            panic!("{part:?}");
        };
        assert_eq!((conference.ver, conference.full), (3, true));
        assert!(!conference.users.is_empty());
    }
}

#[test]
fn no_more_parts_than_a_peer_takes() {
    let parts = split(snapshot(0, &[1000]), 0);
    assert_eq!(parts.len(), PARTS_MAX as usize);
}

#[test]
fn changes_wait_for_the_last_part() {
    let info = snapshot(3, &[50, 20]);
    let mut parts = split(info.clone(), 3000);
    let last = parts.pop().unwrap();
    let mut collector = Collector::default();
    for part in parts {
        assert_eq!(collector.handle(part), Ok(vec![]));
        assert_eq!(collector.handle(delta(7)), Ok(vec![]));
    }
    let query = ConfInfo {
        query: true,
        ..ConfInfo::default()
    };
    assert_eq!(collector.handle(query.clone()), Ok(vec![query]));
    let ready = collector.handle(last).unwrap();
    assert_eq!(ready[0], info);
    assert!(ready.len() > 1 && ready[1..].iter().all(|waited| *waited == delta(7)));
    assert_eq!(collector.handle(delta(8)), Ok(vec![delta(8)]));
}

#[test]
fn a_new_snapshot_takes_the_place_of_one_that_is_not_complete() {
    let parts = split(snapshot(0, &[50]), 2000);
    let whole = snapshot(1, &[1]);
    let mut collector = Collector::default();
    collector.handle(parts[0].clone()).unwrap();
    collector.handle(delta(0)).unwrap();
    assert_eq!(collector.handle(whole.clone()), Ok(vec![whole]));
    assert_eq!(collector.handle(parts[1].clone()), Err(CollectError::Gap));
    // From the first part on it works again.
    let (last, first) = parts.split_last().unwrap();
    collector.handle(parts[0].clone()).unwrap();
    for part in first {
        collector.handle(part.clone()).unwrap();
    }
    assert_eq!(collector.handle(last.clone()), Ok(vec![snapshot(0, &[50])]));
}

#[test]
fn what_has_come_when_no_more_will() {
    let parts = split(snapshot(0, &[50]), 2000);
    let mut collector = Collector::default();
    collector.handle(parts[0].clone()).unwrap();
    collector.handle(delta(0)).unwrap();
    let [half, change] = &collector.take()[..] else {
        panic!("two");
    };
    assert_eq!((half.full, half.part, half.parts), (false, 1, 1));
    assert_eq!(half.conferences, parts[0].conferences);
    assert_eq!(*change, delta(0));
    assert_eq!(collector.take(), []);
}

#[test]
fn parts_that_do_not_fit_together() {
    let parts = split(snapshot(0, &[100]), 2000);
    let others = split(snapshot(0, &[50]), 2000);
    assert_ne!(parts.len(), others.len());
    let delta_part = ConfInfo {
        full: false,
        ..parts[1].clone()
    };
    for (first, second) in [
        (&parts[0], &parts[2]),
        (&parts[0], &others[1]),
        (&parts[0], &delta_part),
    ] {
        let mut collector = Collector::default();
        collector.handle(first.clone()).unwrap();
        assert_eq!(collector.handle(second.clone()), Err(CollectError::Gap));
        // Nothing is left of it.
        assert_eq!(collector.handle(delta(0)), Ok(vec![delta(0)]));
    }
}

#[test]
fn what_waits_is_bounded() {
    let mut collector = Collector::default();
    let parts = split(snapshot(0, &[50]), 2000);
    collector.handle(parts[0].clone()).unwrap();
    let big = snapshot(0, &[1000]);
    let big = ConfInfo { full: false, ..big };
    let error = (0..ITEMS_MAX / 1000 + 1).find_map(|_| collector.handle(big.clone()).err());
    assert_eq!(error, Some(CollectError::TooMuch));
    assert_eq!(collector.handle(delta(0)), Ok(vec![delta(0)]));
}

proptest! {
    #[test]
    fn split_and_collected(
        systems in 0..20_usize,
        conferences in prop::collection::vec(0..40_usize, 0..12),
        len_max in 2000..20_000_usize,
    ) {
        let info = snapshot(systems, &conferences);
        let parts = split(info.clone(), len_max);
        let mut collector = Collector::default();
        let mut out = Vec::new();
        for part in parts {
            prop_assert!(xml_len(&part) <= len_max, "{} > {len_max}", xml_len(&part));
            out.extend(collector.handle(part).unwrap());
        }
        prop_assert_eq!(out, vec![info]);
    }
}
