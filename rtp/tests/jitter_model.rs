//! The jitter buffer under any network, beside a model that cannot be wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rtp::{Csrcs, JitterBuffer, JitterConfig, Packet, Popped, Pushed};

const FRAME: u32 = 160;

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

fn buffer(depth_ms: u64) -> JitterBuffer {
    JitterBuffer::new(JitterConfig {
        depth: Duration::from_millis(depth_ms),
        clock_rate: 8_000,
    })
}

#[derive(Clone, Debug)]
enum Operation {
    /// The packet this far from the newest sent, with its timestamp shifted by a pause before it.
    Push {
        step: i64,
        pause: u32,
        marker: bool,
        len: usize,
    },
    /// A packet without audio.
    Skip {
        step: i64,
    },
    Pop,
    /// Another stream.
    Reset,
}

fn operation() -> impl Strategy<Value = (Operation, u64)> {
    let step = prop_oneof![20 => Just(1_i64), 6 => -6_i64..8, 1 => -70_i64..70];
    let pause = prop_oneof![15 => Just(0_u32), 1 => 0_u32..20_000, 1 => any::<u32>()];
    let push = (step.clone(), pause, prop::bool::weighted(0.05), 0_usize..40).prop_map(
        |(step, pause, marker, len)| Operation::Push {
            step,
            pause,
            marker,
            len,
        },
    );
    let operation = prop_oneof![
        20 => push,
        3 => step.prop_map(|step| Operation::Skip { step }),
        20 => Just(Operation::Pop),
        1 => Just(Operation::Reset),
    ];
    let wait = prop_oneof![10 => 0_u64..12, 3 => 10_u64..50, 1 => 0_u64..1_500];
    (operation, wait)
}

/// What the buffer has taken and not given: payloads by number, in the order they must be played.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<i64, Vec<u8>>,
    /// Everything up to here has been played or passed.
    played: Option<i64>,
    dropped: u64,
}

impl Model {
    fn forget(&mut self) {
        self.dropped += self.waiting.len() as u64;
        self.waiting.clear();
        self.played = None;
    }

