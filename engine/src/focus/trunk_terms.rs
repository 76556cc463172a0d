//! What a trunk is agreed on: its codec, its seat, and that it names those who are in its sound.

use sip::Rejection;
use sip::sdp::{self, Attribute, Local, SessionDescription};

use super::trunks::TRUNKS_MAX;
use super::{Focus, Means, RoomName, log_no_seat, negotiate, rejection, set_ports};
use crate::codec::Codec;
use crate::config::TrunkCodec;
use crate::io::MediaIo;
use crate::room::LEVELS_EXTENSION_ID;
use crate::shard::stage::SeatKey;

/// Levels of those who are in the sound (RFC 6465 §4).
const LEVELS: &str = "urn:ietf:params:rtp-hdrext:csrc-audio-level";

impl Focus {
    pub(super) fn trunk_seat<I: MediaIo>(
        &mut self,
        room: &RoomName,
        remote: Option<crate::shard::stage::Remote>,
        means: &mut Means<'_, I>,
    ) -> Result<SeatKey, Rejection> {
        let not_now = rejection(self.admission.not_now(self.random.next_u64()));
        if self.trunks.len() >= TRUNKS_MAX {
            return Err(not_now);
        }
        let seat = means
            .stage
            .take_trunk_seat(means.now, room.as_str(), remote);
        seat.map_err(|error| {
            log_no_seat(room.as_str(), &error);
            not_now
        })
    }

    /// What a trunk can carry, what the operator prefers first.
    pub(super) fn trunk_codecs(&self) -> Vec<Codec> {
        let preferred = match self.config.cluster.trunk_codec {
            TrunkCodec::L16 => "L16",
            TrunkCodec::Opus => "opus",
        };
        let mut codecs = Codec::TRUNK.to_vec();
        codecs.sort_by_key(|codec| !codec.name().eq_ignore_ascii_case(preferred));
        codecs
    }

    pub(super) fn trunk_local<I: MediaIo>(&mut self, seat: SeatKey, means: &Means<'_, I>) -> Local {
        let mut local = self.trunk_address();
        set_ports(&mut local, means.stage.ports_of(seat));
        local
    }

    /// Our end, without the ports.
    pub(super) fn trunk_address(&mut self) -> Local {
        Local {
            address: self.media_address(),
            rtp_port: 0,
            rtcp_port: 0,
            session_id: self.random.next_u64() >> 1,
            version: 1,
        }
    }
}

pub(super) fn capabilities(codecs: &[Codec]) -> sdp::Capabilities {
    sdp::Capabilities {
        telephone_event: false,
        ..negotiate::capabilities(codecs)
    }
}

/// The sound names those who are in it and how loud they are.
pub(super) fn with_levels(mut description: SessionDescription) -> SessionDescription {
    for media in description.media.iter_mut().filter(|media| media.port != 0) {
        let extension = format!("{LEVELS_EXTENSION_ID} {LEVELS}");
        media.attributes.push(Attribute::new("extmap", extension));
    }
    description
}
