//! The cluster's metrics: what a scaler and an alarm read.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Readings;
use crate::admin::ClusterView;
use crate::meters::ClusterMeters;

type Reader = fn(&ClusterMeters) -> u64;

/// The text format appends `_total`.
const COUNTERS: [(&str, &str, Reader); 6] = [
    (
        "cluster_messages_received",
        "Requests and responses of other servers",
        |meters| meters.messages_in.get(),
    ),
    (
        "cluster_messages_sent",
        "Requests and responses to other servers",
        |meters| meters.messages_out.get(),
    ),
    (
        "cluster_bytes_received",
        "Bytes of control channels received",
        |meters| meters.bytes_in.get(),
    ),
    (
        "cluster_bytes_sent",
        "Bytes of control channels sent",
        |meters| meters.bytes_out.get(),
    ),
    (
        "cluster_channels_opened",
        "Control channels that came up",
        |meters| meters.channels_opened.get(),
    ),
    (
        "cluster_refused",
        "INVITEs and connections of control channels refused",
        |meters| meters.refused.get(),
    ),
];

const GAUGES: [(&str, &str, Reader); 3] = [
    (
        "cluster_channels",
        "Control channels that are up",
        |meters| meters.channels.get(),
    ),
    (
        "cluster_trunks",
        "Calls that carry a conference's sound to another server",
        |meters| meters.trunks.get(),
    ),
    (
        "cluster_reserved_free",
        "Reserved servers that can be added",
        |meters| meters.reserved_free.get(),
    ),
];

/// Every state that a server can be in, so that a count that falls to none is still told.
const STATES: [&str; 6] = ["active", "full", "draining", "standby", "suspect", "dead"];

/// Loads of one server.
struct Loads<'a> {
    svr_id: &'a str,
    state: &'a str,
    load: u32,
    max: u32,
    min: u32,
}

type LoadReader = fn(&Loads<'_>) -> u32;

/// Of each server.
const LOADS: [(&str, &str, LoadReader); 3] = [
    ("cluster_load", "Load of each server", |server| server.load),
    ("cluster_load_max", "max-load of each server", |server| {
        server.max
    }),
    ("cluster_load_min", "min-load of each server", |server| {
        server.min
    }),
];

impl Readings {
    pub(super) fn encode_cluster(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let meters = &self.cluster_meters;
        for (name, help, read) in COUNTERS {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&read(meters), None)?;
        }
        for (name, help, read) in GAUGES {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&read(meters))?;
        }
        let help = "What was decided over callers, users and servers";
        let mut metric =
            encoder.encode_descriptor("cluster_decisions", help, None, MetricType::Counter)?;
        for (what, count) in meters.decisions() {
            metric
                .encode_family(&[("what", what)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        self.encode_servers(encoder, &self.shards.cluster())
    }

    /// This server and the others.
    fn encode_servers(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        cluster: &ClusterView,
    ) -> fmt::Result {
        let own = Loads {
            svr_id: &self.svr_id,
            state: self.state_name(),
            load: self.load.current(),
            max: self.load.max(),
            min: self.load.min(),
        };
        let others = cluster.servers.iter().map(|server| Loads {
            svr_id: &server.svr_id,
            state: &server.state,
            load: server.load,
            max: server.max,
            min: server.min,
        });
        let servers: Vec<Loads<'_>> = std::iter::once(own).chain(others).collect();
        let mut counts: BTreeMap<&str, u64> = STATES.into_iter().map(|state| (state, 0)).collect();
        for server in &servers {
            *counts.entry(server.state).or_default() += 1;
        }
        let help = "Servers by their state, this one included";
        let mut metric =
            encoder.encode_descriptor("cluster_servers", help, None, MetricType::Gauge)?;
        for (state, count) in counts {
            metric
                .encode_family(&[("state", state)])?
                .encode_gauge(&count)?;
        }
        for (name, help, read) in LOADS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for server in &servers {
                metric
                    .encode_family(&[("svr_id", server.svr_id)])?
                    .encode_gauge(&u64::from(read(server)))?;
            }
        }
        // What a scaler compares with one number: it adds servers above it, and takes them away below another.
        let takes_calls = |server: &&Loads<'_>| matches!(server.state, "active" | "full");
        let sum = |read: fn(&Loads<'_>) -> u32| -> f64 {
            let taking = servers.iter().filter(takes_calls);
            taking.map(|server| f64::from(read(server))).sum()
        };
        let max = sum(|server| server.max);
        let ratio = if max > 0.0 {
            sum(|server| server.load) / max
        } else {
            0.0
        };
        let help = "Load of the servers that take calls, as a share of what they carry together";
        encoder
            .encode_descriptor("cluster_load_ratio", help, None, MetricType::Gauge)?
            .encode_gauge(&ratio)
    }

    fn state_name(&self) -> &'static str {
        crate::admin::status::state_name(&self.state, &self.load)
    }
}
