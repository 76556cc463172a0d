//! The sum of the talkers, and for each of them the sum of the others.
//!
//! Listeners get the total; a talker gets the total minus himself. However many listen, a tick makes
//! one mix for all of them and one for each talker, and encodes each mix once per codec.

use mixer_simd::Kernels;

use super::{FRAME_LEN_MAX, Room, Tick};
use crate::codec::Codec;
use crate::io::Payload;

/// Working memory of a shard's ticks, used by one room at a time.
pub struct Mixer {
    kernels: Kernels,
    total: [i32; FRAME_LEN_MAX],
    own: [i32; FRAME_LEN_MAX],
    pcm: [i16; FRAME_LEN_MAX],
    encoded: Vec<u8>,
}

impl Mixer {
    pub fn new(kernels: Kernels) -> Self {
        Self {
            kernels,
            total: [0; FRAME_LEN_MAX],
            own: [0; FRAME_LEN_MAX],
            pcm: [0; FRAME_LEN_MAX],
            encoded: Vec::with_capacity(2 * FRAME_LEN_MAX),
        }
    }

    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }
}

/// One mix in one codec: its bytes in the mixer's memory, and in the send arena once somebody needed it there.
#[derive(Clone, Copy)]
pub(super) struct Encoded {
    start: usize,
    len: usize,
    pub(super) shared: Option<Payload>,
}

impl Room {
    pub(super) fn mix_and_speak(&mut self, tick: &mut Tick<'_>, samples: usize) {
        let Mixer {
            kernels,
            total,
            own,
            pcm,
            encoded,
        } = &mut *tick.mixer;
        let (total, own, pcm) = (
            &mut total[..samples],
            &mut own[..samples],
            &mut pcm[..samples],
        );

        total.fill(0);
        for &talker in &self.talkers {
            kernels.add(total, self.members[talker].frame(samples));
        }
        // One gain for everybody: the loudest mix decides, and levels do not differ between listeners.
        let mut peak = kernels.peak(total);
        for &talker in &self.talkers {
            kernels.minus(own, total, self.members[talker].frame(samples));
            peak = peak.max(kernels.peak(own));
        }
        let ramp = self.limiter.next(peak, samples);

        encoded.clear();
        kernels.pack(pcm, total, ramp);
        let mut shared: [Option<Encoded>; Codec::ALL.len()] = [None; Codec::ALL.len()];
        for (_, member) in self.members.iter_mut().filter(|(_, member)| !member.in_mix) {
            if !member.listens() {
                continue;
            }
            let codec = member.leg.codec;
            let frame = shared[codec.index()].get_or_insert_with(|| {
                let encoder =
                    self.encoders[codec.index()].get_or_insert_with(|| codec.encoder(*kernels));
                let start = encoded.len();
                encoder.encode(pcm, encoded);
                Encoded {
                    start,
                    len: encoded.len() - start,
                    shared: None,
                }
            });
            let payload = &encoded[frame.start..][..frame.len];
            member.speak(
                self.period,
                samples,
                payload,
                &mut frame.shared,
                tick.now,
                tick.io,
                tick.counts,
            );
        }
        for &talker in &self.talkers {
            let member = &mut self.members[talker];
            if !member.listens() {
                continue;
            }
            kernels.minus(own, total, member.frame(samples));
            kernels.pack(pcm, own, ramp);
            encoded.clear();
            member.encoder.encode(pcm, encoded);
            member.speak(
                self.period,
                samples,
                encoded,
                &mut None,
                tick.now,
                tick.io,
                tick.counts,
            );
        }
        for (_, member) in &mut self.members {
            member.report(tick.now, tick.ntp, tick.io, tick.counts);
        }
    }
}
