//! The server's load and state as every thread sees them.
//!
//! The admin thread writes the load once a second, shards read it for each call they are asked to
//! take. All numbers are hints a second old, so each is its own relaxed atomic and a reader may see
//! one of them a moment before the other.
//!
//! A rush of calls comes within one such second. So what was just granted counts before it is measured: each
//! call that is taken adds what participants cost on the average: in full as long as he has no media, such as
//! while his phone rings ([`Pending`]); from then on it fades as fast as the measurement, which is smoothed,
//! comes to include it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::config::{LoadConfig, Weights};

/// Above this share of max-load even a caller who was sent here is refused: redirects already
/// under way may overshoot max-load, but not without end.
pub const HARD_CAP_FACTOR: f64 = 1.2;

/// A full server takes calls again below this share of max-load, so that it does not change its
/// mind with every call.
const FULL_CLEARS_FACTOR: f64 = 0.9;

/// So many seconds in a row a core has to be hot before that counts: one may be the machine's stall.
const HOT_SECONDS: u32 = 3;

/// How far from the hot limit to a whole core everybody is refused.
const HOT_CAP: f64 = 0.7;

/// How much the newest second counts in the measured load. A change is nine tenths visible after seven
/// seconds, and a burst of one second moves the number by less than a third of itself.
pub const EWMA_ALPHA: f64 = 0.3;

/// What a participant costs until it is known: a packet in and one out every 20 ms.
pub const UNITS_PER_PARTICIPANT: f64 = 100.0;

/// The load of this server and its limits, in load units (weighted packets and messages a second).
#[derive(Debug)]
pub struct ServerLoad {
    current: AtomicU32,
    /// Calls taken that have no media yet.
    pending: AtomicU32,
    /// Of calls whose media have begun and which `current` does not include yet.
    granted: AtomicU32,
    /// Kept free for rooms that expect participants.
    kept: AtomicU32,
    /// Of one participant.
    cost: AtomicF64,
    max: AtomicU32,
    min: AtomicU32,
    hot: AtomicF64,
    hot_max: AtomicF64,
    /// For how long the busiest core has been at its limit.
    hot_seconds: AtomicU32,
    full: AtomicBool,
    fits: AtomicU32,
    weight_sip: AtomicF64,
    weight_audio: AtomicF64,
    weight_video: AtomicF64,
}

impl ServerLoad {
    /// Load zero, with these limits and weights.
    pub fn new(config: &LoadConfig) -> Self {
        let load = Self {
            current: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            granted: AtomicU32::new(0),
            kept: AtomicU32::new(0),
            cost: AtomicF64::default(),
            max: AtomicU32::new(0),
            min: AtomicU32::new(0),
            hot: AtomicF64::default(),
            hot_max: AtomicF64::default(),
            hot_seconds: AtomicU32::new(0),
            full: AtomicBool::new(false),
            fits: AtomicU32::new(0),
            weight_sip: AtomicF64::default(),
            weight_audio: AtomicF64::default(),
            weight_video: AtomicF64::default(),
        };
        load.configure(config);
        load.set_cost(UNITS_PER_PARTICIPANT * config.weights.audio);
        load
    }

    /// Takes over new limits and weights, at the start and when the configuration is reloaded.
    pub fn configure(&self, config: &LoadConfig) {
        self.max.store(config.max, Ordering::Relaxed);
        self.min.store(config.min, Ordering::Relaxed);
        self.hot_max.store(config.hot_max);
        self.weight_sip.store(config.weights.sip);
        self.weight_audio.store(config.weights.audio);
        self.weight_video.store(config.weights.video);
        self.judge();
    }

