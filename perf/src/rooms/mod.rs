//! Rooms full of callers on one thread: they join over SIP, stream RTP, and every packet that comes
//! back is looked into.
//!
//! A talker sends a tone of his own pitch. For [`BURST`] in every [`BURST_EVERY`] he sends another pitch
//! instead; the time from his first packet of that pitch to the first packet in which a listener gets
//! it is the delay through the server. All pitches are multiples of 50 Hz, so that any 20 ms of them
//! are orthogonal and one packet says who is in it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use engine::codec::Codec;
use engine::focus::negotiate;
use engine::io::plain::PlainIo;
use engine::io::{MediaIo, SocketId, Token};
use engine::random::Random;
use mixer_simd::Kernels;
use sip::sdp::{self, Local};
use sip::{Body, Endpoint, Event, Flow, Invitation, ListenerIdentity, Output, Transport};

use crate::process::{self, Usage};

mod caller;
mod report;
mod tone;

use caller::{Caller, Heard};
pub(crate) use report::Report;

/// Samples per second; the RTP clock.
const RATE: u32 = engine::codec::SAMPLE_RATE;

/// A talker's other pitch lasts this long, this often.
const BURST: Duration = Duration::from_millis(200);
const BURST_EVERY: Duration = Duration::from_secs(1);

/// Calls placed in one turn, so that joining is a ramp and not a test of its own.
const DIALS_PER_TURN: usize = 4;

/// Joining may take this long.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// After everybody has joined: until buffers, limiters and detectors have settled.
const SETTLE: Duration = Duration::from_secs(2);

const HANG_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Short against anything measured here, long enough to leave the other threads of a small machine some time.
const TURN: Duration = Duration::from_micros(250);

/// Number of the SIP socket among tokens; callers have their index.
const SIP_TOKEN: Token = Token(u64::MAX);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server's SIP address (UDP), on loopback
    server: SocketAddr,
    #[arg(long, default_value_t = 20)]
    rooms: usize,
    /// Callers in each room
    #[arg(long, default_value_t = 10)]
    participants: usize,
    /// Of those, talk at the same time
    #[arg(long, default_value_t = 2)]
    talkers: usize,
    #[arg(long, default_value = "pcmu", value_parser = codec)]
    codec: Codec,
    /// Milliseconds in a packet: 10, 20, 30, 40, 50 or 60
    #[arg(long, default_value_t = 20, value_parser = ptime)]
    ptime: u32,
    /// How long to measure, after everybody has joined
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Run on this processor
    #[arg(long)]
    core: Option<usize>,
    /// Process whose CPU time and memory are reported
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Debug)]
pub(crate) enum RoomsError {
    Options(String),
    Io(io::Error),
    Refused { status: u16 },
    Joining { joined: usize, wanted: usize },
    Answer(String),
}

impl fmt::Display for RoomsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(reason) => f.write_str(reason),
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused { status } => write!(f, "a call was refused with {status}"),
            Self::Joining { joined, wanted } => {
                write!(f, "only {joined} of {wanted} callers had joined in time")
            }
            Self::Answer(reason) => write!(f, "an answer cannot be used: {reason}"),
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
    if !options.server.ip().is_loopback() {
        return Err(RoomsError::Options(
            "load goes to loopback addresses only".to_owned(),
        ));
    }
    if options.talkers > options.participants
        || options.talkers > tone::TALKERS_MAX
        || options.participants == 0
    {
        let most = tone::TALKERS_MAX;
        return Err(RoomsError::Options(format!(
            "a room has at least as many participants as talkers, who are at most {most}"
        )));
    }
    if let Some(core) = options.core {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(core);
        rustix::thread::sched_setaffinity(None, &cpus).map_err(io::Error::from)?;
    }
    let mut load = Load::new(options)?;
    if let Err(error) = load.join() {
        load.hang_up()?;
        return Err(error);
    }
    load.stream(Instant::now() + SETTLE)?;

    let before = options.pid.map(process::usage).transpose()?;
    let own_before = process::usage(std::process::id())?;
    let start = Instant::now();
    load.begin_measuring();
    load.stream(start + Duration::from_secs(options.seconds))?;
    let took = start.elapsed();
    load.end_measuring();
    let after = options.pid.map(process::usage).transpose()?;
    let own = cpu_share(own_before, process::usage(std::process::id())?, took);
    let server = before
        .zip(after)
        .map(|(before, after)| (cpu_share(before, after, took), after.resident_bytes));

    let report = Report::new(options, took, &load.callers, &load.heard, own, server);
    load.hang_up()?;
    Ok(report)
}

fn cpu_share(before: Usage, after: Usage, took: Duration) -> f64 {
    (after.cpu - before.cpu).as_secs_f64() / took.as_secs_f64()
}

