//! All calls of a run: begun on time whatever became of those before, fed with what arrives, woken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sip::scan::Start;
use slab::Slab;

use super::call::{Call, Reply, Terms, World};
use super::message::{CallId, Script, answer, cseq_of_branch};
use super::outbox::Outbox;
use super::tally::Tally;

/// Calls begun and calls woken in one turn: a few milliseconds of sending, after which replies are read
/// again before their buffers are full.
const STARTS_PER_TURN_MAX: usize = 64;
const WAKES_PER_TURN_MAX: usize = 256;

/// When calls begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    pub(super) rate: f64,
    pub(super) calls: u64,
}

impl Schedule {
    fn at(&self, number: u64) -> Option<Instant> {
        let after = Duration::from_secs_f64(number as f64 / self.rate);
        (number < self.calls).then(|| self.start + after)
    }
}

/// Bytes and time in; bytes, a deadline and a tally out.
pub(super) struct Load {
    schedule: Schedule,
    terms: Terms,
    script: Script,
    run: u32,
    begun: u64,
    calls: Slab<Call>,
    /// One live entry for each call, at its [`Call::wakes_at`]; entries that it has outrun are passed over.
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    pub(super) outbox: Outbox,
    pub(super) tally: Tally,
}

impl Load {
    pub(super) fn new(schedule: Schedule, terms: Terms, script: Script, run: u32) -> Self {
        Self {
            schedule,
            terms,
            script,
            run,
            begun: 0,
            calls: Slab::new(),
            timers: BinaryHeap::new(),
            outbox: Outbox::default(),
            tally: Tally::new(),
        }
    }

    pub(super) fn has_begun_all(&self) -> bool {
        self.begun == self.schedule.calls
    }

    /// All calls have been made and nothing can come of any of them.
    pub(super) fn is_done(&self) -> bool {
        self.has_begun_all() && self.calls.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|&Reverse((at, ..))| at);
        let begin = self.schedule.at(self.begun);
        timer.into_iter().chain(begin).min()
    }

    /// Begins the calls that are due and wakes those whose time has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..WAKES_PER_TURN_MAX {
            let due = self.timers.peek().filter(|Reverse((at, ..))| *at <= now);
            let Some(&Reverse((at, slot, number))) = due else {
                break;
            };
            self.timers.pop();
            let is_live = self
                .calls
                .get(slot)
                .is_some_and(|call| call.number() == number && call.wakes_at() == Some(at));
            if is_live {
                self.act(now, slot, |call, world| call.handle_timeout(world));
            }
        }
        for _ in 0..STARTS_PER_TURN_MAX {
            match self.schedule.at(self.begun) {
                Some(intended) if intended <= now => self.begin(now, intended),
                _ => break,
            }
        }
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        socket: usize,
        from: SocketAddr,
        message: &[u8],
    ) {
        let Ok(glance) = sip::scan(message) else {
            self.tally.strays += 1;
            return;
        };
        let id = CallId::parse(glance.call_id).filter(|id| {
            let call = self.calls.get(id.slot);
            id.run == self.run && call.is_some_and(|call| call.number() == id.number)
        });
        match (glance.start, id) {
            (Start::Response { code: status }, Some(id)) => {
                let cseq = glance
                    .branch
                    .and_then(|branch| cseq_of_branch(branch, glance.call_id));
                let Some(cseq) = cseq else {
                    self.tally.strays += 1;
                    return;
                };
                let to_tag = glance.to_tag;
                let reply = Reply {
                    status,
                    cseq,
                    to_tag,
                    message,
                };
                match glance.cseq_method {
                    Some(b"INVITE") => self.act(now, id.slot, |call, world| {
                        call.handle_invite_reply(&reply, world);
                    }),
                    Some(b"BYE") => self.act(now, id.slot, |call, world| {
                        call.handle_bye_reply(&reply, world);
                    }),
                    // What becomes of a CANCEL shows in the final answer to its INVITE.
                    Some(b"CANCEL") => {}
                    _ => self.tally.strays += 1,
                }
            }
            (Start::Request { method, .. }, Some(id)) => self.act(now, id.slot, |call, world| {
                call.handle_request(method, message, world);
            }),
            (Start::Request { method, .. }, None) => {
                self.tally.strays += 1;
                if method != b"ACK" {
                    let status = "481 Call/Transaction Does Not Exist";
                    self.outbox
                        .put(socket, from, |out| answer(out, status, message));
                }
            }
            (Start::Response { .. }, None) => self.tally.strays += 1,
        }
    }

    fn begin(&mut self, now: Instant, intended: Instant) {
        let place = self.calls.vacant_entry();
        let slot = place.key();
        let id = CallId {
            run: self.run,
            number: self.begun,
            slot,
        };
        let mut world = World {
            now,
            terms: self.terms,
            script: &self.script,
            outbox: &mut self.outbox,
            tally: &mut self.tally,
        };
        place.insert(Call::start(id, intended, &mut world));
        self.begun += 1;
        self.arm(slot);
    }

    /// Lets a call act, and does what follows for its place and its timer.
    fn act(&mut self, now: Instant, slot: usize, action: impl FnOnce(&mut Call, &mut World<'_>)) {
        let call = &mut self.calls[slot];
        let before = call.wakes_at();
        let mut world = World {
            now,
            terms: self.terms,
            script: &self.script,
            outbox: &mut self.outbox,
            tally: &mut self.tally,
        };
        action(call, &mut world);
        if call.is_over() {
            self.calls.remove(slot);
        } else if call.wakes_at() != before {
            self.arm(slot);
        }
    }

    fn arm(&mut self, slot: usize) {
        let call = &self.calls[slot];
        if let Some(at) = call.wakes_at() {
            self.timers.push(Reverse((at, slot, call.number())));
        }
    }
}

#[cfg(test)]
mod tests;
