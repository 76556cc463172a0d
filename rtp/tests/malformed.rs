//! Damaged packets: every truncation and every value of every octet of valid ones, and streams of them.
//! Nothing panics, and what comes out of the damage lies within the datagram.

use rtp::{Header, fuzz};

fn audio(sequence: u16, timestamp: u32) -> Vec<u8> {
    let header = Header {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc: 7,
    };
    [&header.write()[..], &[0xFF; 20]].concat()
}

/// A packet with everything a header can have: two sources, an extension and padding.
fn full() -> Vec<u8> {
    [
        &[0x80 | 0x20 | 0x10 | 2, 0x80, 0x12, 0x34][..],
        &[0, 0, 1, 0, 0xDE, 0xAD, 0xBE, 0xEF],
        &[0, 0, 0, 1, 0, 0, 0, 2],
        &[0xBE, 0xDE, 0, 2, 0x11, 30, 40, 0, 0, 0, 0, 0],
        b"audio",
        &[0, 0, 3],
    ]
    .concat()
}

fn telephone_event() -> Vec<u8> {
    let mut packet = audio(101, 16_160);
    packet[1] = 0x80 | 101;
    packet.truncate(12);
    packet.extend([5, 0x8A, 3, 32]);
    packet
}

/// SR with two blocks, SDES, an application's part, BYE with a reason.
fn compound() -> Vec<u8> {
    [
        &[0x82, 200, 0, 18, 0, 0, 0, 7][..],
        &[1; 20],
        &[
            0, 0, 0, 1, 12, 0, 0, 3, 0, 1, 0, 9, 0, 0, 0, 4, 5, 6, 7, 8, 0, 0, 1, 0,
        ],
        &[
            0, 0, 0, 2, 12, 0, 0, 3, 0, 1, 0, 9, 0, 0, 0, 4, 5, 6, 7, 8, 0, 0, 1, 0,
        ],
        &[0x81, 202, 0, 3, 0, 0, 0, 7, 1, 3, b'a', b'@', b'b', 0, 0, 0],
        &[0x80, 204, 0, 2, 0, 0, 0, 7, b'n', b'a', b'm', b'e'],
        &[0x81, 203, 0, 2, 0, 0, 0, 7, 3, b'e', b'n', b'd'],
    ]
    .concat()
}

/// Every truncation, every value of every octet, and both octets of a pair at their extremes.
fn damage(valid: &[u8], mut check: impl FnMut(&[u8])) {
    check(valid);
    for len in 0..valid.len() {
        check(&valid[..len]);
    }
    let mut bytes = valid.to_vec();
    for at in 0..valid.len() {
        for value in 0..=255 {
            bytes[at] = value;
            check(&bytes);
        }
        for other in at + 1..valid.len() {
            for (left, right) in [(0, 0), (0, 255), (255, 0), (255, 255)] {
                (bytes[at], bytes[other]) = (left, right);
                check(&bytes);
            }
            bytes[other] = valid[other];
        }
        bytes[at] = valid[at];
    }
}

/// The operations of [`fuzz::session`]: what, how long after the last one in 4 ms, octets.
fn operation(what: u8, wait: u8, datagram: &[u8]) -> Vec<u8> {
    let len = u8::try_from(datagram.len()).expect("short packets");
    [&[what, wait, len], datagram].concat()
}

const RTP: u8 = 0;
const RTCP: u8 = 4;
const POP: u8 = 5;
const REPORT: u8 = 7;

#[test]
fn no_damaged_packet_panics() {
    for valid in [audio(1, 160), full(), telephone_event()] {
        damage(&valid, fuzz::packet);
    }
}

#[test]
fn no_damaged_compound_packet_panics() {
    damage(&compound(), fuzz::rtcp);
}

#[test]
fn no_damaged_packet_upsets_a_session() {
    let before: Vec<u8> = (98..100)
        .flat_map(|n| operation(RTP, 5, &audio(n, u32::from(n) * 160)))
        .collect();
    let after: Vec<u8> = [
        operation(POP, 5, &[]),
        operation(RTP, 0, &audio(102, 16_320)),
        operation(POP, 5, &[]),
        operation(POP, 255, &[]),
        operation(REPORT, 255, &[]),
        operation(REPORT, 255, &[]),
    ]
    .concat();
    let cases = [
        (RTP, audio(100, 16_000)),
        (RTP, full()),
        (RTP, telephone_event()),
        (RTCP, compound()),
    ];
    for (what, valid) in cases {
        damage(&valid, |datagram| {
            let damaged = operation(what, 5, datagram);
            fuzz::session(&[&before[..], &damaged, &after].concat());
        });
    }
}

#[test]
fn streams_of_noise_panic_nothing() {
    // A linear congruence is noise enough; what matters is that it is the same each time.
    let mut state = 1_u64;
    let mut octet = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for run in 0..2_000_usize {
        let mut bytes: Vec<u8> = (0..run % 700).map(|_| octet()).collect();
        fuzz::packet(&bytes);
        fuzz::rtcp(&bytes);
        fuzz::session(&bytes);
        // And as what begins like RTP of the session's source and payload type.
        for start in (0..bytes.len().saturating_sub(16)).step_by(23) {
            bytes[start..start + 5].copy_from_slice(&[RTP, 5, 20, 0x80, 0]);
            bytes[start + 11..start + 15].copy_from_slice(&[0, 0, 0, 1]);
        }
        fuzz::session(&bytes);
    }
}
