//! Servers that may be added: one list in the same order everywhere, of which one is added at a time.
//!
//! ```text
//!   all full, or soon ──> claimed (told to all; of two claims that of the lower svr-id counts)
//!     ├─ stands by, connected ──> hears the claim and is active
//!     ├─ else: start hook, if there is one; dialled; its snapshot ──> active
//!     └─ too late ──> free again, not tried for a minute; the next one is claimed
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{Element, ReservedState, ReservedSvr, ReservedSvrs};

use super::decisions::What;
use super::interface::{Config, Hook, Output};
use super::timers::Timer;
use super::{Cluster, DIAL_BUDGET};

/// Servers in the list.
const RESERVED_MAX: usize = 256;

/// How long its snapshot may take when the channel is up.
const SNAPSHOT_BUDGET: Duration = Duration::from_secs(2);

/// How long a program may take to start a server, and that server until it answers.
const START_BUDGET: Duration = Duration::from_secs(30);

/// How long a connected server may take to become active.
const WAKE_BUDGET: Duration = Duration::from_secs(2);

/// One that is being started is dialled this often.
const REDIAL_EVERY: Duration = Duration::from_millis(500);

/// One that could not be added is left alone for so long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Another server's claim counts for so long.
const CLAIM_FOR: Duration = Duration::from_secs(40);

/// All have to be loaded for so long before one is added early, and each server waits so much longer than
/// the one before it in order of svr-ids, so that one of them acts.
const GROW_AFTER: Duration = Duration::from_secs(2);
const GROW_STAGGER: Duration = Duration::from_secs(1);

/// The list.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserve {
    ver: u64,
    entries: Vec<Entry>,
    adding: Option<Adding>,
    /// Since when all servers together are loaded above the share at which one is added.
    loaded: Option<Instant>,
    /// Servers that have been seen giving their users away: to be stopped when they stand by.
    leaving: BTreeSet<SvrId>,
}

#[derive(Clone, Debug)]
struct Entry {
    svr_id: SvrId,
    uri: Option<String>,
    /// Other servers in whose last list it was.
    told_by: BTreeSet<SvrId>,
    claim: Option<Claim>,
    retry: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    by: SvrId,
    at: Instant,
}

/// What this server is doing to add one.
#[derive(Clone, Debug)]
struct Adding {
    svr_id: SvrId,
    uri: Option<String>,
    /// A program is starting it: it is dialled until the deadline.
    is_starting: bool,
    deadline: Instant,
}

impl Entry {
    fn new(svr_id: SvrId, uri: Option<String>) -> Self {
        Self {
            svr_id,
            uri,
            told_by: BTreeSet::new(),
            claim: None,
            retry: None,
        }
    }
}

impl Reserve {
    pub(super) fn new(config: &Config) -> Self {
        let others = config
            .reserved
            .iter()
            .filter(|(id, _)| *id != config.svr_id);
        let entry = |(svr_id, uri): &(SvrId, String)| Entry::new(*svr_id, Some(uri.clone()));
        Self {
            entries: others.map(entry).collect(),
            ..Self::default()
        }
    }

    /// Who has to be at this URI.
    pub(super) fn id_at(&self, uri: &str) -> Option<SvrId> {
        let mut entries = self.entries.iter();
        entries
            .find(|entry| entry.uri.as_deref() == Some(uri))
            .map(|entry| entry.svr_id)
    }

    /// Whether this URI is dialled only while the server there is being added.
    pub(super) fn is_only_reserved(&self, uri: &str, is_configured: bool) -> bool {
        !is_configured && self.id_at(uri).is_some()
    }

    fn entry(&mut self, id: SvrId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.svr_id == id)
    }

    fn state_of(&self, entry: &Entry, active: &BTreeSet<SvrId>) -> ReservedState {
        match entry.claim {
            _ if active.contains(&entry.svr_id) => ReservedState::Active,
            Some(_) => ReservedState::Claimed,
            None => ReservedState::Free,
        }
    }
}

