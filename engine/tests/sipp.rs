//! SIPp against the real binary: the scenarios that users get in `perf/sipp`, and those in SIPp itself.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use common::program::Program;
use common::{Server, free_port, free_ports, has_ipv6};

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

// Of the scenarios in SIPp itself (`-sn`) these call somebody: `uac`, `regexp`, `uac_pcap`, and
// `3pcc-C-A` with `3pcc-C-B`. The others do not suit a conference server:
// - `uas`, `branchs`, `3pcc-A`, `3pcc-B`, `ooc_default` and `ooc_dummy` wait for somebody to call them.
// - `branchc` registers first, and this is no registrar.

/// One socket for all calls and one for each, over UDP and TCP.
const SOCKETS: [&str; 4] = ["u1", "un", "t1", "tn"];

#[test]
fn sipps_own_scenarios_pass() {
    let server = Server::start(&[]);
    own_scenarios(&server, &["uac", "regexp", "uac_pcap"]);
}

/// Without `regexp`, which looks for an IPv4 address.
#[test]
fn sipps_own_scenarios_pass_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let sip: SocketAddr = format!("[::1]:{}", free_port()).parse().unwrap();
    let listen = format!("udp:{sip},tcp:{sip}");
    let server = Server::start_on(sip, &listen, &["rtp.address=::1"]);
    own_scenarios(&server, &["uac", "uac_pcap"]);
}

/// Third party call control (RFC 3725 flow I): a controller calls one room without an offer and hands
/// the room's to the other, so that the two rooms are each other's caller.
#[test]
fn a_third_party_connects_two_rooms() {
    let server = Server::start(&[]);
    for sockets in ["u1", "t1"] {
        let port = free_port();
        let between = format!("127.0.0.1:{port}");
        let controller = |side: &str| {
            let options = ["-3pcc", &between, "-s", side, "-m", "1"];
            own(&server, side, sockets, &options)
        };
        let mut b = controller("3pcc-C-B");
        b.wait_until("it waits for the other side", |_| is_listening(port));
        let mut a = controller("3pcc-C-A");
        assert!(
            a.wait_for_end().success() && b.wait_for_end().success(),
            "over {sockets}"
        );
    }
    server.wait_until("nobody left", |server| server.participants() == 0);
}

/// Each over all [`SOCKETS`] at once.
fn own_scenarios(server: &Server, names: &[&'static str]) {
    let mut running = Vec::new();
    for name in names {
        if *name == "uac_pcap" && !is_root() {
            eprintln!("skipped: SIPp plays pcap files on raw sockets, which only root may have");
            continue;
        }
        for sockets in SOCKETS {
            let options = ["-s", "lobby", "-m", "4", "-r", "10", "-d", "500"];
            running.push((name, sockets, own(server, name, sockets, &options)));
        }
    }
    for (name, sockets, program) in &mut running {
        assert!(program.wait_for_end().success(), "{name} over {sockets}");
    }
    server.wait_until("nobody left", |server| server.participants() == 0);
    assert_eq!(server.metric("plenum_sip_malformed_total"), 0.0);
}

fn own(server: &Server, name: &str, sockets: &str, options: &[&str]) -> Program {
    /// Where Debian keeps what `uac_pcap` plays.
    const SOUNDS: &str = "/usr/share/sip-tester";
    let port = free_port();
    // For audio and video, RTP and RTCP each.
    let media_port = free_ports(4);
    let home = Program::home("sipp", port);
    std::os::unix::fs::symlink(SOUNDS, home.join("pcap")).unwrap();
    let host = match server.sip {
        SocketAddr::V4(_) => "127.0.0.1",
        SocketAddr::V6(_) => "[::1]",
    };
    let mut command = Command::new("sipp");
    command
        .arg(server.sip.to_string())
        .args(["-sn", name, "-t", sockets, "-i", host, "-max_socket", "100"])
        .args(["-p", &port.to_string(), "-mp", &media_port.to_string()])
        .args(["-nostdin", "-recv_timeout", "10000", "-timeout", "60"])
        .args(["-timeout_error", "-trace_err", "-error_file", "errors"])
        .args(["-trace_msg", "-message_file", "trace"])
        .args(options)
        .stdin(Stdio::null());
    Program::start("sipp", home, &mut command)
}

/// Without connecting, which would be taken for the other side.
fn is_listening(port: u16) -> bool {
    let listening = format!(":{port:04X} 00000000:0000 0A");
    std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&listening))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout == b"0\n"
}
