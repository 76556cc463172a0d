//! How callers get into rooms: what differs between kinds of servers. Their media do not.

use std::net::SocketAddr;

use engine::codec::Codec;

/// Where a caller listens, and the room he wants to be in.
pub(crate) struct Seat {
    pub(crate) room: usize,
    pub(crate) local: SocketAddr,
    pub(crate) codec: Codec,
    pub(crate) ptime_ms: u32,
}

/// What a joined caller sends to, and how his packets are numbered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) remote: SocketAddr,
    pub(crate) payload_type: u8,
}

/// Brings callers into rooms and out again.
pub(crate) trait Signalling {
    /// Joins all; one stream for each seat, in their order.
    fn join(&mut self, seats: &[Seat]) -> Result<Vec<Stream>, String>;

    /// Called between media turns: answers what the server asks, refreshes what expires. Takes less
    /// than a millisecond.
    fn keep(&mut self) -> Result<(), String>;

    /// Ends all calls.
    fn leave(&mut self) -> Result<(), String>;
}
