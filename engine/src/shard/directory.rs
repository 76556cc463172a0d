//! Which shard has a room.
//!
//! Every room name has a home shard (by hash) that keeps its entry, so that two shards never place the
//! same room. The home places a room that nobody has on the least loaded shard. An entry outlives its
//! room by `LINGER`: retransmissions and CANCELs of an INVITE that was refused, or whose room has
//! closed, still find the transaction they belong to.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use super::ShardIndex;

/// 64*T1 of RFC 3261: the longest life of a server transaction after its final response.
const LINGER: Duration = Duration::from_secs(32);

/// Entries one home keeps. Beyond it (a flood of invented names) rooms stay on their home shard.
const ENTRIES_MAX: usize = 262_144;

#[derive(Debug, Default)]
pub struct Directory {
    entries: HashMap<String, Entry>,
    /// When to look whether an entry can go, oldest first.
    checks: VecDeque<(Instant, String)>,
}

#[derive(Debug)]
struct Entry {
    owner: ShardIndex,
    open: bool,
    last_used: Instant,
}

impl Directory {
    /// The shard that has `room`, or is to have it: `place` chooses for a name seen for the first time.
    pub fn owner(
        &mut self,
        now: Instant,
        room: &str,
        place: impl FnOnce() -> ShardIndex,
    ) -> Option<ShardIndex> {
        if let Some(entry) = self.entries.get_mut(room) {
            entry.last_used = now;
            return Some(entry.owner);
        }
        if self.entries.len() >= ENTRIES_MAX {
            return None;
        }
        let owner = place();
        self.entries.insert(
            room.to_owned(),
            Entry {
                owner,
                open: false,
                last_used: now,
            },
        );
        self.checks.push_back((now + LINGER, room.to_owned()));
        Some(owner)
    }

    pub fn opened(&mut self, now: Instant, room: &str, owner: ShardIndex) {
        if self.owner(now, room, || owner).is_some()
            && let Some(entry) = self.entries.get_mut(room)
        {
            entry.owner = owner;
            entry.open = true;
        }
    }

    pub fn closed(&mut self, now: Instant, room: &str) {
        if let Some(entry) = self.entries.get_mut(room) {
            entry.open = false;
            entry.last_used = now;
        }
    }

    /// Drops entries that nobody needs any more; to be called every turn.
    pub fn expire(&mut self, now: Instant) {
        while let Some((when, _)) = self.checks.front() {
            if *when > now {
                return;
            }
            let Some((_, room)) = self.checks.pop_front() else {
                return;
            };
            let Some(entry) = self.entries.get(&room) else {
                continue;
            };
            if !entry.open && entry.last_used + LINGER <= now {
                self.entries.remove(&room);
            } else {
                // An open room is looked at again after a linger; the queue stays one check per entry.
                let next = if entry.open {
                    now + LINGER
                } else {
                    entry.last_used + LINGER
                };
                let at = self.checks.partition_point(|(when, _)| *when <= next);
                self.checks.insert(at, (next, room));
            }
        }
    }

    pub fn next_check(&self) -> Option<Instant> {
        self.checks.front().map(|(when, _)| *when)
    }
}

/// Spreads names over shards: the same on every shard of this process, unknown to callers, who could
/// otherwise choose names that all meet on one.
#[derive(Clone, Debug, Default)]
pub struct Spread(RandomState);

impl Spread {
    pub fn shard(&self, name: &[u8], shards: usize) -> ShardIndex {
        let mut hasher = self.0.build_hasher();
        hasher.write(name);
        ShardIndex((hasher.finish() % shards as u64) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardIndex = ShardIndex(1);
    const B: ShardIndex = ShardIndex(2);

    fn never() -> ShardIndex {
        panic!("the room has an owner")
    }

    #[test]
    fn a_room_is_placed_once() {
        let mut directory = Directory::default();
        let now = Instant::now();
        assert_eq!(directory.owner(now, "r", || A), Some(A));
        assert_eq!(directory.owner(now, "r", never), Some(A));
    }

    #[test]
    fn an_open_room_stays_and_a_closed_one_lingers_then_goes() {
        let mut directory = Directory::default();
        let start = Instant::now();
        directory.owner(start, "r", || A);
        directory.opened(start, "r", A);
        let later = start + LINGER * 10;
        for t in 0..100 {
            directory.expire(start + LINGER * t / 10);
        }
        assert_eq!(directory.owner(later, "r", never), Some(A));

        directory.closed(later, "r");
        directory.expire(later + LINGER - Duration::from_millis(1));
        assert_eq!(directory.entries.len(), 1);
        directory.expire(later + LINGER * 3);
        assert!(directory.entries.is_empty() && directory.checks.is_empty());
        assert_eq!(directory.owner(later + LINGER * 4, "r", || B), Some(B));
    }

    #[test]
    fn a_refused_call_leaves_nothing_behind() {
        let mut directory = Directory::default();
        let now = Instant::now();
        for i in 0..1_000 {
            directory.owner(now, &i.to_string(), || A);
        }
        directory.expire(now + LINGER);
        assert!(directory.entries.is_empty() && directory.checks.is_empty());
    }

    #[test]
    fn names_spread_and_always_to_the_same_shard() {
        let spread = Spread::default();
        let mut counts = [0; 4];
        for i in 0..4_000 {
            let name = format!("room{i}");
            let shard = spread.shard(name.as_bytes(), 4);
            assert_eq!(shard, spread.clone().shard(name.as_bytes(), 4));
            counts[shard.0 as usize] += 1;
        }
        assert!(counts.iter().all(|&count| count > 800), "{counts:?}");
    }
}
