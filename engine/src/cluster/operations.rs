//! Operations on conferences and on users: done here if they are decided here, else passed to whom they
//! concern.

use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::message::{Element, Op, OpResult, ParticipantOp, SysOp};

use super::Cluster;
use super::answers::{Asker, Outcome};
use super::exchange::{participant_name, sys_name};
use super::interface::{Output, Wanted};
use crate::focus::RoomName;
use crate::focus::liaison::{Order, Wish};

/// Rooms that expect participants, and how long they are waited for.
const EXPECTED_MAX: usize = 1_024;
const EXPECTED_FOR: Duration = Duration::from_secs(3_600);

/// The reason in the BYE of a conference that was ended.
const ENDED: &str = "the conference has ended";

/// The reason in the BYE of a user who was thrown out where none is given.
const REMOVED: &str = "removed from the conference";

impl Cluster {
    pub(super) fn on_wanted(&mut self, now: Instant, id: u64, wanted: Wanted) {
        let asker = Asker::Operator(id);
        let result = match wanted {
            Wanted::Drain { deadline } => {
                self.start_drain(now, true, deadline, "the operator wants it");
                done("drain", 200)
            }
            Wanted::Undrain => match self.state {
                cfw::dist_conf::load::SvrState::Active => done("not draining", 200),
                _ => {
                    self.activate(now, "the operator wants it");
                    done("undrain", 200)
                }
            },
            Wanted::Expect { room, participants } => {
                match self.expect(now, room.as_str(), participants) {
                    true => done("expect", 200),
                    false => done("too many rooms expect participants", 503),
                }
            }
            Wanted::Lock { room, locked } => {
                let op = SysOp {
                    op: Op::Modify,
                    conf_obj_id: room.as_str().to_owned(),
                    base_ver: None,
                    mode: None,
                    conf_uri: None,
                    max_users: None,
                    locked: Some(locked),
                    subject: None,
                };
                match self.operate_sys(now, op, None, asker) {
                    Outcome::Now(result) => result,
                    Outcome::Later => return,
                }
            }
            Wanted::User {
                room,
                entity,
                endpoint,
                what,
            } => match self.wish(
                now,
                room.as_str(),
                &entity,
                endpoint.as_deref(),
                &what,
                asker,
            ) {
                Outcome::Now(result) => result,
                Outcome::Later => return,
            },
        };
        self.answer(asker, result);
    }

    /// `conf_op_sys` of a peer. Who knows the paper only has it passed on to whom it concerns; a server of
    /// the mesh is told that this is not the owner, and hears of the owner by itself.
    pub(super) fn on_peer_sys(
        &mut self,
        now: Instant,
        from: SvrId,
        op: SysOp,
        forwards: bool,
        asker: Asker,
    ) -> Outcome {
        match op.mode.as_deref() {
            Some("drain") => {
                self.start_drain(now, true, None, &format!("{from} wants it"));
                Outcome::Now(done(sys_name(&op), 200))
            }
            Some("end") if op.op == Op::Delete => {
                self.end_local(&op.conf_obj_id, ENDED);
                Outcome::Now(done(sys_name(&op), 200))
            }
            _ => self.operate_sys(now, op, (!forwards).then_some(from), asker),
        }
    }

    /// `from` is the server of the mesh that asks; None: it may be passed on.
    fn operate_sys(
        &mut self,
        now: Instant,
        op: SysOp,
        from: Option<SvrId>,
        asker: Asker,
    ) -> Outcome {
        let (own, name, room) = (self.config.svr_id, sys_name(&op), op.conf_obj_id.clone());
        let result = |status, ver| {
            let conf_obj_id = Some(room.clone());
            let op = name.to_owned();
            Outcome::Now(OpResult {
                op,
                status,
                conf_obj_id,
                ver,
            })
        };
        if RoomName::from_user(&room).is_none() {
            return result(400, None);
        }
        let Some(conference) = self.rosters.get(&room) else {
            if op.op != Op::Create {
                return result(404, None);
            }
            self.conference_here(now, &room);
            self.edit(now, &op);
            return result(200, Some(1));
        };
        let object = &conference.object;
        let ver = Some(object.ver);
        if op.op == Op::Create {
            return result(409, ver);
        }
        if object.owner != own {
            let owner = object.owner;
            if from.is_some() {
                return result(409, ver);
            }
            return match self.forward(now, owner, Element::Sys(op), asker) {
                true => Outcome::Later,
                false => result(510, ver),
            };
        }
        if op.base_ver.is_some_and(|base| Some(base) != ver) {
            return result(409, ver);
        }
        if op.op == Op::Delete {
            self.end_local(&room, ENDED);
            let ended = SysOp {
                mode: Some("end".to_owned()),
                base_ver: None,
                ..op
            };
            self.broadcast(now, &[Element::Sys(ended)]);
            return result(200, ver);
        }
        self.edit(now, &op);
        result(200, self.rosters.get(&room).map(|it| it.object.ver))
    }

