//! Some hubs and a network between them, in memory and in virtual time.

mod by_hand;
mod certificates;
mod long;
mod names;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use cfw::SvrId;
use cfw::dist_conf::message::{ConfUser, UserStatus};
use sip::{ListenerIdentity, Transport};

use super::*;
use crate::cluster::{Life, LocalLoad};
use crate::focus::RoomName;
use crate::focus::liaison::Report;

const STEP: Duration = Duration::from_millis(20);
const SIP_PORT: u16 = 5060;
const CFW_PORT: u16 = 7563;

/// An end of a connection: whose, and its number there.
type End = (usize, ConnId);

struct Net {
    hubs: Vec<Hub>,
    now: Instant,
    next_load: Instant,
    /// Both ways.
    wires: BTreeMap<End, End>,
    /// SIP that went to nobody, or to a stranger.
    strays: Vec<(SocketAddr, Bytes)>,
    /// Connections that nobody accepts any more.
    is_cut: bool,
    /// Certificates of the servers.
    shown: Vec<Option<Fingerprint>>,
}

fn svr_id(index: usize) -> SvrId {
    ["A", "B", "C"][index].parse().unwrap()
}

fn address(index: usize) -> IpAddr {
    [10, 0, 0, index as u8 + 1].into()
}

fn cfw_uri(index: usize) -> String {
    format!("sip:cfw@{}:{SIP_PORT}", address(index))
}

fn config(index: usize, peers: &[String], trusted: &[&str]) -> Config {
    let sent_by = format!("{}:{SIP_PORT}", address(index));
    let listener = ListenerIdentity {
        transport: Transport::Udp,
        sent_by: sent_by.clone(),
    };
    Config {
        cluster: crate::cluster::Config {
            svr_id: svr_id(index),
            uri: format!("sip:{sent_by}"),
            cfw_uri: cfw_uri(index),
            started: SystemTime::UNIX_EPOCH,
            shards: 1,
            peers: peers.to_vec(),
            reserved: Vec::new(),
            relay: false,
            recall: true,
            standby: false,
            start_hook: false,
            stop_hook: false,
            drain_after: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(600),
            grow_at: 0.85,
        },
        epoch: 1,
        sip: sip::Config::new(9, vec![listener], index as u64),
        seed: index as u64,
        secret: [index as u8; 32],
        trusted: trusted.iter().map(|text| text.parse().unwrap()).collect(),
        place: Place {
            address: address(index),
            port: CFW_PORT,
            fingerprint: None,
        },
    }
}

impl Net {
    fn new(configs: Vec<Config>) -> Self {
        let now = Instant::now();
        let hub = |config| Hub::new(config, now);
        let shown = vec![None; configs.len()];
        Self {
            hubs: configs.into_iter().map(hub).collect(),
            now,
            next_load: now,
            wires: BTreeMap::new(),
            strays: Vec::new(),
            is_cut: false,
            shown,
        }
    }

