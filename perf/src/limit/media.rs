//! The engine's own ways of input and output, without the engine.

use std::io;
use std::net::SocketAddr;

use engine::io::{HARVEST_MAX, MediaIo, SocketId, Token};

use super::echo::Way;
use super::{HEADER_LEN, PACKET_LEN};

pub(super) struct Media<I> {
    io: I,
    sockets: Vec<SocketId>,
    addresses: Vec<SocketAddr>,
    /// Of this turn: which socket, and from whom.
    arrived: Vec<(usize, SocketAddr)>,
}

impl<I: MediaIo> Media<I> {
    pub(super) fn open(mut io: I, sockets: usize) -> io::Result<Self> {
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets: Vec<SocketId> = (0..sockets)
            .map(|place| io.open(here, Token(place as u64)))
            .collect::<io::Result<_>>()?;
        let addresses = sockets
            .iter()
            .map(|&socket| io.local_address(socket))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            io,
            sockets,
            addresses,
            arrived: Vec::with_capacity(HARVEST_MAX),
        })
    }
}

impl<I: MediaIo> Way for Media<I> {
    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn echo(&mut self) -> io::Result<u64> {
        let Self { io, arrived, .. } = self;
        arrived.clear();
        io.harvest(&mut |arrivals| {
            let whole = arrivals
                .iter()
                .filter(|arrival| arrival.datagram.len() == PACKET_LEN);
            arrived.extend(whole.map(|arrival| (arrival.token.0 as usize, arrival.from)));
        })?;
        let payload = io.share(&[0xD5; PACKET_LEN - HEADER_LEN]);
        for &(place, from) in &*arrived {
            io.queue(self.sockets[place], from, &[0x80; HEADER_LEN], payload);
        }
        io.flush();
        Ok(arrived.len() as u64)
    }
}
