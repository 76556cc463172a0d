//! [`MediaIo`] on ordinary system calls: one epoll set per shard says which sockets have something,
//! `recvfrom` and `sendto` do the rest.
//!
//! The readable twin that any faster implementation is measured against. A socket is read once per
//! report: epoll is level-triggered, so what is left is reported again in the same harvest, and the
//! read that would only say "empty" is never made.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use slab::Slab;

use super::{
    Arena, Arrival, DATAGRAM_LEN_MAX, Flushed, HARVEST_MAX, MEDIA_LEN_MAX, MediaIo, Payload,
    SocketId, Token,
};

/// Sockets reported by one `epoll_wait`; 12 KiB of events, and few calls even with every socket ready.
const EVENTS_MAX: usize = 1_024;

pub struct PlainIo {
    epoll: OwnedFd,
    sockets: Slab<Socket>,
    events: Vec<epoll::Event>,
    datagram: Box<[u8]>,
    arena: Arena,
    queue: Vec<Queued>,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    token: Token,
    len_max: usize,
}

#[derive(Debug)]
struct Queued {
    socket: SocketId,
    to: SocketAddr,
    datagram: Payload,
}

impl PlainIo {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sockets: Slab::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            datagram: vec![0; DATAGRAM_LEN_MAX].into(),
            arena: Arena::default(),
            queue: Vec::new(),
        })
    }

    fn add(&mut self, socket: UdpSocket, token: Token, len_max: usize) -> io::Result<SocketId> {
        socket.set_nonblocking(true)?;
        let entry = self.sockets.vacant_entry();
        let id =
            SocketId(u32::try_from(entry.key()).map_err(|_| io::Error::other("too many sockets"))?);
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(id.0.into()),
            epoll::EventFlags::IN,
        )?;
        entry.insert(Socket {
            socket,
            token,
            len_max,
        });
        Ok(id)
    }

    fn send(&self, queued: &Queued) -> rustix::io::Result<()> {
        // A socket closed later in the turn that queued to it has nothing more to say.
        let Some(socket) = self.sockets.get(queued.socket.0 as usize) else {
            return Ok(());
        };
        let send = || {
            rustix::net::sendto(
                &socket.socket,
                self.arena.piece(queued.datagram),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                &queued.to,
            )
        };
        match send() {
            // An ICMP error of an earlier datagram is reported once and clears itself; this one was not sent.
            Err(Errno::CONNREFUSED | Errno::INTR) => send().map(drop),
            result => result.map(drop),
        }
    }
}

impl MediaIo for PlainIo {
    fn open(&mut self, address: SocketAddr, token: Token) -> io::Result<SocketId> {
        self.add(super::media_socket(address)?, token, MEDIA_LEN_MAX)
    }

    fn adopt(&mut self, socket: UdpSocket, token: Token) -> io::Result<SocketId> {
        self.add(socket, token, DATAGRAM_LEN_MAX)
    }

    fn close(&mut self, socket: SocketId) {
        // Closing the only descriptor of a socket also takes it out of the epoll set.
        self.sockets.try_remove(socket.0 as usize);
    }

    fn local_address(&self, socket: SocketId) -> io::Result<SocketAddr> {
        let socket = self.sockets.get(socket.0 as usize);
        socket
            .ok_or(io::ErrorKind::NotConnected)?
            .socket
            .local_addr()
    }

    fn receive_buffer(&self, socket: SocketId) -> usize {
        self.sockets
            .get(socket.0 as usize)
            .map_or(0, |socket| super::receive_buffer(&socket.socket))
    }

    fn harvest(&mut self, arrived: &mut dyn FnMut(&[Arrival<'_>])) -> io::Result<()> {
        let mut shown = 0;
        while shown < HARVEST_MAX {
            self.events.clear();
            let wait = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut self.events),
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            );
            match wait {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &self.events {
                let Some(socket) = self.sockets.get(event.data.u64() as usize) else {
                    continue;
                };
                // An error here belongs to an earlier send (ICMP) and is thereby cleared.
                if let Ok((_, len, Some(from))) =
                    rustix::net::recvfrom(&socket.socket, &mut *self.datagram, RecvFlags::DONTWAIT)
                    && let Ok(from) = SocketAddr::try_from(from)
                    && len <= socket.len_max
                {
                    arrived(&[Arrival {
                        token: socket.token,
                        from,
                        datagram: &self.datagram[..len],
                    }]);
                }
                shown += 1;
            }
        }
        Ok(())
    }

    fn share(&mut self, payload: &[u8]) -> Payload {
        self.arena.put(payload)
    }

    fn queue(&mut self, socket: SocketId, to: SocketAddr, header: &[u8], payload: Payload) {
        let datagram = self.arena.join(header, payload);
        self.queue.push(Queued {
            socket,
            to,
            datagram,
        });
    }

    fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        for queued in &self.queue {
            match self.send(queued) {
                Ok(()) => flushed.sent += 1,
                Err(_) => flushed.failed += 1,
            }
        }
        self.queue.clear();
        self.arena.clear();
        flushed
    }
}
