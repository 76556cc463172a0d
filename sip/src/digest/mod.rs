//! Digest authentication: who may call, shown without sending a password (RFC 7616 as SIP uses it:
//! RFC 8760, RFC 3261 §22).
//!
//! ```text
//!   server                                  client
//!   Authenticator::challenges ──401, 407──> answer(challenges, credentials, request)
//!   Authenticator::verify     <──request───   │
//!        │ Verified                           └─ Answer: a value of Authorization
//!   NonceCounts::admit: is it a replay?
//! ```
//! Algorithms are SHA-256 and MD5, one challenge each. What is protected is method and URI (`auth`),
//! with `auth-int` the body too. ACK and CANCEL cannot be challenged (RFC 3261 §22.1): a caller does
//! not verify them.
//!
//! # Replays
//! Nonces carry their time and a signature instead of being remembered, so every server with the same
//! secret and realm accepts them until they expire. Whoever reads a request on its way may therefore
//! send its credentials again within that time, for the same method and URI. [`NonceCounts`] refuses
//! that where it is asked, in bounded memory; it knows of one shard only, and Call-ID, which usually
//! chooses the shard, is not among what is signed. A short lifetime bounds the rest: an expired nonce
//! costs an honest phone one more round trip and its user nothing.
//!
//! Not here: the RFC 2069 form without qop is not accepted from clients, though servers that ask for it
//! are answered; session algorithms (`-sess`), SHA-512-256, hashed and `username*` user names.

mod client;
pub mod fuzz;
mod hash;
mod header;
mod nonce;
mod quoting;
mod replay;
mod server;
#[cfg(test)]
mod tests;
mod uri;

use std::fmt;

pub use client::{Answer, Credentials, answer};
pub use hash::unhex;
pub use header::{Authorization, Challenge, HEADER_LEN_MAX, ParseError, Protection, Qop, QopOffer};
pub use replay::NonceCounts;
pub use server::{Authenticator, Config, ConfigError, Failure, SECRET_LEN_MIN, Verified};

/// A hash function by the name that challenges use (RFC 8760 §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Sha256,
    /// Broken as a hash, still what most phones can do; absent names mean it too.
    Md5,
}

impl Algorithm {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// In any case; None for what we cannot do.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Md5]
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What of a request is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// As written: methods are case-sensitive.
    pub method: &'a str,
    /// The Request-URI; the client repeats it in its credentials.
    pub uri: &'a str,
    /// Matters for `auth-int` only.
    pub body: &'a [u8],
}

/// What is known about a user. Shows nothing of itself in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password(String),
    /// H(user:realm:password), of one realm then, for the algorithms that the user may use.
    Ha1 {
        sha256: Option<[u8; 32]>,
        md5: Option<[u8; 16]>,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Secret::Password(..)",
            Self::Ha1 { .. } => "Secret::Ha1(..)",
        })
    }
}
