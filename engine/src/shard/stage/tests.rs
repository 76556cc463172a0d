use std::net::SocketAddr;

use super::*;
use crate::focus::negotiate;
use crate::io::plain::PlainIo;
use crate::meters::Meters;

fn stage(now: Instant, ports: std::ops::RangeInclusive<u16>) -> Stage<PlainIo> {
    let config = StageConfig {
        address: IpAddr::from([127, 0, 0, 1]),
        shared_ports: true,
        talkers_max: 8,
        media_timeout: None,
    };
    Stage::new(
        now,
        PlainIo::new().unwrap(),
        Ports::new(ports, 0, 1),
        Kernels::detect(),
        &config,
    )
}

/// The stage's turn so many milliseconds after `start`.
fn tick(stage: &mut Stage<PlainIo>, start: Instant, ms: u64, meters: &CoreMeters) {
    let moment = Moment {
        now: start + Duration::from_millis(ms),
        ntp: 0,
        pressed: false,
    };
    stage.tick(moment, &mut Ledger::new(start), meters);
}

/// The room panics in its next tick.
fn make_panic(stage: &mut Stage<PlainIo>, key: RoomKey) {
    stage.halls.all[key.0 as usize].room.panics_on_next_tick = true;
}

#[test]
fn a_room_that_panics_is_closed_and_the_others_go_on() {
    let meters = Meters::new(&[0]);
    let meters = &meters.cores[0];
    let now = Instant::now();
    let mut stage = stage(now, 13_000..=13_999);
    let free = stage.transports.free();
    let bad = [
        stage.take_seat(now, "bad", None).unwrap(),
        stage.take_seat(now, "bad", None).unwrap(),
    ];
    let good = stage.take_seat(now, "good", None).unwrap();
    let key = stage.by_name["bad"];
    make_panic(&mut stage, key);

    tick(&mut stage, now, 20, meters);

    assert_eq!(meters.room_panics.get(), 1);
    assert!(stage.room("bad").is_none() && stage.room("good").is_some());
    assert_eq!(
        stage.incidents().stranded,
        bad,
        "their callers are to get BYE"
    );
    assert_eq!(
        meters.ticks.get() + stage.counts.ticks,
        1,
        "the good room was mixed"
    );
    // The seats of the stranded are given back as any others.
    for seat in bad.into_iter().chain([good]) {
        stage.leave(now, 0, seat, meters);
    }
    assert_eq!(stage.transports.free(), free);
    assert_eq!(stage.rooms().count(), 0);
    let opened_and_closed: Vec<_> = stage
        .incidents()
        .rooms
        .iter()
        .map(|(room, opened)| (room.as_str(), *opened))
        .collect();
    assert_eq!(
        opened_and_closed,
        [
            ("bad", true),
            ("good", true),
            ("bad", false),
            ("good", false)
        ]
    );
    // A new room of the same name starts afresh.
    assert!(stage.take_seat(now, "bad", None).is_ok());
}

/// What a trunk sat down with: nothing arrives in these tests.
fn leg(now: Instant) -> Newcomer {
    let codec = crate::codec::Codec::L16;
    let remote: SocketAddr = ([127, 0, 0, 1], 9).into();
    let agreed = sip::sdp::Agreed {
        media_index: 0,
        codec: 0,
        payload_type: 96,
        receive_payload_types: vec![(96, 0)],
        telephone_event: None,
        remote_rtp: remote,
        remote_rtcp: remote,
        rtcp_mux: true,
        ptime_ms: 20,
        direction: sip::sdp::Direction::SendRecv,
        held: false,
    };
    Newcomer {
        entity: "sip:r@127.0.0.1".to_owned(),
        joined: std::time::SystemTime::UNIX_EPOCH,
        session: negotiate::trunk_session(now, &agreed, codec, 1, remote.ip()),
        leg: negotiate::leg(&agreed, &[codec]),
    }
}

#[test]
fn a_trunk_takes_a_seat_and_is_no_participant() {
    let meters = Meters::new(&[0]);
    let meters = &meters.cores[0];
    let now = Instant::now();
    let mut stage = stage(now, 12_100..=12_199);
    let free = stage.transports.free();
    let mut rooms = Vec::new();
    let mut opened_or_closed = |stage: &mut Stage<PlainIo>| {
        rooms.append(&mut stage.incidents().rooms);
        rooms.len()
    };
    // It comes first, and nobody sees a room.
    let trunk = stage.take_trunk_seat(now, "r", None).unwrap();
    stage.sit(now, trunk, leg(now));
    stage.member(trunk).expect("it has a leg").confirm();
    assert!(stage.room("r").is_none() && stage.taken("r").is_none());
    assert_eq!(opened_or_closed(&mut stage), 1);
    // Then somebody comes, who counts.
    let seat = stage.take_seat(now, "r", None).unwrap();
    stage.sit(now, seat, leg(now));
    assert_eq!(stage.taken("r"), Some(1));
    assert_eq!(stage.room("r").map(Room::len), Some(1));
    assert_eq!(opened_or_closed(&mut stage), 1);
    tick(&mut stage, now, 40, meters);
    // He goes, and with him the room; the trunk stays until it is ended.
    stage.leave(now, 0, seat, meters);
    assert!(stage.room("r").is_none() && stage.member(trunk).is_some());
    assert_eq!(opened_or_closed(&mut stage), 1);
    stage.leave(now, 0, trunk, meters);
    assert_eq!(stage.rooms().count(), 0);
    assert_eq!(opened_or_closed(&mut stage), 2);
    assert_eq!(stage.transports.free(), free);
    assert_eq!(rooms, [("r".to_owned(), true), ("r".to_owned(), false)]);
}

#[test]
fn a_stranded_seat_does_no_harm_to_the_room_that_follows() {
    let meters = Meters::new(&[0]);
    let meters = &meters.cores[0];
    let now = Instant::now();
    let mut stage = stage(now, 12_200..=12_299);
    let stranded = stage.take_seat(now, "bad", None).unwrap();
    let key = stage.by_name["bad"];
    make_panic(&mut stage, key);
    tick(&mut stage, now, 20, meters);
    let seat = stage.take_seat(now, "next", None).unwrap();
    assert_eq!(stage.by_name["next"], key, "it has the place of the other");
    stage.leave(now, 0, stranded, meters);
    assert_eq!(stage.taken("next"), Some(1));
    stage.leave(now, 0, seat, meters);
    assert_eq!(stage.rooms().count(), 0);
}

#[test]
fn seats_end_with_the_ports() {
    let now = Instant::now();
    let mut stage = stage(now, 14_010..=14_013);
    stage.take_seat(now, "r", None).unwrap();
    stage.take_seat(now, "r", None).unwrap();
    assert!(matches!(
        stage.take_seat(now, "r", None),
        Err(NoSeat::Ports)
    ));
}
