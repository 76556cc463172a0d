//! [`MediaIo`] on ordinary system calls: one epoll set per shard says which sockets have something,
//! `recvfrom` and `sendmsg` do the rest.
//!
//! The readable twin that any faster implementation is measured against. A socket is read once per
//! report: epoll is level-triggered, so what is left is reported again in the same harvest, and the
//! read that would only say "empty" is never made.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use slab::Slab;

use super::{
    Arena, Arrival, DATAGRAM_LEN_MAX, Flushed, HARVEST_MAX, MediaIo, Payload, SocketId, Token,
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
}

#[derive(Debug)]
struct Queued {
    socket: SocketId,
    to: SocketAddr,
    header: Payload,
    payload: Payload,
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

    fn send(&self, queued: &Queued) -> rustix::io::Result<()> {
        // A socket closed later in the turn that queued to it has nothing more to say.
        let Some(socket) = self.sockets.get(queued.socket.0 as usize) else {
            return Ok(());
        };
        let pieces = [
            IoSlice::new(self.arena.piece(queued.header)),
            IoSlice::new(self.arena.piece(queued.payload)),
        ];
        let send = || {
            rustix::net::sendmsg_addr(
                &socket.socket,
                &queued.to,
                &pieces,
                &mut SendAncillaryBuffer::default(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
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
        self.adopt(UdpSocket::bind(address)?, token)
    }

    fn adopt(&mut self, socket: UdpSocket, token: Token) -> io::Result<SocketId> {
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
        entry.insert(Socket { socket, token });
        Ok(id)
    }

    fn close(&mut self, socket: SocketId) {
        // Closing the only descriptor of a socket also takes it out of the epoll set.
        self.sockets.try_remove(socket.0 as usize);
    }

    fn harvest(&mut self, arrived: &mut dyn FnMut(Arrival<'_>)) -> io::Result<()> {
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
                {
                    arrived(Arrival {
                        token: socket.token,
                        from,
                        datagram: &self.datagram[..len.min(DATAGRAM_LEN_MAX)],
                    });
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
        let header = self.arena.put(header);
        self.queue.push(Queued {
            socket,
            to,
            header,
            payload,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn harvest_all(io: &mut PlainIo, expected: usize) -> Vec<(Token, SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for _ in 0..1_000 {
            io.harvest(&mut |arrival| {
                all.push((arrival.token, arrival.from, arrival.datagram.to_vec()))
            })
            .unwrap();
            if all.len() >= expected {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        all
    }

    #[test]
    fn a_shared_payload_reaches_every_listener_behind_its_own_header() {
        let mut io = PlainIo::new().unwrap();
        let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sender = io.open(here, Token(1)).unwrap();
        let listeners: Vec<_> = (0..3).map(|_| UdpSocket::bind(here).unwrap()).collect();

        let payload = io.share(b"payload");
        for (i, listener) in listeners.iter().enumerate() {
            io.queue(
                sender,
                listener.local_addr().unwrap(),
                &[i as u8; 12],
                payload,
            );
        }
        assert_eq!(io.flush(), Flushed { sent: 3, failed: 0 });

        for (i, listener) in listeners.iter().enumerate() {
            let mut datagram = [0; 64];
            let len = listener.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..12], &[i as u8; 12]);
            assert_eq!(&datagram[12..len], b"payload");
        }
        assert_eq!(
            io.flush(),
            Flushed::default(),
            "a flush leaves nothing behind"
        );
    }

    #[test]
    fn everything_that_arrived_is_shown_with_its_token_and_source() {
        let mut io = PlainIo::new().unwrap();
        let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let ours = UdpSocket::bind(here).unwrap();
        let address = ours.local_addr().unwrap();
        io.adopt(ours, Token(7)).unwrap();
        let peer = UdpSocket::bind(here).unwrap();
        for i in 0..50_u8 {
            peer.send_to(&[i; 3], address).unwrap();
        }
        let all = harvest_all(&mut io, 50);
        assert_eq!(all.len(), 50);
        for (i, (token, from, datagram)) in all.iter().enumerate() {
            assert_eq!((*token, *from), (Token(7), peer.local_addr().unwrap()));
            assert_eq!(datagram, &[i as u8; 3]);
        }
    }

    #[test]
    fn a_closed_socket_gives_its_port_back_and_a_queue_to_it_is_dropped() {
        let mut io = PlainIo::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let id = io.adopt(socket, Token(0)).unwrap();
        let payload = io.share(b"late");
        io.queue(id, address, b"", payload);
        io.close(id);
        io.flush();
        UdpSocket::bind(address).expect("the port is free again");
    }
}
