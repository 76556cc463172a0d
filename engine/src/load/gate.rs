//! Who may send, by what he has sent before.
//!
//! ```text
//!   datagram ──> admit ──All──────────> scan ──> queue ──> stack ──> response
//!                  │                      │                             │ 404, 405, 481 ...
//!                  └─DialogsOnly─> scan   └─garbage─> fault <───────────┘
//!                     │      └─ of a dialog? else dropped          └─ too many: muted
//! ```
//! Not messages are counted but what is wrong with them, so that a proxy with thousands of calls a
//! second never comes near a limit, and a scanner does within a second. A source (an IPv4 address, a
//! /64 of IPv6) pays for each fault into a bucket that leaks `abuse.fault_rate` a second and holds ten
//! seconds of it. When it runs over, the source is muted for `abuse.mute_s`: what it sends outside of
//! its dialogs is dropped unread. Calls that are up go on.
//!
//! Beside it a plain limit on messages, off by default: beyond `abuse.flood_rate` a second the same is
//! dropped, without a wait.
//!
//! Memory is bounded: 1,024 sets of 8 sources. Only who sends something wrong has an entry
//! (everybody, where `flood_rate` is set). In a full set the newcomer takes the place of the source that
//! is not muted and owes least; where all are muted, of the one whose mute ends first. Where a source
//! lands is a keyed hash, so nobody chooses whom he displaces.
//!
//! Each shard has its own gate, as each has its own sockets; they tell each other whom they muted.
//!
//! Not here: whether a dialog exists, which the stack knows ([`sip::Endpoint::knows`]).

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use crate::config::{AbuseConfig, Network};
use crate::meters::Unwanted;

/// Sources a gate remembers: 8,192 of 32 bytes are 256 KiB.
const SETS: usize = 1_024;
const WAYS: usize = 8;

/// Seconds of its leak that the bucket of faults holds. A phone that tries to register every few
/// seconds never fills it.
const FAULT_SECONDS: f32 = 10.0;

/// What a request for a dialog that is not here costs: little, since all phones send such after a
/// restart.
const STRAY_COST: f32 = 0.1;

/// No source is an address of this block, which is multicast in IPv6.
const V4_MARK: u64 = 0xFFFF_FFFF << 32;

/// What a source may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    All,
    /// Nothing that begins anything; and what a dropped message counts as.
    DialogsOnly(Unwanted),
}

/// Remembers who behaved badly. Times are milliseconds since `start`.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    trusted: Vec<Network>,
    sets: Box<[[Entry; WAYS]]>,
    hasher: RandomState,
    start: Instant,
    /// Muted here since the last [`take_muted`](Self::take_muted).
    muted: Vec<IpAddr>,
}

/// Per second and source; 0 = no limit.
#[derive(Clone, Copy, Debug)]
struct Limits {
    faults: f32,
    messages: f32,
    mute_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    source: u64,
    /// When the levels were right; 0 in an empty entry.
    seen: u64,
    muted_until: u64,
    faults: f32,
    messages: f32,
}

impl Gate {
    pub fn new(config: &AbuseConfig, start: Instant) -> Self {
        Self {
            limits: Limits::of(config),
            trusted: config.trusted.clone(),
            sets: vec![[Entry::default(); WAYS]; SETS].into(),
            hasher: RandomState::new(),
            start,
            muted: Vec::new(),
        }
    }

    /// Takes over new limits. Who is muted stays so, unless he is trusted now.
    pub fn configure(&mut self, config: &AbuseConfig) {
        self.limits = Limits::of(config);
        self.trusted.clone_from(&config.trusted);
    }

    /// To be asked for each message, before anything is done with it.
    pub fn admit(&mut self, now: Instant, from: IpAddr) -> Pass {
        let now = self.millis(now);
        let limits = self.limits;
        if limits.messages > 0.0 && !self.is_trusted(from) {
            let entry = self.entry(now, from);
            entry.messages += 1.0;
            if entry.is_muted(now) {
                return Pass::DialogsOnly(Unwanted::Muted);
            }
            if entry.messages > limits.messages {
                entry.messages = limits.messages;
                return Pass::DialogsOnly(Unwanted::Flood);
            }
            return Pass::All;
        }
        let muted = self.find(from).is_some_and(|entry| entry.is_muted(now));
        if muted && !self.is_trusted(from) {
            Pass::DialogsOnly(Unwanted::Muted)
        } else {
            Pass::All
        }
    }

