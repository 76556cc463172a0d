//! One call, seen from the caller: what it waits for, and what it does when that comes or does not.
//!
//! ```text
//!             ┌──3xx, followed──┐
//!             v                 │
//!   start ─> Calling ──1xx─> Proceeding ──200─> Up ──hold time──> Leaving ──200──> Over
//!             │                 │                                   │               ^
//!             └─ ≥300, timeout ─┴───────> Lingering <──── timeout ──┘               │
//!                                             └─────────────────────────────────────┘
//! ```
//! INVITE and BYE are sent again as RFC 3261 §17.1 says for UDP. Who lingers still answers repeats: a
//! refusal is acknowledged again, and a 200 that comes after the INVITE was given up is acknowledged and
//! hung up, so that no call is left behind on the server.
//!
//! Not here: forking (a second 200 with another tag), Record-Route, authentication.

use std::time::{Duration, Instant};

use sip::Timers;
use sip::scan;

use super::message::{CallId, Dialog, Script, Target, answer};
use super::outbox::Outbox;
use super::tally::{Failure, Tally, record};

/// More in a row is a loop, and ours to end: RFC 3261 §8.1.3.4 names no number.
const REDIRECTS_MAX: usize = 5;

/// What calls are to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// From the 200 to the BYE.
    pub(super) hold: Duration,
    pub(super) follows_redirects: bool,
    /// A request is given up after this long without a final answer.
    pub(super) patience: Duration,
    pub(super) timers: Timers,
}

/// What a call acts on and through.
pub(super) struct World<'a> {
    pub(super) now: Instant,
    pub(super) terms: Terms,
    pub(super) script: &'a Script,
    pub(super) outbox: &'a mut Outbox,
    pub(super) tally: &'a mut Tally,
}

/// A reply to one of our requests.
pub(super) struct Reply<'a> {
    pub(super) status: u16,
    pub(super) cseq: u32,
    pub(super) to_tag: Option<&'a [u8]>,
    pub(super) message: &'a [u8],
}

#[derive(Debug)]
pub(super) struct Call {
    id: CallId,
    /// When the INVITE was meant to be sent.
    intended: Instant,
    /// Where it was sent to, one after another.
    redirects: Vec<Target>,
    dialog: Option<Dialog>,
    state: State,
    /// A provisional answer has been counted.
    progressed: bool,
    /// Its outcome has been counted.
    decided: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Calling {
        resend: Resend,
        give_up_at: Instant,
    },
    Proceeding {
        give_up_at: Instant,
    },
    Up {
        hang_up_at: Instant,
    },
    Leaving {
        /// When the BYE was meant to be sent.
        intended: Instant,
        resend: Resend,
        give_up_at: Instant,
    },
    Lingering {
        until: Instant,
    },
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Resend {
    at: Instant,
    interval: Duration,
}

impl Resend {
    fn first(now: Instant, timers: Timers) -> Self {
        Self {
            at: now + timers.t1,
            interval: timers.t1,
        }
    }

    fn again(self, now: Instant, interval_max: Duration) -> Self {
        let interval = (self.interval * 2).min(interval_max);
        Self {
            at: now + interval,
            interval,
        }
    }
}

impl Call {
    /// Sends the first INVITE.
    pub(super) fn start(id: CallId, intended: Instant, world: &mut World<'_>) -> Self {
        let call = Self {
            id,
            intended,
            redirects: Vec::new(),
            dialog: None,
            state: calling(world),
            progressed: false,
            decided: false,
        };
        call.send_invite(world);
        world.tally.offered += 1;
        world.tally.last_offered_at = Some(world.now);
        let lag = world.now.saturating_duration_since(intended);
        record(&mut world.tally.send_lag, lag);
        call
    }

    pub(super) fn number(&self) -> u64 {
        self.id.number
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// When something is to be done without a message.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.state {
            State::Calling { resend, give_up_at }
            | State::Leaving {
                resend, give_up_at, ..
            } => Some(resend.at.min(give_up_at)),
            State::Proceeding { give_up_at } => Some(give_up_at),
            State::Up { hang_up_at } => Some(hang_up_at),
            State::Lingering { until } => Some(until),
            State::Over => None,
        }
    }

