//! The shard of a simulated server: the real focus, its SIP endpoint and its stage, on no sockets.
//!
//! Rooms do not tick: sound is not simulated. The load follows from who is here, as it would be measured
//! if everybody sent and heard 50 packets a second.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use cfw::dist_conf::load::SvrState;
use mixer_simd::Kernels;
use sip::{Endpoint, ListenerIdentity, Output, Transport};

use super::caller::flow;
use super::net::Host;
use crate::cluster::LocalLoad;
use crate::config::Config;
use crate::focus::liaison::{Order, Report};
use crate::focus::{Access, Focus, Means};
use crate::io::ports::Ports;
use crate::io::{Arena, Arrival, Flushed, MediaIo, Payload, SocketId, Token};
use crate::load::Admission;
use crate::meters::{CoreMeters, EWMA_ALPHA, ServerLoad, ServerState, State};
use crate::shard::ShardIndex;
use crate::shard::core::ntp;
use crate::shard::stage::{Stage, StageConfig};

/// What one participant costs, in load units.
pub(super) const UNIT: u32 = 100;

pub(super) struct Shard {
    sip: Endpoint,
    focus: Focus,
    stage: Stage<NoIo>,
    meters: Box<CoreMeters>,
    load: Arc<ServerLoad>,
    state: Arc<ServerState>,
    /// The load as it is measured, which is smoothed.
    measured: f64,
    sent: Vec<(SocketAddr, Bytes)>,
    /// The load after each call that was taken.
    pub(super) taken: Vec<u32>,
}

