//! What goes out on the trunks of a room: the same for all, encoded once per codec.

use std::ops::Range;

use mixer_simd::{Kernels, Limiter};

use super::super::mix::{Frame, Mixer, pack};
use super::{Partial, Talkers};
use crate::codec::{Codec, Encode, SAMPLE_RATE};
use crate::io::MediaIo;

pub(super) struct Outgoing {
    /// What others add to it is theirs to limit.
    limiter: Limiter,
    encoders: [Option<Box<dyn Encode>>; Codec::COUNT],
    frames: [Option<Frame>; Codec::COUNT],
    /// Where the mixer has the samples, while there are any.
    pcm: Option<Range<usize>>,
    who: Talkers,
    /// There is something to send in this tick.
    due: bool,
    /// Somebody talked in the tick before.
    spoke: bool,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            limiter: Limiter::new(SAMPLE_RATE),
            encoders: [const { None }; Codec::COUNT],
            frames: [const { None }; Codec::COUNT],
            pcm: None,
            who: Talkers::new(),
            due: false,
            spoke: false,
        }
    }
}

impl Outgoing {
    /// Whether `sum` is sent in this tick: while somebody talks, and once more with nobody in it, so that
    /// the far end has silence to fill the pause with, and not the end of a word.
    pub(super) fn decide(&mut self, sum: &Partial, listened: bool) {
        self.who.clone_from(&sum.who);
        self.due = listened && (sum.sounds || self.spoke);
        self.spoke = sum.sounds;
    }

    pub(super) fn mix(&mut self, kernels: &Kernels, sum: &[i32], pcm: &mut Vec<i16>) {
        self.pcm = self.due.then(|| {
            let ramp = self.limiter.next(kernels.peak(sum), sum.len());
            pack(kernels, pcm, sum, ramp)
        });
    }

    pub(super) fn encode(
        &mut self,
        codecs: impl Iterator<Item = Codec>,
        mixer: &mut Mixer,
        io: &mut impl MediaIo,
    ) {
        self.frames = [const { None }; Codec::COUNT];
        let Some(pcm) = &self.pcm else { return };
        for codec in codecs {
            let frame = &mut self.frames[codec.index()];
            if frame.is_none() {
                let encoder = self.encoders[codec.index()]
                    .get_or_insert_with(|| codec.encoder(*mixer.kernels()));
                *frame = Some(mixer.encode(encoder.as_mut(), pcm.clone(), io));
            }
        }
    }

    pub(super) fn frame(&self, codec: Codec) -> Option<&Frame> {
        self.frames[codec.index()].as_ref()
    }

    pub(super) fn who(&self) -> &Talkers {
        &self.who
    }
}
