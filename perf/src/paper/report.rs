//! What the experiment came to: raw results, a table, and where its setting is not the paper's.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::{Published, Series};
use super::quota::Quota;

/// Beyond this the machine was busy with something else, and delays are its own.
const GENERATOR_GAP_MS_MAX: f64 = 25.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Central,
    Service,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Delay {
    /// Where it was measured second by second: the median of the seconds' means.
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
    pub(crate) sip: Option<Delay>,
    /// INVITEs while this step's users joined, each to its final answer.
    pub(crate) invite: Option<Delay>,
    /// From first INVITE to 200, redirects followed.
    pub(crate) join: Option<Delay>,
    /// From talker to listener, wherever they are.
    pub(crate) media: Option<Delay>,
    /// On the same server.
    pub(crate) near: Option<Delay>,
    /// On different ones.
    pub(crate) far: Option<Delay>,
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
    fn sip_ms(&self) -> Option<f64> {
        self.sip.map(|delay| delay.mean_ms)
    }

    /// Share of the packets that callers should have got.
    pub(crate) fn missing(&self) -> f64 {
        // A packet may fall on either side of each end of the measurement.
        let got = self.packets_received + 2 * self.up as u64;
        let missing = self.packets_expected.saturating_sub(got);
        missing.max(self.packets_lost) as f64 / self.packets_expected.max(1) as f64
    }

    fn media_ms(&self) -> Option<f64> {
        self.media.map(|delay| delay.mean_ms)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |delay: Option<Delay>| {
            delay.map_or_else(
                || "-".to_owned(),
                |delay| format!("{:.1} ms", delay.mean_ms),
            )
        };
        write!(
            f,
            "-- {} users, {} up: SIP {}, INVITE {}, media {}, {:.2} % missing; {} redirects;",
            self.users,
            self.up,
            ms(self.sip),
            ms(self.invite),
            ms(self.media),
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

/// One variant, all its steps.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Arm {
    pub(crate) variant: Variant,
    pub(crate) rows: Vec<Row>,
}

/// A series, both arms where both were run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) series: Series,
    pub(crate) quota: Option<Quota>,
    pub(crate) arms: Vec<Arm>,
}

/// One number of users, the two arms side by side.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) users: usize,
    pub(crate) sip_central_ms: Option<f64>,
    pub(crate) sip_service_ms: Option<f64>,
    /// In percent of the central server's delay.
    pub(crate) sip_improvement: Option<f64>,
    pub(crate) media_central_ms: Option<f64>,
    pub(crate) media_service_ms: Option<f64>,
    pub(crate) media_improvement: Option<f64>,
    pub(crate) published: Option<Published>,
}

impl Outcome {
    pub(crate) fn arm(&self, variant: Variant) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.variant == variant)
    }

    pub(crate) fn comparisons(&self) -> Vec<Comparison> {
        let row = |variant, users| {
            let arm = self.arm(variant)?;
            arm.rows.iter().find(|row| row.users == users)
        };
        let of = |users| {
            let (central, service) = (row(Variant::Central, users), row(Variant::Service, users));
            let (sip_central_ms, sip_service_ms) =
                (central.and_then(Row::sip_ms), service.and_then(Row::sip_ms));
            let (media_central_ms, media_service_ms) = (
                central.and_then(Row::media_ms),
                service.and_then(Row::media_ms),
            );
            Comparison {
                users,
                sip_central_ms,
                sip_service_ms,
                sip_improvement: improvement(sip_central_ms, sip_service_ms),
                media_central_ms,
                media_service_ms,
                media_improvement: improvement(media_central_ms, media_service_ms),
                published: self.series.published_at(users),
            }
        };
        self.series.steps.iter().map(|&users| of(users)).collect()
    }

    /// Everybody who called is in, in every step that was made.
    fn holds(&self) -> bool {
        let mut rows = self.arms.iter().flat_map(|arm| &arm.rows);
        rows.all(|row| row.up == row.users)
    }
}

fn improvement(central_ms: Option<f64>, service_ms: Option<f64>) -> Option<f64> {
    let (central, service) = (central_ms?, service_ms?);
    (central > 0.0).then(|| (central - service) / central * 1e2)
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
    pub(crate) outcomes: Vec<Outcome>,
    /// The comparisons of `outcomes`, in their order.
    pub(crate) comparisons: Vec<Vec<Comparison>>,
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in &self.outcomes {
            let series = &outcome.series;
            write!(f, "max-load {}", series.max_load)?;
            match outcome.quota {
                Some(quota) => writeln!(f, ", every server has {quota}")?,
                None => writeln!(f, ", servers share a processor without quotas")?,
            }
            writeln!(
                f,
                "          SIP delay, ms              improvement, %   media delay, ms            improvement, %"
            )?;
            writeln!(
                f,
                "  users   central  service  servers  here  published  central  service  (other)  here  published"
            )?;
            for comparison in outcome.comparisons() {
                writeln!(f, "{}", line(outcome, &comparison))?;
            }
            flatness(f, outcome)?;
            trouble(f, outcome)?;
            writeln!(f)?;
        }
        writeln!(f, "Servers: {}.", self.held_by)?;
        writeln!(f, "Where this is not the paper's experiment:")?;
        for difference in &self.differences {
            writeln!(f, "- {difference}")?;
        }
        for figure in &self.figures {
            writeln!(f, "wrote {figure}")?;
        }
        Ok(())
    }
}

