//! What one subscription has been told, and when it may be told more.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{MEDIA_TYPE, Roster};
use crate::Body;

/// Shortest time between two NOTIFYs that RFC 4575 §3.9 recommends.
pub const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// The notifier's state of one subscription to a [`Roster`]: a few numbers.
#[derive(Clone, Debug)]
pub struct Subscriber {
    min_interval: Duration,
    /// Of the last document; they are counted from 1.
    version: u32,
    /// The roster's revision in the last document.
    told: u64,
    last: Option<Instant>,
}

/// Why a NOTIFY is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A SUBSCRIBE, first or refreshing, has to be followed by everything there is, without delay
    /// (RFC 6665 §4.2.1.2). So has a subscriber who lost its thread.
    Immediate,
    /// The roster may have changed.
    Changed,
}

impl Subscriber {
    /// Documents because of changes are at least `min_interval` apart, and apart from the ones
    /// before. [`MIN_INTERVAL`] is what is recommended.
    pub fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            version: 0,
            told: 0,
            last: None,
        }
    }

    /// When there may be a document because of changes, now or later; None without news. Only a
    /// change of the roster or taking a document alters the answer.
    pub fn due(&self, now: Instant, roster: &Roster) -> Option<Instant> {
        if self.told == roster.revision() {
            return None;
        }
        // Nobody has to wait for the end.
        let last = self.last.filter(|_| !roster.is_over());
        Some(last.map_or(now, |last| now.max(last + self.min_interval)))
    }

    /// The body of the NOTIFY to be sent now. Without one because of changes: there is no news, or
    /// it is not yet time.
    pub fn take(&mut self, now: Instant, roster: &Roster, cause: Cause) -> Option<Body> {
        if cause == Cause::Changed && self.due(now, roster).is_none_or(|due| due > now) {
            return None;
        }
        self.version = self.version.wrapping_add(1);
        let partial = match cause {
            // Never told anything.
            Cause::Changed if self.told > 0 => roster.partial(self.told, self.version),
            Cause::Immediate | Cause::Changed => None,
        };
        let xml = match partial {
            _ if roster.is_over() => roster.deleted(self.version),
            Some(partial) => partial,
            None => roster.full(self.version),
        };
        self.told = roster.revision();
        self.last = Some(now);
        Some(Body {
            content_type: MEDIA_TYPE.to_owned(),
            content: Bytes::from(xml),
        })
    }
}
