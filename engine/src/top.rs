//! `plenum top`: the server's status page in the terminal, once a second.
//!
//! ```text
//! fetcher thread ──GET /api/v1/status────> Page ──channel──> this thread ──draw──> terminal
//!                ──GET /api/v1/decisions──>                  keys ──────┘
//! ```
//! Fetching has its own thread so that a server that hangs does not hold up the `q` key. What it
//! looks like is in `view.rs`.

mod view;

use std::{
    fmt, io,
    io::IsTerminal,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;

use crate::admin::Status;
use view::{DECISIONS_MAX, View};

/// How often the view is renewed; the server measures no more often.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for the server: it answers from memory.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Largest status page read: a thousand cores and servers are a fifth of it.
const STATUS_LEN_MAX: u64 = 1024 * 1024;
/// How long a key may wait for a new status to be drawn first.
const KEY_INTERVAL: Duration = Duration::from_millis(100);
/// Width of the view where no terminal says otherwise.
const PLAIN_WIDTH: u16 = 100;

/// Why there is nothing to show; one line.
#[derive(Debug)]
pub enum TopError {
    /// Nobody answered there, or not with a status page.
    Unreachable {
        url: String,
        reason: String,
    },
    Terminal(io::Error),
}

impl fmt::Display for TopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { url, reason } => write!(f, "no status from {url}: {reason}"),
            Self::Terminal(error) => write!(f, "the terminal failed: {error}"),
        }
    }
}

impl std::error::Error for TopError {}

impl From<io::Error> for TopError {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// Shows the server at `http` (`http://host:port`) until the user quits, or `once` as plain text;
/// text also when standard output is no terminal.
///
/// # Errors
/// The server gave no status to begin with, or the terminal failed. A server that goes away later
/// is waited for.
pub fn run(http: &str, once: bool) -> Result<(), TopError> {
    let source = Source::new(http);
    let first = source.fetch()?;
    if once || !io::stdout().is_terminal() {
        use io::Write;
        return Ok(io::stdout().write_all(plain(&first).as_bytes())?);
    }
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("fetcher".to_owned())
        .spawn(move || fetch_until_closed(&source, &sender))?;
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, first, &receiver);
    ratatui::try_restore()?;
    shown
}

/// The view as text, without colours and trailing spaces.
fn plain(page: &Page) -> String {
    let view = View {
        page,
        notice: None,
        scrolled: 0,
    };
    let buffer = view.draw_alone(PLAIN_WIDTH);
    let mut text = String::new();
    for row in buffer.content.chunks(usize::from(PLAIN_WIDTH)) {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What the server shows.
#[derive(Debug)]
struct Page {
    status: Status,
    /// The latest last.
    decisions: Vec<DecisionLine>,
}

/// A decision of `/api/v1/decisions`, as far as it fits on a line.
#[derive(Debug, Clone, Deserialize)]
struct DecisionLine {
    at_ms: u64,
    what: String,
    room: Option<String>,
    who: Option<String>,
    server: Option<String>,
    reason: String,
}

/// Where the page comes from.
struct Source {
    agent: Agent,
    base: String,
}

impl Source {
    fn new(http: &str) -> Self {
        let base = if http.contains("://") {
            http.to_owned()
        } else {
            format!("http://{http}")
        };
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER_TIME_MAX))
            // The server is asked itself, whatever the user's browser goes through.
            .proxy(None)
            .max_redirects(0)
            .build();
        Self {
            agent: config.into(),
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    fn fetch(&self) -> Result<Page, TopError> {
        let url = format!("{}/api/v1/status", self.base);
        let status = self.read(&url).map_err(|reason| TopError::Unreachable {
            url: url.clone(),
            reason: reason.replace('\n', " "),
        })?;
        let url = format!("{}/api/v1/decisions?last={DECISIONS_MAX}", self.base);
        // A page without them is better than none.
        let decisions = self.read(&url).unwrap_or_default();
        Ok(Page { status, decisions })
    }

    fn read<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let mut response = self
            .agent
            .get(url)
            .call()
            .map_err(|error| error.to_string())?;
        let body = response.body_mut().with_config().limit(STATUS_LEN_MAX);
        let mut json = body.read_to_vec().map_err(|error| error.to_string())?;
        simd_json::from_slice(&mut json).map_err(|error| format!("not a status page: {error}"))
    }
}

fn fetch_until_closed(source: &Source, sender: &Sender<Result<Page, TopError>>) {
    loop {
        thread::sleep(REFRESH_INTERVAL);
        if sender.send(source.fetch()).is_err() {
            return;
        }
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut page: Page,
    receiver: &Receiver<Result<Page, TopError>>,
) -> Result<(), TopError> {
    let mut notice = None;
    let mut scrolled = 0usize;
    loop {
        let view = View {
            page: &page,
            notice: notice.as_deref(),
            scrolled,
        };
        terminal.draw(|frame| frame.render_widget(view, frame.area()))?;
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match action(key) {
                    Some(Action::Quit) => return Ok(()),
                    Some(Action::Up) => scrolled = scrolled.saturating_sub(1),
                    Some(Action::Down) => {
                        scrolled = (scrolled + 1).min(page.status.cores.len().saturating_sub(1))
                    }
                    None => {}
                },
                _ => {}
            }
        }
        match receiver.recv_timeout(KEY_INTERVAL) {
            Ok(Ok(next)) => (page, notice) = (next, None),
            Ok(Err(error)) => notice = Some(error.to_string()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(TopError::Terminal(io::Error::other(
                    "the fetching thread ended",
                )));
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Quit,
    Up,
    Down,
}

fn action(key: KeyEvent) -> Option<Action> {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
        // In raw mode Ctrl-C is a key and no signal.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Action::Quit),
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Down),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Answers one request with this body and returns where.
    fn answer_once(body: String) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, thread)
    }

    #[test]
    fn the_documented_page_is_read() {
        let (url, server) = answer_once(view::tests::STATUS.to_owned());
        // Who has no decisions to show is shown without.
        let page = Source::new(&url).fetch().unwrap();
        assert_eq!(page.status, view::tests::page().status);
        assert!(page.decisions.is_empty());
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("GET /api/v1/status HTTP/1.1\r\n")
        );
    }

    #[test]
    fn what_is_no_status_page_is_one_line_of_error() {
        let (url, server) = answer_once("<html>\n</html>".to_owned());
        let error = Source::new(url.trim_start_matches("http://"))
            .fetch()
            .unwrap_err()
            .to_string();
        server.join().unwrap();
        assert!(
            error.starts_with(&format!(
                "no status from {url}/api/v1/status: not a status page"
            )),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn an_unreachable_server_is_one_line_of_error() {
        // The port of an outgoing connection: nobody else can listen there, and it refuses.
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let outgoing = TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        let address = outgoing.local_addr().unwrap();
        let error = run(&format!("http://{address}"), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("refused"), "{error}");
        assert_eq!(error.lines().count(), 1);
        assert!(run("no host here", true).is_err());
    }

    #[test]
    fn plain_text_is_the_same_view() {
        let text = plain(&view::tests::page());
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        for expected in [
            "plenum A",
            "active",
            "431 of 500",
            "core",
            "429.0",
            "sip:cfw@127.0.0.1:5070",
            "free",
            "at the maximum",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn keys() {
        let key = |code, modifiers| action(KeyEvent::new(code, modifiers));
        assert_eq!(
            key(KeyCode::Char('q'), KeyModifiers::NONE),
            Some(Action::Quit)
        );
        assert_eq!(
            key(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Action::Quit)
        );
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Some(Action::Down));
    }
}
