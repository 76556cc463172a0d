//! Connections of control channels, each a task that reads and one that writes.

use std::collections::HashMap;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cfw::SvrId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::tls::TlsIdentity;
use crate::cluster::Hook;
use crate::cluster::hub::{ConnId, Fingerprint};

/// Time to connect; the rules give up sooner.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Time for the TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes that a peer may leave unread: some snapshots of a large conference.
const UNSENT_MAX: usize = 16 << 20;

const READ_LEN: usize = 16 * 1024;

/// Connections at a time, made and accepted.
const CONNECTIONS_MAX: usize = 1_024;

/// Wait after an `accept` that failed, for lack of file descriptors most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What has happened outside of this thread's own work.
pub(super) enum Event {
    Accepted {
        stream: TcpStream,
        peer: SocketAddr,
    },
    Connection {
        conn: ConnId,
        happened: Happened,
    },
    Resolved {
        ticket: u64,
        addresses: Vec<SocketAddr>,
    },
    HookDone {
        hook: Hook,
        svr_id: SvrId,
        result: Result<(), String>,
    },
}

pub(super) enum Happened {
    /// Connected, and the handshake is done; with the peer's certificate, if there is TLS.
    Ready {
        fingerprint: Option<Fingerprint>,
    },
    Bytes(Vec<u8>),
    /// It has ended, or could not be made.
    Closed,
}

/// All connections of control channels.
pub(super) struct Connections {
    open: HashMap<ConnId, Open>,
    tls: Option<Arc<TlsIdentity>>,
    events: Sender<Event>,
    listening: AbortHandle,
}

struct Open {
    write: UnboundedSender<Vec<u8>>,
    unsent: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Connections {
    /// To be called within the runtime.
    pub(super) fn new(
        listener: net::TcpListener,
        tls: Option<TlsIdentity>,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let listening = tokio::spawn(accept(listener, events.clone())).abort_handle();
        Ok(Self {
            open: HashMap::new(),
            tls: tls.map(Arc::new),
            events,
            listening,
        })
    }

    /// Serves a connection that a peer has made.
    pub(super) fn serve(&mut self, conn: ConnId, stream: TcpStream) {
        let tls = self.tls.clone();
        self.open(conn, async move |side| {
            let _ = stream.set_nodelay(true);
            match tls {
                None => side.carry(stream, None).await,
                Some(tls) => {
                    let accepted = timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await;
                    if let Ok(Ok((stream, fingerprint))) = accepted {
                        side.carry(stream, Some(fingerprint)).await;
                    }
                }
            }
        });
    }

    /// Makes a connection.
    pub(super) fn connect(&mut self, conn: ConnId, host: String, port: u16) {
        let tls = self.tls.clone();
        self.open(conn, async move |side| {
            let connected = timeout(CONNECT_TIME_MAX, TcpStream::connect((host.as_str(), port)));
            let Ok(Ok(stream)) = connected.await else {
                return;
            };
            let _ = stream.set_nodelay(true);
            match tls {
                None => side.carry(stream, None).await,
                Some(tls) => {
                    let done = timeout(HANDSHAKE_TIME_MAX, tls.connect(&host, stream)).await;
                    if let Ok(Ok((stream, fingerprint))) = done {
                        side.carry(stream, Some(fingerprint)).await;
                    }
                }
            }
        });
    }

    fn open(&mut self, conn: ConnId, work: impl AsyncFnOnce(&mut Side) + 'static) {
        let (write, unwritten) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        let mut side = Side {
            conn,
            events: self.events.clone(),
            unwritten,
            unsent: unsent.clone(),
        };
        if self.open.len() >= CONNECTIONS_MAX {
            tracing::warn!("too many connections of control channels");
        }
        let too_many = self.open.len() >= CONNECTIONS_MAX;
        let task = tokio::task::spawn_local(async move {
            if !too_many {
                work(&mut side).await;
            }
            side.tell(Happened::Closed).await;
        });
        let task = task.abort_handle();
        self.open.insert(
            conn,
            Open {
                write,
                unsent,
                task,
            },
        );
    }

    /// False when the peer has left too much unread.
    pub(super) fn write(&mut self, conn: ConnId, bytes: Vec<u8>) -> bool {
        let Some(open) = self.open.get(&conn) else {
            return true;
        };
        let unsent = open.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        // Its task may have ended; that it has is on its way.
        let _ = open.write.send(bytes);
        unsent <= UNSENT_MAX
    }

    /// Ends a connection when what was written to it has gone out.
    pub(super) fn close(&mut self, conn: ConnId) {
        self.open.remove(&conn);
    }

    /// It has ended by itself.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.open.remove(&conn);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.listening.abort();
        self.open.values().for_each(|open| open.task.abort());
    }
}

async fn accept(listener: TcpListener, events: Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if events.send(Event::Accepted { stream, peer }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept control channels");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// A connection, seen from its task.
struct Side {
    conn: ConnId,
    events: Sender<Event>,
    unwritten: UnboundedReceiver<Vec<u8>>,
    unsent: Arc<AtomicUsize>,
}

impl Side {
    async fn tell(&self, happened: Happened) {
        let conn = self.conn;
        // The agent may have ended.
        let _ = self.events.send(Event::Connection { conn, happened }).await;
    }

    /// Until either side ends it.
    async fn carry(
        &mut self,
        stream: impl AsyncRead + AsyncWrite,
        fingerprint: Option<Fingerprint>,
    ) {
        self.tell(Happened::Ready { fingerprint }).await;
        let (mut reader, mut writer) = split(stream);
        let (conn, events) = (self.conn, self.events.clone());
        let read = async {
            let mut buffer = vec![0; READ_LEN];
            while let Ok(len @ 1..) = reader.read(&mut buffer).await {
                let happened = Happened::Bytes(buffer[..len].to_vec());
                if events
                    .send(Event::Connection { conn, happened })
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        let write = async {
            while let Some(bytes) = self.unwritten.recv().await {
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
                self.unsent.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            let _ = timeout(HANDSHAKE_TIME_MAX, writer.shutdown()).await;
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    }
}

/// Looks a name up, off this thread.
pub(super) fn resolve(events: Sender<Event>, ticket: u64, host: String, port: u16) {
    tokio::spawn(async move {
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses = found.map(Iterator::collect).unwrap_or_default();
        let _ = events.send(Event::Resolved { ticket, addresses }).await;
    });
}
