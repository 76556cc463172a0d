//! Rooms full of callers on one thread: they join, stream RTP, and count what comes back.
//!
//! A talker sends a tone of his own pitch. For [`BURST`] in every [`BURST_EVERY`] he sends another pitch
//! instead; the time from his first packet of that pitch to the first packet in which a listener gets
//! it is the delay through the server. All pitches are multiples of 50 Hz, so that any 20 ms of them
//! are orthogonal and one packet says who is in it. Every caller counts losses and gaps; a sample of
//! them, spread over all rooms, looks into every packet.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use engine::codec::Codec;

use crate::lateness::Lateness;
use crate::process::{self, Usage};

mod caller;
mod listener;
mod media;
mod offer;
mod report;
mod signalling;
mod sip;
mod tone;

pub(crate) use caller::Caller;
pub(crate) use media::{Media, Place, Sockets};
pub(crate) use offer::Offer;
pub(crate) use report::Report;
pub(crate) use signalling::{Seat, Signalling, Stream};
pub(crate) use sip::SipCallers;
pub(crate) use tone::TALKERS_MAX;

/// Samples per second; the RTP clock.
const RATE: u32 = engine::codec::SAMPLE_RATE;

/// A talker's other pitch lasts this long, this often.
const BURST: Duration = Duration::from_millis(200);
const BURST_EVERY: Duration = Duration::from_secs(1);

/// The quantile of the server's tick lateness that is reported.
const LATENESS_QUANTILE: f64 = 0.999;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server's SIP address (UDP), on loopback
    pub(crate) server: SocketAddr,
    #[command(flatten)]
    pub(crate) scene: Scene,
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: usize,
    /// Callers in each room
    #[arg(long, default_value_t = 10)]
    pub(crate) participants: usize,
}

/// What callers do, however many there are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Scene {
    /// Of those in a room, talk at the same time
    #[arg(long, default_value_t = 2)]
    pub(crate) talkers: usize,
    #[arg(long, default_value = "pcmu", value_parser = codec)]
    pub(crate) codec: Codec,
    /// Milliseconds in a packet: 10, 20, 30, 40, 50 or 60
    #[arg(long, default_value_t = 20, value_parser = ptime)]
    pub(crate) ptime: u32,
    /// What those send who do not talk
    #[arg(long, value_enum, default_value_t = Silence::Packets)]
    pub(crate) silence: Silence,
    /// How long to measure, after everybody has joined
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Seconds from then until buffers, limiters and detectors have settled
    #[arg(long, default_value_t = 2)]
    pub(crate) settle: u64,
    /// Callers who look into every packet
    #[arg(long, default_value_t = 200)]
    pub(crate) listeners: usize,
    /// Sockets that the callers share
    #[arg(long, default_value_t = 128)]
    pub(crate) sockets: usize,
    /// Calls placed a second while joining
    #[arg(long, default_value_t = 1_000)]
    pub(crate) dial_rate: u32,
    /// Run on this processor
    #[arg(long)]
    pub(crate) core: Option<usize>,
    /// Process whose CPU time and memory are reported
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// The server's HTTP address, if it is a Plenum: how late its ticks were is then reported too
    #[arg(long)]
    pub(crate) http: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Silence {
    /// Packets of silence, as phones do
    Packets,
    /// Packets of faint noise, as phones in real rooms do
    Noise,
    /// Nothing, as phones do that suppress silence
    None,
}

