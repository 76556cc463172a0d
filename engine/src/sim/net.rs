//! A network that loses, delays, doubles and reorders datagrams, and whose streams stall and break.
//!
//! It decides when something arrives and keeps nothing of it, but for streams, whose bytes come in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;

use super::clock::{MS, SECOND, Time};
use crate::random::Random;

/// A server or a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Host(pub(super) u16);

impl Host {
    pub(super) fn address(self) -> SocketAddr {
        let [high, low] = self.0.to_be_bytes();
        (Ipv4Addr::new(10, 0, high, low), 5060).into()
    }

    pub(super) fn of(address: SocketAddr) -> Option<Self> {
        let SocketAddr::V4(address) = address else {
            return None;
        };
        let [ten, zero, high, low] = address.ip().octets();
        ((ten, zero) == (10, 0)).then(|| Self(u16::from_be_bytes([high, low])))
    }
}

/// How well the network works as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Of a thousand datagrams, how many are lost, and how many arrive twice.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// One way.
    pub(super) delay_min: Time,
    pub(super) delay_max: Time,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            lost: 0,
            doubled: 0,
            delay_min: MS / 2,
            delay_max: 2 * MS,
        }
    }
}

/// A stream between two hosts, by a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

#[derive(Debug)]
struct Stream {
    /// Who connected, and to whom.
    ends: [Host; 2],
    /// When the last byte to this end arrives.
    arrives: [Time; 2],
    /// What waits for the way to be open again, and since when.
    held: VecDeque<(usize, Piece)>,
    held_since: Option<Time>,
}

/// What goes over a stream.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// No more will come.
    End,
}

/// Something that arrives at an end of a stream.
#[derive(Clone, Debug)]
pub(super) struct Arriving {
    pub(super) at: Time,
    pub(super) stream: StreamId,
    pub(super) to: Host,
    pub(super) piece: Piece,
}

/// A stream whose bytes reach nobody for so long is given up by both ends (TCP_USER_TIMEOUT).
const STREAM_PATIENCE: Time = 30 * SECOND;

/// After a way has opened again, bytes are sent again within this time.
const SENT_AGAIN: Time = SECOND;

