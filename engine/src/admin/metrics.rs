//! `/metrics`: every counter of every core, read when asked.
//!
//! One table per kind; a counter in [`CoreMeters`] that has no line here is not seen outside.

use std::{fmt, sync::Arc, time::Instant};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{Admin, ShardQueries};
use crate::meters::{
    ClusterMeters, CoreMeters, Meters, Phase, ServerLoad, ServerState, SipCounts, State, Unwanted,
};
use crate::trace::Watchers;

mod cluster;

type Reader = fn(&CoreMeters) -> u64;

/// Per core; the text format appends `_total`.
const COUNTERS: [(&str, &str, Reader); 26] = [
    (
        "sip_received",
        "SIP messages received, retransmissions included",
        |core| core.sip_received.get(),
    ),
    (
        "sip_sent",
        "SIP messages sent, retransmissions included",
        |core| core.sip_sent.get(),
    ),
    (
        "sip_malformed",
        "Datagrams on a SIP socket that were no SIP message",
        |core| core.sip_malformed.get(),
    ),
    (
        "sip_forwarded",
        "SIP messages handed to the core that owns them",
        |core| core.sip_forwarded.get(),
    ),
    (
        "sip_mutes",
        "Times a source was muted for what it sent",
        |core| core.mutes.get(),
    ),
    ("rtp_received", "Audio RTP packets received", |core| {
        core.rtp_received.get()
    }),
    ("rtp_sent", "Audio RTP packets sent", |core| {
        core.rtp_sent.get()
    }),
    ("rtcp_received", "RTCP packets received", |core| {
        core.rtcp_received.get()
    }),
    ("rtcp_sent", "RTCP packets sent", |core| {
        core.rtcp_sent.get()
    }),
    ("video_received", "Video RTP packets received", |core| {
        core.video_received.get()
    }),
    ("video_sent", "Video RTP packets sent", |core| {
        core.video_sent.get()
    }),
    (
        "rtp_discarded",
        "Datagrams on a media port that were not used",
        |core| core.rtp_discarded.get(),
    ),
    ("rtp_lost", "Packets that never came", |core| {
        core.rtp_lost.get()
    }),
    (
        "rtp_late",
        "Packets that came after the tick that needed them",
        |core| core.rtp_late.get(),
    ),
    ("calls", "Calls answered", |core| core.calls_total.get()),
    ("calls_rejected", "Calls refused", |core| {
        core.calls_rejected.get()
    }),
    ("calls_redirected", "Calls sent to another server", |core| {
        core.calls_redirected.get()
    }),
    (
        "room_panics",
        "Rooms closed because their code panicked",
        |core| core.room_panics.get(),
    ),
    (
        "media_timeouts",
        "Calls ended because no media came",
        |core| core.media_timeouts.get(),
    ),
    (
        "turns_pressed",
        "Turns that began so late that statistics were put off",
        |core| core.turns_pressed.get(),
    ),
    ("turns", "Turns of the shard's loop", |core| {
        core.turns.get()
    }),
    ("ticks", "Room ticks that ran", |core| core.ticks.get()),
    (
        "mailbox_dropped",
        "Messages that another shard's full mailbox refused",
        |core| core.mailbox_dropped.get(),
    ),
    (
        "send_failed",
        "Datagrams the kernel refused to send",
        |core| core.send_failed.get(),
    ),
    (
        "hep_sent",
        "SIP messages given to the capture server",
        |core| core.hep_sent.get(),
    ),
    (
        "hep_failed",
        "SIP messages that could not be given to the capture server",
        |core| core.hep_failed.get(),
    ),
];

/// Per core.
const GAUGES: [(&str, &str, Reader); 8] = [
    (
        "conferences",
        "Conferences whose home is the core",
        |core| core.conferences.get(),
    ),
    (
        "participants",
        "Participants whose media the core handles",
        |core| core.participants.get(),
    ),
    (
        "overload_percent",
        "Of a hundred requests, how many proxies before us are asked to hold back (RFC 7339)",
        |core| core.overload_percent.get(),
    ),
    ("ports_free", "RTP port pairs still to be had", |core| {
        core.ports_free.get()
    }),
    (
        "sip_dialogs",
        "Calls of the SIP stack, those not answered yet included",
        |core| core.sip_dialogs.get(),
    ),
    (
        "sip_subscriptions",
        "Subscriptions of the SIP stack",
        |core| core.sip_subscriptions.get(),
    ),
    ("sip_timers", "Deadlines of the SIP stack", |core| {
        core.sip_timers.get()
    }),
    (
        "trace_messages",
        "SIP messages remembered for those who watch or look back",
        |core| core.trace_messages.get(),
    ),
];

