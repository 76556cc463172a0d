//! Whether anybody still needs a connection.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use sip::scan::{Start, scan};

/// A connection without a call on which no byte passed for this long is closed.
const IDLE: Duration = Duration::from_secs(600);

/// The same after a subscription or registration, which usually last an hour.
const IDLE_SUBSCRIBED: Duration = Duration::from_secs(600 + 3_600);

/// Calls that are told apart on one connection. One with more is a trunk, and stays.
const CALLS_MAX: usize = 4_096;

/// What passed over one connection. Silence alone is no reason to close it: a call may be quiet for hours,
/// and would end with it.
#[derive(Debug)]
pub(super) struct Usage {
    /// When the last byte passed.
    last: Instant,
    /// Calls that were answered and not hung up, by a hash of their Call-ID.
    calls: HashSet<u64>,
    subscribed: bool,
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            calls: HashSet::new(),
            subscribed: false,
        }
    }

    /// Bytes passed, in whichever direction.
    pub(super) fn touch(&mut self, now: Instant) {
        self.last = now;
    }

    /// A whole message passed, in whichever direction.
    pub(super) fn note(&mut self, message: &[u8]) {
        let Ok(glance) = scan(message) else { return };
        let mut hasher = DefaultHasher::new();
        glance.call_id.hash(&mut hasher);
        let call = hasher.finish();
        match (glance.start, glance.cseq_method) {
            // A trunk that has been full forgets nothing: it no longer knows whose call this is.
            (Start::Request { method: b"BYE", .. }, _) if self.calls.len() < CALLS_MAX => {
                self.calls.remove(&call);
            }
            (Start::Response { code: 200..300 }, Some(b"INVITE"))
                if self.calls.len() < CALLS_MAX =>
            {
                self.calls.insert(call);
            }
            (Start::Response { code: 200..300 }, Some(b"SUBSCRIBE" | b"REGISTER")) => {
                self.subscribed = true;
            }
            _ => {}
        }
    }

    /// Nobody needs the connection any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let limit = if self.subscribed {
            IDLE_SUBSCRIBED
        } else {
            IDLE
        };
        self.calls.is_empty() && now.saturating_duration_since(self.last) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_after(messages: &[&str]) -> (Usage, Instant) {
        let start = Instant::now();
        let mut usage = Usage::new(start);
        for message in messages {
            usage.note(message.as_bytes());
        }
        (usage, start)
    }

    #[track_caller]
    fn check(messages: &[&str], over_after: Option<Duration>) {
        let (usage, start) = usage_after(messages);
        let day = Duration::from_secs(86_400);
        assert_eq!(usage.is_over(start + day), over_after.is_some());
        if let Some(limit) = over_after {
            assert!(usage.is_over(start + limit));
            assert!(!usage.is_over(start + limit - Duration::from_secs(1)));
        }
    }

    const OK: &str = "SIP/2.0 200 OK\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n";
    const BYE: &str = "BYE sip:a SIP/2.0\r\nCall-ID: 1\r\nCSeq: 2 BYE\r\n\r\n";

    #[test]
    fn a_connection_stays_as_long_as_a_call() {
        check(&[], Some(IDLE));
        check(&[OK], None);
        check(&[OK, OK, BYE], Some(IDLE));
        check(&[OK, &BYE.replace("ID: 1", "ID: 2")], None);
        check(&[&OK.replace("200 OK", "486 Busy")], Some(IDLE));
        check(&[&OK.replace("200 OK", "180 Ringing")], Some(IDLE));
        check(&[&OK.replace("INVITE", "OPTIONS")], Some(IDLE));
        check(&[&OK.replace("INVITE", "SUBSCRIBE")], Some(IDLE_SUBSCRIBED));
        check(&["nonsense"], Some(IDLE));
    }

    #[test]
    fn every_byte_begins_the_wait_anew() {
        let (mut usage, start) = usage_after(&[]);
        usage.touch(start + IDLE / 2);
        assert!(!usage.is_over(start + IDLE));
        assert!(usage.is_over(start + IDLE / 2 + IDLE));
    }

    #[test]
    fn a_trunk_is_remembered_within_bounds_and_stays() {
        let (mut usage, start) = usage_after(&[]);
        for call in 0..CALLS_MAX + 10 {
            usage.note(OK.replace("ID: 1", &format!("ID: {call}")).as_bytes());
        }
        assert_eq!(usage.calls.len(), CALLS_MAX);
        usage.note(BYE.as_bytes());
        assert!(!usage.is_over(start + IDLE_SUBSCRIBED * 2));
    }
}
