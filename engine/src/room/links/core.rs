//! A link to the part of the same room on another core: two rings of samples, one for each direction.
//!
//! Parts tick by one clock, each in its own phase. What one says waits in the ring for the other's next
//! tick: one tick more than at home, at most.

use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};

use super::{FRAME_LEN_MAX, Partial, Talkers};

/// Samples that travel together: the shortest tick, so that parts with different ticks fit.
const UNIT_LEN: usize = crate::codec::SAMPLE_RATE as usize / 100;
const _: () = assert!(FRAME_LEN_MAX.is_multiple_of(UNIT_LEN));

/// Units a ring holds. Who is stalled for longer loses what does not fit.
const UNITS_MAX: usize = 16;

/// What begins to be heard has waited for so long, so that a tick of the other that comes as much later
/// is not missed.
const MARGIN: Duration = Duration::from_millis(4);

/// Beyond what a tick takes, so many may wait; more is the delay that a stall has left.
const WAITING_MAX: usize = 4;

/// What is older belongs to a talk spurt that is over.
const STALE: Duration = Duration::from_millis(200);

struct Unit {
    made: Instant,
    here: Part,
    abroad: Part,
}

struct Part {
    samples: [i32; UNIT_LEN],
    sounds: bool,
    who: Talkers,
}

impl Part {
    fn of(partial: &Partial, from: usize) -> Self {
        let mut samples = [0; UNIT_LEN];
        if partial.sounds {
            samples.copy_from_slice(&partial.samples[from..from + UNIT_LEN]);
        }
        Self {
            samples,
            sounds: partial.sounds,
            who: partial.who.clone(),
        }
    }

    fn put(&self, partial: &mut Partial, at: usize) {
        if self.sounds {
            partial.samples[at..at + UNIT_LEN].copy_from_slice(&self.samples);
            partial.sounds = true;
            partial.who.clone_from(&self.who);
        }
    }
}

/// One end of a link, to be given to one of its parts.
pub struct CoreEnd {
    out: Producer<Unit>,
    come: Consumer<Unit>,
}

impl std::fmt::Debug for CoreEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreEnd").finish_non_exhaustive()
    }
}

/// Both ends of a new link. All its memory is taken here.
pub fn core_link() -> (CoreEnd, CoreEnd) {
    let (to_right, from_left) = RingBuffer::new(UNITS_MAX);
    let (to_left, from_right) = RingBuffer::new(UNITS_MAX);
    let left = CoreEnd {
        out: to_right,
        come: from_right,
    };
    let right = CoreEnd {
        out: to_left,
        come: from_left,
    };
    (left, right)
}

pub(super) struct CoreLink {
    part: u16,
    end: CoreEnd,
    /// A talk spurt is being heard.
    playing: bool,
    /// What came for this tick: the talkers of that part, and those its trunks bring.
    pub(super) here: Partial,
    pub(super) abroad: Partial,
}

impl CoreLink {
    pub(super) fn new(part: u16, end: CoreEnd) -> Self {
        Self {
            part,
            end,
            playing: false,
            here: Partial::default(),
            abroad: Partial::default(),
        }
    }

    pub(super) fn part(&self) -> u16 {
        self.part
    }

    /// The other part is no more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.end.out.is_abandoned()
    }

    pub(super) fn hear(&mut self, now: Instant, samples: usize) {
        self.here.clear(samples);
        self.abroad.clear(samples);
        let Self {
            end: CoreEnd { come, .. },
            playing,
            here,
            abroad,
            ..
        } = self;
        let units = samples / UNIT_LEN;
        let age = |unit: &Unit| now.saturating_duration_since(unit.made);
        while come.peek().is_ok_and(|unit| age(unit) >= STALE) || come.slots() > units + WAITING_MAX
        {
            // Fails only when nothing is there.
            let _ = come.pop();
        }
        if !*playing {
            let ready = come.read_chunk(units).is_ok_and(|chunk| {
                let (first, second) = chunk.as_slices();
                first.iter().chain(second).all(|unit| age(unit) >= MARGIN)
            });
            if !ready {
                return;
            }
        }
        *playing = true;
        for place in 0..units {
            let Ok(unit) = come.pop() else {
                // The spurt is over, or the other part is late and goes on with the next tick.
                *playing = false;
                return;
            };
            unit.here.put(here, place * UNIT_LEN);
            unit.abroad.put(abroad, place * UNIT_LEN);
        }
    }

    /// Sends this tick's sums, if anybody is in one.
    pub(super) fn say(&mut self, now: Instant, here: &Partial, abroad: &Partial, samples: usize) {
        if !here.sounds && !abroad.sounds {
            return;
        }
        for from in (0..samples).step_by(UNIT_LEN) {
            let unit = Unit {
                made: now,
                here: Part::of(here, from),
                abroad: Part::of(abroad, from),
            };
            // A full ring is one that nobody empties, for now.
            let _ = self.end.out.push(unit);
        }
    }
}
