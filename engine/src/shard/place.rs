//! Which shard gets a new room: the least loaded one.
//!
//! Loads are as old as the last second and every shard places rooms on its own, so a burst of new rooms
//! would all meet on the same shard. Each home therefore adds what it has placed itself since.

use std::time::{Duration, Instant};

use super::ShardIndex;
use crate::meters::Meters;

/// A participant at 20 ms: 50 packets in and 50 out each second (standard load units).
const PARTICIPANT_LOAD: u64 = 100;

/// What a room is expected to become before its first participants show in the meters.
const ROOM_LOAD: u64 = 3 * PARTICIPANT_LOAD;

/// After this long, participants of a placed room show in the meters.
const FORESIGHT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Placement {
    /// Expected load by rooms placed lately, per shard, in two halves of [`FORESIGHT`].
    recent: Vec<[u64; 2]>,
    turned: Instant,
}

impl Placement {
    pub fn new(now: Instant, shards: usize) -> Self {
        Self {
            recent: vec![[0; 2]; shards],
            turned: now,
        }
    }

    pub fn place(&mut self, now: Instant, meters: &Meters) -> ShardIndex {
        self.place_apart(now, meters, |_| true)
            .unwrap_or(ShardIndex(0))
    }

    /// The least loaded of those that may have it; None if none may.
    pub fn place_apart(
        &mut self,
        now: Instant,
        meters: &Meters,
        may: impl Fn(ShardIndex) -> bool,
    ) -> Option<ShardIndex> {
        while now.saturating_duration_since(self.turned) >= FORESIGHT / 2 {
            self.turned += FORESIGHT / 2;
            self.recent
                .iter_mut()
                .for_each(|[new, old]| (*old, *new) = (*new, 0));
            if self.recent.iter().all(|recent| *recent == [0; 2]) {
                self.turned = now;
            }
        }
        let load = |(shard, recent): (usize, &[u64; 2])| {
            meters.cores[shard].participants.get() * PARTICIPANT_LOAD + recent.iter().sum::<u64>()
        };
        let shard = (0..self.recent.len())
            .filter(|&shard| may(ShardIndex(shard as u16)))
            .min_by_key(|&shard| load((shard, &self.recent[shard])))?;
        self.recent[shard][0] += ROOM_LOAD;
        Some(ShardIndex(shard as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_rooms_spreads_and_load_decides_afterwards() {
        let meters = Meters::new(&[0, 1, 2]);
        let start = Instant::now();
        let mut placement = Placement::new(start, 3);
        let mut rooms = [0; 3];
        for _ in 0..30 {
            rooms[placement.place(start, &meters).0 as usize] += 1;
        }
        assert_eq!(rooms, [10, 10, 10]);

        meters.cores[0].participants.set(50);
        meters.cores[1].participants.set(20);
        meters.cores[2].participants.set(30);
        assert_eq!(
            placement.place(start + FORESIGHT * 2, &meters),
            ShardIndex(1)
        );
        let later = start + FORESIGHT * 4;
        let may = |shard: ShardIndex| shard != ShardIndex(1);
        let apart = placement.place_apart(later, &meters, may);
        assert_eq!(apart, Some(ShardIndex(2)));
        assert_eq!(placement.place_apart(later, &meters, |_| false), None);
    }
}
