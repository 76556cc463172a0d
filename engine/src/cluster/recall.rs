//! Users of a server that has died are called back by one that lives.
//!
//! Each survivor finds by itself which of them calls whom: of those that have users of the conference the one
//! that a hash of user and server picks; where none has, the lowest svr-id has the least loaded do it. Should
//! two of them differ and both call, the second call is refused by the phone, as its dialog is replaced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::message::{ConfUser, Element, Op, ParticipantOp, UserStatus};

use super::Cluster;
use super::answers::Asker;
use super::decisions::What;
use super::exchange::Purpose;
use super::interface::Output;
use super::roster::PAST_LIFE;
use super::timers::Timer;
use crate::focus::RoomName;
use crate::focus::liaison::Order;

/// How fast users are called.
const PACE: Duration = Duration::from_millis(50);
const CALLS_PER_PACE: usize = 20;

/// A call that is neither taken nor refused by then has failed.
const CALL_FOR: Duration = Duration::from_secs(60);

/// How often somebody is called, and how long it is waited in between.
const ATTEMPTS: u8 = 2;
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Somebody who cannot be called yet has his next turn after this.
const LATER: Duration = Duration::from_millis(200);

/// Users that wait to be called, and that are being called.
const JOBS_MAX: usize = 65_536;

type Key = (String, SvrId, String);

#[derive(Clone, Debug, Default)]
pub(super) struct Recall {
    waiting: VecDeque<Job>,
    /// By conference, the server that had them, and their endpoints there.
    calls: BTreeMap<Key, Call>,
    /// When the next are called.
    next: Option<Instant>,
}

/// A user of a dead server who is to be called.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    dead: SvrId,
    room: String,
    endpoint: String,
    attempt: u8,
    /// There was no room for him when it was his turn, as is written down.
    awaits_room: bool,
    at: Instant,
}

/// A user who is being called.
#[derive(Clone, Debug)]
struct Call {
    job: Job,
    /// Who waits for what becomes of it.
    asker: Asker,
    until: Instant,
}

impl Cluster {
    /// A user of a dead server is called back, if that is this server's business.
    pub(super) fn plan_recall(&mut self, now: Instant, dead: SvrId, room: &str, endpoint: &str) {
        let own = self.config.svr_id;
        let key = (dead, endpoint.to_owned());
        let Some(conference) = self.rosters.get(room) else {
            return;
        };
        let Some(user) = conference.users.get(&key) else {
            return;
        };
        // A phone that does not know Replaces would refuse the call.
        let replaces = user.user.reach.as_ref().is_some_and(|reach| reach.replaces);
        if !user.is_present() || !replaces {
            return;
        }
        // In its next life a server knows nothing of its last.
        let mut serving = self.serving();
        serving.remove(&dead);
        let holders: BTreeSet<SvrId> = conference.users.holders();
        let holders = holders.into_iter().filter(|id| serving.contains(id));
        let chosen = holders.max_by_key(|id| hash(&[&user.user.entity, endpoint, id.as_str()]));
        let is_ours = match chosen {
            Some(chosen) => chosen == own,
            None => serving.first() == Some(&own),
        };
        if is_ours && self.recall.waiting.len() < JOBS_MAX {
            self.recall.waiting.push_back(Job {
                dead,
                room: room.to_owned(),
                endpoint: endpoint.to_owned(),
                attempt: 1,
                awaits_room: false,
                at: now,
            });
            self.pace_at(now);
        }
    }

    fn pace_at(&mut self, at: Instant) {
        if self.recall.next.is_none_or(|next| at < next) {
            self.recall.next = Some(at);
            self.timers.set(at, Timer::Recall);
        }
    }

    /// Each second: calls that are neither taken nor refused have failed.
    pub(super) fn expire_recalls(&mut self, now: Instant) {
        let is_late = |(_, call): &(&Key, &Call)| now >= call.until;
        let late: Vec<_> = self
            .recall
            .calls
            .iter()
            .filter(is_late)
            .map(|(key, _)| key.clone())
            .collect();
        for (room, svr_id, endpoint) in late {
            self.on_taken_over(now, &room, svr_id, &endpoint, 510);
        }
    }

