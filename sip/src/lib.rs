//! SIP (RFC 3261) and SDP without I/O: bytes and time go in; bytes, events and deadlines come out.
//!
//! ```text
//!   bytes ─> frame ─> scan ─> message ─> transaction ─> endpoint ─> Event
//!            (TCP)    whose?                            dialogs      │
//!   bytes <──────────────────────────────────────────── Output <── accept, reject, bye ...
//! ```
//! [`Endpoint`] is the one type a caller holds: a user agent, server and client, with any number of
//! calls. [`scan`](scan::scan) tells which of several endpoints a message belongs to.
//! [`sdp`] describes sessions and answers offers; the endpoint carries bodies without looking inside.
//!
//! Not here: sockets, clocks, threads, name resolution, registration, what a room is.

#![forbid(unsafe_code)]

pub mod conference_info;
pub mod digest;
mod endpoint;
pub mod frame;
pub mod fuzz;
mod message;
pub mod overload;
pub mod refer;
pub mod scan;
pub mod sdp;
pub mod sipfrag;
mod transaction;

use std::net::SocketAddr;

use bytes::Bytes;

pub use endpoint::{
    CallKey, ClientKey, Config, Counters, Ended, Endpoint, Event, Invitation, Invite,
    ListenerIdentity, Method, Named, Output, Peer, Rejection, Request, RequestKey, SessionPolicy,
    Sizes, SubscriptionKey, TooManyCalls,
};
pub use scan::{Glance, scan};
pub use transaction::Timers;

/// What carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    /// WebSocket (RFC 7118), without and with TLS.
    Ws,
    Wss,
}

impl Transport {
    /// As Via names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// As a SIP URI names it in its `transport` parameter; None where the URI needs none.
    pub const fn uri_parameter(self) -> Option<&'static str> {
        match self {
            Self::Udp => None,
            Self::Tcp => Some("tcp"),
            Self::Tls => Some("tls"),
            Self::Ws => Some("ws"),
            Self::Wss => Some("wss"),
        }
    }

    /// The port of a URI or Via that names none (RFC 3261 §19.1.2, RFC 7118 §5).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Delivers everything in order or fails as a whole.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// Where a message came from or is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub transport: Transport,
    pub peer: SocketAddr,
    /// Index of the listening address it came to or leaves from.
    pub listener: u16,
    /// Number of the connection; 0 on UDP, and where a connection to `peer` is still to be made.
    pub stream: u64,
}

/// A message body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Media type, such as `application/sdp`.
    pub content_type: String,
    pub content: Bytes,
}
