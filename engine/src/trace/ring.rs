//! The last messages of a shard: bounded in number and octets, the oldest dropped.

use std::collections::VecDeque;

use super::Record;

/// Octets of messages one core remembers, however many they are.
const LEN_MAX: usize = 16 << 20;

/// What a remembered message costs beside itself.
const RECORD_LEN: usize = size_of::<Record>() + 32;

/// Messages and octets in one answer: a shard clones them between two ticks.
const BATCH_MESSAGES: usize = 256;
const BATCH_LEN: usize = 256 << 10;

/// Messages are numbered from 0 in the order of their recording.
#[derive(Debug, Default)]
pub(super) struct Ring {
    records: VecDeque<Record>,
    len: usize,
    /// The number of the oldest one.
    first: u64,
}

/// Part of what a ring holds.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Where to ask on from.
    pub next: u64,
    /// Messages since the number asked for that were overwritten before.
    pub missed: u64,
    /// There are more already.
    pub more: bool,
}

fn cost(record: &Record) -> usize {
    record.message.len() + RECORD_LEN
}

impl Ring {
    pub(super) fn push(&mut self, record: Record, messages_max: usize) {
        self.len += cost(&record);
        self.records.push_back(record);
        self.shrink_to(messages_max);
    }

    /// Drops the oldest beyond this number, or beyond the octets allowed.
    pub(super) fn shrink_to(&mut self, messages_max: usize) {
        while self.records.len() > messages_max || self.len > LEN_MAX {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.len -= cost(&oldest);
            self.first += 1;
        }
        if messages_max == 0 {
            self.records.shrink_to_fit();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn since(&self, from: Option<u64>) -> Batch {
        let end = self.first + self.records.len() as u64;
        let from = from.unwrap_or(self.first).min(end);
        let start = from.max(self.first);
        let mut len = 0;
        let mut records = Vec::new();
        for record in self.records.range((start - self.first) as usize..) {
            len += cost(record);
            if records.len() == BATCH_MESSAGES || (len > BATCH_LEN && !records.is_empty()) {
                break;
            }
            records.push(record.clone());
        }
        let next = start + records.len() as u64;
        Batch {
            records,
            next,
            missed: start - from,
            more: next < end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::record;

    fn ring(messages: usize, messages_max: usize, len: usize) -> Ring {
        let mut ring = Ring::default();
        for number in 0..messages {
            let text = format!("{number:0len$}");
            ring.push(record(&text), messages_max);
        }
        ring
    }

    fn numbers(batch: &Batch) -> Vec<usize> {
        let number = |record: &Record| str::from_utf8(&record.message).unwrap().parse().unwrap();
        batch.records.iter().map(number).collect()
    }

    #[test]
    fn the_oldest_are_dropped_and_told_as_missed() {
        let ring = ring(10, 4, 1);
        let batch = ring.since(Some(0));
        assert_eq!(numbers(&batch), [6, 7, 8, 9]);
        assert_eq!((batch.next, batch.missed, batch.more), (10, 6, false));
        let batch = ring.since(Some(8));
        assert_eq!(numbers(&batch), [8, 9]);
        assert_eq!((batch.next, batch.missed), (10, 0));
        for none in [10, 11] {
            let batch = ring.since(Some(none));
            assert_eq!((batch.records.len(), batch.next, batch.missed), (0, 10, 0));
        }
        let batch = ring.since(None);
        assert_eq!((numbers(&batch), batch.missed), (vec![6, 7, 8, 9], 0));
    }

    #[test]
    fn a_batch_is_bounded_and_the_next_goes_on() {
        let ring = ring(1_000, 4_096, 1);
        let (mut seen, mut from) = (Vec::new(), 0);
        loop {
            let batch = ring.since(Some(from));
            assert!(batch.records.len() <= BATCH_MESSAGES);
            seen.extend(numbers(&batch));
            from = batch.next;
            if !batch.more {
                break;
            }
        }
        assert!(seen.into_iter().eq(0..1_000));
    }

    #[test]
    fn large_messages_come_in_smaller_batches_and_crowd_each_other_out() {
        const LEN: usize = 65_000;
        let ring = ring(400, 4_096, LEN);
        assert!(ring.len <= LEN_MAX && ring.len > LEN_MAX - 2 * LEN);
        let batch = ring.since(Some(0));
        assert_eq!(batch.records.len(), BATCH_LEN / LEN);
        assert_eq!(batch.missed, 400 - ring.len() as u64);
        let mut ring = Ring::default();
        ring.push(record(&"x".repeat(BATCH_LEN)), 1);
        assert_eq!(ring.since(None).records.len(), 1, "one is always told");
    }

    #[test]
    fn a_ring_nobody_wants_is_empty_and_numbers_go_on() {
        let mut ring = ring(10, 100, 1);
        ring.shrink_to(0);
        assert_eq!((ring.len(), ring.len), (0, 0));
        assert_eq!(ring.since(Some(3)).next, 10);
        ring.push(record("10"), 100);
        assert_eq!(numbers(&ring.since(Some(10))), [10]);
    }
}
