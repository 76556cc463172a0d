//! The same rooms against several servers, in one run, on the same core.
//!
//! What makes it fair: each server has the core to itself (one after the other), the same callers, the same
//! packets and the same bound. Janus mixes at 8 kHz, as G.711 needs no more; its callers join as plain RTP
//! participants with PCMU, so that nobody pays for DTLS or Opus. Everything else is at its defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::rooms::{self, RoomsError, Signalling, SipCallers};

mod janus;
mod plenum;

use janus::Janus;
use plenum::Plenum;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    scene: rooms::Scene,
    /// Callers in each room
    #[arg(long, default_value_t = 10)]
    participants: usize,
    /// Participants to try, one size after the other, until one breaks
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "200,400,600,800,1000,2000,3000,4000,5000,6000"
    )]
    steps: Vec<usize>,
    /// The servers' processor
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// A size breaks when the 99th percentile of the delay is longer than this, in milliseconds
    #[arg(long, default_value_t = 150.0)]
    delay_ms: f64,
    /// A size breaks when a larger share of the packets is missing
    #[arg(long, default_value_t = 0.001)]
    loss: f64,
    /// A size broke when it did so this many times: a machine's stall is not a server's limit
    #[arg(long, default_value_t = 2)]
    tries: u32,
    /// The binary of Plenum
    #[arg(long, default_value = "target/release/plenum")]
    plenum: PathBuf,
    /// The binary of Janus
    #[arg(long, default_value = "janus")]
    janus: PathBuf,
    /// A SIP server that runs already: NAME=HOST:PORT or NAME=HOST:PORT,PID
    #[arg(long, value_parser = sip_server)]
    sip: Vec<SipServer>,
}

/// A server that somebody else started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SipServer {
    name: String,
    address: SocketAddr,
    pid: Option<u32>,
}

fn sip_server(text: &str) -> Result<SipServer, String> {
    let wrong = || format!("{text} is not NAME=HOST:PORT or NAME=HOST:PORT,PID");
    let (name, place) = text.split_once('=').ok_or_else(wrong)?;
    let (address, pid) = match place.split_once(',') {
        Some((address, pid)) => (address, Some(pid.parse().map_err(|_| wrong())?)),
        None => (place, None),
    };
    Ok(SipServer {
        name: name.to_owned(),
        address: address.parse().map_err(|_| wrong())?,
        pid,
    })
}

/// What became of one server.
#[derive(Clone, Debug, Serialize)]
struct Contender {
    name: String,
    /// The largest size that held.
    best: Option<rooms::Report>,
    /// Why the next one did not.
    end: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    contenders: Vec<Contender>,
}

/// # Errors
/// The callers' side failed. A server that cannot be had or fails is in the report.
pub(crate) fn run(options: &Options) -> Result<Report, RoomsError> {
    if options.participants == 0 || options.steps.is_empty() {
        return Err(RoomsError::Options("there is nobody to call".to_owned()));
    }
    let mut contenders = vec![plenum(options), janus(options)];
    contenders.extend(options.sip.iter().map(|server| {
        let trial = |size| {
            let mut callers = SipCallers::new(server.address, options.scene.dial_rate)?;
            attempt(options, &mut callers, server.address, server.pid, size)
        };
        climb(&server.name, options, trial)
    }));
    Ok(Report { contenders })
}

// A server of its own for each trial, so that none inherits another's memory.

fn plenum(options: &Options) -> Contender {
    climb("Plenum", options, |size| {
        let server =
            Plenum::start(&options.plenum, options.server_core).map_err(RoomsError::Signalling)?;
        let mut callers = SipCallers::new(server.sip, options.scene.dial_rate)?;
        attempt(options, &mut callers, server.sip, Some(server.pid()), size)
    })
}

fn janus(options: &Options) -> Contender {
    climb("Janus", options, |size| {
        let server =
            Janus::start(&options.janus, options.server_core).map_err(RoomsError::Signalling)?;
        let mut callers = server.callers();
        attempt(options, &mut callers, server.http, Some(server.pid()), size)
    })
}

fn attempt(
    options: &Options,
    callers: &mut dyn Signalling,
    server: SocketAddr,
    pid: Option<u32>,
    size: usize,
) -> Result<rooms::Report, RoomsError> {
    let scene = rooms::Scene {
        pid,
        ..options.scene.clone()
    };
    rooms::run_with(
        callers,
        &rooms::Options {
            server,
            scene,
            rooms: (size / options.participants).max(1),
            participants: options.participants,
        },
    )
}