type Counts = fn(&CoreMeters) -> &SipCounts;

/// Summed over the cores: a line for each of them would make a page of its own.
const SIP_COUNTS: [(&str, &str, Counts); 2] = [
    ("received", "received, retransmissions included", |core| {
        &core.sip_received_by
    }),
    ("sent", "sent, retransmissions included", |core| {
        &core.sip_sent_by
    }),
];

/// The registry behind `/metrics`.
#[derive(Debug)]
pub(super) struct Metrics(Registry);

impl Metrics {
    pub(super) const CONTENT_TYPE: &str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    pub(super) fn new(admin: &Admin) -> Self {
        let mut registry = Registry::with_prefix("plenum");
        registry.register_collector(Box::new(Readings {
            svr_id: admin.config.server.id.to_string(),
            meters: admin.meters.clone(),
            load: admin.load.clone(),
            state: admin.state.clone(),
            watchers: admin.watchers.clone(),
            started: admin.started,
            cluster_meters: admin.cluster_meters.clone(),
            shards: admin.shards.clone(),
        }));
        Self(registry)
    }

    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.0).expect("writing to a string does not fail");
        text
    }
}

/// Where the numbers come from.
struct Readings {
    svr_id: String,
    meters: Arc<Meters>,
    load: Arc<ServerLoad>,
    state: Arc<ServerState>,
    watchers: Watchers,
    started: Instant,
    cluster_meters: Arc<ClusterMeters>,
    shards: Arc<dyn ShardQueries>,
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").finish_non_exhaustive()
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_cores(&mut encoder)?;
        self.encode_lateness(&mut encoder)?;
        self.encode_sip(&mut encoder)?;
        self.encode_server(&mut encoder)?;
        self.encode_cluster(&mut encoder)
    }
}

