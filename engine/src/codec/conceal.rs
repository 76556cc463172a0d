//! Fills gaps left by lost packets, in the manner of ITU-T G.711 Appendix I.
//!
//! A gap is filled by repeating the last pitch period that was heard, fading to silence within
//! `FADE_MS`; when packets come again, the repetition is cross-faded into them. A gap therefore
//! neither clicks nor drones. State per talker is a short history; nothing is allocated after `new`.

/// The pitch of voices lies between 66 and 200 Hz (Appendix I searches the same range).
const PITCH_HZ_MIN: u32 = 66;
const PITCH_HZ_MAX: u32 = 200;

/// After this long there is nothing left worth repeating.
const FADE_MS: u32 = 60;

/// Overlap between the repetition and the packets that follow it.
const CROSSFADE_MS: u32 = 4;

#[derive(Debug)]
pub struct Concealer {
    rate: u32,
    /// The newest samples that were played, oldest first: two of the longest pitch periods.
    history: Vec<i16>,
    /// Samples filled since the last packet; 0 while packets come.
    filled: usize,
    /// The period being repeated, valid while `filled > 0`.
    period: usize,
}

impl Concealer {
    pub fn new(rate: u32) -> Self {
        let history = vec![0; 2 * (rate / PITCH_HZ_MIN) as usize];
        Self {
            rate,
            history,
            filled: 0,
            period: 0,
        }
    }

    /// A frame decoded from packets; its beginning is blended with the repetition if a gap ends here.
    pub fn heard(&mut self, frame: &mut [i16]) {
        if self.filled > 0 {
            let overlap = ((self.rate * CROSSFADE_MS / 1_000) as usize).min(frame.len());
            for (i, sample) in frame[..overlap].iter_mut().enumerate() {
                let share = (i + 1) as f32 / (overlap + 1) as f32;
                *sample =
                    (f32::from(*sample) * share + self.next_repeated() * (1.0 - share)) as i16;
            }
            self.filled = 0;
        }
        self.remember(frame);
    }

    /// Fills `frame` for packets that did not come. False when only silence is left to give.
    pub fn fill(&mut self, frame: &mut [i16]) -> bool {
        if self.filled >= self.fade_len() {
            frame.fill(0);
            return false;
        }
        if self.filled == 0 {
            self.period = self.pitch_period();
        }
        for sample in frame {
            *sample = self.next_repeated() as i16;
        }
        true
    }

    /// Forgets everything: a new sender, or a pause so long that nothing before it matters.
    pub fn reset(&mut self) {
        self.history.fill(0);
        self.filled = 0;
    }

    fn fade_len(&self) -> usize {
        (self.rate * FADE_MS / 1_000) as usize
    }

    fn next_repeated(&mut self) -> f32 {
        let start = self.history.len() - self.period;
        let sample = self.history[start + self.filled % self.period];
        let fade = 1.0 - self.filled as f32 / self.fade_len() as f32;
        self.filled += 1;
        f32::from(sample) * fade.max(0.0)
    }

    fn remember(&mut self, frame: &[i16]) {
        let keep = self.history.len();
        if frame.len() >= keep {
            self.history.copy_from_slice(&frame[frame.len() - keep..]);
        } else {
            self.history.copy_within(frame.len().., 0);
            self.history[keep - frame.len()..].copy_from_slice(frame);
        }
    }

    /// The lag at which the newest samples look most like those before them (normalised correlation).
    fn pitch_period(&self) -> usize {
        let shortest = (self.rate / PITCH_HZ_MAX) as usize;
        let longest = (self.rate / PITCH_HZ_MIN) as usize;
        let (older, newest) = self.history.split_at(self.history.len() - longest);
        debug_assert_eq!(older.len(), longest);
        let mut best = (longest, f32::MIN);
        for lag in shortest..=longest {
            let start = self.history.len() - longest - lag;
            let earlier = &self.history[start..start + longest];
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
        best.0
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
            concealer.heard(&mut tone(hz, frame * 160, 160));
        }
        concealer
    }

    #[test]
    fn packets_without_gaps_are_untouched() {
        let mut concealer = warmed(100.0);
        let original = tone(100.0, 800, 160);
        let mut frame = original.clone();
        concealer.heard(&mut frame);
        assert_eq!(frame, original);
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
        concealer.heard(&mut after);
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
