//! The paper's experiment on real processes: one server for all users, against a service that grows.
//!
//! ```text
//!   plan ──> arm (central, then service) ──> report ──> table, JSON, figures
//!             │  fleet: processes, each in a cgroup with a quota; started when the service asks
//!             │  callers: SIP, redirects followed ──> delays of messages
//!             │  rooms::Media: tones and bursts ──> delays of media
//!             └─ board <── watch: each server's status and decisions ──> terminal
//! ```
//! Callers and their media are one thread, on a processor of its own and under no quota.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::process;
use crate::rooms::TALKERS_MAX;

mod arm;
mod board;
mod callers;
mod delays;
mod figures;
mod fleet;
mod plan;
mod quota;
mod report;
mod watch;

use board::Board;
use fleet::Reserve;
use plan::Series;
use quota::{Hierarchy, Quota};
pub(crate) use report::Report;
use report::{Outcome, Variant};
use watch::Watch;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server's binary
    #[arg(long, default_value = "target/release/plenum")]
    plenum: PathBuf,
    /// The paper's settings to run, by max-load: 500, 700
    #[arg(long, value_delimiter = ',', default_value = "500,700")]
    series: Vec<u32>,
    /// Which servers: one for all, the service, or both one after the other
    #[arg(long, value_enum, default_value_t = Arms::Both)]
    arms: Arms,
    /// How often the arms are run, in turns; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds measured at each number of users
    #[arg(long, default_value_t = 6)]
    seconds_per_step: u64,
    /// Seconds from the last caller's joining until then
    #[arg(long, default_value_t = 2)]
    settle: u64,
    /// Callers that join in a second [default: 20, and 200 with --true-scale]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    dial_rate: Option<u32>,
    /// Each server's part of a processor, in percent [default: a quarter more than a server takes that is
    /// full and not held to anything, measured before each series]
    #[arg(long, value_parser = percent)]
    quota: Option<f64>,
    /// No quotas: servers take from each other what they need
    #[arg(long)]
    no_quota: bool,
    /// Milliseconds in which that time is given out anew; longer where it would be below the kernel's
    /// least of 1 ms
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    period_ms: u64,
    /// Callers in a conference; 0: all in one
    #[arg(long, default_value_t = 10)]
    participants: usize,
    /// Of those, talk at the same time
    #[arg(long, default_value_t = 2)]
    talkers: usize,
    /// Milliseconds in a packet
    #[arg(long, default_value_t = 20, value_parser = ptime)]
    ptime: u32,
    /// Milliseconds between two OPTIONS of a caller [default: 2000, and 10000 with --true-scale]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    options_every_ms: Option<u64>,
    /// Callers who look into every packet
    #[arg(long, default_value_t = 400)]
    listeners: usize,
    /// Sockets that the callers share
    #[arg(long, default_value_t = 128)]
    sockets: usize,
    /// How servers wait that are not needed yet
    #[arg(long, value_enum, default_value_t = Reserve::Hook)]
    reserve: Reserve,
    /// The servers' processor
    #[arg(long, default_value_t = 1)]
    server_core: usize,
    /// The callers' processor
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// At this engine's scale instead: so many users fill a server, counted by the literal sum
    #[arg(long)]
    true_scale: bool,
    /// With --true-scale: users that fill a server
    #[arg(long, default_value_t = 1_500)]
    users_per_server: usize,
    /// With --true-scale: servers at most
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Folder for figures and raw results
    #[arg(long, default_value = "target/paper")]
    out: PathBuf,
    /// Lines instead of a live picture, on terminals too
    #[arg(long)]
    plain: bool,
    /// Further settings for every server, as `plenum serve --set`
    #[arg(long = "set")]
    sets: Vec<String>,
}

/// What a server gets, of what it takes when it is full: room to breathe, and not to carry many more.
const ROOM: f64 = 1.25;

/// Of the servers' processor, what all of them together may have.
const PROCESSOR: f64 = 0.95;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arms {
    Central,
    Service,
    Both,
}

impl Arms {
    fn variants(self) -> &'static [Variant] {
        match self {
            Self::Central => &[Variant::Central],
            Self::Service => &[Variant::Service],
            Self::Both => &[Variant::Central, Variant::Service],
        }
    }
}

impl Options {
    fn room_size(&self, users: usize) -> usize {
        match self.participants {
            0 => users,
            participants => participants,
        }
    }

    fn dial_rate(&self) -> u32 {
        self.dial_rate
            .unwrap_or(if self.true_scale { 200 } else { 20 })
    }

