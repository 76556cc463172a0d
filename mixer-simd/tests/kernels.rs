//! Every kernel at every level against the scalar twin: all short lengths, unaligned starts, guarded
//! ends, edge values and random ones.

use mixer_simd::{Kernels, Level, Ramp};

const GUARD: usize = 16;

/// Frame lengths of 10 and 20 ms at 8 to 48 kHz, and everything short.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=200).chain([320, 480, 960, 1_920])
}

/// Levels of this processor above scalar; says which are missing.
fn levels() -> Vec<Kernels> {
    let (here, missing): (Vec<Level>, Vec<Level>) =
        Level::ALL.iter().partition(|level| level.is_here());
    if !missing.is_empty() {
        println!("not tested, this processor lacks them: {missing:?}");
    }
    here.into_iter().filter_map(Kernels::at).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One in four values lies at an edge.
    fn samples(&mut self, len: usize) -> Vec<i16> {
        const EDGES: [i16; 8] = [
            i16::MIN,
            i16::MIN + 1,
            -1,
            0,
            1,
            i16::MAX - 1,
            i16::MAX,
            -8_159,
        ];
        (0..len)
            .map(|_| {
                if self.next().is_multiple_of(4) {
                    EDGES[(self.next() % 8) as usize]
                } else {
                    self.next() as i16
                }
            })
            .collect()
    }

    /// As sums of up to 65,536 samples can be, without their wrapping.
    fn sums(&mut self, len: usize) -> Vec<i32> {
        const EDGES: [i32; 8] = [
            -0x7FFF_0000,
            0x7FFF_0000,
            -32_769,
            -32_768,
            32_767,
            32_768,
            0,
            -1,
        ];
        (0..len)
            .map(|_| match self.next() % 4 {
                0 => EDGES[(self.next() % 8) as usize],
                1 => (self.next() as i32) >> 1,
                _ => (self.next() as i32) >> 14,
            })
            .collect()
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs `kernel` on a part of a larger buffer and gives that part, after checking that nothing around it changed.
fn guarded<T: Copy + PartialEq + std::fmt::Debug>(
    start: &[T],
    offset: usize,
    filler: T,
    kernel: impl FnOnce(&mut [T]),
) -> Vec<T> {
    let mut buffer = vec![filler; offset + start.len() + GUARD];
    buffer[offset..offset + start.len()].copy_from_slice(start);
    kernel(&mut buffer[offset..offset + start.len()]);
    let untouched = buffer[..offset]
        .iter()
        .chain(&buffer[offset + start.len()..])
        .all(|value| *value == filler);
    assert!(untouched, "written outside the frame");
    buffer[offset..offset + start.len()].to_vec()
}

/// Words, samples, octets and numbers.
type Outcome = (Vec<Vec<i32>>, Vec<Vec<i16>>, Vec<Vec<u8>>, [u64; 2]);

/// What all kernels make of the same input.
fn outcome(kernels: &Kernels, len: usize, offset: usize, seed: u64) -> Outcome {
    let random = &mut Random(seed);
    let (pcm, sums, octets) = (
        random.samples(len + offset),
        random.sums(len + offset),
        random.octets(len + offset),
    );
    let (pcm, sums, octets) = (&pcm[offset..], &sums[offset..], &octets[offset..]);
    let ramps = [
        Ramp::UNITY,
        Ramp::flat(0.37),
        Ramp {
            from: 1.0,
            to: 0.2,
            over: len,
        },
        Ramp {
            from: 0.25,
            to: 1.0,
            over: len / 3,
        },
        Ramp {
            from: 0.5,
            to: 3.0,
            over: 2 * len,
        },
    ];
    let words = vec![
        guarded(sums, offset, 77, |sum| kernels.add(sum, pcm)),
        guarded(sums, offset, 77, |out| kernels.minus(out, sums, pcm)),
    ];
    let mut samples: Vec<Vec<i16>> = ramps
        .iter()
        .map(|&ramp| guarded(pcm, offset, 77, |out| kernels.pack(out, sums, ramp)))
        .collect();
    samples.extend(
        ramps
            .iter()
            .map(|&ramp| guarded(pcm, offset, 77, |out| kernels.gain(out, ramp))),
    );
    samples.push(guarded(pcm, offset, 77, |out| {
        kernels.ulaw_decode(out, octets)
    }));
    samples.push(guarded(pcm, offset, 77, |out| {
        kernels.alaw_decode(out, octets)
    }));
    let codes = vec![
        guarded(octets, offset, 77, |out| kernels.ulaw_encode(out, pcm)),
        guarded(octets, offset, 77, |out| kernels.alaw_encode(out, pcm)),
    ];
    (
        words,
        samples,
        codes,
        [kernels.peak(sums).into(), kernels.energy(pcm)],
    )
}

#[test]
fn every_level_does_what_the_scalar_twin_does() {
    let scalar = Kernels::at(Level::Scalar).unwrap();
    for kernels in levels() {
        for len in lengths() {
            for offset in [0, 1, 3] {
                let seed = 0x9E37 + (len * 7 + offset) as u64;
                assert_eq!(
                    outcome(&kernels, len, offset, seed),
                    outcome(&scalar, len, offset, seed),
                    "{kernels:?}, {len} at {offset}"
                );
            }
        }
    }
}

#[test]
fn pack_without_gain_saturates_and_changes_nothing_else() {
    for kernels in levels() {
        let sum = [
            i32::MIN,
            -32_769,
            -32_768,
            -1,
            0,
            1,
            32_767,
            32_768,
            i32::MAX,
        ];
        let mut out = [0; 9];
        kernels.pack(&mut out, &sum, Ramp::UNITY);
        assert_eq!(
            out,
            [-32_768, -32_768, -32_768, -1, 0, 1, 32_767, 32_767, 32_767]
        );
    }
}

#[test]
fn energy_and_peak_stand_the_loudest_frame() {
    for kernels in levels() {
        assert_eq!(kernels.energy(&[i16::MIN; 1_920]), 1_920 << 30);
        assert_eq!(kernels.peak(&[0, i32::MIN, 5]), 1 << 31);
        assert_eq!((kernels.energy(&[]), kernels.peak(&[])), (0, 0));
    }
}

#[test]
fn every_level_does_what_the_formulas_say() {
    for kernels in levels() {
        for len in [0, 1, 15, 160, 961] {
            let random = &mut Random(0xC0FFEE + len as u64);
            let (pcm, sums) = (random.samples(len), random.sums(len));
            let exact = |sign: i64| -> Vec<i64> {
                sums.iter()
                    .zip(&pcm)
                    .map(|(&sum, &own)| i64::from(sum) + sign * i64::from(own))
                    .collect()
            };
            let wide = |words: &[i32]| words.iter().copied().map(i64::from).collect::<Vec<_>>();
            let mut words = sums.clone();
            kernels.add(&mut words, &pcm);
            assert_eq!(wide(&words), exact(1));
            kernels.minus(&mut words, &sums, &pcm);
            assert_eq!(wide(&words), exact(-1));
            let peak = sums.iter().map(|&sum| i64::from(sum).abs()).max();
            assert_eq!(i64::from(kernels.peak(&sums)), peak.unwrap_or(0));
            let energy: i64 = pcm.iter().map(|&s| i64::from(s) * i64::from(s)).sum();
            assert_eq!(kernels.energy(&pcm), energy as u64);
        }
    }
}

/// A ramp is a straight line from the first sample to sample `over`, which has the last gain.
#[test]
fn ramps_scale_by_the_line_they_name() {
    let ramps = [
        (1.0, 0.125, 1_000),
        (0.0, 1.0, 500),
        (0.5, 2.0, 1),
        (3.0, 0.3, 0),
        (0.25, 0.75, 1_700),
    ];
    for kernels in levels() {
        let random = &mut Random(0xFACADE);
        let pcm = random.samples(1_000);
        let sums: Vec<i32> = pcm.iter().map(|&s| i32::from(s) * 5).collect();
        for (from, to, over) in ramps {
            let ramp = Ramp { from, to, over };
            let expected = |i: usize, value: i32| {
                let share = ((i + 1) as f64 / over.max(1) as f64).min(1.0);
                let gain = f64::from(from) + f64::from(to - from) * share;
                (f64::from(value) * gain).clamp(-32_768.0, 32_767.0)
            };
            let mut packed = vec![0; pcm.len()];
            kernels.pack(&mut packed, &sums, ramp);
            let mut scaled = pcm.clone();
            kernels.gain(&mut scaled, ramp);
            for i in 0..pcm.len() {
                // A gain in 24 bits is right to a hundredth of a unit here; rounding adds a half.
                let pack_off = (f64::from(packed[i]) - expected(i, sums[i])).abs();
                let gain_off = (f64::from(scaled[i]) - expected(i, pcm[i].into())).abs();
                assert!(
                    pack_off < 0.6 && gain_off < 0.6,
                    "{kernels:?}, {ramp:?}, sample {i}: off by {pack_off} and {gain_off}"
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "equally long")]
fn frames_of_different_length_are_the_callers_error() {
    Kernels::detect().add(&mut [0; 160], &[0; 161]);
}
