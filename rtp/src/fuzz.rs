//! Bodies of fuzz targets: plain functions that must not panic on any bytes. Tests run them too.

// Each run has an epoch of its own; nothing depends on which.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::rtcp::{self, Part, RTCP_LEN_MAX};
use crate::{
    CONTRIBUTORS_MAX, Contributor, Csrcs, HEADER_LEN, Header, MIXED_HEADER_LEN_MAX, Packet,
    Session, SessionConfig, classify,
};

const LEVELS_ID: u8 = 1;

/// The parts of a packet lie within the datagram, and its fixed fields survive being written.
pub fn packet(bytes: &[u8]) {
    // Unused, the compiler would leave the reading out.
    black_box(classify(bytes));
    let Ok(packet) = Packet::parse(bytes) else {
        return;
    };
    let extension_len = packet
        .extension
        .map_or(0, |extension| 4 + extension.data.len());
    let csrcs_len = packet.csrcs.len() * 4;
    assert!(HEADER_LEN + csrcs_len + extension_len + packet.payload.len() <= bytes.len());
    let header = Header {
        marker: packet.marker,
        payload_type: packet.payload_type,
        sequence: packet.sequence,
        timestamp: packet.timestamp,
        ssrc: packet.ssrc,
    };
    let bare = Packet {
        csrcs: Csrcs::default(),
        extension: None,
        payload: &[],
        ..packet
    };
    assert_eq!(Packet::parse(&header.write()), Ok(bare));
    let mut who = [Contributor { ssrc: 0, level: 0 }; CONTRIBUTORS_MAX];
    let count = packet.contributors(LEVELS_ID).len();
    who.iter_mut()
        .zip(packet.contributors(LEVELS_ID))
        .for_each(|(place, contributor)| *place = contributor);
    let mut mixed = [0; MIXED_HEADER_LEN_MAX];
    let len = header.write_mixed(&who[..count], LEVELS_ID, &mut mixed);
    let again = Packet::parse(&mixed[..len]).expect("we wrote it");
    assert!(
        again
            .contributors(LEVELS_ID)
            .eq(who[..count].iter().copied())
    );
}

/// Every part and block of a compound packet can be read.
pub fn rtcp(bytes: &[u8]) {
    for part in rtcp::parse(bytes).into_iter().flatten() {
        match part {
            Part::SenderReport { blocks, .. } | Part::ReceiverReport { blocks, .. } => {
                black_box(blocks.iter().last());
            }
            Part::Bye(bye) => {
                black_box(bye.contains(1));
            }
            Part::Other => {}
        }
    }
}

/// Drives a session: each operation is an octet that says what, one that says how long after the last
/// one, and up to 255 octets behind their count.
pub fn session(mut bytes: &[u8]) {
    let remote: SocketAddr = ([192, 0, 2, 1], 4_000).into();
    let stranger: SocketAddr = ([203, 0, 113, 1], 1).into();
    let mut now = Instant::now();
    let config = SessionConfig {
        ssrc: 1,
        cname: "fuzz@example.test".to_owned(),
        clock_rate: 8_000,
        payload_type: 0,
        event_payload_type: Some(101),
        accepted_payload_types: [Some(0), Some(8), None, None],
        remote_rtp: remote,
        remote_rtcp: remote,
        rtcp_mux: true,
        jitter_depth: Duration::from_millis(20),
        seed: 7,
    };
    let mut session = Session::new(now, config);
    while let [what, wait, len, rest @ ..] = bytes {
        let (datagram, behind) = rest.split_at(rest.len().min(usize::from(*len)));
        bytes = behind;
        now += Duration::from_millis(u64::from(*wait) * 4);
        let from = if what & 0x80 == 0 { remote } else { stranger };
        match what & 7 {
            0..=3 => drop(session.handle_rtp(now, from, datagram)),
            4 => drop(session.handle_rtcp(now, from, datagram)),
            5 => drop(session.pop(now)),
            6 if datagram.is_empty() => drop(session.next_header(now, 160, 160)),
            6 => {
                let who = [Contributor {
                    ssrc: 1,
                    level: datagram[0],
                }; CONTRIBUTORS_MAX + 1];
                let who = &who[..datagram.len().min(who.len())];
                session.next_mixed_header(
                    now,
                    160,
                    160,
                    (who, LEVELS_ID),
                    &mut [0; MIXED_HEADER_LEN_MAX],
                );
            }
            _ => drop(session.poll_report(now, u64::from(*wait), &mut [0; RTCP_LEN_MAX])),
        }
    }
    let _ = (
        session.stats(),
        session.destination(),
        session.rtcp_destination(),
    );
    session.write_bye(now, 0, &mut [0; RTCP_LEN_MAX]);
}
