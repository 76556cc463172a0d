//! What a simulation counts, and what it says of itself.

use std::collections::BTreeMap;
use std::fmt;

use super::again::AGAIN;
use super::clock::{SECOND, Time};

/// Names of what is counted, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Count {
    Calls,
    Redirects,
    Joins,
    HungUpOn,
    GivenUp,
    Refusals,
    Timeouts,
    CallsBack,
    Moves,
    SilentCalls,
    Drains,
    Additions,
    Hooks,
    Crashes,
    Restarts,
    Freezes,
    Partitions,
    StreamCuts,
    SlowPeers,
    Garbage,
    CallerCuts,
    SkewedClocks,
    DatagramsLost,
    DatagramsDoubled,
}

impl Count {
    fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls placed",
            Self::Redirects => "redirects followed",
            Self::Joins => "calls up",
            Self::HungUpOn => "calls that servers ended",
            Self::GivenUp => "callers who gave up",
            Self::Refusals => "refusals",
            Self::Timeouts => "calls nobody answered",
            Self::CallsBack => "callers called back",
            Self::Moves => "callers moved",
            Self::SilentCalls => "callers who hung up in silence",
            Self::Drains => "drains",
            Self::Additions => "servers added",
            Self::Hooks => "programs run that start or stop a server",
            Self::Crashes => "servers killed",
            Self::Restarts => "servers started again",
            Self::Freezes => "servers stopped for a while",
            Self::Partitions => "partitions",
            Self::StreamCuts => "streams cut",
            Self::SlowPeers => "slow peers",
            Self::Garbage => "garbage from strangers",
            Self::CallerCuts => "callers cut off",
            Self::SkewedClocks => "clocks that run wrong",
            Self::DatagramsLost => "datagrams lost",
            Self::DatagramsDoubled => "datagrams doubled",
        }
    }
}

/// Everything that was counted, over any number of seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    counts: BTreeMap<Count, u64>,
    /// How often each invariant was checked.
    pub(super) checks: BTreeMap<&'static str, u64>,
    pub(super) seeds: u64,
    pub(super) virtual_time: Time,
    /// Longest time from the last fault until each of what has to be again was so.
    pub(super) slowest: [Time; AGAIN.len()],
}

impl Counts {
    pub(super) fn add(&mut self, count: Count, times: u64) {
        *self.counts.entry(count).or_default() += times;
    }

    pub(super) fn get(&self, count: Count) -> u64 {
        self.counts.get(&count).copied().unwrap_or(0)
    }

    pub(super) fn held(&mut self, invariant: &'static str, times: u64) {
        *self.checks.entry(invariant).or_default() += times;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, times) in &other.counts {
            self.add(*count, *times);
        }
        for (invariant, times) in &other.checks {
            self.held(invariant, *times);
        }
        self.seeds += other.seeds;
        self.virtual_time += other.virtual_time;
        for (slowest, other) in self.slowest.iter_mut().zip(other.slowest) {
            *slowest = other.max(*slowest);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_time as f64 / (3_600 * SECOND) as f64;
        writeln!(f, "{:>10} seeds", self.seeds)?;
        writeln!(f, "{hours:>10.1} virtual hours")?;
        for (count, times) in &self.counts {
            writeln!(f, "{times:>10} {}", count.name())?;
        }
        for ((what, _), slowest) in AGAIN.iter().zip(self.slowest) {
            let slowest = slowest as f64 / SECOND as f64;
            writeln!(f, "{slowest:>10.1} s at most after the last fault: {what}")?;
        }
        writeln!(f, "invariants, and how often each was checked:")?;
        for (invariant, times) in &self.checks {
            writeln!(f, "{times:>10} {invariant}")?;
        }
        Ok(())
    }
}

/// One simulation's end.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) counts: Counts,
    /// What must never be and was, with its time.
    pub(super) violations: Vec<String>,
    /// The last things that happened, if they were to be kept.
    pub(super) trace: Vec<String>,
    /// A hash of everything that happened, by which two runs of one seed are told to be the same.
    pub(super) digest: u64,
}
