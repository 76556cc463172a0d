//! What is told of users and conferences: to the other servers, and to the shards of this one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::message::{ConfInfo, ConfUser, Element, UserStatus, Users};
use cfw::dist_conf::parts::{PART_LEN_MAX, split};

use super::Cluster;
use super::interface::Output;
use super::roster::{Conference, Object, PAST_LIFE, User};
use super::snapshot::bounded;
use super::timers::Timer;
use crate::focus::RoomName;
use crate::focus::liaison::{Closed, Order, Wish};

/// Changes within this time are told together.
const FLUSH_AFTER: Duration = Duration::from_millis(20);

/// What is yet to be told to peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Conferences, and the local users in them that are new, have changed or have gone: their endpoints
    /// and entities.
    rooms: BTreeMap<String, BTreeMap<String, String>>,
}

impl Cluster {
    /// The conference, made here if it is new.
    pub(super) fn conference_here(&mut self, now: Instant, room: &str) -> &mut Conference {
        let object = Object {
            owner: self.config.svr_id,
            epoch: self.epoch,
            ver: 1,
            locked: false,
            max_users: None,
            subject: None,
            is_deleted: false,
        };
        self.rosters
            .conferences
            .entry(room.to_owned())
            .or_insert_with(|| Conference::new(object, now))
    }

    /// A shard tells of a user of its own.
    pub(super) fn on_user(&mut self, now: Instant, shard: usize, room: &RoomName, user: ConfUser) {
        let room = room.as_str();
        if user.status == UserStatus::Disconnected {
            self.on_user_gone(now, room, &user.endpoint);
            return;
        }
        let user = bounded(user);
        let own = self.config.svr_id;
        let key = (room.to_owned(), user.endpoint.clone());
        if !self.rosters.local.contains_key(&key) {
            self.own.join();
        }
        let conference = self.conference_here(now, room);
        let had_part = conference.shards().contains(&shard);
        if conference.object.is_deleted {
            // He came while it was ended: it goes on, and here.
            conference.object.is_deleted = false;
            conference.object.owner = own;
            conference.object.count_up();
        }
        let (endpoint, entity) = (user.endpoint.clone(), user.entity.clone());
        let user = User {
            user: ConfUser {
                svr_id: Some(own),
                ..user
            },
            shard: Some(shard),
            generation: 0,
            orphaned: None,
        };
        if !had_part {
            self.hand_over(room, shard);
        }
        if self.rosters.put(room, own, user) {
            self.distribute(room, own, &endpoint);
            self.changed(now, room, Some((&endpoint, &entity)));
            self.replace_orphans(now, room, own, &endpoint);
        }
    }

    pub(super) fn on_user_gone(&mut self, now: Instant, room: &str, endpoint: &str) {
        let own = self.config.svr_id;
        if let Some(removed) = self.rosters.remove(now, room, own, endpoint) {
            self.own.leave();
            self.distribute_gone(room, own, endpoint, removed.shard);
            if let Some(shard) = removed.shard {
                self.take_away(room, shard);
            }
            self.changed(now, room, Some((endpoint, &removed.user.entity)));
        }
    }

    pub(super) fn on_watched(&mut self, now: Instant, shard: usize, room: &str, watched: bool) {
        if !watched {
            if let Some(conference) = self.rosters.get_mut(room) {
                conference.watched.remove(&shard);
                self.take_away(room, shard);
            }
            return;
        }
        let conference = self.conference_here(now, room);
        let had_part = conference.shards().contains(&shard);
        conference.watched.insert(shard);
        if !had_part {
            self.hand_over(room, shard);
        }
    }

    /// A shard gets a part of a conference: it is told of everybody who is not on it.
    fn hand_over(&mut self, room: &str, shard: usize) {
        let (Some(name), Some(conference)) = (RoomName::from_user(room), self.rosters.get(room))
        else {
            return;
        };
        for user in conference.users.values() {
            if user.shard != Some(shard) {
                let (room, user) = (name.clone(), Box::new(user.user.clone()));
                let order = Order::Remote { room, user };
                self.outputs.push_back(Output::Order { shard, order });
            }
        }
    }

    /// A shard that has lost its part forgets everybody: it would not hear of those who leave.
    fn take_away(&mut self, room: &str, shard: usize) {
        let (Some(name), Some(conference)) = (RoomName::from_user(room), self.rosters.get(room))
        else {
            return;
        };
        if conference.shards().contains(&shard) {
            return;
        }
        for (svr_id, endpoint) in conference.users.keys() {
            let order = Order::RemoteGone {
                room: name.clone(),
                svr_id: *svr_id,
                endpoint: endpoint.clone(),
            };
            self.outputs.push_back(Output::Order { shard, order });
        }
    }

