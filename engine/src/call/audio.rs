//! What the phone says and what it keeps: tones, WAV files, silence.

use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

use crate::codec::SAMPLE_RATE;

/// Amplitude of a tone: -12 dBov, so that four of them together stay below overload.
const TONE_AMPLITUDE: f64 = 8_192.0;

/// Longest file to send, in samples: an hour. It is held in memory.
const SAMPLES_MAX: usize = SAMPLE_RATE as usize * 3_600;

#[derive(Debug)]
pub struct WavError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for WavError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for WavError {}

impl WavError {
    fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Where the samples come from.
pub enum Source {
    Silence,
    /// Phase in turns and its step per sample.
    Tone {
        phase: f64,
        step: f64,
    },
    File {
        samples: Vec<i16>,
        next: usize,
    },
}

impl Source {
    pub fn tone(hz: f64) -> Self {
        Self::Tone {
            phase: 0.0,
            step: hz / f64::from(SAMPLE_RATE),
        }
    }

    /// A WAV file of any rate and channel count, as mono at the rate of the call.
    ///
    /// # Errors
    /// The file cannot be read or is no such WAV file.
    pub fn file(path: &Path) -> Result<Self, WavError> {
        let wrong = |error: hound::Error| WavError::new(path, error);
        let mut reader = WavReader::open(path).map_err(wrong)?;
        let WavSpec {
            channels,
            sample_rate,
            bits_per_sample,
            sample_format,
        } = reader.spec();
        if channels == 0 || sample_rate == 0 {
            return Err(WavError::new(path, "it has no channels or no sample rate"));
        }
        let values: Vec<f64> = match sample_format {
            SampleFormat::Float => reader
                .samples::<f32>()
                .map(|s| s.map(|s| f64::from(s) * 32_768.0))
                .collect::<Result<_, _>>(),
            SampleFormat::Int => {
                let scale = 2_f64.powi(16 - i32::from(bits_per_sample));
                reader
                    .samples::<i32>()
                    .map(|s| s.map(|s| f64::from(s) * scale))
                    .collect::<Result<_, _>>()
            }
        }
        .map_err(wrong)?;
        let mono: Vec<f64> = values
            .chunks(channels.into())
            .map(|frame| frame.iter().sum::<f64>() / frame.len() as f64)
            .collect();
        let ratio = f64::from(sample_rate) / f64::from(SAMPLE_RATE);
        let len = ((mono.len() as f64 / ratio) as usize).min(SAMPLES_MAX);
        let samples = (0..len)
            .map(|i| average(&mono, i as f64 * ratio, ratio))
            .collect();
        Ok(Self::File { samples, next: 0 })
    }

    pub fn fill(&mut self, frame: &mut [i16]) {
        match self {
            Self::Silence => frame.fill(0),
            Self::Tone { phase, step } => {
                for sample in frame {
                    *sample = ((*phase * std::f64::consts::TAU).sin() * TONE_AMPLITUDE) as i16;
                    *phase = (*phase + *step).fract();
                }
            }
            Self::File { samples, next } => {
                for sample in frame {
                    *sample = samples.get(*next).copied().unwrap_or(0);
                    *next += 1;
                }
            }
        }
    }

    /// There is nothing more to say; tones and silence never end.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::File { samples, next } if *next >= samples.len())
    }
}

/// The mean of what lies between two samples of the output: a plain low-pass when the rate goes down,
/// the nearest sample when it goes up. Telephone speech asks for no more.
fn average(samples: &[f64], at: f64, width: f64) -> i16 {
    let start = at as usize;
    let end = ((at + width) as usize).clamp(start + 1, samples.len().max(start + 1));
    let covered = samples
        .get(start..end.min(samples.len()))
        .unwrap_or_default();
    let mean = covered.iter().sum::<f64>() / covered.len().max(1) as f64;
    mean.clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

/// Writes what was heard as 16-bit mono.
pub(super) struct Recorder {
    path: PathBuf,
    writer: WavWriter<BufWriter<File>>,
}

impl Recorder {
    pub(super) fn create(path: &Path) -> Result<Self, WavError> {
        let spec = WavSpec {
            channels: 1,
            sample_rate: SAMPLE_RATE,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let writer = WavWriter::create(path, spec).map_err(|error| WavError::new(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
        })
    }

    pub(super) fn write(&mut self, frame: &[i16]) -> Result<(), WavError> {
        for &sample in frame {
            self.writer
                .write_sample(sample)
                .map_err(|error| WavError::new(&self.path, error))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), WavError> {
        self.writer
            .finalize()
            .map_err(|error| WavError::new(&self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stereo_file_of_another_rate_becomes_mono_at_ours() {
        let path = std::env::temp_dir().join(format!("plenum-{}-stereo.wav", std::process::id()));
        let spec = WavSpec {
            channels: 2,
            sample_rate: 16_000,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut writer = WavWriter::create(&path, spec).unwrap();
        for _ in 0..16_000 {
            writer.write_sample(1_000_i16).unwrap();
            writer.write_sample(3_000_i16).unwrap();
        }
        writer.finalize().unwrap();
        let mut source = Source::file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();

        let mut frame = [0; SAMPLE_RATE as usize];
        source.fill(&mut frame);
        assert!(frame.iter().all(|&sample| sample == 2_000));
        assert!(source.has_ended());
    }

    #[test]
    fn what_is_no_wav_file_is_named() {
        let error = Source::file(Path::new("/dev/null")).err().unwrap();
        assert!(error.to_string().starts_with("/dev/null: "));
    }
}
