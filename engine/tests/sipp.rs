//! SIPp against the real binary: the scenarios that users get in `perf/sipp`.

mod common;

use std::path::Path;
use std::process::Command;

use common::Server;

fn scenarios(server: &Server, names: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/sipp/run.sh");
    let output = Command::new(script)
        .arg(server.sip.to_string())
        .args(names)
        .output()
        .expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

#[test]
fn every_scenario_of_a_default_server_passes() {
    let server = Server::start(&[]);
    scenarios(&server, &[]);
    server.wait_until("nobody left", |server| server.participants() == 0);
}

#[test]
fn a_caller_who_hangs_up_while_it_rings_is_cancelled() {
    let server = Server::start(&["rooms.answer_after_ms=2000"]);
    scenarios(&server, &["cancel"]);
    server.wait_until("nobody left", |server| server.participants() == 0);
    assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
}

#[test]
fn calls_from_one_socket_spread_over_the_cores() {
    let server = Server::start(&[]);
    scenarios(&server, &["rooms"]);
    let (_, metrics) = server.get("/metrics");
    let calls: Vec<u64> = metrics
        .lines()
        .filter(|line| line.starts_with("plenum_calls_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(calls.iter().sum::<u64>(), 20, "{calls:?}");
    assert!(
        calls.iter().all(|&calls| calls > 0),
        "a core has no calls: {calls:?}"
    );
}
