//! One leg against a peer that does whatever peers do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtp::{
    Changes, Discard, DtmfEvent, Header, Packet, Popped, RTCP_LEN_MAX, Received, RtcpReceived,
    Session, SessionConfig,
};

const OURS: u32 = 0x0A;
const THEIRS: u32 = 0x0B;
const EVENT: u8 = 101;
const SDP: &str = "192.0.2.1:4000";
const SDP_RTCP: &str = "192.0.2.1:4001";
const NAT: &str = "198.51.100.7:61000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn config() -> SessionConfig {
    SessionConfig {
        ssrc: OURS,
        cname: "us@example.test".to_owned(),
        clock_rate: 8_000,
        payload_type: 0,
        event_payload_type: Some(EVENT),
        accepted_payload_types: [Some(0), Some(8), None, None],
        remote_rtp: address(SDP),
        remote_rtcp: address(SDP_RTCP),
        rtcp_mux: false,
        jitter_depth: Duration::from_millis(20),
        seed: 42,
    }
}

fn changes() -> Changes {
    Changes {
        payload_type: 0,
        event_payload_type: Some(EVENT),
        accepted_payload_types: [Some(0), Some(8), None, None],
        remote_rtp: address(SDP),
        remote_rtcp: address(SDP_RTCP),
        rtcp_mux: false,
    }
}

struct Leg {
    session: Session,
    start: Instant,
    from: SocketAddr,
    ssrc: u32,
}

impl Leg {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            session: Session::new(start, config()),
            start,
            from: address(SDP),
            ssrc: THEIRS,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn hear_payload(
        &mut self,
        ms: u64,
        payload_type: u8,
        n: u16,
        timestamp: u32,
        payload: &[u8],
    ) -> Received {
        let header = Header {
            marker: false,
            payload_type,
            sequence: n,
            timestamp,
            ssrc: self.ssrc,
        };
        let datagram = [&header.write()[..], payload].concat();
        self.session.handle_rtp(self.at(ms), self.from, &datagram)
    }

    /// The n-th packet of a steady stream.
    fn hear(&mut self, ms: u64, n: u16) -> Received {
        self.hear_payload(ms, 0, n, u32::from(n) * 160, &n.to_be_bytes())
    }

    fn hear_key(&mut self, ms: u64, n: u16, timestamp: u32, key: u8) -> Received {
        self.hear_payload(ms, EVENT, n, timestamp, &[key, 10, 0, 160])
    }

    fn pop(&mut self, ms: u64) -> Option<u16> {
        match self.session.pop(self.at(ms)) {
            Popped::Frame { payload, .. } => Some(u16::from_be_bytes([payload[0], payload[1]])),
            Popped::Lost { .. } | Popped::Empty => None,
        }
    }

    fn report(&mut self, ms: u64, ntp: u64) -> Vec<u8> {
        let mut out = [0; RTCP_LEN_MAX];
        let len = self.session.poll_report(self.at(ms), ntp, &mut out);
        out[..len.expect("due")].to_vec()
    }

