//! Several servers that know each other, and what they say of themselves and of each other.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use simd_json::OwnedValue;
use simd_json::prelude::*;

use super::{PATIENCE, Server, free_port, json};

/// Settings of all servers of tests: callers may be silent, and nobody is muted for what a test does.
const SETS: [&str; 2] = ["rtp.timeout_s=0", "abuse.fault_rate=0"];

/// Where a server is to be, before it is there.
#[derive(Clone, Debug)]
pub struct Place {
    pub id: &'static str,
    pub sip: SocketAddr,
}

impl Place {
    pub fn new(id: &'static str) -> Self {
        let sip = ([127, 0, 0, 1], free_port()).into();
        Self { id, sip }
    }

    /// Where its control channels go.
    pub fn control(&self) -> String {
        format!("sip:cfw@{}", self.sip)
    }

    /// As it stands in `cluster.reserved`.
    pub fn reserved(&self) -> String {
        format!("{}={}", self.id, self.control())
    }

    fn listen(&self) -> String {
        format!("udp:{0},tcp:{0}", self.sip)
    }

    /// The settings of a server here; its peers are all `others`.
    pub fn sets(&self, others: &[Self], sets: &[&str]) -> Vec<String> {
        let is_other = |place: &&Self| place.id != self.id;
        let peers: Vec<String> = others.iter().filter(is_other).map(Self::control).collect();
        let own = [
            format!("server.id={}", self.id),
            format!("cluster.peers={}", peers.join(",")),
        ];
        let all = SETS.iter().chain(sets).map(|&set| set.to_owned());
        own.into_iter().chain(all).collect()
    }

    /// The first server of a test.
    pub fn start(&self, others: &[Self], sets: &[&str]) -> Server {
        let sets = self.sets(others, sets);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        Server::start_on(self.sip, &self.listen(), &sets)
    }

    pub fn start_beside(&self, first: &Server, others: &[Self], sets: &[&str]) -> Server {
        let sets = self.sets(others, sets);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        first.start_beside_on(self.sip, &self.listen(), &sets)
    }
}

/// Servers of these names that all know each other; comes back when they do.
pub fn mesh<const N: usize>(ids: [&'static str; N], sets: &[&str]) -> [Server; N] {
    let places = ids.map(Place::new);
    let mut servers: Vec<Server> = Vec::new();
    for place in &places {
        let server = match servers.first() {
            None => place.start(&places, sets),
            Some(first) => place.start_beside(first, &places, sets),
        };
        servers.push(server);
    }
    wait_until_meshed(&servers.iter().collect::<Vec<_>>());
    servers.try_into().unwrap_or_else(|_| unreachable!())
}

/// Each hears from each of the others. Where they could not for a while they try again less and less often,
/// up to every half a minute.
#[track_caller]
pub fn wait_until_meshed(servers: &[&Server]) {
    let start = Instant::now();
    let all: Vec<String> = servers.iter().map(|server| svr_id(server)).collect();
    let hears_all = |server: &&&Server| {
        let known = peers(server);
        let own = svr_id(server);
        let hears = |id: &&String| {
            **id == own
                || known
                    .iter()
                    .any(|peer| peer.svr_id == **id && peer.is_fresh())
        };
        all.iter().filter(hears).count() == all.len()
    };
    while servers.iter().filter(hears_all).count() < servers.len() {
        let known = || {
            servers
                .iter()
                .map(|server| peers(server))
                .collect::<Vec<_>>()
        };
        assert!(
            start.elapsed() < PATIENCE * 3,
            "{all:?} know of each other {:#?}",
            known()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn svr_id(server: &Server) -> String {
    text(&server.status()["svr_id"])
}

/// `active`, `full`, `draining`, `standby`...
pub fn state(server: &Server) -> String {
    text(&server.status()["state"])
}

/// Another server, as one sees it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub svr_id: String,
    pub state: String,
    pub load: u64,
    pub age_ms: Option<u64>,
}

impl Peer {
    /// Its load has come within the last seconds.
    pub fn is_fresh(&self) -> bool {
        self.age_ms.is_some_and(|age_ms| age_ms < 3_000)
    }
}

/// The other servers that one knows.
pub fn peers(server: &Server) -> Vec<Peer> {
    let status = server.status();
    let list = status["cluster"]["servers"].as_array().expect("a list");
    let peer = |one: &OwnedValue| Peer {
        svr_id: text(&one["svr_id"]),
        state: text(&one["state"]),
        load: one["load"].as_u64().unwrap_or_default(),
        age_ms: one.get("age_ms").and_then(OwnedValue::as_u64),
    };
    list.iter().map(peer).collect()
}

/// The reserved servers and their states, as one server has them.
pub fn reserved(server: &Server) -> Vec<(String, String)> {
    let status = server.status();
    let list = status["cluster"]["reserved"].as_array().expect("a list");
    let one = |one: &OwnedValue| (text(&one["svr_id"]), text(&one["state"]));
    list.iter().map(one).collect()
}

/// What it has decided, and why, as it tells: one JSON value each.
pub fn decisions(server: &Server) -> Vec<OwnedValue> {
    let (code, body) = server.get("/api/v1/decisions");
    assert_eq!(code, 200, "{body}");
    let value = json(body);
    let list = value.as_array().or_else(|| value["decisions"].as_array());
    list.expect("a list").to_vec()
}

/// One participant of a conference, as a server lists him.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub entity: String,
    pub svr_id: String,
    pub status: String,
    pub muted: bool,
}

/// The participants of a conference as a server knows them, by entity; none if it knows no such one.
pub fn listed(server: &Server, room: &str) -> Vec<Listed> {
    let value = match server.get(&format!("/api/v1/conferences/{room}")) {
        (200, body) => json(body),
        (404, _) => return Vec::new(),
        (code, body) => panic!("{code} {body}"),
    };
    let list = value["participants"].as_array().expect("a list");
    let one = |one: &OwnedValue| Listed {
        entity: text(&one["entity"]),
        svr_id: text(&one["svr_id"]),
        status: text(&one["status"]),
        muted: one["muted"].as_bool().expect("a bool"),
    };
    let mut list: Vec<Listed> = list.iter().map(one).collect();
    list.sort_unstable();
    list
}

/// Who talks in a conference, as a server knows it, by entity.
pub fn talking(server: &Server, room: &str) -> Vec<String> {
    let (code, body) = server.get(&format!("/api/v1/conferences/{room}"));
    assert_eq!(code, 200, "{body}");
    let value = json(body);
    let list = value["participants"].as_array().expect("a list").iter();
    list.filter(|one| one["talking"] == true)
        .map(|one| text(&one["entity"]))
        .collect()
}

/// Waits for `condition`, which may ask several servers; says how long that took.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

fn text(value: &OwnedValue) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
