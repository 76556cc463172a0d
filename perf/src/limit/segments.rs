//! Segmentation offload: many datagrams to one destination pass through the kernel as one.
//!
//! What it would bring if a server had one destination. A conference has as many as callers, so this is
//! how far away that world is, not a limit of this one. On loopback a train is not even cut: it arrives in
//! the piece in which it was sent, so the figure falls with the length of trains, hence with the load.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

use engine::io::HARVEST_MAX;

use super::callers::{Counts, due};
use super::echo::{Load, Way};
use super::{PACKET_LEN, PACKETS_PER_SECOND};

/// Datagrams in one call: what old kernels allow.
const SEGMENTS_MAX: usize = 64;

/// Longest that arrives in one piece.
const PIECE_LEN_MAX: usize = 65_535;

/// Binds a socket that cuts what it is given into packets, and takes in what others cut so in one piece.
fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let options: [(libc::c_int, libc::c_int); 2] = [
        (libc::UDP_SEGMENT, PACKET_LEN as libc::c_int),
        (libc::UDP_GRO, 1),
    ];
    for (name, value) in options {
        // SAFETY: both options are ints, and the kernel reads that many bytes of a live one.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_UDP,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
    }
    let buffers = socket2::SockRef::from(&socket);
    buffers.set_recv_buffer_size(4 << 20)?;
    buffers.set_send_buffer_size(4 << 20)?;
    Ok(socket)
}

/// Packets of what arrives next, and from whom; None when there is nothing.
fn receive(socket: &UdpSocket, piece: &mut [u8]) -> io::Result<Option<(u64, SocketAddr)>> {
    match socket.recv_from(piece) {
        Ok((len, from)) => Ok(Some(((len / PACKET_LEN) as u64, from))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends so many packets, or as many as the kernel takes.
fn send(socket: &UdpSocket, to: SocketAddr, packets: u64) {
    let piece = [0xD5; SEGMENTS_MAX * PACKET_LEN];
    let mut sent = 0;
    while sent < packets {
        let now = (packets - sent).min(SEGMENTS_MAX as u64);
        if socket
            .send_to(&piece[..now as usize * PACKET_LEN], to)
            .is_err()
        {
            break;
        }
        sent += now;
    }
}

pub(super) struct Segments {
    socket: UdpSocket,
    address: [SocketAddr; 1],
    piece: Box<[u8]>,
}

impl Segments {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket()?;
        Ok(Self {
            address: [socket.local_addr()?],
            socket,
            piece: vec![0; PIECE_LEN_MAX].into(),
        })
    }
}

impl Way for Segments {
    fn addresses(&self) -> &[SocketAddr] {
        &self.address
    }

    fn echo(&mut self) -> io::Result<u64> {
        let mut echoed = 0;
        while echoed < HARVEST_MAX as u64
            && let Some((packets, from)) = receive(&self.socket, &mut self.piece)?
        {
            send(&self.socket, from, packets);
            echoed += packets;
        }
        Ok(echoed)
    }
}

/// All callers' packets, from one socket.
pub(super) struct Bulk {
    socket: UdpSocket,
    server: SocketAddr,
    callers: u64,
    start: Instant,
    piece: Box<[u8]>,
    done: u64,
    counts: Counts,
}

impl Bulk {
    pub(super) fn new(server: SocketAddr, callers: usize) -> io::Result<Self> {
        Ok(Self {
            socket: socket()?,
            server,
            callers: callers as u64,
            start: Instant::now(),
            piece: vec![0; PIECE_LEN_MAX].into(),
            done: 0,
            counts: Counts::default(),
        })
    }
}

impl Load for Bulk {
    fn turn(&mut self, now: Instant, sending: bool) -> io::Result<()> {
        while let Some((packets, _)) = receive(&self.socket, &mut self.piece)? {
            self.counts.received += packets;
        }
        // All that the callers would have sent by now, were they apart.
        let until = due(now - self.start) * self.callers * PACKETS_PER_SECOND / 1_000;
        if sending {
            let packets = (until - self.done).min(self.callers);
            send(&self.socket, self.server, packets);
            self.counts.offered += packets;
        }
        self.done = until;
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}
