//! Callers who send like phones: fifty packets a second each, at phases of their own.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::io::batch::BatchIo;
use engine::io::{Arrival, MediaIo, SocketId, Token};

use super::echo::Load;
use super::{HEADER_LEN, PACKET_LEN, PACKETS_PER_SECOND};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Also what the kernel refused to take.
    pub(super) offered: u64,
    pub(super) received: u64,
}

/// A packet interval, in slots of a millisecond.
const SLOTS: u64 = 1_000 / PACKETS_PER_SECOND;

pub(super) struct Callers {
    io: BatchIo,
    /// Socket and server address of each caller, by phase.
    slots: Vec<Vec<(SocketId, SocketAddr)>>,
    start: Instant,
    done: u64,
    counts: Counts,
}

impl Callers {
    pub(super) fn new(servers: &[SocketAddr], callers: usize, sockets: usize) -> io::Result<Self> {
        let mut io = BatchIo::new()?;
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets: Vec<SocketId> = (0..sockets.min(callers))
            .map(|_| io.open(here, Token(0)))
            .collect::<io::Result<_>>()?;
        let mut slots = vec![Vec::new(); SLOTS as usize];
        for caller in 0..callers {
            let socket = sockets[caller % sockets.len()];
            // Callers who share a server's socket differ in their own.
            let server = if servers.len() < callers {
                servers[caller / sockets.len() % servers.len()]
            } else {
                servers[caller]
            };
            slots[caller % SLOTS as usize].push((socket, server));
        }
        Ok(Self {
            io,
            slots,
            start: Instant::now(),
            done: 0,
            counts: Counts::default(),
        })
    }
}

impl Load for Callers {
    fn turn(&mut self, now: Instant, sending: bool) -> io::Result<()> {
        let Self { io, counts, .. } = self;
        io.harvest(&mut |arrivals| {
            let whole = |arrival: &&Arrival<'_>| arrival.datagram.len() == PACKET_LEN;
            counts.received += arrivals.iter().filter(whole).count() as u64;
        })?;
        let until = due(now - self.start);
        if sending {
            let payload = io.share(&[0xD5; PACKET_LEN - HEADER_LEN]);
            // What a stall left undone is not sent in one burst.
            for slot in (self.done + 1).max(until.saturating_sub(SLOTS))..=until {
                for &(socket, server) in &self.slots[(slot % SLOTS) as usize] {
                    io.queue(socket, server, &[0x80; HEADER_LEN], payload);
                }
            }
            let flushed = io.flush();
            counts.offered += flushed.sent + flushed.failed;
        }
        self.done = until;
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.counts
    }
}

/// Slots begun since the start.
pub(super) fn due(since: Duration) -> u64 {
    since.as_millis() as u64
}
