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
                if self.next() % 4 == 0 {
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

/// What all kernels make of the same input.
fn outcome(
    kernels: &Kernels,
    len: usize,
    offset: usize,
    seed: u64,
) -> (Vec<Vec<i32>>, Vec<Vec<i16>>, Vec<Vec<u8>>, [u64; 2]) {
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

/// The decoder of ITU-T G.711, written from its tables: segment ends and steps.
fn ulaw_value(code: u8) -> i16 {
    let inverted = !code;
    let (segment, step) = (inverted >> 4 & 7, inverted & 15);
    let magnitude = (i32::from(step) * 2 + 33) * (1 << segment) - 33;
    // The standard's 14-bit values stand in the upper bits of 16.
    (if code & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    } * 4) as i16
}

fn alaw_value(code: u8) -> i16 {
    let plain = code ^ 0x55;
    let (segment, step) = (plain >> 4 & 7, i32::from(plain & 15));
    let magnitude = if segment == 0 {
        step * 2 + 1
    } else {
        (step * 2 + 33) << (segment - 1)
    };
    (if plain & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    } * 8) as i16
}

#[test]
fn g711_decodes_every_code_to_the_value_of_the_standard() {
    let codes: Vec<u8> = (0..=255).collect();
    for kernels in levels() {
        let mut pcm = [0; 256];
        kernels.ulaw_decode(&mut pcm, &codes);
        assert!(
            codes
                .iter()
                .zip(pcm)
                .all(|(&code, value)| value == ulaw_value(code))
        );
        kernels.alaw_decode(&mut pcm, &codes);
        assert!(
            codes
                .iter()
                .zip(pcm)
                .all(|(&code, value)| value == alaw_value(code))
        );
    }
}

#[test]
fn g711_encodes_every_sample_into_the_interval_of_its_code() {
    let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    // Half of the step of a code's segment, in 16-bit units.
    let ulaw_half = |code: u8| 4 << (!code >> 4 & 7);
    let alaw_half = |code: u8| 4 << ((code ^ 0x55) >> 4 & 7).max(1);
    for kernels in levels() {
        let mut codes = vec![0; all.len()];
        // µ-law ends at 8,158 in units of 4; louder samples are clipped to its last code.
        kernels.ulaw_encode(&mut codes, &all);
        for (&sample, &code) in all.iter().zip(&codes) {
            let clipped = i32::from(sample).clamp(-8_158 * 4, 8_158 * 4);
            let error = (clipped - i32::from(ulaw_value(code))).abs();
            assert!(
                error <= ulaw_half(code) + 4,
                "{sample} became {code:#04x}, off by {error}"
            );
        }
        kernels.alaw_encode(&mut codes, &all);
        for (&sample, &code) in all.iter().zip(&codes) {
            let error = (i32::from(sample) - i32::from(alaw_value(code))).abs();
            assert!(
                error <= alaw_half(code),
                "{sample} became {code:#04x}, off by {error}"
            );
        }
    }
}

#[test]
fn g711_codes_survive_decoding_and_encoding() {
    let codes: Vec<u8> = (0..=255).collect();
    for kernels in levels() {
        let (mut pcm, mut again) = ([0; 256], [0; 256]);
        kernels.alaw_decode(&mut pcm, &codes);
        kernels.alaw_encode(&mut again, &pcm);
        assert_eq!(again.as_slice(), codes);
        kernels.ulaw_decode(&mut pcm, &codes);
        kernels.ulaw_encode(&mut again, &pcm);
        // Negative zero of µ-law comes back as positive zero.
        assert!(
            codes
                .iter()
                .zip(again)
                .all(|(&code, again)| again == if code == 0x7F { 0xFF } else { code })
        );
    }
}
