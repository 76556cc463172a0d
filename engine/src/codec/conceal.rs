//! What was heard last, and how gaps left by lost packets are filled from it, in the manner of ITU-T G.711
//! Appendix I.
//!
//! A gap is filled by repeating the last pitch period that was heard, fading to silence within
//! `FADE_MS`; when packets come again, the repetition is cross-faded into them. A gap therefore
//! neither clicks nor drones.
//!
//! Frames are kept where they are put, in a ring, so that one without a gap is written once and not
//! touched again: a core holds thousands of these. Nothing is allocated after `new`.

/// The pitch of voices lies between 66 and 200 Hz (Appendix I searches the same range).
const PITCH_HZ_MIN: u32 = 66;
const PITCH_HZ_MAX: u32 = 200;

/// After this long there is nothing left worth repeating.
const FADE_MS: u32 = 60;

/// Overlap between the repetition and the packets that follow it.
const CROSSFADE_MS: u32 = 4;

/// What is remembered: frames of 10, 20 and 30 ms fit without a remainder.
const RING_MS: u32 = 60;

#[derive(Debug)]
pub struct Concealer {
    rate: u32,
    ring: Box<[i16]>,
    /// The newest frame ends here.
    end: usize,
    /// Samples filled since the last packet; 0 while packets come.
    filled: usize,
    /// The pitch period that is repeated, valid while `filled > 0`, and room for the longest.
    period: usize,
    repeated: Box<[i16]>,
}

impl Concealer {
    pub fn new(rate: u32) -> Self {
        Self {
            rate,
            ring: vec![0; (rate * RING_MS / 1_000) as usize].into(),
            end: 0,
            filled: 0,
            period: 0,
            repeated: vec![0; (rate / PITCH_HZ_MIN) as usize].into(),
        }
    }

    /// What a packet brought: if it ends a gap, wherever in a frame, its beginning is blended with the
    /// repetition.
    pub fn resume(&mut self, samples: &mut [i16]) {
        if self.filled == 0 || samples.is_empty() {
            return;
        }
        let overlap = ((self.rate * CROSSFADE_MS / 1_000) as usize).min(samples.len());
        for (i, sample) in samples[..overlap].iter_mut().enumerate() {
            let share = (i + 1) as f32 / (overlap + 1) as f32;
            let repeated = self.next_repeated();
            *sample = (f32::from(*sample) * share + repeated * (1.0 - share)) as i16;
        }
        self.filled = 0;
    }

    /// Keeps a frame, no longer than 30 ms.
    pub fn keep(&mut self, frame: &[i16]) {
        if self.end + frame.len() > self.ring.len() {
            // At the end of the ring, unless the length of frames has changed.
            self.ring.rotate_left(self.end % self.ring.len());
            self.end = 0;
        }
        self.ring[self.end..][..frame.len()].copy_from_slice(frame);
        self.end += frame.len();
    }

    /// The newest frame, `samples` long as it was.
    pub fn newest(&self, samples: usize) -> &[i16] {
        &self.ring[self.end - samples..self.end]
    }

    /// Fills `gap` for packets that did not come. False when only silence is left to give.
    pub fn fill(&mut self, gap: &mut [i16]) -> bool {
        if self.filled >= self.fade_len() {
            gap.fill(0);
            return false;
        }
        if self.filled == 0 {
            self.find_period();
        }
        for sample in gap {
            *sample = self.next_repeated() as i16;
        }
        true
    }

    /// Forgets everything: a new sender, or a pause so long that nothing before it matters.
    pub fn reset(&mut self) {
        self.ring.fill(0);
        self.filled = 0;
    }

    fn fade_len(&self) -> usize {
        (self.rate * FADE_MS / 1_000) as usize
    }

    fn next_repeated(&mut self) -> f32 {
        let sample = self.repeated[self.filled % self.period];
        let fade = 1.0 - self.filled as f32 / self.fade_len() as f32;
        self.filled += 1;
        f32::from(sample) * fade.max(0.0)
    }

