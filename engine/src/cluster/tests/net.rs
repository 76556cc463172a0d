//! Servers in one thread and virtual time. Channels are queues; a caller costs ten load units.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, UNIX_EPOCH};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{ConfUser, Reach, UserStatus};
use sip::CallKey;

use super::super::*;
use crate::focus::RoomName;
use crate::focus::liaison::{Arrival, Closed, Order, Verdict};

pub(super) const LATENCY: Duration = Duration::from_millis(2);
pub(super) const UNITS: u32 = 10;
pub(super) const MAX: u32 = 500;

pub(super) fn id(text: &str) -> SvrId {
    text.parse().unwrap()
}

pub(super) fn room(text: &str) -> RoomName {
    RoomName::from_user(text).unwrap()
}

pub(super) fn config(name: &str, peers: &[&str]) -> Config {
    Config {
        svr_id: id(name),
        uri: format!("sip:{name}:5060"),
        cfw_uri: format!("sip:cfw@{name}:5060"),
        started: UNIX_EPOCH,
        shards: 2,
        peers: peers
            .iter()
            .map(|peer| format!("sip:cfw@{peer}:5060"))
            .collect(),
        reserved: Vec::new(),
        relay: false,
        recall: true,
        standby: false,
        start_hook: false,
        stop_hook: false,
        drain_after: Duration::from_secs(60),
        drain_deadline: Duration::from_secs(600),
        grow_at: 1.0,
    }
}

/// A load of so many units of `MAX`.
pub(super) fn load(current: u32) -> LocalLoad {
    LocalLoad {
        current,
        max: MAX,
        full: current >= MAX,
        participants: current / UNITS,
        cost: UNITS.into(),
        ..LocalLoad::default()
    }
}

/// What a phone can do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phone {
    pub(super) refer: bool,
    pub(super) replaces: bool,
}

pub(super) fn user(entity: &str, endpoint: &str, phone: Phone) -> ConfUser {
    ConfUser {
        entity: entity.to_owned(),
        svr_id: None,
        endpoint: endpoint.to_owned(),
        display_name: None,
        status: UserStatus::Connected,
        ssrc: None,
        codec: None,
        role: None,
        muted: false,
        joined: None,
        reach: Some(Reach {
            contact: format!("{entity}:5062"),
            call_id: endpoint.to_owned(),
            local_tag: "l".to_owned(),
            remote_tag: "r".to_owned(),
            refer: phone.refer,
            replaces: phone.replaces,
        }),
    }
}

pub(super) struct Server {
    pub(super) cluster: Cluster,
    /// Users here: room, endpoint, shard.
    pub(super) users: BTreeMap<(String, String), (usize, ConfUser)>,
    /// What each shard was told of users who are not on it.
    pub(super) remote: BTreeSet<(usize, String, SvrId, String)>,
    pub(super) trunks: BTreeSet<(String, SvrId)>,
    /// Rooms that take nobody new, as each shard was told.
    pub(super) closed: BTreeMap<(usize, String), Closed>,
    pub(super) hooks: Vec<(Hook, SvrId)>,
    pub(super) answers: Vec<(u64, u16)>,
    pub(super) bytes: usize,
    /// The other end of each channel.
    pub(super) channels: BTreeMap<ChannelId, (SvrId, ChannelId)>,
    pub(super) min: u32,
    is_full: bool,
    is_stopped: bool,
}

enum Event {
    Input(Input),
    Caller {
        from: String,
        room: String,
        hopped: bool,
    },
    Measure,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) servers: BTreeMap<SvrId, Server>,
    events: BTreeMap<(Instant, u64), (SvrId, Event)>,
    count: u64,
    calls: BTreeMap<CallKey, (SvrId, String, String, bool)>,
    /// Where each caller ended: server, or a status.
    pub(super) ends: BTreeMap<String, Result<SvrId, u16>>,
    cut: BTreeSet<(SvrId, SvrId)>,
    /// When the last input of each channel arrives: what is sent later does not overtake it.
    arrivals: BTreeMap<(SvrId, ChannelId), Instant>,
    /// Makes delays between 1 and 20 ms instead of one for all.
    pub(super) jitter: Option<Random>,
    pub(super) phone: Phone,
    lives: u64,
    /// Else all lives of a server have one epoch.
    pub(super) clock_runs: bool,
}

