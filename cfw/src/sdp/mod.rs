//! How the two ends of a channel agree on it, in the session descriptions of an INVITE and its 200
//! (RFC 6230 §4, RFC 4145, RFC 8122).
//!
//! ```text
//!  m=application 7563 TCP cfw        TCP/TLS cfw for TLS; port 9 for who only connects
//!  a=setup:active                    who connects: COMEDIA (RFC 4145)
//!  a=connection:new
//!  a=cfw-id:H839quwhjdhegvdga        tells at the start of the connection which dialog it is for
//!  a=fingerprint:sha-256 4A:AD...    of the certificate (RFC 8122)
//! ```
//! - Each end has an id of its own (RFC 6230 §4.2). RFC 7058 shows an echo of the offer's id: that is
//!   accepted, but never sent.
//! - The protocols `TCP/CFW` and `TCP/TLS/CFW` of drafts are understood, and answered in kind.
//! - What the RFC's own samples lack (`t=`) may lack.
//!
//! ```
//! use cfw::channel::Role;
//! use cfw::sdp::{Local, Setup, accept, answer, cfw_id, offer, read};
//!
//! let a = Local::new("192.0.2.1".parse()?, None, cfw_id([1; 12]));
//! let b = Local::new("192.0.2.2".parse()?, Some(7563), cfw_id([2; 12]));
//!
//! let offer = offer(&a, Setup::Active);
//! let (answer, at_b) = answer(&read(offer.as_bytes())?, &b, false)?;
//! let at_a = accept(&a, Setup::Active, &read(answer.as_bytes())?)?;
//!
//! assert_eq!((at_a.role, at_b.role), (Role::Active, Role::Passive));
//! assert_eq!((at_a.peer_host.as_deref(), at_a.peer_port), (Some("192.0.2.2"), 7563));
//! // What B will read in the SYNC.
//! assert_eq!(at_b.peer_cfw_id, at_a.cfw_id.as_str());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agree;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use crate::channel::{Role, Token};

pub use agree::{accept, answer, offer, reject};
pub use read::read;

/// Where channels are listened for, if nothing else is said (RFC 6230 §13.5).
pub const PORT: u16 = 7563;

/// Port of who does not listen (RFC 4145 §4.1).
pub const PORT_NONE: u16 = 9;

/// Longest description read, in bytes.
pub const SDP_LEN_MAX: usize = 16 * 1024;

/// Most media of a description.
pub const MEDIA_MAX: usize = 16;

/// Most fingerprints of a certificate.
pub const FINGERPRINTS_MAX: usize = 8;

/// An id for a channel's end out of random bytes: 24 characters, so that it fits into `Dialog-ID`.
pub fn cfw_id(random: [u8; 12]) -> Token {
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().expect("24 letters and digits")
}

/// One end, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub addr: IpAddr,
    /// Where it listens; None if it only connects.
    pub port: Option<u16>,
    pub cfw_id: Token,
    /// Of the certificate; with it, the channel is in TLS or there is none.
    pub fingerprint: Option<Fingerprint>,
    /// Session id and version of `o=`.
    pub session: u64,
    pub version: u64,
}

impl Local {
    /// Without TLS.
    pub const fn new(addr: IpAddr, port: Option<u16>, cfw_id: Token) -> Self {
        Self {
            addr,
            port,
            cfw_id,
            fingerprint: None,
            session: 0,
            version: 0,
        }
    }
}

/// What a description says about the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// From `c=`: an address or a name.
    pub host: Option<String>,
    /// 0 if there is to be no channel.
    pub port: u16,
    pub transport: Transport,
    /// None if absent: then an offer is active, and an answer passive (RFC 4145 §4.1).
    pub setup: Option<Setup>,
    pub connection: Connection,
    pub cfw_id: String,
    pub fingerprints: Vec<Fingerprint>,
    /// Other media before the channel's, and after it: what follows `m=`.
    pub media_before: Vec<String>,
    pub media_after: Vec<String>,
}

/// What an `m=` line of a channel says about how it is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transport {
    pub tls: bool,
    /// `TCP/CFW` instead of `TCP`, as drafts of RFC 6230 had it.
    pub draft: bool,
}

/// Who connects (RFC 4145 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    Active,
    Passive,
    /// Either.
    ActPass,
    /// Nobody for now.
    HoldConn,
}

/// Whether the connection is a new one (RFC 4145 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Connection {
    #[default]
    New,
    Existing,
}

/// Of a certificate (RFC 8122 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// In small letters, such as `sha-256`.
    pub hash: String,
    pub bytes: Vec<u8>,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.hash)?;
        for (index, byte) in self.bytes.iter().enumerate() {
            let colon = if index > 0 { ":" } else { "" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

/// What two descriptions come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub role: Role,
    /// Ours, for our SYNC: another than [`Local::cfw_id`] if the peer had the same.
    pub cfw_id: Token,
    /// The peer's, which is in its SYNC.
    pub peer_cfw_id: String,
    /// Where the peer listens; always known to the active end.
    pub peer_host: Option<String>,
    pub peer_port: u16,
    /// With TLS, one of these is of the peer's certificate, whichever end it is (RFC 8122 §6). The passive
    /// end is the server, and asks for a certificate.
    pub tls: bool,
    pub peer_fingerprints: Vec<Fingerprint>,
    pub connection: Connection,
}

/// Why there is no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No session description, or too long.
    Malformed,
    /// No `m=` line of a channel.
    NoChannel,
    /// More than one.
    ManyChannels,
    /// No `cfw-id`, or one that is no token.
    CfwId,
    /// Port 0.
    Rejected,
    /// The peer connects, but we do not listen; or neither connects.
    Setup,
    /// The peer does not say where it listens.
    NoAddress,
    /// We want TLS, the peer does not.
    TlsRequired,
    /// The peer wants TLS, and we have none.
    NoTls,
    /// TLS without a fingerprint that is of use.
    NoFingerprint,
}

impl Rejection {
    /// The SIP status of an answer to the INVITE (RFC 6230 §4.1).
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            _ => 488,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "no session description",
            Self::NoChannel => "no control channel",
            Self::ManyChannels => "more than one control channel",
            Self::CfwId => "a control channel without a proper cfw-id",
            Self::Rejected => "the control channel is rejected",
            Self::Setup => "neither end, or both, would connect",
            Self::NoAddress => "no address to connect to",
            Self::TlsRequired => "a control channel without TLS",
            Self::NoTls => "a control channel with TLS",
            Self::NoFingerprint => "TLS without a proper fingerprint",
        })
    }
}

impl std::error::Error for Rejection {}

impl Transport {
    /// As an `m=` line has it, and the format after it.
    const fn as_str(self) -> &'static str {
        match (self.tls, self.draft) {
            (false, false) => "TCP cfw",
            (true, false) => "TCP/TLS cfw",
            (false, true) => "TCP/CFW *",
            (true, true) => "TCP/TLS/CFW *",
        }
    }
}

impl Setup {
    const ALL: [Self; 4] = [Self::Active, Self::Passive, Self::ActPass, Self::HoldConn];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
            Self::HoldConn => "holdconn",
        }
    }
}

impl Connection {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Existing => "existing",
        }
    }
}