impl Cluster {
    /// Servers that carry users, or still do.
    fn carrying(&self) -> BTreeSet<SvrId> {
        let peers = self.peers.iter();
        let mut carrying: BTreeSet<SvrId> = peers
            .filter(|(_, peer)| peer.is_alive() && peer.state != SvrState::Standby)
            .map(|(id, _)| *id)
            .collect();
        if self.state != SvrState::Standby {
            carrying.insert(self.config.svr_id);
        }
        carrying
    }

    /// Servers that may be added, in the order in which they are.
    pub fn reserved(&self) -> Vec<ReservedSvr> {
        let active = self.carrying();
        let server = |entry: &Entry| {
            let state = self.reserve.state_of(entry, &active);
            ReservedSvr {
                svr_id: entry.svr_id,
                uri: entry.uri.clone(),
                state,
                by: entry
                    .claim
                    .filter(|_| state == ReservedState::Claimed)
                    .map(|claim| claim.by),
            }
        };
        self.reserve.entries.iter().map(server).collect()
    }

    /// The list as it is told. What is only hearsay here is not passed on, so that a server that nobody knows
    /// any more is forgotten by all.
    pub(super) fn reserved_list(&self) -> ReservedSvrs {
        let mut servers = self.reserved();
        servers.retain(|server| self.is_known_reserve(server.svr_id));
        ReservedSvrs {
            ver: self.reserve.ver,
            servers,
        }
    }

    /// The operator has listed it, or it is here.
    fn is_known_reserve(&self, id: SvrId) -> bool {
        self.is_configured(id) || self.is_alive(id)
    }

    /// Each second: forgets claims that have led to nothing, and servers that nobody lists any more.
    pub(super) fn tidy_reserve(&mut self, now: Instant) {
        let adding = self.reserve.adding.as_ref().map(|adding| adding.svr_id);
        let mut entries = std::mem::take(&mut self.reserve.entries);
        entries.retain_mut(|entry| {
            let is_adding = adding == Some(entry.svr_id);
            entry.claim = entry
                .claim
                .filter(|claim| is_adding || now < claim.at + CLAIM_FOR);
            let is_listed = entry.told_by.iter().any(|id| self.is_alive(*id));
            is_adding || is_listed || self.is_known_reserve(entry.svr_id)
        });
        self.reserve.entries = entries;
    }

    fn tell_reserved(&mut self, now: Instant) {
        self.reserve.ver = self.reserve.ver.saturating_add(1);
        let list = self.reserved_list();
        self.broadcast(now, &[Element::Reserved(list)]);
    }

    /// Begins to add a server unless one is being added already. False: there is none.
    pub(super) fn add_reserved(&mut self, now: Instant, why: &str) -> bool {
        if self.is_adding(now) {
            return true;
        }
        let active = self.carrying();
        let is_free = |entry: &&Entry| {
            entry.claim.is_none()
                && entry.retry.is_none_or(|retry| now >= retry)
                && entry.svr_id != self.config.svr_id
                && !active.contains(&entry.svr_id)
        };
        let Some(free) = self.reserve.entries.iter().find(is_free) else {
            return false;
        };
        let (id, uri) = (free.svr_id, free.uri.clone());
        let is_connected = self.is_alive(id);
        if uri.is_none() && !is_connected {
            return false;
        }
        let by = self.config.svr_id;
        if let Some(entry) = self.reserve.entry(id) {
            entry.claim = Some(Claim { by, at: now });
        }
        let is_starting = !is_connected && self.config.start_hook && self.is_configured(id);
        let budget = match (is_connected, is_starting) {
            (true, _) => WAKE_BUDGET,
            (_, true) => START_BUDGET,
            _ => DIAL_BUDGET + SNAPSHOT_BUDGET,
        };
        self.reserve.adding = Some(Adding {
            svr_id: id,
            uri: uri.clone(),
            is_starting,
            deadline: now + budget,
        });
        self.timers.set(now + budget, Timer::Claim);
        self.decide(now, What::Claim, None, Some(id), why.to_owned());
        self.tell_reserved(now);
        if let (Some(uri), false) = (uri, is_connected) {
            if is_starting {
                let (hook, svr_id) = (Hook::Start, id);
                self.outputs
                    .push_back(Output::RunHook { hook, svr_id, uri });
            } else {
                self.dial_claimed(now, id, &uri);
            }
        }
        true
    }

