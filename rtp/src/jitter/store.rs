//! The memory of a jitter buffer: a window of numbered slots over a stock of payload buffers.
//!
//! ```text
//!   slots     ·  audio  ·  silent  audio  ·  ·  ·      by number, modulo SLOTS
//!                  │                 │
//!   payloads     [ 0 ]             [ 2 ]   [ 1 ]  …    the one freed last is used first
//! ```
//!
//! A leg holds a few packets at a time. Used last in, first out, the same few payload buffers serve all
//! of them and stay in the cache. The stock grows to the most packets that were held at a time, in
//! buffers for the longest payload there was: half a kilobyte for an ordinary G.711 leg, where the
//! longest packets in every slot would take 96. A steady stream allocates nothing.

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
    payloads: Vec<u8>,
    /// Length of a payload buffer.
    stride: usize,
    /// Payload buffers not in use.
    free: Vec<u8>,
}

/// Payload buffers grow in steps, so that payloads of slightly changing length do not make them grow
/// each time. Twenty milliseconds of G.711.
const STRIDE_STEP: usize = 160;

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
            payloads: Vec::new(),
            stride: STRIDE_STEP,
            free: Vec::new(),
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
        let start = usize::from(audio.buffer) * self.stride;
        &self.payloads[start..start + usize::from(audio.len)]
    }

    /// The slot of the number is empty, the payload no longer than [`PAYLOAD_LEN_MAX`].
    pub(super) fn put(&mut self, now: Instant, number: i64, packet: &Packet<'_>) {
        debug_assert!(self.is_empty(number));
        debug_assert!(packet.payload.len() <= PAYLOAD_LEN_MAX);
        let len = packet.payload.len();
        if len > self.stride {
            self.widen(len.next_multiple_of(STRIDE_STEP));
        }
        let buffer = self.free.pop().unwrap_or_else(|| self.add_buffer());
        let start = usize::from(buffer) * self.stride;
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

    fn add_buffer(&mut self) -> u8 {
        // Every slot in use has one, so there are fewer than slots when another is asked for.
        let buffer = (self.payloads.len() / self.stride) as u8;
        self.payloads
            .resize((usize::from(buffer) + 1) * self.stride, 0);
        buffer
    }

    /// Makes all payload buffers longer.
    fn widen(&mut self, stride: usize) {
        let buffers = self.payloads.len() / self.stride;
        let mut payloads = vec![0; buffers * stride];
        for buffer in 0..buffers {
            payloads[buffer * stride..][..self.stride]
                .copy_from_slice(&self.payloads[buffer * self.stride..][..self.stride]);
        }
        self.payloads = payloads;
        self.stride = stride;
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
        let mut memory = None;
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
            let now = (store.payloads.as_ptr(), store.free.capacity());
            assert_eq!(*memory.get_or_insert(now), now);
        }
    }

    #[test]
    fn payloads_survive_a_longer_one() {
        let mut store = Store::new();
        let now = Instant::now();
        let payload = |number: i64| vec![number as u8; 100 * (number as usize + 1)];
        for number in 0..10 {
            store.put(now, number, &packet(&payload(number)));
        }
        for number in 0..10 {
            let audio = store.audio(number).expect("it was put");
            assert_eq!(store.payload(audio), payload(number));
        }
    }

    #[test]
    fn an_empty_payload_is_a_payload() {
        let mut store = Store::new();
        store.put(Instant::now(), 1, &packet(b""));
        store.put(Instant::now(), 2, &packet(b""));
        let audio = store.audio(2).expect("it was put");
        assert_eq!(store.payload(audio), b"");
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
