//! SDP (RFC 8866) and its offer/answer model (RFC 3264), for one audio leg per dialog.
//!
//! ```text
//! bytes ──parse──> SessionDescription ──answer(capabilities, local)──> (answer, Agreed)
//!                                                                           │
//! bytes <─Display─ SessionDescription <──offer(capabilities, local)         └──> the room's leg
//!                            └──accept_answer(answer, capabilities)──> Agreed
//! ```
//!
//! Parsing is lenient where phones are known to differ (line ends, absent `s=` and `t=`, unknown
//! lines) and bounded by the limits below; what leaves here is strict.
//!
//! Not here: keys for SRTP, ICE, DTLS and BUNDLE (their attributes are kept but mean nothing),
//! video, several audio streams per dialog, and deciding when the `o=` version must grow: the
//! caller owns the dialog and says so in [`Local`].

mod agreement;
mod format;
pub mod fuzz;
mod offer_answer;
mod parse;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::net::IpAddr;

pub use agreement::{Agreed, Capabilities, CodecOffer, Local, Refusal};
pub use offer_answer::{accept_answer, answer, offer, preview};
pub use parse::{SdpError, SdpErrorKind, parse};

/// Longest description read, in bytes. A WebRTC offer with ten video tracks stays below 30 KiB;
/// above 64 KiB it would not have fitted a UDP datagram.
pub const TEXT_LEN_MAX: usize = 64 * 1024;

/// Most lines read. The longest browser offers have about 600.
pub const LINES_MAX: usize = 2048;

/// Most `m=` lines read, because an answer repeats every one of them.
pub const MEDIA_MAX: usize = 16;

/// Most formats on one `m=` line: an RTP payload type has 7 bits.
pub const FORMATS_MAX: usize = 128;

/// A session description: what one side can receive and where.
///
/// Texts must hold neither CR nor LF and not end in blanks, which is so for everything [`parse()`]
/// returns. `i= u= e= p= b= r= z= k=` lines are read past and not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    pub origin: Origin,
    /// `s=`, never empty: `-` when the peer left it out.
    pub session_name: String,
    /// Session-level `c=`, for every media line without its own.
    pub connection: Option<Host>,
    /// `t=` start and stop in NTP seconds, never empty: `0 0` (no bounds) when the peer left it
    /// out.
    pub times: Vec<(u64, u64)>,
    /// Session-level direction attribute, for every media line without its own.
    pub direction: Option<Direction>,
    /// Session-level attributes other than the direction, in their order.
    pub attributes: Vec<Attribute>,
    pub media: Vec<Media>,
}

impl SessionDescription {
    /// The direction of one of this description's media lines from its sender's side: its own,
    /// else the session's, else `sendrecv` (RFC 8866 section 6.7).
    pub fn direction_of(&self, media: &Media) -> Direction {
        media.direction.or(self.direction).unwrap_or_default()
    }

    /// The address of one of this description's media lines: its own `c=`, else the session's.
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Host> {
        media.connection.as_ref().or(self.connection.as_ref())
    }
}

/// `o=`: who made this description, and which revision of it this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub username: String,
    /// Numbers too big for 64 bits are read as `u64::MAX`.
    pub session_id: u64,
    /// Grows by one with each changed description of a dialog (RFC 3264 section 8). Numbers too
    /// big for 64 bits are read as `u64::MAX`.
    pub version: u64,
    pub address: Host,
}

/// An address as written in `o=`, `c=` or `a=rtcp:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    /// A domain name, or anything else that is no address. Media cannot be sent there, since
    /// nothing here resolves names.
    Name(String),
}

impl Host {
    /// SIPp writes IPv6 addresses in the brackets that belong into URIs.
    pub(crate) fn from_text(text: &str) -> Self {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        bare.unwrap_or(text)
            .parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Ip)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address @ IpAddr::V4(_)) => write!(f, "IN IP4 {address}"),
            Self::Ip(address @ IpAddr::V6(_)) => write!(f, "IN IP6 {address}"),
            Self::Name(name) => write!(f, "IN IP4 {name}"),
        }
    }
}

/// One `m=` line and the lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `application`, ...
    pub kind: String,
    /// 0 means the stream is refused or stopped.
    pub port: u16,
    /// How many consecutive ports the peer asks for (`port/count`), 1 unless written.
    pub port_count: u16,
    /// `RTP/AVP`, `RTP/SAVPF`, `TCP/BFCP`, ...
    pub protocol: String,
    /// The formats in the sender's order of preference; RTP payload types for RTP protocols.
    pub formats: Vec<String>,
    pub connection: Option<Host>,
    pub direction: Option<Direction>,
    /// Attributes other than the direction, in their order.
    pub attributes: Vec<Attribute>,
}

impl Media {
    /// The value of the first attribute of that name; an attribute without one gives `""`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| attribute.value.as_deref().unwrap_or(""))
    }
}

/// `a=name` or `a=name:value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    pub value: Option<String>,
}

impl Attribute {
    pub fn flag(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: None,
        }
    }

    pub fn new(name: &str, value: impl fmt::Display) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value.to_string()),
        }
    }
}

/// Who sends, seen from the side that owns the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same stream seen from the other side.
    pub const fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::SendRecv | Self::Inactive => self,
        }
    }

    /// What is left when both `self` and `other` must permit it, both seen from the same side.
    pub const fn and(self, other: Self) -> Self {
        match (
            self.sends() && other.sends(),
            self.receives() && other.receives(),
        ) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The attribute's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }
}
