//! SIP over TCP on glommio: accepts, frames, writes. What a message means is the shard's business.
//!
//! Each connection has a reading and a writing task on the executor of the shard that accepted it.
//! Whole messages wait in an inbox that the shard empties once a turn; a shard answers through
//! [`Streams::send`]. A connection whose peer does not read is closed rather than buffered for ever.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use glommio::net::{TcpListener, TcpStream};
use sip::frame::{Frame, Framer};
use sip::{Flow, Transport};

/// Connections one shard holds; each costs a descriptor and, at worst, one framing buffer.
const STREAMS_MAX: usize = 8_192;

/// Messages waiting for one peer to read them. A call has a handful in flight.
const UNSENT_MAX: usize = 256;

/// Messages waiting for the shard's next turn, over all connections; readers pause beyond it.
const INBOX_MAX: usize = 4_096;

/// How long a new connection may stay silent before its place is given to somebody else.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(32);

const READ_LEN: usize = 16 * 1_024;

/// Answer to the double CRLF of RFC 5626 §4.4.1.
const PONG: &[u8] = b"\r\n";

/// What happened on the shard's connections since the last turn.
#[derive(Debug)]
pub enum StreamEvent {
    Message { flow: Flow, message: Bytes },
    Closed { flow: Flow },
}

/// The connections of one shard. Cheap to clone; lives on one thread.
#[derive(Clone)]
pub struct Streams {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    inbox: Vec<StreamEvent>,
    writers: HashMap<u64, LocalSender<Bytes>>,
    next: u64,
}

impl Streams {
    /// `first` is the number of the first connection; shards use disjoint ranges, so that a connection's
    /// number tells which shard holds it.
    pub fn new(first: u64) -> Self {
        let shared = Shared {
            inbox: Vec::new(),
            writers: HashMap::new(),
            next: first,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
        }
    }

    /// Takes what arrived, leaving `events` the allocation to reuse.
    pub fn take(&self, events: &mut Vec<StreamEvent>) {
        std::mem::swap(&mut self.shared.borrow_mut().inbox, events);
    }

    pub fn len(&self) -> usize {
        self.shared.borrow().writers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues `message`; false when the connection is gone or its peer does not read, which closes it.
    pub fn send(&self, stream: u64, message: Bytes) -> bool {
        let mut shared = self.shared.borrow_mut();
        let Some(writer) = shared.writers.get(&stream) else {
            return false;
        };
        if writer.try_send(message).is_ok() {
            return true;
        }
        shared.writers.remove(&stream);
        false
    }

    /// Accepts for ever; spawned once per listening address.
    pub async fn accept(self, listener: std::net::TcpListener, index: u16) {
        // SAFETY: the descriptor is open and listening, and `into_raw_fd` makes us its only owner.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        loop {
            match listener.accept().await {
                Ok(stream) if self.len() < STREAMS_MAX => self.open(stream, index),
                Ok(_refused) => {}
                Err(error) => {
                    // Out of descriptors, most likely: try again when some may have come back.
                    tracing::warn!(%error, "cannot accept a TCP connection");
                    glommio::timer::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn open(&self, stream: TcpStream, listener: u16) {
        let Ok(peer) = stream.peer_addr() else { return };
        // Only latency is lost if this fails.
        let _ = stream.set_nodelay(true);
        let (sender, receiver) = local_channel::new_bounded(UNSENT_MAX);
        let id = {
            let mut shared = self.shared.borrow_mut();
            let id = shared.next;
            shared.next += 1;
            shared.writers.insert(id, sender);
            id
        };
        let flow = Flow {
            transport: Transport::Tcp,
            peer,
            listener,
            stream: id,
        };
        let streams = self.clone();
        glommio::spawn_local(async move {
            streams.serve(stream, flow, receiver).await;
            streams.closed(flow);
        })
        .detach();
    }

    /// Ends, and with it the connection, when the peer goes, breaks the framing or does not read.
    async fn serve(&self, mut stream: TcpStream, flow: Flow, unsent: LocalReceiver<Bytes>) {
        let mut bytes = vec![0; READ_LEN];
        let _ = stream.set_read_timeout(Some(FIRST_MESSAGE_TIMEOUT));
        let Ok(len @ 1..) = stream.read(&mut bytes).await else {
            return;
        };
        // The peer speaks; from here its silence is the dialogs' business.
        let _ = stream.set_read_timeout(None);

        let mut framer = Framer::default();
        framer.push(&bytes[..len]);
        let (reader, writer) = split(stream);
        futures_lite::future::or(
            self.read(reader, flow, framer, bytes),
            write(writer, unsent),
        )
        .await;
    }

    async fn read(
        &self,
        mut reader: ReadHalf<TcpStream>,
        flow: Flow,
        mut framer: Framer,
        mut bytes: Vec<u8>,
    ) {
        loop {
            loop {
                match framer.next() {
                    Ok(Some(Frame::Message(message))) => {
                        self.deliver(StreamEvent::Message { flow, message }).await
                    }
                    Ok(Some(Frame::Ping)) => {
                        self.send(flow.stream, Bytes::from_static(PONG));
                    }
                    Ok(None) => break,
                    // There is no point to resume from once the framing is lost.
                    Err(_) => return,
                }
            }
            let Ok(len @ 1..) = reader.read(&mut bytes).await else {
                return;
            };
            framer.push(&bytes[..len]);
        }
    }

    async fn deliver(&self, event: StreamEvent) {
        while self.shared.borrow().inbox.len() >= INBOX_MAX {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        self.shared.borrow_mut().inbox.push(event);
    }

    fn closed(&self, flow: Flow) {
        let mut shared = self.shared.borrow_mut();
        shared.writers.remove(&flow.stream);
        shared.inbox.push(StreamEvent::Closed { flow });
    }
}

/// Ends when the sending side is dropped or the peer has gone.
async fn write(mut writer: WriteHalf<TcpStream>, messages: LocalReceiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if writer.write_all(&message).await.is_err() {
            return;
        }
    }
}
