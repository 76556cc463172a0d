//! The other servers: what each has told of itself, and whether it lives.
//!
//! ```text
//!            channel, message              silence, channel lost          no third server sees it
//!   (new) ──────────────────────> Alive ─────────────────────────> Suspect ──────────────────> Dead
//!                                   ^────────────── a new channel ────┴─────────────────────────┘
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::{SvrLoad, SvrState};
use cfw::dist_conf::parts::Collector;

use super::Cluster;
use super::decisions::What;
use super::interface::{ChannelId, Life, Lost, Output};
use super::loads::Predictions;
use super::snapshot::{Queries, Telling};
use super::timers::Timer;
use crate::focus::liaison::Order;

/// Most servers that are known.
const PEERS_MAX: usize = 256;

/// How long a channel that was closed under us may take to come again before its server is taken for dead.
const GRACE: Duration = Duration::from_secs(1);

/// A dead server is forgotten after this. Where it is configured it is still dialled.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// For so long after servers fell silent they count when a majority is looked for.
const MAJORITY_WINDOW: Duration = Duration::from_secs(60);

/// Another server.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) uri: Option<String>,
    pub(super) cfw_uri: Option<String>,
    /// 0 while it has not said it.
    pub(super) epoch: u64,
    pub(super) state: SvrState,
    pub(super) load: Option<Reported>,
    pub(super) predictions: Predictions,
    /// Channels that are up and are known to be its.
    pub(super) links: BTreeSet<ChannelId>,
    /// Where we talk: a snapshot went there first.
    pub(super) spoken: Option<ChannelId>,
    /// Of the last request sent, and received in this epoch.
    pub(super) seq_out: u64,
    pub(super) seq_in: u64,
    pub(super) life: Life,
    pub(super) lost: Option<Loss>,
    /// Servers it has a living channel with.
    pub(super) sees: BTreeSet<SvrId>,
    /// Rises with each snapshot of its users, so that those whom it no longer has are found.
    pub(super) generation: u64,
    /// Our snapshot for it, its own while it comes in parts, and what we have missed.
    pub(super) telling: Telling,
    pub(super) hearing: Collector,
    pub(super) queries: Queries,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    pub(super) load: SvrLoad,
    pub(super) at: Instant,
}

/// How a server got out of sight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) at: Instant,
    /// The process has gone; else it may be the network.
    pub(super) sure: bool,
    /// It has been dialled since, in vain.
    pub(super) redialled: bool,
}

impl Peer {
    fn new() -> Self {
        Self {
            uri: None,
            cfw_uri: None,
            epoch: 0,
            // It gets nobody before it has said that it serves.
            state: SvrState::Standby,
            load: None,
            predictions: Predictions::default(),
            links: BTreeSet::new(),
            spoken: None,
            seq_out: 0,
            seq_in: 0,
            life: Life::Suspect,
            lost: None,
            sees: BTreeSet::new(),
            generation: 0,
            telling: Telling::default(),
            hearing: Collector::default(),
            queries: Queries::default(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    /// It lives and has calls, or may have.
    pub(super) fn is_serving(&self) -> bool {
        self.is_alive() && matches!(self.state, SvrState::Active | SvrState::Full)
    }
}

impl Cluster {
    /// The server's entry, a new one if it has none. None: there are too many.
    pub(super) fn meet(&mut self, id: SvrId) -> Option<&mut Peer> {
        if !self.peers.contains_key(&id) && self.peers.len() >= PEERS_MAX {
            return None;
        }
        Some(self.peers.entry(id).or_insert_with(Peer::new))
    }

    pub(super) fn is_alive(&self, id: SvrId) -> bool {
        id == self.config.svr_id || self.peers.get(&id).is_some_and(Peer::is_alive)
    }

    /// This server and all that live and serve, by svr-id.
    pub(super) fn serving(&self) -> BTreeSet<SvrId> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_serving());
        let mut serving: BTreeSet<SvrId> = peers.map(|(id, _)| *id).collect();
        if self.state == SvrState::Active {
            serving.insert(self.config.svr_id);
        }
        serving
    }

    /// Nobody within sight sees it.
    pub(super) fn is_gone(&self, id: SvrId) -> bool {
        let life = self.peers.get(&id).map(|peer| peer.life);
        id != self.config.svr_id
            && matches!(life, None | Some(Life::Dead))
            && self.witness(id).is_none()
    }

    /// A living server that sees it.
    fn witness(&self, id: SvrId) -> Option<SvrId> {
        let mut peers = self.peers.iter();
        peers
            .find(|(other, peer)| **other != id && peer.is_alive() && peer.sees.contains(&id))
            .map(|(other, _)| *other)
    }

    /// There is a channel with it.
    pub(super) fn on_alive(&mut self, now: Instant, id: SvrId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut peer.life, Life::Alive);
        let was_silent = peer.lost.take().is_some_and(|loss| !loss.sure);
        if before == Life::Alive {
            return;
        }
        if before == Life::Dead {
            self.decide(now, What::Server, None, Some(id), "is back".to_owned());
        }
        if was_silent {
            // Where nothing got through, neither did the BYE of whoever ended a trunk meanwhile.
            self.close_trunks_with(id);
        }
        self.systems_changed = true;
        self.ranks_changed = true;
    }

