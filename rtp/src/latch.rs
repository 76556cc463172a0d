//! Symmetric RTP: where a peer really is.
//!
//! The address in SDP may be behind a NAT, so packets go to where plausible packets come from. Rules:
//!
//! 1. Until anybody is heard, the address of the SDP is the destination.
//! 2. A packet from exactly that address is accepted at once, and latches it.
//! 3. Anybody else has to send [`MIN_SEQUENTIAL`] consecutive packets of one source (RFC 3550 A.1), and
//!    is listened to only while nobody is latched or the latched one has been silent for [`SILENCE`].
//! 4. The address of the SDP takes over from another latched one only within [`WINDOW`] of that latch: a
//!    stranger may have been quicker than the peer, but later the latch is the peer.
//! 5. A new address in the SDP (re-INVITE) starts over; the same one changes nothing.
//!
//! One candidate is remembered, the latest, however many strangers send.
//!
//! Not here: proof. Whoever sees the path can forge packets; only SRTP tells them from the peer's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::source::MIN_SEQUENTIAL;

/// A latched peer that says nothing for this long may have moved: longer than pauses of senders that
/// suppress silence but keep a port open, shorter than a caller's patience.
const SILENCE: Duration = Duration::from_secs(3);

/// How long the address of the SDP may still come forward.
const WINDOW: Duration = Duration::from_secs(5);

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// It may be the peer; the next one will tell.
    Probation,
    Reject,
}

/// Where one peer's packets come from, and ours go to.
#[derive(Clone, Debug)]
pub struct Latch {
    expected: SocketAddr,
    latched: Option<Latched>,
    candidate: Option<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Latched {
    address: SocketAddr,
    since: Instant,
    last: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    address: SocketAddr,
    ssrc: u32,
    next_sequence: u16,
    sequential: u8,
}

impl Latch {
    /// `expected` is the address of the SDP.
    pub fn new(expected: SocketAddr) -> Self {
        Self {
            expected,
            latched: None,
            candidate: None,
        }
    }

    /// Judges a packet by its source address, and follows the peer.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, ssrc: u32, sequence: u16) -> Verdict {
        if let Some(latched) = &mut self.latched
            && latched.address == from
        {
            latched.last = now;
            return Verdict::Accept;
        }
        let comes_forward = |latched: &Latched| {
            from == self.expected && now.saturating_duration_since(latched.since) < WINDOW
        };
        if !self.is_open(now) && !self.latched.as_ref().is_some_and(comes_forward) {
            return Verdict::Reject;
        }
        if from == self.expected || self.is_proven(from, ssrc, sequence) {
            self.latched = Some(Latched {
                address: from,
                since: now,
                last: now,
            });
            self.candidate = None;
            return Verdict::Accept;
        }
        Verdict::Probation
    }

    /// Anybody may come forward: nobody is latched, or has been silent for long.
    pub fn is_open(&self, now: Instant) -> bool {
        self.latched
            .is_none_or(|latched| now.saturating_duration_since(latched.last) >= SILENCE)
    }

    /// Where to send.
    pub fn destination(&self) -> SocketAddr {
        self.latched
            .map_or(self.expected, |latched| latched.address)
    }

    /// Packets from here have been accepted, and were the latest to be.
    pub fn is_latched(&self, address: SocketAddr) -> bool {
        self.latched
            .is_some_and(|latched| latched.address == address)
    }

    /// The peer is where the SDP says, not somewhere behind a NAT.
    pub fn is_where_expected(&self) -> bool {
        self.destination() == self.expected
    }

    /// A new SDP. One that says the same address changes nothing.
    pub fn expect(&mut self, expected: SocketAddr) {
        if expected != self.expected {
            *self = Self::new(expected);
        }
    }

    fn is_proven(&mut self, address: SocketAddr, ssrc: u32, sequence: u16) -> bool {
        let next = Candidate {
            address,
            ssrc,
            next_sequence: sequence.wrapping_add(1),
            sequential: 1,
        };
        let candidate = self.candidate.get_or_insert(next);
        if (candidate.address, candidate.ssrc) == (address, ssrc) {
            if candidate.next_sequence == sequence {
                candidate.sequential += 1;
                candidate.next_sequence = sequence.wrapping_add(1);
            } else {
                *candidate = next;
            }
        } else {
            *candidate = next;
        }
        candidate.sequential >= MIN_SEQUENTIAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    struct Scene {
        latch: Latch,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                latch: Latch::new(address("192.0.2.1:4000")),
                start: Instant::now(),
            }
        }

