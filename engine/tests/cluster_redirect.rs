//! Three servers, one service: the first fills up and sends callers to the second, and when both are full a
//! reserved one is added. What they say to each other is looked at on the wire.

#[path = "common/agent.rs"]
mod agent;
#[path = "common/capture.rs"]
mod capture;
mod common;
#[path = "common/crowd.rs"]
mod crowd;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent::uri_in;
use capture::{Capture, Filter, Flow, Frame, frames};
use common::cluster::{
    Place, decisions, listed, peers, reserved, state, wait_for, wait_until_meshed,
};
use common::program::{Program, is_installed};
use common::{PLENUM, Phone, Server, free_port, scratch};
use crowd::{Crowd, Heard, NEITHER, TONE_RMS, Voice, Who, address_in};
use simd_json::prelude::*;

/// Ten phones of 50 packets a second each way are clearly above it.
const MAX: &str = "load.max=950";

/// As many as a server may have at most: twelve by its hard cap of 1,140, and those whose packets its load, which is
/// smoothed, does not show in full.
const HARD_MAX: usize = 14;

/// Calls the first server so often, one after the other, that two servers are full and a third one is not.
fn fill(crowd: &Crowd, first: &Server) -> Vec<Who> {
    (0..24)
        .map(|number| {
            let name = format!("caller{number}");
            let who = crowd.call(&name, &first.uri("lobby"), NEITHER, Voice::Silence);
            crowd.wait_until("the caller is in, or refused", |crowd| {
                crowd.server(who).is_some() || crowd.story(who).status >= Some(400)
            });
            assert!(crowd.server(who).is_some(), "{:?}", crowd.story(who));
            who
        })
        .collect()
}

#[track_caller]
fn check_spread(crowd: &Crowd, all: &[Who], first: &Server, others: &[&Server]) {
    for server in [&[first], others].concat() {
        let here = crowd.on(server);
        assert!((1..=HARD_MAX).contains(&here), "{here} on {}", server.sip);
        server.wait_until("it counts its own", |server| {
            server.participants() == here as u64
        });
    }
    for &who in all {
        // One redirect at most: whoever was sent on is not sent on again.
        let is_on_first = crowd.server(who) == Some(first.sip);
        assert_eq!(
            crowd.story(who).redirects,
            u32::from(!is_on_first),
            "{who:?}"
        );
    }
}

/// All servers list all callers, each where he is.
#[track_caller]
fn check_roster(crowd: &Crowd, all: &[Who], servers: &[(&str, &Server)]) {
    let place = |who: Who| {
        let on = crowd.server(who);
        let is_it = |(_, server): &&(&str, &Server)| Some(server.sip) == on;
        let (id, _) = servers.iter().find(is_it).expect("one of them");
        (crowd.entity(who), (*id).to_owned())
    };
    let expected: BTreeSet<(String, String)> = all.iter().map(|&who| place(who)).collect();
    for (id, server) in servers {
        wait_for(&format!("{id} lists everybody"), || {
            let list = listed(server, "lobby");
            let found = list.into_iter().map(|one| (one.entity, one.svr_id));
            found.collect::<BTreeSet<_>>() == expected
        });
    }
}

