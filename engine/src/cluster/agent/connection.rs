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
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::tls::TlsIdentity;
use crate::cluster::Hook;
use crate::cluster::hub::{ConnId, Fingerprint};

/// Time to connect; the rules give up sooner.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Time for the TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Time for what is still to go out on a connection that we end.
const CLOSE_TIME_MAX: Duration = match cfg!(test) {
    true => Duration::from_millis(50),
    false => Duration::from_secs(5),
};

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
    /// One for each connection, also for those that are being ended.
    tasks: JoinSet<()>,
    tls: Option<Arc<TlsIdentity>>,
    events: Sender<Event>,
    listening: AbortHandle,
}

struct Open {
    write: UnboundedSender<Vec<u8>>,
    unsent: Arc<AtomicUsize>,
    task: AbortHandle,
    /// Dropped with the rest; from then on its time is limited.
    _until_closed: oneshot::Sender<()>,
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
            tasks: JoinSet::new(),
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
        while self.tasks.try_join_next().is_some() {}
        let too_many = self.tasks.len() >= CONNECTIONS_MAX;
        if too_many {
            tracing::warn!("too many connections of control channels");
        }
        let (until_closed, closed) = oneshot::channel();
        let task = self.tasks.spawn_local(async move {
            if !too_many {
                tokio::select! {
                    () = work(&mut side) => {}
                    () = async {
                        let _ = closed.await;
                        sleep(CLOSE_TIME_MAX).await;
                    } => {}
                }
            }
            side.tell(Happened::Closed).await;
        });
        let open = Open {
            write,
            unsent,
            task,
            _until_closed: until_closed,
        };
        self.open.insert(conn, open);
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

    /// Ends a connection when what was written to it has gone out, if that does not take long.
    pub(super) fn close(&mut self, conn: ConnId) {
        self.open.remove(&conn);
    }

    /// Ends a connection at once.
    pub(super) fn abort(&mut self, conn: ConnId) {
        if let Some(open) = self.open.remove(&conn) {
            open.task.abort();
        }
    }

    /// It has ended by itself.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.open.remove(&conn);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.listening.abort();
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
                sleep(ACCEPT_RETRY).await;
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::task::LocalSet;

    use super::*;

    const CONN: ConnId = ConnId::invented(1);

    /// A connection on which so much was written that the peer, who reads nothing, holds it up.
    async fn stuck() -> (Connections, mpsc::Receiver<Event>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (events, mut happened) = mpsc::channel(16);
        let mut connections = Connections::new(listener, None, events).unwrap();
        let peer = TcpStream::connect(address).await.unwrap();
        let Some(Event::Accepted { stream, .. }) = happened.recv().await else {
            panic!("not accepted");
        };
        connections.serve(CONN, stream);
        while connections.write(CONN, vec![0; 1 << 20]) {}
        (connections, happened, peer)
    }

    async fn all_end(connections: &mut Connections) {
        while connections.tasks.join_next().await.is_some() {}
    }

    #[tokio::test]
    async fn who_does_not_read_holds_up_the_end_of_a_connection_for_a_while_only() {
        let test = async {
            let (mut connections, mut happened, _peer) = stuck().await;
            connections.close(CONN);
            assert_eq!(connections.tasks.len(), 1);
            all_end(&mut connections).await;
            happened.close();
            let mut told = Vec::new();
            while let Some(event) = happened.recv().await {
                told.push(event);
            }
            let last = told.pop();
            assert!(matches!(
                last,
                Some(Event::Connection {
                    happened: Happened::Closed,
                    ..
                })
            ));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_ends_at_once() {
        let test = async {
            let (mut connections, _happened, _peer) = stuck().await;
            connections.abort(CONN);
            let ended = connections.tasks.join_next().await;
            assert!(ended.unwrap().unwrap_err().is_cancelled());
        };
        LocalSet::new().run_until(test).await;
    }
}
