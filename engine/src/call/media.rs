//! The phone's RTP: a frame each 20 ms in both directions.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mixer_simd::Kernels;
use rtp::Session;
use sip::sdp::{Agreed, Local};

use super::CallError;
use super::audio::{Recorder, Source};
use crate::codec::playout::Playout;
use crate::codec::{Codec, Encode, SAMPLE_RATE};
use crate::focus::negotiate;
use crate::shard::core::ntp;

/// What the phone plays and records at a time.
const FRAME: Duration = Duration::from_millis(20);
const FRAME_LEN: usize = SAMPLE_RATE as usize / 50;

/// Jitter buffer of the phone: two frames, as phones commonly start with.
const JITTER_DEPTH: Duration = Duration::from_millis(40);

/// Pairs tried before giving up on finding a free one.
const BIND_TRIES_MAX: usize = 100;

pub(super) struct Media {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    talk: Option<Talk>,
}

/// A call that is up.
struct Talk {
    session: Session,
    codec: Codec,
    rtcp_mux: bool,
    encoder: Box<dyn Encode>,
    playout: Playout,
    recorder: Option<Recorder>,
    ptime: Duration,
    next_sent: Instant,
    next_heard: Instant,
    stopped: bool,
}

#[derive(Clone, Debug)]
pub struct MediaSummary {
    pub codec: Codec,
    pub stats: rtp::Stats,
}

impl MediaSummary {
    pub fn flowed_both_ways(&self) -> bool {
        self.stats.packets_received > 0 && self.stats.packets_sent > 0
    }
}

impl fmt::Display for MediaSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        let jitter_ms = f64::from(stats.jitter) * 1e3 / f64::from(SAMPLE_RATE);
        write!(
            f,
            "sent={} received={} lost={} late={} jitter_ms={jitter_ms:.1}",
            stats.packets_sent, stats.packets_received, stats.lost, stats.late
        )
    }
}