    /// Its last channel has gone, or it is silent.
    pub(super) fn on_lost(&mut self, now: Instant, id: SvrId, why: Lost) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.life != Life::Alive {
            return;
        }
        peer.life = Life::Suspect;
        let sure = matches!(why, Lost::Reset | Lost::Bye);
        peer.lost = Some(Loss {
            at: now,
            sure,
            redialled: false,
        });
        peer.sees.clear();
        let wait = if sure { GRACE } else { Duration::ZERO };
        self.timers.set(now + wait, Timer::Judge(id));
        self.systems_changed = true;
        self.ranks_changed = true;
    }

    /// A suspect could not be dialled again.
    pub(super) fn on_redialled(&mut self, now: Instant, id: SvrId) {
        if let Some(loss) = self.peers.get_mut(&id).and_then(|peer| peer.lost.as_mut()) {
            loss.redialled = true;
            self.timers.set(now, Timer::Judge(id));
        }
    }

    /// A suspect is dead if no third server sees it. One whose connection was closed has a moment to come
    /// back.
    pub(super) fn judge(&mut self, now: Instant, id: SvrId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let (Life::Suspect, Some(loss)) = (peer.life, peer.lost) else {
            return;
        };
        let is_late = !loss.sure || loss.redialled || now >= loss.at + GRACE;
        if !is_late || self.witness(id).is_some() {
            return;
        }
        self.on_dead(now, id, loss.sure);
    }

    pub(super) fn judge_all(&mut self, now: Instant) {
        let ids: Vec<SvrId> = self.peers.keys().copied().collect();
        for id in ids {
            self.judge(now, id);
        }
    }

    fn on_dead(&mut self, now: Instant, id: SvrId, sure: bool) {
        let recalled = sure || self.has_majority(now, id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.life = Life::Dead;
            peer.load = None;
            peer.predictions = Predictions::default();
        }
        let why = match (sure, recalled) {
            (true, _) => "its connections are closed and nobody sees it",
            (false, true) => "it is silent and nobody sees it",
            (false, false) => {
                "it is silent and nobody sees it; this may be the smaller half, so nobody is called back"
            }
        };
        self.decide(now, What::Server, None, Some(id), why.to_owned());
        self.close_trunks_with(id);
        if recalled {
            let order = |shard| Output::Order {
                shard,
                order: Order::ServerLost(id),
            };
            self.outputs.extend((0..self.config.shards).map(order));
        }
        self.on_users_orphaned(now, id, recalled);
        self.adopt_orphans(now);
        self.on_claimed_dead(now, id);
        self.ranks_changed = true;
    }

    /// Whether those in sight are most of those that were until lately: then it is not we who are cut
    /// off. Of two equal halves it is the one with the lowest svr-id.
    fn has_majority(&self, now: Instant, dying: SvrId) -> bool {
        let (mut seen, mut gone) = (1, 0);
        let (mut lowest, mut lowest_is_seen) = (self.config.svr_id, true);
        for (&id, peer) in &self.peers {
            let is_recent = |loss: Loss| !loss.sure && now < loss.at + MAJORITY_WINDOW;
            if peer.is_alive() {
                seen += 1;
            } else if id == dying || peer.lost.is_some_and(is_recent) {
                gone += 1;
            } else {
                continue;
            }
            if id < lowest {
                (lowest, lowest_is_seen) = (id, peer.is_alive());
            }
        }
        seen > gone || (seen == gone && lowest_is_seen)
    }

    /// Each second: who is dead, and who can be forgotten.
    pub(super) fn check_peers(&mut self, now: Instant) {
        self.judge_all(now);
        let is_old = |peer: &Peer| {
            peer.life == Life::Dead && peer.lost.is_none_or(|loss| now > loss.at + FORGET_AFTER)
        };
        // Its users were forgotten long before.
        let addresses = &mut self.addresses;
        self.peers.retain(|id, peer| {
            let keep = !is_old(peer);
            if !keep {
                addresses.retain(|_, address| address.is_configured || address.svr_id != Some(*id));
            }
            keep
        });
    }
}