#[test]
fn callers_go_to_the_second_server_and_then_to_one_that_stood_by() {
    let [a, b, c] = ["A", "B", "C"].map(Place::new);
    let sip = [&a, &b, &c].map(|place| place.sip).to_vec();
    let filter = Filter {
        sip,
        ..Filter::default()
    };
    let capture = Capture::start(filter);
    let active = [a.clone(), b.clone()];
    let listed_c = format!("cluster.reserved={}", c.reserved());
    let sets = [MAX, listed_c.as_str()];
    let first = a.start(&active, &sets);
    let second = b.start_beside(&first, &active, &sets);
    wait_until_meshed(&[&first, &second]);
    let third = c.start_beside(&first, &[], &[MAX, "cluster.standby=true"]);
    assert_eq!(state(&third), "standby");
    assert_eq!(reserved(&first), [("C".to_owned(), "free".to_owned())]);

    let crowd = Crowd::new();
    let all = fill(&crowd, &first);
    check_spread(&crowd, &all, &first, &[&second, &third]);
    let servers = [("A", &first), ("B", &second), ("C", &third)];
    check_roster(&crowd, &all, &servers);
    third.wait_until("it is active", |third| state(third) == "active");
    wait_until_meshed(&[&first, &second, &third]);
    for server in [&first, &second] {
        server.wait_until("it has C as added", |server| {
            reserved(server) == [("C".to_owned(), "active".to_owned())]
        });
    }
    first.wait_until("it is full", |first| state(first) == "full");
    check_reasons(&first);

    // Other people's client, and the phone of the house, follow too.
    let before = first.participants();
    if is_installed("sipp") {
        follow_by_sipp(&first, 3);
    }
    Phone::call(&first.uri("lobby"), &["--tone", "440", "--seconds", "2"]).succeed();
    assert_eq!(first.participants(), before, "none of them stayed");

    crowd.hang_up_all();
    wait_for("all have left everywhere", || {
        servers.iter().all(|(_, server)| server.participants() == 0)
    });
    for (_, server) in &servers {
        assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
    }
    if let Some(capture) = capture {
        check_wire(&capture, &[&a, &b, &c]);
    }
}

/// Why callers were sent elsewhere, and why C was added, can be asked afterwards.
#[track_caller]
fn check_reasons(server: &Server) {
    let all = decisions(server);
    let find = |what: &str, id: &str| {
        let text = |one: &simd_json::OwnedValue, key: &str| {
            one.get(key)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        let is_it = |one: &&simd_json::OwnedValue| {
            text(one, "what").as_deref() == Some(what) && text(one, "server").as_deref() == Some(id)
        };
        let found = all.iter().find(is_it);
        let found = found.unwrap_or_else(|| panic!("no {what} of {id} in {all:?}"));
        assert!(text(found, "reason").is_some_and(|reason| !reason.is_empty()));
        found.clone()
    };
    for id in ["B", "C"] {
        let redirect = find("redirect", id);
        assert_eq!(redirect["room"].as_str(), Some("lobby"));
        assert_eq!(redirect["status"].as_u64(), Some(302));
        let seen = redirect["seen"].as_array().expect("a list");
        let of = |id: &str| seen.iter().find(|one| one["svr_id"].as_str() == Some(id));
        assert!(
            of("A").is_some_and(|own| own["predicted"].as_u64() >= Some(950)),
            "{seen:?}"
        );
        let chosen = of(id).expect("it was seen");
        assert!(chosen["predicted"].as_u64() < Some(1_200), "{seen:?}");
        assert!(chosen["age_ms"].as_u64() < Some(5_000), "{seen:?}");
    }
}

/// Calls with the scenario that has to meet a 302 and then a focus.
fn follow_by_sipp(server: &Server, calls: u32) {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/sipp/redirect.xml");
    let home = Program::home("sipp", server.sip.port());
    let mut command = Command::new("sipp");
    command
        .arg(server.sip.to_string())
        .arg("-sf")
        .arg(scenario)
        .args(["-s", "lobby", "-i", "127.0.0.1", "-p"])
        .arg(free_port().to_string())
        .args(["-m", &calls.to_string(), "-r", "1", "-nostdin"])
        .args(["-recv_timeout", "10000", "-timeout", "60", "-timeout_error"])
        .args(["-trace_err", "-error_file", "errors"])
        .args(["-trace_msg", "-message_file", "trace"])
        .stdin(Stdio::null());
    let mut program = Program::start("sipp", home, &mut command);
    assert!(program.wait_for_end().success(), "calls by SIPp");
}

/// A control channel as it was seen.
struct Channel {
    /// What the side that connected said, and what the other side did.
    active: Vec<Frame>,
    passive: Vec<Frame>,
}

/// Every two of them have talked as RFC 6230, and the package, have it.
#[track_caller]
fn check_wire(capture: &Capture, places: &[&Place]) {
    let messages = capture.sip();
    let mut bodies = Vec::new();
    let mut pairs = BTreeSet::new();
    for (flow, invite) in messages.iter().filter(|(_, text)| is_control_invite(text)) {
        let Some(channel) = check_offer_and_answer(capture, &messages, *flow, invite) else {
            // Both called each other, and one of the calls was given up.
            continue;
        };
        let id = |sip: SocketAddr| places.iter().find(|place| place.sip == sip).unwrap().id;
        let mut pair = [id(flow.0), id(flow.1)];
        pair.sort_unstable();
        pairs.insert(pair);
        check_frames(&channel);
        let all = channel.active.iter().chain(&channel.passive);
        let with_body = all.filter(|frame| !frame.body.is_empty());
        bodies.extend(with_body.map(|frame| frame.body.clone()));
    }
    assert_eq!(pairs.len(), 3, "a channel for each two: {pairs:?}");
    let all = bodies.concat();
    for element in [
        "<crt-svr-load ",
        "<crt-conf-info",
        "<crt-system ",
        "<crt-users ",
        "<conf-user ",
        "<reserved-svrs",
        "<reserved-svr ",
    ] {
        assert!(all.contains(element), "nobody has said {element}");
    }
    check_schema(&bodies);

    // Whoever is full names another server by its own address, and that the caller has been sent on.
    let first = places[0].sip;
    let mut redirects = 0;
    for ((from, _), text) in messages
        .iter()
        .filter(|(_, text)| text.starts_with("SIP/2.0 302 "))
    {
        assert_eq!(
            *from, first,
            "only callers of the first are sent on\n{text}"
        );
        let contact = uri_in(line(text, "Contact:").expect("a Contact")).trim();
        let target = address_in(contact);
        assert!(
            places
                .iter()
                .any(|place| place.sip == target && target != first)
        );
        assert!(contact.starts_with("sip:lobby@"), "{contact}");
        let mut parameters = contact.split(';').skip(1);
        assert!(parameters.any(|one| one == "crt-hop=1"), "{contact}");
        redirects += 1;
    }
    assert!(redirects > 0);
}

fn is_control_invite(text: &str) -> bool {
    text.starts_with("INVITE sip:cfw@")
}

fn line<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(prefix))
}

