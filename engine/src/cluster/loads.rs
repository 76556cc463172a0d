//! Loads: this server's own, told to all; those of others, corrected by what was sent there since.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::{SvrLoad, SvrState};
use cfw::dist_conf::message::Element;

use super::Cluster;
use super::interface::LocalLoad;
use super::peers::{Peer, Reported};
use super::timers::Timer;

/// Above this share of max-load nobody is let in, whoever sent him.
pub const HARD_CAP: f64 = 1.2;

/// A report this old ranks after fresh ones.
const FRESH: Duration = Duration::from_secs(3);

/// A server whose report is this old gets nobody.
const STALE: Duration = Duration::from_secs(5);

/// How long it takes until somebody who was sent to a server shows in its report.
const SHOWS_AFTER: Duration = Duration::from_secs(3);

/// Loads are told at least this often, and at most that often.
const PUSH_EVERY: Duration = Duration::from_secs(1);
const PUSH_GAP: Duration = Duration::from_millis(200);

/// A change of this share of the load is told at once.
const PUSH_CHANGE: f64 = 0.1;

/// Whom we have sent to a server, until its reports can show it.
///
/// A report may show the newcomers or not yet, so the prediction is the higher of the report and of what
/// stood in the report when they were sent, with them on top.
#[derive(Clone, Debug, Default)]
pub(super) struct Predictions(VecDeque<Sent>);

#[derive(Clone, Copy, Debug)]
struct Sent {
    last: Instant,
    reported: u32,
    added: f64,
}

impl Predictions {
    pub(super) fn add(&mut self, now: Instant, reported: u32, load: f64) {
        match self.0.back_mut() {
            Some(sent) if sent.reported == reported => {
                sent.last = now;
                sent.added += load;
            }
            _ => self.0.push_back(Sent {
                last: now,
                reported,
                added: load,
            }),
        }
    }

    pub(super) fn on_report(&mut self, now: Instant) {
        self.0.retain(|sent| now < sent.last + SHOWS_AFTER);
    }

    pub(super) fn predict(&self, reported: u32) -> f64 {
        let mut added = 0.0;
        let levels = self.0.iter().rev().map(|sent| {
            added += sent.added;
            f64::from(sent.reported) + added
        });
        levels.fold(f64::from(reported), f64::max)
    }
}

/// This server's load.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    pub(super) measured: LocalLoad,
    /// Let in here by the rules and not here yet: until when each counts.
    granted: VecDeque<Instant>,
    /// New here since then, whoever let them in.
    joined: u32,
    pushed: Option<Pushed>,
    /// Load kept for rooms that expect participants, as it was told last.
    pub(super) kept: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pushed {
    at: Instant,
    current: u32,
    state: SvrState,
}

impl Own {
    pub(super) fn is_known(&self) -> bool {
        self.measured.max > 0
    }

    /// Load units of one participant. Never below one: what costs nothing would be let in without end.
    pub(super) fn per_participant(&self) -> f64 {
        self.measured.cost.max(1.0)
    }

    /// With those counted who have been let in since it was measured.
    pub(super) fn predicted(&self) -> f64 {
        let newcomers = self.granted.len() as f64 + f64::from(self.joined);
        f64::from(self.measured.current) + newcomers * self.per_participant()
    }

    /// As others see it: what is kept for those who are expected counts, which fills the server at most.
    fn told(&self) -> f64 {
        let (load, max) = (self.predicted(), f64::from(self.measured.max));
        load.max(max.min(load + f64::from(self.kept)))
    }

    pub(super) fn grant(&mut self, now: Instant) {
        self.grant_until(now + ON_ITS_WAY);
    }

    /// Somebody is to be called. His phone's name may have to be looked up first, and no shard counts him yet.
    pub(super) fn grant_call(&mut self, now: Instant) {
        self.grant_until(now + LOOKED_UP);
    }

    fn grant_until(&mut self, until: Instant) {
        if self.granted.len() < GRANTS_MAX {
            let place = self.granted.partition_point(|other| *other <= until);
            self.granted.insert(place, until);
        }
    }

    /// Somebody has been let in who is not here yet.
    pub(super) fn awaits_anybody(&self, now: Instant) -> bool {
        self.granted.iter().any(|until| now < *until)
    }

    fn measure(&mut self, now: Instant, load: LocalLoad) {
        self.measured = load;
        self.joined = 0;
        // Shards count whom they take; whom they have not heard of yet is not in the measurement.
        self.granted.retain(|until| now < *until);
    }

    /// Somebody is here, let in by the rules or by a shard itself: of those awaited the one who is due first.
    pub(super) fn join(&mut self) {
        self.granted.pop_front();
        self.joined = self.joined.saturating_add(1);
    }

    pub(super) fn leave(&mut self) {
        self.joined = self.joined.saturating_sub(1);
    }

    /// Whether one more can be taken that was sent here, and the cap still holds with him. Before the first
    /// measurement it is so.
    pub(super) fn is_below_cap(&self) -> bool {
        let cap = HARD_CAP * f64::from(self.measured.max);
        let with_him = self.predicted() + self.per_participant();
        !self.measured.capped && (!self.is_known() || with_him <= cap)
    }
}

