//! The four transaction machines of RFC 3261 §17, with the Accepted states of RFC 6026.
//!
//! A machine holds its state and the last message it sent; everything it wants done it says through
//! [`Acts`]. It knows neither dialogs nor sockets.

use std::time::Duration;

use bytes::Bytes;

pub(crate) mod client;
pub(crate) mod invite_client;
pub(crate) mod invite_server;
pub(crate) mod key;
pub(crate) mod server;
pub(crate) mod timer;

pub(crate) use timer::Timer;
pub use timer::Timers;

/// RFC 3261 §17.2.1: a server that has not answered by then sends 100.
pub(crate) const TRYING_AFTER: Duration = Duration::from_millis(200);

/// What a machine wants done.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    pub(crate) send: Option<Bytes>,
    /// Timers to start; a machine drops those that have become meaningless when they fire.
    pub(crate) arm: [Option<(Duration, Timer)>; 2],
    /// The transaction failed: nobody answered, or nobody acknowledged.
    pub(crate) timed_out: bool,
    /// The machine has ended and may be dropped.
    pub(crate) terminated: bool,
    /// The message is news to the core (and no retransmission).
    pub(crate) deliver: bool,
}

impl Acts {
    pub(crate) fn arm(&mut self, after: Duration, timer: Timer) {
        let place = self.arm.iter_mut().find(|place| place.is_none());
        *place.expect("no transition starts more than two timers") = Some((after, timer));
    }

    /// Keeps the machine for `after` to absorb retransmissions; not at all where none can come.
    pub(crate) fn forget_after(&mut self, after: Duration) {
        if after.is_zero() {
            self.terminated = true;
        } else {
            self.arm(after, Timer::Forget);
        }
    }
}

/// Whether the transport itself delivers reliably, so that nothing is retransmitted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reliable(pub(crate) bool);

impl Reliable {
    /// `wait` on unreliable transports, nothing on reliable ones.
    pub(crate) fn or(self, wait: Duration) -> Duration {
        if self.0 { Duration::ZERO } else { wait }
    }
}

/// What a final status means to a transaction.
pub(crate) fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}
