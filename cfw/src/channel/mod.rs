//! A media control channel (RFC 6230), seen from either end.
//!
//! Bytes and time go in; bytes, events and a deadline come out. Sockets, TLS and the SIP dialog that the
//! channel belongs to are the owner's.
//!
//! ```text
//!  SDP says who connects (COMEDIA)
//!  active:   connect ─ Channel::active ──── SYNC ────> ┐
//!  passive:  accept ─ Unclaimed ─ dialog_id ─ claim ── ┴─ 200 ─> Ready ── CONTROL, REPORT, K-ALIVE ──> Closed
//!                                        └─ refuse 481              (RFC 6230 §6)
//! ```
//! - The listener does not know whose connection it accepts until the SYNC tells a dialog's id: an
//!   [`Unclaimed`] connection becomes a [`Channel`] when its owner has found the dialog.
//! - A request that the owner does not answer within [`EXTEND_AFTER`] is extended by 202; then its answer
//!   goes in a REPORT, and REPORTs keep it alive until then. The owner answers the same way in either case.
//! - [`Channel::output`] is bounded: a peer that does not read loses its channel.
//!
//! Each `handle_*` and each request may cause output, events and another deadline: then look at all three.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use cfw::channel::{Channel, Config, Content, Event, Unclaimed};
//!
//! let now = Instant::now();
//! let package = "msc-dist-conf/1.0".parse()?;
//! let mut a = Channel::active(now, Config::new("fromTheOffer".parse()?, vec![package]));
//!
//! // What A sends, B's listener receives; the SYNC says which dialog it is for.
//! let mut accepted = Unclaimed::new(now);
//! accepted.handle_bytes(a.output()).unwrap();
//! a.consume(a.output().len());
//! assert_eq!(accepted.dialog_id(), Some("fromTheOffer"));
//! let mut b = accepted.claim(now, Config::new("fromTheAnswer".parse()?, vec![package]));
//! assert!(matches!(b.poll_event(), Some(Event::Ready { .. })));
//!
//! a.handle_bytes(now, b.output());
//! assert!(matches!(a.poll_event(), Some(Event::Ready { .. })));
//! let request = a.request(now, package, Some(Content::new("text/plain", "ping")))?;
//! b.handle_bytes(now, a.output());
//! let Some(Event::Control { id, content, .. }) = b.poll_event() else { panic!() };
//! assert_eq!(content.body, b"ping");
//! # b.consume(b.output().len());
//! b.answer(now, id, Some(Content::new("text/plain", "pong")))?;
//! a.handle_bytes(now, b.output());
//! let Some(Event::Answered { id, content }) = a.poll_event() else { panic!() };
//! assert_eq!((id, content.body.as_slice()), (request, &b"pong"[..]));
//!
//! // Time is told, never asked.
//! let deadline = a.poll_timeout().unwrap();
//! assert_eq!(deadline, now + Duration::from_secs(80));
//! a.handle_timeout(deadline);
//! assert!(a.output().ends_with(b" K-ALIVE\r\n\r\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

mod event;
mod frame;
mod incoming;
mod message;
mod outgoing;
mod sync;
mod token;
mod unclaimed;

pub use event::{CloseReason, Event, Failure, Incoming, Outgoing, SendError};
pub use frame::{BODY_LEN_MAX, FrameError, HEAD_LEN_MAX, HEADERS_MAX, START_LINE_LEN_MAX};
pub use message::{Code, Content, Status};
pub use token::{NoToken, Token};
pub use unclaimed::{Refused, Unclaimed};

use frame::{Broken, Framer};
use incoming::Received;
use message::{Kind, Message, Writer};
use outgoing::Sent;
use sync::Phase;

/// How long a message may take one way (RFC 6230 §2, Transaction-Timeout).
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for its answer: there and back (RFC 6230 §6).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// When a request that is not answered yet is extended by 202. The peer is to have it within 10 s.
pub const EXTEND_AFTER: Duration = Duration::from_secs(5);

/// What we promise in `Timeout`: within that time the next REPORT comes (RFC 6230 §6.3.2.1).
pub const EXTENDED_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time for an answer; then no REPORT keeps the request alive any more, and it times out for the peer.
pub const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(120);