    /// Changes a conference's state as its owner.
    fn edit(&mut self, now: Instant, op: &SysOp) {
        let Some(conference) = self.rosters.get_mut(&op.conf_obj_id) else {
            return;
        };
        let object = &mut conference.object;
        object.locked = op.locked.unwrap_or(object.locked);
        object.max_users = match op.max_users {
            Some(0) => None,
            given => given.or(object.max_users),
        };
        object.subject = op.subject.clone().or_else(|| object.subject.take());
        if op.op == Op::Modify {
            object.count_up();
        }
        self.changed(now, &op.conf_obj_id, None);
    }

    /// `conf_op_prtcs` of a peer.
    pub(super) fn on_peer_participant(
        &mut self,
        now: Instant,
        from: SvrId,
        op: ParticipantOp,
        asker: Asker,
    ) -> Outcome {
        let name = participant_name(&op);
        let room = op.conf_obj_id.clone();
        match op.op {
            Op::Create => match self.on_handed(now, op, from, asker) {
                Ok(()) => Outcome::Later,
                Err(status) => Outcome::Now(done(name, status)),
            },
            Op::Delete => {
                let what = Wish::End(REMOVED.to_owned());
                self.wish_of_peer(now, &op, &what, asker)
            }
            Op::Modify => {
                if let Some(target) = op.move_to {
                    return Outcome::Now(done(name, self.move_users(&op, &room, target)));
                }
                match op.muted {
                    Some(muted) => self.wish_of_peer(now, &op, &Wish::Mute(muted), asker),
                    None => Outcome::Now(done(name, 501)),
                }
            }
        }
    }

    /// A peer's wish about a user: passed on only if the peer does not know where he is.
    fn wish_of_peer(
        &mut self,
        now: Instant,
        op: &ParticipantOp,
        what: &Wish,
        asker: Asker,
    ) -> Outcome {
        let (room, entity) = (op.conf_obj_id.as_str(), op.entity.as_str());
        if op.svr_id != Some(self.config.svr_id) {
            return self.wish(now, room, entity, op.endpoint.as_deref(), what, asker);
        }
        let count = self.wish_here(room, entity, op.endpoint.as_deref(), what);
        Outcome::Now(done(
            participant_name(op),
            if count > 0 { 200 } else { 420 },
        ))
    }

    /// All users of this server that are meant are sent to another one.
    fn move_users(&mut self, op: &ParticipantOp, room: &str, target: SvrId) -> u16 {
        let (Some(name), Some(uri)) = (RoomName::from_user(room), self.hop_uri(target, room))
        else {
            return 404;
        };
        let mut status = 420;
        for (endpoint, shard) in self.meant_here(room, &op.entity, op.endpoint.as_deref()) {
            let order = Order::Move {
                room: name.clone(),
                endpoint,
                target: uri.clone(),
            };
            self.outputs.push_back(Output::Order { shard, order });
            status = 200;
        }
        status
    }

    /// Users of this server that are meant, and their shards.
    fn meant_here(&self, room: &str, entity: &str, endpoint: Option<&str>) -> Vec<(String, usize)> {
        let conference = self.rosters.get(room);
        let users = conference.into_iter().flat_map(|it| it.users.iter());
        users
            .filter(|((_, it), user)| {
                user.user.entity == entity && endpoint.is_none_or(|endpoint| it == endpoint)
            })
            .filter_map(|((_, it), user)| Some((it.clone(), user.shard?)))
            .collect()
    }

