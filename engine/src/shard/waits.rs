//! INVITEs that wait for their final response, to know how long they did.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::meters::{CoreMeters, Kind};

/// More wait unmeasured.
const WAITING_MAX: usize = 65_536;

/// No INVITE is without an answer longer (RFC 3261 §16.6, timer C); its caller is gone.
const FORGET_AFTER: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// By Call-ID, since when.
#[derive(Debug)]
pub(super) struct Waits {
    since: HashMap<String, Instant>,
    next_look: Instant,
}

impl Waits {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: HashMap::new(),
            next_look: now + LOOK_EVERY,
        }
    }

    /// An INVITE came that nobody has answered yet.
    pub(super) fn asked(&mut self, now: Instant, call_id: &str) {
        if self.since.len() < WAITING_MAX {
            self.since.entry(call_id.to_owned()).or_insert(now);
        }
    }

    /// A message leaves; looked at only if it may be an answer.
    pub(super) fn sent(&mut self, kind: Kind, message: &Bytes, meters: &CoreMeters) {
        if self.since.is_empty() || !kind.is_final_response() {
            return;
        }
        let Ok(glance) = sip::scan(message) else {
            return;
        };
        let answers_invite = glance.cseq_method == Some(b"INVITE");
        let asked = str::from_utf8(glance.call_id)
            .ok()
            .filter(|_| answers_invite)
            .and_then(|call_id| self.since.remove(call_id));
        if let Some(asked) = asked {
            // The clock itself: what came with this turn may have waited for its sound first.
            meters.call_setup.record(asked.elapsed());
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        self.since
            .retain(|_, asked| now.saturating_duration_since(*asked) < FORGET_AFTER);
        if self.since.is_empty() {
            self.since.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meters::Meters;

    fn answer(status: u16, call_id: &str, method: &str) -> Bytes {
        format!("SIP/2.0 {status} Whatever\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\r\n")
            .into()
    }

    #[test]
    fn only_the_final_answer_to_an_invite_ends_a_wait_and_once() {
        let meters = &Meters::new(&[0]).cores[0];
        let now = Instant::now();
        let mut waits = Waits::new(now);
        waits.asked(now, "one");
        let mut counts = |message: Bytes| {
            waits.sent(Kind::of(&message), &message, meters);
            meters.call_setup.count()
        };
        assert_eq!(counts(answer(180, "one", "INVITE")), 0);
        assert_eq!(counts(answer(200, "one", "BYE")), 0);
        assert_eq!(counts(answer(200, "two", "INVITE")), 0);
        assert_eq!(counts(answer(200, "one", "INVITE")), 1);
        assert_eq!(counts(answer(200, "one", "INVITE")), 1, "sent again");
    }

    #[test]
    fn those_without_an_answer_are_forgotten() {
        let now = Instant::now();
        let mut waits = Waits::new(now);
        waits.asked(now, "one");
        waits.asked(now + Duration::from_secs(100), "two");
        waits.expire(now + FORGET_AFTER);
        assert_eq!(waits.since.len(), 1);
        (0..2 * WAITING_MAX).for_each(|call| waits.asked(now, &call.to_string()));
        assert_eq!(waits.since.len(), WAITING_MAX);
    }
}
