//! Time of every kernel at every level this processor has: one 20 ms frame at 8 and at 48 kHz.
//! Instructions, which repeat exactly, are counted by `perf/kernels.sh`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mixer_simd::{Kernels, Level};

mod frames;

use frames::{Frame, KERNELS};

fn kernels(criterion: &mut Criterion) {
    for len in [160, 960] {
        let mut frame = Frame::new(len);
        for (name, run) in KERNELS {
            let mut group = criterion.benchmark_group(format!("{name}/{len}"));
            group.throughput(Throughput::Elements(len as u64));
            for kernels in Level::ALL.iter().filter_map(|&level| Kernels::at(level)) {
                group.bench_function(
                    BenchmarkId::from_parameter(kernels.level().name()),
                    |bencher| bencher.iter(|| run(black_box(&kernels), &mut frame)),
                );
            }
        }
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
