//! What a server tells of itself as a whole: which servers it sees, its conferences, its users.

use std::time::Instant;

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{ConfInfo, Element, System};

use super::Cluster;
use super::exchange::Purpose;

/// Users in one message: with half a kilobyte each it stays below 256 KiB.
pub(super) const USERS_PER_MESSAGE: usize = 400;

impl Cluster {
    pub(super) fn query(&mut self, now: Instant, id: SvrId) {
        let info = ConfInfo {
            query: true,
            part: 1,
            parts: 1,
            ..ConfInfo::default()
        };
        let element = Element::ConfInfo(info);
        self.send(now, id, vec![element], Purpose::Query);
    }

    /// A snapshot for the answer; if it is too big, by requests of its own.
    pub(super) fn on_query(&mut self, now: Instant, from: SvrId) -> Option<ConfInfo> {
        let mut parts = self.snapshot();
        if parts.len() == 1 {
            return parts.pop();
        }
        self.send_parts(now, from, parts);
        None
    }

    /// Everything a server needs to know of this one.
    pub(super) fn send_snapshot(&mut self, now: Instant, to: SvrId) {
        let parts = self.snapshot();
        self.send_parts(now, to, parts);
    }

    fn send_parts(&mut self, now: Instant, to: SvrId, parts: Vec<ConfInfo>) {
        let mut more = vec![Element::Reserved(self.reserved_list())];
        more.extend(self.own_report().map(Element::Load));
        for info in parts {
            let mut elements = vec![Element::ConfInfo(info)];
            elements.append(&mut more);
            self.send(now, to, elements, Purpose::Tell);
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

    fn snapshot(&self) -> Vec<ConfInfo> {
        let mut parts = self.rosters.snapshot(self.config.svr_id, USERS_PER_MESSAGE);
        let count = parts.len() as u32;
        for (at, info) in parts.iter_mut().enumerate() {
            info.full = true;
            (info.part, info.parts) = (at as u32 + 1, count);
        }
        if let Some(first) = parts.first_mut() {
            first.systems = self.systems();
        }
        parts
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
        self.on_conferences(now, from, info);
    }

    fn on_systems(&mut self, now: Instant, from: SvrId, systems: &[System]) {
        let others = systems.iter().filter(|system| system.svr_id != from);
        let sees = others.clone().map(|system| system.svr_id).collect();
        let own = systems.iter().find(|system| system.svr_id == from);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.sees = sees;
            if let Some(own) = own {
                // The others learn from us how to reach it.
                self.systems_changed |= own.cfw_uri.is_some() && own.cfw_uri != peer.cfw_uri;
                peer.uri = own.uri.clone().or_else(|| peer.uri.take());
                peer.cfw_uri = own.cfw_uri.clone().or_else(|| peer.cfw_uri.take());
            }
        }
        if let Some(own) = own {
            self.on_peer_state(now, from, own.state);
        }
        for system in others {
            let peer = self.peers.get(&system.svr_id);
            let is_linked = peer.is_some_and(|peer| !peer.links.is_empty());
            if let (Some(uri), false) = (&system.cfw_uri, is_linked) {
                self.learn(now, uri, Some(system.svr_id), false);
            }
        }
        self.judge_all(now);
        self.ranks_changed = true;
    }
}
