//! Server transaction of every method but INVITE: RFC 3261 §17.2.2 (figure 8).
//!
//! ```text
//!   Trying ──final──> Completed ──J──> end
//! ```
//! There is no Proceeding: RFC 4320 leaves such requests no provisional response but a late 100, and
//! the core answers at once.

use bytes::Bytes;

use super::{Acts, Reliable, Timer, Timers};

#[derive(Debug)]
pub(crate) struct Server {
    timers: Timers,
    reliable: Reliable,
    response: Option<Bytes>,
}

impl Server {
    pub(crate) fn new(timers: Timers, reliable: Reliable) -> Self {
        Self {
            timers,
            reliable,
            response: None,
        }
    }

    pub(crate) fn respond(&mut self, response: Bytes, acts: &mut Acts) {
        if self.response.is_some() {
            return;
        }
        self.response = Some(response.clone());
        acts.send = Some(response);
        acts.forget_after(self.reliable.or(self.timers.patience()));
    }

    pub(crate) fn on_retransmission(&self, acts: &mut Acts) {
        acts.send = self.response.clone();
    }

    pub(crate) fn on_timer(&mut self, timer: Timer, acts: &mut Acts) {
        acts.terminated = timer == Timer::Forget && self.response.is_some();
    }
}
