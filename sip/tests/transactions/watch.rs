//! An endpoint whose every word is held against what RFC 3261 and its own documentation promise.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::{Body, CallKey, Config, Endpoint, Event, Flow, Output, Rejection};

/// Timers L, H and J of the default values: for so long the traces of a transaction are kept.
const PATIENCE: Duration = Duration::from_secs(32);

/// Timer I: for so long after its ACK.
const T4: Duration = Duration::from_secs(5);

/// What the user knows of a call.
#[derive(Debug, Default)]
struct Known {
    incoming: bool,
    answered: bool,
    over: bool,
}

/// A final response of one transaction.
#[derive(Debug)]
struct Final {
    first: Instant,
    acknowledged: Option<Instant>,
    message: Bytes,
}

impl Final {
    /// It was made without remembering anything (RFC 3261 §8.2.7), and what came now is another message
    /// that took the same branch; or the request that it was merged with has been forgotten.
    fn may_give_way_to(&self, other: &str) -> bool {
        const STATELESS: [u16; 9] = [400, 405, 406, 416, 420, 481, 482, 501, 505];
        let text = String::from_utf8_lossy(&self.message);
        let status = status(&text).unwrap_or_default();
        status == 482 || STATELESS.contains(&status) && variant(&text) != variant(other)
    }
}

pub struct Watched {
    pub endpoint: Endpoint,
    calls: Vec<(CallKey, Known)>,
    finals: HashMap<String, Final>,
    /// Every new call is refused from now on.
    pub closing: bool,
}

pub fn body() -> Body {
    Body {
        content_type: "application/sdp".to_owned(),
        content: Bytes::from_static(b"v=0\r\n"),
    }
}

