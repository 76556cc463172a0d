//! How the server starts, refuses to start, and ends.

mod common;

use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{PLENUM, Phone, Server, free_port, http, scratch};
use simd_json::prelude::*;

/// Runs a server that is expected not to come up.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("plenum runs");
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[track_caller]
fn check_refusal(arguments: &[&str], code: i32, says: &[&str]) {
    let (status, error) = refused(Command::new(PLENUM).args(arguments));
    assert_eq!(status, Some(code), "{error}");
    assert_eq!(error.lines().count(), 1, "one line:\n{error}");
    for word in says {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn a_wrong_configuration_is_one_line_naming_the_key() {
    check_refusal(
        &["--set", "rooms.max_talkerz=3"],
        2,
        &["rooms.max_talkerz", "unknown key"],
    );
    check_refusal(
        &["serve", "--set", "server.cores=0-900"],
        2,
        &["server.cores", "core"],
    );
    check_refusal(
        &["check", "--set", "sip.listen=carrier-pigeon:1"],
        2,
        &["sip.listen"],
    );
    check_refusal(
        &["serve", "-c", "/nowhere/plenum.toml"],
        2,
        &["/nowhere/plenum.toml"],
    );
}

#[test]
fn check_says_fine_to_the_example() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/example.toml");
    let output = Command::new(PLENUM)
        .args(["check", "-c", example])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{example}: fine\n")
    );
}

#[test]
fn a_second_server_on_the_same_ports_is_refused_and_the_first_goes_on() {
    let server = Server::start(&[]);
    let sip = server.sip;
    for transport in ["udp", "tcp"] {
        let listen = format!("sip.listen={transport}:{sip}");
        check_refusal(
            &["--set", &listen],
            1,
            &["sip.listen", &sip.to_string(), "in use"],
        );
    }
    let listen = format!("sip.listen=udp:127.0.0.1:{}", free_port());
    let taken = format!("http.listen={}", server.http);
    check_refusal(
        &["--set", &listen, "--set", &taken],
        1,
        &["http.listen", "in use"],
    );
    Phone::call(
        &server.uri("still-here"),
        &["--tone", "440", "--seconds", "1"],
    )
    .succeed();
}

