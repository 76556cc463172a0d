//! Runs one kernel at one level for a tool that counts instructions; see `perf/kernels.sh`.
//!
//!     instructions                    what there is: a kernel and a level on each line
//!     instructions KERNEL LEVEL       run it for FRAMES frames of LEN samples

use std::hint::black_box;
use std::process::ExitCode;

use mixer_simd::{Kernels, Level};

#[path = "../benches/frames/mod.rs"]
mod frames;

use frames::{Frame, KERNELS, Run};

/// 20 ms at 8 kHz.
const LEN: usize = 160;

/// Enough that a count which is no multiple of it shows that something else was counted too.
const FRAMES: usize = 100;

/// The processor, or what plays it, lacks the level.
const NOT_HERE: u8 = 3;

/// What is counted, by this name: the kernel and a call of it.
#[inline(never)]
fn one_frame(run: Run, kernels: &Kernels, frame: &mut Frame) {
    run(kernels, frame);
    // Not the last thing done, so that the call stays a call.
    black_box(frame);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, level] = arguments.as_slice() else {
        for (kernel, _) in KERNELS {
            for level in Level::ALL {
                println!("{kernel} {}", level.name());
            }
        }
        return ExitCode::SUCCESS;
    };
    let run = KERNELS.iter().find(|(name, _)| name == kernel);
    let level = Level::ALL.iter().find(|known| known.name() == level);
    let (Some((_, run)), Some(&level)) = (run, level) else {
        eprintln!("instructions: no such kernel or level: {arguments:?}");
        return ExitCode::FAILURE;
    };
    let Some(kernels) = Kernels::at(level) else {
        return ExitCode::from(NOT_HERE);
    };
    let mut frame = Frame::new(LEN);
    for _ in 0..FRAMES {
        one_frame(*run, &kernels, &mut frame);
    }
    println!("{FRAMES} {LEN}");
    ExitCode::SUCCESS
}
