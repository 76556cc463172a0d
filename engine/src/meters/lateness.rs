//! A histogram of microseconds that one thread writes and anyone reads.
//!
//! Log-linear: exact below 8 µs, then eight buckets in every power of two, so that a percentile is
//! at most an eighth too high. A window (the last second) is the difference of two readings; the
//! writer never resets anything.

use super::Counter;

/// Buckets in a power of two, as a power of two.
const SUB_BITS: u32 = 3;
const SUBS: usize = 1 << SUB_BITS;
/// Powers of two above the exact part: the last bucket begins at 122,880 µs, six whole 20 ms ticks
/// late, where more detail says nothing new.
const OCTAVES: usize = 14;
const BUCKETS: usize = SUBS + OCTAVES * SUBS;

/// How late ticks were, in microseconds.
#[derive(Debug)]
pub struct Lateness {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            buckets: [const { Counter(std::sync::atomic::AtomicU64::new(0)) }; BUCKETS],
            sum_us: Counter::default(),
        }
    }
}

impl Lateness {
    /// Counts one tick; single writer, see [`Counter`].
    #[inline]
    pub fn record_us(&self, late_us: u64) {
        self.buckets[bucket(late_us)].add(1);
        self.sum_us.add(late_us);
    }

    /// Everything recorded so far.
    pub fn read(&self) -> LatenessReading {
        LatenessReading {
            buckets: self.buckets.each_ref().map(Counter::get),
            sum_us: self.sum_us.get(),
        }
    }
}

/// What a [`Lateness`] held at one moment, or gained between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatenessReading {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for LatenessReading {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_us: 0,
        }
    }
}

impl LatenessReading {
    /// What came after `earlier`, a reading of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|i| self.buckets[i].wrapping_sub(earlier.buckets[i])),
            sum_us: self.sum_us.wrapping_sub(earlier.sum_us),
        }
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The lateness in µs that `fraction` (0 to 1) of the ticks did not exceed, rounded up to the
    /// end of its bucket; 0 when there was no tick.
    pub fn quantile_us(&self, fraction: f64) -> u64 {
        let rank = (self.count() as f64 * fraction).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_max_us(index);
            }
        }
        0
    }

    /// Ticks at most this late, per power of two: (bound in µs, count up to it), bounds rising.
    /// What is later than the last bound is only in [`count`](Self::count).
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut seen = 0;
        // The last octave is left to the reader's infinite bucket: it also holds what is beyond it.
        self.buckets
            .chunks_exact(SUBS)
            .take(OCTAVES)
            .enumerate()
            .map(move |(octave, buckets)| {
                seen += buckets.iter().sum::<u64>();
                (bucket_max_us(octave * SUBS + SUBS - 1), seen)
            })
    }
}

fn bucket(us: u64) -> usize {
    if us < SUBS as u64 {
        return us as usize;
    }
    let octave = us.ilog2() - SUB_BITS;
    let sub = (us >> octave) as usize - SUBS;
    (SUBS + octave as usize * SUBS + sub).min(BUCKETS - 1)
}

/// The largest value that falls into this bucket (the last one also takes all beyond).
fn bucket_max_us(index: usize) -> u64 {
    if index < SUBS {
        return index as u64;
    }
    let octave = index / SUBS - 1;
    (((index % SUBS + SUBS + 1) as u64) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket() {
        for us in (0..2_000).chain((2_000..131_072).step_by(37)) {
            let index = bucket(us);
            assert!(us <= bucket_max_us(index), "{us} in {index}");
            assert!(
                index == 0 || us > bucket_max_us(index - 1),
                "{us} in {index}"
            );
        }
        assert_eq!(bucket(131_071), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_max_us(BUCKETS - 1), 131_071);
    }

    #[test]
    fn a_window_is_a_difference() {
        let lateness = Lateness::default();
        (0..1_000).for_each(|_| lateness.record_us(20_000));
        let earlier = lateness.read();
        (0..98).for_each(|_| lateness.record_us(5));
        (0..2).for_each(|_| lateness.record_us(1_000));
        let window = lateness.read().since(&earlier);
        assert_eq!(window.count(), 100);
        assert_eq!(window.sum_us(), 98 * 5 + 2_000);
        assert_eq!(window.quantile_us(0.98), 5);
        assert_eq!(window.quantile_us(0.99), bucket_max_us(bucket(1_000)));
        assert_eq!(LatenessReading::default().quantile_us(0.99), 0);
    }

    #[test]
    fn cumulative_counts_never_fall_and_end_before_infinity() {
        let lateness = Lateness::default();
        [0, 7, 8, 15, 16, 900, 1 << 40]
            .iter()
            .for_each(|&us| lateness.record_us(us));
        let counts: Vec<_> = lateness.read().cumulative().collect();
        assert_eq!(&counts[..3], &[(7, 2), (15, 4), (31, 5)]);
        assert!(counts.is_sorted());
        assert_eq!(counts.last(), Some(&(65_535, 6)));
        assert_eq!(lateness.read().count(), 7);
    }
}
