//! Who is in which conference, on all servers.
//!
//! A user is a fact of his server: it alone tells of him, and what several tell is united. A conference's own
//! state (its owner, its lock) is written by its owner alone; where two versions meet, the higher epoch wins,
//! then the higher version, then the higher svr-id of the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use cfw::SvrId;
use cfw::dist_conf::message::{ConfState, ConfUser, UserStatus, Users};

use super::members::Members;
use super::trunks::Trunk;
use crate::focus::liaison::Closed;

/// Generation of users whom a server had in a life that is over: its new life's snapshots do not have them,
/// and that is no sign that they have left.
pub(super) const PAST_LIFE: u64 = u64::MAX;

/// Conferences and users kept, of all servers. What is beyond is not taken from peers; this server's own
/// are bounded by what it carries.
pub(super) const CONFERENCES_MAX: usize = 262_144;
pub(super) const USERS_MAX: usize = 1_048_576;

#[derive(Clone, Debug, Default)]
pub(super) struct Rosters {
    pub(super) conferences: BTreeMap<String, Conference>,
    users: usize,
    /// Of this server, by conference and endpoint, with their shards.
    pub(super) local: BTreeMap<(String, String), usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Conference {
    pub(super) object: Object,
    pub(super) users: Members,
    /// Shards where somebody subscribes to it.
    pub(super) watched: BTreeSet<usize>,
    pub(super) trunks: BTreeMap<SvrId, Trunk>,
    /// Since when nobody is in it.
    pub(super) empty: Option<Instant>,
    /// Why it takes nobody new, as the shards have been told.
    pub(super) told_closed: Option<Closed>,
}

/// A conference's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) owner: SvrId,
    pub(super) epoch: u64,
    pub(super) ver: u64,
    pub(super) locked: bool,
    pub(super) max_users: Option<u32>,
    pub(super) subject: Option<String>,
    pub(super) is_deleted: bool,
}

#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) user: ConfUser,
    /// Where he is, if it is here.
    pub(super) shard: Option<usize>,
    pub(super) generation: u64,
    /// Since when his server is dead.
    pub(super) orphaned: Option<Instant>,
}

impl User {
    /// He can hear and be heard.
    pub(super) fn is_present(&self) -> bool {
        let status = self.user.status;
        let is_in = matches!(
            status,
            UserStatus::Connected | UserStatus::OnHold | UserStatus::MutedViaFocus
        );
        is_in && self.orphaned.is_none()
    }

    /// Both calls are of one phone, as far as it is known: a user may be there by several.
    pub(super) fn is_same_phone_as(&self, other: &Self) -> bool {
        let (one, other) = (&self.user, &other.user);
        let contacts = one.reach.as_ref().zip(other.reach.as_ref());
        one.entity == other.entity
            && contacts.is_none_or(|(one, other)| one.contact == other.contact)
    }
}

impl Object {
    fn rank(&self) -> (u64, u64, SvrId) {
        (self.epoch, self.ver, self.owner)
    }

    /// Takes the other over if it is of a higher rank.
    pub(super) fn merge(&mut self, other: Self) -> bool {
        let wins = other.rank() > self.rank();
        if wins {
            *self = other;
        }
        wins
    }

    /// It has been changed. Versions come from peers too, up to the highest that there is.
    pub(super) fn count_up(&mut self) {
        self.ver = self.ver.saturating_add(1);
    }

    /// None: the sender says nothing of it, as by the paper alone.
    pub(super) fn read(told: &Users) -> Option<Self> {
        Some(Self {
            owner: told.owner?,
            epoch: told.epoch,
            ver: told.ver,
            locked: told.locked,
            max_users: told.max_users,
            subject: told.subject.clone(),
            is_deleted: told.state == ConfState::Deleted,
        })
    }

    pub(super) fn write(&self, id: &str, full: bool, users: Vec<ConfUser>) -> Users {
        Users {
            conf_obj_id: id.to_owned(),
            owner: Some(self.owner),
            ver: self.ver,
            epoch: self.epoch,
            state: match self.is_deleted {
                true => ConfState::Deleted,
                false => ConfState::Active,
            },
            locked: self.locked,
            max_users: self.max_users,
            subject: self.subject.clone(),
            full,
            users,
        }
    }
}

