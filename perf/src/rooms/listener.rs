//! A listener who looks into every packet: who is in it, and how long it took.

use std::time::Instant;

use engine::codec::{Codec, Decode};
use hdrhistogram::Histogram;
use mixer_simd::Kernels;

use super::tone::{self, Detector};

/// Delays beyond a minute are not told apart.
const DELAY_US_MAX: u64 = 60_000_000;

/// Share of a talker's amplitude above which he is in a packet: half of it remains in the packets
/// where his pitch changes.
const PRESENT: f64 = 0.4;

/// Share of a talker's amplitude above which he hears himself.
const ECHO: f64 = 0.1;

/// Share of a burst's amplitude at which it has arrived.
const ARRIVED: f64 = 0.25;

/// What all listeners learn together: delays, and the bursts under way.
pub(super) struct Heard {
    talkers: Vec<Pitches>,
    amplitude: f64,
    /// By room, then talker: number and start of the latest burst.
    bursts: Vec<[Option<(u64, Instant)>; tone::TALKERS_MAX]>,
    pub(super) delays_us: Histogram<u64>,
    /// Packets in which a talker of the room was missing.
    pub(super) missing: u64,
    /// Packets in which a listener heard himself.
    pub(super) echoes: u64,
}

struct Pitches {
    tone: Detector,
    burst: Detector,
}

impl Heard {
    pub(super) fn new(talkers: usize, rooms: usize) -> Self {
        let pitches = |talker| Pitches {
            tone: Detector::new(tone::tone_hz(talker)),
            burst: Detector::new(tone::burst_hz(talker)),
        };
        Self {
            talkers: (0..talkers).map(pitches).collect(),
            amplitude: tone::amplitude(talkers.max(1)),
            bursts: vec![[None; tone::TALKERS_MAX]; rooms],
            delays_us: Histogram::new_with_bounds(1, DELAY_US_MAX, 3)
                .expect("bounds and precision are valid"),
            missing: 0,
            echoes: 0,
        }
    }

    /// A packet of a talker's burst leaves; the first one begins it.
    pub(super) fn bursting(&mut self, now: Instant, room: usize, talker: usize, number: u64) {
        let burst = &mut self.bursts[room][talker];
        if burst.is_none_or(|(known, _)| known != number) {
            *burst = Some((number, now));
        }
    }
}

pub(super) struct Listener {
    decoder: Box<dyn Decode>,
    pcm: Vec<i16>,
    /// Latest burst got from each talker.
    seen: [u64; tone::TALKERS_MAX],
}

impl Listener {
    pub(super) fn new(codec: Codec, kernels: Kernels) -> Self {
        Self {
            decoder: codec.decoder(kernels),
            pcm: Vec::new(),
            seen: [0; tone::TALKERS_MAX],
        }
    }

    /// Looks into a packet that came to a member of `room`, who himself may be a talker.
    pub(super) fn listen(
        &mut self,
        now: Instant,
        payload: &[u8],
        room: usize,
        himself: Option<usize>,
        counting: bool,
        heard: &mut Heard,
    ) {
        self.pcm.clear();
        self.decoder.decode(payload, &mut self.pcm);
        let Heard {
            talkers,
            amplitude,
            bursts,
            delays_us,
            missing,
            echoes,
        } = heard;
        let mut somebody_missing = false;
        for (talker, pitches) in talkers.iter().enumerate() {
            let tone = pitches.tone.amplitude(&self.pcm);
            let burst = pitches.burst.amplitude(&self.pcm);
            if himself == Some(talker) {
                *echoes += u64::from(counting && tone + burst > ECHO * *amplitude);
                continue;
            }
            somebody_missing |= tone + burst < PRESENT * *amplitude;
            if burst > ARRIVED * *amplitude
                && let Some((number, since)) = bursts[room][talker]
                && number != self.seen[talker]
            {
                // The first burst of a listener may have begun before he was there.
                if self.seen[talker] != 0 && counting {
                    let delay = now.saturating_duration_since(since);
                    delays_us.saturating_record(delay.as_micros() as u64);
                }
                self.seen[talker] = number;
            }
        }
        *missing += u64::from(counting && somebody_missing);
    }
}