    /// Takes over what was measured in the last second; `hot` is the busiest core's utilisation, 0 to 1.
    pub fn update(&self, current: u32, hot: f64) {
        self.current.store(current, Ordering::Relaxed);
        let fade = |granted: u32| Some((f64::from(granted) * (1.0 - EWMA_ALPHA)) as u32);
        let _ = self
            .granted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fade);
        self.hot.store(hot);
        let seconds = if self.is_hot(1.0) {
            self.hot_seconds.load(Ordering::Relaxed).saturating_add(1)
        } else {
            0
        };
        self.hot_seconds.store(seconds, Ordering::Relaxed);
        self.judge();
    }

    fn judge(&self) {
        let factor = if self.is_full() {
            FULL_CLEARS_FACTOR
        } else {
            1.0
        };
        let loaded = f64::from(self.expected()) >= f64::from(self.max()) * factor;
        let hot = self.has_been_hot() || (self.is_full() && self.is_hot(factor));
        self.full.store(loaded || hot, Ordering::Relaxed);
    }

    /// The busiest core is at this share of its limit, if it has one.
    fn is_hot(&self, factor: f64) -> bool {
        let limit = self.hot_max.load();
        limit < 1.0 && self.hot() >= limit * factor
    }

    fn has_been_hot(&self) -> bool {
        self.hot_seconds.load(Ordering::Relaxed) >= HOT_SECONDS
    }

    pub fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// A call is taken: what it is going to cost counts at once.
    pub fn take(self: &Arc<Self>) -> Pending {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.judge();
        Pending(self.clone())
    }

    /// Media begin.
    fn grant(&self) {
        let cost = self.cost().round() as u32;
        let add = |granted: u32| Some(granted.saturating_add(cost));
        let _ = self
            .granted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        self.judge();
    }

    /// Units of load that calls whose media began lately are going to add to [`current`](Self::current).
    pub fn granted(&self) -> u32 {
        self.granted.load(Ordering::Relaxed)
    }

    /// The load with all calls that were taken.
    pub fn expected(&self) -> u32 {
        let pending = f64::from(self.pending.load(Ordering::Relaxed)) * self.cost();
        let measured = self.current().saturating_add(self.granted());
        measured.saturating_add(pending.round() as u32)
    }

    /// So many units of the maximum are kept free for rooms that expect participants.
    pub fn keep(&self, units: u32) {
        self.kept.store(units, Ordering::Relaxed);
    }

    /// Whether there is room for whoever comes, beside what is kept for others.
    pub fn has_room(&self) -> bool {
        let kept = self.kept.load(Ordering::Relaxed);
        !self.is_full() && self.expected().saturating_add(kept) < self.max()
    }

    /// Units of load that a participant costs on the average.
    pub fn cost(&self) -> f64 {
        self.cost.load()
    }

    /// Never below one unit: a call that costs nothing would be granted without end.
    pub fn set_cost(&self, units: f64) {
        self.cost.store(units.max(1.0));
    }

    /// max-load: at and above it new calls are sent elsewhere. Never 0.
    pub fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// min-load: below it the server may be drained; 0 = never.
    pub fn min(&self) -> u32 {
        self.min.load(Ordering::Relaxed)
    }

    /// The busiest core's utilisation, 0 to 1: a sum hides one saturated core.
    pub fn hot(&self) -> f64 {
        self.hot.load()
    }

    /// Participants that still fit, if they cost what those here do.
    pub fn fits(&self) -> u32 {
        self.fits.load(Ordering::Relaxed)
    }

    pub fn set_fits(&self, fits: u32) {
        self.fits.store(fits, Ordering::Relaxed);
    }

    /// The utilisation that the busiest core is not to go beyond.
    pub fn hot_max(&self) -> f64 {
        self.hot_max.load()
    }

    /// Whether the load reached max-load, or the busiest core its limit for some seconds, and has not yet
    /// fallen well below it.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether the load is so high, or a core so near its end, that nobody is taken, redirected here or
    /// not.
    pub fn is_over_hard_cap(&self) -> bool {
        let limit = self.hot_max.load();
        let no_time = self.has_been_hot() && self.hot() >= limit + HOT_CAP * (1.0 - limit);
        no_time || f64::from(self.expected()) >= f64::from(self.max()) * HARD_CAP_FACTOR
    }

    /// How near its limits the server is: 1 where it is full, [`HARD_CAP_FACTOR`] where nobody is taken.
    /// Of load and busiest core the worse.
    pub fn pressure(&self) -> f64 {
        let load = f64::from(self.current()) / f64::from(self.max().max(1));
        let (hot, limit) = (self.hot(), self.hot_max.load());
        let hot = match limit {
            1.0.. => 0.0,
            _ if hot <= limit => hot / limit,
            _ => 1.0 + (HARD_CAP_FACTOR - 1.0) * (hot - limit) / (HOT_CAP * (1.0 - limit)),
        };
        load.max(hot)
    }

    pub fn weights(&self) -> Weights {
        Weights {
            sip: self.weight_sip.load(),
            audio: self.weight_audio.load(),
            video: self.weight_video.load(),
        }
    }
}

