//! INVITE server transaction: RFC 3261 §17.2.1 (figure 7) as changed by RFC 6026 §7.1.
//!
//! ```text
//!   Proceeding ──2xx──> Accepted ──L──> end
//!       └──300-699──> Completed ──ACK──> Confirmed ──I──> end
//!                         └──H (no ACK)──> end, the core is told
//! ```

use bytes::Bytes;

use super::{Acts, Reliable, TRYING_AFTER, Timer, Timers, is_success};

#[derive(Debug)]
pub(crate) struct InviteServer {
    timers: Timers,
    reliable: Reliable,
    state: State,
}

#[derive(Debug)]
enum State {
    Proceeding { provisional: Option<Bytes> },
    Completed { response: Bytes },
    Confirmed,
    Accepted,
}

impl InviteServer {
    pub(crate) fn new(timers: Timers, reliable: Reliable, acts: &mut Acts) -> Self {
        acts.arm(TRYING_AFTER, Timer::Trying);
        Self {
            timers,
            reliable,
            state: State::Proceeding { provisional: None },
        }
    }

    /// No final response has been given.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    /// 100 is due: nothing has been sent.
    pub(crate) fn wants_trying(&self) -> bool {
        matches!(self.state, State::Proceeding { provisional: None })
    }

    pub(crate) fn respond(&mut self, status: u16, response: Bytes, acts: &mut Acts) {
        if !self.is_pending() {
            return;
        }
        acts.send = Some(response.clone());
        if status < 200 {
            self.state = State::Proceeding {
                provisional: Some(response),
            };
        } else if is_success(status) {
            // Retransmissions of a 2xx are the core's (RFC 6026 §7.1); here its INVITEs are absorbed.
            self.state = State::Accepted;
            acts.arm(self.timers.patience(), Timer::Forget);
        } else {
            self.state = State::Completed { response };
            acts.arm(self.timers.patience(), Timer::GiveUp);
            if !self.reliable.0 {
                acts.arm(
                    self.timers.t1,
                    Timer::Retransmit {
                        interval: self.timers.t1,
                    },
                );
            }
        }
    }

    /// The INVITE came again.
    pub(crate) fn on_retransmission(&self, acts: &mut Acts) {
        match &self.state {
            State::Proceeding { provisional } => acts.send = provisional.clone(),
            State::Completed { response } => acts.send = Some(response.clone()),
            State::Confirmed | State::Accepted => {}
        }
    }

    pub(crate) fn on_ack(&mut self, acts: &mut Acts) {
        if matches!(self.state, State::Completed { .. }) {
            self.state = State::Confirmed;
            acts.forget_after(self.reliable.or(self.timers.t4));
        }
    }

    pub(crate) fn on_timer(&mut self, timer: Timer, acts: &mut Acts) {
        match (&self.state, timer) {
            (State::Completed { response }, Timer::Retransmit { interval }) => {
                acts.send = Some(response.clone());
                let interval = (interval * 2).min(self.timers.t2);
                acts.arm(interval, Timer::Retransmit { interval });
            }
            (State::Completed { .. }, Timer::GiveUp) => {
                acts.timed_out = true;
                acts.terminated = true;
            }
            (State::Confirmed | State::Accepted, Timer::Forget) => acts.terminated = true,
            _ => {}
        }
    }
}
