//! Virtual time, and the clocks of servers that run a little too fast or too slow.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds since the simulation began, as nobody in it knows them.
pub(super) type Time = u64;

pub(super) const MS: Time = 1_000_000;
pub(super) const SECOND: Time = 1_000 * MS;

/// The first instant of every simulation of this process. Only differences matter to whoever is simulated.
fn beginning() -> Instant {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    // An hour of room for whoever looks back.
    *BEGINNING.get_or_init(|| Instant::now() + Duration::from_secs(3_600))
}

/// One host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// How much too fast it runs, in millionths.
    pub(super) ppm: i64,
    /// How far its wall clock is ahead, in milliseconds.
    pub(super) ahead_ms: i64,
}

impl Clock {
    pub(super) fn instant(self, time: Time) -> Instant {
        beginning() + Duration::from_nanos(self.skewed(time))
    }

    pub(super) fn wall(self, time: Time) -> SystemTime {
        /// Some day in 2027.
        const DAY: Duration = Duration::from_secs(1_800_000_000);
        let shown = i64::try_from(self.skewed(time) / MS).unwrap_or(0);
        let ahead = shown + self.ahead_ms + DAY.as_millis() as i64;
        SystemTime::UNIX_EPOCH + Duration::from_millis(ahead.max(0) as u64)
    }

    /// When this clock shows the instant; not before that.
    pub(super) fn time(self, instant: Instant) -> Time {
        let shown = instant.saturating_duration_since(beginning()).as_nanos() as u64;
        let mut time = (shown as i128 * 1_000_000 / (1_000_000 + i128::from(self.ppm))) as u64;
        while self.skewed(time) < shown {
            time += 1;
        }
        time
    }

    fn skewed(self, time: Time) -> u64 {
        let skew = i128::from(time) * i128::from(self.ppm) / 1_000_000;
        (i128::from(time) + skew) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_shows_is_found_again() {
        for ppm in [-5_000, -1, 0, 1, 200, 5_000] {
            let clock = Clock { ppm, ahead_ms: 0 };
            for time in [0, 1, 999, SECOND, 777 * SECOND + 13] {
                let found = clock.time(clock.instant(time));
                assert!(found.abs_diff(time) <= 2, "{ppm} {time} {found}");
                assert!(clock.instant(found) >= clock.instant(time));
            }
        }
    }
}
