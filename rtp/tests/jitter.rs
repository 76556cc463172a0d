//! The jitter buffer under any network.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rtp::{JitterBuffer, JitterConfig, Packet, Popped, Pushed};

const FRAME: u32 = 160;

fn packet(sequence: u16, payload: &[u8]) -> Packet<'_> {
    let timestamp = u32::from(sequence) * FRAME;
    Packet {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc: 1,
        csrcs: &[],
        extension: None,
        payload,
    }
}

fn number(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[0], payload[1]])
}

proptest! {
    /// Delays below the depth reorder packets and lose none.
    #[test]
    fn below_the_depth_everything_is_played_once_and_in_order(delays in proptest::collection::vec(0_u64..55, 1..200)) {
        let depth = Duration::from_millis(60);
        let mut buffer = JitterBuffer::new(JitterConfig { depth, clock_rate: 8_000 });
        let start = Instant::now();
        let mut arrivals: Vec<(u64, u16)> = delays.iter().enumerate().map(|(n, delay)| (n as u64 * 20 + delay, n as u16)).collect();
        // The first one is prompt: the play-out point is anchored to it.
        arrivals[0].0 = 0;
        arrivals.sort();
        let mut arrivals = arrivals.into_iter().peekable();
        let mut played = Vec::new();
        for tick in 0..(delays.len() as u64 + 10) {
            let ms = tick * 20 + 1;
            while let Some((_, n)) = arrivals.next_if(|(at, _)| *at <= ms) {
                buffer.push(start + Duration::from_millis(ms), &packet(n, &n.to_be_bytes()));
            }
            match buffer.pop(start + Duration::from_millis(ms)) {
                Popped::Frame { payload, .. } => played.push(number(payload)),
                Popped::Lost { .. } => prop_assert!(false, "nothing was lost"),
                Popped::Empty => {}
            }
        }
        prop_assert_eq!(played, (0..delays.len() as u16).collect::<Vec<_>>());
    }

    /// Whatever comes: nothing twice, nothing backwards between restarts.
    #[test]
    fn nothing_is_played_twice(operations in proptest::collection::vec((any::<bool>(), 0_u16..60, 0_u64..50), 0..300)) {
        let mut buffer = JitterBuffer::new(JitterConfig { depth: Duration::from_millis(20), clock_rate: 8_000 });
        let mut now = Instant::now();
        let mut played = HashSet::new();
        let mut last = None;
        for (push, n, wait) in operations {
            now += Duration::from_millis(wait);
            if push {
                let pushed = buffer.push(now, &packet(n, &n.to_be_bytes()));
                if pushed == Pushed::Resynced {
                    played.clear();
                    last = None;
                }
            } else if let Popped::Frame { payload, .. } = buffer.pop(now) {
                let n = number(payload);
                prop_assert!(played.insert(n), "{n} was played before");
                prop_assert!(last.is_none_or(|last| last < n));
                last = Some(n);
            }
        }
    }

    #[test]
    fn arbitrary_packets_never_panic(packets in proptest::collection::vec((any::<u16>(), any::<u32>(), any::<bool>(), 0_usize..300, 0_u64..500), 0..200)) {
        let mut buffer = JitterBuffer::new(JitterConfig { depth: Duration::from_millis(20), clock_rate: 8_000 });
        let mut now = Instant::now();
        for (sequence, timestamp, marker, len, wait) in packets {
            now += Duration::from_millis(wait);
            let payload = vec![0; len];
            let packet = Packet { marker, payload_type: 0, sequence, timestamp, ssrc: 1, csrcs: &[], extension: None, payload: &payload };
            buffer.push(now, &packet);
            let _ = buffer.pop(now);
        }
    }
}