/// RFC 6230 §4, RFC 4145; then the connection that belongs to it, if there was one.
#[track_caller]
fn check_offer_and_answer(
    capture: &Capture,
    messages: &[(Flow, String)],
    (from, to): Flow,
    invite: &str,
) -> Option<Channel> {
    let call_id = line(invite, "Call-ID:").expect("a Call-ID");
    let cseq = line(invite, "CSeq:").expect("a CSeq");
    let of_call = |text: &str, begin: &str| {
        text.starts_with(begin) && line(text, "Call-ID:") == Some(call_id)
    };
    let answer = messages.iter().find(|(flow, text)| {
        *flow == (to, from) && of_call(text, "SIP/2.0 200 ") && line(text, "CSeq:") == Some(cseq)
    });
    let (_, answer) = answer?;
    let acknowledged = messages
        .iter()
        .any(|(flow, text)| *flow == (from, to) && of_call(text, "ACK "));
    assert!(acknowledged, "no ACK of {answer}");
    for text in [invite, answer] {
        assert!(text.contains("Content-Type: application/sdp\r\n"), "{text}");
        assert_eq!(text.matches("\r\nm=").count(), 1, "{text}");
        assert!(line(text, "t=").is_some(), "{text}");
        assert_eq!(line(text, "a=connection:"), Some("new"), "{text}");
    }
    assert_eq!(line(invite, "m="), Some("application 9 TCP cfw"));
    assert_eq!(line(invite, "a=setup:"), Some("active"));
    assert_eq!(line(answer, "a=setup:"), Some("passive"));
    let [own, other] = [invite, answer].map(|text| line(text, "a=cfw-id:").expect("a cfw-id"));
    assert_ne!(own, other, "each side has an id of its own (§4.2)");
    let port = line(answer, "m=application ")?.strip_suffix(" TCP cfw")?;
    let host = line(answer, "c=IN IP4 ").expect("an address");
    let listener: SocketAddr = format!("{host}:{port}").parse().expect("an address");
    capture
        .connections_to(listener)
        .into_iter()
        .filter_map(|(there, back)| {
            let [active, passive] = [there, back].map(|flow| capture.stream(flow));
            let channel = Channel {
                active: frames(&active?),
                passive: frames(&passive?),
            };
            let sync = channel.active.first()?;
            (sync.header("Dialog-ID") == Some(own)).then_some(channel)
        })
        .next()
}

