//! The algebra the mixer stands on, over arbitrary voices.

use mixer_simd::{Kernels, Ramp};
use proptest::collection::vec;
use proptest::prelude::*;

const FRAME: usize = 40;

proptest! {
    #[test]
    fn total_minus_own_is_the_sum_of_the_others(voices in vec(vec(any::<i16>(), FRAME), 1..12)) {
        let kernels = Kernels::detect();
        let sum = |left_out: Option<usize>| {
            let mut sum = vec![0; FRAME];
            voices.iter().enumerate().filter(|(i, _)| Some(*i) != left_out).for_each(|(_, voice)| kernels.add(&mut sum, voice));
            sum
        };
        let total = sum(None);
        for (i, own) in voices.iter().enumerate() {
            let mut others = vec![0; FRAME];
            kernels.minus(&mut others, &total, own);
            prop_assert_eq!(&others, &sum(Some(i)));
        }
    }

    #[test]
    fn a_sum_may_be_split_anywhere(voices in vec(vec(any::<i16>(), FRAME), 2..12), at in any::<prop::sample::Index>()) {
        let kernels = Kernels::detect();
        let sum = |voices: &[Vec<i16>]| {
            let mut sum = vec![0; FRAME];
            voices.iter().for_each(|voice| kernels.add(&mut sum, voice));
            sum
        };
        let (left, right) = voices.split_at(at.index(voices.len()));
        let joined: Vec<i32> = sum(left).iter().zip(sum(right)).map(|(l, r)| l + r).collect();
        prop_assert_eq!(joined, sum(&voices));
    }

    #[test]
    fn one_voice_passes_unchanged(voice in vec(any::<i16>(), 0..FRAME)) {
        let kernels = Kernels::detect();
        let mut sum = vec![0; voice.len()];
        kernels.add(&mut sum, &voice);
        let mut out = vec![0; voice.len()];
        kernels.pack(&mut out, &sum, Ramp::UNITY);
        prop_assert_eq!(out, voice);
    }
}
