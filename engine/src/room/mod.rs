//! One conference, in the order of its tick.
//!
//! ```text
//!   hear ──> select ──> mix ──> encode ──> speak
//!   jitter   who        total   once per   header +
//!   buffer,  talks      minus   distinct   shared
//!   level               own     mix+codec  payload
//! ```
//! A room is plain data owned by one shard. It mixes what its members say and knows nothing of SIP: who
//! may enter is decided in [`crate::focus`]. A tick neither allocates (once warm), blocks nor logs.

use std::time::{Duration, Instant};

use mixer_simd::Limiter;
use slab::Slab;

use crate::codec::{Codec, Encode, SAMPLE_RATE};
use crate::io::MediaIo;

mod activity;
mod member;
mod mix;
mod select;
mod speak;
#[cfg(test)]
mod tests;

pub use activity::Activity;
pub use member::{Leg, Member, MemberId, Newcomer};
pub use mix::Mixer;

/// The shortest and the usual mixing period. A room mixes every 20 ms unless a member's ptime is no
/// multiple of that (10, 30 and 50 ms); then every 10 ms, so that every ptime is a whole number of ticks.
const PERIOD_SHORT: Duration = Duration::from_millis(10);
const PERIOD_USUAL: Duration = Duration::from_millis(20);

/// Samples of the longest period.
const FRAME_LEN_MAX: usize = SAMPLE_RATE as usize / 50;

/// A tick that is this late is skipped rather than caught up: listeners' jitter buffers have run dry
/// anyway, and a burst of frames would only fill them beyond their depth.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);

/// What a tick needs from the shard around it.
pub struct Tick<'a> {
    pub now: Instant,
    /// Wall clock of `now` in NTP format (RFC 3550 §4), for sender reports.
    pub ntp: u64,
    pub io: &'a mut dyn MediaIo,
    pub mixer: &'a mut Mixer,
    pub talkers_max: usize,
    pub counts: &'a mut Counts,
}

/// What ticks did since the shard last moved these into its meters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ticks: u64,
    pub rtp_sent: u64,
    pub rtcp_sent: u64,
}

pub struct Room {
    name: String,
    members: Slab<Member>,
    period: Duration,
    next_tick: Instant,
    limiter: Limiter,
    /// The listeners' encoder of each codec in use: all who do not talk share it.
    encoders: [Option<Box<dyn Encode>>; Codec::ALL.len()],
    /// Indices of the members in this tick's mix.
    talkers: Vec<usize>,
    #[cfg(test)]
    pub(crate) panics_on_next_tick: bool,
}

impl Room {
    pub fn new(name: String, now: Instant) -> Self {
        Self {
            name,
            members: Slab::new(),
            period: PERIOD_USUAL,
            next_tick: now + PERIOD_USUAL,
            limiter: Limiter::new(SAMPLE_RATE),
            encoders: [const { None }; Codec::ALL.len()],
            talkers: Vec::new(),
            #[cfg(test)]
            panics_on_next_tick: false,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members
            .iter()
            .map(|(index, member)| (MemberId(index as u32), member))
    }

    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().map(|(_, member)| member)
    }

    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(id.0 as usize)
    }

    pub fn member_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.get_mut(id.0 as usize)
    }

    pub fn join(&mut self, member: Member) -> MemberId {
        let id = self.members.insert(member);
        self.agree_on_period();
        MemberId(id as u32)
    }

    pub fn leave(&mut self, id: MemberId) -> Option<Member> {
        let member = self.members.try_remove(id.0 as usize)?;
        self.agree_on_period();
        Some(member)
    }

    /// To be called when a member's ptime changed.
    pub fn agree_on_period(&mut self) {
        let fits_usual = |member: &Member| {
            member
                .ptime()
                .as_millis()
                .is_multiple_of(PERIOD_USUAL.as_millis())
        };
        let usual = self.members.iter().all(|(_, member)| fits_usual(member));
        self.period = if usual { PERIOD_USUAL } else { PERIOD_SHORT };
    }

    pub fn next_tick(&self) -> Instant {
        self.next_tick
    }

    /// Mixes one period if it is due; returns how late that was.
    pub fn tick(&mut self, tick: &mut Tick<'_>) -> Option<Duration> {
        let late = tick.now.checked_duration_since(self.next_tick)?;
        self.next_tick += self.period;
        if late > CATCH_UP_MAX {
            self.next_tick = tick.now + self.period;
        }
        #[cfg(test)]
        assert!(!std::mem::take(&mut self.panics_on_next_tick), "told to");

        let samples = self.period.as_millis() as usize * SAMPLE_RATE as usize / 1_000;
        for (_, member) in &mut self.members {
            member.hear(tick.now, samples, tick.mixer.kernels());
        }
        select::talkers(&mut self.members, tick.talkers_max, &mut self.talkers);
        self.mix_and_speak(tick, samples);
        tick.counts.ticks += 1;
        Some(late)
    }
}
