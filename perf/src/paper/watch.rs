//! Asks the servers how they are, and shows it: a thread beside the run.
//!
//! On a terminal the servers are a block at the bottom, painted again twice a second, and what happens
//! scrolls above it. Elsewhere only what happens is written, a line each.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;

use super::board::{Board, Phase, Picture, ServerLine};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A server that is stopped by its quota takes a while.
const PATIENCE: Duration = Duration::from_millis(400);

/// Where the terminal does not say how wide it is.
const COLUMNS: usize = 100;

const BAR_LEN: usize = 24;

/// Watches until it is dropped.
pub(super) struct Watch {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `plain`: as if there were no terminal.
    pub(super) fn start(board: Arc<Board>, plain: bool) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let live = io::stderr().is_terminal() && !plain;
        let mut watcher = Watcher {
            board,
            agent: Agent::config_builder()
                .timeout_global(Some(PATIENCE))
                .build()
                .into(),
            known: Vec::new(),
            arm: 0,
            painter: live.then(Painter::default),
        };
        let is_done = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                watcher.look();
                std::thread::sleep(LOOK_EVERY);
            }
            watcher.show(true);
        });
        Self {
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has panicked, and said so.
            let _ = thread.join();
        }
    }
}

struct Watcher {
    board: Arc<Board>,
    agent: Agent,
    /// By server: when it took the last decision known, in milliseconds since 1970.
    known: Vec<u64>,
    arm: u64,
    /// None where there is no terminal.
    painter: Option<Painter>,
}

impl Watcher {
    fn look(&mut self) {
        let Picture {
            arm,
            servers,
            phase,
            ..
        } = self.show(false);
        if arm != self.arm {
            self.arm = arm;
            self.known.clear();
        }
        self.known.resize(servers.len(), 0);
        for (index, line) in servers.iter().enumerate() {
            let (true, Some(http)) = (line.running, line.http) else {
                continue;
            };
            let status = self
                .get(http, "status")
                .and_then(|mut text| parse(&mut text));
            self.board.heard(arm, index, status);
            // A thousand of them are long to write, and callers come and go only now.
            if phase == Phase::Measuring {
                continue;
            }
            let decisions = self
                .get(http, "decisions")
                .and_then(|mut text| decisions(&mut text));
            let known = self.known[index];
            for decision in decisions.unwrap_or_default() {
                if decision.at_ms > known {
                    let kind = format!("{} {} {:?}", line.name, decision.what, decision.server);
                    self.board.say_once(kind, decision.line(&line.name));
                    self.known[index] = decision.at_ms;
                }
            }
        }
    }

    /// Writes what there is to write; returns the picture.
    fn show(&mut self, last: bool) -> Picture {
        let (picture, lines) = self.board.look();
        let mut out = String::new();
        match &mut self.painter {
            None => lines.iter().for_each(|line| {
                out.push_str(line);
                out.push('\n');
            }),
            Some(painter) => painter.paint(&mut out, &picture, &lines, columns(), last),
        }
        // Nobody reads it: the run goes on.
        let _ = io::stderr().write_all(out.as_bytes());
        picture
    }

    fn get(&self, http: SocketAddr, what: &str) -> Option<Vec<u8>> {
        let url = format!("http://{http}/api/v1/{what}");
        self.agent
            .get(&url)
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_vec())
            .ok()
    }
}

/// What a server's status says that is shown here.
fn parse(text: &mut [u8]) -> Option<ServerLine> {
    #[derive(Deserialize)]
    struct Status {
        state: String,
        load: Load,
        participants: u64,
    }
    #[derive(Deserialize)]
    struct Load {
        current: u32,
    }
    let status: Status = simd_json::from_slice(text).ok()?;
    Some(ServerLine {
        state: status.state,
        load: status.load.current,
        participants: status.participants,
        ..ServerLine::default()
    })
}

/// One decision of a server, as far as it is shown here.
#[derive(Debug, Deserialize)]
struct Decision {
    at_ms: u64,
    what: String,
    who: Option<String>,
    server: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    reason: String,
}

impl Decision {
    /// For people; `by` has decided.
    fn line(&self, by: &str) -> String {
        let mut line = format!("{by} decides: {}", self.what);
        if let Some(who) = &self.who {
            line += &format!(" {who}");
        }
        if let Some(server) = &self.server {
            line += &format!(" -> {server}");
        }
        if let Some(status) = self.status {
            line += &format!(" ({status})");
        }
        if !self.reason.is_empty() {
            line += &format!(": {}", self.reason);
        }
        line
    }
}

