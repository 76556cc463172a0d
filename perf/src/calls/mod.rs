//! Call set-up load: INVITE to BYE at a steady rate from one thread, each call into a room.
//!
//! ```text
//!   sockets ─> load ─> call ─> outbox ─> sockets
//!              (all)   (one)     tally ─> report
//! ```
//! The load is open: calls begin when the schedule says, whatever became of those before, and times count
//! from that moment. A server that falls behind is therefore met by more waiting calls, as on a network,
//! and not by fewer. Messages are written from a template and replies only glanced at, for a third of what a
//! call costs in [`sip::Endpoint`], so that one core can load several cores of a server.
//!
//! Media are offered and never sent; what the server sends goes to a socket that nobody reads.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use clap::Args;
use engine::codec::Codec;
use engine::focus::negotiate;
use engine::random::Random;
use sip::Timers;
use sip::sdp::{self, Local};

use crate::process;

mod call;
mod load;
mod message;
mod outbox;
mod report;
mod sockets;
mod tally;

use call::Terms;
use load::{Load, Schedule};
use message::Script;
pub(crate) use report::Report;
use report::Run;
use sockets::Sockets;

/// Calls take turns on these. Several, because a server that spreads datagrams by their source would
/// otherwise have all of them on one core.
const SOCKETS: usize = 8;

/// Between the last preparation and the first call.
const LEAD: Duration = Duration::from_millis(10);

/// Fastest schedule, far above what one thread can send.
const RATE_MAX: f64 = 1e6;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server's SIP address (UDP), on loopback
    server: SocketAddr,
    /// Calls begun in a second
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// Calls to make in all
    #[arg(long, conflicts_with = "seconds")]
    calls: Option<u64>,
    /// How long to begin calls
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// From the answer to the BYE; 0 hangs up at once
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
    /// Rooms that the calls spread over; 0 is a room for each call
    #[arg(long, default_value_t = 0)]
    rooms: u64,
    /// Call where a redirect points; without, a redirected call has ended and has not failed
    #[arg(long)]
    follow_redirects: bool,
    /// Give a request up after this long without a final answer
    #[arg(long, default_value_t = 32_000)]
    timeout_ms: u64,
    /// Run on this processor
    #[arg(long)]
    core: Option<usize>,
    /// Process whose CPU time is reported
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Debug)]
pub(crate) enum CallsError {
    NotLoopback,
    Io(io::Error),
}

