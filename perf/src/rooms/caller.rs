//! One caller: what he sends, and what he makes of what he gets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::codec::{Codec, Decode};
use engine::focus::negotiate;
use engine::io::{MediaIo, SocketId};
use hdrhistogram::Histogram;
use mixer_simd::Kernels;
use sip::CallKey;
use sip::sdp::{self, SessionDescription};

use super::tone::{self, Detector};
use super::{BURST, BURST_EVERY, Options, RATE};

/// A listener who gets nothing for this long is starved.
const STARVED: Duration = Duration::from_millis(100);

/// Delays beyond a minute are not told apart.
const DELAY_US_MAX: u64 = 60_000_000;

/// Share of a talker's amplitude above which he is in a packet: half of it remains in the packets
/// where his pitch changes.
const PRESENT: f64 = 0.4;

/// Share of a talker's amplitude above which he hears himself.
const ECHO: f64 = 0.1;

/// Share of a burst's amplitude at which it has arrived.
const ARRIVED: f64 = 0.25;

/// What all callers learn together: delays, and the bursts under way.
pub(super) struct Heard {
    talkers: Vec<Pitches>,
    /// By room, then talker: number and start of the latest burst.
    bursts: Vec<[Option<(u64, Instant)>; tone::TALKERS_MAX]>,
    pub(super) delays_us: Histogram<u64>,
    measuring: bool,
}

struct Pitches {
    tone: Detector,
    burst: Detector,
}

impl Heard {
    pub(super) fn new(talkers: usize, rooms: usize) -> Self {
        let pitches = |talker| Pitches {
            tone: Detector::new(tone::tone_hz(talker)),
            burst: Detector::new(tone::burst_hz(talker)),
        };
        Self {
            talkers: (0..talkers).map(pitches).collect(),
            bursts: vec![[None; tone::TALKERS_MAX]; rooms],
            delays_us: Histogram::new_with_bounds(1, DELAY_US_MAX, 3)
                .expect("bounds and precision are valid"),
            measuring: false,
        }
    }

    pub(super) fn begin(&mut self) {
        self.measuring = true;
    }
}

/// What one caller counted while measuring.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) starved: u64,
    /// Packets in which a talker of the room was missing.
    pub(super) missing: u64,
    /// Packets in which the caller heard himself.
    pub(super) echoes: u64,
    /// Sum of the deviations of packet spacing from ptime, in µs.
    pub(super) deviation_us: u64,
}

pub(super) struct Caller {
    pub(super) room: usize,
    pub(super) port: u16,
    socket: SocketId,
    talker: Option<usize>,
    amplitude: f64,
    codec: Codec,
    decoder: Box<dyn Decode>,
    ptime: Duration,
    /// What he sends usually, and in bursts.
    usual: Vec<u8>,
    burst: Vec<u8>,

    call: Option<(CallKey, SessionDescription)>,
    remote: Option<(SocketAddr, u8)>,
    started: Instant,
    next_send: Instant,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,

    counts: Counts,
    counting: bool,
    last: Option<(Instant, u16)>,
    /// Latest burst got from each talker.
    seen: [u64; tone::TALKERS_MAX],
    pcm: Vec<i16>,
}

impl Caller {
    pub(super) fn new(
        socket: SocketId,
        port: u16,
        room: usize,
        talker: Option<usize>,
        options: &Options,
        kernels: Kernels,
        random: u64,
    ) -> Self {
        let samples = options.ptime as usize * RATE as usize / 1_000;
        let amplitude = tone::amplitude(options.talkers.max(1));
        let payload = |hz: Option<f64>| {
            tone::payload(
                options.codec,
                kernels,
                hz.unwrap_or(0.0),
                if hz.is_some() { amplitude } else { 0.0 },
                samples,
            )
        };
        let now = Instant::now();
        Self {
            room,
            port,
            socket,
            talker,
            amplitude,
            codec: options.codec,
            decoder: options.codec.decoder(kernels),
            ptime: Duration::from_millis(options.ptime.into()),
            usual: payload(talker.map(tone::tone_hz)),
            burst: payload(talker.map(tone::burst_hz)),
            call: None,
            remote: None,
            started: now,
            next_send: now,
            sequence: random as u16,
            timestamp: (random >> 16) as u32,
            ssrc: (random >> 32) as u32,
            counts: Counts::default(),
            counting: false,
            last: None,
            seen: [0; tone::TALKERS_MAX],
            pcm: Vec::new(),
        }
    }

