//! The memory of a jitter buffer: a window of numbered slots over a stock of payload buffers, all of it
//! taken when the buffer is made.
//!
//! ```text
//!   slots     ·  audio  ·  silent  audio  ·  ·  ·      by number, modulo SLOTS
//!                  │                 │
//!   payloads     [ 0 ]             [ 2 ]   [ 1 ]  …    the one freed last is used first
//! ```
//!
//! A leg holds a few packets at a time. Used last in, first out, the same few payload buffers serve all
//! of them and stay in the cache; the rest of the stock is never touched.

use std::time::Instant;

use super::PAYLOAD_LEN_MAX;
use crate::Packet;

/// Numbers in the window, and packets held at most: 1.3 s at 20 ms, far beyond any depth. A power of
/// two, so that numbers find their slot; payload buffers are numbered in eight bits.
pub(super) const SLOTS: usize = 64;
const _: () = assert!(SLOTS.is_power_of_two() && SLOTS <= 256);

#[derive(Debug)]
pub(super) struct Store {
    slots: Box<[Slot]>,
    /// Slots with audio.
    held: usize,
    payloads: Box<[u8]>,
    /// Payload buffers not in use.
    free: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Empty,
    /// A packet came that holds no audio.
    Silent,
    Audio(Audio),
}

/// A packet in its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audio {
    pub(super) timestamp: u32,
    pub(super) payload_type: u8,
    pub(super) marker: bool,
    pub(super) arrived: Instant,
    buffer: u8,
    len: u16,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![Slot::Empty; SLOTS].into_boxed_slice(),
            held: 0,
            payloads: vec![0; SLOTS * PAYLOAD_LEN_MAX].into_boxed_slice(),
            free: (0..SLOTS).rev().map(|buffer| buffer as u8).collect(),
        }
    }

    /// Packets with audio.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_empty(&self, number: i64) -> bool {
        matches!(self.slots[index(number)], Slot::Empty)
    }

    pub(super) fn is_silent(&self, number: i64) -> bool {
        matches!(self.slots[index(number)], Slot::Silent)
    }

    pub(super) fn audio(&self, number: i64) -> Option<Audio> {
        match self.slots[index(number)] {
            Slot::Audio(audio) => Some(audio),
            Slot::Empty | Slot::Silent => None,
        }
    }

    pub(super) fn payload(&self, audio: Audio) -> &[u8] {
        let start = usize::from(audio.buffer) * PAYLOAD_LEN_MAX;
        &self.payloads[start..start + usize::from(audio.len)]
    }

    /// The slot of the number is empty, the payload no longer than [`PAYLOAD_LEN_MAX`].
    pub(super) fn put(&mut self, now: Instant, number: i64, packet: &Packet<'_>) {
        debug_assert!(self.is_empty(number));
        let buffer = self
            .free
            .pop()
            .expect("there is a buffer for every slot, and this slot was empty");
        let len = packet.payload.len();
        let start = usize::from(buffer) * PAYLOAD_LEN_MAX;
        self.payloads[start..start + len].copy_from_slice(packet.payload);
        self.slots[index(number)] = Slot::Audio(Audio {
            timestamp: packet.timestamp,
            payload_type: packet.payload_type,
            marker: packet.marker,
            arrived: now,
            buffer,
            len: len as u16,
        });
        self.held += 1;
    }

    /// The slot of the number is empty.
    pub(super) fn put_silent(&mut self, number: i64) {
        debug_assert!(self.is_empty(number));
        self.slots[index(number)] = Slot::Silent;
    }

    /// Empties a slot. The payload stays readable until the next packet is put.
    pub(super) fn clear(&mut self, number: i64) {
        let slot = &mut self.slots[index(number)];
        if let Slot::Audio(audio) = std::mem::replace(slot, Slot::Empty) {
            self.free.push(audio.buffer);
            self.held -= 1;
        }
    }

    pub(super) fn clear_all(&mut self) {
        for number in 0..SLOTS as i64 {
            self.clear(number);
        }
    }
}

fn index(number: i64) -> usize {
    number as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Csrcs;

    fn packet(payload: &[u8]) -> Packet<'_> {
        Packet {
            marker: false,
            payload_type: 0,
            sequence: 0,
            timestamp: 0,
            ssrc: 1,
            csrcs: Csrcs::default(),
            extension: None,
            payload,
        }
    }

    #[test]
    fn a_full_store_keeps_payloads_apart_and_takes_no_more_memory() {
        let mut store = Store::new();
        let now = Instant::now();
        let (memory, capacity) = (store.payloads.as_ptr(), store.free.capacity());
        for round in 0..3_u8 {
            let first = 1_000 + i64::from(round) * 7;
            let numbers = first..first + SLOTS as i64;
            for number in numbers.clone() {
                let payload = [number as u8 ^ round; PAYLOAD_LEN_MAX];
                store.put(now, number, &packet(&payload));
            }
            assert_eq!(store.held(), SLOTS);
            for number in numbers {
                let audio = store.audio(number).expect("it was put");
                assert_eq!(
                    store.payload(audio),
                    [number as u8 ^ round; PAYLOAD_LEN_MAX]
                );
            }
            store.clear_all();
            assert_eq!(store.held(), 0);
        }
        assert_eq!(
            (memory, capacity),
            (store.payloads.as_ptr(), store.free.capacity())
        );
    }

    #[test]
    fn few_packets_use_few_buffers() {
        let mut store = Store::new();
        let now = Instant::now();
        let mut used = std::collections::HashSet::new();
        for number in 0..1_000 {
            store.put(now, number, &packet(b"x"));
            used.insert(store.audio(number).expect("it was put").buffer);
            if number >= 2 {
                store.clear(number - 2);
            }
        }
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn a_silent_slot_is_taken_but_holds_nothing() {
        let mut store = Store::new();
        store.put_silent(5);
        assert!(store.is_silent(5) && !store.is_empty(5) && store.audio(5).is_none());
        assert_eq!(store.held(), 0);
        store.clear(5);
        assert!(store.is_empty(5));
    }
}
