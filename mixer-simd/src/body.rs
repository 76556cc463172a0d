//! Every kernel, once. Slices of one call have the same length; `levels.rs` has checked that.

/// A gain that moves linearly over a frame: from `from` before the first sample to `to` at sample
/// `over`, and stays there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    pub from: f32,
    pub to: f32,
    /// Samples until `to` is reached; 0 = at once.
    pub over: usize,
}

impl Ramp {
    /// Changes nothing, bit for bit.
    pub const UNITY: Self = Self::flat(1.0);

    pub const fn flat(gain: f32) -> Self {
        Self {
            from: gain,
            to: gain,
            over: 0,
        }
    }

    /// Gain at sample 0 and its step from sample to sample, for the part that moves.
    fn line(self) -> (f32, f32) {
        let step = (self.to - self.from) / self.over.max(1) as f32;
        (self.from + step, step)
    }
}

/// `sum[i] += input[i]`. Exact for up to 65,536 inputs; beyond that it would wrap.
#[inline(always)]
pub(crate) fn add(sum: &mut [i32], input: &[i16]) {
    for (sum, &input) in sum.iter_mut().zip(input) {
        *sum = sum.wrapping_add(input.into());
    }
}

/// `out[i] = sum[i] - own[i]`.
#[inline(always)]
pub(crate) fn minus(out: &mut [i32], sum: &[i32], own: &[i16]) {
    for ((out, &sum), &own) in out.iter_mut().zip(sum).zip(own) {
        *out = sum.wrapping_sub(own.into());
    }
}

/// The largest magnitude.
#[inline(always)]
pub(crate) fn peak(sum: &[i32]) -> u32 {
    sum.iter()
        .fold(0, |peak, &sample| peak.max(sample.unsigned_abs()))
}

/// Narrows to 16 bits, saturating.
#[inline(always)]
pub(crate) fn narrow(out: &mut [i16], sum: &[i32]) {
    for (out, &sum) in out.iter_mut().zip(sum) {
        *out = sum.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    }
}

/// Narrows under a gain of `first + i * step`.
#[inline(always)]
pub(crate) fn narrow_line(out: &mut [i16], sum: &[i32], first: f32, step: f32) {
    for (i, (out, &sum)) in out.iter_mut().zip(sum).enumerate() {
        *out = scaled(sum as f32, first + i as i32 as f32 * step);
    }
}

/// `samples[i] *= first + i * step`, saturating.
#[inline(always)]
pub(crate) fn gain_line(samples: &mut [i16], first: f32, step: f32) {
    for (i, sample) in samples.iter_mut().enumerate() {
        *sample = scaled(f32::from(*sample), first + i as i32 as f32 * step);
    }
}

/// Narrows under a ramp: the moving part, then the flat one.
#[inline(always)]
pub(crate) fn pack(out: &mut [i16], sum: &[i32], ramp: Ramp) {
    let moving = ramp.over.min(out.len());
    let (first, step) = ramp.line();
    narrow_line(&mut out[..moving], &sum[..moving], first, step);
    if ramp.to == 1.0 {
        narrow(&mut out[moving..], &sum[moving..]);
    } else {
        narrow_line(&mut out[moving..], &sum[moving..], ramp.to, 0.0);
    }
}

/// Scales under a ramp.
#[inline(always)]
pub(crate) fn gain(samples: &mut [i16], ramp: Ramp) {
    let (moving, flat) = samples.split_at_mut(ramp.over.min(samples.len()));
    let (first, step) = ramp.line();
    gain_line(moving, first, step);
    if ramp.to != 1.0 {
        gain_line(flat, ramp.to, 0.0);
    }
}

