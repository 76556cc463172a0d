//! Durations in the timestamp units of a media clock (RFC 3550 §5.1).

use std::time::Duration;

/// Whole units in `duration`, modulo 2^32 as timestamps are. In 64 bits, because every packet asks.
pub(crate) fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    let rate = u64::from(clock_rate);
    let of_second = u64::from(duration.subsec_nanos()) * rate / 1_000_000_000;
    duration
        .as_secs()
        .wrapping_mul(rate)
        .wrapping_add(of_second) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_so_many_units() {
        assert_eq!(ticks(Duration::from_millis(20), 8_000), 160);
        assert_eq!(ticks(Duration::from_micros(22_500), 48_000), 1_080);
        assert_eq!(ticks(Duration::from_nanos(124_999), 8_000), 0);
        // Timestamps wrap after a good day at 48 kHz.
        assert_eq!(ticks(Duration::from_secs(90_000), 48_000), 25_032_704);
        ticks(Duration::MAX, u32::MAX);
    }
}
