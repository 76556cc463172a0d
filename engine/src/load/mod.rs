//! Who may come in: by how much the server already does (here), and by what he has sent ([`gate`]).
//!
//! Whatever outsiders can fill is bounded, per shard:
//!
//! | What | Holds | When full |
//! |---|---|---|
//! | kernel's buffer of a SIP socket | 4 MiB | the kernel drops |
//! | sources at the gate | 8,192 | who is not muted and owes least is forgotten |
//! | messages that wait for their turn | 4,096 | the newest of no dialog is dropped |
//! | mail from other shards | 8,192 | SIP messages are dropped, new calls from three quarters on; all else waits with its sender |
//! | rooms in the directory | 262,144 | further rooms stay on their home shard |
//! | server transactions | `sip::Config::transactions_max` | requests of no dialog are dropped |
//! | calls, subscriptions | `sip::Config::calls_max` | 503 |
//! | participants | RTP ports, and load | 503 |
//! | connections | 8,192 | not accepted |
//! | messages from connections | 4,096 | readers pause |
//! | messages for one connection | 256 | it is closed |
//!
//! A message is at most 128 KiB, a room's name 128 octets.

mod calibrate;
pub mod gate;

use std::sync::Arc;

pub use calibrate::Calibration;

use crate::config::Config;
use crate::meters::{Pending, ServerLoad, ServerState, State};

/// Seconds a refused caller is asked to wait, drawn from this range so that callers refused together
/// do not come back together.
const RETRY_AFTER_S: std::ops::Range<u64> = 3..9;

/// Decides over new calls. Calls that are up are never touched by load.
#[derive(Clone, Debug)]
pub struct Admission {
    pub load: Arc<ServerLoad>,
    pub state: Arc<ServerState>,
}

/// What a caller is told instead of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 404: there is no such room and none is made by calling it.
    NoSuchRoom,
    /// 486: the room has as many participants as it may.
    RoomFull,
    /// 503: the server takes no calls now.
    NotNow { retry_after_s: u32 },
}

/// Who decides over a caller who is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// He is taken here.
    Here,
    /// The cluster says where he goes.
    AskCluster,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub room: &'a str,
    /// Participants in the room; None when there is no such room yet.
    pub participants: Option<usize>,
    /// Any number, to spread waiting times.
    pub random: u64,
}

impl Admission {
    /// # Errors
    /// The caller is refused.
    pub fn ask(&self, config: &Config, asked: Asked<'_>) -> Result<Place, Refused> {
        let rooms = &config.rooms;
        if asked.participants.is_none()
            && !rooms.auto_create
            && !rooms.names.iter().any(|name| name == asked.room)
        {
            return Err(Refused::NoSuchRoom);
        }
        if self.state.get() == State::Starting || (self.is_alone() && self.is_closed()) {
            return Err(self.not_now(asked.random));
        }
        if rooms.max_participants != 0
            && asked.participants.unwrap_or(0) >= rooms.max_participants as usize
        {
            return Err(Refused::RoomFull);
        }
        // A server alone has nobody to send a caller to, so it goes on beyond its maximum up to the hard cap.
        Ok(match self.asks_cluster() {
            true => Place::AskCluster,
            false => Place::Here,
        })
    }

    /// Whether it is the cluster's to say where callers go.
    pub fn asks_cluster(&self) -> bool {
        !self.is_alone() && (self.state.get() != State::Active || !self.load.has_room())
    }

    /// A caller has got a seat: what he will cost counts from now on.
    pub fn taken(&self) -> Pending {
        self.load.take()
    }

    fn is_alone(&self) -> bool {
        !self.state.is_in_cluster()
    }

    /// No new calls are taken, nor made.
    pub fn is_closed(&self) -> bool {
        self.state.get() != State::Active || self.load.is_over_hard_cap()
    }

    /// For a call that the machine itself has no room for.
    pub fn not_now(&self, random: u64) -> Refused {
        let spread = RETRY_AFTER_S.end - RETRY_AFTER_S.start;
        Refused::NotNow {
            retry_after_s: (RETRY_AFTER_S.start + random % spread) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        sets: &[&str],
        state: State,
        load: u32,
        asked: (&str, Option<usize>),
        expected: Result<Place, Refused>,
    ) {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let mut config = Config::load(None, [].into_iter(), &sets, &[0]).unwrap();
        config.load.derive(1_000).unwrap();
        let admission = Admission {
            load: Arc::new(ServerLoad::new(&config.load)),
            state: Arc::default(),
        };
        admission.state.set(state);
        admission.load.update(load, 0.0);
        let asked = Asked {
            room: asked.0,
            participants: asked.1,
            random: 1,
        };
        assert_eq!(admission.ask(&config, asked), expected, "{sets:?}");
    }

    #[test]
    fn callers_are_let_in_or_told_why_not() {
        const NOT_NOW: Result<Place, Refused> = Err(Refused::NotNow { retry_after_s: 4 });
        check(&[], State::Active, 0, ("r", None), Ok(Place::Here));
        check(
            &["load.max=500"],
            State::Active,
            599,
            ("r", Some(1)),
            Ok(Place::Here),
        );
        check(
            &["load.max=500"],
            State::Active,
            600,
            ("r", Some(1)),
            NOT_NOW,
        );
        check(&[], State::Draining, 0, ("r", Some(1)), NOT_NOW);
        check(
            &["rooms.auto_create=false"],
            State::Active,
            0,
            ("r", None),
            Err(Refused::NoSuchRoom),
        );
        check(
            &["rooms.auto_create=false", "rooms.names=q,r"],
            State::Active,
            0,
            ("r", None),
            Ok(Place::Here),
        );
        check(
            &["rooms.max_participants=2"],
            State::Active,
            0,
            ("r", Some(1)),
            Ok(Place::Here),
        );
        check(
            &["rooms.max_participants=2"],
            State::Active,
            0,
            ("r", Some(2)),
            Err(Refused::RoomFull),
        );
    }

    #[test]
    fn in_a_cluster_others_are_asked_where_this_server_would_go_beyond_its_maximum() {
        let config =
            Config::load(None, [].into_iter(), &["load.max=500".to_owned()], &[0]).unwrap();
        let admission = Admission {
            load: Arc::new(ServerLoad::new(&config.load)),
            state: Arc::default(),
        };
        let ask = || {
            let asked = Asked {
                room: "r",
                participants: None,
                random: 1,
            };
            admission.ask(&config, asked)
        };
        admission.state.set_in_cluster(true);
        assert!(ask().is_err(), "not started");
        admission.state.set(State::Active);
        let mut taken = Vec::new();
        for _ in 0..5 {
            assert_eq!(ask(), Ok(Place::Here));
            taken.push(admission.taken());
        }
        assert_eq!(ask(), Ok(Place::AskCluster));
        taken.clear();
        admission.load.update(0, 0.0);
        assert_eq!(ask(), Ok(Place::Here));
        for state in [State::Draining, State::Standby] {
            admission.state.set(state);
            assert_eq!(ask(), Ok(Place::AskCluster), "{state:?}");
        }
        admission.state.set_in_cluster(false);
        assert!(ask().is_err(), "alone");
    }
}
