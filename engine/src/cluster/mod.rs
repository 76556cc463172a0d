//! Many servers, one conference service: the rules of one server, as a pure state machine.
//!
//! ```text
//!   load, channels, peers' requests, shards' reports, operator ──> Cluster::handle
//!   Cluster::poll_output ──> dial, send, respond, orders to shards, state, hooks, decisions
//! ```
//! Nothing here does I/O or reads a clock. With the same seed and the same inputs at the same times the same
//! outputs come out, so that many servers can be run in one thread with virtual time.

mod decisions;
mod interface;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::ReservedSvr;

pub use decisions::{DECISIONS_MAX, Decision, Seen, What};
pub use interface::{
    ChannelId, ConferenceView, Config, Hook, Input, Life, LocalLoad, Lost, Output, RequestId,
    ServerView, Wanted,
};

/// A channel takes no longer to come up: 2 s for the INVITE, 1 s for TCP and SYNC.
pub const DIAL_BUDGET: Duration = Duration::from_secs(3);

/// The rules of one server. Give it what happens by [`handle`](Self::handle), call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says so, and after
/// either do everything that [`poll_output`](Self::poll_output) gives.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    /// Of this life of the server; later lives have higher ones.
    epoch: u64,
    state: SvrState,
    outputs: VecDeque<Output>,
    decisions: decisions::Decisions,
}

impl Cluster {
    /// `epoch` is higher in every later life of the server, such as the time of its start; above 0.
    pub fn new(config: Config, epoch: u64, _seed: u64, _now: Instant) -> Self {
        let state = match config.standby {
            true => SvrState::Standby,
            false => SvrState::Active,
        };
        Self {
            config,
            epoch,
            state,
            outputs: VecDeque::new(),
            decisions: decisions::Decisions::default(),
        }
    }

    pub fn handle(&mut self, _now: Instant, _input: Input) {}

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Active, draining or standby; whether it is full stands in the load.
    pub fn state(&self) -> SvrState {
        self.state
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All servers that are known, without this one, by svr-id.
    pub fn servers(&self, _now: Instant) -> Vec<ServerView> {
        Vec::new()
    }

    /// Servers that may be added, in the order in which they are.
    pub fn reserved(&self) -> Vec<ReservedSvr> {
        Vec::new()
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> impl DoubleEndedIterator<Item = &Decision> + ExactSizeIterator {
        self.decisions.iter()
    }

    /// Names of all conferences, by name.
    pub fn conferences(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    pub fn conference(&self, _id: &str) -> Option<ConferenceView> {
        None
    }
}