/// What one end of a channel is and knows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ours: the `cfw-id` in our SDP.
    pub dialog_id: Token,
    /// The `cfw-id` in the peer's SDP, if the peer is to be held to it when it changes the packages.
    pub peer_dialog_id: Option<String>,
    /// What we know, the preferred ones first.
    pub packages: Vec<Token>,
    /// How often the active side shows that it lives, told in its SYNC; 95 to 120 s, at most 600 s
    /// (RFC 6230 §6.3.4.1). The passive side follows what it is told.
    pub keep_alive: Duration,
    /// The peer may change the packages; if not, it gets 421.
    pub renegotiates: bool,
    /// Most bytes that wait to be sent.
    pub output_len_max: usize,
    /// Most requests of each side that are not done.
    pub transactions_max: usize,
}

impl Config {
    pub const fn new(dialog_id: Token, packages: Vec<Token>) -> Self {
        Self {
            dialog_id,
            peer_dialog_id: None,
            packages,
            keep_alive: Duration::from_secs(100),
            renegotiates: true,
            output_len_max: 4 * 1024 * 1024,
            transactions_max: 256,
        }
    }
}

/// Which end of the connection this is (RFC 4145), whichever of the two sent the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Connects, and sends SYNC and K-ALIVE.
    Active,
    Passive,
}

/// What a transaction id that is not free is used for. Both sides' ids are kept together, so that no
/// response can be taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Sync,
    KeepAlive,
    /// A CONTROL of ours.
    Ours(Outgoing),
    /// A CONTROL of the peer, and the REPORTs to it.
    Theirs(Incoming),
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    config: Config,
    role: Role,
    phase: Phase,
    framer: Framer,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent_len: usize,
    events: VecDeque<Event>,
    ids: BTreeMap<Token, Use>,
    sent: BTreeMap<Outgoing, Sent>,
    received: BTreeMap<Incoming, Received>,
    /// Packages that are to be, until the peer's answer; and until when to wait for it.
    renegotiation: Option<(Vec<Token>, Instant)>,
    /// Counts transactions of both sides.
    count: u64,
}

impl Channel {
    /// The end that has just connected; or, if it was called, that has connected and got the ACK (RFC 6230
    /// §6). Its output begins with SYNC.
    pub fn active(now: Instant, config: Config) -> Self {
        let mut channel = Self::new(config, Role::Active, Framer::new(BODY_LEN_MAX));
        channel.send_first_sync(now);
        channel
    }

    fn new(config: Config, role: Role, framer: Framer) -> Self {
        Self {
            config,
            role,
            phase: Phase::Closed,
            framer,
            output: Vec::new(),
            sent_len: 0,
            events: VecDeque::new(),
            ids: BTreeMap::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            renegotiation: None,
            count: 0,
        }
    }

