//! Where a caller goes who may not simply be taken.
//!
//! ```text
//!   below the maximum ────────────────────────> accept
//!   sent here by another server ──────────────> accept up to the hard cap, then 503 (if this server is active,
//!                                               or was until lately)
//!   a server below its maximum ───────────────> 302 (or a leg of ours) to the least loaded
//!   a reserved server can be added ───────────> hold him for some seconds, then again from above
//!   below the hard cap here, else elsewhere ──> accept, else 302
//!   else ─────────────────────────────────────> 503, Retry-After at random
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use sip::CallKey;

use super::Cluster;
use super::decisions::What;
use super::interface::Output;
use super::timers::Timer;
use crate::focus::liaison::{Arrival, Closed, Order, Verdict};

/// Callers who wait for a server to be added, and how long each does.
pub(super) const HOLDS_MAX: usize = 256;
const HOLD_FOR: Duration = Duration::from_secs(5);

/// Contacts in a 302.
const CONTACTS_MAX: usize = 3;

/// Seconds that a refused caller is asked to wait, so that those refused together do not come back together.
const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 3..=8;

/// A server above its maximum still gets callers up to this share of it when all are: below the hard cap,
/// as others may send there too.
const OVERFLOW: f64 = 1.1;

/// A caller who waits.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    shard: usize,
    call: CallKey,
    asked: Arrival,
    until: Instant,
}

pub(super) type Holds = VecDeque<Hold>;

impl Cluster {
    pub(super) fn on_asked(&mut self, now: Instant, shard: usize, call: CallKey, asked: Arrival) {
        self.place(now, shard, call, asked, true);
    }

    pub(super) fn on_withdrawn(&mut self, shard: usize, call: CallKey) {
        self.holds
            .retain(|hold| hold.shard != shard || hold.call != call);
    }

    fn place(&mut self, now: Instant, shard: usize, call: CallKey, asked: Arrival, may_hold: bool) {
        let Some(verdict) = self.judge_arrival(now, &asked, may_hold) else {
            let until = now + HOLD_FOR;
            self.holds.push_back(Hold {
                shard,
                call,
                asked,
                until,
            });
            self.timers.set(until, Timer::Hold);
            return;
        };
        let order = Order::Placed { call, verdict };
        self.outputs.push_back(Output::Order { shard, order });
    }

    /// None: he waits.
    fn judge_arrival(&mut self, now: Instant, asked: &Arrival, may_hold: bool) -> Option<Verdict> {
        let room = asked.room.as_str();
        if let Some(refusal) = self.refused_by_conference(now, asked) {
            return Some(refusal);
        }
        let is_active = self.state == SvrState::Active;
        if is_active && self.is_below_max(room) {
            self.own.grant(now);
            return Some(Verdict::Accept);
        }
        if asked.hopped && self.is_sent_callers(now) {
            return Some(self.judge_hopped(now, asked));
        }
        let targets = self.candidates(now, 1.0);
        if !targets.is_empty() {
            let reason = match self.state {
                SvrState::Active => "this server is full",
                SvrState::Draining => "this server gives its users away",
                _ => "this server stands by",
            };
            let targets: Vec<SvrId> = targets.iter().map(|target| target.svr_id).collect();
            return Some(self.send_on(now, asked, &targets, reason));
        }
        if may_hold
            && self.holds.len() < HOLDS_MAX
            && self.add_reserved(now, "all servers are full")
        {
            let reason = "all servers are full, and one is being added".to_owned();
            self.decide_caller(now, What::Hold, asked, None, None, reason);
            return None;
        }
        if self.state == SvrState::Standby && self.is_alone() {
            self.activate(now, "a caller is here and no server takes him");
        }
        if self.state == SvrState::Active && self.own.is_below_cap() {
            return Some(self.accept_beyond(now, asked, "all servers are full"));
        }
        let targets = self.candidates(now, OVERFLOW);
        if let Some(target) = targets.first() {
            let reason = "all servers are full, that one least";
            return Some(self.send_on(now, asked, &[target.svr_id], reason));
        }
        Some(self.refuse(now, asked, "no server takes callers"))
    }

    /// The conference is locked, or has as many users as it may.
    fn refused_by_conference(&mut self, now: Instant, asked: &Arrival) -> Option<Verdict> {
        let conference = self.rosters.get(asked.room.as_str())?;
        let (status, reason) = match conference.closed()? {
            // Anybody may say that he is one of those who are in.
            Closed::Locked => (403, "the conference is locked"),
            // He is in it, and leaves the call that he has on another server.
            Closed::Full if asked.hopped && conference.has_entity(&asked.from) => return None,
            Closed::Full => (486, "the conference has as many users as it may"),
        };
        self.decide_caller(
            now,
            What::Refuse,
            asked,
            None,
            Some(status),
            reason.to_owned(),
        );
        Some(Verdict::Refuse {
            status,
            retry_after_s: 0,
        })
    }

