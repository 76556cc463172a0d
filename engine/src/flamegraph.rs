//! `plenum flamegraph`: where a running server spends its time, as a picture or as text that can be
//! compared later.
//!
//! ```text
//!   GET /debug/flamegraph ──SVG────────────────────> FILE
//!                         ──folded──> difference ──> FILE
//!   BEFORE.folded  AFTER.folded ────────┘
//!   RECORDING.folded ──drawing────────────────────> FILE
//! ```
//! The server samples itself (`admin/flamegraph.rs`); what recordings are made of is in `folded.rs`.

pub mod folded;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;

use folded::Folded;

/// Beyond the recording itself: names are looked up and the picture is drawn.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest recording read, far above the few hundred kilobytes of a minute under load.
const RECORDING_LEN_MAX: u64 = 64 * 1024 * 1024;

/// What to write.
#[derive(Clone, Debug)]
pub enum Job {
    /// The server's picture.
    Picture { http: String, seconds: u64 },
    /// The server's stacks as text.
    Stacks { http: String, seconds: u64 },
    /// The server's stacks beside those recorded `before`.
    Against {
        http: String,
        seconds: u64,
        before: PathBuf,
    },
    /// A picture of stacks recorded earlier.
    Drawing { recording: PathBuf },
    /// Two recordings beside each other.
    Difference { before: PathBuf, after: PathBuf },
}

/// Why there is no picture; one line.
#[derive(Debug)]
pub enum FlamegraphError {
    Unreachable { url: String, reason: String },
    Unreadable { path: PathBuf, reason: String },
    Unwritable { path: PathBuf, error: io::Error },
    Drawing(io::Error),
}

impl fmt::Display for FlamegraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { url, reason } => write!(f, "no flamegraph from {url}: {reason}"),
            Self::Unreadable { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Unwritable { path, error } => {
                write!(f, "cannot write {}: {error}", path.display())
            }
            Self::Drawing(error) => write!(f, "drawing failed: {error}"),
        }
    }
}

impl std::error::Error for FlamegraphError {}

/// Does the job and writes what came of it to `output`, where `-` is standard output.
///
/// # Errors
/// The server or a file cannot be read, or `output` cannot be written.
pub fn run(job: &Job, output: &Path) -> Result<(), FlamegraphError> {
    let content = match job {
        Job::Picture { http, seconds } => fetch(http, *seconds, "svg")?,
        Job::Stacks { http, seconds } => fetch(http, *seconds, "folded")?,
        Job::Against {
            http,
            seconds,
            before,
        } => {
            // A file that cannot be used is told before the recording, not after it.
            let before = read(before)?;
            let url = url(http, *seconds, "folded");
            let text = String::from_utf8_lossy(&fetch(http, *seconds, "folded")?).into_owned();
            let after: Folded = text
                .parse()
                .map_err(|error| unreachable(&url, format!("not folded stacks: {error}")))?;
            difference(&before, &after)?
        }
        Job::Drawing { recording } => read(recording)?.draw().map_err(FlamegraphError::Drawing)?,
        Job::Difference { before, after } => difference(&read(before)?, &read(after)?)?,
    };
    let written = if output == Path::new("-") {
        io::stdout().write_all(&content)
    } else {
        fs::write(output, &content)
    };
    written.map_err(|error| FlamegraphError::Unwritable {
        path: output.to_owned(),
        error,
    })
}

fn difference(before: &Folded, after: &Folded) -> Result<Vec<u8>, FlamegraphError> {
    after.draw_against(before).map_err(FlamegraphError::Drawing)
}

/// A recording that has something to compare.
fn read(path: &Path) -> Result<Folded, FlamegraphError> {
    let unreadable = |reason: String| FlamegraphError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let folded: Folded = text
        .parse()
        .map_err(|error| unreadable(format!("not folded stacks: {error}")))?;
    if folded.is_empty() {
        return Err(unreadable("has no stacks".to_owned()));
    }
    Ok(folded)
}

fn url(http: &str, seconds: u64, format: &str) -> String {
    let scheme = if http.contains("://") { "" } else { "http://" };
    let base = http.trim_end_matches('/');
    format!("{scheme}{base}/debug/flamegraph?seconds={seconds}&format={format}")
}

fn unreachable(url: &str, reason: String) -> FlamegraphError {
    FlamegraphError::Unreachable {
        url: url.to_owned(),
        reason: reason.replace('\n', " "),
    }
}

/// How the server says no.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

fn fetch(http: &str, seconds: u64, format: &str) -> Result<Vec<u8>, FlamegraphError> {
    let url = url(http, seconds, format);
    let failed = |error: ureq::Error| unreachable(&url, error.to_string());
    let config = Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(seconds) + ANSWER_TIME_MAX))
        // The server is asked itself, whatever the user's browser goes through.
        .proxy(None)
        .max_redirects(0)
        // A refusal has a reason, which is in its body.
        .http_status_as_error(false)
        .build();
    let mut response = Agent::from(config).get(&url).call().map_err(failed)?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(RECORDING_LEN_MAX);
    let mut content = body.read_to_vec().map_err(failed)?;
    if status.is_success() {
        return Ok(content);
    }
    let reason = simd_json::from_slice(&mut content)
        .map_or_else(|_| status.to_string(), |Refusal { error }| error);
    Err(unreachable(&url, reason))
}
