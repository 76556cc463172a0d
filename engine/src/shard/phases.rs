//! When the rooms of a shard tick: spread over the frame interval, so that they do not all mix, and
//! their packets do not all leave, at the same moment.
//!
//! The interval of 20 ms has 22 slots. A room keeps its slot for life; it gets the one with the fewest
//! seats when it opens. A room with a period of 10 ms ticks in the opposite slot, too.
//!
//! Slots of a whole millisecond would keep step with the kernel's own tick. A profiler that samples by
//! that tick would then see always the same moment of a turn, or none.

use std::time::{Duration, Instant};

use super::stage::RoomKey;
use crate::room::PERIOD_USUAL;

const SLOTS: usize = 22;
const PERIOD_NS: u64 = PERIOD_USUAL.as_nanos() as u64;

/// A room's place among the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

pub(super) struct Phases {
    start: Instant,
    slots: [Rooms; SLOTS],
    rooms: usize,
    /// Slots since the start that are done.
    done: u64,
}

#[derive(Default)]
struct Rooms {
    keys: Vec<RoomKey>,
    seats: usize,
}

impl Phases {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            slots: std::array::from_fn(|_| Rooms::default()),
            rooms: 0,
            done: 0,
        }
    }

    /// The slot of a room that opens now, and its first tick, within a frame interval.
    pub(super) fn place(&mut self, now: Instant) -> (Slot, Instant) {
        let after = self.count(now) + 1;
        // From the next slot on, so that of equals the nearest is taken.
        let slot = (after..after + SLOTS as u64)
            .min_by_key(|&count| {
                let rooms = &self.slots[index(count)];
                (rooms.seats, rooms.keys.len())
            })
            .unwrap_or(after);
        (Slot(index(slot)), self.time(slot))
    }

    pub(super) fn open(&mut self, slot: Slot, room: RoomKey) {
        self.slots[slot.0].keys.push(room);
        self.rooms += 1;
    }

    pub(super) fn close(&mut self, slot: Slot, room: RoomKey) {
        let keys = &mut self.slots[slot.0].keys;
        if let Some(place) = keys.iter().position(|&key| key == room) {
            keys.swap_remove(place);
            self.rooms -= 1;
        }
    }

    pub(super) fn seat_taken(&mut self, slot: Slot) {
        self.slots[slot.0].seats += 1;
    }

    pub(super) fn seat_left(&mut self, slot: Slot) {
        self.slots[slot.0].seats -= 1;
    }

    /// Adds to `due` the rooms of the slots that have come since the last call. Among them are rooms
    /// whose next tick has not come: those of the opposite slots.
    pub(super) fn due(&mut self, now: Instant, due: &mut Vec<RoomKey>) {
        let until = self.count(now);
        // After a stall of more than an interval, every slot has come.
        let first = (self.done + 1).max((until + 1).saturating_sub(SLOTS as u64 / 2));
        for count in first..=until {
            due.extend_from_slice(&self.slots[index(count)].keys);
            due.extend_from_slice(&self.slots[index(count + SLOTS as u64 / 2)].keys);
        }
        self.done = until;
    }

    /// The next slot, if there is any room.
    pub(super) fn next(&self) -> Option<Instant> {
        (self.rooms > 0).then(|| self.time(self.done + 1))
    }

    fn time(&self, count: u64) -> Instant {
        self.start + Duration::from_nanos((count * PERIOD_NS).div_ceil(SLOTS as u64))
    }

    /// Slots that have come since the start.
    fn count(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_nanos();
        (since * SLOTS as u128 / u128::from(PERIOD_NS)) as u64
    }
}

fn index(count: u64) -> usize {
    count as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> RoomKey {
        RoomKey(number)
    }

    #[test]
    fn rooms_spread_over_the_interval_by_their_seats() {
        let start = Instant::now();
        let mut phases = Phases::new(start);
        let mut ticks = Vec::new();
        for room in 0..2 * SLOTS as u32 {
            let (slot, first) = phases.place(start);
            assert!(first > start && first <= start + PERIOD_USUAL);
            phases.open(slot, key(room));
            phases.seat_taken(slot);
            ticks.push(first - start);
        }
        ticks.sort_unstable();
        for slot in ticks.chunks(2) {
            assert_eq!(slot[0], slot[1]);
        }
        ticks.dedup();
        assert_eq!(ticks.len(), SLOTS);
        // A room that fills up is avoided.
        let (slot, _) = phases.place(start);
        (0..10).for_each(|_| phases.seat_taken(slot));
        assert_ne!(phases.place(start).0, slot);
    }

    #[test]
    fn a_room_comes_in_its_slot_and_in_the_opposite_one() {
        let start = Instant::now();
        let mut phases = Phases::new(start);
        let (slot, first) = phases.place(start);
        phases.open(slot, key(7));
        assert_eq!(phases.next(), Some(first));
        let mut came = Vec::new();
        for count in 0..5 * SLOTS as u64 {
            let now = phases.time(count);
            let mut due = Vec::new();
            phases.due(now, &mut due);
            if !due.is_empty() {
                assert_eq!(due, [key(7)]);
                came.push(now);
            }
        }
        assert_eq!(came[0], first);
        assert!(
            came.windows(2)
                .all(|pair| pair[1] - pair[0] == PERIOD_USUAL / 2)
        );
        phases.close(slot, key(7));
        assert_eq!(phases.next(), None);
    }

    #[test]
    fn after_a_stall_every_room_comes_once() {
        let start = Instant::now();
        for stall_ms in [3, 9, 10, 11, 25, 10_000] {
            let mut phases = Phases::new(start);
            for room in 0..SLOTS as u32 {
                let (slot, _) = phases.place(start);
                phases.open(slot, key(room));
            }
            let mut due = Vec::new();
            phases.due(start + Duration::from_millis(stall_ms), &mut due);
            let mut once = due.clone();
            once.sort_unstable_by_key(|room| room.0);
            once.dedup();
            assert_eq!(once.len(), due.len(), "{stall_ms}");
            assert_eq!(due.len() == SLOTS, stall_ms >= 10, "{stall_ms}");
        }
    }
}
