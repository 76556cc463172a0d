//! Opus (RFC 6716) at the rate of rooms: narrowband, one channel.

use opus_rs::Application;

use super::{Decode, Encode, SAMPLE_RATE};

/// Speech in narrowband is as good as it gets from here on, with some margin for several who talk at once.
const BIT_RATE: i32 = 24_000;

/// An RTP payload holds one packet (RFC 7587 §4.2); at our rate no frame of it needs as much.
const PACKET_LEN_MAX: usize = 1_275;

/// The longest packet: 120 ms (RFC 6716 §3.2.5).
const SAMPLES_MAX: usize = SAMPLE_RATE as usize * 120 / 1_000;

/// Begins with its first frame; the one that is made for a leg is not used where legs share one.
#[derive(Default)]
pub(super) struct OpusEncoder {
    /// With the length of its frames.
    state: Option<(usize, Box<opus_rs::OpusEncoder>)>,
}

impl Encode for OpusEncoder {
    fn encode(&mut self, pcm: &[i16], payload: &mut Vec<u8>) {
        let encoder = match &mut self.state {
            Some((len, encoder)) if *len == pcm.len() => encoder,
            // What it remembers does not fit frames of another length.
            state => {
                let new = opus_rs::OpusEncoder::new(SAMPLE_RATE as i32, 1, Application::Voip);
                let Ok(mut new) = new else { return };
                new.bitrate_bps = BIT_RATE;
                &mut state.insert((pcm.len(), Box::new(new))).1
            }
        };
        let start = payload.len();
        payload.resize(start + PACKET_LEN_MAX, 0);
        let len = encoder.encode_i16(pcm, pcm.len(), &mut payload[start..]);
        payload.truncate(start + len.unwrap_or(0));
    }
}

pub(super) struct OpusDecoder {
    state: Option<Box<opus_rs::OpusDecoder>>,
}

impl OpusDecoder {
    pub(super) fn new() -> Self {
        // Fails only at rates that are not ours.
        let state = opus_rs::OpusDecoder::new(SAMPLE_RATE as i32, 1).ok();
        Self {
            state: state.map(Box::new),
        }
    }
}

impl Decode for OpusDecoder {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        let Some(decoder) = &mut self.state else {
            return;
        };
        let mut samples = [0.0; SAMPLES_MAX];
        let Ok(len) = decoder.decode(payload, SAMPLES_MAX, &mut samples) else {
            return;
        };
        let len = len.min(SAMPLES_MAX);
        // Out of range, the cast stays at the end of the scale.
        pcm.extend(samples[..len].iter().map(|s| (s * 32_768.0).round() as i16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes after it in time (RFC 6716 §2: 6.5 ms).
    const DELAY: usize = 52;

    fn tone(from: usize, len: usize) -> Vec<i16> {
        (from..from + len)
            .map(|i| {
                let seconds = i as f32 / SAMPLE_RATE as f32;
                (8_000.0 * (std::f32::consts::TAU * 440.0 * seconds).sin()) as i16
            })
            .collect()
    }

    /// Signal to noise in dB of what came back of the later half.
    fn quality(sent: &[i16], got: &[i16]) -> f64 {
        let half = sent.len() / 2;
        let pairs = sent[half..].iter().zip(&got[half + DELAY..]);
        let (signal, noise) = pairs.fold((0.0, 1.0), |(signal, noise), (&a, &b)| {
            let (a, b) = (f64::from(a), f64::from(b));
            (signal + a * a, noise + (a - b) * (a - b))
        });
        10.0 * (signal / noise).log10()
    }

    #[test]
    fn a_tone_comes_back_at_its_level_in_frames_of_either_length() {
        let mut encoder = OpusEncoder::default();
        let mut decoder = OpusDecoder::new();
        for frame in [160, 80, 160] {
            let sent = tone(0, 8_000);
            let mut got = Vec::new();
            let mut octets = 0;
            for frame in sent.chunks(frame) {
                let mut payload = Vec::new();
                encoder.encode(frame, &mut payload);
                octets += payload.len();
                decoder.decode(&payload, &mut got);
            }
            assert_eq!(got.len(), sent.len());
            assert!((1_000..6_000).contains(&octets), "{octets} in a second");
            let quality = quality(&sent, &got);
            assert!(quality > 10.0, "{frame}: {quality} dB");
        }
    }

    #[test]
    fn silence_stays_silence() {
        let mut encoder = OpusEncoder::default();
        let mut decoder = OpusDecoder::new();
        let mut got = Vec::new();
        for _ in 0..20 {
            let mut payload = Vec::new();
            encoder.encode(&[0; 160], &mut payload);
            decoder.decode(&payload, &mut got);
        }
        assert!(got.iter().all(|sample| sample.abs() < 32));
    }

    #[test]
    fn damaged_packets_are_at_most_noise() {
        let mut encoder = OpusEncoder::default();
        let mut decoder = OpusDecoder::new();
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut pcm = Vec::new();
        for round in 0..4_000 {
            let mut payload = Vec::new();
            if round % 2 == 0 {
                encoder.encode(&tone(round * 160, 160), &mut payload);
                let at = random() as usize % payload.len();
                payload[at] = random() as u8;
            } else {
                payload.resize(random() as usize % 300, 0);
                payload.fill_with(|| random() as u8);
            }
            pcm.clear();
            decoder.decode(&payload, &mut pcm);
            assert!(pcm.len() <= SAMPLES_MAX);
        }
    }
}
