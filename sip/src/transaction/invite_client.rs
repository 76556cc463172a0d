//! INVITE client transaction: RFC 3261 §17.1.1 (figure 5) as changed by RFC 6026 §7.2.
//!
//! ```text
//!   Calling ──1xx──> Proceeding ──2xx──> Accepted ──M──> end
//!      └──────────────────┴──300-699──> Completed ──D──> end
//!      └──B (no answer)──> end, the core is told
//! ```

use bytes::Bytes;

use super::{Acts, Reliable, Timer, Timers, is_success};

#[derive(Debug)]
pub(crate) struct InviteClient {
    timers: Timers,
    reliable: Reliable,
    request: Bytes,
    state: State,
}

#[derive(Debug)]
enum State {
    Calling,
    Proceeding,
    Completed { ack: Bytes },
    Accepted,
}

impl InviteClient {
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
            state: State::Calling,
        }
    }

    /// No final response has come.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
    }

    /// A provisional response has come, so that the request may be cancelled (RFC 3261 §9.1).
    pub(crate) fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding)
    }

    /// The request, from which an ACK or a CANCEL is made.
    pub(crate) fn request(&self) -> &Bytes {
        &self.request
    }

    /// `ack` makes the ACK of a refusal; that of a 2xx is the core's.
    pub(crate) fn on_response(
        &mut self,
        status: u16,
        ack: impl FnOnce() -> Bytes,
        acts: &mut Acts,
    ) {
        match &self.state {
            State::Calling | State::Proceeding => {
                acts.deliver = true;
                if status < 200 {
                    self.state = State::Proceeding;
                } else if is_success(status) {
                    self.state = State::Accepted;
                    acts.arm(self.timers.patience(), Timer::Forget);
                } else {
                    let ack = ack();
                    acts.send = Some(ack.clone());
                    self.state = State::Completed { ack };
                    acts.forget_after(self.reliable.or(self.timers.patience()));
                }
            }
            State::Completed { ack } if status >= 300 => acts.send = Some(ack.clone()),
            // Every 2xx goes to the core, which repeats its ACK.
            State::Accepted => acts.deliver = is_success(status),
            State::Completed { .. } => {}
        }
    }

    pub(crate) fn on_timer(&mut self, timer: Timer, acts: &mut Acts) {
        match (&self.state, timer) {
            (State::Calling, Timer::Retransmit { interval }) => {
                acts.send = Some(self.request.clone());
                let interval = interval * 2;
                acts.arm(interval, Timer::Retransmit { interval });
            }
            (State::Calling, Timer::GiveUp)
            | (State::Calling | State::Proceeding, Timer::Abandon) => {
                acts.timed_out = true;
                acts.terminated = true;
            }
            (State::Completed { .. } | State::Accepted, Timer::Forget) => acts.terminated = true,
            _ => {}
        }
    }
}