#[derive(Debug)]
pub(super) struct Net {
    random: Random,
    pub(super) weather: Weather,
    /// Ways that carry nothing; how many faults close each.
    closed: BTreeMap<(Host, Host), u32>,
    /// Hosts that send slowly: bytes a second.
    slow: BTreeMap<Host, u64>,
    streams: BTreeMap<StreamId, Stream>,
    last_stream: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            weather: Weather::default(),
            closed: BTreeMap::new(),
            slow: BTreeMap::new(),
            streams: BTreeMap::new(),
            last_stream: 0,
            lost: 0,
            doubled: 0,
        }
    }

    /// Closes the way between two hosts, in both directions.
    pub(super) fn close(&mut self, a: Host, b: Host) {
        for way in [(a, b), (b, a)] {
            *self.closed.entry(way).or_default() += 1;
        }
    }

    /// Takes back one [`close`](Self::close).
    pub(super) fn open(&mut self, now: Time, a: Host, b: Host) -> Vec<Arriving> {
        for way in [(a, b), (b, a)] {
            if let Some(closed) = self.closed.get_mut(&way) {
                *closed -= 1;
                if *closed == 0 {
                    self.closed.remove(&way);
                }
            }
        }
        let freed: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.held.is_empty())
            .map(|(id, _)| *id)
            .collect();
        let mut arriving = Vec::new();
        for id in freed {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let [x, y] = stream.ends;
            if self.closed.contains_key(&(x, y)) {
                continue;
            }
            stream.held_since = None;
            let held = std::mem::take(&mut stream.held);
            let again = now + self.random.next_u64() % SENT_AGAIN;
            for (from, piece) in held {
                arriving.extend(self.carry(again, id, from, piece));
            }
        }
        arriving
    }

    pub(super) fn is_open(&self, a: Host, b: Host) -> bool {
        !self.closed.contains_key(&(a, b))
    }

    /// What this host sends over streams leaves at so many bytes a second; None: at once.
    pub(super) fn slow_down(&mut self, host: Host, bytes_per_s: Option<u64>) {
        match bytes_per_s {
            Some(rate) => drop(self.slow.insert(host, rate)),
            None => drop(self.slow.remove(&host)),
        }
    }

    fn delay(&mut self) -> Time {
        let Weather {
            delay_min,
            delay_max,
            ..
        } = self.weather;
        delay_min + self.random.next_u64() % (delay_max - delay_min).max(1)
    }

    /// When a datagram arrives: not at all, once or twice.
    pub(super) fn datagram(&mut self, now: Time, from: Host, to: Host) -> [Option<Time>; 2] {
        let by_chance = |random: &mut Random, of_thousand: u64| {
            of_thousand > 0 && random.next_u64() % 1_000 < of_thousand
        };
        let is_lost = by_chance(&mut self.random, self.weather.lost);
        if is_lost || !self.is_open(from, to) {
            self.lost += 1;
            return [None; 2];
        }
        let first = now + self.delay();
        let second = by_chance(&mut self.random, self.weather.doubled).then(|| now + self.delay());
        self.doubled += u64::from(second.is_some());
        [Some(first), second]
    }

    /// A host connects to another. The time is when the other hears of it and when the first knows;
    /// None: never, the way is closed.
    pub(super) fn connect(
        &mut self,
        now: Time,
        from: Host,
        to: Host,
    ) -> Option<(StreamId, Time, Time)> {
        if !self.is_open(from, to) {
            return None;
        }
        let there = now + self.delay();
        let back = there + self.delay();
        self.last_stream += 1;
        let id = StreamId(self.last_stream);
        let stream = Stream {
            ends: [from, to],
            arrives: [back, there],
            held: VecDeque::new(),
            held_since: None,
        };
        self.streams.insert(id, stream);
        Some((id, there, back))
    }

    /// A host says something on a stream, or ends it.
    pub(super) fn say(
        &mut self,
        now: Time,
        id: StreamId,
        from: Host,
        piece: Piece,
    ) -> Option<Arriving> {
        let ends = self.streams.get(&id)?.ends;
        let from = ends.iter().position(|end| *end == from)?;
        self.carry(now, id, from, piece)
    }

    fn carry(&mut self, now: Time, id: StreamId, from: usize, piece: Piece) -> Option<Arriving> {
        let stream = self.streams.get_mut(&id)?;
        let to = 1 - from;
        let [sender, receiver] = [stream.ends[from], stream.ends[to]];
        if self.closed.contains_key(&(sender, receiver)) || !stream.held.is_empty() {
            stream.held_since.get_or_insert(now);
            stream.held.push_back((from, piece));
            return None;
        }
        let len = match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::End => 0,
        };
        let sending = self.slow.get(&sender).map_or(0, |rate| len * SECOND / rate);
        let delay = self.delay();
        // A lost segment is sent again by TCP.
        let lost = self.random.next_u64() % 1_000 < self.weather.lost;
        let again = if lost { 200 * MS } else { 0 };
        let stream = self.streams.get_mut(&id)?;
        let at = (now + delay + again).max(stream.arrives[to]) + sending;
        stream.arrives[to] = at;
        if matches!(piece, Piece::End) {
            // What the other end still says goes nowhere.
            self.streams.remove(&id);
        }
        let (stream, to) = (id, receiver);
        Some(Arriving {
            at,
            stream,
            to,
            piece,
        })
    }

    /// Breaks every stream between two hosts, or of a host; both ends hear of it.
    pub(super) fn break_streams(&mut self, now: Time, a: Host, b: Option<Host>) -> Vec<Arriving> {
        let is_it = |stream: &Stream| {
            stream.ends.contains(&a) && b.is_none_or(|b| stream.ends.contains(&b))
        };
        let broken: BTreeSet<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| is_it(stream))
            .map(|(id, _)| *id)
            .collect();
        self.give_up(now, broken)
    }

    /// Breaks the streams that have carried nothing for long.
    pub(super) fn expire(&mut self, now: Time) -> Vec<Arriving> {
        let is_over = |stream: &Stream| {
            stream
                .held_since
                .is_some_and(|since| now >= since + STREAM_PATIENCE)
        };
        let over = self
            .streams
            .iter()
            .filter(|(_, stream)| is_over(stream))
            .map(|(id, _)| *id)
            .collect();
        self.give_up(now, over)
    }

    fn give_up(&mut self, now: Time, ids: BTreeSet<StreamId>) -> Vec<Arriving> {
        let mut arriving = Vec::new();
        for id in ids {
            let Some(stream) = self.streams.remove(&id) else {
                continue;
            };
            for (end, to) in stream.ends.into_iter().enumerate() {
                arriving.push(Arriving {
                    at: now.max(stream.arrives[end]),
                    stream: id,
                    to,
                    piece: Piece::End,
                });
            }
        }
        arriving
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Streams between two hosts.
    pub(super) fn streams_between(&self, a: Host, b: Host) -> usize {
        let is_it = |stream: &&Stream| stream.ends == [a, b] || stream.ends == [b, a];
        self.streams.values().filter(is_it).count()
    }
}
