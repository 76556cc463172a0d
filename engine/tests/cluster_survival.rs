//! Servers that die, stall, come back, or cannot reach each other for a while, and peers that talk nonsense:
//! conferences go on, and nobody is forgotten.

#[path = "common/agent.rs"]
mod agent;
mod common;
#[path = "common/crowd.rs"]
mod crowd;
#[path = "common/network.rs"]
mod network;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use agent::{Agent, Dialog, SDP};
use common::cluster::{Listed, Place, listed, mesh, peers, state, wait_for, wait_until_meshed};
use common::{PATIENCE, Server};
use crowd::{Crowd, NEITHER, REPLACES, Skills, Voice, Who};
use network::Network;

const ROOM: &str = "lobby";

/// Callers of the server that is killed.
const CALLERS: usize = 30;

/// So long after a server's death its callers may be back.
const BACK_MAX: Duration = Duration::from_secs(5);

/// The whole is tried so often until it is as fast as that; a machine that does something else meanwhile
/// makes it slower.
const ROUNDS: usize = 3;

const TONE: Voice = Voice::Tone { hz: 500.0 };

fn call(crowd: &Crowd, name: &str, server: &Server, skills: Skills, voice: Voice) -> Who {
    let who = crowd.call(name, &server.uri(ROOM), skills, voice);
    crowd.wait_until("the call is up", |crowd| crowd.server(who).is_some());
    who
}

#[track_caller]
fn hear(crowd: &Crowd, who: Who) {
    crowd.forget(who);
    crowd.wait_until("the speaker is heard", |crowd| {
        crowd.heard(who).iter().filter(|one| one.is_loud()).count() > 25
    });
}

fn entities(list: &[Listed]) -> BTreeSet<String> {
    list.iter().map(|one| one.entity.clone()).collect()
}

/// All of them list exactly these.
fn wait_until_listed(servers: &[&Server], expected: &BTreeSet<String>) {
    for server in servers {
        wait_for("all are listed, and nobody else", || {
            entities(&listed(server, ROOM)) == *expected
        });
    }
}

fn entities_of(crowd: &Crowd, all: &[Who]) -> BTreeSet<String> {
    all.iter().map(|&who| crowd.entity(who)).collect()
}

#[track_caller]
fn end(crowd: &Crowd, servers: &[&Server]) {
    crowd.hang_up_all();
    wait_for("all have left everywhere", || {
        let is_empty =
            |server: &&&Server| server.participants() == 0 && listed(server, ROOM).is_empty();
        servers.iter().filter(is_empty).count() == servers.len()
    });
    for server in servers {
        assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
    }
}

/// See [`ROUNDS`].
#[test]
fn callers_of_a_killed_server_are_called_back() {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let back = kill_one();
        println!("{CALLERS} callers of a killed server are back after {back:?}");
        if back <= BACK_MAX {
            return;
        }
        times.push(back);
    }
    panic!("never within {BACK_MAX:?}: {times:?}");
}

