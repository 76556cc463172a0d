//! One caller: the packets he sends, and what he counts of those he gets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::io::SocketId;

use super::RATE;
use super::listener::{Ear, Listener};
use super::media::Place;
use super::signalling::Stream;

/// A listener who gets nothing for this long is starved.
const STARVED: Duration = Duration::from_millis(100);

/// What one caller counted while measuring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    /// Gaps in the sequence numbers. A packet that was never made has none.
    pub(crate) lost: u64,
    /// Packets that came more than a packet's duration after their time.
    pub(super) late: u64,
    /// Times he got nothing for 100 ms.
    starved: u64,
    /// Interarrival jitter in µs (RFC 3550 A.8).
    pub(super) jitter_us: f64,
}

/// Small, for there are thousands and each is touched a hundred times a second; whoever listens
/// closely has that elsewhere.
pub(crate) struct Caller {
    pub(super) room: usize,
    pub(super) talker: Option<usize>,
    /// The server he is on, where there are several.
    pub(super) home: usize,
    pub(super) socket: SocketId,
    pub(super) stream: Stream,
    ptime: Duration,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    counting: bool,
    counts: Counts,
    last: Option<(Instant, u16)>,
    pub(super) listener: Option<Box<Listener>>,
    /// He has hung up.
    pub(super) left: bool,
}

impl Caller {
    pub(super) fn new(
        place: Place,
        socket: SocketId,
        stream: Stream,
        ptime: Duration,
        random: u64,
    ) -> Self {
        Self {
            room: place.room,
            talker: place.talker,
            home: place.home,
            socket,
            stream,
            ptime,
            sequence: random as u16,
            timestamp: (random >> 16) as u32,
            ssrc: (random >> 32) as u32,
            counting: false,
            counts: Counts::default(),
            last: None,
            listener: None,
            left: false,
        }
    }

    /// Who got nothing at all has no gaps to count, and is starved once.
    pub(crate) fn starved(&self) -> u64 {
        self.counts.starved + u64::from(self.counts.received == 0)
    }

    pub(super) fn ear(&self) -> Ear {
        Ear {
            room: self.room,
            himself: self.talker,
            home: self.home,
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Packets in which he heard himself, if he listens.
    pub(crate) fn echoes(&self) -> u64 {
        self.listener.as_ref().map_or(0, |listener| listener.echoes)
    }

    pub(super) fn begin_measuring(&mut self) {
        self.counting = true;
        self.counts = Counts::default();
        if let Some(listener) = &mut self.listener {
            listener.echoes = 0;
        }
        self.last = None;
    }

    pub(super) fn end_measuring(&mut self) {
        self.counting = false;
    }

    pub(super) fn counting(&self) -> bool {
        self.counting
    }

    /// The header of the next packet. Without one his time goes on all the same.
    pub(super) fn next_header(&mut self) -> [u8; rtp::HEADER_LEN] {
        let header = rtp::Header {
            marker: false,
            payload_type: self.stream.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self
            .timestamp
            .wrapping_add(self.ptime.as_millis() as u32 * RATE / 1_000);
        header.write()
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.stream.remote
    }

    /// Counts a packet that came.
    pub(super) fn count(&mut self, now: Instant, sequence: u16) {
        if !self.counting {
            return;
        }
        let counts = &mut self.counts;
        counts.received += 1;
        if let Some((before, last)) = self.last.replace((now, sequence)) {
            // A step backwards is reordering, which loopback does not do; it would show as a huge loss.
            counts.lost += u64::from(sequence.wrapping_sub(last).wrapping_sub(1));
            let spacing = now.saturating_duration_since(before);
            let deviation = spacing.abs_diff(self.ptime).as_secs_f64() * 1e6;
            counts.jitter_us += (deviation - counts.jitter_us) / 16.0;
            counts.late += u64::from(spacing > self.ptime * 2);
            counts.starved += u64::from(spacing > STARVED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        use engine::io::plain::PlainIo;
        use engine::io::{MediaIo, Token};
        let here = "127.0.0.1:0".parse().unwrap();
        let socket = PlainIo::new().unwrap().open(here, Token(0)).unwrap();
        let stream = Stream {
            remote: here,
            payload_type: 0,
        };
        let ptime = Duration::from_millis(20);
        let place = Place {
            room: 0,
            talker: None,
            home: 0,
        };
        let mut caller = Caller::new(place, socket, stream, ptime, u64::from(u16::MAX));
        caller.begin_measuring();
        caller
    }

    #[test]
    fn losses_lateness_and_starvation_are_told_apart() {
        let mut caller = caller();
        let start = Instant::now();
        // 65534 and 65535, one lost, then on time, late, and after a silence.
        for (ms, sequence) in [
            (0, 65_534),
            (20, 65_535),
            (60, 1),
            (80, 2),
            (125, 3),
            (300, 4),
        ] {
            caller.count(start + Duration::from_millis(ms), sequence);
        }
        let counts = caller.counts();
        assert_eq!(
            (counts.received, counts.lost, counts.late, counts.starved),
            (6, 1, 2, 1)
        );
    }

    #[test]
    fn jitter_is_that_of_the_rfc() {
        let mut caller = caller();
        let mut now = Instant::now();
        for sequence in 0..500 {
            caller.count(now, sequence);
            // Alternately 2 ms early and late: every spacing is 4 ms off.
            now += Duration::from_millis(if sequence % 2 == 0 { 24 } else { 16 });
        }
        assert!((caller.counts().jitter_us - 4_000.0).abs() < 1.0);
    }

    #[test]
    fn headers_count_over_the_wrap() {
        let mut caller = caller();
        let first = caller.next_header();
        let second = caller.next_header();
        let [first, second] =
            [first, second].map(|header| rtp::Packet::parse(&header).unwrap().sequence);
        assert_eq!((first, second), (u16::MAX, 0));
    }
}
