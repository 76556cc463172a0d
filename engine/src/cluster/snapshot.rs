//! What a server tells of itself as a whole: which servers it sees, its conferences, its users.
//!
//! ```text
//!   here:  snapshot ──split──> part 1 ──answered──> part 2 ──answered──> ...      changes go in between
//!   there: part 1, change, part 2 ... ──Collector──> the snapshot, then the changes
//! ```
//! What fails on its way is not sent again: its number is missing there, and whoever misses something asks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{ConfInfo, ConfUser, Element, Reach, System};
use cfw::dist_conf::parts::{PART_LEN_MAX, split};

use super::Cluster;
use super::exchange::Purpose;
use super::timers::Timer;

/// Longest text about a user, or URI of a server, that is told, in bytes: with all of them a user stays far
/// below the length of a message, whoever he says he is.
const TEXT_LEN_MAX: usize = 512;

/// Wait after a query until the next, if something is missing again; doubled up to the second for as long as
/// no snapshot has come whole.
const QUERY_WAIT_MIN: Duration = Duration::from_secs(1);
const QUERY_WAIT_MAX: Duration = Duration::from_secs(30);

/// A snapshot on its way to a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Telling {
    /// Which one: answers to parts of earlier ones do not count.
    number: u64,
    /// Those that are not sent yet.
    parts: VecDeque<ConfInfo>,
}

/// What is asked of a server that has told something we have missed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queries {
    is_wanted: bool,
    not_before: Option<Instant>,
    /// Since a snapshot has come whole.
    count: u32,
}

impl Cluster {
    /// Something a server has told is missing: it is asked for everything, at once or when it may be.
    pub(super) fn query(&mut self, now: Instant, id: SvrId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let queries = &mut peer.queries;
        if let Some(at) = queries.not_before.filter(|at| *at > now) {
            queries.is_wanted = true;
            self.timers.set(at, Timer::Query(id));
            return;
        }
        let wait = QUERY_WAIT_MIN * (1 << queries.count.min(5));
        queries.not_before = Some(now + wait.min(QUERY_WAIT_MAX));
        queries.count = queries.count.saturating_add(1);
        queries.is_wanted = false;
        let info = ConfInfo {
            query: true,
            part: 1,
            parts: 1,
            ..ConfInfo::default()
        };
        let element = Element::ConfInfo(info);
        self.send(now, id, vec![element], Purpose::Query);
    }

    /// The time for another query has come, if nothing has made it needless.
    pub(super) fn query_again(&mut self, now: Instant, id: SvrId) {
        if self.peers.get(&id).is_some_and(|it| it.queries.is_wanted) {
            self.query(now, id);
        }
    }

    /// A snapshot for the answer; if it is too big, by requests of its own.
    pub(super) fn on_query(&mut self, now: Instant, from: SvrId) -> Option<ConfInfo> {
        let whole = self.begin_snapshot(from);
        if whole.is_none() {
            self.send_part(now, from);
        }
        whole
    }

    /// Everything a server needs to know of this one.
    pub(super) fn send_snapshot(&mut self, now: Instant, to: SvrId) {
        if let Some(whole) = self.begin_snapshot(to)
            && let Some(peer) = self.peers.get_mut(&to)
        {
            peer.telling.parts.push_back(whole);
        }
        self.send_part(now, to);
    }

    /// Takes the place of one that is on its way. None: it is in parts, which wait to be sent.
    fn begin_snapshot(&mut self, to: SvrId) -> Option<ConfInfo> {
        let mut parts = VecDeque::from(split(self.snapshot(), PART_LEN_MAX));
        let telling = &mut self.peers.get_mut(&to)?.telling;
        telling.number += 1;
        telling.parts.clear();
        if parts.len() == 1 {
            return parts.pop_front();
        }
        telling.parts = parts;
        None
    }

    fn send_part(&mut self, now: Instant, to: SvrId) {
        let Some(telling) = self.peers.get_mut(&to).map(|peer| &mut peer.telling) else {
            return;
        };
        let Some(info) = telling.parts.pop_front() else {
            return;
        };
        let purpose = Purpose::Part(telling.number);
        let is_first = info.part == 1;
        let mut elements = vec![Element::ConfInfo(info)];
        if is_first {
            elements.push(Element::Reserved(self.reserved_list()));
            elements.extend(self.own_report().map(Element::Load));
        }
        if !self.send(now, to, elements, purpose)
            && let Some(peer) = self.peers.get_mut(&to)
        {
            // The next channel begins with another snapshot.
            peer.telling.parts.clear();
        }
    }

