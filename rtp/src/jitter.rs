//! The jitter buffer: packets in as the network brings them, packets out at the listener's pace.
//!
//! The listener's clock drives it: he asks when his samples run out. Rules:
//!
//! 1. **Start.** The first packet of a talk spurt is due `depth` after it arrived. Once it has been
//!    taken, packets follow whenever the listener asks.
//! 2. **Order.** Packets leave by extended sequence number. One that arrives after its place has passed
//!    is late and dropped; a second one with the same number is a duplicate and dropped.
//! 3. **Loss.** A gap in the numbers with later packets behind it is lost once the listener gets there,
//!    for as long as the timestamps say.
//! 4. **Underrun.** With nothing there, the listener gets nothing and conceals; the stream goes on with
//!    the next packet. What came late has thereby moved the play-out point by as much.
//! 5. **Talk spurts.** A gap in time without a gap in numbers is a pause, not loss. After a pause, marked
//!    or long ([`PAUSE`]), the first packet is due as in rule 1.
//! 6. **Excess.** If for [`EXCESS_FOR`] more waits than the depth and a margin, the delay has grown for no
//!    reason (the network calmed down, or the sender's clock is fast): the oldest packet is dropped.
//! 7. **Breaks.** A jump of the numbers or timestamps beyond reason, or [`LATE_IN_A_ROW`] late packets,
//!    mean that the sender counts anew: everything starts over with that packet.
//!
//! The depth is fixed; [`JitterBuffer::target`] is the one place that would compute another. Memory is
//! taken once, when the first packets come: a slot keeps the size of the largest payload it has held.

use std::time::{Duration, Instant};

use crate::Packet;

/// Longest payload kept: more does not fit into an Ethernet frame.
pub const PAYLOAD_LEN_MAX: usize = 1_500;

/// Packets held: 1.3 s at 20 ms, far beyond any depth. A power of two, so that numbers find their slot.
const SLOTS: usize = 64;

/// Numbers may jump this far, in both directions, within one stream (RFC 3550 A.1: MAX_DROPOUT 3000,
/// MAX_MISORDER 100; what exceeds the slots cannot be held anyway).
const JUMP_MAX: i64 = SLOTS as i64 / 2;

/// A pause this long begins a new talk spurt even without a marker.
const PAUSE: Duration = Duration::from_millis(200);

/// Margin above the depth that is tolerated, and for how long.
const EXCESS: Duration = Duration::from_millis(40);
const EXCESS_FOR: Duration = Duration::from_secs(1);

/// Timestamps further apart than this, while numbers follow each other, are no pause but a new count.
const TIMESTAMP_JUMP: Duration = Duration::from_secs(60);

/// So many late packets in a row are no jitter.
const LATE_IN_A_ROW: u32 = 4;

/// Packets are at most this long; a larger step of the timestamps is a pause.
const PACKET_MAX: Duration = Duration::from_millis(120);

/// Longest stretch filled as loss; beyond it there is nothing to fill it with.
const LOST_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
pub struct JitterConfig {
    /// Delay from the arrival of the first packet until it is due.
    pub depth: Duration,
    /// Timestamp units per second.
    pub clock_rate: u32,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    Late,
    Duplicate,
    /// Too long to be kept.
    Overflow,
    /// Queued, as the first of a new count.
    Resynced,
}

/// What there is to play.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<'a> {
    Frame {
        payload: &'a [u8],
        timestamp: u32,
        payload_type: u8,
    },
    /// These timestamp units are missing; what follows them is here.
    Lost { ticks: u32 },
    /// Nothing is due.
    Empty,
}

#[derive(Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    slots: Box<[Slot]>,
    held: usize,
    /// Number and timestamp that follow what was taken last; None before the first packet.
    next: Option<Next>,
    /// Highest number that was played or given up: nothing at or below it is played any more.
    passed: i64,
    /// Highest number so far, and its timestamp.
    newest: i64,
    newest_timestamp: u32,
    /// Of the sender's packets, as their timestamps say; 0 until two have come in a row.
    duration: u32,
    late_in_a_row: u32,
    /// Since when more is held than should be.
    excess_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    /// None: empty.
    number: Option<i64>,
    timestamp: u32,
    payload_type: u8,
    marker: bool,
    arrived: Option<Instant>,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    number: i64,
    timestamp: u32,
    /// When the listener last got something; None while a spurt is about to begin.
    playing: Option<Instant>,
}

impl JitterBuffer {
    pub fn new(config: JitterConfig) -> Self {
        Self {
            config,
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            held: 0,
            next: None,
            passed: 0,
            newest: 0,
            newest_timestamp: 0,
            duration: 0,
            late_in_a_row: 0,
            excess_since: None,
        }
    }