/// The value of the first header of this name.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = message.lines().take_while(|line| !line.is_empty());
    lines.find_map(|line| {
        let (known, value) = line.split_once(": ")?;
        known.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Branch and method: the transaction of a response, or of a request.
pub fn transaction(message: &str) -> Option<String> {
    let branch = header(message, "Via")?.split("branch=").nth(1)?;
    let method = header(message, "CSeq")?.split(' ').nth(1)?;
    let method = if method == "ACK" { "INVITE" } else { method };
    Some(format!("{} {method}", branch.split(';').next()?))
}

/// Parameter of a Via that tells requests with the same branch apart.
pub const VARIANT: &str = "variant";

fn variant(message: &str) -> Option<&str> {
    let (_, variant) = header(message, "Via")?.split_once(VARIANT)?;
    variant.split(';').next()
}

pub fn status(message: &str) -> Option<u16> {
    message.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}

impl Watched {
    pub fn new(config: Config) -> Self {
        Self {
            endpoint: Endpoint::new(config),
            calls: Vec::new(),
            finals: HashMap::new(),
            closing: false,
        }
    }

    pub fn receive(&mut self, now: Instant, flow: Flow, message: &[u8]) {
        let text = String::from_utf8_lossy(message);
        if text.starts_with("ACK ")
            && let Some(known) = transaction(&text).and_then(|key| self.finals.get_mut(&key))
        {
            known.acknowledged.get_or_insert(now);
        }
        self.endpoint.handle_message(now, flow, message);
    }

    /// One of the calls that the user holds for alive.
    pub fn live_call(&self, which: usize) -> Option<CallKey> {
        let live: Vec<CallKey> = self.live_calls().collect();
        live.get(which % live.len().max(1)).copied()
    }

    fn live_calls(&self) -> impl Iterator<Item = CallKey> {
        self.calls
            .iter()
            .filter(|(_, known)| !known.over)
            .map(|(key, _)| *key)
    }

    pub fn placed(&mut self, call: CallKey) {
        self.calls.push((call, Known::default()));
    }

    pub fn accept(&mut self, now: Instant, call: CallKey) {
        self.endpoint.accept(now, call, "room", body());
        self.known(call).answered = true;
    }

    pub fn reject(&mut self, now: Instant, call: CallKey, status: u16) {
        self.endpoint.reject(now, call, Rejection::new(status));
        self.refused(call);
    }

    pub fn redirect(&mut self, now: Instant, call: CallKey) {
        let contacts = [("sip:elsewhere@192.0.2.77".to_owned(), 1.0)];
        self.endpoint.redirect(now, call, &contacts);
        self.refused(call);
    }

    /// A call that has no answer is over without an event.
    fn refused(&mut self, call: CallKey) {
        let known = self.known(call);
        known.over |= known.incoming && !known.answered;
    }

    fn known(&mut self, call: CallKey) -> &mut Known {
        let mut all = self.calls.iter_mut();
        let found = all.find(|(key, _)| *key == call);
        &mut found.expect("an event of a call that nobody knows").1
    }

    /// Ends everything that is left, as the user may.
    pub fn close(&mut self, now: Instant) {
        self.closing = true;
        let live: Vec<CallKey> = self.live_calls().collect();
        for call in live {
            self.endpoint.bye(now, call, None);
        }
    }

    /// Takes what there is to be sent, and notes what happened.
    pub fn drain(&mut self, now: Instant) -> Vec<(Flow, Bytes)> {
        let mut sent = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { flow, message } => {
                    self.check_final(now, &message);
                    sent.push((flow, message));
                }
                Output::Event(event) => self.on_event(now, event),
            }
        }
        sent
    }

    fn check_final(&mut self, now: Instant, message: &Bytes) {
        let text = String::from_utf8_lossy(message);
        if status(&text).is_none_or(|status| status < 200) {
            return;
        }
        let key = transaction(&text).expect("a response has a branch and a method");
        let is_past = |known: &Final| {
            let after_ack = known.acknowledged.is_some_and(|when| now - when >= T4);
            now - known.first >= PATIENCE || after_ack && !is_success(&known.message)
        };
        match self.finals.get(&key).filter(|known| !is_past(known)) {
            Some(known) if !known.may_give_way_to(&text) => assert!(
                known.message == *message,
                "two final responses of {key}:\n{}\n{text}",
                String::from_utf8_lossy(&known.message)
            ),
            _ => {
                let known = Final {
                    first: now,
                    acknowledged: None,
                    message: message.clone(),
                };
                self.finals.insert(key, known);
            }
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        let text = format!("{event:?}");
        match event {
            Event::Invite(invite) => {
                let is_new = self.calls.iter().all(|(key, _)| *key != invite.call);
                assert!(is_new, "a key is used again: {text}");
                let known = Known {
                    incoming: true,
                    ..Known::default()
                };
                self.calls.push((invite.call, known));
                if self.closing {
                    self.reject(now, invite.call, 486);
                }
            }
            Event::Progress { call, .. }
            | Event::Accepted { call, .. }
            | Event::Established { call, .. }
            | Event::Dtmf { call, .. } => {
                assert!(!self.known(call).over, "after the end: {text}");
            }
            Event::Reinvite { call, .. } => {
                assert!(!self.known(call).over, "after the end: {text}");
                if self.closing {
                    self.endpoint.reject(now, call, Rejection::new(488));
                }
            }
            Event::Redirected { call, .. }
            | Event::Rejected { call, .. }
            | Event::Ended { call, .. } => {
                let was_over = std::mem::replace(&mut self.known(call).over, true);
                assert!(!was_over, "a second end: {text}");
            }
            Event::Options { request, .. } => {
                self.endpoint.respond_options(now, request, None);
            }
            Event::Request(request) => {
                self.endpoint
                    .refuse_request(now, request.key, &Rejection::new(403));
            }
            Event::Answered { .. }
            | Event::Changed { .. }
            | Event::Referred { .. }
            | Event::Resubscribed { .. }
            | Event::Unsubscribed { .. }
            | Event::SubscriptionLost { .. } => panic!("nobody asked: {text}"),
        }
    }

    /// Every call has had its end, and nothing of anything is left.
    pub fn assert_forgotten(&self) {
        assert_eq!(
            self.live_calls().count(),
            0,
            "a call never ended: {:?}",
            self.calls
        );
        assert!(self.endpoint.is_empty(), "{:?}", self.endpoint.sizes());
        assert!(self.endpoint.is_idle());
    }
}

fn is_success(message: &[u8]) -> bool {
    message.starts_with(b"SIP/2.0 2")
}
