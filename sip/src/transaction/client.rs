//! Client transaction of every method but INVITE: RFC 3261 §17.1.2 (figure 6).
//!
//! ```text
//!   Trying ──1xx──> Proceeding ──final──> Completed ──K──> end
//!      └──────────────┴──F (no answer)──> end, the core is told
//! ```

use bytes::Bytes;

use super::{Acts, Reliable, Timer, Timers};

#[derive(Debug)]
pub(crate) struct Client {
    timers: Timers,
    reliable: Reliable,
    request: Bytes,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Trying,
    Proceeding,
    Completed,
}

impl Client {
    pub(crate) fn new(timers: Timers, reliable: Reliable, request: Bytes, acts: &mut Acts) -> Self {
        acts.send = Some(request.clone());
        acts.arm(timers.patience(), Timer::GiveUp);
        if !reliable.0 {
            acts.arm(
                timers.t1,
                Timer::Retransmit {
                    interval: timers.t1,
                },
            );
        }
        Self {
            timers,
            reliable,
            request,
            state: State::Trying,
        }
    }

    /// No final response has come.
    pub(crate) fn is_pending(&self) -> bool {
        self.state != State::Completed
    }

    pub(crate) fn request(&self) -> &Bytes {
        &self.request
    }

    pub(crate) fn on_response(&mut self, status: u16, acts: &mut Acts) {
        match self.state {
            State::Completed => {}
            _ if status < 200 => self.state = State::Proceeding,
            _ => {
                self.state = State::Completed;
                acts.deliver = true;
                acts.forget_after(self.reliable.or(self.timers.t4));
            }
        }
    }

    pub(crate) fn on_timer(&mut self, timer: Timer, acts: &mut Acts) {
        match (&self.state, timer) {
            (State::Trying | State::Proceeding, Timer::Retransmit { interval }) => {
                acts.send = Some(self.request.clone());
                // RFC 3261 §17.1.2.2: once the far end is known to work on it, every T2.
                let doubled = if self.state == State::Trying {
                    interval * 2
                } else {
                    self.timers.t2
                };
                let interval = doubled.min(self.timers.t2);
                acts.arm(interval, Timer::Retransmit { interval });
            }
            (State::Trying | State::Proceeding, Timer::GiveUp) => {
                acts.timed_out = true;
                acts.terminated = true;
            }
            (State::Completed, Timer::Forget) => acts.terminated = true,
            _ => {}
        }
    }
}