/// How long an order takes at most to a shard.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// How long a name may take to be looked up: a resolver asks twice, 5 s each time.
const LOOKED_UP: Duration = Duration::from_secs(10);

/// Callers let in and not here yet that are counted.
const GRANTS_MAX: usize = 4_096;

/// A server that may get callers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) svr_id: SvrId,
    is_fresh: bool,
    /// Predicted load, as a share of its max-load.
    pub(super) share: f64,
}

impl Cluster {
    pub(super) fn on_load(&mut self, now: Instant, load: LocalLoad) {
        self.own.measure(now, load);
        self.ranks_changed = true;
        self.push_load(now, false);
    }

    /// As it stands in reports: full is a state only of who is active.
    fn wire_state(&self) -> SvrState {
        match self.state {
            SvrState::Active if self.own.measured.full => SvrState::Full,
            state => state,
        }
    }

    /// What is told of this server's load; None before it was measured.
    pub(super) fn own_report(&self) -> Option<SvrLoad> {
        let LocalLoad { max, min, hot, .. } = self.own.measured;
        self.own.is_known().then(|| SvrLoad {
            svr_id: self.config.svr_id,
            current: self.own.told() as u32,
            max_load: max,
            min_load: min.min(max - 1),
            state: self.wire_state(),
            hot: Some(hot.clamp(0.0, 1.0)),
        })
    }

    /// Tells the load if a second has passed or it is worth telling, though never too often.
    pub(super) fn push_load(&mut self, now: Instant, force: bool) {
        let Some(report) = self.own_report() else {
            return;
        };
        if let Some(last) = self.own.pushed {
            let is_due = now >= last.at + PUSH_EVERY;
            let change = f64::from(report.current.abs_diff(last.current));
            let has_changed = report.state != last.state
                || change > PUSH_CHANGE * f64::from(last.current.max(report.max_load / 10))
                || [report.max_load, report.min_load]
                    .iter()
                    .any(|limit| (report.current < *limit) != (last.current < *limit));
            if !(is_due || has_changed || force) {
                return;
            }
            if now < last.at + PUSH_GAP {
                self.timers.set(last.at + PUSH_GAP, Timer::Push);
                return;
            }
        }
        self.own.pushed = Some(Pushed {
            at: now,
            current: report.current,
            state: report.state,
        });
        self.broadcast_load(now, Element::Load(report));
    }

    /// Another server's report.
    pub(super) fn on_peer_load(&mut self, now: Instant, id: SvrId, load: SvrLoad) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.load = Some(Reported { load, at: now });
        peer.predictions.on_report(now);
        self.on_peer_state(now, id, load.state);
        self.ranks_changed = true;
    }

    /// Load that a server has by now, as far as we can tell; None if that is nothing to build on.
    pub(super) fn predicted(&self, now: Instant, id: SvrId) -> Option<f64> {
        let peer = self.peers.get(&id)?;
        let reported = peer.load.filter(|reported| now < reported.at + STALE)?;
        Some(peer.predictions.predict(reported.load.current))
    }

    /// The servers below `limit` of their max-load that may get callers, best first: fresh reports before
    /// older ones, then by share, then by svr-id.
    pub(super) fn candidates(&self, now: Instant, limit: f64) -> Vec<Candidate> {
        let candidate = |(&id, peer): (&SvrId, &Peer)| {
            let reported = peer.load?;
            let is_target = peer.is_serving() && peer.uri.is_some();
            let share = self.predicted(now, id)? / f64::from(reported.load.max_load);
            let is_open = reported.load.state != SvrState::Full || limit > 1.0;
            (is_target && is_open && share < limit).then_some(Candidate {
                svr_id: id,
                is_fresh: now < reported.at + FRESH,
                share,
            })
        };
        let mut candidates: Vec<Candidate> = self.peers.iter().filter_map(candidate).collect();
        candidates.sort_by(|a, b| {
            let by_freshness = b.is_fresh.cmp(&a.is_fresh);
            by_freshness
                .then(a.share.total_cmp(&b.share))
                .then(a.svr_id.cmp(&b.svr_id))
        });
        candidates
    }

    /// Somebody has been sent there.
    pub(super) fn predict(&mut self, now: Instant, id: SvrId, participants: u32) {
        let load = self.own.per_participant() * f64::from(participants);
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(reported) = peer.load
        {
            peer.predictions.add(now, reported.load.current, load);
        }
    }

    /// Predicted load and maximum of all that serve, this server with them.
    pub(super) fn total(&self, now: Instant) -> (f64, f64) {
        let (mut load, mut max) = (0.0, 0.0);
        if self.state == SvrState::Active && self.own.is_known() {
            load += self.own.told();
            max += f64::from(self.own.measured.max);
        }
        for (&id, peer) in &self.peers {
            if let Some(reported) = peer.load
                && let Some(predicted) = self.predicted(now, id)
                && peer.is_serving()
            {
                load += predicted;
                max += f64::from(reported.load.max_load);
            }
        }
        (load, max)
    }
}
