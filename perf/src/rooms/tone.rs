//! Pitches and their detection.

use engine::codec::Codec;
use engine::random::Random;
use mixer_simd::Kernels;

use super::RATE;

/// Each talker has two pitches of his own below the telephone band's end.
pub(crate) const TALKERS_MAX: usize = 8;

/// A talker's usual pitch is this plus 100 Hz times his place, and his burst's likewise.
const TONE_HZ: f64 = 400.0;
const BURST_HZ: f64 = 1_400.0;
const STEP_HZ: f64 = 100.0;

/// Together the talkers stay below overload, so that no limiter has to change what is measured.
const AMPLITUDE_OF_ALL: f64 = 28_000.0;
const AMPLITUDE_MAX: f64 = 8_000.0;

pub(super) fn amplitude(talkers: usize) -> f64 {
    (AMPLITUDE_OF_ALL / talkers as f64).min(AMPLITUDE_MAX)
}

pub(super) fn tone_hz(talker: usize) -> f64 {
    TONE_HZ + STEP_HZ * talker as f64
}

pub(super) fn burst_hz(talker: usize) -> f64 {
    BURST_HZ + STEP_HZ * talker as f64
}

/// One packet's payload of a pitch. Pitches are multiples of 100 Hz, so every packet of 10 ms or a
/// multiple is the same.
pub(super) fn payload(
    codec: Codec,
    kernels: Kernels,
    hz: f64,
    amplitude: f64,
    samples: usize,
) -> Vec<u8> {
    let sample = |i: usize| {
        (amplitude * (std::f64::consts::TAU * hz * i as f64 / f64::from(RATE)).sin()) as i16
    };
    let pcm: Vec<i16> = (0..samples).map(sample).collect();
    let mut payload = Vec::new();
    codec.encoder(kernels).encode(&pcm, &mut payload);
    payload
}

/// One packet's payload of white noise at about -65 dBov: a quiet room, and nobody talking.
pub(super) fn noise(codec: Codec, kernels: Kernels, random: u64, samples: usize) -> Vec<u8> {
    const AMPLITUDE: i64 = 32;
    let mut random = Random::new(random);
    let sample = |_| ((random.next_u64() >> 33) as i64 % (2 * AMPLITUDE + 1) - AMPLITUDE) as i16;
    let pcm: Vec<i16> = (0..samples).map(sample).collect();
    let mut payload = Vec::new();
    codec.encoder(kernels).encode(&pcm, &mut payload);
    payload
}

/// Looks for one pitch (Goertzel's algorithm).
#[derive(Clone, Copy, Debug)]
pub(super) struct Detector {
    coefficient: f64,
}

impl Detector {
    pub(super) fn new(hz: f64) -> Self {
        Self {
            coefficient: 2.0 * (std::f64::consts::TAU * hz / f64::from(RATE)).cos(),
        }
    }

    /// Amplitude of the pitch in `samples`.
    pub(super) fn amplitude(self, samples: &[i16]) -> f64 {
        let (mut s1, mut s2) = (0.0, 0.0);
        for &sample in samples {
            let s0 = f64::from(sample) + self.coefficient * s1 - s2;
            (s2, s1) = (s1, s0);
        }
        let power = s1 * s1 + s2 * s2 - self.coefficient * s1 * s2;
        2.0 * power.max(0.0).sqrt() / samples.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_tells_who_is_in_it() {
        let kernels = Kernels::detect();
        for samples in [80, 160, 480] {
            for talker in 0..TALKERS_MAX {
                let bytes = payload(Codec::Pcmu, kernels, tone_hz(talker), 4_000.0, samples);
                let mut pcm = Vec::new();
                Codec::Pcmu.decoder(kernels).decode(&bytes, &mut pcm);
                for other in 0..TALKERS_MAX {
                    let found = Detector::new(tone_hz(other)).amplitude(&pcm);
                    assert!(Detector::new(burst_hz(other)).amplitude(&pcm) < 150.0);
                    assert!(if other == talker {
                        (3_800.0..4_200.0).contains(&found)
                    } else {
                        found < 150.0
                    });
                }
            }
        }
    }
}