    /// Each of `peers` says whom a server has in its configuration.
    fn of(peers: &[&[usize]]) -> Self {
        let config = |(index, peers): (usize, &&[usize])| {
            let peers: Vec<String> = peers.iter().map(|&peer| cfw_uri(peer)).collect();
            config(index, &peers, &["10.0.0.0/8"])
        };
        Self::new(peers.iter().enumerate().map(config).collect())
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            let loads = now >= self.next_load;
            if loads {
                self.next_load = now + Duration::from_secs(1);
            }
            for (index, hub) in self.hubs.iter_mut().enumerate() {
                if loads {
                    let load = LocalLoad {
                        current: 100 * (index as u32 + 1),
                        max: 500,
                        min: 50,
                        ..LocalLoad::default()
                    };
                    hub.handle(now, Input::Load(load));
                }
                hub.handle_timeout(now);
            }
            self.carry();
        }
    }

    /// Until nothing is on its way.
    fn carry(&mut self) {
        loop {
            let mut rests = true;
            for index in 0..self.hubs.len() {
                while let Some(output) = self.hubs[index].poll_output() {
                    rests = false;
                    self.on_output(index, output);
                }
            }
            if rests {
                return;
            }
        }
    }

    fn on_output(&mut self, from: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Transmit { flow, message } => {
                let is_it = |index: &usize| flow.peer == (address(*index), SIP_PORT).into();
                match (0..self.hubs.len()).find(is_it) {
                    Some(to) => self.hubs[to].handle_sip(now, udp_from(address(from)), &message),
                    None => self.strays.push((flow.peer, message)),
                }
            }
            Output::Connect { conn, host, port } => {
                let is_it = |index: &usize| {
                    !self.is_cut && host == address(*index).to_string() && port == CFW_PORT
                };
                match (0..self.hubs.len()).find(is_it) {
                    Some(to) => {
                        let peer = (address(from), 40_000).into();
                        let Some(other) = self.hubs[to].accepted(now, peer) else {
                            return self.hubs[from].closed(now, conn);
                        };
                        self.wires.insert((from, conn), (to, other));
                        self.wires.insert((to, other), (from, conn));
                        self.hubs[to].ready(now, other, self.shown[from]);
                        self.hubs[from].ready(now, conn, self.shown[to]);
                    }
                    None => self.hubs[from].closed(now, conn),
                }
            }
            Output::Write { conn, bytes } => {
                if let Some(&(to, other)) = self.wires.get(&(from, conn)) {
                    self.hubs[to].received(now, other, &bytes);
                }
            }
            Output::Close { conn } => {
                if let Some((to, other)) = self.unplug((from, conn)) {
                    self.hubs[to].closed(now, other);
                }
            }
            Output::Resolve { ticket, host, port } => {
                let known = host == "b.example";
                let found = known.then(|| SocketAddr::new(address(1), port));
                self.hubs[from].resolved(now, ticket, found.as_slice());
            }
            Output::Act(_) => {}
        }
    }

    fn unplug(&mut self, end: End) -> Option<End> {
        let other = self.wires.remove(&end)?;
        self.wires.remove(&other);
        Some(other)
    }

    /// All connections break, and both ends notice.
    fn cut(&mut self) {
        while let Some((&one, _)) = self.wires.first_key_value() {
            if let Some(other) = self.unplug(one) {
                self.hubs[one.0].closed(self.now, one.1);
                self.hubs[other.0].closed(self.now, other.1);
            }
        }
        self.carry();
    }

    fn up(&self) -> Vec<u64> {
        self.hubs.iter().map(|hub| hub.counters().up).collect()
    }

    /// Who is alive in whose eyes, with their loads.
    fn seen_by(&self, index: usize) -> Vec<(String, u32)> {
        let servers = self.hubs[index].cluster().servers(self.now);
        let alive = servers.iter().filter(|server| server.life == Life::Alive);
        alive
            .map(|server| (server.svr_id.to_string(), server.load))
            .collect()
    }

    /// A SIP message of somebody at `from` to the first hub, and what is said to it.
    fn ask(&mut self, from: IpAddr, message: &str) -> Vec<String> {
        self.strays.clear();
        self.hubs[0].handle_sip(self.now, udp_from(from), message.as_bytes());
        self.carry();
        let text = |(_, message): (SocketAddr, Bytes)| String::from_utf8(message.to_vec()).unwrap();
        self.strays.drain(..).map(text).collect()
    }
}

fn udp_from(address: IpAddr) -> Flow {
    Flow {
        transport: Transport::Udp,
        peer: (address, SIP_PORT).into(),
        listener: 0,
        stream: 0,
    }
}

fn see(name: &str, load: u32) -> (String, u32) {
    (name.to_owned(), load)
}

fn user(server: usize) -> Report {
    let user = ConfUser {
        entity: "sip:alice@example.org".to_owned(),
        svr_id: Some(svr_id(server)),
        endpoint: "0.1".to_owned(),
        display_name: Some("Alice <&>".to_owned()),
        status: UserStatus::Connected,
        ssrc: Some(7),
        codec: Some("pcmu".to_owned()),
        role: None,
        muted: false,
        joined: None,
        reach: None,
    };
    Report::User {
        room: RoomName::from_user("lobby").unwrap(),
        user: Box::new(user),
    }
}

#[test]
fn two_servers_get_a_channel_and_tell_each_other_loads_and_users() {
    let mut net = Net::of(&[&[1], &[]]);
    let report = user(0);
    net.hubs[0].handle(net.now, Input::Report { shard: 0, report });
    net.run(3.0);
    assert_eq!(net.up(), [1, 1]);
    assert_eq!(net.seen_by(0), [see("B", 200)]);
    assert_eq!(net.seen_by(1), [see("A", 100)]);
    let there = net.hubs[1].cluster().conference("lobby").unwrap();
    assert_eq!(there.users.len(), 1);
    assert_eq!(there.users[0].svr_id, Some(svr_id(0)));
    assert_eq!(there.users[0].display_name.as_deref(), Some("Alice <&>"));
    // It lives on.
    net.run(300.0);
    assert_eq!(net.up(), [1, 1]);
    assert_eq!(net.hubs[0].counters().opened, 1);
    assert_eq!((net.hubs[0].links(), net.hubs[1].links()), (1, 1));
}