    /// Takes what is to be repeated: the lag at which the newest samples look most like those before them
    /// (normalised correlation).
    fn find_period(&mut self) {
        // Oldest first, so that what is compared lies in a row.
        self.ring.rotate_left(self.end % self.ring.len());
        self.end = self.ring.len();
        let shortest = (self.rate / PITCH_HZ_MAX) as usize;
        let longest = self.repeated.len();
        let newest = &self.ring[self.end - longest..];
        let mut best = (longest, f32::MIN);
        for lag in shortest..=longest {
            let start = self.end - longest - lag;
            let earlier = &self.ring[start..start + longest];
            let mut correlation = 0.0;
            let mut energy = 1.0;
            for (&a, &b) in newest.iter().zip(earlier) {
                correlation += f32::from(a) * f32::from(b);
                energy += f32::from(b) * f32::from(b);
            }
            let score = correlation / energy.sqrt();
            if score > best.1 {
                best = (lag, score);
            }
        }
        self.period = best.0;
        self.repeated[..self.period].copy_from_slice(&self.ring[self.end - self.period..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8_000;

    fn tone(hz: f32, from: usize, len: usize) -> Vec<i16> {
        (from..from + len)
            .map(|i| (8_000.0 * (std::f32::consts::TAU * hz * i as f32 / RATE as f32).sin()) as i16)
            .collect()
    }

    fn energy(frame: &[i16]) -> f64 {
        frame.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / frame.len() as f64
    }

    /// 100 Hz divides neither the frame nor the gap evenly into periods of its own.
    fn warmed(hz: f32) -> Concealer {
        let mut concealer = Concealer::new(RATE);
        for frame in 0..5 {
            concealer.keep(&tone(hz, frame * 160, 160));
        }
        concealer
    }

    #[test]
    fn packets_without_gaps_are_untouched() {
        let mut concealer = warmed(100.0);
        let original = tone(100.0, 800, 160);
        let mut frame = original.clone();
        concealer.resume(&mut frame);
        concealer.keep(&frame);
        assert_eq!(concealer.newest(160), original);
    }

    #[test]
    fn frames_of_changing_length_are_remembered_in_order() {
        let mut concealer = Concealer::new(RATE);
        let mut from = 0;
        // 125 Hz, kept in frames that leave remainders at the end of the ring.
        for len in [160, 80, 160, 160, 80, 80, 80, 160, 240, 160, 80] {
            let frame = tone(125.0, from, len);
            concealer.keep(&frame);
            assert_eq!(concealer.newest(len), frame);
            from += len;
        }
        let mut gap = [0; 160];
        assert!(concealer.fill(&mut gap));
        for (i, (&got, want)) in gap.iter().zip(tone(125.0, from, 160)).enumerate() {
            let faded = f32::from(want) * (1.0 - i as f32 / 480.0);
            assert!((f32::from(got) - faded).abs() < 100.0, "sample {i}");
        }
    }

    #[test]
    fn a_gap_continues_the_tone_and_fades() {
        let mut concealer = warmed(125.0);
        let mut frame = [0; 160];
        assert!(concealer.fill(&mut frame));
        let expected = tone(125.0, 800, 160);
        for (i, (&got, &want)) in frame.iter().zip(&expected).enumerate() {
            let faded = f32::from(want) * (1.0 - i as f32 / 480.0);
            assert!(
                (f32::from(got) - faded).abs() < 100.0,
                "sample {i}: {got} for {faded}"
            );
        }
        assert!(concealer.fill(&mut frame));
        assert!(concealer.fill(&mut frame));
        assert!(energy(&frame) < 0.1 * energy(&expected));
        assert!(
            !concealer.fill(&mut frame),
            "after the fade there is silence"
        );
        assert_eq!(frame, [0; 160]);
    }

    #[test]
    fn nothing_clicks_when_packets_return() {
        let mut concealer = warmed(125.0);
        let mut gap = vec![0; 160];
        concealer.fill(&mut gap);
        // The stream goes on with another phase than the repetition had.
        let mut after = tone(125.0, 1_003, 160);
        concealer.resume(&mut after);
        let all: Vec<i16> = gap.into_iter().chain(after).collect();
        let step_of_tone = 8_000.0 * std::f32::consts::TAU * 125.0 / RATE as f32;
        for pair in all.windows(2) {
            let step = (i32::from(pair[1]) - i32::from(pair[0])).abs() as f32;
            assert!(step < 2.0 * step_of_tone, "a step of {step}");
        }
    }

    #[test]
    fn before_anything_was_heard_a_gap_is_silence() {
        let mut concealer = Concealer::new(RATE);
        let mut frame = [1; 160];
        concealer.fill(&mut frame);
        assert_eq!(frame, [0; 160]);
    }
}
