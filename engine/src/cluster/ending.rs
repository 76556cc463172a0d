//! What becomes of conferences and users whose server or whose last user has gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::message::UserStatus;

use super::Cluster;
use super::decisions::What;

/// A conference with nobody in it ends after this: somebody may be on his way.
const EMPTY_FOR: Duration = Duration::from_secs(30);

/// One whose owner says nothing about its end is forgotten by the others after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90);

/// A user of a dead server stays in the roster for so long, as disconnected.
const ORPHANED_FOR: Duration = Duration::from_secs(30);

impl Cluster {
    /// The users of a server that is dead, or has begun a new life, are without a call.
    pub(super) fn on_users_orphaned(&mut self, now: Instant, dead: SvrId, recalled: bool) {
        for (room, endpoint) in self.rosters.users_of(dead, |user| user.orphaned.is_none()) {
            if recalled && self.config.recall {
                self.plan_recall(now, dead, &room, &endpoint);
            }
            let conference = self.rosters.get_mut(&room);
            let key = (dead, endpoint.clone());
            if let Some(conference) = conference
                && let Some(mut user) = conference.users.remove(&key)
            {
                user.user.status = UserStatus::Disconnected;
                user.orphaned = Some(now);
                conference.users.put(key, user);
            }
            self.distribute(&room, dead, &endpoint);
            self.touched.insert(room);
        }
    }

    /// Conferences whose owner has gone get one: the lowest svr-id that has users of it, else the lowest
    /// that lives.
    pub(super) fn adopt_orphans(&mut self, now: Instant) {
        let own = self.config.svr_id;
        let owners: BTreeSet<SvrId> = self
            .rosters
            .conferences
            .values()
            .map(|it| it.object.owner)
            .collect();
        let gone: BTreeSet<SvrId> = owners.into_iter().filter(|id| self.is_gone(*id)).collect();
        if gone.is_empty() {
            return;
        }
        let lowest = self.serving().into_iter().next().unwrap_or(own);
        let mut adopted = Vec::new();
        for (room, conference) in &self.rosters.conferences {
            if !gone.contains(&conference.object.owner) {
                continue;
            }
            let holder = conference
                .users
                .holders()
                .into_iter()
                .find(|id| self.is_alive(*id));
            if holder.unwrap_or(lowest) == own {
                adopted.push(room.clone());
            }
        }
        for room in adopted {
            let Some(conference) = self.rosters.get_mut(&room) else {
                continue;
            };
            let object = &mut conference.object;
            let before = std::mem::replace(&mut object.owner, own);
            object.epoch = object.epoch.saturating_add(1);
            object.count_up();
            let reason = format!("its owner {before} has gone");
            self.decide(now, What::Adopt, Some(&room), Some(before), reason);
            self.changed(now, &room, None);
        }
    }

    /// Each second: conferences with nobody in them end, users of dead servers are forgotten.
    pub(super) fn tidy_rosters(&mut self, now: Instant) {
        let own = self.config.svr_id;
        let (mut ended, mut forgotten, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
        for (room, conference) in &self.rosters.conferences {
            for ((svr_id, endpoint), user) in conference.users.iter() {
                if user
                    .orphaned
                    .is_some_and(|since| now >= since + ORPHANED_FOR)
                {
                    orphans.push((room.clone(), *svr_id, endpoint.clone()));
                }
            }
            let Some(empty) = conference.empty else {
                continue;
            };
            if self.expected.contains_key(room) || !conference.watched.is_empty() {
                continue;
            }
            let is_over = conference.object.is_deleted || now >= empty + FORGOTTEN_AFTER;
            if conference.object.owner == own {
                if now >= empty + EMPTY_FOR {
                    ended.push(room.clone());
                }
            } else if is_over {
                forgotten.push(room.clone());
            }
        }
        for (room, svr_id, endpoint) in orphans {
            self.drop_remote(now, &room, svr_id, &endpoint);
        }
        for room in &ended {
            if let Some(conference) = self.rosters.get_mut(room) {
                conference.object.is_deleted = true;
                conference.object.count_up();
            }
            self.changed(now, room, None);
        }
        if !ended.is_empty() {
            self.flush(now);
        }
        for room in ended.iter().chain(&forgotten) {
            let conference = self.rosters.conferences.remove(room);
            if conference.is_some_and(|it| it.told_closed.is_some()) {
                self.tell_closed(room, None);
            }
        }
    }
}