impl std::ops::Deref for Options {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

#[derive(Debug)]
pub(crate) enum RoomsError {
    Options(String),
    Io(io::Error),
    /// The callers could not get in, or not out.
    Signalling(String),
}

impl fmt::Display for RoomsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(reason) | Self::Signalling(reason) => f.write_str(reason),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for RoomsError {}

impl From<io::Error> for RoomsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// # Errors
/// The rooms could not be filled; what went wrong afterwards is in the report.
pub(crate) fn run(options: &Options) -> Result<Report, RoomsError> {
    let mut callers = SipCallers::new(options.server, options.dial_rate)?;
    run_with(&mut callers, options)
}

/// As [`run`], with callers who get in by other means than SIP.
pub(crate) fn run_with(
    signalling: &mut dyn Signalling,
    options: &Options,
) -> Result<Report, RoomsError> {
    check(options)?;
    if let Some(core) = options.core {
        process::pin(core)?;
    }
    process::raise_descriptor_limit()?;
    let empty = options.pid.map(process::usage).transpose()?;
    let count = options.rooms * options.participants;
    let sockets = Sockets::open(options.sockets.clamp(1, count))?;
    let seats: Vec<Seat> = (0..count)
        .map(|index| Seat {
            room: index / options.participants,
            local: sockets.address(index),
            codec: options.codec,
            ptime_ms: options.ptime,
        })
        .collect();
    let joined = signalling
        .join(&seats)
        .and_then(|streams| Media::full(sockets, &streams, options));
    let measured = joined
        .map_err(RoomsError::Signalling)
        .and_then(|media| measure(media, signalling, options, empty));
    let left = signalling.leave().map_err(RoomsError::Signalling);
    measured.and_then(|report| left.map(|()| report))
}

fn measure(
    mut media: Media,
    signalling: &mut dyn Signalling,
    options: &Options,
    empty: Option<Usage>,
) -> Result<Report, RoomsError> {
    let mut stream = |media: &mut Media, until: Instant| {
        while Instant::now() < until {
            media.turn()?;
            signalling.keep().map_err(RoomsError::Signalling)?;
        }
        Ok::<_, RoomsError>(())
    };
    media.drain()?;
    stream(
        &mut media,
        Instant::now() + Duration::from_secs(options.settle),
    )?;

    let lateness = || {
        let http = options.http.as_deref();
        let read = http.map(Lateness::fetch).transpose();
        read.map_err(RoomsError::Signalling)
    };
    let late_before = lateness()?;
    let before = options.pid.map(process::usage).transpose()?;
    let own_before = process::usage(std::process::id())?;
    let start = Instant::now();
    media.begin_measuring();
    stream(&mut media, start + Duration::from_secs(options.seconds))?;
    let took = start.elapsed();
    media.end_measuring();
    let after = options.pid.map(process::usage).transpose()?;
    let own = cpu_share(own_before, process::usage(std::process::id())?, took);
    let server = match (empty, before, after) {
        (Some(empty), Some(before), Some(after)) => Some(report::Server {
            cpu: cpu_share(before, after, took),
            resident_bytes: after.resident_bytes,
            grown_bytes: after.resident_bytes.saturating_sub(empty.resident_bytes),
        }),
        _ => None,
    };
    let late = late_before
        .zip(lateness()?)
        .map(|(before, after)| after.quantile_ms(&before, LATENESS_QUANTILE));
    Ok(Report::new(options, took, &media, own, server, late))
}

fn check(options: &Options) -> Result<(), RoomsError> {
    if !options.server.ip().is_loopback() {
        return Err(RoomsError::Options(
            "load goes to loopback addresses only".to_owned(),
        ));
    }
    if options.rooms * options.participants == 0 {
        return Err(RoomsError::Options("there is nobody to call".to_owned()));
    }
    let most = options.participants.min(TALKERS_MAX);
    if options.talkers > most {
        return Err(RoomsError::Options(format!(
            "at most {most} can talk: no more than are in a room, and than there are pitches"
        )));
    }
    if options.dial_rate == 0 {
        return Err(RoomsError::Options("--dial-rate is 0".to_owned()));
    }
    Ok(())
}

fn cpu_share(before: Usage, after: Usage, took: Duration) -> f64 {
    (after.cpu - before.cpu).as_secs_f64() / took.as_secs_f64()
}

fn codec(name: &str) -> Result<Codec, String> {
    Codec::from_name(name)
        .ok_or_else(|| format!("not one of {}", Codec::ALL.map(Codec::name).join(", ")))
}

fn ptime(text: &str) -> Result<u32, String> {
    let ptime = text.parse().map_err(|_| "not a number".to_owned())?;
    if (10..=60).contains(&ptime) && ptime % 10 == 0 {
        Ok(ptime)
    } else {
        Err("not 10, 20, 30, 40, 50 or 60".to_owned())
    }
}
