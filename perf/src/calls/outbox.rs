//! Datagrams of one turn in one buffer, until they are sent together.

use std::net::SocketAddr;
use std::ops::Range;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    queue: Vec<Queued>,
}

#[derive(Debug)]
struct Queued {
    socket: usize,
    to: SocketAddr,
    place: Range<usize>,
}

/// One datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'a> {
    pub(super) socket: usize,
    pub(super) to: SocketAddr,
    pub(super) bytes: &'a [u8],
}

impl Outbox {
    /// Queues what `write` appends.
    pub(super) fn put(&mut self, socket: usize, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.queue.push(Queued {
            socket,
            to,
            place: start..self.bytes.len(),
        });
    }

    /// In the order in which they were put.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.queue.iter().map(|queued| Datagram {
            socket: queued.socket,
            to: queued.to,
            bytes: &self.bytes[queued.place.clone()],
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.queue.clear();
    }
}
