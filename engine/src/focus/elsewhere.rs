//! Those who are in a conference on another server, or on another shard of this one: in its roster, counted
//! where it has room for so many, and within reach of whoever may throw people out.

use std::collections::HashMap;

use cfw::SvrId;
use cfw::dist_conf::message::{ConfUser, UserStatus};

use super::liaison::{Closed, Report, Wish};
use super::requests::is_same_user;
use super::{Focus, Means, RoomName};
use crate::io::MediaIo;

/// Users known of in all rooms together; nobody has a service that large.
const USERS_MAX: usize = 1_000_000;

/// Rooms that take nobody new at once.
const CLOSED_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Elsewhere {
    rooms: HashMap<RoomName, Absent>,
    count: usize,
    closed: HashMap<RoomName, Closed>,
}

/// Those of one room: never none.
#[derive(Default)]
struct Absent {
    /// By their URI.
    users: HashMap<String, Vec<ConfUser>>,
    participants: usize,
    entity_of: HashMap<(Option<SvrId>, String), String>,
}

impl Elsewhere {
    /// Whether anybody is in the room elsewhere.
    pub(super) fn has(&self, room: &RoomName) -> bool {
        self.rooms.contains_key(room)
    }

    /// Those who count as participants: not those whose server has gone.
    pub(super) fn participants(&self, room: &RoomName) -> usize {
        self.rooms.get(room).map_or(0, |absent| absent.participants)
    }

    pub(super) fn closed(&self, room: &RoomName) -> Option<Closed> {
        self.closed.get(room).copied()
    }

    pub(super) fn is_locked(&self, room: &RoomName) -> bool {
        self.closed(room) == Some(Closed::Locked)
    }

    /// Whether a user counts as a participant by a call elsewhere.
    pub(super) fn has_user(&self, room: &RoomName, entity: &str) -> bool {
        self.of(room, entity).iter().any(is_there)
    }

    /// What a user has elsewhere.
    pub(super) fn of(&self, room: &RoomName, entity: &str) -> &[ConfUser] {
        let absent = self.rooms.get(room);
        let calls = absent.and_then(|absent| absent.users.get(entity));
        calls.map_or(&[], Vec::as_slice)
    }

    pub(super) fn entities(&self, room: &RoomName) -> impl Iterator<Item = &String> {
        let absent = self.rooms.get(room);
        absent.into_iter().flat_map(|absent| absent.users.keys())
    }

    fn all(&self, room: &RoomName) -> impl Iterator<Item = &ConfUser> {
        let absent = self.rooms.get(room);
        absent
            .into_iter()
            .flat_map(|absent| absent.users.values().flatten())
    }

    /// Gives the URI by which the user was known before, if that was another.
    fn put(&mut self, room: &RoomName, user: ConfUser) -> Option<String> {
        let key = (user.svr_id, user.endpoint.clone());
        let before = self.take(room, &key);
        if self.count < USERS_MAX {
            self.count += 1;
            let absent = self.rooms.entry(room.clone()).or_default();
            absent.participants += usize::from(is_there(&user));
            absent.entity_of.insert(key, user.entity.clone());
            absent
                .users
                .entry(user.entity.clone())
                .or_default()
                .push(user);
        }
        before
    }

    /// Gives his URI.
    fn take(&mut self, room: &RoomName, key: &(Option<SvrId>, String)) -> Option<String> {
        let absent = self.rooms.get_mut(room)?;
        let entity = absent.entity_of.remove(key)?;
        self.count -= 1;
        if let Some(calls) = absent.users.get_mut(&entity) {
            let is_it = |user: &ConfUser| (user.svr_id, &user.endpoint) == (key.0, &key.1);
            if let Some(place) = calls.iter().position(is_it) {
                absent.participants -= usize::from(is_there(&calls.swap_remove(place)));
            }
            if calls.is_empty() {
                absent.users.remove(&entity);
            }
        }
        if absent.entity_of.is_empty() {
            self.rooms.remove(room);
        }
        Some(entity)
    }
}

/// Not one whose server has gone.
fn is_there(user: &ConfUser) -> bool {
    user.status != UserStatus::Disconnected
}

impl Focus {
    pub(super) fn on_remote<I: MediaIo>(
        &mut self,
        room: &RoomName,
        user: ConfUser,
        means: &mut Means<'_, I>,
    ) {
        let is_own = user.svr_id == Some(self.config.server.id);
        if is_own && self.reports.call_of(&user.endpoint).is_some() {
            return;
        }
        let entity = user.entity.clone();
        let before = self.elsewhere.put(room, user);
        self.describe_anew(room, &entity, means);
        if let Some(before) = before.filter(|before| *before != entity) {
            self.describe_anew(room, &before, means);
        }
    }

    pub(super) fn on_remote_gone<I: MediaIo>(
        &mut self,
        room: &RoomName,
        svr_id: SvrId,
        endpoint: String,
        means: &mut Means<'_, I>,
    ) {
        if let Some(entity) = self.elsewhere.take(room, &(Some(svr_id), endpoint)) {
            self.describe_anew(room, &entity, means);
        }
    }

    pub(super) fn close(&mut self, now: std::time::Instant, room: &RoomName, why: Option<Closed>) {
        let was_locked = self.elsewhere.is_locked(room);
        let closed = &mut self.elsewhere.closed;
        match why {
            Some(why) if closed.len() < CLOSED_MAX || closed.contains_key(room) => {
                closed.insert(room.clone(), why);
            }
            Some(_) => {}
            None => {
                closed.remove(room);
            }
        }
        let is_locked = self.elsewhere.is_locked(room);
        if is_locked != was_locked {
            self.rosters.set_locked(now, room, is_locked);
        }
    }

    /// Has the calls that a user has elsewhere ended; says whether he has any.
    pub(super) fn want_ended(&mut self, room: &RoomName, uri: &str, reason: &str) -> bool {
        let wanted = self
            .elsewhere
            .all(room)
            .filter(|user| is_same_user(&user.entity, uri))
            .map(|user| Report::Wanted {
                room: room.clone(),
                endpoint: Some(user.endpoint.clone()),
                entity: user.entity.clone(),
                what: Wish::End(reason.to_owned()),
            });
        let wanted: Vec<Report> = wanted.collect();
        let any = !wanted.is_empty();
        for report in wanted {
            self.reports.push(report);
        }
        any
    }
}
