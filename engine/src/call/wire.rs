//! The phone's SIP transport: one UDP socket or one TCP connection to the far end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sip::frame::{Frame, Framer};
use sip::{Flow, Transport};

use super::Target;
use crate::io::DATAGRAM_LEN_MAX;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Wire {
    flow: Flow,
    socket: Socket,
    bytes: Vec<u8>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, framer: Framer },
}

impl Wire {
    pub(super) fn connect(target: &Target) -> io::Result<Self> {
        let peer = target.resolve()?;
        let transport = target.transport();
        let (socket, stream) = match transport {
            Transport::Udp => {
                let any: SocketAddr = if peer.is_ipv4() {
                    ([0; 4], 0).into()
                } else {
                    ([0_u16; 8], 0).into()
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(peer)?;
                socket.set_nonblocking(true)?;
                (Socket::Udp(socket), 0)
            }
            _ => {
                let stream = TcpStream::connect_timeout(&peer, CONNECT_TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                (
                    Socket::Tcp {
                        stream,
                        framer: Framer::default(),
                    },
                    1,
                )
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
            Socket::Tcp { stream, .. } => stream.local_addr(),
        }
    }

    /// Shows every message that has come.
    pub(super) fn receive(&mut self, mut arrived: impl FnMut(Flow, &[u8])) -> io::Result<()> {
        loop {
            let read = match &mut self.socket {
                Socket::Udp(socket) => socket.recv(&mut self.bytes),
                Socket::Tcp { stream, .. } => stream.read(&mut self.bytes),
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
                Socket::Tcp { .. } if len == 0 => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the far end closed the connection",
                    ));
                }
                Socket::Tcp { framer, .. } => {
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
            Socket::Tcp { stream, .. } => {
                stream.set_nonblocking(false)?;
                stream.write_all(message)?;
                stream.set_nonblocking(true)
            }
        }
    }
}
