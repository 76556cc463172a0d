//! Seeing the SIP messages of a running server.
//!
//! ```text
//!   shard: message in or out ──> Tracer ──> ring ──Query──> HTTP /api/v1/trace ──> plenum trace: ladder
//!                                   └─────> HEP3 packet ──UDP──> a capture server
//! ```
//! A message is recorded once, by the shard that handles it, and only while somebody watches, the
//! operator wants a past to look back at (`trace.keep`), or a capture server is configured; otherwise
//! it costs one relaxed load. A shard answers questions and waits for nobody: what a slow reader has
//! not asked for in time is overwritten and told as missed.
//!
//! Not here: media, and what the log says.

pub mod client;
mod export;
mod follow;
mod hep;
mod ladder;
mod redact;
mod ring;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sip::Flow;

use crate::config::{SipListen, TraceConfig};
use crate::meters::CoreMeters;
use export::Exporter;
pub use follow::Filter;
pub use ring::Batch;
use ring::Ring;
pub use watch::{Watch, Watchers};
pub use wire::{Line, SipMessage};

/// Messages a core remembers while somebody watches: the tenth of a second between two questions, of a
/// core that does nothing but SIP.
const WATCHED_MESSAGES: usize = 4_096;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    In,
    Out,
}

/// A message as the shard handled it.
#[derive(Clone, Debug)]
pub struct Record {
    pub at: SystemTime,
    pub direction: Direction,
    pub flow: Flow,
    /// The listening address.
    pub local: SocketAddr,
    pub message: Bytes,
}

/// A shard's part: records, remembers, exports.
#[derive(Debug)]
pub struct Tracer {
    watchers: Watchers,
    locals: Vec<SocketAddr>,
    keep: usize,
    ring: Ring,
    export: Option<Exporter>,
    /// The time of this turn.
    now: SystemTime,
}

impl Tracer {
    /// # Errors
    /// There is a capture server and no socket for it.
    pub fn new(
        config: &TraceConfig,
        listen: &[SipListen],
        watchers: Watchers,
    ) -> std::io::Result<Self> {
        Ok(Self {
            watchers,
            locals: listen.iter().map(|listen| listen.address).collect(),
            keep: config.keep as usize,
            ring: Ring::default(),
            export: Exporter::new(config)?,
            now: SystemTime::UNIX_EPOCH,
        })
    }

    /// A turn begins. Messages bear its time: a turn is a millisecond or so, and a clock costs.
    pub fn begin(&mut self, now: SystemTime) {
        self.now = now;
    }

    /// A message that this shard handles or sends.
    #[inline]
    pub fn record(
        &mut self,
        direction: Direction,
        flow: Flow,
        message: &Bytes,
        meters: &CoreMeters,
    ) {
        let remembered = self.messages_max();
        if remembered > 0 || self.export.is_some() {
            self.record_now(direction, flow, message, remembered, meters);
        }
    }

    fn messages_max(&self) -> usize {
        if self.watchers.any() {
            self.keep.max(WATCHED_MESSAGES)
        } else {
            self.keep
        }
    }

    #[cold]
    fn record_now(
        &mut self,
        direction: Direction,
        flow: Flow,
        message: &Bytes,
        messages_max: usize,
        meters: &CoreMeters,
    ) {
        let local = self.locals.get(usize::from(flow.listener)).copied();
        let mut record = Record {
            at: self.now,
            direction,
            flow,
            local: local.unwrap_or_else(|| ([0, 0, 0, 0], 0).into()),
            message: message.clone(),
        };
        if let Some(export) = &mut self.export {
            export.send(&record, meters);
        }
        if messages_max > 0 {
            // A message from a connection is a slice of all that was read from it, which would be kept too.
            if flow.transport.is_reliable() && direction == Direction::In {
                record.message = Bytes::copy_from_slice(message);
            }
            self.ring.push(record, messages_max);
        }
    }

    /// What has been recorded since `from`, or since the oldest that is left; at most a batch of it.
    pub fn since(&self, from: Option<u64>) -> Batch {
        self.ring.since(from)
    }

    /// Forgets what nobody wants any more; now and then.
    pub fn keep_house(&mut self, meters: &CoreMeters) {
        self.ring.shrink_to(self.messages_max());
        meters.trace_messages.set(self.ring.len() as u64);
    }
}

#[cfg(test)]
mod tests;
