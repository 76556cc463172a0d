//! What the cluster hears of those who are in conferences here.
//!
//! Where nobody is to be told ([`Focus::join_cluster`] was never called) none of this costs anything.

use std::collections::HashMap;

use cfw::dist_conf::message::{ConfUser, Reach, UserStatus};
use sip::CallKey;
use sip::conference_info::Status;

use super::endpoints::status_of;
use super::liaison::Report;
use super::{Focus, Means, RoomName};
use crate::io::MediaIo;
use crate::shard::ShardIndex;

/// What the cluster has been told, and is yet to be told.
#[derive(Default)]
pub(super) struct Reports {
    /// This shard, in names that are unique on the server. None: there is nobody to tell.
    shard: Option<ShardIndex>,
    /// At random, so that no call is taken for one of an earlier process of this server.
    life: u16,
    waiting: Vec<Report>,
    /// As they were told last.
    told: HashMap<CallKey, Told>,
    by_endpoint: HashMap<String, CallKey>,
}

struct Told {
    room: RoomName,
    user: Box<ConfUser>,
}

impl Reports {
    pub(super) fn is_on(&self) -> bool {
        self.shard.is_some()
    }

    pub(super) fn push(&mut self, report: Report) {
        if self.is_on() {
            self.waiting.push(report);
        }
    }

    pub(super) fn call_of(&self, endpoint: &str) -> Option<CallKey> {
        self.by_endpoint.get(endpoint).copied()
    }

    /// The name of a call on this server, in all its lives.
    pub(super) fn endpoint(&self, key: CallKey) -> String {
        let shard = self.shard.map_or(0, |shard| shard.0);
        format!("{shard}.{key}.{:x}", self.life)
    }

    fn tell(&mut self, key: CallKey, room: RoomName, user: ConfUser) {
        if let Some(told) = self.told.get(&key) {
            if *told.user == user {
                return;
            }
        } else {
            self.by_endpoint.insert(user.endpoint.clone(), key);
        }
        let user = Box::new(user);
        self.waiting.push(Report::User {
            room: room.clone(),
            user: user.clone(),
        });
        self.told.insert(key, Told { room, user });
    }

    pub(super) fn tell_of_leaving(&mut self, key: CallKey) {
        if let Some(Told { room, user }) = self.told.remove(&key) {
            self.by_endpoint.remove(&user.endpoint);
            let endpoint = user.endpoint;
            self.waiting.push(Report::UserGone { room, endpoint });
        }
    }
}

impl Focus {
    /// From now on the cluster is told of everybody here by [`take_reports`](Self::take_reports), and asked
    /// where callers go that may not simply be taken. `shard` stands in the names of calls, which are unique
    /// on the server.
    pub fn join_cluster(&mut self, shard: ShardIndex) {
        self.reports.shard = Some(shard);
        self.reports.life = self.random.next_u64() as u16;
    }

    /// What the cluster is to be told since the last time.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports.waiting)
    }

    /// Something about a call may have changed.
    pub(super) fn report<I: MediaIo>(&mut self, key: CallKey, means: &mut Means<'_, I>) {
        if !self.reports.is_on() {
            return;
        }
        let Some(call) = self.calls.get(&key) else {
            return;
        };
        let peer = means.sip.peer_of(key);
        let member = means.stage.member(call.seat);
        let leg = member.as_ref().map(|member| member.leg());
        let user = ConfUser {
            entity: call.entity.clone(),
            svr_id: Some(self.config.server.id),
            endpoint: self.reports.endpoint(key),
            display_name: call.display_name.clone(),
            status: user_status(status_of(call, leg)),
            codec: leg.map(|leg| leg.codec.name().to_ascii_lowercase()),
            ssrc: member.map(|member| member.session().ssrc()),
            role: None,
            muted: call.muted,
            joined: Some(call.joined),
            reach: peer.map(|peer| Reach {
                contact: peer.contact,
                call_id: peer.call_id,
                local_tag: peer.local_tag,
                remote_tag: peer.remote_tag,
                refer: peer.takes_refer && !call.relayed,
                replaces: peer.knows_replaces && !call.relayed,
            }),
        };
        let room = call.room.clone();
        self.reports.tell(key, room, user);
    }
}

fn user_status(status: Status) -> UserStatus {
    match status {
        Status::Connected => UserStatus::Connected,
        Status::Disconnected => UserStatus::Disconnected,
        Status::OnHold => UserStatus::OnHold,
        Status::MutedViaFocus => UserStatus::MutedViaFocus,
        Status::Pending => UserStatus::Pending,
        Status::Alerting => UserStatus::Alerting,
        Status::DialingIn => UserStatus::DialingIn,
        Status::DialingOut => UserStatus::DialingOut,
        Status::Disconnecting => UserStatus::Disconnecting,
    }
}