    /// Forgets everything; memory is kept.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            slot.number = None;
        }
        self.held = 0;
        self.next = None;
        self.late_in_a_row = 0;
        self.excess_since = None;
    }

    pub fn push(&mut self, now: Instant, packet: &Packet<'_>) -> Pushed {
        if packet.payload.len() > PAYLOAD_LEN_MAX {
            return Pushed::Overflow;
        }
        let Some(next) = self.next else {
            self.begin(now, packet);
            return Pushed::Queued;
        };
        let number =
            self.newest + i64::from(packet.sequence.wrapping_sub(self.newest as u16) as i16);
        if (number - self.newest).abs() > JUMP_MAX
            || number >= next.number + SLOTS as i64
            || self.counts_anew(packet, number)
        {
            return self.resync(now, packet);
        }
        if number < next.number {
            if next.playing.is_none() && self.held > 0 && number > self.passed {
                // Nothing of this spurt has been played: an overtaken packet is simply its first.
                self.next = Some(Next {
                    number,
                    timestamp: packet.timestamp,
                    ..next
                });
                self.keep(now, number, packet);
                return Pushed::Queued;
            }
            self.late_in_a_row += 1;
            return if self.late_in_a_row >= LATE_IN_A_ROW {
                self.resync(now, packet)
            } else {
                Pushed::Late
            };
        }
        if self.slot(number).number == Some(number) {
            return Pushed::Duplicate;
        }
        self.late_in_a_row = 0;
        if number > self.newest {
            let step = packet.timestamp.wrapping_sub(self.newest_timestamp);
            if number == self.newest + 1 && (1..=self.ticks(PACKET_MAX)).contains(&step) {
                self.duration = step;
            }
            self.newest = number;
            self.newest_timestamp = packet.timestamp;
        }
        self.keep(now, number, packet);
        Pushed::Queued
    }

    /// What is due now. To be called when the listener has too few samples left for his next frame.
    pub fn pop(&mut self, now: Instant) -> Popped<'_> {
        self.drop_excess(now);
        let Some(next) = self.next else {
            return Popped::Empty;
        };
        let Some(number) = self.oldest(next) else {
            if next
                .playing
                .is_some_and(|last| now.saturating_duration_since(last) >= PAUSE)
            {
                self.next = Some(Next {
                    playing: None,
                    ..next
                });
            }
            return Popped::Empty;
        };
        let slot = self.slot(number);
        let gap = slot.timestamp.wrapping_sub(next.timestamp) as i32;
        let paused = gap >= self.ticks(PAUSE) as i32 || slot.marker;
        let begins = next.playing.is_none() || (paused && number == next.number);
        if begins
            && slot
                .arrived
                .is_some_and(|arrived| now < arrived + self.target())
        {
            return Popped::Empty;
        }
        if !begins && number > next.number && (1..=self.ticks(LOST_MAX) as i32).contains(&gap) {
            // One packet at a time, so that one that still comes finds its place.
            let missing = (number - next.number) as u32;
            let ticks = (gap as u32 / missing).max(1);
            let timestamp = next.timestamp.wrapping_add(ticks);
            self.passed = next.number;
            self.next = Some(Next {
                number: next.number + 1,
                timestamp,
                playing: Some(now),
            });
            return Popped::Lost { ticks };
        }
        self.take(now, number)
    }

    /// How long the first packet of a spurt waits.
    fn target(&self) -> Duration {
        self.config.depth
    }

    fn begin(&mut self, now: Instant, packet: &Packet<'_>) {
        // Far from zero, so that a packet overtaken by the first has a number too.
        let number = i64::from(packet.sequence) + (1 << 32);
        self.passed = 0;
        self.newest = number;
        self.newest_timestamp = packet.timestamp;
        self.next = Some(Next {
            number,
            timestamp: packet.timestamp,
            playing: None,
        });
        self.late_in_a_row = 0;
        self.keep(now, number, packet);
    }

    fn resync(&mut self, now: Instant, packet: &Packet<'_>) -> Pushed {
        self.reset();
        self.begin(now, packet);
        Pushed::Resynced
    }

    /// Newer by its number, but far away by its timestamp.
    fn counts_anew(&self, packet: &Packet<'_>, number: i64) -> bool {
        let jump = packet.timestamp.wrapping_sub(self.newest_timestamp) as i32;
        number > self.newest && (jump < 0 || jump as u32 > self.ticks(TIMESTAMP_JUMP))
    }

    /// The number of the oldest packet held.
    fn oldest(&self, next: Next) -> Option<i64> {
        if self.held == 0 {
            return None;
        }
        (next.number..=self.newest).find(|&number| self.slot(number).number == Some(number))
    }

    fn keep(&mut self, now: Instant, number: i64, packet: &Packet<'_>) {
        let slot = &mut self.slots[number as usize % SLOTS];
        self.held += usize::from(slot.number.is_none());
        slot.number = Some(number);
        slot.timestamp = packet.timestamp;
        slot.payload_type = packet.payload_type;
        slot.marker = packet.marker;
        slot.arrived = Some(now);
        slot.payload.clear();
        slot.payload.extend_from_slice(packet.payload);
    }

    fn slot(&self, number: i64) -> &Slot {
        &self.slots[number as usize % SLOTS]
    }

    fn take(&mut self, now: Instant, number: i64) -> Popped<'_> {
        self.held -= 1;
        self.passed = number;
        let slot = &mut self.slots[number as usize % SLOTS];
        slot.number = None;
        let timestamp = slot.timestamp.wrapping_add(self.duration);
        self.next = Some(Next {
            number: number + 1,
            timestamp,
            playing: Some(now),
        });
        Popped::Frame {
            payload: &slot.payload,
            timestamp: slot.timestamp,
            payload_type: slot.payload_type,
        }
    }

    /// Rule 6.
    fn drop_excess(&mut self, now: Instant) {
        let tolerated = self.ticks(self.target() + EXCESS);
        let excess = self.next.filter(|next| {
            let waiting = self
                .newest_timestamp
                .wrapping_add(self.duration)
                .wrapping_sub(next.timestamp) as i32;
            next.playing.is_some() && self.held > 1 && waiting > tolerated as i32
        });
        let Some(next) = excess else {
            self.excess_since = None;
            return;
        };
        let since = *self.excess_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= EXCESS_FOR {
            self.excess_since = None;
            if let Some(oldest) = self.oldest(next) {
                self.take(now, oldest);
            }
        }
    }

    fn ticks(&self, duration: Duration) -> u32 {
        (duration.as_micros() * u128::from(self.config.clock_rate) / 1_000_000) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u32 = 160;
    const DEPTH: Duration = Duration::from_millis(20);

    /// A buffer with its clock; payloads name their packet.
    struct Line {
        buffer: JitterBuffer,
        start: Instant,
    }

    impl Line {
        fn new() -> Self {
            Self {
                buffer: JitterBuffer::new(JitterConfig {
                    depth: DEPTH,
                    clock_rate: 8_000,
                }),
                start: Instant::now(),
            }
        }

        fn push_at(&mut self, ms: u64, sequence: u16, timestamp: u32, marker: bool) -> Pushed {
            let payload = sequence.to_be_bytes();
            let packet = Packet {
                marker,
                payload_type: 0,
                sequence,
                timestamp,
                ssrc: 1,
                csrcs: &[],
                extension: None,
                payload: &payload,
            };
            self.buffer
                .push(self.start + Duration::from_millis(ms), &packet)
        }

        /// The n-th packet of a steady stream.
        fn push(&mut self, ms: u64, n: u16) -> Pushed {
            self.push_at(ms, n, u32::from(n) * FRAME, false)
        }

        /// The sequence number played, -1 for loss, None for nothing.
        fn pop(&mut self, ms: u64) -> Option<i32> {
            match self.buffer.pop(self.start + Duration::from_millis(ms)) {
                Popped::Frame { payload, .. } => {
                    Some(i32::from(u16::from_be_bytes([payload[0], payload[1]])))
                }
                Popped::Lost { .. } => Some(-1),
                Popped::Empty => None,
            }
        }
    }

    #[test]
    fn the_first_packet_waits_for_the_depth_and_the_rest_follows() {
        let mut line = Line::new();
        line.push(0, 1);
        assert_eq!(line.pop(10), None);
        assert_eq!(line.pop(20), Some(1));
        line.push(20, 2);
        assert_eq!(line.pop(40), Some(2));
    }

    #[test]
    fn overtaken_packets_find_their_place_and_doubles_do_not() {
        let mut line = Line::new();
        line.push(0, 2);
        assert_eq!(line.push(1, 1), Pushed::Queued);
        assert_eq!(line.push(2, 4), Pushed::Queued);
        assert_eq!(line.push(3, 4), Pushed::Duplicate);
        assert_eq!(line.push(4, 3), Pushed::Queued);
        let played: Vec<_> = (0..5).map(|frame| line.pop(25 + frame * 20)).collect();
        assert_eq!(played, [Some(1), Some(2), Some(3), Some(4), None]);
        assert_eq!(line.push(130, 2), Pushed::Late);
    }

    #[test]
    fn what_is_missing_is_lost_for_as_long_as_it_lasted() {
        let mut line = Line::new();
        for n in [1, 2, 5] {
            line.push(u64::from(n) * 20, n);
        }
        assert_eq!(line.pop(60), Some(1));
        assert_eq!(line.pop(80), Some(2));
        assert_eq!(
            line.buffer.pop(line.start + Duration::from_millis(100)),
            Popped::Lost { ticks: FRAME }
        );
        // The second one comes just in time after all.
        assert_eq!(line.push(101, 4), Pushed::Queued);
        assert_eq!(line.push(102, 3), Pushed::Late);
        assert_eq!(line.pop(120), Some(4));
        assert_eq!(line.pop(140), Some(5));
    }

    #[test]
    fn after_an_underrun_the_stream_goes_on() {
        let mut line = Line::new();
        line.push(0, 1);
        assert_eq!(line.pop(20), Some(1));
        assert_eq!(line.pop(40), None);
        line.push(55, 2);
        line.push(56, 3);
        assert_eq!(line.pop(60), Some(2));
        assert_eq!(line.pop(80), Some(3));
    }

    #[test]
    fn a_pause_is_no_loss_and_its_end_waits_for_the_depth() {
        let mut line = Line::new();
        for n in 1..=3 {
            line.push(u64::from(n) * 20, n);
        }
        for ms in [40, 60, 80] {
            assert!(line.pop(ms).is_some());
        }
        assert_eq!(line.pop(100), None);
        // Half a second of silence: the next number, a later timestamp.
        line.push_at(580, 4, 29 * FRAME, true);
        assert_eq!(line.pop(590), None);
        assert_eq!(line.pop(600), Some(4));
    }

    #[test]
    fn a_sender_that_counts_anew_is_followed() {
        let mut line = Line::new();
        line.push(0, 1);
        assert_eq!(line.pop(20), Some(1));
        assert_eq!(line.push(20, 30_000), Pushed::Resynced);
        assert_eq!(line.pop(40), Some(30_000));
        // The same number, another timeline.
        assert_eq!(
            line.push_at(40, 30_001, 0x8000_0000, false),
            Pushed::Resynced
        );
        assert_eq!(line.pop(60), Some(30_001));
    }

    #[test]
    fn late_packets_in_a_row_move_the_play_out_point() {
        let mut line = Line::new();
        for n in 10..14 {
            line.push(u64::from(n) * 20, n);
            line.pop(u64::from(n) * 20 + 25);
        }
        let pushed: Vec<_> = (1..=4).map(|n| line.push(300, n)).collect();
        assert_eq!(
            pushed,
            [Pushed::Late, Pushed::Late, Pushed::Late, Pushed::Resynced]
        );
    }

    #[test]
    fn delay_that_has_grown_without_need_is_taken_back() {
        let mut line = Line::new();
        // Ten packets wait behind one another: a stall of the network that has just ended.
        for n in 0..10 {
            line.push(0, n);
        }
        for (n, ms) in (10..).zip((20..10_000).step_by(20)) {
            line.pop(ms);
            line.push(ms, n);
        }
        assert!(line.buffer.held <= 3, "{} packets wait", line.buffer.held);
    }

    #[test]
    fn clocks_that_drift_lose_almost_nothing() {
        for ppm in [-200_i64, 200] {
            let mut line = Line::new();
            let (mut played, mut gaps, mut sent) = (0, 0, 0_u64);
            // An hour of 20 ms ticks; the sender's are shorter or longer by `ppm`.
            for tick in 0..180_000_u64 {
                let now_us = tick * 20_000;
                while sent as i64 * (20_000_000_000 - 20_000 * ppm) / 1_000_000 <= now_us as i64 {
                    let n = sent as u16;
                    line.push_at(now_us / 1_000, n, (sent as u32).wrapping_mul(FRAME), false);
                    sent += 1;
                }
                match line.pop(now_us / 1_000) {
                    Some(_) => played += 1,
                    None => gaps += 1,
                }
            }
            assert!(
                played > 179_800 && gaps < 100,
                "{ppm} ppm: {played} played, {gaps} gaps"
            );
            assert!(line.buffer.held < 6);
        }
    }

    #[test]
    fn numbers_and_timestamps_wrap() {
        let mut line = Line::new();
        for n in 0..200_u16 {
            let sequence = 65_436_u16.wrapping_add(n);
            let timestamp = (u32::MAX - 100 * FRAME).wrapping_add(u32::from(n) * FRAME);
            assert_eq!(
                line.push_at(u64::from(n) * 20, sequence, timestamp, false),
                Pushed::Queued
            );
            if n >= 1 {
                assert_eq!(
                    line.pop(u64::from(n) * 20 + 1),
                    Some(i32::from(sequence.wrapping_sub(1)))
                );
            }
        }
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let mut buffer = JitterBuffer::new(JitterConfig {
            depth: DEPTH,
            clock_rate: 8_000,
        });
        let payload = [0; PAYLOAD_LEN_MAX + 1];
        let packet = Packet {
            marker: false,
            payload_type: 0,
            sequence: 1,
            timestamp: 1,
            ssrc: 1,
            csrcs: &[],
            extension: None,
            payload: &payload,
        };
        assert_eq!(buffer.push(Instant::now(), &packet), Pushed::Overflow);
    }
}
