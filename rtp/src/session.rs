//! One RTP leg: everything between the datagrams of one peer and the samples of one participant.
//!
//! ```text
//!   datagram ─> latch ─> source ─> jitter buffer ─> pop
//!               whose?   valid?    in order
//!   next_header: our own source        poll_report: RTCP of both directions
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::dtmf::{DtmfEvent, DtmfReceiver};
use crate::latch::{Latch, Verdict};
use crate::packet::{HEADER_LEN, Header, Packet};
use crate::rtcp::{self, Part, RTCP_LEN_MAX, SenderInfo, Writer};
use crate::source::{Heard, Source};
use crate::{JitterBuffer, JitterConfig, Popped, Pushed};

/// RFC 3550 §6.2: the least interval between reports, before it is randomised.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// RFC 3550 §6.3.1: e - 3/2, which makes up for the timer reconsideration of others.
const COMPENSATION: f64 = 1.218_28;

/// Payload types an agreement may hold: codecs of one leg.
pub const PAYLOAD_TYPES_MAX: usize = 4;

#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Our synchronization source.
    pub ssrc: u32,
    /// Names us across restarts of the source (RFC 3550 §6.5.1).
    pub cname: String,
    /// Timestamp units per second.
    pub clock_rate: u32,
    /// What we send.
    pub payload_type: u8,
    /// What telephone events come with.
    pub event_payload_type: Option<u8>,
    /// What audio may come with.
    pub accepted_payload_types: [Option<u8>; PAYLOAD_TYPES_MAX],
    pub remote_rtp: SocketAddr,
    pub remote_rtcp: SocketAddr,
    pub rtcp_mux: bool,
    pub jitter_depth: Duration,
    /// First sequence number and timestamp, and the spread of reports, come from it.
    pub seed: u64,
}

/// What a new agreement changes.
#[derive(Clone, Debug)]
pub struct Changes {
    pub payload_type: u8,
    pub event_payload_type: Option<u8>,
    pub accepted_payload_types: [Option<u8>; PAYLOAD_TYPES_MAX],
    pub remote_rtp: SocketAddr,
    pub remote_rtcp: SocketAddr,
    pub rtcp_mux: bool,
}

/// What became of a datagram on the RTP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Queued,
    /// A key was pressed.
    Event(DtmfEvent),
    /// Another source speaks from the peer's address; the jitter buffer begins with it.
    Restarted,
    Discarded(Discard),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    Malformed,
    WrongSource,
    /// A source that is not believed yet.
    Probation,
    WrongPayloadType,
    Late,
    Duplicate,
    TooLong,
    /// A further packet of a key press, or of nothing.
    NoNews,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcpReceived {
    Report,
    Bye,
    Discarded,
}

/// Since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub packets_received: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    /// Packets of the peer that never came.
    pub lost: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    pub duplicates: u64,
    pub discarded: u64,
    /// Interarrival jitter in timestamp units (RFC 3550 A.8).
    pub jitter: u32,
    /// What the peer lost of ours in its last interval, in 256ths.
    pub peer_fraction_lost: u8,
    /// By the peer's last report of ours (RFC 3550 §6.4.1).
    pub round_trip: Option<Duration>,
}

#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    latch: Latch,
    source: Option<Source>,
    /// A new source from the peer's address, until it is believed.
    successor: Option<Source>,
    jitter: JitterBuffer,
    dtmf: DtmfReceiver,
    stats: Stats,
    /// Lost packets of sources before the current one.
    lost_before: u64,
    last_received: Option<Instant>,

    sequence: u16,
    timestamp: u32,
    /// The next packet begins a talk spurt.
    marker: bool,
    /// When the latest packet was sent, and with which timestamp.
    sent: Option<(Instant, u32)>,
    sent_since_report: bool,

    /// Middle of the NTP timestamp of the peer's last SR, and when it came.
    last_sr: Option<(u32, Instant)>,
    /// The same of our last SR.
    reported: Option<(u32, Instant)>,
    next_report: Instant,
    random: u64,
}

