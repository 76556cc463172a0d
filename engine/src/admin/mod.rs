//! Everything that is not real time: HTTP, metrics, profiling, the second's load number.
//!
//! ```text
//! shards ──counters──> Sampler (1 s) ──> ServerLoad ──> shards
//!        <──message── ShardQueries <─── router <─── HTTP, one tokio thread off the media cores
//!        ──oneshot──>
//! ```
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /healthz` | the process lives; tests no dependency |
//! | `GET /readyz` | 200 while calls are taken, else 503 |
//! | `GET /metrics` | OpenMetrics text, names `plenum_*` |
//! | `GET /api/v1/status` | [`Status`] |
//! | `GET /api/v1/conferences`, `/api/v1/conferences/{id}` | [`ConferenceView`]: everybody, on all servers |
//! | `POST /api/v1/conferences/{id}/participants/{entity}/mute`, `/unmute` | 200; wherever he is |
//! | `DELETE /api/v1/conferences/{id}/participants/{entity}` | 200; he is sent BYE, wherever he is |
//! | `PUT /api/v1/conferences/{id}/expected` | 200; room is kept for `{"participants": N}` |
//! | `POST /api/v1/conferences/{id}/lock`, `/unlock` | 200; nobody new gets in, or does again |
//! | `GET /api/v1/decisions?last=N` | [`Decision`]s, the latest last |
//! | `GET /api/v1/trace?call=ID&room=NAME&seconds=N` | SIP messages as they come, a [`Line`](crate::trace::Line) of JSON each |
//! | `POST /api/v1/drain` | 202; no new calls from now on. A server alone ends when the last has gone; one of several gives its users away and stands by |
//! | `POST /api/v1/undrain` | 202; calls are taken again |
//! | `GET /debug/flamegraph?seconds=N` | SVG of where the process spent N seconds of its time |
//!
//! Errors are JSON, `{"error": "..."}`. Not here: authentication. The address is loopback unless the
//! operator says otherwise, and then a proxy decides who may ask.

mod flamegraph;
mod http;
mod metrics;
mod sampler;
mod status;
mod trace;
mod view;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::sync::oneshot;

pub use http::{router, serve};
pub use sampler::{CoreSample, Sample, Sampler};
pub use status::{ClusterView, CoreStatus, LoadStatus, PeerView, ReservedView, Status};
pub use view::{ConferenceView, ParticipantView};

use crate::{
    cluster::{self, Decision, Wanted},
    config::Config,
    focus::RoomName,
    meters::{ClusterMeters, Meters, ServerLoad, ServerState},
    trace::{Batch, Watchers},
};

/// What the admin thread shows and asks.
#[derive(Clone)]
pub struct Admin {
    pub config: Arc<Config>,
    pub meters: Arc<Meters>,
    pub cluster_meters: Arc<ClusterMeters>,
    pub load: Arc<ServerLoad>,
    pub state: Arc<ServerState>,
    pub shards: Arc<dyn ShardQueries>,
    /// Who watches SIP messages.
    pub watchers: Watchers,
    /// Since when the server runs.
    pub started: Instant,
}

/// Questions to the shards. Each is a message; the answer comes through the receiver, and one that
/// is dropped or takes longer than a second turns into 503.
pub trait ShardQueries: Send + Sync + 'static {
    /// Asks every shard for the conferences it has participants of. A conference that is on several
    /// shards may be in several answers, each with its own participants; they are merged by id.
    fn conferences(&self) -> Vec<oneshot::Receiver<Vec<ConferenceView>>>;

    /// Asks the shards that may know this conference; merged as above.
    fn conference(&self, id: &str) -> Vec<oneshot::Receiver<Option<ConferenceView>>>;

    /// Has the conference call somebody. 100 says that the call is on its way; anything else is the status
    /// that a caller would get.
    fn dial(&self, room: RoomName, target: String) -> oneshot::Receiver<u16>;

    /// Asks every shard for the SIP messages it recorded, each from its own number on; None: from the
    /// oldest it has.
    fn trace(&self, from: &[Option<u64>]) -> Vec<oneshot::Receiver<Batch>>;

    /// Begins to drain, as SIGTERM does. Asking again changes nothing.
    fn drain(&self);

    /// Ends a drain before its end.
    fn undrain(&self);

    /// The other servers; a server on its own has none.
    fn cluster(&self) -> ClusterView;

    /// Has the cluster do something; hears what became of it as an HTTP status with its reason.
    fn order(&self, wanted: Wanted) -> oneshot::Receiver<(u16, String)>;

    /// Who is in a conference, or in all, on this server and the others.
    fn roster(&self, id: Option<&str>) -> oneshot::Receiver<Vec<cluster::ConferenceView>>;

    /// What was decided lately, the latest last.
    fn decisions(&self) -> oneshot::Receiver<Vec<Decision>>;
}

/// The admin thread while it runs; dropping it stops the thread.
#[derive(Debug)]
pub struct AdminThread {
    local_address: SocketAddr,
    /// Dropped to stop.
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminThread {
    /// Serves `listener`, already bound so that a taken port fails at the start, on a thread of its
    /// own that ends with the returned value.
    ///
    /// # Errors
    /// The runtime or the thread could not be made.
    pub fn start(listener: std::net::TcpListener, admin: Admin) -> io::Result<Self> {
        let local_address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (shutdown, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listener, admin, async {
                    // An error means that the sender was dropped, which is how it is told to stop.
                    let _ = stopped.await;
                }));
                // A profile being drawn must not hold up the end of the process.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            local_address,
            shutdown: Some(shutdown),
            thread: Some(thread),
        })
    }

    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }
}

impl Drop for AdminThread {
    fn drop(&mut self) {
        self.shutdown.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}
