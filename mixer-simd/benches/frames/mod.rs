//! Every kernel with something to do: the list behind time and instruction counts.

use std::hint::black_box;

use mixer_simd::{Kernels, Ramp};

/// Inputs and outputs of all kernels, one frame each.
pub(crate) struct Frame {
    pcm: Vec<i16>,
    sum: Vec<i32>,
    law: Vec<u8>,
    ramp: Ramp,
    words: Vec<i32>,
    samples: Vec<i16>,
    octets: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(len: usize) -> Self {
        let pcm: Vec<i16> = (0..len).map(|i| (i as i16).wrapping_mul(20_011)).collect();
        let sum: Vec<i32> = pcm.iter().map(|&sample| i32::from(sample) * 3).collect();
        let law: Vec<u8> = pcm.iter().map(|&sample| sample as u8).collect();
        Self {
            words: sum.clone(),
            samples: pcm.clone(),
            octets: law.clone(),
            ramp: Ramp {
                from: 1.0,
                to: 0.5,
                over: len,
            },
            pcm,
            sum,
            law,
        }
    }
}

pub(crate) type Run = fn(&Kernels, &mut Frame);

pub(crate) const KERNELS: &[(&str, Run)] = &[
    ("add", |kernels, frame| {
        kernels.add(&mut frame.words, &frame.pcm);
    }),
    ("minus", |kernels, frame| {
        kernels.minus(&mut frame.words, &frame.sum, &frame.pcm);
    }),
    ("peak", |kernels, frame| {
        black_box(kernels.peak(&frame.sum));
    }),
    ("pack", |kernels, frame| {
        kernels.pack(&mut frame.samples, &frame.sum, Ramp::UNITY);
    }),
    ("pack_ramp", |kernels, frame| {
        kernels.pack(&mut frame.samples, &frame.sum, frame.ramp);
    }),
    ("gain", |kernels, frame| {
        kernels.gain(&mut frame.samples, frame.ramp);
    }),
    ("energy", |kernels, frame| {
        black_box(kernels.energy(&frame.pcm));
    }),
    ("ulaw_encode", |kernels, frame| {
        kernels.ulaw_encode(&mut frame.octets, &frame.pcm);
    }),
    ("ulaw_decode", |kernels, frame| {
        kernels.ulaw_decode(&mut frame.samples, &frame.law);
    }),
    ("alaw_encode", |kernels, frame| {
        kernels.alaw_encode(&mut frame.octets, &frame.pcm);
    }),
    ("alaw_decode", |kernels, frame| {
        kernels.alaw_decode(&mut frame.samples, &frame.law);
    }),
];