#[test]
fn a_newcomer_who_knows_one_server_gets_to_know_all() {
    let mut net = Net::of(&[&[1], &[], &[0]]);
    net.run(10.0);
    assert_eq!(net.up(), [2, 2, 2]);
    assert_eq!(net.seen_by(2), [see("A", 100), see("B", 200)]);
    assert_eq!(net.seen_by(1), [see("A", 100), see("C", 300)]);
}

#[test]
fn who_call_each_other_at_once_keep_one_channel() {
    let mut net = Net::of(&[&[1], &[0]]);
    net.run(10.0);
    assert_eq!(net.up(), [1, 1]);
    assert_eq!((net.hubs[0].links(), net.hubs[1].links()), (1, 1));
    assert_eq!(net.seen_by(0), [see("B", 200)]);
}

#[test]
fn names_are_looked_up() {
    let peers = ["sip:cfw@b.example".to_owned()];
    let a = config(0, &peers, &[]);
    // Who called is no stranger, as his address is known from the name.
    let b = config(1, &[cfw_uri(0)], &[]);
    let mut net = Net::new(vec![a, b]);
    net.run(5.0);
    assert_eq!(net.up(), [1, 1]);
    let mut net = Net::new(vec![config(0, &["sip:cfw@c.example".to_owned()], &[])]);
    net.run(100.0);
    assert_eq!((net.up(), net.hubs[0].links()), (vec![0], 0));
}

#[test]
fn a_channel_that_broke_comes_up_again() {
    let mut net = Net::of(&[&[1], &[]]);
    net.run(3.0);
    net.cut();
    assert_eq!(net.up(), [0, 0]);
    net.run(10.0);
    assert_eq!(net.up(), [1, 1]);
    assert_eq!(net.hubs[0].counters().opened, 2);
    // While there is no way, INVITEs are answered and connections are not made: nothing is left of them.
    net.is_cut = true;
    net.cut();
    net.run(120.0);
    assert_eq!(net.up(), [0, 0]);
    assert!(net.hubs[0].links() <= 1 && net.hubs[1].links() <= 3);
    net.is_cut = false;
    net.run(60.0);
    assert_eq!(net.up(), [1, 1]);
}

#[test]
fn who_leaves_says_so() {
    let mut net = Net::of(&[&[1], &[]]);
    net.run(3.0);
    net.hubs[1].shut_down(net.now);
    net.carry();
    assert_eq!(net.up(), [0, 0]);
    assert!(net.hubs[1].is_quiet());
    assert_eq!(net.seen_by(0), []);
}