    fn dial_claimed(&mut self, now: Instant, id: SvrId, uri: &str) {
        self.learn(now, uri, Some(id), false);
        self.dial_now(now, uri);
    }

    /// Some server is being added, by whomever.
    fn is_adding(&self, now: Instant) -> bool {
        let is_fresh = |claim: Claim| {
            now < claim.at + CLAIM_FOR && claim.by != self.config.svr_id && self.is_alive(claim.by)
        };
        let active = self.carrying();
        self.reserve.adding.is_some()
            || self
                .reserve
                .entries
                .iter()
                .any(|entry| !active.contains(&entry.svr_id) && entry.claim.is_some_and(is_fresh))
    }

    pub(super) fn on_hook(
        &mut self,
        now: Instant,
        hook: Hook,
        id: SvrId,
        result: Result<(), String>,
    ) {
        if hook == Hook::Stop {
            if let Err(reason) = result {
                let reason = format!("the program that stops it has failed: {reason}");
                self.decide(now, What::Claim, None, Some(id), reason);
            }
            return;
        }
        let Some(adding) = self.reserve.adding.clone().filter(|it| it.svr_id == id) else {
            return;
        };
        match (result, adding.uri) {
            (Ok(()), Some(uri)) => self.dial_claimed(now, id, &uri),
            (Err(reason), _) => {
                self.give_up(
                    now,
                    &format!("the program that starts it has failed: {reason}"),
                );
            }
            (Ok(()), None) => {}
        }
    }

    /// The URI could not be dialled.
    pub(super) fn on_claimed_unreachable(&mut self, now: Instant, uri: &str) {
        let Some(adding) = &self.reserve.adding else {
            return;
        };
        if adding.uri.as_deref() != Some(uri) {
            return;
        }
        if adding.is_starting && now + REDIAL_EVERY < adding.deadline {
            self.dial_at(uri, now + REDIAL_EVERY);
        } else {
            self.give_up(now, "it cannot be reached");
        }
    }

    /// Time is over for the server that is being added.
    pub(super) fn on_claim_late(&mut self, now: Instant) {
        if self
            .reserve
            .adding
            .as_ref()
            .is_some_and(|adding| now >= adding.deadline)
        {
            self.give_up(now, "it was not there in time");
        }
    }

    /// The next server of the list is tried if there still is a reason.
    fn give_up(&mut self, now: Instant, why: &str) {
        let Some(adding) = self.reserve.adding.take() else {
            return;
        };
        if let Some(entry) = self.reserve.entry(adding.svr_id) {
            entry.claim = None;
            entry.retry = Some(now + RETRY_AFTER);
        }
        self.decide(now, What::Claim, None, Some(adding.svr_id), why.to_owned());
        self.tell_reserved(now);
        if self.holds.is_empty() {
            return;
        }
        if !self.add_reserved(now, "callers wait, and the one before has not come") {
            self.place_holds(now, true);
        }
    }

