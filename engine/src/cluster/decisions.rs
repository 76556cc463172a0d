//! Why callers went where they went: the last decisions, with what was known when they were taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

/// Decisions kept; older ones are in the log.
pub const DECISIONS_MAX: usize = 1_000;

/// Characters of [`Decision::who`]: a From header may be as long as its message.
pub(super) const WHO_MAX: usize = 256;

/// What was seen so lately is seen still where nothing else follows from it.
const LATELY: Duration = Duration::from_millis(100);

/// One decision of this server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// Whom it concerns: the beginning of the URI of a From header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The server that was chosen, or is spoken of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Of the response that follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    pub reason: String,
    /// All servers as they were seen, this one first. Refusals share what was seen at most a tenth of a second
    /// before.
    #[serde(serialize_with = "as_list")]
    pub seen: Arc<[Seen]>,
}

fn as_list<S: Serializer>(seen: &Arc<[Seen]>, serializer: S) -> Result<S::Ok, S::Error> {
    seen.as_ref().serialize(serializer)
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A caller is taken though the server is not below its maximum.
    Accept,
    Redirect,
    Relay,
    Refuse,
    /// A caller waits for a server that is being added.
    Hold,
    /// A reserved server is claimed, has come, or has not.
    Claim,
    Drain,
    Undrain,
    Move,
    Recall,
    /// A server is taken for dead, or is back.
    Server,
    /// This server decides over a conference from now on.
    Adopt,
    /// A message or a channel was not accepted.
    Deny,
}

/// A server at the moment of a decision. Loads are in load units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    pub svr_id: String,
    pub state: &'static str,
    pub load: u32,
    pub predicted: u32,
    pub max: u32,
    /// Age of the load report in milliseconds; None = there was none.
    pub age_ms: Option<u64>,
}

/// The last [`DECISIONS_MAX`] decisions.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    last: VecDeque<Decision>,
    seen: Option<(Instant, Arc<[Seen]>)>,
}

impl Decisions {
    pub(super) fn push(&mut self, decision: Decision) {
        if self.last.len() == DECISIONS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(decision);
    }

    pub(super) fn seen_lately(&self, now: Instant) -> Option<Arc<[Seen]>> {
        let seen = self.seen.as_ref().filter(|(at, _)| now < *at + LATELY);
        seen.map(|(_, seen)| seen.clone())
    }

    pub(super) fn see(&mut self, now: Instant, seen: &Arc<[Seen]>) {
        let is_known = |(_, known): &(Instant, Arc<[Seen]>)| Arc::ptr_eq(known, seen);
        if !self.seen.as_ref().is_some_and(is_known) {
            self.seen = Some((now, seen.clone()));
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Decision> + ExactSizeIterator {
        self.last.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut decisions = Decisions::default();
        for at_ms in 0..DECISIONS_MAX as u64 + 3 {
            decisions.push(Decision {
                at_ms,
                what: What::Refuse,
                room: None,
                who: None,
                server: None,
                status: Some(503),
                reason: String::new(),
                seen: Arc::new([]),
            });
        }
        assert_eq!(decisions.iter().len(), DECISIONS_MAX);
        assert_eq!(decisions.iter().next().map(|first| first.at_ms), Some(3));
    }
}
