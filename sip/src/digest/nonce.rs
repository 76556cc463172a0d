//! Nonces that need no memory: a time and who signed it.
//!
//! A nonce is the 16 hexadecimal digits of its time of issue, in milliseconds since 1970, and 32 of
//! an HMAC-SHA-256 over that time, the algorithm and the realm, cut to 128 bits (RFC 2104 §5 permits
//! half). Two challenges of one millisecond carry the same nonce, which does no harm: clients differ
//! in their own.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Algorithm;
use super::hash::{hex, unhex};

/// Octets of the signature that are sent.
const TAG_LEN: usize = 16;
const TIME_LEN: usize = 8;
/// How much later than ours the clock of another server of the cluster may be.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// Signs and recognises the nonces of a realm.
#[derive(Clone)]
pub(super) struct Nonces {
    /// Keyed, and fed with the realm.
    signer: Hmac<Sha256>,
    lifetime: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceFault {
    /// Of another secret, realm or algorithm, or not a nonce at all.
    Foreign,
    Expired,
}

impl Nonces {
    pub(super) fn new(secret: &[u8], realm: &str, lifetime: Duration) -> Self {
        let Ok(mut signer) = Hmac::new_from_slice(secret) else {
            unreachable!("a key of HMAC may have any length");
        };
        signer.update(&(realm.len() as u64).to_be_bytes());
        signer.update(realm.as_bytes());
        Self { signer, lifetime }
    }

    /// A nonce of the time `now`, since 1970.
    pub(super) fn issue(&self, now: Duration, algorithm: Algorithm) -> String {
        let time = milliseconds(now).to_be_bytes();
        let tag = self
            .signed(b"nonce", &time, algorithm)
            .finalize()
            .into_bytes();
        hex(&time) + &hex(&tag[..TAG_LEN])
    }

    /// When a nonce expires, since 1970.
    pub(super) fn expiry(
        &self,
        nonce: &str,
        now: Duration,
        algorithm: Algorithm,
    ) -> Result<Duration, NonceFault> {
        let nonce = unhex::<{ TIME_LEN + TAG_LEN }>(nonce).ok_or(NonceFault::Foreign)?;
        let Some((time, tag)) = nonce.split_first_chunk::<TIME_LEN>() else {
            return Err(NonceFault::Foreign);
        };
        // Compares in constant time.
        self.signed(b"nonce", time, algorithm)
            .verify_truncated_left(tag)
            .map_err(|_| NonceFault::Foreign)?;
        let issued = Duration::from_millis(u64::from_be_bytes(*time));
        let expiry = issued.saturating_add(self.lifetime);
        if issued > now.saturating_add(SKEW_MAX) || expiry <= now {
            return Err(NonceFault::Expired);
        }
        Ok(expiry)
    }

    /// The same in every server of the realm; it says nothing, but some clients want it to be there.
    pub(super) fn opaque(&self) -> String {
        let tag = self
            .signer
            .clone()
            .chain_update(b"opaque")
            .finalize()
            .into_bytes();
        hex(&tag[..TIME_LEN])
    }

    fn signed(&self, label: &[u8], time: &[u8; TIME_LEN], algorithm: Algorithm) -> Hmac<Sha256> {
        self.signer
            .clone()
            .chain_update(label)
            .chain_update(time)
            .chain_update(algorithm.name().as_bytes())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
