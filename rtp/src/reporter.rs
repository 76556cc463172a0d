//! The RTCP conversation of one leg: when a report is due (RFC 3550 §6.2, §6.3), what it says of the
//! peer's reports (LSR, DLSR) and what the peer's say of the round trip (§6.4.1).
//!
//! Two members share the session, so its 5 % of the bandwidth are never the limit: the interval is the
//! least one, randomised, and no timer is reconsidered for crowds that come or go.

use std::time::{Duration, Instant};

use crate::random::SplitMix64;
use crate::rtcp::{Block, SenderInfo, Writer};
use crate::source::Reception;

/// RFC 3550 §6.2: the least interval between reports, before it is randomised.
const INTERVAL: Duration = Duration::from_secs(5);

/// RFC 3550 §6.3.1: e - 3/2, by which the interval is divided.
const COMPENSATION: f64 = std::f64::consts::E - 1.5;

/// DLSR counts in 1/65,536 s.
const DELAY_UNITS: u128 = 65_536;

#[derive(Debug)]
pub(crate) struct Reporter {
    ssrc: u32,
    cname: String,
    next: Instant,
    random: SplitMix64,
    /// The last sender report of the peer.
    heard: Option<Heard>,
    /// Our latest sender reports, the latest first: middle of the NTP timestamp, and when it was sent.
    /// Two, because a report of the peer may be under way while we send one.
    told: [Option<(u32, Instant)>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    ssrc: u32,
    /// Middle 32 bits of its NTP timestamp.
    middle: u32,
    at: Instant,
}

impl Reporter {
    pub(crate) fn new(now: Instant, ssrc: u32, cname: String, random: SplitMix64) -> Self {
        let mut reporter = Self {
            ssrc,
            cname,
            next: now,
            random,
            heard: None,
            told: [None; 2],
        };
        // The first report comes after half the interval (RFC 3550 §6.2).
        reporter.next = now + reporter.interval() / 2;
        reporter
    }

    pub(crate) fn next_at(&self) -> Instant {
        self.next
    }

    /// A report is due; the next one will be an interval later.
    pub(crate) fn poll_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.interval();
        }
        due
    }

    pub(crate) fn handle_sender_report(&mut self, now: Instant, ssrc: u32, info: &SenderInfo) {
        self.heard = Some(Heard {
            ssrc,
            middle: middle(info.ntp),
            at: now,
        });
    }

    /// Now, less when the report was sent that the peer speaks of, less how long he kept it
    /// (RFC 3550 §6.4.1). On our clock alone, so that nobody's wall clock matters.
    pub(crate) fn round_trip(&self, now: Instant, block: &Block) -> Option<Duration> {
        let (_, sent) = self
            .told
            .iter()
            .flatten()
            .find(|(middle, _)| *middle == block.last_sr && block.last_sr != 0)?;
        let micros = u128::from(block.delay_since_last_sr) * 1_000_000 / DELAY_UNITS;
        let kept = Duration::from_micros(micros as u64);
        Some(now.saturating_duration_since(*sent).saturating_sub(kept))
    }

    /// SR or RR, and CNAME.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        info: Option<SenderInfo>,
        reception: Option<(u32, Reception)>,
        writer: &mut Writer<'_>,
    ) {
        if let Some(info) = info {
            self.told = [Some((middle(info.ntp), now)), self.told[0]];
        }
        let block = reception.map(|(ssrc, reception)| self.block(now, ssrc, reception));
        writer.report(self.ssrc, info, block);
        writer.cname(self.ssrc, &self.cname);
    }

    fn block(&self, now: Instant, ssrc: u32, reception: Reception) -> Block {
        let heard = self.heard.filter(|heard| heard.ssrc == ssrc);
        Block {
            ssrc,
            fraction_lost: reception.fraction_lost,
            cumulative_lost: reception.cumulative_lost,
            highest_sequence: reception.highest_sequence,
            jitter: reception.jitter,
            last_sr: heard.map_or(0, |heard| heard.middle),
            delay_since_last_sr: heard.map_or(0, |heard| {
                let kept = now.saturating_duration_since(heard.at);
                let units = kept.as_micros() * DELAY_UNITS / 1_000_000;
                u32::try_from(units).unwrap_or(u32::MAX)
            }),
        }
    }

    /// Between half and one and a half of the interval, so that reports do not meet (RFC 3550 §6.3.1).
    fn interval(&mut self) -> Duration {
        INTERVAL.mul_f64((0.5 + self.random.next_unit()) / COMPENSATION)
    }
}

