//! Callers meet in a room and hear each other.

mod common;

use common::{Phone, Server, read_wav, scratch, share_of_pitch};
use simd_json::prelude::*;

const TONES_HZ: [f64; 3] = [440.0, 700.0, 1_150.0];

/// Each of three callers sends a tone and records; gives the recordings.
fn three_callers(server: &Server, room: &str, codecs: [&str; 3]) -> [Vec<i16>; 3] {
    let paths = [0, 1, 2].map(|i| scratch(&format!("{room}-{i}.wav")));
    let phones: Vec<Phone> = (0..3)
        .map(|i| {
            let tone = TONES_HZ[i].to_string();
            let record = paths[i].to_str().unwrap();
            let uri = server.uri(room);
            Phone::call(
                &uri,
                &[
                    "--codec",
                    codecs[i],
                    "--tone",
                    &tone,
                    "--record",
                    record,
                    "--seconds",
                    "4",
                ],
            )
        })
        .collect();
    server.wait_until("three participants", |server| server.participants() == 3);
    phones.into_iter().for_each(|phone| drop(phone.succeed()));
    server.wait_until("nobody left", |server| server.participants() == 0);
    paths.map(|path| {
        let samples = read_wav(&path);
        std::fs::remove_file(path).unwrap();
        samples
    })
}

fn check_everybody_hears_the_others_only(recordings: &[Vec<i16>; 3]) {
    for (listener, samples) in recordings.iter().enumerate() {
        // The middle two seconds: all three are there.
        let middle = &samples[8_000..24_000];
        for (talker, &hz) in TONES_HZ.iter().enumerate() {
            let share = share_of_pitch(middle, hz);
            if talker == listener {
                assert!(share < 0.001, "{listener} hears himself: {share}");
            } else {
                assert!(
                    (0.4..0.6).contains(&share),
                    "{listener} hears {talker} with a share of {share}"
                );
            }
        }
    }
}

#[test]
fn three_callers_hear_the_others_and_not_themselves() {
    let server = Server::start(&[]);
    check_everybody_hears_the_others_only(&three_callers(&server, "lobby", ["pcmu"; 3]));
}

#[test]
fn callers_of_different_codecs_meet() {
    let server = Server::start(&[]);
    check_everybody_hears_the_others_only(&three_callers(
        &server,
        "mixed",
        ["pcmu", "pcma", "pcma"],
    ));
}

#[test]
fn rooms_do_not_hear_each_other() {
    let server = Server::start(&[]);
    let record = scratch("other-room.wav");
    let talker = Phone::call(&server.uri("one"), &["--tone", "440", "--seconds", "3"]);
    let listener = Phone::call(
        &server.uri("two"),
        &["--record", record.to_str().unwrap(), "--seconds", "2"],
    );
    listener.succeed();
    talker.succeed();
    let samples = read_wav(&record);
    std::fs::remove_file(record).unwrap();
    assert!(
        samples.len() > 8_000 && samples.iter().all(|sample| sample.abs() < 16),
        "the other room is heard"
    );
}

#[test]
fn the_roster_says_who_is_there_and_who_talks() {
    let server = Server::start(&[]);
    let talker = Phone::call(&server.uri("roster"), &["--tone", "440", "--seconds", "20"]);
    let listener = Phone::call(
        &server.uri("roster"),
        &["--codec", "pcma", "--seconds", "20"],
    );
    server.wait_until("both are there and one talks", |server| {
        let (code, body) = server.get("/api/v1/conferences/roster");
        if code != 200 {
            return false;
        }
        let room = common::json(body);
        let participants = room["participants"].as_array().unwrap();
        let talks = |codec: &str| {
            let of_codec = participants
                .iter()
                .find(|participant| participant["codec"] == codec);
            of_codec.map(|participant| participant["talking"].as_bool().unwrap())
        };
        room["uri"] == server.uri("roster").as_str()
            && talks("pcmu") == Some(true)
            && talks("pcma") == Some(false)
    });
    let (code, body) = server.get("/api/v1/conferences");
    assert_eq!(
        (code, common::json(body).as_array().unwrap().len()),
        (200, 1)
    );
    drop((talker, listener));
}

#[test]
fn a_call_over_tcp_is_a_call() {
    let server = Server::start(&[]);
    let uri = format!("{};transport=tcp", server.uri("lobby"));
    let record = scratch("tcp.wav");
    let talker = Phone::call(&server.uri("lobby"), &["--tone", "440", "--seconds", "3"]);
    let listener = Phone::call(
        &uri,
        &["--record", record.to_str().unwrap(), "--seconds", "2"],
    );
    listener.succeed();
    talker.succeed();
    let samples = read_wav(&record);
    std::fs::remove_file(record).unwrap();
    assert!(share_of_pitch(&samples[8_000..], 440.0) > 0.9);
}

#[test]
fn a_hundred_calls_at_once_all_get_in() {
    let server = Server::start(&[]);
    let phones: Vec<Phone> = (0..100)
        .map(|i| {
            Phone::call(
                &server.uri(&format!("burst{}", i % 10)),
                &["--tone", "440", "--seconds", "12"],
            )
        })
        .collect();
    server.wait_until("a hundred participants", |server| {
        server.participants() == 100
    });
    let (code, svg) = server.get("/debug/flamegraph?seconds=4");
    assert_eq!(code, 200);
    // A hundred callers are little work, so that only the frames above all others are sure to be met.
    assert!(
        svg.contains("engine::shard::run"),
        "the shards are not in the picture"
    );
    assert_eq!(server.status()["conferences"].as_u64(), Some(10));
    for phone in phones {
        phone.succeed();
    }
    server.wait_until("nobody left", |server| server.participants() == 0);
    assert_eq!(server.metric("plenum_calls_rejected_total"), 0.0);
}