/// RFC 6230 §6 to §9: SYNC first, then CONTROL both ways, each answered.
#[track_caller]
fn check_frames(Channel { active, passive }: &Channel) {
    const PACKAGE: &str = "msc-dist-conf/1.0";
    let (sync, answer) = (&active[0], &passive[0]);
    assert_eq!(sync.what, "SYNC");
    assert_eq!(sync.header("Packages"), Some(PACKAGE));
    let keep_alive = sync.header("Keep-Alive").expect("a Keep-Alive");
    assert!((1..=600).contains(&keep_alive.parse::<u32>().unwrap()));
    assert_eq!(
        (&answer.trans_id, answer.what.as_str()),
        (&sync.trans_id, "200")
    );
    assert_eq!(answer.header("Keep-Alive"), Some(keep_alive));
    assert_eq!(answer.header("Packages"), Some(PACKAGE));

    for (said, answers) in [(active, passive), (passive, active)] {
        let mut names = BTreeSet::new();
        let requests: Vec<_> = said.iter().filter(|frame| !frame.is_response()).collect();
        let controls = requests.iter().filter(|frame| frame.what == "CONTROL");
        assert!(controls.count() > 0, "one side said nothing");
        let mut unanswered = 0;
        for request in requests {
            let name = &request.trans_id;
            assert!(names.insert((name, &request.what)), "{name} twice");
            let is_answer = |frame: &&Frame| frame.is_response() && frame.trans_id == *name;
            match answers.iter().find(is_answer) {
                Some(answer) => {
                    assert!(matches!(answer.what.as_str(), "200" | "202"), "{answer:?}");
                }
                None => unanswered += 1,
            }
            if request.what == "CONTROL" {
                assert_eq!(request.header("Control-Package"), Some(PACKAGE));
                assert_eq!(
                    request.header("Content-Type"),
                    Some("application/msc-dist-conf+xml")
                );
            }
        }
        // What was said at the very end may still be on its way.
        assert!(unanswered <= 3, "{unanswered} without an answer");
    }
}

