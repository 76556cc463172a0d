//! The rules of the jitter buffer, one after another, on a virtual clock.

use std::time::{Duration, Instant};

use rtp::{Csrcs, JitterBuffer, JitterConfig, PAYLOAD_LEN_MAX, Packet, Popped, Pushed};

const FRAME: u32 = 160;
const DEPTH_MS: u64 = 20;

/// What the listener got: the sequence number of a frame, units lost, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Frame(u16),
    Lost(u32),
    Nothing,
}
use Got::{Frame, Lost, Nothing};

/// A buffer with its clock; payloads name their packet.
struct Line {
    buffer: JitterBuffer,
    start: Instant,
}

impl Line {
    fn new() -> Self {
        Self::with_depth(DEPTH_MS)
    }

    fn with_depth(ms: u64) -> Self {
        Self {
            buffer: JitterBuffer::new(JitterConfig {
                depth: Duration::from_millis(ms),
                clock_rate: 8_000,
            }),
            start: Instant::now(),
        }
    }

    fn push_at(&mut self, ms: u64, sequence: u16, timestamp: u32, marker: bool) -> Pushed {
        let payload = sequence.to_be_bytes();
        let packet = packet(sequence, timestamp, marker, &payload);
        self.buffer
            .push(self.start + Duration::from_millis(ms), &packet)
    }

    /// The n-th packet of a steady stream.
    fn push(&mut self, ms: u64, n: u16) -> Pushed {
        self.push_at(ms, n, u32::from(n) * FRAME, false)
    }

    fn pop(&mut self, ms: u64) -> Got {
        match self.buffer.pop(self.start + Duration::from_millis(ms)) {
            Popped::Frame { payload, .. } => Frame(u16::from_be_bytes([payload[0], payload[1]])),
            Popped::Lost { ticks } => Lost(ticks),
            Popped::Empty => Nothing,
        }
    }

    /// Pops every 20 ms, the first at `from_ms`.
    fn pops(&mut self, from_ms: u64, count: u64) -> Vec<Got> {
        (0..count)
            .map(|tick| self.pop(from_ms + tick * 20))
            .collect()
    }
}

fn packet(sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Packet<'_> {
    Packet {
        marker,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc: 1,
        csrcs: Csrcs::default(),
        extension: None,
        payload,
    }
}

#[test]
fn the_first_packet_waits_for_the_depth_and_the_rest_follows() {
    let mut line = Line::new();
    assert_eq!(line.pop(0), Nothing);
    line.push(0, 1);
    assert_eq!(line.pop(19), Nothing);
    assert_eq!(line.pop(20), Frame(1));
    line.push(20, 2);
    assert_eq!(line.pop(40), Frame(2));
}

#[test]
fn a_frame_is_the_packet_as_it_came() {
    let mut line = Line::new();
    let sent = Packet {
        payload_type: 8,
        ..packet(7, 99, true, b"abc")
    };
    line.buffer.push(line.start, &sent);
    let expected = Popped::Frame {
        payload: b"abc",
        timestamp: 99,
        payload_type: 8,
    };
    let due = line.start + Duration::from_millis(DEPTH_MS);
    assert_eq!(line.buffer.pop(due), expected);
}

#[test]
fn overtaken_packets_find_their_place_and_doubles_do_not() {
    let mut line = Line::new();
    assert_eq!(line.push(0, 2), Pushed::Queued);
    assert_eq!(line.push(5, 1), Pushed::Queued, "overtaken by the first");
    assert_eq!(line.push(6, 4), Pushed::Queued);
    assert_eq!(line.push(7, 4), Pushed::Duplicate);
    assert_eq!(line.push(8, 3), Pushed::Queued);
    // Due by the arrival of what came first, not of what is first.
    assert_eq!(
        line.pops(20, 5),
        [Frame(1), Frame(2), Frame(3), Frame(4), Nothing]
    );
    // Played already, so it did not come late but twice.
    assert_eq!(line.push(130, 2), Pushed::Duplicate);
}

#[test]
fn what_is_missing_is_lost_for_as_long_as_it_lasted() {
    let mut line = Line::new();
    for n in [1, 2, 5] {
        line.push(u64::from(n) * 20, n);
    }
    assert_eq!(
        line.pops(60, 3),
        [Frame(1), Frame(2), Lost(FRAME)],
        "one packet at a time"
    );
    // The second one comes just in time after all, the first one does not.
    assert_eq!(line.push(101, 4), Pushed::Queued);
    assert_eq!(line.push(102, 3), Pushed::Late);
    assert_eq!(line.pops(120, 2), [Frame(4), Frame(5)]);
}

