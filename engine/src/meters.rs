//! What each core counts, and the server's load that follows from it.
//!
//! ```text
//! shard 0 ──add──> CoreMeters 0 ─┐
//! shard 1 ──add──> CoreMeters 1 ─┼─ read once a second ─> admin::Sampler ─set─> ServerLoad ─> admission
//! shard n ──add──> CoreMeters n ─┘                     └─ read on request ─> /metrics, /api/v1/status
//! ```
//!
//! A [`CoreMeters`] belongs to one shard: only that thread writes it, anyone reads it. So a count is
//! a plain load, add and store, never a locked instruction, and the line stays in the writer's cache.
//!
//! Not here: rates, which need two readings ([`Sampler`](crate::admin::Sampler)), and the
//! decision what a full server does with a call.

mod cluster;
mod lateness;
mod ledger;
mod load;
mod messages;
mod setup;
mod unwanted;

use std::sync::atomic::{AtomicU64, Ordering};

pub use cluster::ClusterMeters;
pub use lateness::{Lateness, LatenessReading};
pub use ledger::{Ledger, Phase, PhaseTimes};
pub use load::{
    EWMA_ALPHA, HARD_CAP_FACTOR, Pending, ServerLoad, ServerState, State, UNITS_PER_PARTICIPANT,
};
pub use messages::{Kind, SipCounts};
pub use setup::SetupTimes;
pub use unwanted::{Unwanted, UnwantedCounts};

/// A number that only grows, written by one thread.
///
/// `add` from two threads loses counts: that is the price of not paying for a locked instruction
/// on every packet.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: no other memory is published by a count.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls, written by one thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one core.
///
/// Aligned to two cache lines: the adjacent-line prefetcher of x86 fetches pairs, so 64 would let
/// two cores still share traffic.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreMeters {
    /// The processor's number, as the operating system counts it.
    pub core: usize,

    /// SIP messages taken from a socket by this core, retransmissions included.
    pub sip_received: Counter,
    /// SIP messages given to a socket by this core, retransmissions included.
    pub sip_sent: Counter,
    /// Datagrams on a SIP socket that were no SIP message.
    pub sip_malformed: Counter,
    /// SIP messages received here and handed to the shard that owns them.
    pub sip_forwarded: Counter,
    /// What did no caller any good.
    pub unwanted: UnwantedCounts,
    /// Times this core has muted a source.
    pub mutes: Counter,
    /// Of a hundred requests, how many upstream proxies are asked to hold back.
    pub overload_percent: Gauge,
    /// `sip_received` and `sip_sent` by method and status.
    pub sip_received_by: SipCounts,
    pub sip_sent_by: SipCounts,
    /// Calls of the SIP stack, those not answered yet included.
    pub sip_dialogs: Gauge,
    /// Transactions of the SIP stack.
    pub sip_server_transactions: Gauge,
    pub sip_client_transactions: Gauge,
    /// Subscriptions of the SIP stack.
    pub sip_subscriptions: Gauge,
    /// Deadlines of the SIP stack.
    pub sip_timers: Gauge,
    /// From an INVITE's arrival to its final response.
    pub call_setup: SetupTimes,
    /// SIP messages remembered for those who watch or look back.
    pub trace_messages: Gauge,
    /// SIP messages given to the capture server, and those that could not be.
    pub hep_sent: Counter,
    pub hep_failed: Counter,

    /// Audio RTP packets; video and RTCP have their own counters.
    pub rtp_received: Counter,
    pub rtp_sent: Counter,
    pub rtcp_received: Counter,
    pub rtcp_sent: Counter,
    pub video_received: Counter,
    pub video_sent: Counter,
    /// Datagrams on a media port that were not used: malformed, from a stranger, unknown payload type.
    pub rtp_discarded: Counter,
    /// Packets of callers and trunks that never came.
    pub rtp_lost: Counter,
    /// Packets that came after the tick that needed them.
    pub rtp_late: Counter,

    /// Conferences whose home is this core.
    pub conferences: Gauge,
    /// Participants whose media this core handles.
    pub participants: Gauge,

    /// Calls answered since the start.
    pub calls_total: Counter,
    /// Calls refused with a final response that is no redirect.
    pub calls_rejected: Counter,
    /// Calls sent elsewhere with 302.
    pub calls_redirected: Counter,
    /// Rooms closed because their code panicked.
    pub room_panics: Counter,
    /// Calls ended because no media came.
    pub media_timeouts: Counter,
    /// RTP port pairs still to be had.
    pub ports_free: Gauge,

    /// Where the time of this core's thread went.
    pub phases: PhaseTimes,
    /// CPU time of this core's thread, in nanoseconds, as the kernel counts it.
    pub cpu_ns: Gauge,
    /// Turns that began so late that statistics were put off.
    pub turns_pressed: Counter,
    /// Turns of the shard's loop: harvest, tick, flush.
    pub turns: Counter,
    /// Room ticks that ran.
    pub ticks: Counter,
    /// How long after their time the ticks began.
    pub tick_lateness: Lateness,
    /// SIP messages dropped because a queue was full: this shard's own, or another's mailbox.
    pub mailbox_dropped: Counter,
    /// Datagrams the kernel refused to send.
    pub send_failed: Counter,
}

/// The counters of every core of this server.
#[derive(Debug)]
pub struct Meters {
    /// In the order of the shards.
    pub cores: Box<[CoreMeters]>,
}

impl Meters {
    /// All counters at zero, for the shards on these processors.
    pub fn new(cores: &[usize]) -> Self {
        Self {
            cores: cores
                .iter()
                .map(|&core| CoreMeters {
                    core,
                    ..CoreMeters::default()
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_and_many_readers_see_every_count() {
        let meters = Meters::new(&[0, 3]);
        assert_eq!(meters.cores[1].core, 3);
        std::thread::scope(|scope| {
            for core in &meters.cores {
                scope.spawn(move || (0..10_000).for_each(|_| core.rtp_received.add(2)));
            }
        });
        assert!(
            meters
                .cores
                .iter()
                .all(|core| core.rtp_received.get() == 20_000)
        );
    }

    #[test]
    fn cores_share_no_cache_line() {
        assert_eq!(align_of::<CoreMeters>(), 128);
        assert_eq!(size_of::<CoreMeters>() % 128, 0);
    }
}
