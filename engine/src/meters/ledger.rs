//! Where a core's time goes: each moment of a shard's thread is booked under one phase of its turn.
//!
//! A lap costs one reading of the clock, about 20 ns, and a turn makes a dozen of them. What the phases
//! but [`Phase::Idle`] add up to is the time the core was busy; the thread's own CPU clock, read beside
//! it, says what the runtime around the turns took, and how much of the busy time the kernel gave to others.

use std::time::Instant;

use super::{CoreMeters, Counter};

/// What a shard does in a turn, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Phase {
    /// Taking in datagrams, and putting RTP into jitter buffers.
    Harvest,
    /// Taking frames out of them: order, concealment, decoding, levels.
    Hear,
    /// Choosing who is mixed.
    Select,
    Mix,
    Encode,
    /// Headers, and queueing what is to be sent; RTCP.
    Speak,
    /// Sending what was queued.
    Send,
    /// Everything about calls: parsing, transactions, the focus, SDP.
    Sip,
    /// Messages between shards.
    Mail,
    /// Statistics, timeouts of media, expiry.
    House,
    /// Waiting for the next turn.
    Idle,
}

impl Phase {
    pub const ALL: [Self; 11] = [
        Self::Harvest,
        Self::Hear,
        Self::Select,
        Self::Mix,
        Self::Encode,
        Self::Speak,
        Self::Send,
        Self::Sip,
        Self::Mail,
        Self::House,
        Self::Idle,
    ];

    /// The name in metrics and in `plenum top`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Harvest => "harvest",
            Self::Hear => "hear",
            Self::Select => "select",
            Self::Mix => "mix",
            Self::Encode => "encode",
            Self::Speak => "speak",
            Self::Send => "send",
            Self::Sip => "sip",
            Self::Mail => "mail",
            Self::House => "house",
            Self::Idle => "idle",
        }
    }
}

/// Nanoseconds by phase.
#[derive(Debug, Default)]
pub struct PhaseTimes([Counter; Phase::ALL.len()]);

impl PhaseTimes {
    /// All of them, in the order of [`Phase::ALL`].
    pub fn read(&self) -> [u64; Phase::ALL.len()] {
        self.0.each_ref().map(Counter::get)
    }

    pub fn get(&self, phase: Phase) -> u64 {
        self.0[phase as usize].get()
    }

    /// All but idle.
    pub fn busy(&self) -> u64 {
        let phases = self.read();
        phases.iter().sum::<u64>() - phases[Phase::Idle as usize]
    }
}

/// The stopwatch of one shard.
#[derive(Debug)]
pub struct Ledger {
    last: Instant,
}

impl Ledger {
    pub fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// Books the time since the last lap under `phase`.
    pub fn lap(&mut self, meters: &CoreMeters, phase: Phase) {
        self.lap_at(Instant::now(), meters, phase);
    }

    /// As [`lap`](Self::lap), for whoever has just read the clock.
    pub fn lap_at(&mut self, now: Instant, meters: &CoreMeters, phase: Phase) {
        let spent = now.saturating_duration_since(self.last).as_nanos() as u64;
        meters.phases.0[phase as usize].add(spent);
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_moment_is_booked_once() {
        let start = Instant::now();
        let after = |us| start + Duration::from_micros(us);
        let meters = CoreMeters::default();
        let mut ledger = Ledger::new(start);
        ledger.lap_at(after(5), &meters, Phase::Idle);
        ledger.lap_at(after(7), &meters, Phase::Harvest);
        ledger.lap_at(after(8), &meters, Phase::Send);
        ledger.lap_at(after(20), &meters, Phase::Idle);
        ledger.lap_at(after(24), &meters, Phase::Harvest);
        let times = Phase::ALL.map(|phase| meters.phases.get(phase));
        assert_eq!(times.iter().sum::<u64>(), 24_000);
        assert_eq!(meters.phases.get(Phase::Harvest), 6_000);
        assert_eq!(meters.phases.busy(), 7_000);
    }

    #[test]
    fn phases_have_their_place_and_name() {
        for (place, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, place);
            let same_name = Phase::ALL
                .into_iter()
                .filter(|other| other.name() == phase.name());
            assert_eq!(same_name.count(), 1);
        }
    }
}