        fn hear(&mut self, after_ms: u64, from: &str, sequence: u16) -> Verdict {
            self.latch.handle(
                self.start + Duration::from_millis(after_ms),
                address(from),
                7,
                sequence,
            )
        }
    }

    const SDP: &str = "192.0.2.1:4000";
    const NAT: &str = "198.51.100.1:9999";
    const EVE: &str = "203.0.113.66:1";

    #[test]
    fn the_address_of_the_sdp_is_believed_at_once() {
        let mut scene = Scene::new();
        assert_eq!(scene.latch.destination(), address(SDP));
        assert_eq!(scene.hear(0, SDP, 1), Verdict::Accept);
        assert_eq!(scene.hear(20, EVE, 1), Verdict::Reject);
        assert_eq!(scene.hear(40, EVE, 2), Verdict::Reject);
        assert_eq!(scene.latch.destination(), address(SDP));
    }

    #[test]
    fn a_peer_behind_a_nat_is_found_after_two_packets() {
        let mut scene = Scene::new();
        assert_eq!(scene.hear(0, NAT, 65_535), Verdict::Probation);
        assert_eq!(scene.latch.destination(), address(SDP));
        assert_eq!(scene.hear(20, NAT, 0), Verdict::Accept);
        assert_eq!(scene.latch.destination(), address(NAT));
        assert!(scene.latch.is_latched(address(NAT)) && !scene.latch.is_latched(address(SDP)));
        assert!(!scene.latch.is_where_expected());
    }

    #[test]
    fn noise_from_elsewhere_proves_nothing() {
        let mut scene = Scene::new();
        for sequence in [1, 5, 9, 200, 4] {
            assert_eq!(scene.hear(0, EVE, sequence), Verdict::Probation);
        }
        // Two strangers in turn are no source in sequence.
        assert_eq!(scene.hear(0, EVE, 10), Verdict::Probation);
        assert_eq!(scene.hear(0, NAT, 11), Verdict::Probation);
        assert_eq!(scene.hear(0, EVE, 11), Verdict::Probation);
        // Nor are two sources at one address.
        let other = scene.latch.handle(scene.start, address(EVE), 8, 12);
        assert_eq!(other, Verdict::Probation);
    }

    #[test]
    fn the_right_peer_displaces_a_quicker_stranger_but_not_later() {
        let mut scene = Scene::new();
        scene.hear(0, EVE, 1);
        assert_eq!(scene.hear(1, EVE, 2), Verdict::Accept);
        assert_eq!(scene.hear(100, SDP, 1), Verdict::Accept);
        assert_eq!(scene.hear(101, EVE, 3), Verdict::Reject);

        let mut scene = Scene::new();
        for packet in 0..400 {
            scene.hear(u64::from(packet) * 20, NAT, packet);
        }
        assert_eq!(scene.hear(8_000, SDP, 1), Verdict::Reject);
    }

    #[test]
    fn a_peer_that_moved_is_followed_after_silence() {
        let mut scene = Scene::new();
        scene.hear(0, SDP, 1);
        assert_eq!(scene.hear(2_900, NAT, 1), Verdict::Reject);
        assert_eq!(scene.hear(3_100, NAT, 2), Verdict::Probation);
        assert_eq!(scene.hear(3_120, NAT, 3), Verdict::Accept);
    }

    #[test]
    fn a_new_sdp_starts_over_and_the_same_one_does_not() {
        let mut scene = Scene::new();
        scene.hear(0, NAT, 1);
        scene.hear(1, NAT, 2);
        scene.latch.expect(address(SDP));
        assert_eq!(scene.latch.destination(), address(NAT));
        scene.latch.expect(address("192.0.2.9:4000"));
        assert_eq!(scene.latch.destination(), address("192.0.2.9:4000"));
        // What was half proven for the old terms proves nothing for the new ones.
        assert_eq!(scene.hear(2, NAT, 3), Verdict::Probation);
        assert_eq!(scene.hear(3, "192.0.2.9:4000", 9), Verdict::Accept);
    }

    #[test]
    fn a_stranger_who_never_stops_gets_nothing_while_the_peer_speaks() {
        let mut scene = Scene::new();
        for packet in 0..2_000 {
            let ms = u64::from(packet) * 20;
            assert_eq!(scene.hear(ms, SDP, packet), Verdict::Accept);
            assert_eq!(scene.hear(ms + 1, EVE, packet), Verdict::Reject);
        }
        assert_eq!(scene.latch.destination(), address(SDP));
    }
}
