//! Audio codecs behind two small traits, so that a room never knows which one it feeds.
//!
//! Encoders and decoders are separate values because a room shares encoders: all listeners of one mix
//! in one codec get the same frame from the same encoder, while every talker has a decoder of his own.

use mixer_simd::Kernels;

pub mod conceal;
mod g711;
pub mod playout;

/// Samples per second at which rooms mix today, and the RTP clock of every codec here.
pub const SAMPLE_RATE: u32 = 8_000;

/// A codec the engine speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Pcmu,
    Pcma,
}

impl Codec {
    /// In our order of preference.
    pub const ALL: [Self; 2] = [Self::Pcmu, Self::Pcma];

    /// Position in a table with one entry per codec.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Encoding name of RFC 3551 §6.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Static payload type of RFC 3551 §6.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    pub fn encoder(self, kernels: Kernels) -> Box<dyn Encode> {
        match self {
            Self::Pcmu => Box::new(g711::Ulaw(kernels)),
            Self::Pcma => Box::new(g711::Alaw(kernels)),
        }
    }

    pub fn decoder(self, kernels: Kernels) -> Box<dyn Decode> {
        match self {
            Self::Pcmu => Box::new(g711::Ulaw(kernels)),
            Self::Pcma => Box::new(g711::Alaw(kernels)),
        }
    }
}

/// Samples to payloads.
pub trait Encode: Send {
    /// Appends the payload of one frame of `pcm` to `payload`.
    fn encode(&mut self, pcm: &[i16], payload: &mut Vec<u8>);
}

/// Payloads to samples.
pub trait Decode: Send {
    /// Appends what `payload` holds to `pcm`. A payload that cannot be decoded appends nothing.
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>);
}
