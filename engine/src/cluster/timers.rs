//! What is due when.

use std::collections::BTreeSet;
use std::time::Instant;

use cfw::SvrId;

use super::interface::ChannelId;

/// What is looked after at a moment. Each looks first whether there still is something to do, so nothing
/// is ever taken back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Each second: what need not be exact.
    Beat,
    /// Changes of rosters are told.
    Flush,
    /// The load is told that could not be told at once.
    Push,
    /// This URI may be dialled.
    Dial(String),
    /// This channel should be up by now.
    DialLate(ChannelId),
    /// This server may be dead.
    Judge(SvrId),
    /// The first of the callers who wait has waited long enough.
    Hold,
    /// The server that is being added should be here by now.
    Claim,
    /// A trunk of this conference may be tried again.
    Trunk(String),
    /// The next users are moved to other servers.
    Move,
    /// The next users of dead servers are called.
    Recall,
    /// Peers are told whom this server sees.
    Systems,
    /// This server may be asked again for what is missing of it.
    Query(SvrId),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// The first that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let is_due = self.next().is_some_and(|at| at <= now);
        is_due.then(|| self.0.pop_first().map(|(_, timer)| timer))?
    }
}