fn invite(uri: &str, body: &str) -> String {
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKx\r\nMax-Forwards: 70\r\n\
         From: <sip:cfw@192.0.2.9>;tag=1\r\nTo: <{uri}>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:cfw@192.0.2.9>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n\
    m=application 9 TCP cfw\r\na=setup:active\r\na=connection:new\r\na=cfw-id:strangers-own-id\r\n";

#[test]
fn strangers_are_refused() {
    let stranger: IpAddr = [192, 0, 2, 9].into();
    let mut net = Net::of(&[&[]]);
    let said = net.ask(stranger, &invite(&cfw_uri(0), OFFER));
    assert!(said.last().unwrap().starts_with("SIP/2.0 403 "), "{said:?}");
    assert_eq!(
        (net.hubs[0].counters().refused, net.hubs[0].links()),
        (1, 0)
    );
    // Nor may they connect.
    assert_eq!(net.hubs[0].accepted(net.now, (stranger, 9).into()), None);
    assert_eq!(net.hubs[0].counters().refused, 2);
}

#[test]
fn what_is_no_offer_of_a_channel_gets_488() {
    let peer = address(2);
    for body in [
        OFFER.replace("TCP cfw", "RTP/AVP 0"),
        OFFER.replace("cfw-id", "other"),
        OFFER.replace("m=application 9", "m=application 0"),
        OFFER.replace("setup:active", "setup:holdconn"),
    ] {
        let mut net = Net::of(&[&[]]);
        let said = net.ask(peer, &invite(&cfw_uri(0), &body));
        assert!(
            said.last().unwrap().starts_with("SIP/2.0 488 "),
            "{body}: {said:?}"
        );
        assert_eq!(net.hubs[0].links(), 0);
    }
}

/// What is said to these bytes on a new connection, and whether it is closed.
fn say(hub: &mut Hub, now: Instant, bytes: &[u8]) -> (String, bool) {
    let conn = hub.accepted(now, (address(2), 40_000).into()).unwrap();
    hub.ready(now, conn, None);
    hub.received(now, conn, bytes);
    drain(hub)
}

fn drain(hub: &mut Hub) -> (String, bool) {
    let (mut said, mut closed) = (String::new(), false);
    while let Some(output) = hub.poll_output() {
        match output {
            Output::Write { bytes, .. } => said += str::from_utf8(&bytes).unwrap(),
            Output::Close { .. } => closed = true,
            _ => {}
        }
    }
    (said, closed)
}

const SYNC: &str =
    "CFW a81f03c9 SYNC\r\nDialog-ID: ID\r\nKeep-Alive: 100\r\nPackages: msc-dist-conf/1.0\r\n\r\n";

#[test]
fn garbage_harms_nobody() {
    let mut net = Net::of(&[&[]]);
    let (hub, now) = (&mut net.hubs[0], net.now);
    assert!(say(hub, now, b"GET / HTTP/1.1\r\n\r\n").1);
    assert!(say(hub, now, &[0xFF; 100_000]).1);
    let (said, closed) = say(hub, now, b"CFW a81f03c9 K-ALIVE\r\n\r\n");
    assert!(said.starts_with("CFW a81f03c9 403\r\n") && closed, "{said}");
    let (said, closed) = say(hub, now, SYNC.replace("ID\r", "nobodys\r").as_bytes());
    assert!(said.starts_with("CFW a81f03c9 481\r\n") && closed, "{said}");
    assert_eq!(hub.conns.len(), 0);

    // Who says nothing is not waited for, and there are never many of them.
    for _ in 0..2 * UNCLAIMED_MAX {
        if let Some(conn) = hub.accepted(now, (address(2), 40_000).into()) {
            hub.ready(now, conn, None);
        }
    }
    assert_eq!(hub.conns.len(), UNCLAIMED_MAX);
    net.run(30.0);
    assert_eq!(net.hubs[0].conns.len(), 0);
}

#[test]
fn a_channel_from_the_paper_alone_is_served_and_garbage_on_it_is_answered() {
    let peer = address(2);
    let mut net = Net::of(&[&[]]);
    let said = net.ask(peer, &invite(&cfw_uri(0), OFFER));
    let answer = said.last().unwrap();
    assert!(answer.starts_with("SIP/2.0 200 "), "{said:?}");
    assert!(
        answer.contains("m=application 7563 TCP cfw\r\na=setup:passive\r\n"),
        "{answer}"
    );

    let (hub, now) = (&mut net.hubs[0], net.now);
    let conn = hub.accepted(now, (peer, 40_000).into()).unwrap();
    hub.ready(now, conn, None);
    let mut say = |text: &str| {
        hub.received(now, conn, text.as_bytes());
        drain(hub)
    };
    let (said, _) = say(&SYNC.replace("ID\r", "strangers-own-id\r"));
    assert!(said.starts_with("CFW a81f03c9 200\r\n"), "{said}");
    let control = |id: &str, body: &str| {
        format!(
            "CFW {id} CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\
             Content-Type: application/msc-dist-conf+xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let load = "<crt-svr-load svr-id=\"Z\" max-load=\"500\" min-load=\"50\">431</crt-svr-load>";
    let (said, _) = say(&control("a81f03d0", load));
    assert!(said.contains("CFW a81f03d0 200\r\n"), "{said}");
    assert!(said.contains("<response"), "{said}");
    let (said, _) = say(&control("a81f03d1", "<crt-svr-load"));
    assert!(said.contains("CFW a81f03d1 400\r\n"), "{said}");
    let (said, _) = say(&control("a81f03d2", "<other/>"));
    assert!(
        said.contains("CFW a81f03d2 200\r\n") && said.contains("status=\"400\""),
        "{said}"
    );
    // What cannot be read any further ends the channel, and its dialog with it.
    let (_, closed) = say("nonsense\r\n");
    assert!(closed);
    assert_eq!((hub.links(), hub.counters().opened), (0, 1));
}
