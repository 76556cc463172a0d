//! RTP and RTCP (RFC 3550) without I/O: datagrams and time in, payloads in play-out order, headers and
//! reports out.
//!
//! In the order in which a datagram meets them: [`packet`](Packet) reads it, the latch says whether it
//! comes from the peer, the source whether it is valid and what is missing, [`jitter`](JitterBuffer) puts
//! it in order, [`dtmf`](DtmfEvent) tells keys that are not to be heard. [`Session`] holds all of it for
//! one leg, and the reporter of its RTCP beside.
//!
//! Not here: sockets, clocks, codecs, encryption.

#![forbid(unsafe_code)]

mod mixed;
mod packet;

mod latch;

mod seq;
mod source;

mod clock;
mod jitter;

mod dtmf;

mod random;
mod reporter;
mod rtcp;

mod session;

pub mod fuzz;

pub use dtmf::DtmfEvent;
pub use jitter::{JitterBuffer, JitterConfig, PAYLOAD_LEN_MAX, Popped, Pushed};
pub use latch::{Latch, Verdict};
pub use mixed::{CONTRIBUTORS_MAX, Contributor, MIXED_HEADER_LEN_MAX};
pub use packet::{Csrcs, Extension, HEADER_LEN, Header, Kind, Packet, PacketError, classify, ssrc};
pub use rtcp::RTCP_LEN_MAX;
pub use session::{
    Changes, Discard, PAYLOAD_TYPES_MAX, Received, RtcpReceived, Session, SessionConfig, Stats,
};
