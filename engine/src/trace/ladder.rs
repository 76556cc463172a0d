//! Messages as a ladder: who said what to whom, and when.
//!
//! ```text
//! call 7f3a@192.0.2.1 from sip:alice@h to sip:lobby@h at 2026-01-01T12:00:00.000Z
//!             peer 192.0.2.1:40000                server 192.0.2.9:5060
//!     +0.000  │──────── INVITE with SDP ────────>│  1 INVITE  UDP
//!     +0.001  │<─────── 200 OK with SDP ─────────│  1 INVITE  UDP
//! ```
//! What is printed comes from the network: nothing in it reaches the terminal as a control character.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::SystemTime;

use sip::scan::headers;

use super::Direction;
use super::follow::address;
use super::wire::SipMessage;

/// Calls remembered, so that their next message is told as theirs; beyond it the oldest begins anew.
const CALLS_MAX: usize = 10_000;

/// Messages of one call by which one sent again is known.
const SEEN_MAX: usize = 1_000;

/// Between the two sides, in characters.
const WIDTH: usize = 34;

/// Longest label of an arrow, and longest other text taken from a message.
const LABEL_MAX: usize = WIDTH - 8;
const TEXT_MAX: usize = 120;

/// Where the peer's side begins.
const MARGIN: usize = 12;

/// What has been drawn so far.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    /// Show whole messages too.
    raw: bool,
    calls: HashMap<String, Call>,
    oldest: VecDeque<String>,
    /// The call drawn last.
    last: Option<String>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Call {
    began: SystemTime,
    peer: SocketAddr,
    seen: HashSet<u64>,
}

impl Ladder {
    pub(super) fn new(raw: bool) -> Self {
        Self {
            raw,
            ..Self::default()
        }
    }

    /// The lines of one more message; a heading comes before them when it is of another call than the last.
    pub(super) fn draw(&mut self, message: &SipMessage) -> String {
        let mut text = String::new();
        let new_call = !self.calls.contains_key(&message.call_id);
        if self.last.as_ref() != Some(&message.call_id) {
            if self.last.is_some() {
                text.push('\n');
            }
            heading(&mut text, message, new_call);
            self.last = Some(message.call_id.clone());
        }
        let fingerprint = self.hasher.hash_one((message.direction, &message.text));
        let call = self.call(message);
        // Only what is sent without guarantee is sent again.
        let again = !call.seen.insert(fingerprint);
        if call.seen.len() > SEEN_MAX {
            call.seen.clear();
        }
        let elsewhere = (call.peer != message.peer).then_some(message.peer);
        let since = message.time.duration_since(call.began);
        rung(&mut text, message, since.unwrap_or_default().as_secs_f64());
        if again {
            text.push_str("  again");
        }
        if let Some(peer) = elsewhere {
            let _ = write!(text, "  peer {peer}");
        }
        text.push('\n');
        if self.raw {
            for line in message.text.lines() {
                let line = format!("{:MARGIN$}  {}", "", printable(line, usize::MAX));
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn call(&mut self, message: &SipMessage) -> &mut Call {
        if !self.calls.contains_key(&message.call_id) {
            if self.oldest.len() == CALLS_MAX
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.calls.remove(&oldest);
            }
            self.oldest.push_back(message.call_id.clone());
        }
        match self.calls.entry(message.call_id.clone()) {
            Entry::Occupied(call) => call.into_mut(),
            Entry::Vacant(place) => place.insert(Call {
                began: message.time,
                peer: message.peer,
                seen: HashSet::new(),
            }),
        }
    }
}

/// All messages, those of a call together, calls in the order of their first message.
pub(super) fn draw_all(mut messages: Vec<SipMessage>, raw: bool) -> String {
    // Stable: messages of one turn keep their order.
    messages.sort_by_key(|message| message.time);
    let mut places = HashMap::new();
    for message in &messages {
        let next = places.len();
        places.entry(message.call_id.clone()).or_insert(next);
    }
    messages.sort_by_key(|message| places[&message.call_id]);
    let mut ladder = Ladder::new(raw);
    messages
        .iter()
        .map(|message| ladder.draw(message))
        .collect()
}

fn heading(text: &mut String, message: &SipMessage, new: bool) {
    let call_id = match message.call_id.as_str() {
        "" => "without a Call-ID".to_owned(),
        call_id => printable(call_id, TEXT_MAX),
    };
    let _ = write!(text, "call {call_id}");
    if !new {
        return text.push('\n');
    }
    for (word, name, compact) in [("from", "From", b'f'), ("to", "To", b't')] {
        if let Some(value) = header(message, name, Some(compact)) {
            let _ = write!(text, " {word} {}", printable(address(value), TEXT_MAX));
        }
    }
    let time = humantime::format_rfc3339_millis(message.time);
    let peer = format!("peer {}", message.peer);
    let _ = writeln!(
        text,
        " at {time}\n{:MARGIN$}{peer:<width$} server {}",
        "",
        message.local,
        width = WIDTH + 1,
    );
}

/// One arrow, without the line's end.
fn rung(text: &mut String, message: &SipMessage, since_s: f64) {
    let sdp = header(message, "Content-Type", Some(b'c'))
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/sdp"));
    let mut label = printable(&label(&message.text), LABEL_MAX);
    if sdp && label.chars().count() + " with SDP".len() <= LABEL_MAX {
        label.push_str(" with SDP");
    }
    let line = format!("{:─^WIDTH$}", format!(" {label} "));
    let mut line: Vec<char> = line.chars().collect();
    match message.direction {
        Direction::In => line[WIDTH - 1] = '>',
        Direction::Out => line[0] = '<',
    }
    let line: String = line.into_iter().collect();
    let cseq = header(message, "CSeq", None).unwrap_or("?");
    let offset = format!("+{since_s:.3}");
    let _ = write!(
        text,
        "{offset:>10}  │{line}│  {}  {}",
        printable(cseq, TEXT_MAX),
        printable(&message.transport, TEXT_MAX),
    );
}

/// The method, or the status with its reason.
fn label(message: &str) -> String {
    let line = message.trim_start_matches(['\r', '\n']);
    let line = line.lines().next().unwrap_or_default();
    match line.split_once(' ') {
        Some((version, status)) if version.to_ascii_uppercase().starts_with("SIP/") => {
            status.to_owned()
        }
        Some((method, _)) => method.to_owned(),
        None => "?".to_owned(),
    }
}

fn header<'a>(message: &'a SipMessage, name: &str, compact: Option<u8>) -> Option<&'a str> {
    let value = headers(message.text.as_bytes(), name, compact).next()?;
    str::from_utf8(value).ok()
}

/// Text for a terminal, cut off where it is too long.
fn printable(text: &str, chars_max: usize) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let mut chars = text.chars();
    let mut printed: String = chars.by_ref().take(chars_max).map(shown).collect();
    if chars.next().is_some() {
        printed.pop();
        printed.push('…');
    }
    printed
}

#[cfg(test)]
mod tests;