    /// All shards with a part are told of a user, but his own.
    pub(super) fn distribute(&mut self, room: &str, svr_id: SvrId, endpoint: &str) {
        let (Some(name), Some(conference)) = (RoomName::from_user(room), self.rosters.get(room))
        else {
            return;
        };
        let Some(user) = conference.users.get(&(svr_id, endpoint.to_owned())) else {
            return;
        };
        for shard in conference.shards() {
            if user.shard != Some(shard) {
                let (room, user) = (name.clone(), Box::new(user.user.clone()));
                let order = Order::Remote { room, user };
                self.outputs.push_back(Output::Order { shard, order });
            }
        }
    }

    fn distribute_gone(
        &mut self,
        room: &str,
        svr_id: SvrId,
        endpoint: &str,
        was_on: Option<usize>,
    ) {
        let (Some(name), Some(conference)) = (RoomName::from_user(room), self.rosters.get(room))
        else {
            return;
        };
        for shard in conference.shards() {
            if was_on != Some(shard) {
                let order = Order::RemoteGone {
                    room: name.clone(),
                    svr_id,
                    endpoint: endpoint.to_owned(),
                };
                self.outputs.push_back(Output::Order { shard, order });
            }
        }
    }

    /// Something about a conference is to be told to peers: a user of this server, or its own state.
    pub(super) fn changed(&mut self, now: Instant, room: &str, user: Option<(&str, &str)>) {
        if self.changes.rooms.is_empty() {
            self.timers.set(now + FLUSH_AFTER, Timer::Flush);
        }
        let users = self.changes.rooms.entry(room.to_owned()).or_default();
        users.extend(user.map(|(endpoint, entity)| (endpoint.to_owned(), entity.to_owned())));
        self.touched.insert(room.to_owned());
    }

    /// Tells peers of all changes.
    pub(super) fn flush(&mut self, now: Instant) {
        let own = self.config.svr_id;
        let mut conferences = Vec::new();
        for (room, users) in std::mem::take(&mut self.changes.rooms) {
            let Some(conference) = self.rosters.get(&room) else {
                continue;
            };
            let of_endpoint = |(endpoint, entity)| {
                let key = (own, endpoint);
                match conference.users.get(&key) {
                    Some(user) => user.user.clone(),
                    None => gone(own, key.1, entity),
                }
            };
            // The conference's own state goes out even if no user has changed.
            let users = users.into_iter().map(of_endpoint).collect();
            conferences.push(conference.object.write(&room, false, users));
        }
        if conferences.is_empty() {
            return;
        }
        let changes = ConfInfo {
            conferences,
            ..ConfInfo::default()
        };
        for change in split(changes, PART_LEN_MAX) {
            // Each says something by itself: none waits for the others.
            let change = ConfInfo {
                part: 1,
                parts: 1,
                ..change
            };
            self.broadcast(now, &[Element::ConfInfo(change)]);
        }
    }