#[test]
fn without_the_right_to_lock_memory_it_says_which_limit_and_how_to_raise_it() {
    let listen = format!("sip.listen=udp:127.0.0.1:{}", free_port());
    let (status, error) =
        refused(Command::new("prlimit").args(["--memlock=65536:65536", PLENUM, "--set", &listen]));
    assert_eq!((status, error.lines().count()), (Some(1), 1), "{error}");
    for word in ["RLIMIT_MEMLOCK", "65536", "ulimit -l"] {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn sigint_says_bye_to_all_and_ends_at_once() {
    let mut server = Server::start(&[]);
    let phone = Phone::call(&server.uri("lobby"), &["--tone", "440"]);
    server.wait_until("the call is up", |server| server.participants() == 1);
    std::thread::sleep(Duration::from_millis(500));
    server.signal("INT");
    assert_eq!(server.wait_for_end().code(), Some(0));
    // Without `--seconds` only a BYE ends this phone.
    phone.succeed();
}

#[test]
fn sigterm_drains_lets_calls_finish_and_then_says_bye() {
    let mut server = Server::start(&["server.drain_timeout_s=3"]);
    let short = Phone::call(&server.uri("lobby"), &["--tone", "440", "--seconds", "2"]);
    let long = Phone::call(&server.uri("lobby"), &["--tone", "700"]);
    server.wait_until("both are in", |server| server.participants() == 2);
    server.signal("TERM");
    server.wait_until("it is not ready any more", |server| {
        server.get("/readyz").0 == 503
    });
    assert_eq!(server.get("/healthz").0, 200);
    assert_eq!(server.status()["state"], "draining");

    let late = Phone::call(&server.uri("lobby"), &["--seconds", "1"]).finish();
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8(late.stderr).unwrap().contains("503"));

    short.succeed();
    assert!(server.lives(), "one call is still up");
    assert_eq!(server.wait_for_end().code(), Some(0));
    long.succeed();
    UdpSocket::bind(server.sip).expect("the port is free again");
    // The kernel takes a ring apart, and with it the listening sockets, a moment after its process.
    let start = Instant::now();
    while TcpListener::bind(server.sip).is_err() {
        assert!(
            start.elapsed() < common::PATIENCE,
            "the port is never free again"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn drain_over_http_ends_an_idle_server() {
    let mut server = Server::start(&[]);
    let (code, _) = server.post("/api/v1/drain", "");
    assert_eq!(code, 202);
    assert_eq!(server.wait_for_end().code(), Some(0));
}

#[test]
fn sighup_takes_over_what_can_change() {
    let file = scratch("reload.toml");
    std::fs::write(&file, "[load]\nmax = 500\n").unwrap();
    let sip = free_port();
    let http_port = free_port();
    let mut child = Command::new(PLENUM)
        .args([
            "-c",
            file.to_str().unwrap(),
            "--set",
            &format!("sip.listen=udp:127.0.0.1:{sip}"),
        ])
        .args(["--set", &format!("http.listen=127.0.0.1:{http_port}")])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().unwrap()),
        &mut ready,
    )
    .unwrap();
    let address = ([127, 0, 0, 1], http_port).into();
    let max = || common::json(http(address, "GET", "/api/v1/status", "").1)["load"]["max"].as_u64();
    assert_eq!(max(), Some(500));
    std::fs::write(&file, "[load]\nmax = 700\n").unwrap();
    let hup = || {
        assert!(
            Command::new("kill")
                .args(["-s", "HUP", &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        )
    };
    hup();
    let start = Instant::now();
    while max() != Some(700) {
        assert!(start.elapsed() < common::PATIENCE, "never reloaded");
        std::thread::sleep(Duration::from_millis(20));
    }
    // What cannot be read changes nothing.
    std::fs::write(&file, "[load]\nmaximum = 1\n").unwrap();
    hup();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(max(), Some(700));
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert!(common::wait(&mut child).success());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn top_prints_a_snapshot_and_says_when_nobody_is_there() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.http);
    let output = Command::new(PLENUM)
        .args(["top", "--once", "--http", &url])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("active"), "{text}");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    check_refusal(&["top", "--once", "--http", &nobody], 1, &[&nobody]);
}

#[test]
fn flamegraphs_are_fetched_compared_and_refused_in_one_line() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.http);
    let stacks = scratch("before.folded");
    let (stacks, url) = (stacks.to_str().unwrap(), url.as_str());
    let flamegraph = |arguments: &[&str]| {
        Command::new(PLENUM)
            .arg("flamegraph")
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = flamegraph(&["--http", url, "--seconds", "1", "--folded", "-o", stacks]);
    assert!(output.status.success() && output.stdout.is_empty());

    // A server without calls may have been seen nowhere; a recording with a stack makes this certain.
    std::fs::write(stacks, "shard-0;turn;only_before 5\nshard-0;turn 5\n").unwrap();
    let svg = |arguments: &[&str]| {
        let output = flamegraph(&[arguments, &["-o", "-"]].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(svg(&["--http", url, "--seconds", "1"]).contains("</svg>"));
    let compared = svg(&["--http", url, "--seconds", "1", "--against", stacks]);
    assert!(compared.contains("</svg>"));
    let picture = svg(&["--diff", stacks, stacks]);
    assert!(picture.contains("only_before") && picture.contains("</svg>"));

    assert!(svg(&["--draw", stacks]).contains("only_before"));

    let missing = scratch("missing.folded");
    let missing = missing.to_str().unwrap();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let refuse = |code, arguments: &[&str], said: &[&str]| {
        check_refusal(
            &[&["flamegraph", "-o", "-"], arguments].concat(),
            code,
            said,
        );
    };
    refuse(1, &["--http", &nobody], &[&nobody]);
    refuse(1, &["--http", url, "--seconds", "61"], &["from 1 to 60"]);
    refuse(1, &["--http", url, "--against", missing], &[missing]);
    refuse(1, &["--diff", stacks, missing], &[missing]);
    refuse(1, &["--draw", missing], &[missing]);
    std::fs::write(stacks, "<svg>\n").unwrap();
    refuse(1, &["--diff", stacks, stacks], &[stacks, "line 1"]);
    std::fs::remove_file(stacks).unwrap();
    let output = flamegraph(&["--diff", stacks, stacks, "--folded", "-o", "-"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_ledger_accounts_for_every_moment_of_a_core() {
    let server = Server::start(&["server.cores=0"]);
    let _phone = Phone::call(&server.uri("lobby"), &["--tone", "440"]);
    server.wait_until("the call is up", |server| server.participants() == 1);
    let read = || {
        let asked = Instant::now();
        let phases = server.metric("plenum_phase_seconds_total");
        let cpu = server.metric("plenum_cpu_seconds_total");
        (asked, Instant::now(), phases, cpu)
    };
    let before = read();
    std::thread::sleep(Duration::from_millis(1_500));
    let after = read();
    // A shard that waits for the processor books the wait when it goes on.
    let slack = 0.5;
    let phases = after.2 - before.2;
    let least = (after.0 - before.1).as_secs_f64() - slack;
    let most = (after.1 - before.0).as_secs_f64() + slack;
    assert!((least..most).contains(&phases), "{phases} s were booked");
    let cpu = after.3 - before.3;
    assert!(cpu > 0.0 && cpu < phases + slack, "{cpu} s of CPU time");
}