/// To the nearest sample, saturating.
#[inline(always)]
fn scaled(sample: f32, gain: f32) -> i16 {
    // Adding 1.5 * 2^23 leaves a number of this size as an integer in the lowest bits of the sum: a
    // conversion in one vector addition, where `as` has to look for NaN and overflow in each lane.
    const SHIFT: f32 = 12_582_912.0;
    let clamped = (sample * gain).max(i16::MIN.into()).min(i16::MAX.into());
    (clamped + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i16
}

/// The sum of squares.
#[inline(always)]
pub(crate) fn energy(samples: &[i16]) -> u64 {
    // Two squares fit in 32 unsigned bits, and pairs are what one multiply-add instruction takes.
    let (pairs, rest) = samples.as_chunks::<2>();
    let square = |sample: i16| i32::from(sample).pow(2) as u32;
    let sum: u64 = pairs
        .iter()
        .map(|&[a, b]| u64::from(square(a) + square(b)))
        .sum();
    sum + rest
        .iter()
        .map(|&sample| u64::from(square(sample)))
        .sum::<u64>()
}

// G.711. A code is a sign, a segment (3 bits) and a step within it (4 bits), inverted on the wire
// (µ-law) or with even bits inverted (A-law). That is a floating-point number with a short exponent and
// mantissa, so the encoders let the conversion to f32 find the segment: exact, as a magnitude has at
// most 13 bits, and the same few instructions for every sample, where a search for the segment costs a
// comparison for each of seven ends. The decoders stay within 16 bits, so that a register holds twice
// as many samples as with the i32 the shifts would otherwise be promoted to.

/// Segment and step of a magnitude whose lowest segment starts at 2 to the `lowest`: the upper bits of
/// an f32, exponent and four bits of mantissa.
#[inline(always)]
fn segment_and_step(magnitude: i32, lowest: i32) -> i32 {
    const MANTISSA_BITS: u32 = 23;
    const STEP_BITS: u32 = 4;
    const BIAS: i32 = 127;
    let upper = (magnitude as f32).to_bits() >> (MANTISSA_BITS - STEP_BITS);
    upper as i32 - ((BIAS + lowest) << STEP_BITS)
}

/// ITU-T G.711 µ-law: 14 bits of magnitude, biased by 33 in units of 4.
#[inline(always)]
pub(crate) fn ulaw_encode(out: &mut [u8], pcm: &[i16]) {
    for (out, &pcm) in out.iter_mut().zip(pcm) {
        let pcm = i32::from(pcm);
        let negative = pcm >> 31;
        // One's complement makes the negative half as long as the positive one.
        let magnitude = (((pcm ^ negative) >> 2) + 33).min(0x1FFF);
        *out = (segment_and_step(magnitude, 5) ^ 0xFF ^ (negative & 0x80)) as u8;
    }
}

#[inline(always)]
pub(crate) fn ulaw_decode(out: &mut [i16], law: &[u8]) {
    for (out, &law) in out.iter_mut().zip(law) {
        let code = u16::from(!law);
        let segment = (code >> 4) & 0x07;
        let magnitude = (((((code & 0x0F) << 3) + 0x84) << segment) - 0x84) as i16;
        let negative = -((code >> 7) as i16);
        *out = (magnitude ^ negative) - negative;
    }
}

/// ITU-T G.711 A-law: 13 bits, whose first two segments have the same step.
#[inline(always)]
pub(crate) fn alaw_encode(out: &mut [u8], pcm: &[i16]) {
    for (out, &pcm) in out.iter_mut().zip(pcm) {
        let pcm = i32::from(pcm);
        let negative = pcm >> 31;
        let magnitude = (pcm ^ negative) >> 4;
        // Below 16 the code is the magnitude, from 16 on it is logarithmic and starts at 16.
        let code = segment_and_step(magnitude.max(16), 4) + magnitude.min(16);
        *out = (code ^ 0xD5 ^ (negative & 0x80)) as u8;
    }
}

#[inline(always)]
pub(crate) fn alaw_decode(out: &mut [i16], law: &[u8]) {
    for (out, &law) in out.iter_mut().zip(law) {
        let code = u16::from(law ^ 0x55);
        let segment = (code >> 4) & 0x07;
        let upper = u16::from(segment > 0);
        let magnitude = ((((code & 0x0F) << 4) + 8 + (upper << 8)) << (segment - upper)) as i16;
        let negative = ((code >> 7) as i16) - 1;
        *out = (magnitude ^ negative) - negative;
    }
}
