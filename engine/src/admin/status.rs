//! `/api/v1/status`: the server in one page, written here and read by `plenum top`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use cfw::dist_conf::message::ReservedSvr;

use super::{Admin, Sample};
use crate::cluster::agent::Glimpse;
use crate::cluster::{Life, ServerView};
use crate::meters::{Phase, ServerLoad, ServerState, State};

/// The answer, field by field as outside readers know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub svr_id: String,
    pub version: String,
    /// `starting`, `active`, `full` (active, but at max-load), `draining` or `standby`.
    pub state: String,
    pub uptime_s: u64,
    pub load: LoadStatus,
    pub conferences: u64,
    pub participants: u64,
    pub cores: Vec<CoreStatus>,
    pub cluster: ClusterView,
}

/// Loads in units: weighted messages and packets a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadStatus {
    pub current: u32,
    pub max: u32,
    pub min: u32,
    /// Utilisation of the busiest core, 0 to 1.
    pub hot: f64,
    /// Participants that still fit, if they cost what those here do.
    #[serde(default)]
    pub fits: u32,
}

/// One core's last second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreStatus {
    pub core: usize,
    pub load: u32,
    pub sip_msgs_per_s: f64,
    pub rtp_packets_per_s: f64,
    pub busy: f64,
    pub conferences: u64,
    pub participants: u64,
    pub tick_late_us_p99: u64,
    /// Where its time went, as shares of it, by [`Phase`] name.
    #[serde(default)]
    pub phases: BTreeMap<String, f64>,
}

/// The other servers as this one knows them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    pub servers: Vec<PeerView>,
    pub reserved: Vec<ReservedView>,
}

/// A server with a control channel to this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    pub svr_id: String,
    /// Where its control channels go.
    pub uri: String,
    /// As it says: `active`, `full`, `draining` or `standby`; or `suspect` while it is not heard of, and
    /// `dead` when no server hears of it.
    pub state: String,
    pub load: u32,
    pub max: u32,
    pub min: u32,
    /// Age of its last load report in milliseconds; null = there was none yet.
    pub age_ms: Option<u64>,
}

impl ClusterView {
    /// What the cluster's thread has shown last.
    pub fn of(glimpse: &Glimpse) -> Self {
        let since = glimpse.at.map(|at| at.elapsed()).unwrap_or_default();
        let server = |server: &ServerView| PeerView {
            svr_id: server.svr_id.to_string(),
            uri: server.cfw_uri.clone(),
            state: match server.life {
                Life::Alive => server.state.to_string(),
                Life::Suspect => "suspect".to_owned(),
                Life::Dead => "dead".to_owned(),
            },
            load: server.load,
            max: server.max,
            min: server.min,
            age_ms: server.age.map(|age| (age + since).as_millis() as u64),
        };
        let reserved = |server: &ReservedSvr| ReservedView {
            svr_id: server.svr_id.to_string(),
            uri: server.uri.clone().unwrap_or_default(),
            state: server.state.as_str().to_owned(),
        };
        Self {
            servers: glimpse.servers.iter().map(server).collect(),
            reserved: glimpse.reserved.iter().map(reserved).collect(),
        }
    }
}

/// A server that may be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReservedView {
    pub svr_id: String,
    pub uri: String,
    pub state: String,
}

impl Status {
    pub(super) fn new(admin: &Admin, sample: &Sample) -> Self {
        let load = &admin.load;
        let gauges = || admin.meters.cores.iter();
        Self {
            svr_id: admin.config.server.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state_name(&admin.state, load).to_owned(),
            uptime_s: admin.started.elapsed().as_secs(),
            load: LoadStatus {
                current: load.current(),
                max: load.max(),
                min: load.min(),
                hot: rounded(load.hot(), 1_000.0),
                fits: load.fits(),
            },
            // Now, not at the last sample: who joins and asks at once is counted.
            conferences: gauges().map(|core| core.conferences.get()).sum(),
            participants: gauges().map(|core| core.participants.get()).sum(),
            cores: gauges()
                .zip(&sample.cores)
                .map(|(meters, sample)| CoreStatus {
                    core: meters.core,
                    load: sample.load.round() as u32,
                    sip_msgs_per_s: rounded(sample.sip_msgs_per_s, 10.0),
                    rtp_packets_per_s: rounded(sample.rtp_packets_per_s, 10.0),
                    busy: rounded(sample.busy, 1_000.0),
                    conferences: meters.conferences.get(),
                    participants: meters.participants.get(),
                    tick_late_us_p99: sample.tick_late_us_p99,
                    phases: Phase::ALL
                        .iter()
                        .zip(sample.phases)
                        .map(|(phase, share)| (phase.name().to_owned(), rounded(share, 10_000.0)))
                        .collect(),
                })
                .collect(),
            cluster: admin.shards.cluster(),
        }
    }
}

/// What the server is doing, in a word.
pub(super) fn state_name(state: &ServerState, load: &ServerLoad) -> &'static str {
    match state.get() {
        State::Active if load.is_full() => "full",
        state => state.as_str(),
    }
}

/// To so many parts of one: nobody reads sixteen digits of a measurement.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