    /// Room for one more in this room, what is kept for others left alone.
    fn is_below_max(&self, room: &str) -> bool {
        let load = self.own.measured;
        let kept = f64::from(self.kept_for_others(room));
        self.own.is_known()
            && !load.full
            && !load.capped
            && self.own.predicted() + kept < f64::from(load.max)
    }

    /// Who was sent here is not sent on. Of a server that has not been active for a while nobody can know that
    /// it takes callers: there the mark is old, or a forgery, and wakes nobody. Whoever is sent on all the same
    /// goes to a server that is active, and stays there.
    fn judge_hopped(&mut self, now: Instant, asked: &Arrival) -> Verdict {
        if self.state == SvrState::Standby {
            // He was sent before the sender heard that this server stands by.
            self.activate(now, "a caller was sent here");
        }
        match self.own.is_below_cap() {
            true => self.accept_beyond(now, asked, "another server has sent him here"),
            false => self.refuse(
                now,
                asked,
                "he was sent here, and this server is at its hard cap",
            ),
        }
    }

    fn accept_beyond(&mut self, now: Instant, asked: &Arrival, reason: &str) -> Verdict {
        self.own.grant(now);
        self.decide_caller(now, What::Accept, asked, None, None, reason.to_owned());
        Verdict::Accept
    }

    fn refuse(&mut self, now: Instant, asked: &Arrival, reason: &str) -> Verdict {
        self.decide_caller(now, What::Refuse, asked, None, Some(503), reason.to_owned());
        let spread = RETRY_AFTER_S.end() - RETRY_AFTER_S.start() + 1;
        Verdict::Refuse {
            status: 503,
            retry_after_s: (RETRY_AFTER_S.start() + self.random.next_u64() % spread) as u32,
        }
    }

    /// By 302 or by a leg of ours, to the first of these servers; the next are for when it is gone.
    fn send_on(
        &mut self,
        now: Instant,
        asked: &Arrival,
        targets: &[SvrId],
        reason: &str,
    ) -> Verdict {
        let uri = |id: &SvrId| self.hop_uri(*id, asked.room.as_str());
        let contacts: Vec<String> = targets.iter().filter_map(uri).take(CONTACTS_MAX).collect();
        let Some(first) = contacts.first().cloned() else {
            return self.refuse(now, asked, "no server's address is known");
        };
        let (what, status) = match self.config.relay {
            true => (What::Relay, None),
            false => (What::Redirect, Some(302)),
        };
        let target = targets.first().copied();
        self.decide_caller(now, what, asked, target, status, reason.to_owned());
        if let Some(target) = target {
            self.predict(now, target, 1);
        }
        match target.filter(|_| self.config.relay) {
            Some(server) => Verdict::Relay {
                target: first,
                server,
            },
            None => Verdict::Redirect { contacts },
        }
    }

    /// A room at another server, marked so that whoever comes there is not sent on.
    pub(super) fn hop_uri(&self, id: SvrId, room: &str) -> Option<String> {
        let uri = self.peers.get(&id)?.uri.as_ref()?;
        Some(room_uri(uri, room, "crt-hop=1"))
    }

    /// No other server lives.
    fn is_alone(&self) -> bool {
        !self.peers.values().any(|peer| peer.is_serving())
    }

    /// Those who wait are placed if there is room now; with `at_last` they are placed in any case.
    pub(super) fn place_holds(&mut self, now: Instant, at_last: bool) {
        while let Some(hold) = self.holds.front() {
            let is_late = at_last || now >= hold.until;
            let has_room = !self.candidates(now, 1.0).is_empty()
                || (self.state == SvrState::Active && self.is_below_max(hold.asked.room.as_str()));
            if !is_late && !has_room {
                return;
            }
            if let Some(hold) = self.holds.pop_front() {
                self.place(now, hold.shard, hold.call, hold.asked, false);
            }
        }
    }
}

/// A room's URI at the server with this one: the room becomes its user, and a parameter is added.
pub(super) fn room_uri(uri: &str, room: &str, parameter: &str) -> String {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("sip", uri));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let mut user = String::with_capacity(room.len());
    for c in room.chars() {
        // What may stand in a user as it is (RFC 3261 §25.1), and escapes that are there already.
        if c.is_ascii_alphanumeric() || !c.is_ascii() || "-_.!~*'()&=+$,;?/%".contains(c) {
            user.push(c);
        } else {
            user.push_str(&format!("%{:02X}", c as u32));
        }
    }
    format!("{scheme}:{user}@{host};{parameter}")
}

#[cfg(test)]
mod tests {
    use super::room_uri;

    #[test]
    fn a_room_at_another_server() {
        for (uri, room, expected) in [
            ("sip:192.0.2.1:5060", "r", "sip:r@192.0.2.1:5060;x=1"),
            (
                "sip:[::1]:5060;transport=tcp",
                "r",
                "sip:r@[::1]:5060;transport=tcp;x=1",
            ),
            ("sips:cfw@host", "a b<>@c", "sips:a%20b%3C%3E%40c@host;x=1"),
            ("sip:host", "회의%20실", "sip:회의%20실@host;x=1"),
        ] {
            assert_eq!(room_uri(uri, room, "x=1"), expected);
        }
    }
}