    /// What was older than the packet played has been dropped as excess.
    fn play(&mut self, number: i64) -> Option<Vec<u8>> {
        let later = self.waiting.split_off(&number);
        self.dropped += self.waiting.len() as u64;
        self.waiting = later;
        self.played = Some(number);
        self.waiting.remove(&number)
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        // A case that failed becomes a test with a name.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every packet taken is played once, is waiting, or has been counted as dropped; nothing is played
    /// twice or backwards; and no more is held than there is room for.
    #[test]
    fn every_packet_is_accounted_for(
        depth_ms in 0_u64..120,
        first in any::<u16>(),
        operations in prop::collection::vec(operation(), 0..400),
    ) {
        let mut buffer = buffer(depth_ms);
        let mut model = Model::default();
        let mut now = Instant::now();
        let (mut sent, mut pauses, mut serial) = (i64::from(first) + (1 << 20), 0_u32, 0_u32);
        for (operation, wait) in operations {
            now += Duration::from_millis(wait);
            match operation {
                Operation::Push { step, pause, marker, len } => {
                    let number = sent + step;
                    sent = sent.max(number);
                    pauses = pauses.wrapping_add(pause);
                    serial += 1;
                    let mut payload = vec![len as u8; len];
                    payload.extend(number.to_be_bytes());
                    payload.extend(serial.to_be_bytes());
                    let timestamp = (number as u32).wrapping_mul(FRAME).wrapping_add(pauses);
                    let pushed = buffer.push(now, &packet(number as u16, timestamp, marker, &payload));
                    let was_here = model.waiting.contains_key(&number);
                    match pushed {
                        Pushed::Resynced => {
                            model.forget();
                            model.waiting.insert(number, payload);
                        }
                        Pushed::Queued => {
                            prop_assert!(model.played.is_none_or(|played| played < number));
                            prop_assert!(model.waiting.insert(number, payload).is_none());
                        }
                        Pushed::Late => prop_assert!(!was_here),
                        Pushed::Duplicate => {}
                        Pushed::Overflow => prop_assert!(false, "short enough"),
                    }
                }
                Operation::Skip { step } => {
                    sent = sent.max(sent + step);
                    buffer.skip((sent + step) as u16);
                }
                Operation::Reset => {
                    buffer.reset();
                    model.forget();
                }
                Operation::Pop => match buffer.pop(now) {
                    Popped::Frame { payload, .. } => {
                        let number = payload[payload.len() - 12..payload.len() - 4].try_into().map(i64::from_be_bytes);
                        let number = number.expect("eight octets");
                        prop_assert!(model.played.is_none_or(|played| played < number), "{number} after {:?}", model.played);
                        let payload = payload.to_vec();
                        prop_assert_eq!(model.play(number), Some(payload));
                    }
                    // No loss is longer than the packets that fit into the window.
                    Popped::Lost { ticks } => prop_assert!((1..=64 * 960).contains(&ticks), "{ticks}"),
                    Popped::Empty => {}
                }
            }
            // Excess that was dropped while nothing was given is the oldest.
            while model.dropped < buffer.dropped() && model.waiting.len() > buffer.held() {
                let (number, _) = model.waiting.pop_first().expect("more than held");
                model.played = Some(number);
                model.dropped += 1;
            }
            prop_assert_eq!(model.waiting.len(), buffer.held());
            prop_assert_eq!(model.dropped, buffer.dropped());
            prop_assert!(buffer.held() <= 64);
        }
    }

    /// Without loss, and with delays below the depth, every packet is played exactly once, in order, and
    /// nothing is missed between the first and the last.
    #[test]
    fn below_the_depth_everything_is_played_once_and_in_order(
        first in any::<u16>(),
        ptime in prop::sample::select(vec![10_u64, 20, 30, 60]),
        first_delay in 0_u64..=40,
        delays in prop::collection::vec((0_u64..55, prop::bool::weighted(0.1)), 1..200),
    ) {
        // Anchored to a first packet that was prompt, the depth must bear the difference; to one that was
        // slow, others wait longer, but not so much longer that it were excess.
        let mut buffer = buffer(60);
        let start = Instant::now();
        let mut arrivals: Vec<(u64, u16)> = Vec::new();
        for (n, (delay, twice)) in delays.iter().enumerate() {
            let sent = n as u64 * ptime;
            let delay = if n == 0 { first_delay } else { *delay };
            arrivals.push((sent + delay, n as u16));
            if *twice {
                arrivals.push((sent + delay + 3, n as u16));
            }
        }
        arrivals.sort();
        let mut arrivals = arrivals.into_iter().peekable();
        let mut played = Vec::new();
        // Samples the listener has; he asks for more when a frame of 20 ms needs them.
        let mut has_ms = 0;
        let mut started = false;
        for ms in 0..delays.len() as u64 * ptime + 200 {
            let now = start + Duration::from_millis(ms);
            while let Some((_, n)) = arrivals.next_if(|(at, _)| *at <= ms) {
                let timestamp = u32::from(n) * ptime as u32 * 8;
                let pushed = buffer.push(now, &packet(first.wrapping_add(n), timestamp, false, &n.to_be_bytes()));
                prop_assert!(matches!(pushed, Pushed::Queued | Pushed::Duplicate), "{n}: {pushed:?}");
            }
            if ms % 20 != 7 {
                continue;
            }
            while has_ms < 20 {
                match buffer.pop(now) {
                    Popped::Frame { payload, .. } => {
                        played.push(u16::from_be_bytes([payload[0], payload[1]]));
                        has_ms += ptime;
                        started = true;
                    }
                    Popped::Lost { .. } => prop_assert!(false, "nothing was lost"),
                    Popped::Empty => {
                        prop_assert!(!started || played.len() == delays.len(), "silence after {played:?}");
                        break;
                    }
                }
            }
            has_ms = has_ms.saturating_sub(20);
        }
        prop_assert_eq!(played, (0..delays.len() as u16).collect::<Vec<_>>());
        prop_assert_eq!(buffer.dropped(), 0);
    }

    /// With loss on top, exactly what was lost is missing, and the listener is told for how long.
    #[test]
    fn what_is_lost_is_told_and_nothing_else(
        delays in prop::collection::vec((0_u64..35, prop::bool::weighted(0.15)), 2..200),
    ) {
        let mut buffer = buffer(40);
        let start = Instant::now();
        let last = delays.len() - 1;
        // The first two and the last arrive, so that the line begins and ends, and a duration is known.
        let lost = |n: usize| n > 1 && n < last && delays[n].1;
        let mut arrivals: Vec<(u64, u16)> = delays
            .iter()
            .enumerate()
            .filter(|(n, _)| !lost(*n))
            .map(|(n, (delay, _))| (n as u64 * 20 + if n < 2 { 0 } else { *delay }, n as u16))
            .collect();
        arrivals.sort();
        let mut arrivals = arrivals.into_iter().peekable();
        let (mut played, mut told, mut silent) = (Vec::new(), 0, 0);
        for tick in 0..delays.len() as u64 + 10 {
            let ms = tick * 20 + 1;
            let now = start + Duration::from_millis(ms);
            while let Some((_, n)) = arrivals.next_if(|(at, _)| *at <= ms) {
                buffer.push(now, &packet(n, u32::from(n) * FRAME, false, &n.to_be_bytes()));
            }
            match buffer.pop(now) {
                Popped::Frame { payload, .. } => played.push(usize::from(u16::from_be_bytes([payload[0], payload[1]]))),
                Popped::Lost { ticks } => told += ticks,
                Popped::Empty if !played.is_empty() && played.last() != Some(&last) => silent += FRAME,
                Popped::Empty => {}
            }
        }
        let missing = (0..=last).filter(|&n| lost(n)).count() as u32;
        prop_assert_eq!(&played, &(0..=last).filter(|&n| !lost(n)).collect::<Vec<_>>());
        // A loss shows as such when a later packet is here, else as silence for as long.
        prop_assert_eq!(told + silent, missing * FRAME, "{} lost, {} silent", told, silent);
    }

    #[test]
    fn arbitrary_packets_never_panic(
        packets in prop::collection::vec((any::<u16>(), any::<u32>(), any::<bool>(), 0_usize..300, 0_u64..500), 0..200),
    ) {
        let mut buffer = buffer(20);
        let mut now = Instant::now();
        for (sequence, timestamp, marker, len, wait) in packets {
            now += Duration::from_millis(wait);
            let payload = vec![0; len];
            buffer.push(now, &packet(sequence, timestamp, marker, &payload));
            let _ = buffer.pop(now);
            prop_assert!(buffer.held() <= 64);
        }
    }
}
