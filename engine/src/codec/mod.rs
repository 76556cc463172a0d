//! Audio codecs behind two small traits, so that a room never knows which one it feeds.
//!
//! Encoders and decoders are separate values because a room shares encoders: all listeners of one mix
//! in one codec get the same frame from the same encoder, while every talker has a decoder of his own.

use mixer_simd::Kernels;

pub mod conceal;
mod g711;
mod l16;
mod opus;
pub mod playout;

/// Samples per second at which rooms mix today, whatever a codec's RTP clock says.
pub const SAMPLE_RATE: u32 = 8_000;

/// A codec the engine speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Pcmu,
    Pcma,
    /// Samples as they are: between servers.
    L16,
    /// Narrowband, as long as rooms are: between servers.
    Opus,
}

impl Codec {
    /// What phones are offered, in our order of preference.
    pub const ALL: [Self; 2] = [Self::Pcmu, Self::Pcma];

    /// What servers can send each other.
    pub const TRUNK: [Self; 2] = [Self::L16, Self::Opus];

    /// All there are, in the order of [`index`](Self::index).
    pub const EVERY: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::L16, Self::Opus];

    /// Entries of a table with one for each codec.
    pub const COUNT: usize = Self::EVERY.len();

    /// Position in a table with one entry per codec.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Encoding name of RFC 3551 §6 and RFC 7587 §7.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::L16 => "L16",
            Self::Opus => "opus",
        }
    }

    /// RTP timestamp units per second, a multiple of [`SAMPLE_RATE`].
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::L16 => 8_000,
            // Whatever it samples (RFC 7587 §4.1).
            Self::Opus => 48_000,
        }
    }

    /// What SDP says of channels.
    pub const fn channels(self) -> u8 {
        match self {
            Self::Pcmu | Self::Pcma | Self::L16 => 1,
            // However many there are (RFC 7587 §7).
            Self::Opus => 2,
        }
    }

    /// Static payload type of RFC 3551 §6, if there is one.
    pub const fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
            Self::L16 | Self::Opus => None,
        }
    }

    /// Its payload type where nothing else was agreed on.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
            Self::L16 => 96,
            Self::Opus => 97,
        }
    }

    /// So many samples of a room in timestamp units.
    pub const fn ticks(self, samples: usize) -> u32 {
        samples as u32 * (self.clock_rate() / SAMPLE_RATE)
    }

    /// One of those for phones, by its encoding name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    pub fn encoder(self, kernels: Kernels) -> Box<dyn Encode> {
        match self {
            Self::Pcmu => Box::new(g711::Ulaw(kernels)),
            Self::Pcma => Box::new(g711::Alaw(kernels)),
            Self::L16 => Box::new(l16::L16),
            Self::Opus => Box::new(opus::OpusEncoder::default()),
        }
    }

    pub fn decoder(self, kernels: Kernels) -> Box<dyn Decode> {
        match self {
            Self::Pcmu => Box::new(g711::Ulaw(kernels)),
            Self::Pcma => Box::new(g711::Alaw(kernels)),
            Self::L16 => Box::new(l16::L16),
            Self::Opus => Box::new(opus::OpusDecoder::new()),
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