impl Net {
    pub(super) fn new(configs: Vec<Config>) -> Self {
        let mut net = Self {
            now: Instant::now(),
            servers: BTreeMap::new(),
            events: BTreeMap::new(),
            count: 0,
            calls: BTreeMap::new(),
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            jitter: None,
            phone: Phone {
                refer: true,
                replaces: true,
            },
            lives: 0,
            clock_runs: true,
        };
        for config in configs {
            net.start(config);
        }
        net
    }

    /// Servers of these names, each configured with all the others.
    pub(super) fn mesh(names: &[&str]) -> Self {
        let mut net = Self::new(names.iter().map(|name| config(name, names)).collect());
        net.run(3_000);
        net
    }

    pub(super) fn start(&mut self, config: Config) {
        self.lives += u64::from(self.clock_runs);
        let svr_id = config.svr_id;
        let server = Server {
            cluster: Cluster::new(config, self.lives, self.lives, self.now),
            users: BTreeMap::new(),
            remote: BTreeSet::new(),
            trunks: BTreeSet::new(),
            closed: BTreeMap::new(),
            hooks: Vec::new(),
            answers: Vec::new(),
            bytes: 0,
            channels: BTreeMap::new(),
            min: 0,
            is_full: false,
            is_stopped: false,
        };
        self.servers.insert(svr_id, server);
        self.after(Duration::ZERO, svr_id, Event::Measure);
        self.drain(svr_id);
    }

    pub(super) fn at(&self, name: &str) -> &Server {
        &self.servers[&id(name)]
    }

    pub(super) fn life(&self, of: &str, seen_by: &str) -> Option<Life> {
        let servers = self.at(seen_by).cluster.servers(self.now);
        let mut servers = servers.into_iter();
        servers
            .find(|server| server.svr_id == id(of))
            .map(|server| server.life)
    }

    fn after(&mut self, wait: Duration, to: SvrId, event: Event) {
        self.count += 1;
        self.events
            .insert((self.now + wait, self.count), (to, event));
    }

    fn delay(&mut self) -> Duration {
        match &mut self.jitter {
            Some(random) => Duration::from_micros(1_000 + random.next_u64() % 19_000),
            None => LATENCY,
        }
    }

    /// Something comes by a channel, behind what was sent before.
    fn arrive_on(&mut self, wait: Duration, to: SvrId, channel: ChannelId, input: Input) {
        let last = self.arrivals.entry((to, channel)).or_insert(self.now);
        let at = (self.now + wait).max(*last);
        *last = at;
        self.after(at - self.now, to, Event::Input(input));
    }

