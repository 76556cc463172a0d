//! Drives one [`Core`] on a glommio executor pinned to a processor. The only async code of a shard
//! besides its connections.

use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use mixer_simd::Kernels;
use sip::{Endpoint, Transport};

use super::core::{Common, Core, first_stream};
use super::stage::{Stage, StageConfig};
use super::{ShardIndex, guard};
use crate::focus::Focus;
use crate::io::batch::BatchIo;
use crate::io::ports::Ports;
use crate::io::stream::{Settings, Streams};
use crate::io::tls::Tls;
use crate::load::Admission;

/// Memory glommio registers with each of its rings, for file I/O that shards do not do; its default of
/// 10 MiB exceeds a usual memlock limit of 8 MiB.
const IO_MEMORY: usize = 64 << 10;

/// A shard's share of the sockets bound for the whole process.
pub struct Sockets {
    /// One per listening address, in the order of the configuration.
    pub udp: Vec<Option<UdpSocket>>,
    /// With their transport and the index of their listening address.
    pub streams: Vec<(u16, Transport, TcpListener)>,
}

/// What a shard is made of; moved to its thread.
pub struct Plan {
    pub index: ShardIndex,
    pub cpu: usize,
    pub common: Common,
    pub admission: Admission,
    pub sip: sip::Config,
    pub sockets: Sockets,
    pub seed: u64,
    pub tls: Arc<Tls>,
}

/// Starts the shard's thread. `ready` hears when it serves, or why it cannot.
///
/// # Errors
/// The thread could not be made.
pub fn spawn(
    plan: Plan,
    ready: mpsc::Sender<Result<(), String>>,
) -> Result<ExecutorJoinHandle<()>, String> {
    LocalExecutorBuilder::new(Placement::Fixed(plan.cpu))
        .name("shard")
        .io_memory(IO_MEMORY)
        .spawn(move || run(plan, ready))
        .map_err(|error| error.to_string())
}

async fn run(plan: Plan, ready: mpsc::Sender<Result<(), String>>) {
    guard::this_thread_is_a_shard();
    let Plan {
        index,
        common,
        admission,
        sip,
        sockets,
        seed,
        tls,
        ..
    } = plan;
    let now = Instant::now();
    let rtp = &common.config.rtp;
    let ports = Ports::new(
        rtp.ports.low..=rtp.ports.high,
        usize::from(index.0),
        common.mailboxes.shards(),
    );
    let stage_config = StageConfig {
        address: rtp.address,
        shared_ports: rtp.shared_ports,
        talkers_max: common.config.rooms.max_talkers as usize,
        media_timeout: (rtp.timeout_s != 0).then(|| Duration::from_secs(rtp.timeout_s.into())),
    };
    let origins = common.config.sip.origins.clone();
    let focus = Focus::new(
        common.config.clone(),
        common.access.clone(),
        admission,
        seed,
    );
    let core = BatchIo::new().and_then(|io| {
        let stage = Stage::new(now, io, ports, Kernels::detect(), &stage_config);
        Core::new(
            index,
            common,
            Endpoint::new(sip),
            focus,
            stage,
            now,
            sockets.udp,
        )
    });
    let mut core = match core {
        Ok(core) => core,
        Err(error) => return drop(ready.send(Err(error.to_string()))),
    };

    let streams = Streams::new(first_stream(index), Settings::new(tls, origins));
    for (listener, transport, socket) in sockets.streams {
        glommio::spawn_local(streams.clone().accept(socket, transport, listener)).detach();
    }
    // The first sleep of an executor can be tens of milliseconds late; it must not be a tick.
    glommio::timer::sleep(Duration::from_millis(1)).await;
    // Fails only when nobody waits for the answer any more.
    let _ = ready.send(Ok(()));

    let mut events = Vec::new();
    let mut writes = Vec::new();
    loop {
        let now = Instant::now();
        streams.take(&mut events);
        let turned = core.turn(now, SystemTime::now(), &mut events, &mut writes);
        for (flow, message) in writes.drain(..) {
            streams.send(flow, message);
        }
        let done = Instant::now();
        if turned.ended {
            return;
        }
        match turned.next.checked_duration_since(done) {
            Some(rest) if !rest.is_zero() => glommio::timer::sleep(rest).await,
            // Overrun: the connections still get their turn.
            _ => glommio::executor().yield_task_queue_now().await,
        }
    }
}
