//! Two legs, one virtual clock, and a network that loses, doubles, delays and overtakes.
//!
//! ```text
//!   left ── 20 ms packets, reports ──> link ──> right      and back
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtp::{Kind, Popped, RTCP_LEN_MAX, Received, RtcpReceived, Session, SessionConfig, classify};

const FRAME_MS: u64 = 20;
const FRAME: u32 = 160;
const DEPTH_MS: u64 = 60;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// What a link does to the datagrams of one direction.
#[derive(Clone, Copy, Default)]
struct Weather {
    delay_ms: u64,
    /// Added at random to each, which reorders what is closer together.
    jitter_ms: u64,
    lost_per_mille: u64,
    twice_per_mille: u64,
}

struct Link {
    weather: Weather,
    random: Random,
    /// By arrival, then by order of sending.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    sent: u64,
    /// RTP packets only.
    lost: u64,
    twice: u64,
}

impl Link {
    fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            random: Random(seed),
            under_way: BTreeMap::new(),
            sent: 0,
            lost: 0,
            twice: 0,
        }
    }

    fn send(&mut self, ms: u64, datagram: &[u8]) {
        let media = classify(datagram) == Kind::Rtp;
        // Reports arrive, so that there is one at the end of each interval to look at.
        let lost = media && self.random.happens(self.weather.lost_per_mille);
        let twice = media && !lost && self.random.happens(self.weather.twice_per_mille);
        self.lost += u64::from(lost);
        self.twice += u64::from(twice);
        for _ in 0..u64::from(!lost) + u64::from(twice) {
            let jitter = self.random.below(self.weather.jitter_ms + 1);
            self.sent += 1;
            self.under_way.insert(
                (ms + self.weather.delay_ms + jitter, self.sent),
                datagram.to_vec(),
            );
        }
    }

    fn arrived(&mut self, ms: u64) -> Option<Vec<u8>> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= ms).then(|| first.remove())
    }
}

/// One end: a session, what it plays, and what it got.
struct End {
    session: Session,
    address: SocketAddr,
    /// Of its 20 ms ticks.
    phase_ms: u64,
    speaks: bool,
    sent: u64,
    played: Vec<u64>,
    lost_ticks: u64,
    silent: u64,
    reports: u64,
    byes: u64,
}

impl End {
    fn new(start: Instant, seed: u64, local: SocketAddr, remote: SocketAddr) -> Self {
        let config = SessionConfig {
            ssrc: seed as u32,
            cname: format!("{seed}@example.test"),
            clock_rate: 8_000,
            payload_type: 0,
            event_payload_type: None,
            accepted_payload_types: [Some(0), None, None, None],
            remote_rtp: remote,
            remote_rtcp: remote,
            rtcp_mux: true,
            jitter_depth: Duration::from_millis(DEPTH_MS),
            seed,
        };
        Self {
            session: Session::new(start, config),
            address: local,
            phase_ms: seed % FRAME_MS,
            speaks: true,
            sent: 0,
            played: Vec::new(),
            lost_ticks: 0,
            silent: 0,
            reports: 0,
            byes: 0,
        }
    }

    fn take(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        match classify(datagram) {
            Kind::Rtp => {
                let received = self.session.handle_rtp(now, from, datagram);
                assert_ne!(received, Received::Restarted);
            }
            Kind::Rtcp => match self.session.handle_rtcp(now, from, datagram) {
                RtcpReceived::Report => self.reports += 1,
                RtcpReceived::Bye => self.byes += 1,
                RtcpReceived::Discarded => panic!("a report of the peer was discarded"),
            },
            other => panic!("{other:?} was never sent"),
        }
    }

    fn hear(&mut self, now: Instant) {
        match self.session.pop(now) {
            Popped::Frame { payload, .. } => {
                let number = payload.try_into().map(u64::from_be_bytes);
                self.played.push(number.expect("eight octets"));
            }
            Popped::Lost { ticks } => self.lost_ticks += u64::from(ticks),
            Popped::Empty => self.silent += 1,
        }
    }

    fn say(&mut self, now: Instant) -> Vec<u8> {
        let payload = self.sent.to_be_bytes();
        self.sent += 1;
        let header = self.session.next_header(now, FRAME, payload.len());
        [&header[..], &payload].concat()
    }

    fn report(&mut self, now: Instant, ntp: u64) -> Option<Vec<u8>> {
        let mut out = [0; RTCP_LEN_MAX];
        let len = self.session.poll_report(now, ntp, &mut out)?;
        Some(out[..len].to_vec())
    }
}

struct Pair {
    start: Instant,
    ms: u64,
    ends: [End; 2],
    /// From each end to the other.
    links: [Link; 2],
}

