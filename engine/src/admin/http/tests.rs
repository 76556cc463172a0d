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

/// Two shards that share one conference; the second can be told to stay silent.
#[derive(Default)]
struct FakeShards {
    silent: AtomicBool,
    drains: AtomicU32,
    orders: Mutex<Vec<Wanted>>,
    /// Questions that a silent shard holds.
    held: Mutex<Vec<oneshot::Sender<Vec<ConferenceView>>>>,
}

impl FakeShards {
    fn record(number: u64) -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
            direction: Direction::In,
            flow: sip::Flow {
                transport: sip::Transport::Tcp,
                peer: "192.0.2.1:40000".parse().unwrap(),
                listener: 0,
                stream: 1,
            },
            local: "192.0.2.9:5060".parse().unwrap(),
            message: format!("BYE sip:room{number}@h SIP/2.0\r\nCall-ID: call-{number}\r\n\r\n")
                .into(),
        }
    }

    fn part(shard: usize) -> ConferenceView {
        let participant = ParticipantView {
            entity: format!("sip:user{shard}@127.0.0.1"),
            svr_id: "A".to_owned(),
            codec: "pcmu".to_owned(),
            status: "connected".to_owned(),
            muted: false,
            talking: shard == 0,
            level_dbov: -20,
            joined: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        };
        ConferenceView {
            id: "blue room".to_owned(),
            uri: "sip:blue%20room@127.0.0.1:5060".to_owned(),
            svr_id: "A".to_owned(),
            participants: vec![participant],
            heard: (shard == 1)
                .then_some(Contributor { ssrc: 7, level: 30 })
                .into_iter()
                .collect(),
        }
    }
}

impl ShardQueries for FakeShards {
    fn conferences(&self) -> Vec<oneshot::Receiver<Vec<ConferenceView>>> {
        let question = |shard| {
            let (sender, receiver) = oneshot::channel();
            if shard == 1 && self.silent.load(Ordering::Relaxed) {
                self.held.lock().unwrap().push(sender);
            } else {
                sender.send(vec![Self::part(shard)]).unwrap();
            }
            receiver
        };
        (0..2).map(question).collect()
    }

    fn dial(&self, room: RoomName, target: String) -> oneshot::Receiver<u16> {
        let (sender, receiver) = oneshot::channel();
        let status = match (room.as_str(), target.starts_with("sip:")) {
            (_, false) => 416,
            ("unknown", _) => 404,
            ("full", _) => 503,
            _ => 100,
        };
        sender.send(status).unwrap();
        receiver
    }

    fn conference(&self, id: &str) -> Vec<oneshot::Receiver<Option<ConferenceView>>> {
        let question = |shard| {
            let (sender, receiver) = oneshot::channel();
            // A silent shard's mailbox is full: the question is dropped.
            if shard == 0 || !self.silent.load(Ordering::Relaxed) {
                sender
                    .send(Some(Self::part(shard)).filter(|part| part.id == id))
                    .unwrap();
            }
            receiver
        };
        (0..2).map(question).collect()
    }

    /// The first shard has recorded three calls, of which the first is forgotten; the second shard's
    /// mailbox is full.
    fn trace(&self, from: &[Option<u64>]) -> Vec<oneshot::Receiver<Batch>> {
        let (sender, receiver) = oneshot::channel();
        let next = from[0].unwrap_or(1);
        let batch = Batch {
            records: (next..3).take(1).map(Self::record).collect(),
            next: (next + 1).min(3),
            missed: u64::from(next == 2) * 5,
            more: next < 2,
        };
        sender.send(batch).unwrap();
        vec![receiver, oneshot::channel().1]
    }

