//! One synchronization source as its receiver sees it: validity, loss and jitter (RFC 3550 A.1, A.3, A.8).

use std::time::Instant;

use crate::clock::ticks;
use crate::seq::extend;

/// RFC 3550 A.1: packets in sequence before a new source is believed.
pub(crate) const MIN_SEQUENTIAL: u8 = 2;

/// RFC 3550 A.1: a jump beyond these is a restart, believed when the next packet confirms it.
const MAX_DROPOUT: i64 = 3_000;
const MAX_MISORDER: i64 = 100;

#[derive(Clone, Debug)]
pub(crate) struct Source {
    ssrc: u32,
    clock_rate: u32,
    /// Packets still to come in sequence.
    probation: u8,
    /// Extended sequence numbers: the first one that counts and the highest one seen.
    base: i64,
    highest: i64,
    /// The sequence number that would confirm a jump.
    jump_to: Option<u16>,
    received: u32,
    /// Lost before the sender restarted its count.
    lost_before: u64,
    expected_prior: u32,
    received_prior: u32,
    /// Arrival and timestamp of the latest packet, for jitter.
    latest: Option<(Instant, u32)>,
    /// In timestamp units, times 16 (A.8).
    jitter: u32,
}

/// What a packet is to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Valid,
    /// The source, or a jump of its numbers, is not believed yet.
    Probation,
}

/// Statistics of the interval since the last report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reception {
    pub(crate) fraction_lost: u8,
    pub(crate) cumulative_lost: i32,
    pub(crate) highest_sequence: u32,
    pub(crate) jitter: u32,
}

impl Source {
    /// A source on probation; its first packet is still to be handled.
    pub(crate) fn new(ssrc: u32, sequence: u16, clock_rate: u32) -> Self {
        Self {
            ssrc,
            clock_rate,
            probation: MIN_SEQUENTIAL,
            base: sequence.into(),
            highest: i64::from(sequence) - 1,
            jump_to: None,
            received: 0,
            lost_before: 0,
            expected_prior: 0,
            received_prior: 0,
            latest: None,
            jitter: 0,
        }
    }

    /// A source that is believed because of where it comes from.
    pub(crate) fn trusted(ssrc: u32, sequence: u16, clock_rate: u32) -> Self {
        Self {
            probation: 0,
            ..Self::new(ssrc, sequence, clock_rate)
        }
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// When media was last heard of it.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.latest.map(|(arrived, _)| arrived)
    }

    /// Counts a packet (RFC 3550 A.1).
    pub(crate) fn handle(&mut self, sequence: u16) -> Heard {
        let number = extend(self.highest, sequence);
        let step = number - self.highest;
        if self.probation > 0 {
            self.probation = if step == 1 {
                self.probation - 1
            } else {
                MIN_SEQUENTIAL - 1
            };
            // It counts from here, whatever was heard of it before.
            self.base = sequence.into();
            self.highest = sequence.into();
            if self.probation > 0 {
                return Heard::Probation;
            }
        } else if (0..MAX_DROPOUT).contains(&step) {
            self.highest = number;
        } else if step <= -MAX_MISORDER || step >= MAX_DROPOUT {
            // Two in sequence after a jump: the sender restarted without telling. One alone is a stray.
            if self.jump_to != Some(sequence) {
                self.jump_to = Some(sequence.wrapping_add(1));
                return Heard::Probation;
            }
            self.restart(sequence);
        }
        self.received = self.received.wrapping_add(1);
        Heard::Valid
    }

    /// Takes a packet into the interarrival jitter (RFC 3550 A.8). Only for packets whose timestamp is
    /// when they were sampled: those of a telephone event share one.
    pub(crate) fn measure(&mut self, now: Instant, timestamp: u32) {
        if let Some((arrived, before)) = self.latest.replace((now, timestamp)) {
            let between = ticks(now.saturating_duration_since(arrived), self.clock_rate);
            let difference = between.wrapping_sub(timestamp.wrapping_sub(before)) as i32;
            // A second is no jitter but another timeline, and must not spoil the average for long.
            let difference = difference.unsigned_abs().min(self.clock_rate);
            self.jitter = self.jitter.saturating_add(difference) - ((self.jitter + 8) >> 4);
        }
    }

    /// Packets lost so far; duplicates can make it seem fewer.
    pub(crate) fn lost(&self) -> u64 {
        self.lost_before + u64::try_from(self.balance()).unwrap_or(0)
    }

    pub(crate) fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// Statistics since the last call (RFC 3550 A.3).
    pub(crate) fn report(&mut self) -> Reception {
        let expected = self.expected();
        let expected_interval =
            expected.wrapping_sub(std::mem::replace(&mut self.expected_prior, expected));
        let received_interval = self
            .received
            .wrapping_sub(std::mem::replace(&mut self.received_prior, self.received));
        let lost = i64::from(expected_interval) - i64::from(received_interval);
        let fraction_lost = if expected_interval == 0 || lost <= 0 {
            0
        } else {
            ((lost << 8) / i64::from(expected_interval)).min(255) as u8
        };
        Reception {
            fraction_lost,
            // 24 bits with sign.
            cumulative_lost: self.balance().clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest_sequence: self.highest as u32,
            jitter: self.jitter(),
        }
    }