impl Conference {
    pub(super) fn new(object: Object, now: Instant) -> Self {
        Self {
            object,
            users: Members::default(),
            watched: BTreeSet::new(),
            trunks: BTreeMap::new(),
            empty: Some(now),
            told_closed: None,
        }
    }

    /// Shards of this server that have a part of it, or watch it.
    pub(super) fn shards(&self) -> BTreeSet<usize> {
        let watched = self.watched.iter().copied();
        self.users.shards().chain(watched).collect()
    }

    pub(super) fn closed(&self) -> Option<Closed> {
        let is_full = |max| self.users.count_present() as u64 >= u64::from(max);
        match self.object.locked {
            true => Some(Closed::Locked),
            false => self
                .object
                .max_users
                .is_some_and(is_full)
                .then_some(Closed::Full),
        }
    }

    /// Somebody of this name can hear and be heard.
    pub(super) fn has_entity(&self, entity: &str) -> bool {
        let mut users = self.users.values();
        users.any(|user| user.is_present() && user.user.entity == entity)
    }
}

impl Rosters {
    pub(super) fn get(&self, room: &str) -> Option<&Conference> {
        self.conferences.get(room)
    }

    pub(super) fn get_mut(&mut self, room: &str) -> Option<&mut Conference> {
        self.conferences.get_mut(room)
    }

    /// Whether a peer may tell of one more conference and user.
    pub(super) fn has_space(&self) -> bool {
        self.conferences.len() < CONFERENCES_MAX && self.users < USERS_MAX
    }

    /// Adds or changes a user. True if anything but his generation is new.
    pub(super) fn put(&mut self, room: &str, svr_id: SvrId, user: User) -> bool {
        let Some(conference) = self.conferences.get_mut(room) else {
            return false;
        };
        conference.empty = None;
        let key = (svr_id, user.user.endpoint.clone());
        if let Some(shard) = user.shard {
            let local = (room.to_owned(), user.user.endpoint.clone());
            self.local.insert(local, shard);
        }
        let is_news = conference.users.get(&key).is_none_or(|known| {
            known.user != user.user || known.shard != user.shard || known.orphaned != user.orphaned
        });
        let known = conference.users.put(key, user);
        self.users += usize::from(known.is_none());
        is_news
    }

    pub(super) fn remove(
        &mut self,
        now: Instant,
        room: &str,
        svr_id: SvrId,
        endpoint: &str,
    ) -> Option<User> {
        let conference = self.conferences.get_mut(room)?;
        let removed = conference.users.remove(&(svr_id, endpoint.to_owned()))?;
        self.users -= 1;
        if removed.shard.is_some() {
            self.local.remove(&(room.to_owned(), endpoint.to_owned()));
        }
        if conference.users.is_empty() {
            conference.empty = Some(now);
        }
        Some(removed)
    }

    /// Names of conferences and endpoints of the users of a server that `chosen` picks.
    pub(super) fn users_of(
        &self,
        svr_id: SvrId,
        chosen: impl Fn(&User) -> bool,
    ) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (room, conference) in &self.conferences {
            let of_server = conference
                .users
                .range((svr_id, String::new())..)
                .take_while(|((id, _), _)| *id == svr_id);
            for ((_, endpoint), user) in of_server {
                if chosen(user) {
                    found.push((room.clone(), endpoint.clone()));
                }
            }
        }
        found
    }

    /// All users of a server are of a life that is over.
    pub(super) fn end_life(&mut self, svr_id: SvrId) {
        for conference in self.conferences.values_mut() {
            conference.users.end_life(svr_id);
        }
    }

    /// This server's users, and the state of conferences where it has some or which it owns.
    pub(super) fn snapshot(&self, own: SvrId) -> Vec<Users> {
        let told = |(room, conference): (&String, &Conference)| {
            let users: Vec<ConfUser> = conference
                .users
                .range((own, String::new())..)
                .take_while(|((id, _), _)| *id == own)
                .map(|(_, user)| user.user.clone())
                .collect();
            let is_ours = !users.is_empty() || conference.object.owner == own;
            is_ours.then(|| conference.object.write(room, false, users))
        };
        self.conferences.iter().filter_map(told).collect()
    }
}
