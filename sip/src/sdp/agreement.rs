//! What goes into a negotiation of an audio leg, and what comes out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::Direction;

/// What we can do on an audio leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// In our order of preference, which counts when we offer.
    pub codecs: Vec<CodecOffer>,
    /// Whether telephone events 0 to 16 (RFC 4733) are understood.
    pub telephone_event: bool,
    /// Packet duration in ms that we offer, and send when the peer asks for none.
    pub ptime_ms: u32,
    /// Packet durations in ms that we can send; both ends multiples of 10.
    pub ptime_range_ms: RangeInclusive<u32>,
}

/// A codec by its registered names (RFC 3551 section 6, RFC 4855).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecOffer {
    /// `PCMU`, `PCMA`, `G722`, `opus`, ...
    pub name: &'static str,
    /// RTP clock in Hz, which for G722 is 8000 although it samples at 16000.
    pub clock_rate: u32,
    pub channels: u8,
    /// The number that means this codec without an `rtpmap` line.
    pub static_payload_type: Option<u8>,
    /// What we write after the payload type in `a=fmtp:`.
    pub format_parameters: Option<&'static str>,
}

/// Our end of the leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub address: IpAddr,
    pub rtp_port: u16,
    pub rtcp_port: u16,
    /// Stays the same for the dialog's life.
    pub session_id: u64,
    /// Must grow by one when the description differs from the last one we sent in this dialog.
    pub version: u64,
}

/// What both sides agreed for the audio leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Which `m=` line carries the audio, from 0.
    pub media_index: usize,
    /// The codec we send, an index in [`Capabilities::codecs`].
    pub codec: usize,
    /// The payload type we write in packets we send: the peer's number.
    pub payload_type: u8,
    /// The payload types we accept, which are our own numbers, each with an index in
    /// [`Capabilities::codecs`].
    pub receive_payload_types: Vec<(u8, usize)>,
    /// The payload type telephone events arrive with.
    pub telephone_event: Option<u8>,
    /// Unspecified while an old-style hold lasts and port 0 when the stream is disabled; in both
    /// cases `direction` does not send. Unspecified as well when the peer names an address of the
    /// other family: then it is [somewhere](Self::is_somewhere), and its packets show where.
    pub remote_rtp: SocketAddr,
    pub remote_rtcp: SocketAddr,
    /// RTCP travels on the RTP port in both directions (RFC 5761).
    pub rtcp_mux: bool,
    /// Duration of the packets we send in ms, a multiple of 10.
    pub ptime_ms: u32,
    /// From our side.
    pub direction: Direction,
    /// The peer does not listen: on hold, inactive or disabled.
    pub held: bool,
}

impl Agreed {
    /// The peer has named no address that packets from ours can be sent to.
    pub fn is_somewhere(&self) -> bool {
        self.remote_rtp.ip().is_unspecified() && self.remote_rtp.port() != 0 && !self.held
    }
}

/// Why no audio leg can be had. The offerer is told with 488 and a Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No audio line, or in an answer none left open.
    NoAudio,
    NoCommonCodec,
    /// No address, a host name, a multicast address, or one that cannot be reached from ours.
    UnusableAddress,
    /// Neither RTP/AVP nor RTP/AVPF.
    UnsupportedProtocol,
}

impl Refusal {
    /// The warn-code of RFC 3261 section 20.43; `Display` gives the warn-text.
    pub const fn warning_code(self) -> u16 {
        match self {
            Self::NoAudio => 304,
            Self::NoCommonCodec => 305,
            Self::UnusableAddress => 301,
            Self::UnsupportedProtocol => 302,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAudio => "Media type not available: no audio stream",
            Self::NoCommonCodec => "Incompatible media format: no common audio codec",
            Self::UnusableAddress => "Incompatible network address formats: no usable address",
            Self::UnsupportedProtocol => {
                "Incompatible transport protocol: only RTP/AVP and RTP/AVPF"
            }
        })
    }
}

impl std::error::Error for Refusal {}
