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
//!
//! Each step is a call of its own, so that a shard takes it with all rooms that are due before it goes on
//! to the next: code and tables of a step are then in the cache, and its time is measured by one clock
//! reading for all rooms. What a room needs from one step to the next lies in the shard's [`Mixer`].

use std::time::{Duration, Instant};

use mixer_simd::Limiter;
use slab::Slab;

use crate::codec::{Codec, Encode, SAMPLE_RATE};

mod activity;
mod links;
mod member;
mod mix;
mod select;
mod speak;
#[cfg(test)]
mod tests;

pub use activity::Activity;
use links::Links;
pub use links::{
    CoreEnd, LEVELS_EXTENSION_ID, TRUNK_JITTER_DEPTH, Talkers, Trunk, TrunkId, core_link,
};
pub use member::{Handled, Leg, Member, MemberId, Newcomer};
pub use mix::Mixer;
use mix::Mixes;

/// The shortest and the usual mixing period. A room mixes every 20 ms unless a member's ptime is no
/// multiple of that (10, 30 and 50 ms); then every 10 ms, so that every ptime is a whole number of ticks.
const PERIOD_SHORT: Duration = Duration::from_millis(10);
pub const PERIOD_USUAL: Duration = Duration::from_millis(20);

/// Samples of the longest period.
const FRAME_LEN_MAX: usize = SAMPLE_RATE as usize / 50;

/// Ticks that are this late are left out rather than caught up: listeners' jitter buffers have run dry
/// anyway, and a burst of frames would only fill them beyond their depth.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);

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
    encoders: [Option<Box<dyn Encode>>; Codec::COUNT],
    /// Indices of the members in this tick's mix.
    talkers: Vec<usize>,
    /// Codecs in which somebody gets the mix of all talkers in this tick.
    wanted: [bool; Codec::COUNT],
    mixes: Mixes,
    /// To its parts elsewhere, if there are any.
    links: Option<Box<Links>>,
    #[cfg(test)]
    pub(crate) panics_on_next_tick: bool,
}

impl Room {
    /// `first_tick` sets the phase, which stays.
    pub fn new(name: String, first_tick: Instant) -> Self {
        Self {
            name,
            members: Slab::new(),
            period: PERIOD_USUAL,
            next_tick: first_tick,
            limiter: Limiter::new(SAMPLE_RATE),
            encoders: [const { None }; Codec::COUNT],
            talkers: Vec::new(),
            wanted: [false; Codec::COUNT],
            mixes: Mixes::default(),
            links: None,
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

    /// Begins a tick if one is due; returns how late that is.
    pub fn begin(&mut self, now: Instant) -> Option<Duration> {
        let late = now.checked_duration_since(self.next_tick)?;
        self.next_tick += self.period;
        if late > CATCH_UP_MAX {
            while self.next_tick <= now {
                self.next_tick += self.period;
            }
        }
        Some(late)
    }

    /// Takes this tick's samples out of everybody's jitter buffer, and judges who speaks.
    pub fn hear(&mut self, now: Instant, mixer: &mut Mixer) {
        #[cfg(test)]
        assert!(!std::mem::take(&mut self.panics_on_next_tick), "told to");
        let samples = self.samples();
        for (_, member) in &mut self.members {
            member.hear(now, samples, &mixer.kernels, &mut mixer.decoded);
        }
        if let Some(links) = &mut self.links {
            links.hear(now, samples, &mut mixer.decoded);
        }
    }

    /// Samples of a period.
    fn samples(&self) -> usize {
        self.period.as_millis() as usize * SAMPLE_RATE as usize / 1_000
    }
}