    /// Whether a message that is handled now should have been dropped: its source was muted meanwhile,
    /// or here but not where the message arrived.
    pub fn is_muted(&self, now: Instant, from: IpAddr) -> bool {
        let now = self.millis(now);
        self.find(from).is_some_and(|entry| entry.is_muted(now)) && !self.is_trusted(from)
    }

    /// A message of this source was unwanted.
    pub fn fault(&mut self, now: Instant, from: IpAddr, what: Unwanted) {
        let cost = match what {
            Unwanted::Muted | Unwanted::Flood => return,
            Unwanted::Stray => STRAY_COST,
            _ => 1.0,
        };
        let limits = self.limits;
        if limits.faults <= 0.0 || self.is_trusted(from) {
            return;
        }
        let now = self.millis(now);
        let entry = self.entry(now, from);
        let full = limits.faults * FAULT_SECONDS;
        entry.faults = (entry.faults + cost).min(full);
        if entry.faults >= full && !entry.is_muted(now) {
            entry.muted_until = now + limits.mute_ms;
            self.muted.push(from);
        }
    }

    /// Another shard has muted this source.
    pub fn mute(&mut self, now: Instant, from: IpAddr) {
        if self.is_trusted(from) {
            return;
        }
        let now = self.millis(now);
        let until = now + self.limits.mute_ms;
        let entry = self.entry(now, from);
        entry.muted_until = until.max(entry.muted_until);
    }

    /// Whom this gate has muted since it was asked last.
    pub fn take_muted(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.muted)
    }

    pub fn is_trusted(&self, from: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(from))
    }

    /// From 1, so that 0 is never.
    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64 + 1
    }

    fn set(&self, source: u64) -> usize {
        self.hasher.hash_one(source) as usize % SETS
    }

    fn find(&self, from: IpAddr) -> Option<&Entry> {
        let source = source(from);
        self.sets[self.set(source)]
            .iter()
            .find(|entry| entry.seen != 0 && entry.source == source)
    }

    /// The source's entry, brought to `now`; a new one if it has none.
    fn entry(&mut self, now: u64, from: IpAddr) -> &mut Entry {
        let source = source(from);
        let (index, limits) = (self.set(source), self.limits);
        let set = &mut self.sets[index];
        let is_it = |entry: &Entry| entry.seen != 0 && entry.source == source;
        let at = set.iter().position(is_it).unwrap_or_else(|| {
            set.iter_mut()
                .filter(|entry| entry.seen != 0)
                .for_each(|entry| entry.leak(now, &limits));
            let at = (0..WAYS)
                .min_by(|&a, &b| set[a].worth(now).total_cmp(&set[b].worth(now)))
                .unwrap_or(0);
            set[at] = Entry {
                source,
                seen: now,
                ..Entry::default()
            };
            at
        });
        let entry = &mut set[at];
        entry.leak(now, &limits);
        entry
    }
}

impl Limits {
    fn of(config: &AbuseConfig) -> Self {
        Self {
            faults: config.fault_rate as f32,
            messages: config.flood_rate as f32,
            mute_ms: u64::from(config.mute_s) * 1_000,
        }
    }
}

impl Entry {
    fn is_muted(&self, now: u64) -> bool {
        self.muted_until > now
    }

    fn leak(&mut self, now: u64, limits: &Limits) {
        let seconds = now.saturating_sub(self.seen) as f32 / 1e3;
        self.faults = (self.faults - limits.faults * seconds).max(0.0);
        self.messages = (self.messages - limits.messages * seconds).max(0.0);
        self.seen = self.seen.max(now);
    }

    /// What would be lost with the entry; the least goes first.
    fn worth(&self, now: u64) -> f64 {
        const MUTED: f64 = 1e12;
        if self.seen == 0 {
            -1.0
        } else if self.is_muted(now) {
            MUTED + (self.muted_until - now) as f64
        } else {
            // A fault is worth more than any number of messages that are none.
            f64::from(self.faults) * 1e6 + f64::from(self.messages)
        }
    }
}

/// What counts as one sender.
fn source(from: IpAddr) -> u64 {
    match from.to_canonical() {
        IpAddr::V4(address) => V4_MARK | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests;
