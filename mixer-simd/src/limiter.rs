//! Keeps a sum of many voices inside 16 bits without wrapping or crackling.

use crate::Ramp;

/// The largest magnitude that fits both signs.
const CEILING: f32 = 32_767.0;

/// From full reduction back to unity in about this long, in seconds: slow enough not to pump between
/// syllables, short enough that a cough does not silence the next sentence.
const RELEASE_S: f32 = 0.2;

/// The gain falls within this long. Nothing can be known of the next frame, so the fall happens inside
/// the frame that needs it; what exceeds 16 bits in this first millisecond saturates.
const ATTACK_S: f32 = 0.001;

/// One per room: remembers the gain between frames.
#[derive(Clone, Debug)]
pub struct Limiter {
    rate: f32,
    gain: f32,
}

impl Limiter {
    pub fn new(sample_rate: u32) -> Self {
        Self {
            rate: sample_rate as f32,
            gain: 1.0,
        }
    }

    /// The gain for a frame of `samples` whose largest magnitude, over all mixes made of it, is `peak`.
    pub fn next(&mut self, peak: u32, samples: usize) -> Ramp {
        let fits = (CEILING / peak.max(1) as f32).min(1.0);
        let from = self.gain;
        if fits < from {
            self.gain = fits;
            return Ramp {
                from,
                to: fits,
                over: (self.rate * ATTACK_S) as usize,
            };
        }
        let released = from + samples as f32 / (self.rate * RELEASE_S);
        self.gain = released.min(fits);
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
    fn eight_full_voices_neither_wrap_nor_crackle() {
        let sum = tones(8, 8_000);
        let out = run(&mut Limiter::new(8_000), &sum);
        let steepest = |samples: &mut dyn Iterator<Item = i32>| {
            let mut last = None;
            samples
                .filter_map(|s| Some((s - last.replace(s)?).abs()))
                .max()
                .unwrap()
        };
        // Once the first frame has been met, steps are those of the sum, scaled: nothing wrapped and no
        // frame border stands out.
        let own = steepest(&mut out[FRAME..].iter().map(|&s| s.into()));
        let summed = steepest(&mut sum.iter().copied());
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
