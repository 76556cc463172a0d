//! HEP3 packets (HEP3 Network Protocol Specification, revision 37), as Homer and others take them.
//!
//! ```text
//!   "HEP3"  length of all (u16)   then chunks:   vendor (u16)  type (u16)  length of all this (u16)  payload
//! ```

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use sip::Transport;

use super::{Direction, Record};

/// Largest UDP payload, which is also below the largest length a packet can state.
const PACKET_LEN_MAX: usize = 65_507;

/// Types of generic chunks (vendor 0).
mod chunk {
    pub(super) const FAMILY: u16 = 0x01;
    pub(super) const PROTOCOL: u16 = 0x02;
    pub(super) const SOURCE_V4: u16 = 0x03;
    pub(super) const DESTINATION_V4: u16 = 0x04;
    pub(super) const SOURCE_V6: u16 = 0x05;
    pub(super) const DESTINATION_V6: u16 = 0x06;
    pub(super) const SOURCE_PORT: u16 = 0x07;
    pub(super) const DESTINATION_PORT: u16 = 0x08;
    pub(super) const SECONDS: u16 = 0x09;
    pub(super) const MICROSECONDS: u16 = 0x0A;
    pub(super) const PAYLOAD_TYPE: u16 = 0x0B;
    pub(super) const AGENT: u16 = 0x0C;
    pub(super) const KEY: u16 = 0x0E;
    pub(super) const PAYLOAD: u16 = 0x0F;
    pub(super) const CORRELATION: u16 = 0x11;
}

/// Protocol families as in `sys/socket.h` of Linux.
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// IP protocol numbers.
const UDP: u8 = 17;
const TCP: u8 = 6;

const PAYLOAD_SIP: u8 = 1;

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agent<'a> {
    pub(super) id: u32,
    pub(super) password: Option<&'a str>,
}

