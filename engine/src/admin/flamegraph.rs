//! Where the process spends its time, as an SVG or as folded stacks.
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

use crate::flamegraph::folded::Folded;

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

/// How a recording is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Svg,
    Folded,
}

impl Format {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "svg" => Some(Self::Svg),
            "folded" => Some(Self::Folded),
            _ => None,
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Svg => "image/svg+xml",
            Self::Folded => "text/plain; charset=utf-8",
        }
    }
}

/// Records all threads for this long. Dropping the future ends the recording.
pub(super) async fn record(duration: Duration, format: Format) -> Result<Vec<u8>, Error> {
    let turn = Turn::take().ok_or(Error::Running)?;
    let profiler = ProfilerGuardBuilder::default()
        .frequency(SAMPLES_PER_SECOND)
        .blocklist(&NOT_WALKED)
        .build()
        .map_err(|error| Error::Profiler(error.to_string()))?;
    tokio::time::sleep(duration).await;
    tokio::task::spawn_blocking(move || {
        let stacks = fold(&profiler);
        // The profiler stops before the next may begin.
        drop(profiler);
        drop(turn);
        match format {
            Format::Svg => stacks?
                .draw()
                .map_err(|error| Error::Profiler(error.to_string())),
            Format::Folded => Ok(stacks?.to_string().into_bytes()),
        }
    })
    .await
    .map_err(|error| Error::Profiler(error.to_string()))?
}

fn fold(profiler: &ProfilerGuard<'_>) -> Result<Folded, Error> {
    let report = profiler
        .report()
        .build()
        .map_err(|error| Error::Profiler(error.to_string()))?;
    let mut folded = Folded::default();
    for (stack, &count) in &report.data {
        // Each address stands for its function and for those inlined into it, the innermost first.
        let functions = stack
            .frames
            .iter()
            .rev()
            .flat_map(|inlined| inlined.iter().rev());
        let names: Vec<String> = [stack.thread_name_or_id()]
            .into_iter()
            .chain(functions.map(pprof::Symbol::name))
            .collect();
        folded.add(names.iter().map(String::as_str), count as u64);
    }
    Ok(folded)
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
