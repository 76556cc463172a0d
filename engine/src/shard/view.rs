//! Rooms as the HTTP interface shows them.

use crate::admin::{ConferenceView, ParticipantView};
use crate::config::Config;
use crate::room::{Member, Room};

/// The rooms somebody is in, or only the one called `name`.
pub(super) fn conferences<'a>(
    rooms: impl Iterator<Item = &'a Room>,
    name: Option<&str>,
    config: &Config,
) -> Vec<ConferenceView> {
    rooms
        .filter(|room| !room.is_empty() && name.is_none_or(|name| name == room.name()))
        .map(|room| ConferenceView {
            id: room.name().to_owned(),
            uri: format!(
                "sip:{}@{}",
                room.name(),
                crate::serve::public_address(config, 0)
            ),
            svr_id: config.server.id.to_string(),
            participants: room
                .members()
                .map(|(_, member)| participant(member, config))
                .collect(),
            heard: room.talkers_elsewhere().collect(),
        })
        .collect()
}

fn participant(member: &Member, config: &Config) -> ParticipantView {
    let leg = member.leg();
    let on_hold = !leg.spoken_to;
    ParticipantView {
        entity: member.entity().to_owned(),
        svr_id: config.server.id.to_string(),
        codec: leg.codec.name().to_ascii_lowercase(),
        status: if on_hold { "on-hold" } else { "connected" }.to_owned(),
        muted: !leg.heard || member.is_muted(),
        talking: member.talking(),
        level_dbov: member.activity().level_dbov(),
        joined: member.joined(),
    }
}