/// Writes the packet for `record`, whose content is `payload`, into `packet`, which is emptied first.
/// False: it would be larger than a datagram.
pub(super) fn encode(
    packet: &mut Vec<u8>,
    agent: Agent<'_>,
    record: &Record,
    payload: &[u8],
    call_id: Option<&[u8]>,
) -> bool {
    packet.clear();
    packet.extend_from_slice(b"HEP3\0\0");
    let (peer, local) = (record.flow.peer, record.local);
    let (source, destination) = match record.direction {
        Direction::In => (peer, local),
        Direction::Out => (local, peer),
    };
    let protocol = match record.flow.transport {
        Transport::Udp => UDP,
        _ => TCP,
    };
    let mut put = |kind: u16, content: &[u8]| {
        // Cut lengths are found below, by the length of all.
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&((content.len() + 6) as u16).to_be_bytes());
        packet.extend_from_slice(content);
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(chunk::FAMILY, &[FAMILY_V4]);
            put(chunk::PROTOCOL, &[protocol]);
            put(chunk::SOURCE_V4, &source.octets());
            put(chunk::DESTINATION_V4, &destination.octets());
        }
        // A listener on [::] takes IPv4 as well.
        (source, destination) => {
            put(chunk::FAMILY, &[FAMILY_V6]);
            put(chunk::PROTOCOL, &[protocol]);
            put(chunk::SOURCE_V6, &v6(source));
            put(chunk::DESTINATION_V6, &v6(destination));
        }
    }
    put(chunk::SOURCE_PORT, &source.port().to_be_bytes());
    put(chunk::DESTINATION_PORT, &destination.port().to_be_bytes());
    let since = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // The field ends in 2106.
    put(chunk::SECONDS, &(since.as_secs() as u32).to_be_bytes());
    put(chunk::MICROSECONDS, &since.subsec_micros().to_be_bytes());
    put(chunk::PAYLOAD_TYPE, &[PAYLOAD_SIP]);
    put(chunk::AGENT, &agent.id.to_be_bytes());
    if let Some(password) = agent.password {
        put(chunk::KEY, password.as_bytes());
    }
    if let Some(call_id) = call_id {
        put(chunk::CORRELATION, call_id);
    }
    put(chunk::PAYLOAD, payload);
    let len = packet.len();
    if len > PACKET_LEN_MAX {
        return false;
    }
    packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    true
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::trace::tests::record;

    /// The example of the specification.
    #[rustfmt::skip]
    const EXAMPLE: [u8; 113] = [
        0x48, 0x45, 0x50, 0x33, 0x00, 0x71,
        0, 0, 0, 0x01, 0, 0x07, 0x02,
        0, 0, 0, 0x02, 0, 0x07, 0x11,
        0, 0, 0, 0x03, 0, 0x0a, 0xd4, 0xca, 0x00, 0x01,
        0, 0, 0, 0x04, 0, 0x0a, 0x52, 0x74, 0x00, 0xd3,
        0, 0, 0, 0x07, 0, 0x08, 0x2e, 0xea,
        0, 0, 0, 0x08, 0, 0x08, 0x13, 0xc4,
        0, 0, 0, 0x09, 0, 0x0a, 0x4e, 0x49, 0x82, 0xcb,
        0, 0, 0, 0x0a, 0, 0x0a, 0x00, 0x01, 0xd4, 0xc0,
        0, 0, 0, 0x0b, 0, 0x07, 0x01,
        0, 0, 0, 0x0c, 0, 0x0a, 0x00, 0x00, 0x00, 0xe4,
        0, 0, 0, 0x0f, 0, 0x14, 0x49, 0x4e, 0x56, 0x49, 0x54, 0x45, 0x20, 0x73, 0x69, 0x70, 0x3a, 0x62, 0x6f, 0x62,
    ];

    fn example() -> Record {
        let mut record = record("INVITE sip:bob");
        record.at = UNIX_EPOCH + Duration::new(1_313_440_459, 120_000_000);
        record.flow.peer = "212.202.0.1:12010".parse().unwrap();
        record.local = "82.116.0.211:5060".parse().unwrap();
        record
    }

    fn agent() -> Agent<'static> {
        Agent {
            id: 228,
            password: None,
        }
    }

    #[test]
    fn the_example_of_the_specification() {
        let record = example();
        let mut packet = vec![1; 7];
        assert!(encode(&mut packet, agent(), &record, &record.message, None));
        assert_eq!(packet, EXAMPLE);
    }

    #[test]
    fn what_goes_out_over_tcp_and_ipv6_with_password_and_call() {
        let mut record = example();
        record.direction = Direction::Out;
        record.flow.transport = Transport::Tls;
        record.flow.peer = "[2001:db8::2]:5061".parse().unwrap();
        record.local = "[2001:db8::1]:7000".parse().unwrap();
        record.message = Bytes::from_static(b"SIP/2.0 200 OK");
        let agent = Agent {
            id: 0x0102_0304,
            password: Some("hush"),
        };
        let mut packet = Vec::new();
        assert!(encode(
            &mut packet,
            agent,
            &record,
            &record.message,
            Some(b"a@b")
        ));
        #[rustfmt::skip]
        let expected = [
            &b"HEP3"[..], &[0x00, 0x9c],
            &[0, 0, 0, 0x01, 0, 7, 10],
            &[0, 0, 0, 0x02, 0, 7, 6],
            &[0, 0, 0, 0x05, 0, 22, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0x06, 0, 22, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 0, 0, 0x07, 0, 8, 0x1b, 0x58],
            &[0, 0, 0, 0x08, 0, 8, 0x13, 0xc5],
            &[0, 0, 0, 0x09, 0, 10, 0x4e, 0x49, 0x82, 0xcb],
            &[0, 0, 0, 0x0a, 0, 10, 0x00, 0x01, 0xd4, 0xc0],
            &[0, 0, 0, 0x0b, 0, 7, 1],
            &[0, 0, 0, 0x0c, 0, 10, 1, 2, 3, 4],
            &[0, 0, 0, 0x0e, 0, 10], b"hush",
            &[0, 0, 0, 0x11, 0, 9], b"a@b",
            &[0, 0, 0, 0x0f, 0, 20], b"SIP/2.0 200 OK",
        ]
        .concat();
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let mut record = example();
        record.flow.peer = "[::ffff:212.202.0.1]:12010".parse().unwrap();
        let mut packet = Vec::new();
        assert!(encode(&mut packet, agent(), &record, &record.message, None));
        assert_eq!(packet, EXAMPLE);
        record.local = "[::]:5060".parse().unwrap();
        assert!(encode(&mut packet, agent(), &record, &record.message, None));
        assert_eq!(packet[12], FAMILY_V6);
    }

    #[test]
    fn what_fits_no_datagram_is_refused() {
        let record = example();
        let overhead = EXAMPLE.len() - record.message.len();
        let fits = vec![b'x'; PACKET_LEN_MAX - overhead];
        let mut packet = Vec::new();
        assert!(encode(&mut packet, agent(), &record, &fits, None));
        assert_eq!(packet.len(), PACKET_LEN_MAX);
        for len in [fits.len() + 1, 70_000, 200_000] {
            assert!(!encode(
                &mut packet,
                agent(),
                &record,
                &vec![b'x'; len],
                None
            ));
        }
    }
}