    /// Calls the next.
    pub(super) fn pace_recalls(&mut self, now: Instant) {
        if self.recall.next.is_none_or(|next| now < next) {
            return;
        }
        self.recall.next = None;
        for _ in 0..CALLS_PER_PACE {
            let Some(at) = self.recall.waiting.iter().position(|job| job.at <= now) else {
                break;
            };
            if let Some(job) = self.recall.waiting.remove(at) {
                self.recall_user(now, job);
            }
        }
        let next = self.recall.waiting.iter().map(|job| job.at).min();
        if let Some(next) = next {
            self.pace_at(next.max(now + PACE));
        }
    }

    /// A server is added for him if there is one. He is tried again for as long as he is in the roster.
    fn await_room(&mut self, now: Instant, job: Job, entity: &str) {
        if !job.awaits_room {
            let reason = "its server has died, and no other has room yet";
            let own = self.config.svr_id;
            self.decide_user(now, What::Recall, &job.room, entity, own, reason);
        }
        self.add_reserved(now, "callers of a dead server need room");
        let awaits_room = true;
        self.try_later(now, Job { awaits_room, ..job });
    }

    fn try_later(&mut self, now: Instant, job: Job) {
        let at = now + LATER;
        self.recall.waiting.push_back(Job { at, ..job });
        self.pace_at(at);
    }

    fn recall_user(&mut self, now: Instant, job: Job) {
        let own = self.config.svr_id;
        let conference = self.rosters.get(&job.room);
        let key = (job.dead, job.endpoint.clone());
        let user = conference.and_then(|it| it.users.get(&key));
        let Some(user) = user.filter(|user| user.orphaned.is_some()) else {
            // He is back by himself, or his server lives and has told of him.
            return;
        };
        if self.is_alive(job.dead) && user.generation != PAST_LIFE {
            // It has not told yet: perhaps it is a new life, that does not have him.
            self.try_later(now, job);
            return;
        }
        let has_holder = conference.is_some_and(|it| it.users.holders().contains(&own));
        let user = user.user.clone();
        let here = match self.own.is_known() {
            true => self.own.predicted() / f64::from(self.own.measured.max),
            false => 0.0,
        };
        // Where nobody of the conference is left, the least loaded takes its users.
        let limit = if has_holder { f64::INFINITY } else { here };
        let least = self
            .candidates(now, 1.0)
            .first()
            .filter(|best| best.share < limit)
            .copied();
        let elsewhere = least.filter(|_| !has_holder || !self.own.is_below_cap());
        if let Some(target) = elsewhere.map(|best| best.svr_id)
            && self.ask_to_recall(now, &job, &user, target)
        {
            self.predict(now, target, 1);
            self.decide_user(
                now,
                What::Recall,
                &job.room,
                &user.entity,
                target,
                "its server has died",
            );
            return;
        }
        if !self.own.is_below_cap() {
            self.await_room(now, job, &user.entity);
            return;
        }
        self.decide_user(
            now,
            What::Recall,
            &job.room,
            &user.entity,
            own,
            "its server has died",
        );
        self.take_over(now, job, user, Asker::Nobody);
    }

    fn ask_to_recall(&mut self, now: Instant, job: &Job, user: &ConfUser, target: SvrId) -> bool {
        let op = ParticipantOp {
            op: Op::Create,
            conf_obj_id: job.room.clone(),
            entity: user.entity.clone(),
            endpoint: Some(job.endpoint.clone()),
            svr_id: Some(job.dead),
            move_to: Some(target),
            muted: Some(user.muted),
            role: user.role.clone(),
            reach: user.reach.clone(),
        };
        let purpose = Purpose::Recall(Box::new(job.clone()));
        self.send(now, target, vec![Element::Participant(op)], purpose)
    }

    /// A user is called by a shard of this server, in place of the call that he has or had elsewhere.
    fn take_over(&mut self, now: Instant, job: Job, user: ConfUser, asker: Asker) -> bool {
        let (Some(room), Some(reach)) = (RoomName::from_user(&job.room), user.reach.clone()) else {
            return false;
        };
        let shard = self.shard_for(&job.room);
        self.own.grant_call(now);
        let key = (job.room.clone(), job.dead, job.endpoint.clone());
        let until = now + CALL_FOR;
        self.recall.calls.insert(key, Call { job, asker, until });
        let user = Box::new(user);
        let order = Order::TakeOver { room, user, reach };
        self.outputs.push_back(Output::Order { shard, order });
        true
    }

