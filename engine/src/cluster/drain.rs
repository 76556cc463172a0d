//! This server's state: active, giving its users away, standing by.
//!
//! ```text
//!            below min-load for long, others can carry it; or the operator
//!   Active ─────────────────────────────────────────────────────────────────> Draining
//!     ^ ^──────── undrain, deadline, the others have become too full ────────────┘ │
//!     └──── claimed by another server, a caller was sent here ──── Standby <───────┘ empty
//! ```
//! A user goes by REFER if his phone takes it; else the other server calls him with Replaces if his phone
//! knows that; else he stays until he hangs up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{Element, Op, ParticipantOp, Reach};

use super::Cluster;
use super::decisions::What;
use super::exchange::Purpose;
use super::interface::Output;
use super::roster::User;
use super::timers::Timer;
use crate::focus::RoomName;
use crate::focus::liaison::Order;

/// The others have to stay below this share of their maximum with this server's users.
const OTHERS_BELOW: f64 = 0.7;

/// None is given up so soon after one was added, in times that the load has to be low.
const AFTER_ADDITION: u32 = 2;

/// Users whose move has begun and is not done, and how fast moves begin.
const MOVING_MAX: usize = 20;
const PACE: Duration = Duration::from_millis(100);
const MOVES_PER_PACE: usize = 5;

/// A drain that nobody asked for is given up when there has been no server with room for so long.
const STUCK_FOR: Duration = Duration::from_secs(5);

/// Each server waits so much longer than the one before it in order of svr-ids, so that one of them acts.
const STAGGER: Duration = Duration::from_secs(2);

/// A move that is not done by then has failed.
const MOVE_FOR: Duration = Duration::from_secs(40);

/// Whoever could not be moved is tried again after this.
const MOVE_AGAIN: Duration = Duration::from_secs(30);

/// So long after this server was active others may not have heard that it is not any more, and callers whom
/// they sent may be on their way.
const HEARD_OF: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct Drain {
    /// When this server was active last, perhaps in an earlier life.
    left: Instant,
    /// Since when the load is below its minimum.
    low: Option<Instant>,
    /// When a server was added last, as far as it was seen.
    addition: Option<Instant>,
    running: Option<Running>,
}

#[derive(Clone, Debug)]
struct Running {
    by_operator: bool,
    deadline: Instant,
    /// Since when there is no server to move anybody to.
    stuck: Option<Instant>,
    /// When the next moves begin.
    next: Instant,
    moves: BTreeMap<(String, String), Move>,
}

#[derive(Clone, Debug)]
struct Move {
    /// Where he is being sent; None: it has failed.
    target: Option<SvrId>,
    refer_failed: bool,
    at: Instant,
}

impl Drain {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: now,
            low: None,
            addition: None,
            running: None,
        }
    }

    /// This process was stopped for that long, and who came meanwhile waits still.
    pub(super) fn excuse(&mut self, stalled: Duration) {
        self.left += stalled;
    }
}

impl Cluster {
    fn set_state(&mut self, now: Instant, state: SvrState) {
        if self.state == SvrState::Active {
            self.drain.left = now;
        }
        self.state = state;
        self.outputs.push_back(Output::State(state));
        self.drain.low = None;
        self.systems_changed = true;
        self.ranks_changed = true;
        self.push_load(now, true);
    }

    /// Whether other servers may send callers here, as far as they know.
    pub(super) fn is_sent_callers(&self, now: Instant) -> bool {
        self.state == SvrState::Active || now < self.drain.left + HEARD_OF
    }

    /// This server takes callers from now on.
    pub(super) fn activate(&mut self, now: Instant, why: &str) {
        self.drain.addition = Some(now);
        self.drain.running = None;
        self.decide(now, What::Undrain, None, None, why.to_owned());
        self.set_state(now, SvrState::Active);
    }

    pub(super) fn start_drain(
        &mut self,
        now: Instant,
        by_operator: bool,
        deadline: Option<Duration>,
        why: &str,
    ) {
        let deadline = now + deadline.unwrap_or(self.config.drain_deadline);
        if let Some(running) = &mut self.drain.running {
            running.by_operator |= by_operator;
            running.deadline = deadline;
            return;
        }
        if self.state == SvrState::Standby {
            return;
        }
        self.drain.running = Some(Running {
            by_operator,
            deadline,
            stuck: None,
            next: now + PACE,
            moves: BTreeMap::new(),
        });
        self.decide(now, What::Drain, None, None, why.to_owned());
        self.set_state(now, SvrState::Draining);
        self.timers.set(now + PACE, Timer::Move);
    }

    /// It gives its users away because it has little to do, and not because the operator wants it.
    #[cfg(test)]
    pub(crate) fn drains_by_itself(&self) -> bool {
        let running = self.drain.running.as_ref();
        running.is_some_and(|running| !running.by_operator)
    }

