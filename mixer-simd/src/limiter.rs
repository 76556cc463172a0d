//! Keeps a sum of many voices inside 16 bits without wrapping or crackling.
//!
//! ```text
//!   1 ───┐                               ┌─── 1
//!        │ attack                      ╱
//!        │ 1 ms                      ╱  release, up to 100 ms
//!        └──── hold, 40 to 80 ms ──┘
//! ```

use crate::Ramp;

/// The largest magnitude that both signs can have.
const CEILING: f32 = 32_767.0;

/// The largest magnitude that a single voice can have. It passes bit for bit; of a sum with this peak
/// nothing is lost but one unit of a positive sample.
const FULL_SCALE: u32 = 32_768;

/// From full reduction back to unity in this long, in seconds. With the hold before it, 140 to 180 ms:
/// slow enough not to pump between syllables, short enough that a cough does not silence the next
/// sentence.
const RELEASE_S: f32 = 0.1;

/// The gain rises to what fitted all of this window and the one before, in seconds. Without it the gain
/// would rise after each frame that happens to be less loud, and the next one would saturate again.
const WINDOW_S: f32 = 0.04;

/// The gain falls within this long. Nothing can be known of the next frame, so the fall happens inside
/// the frame that needs it; what exceeds 16 bits in this first millisecond saturates.
const ATTACK_S: f32 = 0.001;

/// One per room: remembers the gain between frames.
#[derive(Clone, Debug)]
pub struct Limiter {
    rate: f32,
    gain: f32,
    /// The lowest gain that a frame needed, in this window and in the one before.
    needed: [f32; 2],
    /// Samples since this window began.
    elapsed: usize,
}

impl Limiter {
    pub fn new(sample_rate: u32) -> Self {
        Self {
            rate: sample_rate as f32,
            gain: 1.0,
            needed: [1.0; 2],
            elapsed: 0,
        }
    }