    /// For so many milliseconds.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let running = self.servers.values().filter(|server| !server.is_stopped);
            let timer = running
                .filter_map(|server| server.cluster.poll_timeout())
                .min();
            let Some(next) = event.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= self.now) {
                let (_, (to, event)) = self.events.pop_first().unwrap();
                self.happen(to, event);
            } else {
                let due: Vec<SvrId> = self.servers.keys().copied().collect();
                for svr_id in due {
                    let server = self.servers.get_mut(&svr_id).unwrap();
                    if !server.is_stopped
                        && server
                            .cluster
                            .poll_timeout()
                            .is_some_and(|at| at <= self.now)
                    {
                        server.cluster.handle_timeout(self.now);
                        self.drain(svr_id);
                    }
                }
            }
        }
        self.now = end;
    }

    fn happen(&mut self, to: SvrId, event: Event) {
        let Some(server) = self.servers.get_mut(&to) else {
            return;
        };
        if server.is_stopped {
            self.after(Duration::from_millis(100), to, event);
            return;
        }
        match event {
            Event::Input(input) => server.cluster.handle(self.now, input),
            Event::Measure => {
                let current = server.users.len() as u32 * UNITS;
                let limit = if server.is_full { MAX * 9 / 10 } else { MAX };
                server.is_full = current >= limit;
                let load = LocalLoad {
                    full: server.is_full,
                    min: server.min,
                    ..load(current)
                };
                server.cluster.handle(self.now, Input::Load(load));
                self.after(Duration::from_secs(1), to, Event::Measure);
            }
            Event::Caller { from, room, hopped } => self.arrive(to, from, room, hopped),
        }
        self.drain(to);
    }

    /// As a focus does: whoever comes while the server is below its maximum is taken.
    fn arrive(&mut self, at: SvrId, from: String, name: String, hopped: bool) {
        let server = self.servers.get_mut(&at).unwrap();
        let closed = server.closed.get(&(from.len() % 2, name.clone()));
        if let Some(why) = closed.filter(|_| !hopped) {
            let status = if *why == Closed::Locked { 403 } else { 486 };
            self.ends.insert(from, Err(status));
            return;
        }
        let is_open = closed.is_none()
            && server.cluster.state() == SvrState::Active
            && !server.is_full
            && (server.users.len() as u32) * UNITS < MAX;
        if is_open {
            self.join(at, &name, &from, &from);
            self.ends.insert(from, Ok(at));
            return;
        }
        self.count += 1;
        let call = CallKey::invented(self.count as u32);
        let asked = Arrival {
            room: room(&name),
            participants: 0,
            hopped,
            from: from.clone(),
        };
        self.calls.insert(call, (at, name, from, hopped));
        let (shard, report) = (0, Report::Asked { call, asked });
        self.input(at, Input::Report { shard, report });
    }

    pub(super) fn input(&mut self, to: SvrId, input: Input) {
        let server = self.servers.get_mut(&to).unwrap();
        server.cluster.handle(self.now, input);
        self.drain(to);
    }

    /// A caller is connected here: the shard follows from his name.
    fn join(&mut self, at: SvrId, name: &str, entity: &str, endpoint: &str) {
        let mut user = user(entity, endpoint, self.phone);
        let server = self.servers.get_mut(&at).unwrap();
        let shard = entity.len() % 2;
        user.svr_id = Some(at);
        server.users.insert(
            (name.to_owned(), endpoint.to_owned()),
            (shard, user.clone()),
        );
        let (room, user) = (room(name), Box::new(user));
        let report = Report::User { room, user };
        self.after(LATENCY, at, Event::Input(Input::Report { shard, report }));
    }

    pub(super) fn leave(&mut self, at: SvrId, name: &str, endpoint: &str) {
        let Some(server) = self.servers.get_mut(&at) else {
            return;
        };
        let key = (name.to_owned(), endpoint.to_owned());
        if let Some((shard, _)) = server.users.remove(&key) {
            let (room, endpoint) = (room(name), key.1);
            let report = Report::UserGone { room, endpoint };
            self.after(LATENCY, at, Event::Input(Input::Report { shard, report }));
        }
    }

    pub(super) fn call(&mut self, to: &str, name: &str, from: &str) {
        let (from, room, hopped) = (from.to_owned(), name.to_owned(), false);
        self.after(LATENCY, id(to), Event::Caller { from, room, hopped });
    }

    /// The same, by one who was sent there.
    pub(super) fn call_as_sent(&mut self, to: &str, name: &str, from: &str) {
        let (from, room, hopped) = (from.to_owned(), name.to_owned(), true);
        self.after(LATENCY, id(to), Event::Caller { from, room, hopped });
    }

    /// So many callers of one room, one after the other.
    pub(super) fn fill(&mut self, to: &str, name: &str, count: usize) {
        for number in 0..count {
            self.call(to, name, &format!("sip:{name}-{to}-{number}@phone"));
        }
        self.run(100);
    }

    pub(super) fn count(&self, at: &str) -> usize {
        self.at(at).users.len()
    }

    /// The process is killed: its connections are closed.
    pub(super) fn kill(&mut self, name: &str) {
        let server = self.servers.remove(&id(name)).unwrap();
        for (peer, channel) in server.channels.into_values() {
            self.lose(peer, channel, Lost::Reset);
        }
    }

    fn lose(&mut self, peer: SvrId, channel: ChannelId, why: Lost) {
        if let Some(server) = self.servers.get_mut(&peer)
            && server.channels.remove(&channel).is_some()
        {
            let down = Input::ChannelDown { channel, why };
            let wait = self.delay();
            self.arrive_on(wait, peer, channel, down);
        }
    }

    /// Nothing goes between the two any more, and nobody is told.
    pub(super) fn cut(&mut self, a: &str, b: &str) {
        self.cut.extend([(id(a), id(b)), (id(b), id(a))]);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn stop(&mut self, name: &str, stopped: bool) {
        self.servers.get_mut(&id(name)).unwrap().is_stopped = stopped;
    }

    fn drain(&mut self, from: SvrId) {
        while let Some(server) = self.servers.get_mut(&from)
            && let Some(output) = server.cluster.poll_output()
        {
            self.do_output(from, output);
        }
    }

    fn do_output(&mut self, from: SvrId, output: Output) {
        let server = self.servers.get_mut(&from).unwrap();
        match output {
            Output::Dial { channel, uri, .. } => self.dial(from, channel, &uri),
            Output::Close { channel, .. } => {
                if let Some((peer, theirs)) = server.channels.remove(&channel)
                    && !self.cut.contains(&(from, peer))
                {
                    self.lose(peer, theirs, Lost::Bye);
                }
            }
            Output::Send {
                channel,
                id,
                request,
            } => {
                server.bytes += format!("{request:?}").len();
                self.pass(from, channel, |channel| Input::Request {
                    channel,
                    id,
                    request,
                });
            }
            Output::Respond {
                channel,
                id,
                response,
            } => self.pass(from, channel, |channel| Input::Response {
                channel,
                id,
                result: Ok(response),
            }),
            Output::Order { shard, order } => self.obey(from, shard, order),
            Output::RunHook { hook, svr_id, .. } => {
                server.hooks.push((hook, svr_id));
            }
            Output::Answered { id, status, .. } => server.answers.push((id, status)),
            Output::State(_) | Output::Kept(_) | Output::Decided(_) => {}
        }
    }

    fn pass(&mut self, from: SvrId, channel: ChannelId, input: impl FnOnce(ChannelId) -> Input) {
        let Some(&(peer, theirs)) = self.servers[&from].channels.get(&channel) else {
            return;
        };
        if !self.cut.contains(&(from, peer)) {
            let wait = self.delay();
            self.arrive_on(wait, peer, theirs, input(theirs));
        }
    }

    fn dial(&mut self, from: SvrId, channel: ChannelId, uri: &str) {
        let name = uri.trim_start_matches("sip:cfw@").trim_end_matches(":5060");
        let peer = id(name);
        if self.cut.contains(&(from, peer)) {
            return;
        }
        self.count += 1;
        let theirs = ChannelId::Accepted(self.count as u32);
        let Some(server) = self.servers.get_mut(&peer) else {
            let why = Lost::Reset;
            let down = Input::ChannelDown { channel, why };
            self.after(LATENCY, from, Event::Input(down));
            return;
        };
        if server.is_stopped {
            return;
        }
        server.channels.insert(theirs, (from, channel));
        let server = self.servers.get_mut(&from).unwrap();
        server.channels.insert(channel, (peer, theirs));
        // Nobody is known by signalling: the first messages tell.
        let up = |channel| Input::ChannelUp {
            channel,
            svr_id: None,
        };
        let (there, back) = (self.delay(), self.delay());
        self.arrive_on(there, peer, theirs, up(theirs));
        self.arrive_on(there + back, from, channel, up(channel));
    }

    fn obey(&mut self, at: SvrId, shard: usize, order: Order) {
        let done = |room: RoomName, svr_id, endpoint, status| {
            let report = Report::Done {
                room,
                svr_id,
                endpoint,
                status,
            };
            Event::Input(Input::Report { shard, report })
        };
        let server = self.servers.get_mut(&at).unwrap();
        match order {
            Order::Placed { call, verdict } => self.placed(at, call, verdict),
            Order::Remote { room, user } => {
                let svr_id = user.svr_id.unwrap();
                let key = (shard, room.as_str().to_owned(), svr_id, user.endpoint);
                server.remote.insert(key);
            }
            Order::RemoteGone {
                room,
                svr_id,
                endpoint,
            } => {
                let key = (shard, room.as_str().to_owned(), svr_id, endpoint);
                server.remote.remove(&key);
            }
            Order::Move {
                room,
                endpoint,
                target,
            } => {
                let key = (room.as_str().to_owned(), endpoint.clone());
                let Some((_, user)) = server.users.get(&key).cloned() else {
                    return;
                };
                let closed = server.closed.get(&(shard, key.0));
                let refused = match closed {
                    // He would find it so where he goes.
                    Some(Closed::Locked) => Some(403),
                    _ => (!self.phone.refer).then_some(405),
                };
                if let Some(status) = refused {
                    self.after(LATENCY, at, done(room, at, endpoint, status));
                    return;
                }
                let (target, name) = (host(&target), room.as_str().to_owned());
                self.leave(at, &name, &endpoint);
                self.after(LATENCY, at, done(room, at, endpoint, 200));
                let (from, room, hopped) = (user.entity, name, true);
                self.after(LATENCY, target, Event::Caller { from, room, hopped });
            }
            Order::TakeOver { room, user, reach } => {
                let (name, old) = (room.as_str().to_owned(), user.svr_id.unwrap());
                if !self.phone.replaces {
                    self.after(LATENCY, at, done(room, old, user.endpoint, 481));
                    return;
                }
                let endpoint = format!("{}@{at}", reach.call_id);
                self.join(at, &name, &user.entity, &endpoint);
                self.leave(old, &name, &user.endpoint);
                self.ends.insert(user.entity.clone(), Ok(at));
                self.after(LATENCY * 2, at, done(room, old, user.endpoint, 200));
            }
            Order::OpenTrunk { room, peer, .. } => {
                server.trunks.insert((room.as_str().to_owned(), peer));
                let report = Report::Trunk {
                    room,
                    peer,
                    up: true,
                };
                let input = Input::Report { shard, report };
                self.after(LATENCY, at, Event::Input(input));
            }
            Order::CloseTrunk { room, peer } => {
                server.trunks.remove(&(room.as_str().to_owned(), peer));
            }
            Order::Wish {
                room,
                endpoint,
                what: Wish::End(_),
            } => self.leave(at, room.as_str(), &endpoint),
            Order::Wish { .. } | Order::ServerLost(_) => {}
            Order::Closed { room, why } => {
                let key = (shard, room.as_str().to_owned());
                match why {
                    Some(why) => server.closed.insert(key, why),
                    None => server.closed.remove(&key),
                };
            }
        }
    }

    fn placed(&mut self, at: SvrId, call: CallKey, verdict: Verdict) {
        let (_, name, from, hopped) = self.calls.remove(&call).unwrap();
        match verdict {
            Verdict::Accept => {
                self.join(at, &name, &from, &from);
                self.ends.insert(from, Ok(at));
            }
            Verdict::Redirect { contacts } => {
                // By whoever takes nobody any more, and has not for long.
                let is_active = self.at(at.as_str()).cluster.state() == SvrState::Active;
                assert!(!hopped || !is_active, "{from} is sent on twice");
                let (target, hopped) = (host(&contacts[0]), true);
                assert!(contacts[0].ends_with(";crt-hop=1"), "{contacts:?}");
                let room = name;
                self.after(LATENCY, target, Event::Caller { from, room, hopped });
            }
            Verdict::Relay { .. } => {
                self.ends.insert(from, Err(0));
            }
            Verdict::Refuse { status, .. } => {
                self.ends.insert(from, Err(status));
            }
        }
    }
}

fn host(uri: &str) -> SvrId {
    let (_, rest) = uri.rsplit_once('@').unwrap();
    id(rest.split_once(':').unwrap().0)
}
