//! How much the endpoint holds at the moment.

use super::Endpoint;

/// Numbers of things alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Dialogs, and calls on their way to one.
    pub calls: usize,
    /// Server transactions (RFC 3261 §17.2), those that only absorb retransmissions included.
    pub server_transactions: usize,
    /// Client transactions (RFC 3261 §17.1).
    pub client_transactions: usize,
    /// Subscriptions, in either role (RFC 6665).
    pub subscriptions: usize,
    /// Deadlines, some of which will find nothing left to do.
    pub timers: usize,
}

impl Endpoint {
    /// Counts nothing: every number is at hand.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            calls: self.calls.len(),
            server_transactions: self.servers.len(),
            client_transactions: self.clients.len(),
            subscriptions: self.subscriptions.len(),
            timers: self.deadlines.len(),
        }
    }
}