    /// A server's state is known anew: perhaps it is the one that is being added, or one that has emptied.
    pub(super) fn on_peer_state(&mut self, now: Instant, id: SvrId, state: SvrState) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut peer.state, state);
        let has_load = peer.load.is_some();
        if state != before {
            self.ranks_changed = true;
            self.on_neighbour_state(now, id, before, state);
        }
        let is_serving = matches!(state, SvrState::Active | SvrState::Full);
        let is_added = self
            .reserve
            .adding
            .as_ref()
            .is_some_and(|adding| adding.svr_id == id);
        if is_added && is_serving && has_load {
            self.reserve.adding = None;
            if let Some(entry) = self.reserve.entry(id) {
                entry.claim = None;
            }
            self.decide(
                now,
                What::Claim,
                None,
                Some(id),
                "it takes callers".to_owned(),
            );
            self.tell_reserved(now);
        } else if is_serving && let Some(entry) = self.reserve.entry(id) {
            entry.claim = None;
        }
        match state {
            SvrState::Draining => {
                self.reserve.leaving.insert(id);
            }
            SvrState::Standby if self.reserve.leaving.remove(&id) => self.stop(id),
            SvrState::Standby => {}
            SvrState::Active | SvrState::Full => {
                self.reserve.leaving.remove(&id);
            }
        }
    }

    /// The operator has listed it, so that his programs know it; others have listed themselves.
    fn is_configured(&self, id: SvrId) -> bool {
        self.config.reserved.iter().any(|(listed, _)| *listed == id)
    }

    /// One of those that serve has the program run that stops a server.
    fn stop(&mut self, id: SvrId) {
        let is_first = self.serving().first() == Some(&self.config.svr_id);
        let entry = self.reserve.entries.iter().find(|entry| entry.svr_id == id);
        if let Some(uri) = entry.and_then(|entry| entry.uri.clone())
            && self.config.stop_hook
            && self.is_configured(id)
            && is_first
        {
            let (hook, svr_id) = (Hook::Stop, id);
            self.outputs
                .push_back(Output::RunHook { hook, svr_id, uri });
        }
    }

    pub(super) fn on_claimed_dead(&mut self, now: Instant, id: SvrId) {
        if self
            .reserve
            .adding
            .as_ref()
            .is_some_and(|adding| adding.svr_id == id)
        {
            self.give_up(now, "it has died");
        }
        for entry in &mut self.reserve.entries {
            if entry.claim.is_some_and(|claim| claim.by == id) {
                entry.claim = None;
            }
        }
    }

    /// Another server's list: entries it has and this one has not are added at the end. Of claims only its own
    /// count: those of others are heard from them.
    pub(super) fn on_reserved(&mut self, now: Instant, from: SvrId, list: ReservedSvrs) {
        let own = self.config.svr_id;
        self.reserve.ver = self.reserve.ver.max(list.ver);
        for entry in &mut self.reserve.entries {
            entry.told_by.remove(&from);
        }
        for told in list.servers {
            let id = told.svr_id;
            let claims =
                told.state == ReservedState::Claimed && told.by.is_none_or(|by| by == from);
            if id == own && claims && self.state == SvrState::Standby {
                self.activate(now, &format!("{from} asks for this server"));
            }
            if self.reserve.entry(id).is_none() && self.reserve.entries.len() < RESERVED_MAX {
                let entry = Entry::new(id, told.uri.clone());
                self.reserve.entries.push(entry);
            }
            let Some(entry) = self.reserve.entry(id) else {
                continue;
            };
            entry.uri = entry.uri.take().or(told.uri);
            entry.told_by.insert(from);
            match entry.claim {
                claim if claims && claim.is_none_or(|claim| from < claim.by) => {
                    entry.claim = Some(Claim { by: from, at: now });
                }
                // Whoever claimed it has taken the claim back.
                Some(claim) if claim.by == from && !claims => entry.claim = None,
                _ => {}
            }
        }
    }

    /// This server stands by: it is in the list, as free.
    pub(super) fn list_self(&mut self, now: Instant) {
        let (svr_id, uri) = (self.config.svr_id, self.config.cfw_uri.clone());
        match self.reserve.entry(svr_id) {
            Some(entry) => entry.claim = None,
            None => self.reserve.entries.push(Entry::new(svr_id, Some(uri))),
        }
        self.tell_reserved(now);
    }

    /// Each second: adds a server before all are full.
    pub(super) fn consider_growing(&mut self, now: Instant) {
        let (load, max) = self.total(now);
        let is_loaded = max > 0.0 && load > self.config.grow_at * max;
        if !is_loaded || self.state != SvrState::Active {
            self.reserve.loaded = None;
            return;
        }
        let since = *self.reserve.loaded.get_or_insert(now);
        let own = self.config.svr_id;
        let rank = self.serving().range(..own).count() as u32;
        if now >= since + GROW_AFTER + GROW_STAGGER * rank && !self.is_adding(now) {
            let percent = (100.0 * load / max) as u32;
            self.add_reserved(
                now,
                &format!("the servers are at {percent} % of their maximum"),
            );
        }
    }
}
