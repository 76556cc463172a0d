//! `plenum trace`: the SIP messages of a running server as ladders.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use serde::Deserialize;
use ureq::{Agent, Body};

use super::ladder::{self, Ladder};
use super::wire::{Line, SipMessage};

/// Longest wait for the server to begin: it answers from memory.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest line: a message of 64 KiB in which every octet is escaped, and what stands around it.
const LINE_LEN_MAX: u64 = 1 << 20;
/// Messages drawn together.
const MESSAGES_MAX: usize = 100_000;

/// What to show.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server's HTTP interface is.
    pub http: String,
    /// Only calls whose Call-ID begins so.
    pub call: Option<String>,
    /// Only calls of this room.
    pub room: Option<String>,
    /// Draw messages as they come; otherwise all in the end, call by call.
    pub follow: bool,
    /// How long to watch; None: for ever when following, else not at all.
    pub seconds: Option<u64>,
    /// Whole messages too.
    pub raw: bool,
}

/// Why there is nothing to show; one line.
#[derive(Debug)]
pub enum TraceError {
    Unreachable { url: String, reason: String },
    Unwritable(io::Error),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { url, reason } => write!(f, "no trace from {url}: {reason}"),
            Self::Unwritable(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl std::error::Error for TraceError {}

/// Prints what `options` ask for.
///
/// # Errors
/// The server cannot be reached, refuses, or goes away meanwhile; or nobody reads what is written.
pub fn run(options: &Options) -> Result<(), TraceError> {
    let source = Source::new(options);
    let body = source.ask(options)?;
    let mut lines = BufReader::new(body.into_reader());
    let mut output = io::stdout().lock();
    let mut show = |text: &str| {
        let written = output.write_all(text.as_bytes());
        written
            .and_then(|()| output.flush())
            .map_err(TraceError::Unwritable)
    };
    let mut ladder = Ladder::new(options.raw);
    let mut messages: Vec<SipMessage> = Vec::new();
    let mut missed = 0;
    while let Some(line) = source.next(&mut lines)? {
        match line {
            Line::Message(message) if options.follow => show(&ladder.draw(&message))?,
            Line::Message(message) if messages.len() < MESSAGES_MAX => messages.push(message),
            Line::Message(_) => missed += 1,
            Line::Missed { messages, .. } => missed += messages,
        }
        if options.follow && missed > 0 {
            eprintln!("plenum: {missed} messages missed");
            missed = 0;
        }
    }
    if options.follow {
        return Ok(());
    }
    if missed > 0 {
        eprintln!("plenum: {missed} messages missed");
    }
    if messages.is_empty() {
        let hint = match options.seconds {
            None => "; --follow or --seconds watches, trace.keep makes the server remember",
            Some(_) => "",
        };
        eprintln!("plenum: no such messages{hint}");
    }
    show(&ladder::draw_all(messages, options.raw))
}

/// How the server says no.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

struct Source {
    agent: Agent,
    url: String,
}

impl Source {
    fn new(options: &Options) -> Self {
        let http = options.http.trim_end_matches('/');
        let scheme = if http.contains("://") { "" } else { "http://" };
        let config = Agent::config_builder()
            .timeout_connect(Some(ANSWER_TIME_MAX))
            .timeout_recv_response(Some(ANSWER_TIME_MAX))
            // The server is asked itself, whatever the user's browser goes through.
            .proxy(None)
            .max_redirects(0)
            // A refusal has a reason, which is in its body.
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            url: format!("{scheme}{http}/api/v1/trace"),
        }
    }

    fn unreachable(&self, reason: impl ToString) -> TraceError {
        TraceError::Unreachable {
            url: self.url.clone(),
            reason: reason.to_string().replace('\n', " "),
        }
    }

    fn ask(&self, options: &Options) -> Result<Body, TraceError> {
        let mut request = self.agent.get(&self.url);
        let seconds = options.seconds.or_else(|| (!options.follow).then_some(0));
        let seconds = seconds.map(|seconds| seconds.to_string());
        for (name, value) in [
            ("call", &options.call),
            ("room", &options.room),
            ("seconds", &seconds),
        ] {
            if let Some(value) = value {
                request = request.query(name, value);
            }
        }
        let response = request.call().map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let mut body = response.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let mut reason = body.read_to_vec().unwrap_or_default();
        let reason = simd_json::from_slice(&mut reason)
            .map_or_else(|_| status.to_string(), |Refusal { error }| error);
        Err(self.unreachable(reason))
    }

    /// None: the server has said all it was asked for.
    fn next(&self, lines: &mut impl BufRead) -> Result<Option<Line>, TraceError> {
        loop {
            let mut line = Vec::new();
            let read = lines.take(LINE_LEN_MAX).read_until(b'\n', &mut line);
            read.map_err(|error| self.unreachable(error))?;
            // An empty line only says that the server is still there.
            match line.trim_ascii() {
                [] if line.is_empty() => return Ok(None),
                [] => {}
                _ => {
                    let line = simd_json::from_slice(&mut line);
                    let line = line.map_err(|error| self.unreachable(error))?;
                    return Ok(Some(line));
                }
            }
        }
    }
}