    /// A peer tells of conferences and of its users in them.
    pub(super) fn on_conferences(&mut self, now: Instant, from: SvrId, info: ConfInfo) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if info.full {
            peer.generation += 1;
            peer.queries.on_snapshot();
        }
        let generation = peer.generation;
        for told in info.conferences {
            self.on_told(now, from, generation, told);
        }
        if info.full {
            let is_old = |user: &User| user.generation < generation;
            for (room, endpoint) in self.rosters.users_of(from, is_old) {
                self.drop_remote(now, &room, from, &endpoint);
            }
        }
    }

    fn on_told(&mut self, now: Instant, from: SvrId, generation: u64, told: Users) {
        let room = told.conf_obj_id.clone();
        if RoomName::from_user(&room).is_none() {
            return;
        }
        let object = Object::read(&told);
        self.on_object(now, &room, from, object, !told.users.is_empty());
        if self.rosters.get(&room).is_none() {
            return;
        }
        let mut listed = BTreeSet::new();
        for mut user in told.users {
            if user.svr_id.is_some_and(|id| id != from) {
                continue;
            }
            user.svr_id = Some(from);
            if told.full {
                listed.insert(user.endpoint.clone());
            }
            if user.status == UserStatus::Disconnected {
                self.drop_remote(now, &room, from, &user.endpoint);
                continue;
            }
            let endpoint = user.endpoint.clone();
            let key = (from, endpoint.clone());
            let conference = self.rosters.get(&room);
            let is_known = conference.is_some_and(|it| it.users.contains_key(&key));
            if !is_known && !self.rosters.has_space() {
                continue;
            }
            let user = User {
                user,
                shard: None,
                generation,
                orphaned: None,
            };
            if self.rosters.put(&room, from, user) {
                self.distribute(&room, from, &endpoint);
                self.replace_orphans(now, &room, from, &endpoint);
                self.touched.insert(room.clone());
            }
        }
        if told.full {
            let users = self.rosters.get(&room).map(|it| &it.users);
            let is_unlisted = |((id, endpoint), user): &(&(SvrId, String), &User)| {
                *id == from && user.generation != PAST_LIFE && !listed.contains(endpoint)
            };
            let unlisted = users
                .into_iter()
                .flat_map(|it| it.iter())
                .filter(is_unlisted);
            let unlisted: Vec<String> = unlisted.map(|((_, it), _)| it.clone()).collect();
            for endpoint in unlisted {
                self.drop_remote(now, &room, from, &endpoint);
            }
        }
    }

    /// The state of a conference as a peer has it.
    fn on_object(
        &mut self,
        now: Instant,
        room: &str,
        from: SvrId,
        object: Option<Object>,
        has_users: bool,
    ) {
        let is_told = object.is_some();
        let object = object.unwrap_or(Object {
            // By the paper alone: who tells of it first owns it.
            owner: from,
            epoch: 0,
            ver: 0,
            locked: false,
            max_users: None,
            subject: None,
            is_deleted: false,
        });
        let (own, told) = (self.config.svr_id, object.clone());
        let Some(known) = self.rosters.get_mut(room) else {
            if self.rosters.has_space() && (!object.is_deleted || has_users) {
                let conference = Conference::new(object, now);
                self.rosters.conferences.insert(room.to_owned(), conference);
                self.touched.insert(room.to_owned());
            }
            return;
        };
        let owner = known.object.owner;
        if !known.object.merge(object) {
            if is_told && known.object != told {
                // The peer has missed something, and perhaps so have others.
                self.changed(now, room, None);
            }
            return;
        }
        let has_local = known.users.keys().any(|(id, _)| *id == own);
        // Whoever gave the conference away may not have reached all: from now on that is on us.
        let is_heir = known.object.owner == own && owner != own;
        let is_revived = known.object.is_deleted && has_local;
        if is_revived {
            // Its end and our user's coming have crossed.
            known.object.is_deleted = false;
            known.object.owner = own;
            known.object.count_up();
        }
        if is_revived || is_heir {
            self.changed(now, room, None);
        }
        self.touched.insert(room.to_owned());
    }

    /// Tells whether a conference takes anybody new if that has changed.
    pub(super) fn settle_closed(&mut self, room: &str) {
        if let Some(conference) = self.rosters.get_mut(room) {
            let closed = conference.closed();
            if std::mem::replace(&mut conference.told_closed, closed) != closed {
                self.tell_closed(room, closed);
            }
        }
    }

    /// To all shards: callers come to those too that have no part of the conference.
    pub(super) fn tell_closed(&mut self, room: &str, why: Option<Closed>) {
        if let Some(name) = RoomName::from_user(room) {
            for shard in 0..self.config.shards {
                let room = name.clone();
                let order = Order::Closed { room, why };
                self.outputs.push_back(Output::Order { shard, order });
            }
        }
    }

    pub(super) fn drop_remote(&mut self, now: Instant, room: &str, svr_id: SvrId, endpoint: &str) {
        if self.rosters.remove(now, room, svr_id, endpoint).is_some() {
            self.distribute_gone(room, svr_id, endpoint, None);
            self.touched.insert(room.to_owned());
        }
    }

    /// Somebody whose server has died is there again, by another call.
    fn replace_orphans(&mut self, now: Instant, room: &str, svr_id: SvrId, endpoint: &str) {
        let Some(conference) = self.rosters.get(room) else {
            return;
        };
        let key = (svr_id, endpoint.to_owned());
        // Somebody whose phone still rings may never answer.
        let Some(back) = conference.users.get(&key).filter(|user| user.is_present()) else {
            return;
        };
        let mut orphans = conference.users.orphans();
        let him = orphans.find(|(_, user)| user.is_same_phone_as(back));
        let him = him.map(|(key, _)| key.clone());
        drop(orphans);
        if let Some((dead, orphan)) = him {
            self.drop_remote(now, room, dead, &orphan);
        }
    }

    /// Ends all calls of this server in a conference.
    pub(super) fn end_local(&mut self, room: &str, reason: &str) {
        let Some(name) = RoomName::from_user(room) else {
            return;
        };
        let Some(conference) = self.rosters.get(room) else {
            return;
        };
        for ((_, endpoint), user) in conference.users.iter() {
            if let Some(shard) = user.shard {
                let order = Order::Wish {
                    room: name.clone(),
                    endpoint: endpoint.clone(),
                    what: Wish::End(reason.to_owned()),
                };
                self.outputs.push_back(Output::Order { shard, order });
            }
        }
    }
}

/// What is told of a user who has gone.
fn gone(svr_id: SvrId, endpoint: String, entity: String) -> ConfUser {
    ConfUser {
        entity,
        svr_id: Some(svr_id),
        endpoint,
        display_name: None,
        status: UserStatus::Disconnected,
        ssrc: None,
        codec: None,
        role: None,
        muted: false,
        joined: None,
        reach: None,
    }
}