    fn drain(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    fn undrain(&self) {
        self.drains.store(0, Ordering::Relaxed);
    }

    fn cluster(&self) -> ClusterView {
        ClusterView::default()
    }

    /// Knows one user.
    fn order(&self, wanted: Wanted) -> oneshot::Receiver<(u16, String)> {
        let (sender, receiver) = oneshot::channel();
        let answer = match &wanted {
            Wanted::User { entity, .. } if entity != "sip:user1@127.0.0.1" => {
                (404, format!("no user {entity}"))
            }
            _ => (200, String::new()),
        };
        self.orders.lock().unwrap().push(wanted);
        sender.send(answer).unwrap();
        receiver
    }

    /// Another server has two users, one of them in a conference of its own.
    fn roster(&self, id: Option<&str>) -> oneshot::Receiver<Vec<cluster::ConferenceView>> {
        let conference = |id: &str, svr_ids: &[&str]| cluster::ConferenceView {
            id: id.to_owned(),
            owner: svr_ids[0].parse().unwrap(),
            epoch: 1,
            ver: 1,
            locked: false,
            subject: None,
            max_users: None,
            expected: 0,
            users: svr_ids
                .iter()
                .map(|svr_id| ConfUser {
                    entity: format!("sip:far@{svr_id}"),
                    svr_id: Some(svr_id.parse().unwrap()),
                    endpoint: "1".to_owned(),
                    display_name: None,
                    status: UserStatus::OnHold,
                    ssrc: Some(7),
                    codec: Some("opus".to_owned()),
                    role: None,
                    muted: true,
                    joined: None,
                    reach: None,
                })
                .collect(),
        };
        let (sender, receiver) = oneshot::channel();
        let mut all = vec![
            conference("blue room", &["A", "B"]),
            conference("far", &["B"]),
        ];
        all.retain(|conference| id.is_none_or(|id| id == conference.id));
        sender.send(all).unwrap();
        receiver
    }

    fn decisions(&self) -> oneshot::Receiver<Vec<Decision>> {
        let (sender, receiver) = oneshot::channel();
        let decision = Decision {
            at_ms: 1_700_000_000_250,
            what: What::Redirect,
            room: Some("blue room".to_owned()),
            who: None,
            server: Some("B".to_owned()),
            status: Some(302),
            reason: "at the maximum".to_owned(),
            seen: Vec::new(),
        };
        sender.send(vec![decision]).unwrap();
        receiver
    }
}

struct Fixture {
    admin: Admin,
    shards: Arc<FakeShards>,
    thread: AdminThread,
}

/// A server with two cores of which only the admin part is there.
fn admin(shards: Arc<FakeShards>) -> Admin {
    let sets = ["load.max=500".to_owned(), "load.min=50".to_owned()];
    let config = Arc::new(Config::load(None, std::iter::empty(), &sets, &[0, 3]).unwrap());
    Admin {
        meters: Arc::new(Meters::new(&config.server.cores)),
        cluster_meters: Arc::default(),
        load: Arc::new(ServerLoad::new(&config.load)),
        state: Arc::new(ServerState::default()),
        shards,
        watchers: Watchers::default(),
        started: Instant::now(),
        config,
    }
}

impl Fixture {
    fn start() -> Self {
        let shards = Arc::new(FakeShards::default());
        let admin = admin(shards.clone());
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let thread = AdminThread::start(listener, admin.clone()).unwrap();
        Self {
            admin,
            shards,
            thread,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.thread.local_address())
    }

    fn get(&self, path: &str) -> (u16, String) {
        answer(agent().get(self.url(path)).call())
    }

    fn post(&self, path: &str) -> (u16, String) {
        answer(agent().post(self.url(path)).send_empty())
    }

    /// Everything the server says to these bytes until it closes the connection.
    fn raw(&self, request: &str) -> String {
        let mut stream = net::TcpStream::connect(self.thread.local_address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is one way to close.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

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
fn metrics_are_complete_and_well_formed() {
    let server = Fixture::start();
    server.admin.state.set(State::Active);
    let core = &server.admin.meters.cores[1];
    core.rtp_received.add(7);
    let start = Instant::now();
    let mut ledger = Ledger::new(start);
    ledger.lap_at(start + Duration::from_millis(1_500), core, Phase::Mix);
    ledger.lap_at(start + Duration::from_millis(1_750), core, Phase::Idle);
    [3, 12, 1 << 30]
        .iter()
        .for_each(|&us| core.tick_lateness.record_us(us));
    core.participants.set(2);

    let mut response = agent().get(server.url("/metrics")).call().unwrap();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE.as_str()],
        Metrics::CONTENT_TYPE
    );
    let text = response.body_mut().read_to_string().unwrap();
    for line in [
        "# TYPE plenum_rtp_received counter",
        r#"plenum_rtp_received_total{core="0"} 0"#,
        r#"plenum_rtp_received_total{core="3"} 7"#,
        r#"plenum_calls_total{core="3"} 0"#,
        r#"plenum_busy_seconds_total{core="3"} 1.5"#,
        r#"plenum_phase_seconds_total{core="3",phase="mix"} 1.5"#,
        r#"plenum_phase_seconds_total{core="3",phase="idle"} 0.25"#,
        r#"plenum_participants{core="3"} 2"#,
        r#"plenum_tick_lateness_seconds_count{core="3"} 3"#,
        r#"plenum_tick_lateness_seconds_bucket{le="0.000007",core="3"} 1"#,
        r#"plenum_tick_lateness_seconds_bucket{le="+Inf",core="3"} 3"#,
        "plenum_load_max 500.0",
        "plenum_ready 1.0",
        concat!(
            r#"plenum_build_info{version=""#,
            env!("CARGO_PKG_VERSION"),
            r#"",svr_id="A"} 1"#
        ),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} not in\n{text}"
        );
    }
    check_exposition(&text);
}

