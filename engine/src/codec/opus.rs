//! Opus (RFC 6716) at the rate of rooms: narrowband, one channel.

use audiopus::coder::{Decoder, Encoder};
use audiopus::packet::Packet;
use audiopus::{Application, Bitrate, Channels, MutSignals, SampleRate};

use super::{Decode, Encode, SAMPLE_RATE};

/// Speech in narrowband is as good as it gets from here on, with some margin for several who talk at once.
const BIT_RATE: Bitrate = Bitrate::BitsPerSecond(24_000);

/// Of 0 to 10. What the steps from here to the library's own choice, 9, add to narrowband is hard to hear, and
/// they take half as much time again.
const COMPLEXITY: u8 = 5;

const RATE: SampleRate = SampleRate::Hz8000;
const _: () = assert!(RATE as u32 == SAMPLE_RATE);

/// An RTP payload holds one packet (RFC 7587 §4.2); at our rate no frame of it needs as much.
const PACKET_LEN_MAX: usize = 1_275;

/// The longest packet: 120 ms (RFC 6716 §3.2.5).
const SAMPLES_MAX: usize = SAMPLE_RATE as usize * 120 / 1_000;

/// Begins with its first frame; the one that is made for a leg is not used where legs share one.
#[derive(Default)]
pub(super) struct OpusEncoder {
    state: Option<Encoder>,
}

impl OpusEncoder {
    /// `None` where there is no memory.
    fn begun(&mut self) -> Option<&Encoder> {
        if self.state.is_none() {
            let mut encoder = Encoder::new(RATE, Channels::Mono, Application::Voip).ok()?;
            encoder.set_bitrate(BIT_RATE).ok()?;
            encoder.set_complexity(COMPLEXITY).ok()?;
            self.state = Some(encoder);
        }
        self.state.as_ref()
    }
}

impl Encode for OpusEncoder {
    fn encode(&mut self, pcm: &[i16], payload: &mut Vec<u8>) {
        let Some(encoder) = self.begun() else { return };
        let start = payload.len();
        payload.resize(start + PACKET_LEN_MAX, 0);
        let len = encoder.encode(pcm, &mut payload[start..]);
        payload.truncate(start + len.unwrap_or(0));
    }
}

pub(super) struct OpusDecoder {
    /// `None` where there was no memory.
    state: Option<Decoder>,
}

impl OpusDecoder {
    pub(super) fn new() -> Self {
        Self {
            state: Decoder::new(RATE, Channels::Mono).ok(),
        }
    }

    fn decode_into(&mut self, payload: &[u8], samples: &mut [i16]) -> Option<usize> {
        let packet = Packet::try_from(payload).ok()?;
        let samples = MutSignals::try_from(samples).ok()?;
        self.state
            .as_mut()?
            .decode(Some(packet), samples, false)
            .ok()
    }
}

impl Decode for OpusDecoder {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        let start = pcm.len();
        pcm.resize(start + SAMPLES_MAX, 0);
        let len = self.decode_into(payload, &mut pcm[start..]);
        pcm.truncate(start + len.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back is late by 6.5 ms (RFC 6716 §2), and by a little less where a filter moves the phase.
    const DELAYS: std::ops::Range<usize> = 40..56;

    fn tone(from: usize, len: usize) -> Vec<i16> {
        (from..from + len)
            .map(|i| {
                let seconds = i as f32 / SAMPLE_RATE as f32;
                (8_000.0 * (std::f32::consts::TAU * 440.0 * seconds).sin()) as i16
            })
            .collect()
    }

    /// Signal to noise in dB of what came back of the later half, so much later.
    fn quality(sent: &[i16], got: &[i16], delay: usize) -> f64 {
        let half = sent.len() / 2;
        let pairs = sent[half..].iter().zip(&got[half + delay..]);
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
            let qualities = DELAYS.map(|delay| quality(&sent, &got, delay));
            let quality = qualities.fold(0.0, f64::max);
            assert!(quality > 15.0, "{frame}: {quality} dB");
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
