//! How many participants a server holds within a stated bound.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::limit;
use crate::rooms::{self, RoomsError};

mod search;

use search::Search;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The server's SIP address (UDP), on loopback
    server: std::net::SocketAddr,
    #[command(flatten)]
    scene: rooms::Scene,
    /// Callers in each room
    #[arg(long, default_value_t = 10)]
    participants: usize,
    /// All callers in one room instead
    #[arg(long)]
    hall: bool,
    /// Participants to begin with
    #[arg(long, default_value_t = 1_000)]
    start: usize,
    /// Participants not to go beyond
    #[arg(long, default_value_t = 32_000)]
    most: usize,
    /// Ends when the size that held is this close below one that broke, as a share of it
    #[arg(long, default_value_t = 0.05)]
    precision: f64,
    /// A size broke when it did so this many times: a machine's stall is not a server's limit
    #[arg(long, default_value_t = 2)]
    tries: u32,
    #[command(flatten)]
    bound: Bound,
    /// The server's processor: what the kernel can do on it is measured too, while the server rests
    #[arg(long, requires = "core")]
    server_core: Option<usize>,
}

/// What a size has to keep to hold.
#[derive(Args, Clone, Copy, Debug, Serialize)]
pub(crate) struct Bound {
    /// Packets missing, as a share
    #[arg(long, default_value_t = 0.001)]
    loss: f64,
    /// Delay from a talker's burst in to burst out, 99th percentile, in milliseconds
    #[arg(long, default_value_t = 60.0)]
    delay_ms: f64,
    /// Tick lateness, 99.9th percentile, in milliseconds; with --http
    #[arg(long, default_value_t = 20.0)]
    lateness_ms: f64,
}

/// One size, tried once.
#[derive(Clone, Debug, Serialize)]
struct Trial {
    rooms: rooms::Report,
    /// Why it does not hold.
    broken: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    bound: Bound,
    trials: Vec<Trial>,
    /// The largest size that held, by its place in `trials`.
    best: Option<usize>,
    /// What the kernel alone can do for so many callers.
    limits: Vec<limit::Row>,
}

/// # Errors
/// A trial could not be made at all.
pub(crate) fn run(options: &Options) -> Result<Report, RoomsError> {
    let unit = if options.hall {
        1
    } else {
        options.participants.max(1)
    };
    if !(0.001..1.0).contains(&options.precision) {
        return Err(RoomsError::Options(
            "--precision is not a share from 0.001 to 1".to_owned(),
        ));
    }
    let mut search = Search::new(options.start, options.most, unit, options.precision);
    let mut report = Report {
        bound: options.bound,
        trials: Vec::new(),
        best: None,
        limits: Vec::new(),
    };
    while let Some(size) = search.next() {
        let mut held = false;
        for _ in 0..options.tries.max(1) {
            let trial = attempt(options, size / unit, unit)?;
            eprintln!("{trial}");
            held = trial.broken.is_none();
            report.trials.push(trial);
            if held {
                report.best = Some(report.trials.len() - 1);
                break;
            }
        }
        search.tried(size, held);
    }
    if let (Some(best), Some(server), Some(own)) =
        (report.best(), options.server_core, options.scene.core)
    {
        let callers = best.rooms.participants();
        report.limits = limit::best(callers, options.scene.sockets, server, own)
            .map_err(|error| RoomsError::Options(error.to_string()))?;
    }
    Ok(report)
}

fn attempt(options: &Options, groups: usize, unit: usize) -> Result<Trial, RoomsError> {
    let (rooms, participants) = if options.hall {
        (1, groups)
    } else {
        (groups, unit)
    };
    let rooms = rooms::run(&rooms::Options {
        server: options.server,
        scene: options.scene.clone(),
        rooms,
        participants,
    })?;
    let broken = options.bound.broken_by(&rooms);
    Ok(Trial { rooms, broken })
}

impl Bound {
    /// The first thing that a trial did not keep.
    fn broken_by(&self, rooms: &rooms::Report) -> Option<String> {
        if rooms.loss() > self.loss {
            return Some(format!("{:.2} % lost", rooms.loss() * 1e2));
        }
        if rooms.starved() > 0 {
            return Some(format!("{} starved", rooms.starved()));
        }
        if rooms.delay_ms_p99() > self.delay_ms {
            return Some(format!("delay p99 {:.0} ms", rooms.delay_ms_p99()));
        }
        match rooms.tick_lateness_ms_p999() {
            Some(ms) if ms > self.lateness_ms => Some(format!("ticks {ms:.1} ms late")),
            _ => None,
        }
    }
}

impl Report {
    /// The largest size that held.
    fn best(&self) -> Option<&Trial> {
        self.best.map(|index| &self.trials[index])
    }

    pub(crate) fn holds(&self) -> bool {
        self.best.is_some()
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and names always have a JSON form")
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7} participants  {:6.3} % lost  delay p99 {:6.1} ms",
            self.rooms.participants(),
            self.rooms.loss() * 1e2,
            self.rooms.delay_ms_p99(),
        )?;
        if let Some(ms) = self.rooms.tick_lateness_ms_p999() {
            write!(f, "  ticks p99.9 {ms:5.1} ms late")?;
        }
        if let Some(cpu) = self.rooms.server_cpu() {
            write!(f, "  {:5.1} % of a core", cpu * 1e2)?;
        }
        match &self.broken {
            None => write!(f, "  holds")?,
            Some(reason) => write!(f, "  breaks: {reason}")?,
        }
        if self.rooms.generator_is_the_bottleneck() {
            write!(f, " (the generator was full)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(best) = self.best() else {
            return write!(f, "no size held");
        };
        write!(
            f,
            "{} participants held within {} % loss, {} ms of delay",
            best.rooms.participants(),
            self.bound.loss * 1e2,
            self.bound.delay_ms,
        )?;
        if let Some(core) = best.rooms.participants_per_core() {
            write!(f, "; by its CPU time a core would carry {core:.0}")?;
        }
        for row in &self.limits {
            write!(f, "\nlimit: {row}")?;
            if let Some(core) = best.rooms.participants_per_core() {
                let share = core / row.participants_per_core();
                write!(f, "; the server: {:.0} % of that", share * 1e2)?;
            }
        }
        let larger = self
            .trials
            .iter()
            .filter(|trial| trial.rooms.participants() > best.rooms.participants());
        let next = larger.min_by_key(|trial| trial.rooms.participants());
        if next.is_some_and(|trial| trial.rooms.generator_is_the_bottleneck()) {
            write!(
                f,
                "\nbeyond that the generator was full: the server may hold more"
            )?;
        }
        Ok(())
    }
}
