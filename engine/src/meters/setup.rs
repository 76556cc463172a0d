//! How long callers wait for the answer to their INVITE.

use std::time::Duration;

use super::Counter;

/// Upper bounds of the buckets in milliseconds: a room answers within a turn or two, one that rings
/// takes seconds.
const BOUNDS_MS: [u64; 14] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000,
];

/// A histogram that one thread writes and anyone reads.
#[derive(Debug, Default)]
pub struct SetupTimes {
    /// The last one takes what is beyond all bounds.
    buckets: [Counter; BOUNDS_MS.len() + 1],
    sum_us: Counter,
}

impl SetupTimes {
    /// Single writer, see [`Counter`].
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_MS.partition_point(|bound| bound * 1_000 < us)].add(1);
        self.sum_us.add(us);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    pub fn sum_s(&self) -> f64 {
        self.sum_us.get() as f64 / 1e6
    }

    /// Each bucket's upper bound in seconds and its count alone; the last is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_MS.iter().map(|&ms| ms as f64 / 1e3);
        bounds
            .chain([f64::INFINITY])
            .zip(self.buckets.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_below_its_bound() {
        let times = SetupTimes::default();
        for us in [0, 1_000, 1_001, 30_000_000, 30_000_001, 90_000_000] {
            times.record(Duration::from_micros(us));
        }
        let some: Vec<_> = times.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            some,
            [(0.001, 2), (0.002, 1), (30.0, 1), (f64::INFINITY, 2)]
        );
        assert_eq!(times.count(), 6);
        assert!((times.sum_s() - 150.002_002).abs() < 1e-9);
    }
}
