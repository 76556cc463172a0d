//! One life of a server: its focus, the rules of the cluster, and its ends of the control channels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{Element, Request, Response, UserStatus};

use super::caller::host_of;
use super::mutation::Mutation;
use super::net::{Host, StreamId};
use super::shard::{Shard, UNIT};
use crate::cluster::{
    ChannelId, Cluster, Config, Decision, Hook, Input, Lost, Output, RequestId, Wanted,
};
use crate::config as settings;

/// What goes over a control channel.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Request(RequestId, Request),
    Response(RequestId, Result<Response, u16>),
    Bye,
}

/// What a server wants done by the world.
#[derive(Debug)]
pub(super) enum Act {
    Datagram {
        to: SocketAddr,
        message: Bytes,
    },
    Connect {
        channel: u32,
        to: Host,
    },
    Say {
        stream: StreamId,
        said: Said,
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
pub(super) type Roster = std::collections::BTreeSet<(String, String, String)>;

/// RFC 6230 §6.1: the requester waits for twice the one-way transaction timeout.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Above this share of its maximum a server takes nobody.
pub(super) const HARD_CAP: f64 = 1.2;

/// What a server is made of, in every life of it.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) host: Host,
    pub(super) max: u32,
    pub(super) min: u32,
    pub(super) standby: bool,
    pub(super) peers: Vec<Host>,
    pub(super) reserved: Vec<Host>,
    pub(super) recall: bool,
    pub(super) mutation: Mutation,
}

pub(super) struct Server {
    setup: Setup,
    pub(super) shard: Shard,
    pub(super) cluster: Cluster,
    streams: BTreeMap<ChannelId, StreamId>,
    channels: BTreeMap<StreamId, ChannelId>,
    next_accepted: u32,
    /// Channels of ours that are on their way and still wanted.
    dialling: BTreeSet<u32>,
    /// Requests of ours that wait for an answer.
    waiting: BTreeMap<(ChannelId, RequestId), Instant>,
    /// Of the peers' requests, by the number we gave them, as the peers number them.
    asked: BTreeMap<RequestId, RequestId>,
    next_asked: RequestId,
    acts: Vec<Act>,
    pub(super) said: u64,
}

pub(super) fn svr_id(host: Host) -> SvrId {
    // One to three digits are a valid svr-id.
    format!("S{}", host.0).parse().expect("letters and digits")
}

fn uri(host: Host) -> String {
    format!("sip:{}", host.address())
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
            hosts
                .iter()
                .copied()
                .filter(|host| *host != setup.host)
                .collect()
        };
        let reserved = |host: Host| (svr_id(host), cfw_uri(host));
        let config = Config {
            svr_id: svr_id(setup.host),
            uri: uri(setup.host),
            cfw_uri: cfw_uri(setup.host),
            started: wall,
            shards: 1,
            peers: others(&setup.peers).into_iter().map(cfw_uri).collect(),
            reserved: others(&setup.reserved).into_iter().map(reserved).collect(),
            relay: false,
            recall: setup.recall,
            standby: setup.standby,
            start_hook: false,
            stop_hook: false,
            drain_after: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(60),
            grow_at: 0.85,
        };
        let epoch = setup.mutation.epoch(epoch);
        let mut server = Self {
            shard: Shard::new(setup.host, settings(&setup), seed, now),
            cluster: Cluster::new(config, epoch, seed, now),
            setup,
            streams: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_accepted: 0,
            dialling: BTreeSet::new(),
            waiting: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_asked: 0,
            acts: Vec::new(),
            said: 0,
        };
        server.shard.set_state(server.cluster.state());
        server.measure(now, wall);
        server
    }

    pub(super) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let answer = self.waiting.values().min().copied();
        [
            self.shard.poll_timeout(),
            self.cluster.poll_timeout(),
            answer,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, wall: SystemTime) {
        self.shard.handle_timeout(now, wall);
        self.cluster.handle_timeout(now);
        let is_late = |(_, until): &(&(ChannelId, RequestId), &Instant)| **until <= now;
        let late: Vec<(ChannelId, RequestId)> = self
            .waiting
            .iter()
            .filter(is_late)
            .map(|(key, _)| *key)
            .collect();
        for (channel, id) in late {
            self.waiting.remove(&(channel, id));
            let result = Err(408);
            self.cluster.handle(
                now,
                Input::Response {
                    channel,
                    id,
                    result,
                },
            );
        }
        self.settle(now, wall);
    }

    /// Once a second.
    pub(super) fn measure(&mut self, now: Instant, wall: SystemTime) {
        let load = self.shard.measure();
        self.cluster.handle(now, Input::Load(load));
        self.settle(now, wall);
    }

    pub(super) fn take_datagram(
        &mut self,
        now: Instant,
        wall: SystemTime,
        from: SocketAddr,
        datagram: &Bytes,
    ) {
        self.shard.take_datagram(now, wall, from, datagram);
        self.settle(now, wall);
    }

    pub(super) fn want(&mut self, now: Instant, wall: SystemTime, wanted: Wanted) {
        self.cluster.handle(now, Input::Operator { id: 1, wanted });
        self.settle(now, wall);
    }

    pub(super) fn hook_done(&mut self, now: Instant, wall: SystemTime, hook: Hook, svr_id: SvrId) {
        let result = Ok(());
        self.cluster.handle(
            now,
            Input::HookDone {
                hook,
                svr_id,
                result,
            },
        );
        self.settle(now, wall);
    }

    /// Somebody has connected.
    pub(super) fn accept(&mut self, now: Instant, wall: SystemTime, stream: StreamId) {
        self.next_accepted += 1;
        let channel = ChannelId::Accepted(self.next_accepted);
        self.up(now, wall, channel, stream);
    }

    /// We have connected, perhaps to be told that nobody wants that any more.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        wall: SystemTime,
        channel: u32,
        stream: StreamId,
    ) {
        if !self.dialling.remove(&channel) {
            self.acts.push(Act::End { stream });
            return;
        }
        let channel = ChannelId::Dialled(channel);
        self.up(now, wall, channel, stream);
    }

    fn up(&mut self, now: Instant, wall: SystemTime, channel: ChannelId, stream: StreamId) {
        self.streams.insert(channel, stream);
        self.channels.insert(stream, channel);
        let svr_id = None;
        self.cluster
            .handle(now, Input::ChannelUp { channel, svr_id });
        self.settle(now, wall);
    }

    pub(super) fn refused(&mut self, now: Instant, wall: SystemTime, channel: u32) {
        if !self.dialling.remove(&channel) {
            return;
        }
        let channel = ChannelId::Dialled(channel);
        let why = Lost::Reset;
        self.cluster
            .handle(now, Input::ChannelDown { channel, why });
        self.settle(now, wall);
    }

    /// The stream is over: broken, or ended by the other side.
    pub(super) fn broken(&mut self, now: Instant, wall: SystemTime, stream: StreamId) {
        self.down(now, wall, stream, Lost::Reset);
    }

    fn down(&mut self, now: Instant, wall: SystemTime, stream: StreamId, why: Lost) {
        let Some(channel) = self.channels.remove(&stream) else {
            return;
        };
        self.streams.remove(&channel);
        self.waiting.retain(|(other, _), _| *other != channel);
        self.cluster
            .handle(now, Input::ChannelDown { channel, why });
        self.settle(now, wall);
    }

    /// Whether it has an end of this stream.
    pub(super) fn knows(&self, stream: StreamId) -> bool {
        self.channels.contains_key(&stream)
    }

    pub(super) fn hear(&mut self, now: Instant, wall: SystemTime, stream: StreamId, said: Said) {
        let Some(&channel) = self.channels.get(&stream) else {
            return;
        };
        match said {
            Said::Request(theirs, request) => {
                self.next_asked += 1;
                let id = self.next_asked;
                self.asked.insert(id, theirs);
                let request = Input::Request {
                    channel,
                    id,
                    request,
                };
                self.cluster.handle(now, request);
            }
            Said::Response(id, result) => {
                if self.waiting.remove(&(channel, id)).is_some() {
                    let response = Input::Response {
                        channel,
                        id,
                        result,
                    };
                    self.cluster.handle(now, response);
                }
            }
            Said::Bye => return self.down(now, wall, stream, Lost::Bye),
        }
        self.settle(now, wall);
    }

    /// Lets the focus and the rules talk until both have nothing more to say.
    fn settle(&mut self, now: Instant, wall: SystemTime) {
        loop {
            let mut idle = true;
            for report in self.shard.take_reports() {
                idle = false;
                let Some(report) = self.setup.mutation.report(report) else {
                    continue;
                };
                self.cluster.handle(now, Input::Report { shard: 0, report });
            }
            while let Some(output) = self.cluster.poll_output() {
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

    fn act(&mut self, now: Instant, wall: SystemTime, output: Output) {
        match output {
            Output::Dial { channel, uri, .. } => {
                if let (ChannelId::Dialled(channel), Some(to)) = (channel, host_of(&uri)) {
                    self.dialling.insert(channel);
                    self.acts.push(Act::Connect { channel, to });
                }
            }
            Output::Close { channel, .. } => {
                self.waiting.retain(|(other, _), _| *other != channel);
                if let ChannelId::Dialled(channel) = channel {
                    self.dialling.remove(&channel);
                }
                if let Some(stream) = self.streams.remove(&channel) {
                    self.channels.remove(&stream);
                    let said = Said::Bye;
                    self.acts.push(Act::Say { stream, said });
                    self.acts.push(Act::End { stream });
                }
            }
            Output::Send {
                channel,
                id,
                request,
            } => {
                if let Some(&stream) = self.streams.get(&channel) {
                    self.said += 1;
                    self.waiting.insert((channel, id), now + ANSWER_PATIENCE);
                    let said = Said::Request(id, request);
                    self.acts.push(Act::Say { stream, said });
                }
            }
            Output::Respond {
                channel,
                id,
                response,
            } => {
                let theirs = self.asked.remove(&id);
                if let (Some(&stream), Some(id)) = (self.streams.get(&channel), theirs) {
                    self.said += 1;
                    let said = Said::Response(id, Ok(response));
                    self.acts.push(Act::Say { stream, said });
                }
            }
            Output::Order { order, .. } => self.shard.obey(now, wall, order),
            Output::State(state) => {
                self.shard.set_state(state);
                self.acts.push(Act::State(state));
            }
            Output::Kept(_) => {}
            Output::RunHook { hook, svr_id, .. } => self.acts.push(Act::Hook { hook, svr_id }),
            Output::Answered { .. } => {}
            Output::Decided(decision) => self.acts.push(Act::Decided(decision)),
        }
    }

    /// Who is where, as this server sees it.
    pub(super) fn roster(&self) -> Roster {
        let mut roster = Roster::new();
        for id in self.cluster.conferences() {
            let Some(conference) = self.cluster.conference(id) else {
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

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Whom it could not take, by the hard cap.
    pub(super) fn cap(&self) -> u32 {
        (f64::from(self.setup.max) * HARD_CAP) as u32 + UNIT
    }
}

impl Said {
    /// About as many bytes as it has on the wire.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Request(_, request) => 400 + 250 * request.elements.len(),
            Self::Response(..) => 250,
            Self::Bye => 0,
        }
    }
}

impl Said {
    /// Worth a line in a trace: not the load of every second, nor that it has come.
    pub(super) fn is_telling(&self) -> bool {
        match self {
            Self::Request(_, request) => !matches!(request.elements[..], [Element::Load(_)]),
            Self::Response(_, Ok(response)) => response.status != 200,
            Self::Response(_, Err(_)) | Self::Bye => true,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Request(_, request) => {
                let elements: Vec<String> = request.elements.iter().map(told).collect();
                format!("{} {}", request.seq, elements.join(", "))
            }
            Self::Response(_, response) => format!("{response:?}"),
            Self::Bye => "BYE".to_owned(),
        };
        f.write_str(&text)
    }
}

fn told(element: &Element) -> String {
    match element {
        Element::Load(load) => format!("load {}", load.current),
        Element::ConfInfo(info) => {
            let kind = if info.full { "all" } else { "news" };
            let systems = info.systems.len();
            let rooms = info.conferences.iter().map(|room| {
                let users = room.users.iter();
                let users = users.map(|user| format!("{}:{:?}", user.endpoint, user.status));
                format!("{} {:?}", room.conf_obj_id, users.collect::<Vec<_>>())
            });
            format!(
                "{kind} of {systems} servers, {}",
                rooms.collect::<Vec<_>>().join("; ")
            )
        }
        other => format!("{other:?}"),
    }
}
