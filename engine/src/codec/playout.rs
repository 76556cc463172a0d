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
        while pcm.len() < samples {
            let missing = samples - pcm.len();
            if self.gap == 0 {
                match session.pop(now) {
                    Popped::Frame {
                        payload,
                        payload_type,
                        ..
                    } => {
                        let start = pcm.len();
                        self.decode(payload_type, payload, pcm);
                        self.concealer.resume(&mut pcm[start..]);
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
            if !audible && start == 0 && gap == missing {
                return false;
            }
        }
        self.rest.extend_from_slice(&pcm[samples..]);
        self.concealer.keep(&pcm[..samples]);
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    const FRAME: usize = SAMPLE_RATE as usize / 50;

    /// Packets of half a frame.
    const PACKET: usize = FRAME / 2;

    fn tone(packet: usize) -> Vec<i16> {
        let sample = |i: usize| {
            let phase = std::f32::consts::TAU * 130.0 * i as f32 / SAMPLE_RATE as f32;
            (8_000.0 * phase.sin()) as i16
        };
        (packet * PACKET..(packet + 1) * PACKET)
            .map(sample)
            .collect()
    }

    /// The frames of a listener who gets all packets but one.
    fn frames(lost: Option<usize>) -> Vec<Vec<i16>> {
        let kernels = Kernels::detect();
        let mut now = Instant::now();
        let remote: SocketAddr = ([192, 0, 2, 1], 4_000).into();
        let mut session = Session::new(
            now,
            rtp::SessionConfig {
                ssrc: 1,
                cname: "a".to_owned(),
                clock_rate: SAMPLE_RATE,
                payload_type: 0,
                event_payload_type: None,
                accepted_payload_types: [Some(0), None, None, None],
                remote_rtp: remote,
                remote_rtcp: remote,
                rtcp_mux: true,
                jitter_depth: Duration::ZERO,
                seed: 1,
            },
        );
        let mut playout = Playout::new(kernels, vec![(0, Codec::Pcmu)]);
        let mut encoder = Codec::Pcmu.encoder(kernels);
        let mut pcm = Vec::new();
        let mut all = Vec::new();
        for frame in 0..10 {
            for packet in [2 * frame, 2 * frame + 1] {
                if lost == Some(packet) {
                    continue;
                }
                let header = rtp::Header {
                    marker: false,
                    payload_type: 0,
                    sequence: packet as u16,
                    timestamp: (packet * PACKET) as u32,
                    ssrc: 7,
                };
                let mut datagram = header.write().to_vec();
                encoder.encode(&tone(packet), &mut datagram);
                session.handle_rtp(now, remote, &datagram);
            }
            now += Duration::from_millis(20);
            playout.advance(now, &mut session, FRAME, &mut pcm);
            all.push(playout.frame(FRAME).to_vec());
        }
        all
    }

    #[test]
    fn a_gap_that_ends_within_a_frame_leaves_nothing_behind() {
        let whole = frames(None);
        // The first half of a frame is lost.
        let lossy = frames(Some(10));
        assert_ne!(lossy[5], whole[5]);
        let step_of_tone = 8_000.0 * std::f32::consts::TAU * 130.0 / SAMPLE_RATE as f32;
        for pair in lossy.concat().windows(2) {
            let step = (i32::from(pair[1]) - i32::from(pair[0])).abs() as f32;
            assert!(step < 2.0 * step_of_tone, "a step of {step}");
        }
        assert_eq!(lossy[..5], whole[..5]);
        assert_eq!(lossy[6..], whole[6..], "what was not lost is as it was");
    }
}