/// Each sample belongs to the family announced above it and has a number; families come once.
fn check_exposition(text: &str) {
    assert!(text.ends_with("# EOF\n"));
    let mut families = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["#", "EOF"] => {}
            ["#", "HELP", name, _, ..] => {
                assert!(
                    name.starts_with("plenum_") && !families.contains(name),
                    "{line}"
                );
                families.push(*name);
            }
            [
                "#",
                "TYPE",
                name,
                "counter" | "gauge" | "histogram" | "info",
            ] => {
                assert_eq!(families.last(), Some(name), "{line}");
            }
            ["#", ..] => panic!("{line}"),
            _ => {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(sample.starts_with(families.last().unwrap()), "{line}");
            }
        }
    }
    assert!(families.len() > 30);
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
fn a_flamegraph_shows_the_busy_function_and_one_is_made_at_a_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Fixture::start();
    for seconds in ["0", "61", "-1", "x", "1.5", ""] {
        assert_eq!(
            server
                .get(&format!("/debug/flamegraph?seconds={seconds}"))
                .0,
            400,
            "{seconds}"
        );
    }
    let done = AtomicBool::new(false);
    let mut answers = std::thread::scope(|scope| {
        let busy = std::thread::Builder::new().name("busy-shard".to_owned());
        busy.spawn_scoped(scope, || count_until_done(&done))
            .unwrap();
        let requests = [(); 2].map(|()| scope.spawn(|| server.get("/debug/flamegraph?seconds=2")));
        let answers = requests.map(|request| request.join().unwrap());
        done.store(true, Ordering::Relaxed);
        answers
    });
    answers.sort();
    let [svg, refused] = answers;
    assert_eq!(
        refused,
        (
            409,
            r#"{"error":"a flamegraph is being recorded already"}"#.to_owned()
        )
    );
    assert_eq!(svg.0, 200);
    assert!(svg.1.contains("<svg"));
    assert!(
        svg.1.contains("count_until_done"),
        "the busy function is not in the picture"
    );
    assert!(
        svg.1.contains("busy-shard"),
        "the busy thread is not in the picture"
    );
}

#[test]
fn folded_stacks_are_lines_of_functions() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Fixture::start();
    assert_eq!(server.get("/debug/flamegraph?seconds=1&format=png").0, 400);
    let done = AtomicBool::new(false);
    let (status, text) = std::thread::scope(|scope| {
        let busy = std::thread::Builder::new().name("folded-shard".to_owned());
        busy.spawn_scoped(scope, || count_until_done(&done))
            .unwrap();
        let answer = server.get("/debug/flamegraph?seconds=1&format=folded");
        done.store(true, Ordering::Relaxed);
        answer
    });
    assert_eq!(status, 200);
    let stacks: Folded = text.parse().unwrap();
    assert_eq!(stacks.to_string(), text, "sorted, and each stack once");
    let busy = text
        .lines()
        .find(|line| line.starts_with("folded-shard;") && line.contains("count_until_done"))
        .expect("the busy function is in no line");
    assert!(
        !busy.contains(".rs:"),
        "functions without their lines: {busy}"
    );
}

#[inline(never)]
fn count_until_done(done: &AtomicBool) {
    let mut count = 0_u64;
    while !done.load(Ordering::Relaxed) {
        count = black_box(count.wrapping_mul(31).wrapping_add(1));
    }
}

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

fn lines(body: &str) -> Vec<Line> {
    body.lines()
        .filter(|line| !line.is_empty())
        .map(|line| simd_json::from_slice(&mut line.as_bytes().to_vec()).unwrap())
        .collect()
}

fn call_ids(body: &str) -> Vec<String> {
    let call_id = |line| match line {
        Line::Message(message) => message.call_id,
        Line::Missed { core, messages } => format!("missed {messages} of {core}"),
    };
    lines(body).into_iter().map(call_id).collect()
}

#[test]
fn a_trace_is_a_line_for_each_message_and_says_what_it_missed() {
    let fixture = Fixture::start();
    let (code, body) = fixture.get("/api/v1/trace?seconds=0");
    assert_eq!(code, 200);
    assert_eq!(call_ids(&body), ["call-1", "missed 5 of 0", "call-2"]);
    let (_, body) = fixture.get("/api/v1/trace?seconds=0&call=call-2");
    assert_eq!(call_ids(&body), ["missed 5 of 0", "call-2"]);
    let (_, body) = fixture.get("/api/v1/trace?seconds=0&room=room1");
    assert_eq!(call_ids(&body), ["call-1", "missed 5 of 0"]);
    for wrong in ["-1", "x", "86401", ""] {
        let (code, body) = fixture.get(&format!("/api/v1/trace?seconds={wrong}"));
        assert_eq!(
            (code, body.contains("from 0 to 86400")),
            (400, true),
            "{body}"
        );
    }
}

#[test]
fn watchers_are_counted_bounded_and_forgotten_when_they_go() {
    let fixture = Fixture::start();
    let watch = || {
        let mut stream = net::TcpStream::connect(fixture.thread.local_address()).unwrap();
        stream
            .write_all(b"GET /api/v1/trace HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (stream, first == *b"HTTP/1.1 200")
    };
    let watchers: Vec<_> = (0..8).map(|_| watch()).collect();
    assert!(watchers.iter().all(|(_, welcome)| *welcome));
    assert_eq!(fixture.admin.watchers.len(), 8);
    assert!(!watch().1);
    assert_eq!(fixture.get("/api/v1/trace").0, 503);
    let (_, text) = fixture.get("/metrics");
    assert!(text.contains("\nplenum_trace_watchers 8"), "{text}");
    drop(watchers);
    let start = Instant::now();
    while fixture.admin.watchers.any() {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}