impl Session {
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let mut random = config.seed;
        let first = next_random(&mut random);
        let jitter = JitterBuffer::new(JitterConfig {
            depth: config.jitter_depth,
            clock_rate: config.clock_rate,
        });
        let mut session = Self {
            latch: Latch::new(config.remote_rtp),
            source: None,
            successor: None,
            jitter,
            dtmf: DtmfReceiver::default(),
            stats: Stats::default(),
            lost_before: 0,
            last_received: None,
            sequence: first as u16,
            timestamp: (first >> 16) as u32,
            marker: true,
            sent: None,
            sent_since_report: false,
            last_sr: None,
            reported: None,
            next_report: now,
            random,
            config,
        };
        // The first report comes after half the interval (RFC 3550 §6.2).
        session.next_report = now + session.report_interval() / 2;
        session
    }

    pub fn handle_rtp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Received {
        match self.receive(now, from, datagram) {
            Ok(received) => received,
            Err(discard) => {
                match discard {
                    Discard::Late => self.stats.late += 1,
                    Discard::Duplicate => self.stats.duplicates += 1,
                    Discard::NoNews => {}
                    _ => self.stats.discarded += 1,
                }
                Received::Discarded(discard)
            }
        }
    }

    fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Received, Discard> {
        let packet = Packet::parse(datagram).map_err(|_| Discard::Malformed)?;
        let is_event = self.config.event_payload_type == Some(packet.payload_type);
        if !is_event
            && !self
                .config
                .accepted_payload_types
                .contains(&Some(packet.payload_type))
        {
            // Comfort noise (RFC 3389) and codecs never agreed on say nothing, but say that the peer is there.
            if from == self.latch.destination() {
                self.last_received = Some(now);
            }
            return Err(Discard::WrongPayloadType);
        }
        match self.latch.handle(now, from, packet.ssrc, packet.sequence) {
            Verdict::Accept => {}
            Verdict::Probation => return Err(Discard::Probation),
            Verdict::Reject => return Err(Discard::WrongSource),
        }
        self.last_received = Some(now);
        let restarted = self.admit(now, &packet)?;
        self.stats.packets_received += 1;
        self.stats.bytes_received += packet.payload.len() as u64;
        if is_event {
            return self
                .dtmf
                .handle(packet.timestamp, packet.payload)
                .map(Received::Event)
                .ok_or(Discard::NoNews);
        }
        match self.jitter.push(now, &packet) {
            _ if restarted => Ok(Received::Restarted),
            Pushed::Queued | Pushed::Resynced => Ok(Received::Queued),
            Pushed::Late => Err(Discard::Late),
            Pushed::Duplicate => Err(Discard::Duplicate),
            Pushed::Overflow => Err(Discard::TooLong),
        }
    }

    /// Believes the packet's source, or not yet; true when it has just replaced another.
    fn admit(&mut self, now: Instant, packet: &Packet<'_>) -> Result<bool, Discard> {
        let clock_rate = self.config.clock_rate;
        match &mut self.source {
            Some(source) if source.ssrc == packet.ssrc => {
                source.handle(now, packet);
                Ok(false)
            }
            // Its address was in the SDP or has been proven by the latch.
            None => {
                let source = self.source.insert(Source::trusted(packet, clock_rate));
                source.handle(now, packet);
                Ok(false)
            }
            Some(_) => {
                let successor = match &mut self.successor {
                    Some(successor) if successor.ssrc == packet.ssrc => successor,
                    other => other.insert(Source::new(packet, clock_rate)),
                };
                if successor.handle(now, packet) == Heard::Probation {
                    return Err(Discard::Probation);
                }
                self.lost_before = self.lost();
                self.source = self.successor.take();
                self.jitter.reset();
                Ok(true)
            }
        }
    }

    /// Takes in RTCP. It is believed from the address of the SDP and from the host that RTP comes from.
    pub fn handle_rtcp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> RtcpReceived {
        let known = from == self.config.remote_rtcp || from.ip() == self.latch.destination().ip();
        let parts = if known { rtcp::parse(datagram) } else { None };
        let Some(parts) = parts else {
            self.stats.discarded += 1;
            return RtcpReceived::Discarded;
        };
        let mut received = RtcpReceived::Report;
        for part in parts {
            let blocks = match part {
                Part::SenderReport { info, blocks, .. } => {
                    self.last_sr = Some(((info.ntp >> 16) as u32, now));
                    blocks
                }
                Part::ReceiverReport { blocks, .. } => blocks,
                Part::Bye { .. } => {
                    received = RtcpReceived::Bye;
                    continue;
                }
                Part::Other => continue,
            };
            for block in blocks.iter().filter(|block| block.ssrc == self.config.ssrc) {
                self.stats.peer_fraction_lost = block.fraction_lost;
                self.stats.round_trip =
                    self.round_trip(now, block.last_sr, block.delay_since_last_sr);
            }
        }
        self.last_received = Some(now);
        received
    }

    /// What is to be played now.
    pub fn pop(&mut self, now: Instant) -> Popped<'_> {
        self.jitter.pop(now)
    }

    /// The header of the next packet, which holds `ticks` timestamp units in `payload_len` octets.
    pub fn next_header(
        &mut self,
        now: Instant,
        ticks: u32,
        payload_len: usize,
    ) -> [u8; HEADER_LEN] {
        let header = Header {
            marker: std::mem::take(&mut self.marker),
            payload_type: self.config.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.config.ssrc,
        };
        self.sent = Some((now, self.timestamp));
        self.sent_since_report = true;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += payload_len as u64;
        header.write()
    }

    /// Lets time pass without a packet; the next one begins a talk spurt.
    pub fn skip(&mut self, ticks: u32) {
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.marker = true;
    }

    /// Where packets go.
    pub fn destination(&self) -> SocketAddr {
        self.latch.destination()
    }

    /// Where RTCP goes: beside RTP if that was found elsewhere than the SDP said.
    pub fn rtcp_destination(&self) -> SocketAddr {
        let rtp = self.latch.destination();
        match (self.config.rtcp_mux, self.latch.is_where_expected()) {
            (true, _) => rtp,
            (false, true) => self.config.remote_rtcp,
            (false, false) => SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1)),
        }
    }

    pub fn next_report_at(&self) -> Instant {
        self.next_report
    }

    /// The report that is due, if one is: SR or RR, and CNAME. `ntp` is the wall clock of `now`.
    pub fn poll_report(
        &mut self,
        now: Instant,
        ntp: u64,
        out: &mut [u8; RTCP_LEN_MAX],
    ) -> Option<usize> {
        if now < self.next_report {
            return None;
        }
        self.next_report = now + self.report_interval();
        let mut writer = Writer::new(out);
        self.write_report(now, ntp, &mut writer);
        Some(writer.finish())
    }

    /// The last report of this session, which says that our source ends.
    pub fn write_bye(&mut self, now: Instant, ntp: u64, out: &mut [u8; RTCP_LEN_MAX]) -> usize {
        let mut writer = Writer::new(out);
        self.write_report(now, ntp, &mut writer);
        writer.bye(self.config.ssrc);
        writer.finish()
    }

    /// When the peer last showed itself, by media or RTCP.
    pub fn last_received(&self) -> Option<Instant> {
        self.last_received
    }

    /// New terms. Our source goes on; the peer's is found anew where its address changed.
    pub fn reconfigure(&mut self, now: Instant, changes: Changes) {
        let Changes {
            payload_type,
            event_payload_type,
            accepted_payload_types,
            remote_rtp,
            remote_rtcp,
            rtcp_mux,
        } = changes;
        self.latch.expect(remote_rtp);
        self.marker |= payload_type != self.config.payload_type;
        self.config.payload_type = payload_type;
        self.config.event_payload_type = event_payload_type;
        self.config.accepted_payload_types = accepted_payload_types;
        self.config.remote_rtp = remote_rtp;
        self.config.remote_rtcp = remote_rtcp;
        self.config.rtcp_mux = rtcp_mux;
        // A resumed call has been silent with good reason.
        self.last_received = self.last_received.map(|_| now);
    }

    pub fn stats(&self) -> Stats {
        let jitter = self.source.as_ref().map_or(0, Source::jitter);
        Stats {
            lost: self.lost(),
            jitter,
            ..self.stats
        }
    }

    fn lost(&self) -> u64 {
        let of_source = self.source.as_ref().map_or(0, Source::lost);
        self.lost_before + u64::try_from(of_source).unwrap_or(0)
    }

    fn write_report(&mut self, now: Instant, ntp: u64, writer: &mut Writer<'_>) {
        let info = std::mem::take(&mut self.sent_since_report)
            .then_some(self.sent)
            .flatten()
            .map(|(when, timestamp)| SenderInfo {
                ntp,
                // The timestamp of this moment, as if a packet were sent now.
                rtp_timestamp: timestamp
                    .wrapping_add(self.ticks(now.saturating_duration_since(when))),
                packets: self.stats.packets_sent as u32,
                octets: self.stats.bytes_sent as u32,
            });
        let (last_sr, delay) = match self.last_sr {
            // In units of 1/65,536 s.
            Some((middle, when)) => (
                middle,
                (now.saturating_duration_since(when).as_micros() * 65_536 / 1_000_000) as u32,
            ),
            None => (0, 0),
        };
        let block = self
            .source
            .as_mut()
            .map(|source| (source.ssrc, source.report(), last_sr, delay));
        writer.report(self.config.ssrc, info, block);
        writer.cname(self.config.ssrc, &self.config.cname);
        self.reported = info
            .map(|info| ((info.ntp >> 16) as u32, now))
            .or(self.reported);
    }

    /// RFC 3550 §6.4.1: now, less when the SR was sent, less how long the peer kept it.
    fn round_trip(&self, now: Instant, last_sr: u32, delay: u32) -> Option<Duration> {
        let (_, sent) = self.reported.filter(|(middle, _)| *middle == last_sr)?;
        let held = Duration::from_micros(u64::from(delay) * 1_000_000 / 65_536);
        Some(now.saturating_duration_since(sent).saturating_sub(held))
    }

    /// RFC 3550 §6.3.1: between half and one and a half of the interval, so that reports do not meet.
    fn report_interval(&mut self) -> Duration {
        let spread = 0.5 + next_random(&mut self.random) as f64 / u64::MAX as f64;
        REPORT_INTERVAL.mul_f64(spread / COMPENSATION)
    }

    fn ticks(&self, duration: Duration) -> u32 {
        (duration.as_micros() * u128::from(self.config.clock_rate) / 1_000_000) as u32
    }
}

/// SplitMix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = *state;
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
