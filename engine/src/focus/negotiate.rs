//! From SDP to a leg: what the engine can do, and what an agreement means to a room.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rtp::{Session, SessionConfig};
use sip::sdp::{Agreed, Capabilities, CodecOffer};

use crate::codec::{Codec, SAMPLE_RATE};
use crate::room::{Leg, TRUNK_JITTER_DEPTH};

/// Packet durations we send; 20 ms unless the peer asks for another.
const PTIME_MS: u32 = 20;
const PTIME_RANGE_MS: std::ops::RangeInclusive<u32> = 10..=60;

/// What can be done on an audio leg with these codecs, the preferred first.
pub fn capabilities(codecs: &[Codec]) -> Capabilities {
    let offer = |codec: &Codec| CodecOffer {
        name: codec.name(),
        clock_rate: codec.clock_rate(),
        channels: codec.channels(),
        static_payload_type: codec.static_payload_type(),
        format_parameters: None,
    };
    Capabilities {
        codecs: codecs.iter().map(offer).collect(),
        telephone_event: true,
        ptime_ms: PTIME_MS,
        ptime_range_ms: PTIME_RANGE_MS,
    }
}

/// What an agreement over `codecs` means to the room.
pub fn leg(agreed: &Agreed, codecs: &[Codec]) -> Leg {
    Leg {
        codec: codecs[agreed.codec],
        receives: agreed
            .receive_payload_types
            .iter()
            .map(|&(number, codec)| (number, codecs[codec]))
            .collect(),
        ptime: Duration::from_millis(agreed.ptime_ms.into()),
        rtcp_mux: agreed.rtcp_mux,
        heard: agreed.direction.receives(),
        spoken_to: agreed.direction.sends(),
    }
}

/// The RTP session of a new leg.
pub fn session(
    now: Instant,
    agreed: &Agreed,
    seed: u64,
    jitter_depth: Duration,
    host: IpAddr,
) -> Session {
    Session::new(
        now,
        session_config(agreed, SAMPLE_RATE, seed, jitter_depth, host),
    )
}

/// The RTP session of a trunk in this codec.
pub fn trunk_session(
    now: Instant,
    agreed: &Agreed,
    codec: Codec,
    seed: u64,
    host: IpAddr,
) -> Session {
    let clock_rate = codec.clock_rate();
    Session::new(
        now,
        session_config(agreed, clock_rate, seed, TRUNK_JITTER_DEPTH, host),
    )
}

fn session_config(
    agreed: &Agreed,
    clock_rate: u32,
    seed: u64,
    jitter_depth: Duration,
    host: IpAddr,
) -> SessionConfig {
    SessionConfig {
        ssrc: seed as u32,
        cname: format!("{seed:016x}@{host}"),
        clock_rate,
        payload_type: agreed.payload_type,
        event_payload_type: agreed.telephone_event,
        accepted_payload_types: accepted_payload_types(agreed),
        remote_rtp: agreed.remote_rtp,
        remote_rtcp: agreed.remote_rtcp,
        rtcp_mux: agreed.rtcp_mux,
        jitter_depth,
        seed,
    }
}

fn accepted_payload_types(agreed: &Agreed) -> [Option<u8>; 4] {
    let mut accepted = [None; 4];
    for (place, &(number, _)) in accepted.iter_mut().zip(&agreed.receive_payload_types) {
        *place = Some(number);
    }
    accepted
}

/// What a new agreement changes in the session of a leg.
pub fn changes(agreed: &Agreed) -> rtp::Changes {
    rtp::Changes {
        payload_type: agreed.payload_type,
        event_payload_type: agreed.telephone_event,
        accepted_payload_types: accepted_payload_types(agreed),
        remote_rtp: agreed.remote_rtp,
        remote_rtcp: agreed.remote_rtcp,
        rtcp_mux: agreed.rtcp_mux,
    }
}
