//! A conference as the HTTP interface shows it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize, Serializer};

/// A conference with everyone in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConferenceView {
    pub id: String,
    /// Where to call, `sip:ROOM@host`.
    pub uri: String,
    /// The server that owns it.
    pub svr_id: String,
    pub participants: Vec<ParticipantView>,
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

/// Why a caller, a user or a server went where it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// RFC 3339, UTC.
    pub at: String,
    /// `redirect`, `refuse`, `hold`, `move`...
    pub kind: String,
    pub conference: Option<String>,
    /// Whom or what it is about: a URI, or a server.
    pub about: Option<String>,
    /// The server that was chosen.
    pub target: Option<String>,
    pub reason: String,
    /// What was known of each server then.
    #[serde(default)]
    pub seen: Vec<SeenView>,
}

/// A server as it was seen when something was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenView {
    pub svr_id: String,
    pub state: String,
    pub load: u32,
    pub max: u32,
    /// Load that was foreseen to come, of callers just sent there.
    pub predicted: u32,
    pub age_ms: u64,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Puts the parts of conferences that several shards know together, by id, ids rising.
pub(super) fn merge(parts: impl IntoIterator<Item = ConferenceView>) -> Vec<ConferenceView> {
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by(|one, other| one.id.cmp(&other.id));
    parts.dedup_by(|later, kept| {
        let same = later.id == kept.id;
        if same {
            kept.participants.append(&mut later.participants);
        }
        same
    });
    parts
}
