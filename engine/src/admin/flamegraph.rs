//! Where the process spends its time, as an SVG.
//!
//! A timer of the process's CPU time interrupts whichever thread is running and notes its stack, so
//! shards appear by thread name with the functions they were in, and who sleeps does not appear.
//! Recording costs about a stack walk per sample; drawing happens on a thread that may block.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use pprof::{ProfilerGuard, ProfilerGuardBuilder};

/// How long a recording may be asked to take.
pub(super) const SECONDS: RangeInclusive<u64> = 1..=60;
pub(super) const SECONDS_DEFAULT: u64 = 5;

/// Samples per second of CPU time. A prime, so that it does not beat with the 1 ms turn and 20 ms
/// tick of the shards; low, so that a stack walk of some 10 µs stays below half a percent.
const SAMPLES_PER_SECOND: i32 = 199;

/// Code without reliable unwind tables, or that holds the loader's lock: a sample that lands there
/// is skipped rather than walked.
const NOT_WALKED: [&str; 3] = ["vdso", "libgcc", "ld-linux"];

/// The profiler is one per process, because its signal is.
static RECORDING: AtomicBool = AtomicBool::new(false);

/// Why there is no picture.
#[derive(Debug)]
pub(super) enum Error {
    /// Someone else is recording.
    Running,
    Profiler(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("a flamegraph is being recorded already"),
            Self::Profiler(reason) => write!(f, "the profiler failed: {reason}"),
        }
    }
}

/// Records all threads for this long. Dropping the future ends the recording.
pub(super) async fn record(duration: Duration) -> Result<Vec<u8>, Error> {
    let turn = Turn::take().ok_or(Error::Running)?;
    let profiler = ProfilerGuardBuilder::default()
        .frequency(SAMPLES_PER_SECOND)
        .blocklist(&NOT_WALKED)
        .build()
        .map_err(|error| Error::Profiler(error.to_string()))?;
    tokio::time::sleep(duration).await;
    tokio::task::spawn_blocking(move || {
        let drawn = draw(&profiler);
        // The profiler stops before the next may begin.
        drop(profiler);
        drop(turn);
        drawn
    })
    .await
    .map_err(|error| Error::Profiler(error.to_string()))?
}

fn draw(profiler: &ProfilerGuard<'_>) -> Result<Vec<u8>, Error> {
    let report = profiler
        .report()
        .build()
        .map_err(|error| Error::Profiler(error.to_string()))?;
    let mut svg = Vec::new();
    match report.flamegraph(&mut svg) {
        // An idle process gave no samples: the picture that says so is an answer too.
        Err(_) if !svg.is_empty() => Ok(svg),
        Err(error) => Err(Error::Profiler(error.to_string())),
        Ok(()) => Ok(svg),
    }
}

/// The right to record, given back when dropped.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!RECORDING.swap(true, Ordering::Acquire)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RECORDING.store(false, Ordering::Release);
    }
}
