//! One synchronization source as its receiver sees it: validity, loss and jitter (RFC 3550 A.1, A.3, A.8).

use std::time::Instant;

use crate::Packet;

/// RFC 3550 A.1: packets in sequence before a new source is believed.
const MIN_SEQUENTIAL: u32 = 2;

/// RFC 3550 A.1: a jump beyond these is a restart, believed when the next packet confirms it.
const MAX_DROPOUT: u16 = 3_000;
const MAX_MISORDER: u16 = 100;

#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    clock_rate: u32,
    /// Packets still to come in sequence.
    probation: u32,
    max_sequence: u16,
    cycles: u32,
    base_sequence: u32,
    /// The sequence number that would confirm a jump.
    jump_to: Option<u16>,
    received: u32,
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
    pub(crate) fn new(packet: &Packet<'_>, clock_rate: u32) -> Self {
        let mut source = Self {
            ssrc: packet.ssrc,
            clock_rate,
            probation: MIN_SEQUENTIAL,
            max_sequence: packet.sequence.wrapping_sub(1),
            cycles: 0,
            base_sequence: 0,
            jump_to: None,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            latest: None,
            jitter: 0,
        };
        source.restart(packet.sequence);
        source.max_sequence = packet.sequence.wrapping_sub(1);
        source
    }

    /// A source that is believed because of where it comes from.
    pub(crate) fn trusted(packet: &Packet<'_>, clock_rate: u32) -> Self {
        let mut source = Self::new(packet, clock_rate);
        source.probation = 0;
        source
    }

    pub(crate) fn handle(&mut self, now: Instant, packet: &Packet<'_>) -> Heard {
        let step = packet.sequence.wrapping_sub(self.max_sequence);
        if self.probation > 0 {
            self.probation = if step == 1 {
                self.probation - 1
            } else {
                MIN_SEQUENTIAL - 1
            };
            self.max_sequence = packet.sequence;
            if self.probation > 0 {
                return Heard::Probation;
            }
            self.restart(packet.sequence);
        } else if step < MAX_DROPOUT {
            if packet.sequence < self.max_sequence {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.max_sequence = packet.sequence;
        } else if step <= u16::MAX - MAX_MISORDER {
            // Two in sequence after a jump: the sender restarted without telling.
            if self.jump_to != Some(packet.sequence) {
                self.jump_to = Some(packet.sequence.wrapping_add(1));
            } else {
                self.restart(packet.sequence);
            }
        }
        self.received = self.received.wrapping_add(1);
        self.measure(now, packet.timestamp);
        Heard::Valid
    }

    /// Packets lost so far; duplicates can make it seem fewer.
    pub(crate) fn lost(&self) -> i64 {
        i64::from(self.expected()) - i64::from(self.received)
    }

    pub(crate) fn jitter(&self) -> u32 {
        self.jitter >> 4
    }

    /// Statistics since the last call.
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
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest_sequence: self.highest(),
            jitter: self.jitter(),
        }
    }

    fn highest(&self) -> u32 {
        self.cycles.wrapping_add(u32::from(self.max_sequence))
    }

    fn expected(&self) -> u32 {
        self.highest()
            .wrapping_sub(self.base_sequence)
            .wrapping_add(1)
    }

    fn restart(&mut self, sequence: u16) {
        self.base_sequence = sequence.into();
        self.max_sequence = sequence;
        self.cycles = 0;
        self.jump_to = None;
        self.received = 0;
        self.expected_prior = 0;
        self.received_prior = 0;
        self.latest = None;
    }

    /// A.8, with the time between arrivals measured on our clock.
    fn measure(&mut self, now: Instant, timestamp: u32) {
        if let Some((arrived, before)) = self.latest.replace((now, timestamp)) {
            let between = now.saturating_duration_since(arrived).as_micros()
                * u128::from(self.clock_rate)
                / 1_000_000;
            let difference =
                (between as i64 - i64::from(timestamp.wrapping_sub(before) as i32)).unsigned_abs();
            let difference = difference.min(u64::from(self.clock_rate)) as u32;
            self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn packet(sequence: u16) -> Packet<'static> {
        let timestamp = u32::from(sequence) * 160;
        Packet {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp,
            ssrc: 1,
            csrcs: &[],
            extension: None,
            payload: &[],
        }
    }

    fn hear(sequences: &[u16]) -> Source {
        let start = Instant::now();
        let mut source = Source::new(&packet(sequences[0]), 8_000);
        for (i, &sequence) in sequences.iter().enumerate() {
            source.handle(
                start + Duration::from_millis(i as u64 * 20),
                &packet(sequence),
            );
        }
        source
    }

    #[test]
    fn two_in_sequence_make_a_source() {
        let start = Instant::now();
        let mut source = Source::new(&packet(7), 8_000);
        assert_eq!(source.handle(start, &packet(7)), Heard::Probation);
        assert_eq!(source.handle(start, &packet(9)), Heard::Probation);
        assert_eq!(source.handle(start, &packet(10)), Heard::Valid);
    }

    #[test]
    fn losses_are_counted_over_the_wrap() {
        let mut source = hear(&[65_533, 65_534, 65_535, 1, 2, 4]);
        assert_eq!(source.lost(), 2);
        let reception = source.report();
        assert_eq!(reception.cumulative_lost, 2);
        assert_eq!(reception.highest_sequence, (1 << 16) + 4);
        assert_eq!(
            source.report().fraction_lost,
            0,
            "nothing since the last report"
        );
    }

    #[test]
    fn a_restart_is_believed_at_its_second_packet() {
        let mut source = hear(&[1, 2, 3, 30_000, 30_001, 30_002]);
        assert_eq!(source.lost(), 0);
        assert_eq!(source.report().highest_sequence, 30_002);
    }

    #[test]
    fn a_steady_stream_has_no_jitter() {
        assert_eq!(hear(&(0..100).collect::<Vec<_>>()).jitter(), 0);
        let start = Instant::now();
        let mut source = Source::new(&packet(0), 8_000);
        for n in 0..200 {
            let shaken = u64::from(n) * 20 + u64::from(n % 2) * 10;
            source.handle(start + Duration::from_millis(shaken), &packet(n));
        }
        assert!(
            (70..=80).contains(&source.jitter()),
            "10 ms are 80 units: {}",
            source.jitter()
        );
    }
}
