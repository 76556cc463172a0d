//! How late a Plenum's ticks were, from its own `/metrics`.

use std::time::Duration;

use ureq::Agent;

const METRIC: &str = "plenum_tick_lateness_seconds_bucket{";

/// The histogram at one moment: how many ticks were at most so late (seconds, rising; infinity last),
/// all cores together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lateness(Vec<(f64, u64)>);

impl Lateness {
    /// # Errors
    /// Nobody answers at `http` (`host:port`), or not with this histogram.
    pub(crate) fn fetch(http: &str) -> Result<Self, String> {
        let url = format!("http://{http}/metrics");
        let failed = |error: ureq::Error| format!("{url}: {error}");
        let agent: Agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let text = agent
            .get(&url)
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_string())
            .map_err(failed)?;
        Self::parse(&text).ok_or_else(|| format!("{url} tells no tick lateness"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut counts: Vec<(f64, u64)> = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(METRIC)) {
            let (labels, count) = line.split_once("} ")?;
            let (_, bound) = labels.split_once("le=\"")?;
            let bound = match bound.split('"').next()? {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            let count: u64 = count.trim().parse().ok()?;
            match counts.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => counts.push((bound, count)),
            }
        }
        counts.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        (!counts.is_empty()).then_some(Self(counts))
    }

    /// The bucket's end, in milliseconds, that `fraction` of the ticks since `earlier` did not exceed.
    pub(crate) fn quantile_ms(&self, earlier: &Self, fraction: f64) -> f64 {
        let since = |index: usize| {
            let (_, count) = self.0[index];
            count.saturating_sub(earlier.0.get(index).map_or(0, |&(_, count)| count))
        };
        let all = since(self.0.len() - 1) as f64;
        (0..self.0.len())
            .find(|&index| since(index) as f64 >= all * fraction)
            .map_or(f64::INFINITY, |index| self.0[index].0 * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP plenum_tick_lateness_seconds How long after their time the ticks began.
plenum_tick_lateness_seconds_sum{core="0"} 0.1
plenum_tick_lateness_seconds_bucket{core="0",le="0.001"} 90
plenum_tick_lateness_seconds_bucket{core="0",le="0.002"} 99
plenum_tick_lateness_seconds_bucket{core="0",le="+Inf"} 100
plenum_tick_lateness_seconds_bucket{core="1",le="0.001"} 90
plenum_tick_lateness_seconds_bucket{core="1",le="0.002"} 100
plenum_tick_lateness_seconds_bucket{core="1",le="+Inf"} 100
"#;

    #[test]
    fn quantiles_of_a_window_over_all_cores() {
        let now = Lateness::parse(PAGE).unwrap();
        let never = Lateness(vec![(0.001, 0), (0.002, 0), (f64::INFINITY, 0)]);
        assert_eq!(now.quantile_ms(&never, 0.5), 1.0);
        assert_eq!(now.quantile_ms(&never, 0.99), 2.0);
        assert_eq!(now.quantile_ms(&never, 0.999), f64::INFINITY);
        let earlier = Lateness(vec![(0.001, 170), (0.002, 180), (f64::INFINITY, 180)]);
        assert_eq!(now.quantile_ms(&earlier, 0.5), 1.0);
        assert_eq!(now.quantile_ms(&earlier, 0.6), 2.0);
    }

    #[test]
    fn pages_without_the_histogram_are_told_apart() {
        assert_eq!(Lateness::parse("plenum_turns_total 5\n"), None);
        assert_eq!(
            Lateness::parse("plenum_tick_lateness_seconds_bucket{le=\"x\"} 5\n"),
            None
        );
    }
}
