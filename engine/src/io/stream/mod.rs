//! SIP over connections, on glommio: TCP, TLS and WebSocket, accepted and made. What a message means is
//! the shard's business.
//!
//! ```text
//!   accept ──┐                       ┌─ bytes ─────── frames by Content-Length ─┐
//!            ├─ TCP ──┬─────────┬────┤            connection                    ├─ inbox ─> shard
//!   connect ─┘        └─ TLS ───┘    └─ websocket ─── a message in each of its ─┘
//!                     handshake
//! ```
//! Each connection is a task on the executor of the shard that accepted or made it. Whole messages
//! wait in an inbox that the shard empties once a turn; a shard answers through [`Streams::send`]. A
//! connection whose peer does not read is closed rather than buffered for ever, and so is one that
//! nobody uses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use glommio::net::{TcpListener, TcpStream};
use sip::{Flow, Transport};

use super::tls::Tls;

mod connection;
mod handshake;
mod name;
#[cfg(test)]
mod tests;
mod usage;
mod websocket;

use connection::Connection;

/// Connections one shard holds; each costs a descriptor and, at worst, one framing buffer.
const STREAMS_MAX: usize = 8_192;

/// Messages waiting for one peer to read them. A call has a handful in flight.
const UNSENT_MAX: usize = 256;

/// Messages waiting for the shard's next turn, over all connections; readers pause beyond it.
const INBOX_MAX: usize = 4_096;

/// TLS handshakes that a shard answers between two turns. Each costs the signature of a private key, with
/// RSA nearly a millisecond, and sound must not wait for a crowd of callers.
const HANDSHAKES_PER_TURN: usize = 4;

/// What happened on the shard's connections since the last turn.
#[derive(Debug)]
pub enum StreamEvent {
    Message {
        flow: Flow,
        message: Bytes,
    },
    Closed {
        flow: Flow,
    },
    /// Something was to be sent to `flow`, as it stood in [`Streams::send`], and may not have arrived: its
    /// connection has gone or could not be made.
    Failed {
        flow: Flow,
    },
}

/// What connections need to know beside their socket.
#[derive(Debug)]
pub struct Settings {
    pub tls: Arc<Tls>,
    /// Web pages that may connect by WebSocket, as their browsers name them; empty = any.
    pub origins: Vec<String>,
    pub streams_max: usize,
}

impl Settings {
    pub const fn new(tls: Arc<Tls>, origins: Vec<String>) -> Self {
        Self {
            tls,
            origins,
            streams_max: STREAMS_MAX,
        }
    }
}

/// The connections of one shard. Cheap to clone; lives on one thread.
#[derive(Clone)]
pub struct Streams {
    shared: Rc<RefCell<Shared>>,
    settings: Rc<Settings>,
}

struct Shared {
    inbox: Vec<StreamEvent>,
    open: HashMap<u64, Open>,
    /// The connection to use for a peer to whom we have one.
    by_peer: HashMap<(Transport, SocketAddr), u64>,
    next: u64,
    /// Handshakes that may still be answered before the next turn.
    handshakes: usize,
}

/// A connection, from when it is asked for until it is closed.
struct Open {
    flow: Flow,
    writer: LocalSender<Bytes>,
    /// Flows without a connection's number whose messages went here.
    asked: Vec<Flow>,
}

impl Streams {
    /// `first` is the number of the first connection; shards use disjoint ranges, so that a connection's
    /// number tells which shard holds it.
    pub fn new(first: u64, settings: Settings) -> Self {
        let shared = Shared {
            inbox: Vec::new(),
            open: HashMap::new(),
            by_peer: HashMap::new(),
            next: first,
            handshakes: HANDSHAKES_PER_TURN,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
            settings: Rc::new(settings),
        }
    }

    /// Takes what arrived, leaving `events` the allocation to reuse. Called once a turn.
    pub fn take(&self, events: &mut Vec<StreamEvent>) {
        let mut shared = self.shared.borrow_mut();
        shared.handshakes = HANDSHAKES_PER_TURN;
        std::mem::swap(&mut shared.inbox, events);
    }