    /// The shard that has most of a conference; of one that is new here, any, and always the same.
    pub(super) fn shard_for(&self, room: &str) -> usize {
        let home = self.rosters.get(room).and_then(|it| it.users.home());
        home.unwrap_or_else(|| (hash(&[room]) % self.config.shards.max(1) as u64) as usize)
    }

    /// Another server asks that a user be called here. Err: a status.
    pub(super) fn on_handed(
        &mut self,
        now: Instant,
        op: ParticipantOp,
        from: SvrId,
        asker: Asker,
    ) -> Result<(), u16> {
        let serves = self.state == cfw::dist_conf::load::SvrState::Active;
        if !serves || !self.own.is_below_cap() || self.recall.calls.len() >= JOBS_MAX {
            return Err(511);
        }
        let (Some(endpoint), true) = (op.endpoint, op.reach.is_some()) else {
            return Err(400);
        };
        let dead = op.svr_id.unwrap_or(from);
        let known = self.rosters.get(&op.conf_obj_id);
        let known = known.and_then(|it| it.users.get(&(dead, endpoint.clone())));
        // He would be let in without the number that he has yet to key in there.
        if known.is_some_and(|it| it.user.status == UserStatus::Pending) {
            return Err(403);
        }
        let user = ConfUser {
            entity: op.entity,
            svr_id: Some(dead),
            endpoint: endpoint.clone(),
            display_name: known.and_then(|it| it.user.display_name.clone()),
            status: UserStatus::Connected,
            ssrc: None,
            codec: None,
            role: op.role,
            muted: op.muted.unwrap_or(false),
            joined: known.and_then(|it| it.user.joined),
            reach: op.reach,
        };
        let job = Job {
            dead,
            room: op.conf_obj_id,
            endpoint,
            attempt: ATTEMPTS,
            awaits_room: false,
            at: now,
        };
        match self.take_over(now, job, user, asker) {
            true => Ok(()),
            false => Err(400),
        }
    }

    /// A call of ours to such a user has been taken, or not. False: it is none.
    pub(super) fn on_taken_over(
        &mut self,
        now: Instant,
        room: &str,
        svr_id: SvrId,
        endpoint: &str,
        status: u16,
    ) -> bool {
        let key = (room.to_owned(), svr_id, endpoint.to_owned());
        let Some(Call { job, asker, .. }) = self.recall.calls.remove(&key) else {
            return false;
        };
        let is_done = status / 100 == 2;
        self.answer(
            asker,
            cfw::dist_conf::message::OpResult {
                op: "conf_prtcs_create".to_owned(),
                status: if is_done { 200 } else { status },
                conf_obj_id: Some(job.room.clone()),
                ver: None,
            },
        );
        if asker == Asker::Nobody {
            self.after_attempt(now, job, is_done);
        }
        true
    }

    /// What became of a call to a user of a dead server, by this server or another.
    pub(super) fn after_attempt(&mut self, now: Instant, mut job: Job, is_done: bool) {
        if is_done {
            let is_orphan = self
                .rosters
                .get(&job.room)
                .and_then(|it| it.users.get(&(job.dead, job.endpoint.clone())))
                .is_some_and(|user| user.orphaned.is_some());
            if is_orphan {
                self.drop_remote(now, &job.room, job.dead, &job.endpoint);
            }
        } else if job.attempt < ATTEMPTS && self.recall.waiting.len() < JOBS_MAX {
            job.attempt += 1;
            job.at = now + AGAIN_AFTER;
            let at = job.at;
            self.recall.waiting.push_back(job);
            self.pace_at(at);
        } else {
            let key = (job.dead, job.endpoint);
            let user = self
                .rosters
                .get(&job.room)
                .and_then(|it| it.users.get(&key));
            if let Some(entity) = user.map(|it| it.user.entity.clone()) {
                let (own, reason) = (self.config.svr_id, "he could not be called back");
                self.decide_user(now, What::Recall, &job.room, &entity, own, reason);
            }
        }
    }
}

/// FNV-1a (Fowler, Noll, Vo) with a last mix: the same on every server, whatever it runs on.
pub(super) fn hash(texts: &[&str]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0xFF]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8
}