    /// Expected less received, since the sender began to count.
    fn balance(&self) -> i64 {
        i64::from(self.expected()) - i64::from(self.received)
    }

    fn expected(&self) -> u32 {
        (self.highest - self.base + 1) as u32
    }

    fn restart(&mut self, sequence: u16) {
        *self = Self {
            base: sequence.into(),
            highest: sequence.into(),
            lost_before: self.lost(),
            jitter: self.jitter,
            ..Self::trusted(self.ssrc, sequence, self.clock_rate)
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: u32 = 8_000;

    fn hear(sequences: &[u16]) -> Source {
        let mut source = Source::trusted(1, sequences[0], RATE);
        for &sequence in sequences {
            source.handle(sequence);
        }
        source
    }

    #[test]
    fn two_in_sequence_make_a_source() {
        let mut source = Source::new(1, 7, RATE);
        assert_eq!(source.handle(7), Heard::Probation);
        assert_eq!(source.handle(9), Heard::Probation);
        assert_eq!(source.handle(10), Heard::Valid);
        // What came before it was believed is neither received nor lost.
        assert_eq!((source.lost(), source.expected()), (0, 1));
    }

    #[test]
    fn losses_are_counted_over_the_wrap() {
        let mut source = hear(&[65_533, 65_534, 65_535, 1, 2, 4]);
        assert_eq!(source.lost(), 2);
        let reception = source.report();
        assert_eq!(reception.cumulative_lost, 2);
        // Two of eight, in 256ths.
        assert_eq!(reception.fraction_lost, 64);
        assert_eq!(reception.highest_sequence, (1 << 16) + 4);
        assert_eq!(
            source.report().fraction_lost,
            0,
            "nothing since the last report"
        );
    }

    #[test]
    fn an_overtaken_packet_is_not_lost_and_a_duplicate_counts_as_received() {
        assert_eq!(hear(&[1, 3, 2, 4]).lost(), 0);
        let mut source = hear(&[1, 1, 2]);
        let reception = source.report();
        // RFC 3550 A.3: the number may be negative, the fraction is then zero.
        assert_eq!(
            (reception.cumulative_lost, reception.fraction_lost),
            (-1, 0)
        );
        assert_eq!(source.lost(), 0);
    }

    #[test]
    fn a_restart_is_believed_at_its_second_packet_and_forgets_no_loss() {
        let mut source = hear(&[1, 2, 4]);
        assert_eq!(source.handle(30_000), Heard::Probation);
        assert_eq!(source.handle(30_001), Heard::Valid);
        assert_eq!(source.handle(30_002), Heard::Valid);
        assert_eq!(source.lost(), 1);
        let reception = source.report();
        assert_eq!(
            (reception.highest_sequence, reception.cumulative_lost),
            (30_002, 0)
        );
    }

    #[test]
    fn a_stray_packet_changes_nothing() {
        let mut source = hear(&[1, 2]);
        assert_eq!(source.handle(40_000), Heard::Probation);
        assert_eq!(source.handle(3), Heard::Valid);
        assert_eq!(
            (source.lost(), source.report().highest_sequence),
            (0, 3),
            "neither counted nor believed"
        );
    }

    #[test]
    fn the_bounds_of_a_jump_are_those_of_the_standard() {
        let judge = |sequence: u16| hear(&[1_000]).handle(sequence);
        assert_eq!(judge(1_000 + 2_999), Heard::Valid);
        assert_eq!(judge(1_000 + 3_000), Heard::Probation);
        assert_eq!(judge(1_000 - 99), Heard::Valid);
        assert_eq!(judge(1_000 - 100), Heard::Probation);
    }

    #[test]
    fn a_steady_stream_has_no_jitter() {
        let start = Instant::now();
        let run = |shake_ms: u64| {
            let mut source = Source::trusted(1, 0, RATE);
            for n in 0..200_u32 {
                let ms = u64::from(n) * 20 + u64::from(n % 2) * shake_ms;
                // Over the wrap of the timestamp.
                let timestamp = (u32::MAX - 1_000).wrapping_add(n * 160);
                source.measure(start + Duration::from_millis(ms), timestamp);
            }
            source.jitter()
        };
        assert_eq!(run(0), 0);
        let shaken = run(10);
        let mut restarted = hear(&[1, 2]);
        restarted.jitter = 500;
        restarted.handle(9_000);
        restarted.handle(9_001);
        assert_eq!(restarted.jitter, 500, "the path is still the same");
        assert!((70..=80).contains(&shaken), "10 ms are 80 units: {shaken}");
    }

    #[test]
    fn another_timeline_is_no_jitter_of_hours() {
        let now = Instant::now();
        let mut source = Source::trusted(1, 0, RATE);
        for timestamp in [0, 1 << 30] {
            source.measure(now, timestamp);
        }
        assert_eq!(source.jitter(), RATE / 16);
    }
}
