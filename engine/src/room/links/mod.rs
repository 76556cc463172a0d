//! What joins a room to its parts elsewhere: the algebra of sums, for servers and for cores alike.
//!
//! ```text
//!                     ┌───────── this part of the room ──────────┐
//!   members       ──> │ here      its talkers                    │ ──> to a core:   here, abroad
//!   other servers ──> │ abroad    what the trunks bring          │ ──> to a server: here + elsewhere.here
//!   other cores   ──> │ elsewhere their here and their abroad    │ ──> to a member: all, less his own
//!                     └──────────────────────────────────────────┘
//! ```
//! A mix is a sum, and a sum can be split anywhere. Each link brings in a partial sum, whose talkers were
//! chosen where they are, and takes out one. Rules:
//!
//! 1. What comes in on a link never goes out on a link of its kind. Every server has a trunk to every
//!    other, and every part of a room on one server a link to every other part. So nobody is heard
//!    twice, nothing comes back to where it came from, and there are no loops.
//! 2. Between cores, the talkers of this server and those of others travel side by side. A trunk may
//!    therefore end on any part: it carries the talkers of all parts of its server, and of no other server.
//! 3. Who is in a sum goes with it, with his level (CSRC of RFC 3550 §5.1, RFC 6465).
//! 4. Nothing is sent while nobody talks.
//!
//! Not here: who opens and ends links, and when.

use std::time::Instant;

use arrayvec::ArrayVec;
use mixer_simd::Kernels;
use rtp::Contributor;
use slab::Slab;

use super::{Counts, FRAME_LEN_MAX, Mixer, Room};
use crate::io::MediaIo;

mod core;
mod outgoing;
#[cfg(test)]
mod tests;
mod trunk;

use self::core::CoreLink;
pub use self::core::{CoreEnd, core_link};
use outgoing::Outgoing;
pub use trunk::{LEVELS_EXTENSION_ID, TRUNK_JITTER_DEPTH, Trunk};

/// Who is in a partial sum: the loudest, if they are more than a packet can name.
pub type Talkers = ArrayVec<Contributor, { rtp::CONTRIBUTORS_MAX }>;

/// A trunk's place in its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrunkId(u32);

/// A room's links. Most rooms have none.
pub(super) struct Links {
    trunks: Slab<Trunk>,
    cores: Vec<CoreLink>,
    /// What goes out on trunks; it has a level of its own: what others add to it is theirs to limit.
    outgoing: Outgoing,
    /// The time of this tick.
    now: Instant,
}

/// A partial sum of a tick.
pub(super) struct Partial {
    samples: [i32; FRAME_LEN_MAX],
    /// Somebody is in it. Otherwise the samples mean nothing.
    sounds: bool,
    who: Talkers,
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            samples: [0; FRAME_LEN_MAX],
            sounds: false,
            who: Talkers::new(),
        }
    }
}

/// Working memory for the sums of links, in a shard's [`Mixer`].
#[derive(Default)]
pub(super) struct Sums {
    here: Partial,
    abroad: Partial,
}

impl Partial {
    /// Empties it, for sums of so many samples.
    fn clear(&mut self, samples: usize) {
        self.samples[..samples].fill(0);
        self.sounds = false;
        self.who.clear();
    }

    fn add(&mut self, other: &Self, samples: usize) {
        if other.sounds {
            add(&mut self.samples[..samples], &other.samples[..samples]);
            self.sounds = true;
            self.name(other.who.iter().copied());
        }
    }

    /// Names who is in it; of more than there is room for, the loudest.
    fn name(&mut self, who: impl Iterator<Item = Contributor>) {
        for contributor in who {
            if self.who.try_push(contributor).is_err()
                && let Some(quietest) = self.who.iter_mut().max_by_key(|known| known.level)
                && quietest.level > contributor.level
            {
                *quietest = contributor;
            }
        }
    }
}