impl Media {
    /// Finds a free pair of ports.
    pub(super) fn bind(address: IpAddr) -> io::Result<Self> {
        for _ in 0..BIND_TRIES_MAX {
            let rtp = UdpSocket::bind((address, 0))?;
            let port = rtp.local_addr()?.port();
            if !port.is_multiple_of(2) {
                continue;
            }
            if let Ok(rtcp) = UdpSocket::bind((address, port + 1)) {
                rtp.set_nonblocking(true)?;
                rtcp.set_nonblocking(true)?;
                return Ok(Self {
                    rtp,
                    rtcp,
                    talk: None,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free pair of RTP ports",
        ))
    }

    pub(super) fn local(&self, address: IpAddr, seed: u64) -> Local {
        let port = |socket: &UdpSocket| socket.local_addr().map_or(0, |address| address.port());
        Local {
            address,
            rtp_port: port(&self.rtp),
            rtcp_port: port(&self.rtcp),
            session_id: seed >> 1,
            version: 1,
        }
    }

    pub(super) fn start(
        &mut self,
        now: Instant,
        agreed: &Agreed,
        codec: Codec,
        seed: u64,
        record: Option<&Path>,
    ) -> Result<(), CallError> {
        let kernels = Kernels::detect();
        let host = self.rtp.local_addr()?.ip();
        self.talk = Some(Talk {
            session: negotiate::session(now, agreed, seed, JITTER_DEPTH, host),
            codec,
            rtcp_mux: agreed.rtcp_mux,
            encoder: codec.encoder(kernels),
            playout: Playout::new(kernels, negotiate::leg(agreed, &[codec]).receives),
            recorder: record
                .map(Recorder::create)
                .transpose()
                .map_err(CallError::Wav)?,
            ptime: Duration::from_millis(agreed.ptime_ms.into()),
            next_sent: now,
            next_heard: now + FRAME,
            stopped: false,
        });
        Ok(())
    }

    pub(super) fn turn(
        &mut self,
        now: Instant,
        wall: SystemTime,
        source: &mut Source,
    ) -> Result<(), CallError> {
        let Self {
            rtp,
            rtcp,
            talk: Some(talk),
        } = self
        else {
            return Ok(());
        };
        receive(rtp, |from, datagram| match rtp::classify(datagram) {
            rtp::Kind::Rtp => talk.take_rtp(now, from, datagram),
            rtp::Kind::Rtcp => talk.take_rtcp(now, from, datagram),
            _ => {}
        })?;
        receive(rtcp, |from, datagram| talk.take_rtcp(now, from, datagram))?;
        while talk.next_heard <= now {
            talk.next_heard += FRAME;
            talk.hear(now)?;
        }
        while talk.next_sent <= now && !talk.stopped {
            talk.next_sent += talk.ptime;
            talk.say(now, source, rtp)?;
        }
        let mut packet = [0; rtp::RTCP_LEN_MAX];
        if now >= talk.session.next_report_at()
            && let Some(len) = talk.session.poll_report(now, ntp(wall), &mut packet)
        {
            talk.send_rtcp(&packet[..len], rtp, rtcp);
        }
        Ok(())
    }

    /// Says goodbye on RTCP and nothing more on RTP.
    pub(super) fn stop(&mut self, now: Instant) {
        let Self {
            rtp,
            rtcp,
            talk: Some(talk),
        } = self
        else {
            return;
        };
        if std::mem::replace(&mut talk.stopped, true) {
            return;
        }
        let mut packet = [0; rtp::RTCP_LEN_MAX];
        let len = talk
            .session
            .write_bye(now, ntp(SystemTime::now()), &mut packet);
        talk.send_rtcp(&packet[..len], rtp, rtcp);
    }

    pub(super) fn finish(mut self) -> Result<MediaSummary, CallError> {
        let talk = self.talk.take().ok_or(CallError::NoAnswer)?;
        if let Some(recorder) = talk.recorder {
            recorder.finish().map_err(CallError::Wav)?;
        }
        Ok(MediaSummary {
            codec: talk.codec,
            stats: talk.session.stats(),
        })
    }
}

impl Talk {
    fn take_rtp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.session.handle_rtp(now, from, datagram) == rtp::Received::Restarted {
            self.playout.reset();
        }
    }

    fn take_rtcp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        // A BYE on RTCP ends a stream, not the call; the summary counts what was discarded.
        self.session.handle_rtcp(now, from, datagram);
    }

    fn hear(&mut self, now: Instant) -> Result<(), CallError> {
        let Self {
            playout, session, ..
        } = self;
        let frame = if playout.advance(now, session, FRAME_LEN, &mut Vec::new()) {
            playout.frame(FRAME_LEN)
        } else {
            &[0; FRAME_LEN]
        };
        self.recorder
            .as_mut()
            .map_or(Ok(()), |recorder| recorder.write(frame))
            .map_err(CallError::Wav)
    }

    fn say(&mut self, now: Instant, source: &mut Source, socket: &UdpSocket) -> io::Result<()> {
        let samples = self.ptime.as_millis() as usize * SAMPLE_RATE as usize / 1_000;
        let mut frame = vec![0; samples];
        source.fill(&mut frame);
        let mut packet = vec![0; rtp::HEADER_LEN];
        self.encoder.encode(&frame, &mut packet);
        let header = self
            .session
            .next_header(now, samples as u32, packet.len() - rtp::HEADER_LEN);
        packet[..rtp::HEADER_LEN].copy_from_slice(&header);
        // A datagram that cannot be sent is a datagram lost.
        let _ = socket.send_to(&packet, self.session.destination());
        Ok(())
    }

    fn send_rtcp(&self, packet: &[u8], rtp: &UdpSocket, rtcp: &UdpSocket) {
        let socket = if self.rtcp_mux { rtp } else { rtcp };
        let _ = socket.send_to(packet, self.session.rtcp_destination());
    }
}

fn receive(socket: &UdpSocket, mut arrived: impl FnMut(SocketAddr, &[u8])) -> io::Result<()> {
    let mut datagram = [0; 2_048];
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((len, from)) => arrived(from, &datagram[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}