/// A call that was taken and has no media yet. It counts until media [begin](Self::begin), or until this is
/// dropped with the call: nothing that happens to a call can leave it counted for ever.
#[derive(Debug)]
#[must_use = "what is dropped does not count"]
pub struct Pending(Arc<ServerLoad>);

impl Pending {
    /// Its media begin, and the measurement comes to include it.
    pub fn begin(self) {
        let load = self.0.clone();
        // First, or it would count twice in the moment when the server is judged.
        drop(self);
        load.grant();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not yet taking calls.
    Starting = 0,
    Active = 1,
    /// Taking no new calls; those there are finish up to a limit, or are moved to other servers.
    Draining = 2,
    /// Empty, and taking no calls until another server asks for it.
    Standby = 3,
}

impl State {
    /// The word in readiness replies and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Standby => "standby",
        }
    }
}

/// The server's state, shared between threads.
#[derive(Debug)]
pub struct ServerState {
    state: AtomicU8,
    in_cluster: AtomicBool,
}

impl Default for ServerState {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(State::Starting as u8),
            in_cluster: AtomicBool::new(false),
        }
    }
}

impl ServerState {
    pub fn get(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Active,
            2 => State::Draining,
            _ => State::Standby,
        }
    }

    /// Release: who sees `Active` also sees what was made ready before.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether there are, or may be, other servers to whom callers can be sent.
    pub fn is_in_cluster(&self) -> bool {
        self.in_cluster.load(Ordering::Relaxed)
    }

    pub fn set_in_cluster(&self, is_in: bool) {
        self.in_cluster.store(is_in, Ordering::Relaxed);
    }
}

/// The bits of an `f64`, for lack of an atomic one in std.
#[derive(Debug, Default)]
struct AtomicF64(AtomicU64);

