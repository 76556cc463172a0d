//! Many servers, one conference service: the rules of one server, as a pure state machine.
//!
//! ```text
//!   load, channels, peers' requests, shards' reports, operator ──> Cluster::handle
//!   Cluster::poll_output ──> dial, send, respond, orders to shards, state, hooks, decisions
//! ```
//! Nothing here does I/O or reads a clock. With the same seed and the same inputs at the same times the same
//! outputs come out, so that many servers can be run in one thread with virtual time.
//!
//! - Who is there: `peers` (alive, suspect, dead), `mesh` (a channel with each), `exchange` (messages and
//!   their order), `snapshot`.
//! - Where callers go: `loads` (reports and predictions), `placement`, `reserve` (servers that are added),
//!   `drain` (servers that give their users away).
//! - Who is in which conference: `roster` (the facts), `sharing` (who is told of them), `ending` (who has
//!   gone, and who adopts), `operations` (locks, mutes, ends), `trunks` (whose sound goes where), `recall`
//!   (users of dead servers).
//! - Why: `decisions`.
//!
//! Memory is bounded: 256 servers, 1,024 channels with 1,000 unanswered requests each, 262,144 conferences with
//! a million users of others, 256 callers held, 65,536 users waiting to be called, 1,000 decisions.

pub mod agent;
mod answers;
mod decisions;
mod drain;
mod ending;
mod exchange;
pub mod hub;
mod interface;
mod loads;
mod members;
mod mesh;
mod operations;
mod peers;
mod placement;
mod recall;
mod reserve;
mod roster;
mod sharing;
mod snapshot;
#[cfg(test)]
mod tests;
mod timers;
mod trunks;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;

pub use decisions::{DECISIONS_MAX, Decision, Seen, What};
pub use interface::{
    ChannelId, ConferenceView, Config, Hook, Input, Life, LocalLoad, Lost, Output, RequestId,
    ServerView, Wanted,
};
pub use loads::HARD_CAP;

use crate::focus::liaison::{Report, Wish};
use crate::random::Random;
use answers::Asker;
use timers::{Timer, Timers};

/// A channel takes no longer to come up: 2 s for the INVITE, 1 s for TCP and SYNC.
pub const DIAL_BUDGET: Duration = Duration::from_secs(3);

/// What is looked after regularly.
const BEAT: Duration = Duration::from_secs(1);

/// When many servers come or go at once, peers are told of all together.
const SYSTEMS_AFTER: Duration = Duration::from_millis(50);

/// Nothing is done for so long only when the whole process was stopped.
const STALL: Duration = Duration::from_millis(2_500);

/// The rules of one server. Give it what happens by [`handle`](Self::handle), call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says so, and after
/// either do everything that [`poll_output`](Self::poll_output) gives.
#[derive(Debug)]
pub struct Cluster {
    config: Config,
    /// Of this life of the server; later lives have higher ones.
    epoch: u64,
    random: Random,
    started: Instant,
    /// When anything was done last.
    last: Instant,
    state: SvrState,
    own: loads::Own,
    peers: BTreeMap<SvrId, peers::Peer>,
    addresses: BTreeMap<String, mesh::Address>,
    links: BTreeMap<ChannelId, mesh::Link>,
    next_channel: u32,
    deferred: BTreeMap<u64, answers::Deferred>,
    next_deferred: u64,
    reserve: reserve::Reserve,
    drain: drain::Drain,
    holds: placement::Holds,
    /// Participants expected in rooms, and until when.
    expected: BTreeMap<String, (u32, Instant)>,
    rosters: roster::Rosters,
    changes: sharing::Changes,
    recall: recall::Recall,
    /// Conferences whose trunks may have to change.
    touched: BTreeSet<String>,
    /// Peers are to be told whom this server sees.
    systems_changed: bool,
    /// They soon are.
    systems_due: bool,
    /// Who can take callers may have changed.
    ranks_changed: bool,
    timers: Timers,
    outputs: VecDeque<Output>,
    decisions: decisions::Decisions,
}