impl Pair {
    fn new(seed: u64, weather: [Weather; 2]) -> Self {
        let start = Instant::now();
        let [left, right] = ["192.0.2.1:4000", "198.51.100.1:5000"]
            .map(|text| text.parse::<SocketAddr>().expect("an address"));
        Self {
            start,
            ms: 0,
            ends: [
                End::new(start, seed * 2 + 1, left, right),
                End::new(start, seed * 2 + 2, right, left),
            ],
            links: [
                Link::new(weather[0], seed),
                Link::new(weather[1], seed ^ 0xFFFF),
            ],
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    /// The wall clock of an end: they disagree by hours, which must not matter.
    fn ntp(&self, end: usize) -> u64 {
        let ms = self.ms + 1_000_000_000 + end as u64 * 10_000_000;
        (ms << 32) / 1_000
    }

    fn run(&mut self, duration_ms: u64) {
        for _ in 0..duration_ms {
            self.ms += 1;
            let now = self.now();
            for end in 0..2 {
                let peer = self.ends[1 - end].address;
                while let Some(datagram) = self.links[1 - end].arrived(self.ms) {
                    self.ends[end].take(now, peer, &datagram);
                }
                let ntp = self.ntp(end);
                let this = &mut self.ends[end];
                if self.ms % FRAME_MS == this.phase_ms {
                    this.hear(now);
                    if this.speaks {
                        let packet = this.say(now);
                        self.links[end].send(self.ms, &packet);
                    } else {
                        this.session.skip(FRAME);
                    }
                }
                if let Some(report) = this.report(now, ntp) {
                    self.links[end].send(self.ms, &report);
                }
            }
        }
    }
}

fn is_rising(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

/// DLSR counts in 15 us.
fn is_about(round_trip: Option<Duration>, ms: u64) -> bool {
    let expected = Duration::from_millis(ms);
    round_trip.is_some_and(|round_trip| round_trip.abs_diff(expected) <= Duration::from_micros(16))
}

#[test]
fn on_a_good_line_everything_is_played_and_nothing_else() {
    let weather = Weather {
        delay_ms: 30,
        ..Weather::default()
    };
    let mut pair = Pair::new(1, [weather; 2]);
    pair.run(60_000);
    for end in &pair.ends {
        let stats = end.session.stats();
        assert_eq!((stats.lost, stats.late, stats.duplicates), (0, 0, 0));
        assert_eq!((stats.dropped, stats.discarded, stats.jitter), (0, 0, 0));
        assert_eq!(end.lost_ticks, 0);
        assert!(is_rising(&end.played) && end.played.first() == Some(&0));
        // All but what is under way or waits: 30 ms and a depth of 60 ms.
        assert!(
            end.played.len() as u64 + 6 >= end.sent,
            "{}",
            end.played.len()
        );
        assert_eq!(
            end.silent,
            3_000 - end.played.len() as u64,
            "before the first"
        );
        // The intervals are 4.1 s on average.
        assert!((10..=20).contains(&end.reports), "{} reports", end.reports);
        assert!(is_about(stats.round_trip, 60), "{:?}", stats.round_trip);
        assert_eq!(stats.peer_fraction_lost, 0);
    }
}

#[test]
fn the_round_trip_is_that_of_both_directions() {
    let weather = [10, 140].map(|delay_ms| Weather {
        delay_ms,
        ..Weather::default()
    });
    let mut pair = Pair::new(2, weather);
    pair.run(30_000);
    for end in &pair.ends {
        let round_trip = end.session.stats().round_trip;
        assert!(is_about(round_trip, 150), "{round_trip:?}");
    }
}

#[test]
fn what_was_lost_is_known_to_both() {
    for seed in 0..8 {
        let weather = [50, 0].map(|lost_per_mille| Weather {
            delay_ms: 20,
            lost_per_mille,
            ..Weather::default()
        });
        let mut pair = Pair::new(seed, weather);
        pair.run(120_000);
        let [left, right] = &pair.ends;
        let (at_left, at_right) = (left.session.stats(), right.session.stats());
        // A packet lost at either end of the run is before the first or after the last one heard.
        assert!(
            pair.links[0].lost.abs_diff(at_right.lost) <= 2,
            "seed {seed}"
        );
        assert!(
            (250..350).contains(&at_right.lost),
            "seed {seed}: {}",
            at_right.lost
        );
        assert_eq!(at_left.lost, 0);
        assert_eq!(at_right.peer_fraction_lost, 0);
        // One interval is 100 to 300 packets, of which 5 % are lost: 13 of 256, and chance.
        let fraction = at_left.peer_fraction_lost;
        assert!(
            (2..=30).contains(&fraction),
            "seed {seed}: {fraction} of 256"
        );
        // Each was concealed for as long as it would have lasted, or was silent; nothing else was.
        let played = right.played.len() as u64;
        assert!(is_rising(&right.played));
        assert!(
            played + at_right.lost + 6 >= left.sent,
            "seed {seed}: {played} played"
        );
        let concealed = right.lost_ticks / u64::from(FRAME);
        assert!(
            concealed <= at_right.lost && concealed + right.silent + 3 >= at_right.lost,
            "seed {seed}: {concealed} concealed, {} silent, {} lost",
            right.silent,
            at_right.lost
        );
    }
}

#[test]
fn delays_below_the_depth_are_not_heard() {
    for seed in 0..8 {
        let weather = Weather {
            delay_ms: 40,
            // Packets overtake one another by up to two places.
            jitter_ms: 38,
            twice_per_mille: 30,
            ..Weather::default()
        };
        let mut pair = Pair::new(seed, [weather; 2]);
        pair.run(60_000);
        for (end, link) in pair.ends.iter().zip(pair.links.iter().rev()) {
            let stats = end.session.stats();
            assert_eq!(
                (stats.lost, stats.late, end.lost_ticks),
                (0, 0, 0),
                "seed {seed}"
            );
            assert!(
                link.twice - stats.duplicates <= 2,
                "seed {seed}: all but those under way"
            );
            let expected: Vec<u64> = (0..end.played.len() as u64).collect();
            assert_eq!(end.played, expected, "seed {seed}");
            assert!(end.played.len() > 2_980);
            // Even between 0 and 38 ms, the mean difference of two is a third: 104 units,
            // which an average over 16 packets scatters about.
            assert!(
                (60..=180).contains(&stats.jitter),
                "seed {seed}: {}",
                stats.jitter
            );
        }
    }
}

#[test]
fn in_bad_weather_every_packet_is_accounted_for() {
    for seed in 0..20 {
        let weather = Weather {
            delay_ms: 60,
            jitter_ms: 120,
            lost_per_mille: 100,
            twice_per_mille: 50,
        };
        let mut pair = Pair::new(seed, [weather; 2]);
        pair.run(60_000);
        for end in &mut pair.ends {
            end.speaks = false;
        }
        // What is under way arrives, what waits is played.
        pair.run(2_000);
        let sent = pair.ends.each_ref().map(|end| end.sent);
        for (at, end) in pair.ends.iter().enumerate() {
            let (stats, link) = (end.session.stats(), &pair.links[1 - at]);
            assert!(is_rising(&end.played), "seed {seed}");
            let played = end.played.len() as u64;
            let arrived = sent[1 - at] - link.lost + link.twice;
            assert_eq!(stats.packets_received, arrived, "seed {seed}");
            assert_eq!(
                played + stats.late + stats.duplicates + stats.dropped,
                arrived,
                "seed {seed}: {stats:?}"
            );
            // Twice the depth in jitter moves the play-out point, and then most is played.
            assert!(
                played * 100 > sent[1 - at] * 80,
                "seed {seed}: {played}, {stats:?}"
            );
        }
    }
}

#[test]
fn who_falls_silent_reports_as_a_receiver_and_is_heard_when_he_resumes() {
    let weather = Weather {
        delay_ms: 20,
        ..Weather::default()
    };
    let mut pair = Pair::new(5, [weather; 2]);
    pair.run(10_000);
    pair.ends[0].speaks = false;
    pair.run(30_000);
    let quiet = pair.ends[1].played.len();
    assert!(quiet <= 500);
    assert_eq!(pair.ends[1].played.last(), Some(&(pair.ends[0].sent - 1)));
    pair.ends[0].speaks = true;
    pair.run(10_000);
    let right = &pair.ends[1];
    assert!(
        right.played.len() >= quiet + 490,
        "{} after",
        right.played.len()
    );
    let stats = right.session.stats();
    assert_eq!(
        (stats.lost, stats.late, stats.dropped, right.lost_ticks),
        (0, 0, 0, 0)
    );
    assert_eq!(stats.jitter, 0, "the clock ran on");
}

#[test]
fn a_goodbye_arrives() {
    let mut pair = Pair::new(6, [Weather::default(); 2]);
    pair.run(1_000);
    let (now, ntp) = (pair.now(), pair.ntp(0));
    let mut out = [0; RTCP_LEN_MAX];
    let len = pair.ends[0].session.write_bye(now, ntp, &mut out);
    pair.ends[0].speaks = false;
    pair.links[0].send(pair.ms, &out[..len]);
    pair.run(10);
    assert_eq!((pair.ends[0].byes, pair.ends[1].byes), (0, 1));
}
