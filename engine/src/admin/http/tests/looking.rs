//! Metrics, flamegraphs and traces.

use super::*;

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
