//! The phone's SIP transport: one UDP socket, or one connection to the far end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sip::frame::{Frame, Framer};
use sip::{Flow, Transport};

use super::Target;
use crate::io::{DATAGRAM_LEN_MAX, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the far end may take to read a message, or to say its part of a handshake.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Wire {
    flow: Flow,
    socket: Socket,
    bytes: Vec<u8>,
}

enum Socket {
    Udp(UdpSocket),
    Stream { stream: Stream, framer: Framer },
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// `ca` is a PEM file of whom to trust instead of the system's authorities.
    pub(super) fn connect(target: &Target, ca: Option<&Path>) -> io::Result<Self> {
        let peer = target.resolve()?;
        let transport = target.transport();
        let (socket, stream) = match transport {
            Transport::Udp => (Socket::Udp(datagrams(peer)?), 0),
            _ => {
                let stream = TcpStream::connect_timeout(&peer, CONNECT_TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(STALL_TIMEOUT))?;
                stream.set_write_timeout(Some(STALL_TIMEOUT))?;
                let stream = match transport {
                    Transport::Tls => Stream::Tls(Box::new(shake_hands(target, ca, stream)?)),
                    _ => Stream::Tcp(stream),
                };
                stream.tcp().set_nonblocking(true)?;
                let framer = Framer::default();
                (Socket::Stream { stream, framer }, 1)
            }
        };
        Ok(Self {
            flow: Flow {
                transport,
                peer,
                listener: 0,
                stream,
            },
            socket,
            bytes: vec![0; DATAGRAM_LEN_MAX],
        })
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Stream { stream, .. } => stream.tcp().local_addr(),
        }
    }

    /// Shows every message that has come.
    pub(super) fn receive(&mut self, mut arrived: impl FnMut(Flow, &[u8])) -> io::Result<()> {
        loop {
            let read = match &mut self.socket {
                Socket::Udp(socket) => socket.recv(&mut self.bytes),
                Socket::Stream { stream, .. } => stream.read(&mut self.bytes),
            };
            let len = match read {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The far end's port is closed; retransmission may find it open.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match &mut self.socket {
                Socket::Udp(_) => arrived(self.flow, &self.bytes[..len]),
                Socket::Stream { .. } if len == 0 => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the far end closed the connection",
                    ));
                }
                Socket::Stream { framer, .. } => {
                    framer.push(&self.bytes[..len]);
                    while let Some(frame) = framer
                        .next()
                        .map_err(|error| io::Error::other(error.to_string()))?
                    {
                        if let Frame::Message(message) = frame {
                            arrived(self.flow, &message);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => match socket.send(message) {
                // As lost as any datagram may be: the transaction repeats it.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionRefused | ErrorKind::WouldBlock
                    ) =>
                {
                    Ok(())
                }
                result => result.map(drop),
            },
            Socket::Stream { stream, .. } => {
                stream.tcp().set_nonblocking(false)?;
                stream.write_all(message)?;
                stream.tcp().set_nonblocking(true)
            }
        }
    }
}

fn datagrams(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if peer.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// TLS with a far end whose certificate is for the host of the URI (RFC 5922 §7.1).
fn shake_hands(
    target: &Target,
    ca: Option<&Path>,
    mut stream: TcpStream,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = tls::client(ca, None).map_err(|error| io::Error::other(error.reason))?;
    let name = ServerName::try_from(target.host().to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }
}