/// Against the schema that other implementers get.
#[track_caller]
fn check_schema(bodies: &[String]) {
    if !is_installed("xmllint") {
        return;
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cfw/msc-dist-conf.xsd");
    let directory = scratch("bodies");
    fs::create_dir_all(&directory).unwrap();
    let files: Vec<PathBuf> = bodies
        .iter()
        .enumerate()
        .map(|(number, body)| {
            let file = directory.join(format!("{number}.xml"));
            fs::write(&file, body).unwrap();
            file
        })
        .collect();
    // As many at once as fit into one command line.
    for files in files.chunks(500) {
        let output = Command::new("xmllint")
            .args(["--noout", "--nonet", "--schema"])
            .arg(&schema)
            .args(files)
            .output()
            .expect("xmllint runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong: Vec<&str> = said
            .lines()
            .filter(|line| !line.ends_with(" validates"))
            .collect();
        let first = wrong.first().and_then(|line| line.split(':').next());
        let body = first.and_then(|file| fs::read_to_string(file).ok());
        assert!(output.status.success(), "{wrong:#?}\n{body:?}");
    }
    let _ = fs::remove_dir_all(&directory);
}

/// Servers that a hook has started, and its files; gone with the test.
struct Hooked(PathBuf);

impl Hooked {
    fn new() -> Self {
        let directory = scratch("hooked");
        fs::create_dir_all(&directory).expect("a scratch directory");
        Self(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.file("pids")).unwrap_or_default();
        for pid in pids.lines() {
            // A number may have gone to another program since.
            let program = fs::read_link(format!("/proc/{pid}/exe"));
            if program.is_ok_and(|program| program == Path::new(PLENUM)) {
                let _ = Command::new("kill").args(["-s", "KILL", pid]).status();
            }
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_hook_starts_the_reserved_server() {
    let [a, b, c] = ["A", "B", "C"].map(Place::new);
    let http = free_port();
    let hooked = Hooked::new();
    let [log, pids, hook] = ["log", "pids", "hook"].map(|name| hooked.file(name));
    let mut sets = c.sets(&[], &[MAX, "cluster.standby=true"]);
    sets.push(format!("sip.listen=udp:{0},tcp:{0}", c.sip));
    sets.push(format!("http.listen=127.0.0.1:{http}"));
    let low = common::free_ports(256);
    sets.push(format!("rtp.ports={low}-{}", low + 255));
    let sets: String = sets.iter().map(|set| format!(" --set '{set}'")).collect();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{log}\n{PLENUM} serve{sets} </dev/null >/dev/null 2>{log}.err &\n\
         echo $! >>{pids}\n",
        log = log.display(),
        pids = pids.display(),
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();

    let active = [a.clone(), b.clone()];
    let listed_c = format!("cluster.reserved={}", c.reserved());
    let start_hook = format!("cluster.start_hook={}", hook.display());
    let sets = [MAX, &listed_c, &start_hook];
    let first = a.start(&active, &sets);
    let second = b.start_beside(&first, &active, &sets);
    wait_until_meshed(&[&first, &second]);
    assert!(!log.exists(), "nobody needs it yet");

    let crowd = Crowd::new();
    let all = fill(&crowd, &first);
    let on_c = all.iter().filter(|who| crowd.server(**who) == Some(c.sip));
    assert!(on_c.count() > 0, "nobody is on C");
    assert!(crowd.on(&first) <= HARD_MAX && crowd.on(&second) <= HARD_MAX);
    let said = fs::read_to_string(&log).unwrap();
    let expected = format!("C {}", c.control());
    assert!(said.lines().all(|line| line == expected), "{said}");
    first.wait_until("C is heard", |first| {
        peers(first)
            .iter()
            .any(|peer| peer.svr_id == "C" && peer.is_fresh())
    });
    crowd.hang_up_all();
    wait_for("all have left", || {
        first.participants() == 0 && second.participants() == 0
    });
}

#[test]
fn a_full_server_relays_where_nobody_follows_a_302() {
    let places = ["A", "B"].map(Place::new);
    let sets = ["load.max=200", "cluster.redirect=relay"];
    let first = places[0].start(&places, &sets);
    let second = places[1].start_beside(&first, &places, &["load.max=2000"]);
    wait_until_meshed(&[&first, &second]);
    let crowd = Crowd::new();
    let caller = |number: usize| {
        let name = format!("caller{number}");
        // Each a pitch of his own: equal ones may cancel each other out.
        let hz = 300.0 + 100.0 * number as f64;
        let who = crowd.call(&name, &first.uri("lobby"), NEITHER, Voice::Tone { hz });
        crowd.wait_until("the caller is in", |crowd| crowd.server(who).is_some());
        who
    };
    let all: Vec<Who> = (0..5).map(caller).collect();
    second.wait_until("some are there", |second| second.participants() > 0);
    for &who in &all {
        assert_eq!(crowd.story(who).redirects, 0);
        assert_eq!(
            crowd.server(who),
            Some(first.sip),
            "all know the first only"
        );
    }
    // They hear each other, whichever server mixes for them.
    for &who in &all {
        crowd.forget(who);
    }
    crowd.wait_until("all hear", |crowd| {
        // All four others: powers add up.
        let expected = TONE_RMS * 2.0;
        let is_it = |one: &&Heard| (one.rms / expected - 1.0).abs() < 0.12;
        let hears = |who: &&Who| crowd.heard(**who).iter().filter(is_it).count() > 20;
        all.iter().filter(hears).count() == all.len()
    });
    crowd.hang_up_all();
    wait_for("all have left", || {
        first.participants() == 0 && second.participants() == 0
    });
}