    fn wish_here(
        &mut self,
        room: &str,
        entity: &str,
        endpoint: Option<&str>,
        what: &Wish,
    ) -> usize {
        let Some(name) = RoomName::from_user(room) else {
            return 0;
        };
        let meant = self.meant_here(room, entity, endpoint);
        let count = meant.len();
        for (endpoint, shard) in meant {
            let order = Order::Wish {
                room: name.clone(),
                endpoint,
                what: what.clone(),
            };
            self.outputs.push_back(Output::Order { shard, order });
        }
        count
    }

    /// A wish about a user wherever he is.
    pub(super) fn wish(
        &mut self,
        now: Instant,
        room: &str,
        entity: &str,
        endpoint: Option<&str>,
        what: &Wish,
        asker: Asker,
    ) -> Outcome {
        let own = self.config.svr_id;
        let Some(conference) = self.rosters.get(room) else {
            return Outcome::Now(done("no such conference", 404));
        };
        let elsewhere = conference.users.iter().filter(|((id, it), user)| {
            *id != own
                && user.user.entity == entity
                && user.orphaned.is_none()
                && endpoint.is_none_or(|endpoint| it == endpoint)
        });
        let mut servers: Vec<SvrId> = elsewhere.map(|((id, _), _)| *id).collect();
        servers.dedup();
        let here = self.wish_here(room, entity, endpoint, what);
        // The asker hears of the first; the others are only told.
        let mut waiting = if here > 0 { Asker::Nobody } else { asker };
        let mut status = if here > 0 { 200 } else { 420 };
        for server in servers {
            let op = ParticipantOp {
                op: match what {
                    Wish::Mute(_) => Op::Modify,
                    Wish::End(_) => Op::Delete,
                },
                conf_obj_id: room.to_owned(),
                entity: entity.to_owned(),
                endpoint: endpoint.map(str::to_owned),
                svr_id: Some(server),
                move_to: None,
                muted: match what {
                    Wish::Mute(muted) => Some(*muted),
                    Wish::End(_) => None,
                },
                role: None,
                reach: None,
            };
            if self.forward(now, server, Element::Participant(op), waiting) {
                if waiting != Asker::Nobody {
                    status = 0;
                }
                waiting = Asker::Nobody;
            } else if status == 420 {
                status = 510;
            }
        }
        match status {
            0 => Outcome::Later,
            200 => Outcome::Now(done("done", 200)),
            420 => Outcome::Now(done("no such participant", 420)),
            status => Outcome::Now(done("his server cannot be reached", status)),
        }
    }

    /// So many are expected in a room: room is kept for those who are not there yet. False: too many rooms do.
    fn expect(&mut self, now: Instant, room: &str, participants: u32) -> bool {
        if participants == 0 {
            self.expected.remove(room);
        } else if self.expected.len() < EXPECTED_MAX || self.expected.contains_key(room) {
            self.conference_here(now, room);
            self.expected
                .insert(room.to_owned(), (participants, now + EXPECTED_FOR));
        } else {
            return false;
        }
        self.ranks_changed = true;
        true
    }

    fn missing_in(&self, room: &str, expected: u32) -> u32 {
        let present = self
            .rosters
            .get(room)
            .map_or(0, |it| it.users.count_present());
        expected.saturating_sub(present as u32)
    }

    /// Load units kept for other rooms than this.
    pub(super) fn kept_for_others(&self, room: &str) -> u32 {
        let rooms = self.expected.iter().filter(|(other, _)| *other != room);
        let missing: u32 = rooms
            .map(|(room, (expected, _))| self.missing_in(room, *expected))
            .fold(0, u32::saturating_add);
        (f64::from(missing) * self.own.per_participant()) as u32
    }

    /// Tells how much is kept if that has changed, and forgets rooms whose participants did not come.
    pub(super) fn settle_kept(&mut self, now: Instant) {
        if self.expected.is_empty() && self.own.kept == 0 {
            return;
        }
        self.expected.retain(|_, (_, until)| now < *until);
        let kept = self.kept_for_others("");
        if kept != self.own.kept {
            self.own.kept = kept;
            self.outputs.push_back(Output::Kept(kept));
            self.push_load(now, false);
        }
    }
}

fn done(op: &str, status: u16) -> OpResult {
    OpResult {
        op: op.to_owned(),
        status,
        conf_obj_id: None,
        ver: None,
    }
}