impl Shard {
    pub(super) fn new(host: Host, config: Config, seed: u64, now: Instant) -> Self {
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: host.address().to_string(),
        };
        let mut sip = sip::Config::new(0, vec![identity], seed);
        sip.focus = true;
        let load = Arc::new(ServerLoad::new(&config.load));
        let state = Arc::new(ServerState::default());
        state.set(State::Active);
        state.set_in_cluster(true);
        let admission = Admission {
            load: load.clone(),
            state: state.clone(),
        };
        let access = Access::load(&config.auth).expect("nobody is asked who he is");
        let rtp = &config.rtp;
        let ports = Ports::new(rtp.ports.low..=rtp.ports.high, 0, 1);
        let stage = StageConfig {
            address: host.address().ip(),
            shared_ports: rtp.shared_ports,
            talkers_max: 8,
            media_timeout: None,
        };
        let stage = Stage::new(now, NoIo::default(), ports, Kernels::detect(), &stage);
        let mut focus = Focus::new(Arc::new(config), Arc::new(access), admission, seed);
        focus.join_cluster(ShardIndex(0));
        Self {
            sip: Endpoint::new(sip),
            focus,
            stage,
            meters: Box::default(),
            load,
            state,
            measured: 0.0,
            sent: Vec::new(),
            taken: Vec::new(),
        }
    }

    pub(super) fn participants(&self) -> usize {
        self.stage.rooms().map(|room| room.len()).sum()
    }

    fn seats(&self) -> usize {
        let taken = |name: &str| self.stage.taken(name).unwrap_or(0);
        self.stage.rooms().map(|room| taken(room.name())).sum()
    }

    /// What those who are here, and on their way, cost.
    pub(super) fn cost(&self) -> u32 {
        self.seats() as u32 * UNIT
    }

    /// The load as it is measured: it follows what they cost by and by.
    pub(super) fn measured(&self) -> f64 {
        self.measured
    }

    /// Who is here: room and URI.
    pub(super) fn users(&self) -> impl Iterator<Item = (String, String)> {
        self.stage.rooms().flat_map(|room| {
            let members = room.members();
            members.map(|(_, member)| (room.name().to_owned(), member.entity().to_owned()))
        })
    }

    /// Its trunks: room, peer, and whether it is up.
    pub(super) fn trunks(&self) -> impl Iterator<Item = (String, String, bool)> {
        let trunks = self.focus.trunks();
        trunks.map(|(room, peer, is_up)| (room.as_str().to_owned(), peer.to_string(), is_up))
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.sip.is_empty() && self.focus.calls() == 0 && self.participants() == 0
    }

    pub(super) fn sizes(&self) -> sip::Sizes {
        self.sip.sizes()
    }

    pub(super) fn take_reports(&mut self) -> Vec<Report> {
        self.focus.take_reports()
    }

    pub(super) fn take_sent(&mut self) -> Vec<(SocketAddr, Bytes)> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let both = [self.sip.poll_timeout(), self.focus.poll_timeout()];
        both.into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, wall: SystemTime) {
        self.sip.handle_timeout(now);
        self.with_focus(now, wall, |focus, means| focus.handle_timeout(means));
    }

    pub(super) fn take_datagram(
        &mut self,
        now: Instant,
        wall: SystemTime,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        self.sip.handle_message(now, flow(from), datagram);
        self.with_focus(now, wall, |_, _| {});
    }

    pub(super) fn obey(&mut self, now: Instant, wall: SystemTime, order: Order) {
        self.with_focus(now, wall, |focus, means| focus.obey(order, means));
    }

    /// As the server's state follows from the rules.
    pub(super) fn set_state(&mut self, state: SvrState) {
        self.state.set(match state {
            SvrState::Active | SvrState::Full => State::Active,
            SvrState::Draining => State::Draining,
            SvrState::Standby => State::Standby,
        });
    }

    pub(super) fn load(&self) -> &ServerLoad {
        &self.load
    }

    /// Once a second.
    pub(super) fn measure(&mut self) {
        let heard = self.participants() as u32 * UNIT;
        self.measured += EWMA_ALPHA * (f64::from(heard) - self.measured);
        let hot = self.measured / f64::from(self.load.max()) / 2.0;
        self.load.update(self.measured.round() as u32, hot.min(1.0));
    }

    /// As the rules are told of it.
    pub(super) fn local_load(&self) -> LocalLoad {
        LocalLoad {
            current: self.load.expected(),
            max: self.load.max(),
            min: self.load.min(),
            hot: self.load.hot() as f32,
            full: self.load.is_full(),
            capped: self.load.is_over_hard_cap(),
            participants: self.participants() as u32,
            cost: self.load.cost(),
        }
    }

    /// Lets the focus do something, and act on what the endpoint tells until both rest.
    fn with_focus(
        &mut self,
        now: Instant,
        wall: SystemTime,
        work: impl FnOnce(&mut Focus, &mut Means<'_, NoIo>),
    ) {
        let before = self.seats();
        let mut means = Means {
            now,
            wall,
            ntp: ntp(wall),
            sip: &mut self.sip,
            stage: &mut self.stage,
            meters: &self.meters,
        };
        work(&mut self.focus, &mut means);
        while let Some(output) = means.sip.poll_output() {
            match output {
                Output::Transmit { flow, message } => self.sent.push((flow.peer, message)),
                Output::Event(event) => self.focus.handle_event(event, &mut means),
            }
        }
        // What a shard tells the others, and acts on when media end.
        *self.stage.incidents() = Default::default();
        self.stage.io().flush();
        if self.seats() > before {
            self.taken.push(self.cost());
        }
    }
}

/// Media over no sockets.
#[derive(Default)]
struct NoIo {
    sockets: VecDeque<SocketAddr>,
    arena: Arena,
}

impl MediaIo for NoIo {
    fn open(&mut self, address: SocketAddr, _: Token) -> io::Result<SocketId> {
        self.sockets.push_back(address);
        Ok(SocketId(self.sockets.len() as u32 - 1))
    }

    fn adopt(&mut self, _: UdpSocket, _: Token) -> io::Result<SocketId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close(&mut self, _: SocketId) {}

    fn local_address(&self, socket: SocketId) -> io::Result<SocketAddr> {
        let found = self.sockets.get(socket.0 as usize).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn receive_buffer(&self, _: SocketId) -> usize {
        0
    }

    fn harvest(&mut self, _: &mut dyn FnMut(&[Arrival<'_>])) -> io::Result<()> {
        Ok(())
    }

    fn share(&mut self, payload: &[u8]) -> Payload {
        self.arena.put(payload)
    }

    fn queue(&mut self, _: SocketId, _: SocketAddr, _: &[u8], _: Payload) {}

    fn flush(&mut self) -> Flushed {
        self.arena.clear();
        Flushed::default()
    }
}