    /// What the peer sent, cut anywhere.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.is_closed() {
            return;
        }
        self.framer.feed(bytes);
        self.handle_messages(now);
    }

    fn handle_messages(&mut self, now: Instant) {
        while !self.is_closed() {
            match self.framer.next() {
                Ok(None) => return,
                Ok(Some(message)) => self.handle_message(now, message),
                Err(Broken { error, request }) => {
                    if let Some(id) = request {
                        self.reply(&id, Code::SYNTAX_ERROR);
                    }
                    self.close_for(CloseReason::Malformed(error));
                }
            }
        }
    }

    /// The connection has ended, or broken.
    pub fn handle_disconnect(&mut self) {
        self.close_for(CloseReason::Disconnected);
    }

    /// What is to be sent next; nothing is added in front of it.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent_len..]
    }

    /// That many bytes of [`output`](Self::output) are sent.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.output().len(), "more sent than there was");
        self.sent_len += len;
        if self.sent_len == self.output.len() {
            self.output.clear();
            self.output.shrink_to(KEPT_LEN);
            self.sent_len = 0;
        } else if self.sent_len > self.output.len() / 2 {
            self.output.drain(..self.sent_len);
            self.sent_len = 0;
        }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; None once the channel is closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let received = self.received.values().filter_map(Received::deadline);
        let sent = self.sent.values().map(Sent::deadline);
        let renegotiation = self.renegotiation.as_ref().map(|(_, deadline)| *deadline);
        let phase = self.phase.deadline(self.role);
        sent.chain(received).chain(renegotiation).chain(phase).min()
    }

    /// Does what is due; nothing if nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.on_phase_timeout(now);
        if self.is_closed() {
            return;
        }
        self.on_sent_timeout(now);
        self.on_received_timeout(now);
    }

    /// Ends the channel. What is in the output may still be sent.
    pub fn close(&mut self) {
        self.close_for(CloseReason::Local);
    }

    pub const fn role(&self) -> Role {
        self.role
    }

    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// What both sides know; empty until SYNC is done.
    pub fn packages(&self) -> &[Token] {
        match &self.phase {
            Phase::Ready { packages, .. } => packages,
            _ => &[],
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message) {
        match message.kind {
            Kind::Response(code) => self.handle_response(now, code, message),
            kind => self.handle_request(now, kind, message),
        }
    }

    fn handle_request(&mut self, now: Instant, kind: Kind, message: Message) {
        let is_ready = matches!(self.phase, Phase::Ready { .. });
        if !is_ready && (kind != Kind::Sync || self.role == Role::Active) {
            // RFC 6230 §6 wants SYNC to be first; RFC 7058 §5.4 shows what else gets.
            self.reply(&message.id, Code::FORBIDDEN);
            return self.close_for(CloseReason::NotSynced);
        }
        if kind == Kind::UnknownMethod {
            // RFC 6230 §11; §7.5 would have 405.
            return self.reply(&message.id, Code::NOT_UNDERSTOOD);
        }
        let Message {
            id, headers, body, ..
        } = message;
        let Some(headers) = headers else {
            self.reply(&id, Code::SYNTAX_ERROR);
            if !is_ready {
                self.close_for(CloseReason::BadSync);
            }
            return;
        };
        match kind {
            Kind::Sync if is_ready => self.on_later_sync(&id, &headers),
            Kind::Sync => self.on_first_sync(now, &id, &headers),
            Kind::Control => self.on_control(now, id, headers, body),
            Kind::Report => self.on_report(now, &id, headers, body),
            Kind::KeepAlive => self.on_keep_alive(now, &id),
            Kind::UnknownMethod | Kind::Response(_) => unreachable!("handled above"),
        }
    }

    fn handle_response(&mut self, now: Instant, code: Code, message: Message) {
        let Message {
            id, headers, body, ..
        } = message;
        // An answer is an answer even if its headers make no sense.
        let headers = headers.unwrap_or_default();
        match self.ids.get(&id).copied() {
            Some(Use::Sync) => self.on_sync_answer(now, id, code, headers),
            Some(Use::KeepAlive) => self.on_keep_alive_answer(now, id, code),
            Some(Use::Ours(request)) => self.on_answer(now, request, code, headers, body),
            Some(Use::Theirs(request)) => self.on_report_answer(request, code, &headers),
            // To something that has timed out.
            None => {}
        }
    }

    /// An id that nobody uses. The two ends never make the same one.
    fn new_id(&mut self) -> Token {
        let end = match self.role {
            Role::Active => 'a',
            Role::Passive => 'p',
        };
        loop {
            self.count += 1;
            let id = format!("{end}{:07x}", self.count);
            let id = id.parse().expect("8 to 17 letters and digits");
            if !self.ids.contains_key(&id) {
                return id;
            }
        }
    }

    /// A response without anything but its code.
    fn reply(&mut self, id: &Token, code: Code) {
        self.send(Writer::new(id, code).end());
    }

    fn send(&mut self, message: Vec<u8>) {
        if self.is_closed() {
            return;
        }
        if self.output().len() + message.len() > self.config.output_len_max {
            // What is half sent is of no use to anybody.
            return self.close_for(CloseReason::SlowPeer);
        }
        self.output.extend_from_slice(&message);
    }

    fn close_for(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.phase = Phase::Closed;
        self.ids.clear();
        self.received.clear();
        self.renegotiation = None;
        for id in std::mem::take(&mut self.sent).into_keys() {
            let failure = Failure::Closed;
            self.events.push_back(Event::Failed { id, failure });
        }
        self.events.push_back(Event::Closed(reason));
    }
}

/// How much memory for output an idle channel keeps, in bytes.
const KEPT_LEN: usize = 16 * 1024;

/// 80 % of the time within which the peer wants to hear of us (RFC 6230 §6.3.2.1, §6.3.3).
fn refresh_after(within: Duration) -> Duration {
    within * 4 / 5
}