    /// The gain for a frame of `samples` whose largest magnitude, over all mixes made of it, is `peak`.
    pub fn next(&mut self, peak: u32, samples: usize) -> Ramp {
        let fits = if peak <= FULL_SCALE {
            1.0
        } else {
            CEILING / peak as f32
        };
        if self.elapsed >= (self.rate * WINDOW_S) as usize {
            self.needed = [1.0, self.needed[0]];
            self.elapsed = 0;
        }
        self.elapsed += samples;
        self.needed[0] = self.needed[0].min(fits);

        let from = self.gain;
        if fits < from {
            self.gain = fits;
            return Ramp {
                from,
                to: fits,
                over: samples.min((self.rate * ATTACK_S) as usize),
            };
        }
        let released = from + samples as f32 / (self.rate * RELEASE_S);
        self.gain = released.min(self.needed[0]).min(self.needed[1]);
        if self.gain == from {
            Ramp::flat(from)
        } else {
            Ramp {
                from,
                to: self.gain,
                over: samples,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Kernels, Level};

    const FRAME: usize = 160;

    fn run(limiter: &mut Limiter, sum: &[i32]) -> Vec<i16> {
        let kernels = Kernels::at(Level::Scalar).unwrap();
        sum.chunks(FRAME)
            .flat_map(|frame| {
                let mut out = vec![0; frame.len()];
                kernels.pack(
                    &mut out,
                    frame,
                    limiter.next(kernels.peak(frame), frame.len()),
                );
                out
            })
            .collect()
    }

    fn tones(voices: i32, len: usize) -> Vec<i32> {
        (0..len)
            .map(|i| {
                (1..=voices)
                    .map(|v| (32_767.0 * (0.05 * f64::from(v) * i as f64).sin()) as i32)
                    .sum()
            })
            .collect()
    }

    fn steepest(samples: impl IntoIterator<Item = i32>) -> i32 {
        let mut last = None;
        samples
            .into_iter()
            .filter_map(|s| Some((s - last.replace(s)?).abs()))
            .max()
            .unwrap()
    }

    #[test]
    fn what_fits_is_untouched() {
        let sum = tones(1, 1_600);
        let out = run(&mut Limiter::new(8_000), &sum);
        assert!(
            out.iter()
                .zip(&sum)
                .all(|(&out, &sum)| i32::from(out) == sum)
        );
    }

    #[test]
    fn the_lowest_sample_of_one_voice_fits() {
        let out = run(&mut Limiter::new(8_000), &[i32::from(i16::MIN); 2 * FRAME]);
        assert_eq!(out, [i16::MIN; 2 * FRAME]);
    }

    #[test]
    fn eight_full_voices_neither_wrap_nor_crackle() {
        let sum = tones(8, 8_000);
        let out = run(&mut Limiter::new(8_000), &sum);
        // Once the first frame has been met, steps are those of the sum, scaled: nothing wrapped and no
        // frame border stands out.
        let own = steepest(out[FRAME..].iter().map(|&s| s.into()));
        let summed = steepest(sum.iter().copied());
        assert!(own <= summed / 2, "{own} for {summed}");
        // The shape is the sum's after the first frame: its sign never differs.
        assert!(
            out[FRAME..]
                .iter()
                .zip(&sum[FRAME..])
                .all(|(&out, &sum)| sum.abs() < 100 || (out < 0) == (sum < 0))
        );
        let saturated = out[FRAME..]
            .iter()
            .filter(|s| s.unsigned_abs() >= 32_767)
            .count();
        assert!(
            saturated < out.len() / 200,
            "{saturated} samples at the rails"
        );
    }

    #[test]
    fn eight_full_voices_that_stay_are_not_clipped_after_the_attack() {
        const RATE: u32 = 48_000;
        const FRAME: usize = 960;
        // Whole periods in a frame, so that all frames are equally loud; low, so that a step of the gain
        // would stand out from the steps of the tones. They begin after a second of silence and one voice.
        let tones = |voices: i32, i: usize| -> i32 {
            let turn = std::f64::consts::TAU * 50.0 / f64::from(RATE) * i as f64;
            (1..=voices)
                .map(|voice| (32_767.0 * (f64::from(voice) * turn).sin()) as i32)
                .sum()
        };
        let onset = 10 * FRAME;
        let sum: Vec<i32> = (0..40 * FRAME)
            .map(|i| tones(if i < onset { 1 } else { 8 }, i))
            .collect();
        let kernels = Kernels::at(Level::Scalar).unwrap();
        let mut limiter = Limiter::new(RATE);
        let out: Vec<i16> = sum
            .chunks(FRAME)
            .flat_map(|frame| {
                let mut out = vec![0; FRAME];
                kernels.pack(&mut out, frame, limiter.next(kernels.peak(frame), FRAME));
                out
            })
            .collect();
        let held = &out[onset + FRAME..];
        let rails = held.iter().filter(|s| s.unsigned_abs() >= 32_767).count();
        // The peak itself lands on the ceiling, once for each sign and frame.
        assert!(
            rails <= 2 * held.len() / FRAME,
            "{rails} samples at the rails"
        );
        // Nowhere, not in the attack either, is a step larger than the steepest of the sum.
        let (own, summed) = (
            steepest(out.iter().map(|&s| s.into())),
            steepest(sum.iter().copied()),
        );
        assert!(own <= summed, "{own} for {summed}");
    }

    #[test]
    fn a_loud_onset_bends_the_gain_within_a_millisecond() {
        const FRAME: usize = 960;
        const MILLISECOND: usize = 48;
        let kernels = Kernels::at(Level::Scalar).unwrap();
        let mut limiter = Limiter::new(48_000);
        // Steady until just after the attack, then three times too loud: a step of the gain shows in the
        // steady part, a gain that is late in the loud one.
        let steady = [20_000; FRAME];
        let mut onset = steady;
        onset[2 * MILLISECOND..].fill(90_000);
        onset[FRAME / 2] = 100_000;
        let mut out = [0; 2 * FRAME];
        for (frame, out) in [steady, onset].iter().zip(out.chunks_mut(FRAME)) {
            kernels.pack(out, frame, limiter.next(kernels.peak(frame), FRAME));
        }
        let bend = &out[FRAME - 1..FRAME + 2 * MILLISECOND];
        let step = steepest(bend.iter().map(|&s| s.into()));
        assert!(step <= 20_000 / MILLISECOND as i32, "a step of {step}");
        let loud = &out[FRAME + 2 * MILLISECOND..];
        assert_eq!(loud[0], 29_490, "90,000 by 32,767 in 100,000");
        assert_eq!(loud.iter().filter(|&&s| s != loud[0]).count(), 1);
        assert_eq!(out[FRAME + FRAME / 2], 32_767);
    }

    proptest! {
        #[test]
        fn the_gain_has_no_steps_and_every_frame_ends_inside(
            frames in vec((0_u32..=1 << 31, 1_usize..2_000), 1..60),
        ) {
            let mut limiter = Limiter::new(48_000);
            let mut gain = 1.0;
            for (peak, samples) in frames {
                let ramp = limiter.next(peak, samples);
                prop_assert_eq!(ramp.from, gain);
                prop_assert!(ramp.over <= samples);
                prop_assert!(ramp.to > 0.0 && ramp.to <= 1.0);
                // Half a unit is what rounding takes back; unity is given to a lone i16::MIN.
                prop_assert!(peak <= FULL_SCALE || f64::from(peak) * f64::from(ramp.to) < 32_767.5 + f64::from(peak) * 1e-7);
                gain = ramp.to;
            }
            // However loud it was, 200 ms of quiet bring everything back.
            for _ in 0..10 {
                limiter.next(0, 960);
            }
            prop_assert_eq!(limiter.next(0, 960), Ramp::UNITY);
        }
    }

    #[test]
    fn afterwards_it_lets_go() {
        let mut limiter = Limiter::new(8_000);
        run(&mut limiter, &tones(8, 1_600));
        let quiet: Vec<i32> = tones(1, 3_200).iter().map(|s| s / 4).collect();
        let out = run(&mut limiter, &quiet);
        assert!(
            out[1_600..]
                .iter()
                .zip(&quiet[1_600..])
                .all(|(&out, &sum)| i32::from(out) == sum)
        );
    }
}
