//! Who is in a conference, on all servers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use cfw::SvrId;

use super::roster::{PAST_LIFE, User};

/// By server and endpoint.
type Key = (SvrId, String);

/// Users, and how many of them are where: that is asked whenever one of them comes, changes or goes, and there
/// may be many thousands.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    users: BTreeMap<Key, User>,
    /// Of each shard of this server that has some.
    by_shard: BTreeMap<usize, usize>,
    /// Of each server that has some who can hear and be heard.
    present: BTreeMap<SvrId, usize>,
    /// Whose server is dead.
    orphans: usize,
}

impl Deref for Members {
    type Target = BTreeMap<Key, User>;

    fn deref(&self) -> &Self::Target {
        &self.users
    }
}

impl Members {
    /// Gives back what was known of him.
    pub(super) fn put(&mut self, key: Key, user: User) -> Option<User> {
        let known = self.remove(&key);
        self.count(key.0, &user);
        self.users.insert(key, user);
        known
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<User> {
        let user = self.users.remove(key)?;
        if let Some(shard) = user.shard {
            less(&mut self.by_shard, shard);
        }
        if user.is_present() {
            less(&mut self.present, key.0);
        }
        self.orphans -= usize::from(user.orphaned.is_some());
        Some(user)
    }

    /// All users of a server are of a life that is over.
    pub(super) fn end_life(&mut self, svr_id: SvrId) {
        let of_server = self.users.range_mut((svr_id, String::new())..);
        for (_, user) in of_server.take_while(|((id, _), _)| *id == svr_id) {
            user.generation = PAST_LIFE;
        }
    }

    fn count(&mut self, svr_id: SvrId, user: &User) {
        if let Some(shard) = user.shard {
            *self.by_shard.entry(shard).or_default() += 1;
        }
        if user.is_present() {
            *self.present.entry(svr_id).or_default() += 1;
        }
        self.orphans += usize::from(user.orphaned.is_some());
    }

    /// Those whose server is dead: as a rule there are none, and nobody is looked at.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (&Key, &User)> {
        let users = (self.orphans > 0).then(|| self.users.iter());
        let users = users.into_iter().flatten();
        users.filter(|(_, user)| user.orphaned.is_some())
    }

    /// Shards of this server with somebody.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> {
        self.by_shard.keys().copied()
    }

    /// The shard of this server with most users, the lowest of several.
    pub(super) fn home(&self) -> Option<usize> {
        let most = self.by_shard.values().max()?;
        let mut shards = self.by_shard.iter();
        shards.find_map(|(&shard, count)| (count == most).then_some(shard))
    }

    /// Servers with somebody who can hear and be heard.
    pub(super) fn holders(&self) -> BTreeSet<SvrId> {
        self.present.keys().copied().collect()
    }

    /// How many can hear and be heard.
    pub(super) fn count_present(&self) -> usize {
        self.present.values().sum()
    }
}

fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
