//! The sum of the talkers, and for each of them the sum of the others.
//!
//! Listeners get the total; a talker gets the total minus himself. However many listen, a tick makes
//! one mix for all of them and one for each talker, and encodes each mix once per codec.

use std::ops::Range;

use mixer_simd::{Kernels, Ramp};

use super::links::Sums;
use super::{FRAME_LEN_MAX, Room};
use crate::codec::{Codec, Encode};
use crate::io::{MediaIo, Payload};

/// Working memory of a shard's ticks: what the rooms that are due leave from one step to the next.
pub struct Mixer {
    pub(super) kernels: Kernels,
    /// What one member's packets hold.
    pub(super) decoded: Vec<i16>,
    total: [i32; FRAME_LEN_MAX],
    own: [i32; FRAME_LEN_MAX],
    /// Of rooms with links.
    sums: Sums,
    pcm: Vec<i16>,
    encoded: Vec<u8>,
}

impl Mixer {
    pub fn new(kernels: Kernels) -> Self {
        Self {
            kernels,
            decoded: Vec::new(),
            total: [0; FRAME_LEN_MAX],
            own: [0; FRAME_LEN_MAX],
            sums: Sums::default(),
            pcm: Vec::new(),
            encoded: Vec::new(),
        }
    }

    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Forgets the mixes of the rooms before: a new tick begins.
    pub fn clear(&mut self) {
        self.pcm.clear();
        self.encoded.clear();
    }

    /// Encodes samples that it has.
    pub(super) fn encode(
        &mut self,
        encoder: &mut dyn Encode,
        pcm: Range<usize>,
        io: &mut impl MediaIo,
    ) -> Frame {
        let start = self.encoded.len();
        encoder.encode(&self.pcm[pcm], &mut self.encoded);
        Frame {
            bytes: start..self.encoded.len(),
            shared: io.share(&self.encoded[start..]),
        }
    }

    /// The bytes of a frame.
    pub(super) fn bytes(&self, frame: &Frame) -> &[u8] {
        &self.encoded[frame.bytes.clone()]
    }
}

/// One mix in one codec: its bytes in the mixer, and in the send arena.
#[derive(Clone)]
pub(super) struct Frame {
    bytes: Range<usize>,
    pub(super) shared: Payload,
}

impl Frame {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Puts a sum, with a gain, where a mixer keeps its samples.
pub(super) fn pack(kernels: &Kernels, pcm: &mut Vec<i16>, sum: &[i32], ramp: Ramp) -> Range<usize> {
    let start = pcm.len();
    pcm.resize(start + sum.len(), 0);
    kernels.pack(&mut pcm[start..], sum, ramp);
    start..pcm.len()
}

/// A room's mixes of one tick, where the mixer keeps them.
#[derive(Default)]
pub(super) struct Mixes {
    /// Of all talkers, if anybody gets that.
    total: Option<Range<usize>>,
    total_frames: [Option<Frame>; Codec::COUNT],
    /// Of all but one: for each talker, in their order, if he listens.
    others: Vec<Option<Range<usize>>>,
    pub(super) others_frames: Vec<Option<Frame>>,
}

impl Mixes {
    /// What those get who do not talk.
    pub(super) fn total(&self, codec: Codec) -> Option<&Frame> {
        self.total_frames[codec.index()].as_ref()
    }
}

impl Room {
    /// Adds up the talkers, and takes each out again for himself.
    pub fn mix(&mut self, mixer: &mut Mixer) {
        let samples = self.samples();
        let Mixer {
            kernels,
            total,
            own,
            sums,
            pcm,
            ..
        } = mixer;
        let (total, own) = (&mut total[..samples], &mut own[..samples]);

        total.fill(0);
        for &talker in &self.talkers {
            kernels.add(total, self.members[talker].frame(samples));
        }
        if let Some(links) = &mut self.links {
            let who = self.talkers.iter();
            let who = who.map(|&talker| self.members[talker].contributor());
            links.join(total, who, kernels, sums);
            links.mix(kernels, sums, pcm, samples);
        }
        // One gain for everybody: the loudest mix decides, and levels do not differ between listeners.
        let mut peak = kernels.peak(total);
        for &talker in &self.talkers {
            kernels.minus(own, total, self.members[talker].frame(samples));
            peak = peak.max(kernels.peak(own));
        }
        let ramp = self.limiter.next(peak, samples);
        let anybody = self.wanted.contains(&true);
        self.mixes.total = anybody.then(|| pack(kernels, pcm, total, ramp));
        self.mixes.others.clear();
        for &talker in &self.talkers {
            let member = &self.members[talker];
            self.mixes.others.push(member.listens().then(|| {
                kernels.minus(own, total, member.frame(samples));
                pack(kernels, pcm, own, ramp)
            }));
        }
    }

    /// Encodes each mix once for every codec in which somebody gets it.
    pub fn encode(&mut self, mixer: &mut Mixer, io: &mut impl MediaIo) {
        let Self {
            mixes,
            encoders,
            members,
            ..
        } = self;
        for (place, encoder) in encoders.iter_mut().enumerate() {
            let total = mixes.total.clone().filter(|_| self.wanted[place]);
            mixes.total_frames[place] = total.map(|total| {
                let codec = Codec::EVERY[place];
                let encoder = encoder.get_or_insert_with(|| codec.encoder(mixer.kernels));
                mixer.encode(encoder.as_mut(), total, io)
            });
        }
        mixes.others_frames.clear();
        for (&talker, others) in self.talkers.iter().zip(&mixes.others) {
            let encoder = members[talker].encoder.as_mut();
            let frame = others
                .clone()
                .map(|others| mixer.encode(encoder, others, io));
            mixes.others_frames.push(frame);
        }
        if let Some(links) = &mut self.links {
            links.encode(mixer, io);
        }
    }
}
