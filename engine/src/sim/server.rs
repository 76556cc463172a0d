//! One life of a server: its shard, its hub with the rules of the cluster, and what they tell each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::UserStatus;
use sip::{ListenerIdentity, Transport};

use super::caller::flow;
use super::mutation::Mutation;
use super::net::{Host, StreamId};
use super::shard::Shard;
use crate::cluster::hub::{self, ConnId, Hub, Place};
use crate::cluster::{Cluster, Config, Decision, Hook, Input, LocalLoad, Output, Wanted};
use crate::config as settings;
use crate::focus::RoomName;
use crate::focus::liaison::{Order, Report};

/// Where control channels come in.
const CFW_PORT: u16 = 7563;

/// The hub's number in tags; the shard's is 0.
const HUB: u16 = 1;

/// What a server wants done by the world.
#[derive(Debug)]
pub(super) enum Act {
    Datagram {
        to: SocketAddr,
        message: Bytes,
    },
    Connect {
        conn: ConnId,
        to: Host,
    },
    Say {
        stream: StreamId,
        bytes: Bytes,
    },
    /// Says nothing more on this stream.
    End {
        stream: StreamId,
    },
    Hook {
        hook: Hook,
        svr_id: SvrId,
    },
    Decided(Decision),
    State(SvrState),
}

/// Who is in which room and where: room, URI, svr-id.
pub(super) type Roster = BTreeSet<(String, String, String)>;

/// Above this share of its maximum a server takes nobody.
const HARD_CAP: f64 = 1.2;

/// What a server is made of, in every life of it.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) host: Host,
    pub(super) max: u32,
    pub(super) min: u32,
    pub(super) standby: bool,
    pub(super) hooks: bool,
    pub(super) peers: Vec<Host>,
    pub(super) reserved: Vec<Host>,
    pub(super) recall: bool,
    pub(super) grow_at: f64,
    pub(super) mutation: Mutation,
}

pub(super) struct Server {
    setup: Setup,
    pub(super) shard: Shard,
    hub: Hub,
    streams: BTreeMap<ConnId, StreamId>,
    conns: BTreeMap<StreamId, ConnId>,
    /// Connections of ours that are on their way and still wanted.
    connecting: BTreeSet<ConnId>,
    told: LocalLoad,
    acts: Vec<Act>,
    /// Trunks that were opened, for [`Mutation::ShareOnce`].
    trunks: BTreeSet<(String, SvrId)>,
}

pub(super) fn svr_id(host: Host) -> SvrId {
    // One to three digits are a valid svr-id.
    format!("S{}", host.0).parse().expect("letters and digits")
}

pub(super) fn cfw_uri(host: Host) -> String {
    format!("sip:cfw@{}", host.address())
}

/// The configuration that a server of these properties has.
fn settings(setup: &Setup) -> settings::Config {
    let list = |hosts: &[Host], item: &dyn Fn(Host) -> String| {
        let others = hosts.iter().filter(|host| **host != setup.host);
        others
            .map(|host| item(*host))
            .collect::<Vec<String>>()
            .join(",")
    };
    let reserved = |host: Host| format!("{}={}", svr_id(host), cfw_uri(host));
    let (id, address) = (svr_id(setup.host), setup.host.address());
    let sets = [
        format!("server.id={id}"),
        format!("sip.listen=udp:{address}"),
        format!("rtp.address={}", address.ip()),
        "rtp.timeout_s=0".to_owned(),
        format!("load.max={}", setup.max),
        format!("load.min={}", setup.min),
        "cluster.trusted=10.0.0.0/8".to_owned(),
        format!("cluster.peers={}", list(&setup.peers, &cfw_uri)),
        format!("cluster.reserved={}", list(&setup.reserved, &reserved)),
        format!("cluster.recall={}", setup.recall),
        format!("cluster.standby={}", setup.standby),
    ];
    let mut config =
        settings::Config::load(None, [].into_iter(), &sets, &[0]).expect("valid settings");
    config.load.derive(setup.max).expect("valid limits");
    config
}