    /// The time of [`wakes_at`](Self::wakes_at) has come.
    pub(super) fn handle_timeout(&mut self, world: &mut World<'_>) {
        let now = world.now;
        match &mut self.state {
            State::Calling { give_up_at, .. } if *give_up_at <= now => self.give_up_invite(world),
            State::Calling { resend, .. } => {
                // Timer A doubles without end (RFC 3261 §17.1.1.2).
                *resend = resend.again(now, Duration::MAX);
                world.tally.invites_repeated += 1;
                self.send_invite(world);
            }
            State::Proceeding { .. } => {
                // Only what has been answered may be cancelled (RFC 3261 §9.1).
                let (script, id) = (world.script, self.id);
                let (cseq, target) = (self.invite_cseq(), self.redirects.last());
                let peer = target.map_or(script.server, |target| target.peer);
                world.outbox.put(script.socket(id), peer, |out| {
                    script.cancel(out, id, cseq, target)
                });
                self.give_up_invite(world);
            }
            &mut State::Up { hang_up_at } => self.hang_up(hang_up_at, world),
            State::Leaving { give_up_at, .. } if *give_up_at <= now => {
                self.decide(world, |tally| {
                    tally.fail(Failure::TimedOut { method: "BYE" })
                });
                self.linger(world);
            }
            State::Leaving { resend, .. } => {
                // Timer E (RFC 3261 §17.1.2.2).
                *resend = resend.again(now, world.terms.timers.t2);
                world.tally.byes_repeated += 1;
                self.send_bye(world);
            }
            State::Lingering { .. } | State::Over => self.state = State::Over,
        }
    }

    pub(super) fn handle_invite_reply(&mut self, reply: &Reply<'_>, world: &mut World<'_>) {
        let is_current = reply.cseq == self.invite_cseq();
        match (reply.status, self.state) {
            (..200, State::Calling { give_up_at, .. }) if is_current => {
                self.progress(world);
                self.state = State::Proceeding { give_up_at };
            }
            (..200, State::Proceeding { .. }) if is_current => {}
            (200..300, _) if is_current => self.on_answer(reply, world),
            (300.., State::Calling { .. } | State::Proceeding { .. }) if is_current => {
                self.ack_refusal(reply, world);
                self.on_refusal(reply, world);
            }
            // The ACK was lost: that of this INVITE, or of one that was redirected.
            (300.., State::Lingering { .. }) if reply.cseq <= self.invite_cseq() => {
                self.ack_refusal(reply, world)
            }
            (300.., _) if reply.cseq < self.invite_cseq() => self.ack_refusal(reply, world),
            _ => world.tally.strays += 1,
        }
    }

    pub(super) fn handle_bye_reply(&mut self, reply: &Reply<'_>, world: &mut World<'_>) {
        let is_current = reply.cseq == self.bye_cseq();
        match (reply.status, &mut self.state) {
            (..200, State::Leaving { resend, .. }) if is_current => {
                resend.interval = world.terms.timers.t2;
            }
            (200.., &mut State::Leaving { intended, .. }) if is_current => {
                let status = reply.status;
                let took = world.now.saturating_duration_since(intended);
                self.decide(world, |tally| {
                    if status < 300 {
                        tally.succeeded += 1;
                        record(&mut tally.to_end, took);
                    } else {
                        let method = "BYE";
                        tally.fail(Failure::Refused { method, status });
                    }
                });
                self.state = State::Over;
            }
            _ => world.tally.strays += 1,
        }
    }

    /// A request of the server within this call.
    pub(super) fn handle_request(&mut self, method: &[u8], request: &[u8], world: &mut World<'_>) {
        let Some(peer) = self.dialog.as_ref().map(|dialog| dialog.target.peer) else {
            world.tally.strays += 1;
            return;
        };
        let socket = world.script.socket(self.id);
        let status = match method {
            b"ACK" => return,
            b"BYE" => "200 OK",
            _ => "501 Not Implemented",
        };
        world
            .outbox
            .put(socket, peer, |out| answer(out, status, request));
        if method == b"BYE" {
            self.decide(world, |tally| tally.fail(Failure::HungUp));
            self.linger(world);
        }
    }

    fn on_answer(&mut self, reply: &Reply<'_>, world: &mut World<'_>) {
        if let Some(dialog) = &self.dialog {
            if reply.to_tag == Some(&dialog.to_tag) {
                self.send_ack(world);
            } else {
                world.tally.strays += 1;
            }
            return;
        }
        let Some(to_tag) = reply.to_tag else {
            self.decide(world, |tally| tally.fail(Failure::NoDialog));
            self.linger(world);
            return;
        };
        let contact = scan::headers(reply.message, "Contact", Some(b'm')).next();
        let target = contact.and_then(Target::parse).unwrap_or_else(|| Target {
            // A Contact we cannot or may not call: back to where the call went.
            uri: self.redirects.last().map_or_else(
                || format!("sip:{}", world.script.server),
                |target| target.uri.clone(),
            ),
            peer: self.peer(world),
        });
        self.dialog = Some(Dialog {
            to_tag: to_tag.to_vec(),
            target,
        });
        self.send_ack(world);
        if let State::Lingering { .. } = self.state {
            world.tally.late_answers += 1;
            self.hang_up(world.now, world);
            return;
        }
        let took = world.now.saturating_duration_since(self.intended);
        record(&mut world.tally.to_answer, took);
        world.tally.last_answer_at = Some(world.now);
        let hang_up_at = world.now + world.terms.hold;
        if world.terms.hold.is_zero() {
            self.hang_up(hang_up_at, world);
        } else {
            self.state = State::Up { hang_up_at };
        }
    }