fn add(sum: &mut [i32], more: &[i32]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

impl Links {
    fn new(now: Instant) -> Self {
        Self {
            trunks: Slab::new(),
            cores: Vec::new(),
            outgoing: Outgoing::default(),
            now,
        }
    }

    fn is_empty(&self) -> bool {
        self.trunks.is_empty() && self.cores.is_empty()
    }

    pub(super) fn hear(&mut self, now: Instant, samples: usize, pcm: &mut Vec<i16>) {
        self.now = now;
        for (_, trunk) in &mut self.trunks {
            trunk.hear(now, samples, pcm);
        }
        for core in &mut self.cores {
            core.hear(now, samples);
        }
    }

    /// Adds what came in to `total`, which holds the talkers of this part (`who`, nobody if it is silent),
    /// and takes out what is for others.
    pub(super) fn join(
        &mut self,
        total: &mut [i32],
        who: impl ExactSizeIterator<Item = Contributor>,
        kernels: &Kernels,
        sums: &mut Sums,
    ) {
        let samples = total.len();
        let Sums { here, abroad } = sums;
        here.clear(samples);
        here.samples[..samples].copy_from_slice(total);
        here.sounds = who.len() > 0;
        here.name(who);
        abroad.clear(samples);
        for (_, trunk) in &self.trunks {
            if let Some(frame) = trunk.frame(samples) {
                kernels.add(&mut abroad.samples[..samples], frame);
                abroad.sounds = true;
                abroad.name(trunk.talkers().iter().copied());
            }
        }
        for core in &mut self.cores {
            core.say(self.now, here, abroad, samples);
        }
        for core in &self.cores {
            here.add(&core.here, samples);
            abroad.add(&core.abroad, samples);
        }
        total.copy_from_slice(&here.samples[..samples]);
        if abroad.sounds {
            add(total, &abroad.samples[..samples]);
        }
        let listened = self.trunks.iter().any(|(_, trunk)| trunk.listens());
        self.outgoing.decide(here, listened);
    }

    /// Makes what goes out on trunks.
    pub(super) fn mix(
        &mut self,
        kernels: &Kernels,
        sums: &Sums,
        pcm: &mut Vec<i16>,
        samples: usize,
    ) {
        self.outgoing
            .mix(kernels, &sums.here.samples[..samples], pcm);
    }

    pub(super) fn encode(&mut self, mixer: &mut Mixer, io: &mut impl MediaIo) {
        let trunks = self.trunks.iter();
        let codecs = trunks.filter(|(_, trunk)| trunk.listens());
        let codecs = codecs.map(|(_, trunk)| trunk.member().leg().codec);
        self.outgoing.encode(codecs, mixer, io);
    }

    pub(super) fn speak(&mut self, samples: usize, io: &mut impl MediaIo, counts: &mut Counts) {
        for (_, trunk) in &mut self.trunks {
            trunk.speak(self.now, samples, &self.outgoing, io, counts);
        }
    }

    pub(super) fn report(
        &mut self,
        now: Instant,
        ntp: u64,
        io: &mut impl MediaIo,
        counts: &mut Counts,
    ) {
        for (_, trunk) in &mut self.trunks {
            trunk.member_mut().report(now, ntp, io, counts);
        }
    }
}

impl Room {
    fn links(&mut self) -> &mut Links {
        let now = self.next_tick;
        self.links.get_or_insert_with(|| Box::new(Links::new(now)))
    }

    fn unlink(&mut self) {
        self.links = self.links.take().filter(|links| !links.is_empty());
    }

    /// Joins the room to its conference on another server.
    pub fn add_trunk(&mut self, trunk: Trunk) -> TrunkId {
        TrunkId(self.links().trunks.insert(trunk) as u32)
    }

    pub fn remove_trunk(&mut self, id: TrunkId) -> Option<Trunk> {
        let links = self.links.as_mut()?;
        let trunk = links.trunks.try_remove(id.0 as usize);
        self.unlink();
        trunk
    }

    pub fn trunk(&self, id: TrunkId) -> Option<&Trunk> {
        self.links.as_ref()?.trunks.get(id.0 as usize)
    }

    pub fn trunk_mut(&mut self, id: TrunkId) -> Option<&mut Trunk> {
        self.links.as_mut()?.trunks.get_mut(id.0 as usize)
    }

    pub fn trunks_mut(&mut self) -> impl Iterator<Item = &mut Trunk> {
        let links = self.links.iter_mut();
        links.flat_map(|links| links.trunks.iter_mut().map(|(_, trunk)| trunk))
    }

    /// Joins the room to its part on another core, whose number that is.
    pub fn add_core(&mut self, part: u16, end: CoreEnd) {
        let links = self.links();
        // Whoever makes a link anew has lost the one before.
        links.cores.retain(|core| core.part() != part);
        links.cores.push(CoreLink::new(part, end));
    }

    /// Drops the links to parts that are no more; to be called now and then.
    pub fn drop_abandoned(&mut self) {
        if let Some(links) = &mut self.links {
            links.cores.retain(|core| !core.is_abandoned());
            self.unlink();
        }
    }

    /// Parts of the room on other cores that it is joined to.
    pub fn parts(&self) -> impl Iterator<Item = u16> {
        let cores = self.links.iter().flat_map(|links| &links.cores);
        let there = cores.filter(|core| !core.is_abandoned());
        there.map(CoreLink::part)
    }

    /// Who is heard from other servers and cores in this tick.
    pub fn talkers_elsewhere(&self) -> impl Iterator<Item = Contributor> {
        self.links.iter().flat_map(|links| {
            let trunks = links.trunks.iter().map(|(_, trunk)| trunk.talkers());
            let cores = links.cores.iter();
            let cores = cores.flat_map(|core| [core.here.who.as_slice(), &core.abroad.who]);
            trunks.chain(cores).flatten().copied()
        })
    }
}
