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

/// Share of a talker's amplitude above which he may hear himself. Pitches lie 100 Hz apart, so a packet in
/// which another talker's pitch changes, or that is concealed in part, can have up to a third of a
/// pitch that nobody sends.
const ECHO: f64 = 0.1;

/// That does not last: who is in so many packets in a row, none of them with a change, is there.
const ECHO_PACKETS: u32 = 2;

/// Share of a burst's amplitude at which it has arrived.
const ARRIVED: f64 = 0.25;

/// What all listeners learn together: delays, and the bursts under way.
pub(crate) struct Heard {
    talkers: Vec<Pitches>,
    amplitude: f64,
    /// By room, then talker: the latest burst.
    bursts: Vec<[Option<Burst>; tone::TALKERS_MAX]>,
    /// By room, then talker: who listens to him.
    ears: Vec<[u64; tone::TALKERS_MAX]>,
    /// Delays there would be if every listener got every burst that was sent.
    pub(crate) bursts_expected: u64,
    /// From talkers to listeners on the same server.
    pub(crate) delays_us: Histogram<u64>,
    /// From talkers to listeners on another server.
    pub(crate) far_delays_us: Histogram<u64>,
    /// Packets in which a talker of the room was missing.
    pub(crate) missing: u64,
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
            ears: vec![[0; tone::TALKERS_MAX]; rooms],
            bursts_expected: 0,
            delays_us: delays(),
            far_delays_us: delays(),
            missing: 0,
        }
    }

    /// Forgets all that was measured.
    pub(crate) fn clear(&mut self) {
        self.delays_us.reset();
        self.far_delays_us.reset();
        self.missing = 0;
        self.bursts_expected = 0;
    }

    /// One more listens to all talkers of his room but himself, or one less.
    pub(super) fn listens(&mut self, ear: Ear, yes: bool) {
        for (talker, ears) in self.ears[ear.room].iter_mut().enumerate() {
            if ear.himself != Some(talker) {
                *ears = if yes { *ears + 1 } else { *ears - 1 };
            }
        }
    }

    /// A packet of a talker's burst leaves; the first one begins it. A burst that is heard is the latest
    /// one: who is more than a second late is taken for a second less.
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
            self.bursts_expected += self.ears[room][talker];
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
    /// Whose burst was louder than his tone in the packet before, a bit each.
    bursting: u32,
    /// Packets in a row, up to now, with his own pitch and without a change of the others'.
    own_pitch: u32,
    /// Packets in which he heard himself.
    pub(super) echoes: u64,
}

impl Listener {
    pub(super) fn new(codec: Codec, kernels: Kernels) -> Self {
        Self {
            decoder: codec.decoder(kernels),
            pcm: Vec::new(),
            seen: [0; tone::TALKERS_MAX],
            bursting: 0,
            own_pitch: 0,
            echoes: 0,
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
            ..
        } = heard;
        let mut somebody_missing = false;
        let (mut bursting, mut hears_himself) = (0, false);
        for (talker, pitches) in talkers.iter().enumerate() {
            let tone = pitches.tone.amplitude(&self.pcm);
            let burst = pitches.burst.amplitude(&self.pcm);
            if himself == Some(talker) {
                hears_himself = tone + burst > ECHO * *amplitude;
                continue;
            }
            bursting |= u32::from(burst > tone) << talker;
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
        let unchanged = std::mem::replace(&mut self.bursting, bursting) == bursting;
        self.own_pitch = match hears_himself && unchanged {
            true => self.own_pitch.saturating_add(1),
            false => 0,
        };
        self.echoes += u64::from(counting && self.own_pitch >= ECHO_PACKETS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALKERS: usize = 2;
    const LEN: usize = 160;

    /// Packets of a mix in which the pitches change from one to the next at that sample.
    struct Room {
        heard: Heard,
        listener: Listener,
    }

    impl Room {
        fn new() -> Self {
            Self {
                heard: Heard::new(TALKERS, 1),
                listener: Listener::new(Codec::Pcmu, Kernels::detect()),
            }
        }

        /// The first talker gets this: a sum of pitches and their amplitudes until a sample, then another.
        fn hear(&mut self, until: usize, first: &[(f64, f64)], then: &[(f64, f64)]) {
            let sample = |i: usize| {
                let pitches = if i < until { first } else { then };
                let wave = |&(hz, amplitude): &(f64, f64)| {
                    amplitude * (std::f64::consts::TAU * hz * i as f64 / 8_000.0).sin()
                };
                pitches.iter().map(wave).sum::<f64>() as i16
            };
            let pcm: Vec<i16> = (0..LEN).map(sample).collect();
            let mut payload = Vec::new();
            Codec::Pcmu
                .encoder(Kernels::detect())
                .encode(&pcm, &mut payload);
            let ear = Ear {
                room: 0,
                himself: Some(0),
                home: 0,
            };
            let Self { heard, listener } = self;
            listener.listen(Instant::now(), &payload, ear, true, heard);
        }
    }

    #[test]
    fn another_talkers_change_of_pitch_is_no_echo() {
        let full = tone::amplitude(TALKERS);
        let (tone, burst) = ([(tone::tone_hz(1), full)], [(tone::burst_hz(1), full)]);
        let mut room = Room::new();
        for change in (0..LEN).step_by(10) {
            // His tone, a packet with both of his pitches, his burst; and back.
            for (first, then) in [(&tone, &burst), (&burst, &tone)] {
                room.hear(LEN, first, first);
                room.hear(change, first, then);
                room.hear(LEN, then, then);
            }
        }
        assert_eq!(room.listener.echoes, 0);
    }

    #[test]
    fn who_is_in_what_he_gets_hears_himself() {
        let full = tone::amplitude(TALKERS);
        let other = (tone::tone_hz(1), full);
        let both = [other, (tone::tone_hz(0), 0.2 * full)];
        let mut room = Room::new();
        room.hear(LEN, &[other], &[other]);
        // What is in one packet only may be an artefact of the packet.
        for echoes in 0..10 {
            room.hear(LEN, &both, &both);
            assert_eq!(room.listener.echoes, echoes);
        }
        room.hear(LEN, &[other], &[other]);
        room.hear(LEN, &both, &both);
        assert_eq!(room.listener.echoes, 9);
    }
}