impl Cluster {
    /// `epoch` is higher in every later life of the server, such as the time of its start; above 0.
    pub fn new(config: Config, epoch: u64, seed: u64, now: Instant) -> Self {
        let state = match config.standby {
            true => SvrState::Standby,
            false => SvrState::Active,
        };
        let mut cluster = Self {
            epoch,
            random: Random::new(seed),
            started: now,
            last: now,
            state,
            own: loads::Own::default(),
            peers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            links: BTreeMap::new(),
            next_channel: 0,
            deferred: BTreeMap::new(),
            next_deferred: 0,
            reserve: reserve::Reserve::new(&config),
            drain: drain::Drain::new(now),
            holds: placement::Holds::new(),
            expected: BTreeMap::new(),
            rosters: roster::Rosters::default(),
            changes: sharing::Changes::default(),
            recall: recall::Recall::default(),
            touched: BTreeSet::new(),
            systems_changed: false,
            systems_due: false,
            ranks_changed: false,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            decisions: decisions::Decisions::default(),
            config,
        };
        for uri in cluster.config.peers.clone() {
            cluster.learn(now, &uri, None, true);
        }
        if state == SvrState::Standby {
            cluster.list_self(now);
        }
        cluster.timers.set(now + BEAT, Timer::Beat);
        cluster
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        self.wake(now);
        match input {
            Input::Load(load) => self.on_load(now, load),
            Input::ChannelUp { channel, svr_id } => self.on_channel_up(now, channel, svr_id),
            Input::ChannelDown { channel, why } => self.on_channel_down(now, channel, why),
            Input::Request {
                channel,
                id,
                request,
            } => self.on_request(now, channel, id, request),
            Input::Response {
                channel,
                id,
                result,
            } => self.on_response(now, channel, id, result),
            Input::Report { shard, report } => self.on_report(now, shard, report),
            Input::Operator { id, wanted } => self.on_wanted(now, id, wanted),
            Input::HookDone {
                hook,
                svr_id,
                result,
            } => self.on_hook(now, hook, svr_id, result),
        }
        self.settle(now);
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Beat => self.beat(now),
                Timer::Flush => self.flush(now),
                Timer::Push => self.push_load(now, true),
                Timer::Dial(uri) => self.dial(now, &uri),
                Timer::DialLate(channel) => self.on_dial_late(now, channel),
                Timer::Judge(id) => self.judge(now, id),
                Timer::Hold => self.place_holds(now, false),
                Timer::Claim => self.on_claim_late(now),
                Timer::Trunk(room) => {
                    self.touched.insert(room);
                }
                Timer::Move => self.pace_moves(now),
                Timer::Recall => self.pace_recalls(now),
                Timer::Query(id) => self.query_again(now, id),
                Timer::Systems => {
                    self.systems_due = false;
                    self.tell_systems(now);
                }
            }
        }
        self.settle(now);
    }

    fn on_report(&mut self, now: Instant, shard: usize, report: Report) {
        match report {
            Report::Asked { call, asked } => self.on_asked(now, shard, call, asked),
            Report::Withdrawn { call } => self.on_withdrawn(shard, call),
            Report::Refused {
                room,
                from,
                status,
                why,
                others,
            } => self.on_refused(now, room.as_str(), &from, status, why, others),
            Report::User { room, user } => self.on_user(now, shard, &room, *user),
            Report::UserGone { room, endpoint } => {
                self.on_user_gone(now, room.as_str(), &endpoint);
            }
            Report::Watched { room, watched } => {
                self.on_watched(now, shard, room.as_str(), watched);
            }
            Report::Done {
                room,
                svr_id,
                endpoint,
                status,
            } => {
                let room = room.as_str();
                if !self.on_taken_over(now, room, svr_id, &endpoint, status) {
                    self.on_moved(now, room, &endpoint, status);
                }
            }
            Report::Trunk { room, peer, up } => {
                self.on_trunk(now, shard, room.as_str(), peer, up);
            }
            Report::Wanted {
                room,
                endpoint,
                entity,
                what,
            } => self.on_user_wanted(now, room.as_str(), &entity, endpoint.as_deref(), &what),
        }
    }

    fn on_user_wanted(
        &mut self,
        now: Instant,
        room: &str,
        entity: &str,
        endpoint: Option<&str>,
        what: &Wish,
    ) {
        self.wish(now, room, entity, endpoint, what, Asker::Nobody);
    }

    /// Sees to it that a stop of the whole process is not taken for the others' silence.
    fn wake(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.last);
        if idle > STALL {
            self.excuse(idle);
            self.drain.excuse(idle);
        }
        self.last = self.last.max(now);
    }

    fn beat(&mut self, now: Instant) {
        self.timers.set(now + BEAT, Timer::Beat);
        self.push_load(now, false);
        self.check_links(now);
        self.check_peers(now);
        self.tidy_reserve(now);
        self.adopt_orphans(now);
        self.check_trunks(now);
        self.consider_growing(now);
        self.consider_draining(now);
        self.tidy_rosters(now);
        self.expire_deferred(now);
        self.expire_recalls(now);
    }

    /// What follows from anything that has happened.
    fn settle(&mut self, now: Instant) {
        if !self.touched.is_empty() || self.ranks_changed {
            self.settle_kept(now);
        }
        for room in std::mem::take(&mut self.touched) {
            self.settle_trunks(now, &room);
            self.settle_closed(&room);
        }
        if std::mem::take(&mut self.systems_changed) && !self.systems_due {
            self.systems_due = true;
            self.timers.set(now + SYSTEMS_AFTER, Timer::Systems);
        }
        if std::mem::take(&mut self.ranks_changed) {
            self.place_holds(now, false);
        }
    }
}