    pub fn len(&self) -> usize {
        self.shared.borrow().open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues `message` for the connection that `flow` names, or, where it names none, for one to its peer
    /// that is open already, by whomever it was opened (RFC 5923 §5), or else for a new one.
    ///
    /// What cannot be sent, now or later, is told as [`StreamEvent::Failed`]. A peer who does not read loses
    /// its connection.
    pub fn send(&self, flow: Flow, message: Bytes) {
        let mut shared = self.shared.borrow_mut();
        let id = match flow.stream {
            0 => shared.by_peer.get(&(flow.transport, flow.peer)).copied(),
            id => Some(id),
        };
        match id {
            Some(id) => shared.send_on(id, flow, message),
            None if self.may_connect(&shared, flow.transport) => {
                let name = name::expected(&message, flow.peer);
                let (id, unsent) = shared.add(flow, true);
                shared.send_on(id, flow, message);
                drop(shared);
                let flow = Flow { stream: id, ..flow };
                let connection = self.connection(flow);
                self.spawn(flow, async move { connection.connect(name, unsent).await });
            }
            None => shared.inbox.push(StreamEvent::Failed { flow }),
        }
    }

    /// Browsers cannot be called (RFC 7118 §5): their connections are theirs to make.
    fn may_connect(&self, shared: &Shared, transport: Transport) -> bool {
        matches!(transport, Transport::Tcp | Transport::Tls)
            && shared.open.len() < self.settings.streams_max
    }

    /// Accepts for ever; spawned once per listening address.
    pub async fn accept(self, listener: std::net::TcpListener, transport: Transport, index: u16) {
        // SAFETY: the descriptor is open and listening, and `into_raw_fd` makes us its only owner.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            match listener.accept().await {
                Ok(stream) if self.len() < self.settings.streams_max => {
                    self.open(stream, transport, index)
                }
                Ok(_refused) => {}
                Err(error) => {
                    // Out of descriptors, most likely: try again when some may have come back.
                    tracing::warn!(%error, "cannot accept a connection");
                    glommio::timer::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn open(&self, stream: TcpStream, transport: Transport, listener: u16) {
        let Ok(peer) = stream.peer_addr() else { return };
        let flow = Flow {
            transport,
            peer,
            listener,
            stream: 0,
        };
        let mut shared = self.shared.borrow_mut();
        // Who has not shown to be the one who is to be reached there is sent answers only (RFC 5923 §9).
        let reusable = transport != Transport::Tls || self.settings.tls.callers_are_known();
        let (id, unsent) = shared.add(flow, reusable);
        drop(shared);
        let flow = Flow { stream: id, ..flow };
        let connection = self.connection(flow);
        self.spawn(
            flow,
            async move { connection.accepted(stream, unsent).await },
        );
    }

    fn connection(&self, flow: Flow) -> Connection {
        Connection::new(self.clone(), flow)
    }

    fn spawn(&self, flow: Flow, connection: impl Future<Output = ()> + 'static) {
        let streams = self.clone();
        glommio::spawn_local(async move {
            connection.await;
            streams.shared.borrow_mut().remove(flow.stream);
        })
        .detach();
    }

    async fn deliver(&self, flow: Flow, message: Bytes) {
        while self.shared.borrow().inbox.len() >= INBOX_MAX {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        let event = StreamEvent::Message { flow, message };
        self.shared.borrow_mut().inbox.push(event);
    }

    /// Queues what is no SIP message, such as the answer to a keep-alive.
    fn answer(&self, flow: Flow, bytes: &'static [u8]) {
        let mut shared = self.shared.borrow_mut();
        shared.send_on(flow.stream, flow, Bytes::from_static(bytes));
    }

    /// Waits until a handshake may be answered.
    async fn handshake_turn(&self) {
        loop {
            {
                let mut shared = self.shared.borrow_mut();
                if shared.handshakes > 0 {
                    shared.handshakes -= 1;
                    return;
                }
            }
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Shared {
    /// A place for the connection that will carry `flow`, and what is to be written to it. One that is
    /// `reusable` also gets what is only known to go to its peer.
    fn add(&mut self, flow: Flow, reusable: bool) -> (u64, LocalReceiver<Bytes>) {
        let id = self.next;
        self.next += 1;
        let (writer, unsent) = local_channel::new_bounded(UNSENT_MAX);
        let open = Open {
            flow: Flow { stream: id, ..flow },
            writer,
            asked: Vec::new(),
        };
        self.open.insert(id, open);
        if reusable {
            let peer = (flow.transport, flow.peer);
            self.by_peer.entry(peer).or_insert(id);
        }
        (id, unsent)
    }

    /// `flow` is as it was asked for, with or without a number.
    fn send_on(&mut self, id: u64, flow: Flow, message: Bytes) {
        let Some(open) = self.open.get_mut(&id) else {
            return self.inbox.push(StreamEvent::Failed { flow });
        };
        if flow.stream == 0 && !open.asked.contains(&flow) {
            open.asked.push(flow);
        }
        if open.writer.try_send(message).is_err() {
            // Its task ends when it finds nobody left to write for.
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(Open { flow, asked, .. }) = self.open.remove(&id) else {
            return;
        };
        if let Entry::Occupied(entry) = self.by_peer.entry((flow.transport, flow.peer))
            && *entry.get() == id
        {
            entry.remove();
        }
        self.inbox.push(StreamEvent::Closed { flow });
        let failed = asked.into_iter().map(|flow| StreamEvent::Failed { flow });
        self.inbox.extend(failed);
    }
}
