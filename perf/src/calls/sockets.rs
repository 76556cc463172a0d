//! Datagrams out in batches and in until there are no more.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, recvfrom, sendmmsg, sockopt,
};

use super::outbox::{Datagram, Outbox};

/// What a receive buffer is asked to hold: a quarter of a second of replies at 40,000 a second, each
/// accounted with 768 bytes by the kernel. Without privileges it is what `net.core.rmem_max` allows.
const RECEIVE_BUFFER_LEN: usize = 8 << 20;

/// Datagrams read in one turn from one socket, so that a flood does not hold up what is due.
const RECEIVED_PER_TURN_MAX: usize = 256;

/// Datagrams handed over in one system call, of the 1,024 that Linux takes (`UIO_MAXIOV`).
const SENT_PER_CALL_MAX: usize = 256;

/// Longest UDP payload.
const DATAGRAM_LEN_MAX: usize = 65_535;

pub(super) struct Sockets {
    sockets: Vec<UdpSocket>,
    datagram: Box<[u8]>,
    /// Datagrams the kernel refused to send.
    pub(super) unsent: u64,
}

impl Sockets {
    pub(super) fn bind(local: IpAddr, count: usize) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket = UdpSocket::bind((local, 0))?;
            // The first needs a privilege, and then the limit of the second is not asked.
            sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_LEN))?;
            sockets.push(socket);
        }
        Ok(Self {
            sockets,
            datagram: vec![0; DATAGRAM_LEN_MAX].into(),
            unsent: 0,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Waits until something has arrived, for `time` at most, and shows it.
    pub(super) fn receive(
        &mut self,
        time: Duration,
        mut arrived: impl FnMut(usize, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        let mut ready: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        };
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            // An error of an earlier send (ICMP) makes a socket ready too, and reading clears it.
            if ready[index].revents().is_empty() {
                continue;
            }
            for _ in 0..RECEIVED_PER_TURN_MAX {
                match recvfrom(socket, &mut *self.datagram, RecvFlags::DONTWAIT) {
                    Ok((_, len, Some(from))) => {
                        if let Ok(from) = SocketAddr::try_from(from) {
                            arrived(index, from, &self.datagram[..len.min(DATAGRAM_LEN_MAX)]);
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    // Whoever waits for an answer to what was not sent notices.
                    Ok((_, _, None)) | Err(Errno::CONNREFUSED | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Sends all that was queued. What the kernel refuses is counted, and lost like on any network.
    pub(super) fn flush(&mut self, outbox: &mut Outbox) {
        for (index, socket) in self.sockets.iter().enumerate() {
            let queued: Vec<Datagram<'_>> = outbox
                .datagrams()
                .filter(|datagram| datagram.socket == index)
                .collect();
            for batch in queued.chunks(SENT_PER_CALL_MAX) {
                self.unsent += send(socket, batch);
            }
        }
        outbox.clear();
    }

    /// Datagrams that arrived and found a full buffer, as `/proc/net/udp` counts them.
    pub(super) fn dropped(&self) -> io::Result<u64> {
        let mut dropped = 0;
        for name in ["/proc/net/udp", "/proc/net/udp6"] {
            let Ok(table) = std::fs::read_to_string(name) else {
                continue;
            };
            for address in self.addresses()? {
                let port = format!(":{:04X}", address.port());
                let drops = table.lines().filter_map(|line| {
                    let mut fields = line.split_whitespace();
                    let is_ours = fields.nth(1)?.ends_with(&port);
                    fields.last()?.parse::<u64>().ok().filter(|_| is_ours)
                });
                dropped += drops.sum::<u64>();
            }
        }
        Ok(dropped)
    }
}

/// How many of `batch` could not be sent.
fn send(socket: &UdpSocket, mut batch: &[Datagram<'_>]) -> u64 {
    let mut unsent = 0;
    while !batch.is_empty() {
        let addresses: Vec<SocketAddrAny> = batch.iter().map(|each| each.to.as_any()).collect();
        let pieces: Vec<[IoSlice<'_>; 1]> = batch
            .iter()
            .map(|each| [IoSlice::new(each.bytes)])
            .collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = batch
            .iter()
            .map(|_| SendAncillaryBuffer::default())
            .collect();
        let mut messages: Vec<MMsgHdr<'_>> = addresses
            .iter()
            .zip(&pieces)
            .zip(&mut controls)
            .map(|((address, piece), control)| MMsgHdr::new_with_addr(address, piece, control))
            .collect();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        batch = match sendmmsg(socket, &mut messages, flags) {
            Ok(sent) => &batch[sent..],
            // The error of an earlier datagram is told once, and nothing of this batch was sent.
            Err(Errno::CONNREFUSED | Errno::INTR) => batch,
            Err(_) => {
                unsent += 1;
                &batch[1..]
            }
        };
    }
    unsent
}