#[test]
fn a_loss_that_was_concealed_while_nothing_was_there_is_not_concealed_again() {
    let mut line = Line::new();
    line.push(0, 1);
    line.push(20, 2);
    assert_eq!(line.pops(20, 3), [Frame(1), Frame(2), Nothing]);
    // 3 is lost; its time has passed when 4 comes.
    line.push(65, 4);
    line.push(85, 5);
    assert_eq!(line.pops(80, 2), [Frame(4), Frame(5)]);
}

#[test]
fn half_of_a_loss_that_was_concealed_leaves_the_other_half() {
    let mut line = Line::new();
    line.push(0, 1);
    line.push(20, 2);
    assert_eq!(line.pops(20, 3), [Frame(1), Frame(2), Nothing]);
    // Both 3 and 4 are lost, and only 20 ms of 40 have passed.
    line.push(75, 5);
    assert_eq!(line.pops(80, 2), [Lost(FRAME), Frame(5)]);
}

#[test]
fn after_an_underrun_the_stream_goes_on() {
    let mut line = Line::new();
    line.push(0, 1);
    assert_eq!(line.pops(20, 2), [Frame(1), Nothing]);
    line.push(55, 2);
    line.push(56, 3);
    assert_eq!(line.pops(60, 2), [Frame(2), Frame(3)]);
}

#[test]
fn a_path_that_got_longer_moves_the_play_out_point_once() {
    let mut line = Line::new();
    let mut got = Vec::new();
    for tick in 0..100_u64 {
        // From the 50th packet on, everything takes 60 ms longer.
        for n in 0..100_u16 {
            let at = u64::from(n) + if n < 50 { 0 } else { 3 };
            if at == tick {
                line.push(tick * 20, n);
            }
        }
        got.push(line.pop(tick * 20 + 1));
    }
    let silent: Vec<_> = (1..)
        .zip(&got[1..])
        .filter(|(_, got)| **got == Nothing)
        .collect();
    assert_eq!(silent.len(), 2, "of 60 ms the depth bears 20: {silent:?}");
    assert!(!got.iter().any(|got| matches!(got, Lost(_))));
    assert_eq!(got.last(), Some(&Frame(96)));
}

#[test]
fn a_marked_pause_is_no_loss_and_its_end_waits_for_the_depth() {
    let mut line = Line::new();
    for n in 1..=3 {
        line.push(u64::from(n) * 20, n);
    }
    assert_eq!(line.pops(40, 4), [Frame(1), Frame(2), Frame(3), Nothing]);
    // 100 ms of silence: the next number, a later timestamp.
    line.push_at(180, 4, 9 * FRAME, true);
    assert_eq!(line.pop(190), Nothing);
    assert_eq!(line.pop(200), Frame(4));
}

#[test]
fn a_marker_begins_a_talk_spurt_whatever_the_timestamp_says() {
    let mut line = Line::new();
    for n in 1..=3 {
        line.push(u64::from(n) * 20, n);
    }
    assert_eq!(line.pops(40, 4), [Frame(1), Frame(2), Frame(3), Nothing]);
    // 100 ms of silence, in which the sender's clock stood still.
    line.push_at(180, 4, 4 * FRAME, true);
    assert_eq!(line.pop(190), Nothing);
    assert_eq!(line.pop(200), Frame(4));
}

#[test]
fn a_listener_who_asks_a_little_early_conceals_no_sliver() {
    let mut line = Line::new();
    line.push(0, 1);
    line.push(20, 2);
    assert_eq!(line.pops(20, 3), [Frame(1), Frame(2), Nothing]);
    // 3 is lost, and a millisecond of it has not passed.
    line.push(65, 4);
    assert_eq!(line.pop(79), Frame(4));
}

#[test]
fn an_unmarked_pause_is_found_by_its_timestamps() {
    let mut line = Line::new();
    for n in 1..=3 {
        line.push(u64::from(n) * 20, n);
    }
    assert_eq!(line.pops(40, 4), [Frame(1), Frame(2), Frame(3), Nothing]);
    line.push_at(180, 4, 9 * FRAME, false);
    assert_eq!(line.pop(190), Nothing);
    assert_eq!(line.pop(200), Frame(4));
}

#[test]
fn a_short_pause_within_what_is_held_keeps_its_length() {
    let mut line = Line::with_depth(100);
    line.push(0, 1);
    line.push(20, 2);
    // 60 ms of silence, shorter than the depth: everything is here when it begins.
    line.push_at(100, 3, 6 * FRAME, false);
    line.push_at(120, 4, 7 * FRAME, false);
    assert_eq!(
        line.pops(100, 7),
        [
            Frame(1),
            Frame(2),
            Nothing,
            Nothing,
            Nothing,
            Frame(3),
            Frame(4)
        ]
    );
}

