//! What was measured, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::echo::{Echoed, Scene};
use super::{Kind, PACKETS_PER_SECOND};

/// One way on so many sockets.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    way: Kind,
    sockets: usize,
    callers: usize,
    /// CPU time for a packet in and a packet out, the median of the runs and their range.
    pub(super) pair_ns: f64,
    pair_ns_min: f64,
    pair_ns_max: f64,
    pairs_per_cpu_second: f64,
    participants_per_core: f64,
    /// Share of the packets that did not come back, in the worst run.
    lost: f64,
    echo_cpu: f64,
    callers_cpu: f64,
}

/// Above this share of its core the echo had no time to spare.
const FULL: f64 = 0.95;

/// And the callers, whose turns have to begin in time, some way before that.
const CALLERS_FULL: f64 = 0.9;

impl Row {
    pub(crate) fn participants_per_core(&self) -> f64 {
        self.participants_per_core
    }

    pub(super) fn new(way: Kind, scene: &Scene, runs: &[Echoed]) -> Self {
        let mut pairs: Vec<f64> = runs.iter().map(Echoed::pair_ns).collect();
        pairs.sort_unstable_by(f64::total_cmp);
        let pair_ns = pairs[pairs.len() / 2];
        let most = |of: fn(&Echoed) -> f64| runs.iter().map(of).fold(0.0, f64::max);
        Self {
            way,
            sockets: scene.sockets,
            callers: scene.callers,
            pair_ns,
            pair_ns_min: pairs[0],
            pair_ns_max: pairs[pairs.len() - 1],
            pairs_per_cpu_second: 1e9 / pair_ns,
            participants_per_core: 1e9 / pair_ns / PACKETS_PER_SECOND as f64,
            lost: most(Echoed::lost),
            echo_cpu: most(|run| run.echo_cpu),
            callers_cpu: most(|run| run.callers_cpu),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(super) rows: Vec<Row>,
    /// Ways that this kernel does not offer, and why.
    pub(super) missing: Vec<(&'static str, String)>,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        !self.rows.is_empty()
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and names always have a JSON form")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:12} {:6} sockets  {:5.0} ns a pair ({:.0} to {:.0})  {:7.0} pairs/s  {:6.0} participants  {:.3} % lost",
            self.way.name(),
            self.sockets,
            self.pair_ns,
            self.pair_ns_min,
            self.pair_ns_max,
            self.pairs_per_cpu_second,
            self.participants_per_core,
            self.lost * 1e2,
        )?;
        if self.echo_cpu > FULL {
            write!(f, "  (the core was full)")?;
        }
        if self.callers_cpu > CALLERS_FULL {
            write!(f, "  (the callers' core was full)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = self.rows.iter().map(Row::to_string).collect();
        let missing = self.missing.iter();
        lines.extend(missing.map(|(way, reason)| format!("{way:12} not to be had: {reason}")));
        f.write_str(&lines.join("\n"))
    }
}