    /// What another server does that matters to a drain.
    pub(super) fn on_neighbour_state(
        &mut self,
        now: Instant,
        id: SvrId,
        before: SvrState,
        state: SvrState,
    ) {
        if before == SvrState::Standby && state != SvrState::Standby {
            self.drain.addition = Some(now);
        }
        let is_automatic = self
            .drain
            .running
            .as_ref()
            .is_some_and(|it| !it.by_operator);
        if state == SvrState::Draining && is_automatic && id < self.config.svr_id {
            self.activate(
                now,
                &format!("{id} gives its users away too, and one is enough"),
            );
        }
    }

    /// Each second: whether to begin, and whether to end.
    pub(super) fn consider_draining(&mut self, now: Instant) {
        let load = self.own.measured;
        let is_low = self.own.is_known() && load.current < load.min && self.own.kept == 0;
        if self.state == SvrState::Active && is_low {
            let since = *self.drain.low.get_or_insert(now);
            let rank = self.serving().range(..self.config.svr_id).count() as u32;
            let turn = STAGGER * rank;
            if now >= since + self.config.drain_after + turn && self.may_leave(now, turn) {
                let reason = format!("{} is below the minimum {}", load.current, load.min);
                self.start_drain(now, false, None, &reason);
            }
        } else {
            self.drain.low = None;
        }
        self.continue_drain(now);
    }

    fn may_leave(&self, now: Instant, turn: Duration) -> bool {
        let rest = self.config.drain_after * AFTER_ADDITION;
        let is_late = |at: Instant| now >= at + rest + turn;
        let others = self.peers.values();
        let others_drain = others
            .clone()
            .any(|peer| peer.is_alive() && peer.state == SvrState::Draining);
        self.drain.addition.is_none_or(is_late) && !others_drain && self.others_can_carry(now)
    }

    fn others_can_carry(&self, now: Instant) -> bool {
        let (load, max) = self.total(now);
        let (own_max, own_load) = match self.state {
            // Of those that serve this one is part of the total.
            SvrState::Active => (f64::from(self.own.measured.max), 0.0),
            _ => (0.0, self.own.predicted()),
        };
        let others_max = max - own_max;
        others_max > 0.0 && load + own_load < OTHERS_BELOW * others_max
    }

    fn continue_drain(&mut self, now: Instant) {
        let Some(running) = &self.drain.running else {
            return;
        };
        let awaited = !self.holds.is_empty() || self.own.awaits_anybody(now);
        if self.rosters.local.is_empty() && !awaited {
            self.stand_by(now);
        } else if now >= running.deadline {
            let count = self.rosters.local.len();
            self.activate(
                now,
                &format!("the deadline has passed, and {count} users are here still"),
            );
        } else if !running.by_operator {
            let has_target = !self.candidates(now, 1.0).is_empty();
            let Some(running) = &mut self.drain.running else {
                return;
            };
            if has_target {
                running.stuck = None;
            } else if now >= *running.stuck.get_or_insert(now) + STUCK_FOR {
                self.activate(now, "no other server has room any more");
            }
        }
    }

    fn stand_by(&mut self, now: Instant) {
        self.drain.running = None;
        self.decide(now, What::Drain, None, None, "empty, stands by".to_owned());
        self.hand_ownership(now);
        self.set_state(now, SvrState::Standby);
        self.list_self(now);
    }

    /// Conferences that go on elsewhere are decided over there.
    fn hand_ownership(&mut self, now: Instant) {
        let own = self.config.svr_id;
        let mut given = Vec::new();
        for (room, conference) in &mut self.rosters.conferences {
            let heir = conference.users.holders().into_iter().find(|id| *id != own);
            if let Some(heir) = heir
                && conference.object.owner == own
            {
                conference.object.owner = heir;
                conference.object.count_up();
                given.push(room.clone());
            }
        }
        for room in given {
            self.changed(now, &room, None);
        }
    }

    /// Begins the next moves.
    pub(super) fn pace_moves(&mut self, now: Instant) {
        let own = self.config.svr_id;
        let Some(running) = &mut self.drain.running else {
            return;
        };
        if now < running.next {
            return;
        }
        running.next = now + PACE;
        self.timers.set(running.next, Timer::Move);
        let local = &self.rosters.local;
        running.moves.retain(|user, _| local.contains_key(user));
        let (mut under_way, mut late) = (0, Vec::new());
        for (user, tried) in &mut running.moves {
            if now >= tried.at + MOVE_FOR
                && let Some(target) = tried.target.take()
            {
                late.push((user.clone(), target));
            }
            under_way += usize::from(tried.target.is_some());
        }
        let space = MOVING_MAX.saturating_sub(under_way).min(MOVES_PER_PACE);
        let is_due = |user: &&(String, String)| {
            running
                .moves
                .get(*user)
                .is_none_or(|tried| tried.target.is_none() && now >= tried.at + MOVE_AGAIN)
        };
        // Who has yet to key in the room's number would be let in without it, or asked for it again.
        let is_present = |(room, endpoint): &&(String, String)| {
            let users = self.rosters.get(room).map(|it| &it.users);
            let user = users.and_then(|users| users.get(&(own, endpoint.clone())));
            user.is_some_and(User::is_present)
        };
        let due = local.keys().filter(is_due).filter(is_present);
        let mut due: Vec<_> = due.take(space).cloned().collect();
        for ((room, endpoint), target) in late {
            self.note_failed_move(now, &room, &endpoint, target, "not done in time");
        }
        if self.candidates(now, 1.0).is_empty() {
            due.clear();
        }
        for (room, endpoint) in due {
            self.begin_move(now, &room, &endpoint, false);
        }
        self.continue_drain(now);
    }