impl Server {
    pub(super) fn new(setup: Setup, epoch: u64, seed: u64, now: Instant, wall: SystemTime) -> Self {
        let others = |hosts: &[Host]| -> Vec<Host> {
            let others = hosts.iter().copied();
            others.filter(|host| *host != setup.host).collect()
        };
        let reserved = |host: Host| (svr_id(host), cfw_uri(host));
        let cluster = Config {
            svr_id: svr_id(setup.host),
            uri: format!("sip:{}", setup.host.address()),
            cfw_uri: cfw_uri(setup.host),
            started: wall,
            shards: 1,
            peers: others(&setup.peers).into_iter().map(cfw_uri).collect(),
            reserved: others(&setup.reserved).into_iter().map(reserved).collect(),
            relay: false,
            recall: setup.recall,
            standby: setup.standby,
            start_hook: setup.hooks,
            stop_hook: setup.hooks,
            drain_after: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(60),
            grow_at: setup.grow_at,
        };
        let listener = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: setup.host.address().to_string(),
        };
        let settings = settings(&setup);
        let config = hub::Config {
            cluster,
            epoch: setup.mutation.epoch(epoch),
            sip: sip::Config::new(HUB, vec![listener], seed.rotate_left(16)),
            seed: seed.rotate_left(32),
            secret: std::array::from_fn(|at| seed.to_be_bytes()[at % 8]),
            trusted: settings.cluster.trusted.clone(),
            place: Place {
                address: setup.host.address().ip(),
                port: CFW_PORT,
                fingerprint: None,
            },
        };
        let mut server = Self {
            shard: Shard::new(setup.host, settings, seed, now),
            hub: Hub::new(config, now),
            setup,
            streams: BTreeMap::new(),
            conns: BTreeMap::new(),
            connecting: BTreeSet::new(),
            told: LocalLoad::default(),
            acts: Vec::new(),
            trunks: BTreeSet::new(),
        };
        server.shard.set_state(server.cluster().state());
        server.measure(now, wall);
        server
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.hub.cluster()
    }

    pub(super) fn counters(&self) -> hub::Counters {
        self.hub.counters()
    }

    pub(super) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let both = [self.shard.poll_timeout(), self.hub.poll_timeout()];
        both.into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, wall: SystemTime) {
        self.shard.handle_timeout(now, wall);
        self.hub.handle_timeout(now);
        self.settle(now, wall);
    }

    /// Once a second.
    pub(super) fn measure(&mut self, now: Instant, wall: SystemTime) {
        self.shard.measure();
        self.tell_load(now, true);
        self.settle(now, wall);
    }

    /// Once a second, and when it is worth it at once.
    fn tell_load(&mut self, now: Instant, is_due: bool) {
        let (load, told) = (self.shard.local_load(), self.told);
        let crossed = (load.full, load.capped) != (told.full, told.capped);
        if is_due || crossed || load.current.abs_diff(told.current) > load.max / 10 {
            self.told = load;
            self.hub.handle(now, Input::Load(load));
        }
    }

    pub(super) fn take_datagram(
        &mut self,
        now: Instant,
        wall: SystemTime,
        from: SocketAddr,
        datagram: &Bytes,
    ) {
        if is_for_hub(datagram) {
            self.hub.handle_sip(now, flow(from), datagram);
        } else {
            self.shard.take_datagram(now, wall, from, datagram);
        }
        self.settle(now, wall);
    }

    pub(super) fn want(&mut self, now: Instant, wall: SystemTime, wanted: Wanted) {
        self.hub.handle(now, Input::Operator { id: 1, wanted });
        self.settle(now, wall);
    }

    pub(super) fn hook_done(&mut self, now: Instant, wall: SystemTime, hook: Hook, svr_id: SvrId) {
        let result = Ok(());
        let done = Input::HookDone {
            hook,
            svr_id,
            result,
        };
        self.hub.handle(now, done);
        self.settle(now, wall);
    }

    /// Somebody has connected.
    pub(super) fn accept(&mut self, now: Instant, wall: SystemTime, from: Host, stream: StreamId) {
        match self.hub.accepted(now, from.address()) {
            Some(conn) => self.up(now, wall, conn, stream),
            None => self.acts.push(Act::End { stream }),
        }
    }

    /// We have connected, perhaps to find that nobody wants that any more.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        wall: SystemTime,
        conn: ConnId,
        stream: StreamId,
    ) {
        if self.connecting.remove(&conn) {
            self.up(now, wall, conn, stream);
        } else {
            self.acts.push(Act::End { stream });
        }
    }

    fn up(&mut self, now: Instant, wall: SystemTime, conn: ConnId, stream: StreamId) {
        self.streams.insert(conn, stream);
        self.conns.insert(stream, conn);
        self.hub.ready(now, conn, None);
        self.settle(now, wall);
    }

    pub(super) fn refused(&mut self, now: Instant, wall: SystemTime, conn: ConnId) {
        if self.connecting.remove(&conn) {
            self.hub.closed(now, conn);
            self.settle(now, wall);
        }
    }

    /// The stream is over: broken, or ended by the other side.
    pub(super) fn broken(&mut self, now: Instant, wall: SystemTime, stream: StreamId) {
        if let Some(conn) = self.conns.remove(&stream) {
            self.streams.remove(&conn);
            self.hub.closed(now, conn);
            self.settle(now, wall);
        }
    }

    /// Whether it has an end of this stream.
    pub(super) fn knows(&self, stream: StreamId) -> bool {
        self.conns.contains_key(&stream)
    }

    pub(super) fn hear(&mut self, now: Instant, wall: SystemTime, stream: StreamId, bytes: &[u8]) {
        if let Some(&conn) = self.conns.get(&stream) {
            self.hub.received(now, conn, bytes);
            self.settle(now, wall);
        }
    }

    /// Lets the shard and the hub talk until both have nothing more to say.
    fn settle(&mut self, now: Instant, wall: SystemTime) {
        loop {
            self.tell_load(now, false);
            let mut idle = true;
            for report in self.shard.take_reports() {
                idle = false;
                if let Some(report) = self.setup.mutation.report(report) {
                    self.report(now, report);
                }
            }
            while let Some(output) = self.hub.poll_output() {
                idle = false;
                self.act(now, wall, output);
            }
            if idle {
                break;
            }
        }
        for (to, message) in self.shard.take_sent() {
            self.acts.push(Act::Datagram { to, message });
        }
    }

    fn report(&mut self, now: Instant, report: Report) {
        self.hub.handle(now, Input::Report { shard: 0, report });
    }

    fn act(&mut self, now: Instant, wall: SystemTime, output: hub::Output) {
        match output {
            hub::Output::Transmit { flow, message } => {
                let to = flow.peer;
                self.acts.push(Act::Datagram { to, message });
            }
            // Nobody here has a name.
            hub::Output::Resolve { ticket, .. } => self.hub.resolved(now, ticket, &[]),
            hub::Output::Connect { conn, host, port } => {
                let to = host.parse().ok().map(|ip| SocketAddr::new(ip, port));
                match to.and_then(Host::of) {
                    Some(to) => {
                        self.connecting.insert(conn);
                        self.acts.push(Act::Connect { conn, to });
                    }
                    None => self.hub.closed(now, conn),
                }
            }
            hub::Output::Write { conn, bytes } => {
                if let Some(&stream) = self.streams.get(&conn) {
                    let bytes = bytes.into();
                    self.acts.push(Act::Say { stream, bytes });
                }
            }
            hub::Output::Close { conn } => {
                self.connecting.remove(&conn);
                if let Some(stream) = self.streams.remove(&conn) {
                    self.conns.remove(&stream);
                    self.acts.push(Act::End { stream });
                }
            }
            hub::Output::Act(act) => self.act_on_rules(now, wall, act),
        }
    }

    fn act_on_rules(&mut self, now: Instant, wall: SystemTime, act: Output) {
        match act {
            Output::Order { order, .. } => {
                let is_first = match &order {
                    Order::OpenTrunk { room, peer, .. } => {
                        self.trunks.insert((room.as_str().to_owned(), *peer))
                    }
                    _ => true,
                };
                if let Some(order) = self.setup.mutation.order(order, is_first) {
                    self.shard.obey(now, wall, order);
                }
            }
            Output::State(state) => {
                self.shard.set_state(state);
                self.acts.push(Act::State(state));
            }
            Output::Kept(units) => self.shard.load().keep(units),
            Output::RunHook { hook, svr_id, .. } => self.acts.push(Act::Hook { hook, svr_id }),
            Output::Decided(decision) => self.acts.push(Act::Decided(decision)),
            // The hub does the rest by itself.
            _ => {}
        }
    }

    /// Who is where, as this server sees it.
    pub(super) fn roster(&self) -> Roster {
        let cluster = self.cluster();
        let mut roster = Roster::new();
        for id in cluster.conferences() {
            let Some(conference) = cluster.conference(id) else {
                continue;
            };
            for user in conference.users {
                if user.status != UserStatus::Disconnected {
                    let server = user.svr_id.map_or_else(String::new, |id| id.to_string());
                    roster.insert((id.to_owned(), user.entity, server));
                }
            }
        }
        roster
    }

    /// For [`Mutation::ForgetTheHere`].
    pub(super) fn forget_somebody(&mut self, now: Instant, wall: SystemTime) {
        let own = svr_id(self.setup.host);
        let rooms: Vec<String> = self.cluster().conferences().map(str::to_owned).collect();
        let of_room = |room: String| {
            let mut users = self.cluster().conference(&room)?.users.into_iter();
            let user = users.find(|user| user.svr_id == Some(own))?;
            Some((RoomName::from_user(&room)?, user.endpoint))
        };
        let found = rooms.into_iter().find_map(of_room);
        if let Some((room, endpoint)) = found {
            self.report(now, Report::UserGone { room, endpoint });
            self.settle(now, wall);
        }
    }

    /// Conferences of which it knows.
    pub(super) fn conferences(&self) -> usize {
        self.cluster().conferences().count()
    }

    /// Channels in any state, and SIP dialogs of channels.
    pub(super) fn links(&self) -> (usize, usize) {
        (self.hub.links(), self.hub.dialogs())
    }

    /// Control channels that are up.
    pub(super) fn channels(&self) -> usize {
        self.hub.counters().up as usize
    }

    /// What the load may be after a caller was taken.
    pub(super) fn cap(&self) -> u32 {
        (f64::from(self.setup.max) * HARD_CAP) as u32
    }
}

/// As the shards' doorman has it: what is of a dialog of the hub's, or calls `cfw`.
fn is_for_hub(datagram: &[u8]) -> bool {
    let Ok(glance) = sip::scan(datagram) else {
        return false;
    };
    match glance.owner() {
        Some(owner) => owner == HUB,
        None => glance.user().as_deref() == Some(RoomName::CONTROL),
    }
}
