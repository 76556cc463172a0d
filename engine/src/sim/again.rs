//! What must be again when the faults are over, and what must not be left when all have gone.

use std::collections::{BTreeMap, BTreeSet};

use cfw::dist_conf::load::SvrState;

use super::clock::{SECOND, Time};
use super::report::Counts;
use super::scenario::{EVENING, LAST_FAULT, caller_host, server_host};
use super::server::{Roster, Server, svr_id};
use super::world::World;

/// Says what is wrong, if something is.
type Wrong = fn(&World) -> Option<String>;

/// What has to be again, and how it is seen to be wrong. A move or a drain may be on its way at any moment,
/// but not at every one.
pub(super) const AGAIN: [(&str, Wrong); 3] = [
    ("one roster everywhere", World::disagreement),
    (
        "each conference's sound is shared by whom it should",
        World::wrong_trunk,
    ),
    ("the mesh is whole again", World::wrong_mesh),
];

/// So long before the evening each was so for the last time, at the earliest.
const LATELY: Time = 5 * SECOND;

impl World {
    /// Once a second.
    pub(super) fn check_again(&mut self) {
        if self.now < LAST_FAULT || self.is_evening {
            return;
        }
        for (at, (_, wrong)) in AGAIN.into_iter().enumerate() {
            let is_first = self.settled_at[at].is_none();
            // Between the first time and the evening nobody looks: it takes a while.
            let is_asked = is_first || self.now + LATELY >= EVENING;
            if is_asked && wrong(self).is_none() {
                self.settled_at[at] = Some(self.now);
                let took = self.now - LAST_FAULT;
                let Counts { slowest, .. } = &mut self.counts;
                slowest[at] = slowest[at].max(if is_first { took } else { 0 });
            }
        }
    }

    /// Before all hang up: the servers have found together again.
    pub(super) fn check_evening(&mut self) {
        debug_assert!(self.now >= EVENING);
        for (at, (what, wrong)) in AGAIN.into_iter().enumerate() {
            self.counts.held(what, 1);
            if self.settled_at[at].is_none_or(|at| at + LATELY < EVENING) {
                let wrong = wrong(self).unwrap_or_else(|| "now it is".to_owned());
                self.violated(format!("not so: {what}: {wrong}"));
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Server)> {
        let machines = self.machines.iter().enumerate();
        machines.filter_map(|(at, machine)| Some((at, machine.server.as_ref()?)))
    }

    /// Everybody who is in a conference, by the servers that have them.
    fn truth(&self) -> Roster {
        let mut truth = Roster::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(server) = &machine.server else {
                continue;
            };
            let id = svr_id(server_host(at)).to_string();
            let users = server.shard.users();
            truth.extend(users.map(|(room, entity)| (room, entity, id.clone())));
        }
        truth
    }

    /// How a server's view differs from the truth, if one's does.
    fn disagreement(&self) -> Option<String> {
        let truth = self.truth();
        let is_active =
            |(_, server): &(usize, &Server)| server.cluster().state() != SvrState::Standby;
        let least = self.running().filter(is_active).count();
        for (at, server) in self.running() {
            // One that stands by may lack the channel with somebody: it learns all when it is needed.
            let is_apart =
                server.cluster().state() == SvrState::Standby && server.channels() < least;
            if is_apart {
                continue;
            }
            let seen = server.roster();
            if seen != truth {
                let missing: Vec<_> = truth.difference(&seen).take(3).collect();
                let ghosts: Vec<_> = seen.difference(&truth).take(3).collect();
                let name = server_host(at).0;
                return Some(format!(
                    "S{name} misses {missing:?} and sees ghosts {ghosts:?}"
                ));
            }
        }
        None
    }

    /// Between each two of the servers that have somebody of a conference there is one call, and no other.
    fn wrong_trunk(&self) -> Option<String> {
        let mut holders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (room, _, server) in self.truth() {
            holders.entry(room).or_default().insert(server);
        }
        for (at, server) in self.running() {
            let own = svr_id(server_host(at)).to_string();
            let of_own = holders.iter().filter(|(_, ids)| ids.contains(&own));
            let others = of_own.flat_map(|(room, ids)| {
                let others = ids.iter().filter(|id| **id != own);
                others.map(|id| (room.clone(), id.clone(), true))
            });
            let needed: Vec<_> = others.collect();
            let mut there: Vec<_> = server.shard.trunks().collect();
            there.sort_unstable();
            if there != needed {
                return Some(format!("{own} needs {needed:?} and has {there:?}"));
            }
        }
        None
    }

    /// Each two that take callers have one channel; one that stands by has at most one with each.
    fn wrong_mesh(&self) -> Option<String> {
        for (at, server) in self.running() {
            let is_active = |server: &Server| server.cluster().state() != SvrState::Standby;
            for (other, peer) in self.running().filter(|(other, _)| *other > at) {
                let (a, b) = (server_host(at), server_host(other));
                let least = usize::from(is_active(server) && is_active(peer));
                let streams = self.net.streams_between(a, b);
                if streams < least || streams > 1 {
                    return Some(format!("{streams} streams from S{} to S{}", a.0, b.0));
                }
            }
        }
        self.half_open()
    }

    /// Every channel that a server has is up, but for those to servers that do not run, which it tries again
    /// and again. So are the dialogs then: an INVITE that nobody answers lives longer than its channel.
    fn half_open(&self) -> Option<String> {
        let dead = self.machines.len() - self.running().count();
        for (at, server) in self.running() {
            let (up, (links, dialogs)) = (server.channels(), server.links());
            if links > up + dead || (dead == 0 && dialogs != links) {
                let name = server_host(at).0;
                return Some(format!(
                    "S{name} has {up} channels up of {links}, and {dialogs} dialogs"
                ));
            }
        }
        None
    }

    /// At the end nothing of any call is left.
    pub(super) fn check_night(&mut self) {
        for at in 0..self.machines.len() {
            let Some(server) = &self.machines[at].server else {
                continue;
            };
            let name = server_host(at).0;
            let conferences = server.conferences();
            let sizes = server.shard.sizes();
            let (rest, users) = (server.shard.is_at_rest(), server.roster().len());
            self.counts
                .held("no call, transaction, trunk, user or conference is left", 1);
            if !rest {
                self.violated(format!("S{name} still has {sizes:?}"));
            } else if users > 0 {
                self.violated(format!("S{name} still sees {users} users"));
            } else if conferences > 0 {
                self.violated(format!("S{name} still knows of {conferences} conferences"));
            }
        }
        if let Some(wrong) = self.half_open() {
            self.violated(wrong);
        }
        let servers: usize = self.running().map(|(_, server)| server.channels()).sum();
        self.counts
            .held("channels have two ends, streams a channel", 1);
        let streams = self.net.streams();
        if servers != 2 * streams {
            self.violated(format!("{streams} streams, but {servers} ends of channels"));
        }
        for at in 0..self.people.len() {
            if !self.people[at].caller.is_at_rest() {
                let name = caller_host(at).0;
                let state = self.people[at].caller.state.clone();
                self.violated(format!("c{name} still has something: {state:?}"));
            }
        }
    }
}
