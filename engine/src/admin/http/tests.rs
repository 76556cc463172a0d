//! Every endpoint over a real loopback connection, with shards that only pretend.

use std::{
    hint::black_box,
    io::{Read, Write},
    net,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::SystemTime,
};

use rtp::Contributor;
use simd_json::{OwnedValue, prelude::*};

use cfw::dist_conf::message::{ConfUser, UserStatus};

use super::*;
use crate::admin::ConferenceView;
use crate::cluster::{self, Decision, Wanted, What};
use crate::focus::liaison::Wish;
use crate::meters::{Ledger, Phase};
use crate::{
    admin::{AdminThread, ClusterView, CoreSample, ParticipantView, ShardQueries},
    config::Config,
    flamegraph::folded::Folded,
    meters::{Meters, ServerLoad, ServerState, State},
    trace::{Batch, Direction, Line, Record, Watchers},
};

mod fixture;
mod looking;

use fixture::{Fixture, admin};

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .build()
        .into()
}

fn answer(response: Result<axum::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut response = response.unwrap();
    (
        response.status().as_u16(),
        response.body_mut().read_to_string().unwrap(),
    )
}

fn json(text: String) -> OwnedValue {
    simd_json::to_owned_value(&mut text.into_bytes()).unwrap()
}

#[test]
fn health_tests_nothing_and_readiness_the_state() {
    let server = Fixture::start();
    let mut seen = Vec::new();
    for state in [State::Starting, State::Active, State::Draining] {
        server.admin.state.set(state);
        assert_eq!(server.get("/healthz"), (200, "ok".to_owned()));
        seen.push(server.get("/readyz"));
    }
    assert_eq!(
        seen,
        [
            (503, "starting".to_owned()),
            (200, "ready".to_owned()),
            (503, "draining".to_owned())
        ]
    );
}

#[test]
fn status_is_the_documented_page() {
    // Not served, so that no sample overwrites the load.
    let admin = admin(Arc::default());
    admin.state.set(State::Active);
    admin.load.update(431, 0.4301);
    admin.load.set_fits(77);
    let core = &admin.meters.cores[1];
    core.conferences.set(3);
    core.participants.set(30);
    let mut sample = Sample {
        cores: vec![CoreSample::default(); 2],
    };
    sample.cores[1] = CoreSample {
        load: 430.6,
        sip_msgs_per_s: 2.0,
        rtp_packets_per_s: 428.96,
        busy: 0.43012,
        phases: [0.1; Phase::ALL.len()],
        tick_late_us_p99: 120,
    };

    let status = Status::new(&admin, &sample);
    let expected = r#"{"svr_id":"A","version":"VERSION","state":"active","uptime_s":UPTIME,
        "load":{"current":431,"max":500,"min":50,"hot":0.43,"fits":77},
        "conferences":3,"participants":30,
        "cores":[
        {"core":0,"load":0,"sip_msgs_per_s":0.0,"rtp_packets_per_s":0.0,"busy":0.0,"conferences":0,"participants":0,"tick_late_us_p99":0,"phases":{IDLE}},
        {"core":3,"load":431,"sip_msgs_per_s":2.0,"rtp_packets_per_s":429.0,"busy":0.43,"conferences":3,"participants":30,"tick_late_us_p99":120,"phases":{PHASES}}],
        "cluster":{"servers":[],"reserved":[]}}"#;
    let phases = |share: &str| {
        let mut names = Phase::ALL.map(Phase::name);
        names.sort_unstable();
        names.map(|name| format!("\"{name}\":{share}")).join(",")
    };
    let expected = expected
        .replace("IDLE", &phases("0.0"))
        .replace("PHASES", &phases("0.1"))
        .replace("VERSION", env!("CARGO_PKG_VERSION"))
        .replace("UPTIME", &status.uptime_s.to_string())
        .replace("\n        ", "");
    assert_eq!(simd_json::to_string(&status).unwrap(), expected);

    admin.load.update(500, 0.9);
    assert_eq!(Status::new(&admin, &sample).state, "full");
    admin.state.set(State::Draining);
    assert_eq!(Status::new(&admin, &sample).state, "draining");
}