    pub(super) fn call(&self) -> Option<CallKey> {
        self.call.as_ref().map(|(call, _)| *call)
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn dialled(&mut self, call: CallKey, offer: SessionDescription) {
        self.call = Some((call, offer));
    }

    /// Takes in the answer; from now on packets are sent.
    pub(super) fn answered(&mut self, now: Instant, answer: &[u8]) -> Result<(), String> {
        let (_, offer) = self.call.as_ref().ok_or("nobody called")?;
        let answer = sdp::parse(answer).map_err(|error| error.to_string())?;
        let capabilities = negotiate::capabilities(&[self.codec]);
        let agreed =
            sdp::accept_answer(offer, &answer, &capabilities).map_err(|error| error.to_string())?;
        self.remote = Some((agreed.remote_rtp, agreed.payload_type));
        self.started = now;
        self.next_send = now;
        Ok(())
    }

    pub(super) fn begin_measuring(&mut self) {
        self.counting = true;
        self.counts = Counts::default();
        self.last = None;
    }

    pub(super) fn end_measuring(&mut self) {
        self.counting = false;
    }

    /// Queues what is due.
    pub(super) fn send(&mut self, now: Instant, io: &mut dyn MediaIo, heard: &mut Heard) {
        let Some((remote, payload_type)) = self.remote else {
            return;
        };
        while self.next_send <= now {
            let at = self.next_send;
            self.next_send += self.ptime;
            // The first second is quiet, so that no burst meets a room that is still filling.
            let since = at - self.started;
            let number = (since.as_micros() / BURST_EVERY.as_micros()) as u64;
            let bursting = number > 0 && since < BURST_EVERY * (number as u32) + BURST;
            if let (true, Some(talker)) = (bursting, self.talker) {
                let burst = &mut heard.bursts[self.room][talker];
                if burst.is_none_or(|(known, _)| known != number) {
                    *burst = Some((number, now));
                }
            }
            let header = rtp::Header {
                marker: false,
                payload_type,
                sequence: self.sequence,
                timestamp: self.timestamp,
                ssrc: self.ssrc,
            };
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self
                .timestamp
                .wrapping_add(self.ptime.as_millis() as u32 * RATE / 1_000);
            let payload = io.share(if bursting { &self.burst } else { &self.usual });
            io.queue(self.socket, remote, &header.write(), payload);
        }
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        heard: &mut Heard,
    ) {
        // Somebody else's stream to a port that was his before is not ours to judge.
        let ours = self.remote.is_some_and(|(remote, _)| remote == from);
        if !ours || rtp::classify(datagram) != rtp::Kind::Rtp {
            return;
        }
        let Ok(packet) = rtp::Packet::parse(datagram) else {
            return;
        };
        self.pcm.clear();
        self.decoder.decode(packet.payload, &mut self.pcm);
        self.time(now, packet.sequence);
        self.listen(now, heard);
    }

    fn time(&mut self, now: Instant, sequence: u16) {
        if !self.counting {
            return;
        }
        self.counts.received += 1;
        if let Some((before, last)) = self.last.replace((now, sequence)) {
            // A step backwards is reordering, which loopback does not do; it would show as a huge loss.
            self.counts.lost += u64::from(sequence.wrapping_sub(last).wrapping_sub(1));
            let spacing = now - before;
            self.counts.deviation_us += spacing.abs_diff(self.ptime).as_micros() as u64;
            self.counts.late += u64::from(spacing > self.ptime * 2);
            self.counts.starved += u64::from(spacing > STARVED);
        }
    }

    fn listen(&mut self, now: Instant, heard: &mut Heard) {
        let Heard {
            talkers,
            bursts,
            delays_us,
            measuring,
        } = heard;
        let mut missing = false;
        for (talker, pitches) in talkers.iter().enumerate() {
            let tone = pitches.tone.amplitude(&self.pcm);
            let burst = pitches.burst.amplitude(&self.pcm);
            if self.talker == Some(talker) {
                self.counts.echoes +=
                    u64::from(self.counting && tone + burst > ECHO * self.amplitude);
                continue;
            }
            missing |= tone + burst < PRESENT * self.amplitude;
            if burst > ARRIVED * self.amplitude
                && let Some((number, since)) = bursts[self.room][talker]
                && number != self.seen[talker]
            {
                // The first burst of a listener may have begun before he was there.
                if self.seen[talker] != 0 && *measuring {
                    delays_us.saturating_record((now - since).as_micros() as u64);
                }
                self.seen[talker] = number;
            }
        }
        self.counts.missing += u64::from(self.counting && missing);
    }
}
