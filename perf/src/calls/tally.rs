//! What became of the calls.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// A final status that ends the call.
    Refused {
        method: &'static str,
        status: u16,
    },
    /// No final answer in time.
    TimedOut {
        method: &'static str,
    },
    /// The server hung up first.
    HungUp,
    /// A 200 to the INVITE without a To-tag.
    NoDialog,
    /// A redirect without an address that we may call.
    RedirectedNowhere,
    RedirectedTooOften,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { method, status } => write!(f, "{method} {status}"),
            Self::TimedOut { method } => write!(f, "{method} timeout"),
            Self::HungUp => f.write_str("BYE from the server"),
            Self::NoDialog => f.write_str("200 without a To-tag"),
            Self::RedirectedNowhere => f.write_str("redirect to no loopback address"),
            Self::RedirectedTooOften => f.write_str("too many redirects"),
        }
    }
}

/// Counts and times of all calls. Times are in microseconds and begin when a request was meant to be
/// sent, not when it was, so that a wait before sending is not left out of them.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) offered: u64,
    /// 200 to INVITE and to BYE.
    pub(super) succeeded: u64,
    /// Ended by a redirect that was not to be followed.
    pub(super) sent_elsewhere: u64,
    pub(super) failed: BTreeMap<Failure, u64>,
    pub(super) invites_repeated: u64,
    pub(super) byes_repeated: u64,
    /// 200s to an INVITE that had been given up; they were acknowledged and hung up.
    pub(super) late_answers: u64,
    /// Messages that belong to no call of this run, or to nothing it was doing.
    pub(super) strays: u64,
    pub(super) to_progress: Histogram<u64>,
    /// To each redirect.
    pub(super) to_redirect: Histogram<u64>,
    pub(super) to_answer: Histogram<u64>,
    pub(super) to_end: Histogram<u64>,
    /// From when an INVITE was meant to be sent until it was.
    pub(super) send_lag: Histogram<u64>,
    pub(super) last_offered_at: Option<Instant>,
    pub(super) last_answer_at: Option<Instant>,
}

impl Tally {
    pub(super) fn new() -> Self {
        /// Longest time told apart, above any timeout in use.
        const TIME_US_MAX: u64 = 600_000_000;
        let mut times = Histogram::new_with_bounds(1, TIME_US_MAX, 3)
            .expect("three digits between these bounds is a valid histogram");
        times.auto(true);
        Self {
            offered: 0,
            succeeded: 0,
            sent_elsewhere: 0,
            failed: BTreeMap::new(),
            invites_repeated: 0,
            byes_repeated: 0,
            late_answers: 0,
            strays: 0,
            to_progress: times.clone(),
            to_redirect: times.clone(),
            to_answer: times.clone(),
            to_end: times.clone(),
            send_lag: times,
            last_offered_at: None,
            last_answer_at: None,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        *self.failed.entry(failure).or_default() += 1;
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

pub(super) fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(time.as_micros() as u64);
}