    fn begin_move(&mut self, now: Instant, room: &str, endpoint: &str, refer_failed: bool) {
        let own = self.config.svr_id;
        let target = self.candidates(now, 1.0).first().map(|best| best.svr_id);
        let key = (room.to_owned(), endpoint.to_owned());
        let has_begun = target.is_some_and(|target| {
            let conference = self.rosters.get(room);
            let user = conference.and_then(|it| it.users.get(&(own, endpoint.to_owned())));
            let Some((user, shard)) = user.and_then(|it| Some((it.user.clone(), it.shard?))) else {
                return false;
            };
            let Some(reach) = user.reach.clone() else {
                return false;
            };
            let has_begun = match (reach.refer && !refer_failed, reach.replaces) {
                (true, _) => self.refer(shard, room, endpoint, target),
                (false, true) => self.hand_user(now, room, user.clone(), reach, target),
                (false, false) => false,
            };
            if has_begun {
                self.predict(now, target, 1);
                let how = if refer_failed {
                    "by Replaces"
                } else {
                    "from a server that drains"
                };
                self.decide_user(now, What::Move, room, &user.entity, target, how);
            }
            has_begun
        });
        if let Some(running) = &mut self.drain.running {
            let target = target.filter(|_| has_begun);
            let at = now;
            running.moves.insert(
                key,
                Move {
                    target,
                    refer_failed,
                    at,
                },
            );
        }
    }

    fn refer(&mut self, shard: usize, room: &str, endpoint: &str, target: SvrId) -> bool {
        let (Some(name), Some(uri)) = (RoomName::from_user(room), self.hop_uri(target, room))
        else {
            return false;
        };
        let order = Order::Move {
            room: name,
            endpoint: endpoint.to_owned(),
            target: uri,
        };
        self.outputs.push_back(Output::Order { shard, order });
        true
    }

    /// Asks another server to call a user of ours with Replaces.
    fn hand_user(
        &mut self,
        now: Instant,
        room: &str,
        user: cfw::dist_conf::message::ConfUser,
        reach: Reach,
        target: SvrId,
    ) -> bool {
        let purpose = Purpose::Handover {
            room: room.to_owned(),
            endpoint: user.endpoint.clone(),
        };
        let op = ParticipantOp {
            op: Op::Create,
            conf_obj_id: room.to_owned(),
            entity: user.entity,
            endpoint: Some(user.endpoint),
            svr_id: Some(self.config.svr_id),
            move_to: Some(target),
            muted: Some(user.muted),
            role: user.role,
            reach: Some(reach),
        };
        self.send(now, target, vec![Element::Participant(op)], purpose)
    }

    /// What became of a REFER.
    pub(super) fn on_moved(&mut self, now: Instant, room: &str, endpoint: &str, status: u16) {
        let key = (room.to_owned(), endpoint.to_owned());
        let Some(running) = &mut self.drain.running else {
            return;
        };
        let Some(tried) = running.moves.get_mut(&key) else {
            return;
        };
        let target = tried.target;
        if status / 100 == 2 {
            return;
        }
        if tried.refer_failed {
            tried.target = None;
        } else {
            self.begin_move(now, room, endpoint, true);
        }
        let tried = self.drain.running.as_ref().map(|it| &it.moves);
        let tried = tried.and_then(|moves| moves.get(&key));
        if let (Some(target), true) = (target, tried.is_some_and(|it| it.target.is_none())) {
            let why = format!("he was sent by REFER in vain: {status}");
            self.note_failed_move(now, room, endpoint, target, &why);
        }
    }

    fn note_failed_move(
        &mut self,
        now: Instant,
        room: &str,
        endpoint: &str,
        target: SvrId,
        why: &str,
    ) {
        let key = (self.config.svr_id, endpoint.to_owned());
        let conference = self.rosters.get(room);
        let user = conference.and_then(|it| it.users.get(&key));
        let entity = user.map_or_else(String::new, |it| it.user.entity.clone());
        self.decide_user(now, What::Move, room, &entity, target, why);
    }

    /// What became of a request that another server call him.
    pub(super) fn on_handed_over(&mut self, now: Instant, room: &str, endpoint: &str, status: u16) {
        let key = (room.to_owned(), endpoint.to_owned());
        let running = self.drain.running.as_mut();
        if let Some(tried) = running.and_then(|running| running.moves.get_mut(&key))
            && status / 100 != 2
        {
            let target = tried.target.take();
            tried.at = now;
            if let Some(target) = target {
                let why = format!("he could not be called from there: {status}");
                self.note_failed_move(now, room, endpoint, target, &why);
            }
        }
    }
}
