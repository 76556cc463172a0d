//! Behind Kamailio, with the configuration that operators get in `engine/examples/kamailio`.

mod common;

use std::path::Path;
use std::process::Command;

use common::kamailio::Kamailio;
use common::program::is_installed;
use common::{Phone, Server, read_wav, scratch, share_of_pitch};
use simd_json::prelude::*;

const TONE_HZ: f64 = 440.0;

/// Enough that two servers both get some of them.
const ROOMS: usize = 12;

#[test]
fn calls_by_way_of_a_proxy_work_and_end_from_both_sides() {
    by_way_of_a_proxy("udp", "udp");
}

#[test]
fn a_proxy_may_change_the_transport_to_tcp() {
    by_way_of_a_proxy("udp", "tcp");
}

/// The server could not reach this caller but through the proxy: it has no connection to him.
#[test]
fn a_proxy_may_change_the_transport_to_udp() {
    by_way_of_a_proxy("tcp", "udp");
}

/// Callers reach the proxy over the one transport and it reaches the server over the other; where they
/// differ it records two routes, one for each side (RFC 5658).
fn by_way_of_a_proxy(callers: &str, servers: &str) {
    if !is_installed("kamailio") {
        return;
    }
    let mut server = Server::start(&["server.drain_timeout_s=0"]);
    let next = format!("sip:{};transport={servers}", server.sip);
    let proxy = Kamailio::start(&[next]);
    let uri = |room: &str| format!("sip:{room}@{};transport={callers}", proxy.address());

    // These hang up themselves, and that they leave shows that ACK and BYE came by the recorded routes.
    let talker = Phone::call(&uri("lobby"), &["--tone", "440", "--seconds", "4"]);
    server.wait_until("he is in", |server| server.participants() == 1);
    let record = scratch(&format!("proxied-{}.wav", server.sip.port()));
    let arguments = ["--record", record.to_str().unwrap(), "--seconds", "2"];
    Phone::call(&uri("lobby"), &arguments).succeed();
    let samples = read_wav(&record);
    let _ = std::fs::remove_file(&record);
    assert!(share_of_pitch(&samples[4_000..], TONE_HZ) > 0.9);
    talker.succeed();
    server.wait_until("both have left", |server| server.participants() == 0);

    // Other people's client, and re-INVITEs.
    match callers {
        "udp" => scenarios(&proxy, &["call", "hold", "codec_change", "offerless"]),
        _ => scenarios(&proxy, &["call_tcp"]),
    }
    server.wait_until("all have left", |server| server.participants() == 0);

    // Without `--seconds` only a BYE ends this phone.
    let phone = Phone::call(&uri("lobby"), &["--tone", "440"]);
    server.wait_until("he is in", |server| server.participants() == 1);
    server.signal("TERM");
    assert_eq!(server.wait_for_end().code(), Some(0));
    phone.succeed();
}

#[test]
fn a_dispatcher_spreads_rooms_and_passes_over_servers_that_take_no_calls() {
    if !is_installed("kamailio") {
        return;
    }
    let mut a = Server::start(&["server.id=A"]);
    let b = a.start_beside(&["server.id=B"]);
    let dispatcher = Kamailio::start(&[&a, &b].map(|server| format!("sip:{}", server.sip)));
    let uri = |room: usize| format!("sip:room{room}@{}", dispatcher.address());
    let call_each = |seconds: &str| -> Vec<Phone> {
        let call = |room| Phone::call(&uri(room), &["--seconds", seconds]);
        (0..ROOMS).map(call).collect()
    };

    // Two in each room, so that a room on two servers would show.
    let phones = [call_each("3"), call_each("3")];
    let everybody = 2 * ROOMS as u64;
    a.wait_until("all are in", |a| {
        a.participants() + b.participants() == everybody
    });
    let rooms = [&a, &b].map(|server| server.status()["conferences"].as_u64().unwrap());
    assert_eq!(rooms[0] + rooms[1], ROOMS as u64, "a room is on both");
    assert!(rooms[0] > 0 && rooms[1] > 0, "{rooms:?}");
    let is_on_a = |room: &usize| a.get(&format!("/api/v1/conferences/room{room}")).0 == 200;
    let room_on_a = (0..ROOMS).find(is_on_a).expect("there is one");
    phones.into_iter().flatten().for_each(|phone| {
        phone.succeed();
    });
    a.wait_until("all have left", |a| {
        a.participants() + b.participants() == 0
    });

    // One that drains keeps its calls and says 503 to new ones, who are sent to the other.
    let stays = Phone::call(&uri(room_on_a), &["--tone", "440"]);
    a.wait_until("he is in", |a| a.participants() == 1);
    a.signal("TERM");
    a.wait_until("a drains", |a| a.get("/readyz").0 == 503);
    let before = b.metric("plenum_calls_total");
    for phone in call_each("1") {
        phone.succeed();
    }
    assert_eq!(b.metric("plenum_calls_total") - before, ROOMS as f64);
    assert_eq!(a.participants(), 1, "his call goes on");

    // One that is gone says nothing.
    drop(stays);
    a.signal("KILL");
    a.wait_for_end();
    for phone in call_each("1") {
        phone.succeed();
    }
    assert_eq!(b.metric("plenum_calls_total") - before, 2.0 * ROOMS as f64);
}

fn scenarios(proxy: &Kamailio, names: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/sipp/run.sh");
    let output = Command::new(script)
        .arg(proxy.address())
        .args(names)
        .output()
        .expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