/// Goes up the sizes until one breaks.
fn climb(
    name: &str,
    options: &Options,
    mut trial: impl FnMut(usize) -> Result<rooms::Report, RoomsError>,
) -> Contender {
    let mut contender = Contender {
        name: name.to_owned(),
        best: None,
        end: None,
    };
    for &size in &options.steps {
        for _ in 0..options.tries.max(1) {
            let tried = trial(size)
                .map_err(|error| error.to_string())
                .and_then(|report| match options.broken_by(&report) {
                    None => Ok(report),
                    Some(reason) => Err(reason),
                });
            match tried {
                Ok(report) => {
                    eprintln!("{name}: {size} participants held");
                    contender.best = Some(report);
                    contender.end = None;
                    break;
                }
                Err(reason) => {
                    eprintln!("{name}: {size} participants: {reason}");
                    contender.end = Some(format!("{size}: {reason}"));
                }
            }
        }
        if contender.end.is_some() {
            break;
        }
    }
    contender
}

impl Options {
    /// The first thing that a size did not keep.
    fn broken_by(&self, report: &rooms::Report) -> Option<String> {
        if report.loss() > self.loss {
            Some(format!("{:.2} % lost", report.loss() * 1e2))
        } else if report.starved() > 0 {
            Some(format!("{} starved", report.starved()))
        } else if report.delay_ms_p99() > self.delay_ms {
            Some(format!("delay p99 {:.0} ms", report.delay_ms_p99()))
        } else {
            None
        }
    }
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.contenders
            .iter()
            .any(|contender| contender.best.is_some())
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and names always have a JSON form")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "server          held  delay p50     p99  µs/participant·s  participants/core  KiB each  then"
        )?;
        let ours = self
            .contenders
            .first()
            .and_then(|first| first.best.as_ref());
        let mut lines = Vec::new();
        for Contender { name, best, end } in &self.contenders {
            let end = end.as_deref().unwrap_or("no larger size was tried");
            let Some(best) = best else {
                lines.push(format!("{name:12} {:>7}  {end}", "-"));
                continue;
            };
            let number = |number: Option<f64>, digits: usize| {
                number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
            };
            let core = best.participants_per_core();
            lines.push(format!(
                "{name:12} {:7}  {:6.1} ms  {:6.1} ms  {:>15}  {:>17}  {:>8}  {end}",
                best.participants(),
                best.delay_ms_p50(),
                best.delay_ms_p99(),
                number(core.map(|core| 1e6 / core), 0),
                number(core, 0),
                number(best.kib_per_participant(), 1),
            ));
            if let (Some(ours), Some(core)) = (ours, core)
                && let Some(our_core) = ours.participants_per_core()
                && our_core != core
            {
                lines.push(format!(
                    "             Plenum held {:.1} times as many, and a core would carry {:.1} times as many",
                    ours.participants() as f64 / best.participants() as f64,
                    our_core / core
                ));
            }
        }
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named() {
        assert_eq!(
            sip_server("FreeSWITCH=127.0.0.1:5080,77"),
            Ok(SipServer {
                name: "FreeSWITCH".to_owned(),
                address: "127.0.0.1:5080".parse().unwrap(),
                pid: Some(77),
            })
        );
        assert_eq!(sip_server("a=[::1]:5060").unwrap().pid, None);
        for wrong in ["127.0.0.1:5060", "a=127.0.0.1", "a=127.0.0.1:5060,x", "a="] {
            assert!(sip_server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_climbs_until_it_fails_as_often_as_it_may_be_tried() {
        let cli = |steps: &str| {
            use clap::Parser;
            #[derive(Parser)]
            struct Cli {
                #[command(flatten)]
                options: Options,
            }
            Cli::parse_from(["peers", "--steps", steps]).options
        };
        let mut tried = Vec::new();
        let contender = climb("x", &cli("10,20,30"), |size| {
            tried.push(size);
            Err(RoomsError::Signalling("no".to_owned()))
        });
        assert_eq!(tried, [10, 10]);
        assert!(contender.best.is_none());
        assert_eq!(contender.end.as_deref(), Some("10: no"));
    }
}