impl fmt::Display for CallsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback => f.write_str("load goes to loopback addresses only"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for CallsError {}

impl From<io::Error> for CallsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// # Errors
/// The load could not be made; what the server did with it is in the report.
pub(crate) fn run(options: &Options) -> Result<Report, CallsError> {
    if !options.server.ip().is_loopback() {
        return Err(CallsError::NotLoopback);
    }
    if let Some(core) = options.core {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(core);
        rustix::thread::sched_setaffinity(None, &cpus).map_err(io::Error::from)?;
    }
    let local = match options.server.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let mut sockets = Sockets::bind(local, SOCKETS)?;
    let media = UdpSocket::bind((local, 0))?;
    let script = Script {
        server: options.server,
        locals: sockets.addresses()?,
        rooms: options.rooms,
        offer: offer(media.local_addr()?),
    };
    let terms = Terms {
        hold: Duration::from_millis(options.hold_ms),
        follows_redirects: options.follow_redirects,
        patience: Duration::from_millis(options.timeout_ms),
        timers: Timers::default(),
    };
    let calls = options
        .calls
        .unwrap_or((options.rate * options.seconds as f64) as u64);

    let server_before = options.pid.map(process::usage).transpose()?;
    let own_before = process::usage(std::process::id())?;
    let dropped_before = sockets.dropped()?;
    let schedule = Schedule {
        start: Instant::now() + LEAD,
        rate: options.rate,
        calls,
    };
    let run = Random::from_entropy().next_u64() as u32;
    let mut load = Load::new(schedule, terms, script, run);
    // What the last call waits for is the hold time and perhaps timers; the CPU of the generator is
    // told for the time in which it was busy.
    let mut begun = None;
    while !load.is_done() {
        turn(&mut load, &mut sockets)?;
        if begun.is_none() && load.has_begun_all() {
            begun = Some((Instant::now(), process::usage(std::process::id())?));
        }
    }
    let server_after = options.pid.map(process::usage).transpose()?;
    let (begun_at, own_after) = match begun {
        Some(begun) => begun,
        None => (Instant::now(), process::usage(std::process::id())?),
    };
    let busy = begun_at.saturating_duration_since(schedule.start);
    let run = Run {
        start: schedule.start,
        took: schedule.start.elapsed(),
        own_cpu: (own_after.cpu - own_before.cpu).as_secs_f64() / busy.max(LEAD).as_secs_f64(),
        server_cpu: server_before
            .zip(server_after)
            .map(|(before, after)| after.cpu - before.cpu),
        dropped: sockets.dropped()? - dropped_before,
        unsent: sockets.unsent,
    };
    Ok(Report::new(options, &run, &load.tally))
}

fn turn(load: &mut Load, sockets: &mut Sockets) -> io::Result<()> {
    let due = load.poll_timeout();
    let idle = due.map_or(Duration::ZERO, |at| {
        at.saturating_duration_since(Instant::now())
    });
    sockets.receive(idle, |socket, from, datagram| {
        load.handle_datagram(Instant::now(), socket, from, datagram);
    })?;
    load.handle_timeout(Instant::now());
    sockets.flush(&mut load.outbox);
    Ok(())
}

fn offer(media: SocketAddr) -> String {
    let local = Local {
        address: media.ip(),
        rtp_port: media.port(),
        rtcp_port: media.port(),
        session_id: 1,
        version: 1,
    };
    sdp::offer(&negotiate::capabilities(&[Codec::Pcmu]), &local).to_string()
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!("a rate is a number above 0, up to {RATE_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// Answers INVITE with `status` and BYE with 200 until `done`.
    fn serve(socket: &UdpSocket, status: &str, done: &AtomicBool) {
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut datagram = [0; 2_048];
        while !done.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut datagram) else {
                continue;
            };
            let request = &datagram[..len];
            let status = match request {
                _ if request.starts_with(b"INVITE ") => status,
                _ if request.starts_with(b"BYE ") => "200 OK",
                _ => continue,
            };
            let mut reply = Vec::new();
            message::answer(&mut reply, status, request);
            let reply = String::from_utf8(reply).unwrap();
            let tagged = match reply.contains(">;tag=t\r\n") {
                true => reply,
                false => reply.replace(">\r\nCall-ID", ">;tag=t\r\nCall-ID"),
            };
            socket.send_to(tagged.as_bytes(), from).unwrap();
        }
    }

    fn run_against(status: &str) -> Report {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap().to_string();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&socket, status, &done));
            let line = ["calls", &server, "--rate", "500", "--calls", "40"];
            let report = run(&Line::parse_from(line).options);
            done.store(true, Ordering::Relaxed);
            report.unwrap()
        })
    }

    #[test]
    fn calls_over_loopback_are_reported_and_judged() {
        let report = run_against("200 OK");
        assert!(report.holds(), "{report}");
        let line = report.to_json();
        for part in ["\"offered\":40,\"succeeded\":40,", "\"failed\":0,"] {
            assert!(line.contains(part), "{part} in {line}");
        }

        let report = run_against("486 Busy Here");
        assert!(!report.holds(), "{report}");
        let failures = "\"failed\":40,\"failed_by\":{\"INVITE 486\":40}";
        assert!(report.to_json().contains(failures), "{report}");
    }

    #[test]
    fn load_stays_on_loopback() {
        let options = Line::parse_from(["calls", "192.0.2.1:5060"]).options;
        assert!(matches!(run(&options), Err(CallsError::NotLoopback)));
        for wrong in ["0", "-1", "NaN", "1e7", "x"] {
            let rate = format!("--rate={wrong}");
            let line = Line::try_parse_from(["calls", "127.0.0.1:5060", &rate]);
            assert!(line.is_err(), "{wrong}");
        }
    }
}