impl Readings {
    fn encode_cores(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for core in &self.meters.cores {
                let label = [("core", core.core)];
                metric
                    .encode_family(&label)?
                    .encode_counter::<NoLabelSet, _, u64>(&read(core), None)?;
            }
        }
        let help = "SIP messages that did no caller any good, by what they were";
        let mut metric =
            encoder.encode_descriptor("sip_unwanted", help, None, MetricType::Counter)?;
        for core in &self.meters.cores {
            for what in Unwanted::ALL {
                let labels = [
                    ("core", core.core.to_string()),
                    ("reason", what.name().to_owned()),
                ];
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&core.unwanted.get(what), None)?;
            }
        }
        let help = "Time in which the core's thread had work";
        let mut metric =
            encoder.encode_descriptor("busy_seconds", help, None, MetricType::Counter)?;
        for core in &self.meters.cores {
            let label = [("core", core.core)];
            let seconds = core.phases.busy() as f64 / 1e9;
            metric
                .encode_family(&label)?
                .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        let help = "CPU time of the core's thread, as the kernel counts it";
        let mut metric =
            encoder.encode_descriptor("cpu_seconds", help, None, MetricType::Counter)?;
        for core in &self.meters.cores {
            let label = [("core", core.core)];
            let seconds = core.cpu_ns.get() as f64 / 1e9;
            metric
                .encode_family(&label)?
                .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        let help = "Where the time of the core's thread went";
        let mut metric =
            encoder.encode_descriptor("phase_seconds", help, None, MetricType::Counter)?;
        for core in &self.meters.cores {
            for phase in Phase::ALL {
                let labels = [
                    ("core", core.core.to_string()),
                    ("phase", phase.name().to_owned()),
                ];
                let seconds = core.phases.get(phase) as f64 / 1e9;
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
            }
        }
        for (name, help, read) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for core in &self.meters.cores {
                let label = [("core", core.core)];
                metric.encode_family(&label)?.encode_gauge(&read(core))?;
            }
        }
        Ok(())
    }

    fn encode_lateness(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long after their time the ticks began";
        let mut metric = encoder.encode_descriptor(
            "tick_lateness_seconds",
            help,
            None,
            MetricType::Histogram,
        )?;
        for core in &self.meters.cores {
            let reading = core.tick_lateness.read();
            // The format wants the count of each bucket alone and an infinite last one.
            let mut below = 0;
            let mut buckets: Vec<(f64, u64)> = reading
                .cumulative()
                .map(|(bound_us, count)| {
                    let alone = count - below;
                    below = count;
                    (bound_us as f64 / 1e6, alone)
                })
                .collect();
            buckets.push((f64::INFINITY, reading.count() - below));
            let label = [("core", core.core)];
            metric
                .encode_family(&label)?
                .encode_histogram::<NoLabelSet>(
                    reading.sum_us() as f64 / 1e6,
                    reading.count(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }

    fn encode_sip(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (way, help, counts) in SIP_COUNTS {
            let cores = || self.meters.cores.iter().map(counts);
            let requests = cores().map(SipCounts::requests);
            let (name, help_requests) = (
                format!("sip_requests_{way}"),
                format!("SIP requests {help}"),
            );
            encode_sums(encoder, &name, &help_requests, "method", requests)?;
            let responses = cores().map(SipCounts::responses);
            let (name, help_responses) = (
                format!("sip_responses_{way}"),
                format!("SIP responses {help}"),
            );
            encode_sums(encoder, &name, &help_responses, "status", responses)?;
        }
        let help = "Transactions of the SIP stack, those that only absorb retransmissions included";
        let mut metric =
            encoder.encode_descriptor("sip_transactions", help, None, MetricType::Gauge)?;
        for core in &self.meters.cores {
            for (role, gauge) in [
                ("server", &core.sip_server_transactions),
                ("client", &core.sip_client_transactions),
            ] {
                let labels = [("core", core.core.to_string()), ("role", role.to_owned())];
                metric.encode_family(&labels)?.encode_gauge(&gauge.get())?;
            }
        }
        let help = "From the arrival of an INVITE to its final response";
        let mut metric =
            encoder.encode_descriptor("call_setup_seconds", help, None, MetricType::Histogram)?;
        for core in &self.meters.cores {
            let times = &core.call_setup;
            let buckets: Vec<_> = times.buckets().collect();
            let label = [("core", core.core)];
            metric
                .encode_family(&label)?
                .encode_histogram::<NoLabelSet>(times.sum_s(), times.count(), &buckets, None)?;
        }
        Ok(())
    }

    fn encode_server(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            (
                "load",
                "Weighted messages and packets a second, smoothed",
                f64::from(self.load.current()),
            ),
            (
                "load_max",
                "Load from which new calls are sent elsewhere",
                f64::from(self.load.max()),
            ),
            (
                "load_min",
                "Load below which the server may be drained",
                f64::from(self.load.min()),
            ),
            (
                "participants_fit",
                "Participants that still fit, if they cost what those here do",
                f64::from(self.load.fits()),
            ),
            (
                "hot_ratio",
                "Utilisation of the busiest core",
                self.load.hot(),
            ),
            (
                "ready",
                "1 while calls are taken",
                f64::from(u8::from(self.state.get() == State::Active)),
            ),
            (
                "trace_watchers",
                "Who watches SIP messages",
                self.watchers.len() as f64,
            ),
            (
                "uptime_seconds",
                "Time since the start",
                self.started.elapsed().as_secs_f64(),
            ),
        ];
        for (name, help, value) in gauges {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("svr_id", &self.svr_id),
        ];
        encoder
            .encode_descriptor("build", "What is running", None, MetricType::Info)?
            .encode_info(&labels)
    }
}

/// One line for each label, which comes at the same place from every core.
fn encode_sums<L: AsRef<str>>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    cores: impl Iterator<Item = impl Iterator<Item = (L, u64)>>,
) -> fmt::Result {
    let mut sums: Vec<(L, u64)> = Vec::new();
    for core in cores {
        for (place, (value, count)) in core.enumerate() {
            match sums.get_mut(place) {
                Some((_, sum)) => *sum = sum.wrapping_add(count),
                None => sums.push((value, count)),
            }
        }
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in sums {
        let labels = [(label, value.as_ref())];
        metric
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}
