//! A conference as the HTTP interface shows it.

use std::time::SystemTime;

use cfw::SvrId;
use cfw::dist_conf::message::ConfUser;
use rtp::Contributor;
use serde::{Serialize, Serializer};

use crate::cluster;

/// A conference with everyone in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConferenceView {
    pub id: String,
    /// Where to call, `sip:ROOM@host`.
    pub uri: String,
    /// The server that owns it.
    pub svr_id: String,
    pub participants: Vec<ParticipantView>,
    /// Sources heard from other servers just now, by which those who talk there are found.
    #[serde(skip)]
    pub heard: Vec<Contributor>,
}

/// Somebody in a conference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParticipantView {
    /// The user's URI (RFC 4575 `entity`).
    pub entity: String,
    /// The server whose media reach this participant.
    pub svr_id: String,
    /// `pcmu`, `pcma`, `g722`, `l16` or `opus`.
    pub codec: String,
    /// RFC 4575 endpoint status, such as `connected`.
    pub status: String,
    pub muted: bool,
    pub talking: bool,
    /// Loudness of the last frame in dB relative to full scale, -127 (silence) to 0 (RFC 6464 with
    /// its sign).
    pub level_dbov: i32,
    #[serde(serialize_with = "rfc3339")]
    pub joined: SystemTime,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Adds those who are on other servers, and conferences that only they are in.
pub(super) fn join(
    local: Vec<ConferenceView>,
    all: Vec<cluster::ConferenceView>,
    own: SvrId,
    uri_of: impl Fn(&str) -> String,
) -> Vec<ConferenceView> {
    let mut joined = local;
    for conference in all {
        let known = joined.iter_mut().find(|known| known.id == conference.id);
        let heard = known.as_ref().map_or(&[][..], |known| &known.heard);
        let far = conference.users.into_iter();
        let mut far: Vec<_> = far
            .filter(|user| user.svr_id != Some(own))
            .map(|user| far_participant(user, heard))
            .collect();
        match known {
            Some(known) => {
                known.svr_id = conference.owner.to_string();
                known.participants.append(&mut far);
            }
            // One whose last user has just gone is known for a while.
            None if far.is_empty() => {}
            None => joined.push(ConferenceView {
                uri: uri_of(&conference.id),
                svr_id: conference.owner.to_string(),
                participants: far,
                heard: Vec::new(),
                id: conference.id,
            }),
        }
    }
    joined.sort_by(|one, other| one.id.cmp(&other.id));
    joined
}

/// `heard` tells how loud he is, where this server has somebody who hears him.
fn far_participant(user: ConfUser, heard: &[Contributor]) -> ParticipantView {
    let is_his = |one: &&Contributor| user.ssrc == Some(one.ssrc);
    let talks = heard.iter().find(is_his);
    let level = talks.map_or(Contributor::SILENCE, |one| one.level);
    ParticipantView {
        entity: user.entity,
        svr_id: user.svr_id.map(|id| id.to_string()).unwrap_or_default(),
        codec: user.codec.unwrap_or_default(),
        status: user.status.as_str().to_owned(),
        muted: user.muted,
        talking: talks.is_some(),
        level_dbov: -i32::from(level),
        joined: user.joined.unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

/// Puts the parts of conferences that several shards know together, by id, ids rising.
pub(super) fn merge(parts: impl IntoIterator<Item = ConferenceView>) -> Vec<ConferenceView> {
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by(|one, other| one.id.cmp(&other.id));
    parts.dedup_by(|later, kept| {
        let same = later.id == kept.id;
        if same {
            kept.participants.append(&mut later.participants);
            kept.heard.append(&mut later.heard);
        }
        same
    });
    parts
}