fn kill_one() -> Duration {
    let places = ["A", "B", "C"].map(Place::new);
    let sets = ["load.max=20000"];
    let mut a = places[0].start(&places, &sets);
    let b = places[1].start_beside(&a, &places, &sets);
    let c = places[2].start_beside(&a, &places, &sets);
    wait_until_meshed(&[&a, &b, &c]);
    let crowd = Crowd::new();
    let callers: Vec<Who> = (0..CALLERS)
        .map(|number| {
            crowd.call(
                &format!("caller{number}"),
                &a.uri(ROOM),
                REPLACES,
                Voice::Silence,
            )
        })
        .collect();
    let deaf = crowd.call("deaf", &a.uri(ROOM), NEITHER, Voice::Silence);
    let speaker = crowd.call("speaker", &b.uri(ROOM), NEITHER, TONE);
    let there = crowd.call("there", &c.uri(ROOM), NEITHER, Voice::Silence);
    crowd.wait_until("all are in", |crowd| crowd.up() == CALLERS + 3);
    let all = entities_of(&crowd, &[&callers[..], &[deaf, speaker, there]].concat());
    wait_until_listed(&[&a, &b, &c], &all);

    // What the conference is besides its users: nobody new gets in, and somebody is muted.
    let muted = crowd.entity(callers[0]);
    let api = format!("/api/v1/conferences/{ROOM}");
    // Both go the same way: who knows of the second knows of the first.
    for path in ["lock", &format!("participants/{muted}/mute")] {
        let path = format!("{api}/{path}");
        let (code, body) = a.post(&path, "");
        assert_eq!(code, 200, "{path}: {body}");
    }
    let is_muted = |server: &Server| {
        let list = listed(server, ROOM);
        let mut list = list.iter();
        list.any(|one| one.entity == muted && one.muted)
    };
    for server in [&a, &b, &c] {
        wait_for("one is muted", || is_muted(server));
    }

    a.signal("KILL");
    a.wait_for_end();
    let start = Instant::now();
    let mut back_after = None;
    let can_come_back = entities_of(&crowd, &callers);
    while back_after.is_none() {
        assert!(start.elapsed() < PATIENCE, "they never come back");
        for server in [&b, &c] {
            // Nobody is forgotten, at any time: who is not back yet is listed all the same.
            let known = entities(&listed(server, ROOM));
            assert!(known.is_superset(&can_come_back), "{known:?}");
        }
        let back = crowd.on(&b) + crowd.on(&c);
        back_after = (back == CALLERS + 2).then(|| start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    for server in [&b, &c] {
        wait_for("all are listed where they are now", || {
            let list = listed(server, ROOM);
            let is_back = |one: &&Listed| {
                can_come_back.contains(&one.entity)
                    && ["connected", "muted-via-focus"].contains(&one.status.as_str())
                    && one.svr_id != "A"
            };
            list.iter().filter(is_back).count() == CALLERS
        });
        // Nothing of its state is lost either.
        assert!(is_muted(server));
        let late = crowd.call("late-comer", &server.uri(ROOM), NEITHER, Voice::Silence);
        crowd.wait_until("the room is locked", |crowd| {
            crowd.story(late).status == Some(403)
        });
    }
    let (code, body) = b.post(&format!("{api}/unlock"), "");
    assert_eq!(code, 200, "{body}");
    for &who in &callers {
        let story = crowd.story(who);
        assert_eq!(story.replaced, 1, "{story:?}");
        assert!(story.refused.is_empty(), "called back twice: {story:?}");
        hear(&crowd, who);
    }
    hear(&crowd, there);
    // He knows no Replaces: nobody rings him out of the blue.
    let story = crowd.story(deaf);
    assert_eq!(story.replaced, 0, "{story:?}");
    assert!(story.refused.is_empty(), "{story:?}");

    // The same server in a new life knows the conference, and nobody takes it for the old one.
    let again = places[0].start_beside(&b, &places, &sets);
    wait_until_meshed(&[&again, &b, &c]);
    crowd.hang_up(deaf);
    let late = call(&crowd, "late", &again, NEITHER, Voice::Silence);
    let mut all = can_come_back;
    all.extend(entities_of(&crowd, &[speaker, there, late]));
    wait_until_listed(&[&again, &b, &c], &all);
    let of_a = listed(&b, ROOM).into_iter().filter(|one| one.svr_id == "A");
    assert_eq!(of_a.count(), 1, "the late one");
    hear(&crowd, late);
    end(&crowd, &[&again, &b, &c]);
    back_after.expect("measured")
}

#[test]
fn nobody_is_called_back_where_that_is_not_wanted() {
    let [mut a, b] = mesh(["A", "B"], &["load.max=20000", "cluster.recall=false"]);
    let crowd = Crowd::new();
    let lost = call(&crowd, "lost", &a, REPLACES, Voice::Silence);
    let speaker = call(&crowd, "speaker", &b, NEITHER, TONE);
    wait_until_listed(&[&a, &b], &entities_of(&crowd, &[lost, speaker]));
    a.signal("KILL");
    a.wait_for_end();
    b.wait_until("he is not connected any more", |b| {
        let entity = crowd.entity(lost);
        let list = listed(b, ROOM);
        !list
            .iter()
            .any(|one| one.entity == entity && one.status == "connected")
    });
    assert_eq!(crowd.story(lost).replaced, 0);
    assert_eq!(crowd.on(&b), 1);
    crowd.hang_up_all();
    b.wait_until("all have left", |b| b.participants() == 0);
}

#[test]
fn a_server_that_stalls_is_back_when_it_goes_on() {
    let [a, b, c] = mesh(["A", "B", "C"], &["load.max=20000"]);
    let crowd = Crowd::new();
    let here = call(&crowd, "here", &a, NEITHER, TONE);
    let stalled = call(&crowd, "stalled", &b, NEITHER, Voice::Silence);
    let there = call(&crowd, "there", &c, NEITHER, Voice::Silence);
    let all = entities_of(&crowd, &[here, stalled, there]);
    wait_until_listed(&[&a, &b, &c], &all);
    hear(&crowd, stalled);

    b.signal("STOP");
    for server in [&a, &c] {
        server.wait_until("B is not counted on", |server| {
            !peers(server)
                .iter()
                .any(|peer| peer.svr_id == "B" && peer.is_fresh())
        });
    }
    // The others go on.
    hear(&crowd, there);
    let late = call(&crowd, "late", &a, NEITHER, Voice::Silence);
    hear(&crowd, late);

    b.signal("CONT");
    wait_until_meshed(&[&a, &b, &c]);
    let mut all = all;
    all.insert(crowd.entity(late));
    wait_until_listed(&[&a, &b, &c], &all);
    for server in [&a, &b, &c] {
        wait_for("all are connected", || {
            listed(server, ROOM)
                .iter()
                .all(|one| one.status == "connected")
        });
    }
    hear(&crowd, stalled);
    assert_eq!(crowd.story(stalled).byes, 0);
    end(&crowd, &[&a, &b, &c]);
}

/// Three servers on three hosts, that all know each other.
fn hosts(network: &Network) -> [Server; 3] {
    let ids = ["A", "B", "C"];
    let places = [0, 1, 2].map(|host| Place {
        id: ids[host],
        sip: SocketAddr::from((network.address(host), 5060)),
    });
    let mut servers: Vec<Server> = Vec::new();
    for (host, place) in places.iter().enumerate() {
        let address = format!("rtp.address={}", network.address(host));
        let sets = place.sets(&places, &["load.max=20000", &address]);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let namespace = network.namespace(host);
        servers.push(Server::start_in(
            &namespace,
            place.sip,
            &sets,
            servers.first(),
        ));
    }
    wait_until_meshed(&servers.iter().collect::<Vec<_>>());
    servers.try_into().unwrap_or_else(|_| unreachable!())
}

/// How long a server may be silent before it is taken for one that is cut off, and for others to say that
/// they see it or do not.
const VERDICT_MAX: Duration = Duration::from_secs(40);

/// The servers agree that one of the others is `suspect` or `dead`, as `life` says.
#[track_caller]
fn wait_for_verdict(servers: &[&Server], id: &str, life: &str) {
    let start = Instant::now();
    for server in servers {
        let is_so = |server: &Server| {
            let known = peers(server);
            known
                .iter()
                .any(|peer| peer.svr_id == id && peer.state == life)
        };
        while !is_so(server) {
            let known = peers(server);
            assert!(start.elapsed() < VERDICT_MAX, "{id} not {life}: {known:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn hears_from(server: &Server, id: &str) -> bool {
    peers(server)
        .iter()
        .any(|peer| peer.svr_id == id && peer.is_fresh())
}

#[test]
fn a_link_between_two_of_three_is_cut_and_mended() {
    let Some(network) = Network::new(3) else {
        return;
    };
    let [a, b, c] = hosts(&network);
    let crowd = Crowd::new();
    let one = call(&crowd, "one", &a, REPLACES, Voice::Silence);
    let two = call(&crowd, "two", &b, REPLACES, Voice::Silence);
    let three = call(&crowd, "three", &c, REPLACES, TONE);
    let mut all = entities_of(&crowd, &[one, two, three]);
    wait_until_listed(&[&a, &b, &c], &all);
    [one, two].iter().for_each(|&who| hear(&crowd, who));

    network.cut(0, 1);
    wait_for_verdict(&[&a], "B", "suspect");
    wait_for_verdict(&[&b], "A", "suspect");
    // The third one sees both: nobody is dead, nobody is called back, all stay in the list.
    let late = call(&crowd, "late", &a, NEITHER, Voice::Silence);
    all.insert(crowd.entity(late));
    wait_until_listed(&[&a, &c], &all);
    [one, two].iter().for_each(|&who| hear(&crowd, who));
    assert!(entities(&listed(&b, ROOM)).contains(&crowd.entity(one)));
    assert!(hears_from(&c, "A") && hears_from(&c, "B"));

    network.mend(0, 1);
    wait_until_meshed(&[&a, &b, &c]);
    wait_until_listed(&[&a, &b, &c], &all);
    for who in [one, two] {
        let story = crowd.story(who);
        assert_eq!((story.replaced, story.byes), (0, 0), "{story:?}");
    }
    end(&crowd, &[&a, &b, &c]);
}

#[test]
fn two_halves_both_go_on_and_become_one_again() {
    let Some(network) = Network::new(3) else {
        return;
    };
    let [a, b, c] = hosts(&network);
    let crowd = Crowd::new();
    let one = call(&crowd, "one", &a, NEITHER, TONE);
    let two = call(&crowd, "two", &b, NEITHER, Voice::Silence);
    wait_until_listed(&[&a, &b, &c], &entities_of(&crowd, &[one, two]));
    hear(&crowd, two);

    network.cut(0, 1);
    network.cut(0, 2);
    wait_for_verdict(&[&b, &c], "A", "dead");
    for id in ["B", "C"] {
        wait_for_verdict(&[&a], id, "dead");
    }
    // Callers of both sides come and are heard on their side.
    let left = call(&crowd, "left", &a, NEITHER, Voice::Silence);
    hear(&crowd, left);
    let right = call(&crowd, "right", &c, NEITHER, Voice::Tone { hz: 800.0 });
    hear(&crowd, two);

    network.mend(0, 1);
    network.mend(0, 2);
    wait_until_meshed(&[&a, &b, &c]);
    let all = entities_of(&crowd, &[one, two, left, right]);
    wait_until_listed(&[&a, &b, &c], &all);
    for server in [&a, &b, &c] {
        wait_for("all are connected", || {
            listed(server, ROOM)
                .iter()
                .all(|one| one.status == "connected")
        });
    }
    // He hears the other half again: those of his own are silent.
    crowd.say(one, Voice::Silence);
    hear(&crowd, left);
    end(&crowd, &[&a, &b, &c]);
}

/// A peer made of text, by the standard and the paper alone.
struct Peer {
    agent: Agent,
    dialog: Dialog,
    stream: TcpStream,
    next: u32,
}

impl Peer {
    const ID: &'static str = "Zaphod0123456789";

    fn offer(ip: &str) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=application 9 TCP cfw\r\n\
             a=setup:active\r\na=connection:new\r\na=cfw-id:{}\r\n",
            Self::ID
        )
    }

    /// Up to the connection.
    #[track_caller]
    fn connect(server: &Server) -> Self {
        let mut agent = Agent::new(server, "cfw");
        let mut dialog = agent.dialog(&server.uri("cfw"));
        let answer = agent.ask(
            &mut dialog,
            "INVITE",
            &[],
            Some((SDP, &Self::offer("127.0.0.1"))),
        );
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        agent.ack(&mut dialog, None);
        let of = |prefix: &str| {
            let line = answer
                .body
                .lines()
                .find_map(|line| line.strip_prefix(prefix));
            line.unwrap_or_else(|| panic!("no {prefix} in {answer:?}"))
        };
        assert_eq!(of("a=setup:"), "passive");
        assert_ne!(of("a=cfw-id:"), Self::ID);
        let port = of("m=application ").strip_suffix(" TCP cfw").expect("cfw");
        let address = format!("{}:{port}", of("c=IN IP4 "));
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            agent,
            dialog,
            stream,
            next: 0,
        }
    }

    /// Says it in pieces, as networks may deliver it.
    fn say(&mut self, text: &str) {
        for piece in text.as_bytes().chunks(7) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }

    /// A request with these lines; gives the status of its response. Requests of the server's that come
    /// before are answered with 200.
    #[track_caller]
    fn ask(&mut self, method: &str, lines: &str, body: &str) -> String {
        self.next += 1;
        let name = format!("zz{:04}", self.next);
        let length = body.len();
        self.say(&format!(
            "CFW {name} {method}\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        ));
        loop {
            let (start, body) = self.read().expect("a response");
            let words: Vec<&str> = start.split(' ').collect();
            if words[1] == name {
                return format!("{} {body}", words[2]);
            }
            self.say(&format!("CFW {} 200\r\n\r\n", words[1]));
        }
    }

    fn control(&mut self, body: &str) -> String {
        let lines = "Control-Package: msc-dist-conf/1.0\r\n\
                     Content-Type: application/msc-dist-conf+xml\r\n";
        self.ask("CONTROL", lines, body)
    }

    #[track_caller]
    fn sync(&mut self) {
        let id = Self::ID;
        let lines =
            format!("Dialog-ID: {id}\r\nKeep-Alive: 100\r\nPackages: msc-dist-conf/1.0\r\n");
        let answer = self.ask("SYNC", &lines, "");
        assert!(answer.starts_with("200"), "{answer}");
    }

    /// Start line and body of the next message; None at the end.
    fn read(&mut self) -> Option<(String, String)> {
        let mut octets = Vec::new();
        while !octets.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            match self.stream.read(&mut octet) {
                Ok(0) => return None,
                Ok(_) => octets.push(octet[0]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
        let head = String::from_utf8(octets).expect("a text");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        self.stream.read_exact(&mut body).expect("a body");
        let start = head.lines().next().expect("a line").to_owned();
        Some((start, String::from_utf8(body).expect("a text")))
    }

    /// The server ends the connection, whatever it says before.
    #[track_caller]
    fn is_closed(&mut self) {
        let start = Instant::now();
        while self.read().is_some() {
            assert!(start.elapsed() < PATIENCE, "it goes on");
        }
    }

    /// The dialog goes with the connection (RFC 6230 §4.2).
    #[track_caller]
    fn is_hung_up(&mut self) {
        let bye = self.agent.accept("BYE");
        assert_eq!(bye.header("Call-ID"), self.dialog.call_id);
    }
}

#[test]
fn a_peer_that_knows_the_paper_only_is_understood() {
    let [a, b] = mesh(["A", "B"], &["load.max=1000"]);
    let mut peer = Peer::connect(&a);
    peer.sync();
    let body = "<crt-svr-load svr-id=\"P\" max-load=\"500\" min-load=\"50\">431</crt-svr-load>";
    let answer = peer.control(body);
    assert!(answer.starts_with("200"), "{answer}");
    a.wait_until("its load is known", |a| {
        peers(a)
            .iter()
            .any(|peer| peer.svr_id == "P" && peer.load == 431)
    });
    // It goes by the end of its dialog.
    let Peer {
        mut agent, dialog, ..
    } = peer;
    agent.hang_up(dialog);
    a.wait_until("it is not counted on", |a| !hears_from(a, "P"));
    assert!(hears_from(&a, "B") && hears_from(&b, "A"));
}

#[test]
fn garbage_costs_its_sender_the_channel_and_nobody_else_anything() {
    let [a, b] = mesh(["A", "B"], &["load.max=1000"]);
    let crowd = Crowd::new();
    let here = call(&crowd, "here", &a, NEITHER, TONE);
    let there = call(&crowd, "there", &b, NEITHER, Voice::Silence);
    hear(&crowd, there);

    // Before SYNC nothing is listened to.
    let mut peer = Peer::connect(&a);
    let answer = peer.ask("CONTROL", "Control-Package: msc-dist-conf/1.0\r\n", "");
    assert!(answer.starts_with("403"), "{answer}");
    peer.is_closed();

    // What can be read is answered; the channel stays.
    let mut peer = Peer::connect(&a);
    peer.sync();
    let table = [
        ("<crt-svr-load", "400"),
        ("nonsense", "400"),
        ("<!DOCTYPE x [<!ENTITY y \"z\">]><x>&y;</x>", "400"),
    ];
    for (body, status) in table {
        let answer = peer.control(body);
        assert!(answer.starts_with(status), "{answer} to {body}");
    }
    let answer = peer.ask("CONTROL", "Control-Package: msc-ivr/1.0\r\n", "");
    assert!(answer.starts_with("420"), "{answer}");
    let answer = peer.ask("DANCE", "", "");
    assert!(answer.starts_with("500"), "{answer}");

    // A message without an end is not kept.
    peer.say("CFW zz9999 CONTROL\r\n");
    let line = format!("X-Filling: {}\r\n", "x".repeat(1_000));
    for _ in 0..100 {
        peer.say(&line);
    }
    peer.is_closed();
    peer.is_hung_up();

    // No SIP, no channel.
    let mut peer = Peer::connect(&a);
    peer.say("GET / HTTP/1.1\r\n\r\n");
    peer.is_closed();

    assert!(hears_from(&a, "B") && hears_from(&b, "A"));
    hear(&crowd, there);
    assert_eq!(state(&a), "active");
    let all = entities_of(&crowd, &[here, there]);
    wait_until_listed(&[&a, &b], &all);
    end(&crowd, &[&a, &b]);
}

#[test]
fn who_is_not_trusted_gets_no_channel() {
    let server = Server::start(&["cluster.trusted=192.0.2.1", "abuse.fault_rate=0"]);
    let mut stranger = Agent::at([127, 0, 0, 9], &server, "cfw");
    let mut dialog = stranger.dialog(&server.uri("cfw"));
    let offer = Peer::offer("127.0.0.9");
    let answer = stranger.ask(&mut dialog, "INVITE", &[], Some((SDP, &offer)));
    assert_eq!(answer.status(), Some(403), "{answer:?}");
}