#[test]
fn status_is_served_with_a_line_for_each_core() {
    let server = Fixture::start();
    server.admin.meters.cores[1].participants.set(2);
    let (code, text) = server.get("/api/v1/status");
    let status = json(text);
    assert_eq!(
        (code, status["svr_id"].as_str(), status["state"].as_str()),
        (200, Some("A"), Some("starting"))
    );
    assert_eq!(
        (
            status["participants"].as_u64(),
            status["cores"][1]["core"].as_u64()
        ),
        (Some(2), Some(3))
    );
}

#[test]
fn the_load_is_measured_while_serving() {
    let server = Fixture::start();
    // Counted on until a sample shows it, however slow the machine is.
    for _ in 0..600 {
        server.admin.meters.cores[0].rtp_received.add(1_000);
        if server.admin.load.current() > 0 {
            let status = json(server.get("/api/v1/status").1);
            assert!(status["cores"][0]["rtp_packets_per_s"].as_f64().unwrap() > 0.0);
            assert_eq!(status["cores"][1]["rtp_packets_per_s"].as_f64(), Some(0.0));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no sample was taken");
}

#[test]
fn conferences_are_put_together_from_all_shards() {
    let server = Fixture::start();
    let (code, text) = server.get("/api/v1/conferences");
    assert_eq!(code, 200);
    let one = r#"{"entity":"sip:user0@127.0.0.1","svr_id":"A","codec":"pcmu","status":"connected","muted":false,"talking":true,"level_dbov":-20,"joined":"2023-11-14T22:13:20.250Z"}"#;
    let other = one
        .replace("user0", "user1")
        .replace(r#""talking":true"#, r#""talking":false"#);
    let far = r#"{"entity":"sip:far@B","svr_id":"B","codec":"opus","status":"on-hold","muted":true,"talking":false,"level_dbov":-127,"joined":"1970-01-01T00:00:00.000Z"}"#;
    // Who is heard is known of the rooms that are here.
    let heard = far.replace(
        r#""talking":false,"level_dbov":-127"#,
        r#""talking":true,"level_dbov":-30"#,
    );
    let conference = format!(
        r#"{{"id":"blue room","uri":"sip:blue%20room@127.0.0.1:5060","svr_id":"A","participants":[{one},{other},{heard}]}}"#
    );
    let elsewhere = format!(
        r#"{{"id":"far","uri":"sip:far@127.0.0.1:5060","svr_id":"B","participants":[{far}]}}"#
    );
    assert_eq!(text, format!("[{conference},{elsewhere}]"));
    assert_eq!(
        server.get("/api/v1/conferences/blue%20room"),
        (200, conference)
    );
    assert_eq!(server.get("/api/v1/conferences/far"), (200, elsewhere));
    assert_eq!(
        server.get("/api/v1/conferences/red"),
        (404, r#"{"error":"no conference red"}"#.to_owned())
    );
}

#[test]
fn what_the_operator_wants_reaches_the_cluster() {
    let server = Fixture::start();
    let user = "/api/v1/conferences/blue%20room/participants/sip:user1%40127.0.0.1";
    let done = (200, r#"{"status":"done"}"#.to_owned());
    assert_eq!(server.post(&format!("{user}/mute")), done);
    assert_eq!(server.post(&format!("{user}/unmute")), done);
    assert_eq!(answer(agent().delete(server.url(user)).call()), done);
    assert_eq!(server.post("/api/v1/conferences/blue%20room/lock"), done);
    let expected = server.url("/api/v1/conferences/blue%20room/expected");
    let put = |body: &str| {
        let request = agent().put(&expected);
        let request = request.header("Content-Type", "application/json");
        answer(request.send(body))
    };
    assert_eq!(put(r#"{"participants":300}"#), done);
    assert_eq!(put(r#"{"participants":-1}"#).0, 400);
    assert_eq!(
        server.post("/api/v1/conferences/red/participants/sip:nobody/mute"),
        (404, r#"{"error":"no user sip:nobody"}"#.to_owned())
    );
    let room = || RoomName::from_user("blue room").unwrap();
    let of_user = |what| Wanted::User {
        room: room(),
        entity: "sip:user1@127.0.0.1".to_owned(),
        endpoint: None,
        what,
    };
    let orders = server.shards.orders.lock().unwrap();
    assert_eq!(
        orders[..5],
        [
            of_user(Wish::Mute(true)),
            of_user(Wish::Mute(false)),
            of_user(Wish::End("ended by the operator".to_owned())),
            Wanted::Lock {
                room: room(),
                locked: true
            },
            Wanted::Expect {
                room: room(),
                participants: 300
            },
        ]
    );
}

#[test]
fn decisions_are_told_with_their_reason() {
    let server = Fixture::start();
    assert_eq!(server.get("/api/v1/decisions?last=x").0, 400);
    let none = (200, "[]".to_owned());
    assert_eq!(server.get("/api/v1/decisions?last=0"), none);
    let (code, text) = server.get("/api/v1/decisions?last=2");
    assert_eq!(
        (code, text.as_str()),
        (
            200,
            r#"[{"at_ms":1700000000250,"what":"redirect","room":"blue room","server":"B","status":302,"reason":"at the maximum","seen":[]}]"#
        )
    );
}

#[test]
fn a_shard_that_does_not_answer_is_an_error_and_no_hang() {
    let server = Fixture::start();
    server.shards.silent.store(true, Ordering::Relaxed);
    let expected = (503, r#"{"error":"a shard did not answer"}"#.to_owned());
    assert_eq!(server.get("/api/v1/conferences"), expected);
    assert_eq!(server.get("/api/v1/conferences/blue%20room"), expected);
    assert_eq!(server.shards.held.lock().unwrap().len(), 1);
    assert_eq!(server.get("/healthz").0, 200);
}

#[test]
fn draining_is_passed_on() {
    let server = Fixture::start();
    assert_eq!(
        server.post("/api/v1/drain"),
        (202, r#"{"state":"draining"}"#.to_owned())
    );
    assert_eq!(server.shards.drains.load(Ordering::Relaxed), 1);
    assert_eq!(server.get("/api/v1/drain").0, 405);
    assert_eq!(
        server.post("/api/v1/undrain"),
        (202, r#"{"state":"active"}"#.to_owned())
    );
    assert_eq!(server.shards.drains.swap(1, Ordering::Relaxed), 0);

    // A page of another site in the reader's browser may not.
    let url = server.url("/api/v1/drain");
    let from = |origin: &str| answer(agent().post(&url).header("Origin", origin).send_empty()).0;
    assert_eq!(from("https://example.org"), 403);
    assert_eq!(from("null"), 403);
    assert_eq!(server.shards.drains.load(Ordering::Relaxed), 1);
    assert_eq!(from(&server.url("")), 202);
}

#[test]
fn what_does_not_exist_is_json_too() {
    let server = Fixture::start();
    assert_eq!(
        server.get("/nowhere"),
        (404, r#"{"error":"no such path"}"#.to_owned())
    );
    assert_eq!(
        server.post("/healthz"),
        (
            405,
            r#"{"error":"this path has another method"}"#.to_owned()
        )
    );
}

#[test]
fn bodies_and_headers_are_bounded() {
    let server = Fixture::start();
    let body = "x".repeat(2_000);
    assert_eq!(
        answer(agent().post(server.url("/api/v1/drain")).send(&body)).0,
        413
    );
    let head = "POST /api/v1/drain HTTP/1.1\r\nHost: a\r\n";
    let chunked = server.raw(&format!(
        "{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
    ));
    assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
    let many: String = (0..HEADERS_MAX).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer = server.raw(&format!("{head}{many}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let answer = server.raw(&format!(
        "{head}X-Long: {}\r\n\r\n",
        "x".repeat(HEADERS_LEN_MAX)
    ));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(server.raw("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(server.shards.drains.load(Ordering::Relaxed), 0);
}

/// Tests share the process, and with it the one recording that can be made at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn the_thread_ends_when_dropped() {
    let server = Fixture::start();
    let address = server.thread.local_address();
    let open = net::TcpStream::connect(address).unwrap();
    assert_eq!(server.get("/healthz").0, 200);
    drop(server);
    drop(open);
    assert!(net::TcpListener::bind(address).is_ok() || net::TcpStream::connect(address).is_err());
}
