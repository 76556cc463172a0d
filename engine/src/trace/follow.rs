//! Which messages a watcher wants.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};

use sip::scan::{Glance, headers, user_of};

use super::{Direction, Record};

/// Calls of a room that are followed; beyond it the oldest is forgotten.
const FOLLOWED_MAX: usize = 10_000;

/// A call by the beginning of its Call-ID, a room by its name, or both; everything if neither.
#[derive(Debug, Default)]
pub struct Filter {
    call: Option<String>,
    room: Option<String>,
    /// Call-IDs that were seen with the room: what follows in them may not name it.
    followed: HashSet<Box<[u8]>>,
    oldest: VecDeque<Box<[u8]>>,
}

impl Filter {
    pub fn new(call: Option<String>, room: Option<String>) -> Self {
        Self {
            call,
            room,
            ..Self::default()
        }
    }

    /// Leaves the messages that are wanted. Those of a batch are looked through twice, for the answer may
    /// be the first to name the room.
    pub fn retain(&mut self, records: &mut Vec<Record>) {
        if self.call.is_none() && self.room.is_none() {
            return;
        }
        if self.room.is_some() {
            records.iter().for_each(|record| self.learn(record));
        }
        records.retain(|record| self.wants(record));
    }

    fn wants(&self, record: &Record) -> bool {
        let Ok(glance) = sip::scan(&record.message) else {
            return false;
        };
        let call = self.call.as_ref();
        call.is_none_or(|call| glance.call_id.starts_with(call.as_bytes()))
            && (self.room.is_none() || self.followed.contains(glance.call_id))
    }

    fn learn(&mut self, record: &Record) {
        let (Some(room), Ok(glance)) = (&self.room, sip::scan(&record.message)) else {
            return;
        };
        if self.followed.contains(glance.call_id) || !names(record, &glance, room) {
            return;
        }
        if self.oldest.len() == FOLLOWED_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.followed.remove(&oldest);
        }
        self.followed.insert(glance.call_id.into());
        self.oldest.push_back(glance.call_id.into());
    }
}

/// Whether a message is about the room: called by it, or, where it is ours, sent in its name.
fn names(record: &Record, glance: &Glance<'_>, room: &str) -> bool {
    let message = &record.message;
    let in_header = |name, compact| {
        headers(message, name, compact).any(|value| user(value).as_deref() == Some(room))
    };
    glance.user().as_deref() == Some(room)
        || in_header("To", Some(b't'))
        || record.direction == Direction::Out
            && (in_header("From", Some(b'f')) || in_header("Contact", Some(b'm')))
}

/// User part of the URI of a `From`, `To` or `Contact` (RFC 3261 §20.10).
fn user(value: &[u8]) -> Option<Cow<'_, str>> {
    user_of(address(str::from_utf8(value).ok()?))
}

/// The URI of a `From`, `To` or `Contact`: between angle brackets, or all before the parameters.
pub(super) fn address(value: &str) -> &str {
    let mut rest = value.trim();
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.find(|c| match c {
            _ if escaped => {
                escaped = false;
                false
            }
            '\\' => {
                escaped = true;
                false
            }
            c => c == '"',
        });
        rest = end.map_or("", |end| &quoted[end + 1..]);
    }
    match rest.split_once('<') {
        Some((_, uri)) => uri.split('>').next().unwrap_or(uri),
        None => rest.split(';').next().unwrap_or(rest).trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::record;

    fn message(start: &str, call_id: &str, to: &str) -> Record {
        record(&format!(
            "{start}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\r\n"
        ))
    }

    fn selected(filter: &mut Filter, records: &[&Record]) -> Vec<bool> {
        let one = |record: &&Record| {
            let mut records = vec![(*record).clone()];
            filter.retain(&mut records);
            !records.is_empty()
        };
        records.iter().map(one).collect()
    }

    #[test]
    fn a_call_is_named_by_the_beginning_of_its_id() {
        let mut filter = Filter::new(Some("ab".to_owned()), None);
        let calls =
            ["ab", "abc@x", "a", "xab"].map(|id| message("BYE sip:x SIP/2.0", id, "<sip:y@z>"));
        assert_eq!(
            selected(
                &mut filter,
                &[
                    &calls[0],
                    &calls[1],
                    &calls[2],
                    &calls[3],
                    &record("no SIP")
                ]
            ),
            [true, true, false, false, false]
        );
        assert_eq!(
            selected(&mut Filter::default(), &[&record("no SIP")]),
            [true]
        );
    }

    #[test]
    fn a_call_seen_with_the_room_stays_followed() {
        let mut filter = Filter::new(None, Some("blue room".to_owned()));
        let other = message("INVITE sip:lobby@h SIP/2.0", "2", "<sip:lobby@h>");
        let invite = message(
            "INVITE sip:blue%20room@h SIP/2.0",
            "1",
            "sip:someone@h;tag=3",
        );
        let bye = message("BYE sip:alice@192.0.2.1 SIP/2.0", "1", "<sip:alice@h>");
        let to = message(
            "OPTIONS sip:h SIP/2.0",
            "3",
            "\"a \\\"<sip:x@y>\" <sip:blue%20room@h>;tag=1",
        );
        assert_eq!(
            selected(&mut filter, &[&bye, &other, &invite, &bye, &to, &other]),
            [false, false, true, true, true, false]
        );
    }

    #[test]
    fn what_we_send_in_the_name_of_the_room_counts_and_what_callers_claim_does_not() {
        let mut ours = record(
            "SIP/2.0 200 OK\r\nFrom: <sip:a@h>\r\nTo: <sip:conference@h>\r\nCall-ID: 1\r\nContact: <sip:red@h>\r\n\r\n",
        );
        let theirs = ours.clone();
        ours.direction = Direction::Out;
        let mut filter = Filter::new(None, Some("red".to_owned()));
        assert_eq!(
            selected(&mut filter, &[&theirs, &ours, &theirs]),
            [false, true, true]
        );
        let mut both = vec![theirs, ours];
        Filter::new(None, Some("red".to_owned())).retain(&mut both);
        assert_eq!(both.len(), 2, "the answer names the room of the question");
    }

    #[test]
    fn followed_calls_are_bounded() {
        let mut filter = Filter::new(None, Some("lobby".to_owned()));
        for call in 0..=FOLLOWED_MAX {
            filter.learn(&message(
                "INVITE sip:lobby@h SIP/2.0",
                &call.to_string(),
                "x",
            ));
        }
        assert_eq!(
            (filter.followed.len(), filter.oldest.len()),
            (FOLLOWED_MAX, FOLLOWED_MAX)
        );
        assert!(!filter.followed.contains(&b"0"[..]));
    }

    #[test]
    fn addresses_are_found_behind_any_name() {
        for (value, expected) in [
            ("<sip:a@b>;tag=1", "sip:a@b"),
            ("sip:a@b;tag=1", "sip:a@b"),
            ("Bob <sip:a@b>", "sip:a@b"),
            ("\"B <o> \\\" b\" <sip:a@b;lr>", "sip:a@b;lr"),
            ("\"never closed", ""),
            ("", ""),
        ] {
            assert_eq!(address(value), expected, "{value}");
        }
    }
}