fn line(outcome: &Outcome, comparison: &Comparison) -> String {
    let number = |number: Option<f64>| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"))
    };
    let published = comparison.published;
    let service = outcome.arm(Variant::Service).and_then(|arm| {
        let mut rows = arm.rows.iter();
        rows.find(|row| row.users == comparison.users)
    });
    let servers = service.map(|row| {
        let filled = row.servers.iter().filter(|server| server.participants > 0);
        filled.count().to_string()
    });
    let far = service.and_then(|row| row.far).map(|delay| delay.mean_ms);
    format!(
        "  {:>5}  {:>8} {:>8} {:>8} {:>5} {:>10} {:>8} {:>8} {:>8} {:>5} {:>10}",
        comparison.users,
        number(comparison.sip_central_ms),
        number(comparison.sip_service_ms),
        servers.unwrap_or_else(|| "-".to_owned()),
        number(comparison.sip_improvement),
        number(published.and_then(|published| published.sip)),
        number(comparison.media_central_ms),
        number(comparison.media_service_ms),
        number(far),
        number(comparison.media_improvement),
        number(published.and_then(|published| published.media)),
    )
}

/// How the service's delays at the last step compare with those of its first server alone.
fn flatness(f: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    let rows = outcome.arm(Variant::Service).map(|arm| &arm.rows);
    let ends = rows.and_then(|rows| Some((rows.first()?, rows.last()?)));
    let Some((first, last)) = ends.filter(|(first, last)| first.users < last.users) else {
        return Ok(());
    };
    let times = |first: Option<f64>, last: Option<f64>| {
        let times = first.zip(last).map(|(first, last)| last / first);
        times.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}"))
    };
    writeln!(
        f,
        "  the service's delays at {} users are those at {} times {} (SIP) and {} (media, on one server {})",
        last.users,
        first.users,
        times(first.sip_ms(), last.sip_ms()),
        times(first.media_ms(), last.media_ms()),
        times(
            first.near.map(|delay| delay.mean_ms),
            last.near.map(|delay| delay.mean_ms)
        ),
    )
}

/// Who did not get in, what was lost, and what the servers and the generator were short of.
fn trouble(f: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    for arm in &outcome.arms {
        for row in &arm.rows {
            let mut said = Vec::new();
            if row.up != row.users {
                said.push(format!("{} of {} users are in", row.up, row.users));
            }
            if row.missing() > 0.001 {
                said.push(format!(
                    "{:.1} % of the packets are missing",
                    row.missing() * 1e2
                ));
            }
            if row.starved > 0 {
                said.push(format!(
                    "{} times a caller got nothing for 100 ms",
                    row.starved
                ));
            }
            let bursts = row.media.map_or(0, |delay| delay.count);
            if (bursts as f64) < 0.95 * row.bursts_expected as f64 {
                said.push(format!(
                    "media: {bursts} of {} bursts got through",
                    row.bursts_expected
                ));
            }
            if row.echoes > 0 {
                said.push(format!(
                    "talkers hear themselves in {} packets, {} of one",
                    row.echoes, row.echoes_max
                ));
            }
            if row.options_failed > 0 {
                said.push(format!("{} OPTIONS failed", row.options_failed));
            }
            if row.unanswered > 0 {
                said.push(format!("{} OPTIONS not answered yet", row.unanswered));
            }
            if row.generator_cpu > 0.85 {
                let cpu = row.generator_cpu * 1e2;
                said.push(format!("the callers' processor is {cpu:.0} % busy"));
            }
            if row.generator_gap_ms > GENERATOR_GAP_MS_MAX {
                said.push(format!(
                    "the callers had no processor for {:.0} ms: other programs are in the way",
                    row.generator_gap_ms
                ));
            }
            let stopped: Vec<String> = row
                .servers
                .iter()
                .filter(|server| server.throttled > 0.05)
                .map(|server| {
                    format!(
                        "{} is stopped in {:.0} % of its periods",
                        server.name,
                        server.throttled * 1e2
                    )
                })
                .collect();
            said.extend(stopped);
            if !said.is_empty() {
                let variant = match arm.variant {
                    Variant::Central => "central",
                    Variant::Service => "service",
                };
                writeln!(f, "  {variant} at {}: {}", row.users, said.join("; "))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
