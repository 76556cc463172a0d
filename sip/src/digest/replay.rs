//! Requests that were seen before (RFC 7616 §3.4, parameter `nc`).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::Verified;
use super::server::since_1970;

/// How far a count may lag behind the highest seen: requests overtake each other on UDP.
const WINDOW: u32 = u64::BITS;

/// Remembers which counts of which nonces have been used, for as long as the nonces live and within a
/// bound of memory.
///
/// Counts belong to a nonce, a user and the client's own nonce together: callers that were challenged
/// at the same moment hold the same nonce. When the memory is full, what expires first is forgotten
/// first; only those who know a password can fill it.
#[derive(Clone, Debug)]
pub struct NonceCounts {
    /// By expiry of the nonce, so that the first is the next to go.
    seen: BTreeMap<(Duration, UseId), Window>,
    uses_max: usize,
}

/// Of a nonce in the hands of one client, hashed: it takes the same room whatever was sent.
pub(super) type UseId = [u8; 32];

/// The highest count seen, and which of those before it.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u32,
    /// Bit n is set when `highest - n` was seen.
    seen: u64,
}

impl NonceCounts {
    /// Room for `uses_max` nonces in use, of about 130 octets each; at least one.
    pub fn new(uses_max: usize) -> Self {
        Self {
            seen: BTreeMap::new(),
            uses_max: uses_max.max(1),
        }
    }

    /// Whether these credentials are used for the first time; they count as used from now on.
    ///
    /// To be asked once for each request that is not a retransmission. A refused request is to be
    /// challenged with `stale=true`: an honest client then takes a fresh nonce.
    pub fn admit(&mut self, now: SystemTime, verified: &Verified) -> bool {
        self.forget_expired(since_1970(now));
        let key = (verified.expiry, verified.use_id);
        if self.seen.len() >= self.uses_max && !self.seen.contains_key(&key) {
            self.seen.pop_first();
        }
        self.seen
            .entry(key)
            .or_default()
            .admit(verified.nonce_count)
    }

    /// Nonces in use that are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn forget_expired(&mut self, now: Duration) {
        while let Some(first) = self.seen.first_entry()
            && first.key().0 <= now
        {
            first.remove();
        }
    }
}

impl Window {
    fn admit(&mut self, count: u32) -> bool {
        if count > self.highest || self.seen == 0 {
            let ahead = count.saturating_sub(self.highest);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}