    fn options_every_ms(&self) -> u64 {
        self.options_every_ms
            .unwrap_or(if self.true_scale { 10_000 } else { 2_000 })
    }

    /// Of a caller, both ways.
    fn packets_per_s(&self) -> u32 {
        2 * 1_000 / self.ptime
    }

    /// In periods that do not fall in step with packets: where stops and packets happen to meet would decide
    /// the delays of a whole run.
    fn quota_of(&self, share: f64) -> Quota {
        let packet = Duration::from_millis(self.ptime.into());
        let mut quota = Quota::new(share, Duration::from_millis(self.period_ms));
        while quota.is_in_step_with(packet) {
            quota = Quota::new(share, quota.period().mul_f64(1.05));
        }
        quota
    }

    /// About, from what a step takes and what an arm does to begin and end.
    fn lasts(&self, plan: &[Series]) -> Duration {
        let arm = |series: &Series| {
            let joining = series.users() as f64 / f64::from(self.dial_rate());
            let steps = series.steps.len() as u64 * (self.settle + self.seconds_per_step);
            joining + steps as f64 + 2.0
        };
        let arms = f64::from(self.rounds) * self.arms.variants().len() as f64;
        Duration::from_secs_f64(arms * plan.iter().map(arm).sum::<f64>())
    }

    fn plan(&self) -> Result<Vec<Series>, PaperError> {
        if self.true_scale {
            let (users, servers) = (self.users_per_server.max(1), self.servers.max(1));
            let series = Series::at_scale(users, servers, self.packets_per_s());
            return Ok(vec![series]);
        }
        let series = |&max_load: &u32| {
            Series::of_paper(max_load).ok_or_else(|| {
                PaperError::Options(format!("the paper has no max-load {max_load}: 500, 700"))
            })
        };
        self.series.iter().map(series).collect()
    }
}

#[derive(Debug)]
pub(crate) enum PaperError {
    Options(String),
    Io(io::Error),
    Server(String),
    Interrupted,
}

impl fmt::Display for PaperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(reason) | Self::Server(reason) => f.write_str(reason),
            Self::Io(error) => write!(f, "{error}"),
            Self::Interrupted => f.write_str("interrupted; all servers have ended"),
        }
    }
}

impl std::error::Error for PaperError {}

impl From<io::Error> for PaperError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Io(error),
        }
    }
}

/// # Errors
/// A server could not be started or held to its quota, or the run was interrupted.
pub(crate) fn run(options: &Options) -> Result<Report, PaperError> {
    let plan = options.plan()?;
    let most = match options.participants {
        0 => TALKERS_MAX,
        participants => participants.min(TALKERS_MAX),
    };
    if options.talkers > most {
        return Err(PaperError::Options(format!(
            "at most {most} can talk: no more than are in a conference, and than there are pitches"
        )));
    }
    let stop = interrupts()?;
    process::pin(options.core)?;
    process::raise_descriptor_limit()?;
    let hierarchy = match options.no_quota {
        true => Err("none was asked for".to_owned()),
        false => Hierarchy::find(),
    };
    let board = Arc::new(Board::default());
    let watch = Watch::start(Arc::clone(&board), options.plain);
    let held_by = match &hierarchy {
        Ok(hierarchy) => format!("each held to its quota by {hierarchy}"),
        Err(reason) => format!(
            "WITHOUT quotas ({reason}): they share one processor, so several are no more machine than one"
        ),
    };
    board.say(format!("servers: {held_by}"));
    let minutes = options.lasts(&plan).as_secs_f64() / 60.0;
    board.say(format!("takes about {minutes:.0} minutes"));
    let mut outcomes = Vec::new();
    for series in plan {
        let setting = |hierarchy, quota, (round, variant)| arm::Setting {
            options,
            series: &series,
            variant,
            round,
            hierarchy,
            quota,
            board: &board,
            stop: &stop,
        };
        let share = match (options.quota, &hierarchy) {
            (Some(percent), _) => percent / 1e2,
            (None, Err(_)) => 1.0,
            (None, Ok(_)) => {
                board.say("what a full server takes is measured".to_owned());
                let free = options.quota_of(1.0);
                let taken = arm::weigh(&setting(None, free, (0, Variant::Central)))?;
                let share = (taken * ROOM).min(PROCESSOR / series.servers() as f64);
                board.say(format!("it takes {:.1} % of a processor", taken * 1e2));
                share
            }
        };
        let quota = options.quota_of(share);
        board.say(format!(
            "max-load {}: a server has {quota}",
            series.max_load
        ));
        let mut arms = Vec::new();
        // In turns, so that both arms meet the same moods of the machine.
        let turns = (1..=options.rounds)
            .flat_map(|round| options.arms.variants().iter().map(move |arm| (round, *arm)));
        for (round, variant) in turns {
            let setting = setting(hierarchy.as_ref().ok(), quota, (round, variant));
            arms.push(arm::run(&setting)?);
        }
        outcomes.push(Outcome {
            series,
            quota: hierarchy.is_ok().then_some(quota),
            arms,
        });
    }
    drop(watch);
    let figures = figures::draw(&options.out, &outcomes).map_err(PaperError::Server)?;
    let mut report = Report {
        held_by,
        packets_per_s: options.packets_per_s(),
        room_size: options.participants,
        talkers: options.talkers,
        options_every_ms: options.options_every_ms(),
        seconds_per_step: options.seconds_per_step,
        rounds: options.rounds,
        compared: outcomes.iter().map(Outcome::compared).collect(),
        differences: differences(options, &outcomes),
        outcomes,
        figures,
    };
    let raw = options.out.join("results.json");
    report.figures.push(raw.display().to_string());
    std::fs::write(&raw, report.to_json())?;
    Ok(report)
}

