//! One connection, from its handshake to its end.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::or;
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use glommio::channels::local_channel::LocalReceiver;
use glommio::net::TcpStream;
use glommio::timer::sleep;
use rustls::pki_types::ServerName;
use sip::frame::{Frame, Framer};
use sip::{Flow, Transport};

use super::usage::Usage;
use super::{Streams, handshake, websocket};

/// How long a peer may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long handshakes may take, TLS and WebSocket each.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a new connection may stay silent before its place is given to somebody else.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(32);

/// How long a peer may take to read one message.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a connection is looked at for whether anybody needs it.
const IDLE_CHECK: Duration = Duration::from_secs(30);

const READ_LEN: usize = 16 * 1_024;

/// Answer to the double CRLF of RFC 5626 §4.4.1.
pub(super) const PONG: &[u8] = b"\r\n";

pub(super) struct Connection {
    pub(super) streams: Streams,
    pub(super) flow: Flow,
    usage: RefCell<Usage>,
    /// The peer has spoken, or it was we who came to it.
    alive: Cell<bool>,
}

impl Connection {
    pub(super) fn new(streams: Streams, flow: Flow) -> Self {
        Self {
            streams,
            flow,
            usage: RefCell::new(Usage::new(Instant::now())),
            alive: Cell::new(false),
        }
    }

    /// Serves a connection that a peer opened, until it ends.
    pub(super) async fn accepted(&self, stream: TcpStream, unsent: LocalReceiver<Bytes>) {
        // Only latency is lost if this fails.
        let _ = stream.set_nodelay(true);
        let secure = matches!(self.flow.transport, Transport::Tls | Transport::Wss);
        let web = matches!(self.flow.transport, Transport::Ws | Transport::Wss);
        if !secure {
            return match web {
                false => self.carry_bytes(stream, unsent).await,
                true => websocket::carry(self, stream, unsent).await,
            };
        }
        let stream = handshake::accept(&self.streams, stream);
        let Some(stream) = self.shake_hands("TLS", stream).await else {
            return;
        };
        match web {
            false => self.carry_bytes(stream, unsent).await,
            true => websocket::carry(self, stream, unsent).await,
        }
    }

    /// Connects to the peer and serves the connection until it ends. `name` is whom a TLS certificate must
    /// be for.
    pub(super) async fn connect(&self, name: ServerName<'static>, unsent: LocalReceiver<Bytes>) {
        let peer = self.flow.peer;
        let stream = match TcpStream::connect_timeout(peer, CONNECT_TIMEOUT).await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%peer, %error, "cannot connect"),
        };
        let _ = stream.set_nodelay(true);
        self.alive.set(true);
        if self.flow.transport != Transport::Tls {
            return self.carry_bytes(stream, unsent).await;
        }
        let stream = handshake::connect(&self.streams, name, stream);
        if let Some(stream) = self.shake_hands("TLS", stream).await {
            self.carry_bytes(stream, unsent).await;
        }
    }

    /// The outcome of a handshake that succeeded in time.
    pub(super) async fn shake_hands<T, E: Display>(
        &self,
        what: &str,
        handshake: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let peer = self.flow.peer;
        match within(HANDSHAKE_TIMEOUT, handshake).await {
            Some(Ok(stream)) => return Some(stream),
            Some(Err(error)) => tracing::debug!(%peer, %error, "{what} handshake failed"),
            None => tracing::debug!(%peer, "{what} handshake took too long"),
        }
        None
    }

    /// Carries messages one after the other. Ends, and with it the connection, when the peer goes, breaks
    /// the framing or does not read, and when nobody needs the connection.
    async fn carry_bytes<S>(&self, stream: S, unsent: LocalReceiver<Bytes>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (reader, writer) = split(stream);
        let carry = or(self.read(reader), self.write(writer, unsent));
        or(carry, self.until_needless()).await;
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) {
        let mut framer = Framer::default();
        let mut bytes = vec![0; READ_LEN];
        while let Ok(len @ 1..) = reader.read(&mut bytes).await {
            self.heard();
            framer.push(&bytes[..len]);
            loop {
                match framer.next() {
                    Ok(Some(Frame::Message(message))) => self.deliver(message).await,
                    Ok(Some(Frame::Ping)) => self.streams.answer(self.flow, PONG),
                    Ok(None) => break,
                    // There is no point to resume from once the framing is lost.
                    Err(_) => return,
                }
            }
        }
    }

    async fn write(&self, mut writer: impl AsyncWrite + Unpin, unsent: LocalReceiver<Bytes>) {
        while let Some(message) = unsent.recv().await {
            let write = async {
                writer.write_all(&message).await?;
                // TLS keeps back what it has encrypted.
                writer.flush().await
            };
            let Some(Ok(())) = within(WRITE_TIMEOUT, write).await else {
                return;
            };
            self.sent(&message);
        }
    }

    pub(super) async fn deliver(&self, message: Bytes) {
        self.usage.borrow_mut().note(&message);
        self.streams.deliver(self.flow, message).await;
    }

    /// Bytes came from the peer.
    pub(super) fn heard(&self) {
        self.alive.set(true);
        self.usage.borrow_mut().touch(Instant::now());
    }

    /// The peer was sent a message.
    pub(super) fn sent(&self, message: &[u8]) {
        let mut usage = self.usage.borrow_mut();
        usage.touch(Instant::now());
        usage.note(message);
    }

    /// Waits until nobody needs the connection: the peer never spoke, or nothing has passed for long.
    pub(super) async fn until_needless(&self) {
        if !self.alive.get() {
            sleep(FIRST_BYTE_TIMEOUT).await;
        }
        if !self.alive.get() {
            return;
        }
        while !self.usage.borrow().is_over(Instant::now()) {
            sleep(IDLE_CHECK).await;
        }
    }
}

/// None when `future` takes longer.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        sleep(limit).await;
        None
    };
    or(async { Some(future.await) }, late).await
}
