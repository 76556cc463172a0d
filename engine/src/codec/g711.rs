//! ITU-T G.711: one octet per sample, no state.

use mixer_simd::Kernels;

use super::{Decode, Encode};

pub(super) struct Ulaw(pub(super) Kernels);
pub(super) struct Alaw(pub(super) Kernels);

/// Makes room for `len` more values and gives the new part to fill.
fn grow<T: Copy + Default>(values: &mut Vec<T>, len: usize) -> &mut [T] {
    let start = values.len();
    values.resize(start + len, T::default());
    &mut values[start..]
}

impl Encode for Ulaw {
    fn encode(&mut self, pcm: &[i16], payload: &mut Vec<u8>) {
        self.0.ulaw_encode(grow(payload, pcm.len()), pcm);
    }
}

impl Decode for Ulaw {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        self.0.ulaw_decode(grow(pcm, payload.len()), payload);
    }
}

impl Encode for Alaw {
    fn encode(&mut self, pcm: &[i16], payload: &mut Vec<u8>) {
        self.0.alaw_encode(grow(payload, pcm.len()), pcm);
    }
}

impl Decode for Alaw {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        self.0.alaw_decode(grow(pcm, payload.len()), payload);
    }
}