/// Where our setting is not the paper's, for whoever compares the numbers.
fn differences(options: &Options, outcomes: &[Outcome]) -> Vec<String> {
    let packets = options.packets_per_s();
    let mut differences = Vec::new();
    if options.true_scale {
        differences.push(format!(
            "A user counts what the paper's sum gives: {packets} packets a second and his SIP messages. A server is \
             full at {} users, not 50 or 70.",
            options.users_per_server
        ));
    } else {
        differences.push(format!(
            "The paper's load is SIP messages plus packets a second, and its servers are full at 500 with 50 users: \
             10 a user. That sum gives {packets} for a phone with packets of {} ms, so it is multiplied by {} here \
             (load.weights).",
            options.ptime,
            plan::PAPER_WEIGHT
        ));
    }
    let floor = outcomes.first().and_then(|outcome| {
        let first = *outcome.compared().steps.first()?;
        Some(first.central?.media?.median_second_ms)
    });
    differences.extend([
        format!(
            "The paper's users send 16 packets of 512 octets a second; ours {} of {} ms G.711, as phones do.",
            1_000 / options.ptime,
            options.ptime
        ),
        "The paper's servers were Java programs in a simulation. Here they are processes on one machine, each held to \
         a part of a processor by the kernel; the part is chosen so that a server that is full uses most of \
         it. Unrestrained, one processor carries thousands of users, and nothing would be seen."
            .to_owned(),
        format!(
            "Media delay here has a part that is there without any load: the jitter buffer and the wait for the \
             mixer's next frame{}. It is in both arms, and makes improvements look smaller. It is not constant: the \
             jitter buffer grows where packets come unevenly, and shrinks only slowly.",
            floor.map_or_else(String::new, |ms| format!(", most of the {ms:.0} ms at the first step"))
        ),
        "A SIP message's delay is from the moment when an OPTIONS within a call was due to its 200; the paper \
         averages the time that its servers take over all kinds of messages. INVITEs are in the raw results."
            .to_owned(),
        "The paper tells averages. Here a delay is the median of the means of each second, and of the rounds the \
         median: a stall of the machine is nobody's delay. What never came is in no mean, but counted, and where \
         not everybody is in, no improvement is told."
            .to_owned(),
        "The servers' own limit, busy cores, is off (load.hot_max=1): the number of users decides who is full, as in \
         the paper. Who is stopped by a quota looks busy all the time."
            .to_owned(),
        match options.participants {
            0 => "All users are in one conference, and its members on other servers are heard over trunks: the column \
                  (other). The paper does not say how its servers share media."
                .to_owned(),
            participants => format!(
                "Users are in conferences of {participants}, {} of whom talk; the paper does not say. Where a \
                 conference is on two servers, a talker on the other one is heard over a trunk: the column (other).",
                options.talkers
            ),
        },
        "A redirected caller calls twice, and the servers tell each other their load and their users: that work is \
         inside their quotas."
            .to_owned(),
    ]);
    differences
}

/// Set by the first Ctrl-C (or TERM or HUP); the second ends the program as usual.
fn interrupts() -> io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: what comes first does not see what it sets.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (1.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("not a percentage from 1 to 100".to_owned()),
    }
}

fn ptime(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(ptime) if [10, 20, 30, 40, 50, 60].contains(&ptime) => Ok(ptime),
        _ => Err("not 10, 20, 30, 40, 50 or 60".to_owned()),
    }
}

#[cfg(test)]
mod tests;
