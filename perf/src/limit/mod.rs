//! What this machine's kernel can do on one core: datagrams taken in and sent back. The denominator of
//! whatever a server claims.
//!
//! ```text
//!   callers (their own core) ── 50 packets/s each, spread over 20 ms ──> echo (one core)
//!                            <── one packet back for each ──────────────  every ms: receive, send
//! ```
//! The echo does what a conference server cannot do without, at the same pace and on as many sockets, and
//! nothing else: no jitter buffer, no mix. Its own thread's CPU time over the pairs (one packet in, one
//! out) is what a pair costs. On loopback that includes what the kernel does for the other side on the
//! sender's account, as it does for the server under test.

use std::fmt;
use std::io;

use clap::{Args, ValueEnum};
use serde::Serialize;

mod callers;
mod check;
mod echo;
mod media;
mod report;
mod ring;
mod segments;
#[cfg(test)]
mod tests;

use echo::{Echoed, Scene, Way};
pub(crate) use report::{Report, Row};

/// A caller's packets in a second.
const PACKETS_PER_SECOND: u64 = 50;

/// A packet of 20 ms of G.711 behind its RTP header.
const HEADER_LEN: usize = 12;
const PACKET_LEN: usize = HEADER_LEN + 160;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Callers that send 50 packets a second each
    #[arg(long, default_value_t = 2_000)]
    callers: usize,
    /// Sockets that the callers share
    #[arg(long, default_value_t = 128)]
    caller_sockets: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Measurements of each way; their median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The processor that is measured
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// The processor of the callers
    #[arg(long, default_value_t = 1)]
    peer_core: usize,
    /// Only this way, instead of all
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

/// How datagrams get through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// recvfrom and sendto, a call for each
    Plain,
    /// recvmmsg and sendmmsg, 64 at a time
    Batches,
    /// io_uring: multishot recvmsg into provided buffers, sendmsg in batches
    Ring,
    /// Segmentation offload both ways: one destination only, as no conference has
    Segments,
}

impl Kind {
    fn open(self, sockets: usize) -> io::Result<Box<dyn Way>> {
        Ok(match self {
            Self::Plain => Box::new(media::Media::open(
                engine::io::plain::PlainIo::new()?,
                sockets,
            )?),
            Self::Batches => Box::new(media::Media::open(
                engine::io::batch::BatchIo::new()?,
                sockets,
            )?),
            Self::Ring => Box::new(ring::Ring::open(sockets)?),
            Self::Segments => Box::new(segments::Segments::open()?),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain calls",
            Self::Batches => "batches",
            Self::Ring => "io_uring",
            Self::Segments => "segments",
        }
    }
}

#[derive(Debug)]
pub(crate) enum LimitError {
    Options(String),
    Io(io::Error),
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(reason) => f.write_str(reason),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LimitError {}

impl From<io::Error> for LimitError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// # Errors
/// The options make no sense, or the callers' side failed.
pub(crate) fn run(options: &Options) -> Result<Report, LimitError> {
    check::options(options)?;
    let shared = options.callers.div_ceil(options.caller_sockets);
    let each = options.callers;
    let mut counts = vec![1, shared, each];
    counts.dedup();
    let mut ways = Vec::new();
    for way in [Kind::Plain, Kind::Batches, Kind::Ring] {
        ways.extend(counts.iter().map(|&sockets| (way, sockets)));
    }
    ways.push((Kind::Segments, 1));
    let mut report = Report {
        rows: Vec::new(),
        missing: Vec::new(),
    };
    for (way, sockets) in ways {
        if options.only.is_some_and(|only| only != way) {
            continue;
        }
        match options.measure(way, sockets) {
            Ok(row) => report.rows.push(row),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                report.missing.push((way.name(), error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(report)
}

impl Options {
    fn measure(&self, way: Kind, sockets: usize) -> io::Result<Row> {
        let scene = Scene {
            sockets,
            callers: self.callers,
            caller_sockets: self.caller_sockets,
            seconds: self.seconds,
            core: self.core,
            peer_core: self.peer_core,
        };
        let runs: io::Result<Vec<Echoed>> =
            (0..self.runs).map(|_| echo::measure(way, &scene)).collect();
        Ok(Row::new(way, &scene, &runs?))
    }
}

/// What a conference server could reach with so many callers: the fastest way on sockets that callers
/// share, and the fastest on one socket for each.
///
/// # Errors
/// As [`run`].
pub(crate) fn best(
    callers: usize,
    caller_sockets: usize,
    core: usize,
    peer_core: usize,
) -> Result<Vec<Row>, LimitError> {
    let options = Options {
        callers,
        caller_sockets,
        seconds: 3,
        runs: 3,
        core,
        peer_core,
        only: None,
    };
    check::options(&options)?;
    let mut best = Vec::new();
    for sockets in [callers.div_ceil(caller_sockets), callers] {
        let mut rows = Vec::new();
        // Plain calls too: on a socket for each caller, batches hold one packet, and which way is the
        // fastest there differs from machine to machine.
        for way in [Kind::Plain, Kind::Batches, Kind::Ring] {
            match options.measure(way, sockets) {
                Ok(row) => rows.push(row),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => return Err(error.into()),
            }
        }
        best.extend(
            rows.into_iter()
                .min_by(|one, other| one.pair_ns.total_cmp(&other.pair_ns)),
        );
    }
    Ok(best)
}
