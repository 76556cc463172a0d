//! One RTP leg: everything between the datagrams of one peer and the samples of one participant.
//!
//! ```text
//!   datagram ─> latch ─> source ─> jitter buffer ─> pop
//!               whose?   valid?    in order
//!                           └─> telephone events
//!   next_header: our own source        poll_report: RTCP of both directions
//! ```
//!
//! One source is heard at a time. Another one from the peer's address takes over once it is believed
//! (RFC 3550 A.1); what the former one still had under way is then no third.
//!
//! Not here: collision of sources (RFC 3550 §8.2). On a leg of two, our own SSRC coming back is an echo
//! somebody asked for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::ticks;
use crate::dtmf::{DtmfEvent, DtmfReceiver, Told};
use crate::latch::{Latch, Verdict};
use crate::mixed::{Contributor, MIXED_HEADER_LEN_MAX};
use crate::packet::{HEADER_LEN, Header, Packet};
use crate::random::SplitMix64;
use crate::reporter::Reporter;
use crate::rtcp::{self, Part, RTCP_LEN_MAX, SenderInfo, Writer};
use crate::source::{Heard, Source};
use crate::{JitterBuffer, JitterConfig, Popped, Pushed};

/// Payload types an agreement may hold: codecs of one leg.
pub const PAYLOAD_TYPES_MAX: usize = 4;

/// For so long after it was last heard, a source that took over is not handed back to the one before:
/// two streams to one port would otherwise take turns. Longer than packets are under way.
const SUCCESSION: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Our synchronization source.
    pub ssrc: u32,
    /// Names us across restarts of the source (RFC 3550 §6.5.1), up to 255 octets.
    pub cname: String,
    /// Timestamp units per second, both ways.
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
    /// A key was pressed; told once.
    Event(DtmfEvent),
    /// A further packet of a key press.
    EventRepeated,
    /// Another source speaks from the peer's address; the jitter buffer begins with it.
    Restarted,
    Discarded(Discard),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    Malformed,
    WrongSource,
    /// A source, or a jump of its numbers, that is not believed yet.
    Probation,
    WrongPayloadType,
    Late,
    Duplicate,
    /// Longer than [`PAYLOAD_LEN_MAX`](crate::PAYLOAD_LEN_MAX).
    Overflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcpReceived {
    Report,
    /// The source that is heard ends.
    Bye,
    Discarded,
}

/// Since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Of media and events, late ones and duplicates too.
    pub packets_received: u64,
    /// Payloads only, as all octets here (RFC 3550 §6.4.1).
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub bytes_sent: u64,
    /// Packets of the peer that never came.
    pub lost: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    pub duplicates: u64,
    /// Packets that were here and not played, because too much waited or the sender began anew.
    pub dropped: u64,
    /// Datagrams that were none of the peer's media: malformed, of strangers, of other payload types.
    pub discarded: u64,
    /// Interarrival jitter in timestamp units (RFC 3550 A.8).
    pub jitter: u32,
    /// What the peer lost of ours in its last interval, in 256ths.
    pub peer_fraction_lost: u8,
    /// By the peer's last report that spoke of one of ours (RFC 3550 §6.4.1).
    pub round_trip: Option<Duration>,
}

#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    latch: Latch,
    source: Option<Source>,
    /// A new source from the peer's address, until it is believed.
    successor: Option<Box<Source>>,
    /// The source before.
    predecessor: Option<u32>,
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

    reporter: Reporter,
    /// Where the source's reports come from.
    rtcp_heard: Option<SocketAddr>,
}

/// What a payload type stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Audio,
    Event,
    /// Nothing agreed on, comfort noise (RFC 3389) among it.
    Other,
}

