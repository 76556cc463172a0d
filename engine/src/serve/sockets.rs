//! The sockets for SIP: a share of each listener for every shard.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use sip::Transport;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::ServeError;
use crate::config::{Config, SipListen};
use crate::shard::run::Sockets;

/// Bursts of SIP that a shard cannot read at once wait in the kernel: 4 MiB is about 2,000 INVITEs.
const SIP_BUFFER: usize = 4 << 20;

/// Connections waiting to be accepted, as many as the kernel grants.
const BACKLOG: i32 = 4_096;

/// A peer with a connection who vanished without a word is noticed after this.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The kernel takes apart the rings of a server that has just ended, and frees its addresses, in its own
/// time; a restart waits this long for it.
const LINGER: Duration = Duration::from_secs(1);

/// Binds every address once per shard, and puts the ports the system chose into the configuration.
pub(super) fn bind_sip(config: &mut Config, shards: usize) -> Result<Vec<Sockets>, ServeError> {
    let mut shares: Vec<Sockets> = (0..shards)
        .map(|_| Sockets {
            udp: Vec::new(),
            streams: Vec::new(),
        })
        .collect();
    for (index, listen) in config.sip.listen.iter_mut().enumerate() {
        let bound = bind_one(listen, index as u16, &mut shares);
        bound.map_err(|error| ServeError::Bind {
            key: "sip.listen",
            address: listen.address,
            error,
        })?;
    }
    Ok(shares)
}

fn bind_one(listen: &mut SipListen, index: u16, shares: &mut [Sockets]) -> io::Result<()> {
    // SO_REUSEPORT would let a second server of the same user take half of our calls unnoticed. A socket
    // without it finds out whether anybody is there.
    let start = Instant::now();
    while let Err(error) = socket(listen, false) {
        if error.kind() != io::ErrorKind::AddrInUse || start.elapsed() > LINGER {
            return Err(error);
        }
        thread::sleep(LINGER / 20);
    }
    for share in shares {
        let socket = socket(listen, true)?;
        if let Some(address) = socket.local_addr()?.as_socket() {
            listen.address = address;
        }
        match listen.transport {
            Transport::Udp => {
                // As much as the system allows; less only loses bursts.
                let _ = socket.set_recv_buffer_size(SIP_BUFFER);
                share.udp.push(Some(UdpSocket::from(socket)));
            }
            _ => {
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                socket.listen(BACKLOG)?;
                share.udp.push(None);
                let listener = TcpListener::from(socket);
                share.streams.push((index, listen.transport, listener));
            }
        }
    }
    Ok(())
}

fn socket(listen: &SipListen, shared: bool) -> io::Result<Socket> {
    let (kind, protocol) = match listen.transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        _ => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(listen.address), kind, Some(protocol))?;
    if listen.transport.is_reliable() {
        // Connections of a server that has just ended do not keep the next one out.
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&listen.address.into())?;
    Ok(socket)
}