    fn on_refusal(&mut self, reply: &Reply<'_>, world: &mut World<'_>) {
        let status = reply.status;
        let failure = if status >= 400 {
            let method = "INVITE";
            Failure::Refused { method, status }
        } else {
            let took = world.now.saturating_duration_since(self.intended);
            record(&mut world.tally.to_redirect, took);
            let contact = scan::headers(reply.message, "Contact", Some(b'm')).next();
            match contact.and_then(Target::parse) {
                None => Failure::RedirectedNowhere,
                Some(_) if !world.terms.follows_redirects => {
                    self.decide(world, |tally| tally.sent_elsewhere += 1);
                    return self.linger(world);
                }
                Some(_) if self.redirects.len() == REDIRECTS_MAX => Failure::RedirectedTooOften,
                Some(target) => {
                    self.redirects.push(target);
                    self.state = calling(world);
                    return self.send_invite(world);
                }
            }
        };
        self.decide(world, |tally| tally.fail(failure));
        self.linger(world);
    }

    fn give_up_invite(&mut self, world: &mut World<'_>) {
        let method = "INVITE";
        self.decide(world, |tally| tally.fail(Failure::TimedOut { method }));
        self.linger(world);
    }

    fn hang_up(&mut self, intended: Instant, world: &mut World<'_>) {
        self.state = State::Leaving {
            intended,
            resend: Resend::first(world.now, world.terms.timers),
            give_up_at: world.now + world.terms.patience,
        };
        self.send_bye(world);
    }

    /// T4 instead of Timer D's 32 s: nothing is longer on its way within one machine.
    fn linger(&mut self, world: &World<'_>) {
        self.state = State::Lingering {
            until: world.now + world.terms.timers.t4,
        };
    }

    fn progress(&mut self, world: &mut World<'_>) {
        if !self.progressed {
            self.progressed = true;
            let took = world.now.saturating_duration_since(self.intended);
            record(&mut world.tally.to_progress, took);
        }
    }

    /// Every call counts once.
    fn decide(&mut self, world: &mut World<'_>, count: impl FnOnce(&mut Tally)) {
        if !self.decided {
            self.decided = true;
            count(world.tally);
        }
    }

    fn invite_cseq(&self) -> u32 {
        1 + self.redirects.len() as u32
    }

    fn bye_cseq(&self) -> u32 {
        self.invite_cseq() + 1
    }

    fn peer(&self, world: &World<'_>) -> std::net::SocketAddr {
        let target = self.redirects.last();
        target.map_or(world.script.server, |target| target.peer)
    }

    fn send_invite(&self, world: &mut World<'_>) {
        let (script, id, cseq) = (world.script, self.id, self.invite_cseq());
        let target = self.redirects.last();
        let peer = self.peer(world);
        world.outbox.put(script.socket(id), peer, |out| {
            script.invite(out, id, cseq, target);
        });
    }

    fn ack_refusal(&self, reply: &Reply<'_>, world: &mut World<'_>) {
        let (script, id, cseq) = (world.script, self.id, reply.cseq);
        // The first INVITE went to the server, the next to the first redirect.
        let target = (cseq as usize)
            .checked_sub(2)
            .map(|index| &self.redirects[index]);
        let peer = target.map_or(script.server, |target| target.peer);
        world.outbox.put(script.socket(id), peer, |out| {
            script.ack_refusal(out, id, cseq, target, reply.message);
        });
    }

    fn send_ack(&self, world: &mut World<'_>) {
        let (script, id, cseq) = (world.script, self.id, self.invite_cseq());
        let dialog = self.dialog.as_ref().expect("only a 200 is acknowledged so");
        let peer = dialog.target.peer;
        world.outbox.put(script.socket(id), peer, |out| {
            script.ack(out, id, cseq, dialog);
        });
    }

    fn send_bye(&self, world: &mut World<'_>) {
        let (script, id, cseq) = (world.script, self.id, self.bye_cseq());
        let dialog = self.dialog.as_ref().expect("who leaves was in a call");
        let peer = dialog.target.peer;
        world.outbox.put(script.socket(id), peer, |out| {
            script.bye(out, id, cseq, dialog);
        });
    }
}

fn calling(world: &World<'_>) -> State {
    State::Calling {
        resend: Resend::first(world.now, world.terms.timers),
        give_up_at: world.now + world.terms.patience,
    }
}
