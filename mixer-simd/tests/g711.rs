//! G.711 against the tables of the standard, at every level, for every code and every sample.
//!
//! The tables are built as ITU-T G.711 prints them, by walking intervals from zero upwards: nothing here
//! shifts by a segment or looks at a floating-point number, as the kernels do.

use mixer_simd::{Kernels, Level};

/// One law: the intervals of its positive half, in units of `unit` 16-bit steps.
struct Law {
    unit: i32,
    /// Where interval `i` begins. A sample at the border belongs to the upper interval.
    begins: Vec<i32>,
    /// What interval `i` decodes to.
    values: Vec<i32>,
    /// Bits inverted on the wire, for a positive sample; the sign bit is set for those.
    inverted: u8,
}

impl Law {
    /// `segments` are pairs of intervals and their width; the first interval may have a width of its own.
    fn new(unit: i32, first: Option<i32>, segments: &[(usize, i32)], inverted: u8) -> Self {
        let widths = segments
            .iter()
            .flat_map(|&(count, width)| vec![width; count]);
        let mut begin = 0;
        let (mut begins, mut values) = (Vec::new(), Vec::new());
        for (i, width) in widths.enumerate() {
            let own = first.filter(|_| i == 0);
            begins.push(begin);
            // The middle of the interval. The halved first interval of µ-law stands for zero.
            values.push(if own.is_some() { 0 } else { begin + width / 2 });
            begin += own.unwrap_or(width);
        }
        Self {
            unit,
            begins,
            values,
            inverted,
        }
    }

    /// Tables 2a and 2b: 8,159 units of which the first interval has 1, then 15 of 2, and 16 each of
    /// twice the width before.
    fn ulaw() -> Self {
        let segments: Vec<_> = (1..=8).map(|segment| (16, 1 << segment)).collect();
        Self::new(4, Some(1), &segments, 0x7F)
    }

    /// Tables 1a and 1b: 4,096 units, 32 intervals of 2, then 16 each of twice the width before.
    fn alaw() -> Self {
        let mut segments = vec![(32, 2)];
        segments.extend((2..=7).map(|segment| (16, 1 << segment)));
        Self::new(8, None, &segments, 0x55)
    }

    fn code(&self, interval: usize, negative: bool) -> u8 {
        (interval as u8 | if negative { 0 } else { 0x80 }) ^ self.inverted
    }

    /// As the reference coder of ITU-T G.191 has it: the negative half is the one's complement of the
    /// positive one.
    fn encode(&self, sample: i16) -> u8 {
        let negative = sample < 0;
        let magnitude = i32::from(if negative { !sample } else { sample }) / self.unit;
        let interval = self.begins.partition_point(|&begin| begin <= magnitude) - 1;
        self.code(interval, negative)
    }

    /// Pairs of a code and its value.
    fn decoded(&self) -> impl Iterator<Item = (u8, i16)> {
        let both = |(interval, value): (usize, &i32)| {
            [false, true].map(|negative| {
                let value = value * self.unit;
                let value = if negative { -value } else { value };
                (self.code(interval, negative), value as i16)
            })
        };
        self.values.iter().enumerate().flat_map(both)
    }
}

fn levels() -> impl Iterator<Item = Kernels> {
    Level::ALL.iter().filter_map(|&level| Kernels::at(level))
}

#[test]
fn the_tables_are_those_of_the_standard() {
    // Spot checks against the printed tables: the segment borders and the loudest value.
    let (ulaw, alaw) = (Law::ulaw(), Law::alaw());
    let borders = |law: &Law| -> Vec<i32> { law.begins.iter().copied().step_by(16).collect() };
    assert_eq!(borders(&ulaw), [0, 31, 95, 223, 479, 991, 2_015, 4_063]);
    assert_eq!(borders(&alaw), [0, 32, 64, 128, 256, 512, 1_024, 2_048]);
    assert_eq!((ulaw.values[1], ulaw.values[127]), (2, 8_031));
    assert_eq!((alaw.values[0], alaw.values[127]), (1, 4_032));
}

#[test]
fn every_code_decodes_to_the_value_of_the_standard() {
    for kernels in levels() {
        for (law, decode) in [
            (
                Law::ulaw(),
                Kernels::ulaw_decode as fn(&Kernels, &mut [i16], &[u8]),
            ),
            (Law::alaw(), Kernels::alaw_decode),
        ] {
            let (codes, values): (Vec<u8>, Vec<i16>) = law.decoded().unzip();
            assert_eq!(codes.len(), 256);
            let mut pcm = [0; 256];
            decode(&kernels, &mut pcm, &codes);
            assert_eq!(pcm.as_slice(), values, "{kernels:?}");
        }
    }
}

#[test]
fn every_sample_encodes_to_the_code_of_the_standard() {
    let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    for kernels in levels() {
        for (law, encode) in [
            (
                Law::ulaw(),
                Kernels::ulaw_encode as fn(&Kernels, &mut [u8], &[i16]),
            ),
            (Law::alaw(), Kernels::alaw_encode),
        ] {
            let mut codes = vec![0; all.len()];
            encode(&kernels, &mut codes, &all);
            for (&sample, &code) in all.iter().zip(&codes) {
                assert_eq!(code, law.encode(sample), "{kernels:?}, {sample}");
            }
        }
    }
}

#[test]
fn codes_survive_decoding_and_encoding() {
    let codes: Vec<u8> = (0..=255).collect();
    for kernels in levels() {
        let (mut pcm, mut again) = ([0; 256], [0; 256]);
        kernels.alaw_decode(&mut pcm, &codes);
        kernels.alaw_encode(&mut again, &pcm);
        assert_eq!(again.as_slice(), codes);
        kernels.ulaw_decode(&mut pcm, &codes);
        kernels.ulaw_encode(&mut again, &pcm);
        // Negative zero of µ-law comes back as positive zero.
        for (&code, again) in codes.iter().zip(again) {
            assert_eq!(again, if code == 0x7F { 0xFF } else { code });
        }
    }
}
