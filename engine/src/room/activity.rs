//! Voice activity: who talks, and how loud.

/// A member talks above this, whatever the noise around him. Steady sounds (a held tone, hold music)
/// are speech to a conference too, so the learned noise floor never reaches it.
const SPEECH_DBOV: f32 = -42.0;

/// Nobody talks below this: the noise of an idle G.711 line lies around -65.
const NOISE_DBOV: f32 = -60.0;

/// Speech is this much above the talker's own noise floor.
const ABOVE_NOISE_DB: f32 = 9.0;

/// The floor falls at once with a quieter frame and rises this slowly, so that words do not lift it.
const FLOOR_RISE_DB_PER_S: f32 = 3.0;

/// A talker keeps talking through pauses between words: 300 ms, in samples.
const HANGOVER_SAMPLES: i32 = (crate::codec::SAMPLE_RATE as i32) * 3 / 10;

/// Smoothing of the level by which talkers are ranked: about 100 ms.
const SMOOTHING_S: f32 = 0.1;

#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// Level of the last frame, in -dBov as in RFC 6464: 0 is overload, 127 silence.
    level: u8,
    smoothed_dbov: f32,
    floor_dbov: f32,
    hangover_samples: i32,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            level: Self::SILENCE,
            smoothed_dbov: -127.0,
            floor_dbov: NOISE_DBOV,
            hangover_samples: 0,
        }
    }
}

impl Activity {
    pub const SILENCE: u8 = 127;

    /// Takes in the level of one frame of `samples`.
    pub fn update(&mut self, level: u8, samples: usize) {
        let seconds = samples as f32 / crate::codec::SAMPLE_RATE as f32;
        let dbov = -f32::from(level);
        self.level = level;
        self.smoothed_dbov += (dbov - self.smoothed_dbov) * (seconds / SMOOTHING_S).min(1.0);
        self.floor_dbov = (self.floor_dbov + FLOOR_RISE_DB_PER_S * seconds)
            .min(dbov)
            .max(-127.0);

        let threshold = (self.floor_dbov + ABOVE_NOISE_DB).clamp(NOISE_DBOV, SPEECH_DBOV);
        if dbov > threshold {
            self.hangover_samples = HANGOVER_SAMPLES;
        } else {
            self.hangover_samples = (self.hangover_samples - samples as i32).max(0);
        }
    }

    pub fn talking(&self) -> bool {
        self.hangover_samples > 0
    }

    /// Level of the last frame in -dBov as in RFC 6464.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Level of the last frame in dBov, -127 to 0.
    pub fn level_dbov(&self) -> i32 {
        -i32::from(self.level)
    }

    /// How loud he has been of late; talkers are ranked by it.
    pub fn smoothed_dbov(&self) -> f32 {
        self.smoothed_dbov
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 160;

    fn after(levels: impl IntoIterator<Item = u8>) -> Activity {
        let mut activity = Activity::default();
        levels
            .into_iter()
            .for_each(|level| activity.update(level, FRAME));
        activity
    }

    #[test]
    fn speech_counts_from_its_first_frame() {
        assert!(after([127, 127, 20]).talking());
    }

    #[test]
    fn a_pause_between_words_does_not_end_it_but_silence_does() {
        let word_and_pause =
            |frames| std::iter::repeat_n(25, 10).chain(std::iter::repeat_n(127, frames));
        assert!(after(word_and_pause(14)).talking());
        assert!(!after(word_and_pause(15)).talking());
    }

    #[test]
    fn line_noise_is_not_speech_and_loud_room_noise_is_learned() {
        assert!(!after(std::iter::repeat_n(65, 500)).talking());
        assert!(
            !after(std::iter::repeat_n(52, 1_000)).talking(),
            "the floor has risen to the noise"
        );
    }

    #[test]
    fn a_tone_held_for_a_minute_is_still_heard() {
        assert!(after(std::iter::repeat_n(20, 3_000)).talking());
    }
}