    /// A part is there, or will never be; then the server misses its number.
    pub(super) fn on_part_done(&mut self, now: Instant, to: SvrId, number: u64) {
        let peer = self.peers.get(&to);
        if peer.is_some_and(|peer| peer.telling.number == number) {
            self.send_part(now, to);
        }
    }

    pub(super) fn own_system(&self) -> System {
        let peers = self.peers.values().filter(|peer| peer.is_serving()).count();
        let is_active = self.state == SvrState::Active;
        System {
            svr_id: self.config.svr_id,
            active_svrs: (peers + usize::from(is_active)) as u32,
            uri: Some(self.config.uri.clone()),
            cfw_uri: Some(self.config.cfw_uri.clone()),
            state: self.state,
            epoch: self.epoch,
        }
    }

    /// This server and those with which it has a living channel.
    fn systems(&self) -> Vec<System> {
        let own = self.own_system();
        let active_svrs = own.active_svrs;
        let alive = self.peers.iter().filter(|(_, peer)| peer.is_alive());
        let others = alive.map(|(id, peer)| System {
            svr_id: *id,
            active_svrs,
            uri: peer.uri.clone(),
            cfw_uri: peer.cfw_uri.clone(),
            state: peer.state,
            epoch: peer.epoch,
        });
        std::iter::once(own).chain(others).collect()
    }

    fn snapshot(&self) -> ConfInfo {
        ConfInfo {
            full: true,
            systems: self.systems(),
            conferences: self.rosters.snapshot(self.config.svr_id),
            ..ConfInfo::default()
        }
    }

    /// Whom this server sees has changed, or its own state.
    pub(super) fn tell_systems(&mut self, now: Instant) {
        let info = ConfInfo {
            part: 1,
            parts: 1,
            systems: self.systems(),
            ..ConfInfo::default()
        };
        self.broadcast(now, &[Element::ConfInfo(info)]);
        self.judge_all(now);
    }

    pub(super) fn on_conf_info(&mut self, now: Instant, from: SvrId, info: ConfInfo) {
        if !info.systems.is_empty() {
            self.on_systems(now, from, &info.systems);
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if info.full && info.part == 1 {
            peer.queries.is_wanted = false;
        }
        match peer.hearing.handle(info) {
            Ok(ready) => {
                for info in ready {
                    self.on_conferences(now, from, info);
                }
            }
            Err(_) => self.query(now, from),
        }
    }

    fn on_systems(&mut self, now: Instant, from: SvrId, systems: &[System]) {
        let others = systems.iter().filter(|system| system.svr_id != from);
        let sees = others.clone().map(|system| system.svr_id).collect();
        let is_short = |uri: &String| uri.len() <= TEXT_LEN_MAX;
        let own = systems.iter().find(|system| system.svr_id == from);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.sees = sees;
            if let Some(own) = own {
                // The others learn from us how to reach it.
                self.systems_changed |= own.cfw_uri.is_some() && own.cfw_uri != peer.cfw_uri;
                let (uri, cfw_uri) = (own.uri.clone(), own.cfw_uri.clone());
                peer.uri = uri.filter(is_short).or_else(|| peer.uri.take());
                peer.cfw_uri = cfw_uri.filter(is_short).or_else(|| peer.cfw_uri.take());
            }
        }
        if let Some(own) = own {
            self.on_peer_state(now, from, own.state);
            self.forget_addresses(from);
        }
        for system in others {
            let peer = self.peers.get(&system.svr_id);
            let is_linked = peer.is_some_and(|peer| !peer.links.is_empty());
            let uri = system.cfw_uri.as_ref().filter(|uri| is_short(uri));
            if let (Some(uri), false) = (uri, is_linked) {
                self.learn(now, uri, Some(system.svr_id), false);
            }
        }
        self.judge_all(now);
        self.ranks_changed = true;
    }
}

impl Queries {
    /// A snapshot has come whole.
    pub(super) fn on_snapshot(&mut self) {
        self.count = 0;
    }
}

/// What is told of a user, at bounded length. Who cannot be reached by so much is not called back.
pub(super) fn bounded(mut user: ConfUser) -> ConfUser {
    let optional = [&mut user.display_name, &mut user.codec, &mut user.role];
    for text in optional.into_iter().flatten().chain([&mut user.entity]) {
        let mut ends = (0..=TEXT_LEN_MAX).rev();
        let end = ends.find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    user.reach = user.reach.filter(|reach| {
        let Reach {
            contact,
            call_id,
            local_tag,
            remote_tag,
            ..
        } = reach;
        let mut texts = [contact, call_id, local_tag, remote_tag].into_iter();
        texts.all(|text| text.len() <= TEXT_LEN_MAX)
    });
    user
}
