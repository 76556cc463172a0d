//! What the experiment came to: raw results, what follows from them, and a table.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::delays::median;
use super::plan::Series;
use super::quota::Quota;

mod compare;
mod table;

pub(crate) use compare::{Compared, Comparison, Gain, Side};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Central,
    Service,
}

/// Delays while users join, which is a rush.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Delay {
    pub(crate) mean_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) count: u64,
}

impl Delay {
    /// None when there is nothing to tell.
    pub(crate) fn of(delays_us: &Histogram<u64>) -> Option<Self> {
        (!delays_us.is_empty()).then(|| Self {
            mean_ms: delays_us.mean() / 1e3,
            p99_ms: delays_us.value_at_quantile(0.99) as f64 / 1e3,
            count: delays_us.len(),
        })
    }
}

/// Delays while nothing changes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Typical {
    /// The median of the seconds' means, so that one stall of the machine is not everybody's delay. What
    /// never came is in no mean: see the counts beside it.
    pub(crate) median_second_ms: f64,
    /// Of all of them.
    pub(crate) p99_ms: f64,
    pub(crate) count: u64,
}

impl Typical {
    /// The median round, and the delays of all of them counted.
    fn over(rounds: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let of = |value: fn(Self) -> f64| median(rounds.clone().map(value).collect());
        Some(Self {
            median_second_ms: of(|delay| delay.median_second_ms)?,
            p99_ms: of(|delay| delay.p99_ms)?,
            count: rounds.map(|delay| delay.count).sum(),
        })
    }
}

/// One server during one step.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerRow {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) load: u32,
    pub(crate) participants: u64,
    /// CPU seconds per second.
    pub(crate) cpu: f64,
    pub(crate) cpu_of_quota: f64,
    /// Part of its periods in which it was stopped.
    pub(crate) throttled: f64,
}

/// One step of one arm. Counts of redirects and the like are since the arm began.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) users: usize,
    /// Of them, in their conference.
    pub(crate) up: usize,
    /// OPTIONS within calls.
    pub(crate) sip: Option<Typical>,
    /// INVITEs while this step's users joined, each to its final answer.
    pub(crate) invite: Option<Delay>,
    /// From first INVITE to 200, redirects followed.
    pub(crate) join: Option<Delay>,
    /// From talker to listener, wherever they are.
    pub(crate) media: Option<Typical>,
    /// On the same server.
    pub(crate) near: Option<Typical>,
    /// On different ones.
    pub(crate) far: Option<Typical>,
    /// Packets that callers got, and those of a whole stream to each.
    pub(crate) packets_received: u64,
    pub(crate) packets_expected: u64,
    /// Gaps in their sequence numbers: what a server leaves out has no number and is no gap.
    pub(crate) packets_lost: u64,
    /// Times a caller got nothing for 100 ms.
    pub(crate) starved: u64,
    /// Bursts that listeners would have got, had none been lost; those they got are the count of
    /// `media`.
    pub(crate) bursts_expected: u64,
    /// Packets in which a talker heard himself.
    pub(crate) echoes: u64,
    /// Of the talker who had most of them.
    pub(crate) echoes_max: u64,
    /// OPTIONS that fell due while measuring, and those that failed meanwhile: another answer than 2xx, or
    /// none for the 32 s that a transaction lasts.
    pub(crate) options_sent: u64,
    pub(crate) options_failed: u64,
    /// Not answered at the end.
    pub(crate) unanswered: usize,
    pub(crate) redirects: u64,
    pub(crate) refusals: u64,
    pub(crate) given_up: usize,
    pub(crate) hung_up: usize,
    /// CPU seconds per second.
    pub(crate) generator_cpu: f64,
    /// Longest time in which it neither sent nor received.
    pub(crate) generator_gap_ms: f64,
    pub(crate) servers: Vec<ServerRow>,
}

impl Row {
    /// Share of the packets that callers should have got.
    pub(crate) fn missing(&self) -> f64 {
        // A packet may fall on either side of each end of the measurement.
        let got = self.packets_received + 2 * self.up as u64;
        let missing = self.packets_expected.saturating_sub(got);
        missing.max(self.packets_lost) as f64 / self.packets_expected.max(1) as f64
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms =
            |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |delay| format!("{delay:.1} ms"));
        write!(
            f,
            "-- {} users, {} up: SIP {}, INVITE {}, media {}, {:.2} % missing; {} redirects;",
            self.users,
            self.up,
            ms(self.sip.map(|delay| delay.median_second_ms)),
            ms(self.invite.map(|delay| delay.mean_ms)),
            ms(self.media.map(|delay| delay.median_second_ms)),
            self.missing() * 1e2,
            self.redirects
        )?;
        for server in &self.servers {
            write!(
                f,
                " {} {} at {:.0} %",
                server.name,
                server.participants,
                server.cpu_of_quota * 1e2
            )?;
        }
        Ok(())
    }
}

/// One variant once, all its steps.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Arm {
    pub(crate) variant: Variant,
    pub(crate) round: u32,
    pub(crate) rows: Vec<Row>,
}

/// A series, each variant as often as there were rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) series: Series,
    pub(crate) quota: Option<Quota>,
    /// In the order in which they were run.
    pub(crate) arms: Vec<Arm>,
}

impl Outcome {
    /// What every round had with so many users.
    fn rows(&self, variant: Variant, users: usize) -> impl Iterator<Item = &Row> + Clone {
        let arms = self.arms.iter().filter(move |arm| arm.variant == variant);
        let rows = arms.flat_map(|arm| &arm.rows);
        rows.filter(move |row| row.users == users)
    }

    /// The service let everybody in who called, in every step. The central server decides nothing: to show
    /// where it ends is what it is for.
    fn holds(&self) -> bool {
        let service = self
            .arms
            .iter()
            .filter(|arm| arm.variant == Variant::Service);
        let mut rows = service.flat_map(|arm| &arm.rows);
        rows.all(|row| row.up == row.users)
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// How servers were held to their quotas, or why they were not.
    pub(crate) held_by: String,
    pub(crate) packets_per_s: u32,
    pub(crate) room_size: usize,
    pub(crate) talkers: usize,
    pub(crate) options_every_ms: u64,
    pub(crate) seconds_per_step: u64,
    pub(crate) rounds: u32,
    pub(crate) outcomes: Vec<Outcome>,
    /// What follows from the outcomes, in their order.
    pub(crate) compared: Vec<Compared>,
    /// Where this is not the paper's experiment.
    pub(crate) differences: Vec<String>,
    pub(crate) figures: Vec<String>,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        !self.outcomes.is_empty() && self.outcomes.iter().all(Outcome::holds)
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and names always have a JSON form")
    }
}

#[cfg(test)]
pub(super) mod tests;