struct Load<'a> {
    options: &'a Options,
    io: PlainIo,
    sip_socket: SocketId,
    endpoint: Endpoint,
    callers: Vec<Caller>,
    heard: Heard,
    joined: usize,
    refused: Option<u16>,
    unusable: Option<String>,
    /// SIP messages of this turn.
    arrived: Vec<Vec<u8>>,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self, RoomsError> {
        let mut random = Random::from_entropy();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut io = PlainIo::new()?;
        let socket = UdpSocket::bind((local, 0))?;
        let sip_address = socket.local_addr()?;
        let sip_socket = io.adopt(socket, SIP_TOKEN)?;
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: sip_address.to_string(),
        };
        let endpoint = Endpoint::new(sip::Config::new(0, vec![identity], random.next_u64()));
        let kernels = Kernels::detect();
        let mut callers = Vec::new();
        for index in 0..options.rooms * options.participants {
            let socket = UdpSocket::bind((local, 0))?;
            let port = socket.local_addr()?.port();
            let socket = io.adopt(socket, Token(index as u64))?;
            let place = index % options.participants;
            let talker = (place < options.talkers).then_some(place);
            callers.push(Caller::new(
                socket,
                port,
                index / options.participants,
                talker,
                options,
                kernels,
                random.next_u64(),
            ));
        }
        let heard = Heard::new(options.talkers, options.rooms);
        Ok(Self {
            options,
            io,
            sip_socket,
            endpoint,
            callers,
            heard,
            joined: 0,
            refused: None,
            unusable: None,
            arrived: Vec::new(),
        })
    }

    /// Everybody dials, a few a turn, and waits until all are in.
    fn join(&mut self) -> Result<(), RoomsError> {
        let start = Instant::now();
        let mut dialled = 0;
        while self.joined < self.callers.len() {
            let now = Instant::now();
            let until = (dialled + DIALS_PER_TURN).min(self.callers.len());
            for index in dialled..until {
                self.dial(now, index)?;
            }
            dialled = until;
            self.turn(now)?;
            if let Some(status) = self.refused {
                return Err(RoomsError::Refused { status });
            }
            if let Some(reason) = self.unusable.take() {
                return Err(RoomsError::Answer(reason));
            }
            if start.elapsed() > JOIN_TIMEOUT {
                return Err(RoomsError::Joining {
                    joined: self.joined,
                    wanted: self.callers.len(),
                });
            }
        }
        Ok(())
    }

    fn dial(&mut self, now: Instant, index: usize) -> Result<(), RoomsError> {
        let server = self.options.server;
        let caller = &mut self.callers[index];
        let mut capabilities = negotiate::capabilities(&[self.options.codec]);
        capabilities.ptime_ms = self.options.ptime;
        let local = Local {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            rtp_port: caller.port,
            rtcp_port: caller.port,
            session_id: index as u64 + 1,
            version: 1,
        };
        let offer = sdp::offer(&capabilities, &local);
        let flow = Flow {
            transport: Transport::Udp,
            peer: server,
            listener: 0,
            stream: 0,
        };
        let invitation = Invitation {
            target: format!("sip:perf{}@{server}", caller.room),
            from: format!("sip:caller{index}@127.0.0.1"),
            contact_user: format!("caller{index}"),
            body: Some(Body {
                content_type: "application/sdp".to_owned(),
                content: Bytes::from(offer.to_string()),
            }),
        };
        let call = self
            .endpoint
            .invite(now, flow, invitation)
            .map_err(|error| io::Error::other(error.to_string()))?;
        caller.dialled(call, offer);
        Ok(())
    }

    fn stream(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.turn(now)?;
        }
    }

    fn hang_up(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for caller in &mut self.callers {
            if let Some(call) = caller.call() {
                self.endpoint.bye(now, call, None);
            }
        }
        while !self.endpoint.is_idle() && now.elapsed() < HANG_UP_TIMEOUT {
            self.turn(Instant::now())?;
        }
        Ok(())
    }

    fn begin_measuring(&mut self) {
        self.callers.iter_mut().for_each(Caller::begin_measuring);
        self.heard.begin();
    }

    fn end_measuring(&mut self) {
        self.callers.iter_mut().for_each(Caller::end_measuring);
    }

    fn turn(&mut self, now: Instant) -> io::Result<()> {
        let Self {
            io,
            callers,
            heard,
            arrived,
            ..
        } = self;
        io.harvest(&mut |arrival| match arrival.token {
            SIP_TOKEN => arrived.push(arrival.datagram.to_vec()),
            Token(index) => callers[index as usize].receive(
                Instant::now(),
                arrival.from,
                arrival.datagram,
                heard,
            ),
        })?;
        let flow = Flow {
            transport: Transport::Udp,
            peer: self.options.server,
            listener: 0,
            stream: 0,
        };
        for message in self.arrived.drain(..) {
            self.endpoint.handle_message(now, flow, &message);
        }
        self.endpoint.handle_timeout(now);
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { flow, message } => {
                    let payload = self.io.share(&message);
                    self.io.queue(self.sip_socket, flow.peer, &[], payload);
                }
                Output::Event(event) => self.on_event(now, event),
            }
        }
        for caller in &mut self.callers {
            caller.send(now, &mut self.io, &mut self.heard);
        }
        self.io.flush();
        std::thread::sleep(TURN);
        Ok(())
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Accepted { call, body } => {
                let Some(caller) = self
                    .callers
                    .iter_mut()
                    .find(|caller| caller.call() == Some(call))
                else {
                    return;
                };
                match body
                    .ok_or_else(|| "it has no session description".to_owned())
                    .and_then(|body| caller.answered(now, &body.content))
                {
                    Ok(()) => self.joined += 1,
                    Err(reason) => self.unusable = Some(reason),
                }
            }
            Event::Rejected { status, .. } => self.refused = Some(status),
            _ => {}
        }
    }
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
