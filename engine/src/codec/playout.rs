//! From the jitter buffer to frames of samples, at the pace of whoever listens.
//!
//! Packets of any duration pass through a short queue of samples, so that a sender may use 10 ms or
//! 60 ms packets, change between them, or change the codec, whatever frame the listener asks for.

use std::time::Instant;

use mixer_simd::Kernels;
use rtp::{Popped, Session};

use super::conceal::Concealer;
use super::{Codec, Decode, SAMPLE_RATE};

/// Decoding and loss concealment of one RTP stream. Nothing is allocated after `new` but a decoder
/// when the codec changes.
pub struct Playout {
    kernels: Kernels,
    /// What may come, by payload type.
    receives: Vec<(u8, Codec)>,
    decoder: Option<(Codec, Box<dyn Decode>)>,
    concealer: Concealer,
    /// Decoded and not asked for yet: nothing, as long as packets and frames are equally long.
    rest: Vec<i16>,
    /// Samples of a loss that are still to be filled.
    gap: usize,
}

impl Playout {
    pub fn new(kernels: Kernels, receives: Vec<(u8, Codec)>) -> Self {
        Self {
            kernels,
            receives,
            decoder: None,
            concealer: Concealer::new(SAMPLE_RATE),
            rest: Vec::new(),
            gap: 0,
        }
    }

    /// Makes the next frame of so many samples: what is due now. False when there is nothing to be heard
    /// and the frame stays the one before. `pcm` is working memory, the same for many.
    pub fn advance(
        &mut self,
        now: Instant,
        session: &mut Session,
        samples: usize,
        pcm: &mut Vec<i16>,
    ) -> bool {
        pcm.clear();
        pcm.append(&mut self.rest);
        let mut concealed = false;
        while pcm.len() < samples {
            let missing = samples - pcm.len();
            if self.gap == 0 {
                match session.pop(now) {
                    Popped::Frame {
                        payload,
                        payload_type,
                        ..
                    } => {
                        self.decode(payload_type, payload, pcm);
                        continue;
                    }
                    Popped::Lost { ticks } => {
                        let of_a_sample = session.clock_rate() / SAMPLE_RATE;
                        self.gap = (ticks / of_a_sample.max(1)).max(1) as usize;
                    }
                    Popped::Empty => self.gap = missing,
                }
            }
            let gap = self.gap.min(missing);
            self.gap -= gap;
            let start = pcm.len();
            pcm.resize(start + gap, 0);
            let audible = self.concealer.fill(&mut pcm[start..]);
            if !audible && !concealed && start == 0 && gap == missing {
                return false;
            }
            concealed = true;
        }
        self.rest.extend_from_slice(&pcm[samples..]);
        let frame = &pcm[..samples];
        if concealed {
            self.concealer.keep(frame);
        } else {
            self.concealer.hear(frame);
        }
        true
    }

    /// The newest frame, `samples` long as it was made.
    pub fn frame(&self, samples: usize) -> &[i16] {
        self.concealer.newest(samples)
    }

    /// Another sender begins.
    pub fn reset(&mut self) {
        self.rest.clear();
        self.gap = 0;
        self.concealer.reset();
    }

    /// What may come has changed.
    pub fn agree(&mut self, receives: Vec<(u8, Codec)>) {
        self.receives = receives;
    }

    fn decode(&mut self, payload_type: u8, payload: &[u8], pcm: &mut Vec<i16>) {
        let Some(&(_, codec)) = self
            .receives
            .iter()
            .find(|(number, _)| *number == payload_type)
        else {
            return;
        };
        let (_, decoder) = match &mut self.decoder {
            Some(known) if known.0 == codec => known,
            other => other.insert((codec, codec.decoder(self.kernels))),
        };
        decoder.decode(payload, pcm);
    }
}
