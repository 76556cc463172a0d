//! What can be read of the rules' state, and how decisions are noted.

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;

use super::Cluster;
use super::decisions::{Decision, Seen, WHO_MAX, What};
use super::interface::{ConferenceView, Config, Output, ServerView};
use super::peers::Peer;
use super::roster::Conference;
use crate::focus::liaison::Arrival;

impl Cluster {
    /// Active, draining or standby; whether it is full stands in the load.
    pub fn state(&self) -> SvrState {
        self.state
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All servers that are known, without this one, by svr-id.
    pub fn servers(&self, now: Instant) -> Vec<ServerView> {
        let view = |(&svr_id, peer): (&SvrId, &Peer)| {
            let load = peer.load.map(|reported| reported.load);
            let current = load.map_or(0, |load| load.current);
            ServerView {
                svr_id,
                uri: peer.uri.clone().unwrap_or_default(),
                cfw_uri: peer.cfw_uri.clone().unwrap_or_default(),
                epoch: peer.epoch,
                state: load.map_or(peer.state, |load| load.state),
                life: peer.life,
                load: current,
                predicted: peer.predictions.predict(current) as u32,
                max: load.map_or(0, |load| load.max_load),
                min: load.map_or(0, |load| load.min_load),
                hot: load.and_then(|load| load.hot),
                age: peer
                    .load
                    .map(|reported| now.saturating_duration_since(reported.at)),
            }
        };
        self.peers.iter().map(view).collect()
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> impl DoubleEndedIterator<Item = &Decision> + ExactSizeIterator {
        self.decisions.iter()
    }

    /// Names of all conferences, by name.
    pub fn conferences(&self) -> impl Iterator<Item = &str> {
        self.rosters.conferences.keys().map(String::as_str)
    }

    pub fn conference(&self, id: &str) -> Option<ConferenceView> {
        let Conference { object, users, .. } = self.rosters.get(id)?;
        Some(ConferenceView {
            id: id.to_owned(),
            owner: object.owner,
            epoch: object.epoch,
            ver: object.ver,
            locked: object.locked,
            subject: object.subject.clone(),
            max_users: object.max_users,
            expected: self.expected.get(id).map_or(0, |(expected, _)| *expected),
            users: users.values().map(|user| user.user.clone()).collect(),
        })
    }

    /// Callers who wait for a server to be added.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    pub(super) fn decide(
        &mut self,
        now: Instant,
        what: What,
        room: Option<&str>,
        server: Option<SvrId>,
        reason: String,
    ) {
        self.note(now, what, room, None, server, None, reason);
    }

    pub(super) fn decide_caller(
        &mut self,
        now: Instant,
        what: What,
        asked: &Arrival,
        server: Option<SvrId>,
        status: Option<u16>,
        reason: String,
    ) {
        let (room, who) = (Some(asked.room.as_str()), Some(asked.from.as_str()));
        self.note(now, what, room, who, server, status, reason);
    }

    /// A shard has refused a caller by itself.
    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        room: &str,
        from: &str,
        status: u16,
        why: String,
        others: u32,
    ) {
        let reason = match others {
            0 => why,
            others => format!("{why}; {others} others were refused since the last"),
        };
        let (room, who) = (Some(room), Some(from));
        self.note(now, What::Refuse, room, who, None, Some(status), reason);
    }

    pub(super) fn decide_user(
        &mut self,
        now: Instant,
        what: What,
        room: &str,
        entity: &str,
        server: SvrId,
        reason: &str,
    ) {
        let reason = reason.to_owned();
        self.note(
            now,
            what,
            Some(room),
            Some(entity),
            Some(server),
            None,
            reason,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one list")]
    fn note(
        &mut self,
        now: Instant,
        what: What,
        room: Option<&str>,
        who: Option<&str>,
        server: Option<SvrId>,
        status: Option<u16>,
        reason: String,
    ) {
        let at = self.config.started + now.saturating_duration_since(self.started);
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seen = match what {
            // Refusals come in floods, and change nothing of what is seen.
            What::Refuse => self.decisions.seen_lately(now),
            _ => None,
        };
        let seen = seen.unwrap_or_else(|| self.seen(now));
        self.decisions.see(now, &seen);
        let decision = Decision {
            at_ms: at.as_millis() as u64,
            what,
            room: room.map(str::to_owned),
            who: who.map(|who| who.chars().take(WHO_MAX).collect()),
            server: server.map(|id| id.as_str().to_owned()),
            status,
            reason,
            seen,
        };
        self.outputs.push_back(Output::Decided(decision.clone()));
        self.decisions.push(decision);
    }

    /// This server and the others, as a decision shows them.
    fn seen(&self, now: Instant) -> Arc<[Seen]> {
        let own = Seen {
            svr_id: self.config.svr_id.as_str().to_owned(),
            state: self.state.as_str(),
            load: self.own.measured.current,
            predicted: self.own.predicted() as u32,
            max: self.own.measured.max,
            age_ms: Some(0),
        };
        let others = self.servers(now).into_iter().map(|server| Seen {
            svr_id: server.svr_id.as_str().to_owned(),
            state: match server.life {
                super::Life::Alive => server.state.as_str(),
                super::Life::Suspect => "suspect",
                super::Life::Dead => "dead",
            },
            load: server.load,
            predicted: server.predicted,
            max: server.max,
            age_ms: server.age.map(|age| age.as_millis() as u64),
        });
        std::iter::once(own).chain(others).collect()
    }
}
