//! Time of every kernel at every level this processor has: one 20 ms frame at 8 and at 48 kHz.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mixer_simd::{Kernels, Level, Ramp};

fn kernels(criterion: &mut Criterion) {
    for len in [160, 960] {
        let pcm: Vec<i16> = (0..len).map(|i| (i as i16).wrapping_mul(20_011)).collect();
        let sum: Vec<i32> = pcm.iter().map(|&sample| i32::from(sample) * 3).collect();
        let law: Vec<u8> = pcm.iter().map(|&sample| sample as u8).collect();
        let ramp = Ramp {
            from: 1.0,
            to: 0.5,
            over: len,
        };
        let mut words = sum.clone();
        let mut samples = pcm.clone();
        let mut octets = law.clone();
        let mut bench = |name: &str, run: &mut dyn FnMut(&Kernels)| {
            let mut group = criterion.benchmark_group(format!("{name}/{len}"));
            group.throughput(Throughput::Elements(len as u64));
            for kernels in Level::ALL.iter().filter_map(|&level| Kernels::at(level)) {
                group.bench_function(
                    BenchmarkId::from_parameter(kernels.level().name()),
                    |bencher| bencher.iter(|| run(black_box(&kernels))),
                );
            }
        };
        bench("add", &mut |kernels| kernels.add(&mut words, &pcm));
        bench("minus", &mut |kernels| {
            kernels.minus(&mut words, &sum, &pcm)
        });
        bench("peak", &mut |kernels| {
            black_box(kernels.peak(&sum));
        });
        bench("pack", &mut |kernels| {
            kernels.pack(&mut samples, &sum, Ramp::UNITY)
        });
        bench("pack_ramp", &mut |kernels| {
            kernels.pack(&mut samples, &sum, ramp)
        });
        bench("gain", &mut |kernels| kernels.gain(&mut samples, ramp));
        bench("energy", &mut |kernels| {
            black_box(kernels.energy(&pcm));
        });
        bench("ulaw_encode", &mut |kernels| {
            kernels.ulaw_encode(&mut octets, &pcm)
        });
        bench("ulaw_decode", &mut |kernels| {
            kernels.ulaw_decode(&mut samples, &law)
        });
        bench("alaw_encode", &mut |kernels| {
            kernels.alaw_encode(&mut octets, &pcm)
        });
        bench("alaw_decode", &mut |kernels| {
            kernels.alaw_decode(&mut samples, &law)
        });
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
