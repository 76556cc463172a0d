//! Delays as they are collected, and what is said of them.

use std::time::Instant;

use hdrhistogram::Histogram;

use super::report::Typical;

/// Delays of SIP messages, in microseconds.
pub(super) struct Delays {
    /// OPTIONS within calls that are up, to their 2xx.
    pub(super) options: Histogram<u64>,
    /// Each INVITE to its 200 or 302.
    pub(super) invite: Histogram<u64>,
    /// From a caller's first INVITE to his 200, wherever that came from.
    pub(super) join: Histogram<u64>,
}

impl Delays {
    pub(super) fn new() -> Self {
        const US_MAX: u64 = 60_000_000;
        let delays =
            || Histogram::new_with_bounds(1, US_MAX, 3).expect("bounds and precision are valid");
        Self {
            options: delays(),
            invite: delays(),
            join: delays(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.options.reset();
        self.invite.reset();
        self.join.reset();
    }
}

/// Adds the time since then.
pub(super) fn record(delays: &mut Histogram<u64>, now: Instant, since: Instant) {
    let delay = now.saturating_duration_since(since);
    delays.saturating_record(delay.as_micros() as u64);
}

/// Delays second by second.
pub(super) struct Seconds {
    means_us: Vec<f64>,
    all: Histogram<u64>,
}

impl Seconds {
    pub(super) fn new(like: &Histogram<u64>) -> Self {
        Self {
            means_us: Vec::new(),
            all: Histogram::new_from(like),
        }
    }

    /// The delays of one second. A second without any counts for nothing.
    pub(super) fn add(&mut self, second: &[&Histogram<u64>]) {
        let count: u64 = second.iter().map(|part| part.len()).sum();
        if count == 0 {
            return;
        }
        let sum: f64 = second
            .iter()
            .map(|part| part.mean() * part.len() as f64)
            .sum();
        self.means_us.push(sum / count as f64);
        for part in second {
            self.all.add(*part).expect("made with the same bounds");
        }
    }

    pub(super) fn typical(self) -> Option<Typical> {
        Some(Typical {
            median_second_ms: median(self.means_us)? / 1e3,
            p99_ms: self.all.value_at_quantile(0.99) as f64 / 1e3,
            count: self.all.len(),
        })
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_second_counts_and_empty_ones_do_not() {
        let of = |delays_us: &[u64]| {
            let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
            for &delay in delays_us {
                histogram.record(delay).unwrap();
            }
            histogram
        };
        let mut seconds = Seconds::new(&of(&[]));
        assert!(Seconds::new(&of(&[])).typical().is_none());
        seconds.add(&[&of(&[1_000, 3_000])]);
        seconds.add(&[&of(&[])]);
        // A stall of the machine.
        seconds.add(&[&of(&[900_000])]);
        seconds.add(&[&of(&[4_000]), &of(&[2_000])]);
        let delay = seconds.typical().unwrap();
        assert!((delay.median_second_ms - 3.0).abs() < 0.01, "{delay:?}");
        assert_eq!(delay.count, 5);
        assert!(delay.p99_ms > 800.0);
    }
}