#[test]
fn a_pause_whose_first_packet_is_lost_does_not_delay_what_follows() {
    let mut line = Line::new();
    for n in 1..=3 {
        line.push(u64::from(n) * 20, n);
    }
    line.pops(40, 3);
    assert_eq!(line.pops(100, 20), [Nothing; 20]);
    // 4, with the marker, is lost; 400 ms have passed.
    line.push_at(520, 5, 25 * FRAME, false);
    line.push_at(540, 6, 26 * FRAME, false);
    assert_eq!(line.pops(540, 2), [Frame(5), Frame(6)]);
}

#[test]
fn a_sender_that_pauses_and_resumes_with_the_timestamps_it_stopped_at_is_heard() {
    let mut line = Line::new();
    for n in 1..=3 {
        line.push(u64::from(n) * 20, n);
    }
    line.pops(40, 3);
    assert_eq!(line.pops(100, 500), [Nothing; 500]);
    assert_eq!(line.push(10_105, 4), Pushed::Queued);
    line.push(10_125, 5);
    assert_eq!(line.pop(10_120), Nothing);
    assert_eq!(line.pops(10_125, 2), [Frame(4), Frame(5)]);
}

#[test]
fn packets_of_any_duration_follow_each_other() {
    let mut line = Line::with_depth(60);
    // 20, 20, 60, 60, 10 and 10 ms; the listener asks when what he has runs out.
    let packets = [
        (0, 0),
        (20, 160),
        (40, 320),
        (100, 800),
        (160, 1_280),
        (170, 1_360),
    ];
    for (sequence, (_, timestamp)) in (0..).zip(packets) {
        line.push_at(0, sequence, timestamp, false);
    }
    let got: Vec<_> = packets.iter().map(|(ms, _)| line.pop(60 + ms)).collect();
    assert_eq!(got, (0..6).map(Frame).collect::<Vec<_>>());
}

#[test]
fn several_short_packets_fill_one_frame_of_the_listener() {
    let mut line = Line::new();
    for n in 0..8_u16 {
        line.push_at(u64::from(n) * 5, n, u32::from(n) * 40, false);
    }
    let got: Vec<_> = (0..8).map(|n| line.pop(35 + n / 4 * 20)).collect();
    assert_eq!(got, (0..8).map(Frame).collect::<Vec<_>>());
}

#[test]
fn a_sender_that_counts_anew_is_followed() {
    let mut line = Line::new();
    line.push(0, 1);
    assert_eq!(line.pop(20), Frame(1));
    assert_eq!(line.push(20, 30_000), Pushed::Resynced);
    assert_eq!(line.pop(40), Frame(30_000));
    // The same numbers, another timeline, on or back.
    assert_eq!(
        line.push_at(40, 30_001, 0x8000_0000, false),
        Pushed::Resynced
    );
    assert_eq!(line.pop(60), Frame(30_001));
    assert_eq!(line.push_at(60, 30_002, 5, false), Pushed::Resynced);
    assert_eq!(line.pop(80), Frame(30_002));
    // A step within reason is a pause, which nobody waits out.
    assert_eq!(line.push_at(80, 30_003, 30 * 8_000, false), Pushed::Queued);
    assert_eq!(line.pop(100), Frame(30_003));
}

#[test]
fn a_sender_that_counts_anew_nearby_is_followed_after_a_few() {
    let mut line = Line::new();
    // Its packets up to 13 were lost, so that none of the new ones was here before.
    for n in 14..=16 {
        line.push(u64::from(n) * 20, n);
        line.pop(u64::from(n) * 20 + 20);
    }
    let pushed: Vec<_> = (1..=8).map(|n| line.push(400, n)).collect();
    assert_eq!(pushed[..7], [Pushed::Late; 7]);
    assert_eq!(pushed[7], Pushed::Resynced);
    assert_eq!(line.push(401, 9), Pushed::Queued);
    assert_eq!(line.pops(420, 2), [Frame(8), Frame(9)]);
}

#[test]
fn a_burst_of_duplicates_does_not_turn_back_the_stream() {
    let mut line = Line::new();
    for n in 0..20 {
        line.push(u64::from(n) * 20, n);
        line.pop(u64::from(n) * 20 + 20);
    }
    for n in 0..20 {
        assert_eq!(line.push(410, n), Pushed::Duplicate, "{n}");
    }
    line.push(411, 20);
    assert_eq!(line.pop(420), Frame(20));
}

