//! The only place that speaks to the kernel.
//!
//! ```text
//!   harvest ──> shard: demux, jitter, tick, mix ──> share + queue ──> flush
//! ```
//! Media and SIP datagrams go through [`MediaIo`], driven by the shard's turn and never by a packet:
//! one `harvest` takes in what arrived, one `flush` sends what the turn produced. [`batch`] does both
//! with many datagrams to a system call; [`plain`] is its readable twin, a call for each. SIP over TCP,
//! TLS and WebSocket is in [`stream`], on glommio; [`tls`] reads the certificates.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::SockRef;

pub mod batch;
mod mmsg;
pub mod plain;
pub mod ports;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod tls;

/// Longest datagram we take in. A UDP payload cannot exceed 65,507 bytes (IPv4), and RFC 3261 §18.1.1
/// obliges us to accept SIP messages up to that size.
pub const DATAGRAM_LEN_MAX: usize = 65_535;

/// Longest datagram of media: what fits an Ethernet frame, and some more.
pub const MEDIA_LEN_MAX: usize = 2_240;

/// Datagrams taken in by one [`MediaIo::harvest`], so that a flood delays a tick by a bounded time
/// (about 4 ms at 1 µs each) instead of starving it. The rest waits in the sockets' buffers.
pub const HARVEST_MAX: usize = 4_096;

/// Datagrams shown together at most. Who looks at them twice, first for what each will need, lets the
/// processor fetch that for all of them at the same time.
pub const TOGETHER_MAX: usize = 64;

/// What a media socket asks the kernel to hold for it, each way. Linux grants `net.core.rmem_max` and
/// `wmem_max` at most, 208 KiB where nobody has raised them.
const SOCKET_BUFFER: usize = 4 << 20;

/// A socket that the I/O layer owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u32);

/// What the owner of a socket wants to be told with each datagram; the I/O layer does not look inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u64);

/// Where a payload lies in the send arena of this turn; dead after [`MediaIo::flush`].
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    start: u32,
    len: u32,
}

/// One datagram, valid only during the call that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub token: Token,
    pub from: SocketAddr,
    pub datagram: &'a [u8],
}

/// What one flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    pub sent: u64,
    /// Datagrams the kernel refused: its buffer was full, or the network said no.
    pub failed: u64,
}

/// Datagrams in and out, a turn at a time.
pub trait MediaIo {
    /// Binds a socket for media to `address`; every datagram that arrives there is shown with `token`, but
    /// for those longer than [`MEDIA_LEN_MAX`].
    fn open(&mut self, address: SocketAddr, token: Token) -> io::Result<SocketId>;

    /// Takes over a socket bound elsewhere (the SIP sockets, bound before the shards start).
    fn adopt(&mut self, socket: UdpSocket, token: Token) -> io::Result<SocketId>;

    fn close(&mut self, socket: SocketId);

    /// Where the socket is bound.
    ///
    /// # Errors
    /// There is no such socket.
    fn local_address(&self, socket: SocketId) -> io::Result<SocketAddr>;

    /// Bytes of memory in which the kernel keeps what arrived and was not harvested yet, its own
    /// bookkeeping included.
    fn receive_buffer(&self, socket: SocketId) -> usize;

    /// Shows up to [`HARVEST_MAX`] datagrams that arrived since the last call, as many at a time as there
    /// are together, but no more than [`TOGETHER_MAX`]. Never waits.
    fn harvest(&mut self, arrived: &mut dyn FnMut(&[Arrival<'_>])) -> io::Result<()>;

    /// Puts a payload in the send arena once, for any number of [`queue`](Self::queue) calls.
    fn share(&mut self, payload: &[u8]) -> Payload;

    /// Queues one datagram made of `header` and a copy of a shared payload: copying 160 bytes costs less
    /// than having the kernel gather two pieces.
    fn queue(&mut self, socket: SocketId, to: SocketAddr, header: &[u8], payload: Payload);

    /// Sends all that was queued and empties the arena.
    fn flush(&mut self) -> Flushed;
}

/// Binds a socket for media, with as much buffer as the kernel grants.
fn media_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    let options = SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BUFFER)?;
    options.set_send_buffer_size(SOCKET_BUFFER)?;
    mmsg::dont_fragment(socket.as_fd());
    Ok(socket)
}

fn receive_buffer(socket: &UdpSocket) -> usize {
    SockRef::from(socket).recv_buffer_size().unwrap_or(0)
}

/// Send arena common to all implementations: payloads and headers of one turn in one buffer, so that
/// a turn allocates only while it is the largest so far.
#[derive(Debug, Default)]
pub struct Arena {
    bytes: Vec<u8>,
}

impl Arena {
    pub fn put(&mut self, piece: &[u8]) -> Payload {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(piece);
        Payload {
            start,
            len: piece.len() as u32,
        }
    }

    /// Puts a datagram of a header and a payload that is here already.
    pub fn join(&mut self, header: &[u8], payload: Payload) -> Payload {
        let datagram = self.put(header);
        let start = payload.start as usize;
        self.bytes
            .extend_from_within(start..start + payload.len as usize);
        Payload {
            len: datagram.len + payload.len,
            ..datagram
        }
    }

    pub fn piece(&self, payload: Payload) -> &[u8] {
        &self.bytes[payload.start as usize..][..payload.len as usize]
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}