/// The oldest first, whether they come alone or under their name.
fn decisions(text: &mut [u8]) -> Option<Vec<Decision>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Answer {
        Alone(Vec<Decision>),
        Named { decisions: Vec<Decision> },
    }
    match simd_json::from_slice(text).ok()? {
        Answer::Alone(decisions) | Answer::Named { decisions } => Some(decisions),
    }
}

fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|&columns| columns > 0)
        .unwrap_or(COLUMNS)
}

/// Repaints a block of lines at the bottom of the terminal.
#[derive(Default)]
struct Painter {
    painted: usize,
}

impl Painter {
    fn paint(
        &mut self,
        out: &mut String,
        picture: &Picture,
        lines: &[String],
        columns: usize,
        last: bool,
    ) {
        /// Up to the block's first line, and everything from there away (ECMA-48 CUU and ED).
        fn back(lines: usize) -> String {
            match lines {
                0 => "\r\x1b[J".to_owned(),
                lines => format!("\r\x1b[{lines}A\x1b[J"),
            }
        }
        out.push_str(&back(self.painted));
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        let block = if last { Vec::new() } else { block(picture) };
        for line in &block {
            // A line that wraps would be two to go back.
            out.extend(line.chars().take(columns.saturating_sub(1)));
            out.push('\n');
        }
        self.painted = block.len();
    }
}

/// Servers, loads and callers at one moment.
fn block(picture: &Picture) -> Vec<String> {
    let tally = picture.tally;
    let mut lines = vec![
        String::new(),
        format!(
            "{}: {} for {} users; {} up, {} redirects, {} refusals",
            picture.title, picture.phase, picture.users, tally.up, tally.redirects, tally.refusals
        ),
        "   server  state      load                              joins  sent on".to_owned(),
    ];
    for server in &picture.servers {
        let state = match (server.running, server.state.as_str()) {
            (false, _) => "-",
            (true, "") => "silent",
            (true, state) => state,
        };
        let share = f64::from(server.load) / f64::from(picture.full_load.max(1));
        let filled = ((share * BAR_LEN as f64).round() as usize).min(BAR_LEN);
        lines.push(format!(
            "   {:6}  {state:9}  [{}{}] {:>6}  {:>5}  {:>7}",
            server.name,
            "#".repeat(filled),
            " ".repeat(BAR_LEN - filled),
            server.load,
            server.joins,
            server.redirects,
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_decisions_are_read_as_far_as_they_are_known() {
        let mut status = br#"{"svr_id":"A","state":"full","uptime_s":1,"participants":50,
            "load":{"current":499,"max":500,"min":0,"hot":0.1}}"#
            .to_vec();
        let line = parse(&mut status).unwrap();
        assert_eq!(
            (line.state.as_str(), line.load, line.participants),
            ("full", 499, 50)
        );
        assert!(parse(&mut b"{}".to_vec()).is_none());

        let one = r#"{"at_ms":7,"what":"redirect","room":"r","who":"sip:c@h","server":"B","status":302,
            "reason":"A is full","seen":[{"svr_id":"A"}]}"#;
        for answer in [format!("[{one}]"), format!("{{\"decisions\":[{one}]}}")] {
            let decisions = decisions(&mut answer.into_bytes()).unwrap();
            let expected = "A decides: redirect sip:c@h -> B (302): A is full";
            assert_eq!(decisions[0].line("A"), expected);
        }
        let mut short = br#"[{"at_ms":7,"what":"hold"}]"#.to_vec();
        assert_eq!(
            decisions(&mut short).unwrap()[0].line("A"),
            "A decides: hold"
        );
        assert!(decisions(&mut b"{}".to_vec()).is_none());
    }

    #[test]
    fn the_block_is_painted_over_itself_and_goes_at_the_end() {
        let mut painter = Painter::default();
        let picture = Picture {
            servers: vec![ServerLine {
                name: "A".to_owned(),
                running: true,
                state: "active".to_owned(),
                load: 250,
                ..ServerLine::default()
            }],
            full_load: 500,
            ..Picture::default()
        };
        let mut paint = |lines: &[String], last| {
            let mut out = String::new();
            painter.paint(&mut out, &picture, lines, 40, last);
            out
        };
        let first = paint(&[], false);
        assert!(
            first.contains("A       active     [############"),
            "{first}"
        );
        assert!(first.lines().all(|line| line.chars().count() < 46));
        let second = paint(&["something".to_owned()], false);
        assert!(
            second.starts_with("\r\x1b[4A\x1b[Jsomething\n"),
            "{second:?}"
        );
        assert_eq!(paint(&[], true), "\r\x1b[4A\x1b[J");
        assert_eq!(paint(&[], true), "\r\x1b[J");
    }
}
