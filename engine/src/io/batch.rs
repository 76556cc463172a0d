//! [`MediaIo`] in batches: one edge-triggered epoll set says which sockets have something, `recvmmsg`
//! takes it in and `sendmmsg` sends, up to 64 datagrams a call.
//!
//! What a batch saves grows with what waits in one socket, so this is at its best when many
//! participants share a port, as those of a shard do. [`plain`](super::plain) is the readable twin, a
//! call per datagram; the tests hold one against the other.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use slab::Slab;

use super::mmsg::{BATCH, Inbox, Outgoing, Sender, Wanted};
use super::{Arena, Arrival, Flushed, HARVEST_MAX, MediaIo, Payload, SocketId, Token};

/// Sockets reported by one `epoll_wait`.
const EVENTS_MAX: usize = 256;

pub struct BatchIo {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    sockets: Slab<Socket>,
    /// Sockets that may hold more than was read.
    ready: Vec<SocketId>,
    inbox: Inbox,
    arena: Arena,
    /// Sockets with something to send.
    sending: Vec<SocketId>,
    sender: Sender,
}

struct Socket {
    socket: UdpSocket,
    token: Token,
    wanted: Wanted,
    ready: bool,
    queue: Vec<Queued>,
}

#[derive(Clone, Copy)]
struct Queued {
    to: SocketAddr,
    datagram: Payload,
}

impl BatchIo {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            sockets: Slab::new(),
            ready: Vec::new(),
            inbox: Inbox::new(),
            arena: Arena::default(),
            sending: Vec::new(),
            sender: Sender::new(),
        })
    }

    fn add(&mut self, socket: UdpSocket, token: Token, wanted: Wanted) -> io::Result<SocketId> {
        socket.set_nonblocking(true)?;
        let entry = self.sockets.vacant_entry();
        let id =
            SocketId(u32::try_from(entry.key()).map_err(|_| io::Error::other("too many sockets"))?);
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(id.0.into()),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        entry.insert(Socket {
            socket,
            token,
            wanted,
            ready: false,
            queue: Vec::new(),
        });
        Ok(id)
    }

    /// Adds the sockets that the kernel reports to those that are ready.
    fn poll(&mut self) -> io::Result<()> {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            self.events.clear();
            let spare = rustix::buffer::spare_capacity(&mut self.events);
            match epoll::wait(&self.epoll, spare, Some(&NOW)) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &self.events {
                let id = SocketId(event.data.u64() as u32);
                if let Some(socket) = self.sockets.get_mut(id.0 as usize)
                    && !std::mem::replace(&mut socket.ready, true)
                {
                    self.ready.push(id);
                }
            }
            if self.events.len() < EVENTS_MAX {
                return Ok(());
            }
        }
    }
}

impl MediaIo for BatchIo {
    fn open(&mut self, address: SocketAddr, token: Token) -> io::Result<SocketId> {
        self.add(super::media_socket(address)?, token, Wanted::Media)
    }

    fn adopt(&mut self, socket: UdpSocket, token: Token) -> io::Result<SocketId> {
        self.add(socket, token, Wanted::Any)
    }

    fn close(&mut self, socket: SocketId) {
        // Closing the only descriptor of a socket also takes it out of the epoll set.
        self.sockets.try_remove(socket.0 as usize);
        self.ready.retain(|&ready| ready != socket);
        self.sending.retain(|&sending| sending != socket);
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
        self.poll()?;
        let Self {
            sockets,
            ready,
            inbox,
            ..
        } = self;
        let mut left = HARVEST_MAX;
        ready.retain(|&id| {
            let Some(socket) = sockets.get_mut(id.0 as usize) else {
                return false;
            };
            while left > 0 {
                let received = match inbox.receive(socket.socket.as_fd(), socket.wanted) {
                    Ok(received) => received,
                    Err(error) => {
                        // Empty; or an error of an earlier datagram, which is thereby cleared.
                        socket.ready = error.kind() != io::ErrorKind::WouldBlock;
                        return socket.ready;
                    }
                };
                inbox.show(socket.token, arrived);
                left = left.saturating_sub(received);
                if received < BATCH {
                    socket.ready = false;
                    return false;
                }
            }
            true
        });
        // Whoever used up this turn goes last in the next, so that a flood at one socket starves no other.
        ready.reverse();
        Ok(())
    }

    fn share(&mut self, payload: &[u8]) -> Payload {
        self.arena.put(payload)
    }

    fn queue(&mut self, socket: SocketId, to: SocketAddr, header: &[u8], payload: Payload) {
        let Some(entry) = self.sockets.get_mut(socket.0 as usize) else {
            return;
        };
        if entry.queue.is_empty() {
            self.sending.push(socket);
        }
        entry.queue.push(Queued {
            to,
            datagram: self.arena.join(header, payload),
        });
    }

    fn flush(&mut self) -> Flushed {
        let Self {
            sockets,
            arena,
            sending,
            sender,
            ..
        } = self;
        let mut flushed = Flushed::default();
        for id in sending.drain(..) {
            let Some(socket) = sockets.get_mut(id.0 as usize) else {
                continue;
            };
            let outgoing = socket.queue.iter().map(|queued| Outgoing {
                to: queued.to,
                datagram: arena.piece(queued.datagram),
            });
            let sent = sender.send(socket.socket.as_fd(), outgoing);
            flushed.sent += sent;
            flushed.failed += socket.queue.len() as u64 - sent;
            socket.queue.clear();
        }
        arena.clear();
        flushed
    }
}
