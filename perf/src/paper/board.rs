//! What is going on, for those who watch: written by the run, read by the terminal.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arm::Setting;
use super::callers::Tally;
use super::fleet::Address;
use super::report::Variant;

/// Lines kept for a terminal that is slow.
const LINES_MAX: usize = 500;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Starting,
    Joining,
    Settling,
    Measuring,
    Leaving,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Joining => "joining",
            Self::Settling => "settling",
            Self::Measuring => "measuring",
            Self::Leaving => "leaving",
        })
    }
}

/// One server, as it says of itself and as its callers see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServerLine {
    pub(super) name: String,
    pub(super) sip: Option<SocketAddr>,
    pub(super) http: Option<SocketAddr>,
    pub(super) running: bool,
    /// As its status says; empty when it does not answer.
    pub(super) state: String,
    pub(super) load: u32,
    pub(super) participants: u64,
    pub(super) joins: u64,
    /// Callers it sent elsewhere.
    pub(super) redirects: u64,
}

/// The whole picture at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) title: String,
    pub(super) users: usize,
    pub(super) phase: Phase,
    pub(super) tally: Tally,
    pub(super) servers: Vec<ServerLine>,
    /// A server's bar is full at this load: its max-load, or that of all whom the central one stands for.
    pub(super) full_load: u32,
    /// Counts arms, so that an answer of an earlier one is not taken for one of this.
    pub(super) arm: u64,
}

#[derive(Default)]
struct State {
    picture: Picture,
    lines: VecDeque<String>,
    /// What has been said in this step and is not said again: callers are sent on by the hundred.
    said: HashSet<String>,
}

#[derive(Default)]
pub(super) struct Board(Mutex<State>);

impl Board {
    /// Nobody holds it for longer than copying takes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, setting: &Setting<'_>, addresses: &[Address]) {
        let series = setting.series;
        let (variant, full_load) = match setting.variant {
            Variant::Central => {
                let all = series.max_load.saturating_mul(series.servers() as u32);
                ("central: one server for all".to_owned(), all)
            }
            Variant::Service => {
                let max_load = series.max_load;
                (format!("service: max-load {max_load}"), max_load)
            }
        };
        let mut state = self.state();
        let arm = state.picture.arm + 1;
        state.picture = Picture {
            title: format!(
                "round {}, {variant}; to {} users",
                setting.round,
                series.users()
            ),
            servers: addresses
                .iter()
                .map(|address| ServerLine {
                    name: address.name.clone(),
                    sip: Some(address.sip),
                    http: Some(address.http),
                    ..ServerLine::default()
                })
                .collect(),
            full_load,
            arm,
            ..Picture::default()
        };
        drop(state);
        self.say(format!("== round {}, {variant}", setting.round));
    }

    pub(super) fn step(&self, users: usize, phase: Phase) {
        let mut state = self.state();
        (state.picture.users, state.picture.phase) = (users, phase);
        if phase == Phase::Joining {
            state.said.clear();
        }
    }

    pub(super) fn update(&self, tally: Tally, running: &[bool]) {
        let mut state = self.state();
        state.picture.tally = tally;
        for (line, &running) in state.picture.servers.iter_mut().zip(running) {
            line.running = running;
        }
    }

    pub(super) fn joined(&self, home: Option<usize>) {
        let mut state = self.state();
        let line = home.and_then(|home| state.picture.servers.get_mut(home));
        let Some(line) = line else { return };
        line.joins += 1;
        if line.joins == 1 {
            let text = format!("{} has its first caller", line.name);
            state.say(text);
        }
    }

    pub(super) fn redirected(&self, user: usize, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        let name = |address| {
            let servers = state.picture.servers.iter();
            let mut known = servers.filter(|line| line.sip == Some(address));
            known.next().map_or("?", |line| &line.name)
        };
        let pair = format!("302 {from} {to}");
        let text = format!("{} sends caller {user} to {} (302)", name(from), name(to));
        state.say_once(pair, text);
        let mut servers = state.picture.servers.iter_mut();
        if let Some(line) = servers.find(|line| line.sip == Some(from)) {
            line.redirects += 1;
        }
    }

    pub(super) fn refused(&self, user: usize, by: SocketAddr, status: u16) {
        let mut state = self.state();
        let mut servers = state.picture.servers.iter();
        let known = servers.find(|line| line.sip == Some(by));
        let name = known.map_or("?", |line| &line.name);
        let text = format!("{name} refuses caller {user} ({status})");
        state.say_once(format!("{status} {by}"), text);
    }

    pub(super) fn hung_up(&self, user: usize) {
        let text = format!("caller {user} was hung up, and perhaps others");
        self.state().say_once("hung up".to_owned(), text);
    }

    /// What a server said of itself; None: it did not answer.
    pub(super) fn heard(&self, arm: u64, index: usize, status: Option<ServerLine>) {
        let mut state = self.state();
        if state.picture.arm != arm {
            return;
        }
        let Some(line) = state.picture.servers.get_mut(index) else {
            return;
        };
        let before = std::mem::take(&mut line.state);
        if let Some(status) = status {
            line.state = status.state;
            line.load = status.load;
            line.participants = status.participants;
        }
        if line.state != before && !line.state.is_empty() && !before.is_empty() {
            let text = format!("{} was {before} and is {} now", line.name, line.state);
            state.say(text);
        }
    }

    /// A line for the record.
    pub(super) fn say(&self, line: String) {
        self.state().say(line);
    }

    /// A line that is said once in a step, whatever else of its kind happens.
    pub(super) fn say_once(&self, kind: String, line: String) {
        self.state().say_once(kind, line);
    }

    pub(super) fn servers(&self) -> Vec<ServerLine> {
        self.state().picture.servers.clone()
    }

    /// The picture, and the lines since this was last asked.
    pub(super) fn look(&self) -> (Picture, Vec<String>) {
        let mut state = self.state();
        let lines = state.lines.drain(..).collect();
        (state.picture.clone(), lines)
    }
}

impl State {
    fn say_once(&mut self, kind: String, line: String) {
        if self.said.insert(kind) {
            self.say(line);
        }
    }

    fn say(&mut self, line: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}