impl Session {
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let mut random = SplitMix64::new(config.seed);
        let first = random.next();
        Self {
            latch: Latch::new(config.remote_rtp),
            source: None,
            successor: None,
            predecessor: None,
            jitter: JitterBuffer::new(JitterConfig {
                depth: config.jitter_depth,
                clock_rate: config.clock_rate,
            }),
            dtmf: DtmfReceiver::default(),
            stats: Stats::default(),
            lost_before: 0,
            last_received: None,
            sequence: first as u16,
            timestamp: (first >> 16) as u32,
            marker: true,
            sent: None,
            sent_since_report: false,
            reporter: Reporter::new(now, config.ssrc, config.cname.clone(), random),
            rtcp_heard: None,
            config,
        }
    }

    /// Takes in what came to the RTP port and is RTP.
    pub fn handle_rtp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Received {
        match self.receive(now, from, datagram) {
            Ok(received) => received,
            Err(discard) => {
                match discard {
                    Discard::Late => self.stats.late += 1,
                    Discard::Duplicate => self.stats.duplicates += 1,
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
        let content = self.content(packet.payload_type);
        // What nobody agreed on proves no address.
        if content == Content::Other && !self.latch.is_latched(from) {
            return Err(Discard::WrongPayloadType);
        }
        match self.latch.handle(now, from, packet.ssrc, packet.sequence) {
            Verdict::Accept => self.last_received = Some(now),
            Verdict::Probation => return Err(Discard::Probation),
            Verdict::Reject => return Err(Discard::WrongSource),
        }
        match content {
            Content::Audio => self.handle_audio(now, &packet),
            Content::Event => self.handle_event(&packet),
            Content::Other => self.pass_by(&packet).and(Err(Discard::WrongPayloadType)),
        }
    }

    fn count(&mut self, packet: &Packet<'_>) {
        self.stats.packets_received += 1;
        self.stats.bytes_received += packet.payload.len() as u64;
    }

    fn content(&self, payload_type: u8) -> Content {
        if self.config.event_payload_type == Some(payload_type) {
            Content::Event
        } else if self
            .config
            .accepted_payload_types
            .contains(&Some(payload_type))
        {
            Content::Audio
        } else {
            Content::Other
        }
    }

    fn handle_audio(&mut self, now: Instant, packet: &Packet<'_>) -> Result<Received, Discard> {
        let restarted = self.admit(now, packet)?;
        self.count(packet);
        if let Some(source) = &mut self.source {
            source.measure(now, packet.timestamp);
        }
        match self.jitter.push(now, packet) {
            _ if restarted => Ok(Received::Restarted),
            Pushed::Queued | Pushed::Resynced => Ok(Received::Queued),
            Pushed::Late => Err(Discard::Late),
            Pushed::Duplicate => Err(Discard::Duplicate),
            Pushed::Overflow => Err(Discard::Overflow),
        }
    }

    /// Telephone events may have a source of their own, which makes nobody the speaker.
    fn handle_event(&mut self, packet: &Packet<'_>) -> Result<Received, Discard> {
        self.pass_by(packet)?;
        self.count(packet);
        let told = self
            .dtmf
            .handle(packet.ssrc, packet.timestamp, packet.marker, packet.payload);
        match told {
            Told::New(event) => Ok(Received::Event(event)),
            Told::Known => Ok(Received::EventRepeated),
            Told::Malformed => Err(Discard::Malformed),
        }
    }

    /// Counts a packet that is not to be heard, so that it does not count as lost.
    fn pass_by(&mut self, packet: &Packet<'_>) -> Result<(), Discard> {
        match &mut self.source {
            Some(source) if source.ssrc() == packet.ssrc => {
                if source.handle(packet.sequence) == Heard::Probation {
                    return Err(Discard::Probation);
                }
                self.jitter.skip(packet.sequence);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Believes the packet's source, or not yet; true when it has just replaced another.
    fn admit(&mut self, now: Instant, packet: &Packet<'_>) -> Result<bool, Discard> {
        let (ssrc, sequence) = (packet.ssrc, packet.sequence);
        let clock_rate = self.config.clock_rate;
        let heard = match &mut self.source {
            Some(source) if source.ssrc() == ssrc => source.handle(sequence),
            // Its address was in the SDP or has been proven by the latch.
            None => self
                .source
                .insert(Source::trusted(ssrc, sequence, clock_rate))
                .handle(sequence),
            Some(source) => {
                let speaks = source
                    .last_heard()
                    .is_some_and(|last| now.saturating_duration_since(last) < SUCCESSION);
                if speaks && self.predecessor == Some(ssrc) {
                    return Err(Discard::WrongSource);
                }
                return self.prove(packet);
            }
        };
        match heard {
            Heard::Valid => Ok(false),
            Heard::Probation => Err(Discard::Probation),
        }
    }

    fn prove(&mut self, packet: &Packet<'_>) -> Result<bool, Discard> {
        let successor = match &mut self.successor {
            Some(successor) if successor.ssrc() == packet.ssrc => successor,
            other => other.insert(Box::new(Source::new(
                packet.ssrc,
                packet.sequence,
                self.config.clock_rate,
            ))),
        };
        if successor.handle(packet.sequence) == Heard::Probation {
            return Err(Discard::Probation);
        }
        self.lost_before = self.lost();
        self.predecessor = self.source.as_ref().map(Source::ssrc);
        self.source = self.successor.take().map(|successor| *successor);
        self.jitter.reset();
        Ok(true)
    }

    /// Takes in RTCP. It is believed from the address of the SDP and from the host that RTP comes from.
    pub fn handle_rtcp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> RtcpReceived {
        let known = from == self.config.remote_rtcp || from.ip() == self.latch.destination().ip();
        let parts = if known { rtcp::parse(datagram) } else { None };
        let Some(parts) = parts else {
            self.stats.discarded += 1;
            return RtcpReceived::Discarded;
        };
        let heard = self.source.as_ref().map(Source::ssrc);
        let mut received = RtcpReceived::Report;
        for part in parts {
            let (ssrc, blocks) = match part {
                Part::SenderReport { ssrc, info, blocks } => {
                    self.reporter.handle_sender_report(now, ssrc, &info);
                    (ssrc, blocks)
                }
                Part::ReceiverReport { ssrc, blocks } => (ssrc, blocks),
                Part::Bye(bye) => {
                    // Of a source that another has replaced, it is no news.
                    if heard.is_none_or(|ssrc| bye.contains(ssrc)) {
                        received = RtcpReceived::Bye;
                    }
                    continue;
                }
                Part::Other => continue,
            };
            if heard == Some(ssrc) && from.ip() == self.latch.destination().ip() {
                self.rtcp_heard = Some(from);
            }
            for block in blocks.iter().filter(|block| block.ssrc == self.config.ssrc) {
                self.stats.peer_fraction_lost = block.fraction_lost;
                self.stats.round_trip = self
                    .reporter
                    .round_trip(now, &block)
                    .or(self.stats.round_trip);
            }
        }
        self.last_received = Some(now);
        received
    }

    /// Our synchronization source.
    pub fn ssrc(&self) -> u32 {
        self.config.ssrc
    }

    /// Timestamp units per second, both ways.
    pub fn clock_rate(&self) -> u32 {
        self.config.clock_rate
    }

    /// The source that is heard.
    pub fn heard_ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(Source::ssrc)
    }

    /// Packets come from this address, and are believed.
    pub fn is_latched(&self, address: SocketAddr) -> bool {
        self.latch.is_latched(address)
    }

    /// Packets of any address may prove to be the peer's: he has not been heard, or not for long.
    pub fn is_open(&self, now: Instant) -> bool {
        self.latch.is_open(now)
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
        self.next(now, ticks, payload_len).write()
    }

    /// The same for a packet that says who is in it; gives the header's length. `levels_id` is the number
    /// of the extension for their levels (RFC 6465), 1 to 14.
    pub fn next_mixed_header(
        &mut self,
        now: Instant,
        ticks: u32,
        payload_len: usize,
        (contributors, levels_id): (&[Contributor], u8),
        out: &mut [u8; MIXED_HEADER_LEN_MAX],
    ) -> usize {
        self.next(now, ticks, payload_len)
            .write_mixed(contributors, levels_id, out)
    }

    #[inline]
    fn next(&mut self, now: Instant, ticks: u32, payload_len: usize) -> Header {
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
        header
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

    /// Where RTCP goes. If RTP was found elsewhere than the SDP said: where reports come from, and until
    /// one has come, beside RTP.
    pub fn rtcp_destination(&self) -> SocketAddr {
        let rtp = self.latch.destination();
        match (self.config.rtcp_mux, self.latch.is_where_expected()) {
            (true, _) => rtp,
            (false, true) => self.config.remote_rtcp,
            (false, false) => self
                .rtcp_heard
                .unwrap_or_else(|| SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1))),
        }
    }

    pub fn next_report_at(&self) -> Instant {
        self.reporter.next_at()
    }

    /// The length of the report that is due, if one is: SR or RR, and CNAME. `ntp` is the wall clock of
    /// `now`, in 1/2^32 s since 1900.
    pub fn poll_report(
        &mut self,
        now: Instant,
        ntp: u64,
        out: &mut [u8; RTCP_LEN_MAX],
    ) -> Option<usize> {
        self.reporter.poll_due(now).then(|| {
            let mut writer = Writer::new(out);
            self.write_report(now, ntp, &mut writer);
            writer.finish()
        })
    }

    /// The length of the last report of this session, which says that our source ends.
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
        if remote_rtp != self.config.remote_rtp {
            self.rtcp_heard = None;
        }
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
        Stats {
            lost: self.lost(),
            dropped: self.jitter.dropped(),
            jitter: self.source.as_ref().map_or(0, Source::jitter),
            ..self.stats
        }
    }

    fn lost(&self) -> u64 {
        self.lost_before + self.source.as_ref().map_or(0, Source::lost)
    }

    fn write_report(&mut self, now: Instant, ntp: u64, writer: &mut Writer<'_>) {
        let info = std::mem::take(&mut self.sent_since_report)
            .then_some(self.sent)
            .flatten()
            .map(|(when, timestamp)| SenderInfo {
                ntp,
                // The timestamp of this moment, as if a packet were sent now.
                rtp_timestamp: timestamp.wrapping_add(ticks(
                    now.saturating_duration_since(when),
                    self.config.clock_rate,
                )),
                packets: self.stats.packets_sent as u32,
                octets: self.stats.bytes_sent as u32,
            });
        let reception = self
            .source
            .as_mut()
            .map(|source| (source.ssrc(), source.report()));
        self.reporter.write(now, info, reception, writer);
    }
}
