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
    /// Decoded and not asked for yet.
    pcm: Vec<i16>,
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
            pcm: Vec::with_capacity(2 * rtp::PAYLOAD_LEN_MAX),
            gap: 0,
        }
    }

    /// Fills `frame` with what is due now. False when there is nothing to be heard: the frame is then
    /// silent.
    pub fn fill(&mut self, now: Instant, session: &mut Session, frame: &mut [i16]) -> bool {
        let mut concealed = false;
        while self.pcm.len() < frame.len() {
            let missing = frame.len() - self.pcm.len();
            if self.gap == 0 {
                match session.pop(now) {
                    Popped::Frame {
                        payload,
                        payload_type,
                        ..
                    } => {
                        self.decode(payload_type, payload);
                        continue;
                    }
                    Popped::Lost { ticks } => self.gap = ticks as usize,
                    Popped::Empty => self.gap = missing,
                }
            }
            let gap = self.gap.min(missing);
            self.gap -= gap;
            let gap = &mut frame[..gap];
            let audible = self.concealer.fill(gap);
            if !audible && !concealed && self.pcm.is_empty() && gap.len() == missing {
                frame.fill(0);
                return false;
            }
            concealed = true;
            self.pcm.extend_from_slice(gap);
        }
        let len = frame.len();
        frame.copy_from_slice(&self.pcm[..len]);
        self.pcm.drain(..len);
        if !concealed {
            self.concealer.heard(frame);
        }
        true
    }

    /// Another sender begins.
    pub fn reset(&mut self) {
        self.pcm.clear();
        self.gap = 0;
        self.concealer.reset();
    }

    /// What may come has changed.
    pub fn agree(&mut self, receives: Vec<(u8, Codec)>) {
        self.receives = receives;
    }

    fn decode(&mut self, payload_type: u8, payload: &[u8]) {
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
        decoder.decode(payload, &mut self.pcm);
    }
}
