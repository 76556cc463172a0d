//! The timers of RFC 3261 §17 and RFC 6026, by their letters.

use std::time::Duration;

/// Base values; only tests change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Estimate of the round trip.
    pub t1: Duration,
    /// Longest interval between retransmissions of a non-INVITE request and of INVITE responses.
    pub t2: Duration,
    /// How long a message may stay in the network.
    pub t4: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
        }
    }
}

impl Timers {
    /// How long a transaction tries, and how long its traces are kept (timers B, F, H, J, L, M).
    pub fn patience(&self) -> Duration {
        self.t1 * 64
    }
}

/// Why a transaction wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Send 100 if nothing has been sent yet (RFC 3261 §17.2.1: within 200 ms).
    Trying,
    /// A, E, G: send again, and wait twice as long next time.
    Retransmit { interval: Duration },
    /// B, F: nobody answered. H: nobody acknowledged.
    GiveUp,
    /// Nothing final has come although the request was taken back, or nobody waits for it any more
    /// (RFC 3261 §9.1).
    Abandon,
    /// D, I, J, K, L, M: no retransmission can be on its way any more.
    Forget,
}
