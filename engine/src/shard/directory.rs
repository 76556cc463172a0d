//! Which shards have a room: one, unless it is too large for that.
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
    /// Where it is to be while nobody has it.
    placed: ShardIndex,
    /// Who has a part of it, the first to open one first.
    parts: Vec<ShardIndex>,
    last_used: Instant,
}

impl Entry {
    fn owner(&self) -> ShardIndex {
        self.parts.first().copied().unwrap_or(self.placed)
    }
}

impl Directory {
    /// The shard that has `room` or its oldest part, or is to have it: `place` chooses for a name seen for
    /// the first time.
    pub fn owner(
        &mut self,
        now: Instant,
        room: &str,
        place: impl FnOnce() -> ShardIndex,
    ) -> Option<ShardIndex> {
        if let Some(entry) = self.entries.get_mut(room) {
            entry.last_used = now;
            return Some(entry.owner());
        }
        if self.entries.len() >= ENTRIES_MAX {
            return None;
        }
        let placed = place();
        self.entries.insert(
            room.to_owned(),
            Entry {
                placed,
                parts: Vec::new(),
                last_used: now,
            },
        );
        self.checks.push_back((now + LINGER, room.to_owned()));
        Some(placed)
    }

    /// `shard` has opened the room, or a part of it; gives those who have the others.
    pub fn opened(&mut self, now: Instant, room: &str, shard: ShardIndex) -> Vec<ShardIndex> {
        if self.owner(now, room, || shard).is_some()
            && let Some(entry) = self.entries.get_mut(room)
        {
            entry.parts.retain(|part| *part != shard);
            let others = entry.parts.clone();
            entry.parts.push(shard);
            return others;
        }
        Vec::new()
    }

    pub fn closed(&mut self, now: Instant, room: &str, shard: ShardIndex) {
        if let Some(entry) = self.entries.get_mut(room) {
            entry.parts.retain(|part| *part != shard);
            // Retransmissions go where its last part was.
            entry.placed = shard;
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
            let open = !entry.parts.is_empty();
            if !open && entry.last_used + LINGER <= now {
                self.entries.remove(&room);
            } else {
                // An open room is looked at again after a linger; the queue stays one check per entry.
                let next = if open {
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

        directory.closed(later, "r", A);
        directory.expire(later + LINGER - Duration::from_millis(1));
        assert_eq!(directory.entries.len(), 1);
        directory.expire(later + LINGER * 3);
        assert!(directory.entries.is_empty() && directory.checks.is_empty());
        assert_eq!(directory.owner(later + LINGER * 4, "r", || B), Some(B));
    }

    #[test]
    fn the_oldest_part_takes_new_calls_and_each_hears_of_the_others() {
        let mut directory = Directory::default();
        let now = Instant::now();
        directory.owner(now, "r", || A);
        assert_eq!(directory.opened(now, "r", A), []);
        assert_eq!(directory.opened(now, "r", B), [A]);
        assert_eq!(directory.owner(now, "r", never), Some(A));
        // Who closes and opens again is the youngest.
        directory.closed(now, "r", A);
        assert_eq!(directory.owner(now, "r", never), Some(B));
        assert_eq!(directory.opened(now, "r", A), [B]);
        assert_eq!(directory.owner(now, "r", never), Some(B));
        directory.closed(now, "r", B);
        directory.closed(now, "r", A);
        assert_eq!(directory.owner(now, "r", never), Some(A));
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