impl AtomicF64 {
    fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn store(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(max: u32) -> ServerLoad {
        ServerLoad::new(&LoadConfig {
            max,
            min: 50,
            hot_max: 0.9,
            weights: Weights::default(),
        })
    }

    #[test]
    fn full_at_max_and_clear_only_well_below() {
        let load = load(500);
        let full: Vec<bool> = [499, 500, 460, 450, 449, 499]
            .into_iter()
            .map(|current| {
                load.update(current, 0.5);
                load.is_full()
            })
            .collect();
        assert_eq!(full, [false, true, true, true, false, false]);
        assert_eq!((load.current(), load.hot()), (499, 0.5));
    }

    #[test]
    fn hard_cap_lies_a_fifth_above_max() {
        let load = load(500);
        load.update(599, 0.0);
        assert!(!load.is_over_hard_cap());
        load.update(600, 0.0);
        assert!(load.is_over_hard_cap());
    }

    #[test]
    fn a_core_that_stays_hot_makes_the_server_full() {
        let load = load(500);
        let told: Vec<(bool, bool)> = [0.99, 0.5, 0.95, 0.95, 0.95, 0.98, 0.85, 0.8, 0.99]
            .into_iter()
            .map(|hot| {
                load.update(100, hot);
                (load.is_full(), load.is_over_hard_cap())
            })
            .collect();
        let (free, full, capped) = ((false, false), (true, false), (true, true));
        assert_eq!(
            told,
            [free, free, free, free, full, capped, full, free, free]
        );
        load.hot_max.store(1.0);
        for _ in 0..5 {
            load.update(100, 1.0);
        }
        assert!(!load.is_full() && !load.is_over_hard_cap());
    }

    #[test]
    fn pressure_is_one_at_either_limit_and_the_hard_caps_factor_at_either_cap() {
        let load = load(500);
        for (current, hot, pressure) in [
            (0, 0.0, 0.0),
            (250, 0.0, 0.5),
            (500, 0.1, 1.0),
            (600, 0.1, HARD_CAP_FACTOR),
            (0, 0.45, 0.5),
            (0, 0.9, 1.0),
            (0, 0.97, HARD_CAP_FACTOR),
            (300, 0.45, 0.6),
        ] {
            load.update(current, hot);
            let found = load.pressure();
            assert!((found - pressure).abs() < 1e-9, "{current} {hot}: {found}");
        }
        load.hot_max.store(1.0);
        load.update(0, 1.0);
        assert_eq!(load.pressure(), 0.0, "no core is too hot");
    }

    #[test]
    fn what_was_just_granted_counts_until_it_is_measured() {
        let load = load(500);
        assert_eq!(load.cost(), UNITS_PER_PARTICIPANT);
        let mut taken = 0;
        while !load.is_full() {
            load.grant();
            taken += 1;
        }
        assert_eq!((taken, load.current(), load.expected()), (5, 0, 500));
        assert!(!load.is_over_hard_cap());
        load.grant();
        assert!(load.is_over_hard_cap());
        // The measurement approaches 600 as the grants fade: together they stay what they were.
        let mut measured = 0.0;
        for _ in 0..40 {
            measured += EWMA_ALPHA * (600.0 - measured);
            load.update(measured as u32, 0.1);
            assert!((590..=600).contains(&load.expected()), "{load:?}");
        }
        assert_eq!(load.granted(), 0);
        load.update(400, 0.1);
        assert!(load.has_room());
        load.keep(100);
        assert!(!load.has_room() && !load.is_full());
        load.keep(0);
        // Who was taken and never came costs nothing in the end.
        load.update(0, 0.1);
        (0..3).for_each(|_| load.grant());
        (0..20).for_each(|_| load.update(0, 0.1));
        assert_eq!(load.expected(), 0);
        load.set_cost(0.0);
        load.grant();
        assert_eq!(load.expected(), 1);
    }

    #[test]
    fn who_begins_counts_once() {
        let load = Arc::new(load(500));
        (0..4).for_each(|_| load.take().begin());
        assert_eq!((load.expected(), load.is_full()), (400, false));
        load.take().begin();
        assert_eq!((load.expected(), load.is_full()), (500, true));
    }

    #[test]
    fn calls_that_ring_count_in_full_however_long_they_do() {
        let load = Arc::new(load(500));
        let ringing: Vec<Pending> = (0..5).map(|_| load.take()).collect();
        assert!(load.is_full());
        (0..60).for_each(|_| load.update(0, 0.1));
        assert_eq!((load.expected(), load.is_full()), (500, true));
        // All answer: from now on they fade, as they are measured.
        ringing.into_iter().for_each(Pending::begin);
        assert_eq!(load.expected(), 500);
        (0..60).for_each(|_| load.update(0, 0.1));
        assert_eq!(load.expected(), 0);
    }

    proptest::proptest! {
        /// Whatever becomes of calls, in any order: those count that have no media, and no others for ever.
        #[test]
        fn what_is_over_is_not_counted(steps in proptest::collection::vec((0..4_u8, 0..100_usize), 0..200)) {
            let load = Arc::new(load(500));
            let mut ringing = Vec::new();
            for (step, which) in steps {
                match step {
                    0 | 1 => ringing.push(load.take()),
                    _ if ringing.is_empty() => load.update(0, 0.1),
                    2 => drop(ringing.swap_remove(which % ringing.len())),
                    _ => ringing.swap_remove(which % ringing.len()).begin(),
                }
            }
            (0..60).for_each(|_| load.update(0, 0.1));
            proptest::prop_assert_eq!(load.expected() as usize, ringing.len() * 100);
            drop(ringing);
            proptest::prop_assert_eq!(load.expected(), 0);
        }
    }

    #[test]
    fn new_limits_count_at_once() {
        let load = load(500);
        load.update(600, 0.5);
        assert!(load.is_full());
        load.configure(&LoadConfig {
            max: 1_000,
            min: 10,
            hot_max: 1.0,
            weights: Weights {
                sip: 2.0,
                audio: 0.5,
                video: 1.0,
            },
        });
        assert!(!load.is_full());
        assert_eq!((load.max(), load.min(), load.current()), (1_000, 10, 600));
        assert_eq!(
            load.weights(),
            Weights {
                sip: 2.0,
                audio: 0.5,
                video: 1.0
            }
        );
    }

    #[test]
    fn states_survive_the_atomic() {
        let state = ServerState::default();
        assert_eq!(state.get(), State::Starting);
        for next in [
            State::Active,
            State::Draining,
            State::Standby,
            State::Starting,
        ] {
            state.set(next);
            assert_eq!(state.get(), next);
        }
    }
}