#[test]
fn other_payloads_leave_no_gap() {
    let mut line = Line::new();
    line.buffer.skip(0);
    line.push(0, 1);
    line.push(20, 2);
    assert_eq!(line.pops(20, 2), [Frame(1), Frame(2)]);
    // 100 ms of telephone events, in disorder and twice.
    for n in [3, 5, 4, 4, 6, 7] {
        line.buffer.skip(n);
        assert_eq!(line.pop(60), Nothing);
    }
    line.push(140, 8);
    line.push(160, 9);
    assert_eq!(line.pop(150), Nothing);
    assert_eq!(line.pops(160, 2), [Frame(8), Frame(9)]);
    // One that is missing among them is lost, as far as its time has not passed.
    line.buffer.skip(10);
    line.push(180, 12);
    assert_eq!(line.pop(200), Lost(2 * FRAME));
    assert_eq!(line.pop(240), Frame(12));
}

#[test]
fn an_event_of_any_length_is_no_break() {
    let mut line = Line::new();
    line.push(0, 1);
    assert_eq!(line.pop(20), Frame(1));
    for n in 2..300 {
        line.buffer.skip(n);
        assert_eq!(line.pop(u64::from(n) * 20), Nothing);
    }
    assert_eq!(line.push(6_000, 300), Pushed::Queued);
    assert_eq!(line.pop(6_020), Frame(300));
}

#[test]
fn delay_that_has_grown_without_need_is_taken_back_packet_by_packet() {
    let mut line = Line::new();
    // Ten packets wait behind one another: a stall of the network that has just ended.
    for n in 0..10 {
        line.push(0, n);
    }
    for n in 10..500_u64 {
        let ms = (n - 9) * 20;
        line.pop(ms);
        line.push(ms, n as u16);
        // At most one a second.
        assert!(line.buffer.dropped() <= ms / 1_000);
    }
    assert!(line.buffer.held() <= 3, "{} wait", line.buffer.held());
    assert_eq!(line.buffer.dropped(), 7);
}

#[test]
fn delay_beyond_reason_is_taken_back_at_once() {
    let mut line = Line::new();
    for n in 0..40 {
        line.push(0, n);
    }
    // 800 ms wait; the newest is to wait 20 ms, which is the depth.
    line.push(20, 40);
    assert_eq!(line.pops(20, 2), [Frame(39), Frame(40)]);
    assert_eq!(line.buffer.dropped(), 39);
}

#[test]
fn a_listener_who_was_away_comes_back_to_the_present() {
    let mut line = Line::new();
    for n in 0..1_000 {
        line.push(u64::from(n) * 20, n);
        assert!(line.buffer.held() <= 64);
    }
    assert_eq!(line.pops(20_000, 2), [Frame(998), Frame(999)]);
}

#[test]
fn the_time_a_listener_was_away_is_not_lost() {
    let mut line = Line::new();
    for n in 1..=2 {
        line.push(u64::from(n) * 20, n);
    }
    assert_eq!(line.pops(40, 2), [Frame(1), Frame(2)]);
    // Both on hold for 50 s; each kept its clock, and 3 was lost.
    for n in 4..=6 {
        line.push_at(
            50_000 + u64::from(n) * 20,
            n,
            (2_500 + u32::from(n)) * FRAME,
            false,
        );
    }
    let got = line.pops(50_120, 3);
    assert!(!got.iter().any(|got| matches!(got, Lost(_))), "{got:?}");
    assert!(got.contains(&Frame(6)), "{got:?}");
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
                Frame(_) => played += 1,
                Lost(_) | Nothing => gaps += 1,
            }
        }
        // 720 ms of drift are 36 packets, either dropped or waited for.
        assert!(
            played >= 180_000 - 40 && gaps < 40 && line.buffer.dropped() < 40,
            "{ppm} ppm: {played} played, {gaps} gaps, {} dropped",
            line.buffer.dropped()
        );
        assert!(line.buffer.held() < 6);
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
                Frame(sequence.wrapping_sub(1))
            );
        }
    }
}

#[test]
fn a_pause_is_not_taken_for_a_long_packet() {
    let mut line = Line::with_depth(200);
    for n in 0..10 {
        line.push(u64::from(n) * 20, n);
    }
    // 120 ms on: were that the duration of all that waits, it would be far too much.
    line.push_at(300, 10, 15 * FRAME, false);
    assert_eq!(line.pops(300, 2), [Frame(0), Frame(1)]);
    assert_eq!(line.buffer.dropped(), 0);
}

#[test]
fn what_is_too_long_is_not_kept() {
    let mut line = Line::new();
    let payload = [0; PAYLOAD_LEN_MAX + 1];
    let pushed = [PAYLOAD_LEN_MAX + 1, PAYLOAD_LEN_MAX].map(|len| {
        line.buffer
            .push(line.start, &packet(1, 1, false, &payload[..len]))
    });
    assert_eq!(pushed, [Pushed::Overflow, Pushed::Queued]);
}
