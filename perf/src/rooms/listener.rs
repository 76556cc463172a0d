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
pub(crate) struct Heard {
    talkers: Vec<Pitches>,
    amplitude: f64,
    /// By room, then talker: the latest burst.
    bursts: Vec<[Option<Burst>; tone::TALKERS_MAX]>,
    /// From talkers to listeners on the same server.
    pub(crate) delays_us: Histogram<u64>,
    /// From talkers to listeners on another server.
    pub(crate) far_delays_us: Histogram<u64>,
    /// Packets in which a talker of the room was missing.
    pub(crate) missing: u64,
    /// Packets in which a listener heard himself.
    pub(crate) echoes: u64,
}

#[derive(Clone, Copy)]
struct Burst {
    number: u64,
    since: Instant,
    /// The server it was sent to.
    home: usize,
}

/// Who listens: a member of a room, who himself may be a talker, on a server.
#[derive(Clone, Copy)]
pub(super) struct Ear {
    pub(super) room: usize,
    pub(super) himself: Option<usize>,
    pub(super) home: usize,
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
            delays_us: delays(),
            far_delays_us: delays(),
            missing: 0,
            echoes: 0,
        }
    }

    /// Forgets all that was measured.
    pub(crate) fn clear(&mut self) {
        self.delays_us.reset();
        self.far_delays_us.reset();
        self.missing = 0;
        self.echoes = 0;
    }

    /// A packet of a talker's burst leaves; the first one begins it.
    pub(super) fn bursting(
        &mut self,
        now: Instant,
        room: usize,
        talker: usize,
        home: usize,
        number: u64,
    ) {
        let burst = &mut self.bursts[room][talker];
        if burst.is_none_or(|burst| burst.number != number) {
            *burst = Some(Burst {
                number,
                since: now,
                home,
            });
        }
    }
}

fn delays() -> Histogram<u64> {
    Histogram::new_with_bounds(1, DELAY_US_MAX, 3).expect("bounds and precision are valid")
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

    /// Looks into a packet that came.
    pub(super) fn listen(
        &mut self,
        now: Instant,
        payload: &[u8],
        ear: Ear,
        counting: bool,
        heard: &mut Heard,
    ) {
        let Ear {
            room,
            himself,
            home,
        } = ear;
        self.pcm.clear();
        self.decoder.decode(payload, &mut self.pcm);
        let Heard {
            talkers,
            amplitude,
            bursts,
            delays_us,
            far_delays_us,
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
                && let Some(burst) = bursts[room][talker]
                && burst.number != self.seen[talker]
            {
                // The first burst of a listener may have begun before he was there.
                if self.seen[talker] != 0 && counting {
                    let delay = now.saturating_duration_since(burst.since);
                    let delays_us = match burst.home == home {
                        true => &mut *delays_us,
                        false => &mut *far_delays_us,
                    };
                    delays_us.saturating_record(delay.as_micros() as u64);
                }
                self.seen[talker] = burst.number;
            }
        }
        *missing += u64::from(counting && somebody_missing);
    }
}