    fn hear_rtcp(&mut self, ms: u64, from: &str, datagram: &[u8]) -> RtcpReceived {
        self.session
            .handle_rtcp(self.at(ms), address(from), datagram)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// An empty receiver report, and a goodbye of some sources.
fn goodbye(ssrcs: &[u32]) -> Vec<u8> {
    let count = ssrcs.len() as u8;
    let mut bytes = vec![0x80, 201, 0, 1, 0, 0, 0, 9, 0x80 | count, 203, 0, count];
    bytes.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
    bytes
}

#[test]
fn media_of_the_peer_is_heard_and_counted() {
    let mut leg = Leg::new();
    assert_eq!(leg.session.last_received(), None);
    for n in [1, 2, 4] {
        assert_eq!(leg.hear(u64::from(n) * 20, n), Received::Queued);
    }
    assert_eq!(leg.hear(81, 4), Received::Discarded(Discard::Duplicate));
    assert_eq!(
        (leg.pop(80), leg.pop(100), leg.pop(120)),
        (Some(1), Some(2), None)
    );
    assert_eq!(leg.hear(121, 3), Received::Discarded(Discard::Late));
    assert_eq!(leg.pop(140), Some(4));
    let stats = leg.session.stats();
    assert_eq!((stats.packets_received, stats.bytes_received), (5, 10));
    assert_eq!((stats.duplicates, stats.late, stats.discarded), (1, 1, 0));
    assert_eq!(leg.session.last_received(), Some(leg.at(121)));
}

#[test]
fn what_is_not_the_peers_media_is_refused_with_a_reason() {
    let mut leg = Leg::new();
    leg.hear(0, 1);
    let now = leg.at(1);
    let from = leg.from;
    let refused = [
        leg.session.handle_rtp(now, from, &[0x80; 11]),
        leg.hear_payload(1, 13, 2, 160, b"noise"),
        leg.hear_payload(2, 0, 3, 320, &[0; 1_501]),
        leg.hear_payload(2, EVENT, 4, 320, &[1, 2]),
        {
            leg.from = address(NAT);
            leg.hear(3, 5)
        },
    ];
    let reasons = [
        Discard::Malformed,
        Discard::WrongPayloadType,
        Discard::Overflow,
        Discard::Malformed,
        Discard::WrongSource,
    ];
    assert_eq!(refused, reasons.map(Received::Discarded));
    assert_eq!(leg.session.stats().discarded, 5);
    // Comfort noise and keys were received, and so are not lost.
    assert_eq!(leg.session.stats().lost, 0);
}

#[test]
fn a_peer_behind_a_nat_is_answered_where_it_is() {
    let mut leg = Leg::new();
    leg.from = address(NAT);
    assert_eq!(leg.session.destination(), address(SDP));
    assert_eq!(leg.session.rtcp_destination(), address(SDP_RTCP));
    assert_eq!(leg.hear(0, 1), Received::Discarded(Discard::Probation));
    assert_eq!(leg.hear(20, 2), Received::Queued);
    assert_eq!(leg.session.destination(), address(NAT));
    // RTCP goes beside until a report tells better; a stranger's tells nothing.
    assert_eq!(
        leg.session.rtcp_destination(),
        address("198.51.100.7:61001")
    );
    let report = [0x80, 201, 0, 1, 0, 0, 0, THEIRS as u8];
    assert_eq!(
        leg.hear_rtcp(30, "203.0.113.5:1", &report),
        RtcpReceived::Discarded
    );
    assert_eq!(
        leg.hear_rtcp(30, "198.51.100.7:50999", &report),
        RtcpReceived::Report
    );
    assert_eq!(
        leg.session.rtcp_destination(),
        address("198.51.100.7:50999")
    );
    // An address that is right, or new, has its own RTCP again.
    let terms = Changes {
        remote_rtp: address("192.0.2.2:4000"),
        ..changes()
    };
    leg.session.reconfigure(leg.at(40), terms);
    assert_eq!(leg.session.rtcp_destination(), address(SDP_RTCP));
    leg.hear(60, 3);
    leg.hear(80, 4);
    assert_eq!(
        leg.session.rtcp_destination(),
        address("198.51.100.7:61001")
    );
    // Together with RTP, there is one address.
    let terms = Changes {
        rtcp_mux: true,
        remote_rtp: address("192.0.2.2:4000"),
        ..changes()
    };
    leg.session.reconfigure(leg.at(100), terms);
    assert_eq!(leg.session.rtcp_destination(), address(NAT));
}

#[test]
fn what_nobody_agreed_on_proves_no_address() {
    let mut leg = Leg::new();
    leg.from = address(NAT);
    for n in 0..10 {
        let heard = leg.hear_payload(u64::from(n) * 20, 77, n, 0, b"x");
        assert_eq!(heard, Received::Discarded(Discard::WrongPayloadType));
    }
    assert_eq!(leg.session.destination(), address(SDP));
}

#[test]
fn a_key_is_told_once_and_not_heard() {
    let mut leg = Leg::new();
    leg.hear(0, 1);
    leg.hear(20, 2);
    assert_eq!((leg.pop(20), leg.pop(40)), (Some(1), Some(2)));
    let told = Received::Event(DtmfEvent {
        event: 5,
        duration: 160,
        end: false,
    });
    assert_eq!(leg.hear_key(40, 3, 480, 5), told);
    for n in 4..8 {
        assert_eq!(
            leg.hear_key(u64::from(n) * 20, n, 480, 5),
            Received::EventRepeated
        );
        assert_eq!(leg.pop(u64::from(n) * 20), None);
    }
    // Speech goes on with neither loss nor jitter from the keys.
    assert_eq!(leg.hear(140, 8), Received::Queued);
    assert_eq!(leg.hear(160, 9), Received::Queued);
    assert_eq!((leg.pop(160), leg.pop(180)), (Some(8), Some(9)));
    let stats = leg.session.stats();
    assert_eq!((stats.lost, stats.jitter, stats.discarded), (0, 0, 0));
    assert_eq!(stats.packets_received, 9);
}

#[test]
fn keys_with_a_source_of_their_own_do_not_make_it_the_speaker() {
    let mut leg = Leg::new();
    for n in 1..20 {
        assert_eq!(leg.hear(u64::from(n) * 20, n), Received::Queued);
        leg.ssrc = 0xD7;
        let key = leg.hear_key(u64::from(n) * 20, 500 + n, 9_000, 1);
        assert_eq!(key == Received::EventRepeated, n > 1, "{key:?}");
        leg.ssrc = THEIRS;
    }
    assert_eq!(leg.session.stats().lost, 0);
}

#[test]
fn a_sender_that_restarts_is_heard_after_two_packets() {
    let mut leg = Leg::new();
    for n in [10, 11, 13] {
        leg.hear(u64::from(n) * 20, n);
    }
    // Its numbers and its clock go on, and yet it is another stream.
    leg.ssrc = 0xC;
    assert_eq!(leg.hear(280, 14), Received::Discarded(Discard::Probation));
    assert_eq!(leg.hear(300, 15), Received::Restarted);
    assert_eq!(leg.hear(320, 16), Received::Queued);
    assert_eq!(
        (leg.pop(319), leg.pop(320), leg.pop(340)),
        (None, Some(15), Some(16))
    );
    let stats = leg.session.stats();
    assert_eq!(stats.lost, 1, "of the source before");
    assert_eq!(stats.dropped, 3, "what waited of it");
}

#[test]
fn two_streams_to_one_port_do_not_take_turns() {
    let mut leg = Leg::new();
    let mut restarts = 0;
    for n in 0..200 {
        for (ssrc, first) in [(0xC, 0), (0xD, 5_000)] {
            leg.ssrc = ssrc;
            let heard = leg.hear(u64::from(n) * 20, first + n);
            restarts += u32::from(heard == Received::Restarted);
        }
    }
    assert_eq!(restarts, 1);
    // The one that goes on is heard again when the other falls silent.
    leg.ssrc = 0xC;
    let heard: Vec<_> = (200..260).map(|n| leg.hear(u64::from(n) * 20, n)).collect();
    assert!(heard.contains(&Received::Restarted) && heard.last() == Some(&Received::Queued));
}

#[test]
fn a_stray_number_does_not_empty_the_buffer() {
    let mut leg = Leg::new();
    leg.hear(0, 1);
    leg.hear(20, 2);
    assert_eq!(
        leg.hear(25, 40_000),
        Received::Discarded(Discard::Probation)
    );
    assert_eq!((leg.pop(25), leg.pop(45)), (Some(1), Some(2)));
    // Two in sequence are a restart.
    assert_eq!(
        leg.hear(60, 50_000),
        Received::Discarded(Discard::Probation)
    );
    assert_eq!(leg.hear(80, 50_001), Received::Queued);
    assert_eq!(leg.pop(100), Some(50_001));
}

#[test]
fn what_we_send_counts_on() {
    let mut leg = Leg::new();
    let read = |header: [u8; rtp::HEADER_LEN]| {
        let packet = Packet::parse(&header).unwrap();
        (
            packet.marker,
            packet.payload_type,
            packet.sequence,
            packet.timestamp,
        )
    };
    let now = leg.at(0);
    let (marker, _, sequence, timestamp) = read(leg.session.next_header(now, 160, 160));
    assert!(marker, "a talk spurt begins");
    let expect = |marker, payload_type, packets: u16, ticks: u32| {
        (
            marker,
            payload_type,
            sequence.wrapping_add(packets),
            timestamp.wrapping_add(ticks),
        )
    };
    assert_eq!(
        read(leg.session.next_header(now, 160, 160)),
        expect(false, 0, 1, 160)
    );
    // On hold the media clock runs, the numbers do not.
    leg.session.skip(800);
    leg.session.skip(800);
    assert_eq!(
        read(leg.session.next_header(now, 160, 160)),
        expect(true, 0, 2, 320 + 1_600)
    );
    // New terms are new terms for the same source.
    let terms = Changes {
        payload_type: 8,
        ..changes()
    };
    leg.session.reconfigure(now, terms);
    assert_eq!(
        read(leg.session.next_header(now, 80, 80)),
        expect(true, 8, 3, 480 + 1_600)
    );
    assert_eq!(
        read(leg.session.next_header(now, 80, 80)),
        expect(false, 8, 4, 560 + 1_600)
    );
    let stats = leg.session.stats();
    assert_eq!((stats.packets_sent, stats.bytes_sent), (5, 640));
}

#[test]
fn sessions_of_different_seeds_begin_differently() {
    let first = |seed| {
        let now = Instant::now();
        Session::new(now, SessionConfig { seed, ..config() }).next_header(now, 160, 160)
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}

#[test]
fn a_new_address_in_the_sdp_is_followed_at_once() {
    let mut leg = Leg::new();
    leg.hear(0, 1);
    let moved = "192.0.2.99:7000";
    let terms = Changes {
        remote_rtp: address(moved),
        ..changes()
    };
    leg.session.reconfigure(leg.at(10), terms);
    assert_eq!(leg.session.destination(), address(moved));
    leg.from = address(moved);
    assert_eq!(leg.hear(20, 2), Received::Queued);
}

#[test]
fn payload_types_of_new_terms_are_heard_and_old_ones_are_not() {
    let mut leg = Leg::new();
    leg.hear(0, 1);
    let terms = Changes {
        accepted_payload_types: [Some(9), None, None, None],
        ..changes()
    };
    leg.session.reconfigure(leg.at(1), terms);
    assert_eq!(
        leg.hear(20, 2),
        Received::Discarded(Discard::WrongPayloadType)
    );
    assert_eq!(leg.hear_payload(40, 9, 3, 480, b"ok"), Received::Queued);
}

#[test]
fn who_sends_makes_sender_reports_and_who_listens_makes_receiver_reports() {
    let mut leg = Leg::new();
    leg.hear(0, 7);
    let now = leg.at(1_000);
    let header = leg.session.next_header(now, 160, 160);
    let sent_at = Packet::parse(&header).unwrap().timestamp;
    assert!(leg.session.next_report_at() < leg.at(5_000));
    let report = leg.report(4_000, 0xAAAA_BBBB_CCCC_DDDD);
    assert_eq!((report[0], report[1]), (0x81, 200));
    assert_eq!(word(&report, 4), OURS);
    assert_eq!(
        (word(&report, 8), word(&report, 12)),
        (0xAAAA_BBBB, 0xCCCC_DDDD)
    );
    // Three seconds after the packet, the media clock shows three seconds more.
    assert_eq!(word(&report, 16), sent_at.wrapping_add(24_000));
    assert_eq!((word(&report, 20), word(&report, 24)), (1, 160));
    assert_eq!((word(&report, 28), word(&report, 36)), (THEIRS, 7));
    // Nothing was sent since.
    let report = leg.report(60_000, 0);
    assert_eq!((report[0], report[1]), (0x81, 201));
    assert!(leg.session.next_report_at() > leg.at(60_000));
    let now = leg.at(60_001);
    assert_eq!(
        leg.session.poll_report(now, 0, &mut [0; RTCP_LEN_MAX]),
        None
    );
}

#[test]
fn before_anybody_speaks_a_report_has_no_block() {
    let mut leg = Leg::new();
    let report = leg.report(5_000, 0);
    assert_eq!(report[..8], [0x80, 201, 0, 1, 0, 0, 0, OURS as u8]);
}

#[test]
fn reports_of_the_peer_tell_of_our_stream_only() {
    let mut leg = Leg::new();
    let now = leg.at(4_000);
    leg.session.next_header(now, 160, 160);
    leg.report(4_000, 0x1122_3344_0000);
    // Half lost; of our last report, kept for half a second.
    let report = |ssrc: u32, fraction: u8, last_sr: u32| {
        let mut bytes = vec![0x81, 201, 0, 7, 0, 0, 0, THEIRS as u8];
        bytes.extend(ssrc.to_be_bytes());
        bytes.extend([fraction, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 0]);
        bytes.extend(last_sr.to_be_bytes());
        bytes.extend(32_768_u32.to_be_bytes());
        bytes
    };
    let told = |leg: &Leg| {
        let stats = leg.session.stats();
        (stats.peer_fraction_lost, stats.round_trip)
    };
    leg.hear_rtcp(4_540, SDP_RTCP, &report(0xEE, 99, 0x1122_3344));
    assert_eq!(told(&leg), (0, None));
    leg.hear_rtcp(4_540, SDP_RTCP, &report(OURS, 128, 0x1122_3344));
    let trip = Some(Duration::from_millis(40));
    assert_eq!(told(&leg), (128, trip));
    // Without a report of ours to speak of, the round trip stays what it was.
    leg.hear_rtcp(4_900, SDP_RTCP, &report(OURS, 1, 0));
    assert_eq!(told(&leg), (1, trip));
}

#[test]
fn a_goodbye_is_that_of_the_source_that_is_heard() {
    let mut leg = Leg::new();
    leg.hear(0, 1);
    assert_eq!(
        leg.hear_rtcp(1, SDP_RTCP, &goodbye(&[0xC])),
        RtcpReceived::Report
    );
    assert_eq!(
        leg.hear_rtcp(2, SDP_RTCP, &goodbye(&[0xC, THEIRS])),
        RtcpReceived::Bye
    );
    // Ours names our source, behind a report.
    let mut out = [0; RTCP_LEN_MAX];
    let len = leg.session.write_bye(leg.at(3), 0, &mut out);
    assert_eq!(out[len - 8..len], [0x81, 203, 0, 1, 0, 0, 0, OURS as u8]);
    assert_eq!((out[0], out[1]), (0x81, 201));
}

#[test]
fn rtcp_of_strangers_and_noise_are_refused() {
    let mut leg = Leg::new();
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    assert_eq!(leg.hear_rtcp(0, NAT, &report), RtcpReceived::Discarded);
    assert_eq!(
        leg.hear_rtcp(0, SDP_RTCP, &report[..7]),
        RtcpReceived::Discarded
    );
    assert_eq!(leg.session.last_received(), None);
    assert_eq!(leg.hear_rtcp(5, SDP_RTCP, &report), RtcpReceived::Report);
    assert_eq!(leg.session.last_received(), Some(leg.at(5)));
    assert_eq!(leg.session.stats().discarded, 2);
}

#[test]
fn rtcp_may_come_from_a_host_of_its_own() {
    // RFC 3605: `a=rtcp` may name another host than that of RTP.
    const APART: &str = "192.0.2.77:4001";
    const MOVED: &str = "192.0.2.78:4001";
    let mut leg = Leg::new();
    leg.hear(0, 1);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    let reconfigure = |leg: &mut Leg, remote_rtcp: &str| {
        let changes = Changes {
            remote_rtcp: address(remote_rtcp),
            ..changes()
        };
        leg.session.reconfigure(leg.start, changes);
    };
    assert_eq!(leg.hear_rtcp(1, APART, &report), RtcpReceived::Discarded);
    reconfigure(&mut leg, APART);
    assert_eq!(leg.hear_rtcp(2, APART, &report), RtcpReceived::Report);
    assert_eq!(leg.session.rtcp_destination(), address(APART));
    // Only that port of it: nothing else there is the peer's.
    let beside = "192.0.2.77:4003";
    assert_eq!(leg.hear_rtcp(3, beside, &report), RtcpReceived::Discarded);
    reconfigure(&mut leg, MOVED);
    assert_eq!(leg.hear_rtcp(4, APART, &report), RtcpReceived::Discarded);
    assert_eq!(leg.hear_rtcp(5, MOVED, &report), RtcpReceived::Report);
}