/// What LSR repeats of an NTP timestamp.
fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{Part, RTCP_LEN_MAX, parse};

    const MS: Duration = Duration::from_millis(1);
    const RECEPTION: Reception = Reception {
        fraction_lost: 1,
        cumulative_lost: 2,
        highest_sequence: 3,
        jitter: 4,
    };

    fn info(ntp: u64) -> SenderInfo {
        SenderInfo {
            ntp,
            rtp_timestamp: 0,
            packets: 1,
            octets: 160,
        }
    }

    fn reporter(now: Instant) -> Reporter {
        Reporter::new(now, 1, "a@b".to_owned(), SplitMix64::new(9))
    }

    /// The block about source 2 of the report written now.
    fn block(reporter: &mut Reporter, now: Instant, info: Option<SenderInfo>) -> Block {
        let mut out = [0; RTCP_LEN_MAX];
        let mut writer = Writer::new(&mut out);
        reporter.write(now, info, Some((2, RECEPTION)), &mut writer);
        let len = writer.finish();
        let blocks = match parse(&out[..len]).expect("valid").next() {
            Some(Part::SenderReport { blocks, .. } | Part::ReceiverReport { blocks, .. }) => blocks,
            other => panic!("{other:?}"),
        };
        blocks.iter().next().expect("one block")
    }

    #[test]
    fn reports_come_at_random_within_the_bounds_of_the_standard() {
        let mut now = Instant::now();
        let mut reporter = reporter(now);
        let first = reporter.next_at() - now;
        assert!((1_026 * MS..3_079 * MS).contains(&first), "{first:?}");
        let mut intervals = Vec::new();
        for _ in 0..1_000 {
            now = reporter.next_at();
            assert!(!reporter.poll_due(now - MS) && reporter.poll_due(now));
            intervals.push(reporter.next_at() - now);
        }
        let (least, most) = (intervals.iter().min(), intervals.iter().max());
        // 2.5 s and 7.5 s, divided by e - 3/2.
        assert!(least >= Some(&(2_052 * MS)) && most <= Some(&(6_157 * MS)));
        assert!(least < Some(&(2_200 * MS)) && most > Some(&(6_000 * MS)));
    }

    #[test]
    fn a_block_repeats_the_last_report_of_its_source_only() {
        let now = Instant::now();
        let mut reporter = reporter(now);
        assert_eq!(block(&mut reporter, now, None).last_sr, 0);
        reporter.handle_sender_report(now, 2, &info(0x1111_2222_3333_4444));
        let told = block(&mut reporter, now + 1_500 * MS, None);
        assert_eq!(
            (told.last_sr, told.delay_since_last_sr),
            (0x2222_3333, 98_304)
        );
        // After 18 hours the field is full, and stays so.
        let late = now + Duration::from_secs(100_000);
        let told = block(&mut reporter, late, None);
        assert_eq!(told.delay_since_last_sr, u32::MAX);
        reporter.handle_sender_report(now, 3, &info(1 << 40));
        let told = block(&mut reporter, now, None);
        assert_eq!((told.last_sr, told.delay_since_last_sr), (0, 0));
    }

    #[test]
    fn the_round_trip_is_what_the_peer_did_not_keep() {
        let now = Instant::now();
        let mut reporter = reporter(now);
        block(&mut reporter, now, Some(info(7 << 16)));
        block(&mut reporter, now + 100 * MS, Some(info(8 << 16)));
        let about = |last_sr, delay_since_last_sr| Block {
            ssrc: 1,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence: 0,
            jitter: 0,
            last_sr,
            delay_since_last_sr,
        };
        // Half a second kept.
        let trip = |block| reporter.round_trip(now + 640 * MS, &block);
        assert_eq!(trip(about(8, 32_768)), Some(40 * MS));
        assert_eq!(
            trip(about(7, 32_768)),
            Some(140 * MS),
            "the report before, crossed on its way"
        );
        assert_eq!(trip(about(6, 32_768)), None, "none of ours");
        assert_eq!(trip(about(0, 0)), None, "none received");
        assert_eq!(
            trip(about(8, u32::MAX)),
            Some(Duration::ZERO),
            "nonsense is no panic"
        );
        // Zero means none, even when it would be the middle of ours.
        block(&mut reporter, now + 200 * MS, Some(info(0)));
        assert_eq!(reporter.round_trip(now + 640 * MS, &about(0, 0)), None);
    }
}
