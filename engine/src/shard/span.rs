//! Rooms too large for one core: which part a caller goes to.
//!
//! A part that is full passes new calls on to the next, and the last one opens another on a core that has
//! none. When all are full, the least loaded takes them. Whatever else comes of a call finds it by its
//! Call-ID, along the same way: a retransmission must not become a second call because a seat has become
//! free.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::ShardIndex;

/// 64*T1 of RFC 3261: so long a request may come again.
const LINGER: Duration = Duration::from_secs(32);

/// Calls remembered, the latest; more begin within [`LINGER`] only in a flood.
const CALLS_MAX: usize = 65_536;

/// What came for a room of which there is a part here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) room: &'a str,
    pub(super) call_id: &'a [u8],
    /// It is an INVITE, which may begin a call.
    pub(super) begins: bool,
    /// Parts that were asked before, and are full.
    pub(super) passed: &'a [ShardIndex],
}

/// What a shard has decided lately.
#[derive(Default)]
pub(super) struct Spans {
    hasher: RandomState,
    calls: HashMap<u64, ShardIndex>,
    /// When to forget them, oldest first.
    checks: VecDeque<(Instant, u64)>,
    /// Where a further part of a room is about to open.
    opening: HashMap<String, (ShardIndex, Instant)>,
}

impl Spans {
    /// Who is to have what came. `full` says whether the part that is here takes no more, `parts` where
    /// the others are, and `place` chooses one of those cores that may have another.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        own: ShardIndex,
        asked: Asked<'_>,
        full: bool,
        parts: impl Iterator<Item = ShardIndex>,
        place: impl FnMut(&dyn Fn(ShardIndex) -> bool) -> Option<ShardIndex>,
    ) -> ShardIndex {
        let call = self.hasher.hash_one(asked.call_id);
        // Who gets back what he has passed on is to have it: nothing goes round twice.
        if asked.passed.contains(&own) {
            self.remember(now, call, own);
            return own;
        }
        if let Some(&to) = self.calls.get(&call) {
            return to;
        }
        if !asked.begins {
            return own;
        }
        let to = if full {
            self.next(now, own, asked, parts, place).unwrap_or(own)
        } else {
            own
        };
        self.remember(now, call, to);
        to
    }

    fn next(
        &mut self,
        now: Instant,
        own: ShardIndex,
        asked: Asked<'_>,
        parts: impl Iterator<Item = ShardIndex>,
        mut place: impl FnMut(&dyn Fn(ShardIndex) -> bool) -> Option<ShardIndex>,
    ) -> Option<ShardIndex> {
        let Asked { room, passed, .. } = asked;
        let may = |shard: ShardIndex| shard != own && !passed.contains(&shard);
        let opening = self.opening.get(room).map(|(shard, _)| *shard);
        // In the same order everywhere, so that one part fills up after the other.
        if let Some(part) = parts
            .chain(opening)
            .filter(|&part| may(part))
            .min_by_key(|p| p.0)
        {
            return Some(part);
        }
        match place(&may) {
            Some(to) => {
                self.opening.insert(room.to_owned(), (to, now + LINGER));
                Some(to)
            }
            None => place(&|_| true),
        }
    }

    fn remember(&mut self, now: Instant, call: u64, to: ShardIndex) {
        if self.calls.len() >= CALLS_MAX
            && let Some((_, oldest)) = self.checks.pop_front()
        {
            self.calls.remove(&oldest);
        }
        self.calls.insert(call, to);
        self.checks.push_back((now + LINGER, call));
    }

    /// Forgets what is no longer needed; to be called every turn.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(when, call)) = self.checks.front() {
            if when > now {
                return;
            }
            self.checks.pop_front();
            self.calls.remove(&call);
            if !self.opening.is_empty() {
                self.opening.retain(|_, (_, until)| *until > now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: u16 = 4;

    /// Shards with parts of one room, and who has what call.
    struct Server {
        shards: Vec<Spans>,
        taken: Vec<Vec<u32>>,
        full_at: usize,
        now: Instant,
    }

    impl Server {
        fn new(full_at: usize) -> Self {
            Self {
                shards: (0..SHARDS).map(|_| Spans::default()).collect(),
                taken: vec![Vec::new(); usize::from(SHARDS)],
                full_at,
                now: Instant::now(),
            }
        }

        /// An INVITE, or something else of a call, comes to the part on shard 2; gives where it ends up.
        fn ask(&mut self, call: u32, begins: bool) -> ShardIndex {
            let mut passed = Vec::new();
            let mut at = ShardIndex(2);
            loop {
                let own = usize::from(at.0);
                let has_part = |shard: &ShardIndex| !self.taken[usize::from(shard.0)].is_empty();
                let parts: Vec<_> = (0..SHARDS).map(ShardIndex).filter(has_part).collect();
                let asked = Asked {
                    room: "r",
                    call_id: &call.to_be_bytes(),
                    begins,
                    passed: &passed,
                };
                let full = self.taken[own].len() >= self.full_at;
                let place = |may: &dyn Fn(ShardIndex) -> bool| {
                    // Once all are full, the second is the least loaded.
                    let order = if passed.len() < 3 {
                        [3, 2, 1, 0]
                    } else {
                        [1, 0, 2, 3]
                    };
                    order.map(ShardIndex).into_iter().find(|&shard| may(shard))
                };
                let others = parts.into_iter().filter(|&part| part != at);
                let to = self.shards[own].decide(self.now, at, asked, full, others, place);
                if to == at {
                    return at;
                }
                passed.push(at);
                at = to;
            }
        }

        fn call(&mut self, call: u32) -> ShardIndex {
            let to = self.ask(call, true);
            let taken = &mut self.taken[usize::from(to.0)];
            if !taken.contains(&call) {
                taken.push(call);
            }
            to
        }
    }

    #[test]
    fn one_part_fills_after_the_other_and_the_least_loaded_takes_the_rest() {
        let mut server = Server::new(3);
        let went: Vec<_> = (0..14).map(|call| server.call(call).0).collect();
        assert_eq!(went, [2, 2, 2, 3, 3, 3, 1, 1, 1, 0, 0, 0, 1, 1]);
        // A seat that becomes free is taken again.
        server.taken[2].pop();
        assert_eq!(server.call(99).0, 2);
    }

    #[test]
    fn what_comes_again_goes_where_it_went_whoever_has_left_since() {
        let mut server = Server::new(3);
        let went: Vec<_> = (0..10).map(|call| server.call(call)).collect();
        server.taken[2].clear();
        server.taken[3].pop();
        for (call, &to) in went.iter().enumerate() {
            assert_eq!(server.ask(call as u32, true), to, "INVITE");
            assert_eq!(server.ask(call as u32, false), to, "CANCEL");
        }
        assert_eq!(server.ask(77, false).0, 2, "nobody knows it");
        // In the end everything is forgotten.
        server.now += LINGER;
        for shard in &mut server.shards {
            shard.expire(server.now);
            assert!(shard.calls.is_empty() && shard.checks.is_empty() && shard.opening.is_empty());
        }
    }

    #[test]
    fn a_part_that_is_about_to_open_is_not_opened_twice() {
        let mut spans = Spans::default();
        let now = Instant::now();
        let mut places = 0;
        for call in 0..5_u32 {
            let asked = Asked {
                room: "r",
                call_id: &call.to_be_bytes(),
                begins: true,
                passed: &[],
            };
            let others = std::iter::empty();
            let to = spans.decide(now, ShardIndex(0), asked, true, others, |_| {
                places += 1;
                Some(ShardIndex(1))
            });
            assert_eq!(to, ShardIndex(1));
        }
        assert_eq!(places, 1);
    }

    #[test]
    fn of_a_flood_the_latest_are_remembered() {
        let mut spans = Spans::default();
        let now = Instant::now();
        for call in 0..CALLS_MAX as u64 + 10 {
            spans.remember(now, call, ShardIndex(0));
        }
        assert_eq!(
            (spans.calls.len(), spans.checks.len()),
            (CALLS_MAX, CALLS_MAX)
        );
        assert!(!spans.calls.contains_key(&9) && spans.calls.contains_key(&10));
    }
}
