//! Which servers share a conference's sound: one call between their foci for each pair that has somebody in
//! it, made by the lower svr-id.

use std::time::{Duration, Instant};

use cfw::SvrId;

use super::Cluster;
use super::interface::{Life, Output};
use super::placement::room_uri;
use super::timers::Timer;
use crate::focus::RoomName;
use crate::focus::liaison::Order;

/// First wait before a trunk that failed is tried again; doubled each time up to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// One that is not up by then is asked for again.
const UP_WITHIN: Duration = Duration::from_secs(15);

/// A trunk of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trunk {
    /// The shard that was told to open it.
    shard: usize,
    is_up: bool,
    failures: u32,
    /// When it is tried again if it is not up by then.
    retry: Instant,
}

impl Cluster {
    /// Opens the trunks that a conference needs and closes those it needs no more.
    pub(super) fn settle_trunks(&mut self, now: Instant, room: &str) {
        let own = self.config.svr_id;
        let (Some(name), Some(conference)) =
            (RoomName::from_user(room), self.rosters.get_mut(room))
        else {
            return;
        };
        let holders = conference.users.holders();
        let is_here = holders.contains(&own);
        let home = conference.users.home();
        let shards = conference.shards();
        let (peers, outputs) = (&self.peers, &mut self.outputs);
        let is_needed = |id: SvrId| {
            let is_dead = peers.get(&id).is_none_or(|peer| peer.life == Life::Dead);
            is_here && own < id && holders.contains(&id) && !is_dead
        };
        conference.trunks.retain(|&peer, trunk| {
            // Its shard has nobody of the conference any more while others have: it moves.
            let keep = is_needed(peer) && shards.contains(&trunk.shard);
            if !keep {
                let room = name.clone();
                let order = Order::CloseTrunk { room, peer };
                let shard = trunk.shard;
                outputs.push_back(Output::Order { shard, order });
            }
            keep
        });
        let Some(home) = home else {
            return;
        };
        for &peer in holders.iter().filter(|id| is_needed(**id)) {
            let failures = match conference.trunks.get(&peer) {
                Some(trunk) if trunk.is_up || now < trunk.retry => continue,
                Some(trunk) => trunk.failures + 1,
                None => 0,
            };
            let Some(uri) = peers.get(&peer).and_then(|peer| peer.uri.as_ref()) else {
                continue;
            };
            let trunk = Trunk {
                shard: conference
                    .trunks
                    .get(&peer)
                    .map_or(home, |trunk| trunk.shard),
                is_up: false,
                failures,
                retry: now + UP_WITHIN,
            };
            conference.trunks.insert(peer, trunk);
            let order = Order::OpenTrunk {
                room: name.clone(),
                peer,
                target: room_uri(uri, room, &format!("crt-trunk={own}")),
            };
            let shard = trunk.shard;
            outputs.push_back(Output::Order { shard, order });
        }
    }

    /// A shard tells of a trunk. Of one that the other side has made nothing follows.
    pub(super) fn on_trunk(
        &mut self,
        now: Instant,
        shard: usize,
        room: &str,
        peer: SvrId,
        up: bool,
    ) {
        let conference = self.rosters.get_mut(room);
        let Some(trunk) = conference.and_then(|it| it.trunks.get_mut(&peer)) else {
            return;
        };
        if trunk.shard != shard {
            return;
        }
        if up {
            trunk.is_up = true;
            trunk.failures = 0;
            return;
        }
        let wait = BACKOFF_MIN * (1 << trunk.failures.min(6));
        trunk.retry = now + wait.min(BACKOFF_MAX);
        trunk.is_up = false;
        self.timers.set(trunk.retry, Timer::Trunk(room.to_owned()));
    }

    /// Each second: trunks that have not come are tried again.
    pub(super) fn check_trunks(&mut self, now: Instant) {
        let is_late = |trunk: &Trunk| !trunk.is_up && now >= trunk.retry;
        for (room, conference) in &self.rosters.conferences {
            if conference.trunks.values().any(is_late) {
                self.touched.insert(room.clone());
            }
        }
    }

    /// The calls of a server's trunks here are ended, whoever made them: it is dead, or has been out of reach.
    /// Those that are needed are made anew.
    pub(super) fn close_trunks_with(&mut self, peer: SvrId) {
        for (room, conference) in &mut self.rosters.conferences {
            let (Some(name), true) = (
                RoomName::from_user(room),
                conference.users.keys().any(|(id, _)| *id == peer),
            ) else {
                continue;
            };
            conference.trunks.remove(&peer);
            self.touched.insert(room.clone());
            for shard in conference.shards() {
                let room = name.clone();
                let order = Order::CloseTrunk { room, peer };
                self.outputs.push_back(Output::Order { shard, order });
            }
        }
    }
}
