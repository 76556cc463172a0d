//! Two readings of the counters make rates, and rates make the load.
//!
//! ```text
//! load of a core = w_sip·(SIP in + out)/s + w_audio·(RTP in + out)/s + w_video·(video in + out)/s
//! load           = sum over the cores, smoothed
//! hot            = utilisation of the busiest core
//! ```
//! Smoothing each core and then adding is the same as smoothing the sum, and lets the cores' loads
//! add up to the server's.

use std::{sync::Arc, time::Instant};

use crate::meters::{CoreMeters, EWMA_ALPHA, LatenessReading, Meters, Phase, ServerLoad};

/// Fewer participants say nothing about what one costs.
const PARTICIPANTS_MIN: u64 = 50;

/// One core between two readings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CoreSample {
    /// Smoothed, in units a second.
    pub load: f64,
    pub sip_msgs_per_s: f64,
    /// Audio and video, in and out.
    pub rtp_packets_per_s: f64,
    /// Share of the time the core's thread had work, 0 to 1.
    pub busy: f64,
    /// Shares of the time, in the order of [`Phase::ALL`].
    pub phases: [f64; Phase::ALL.len()],
    pub tick_late_us_p99: u64,
}

/// All cores between two readings, in the order of the shards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    pub cores: Vec<CoreSample>,
}

/// Reads the meters once a second and writes the server's load.
#[derive(Debug)]
pub struct Sampler {
    meters: Arc<Meters>,
    load: Arc<ServerLoad>,
    read_at: Instant,
    previous: Vec<Reading>,
    sample: Sample,
    /// Share of a core that a participant takes, smoothed; None until it could be measured.
    busy_each: Option<f64>,
}

impl Sampler {
    /// The first reading, to which the first sample is compared.
    pub fn new(meters: Arc<Meters>, load: Arc<ServerLoad>, now: Instant) -> Self {
        let previous = meters.cores.iter().map(Reading::of).collect();
        let sample = Sample {
            cores: vec![CoreSample::default(); meters.cores.len()],
        };
        Self {
            meters,
            load,
            read_at: now,
            previous,
            sample,
            busy_each: None,
        }
    }

    /// The last sample; all zero before the first.
    pub fn latest(&self) -> &Sample {
        &self.sample
    }

    /// What happened since the last call. Without any time between them the last sample stands.
    pub fn sample(&mut self, now: Instant) -> &Sample {
        let seconds = now.saturating_duration_since(self.read_at).as_secs_f64();
        if seconds == 0.0 {
            return &self.sample;
        }
        self.read_at = now;
        let weights = self.load.weights();
        for ((meters, previous), sample) in self
            .meters
            .cores
            .iter()
            .zip(&mut self.previous)
            .zip(&mut self.sample.cores)
        {
            let reading = Reading::of(meters);
            let rate = |now: u64, before: u64| now.wrapping_sub(before) as f64 / seconds;
            let sip = rate(reading.sip, previous.sip);
            let audio = rate(reading.audio, previous.audio);
            let video = rate(reading.video, previous.video);
            let load = weights.sip * sip + weights.audio * audio + weights.video * video;
            sample.load += EWMA_ALPHA * (load - sample.load);
            sample.sip_msgs_per_s = sip;
            sample.rtp_packets_per_s = audio + video;
            sample.phases = std::array::from_fn(|phase| {
                rate(reading.phases_ns[phase], previous.phases_ns[phase]) / 1e9
            });
            let idle = sample.phases[Phase::Idle as usize];
            sample.busy = (sample.phases.iter().sum::<f64>() - idle).min(1.0);
            sample.tick_late_us_p99 = reading.lateness.since(&previous.lateness).quantile_us(0.99);
            *previous = reading;
        }
        let load: f64 = self.sample.cores.iter().map(|core| core.load).sum();
        let hot = self
            .sample
            .cores
            .iter()
            .map(|core| core.busy)
            .fold(0.0, f64::max);
        self.load.update(load.round() as u32, hot);
        self.measure_cost();
        self.load.set_fits(self.fits());
        &self.sample
    }

    fn measure_cost(&mut self) {
        let participants: u64 = self
            .meters
            .cores
            .iter()
            .map(|core| core.participants.get())
            .sum();
        let cores = &self.sample.cores;
        let load: f64 = cores.iter().map(|core| core.load).sum();
        let busy: f64 = cores.iter().map(|core| core.busy).sum();
        let each = load / participants as f64;
        // What the next caller is expected to cost may follow from few, once those there have been measured.
        let is_settled = f64::from(self.load.granted()) < load / 20.0;
        if participants > 0 && is_settled {
            let known = self.load.cost();
            self.load.set_cost(known + EWMA_ALPHA * (each - known));
        }
        // While media have only begun, nobody costs what he will.
        if participants < PARTICIPANTS_MIN || each < self.load.cost() / 4.0 {
            return;
        }
        let busy = busy / participants as f64;
        let smoothed = |known| known + EWMA_ALPHA * (busy - known);
        self.busy_each = Some(self.busy_each.map_or(busy, smoothed));
    }

    /// Participants that still fit: by load, and by the time that each core has left.
    fn fits(&self) -> u32 {
        let by_load =
            f64::from(self.load.max().saturating_sub(self.load.current())) / self.load.cost();
        let by_time = self.busy_each.map_or(f64::INFINITY, |cost| {
            let left = |core: &CoreSample| (self.load.hot_max() - core.busy).max(0.0);
            self.sample.cores.iter().map(left).sum::<f64>() / cost
        });
        by_load.min(by_time) as u32
    }
}

/// What one core had counted at one moment.
#[derive(Debug)]
struct Reading {
    sip: u64,
    audio: u64,
    video: u64,
    phases_ns: [u64; Phase::ALL.len()],
    lateness: LatenessReading,
}

impl Reading {
    fn of(core: &CoreMeters) -> Self {
        Self {
            sip: core.sip_received.get().wrapping_add(core.sip_sent.get()),
            audio: core.rtp_received.get().wrapping_add(core.rtp_sent.get()),
            video: core
                .video_received
                .get()
                .wrapping_add(core.video_sent.get()),
            phases_ns: core.phases.read(),
            lateness: core.tick_lateness.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{LoadConfig, Weights};
    use crate::meters::{Ledger, Phase};

    fn sampler(weights: Weights) -> (Arc<Meters>, Arc<ServerLoad>, Sampler, Instant) {
        let meters = Arc::new(Meters::new(&[0, 1]));
        let load = Arc::new(ServerLoad::new(&LoadConfig {
            max: 500,
            min: 0,
            hot_max: 0.9,
            weights,
        }));
        let now = Instant::now();
        let sampler = Sampler::new(meters.clone(), load.clone(), now);
        (meters, load, sampler, now)
    }

    #[test]
    fn rates_weights_and_the_hottest_core() {
        let (meters, load, mut sampler, now) = sampler(Weights {
            sip: 2.0,
            audio: 1.0,
            video: 0.5,
        });
        meters.cores[0].sip_received.add(10);
        meters.cores[0].sip_sent.add(10);
        meters.cores[0].rtp_received.add(100);
        meters.cores[0].rtp_sent.add(60);
        meters.cores[1].video_sent.add(80);
        for (core, busy_ms) in meters.cores.iter().zip([500, 1_500]) {
            let mut ledger = Ledger::new(now);
            ledger.lap_at(now + Duration::from_millis(busy_ms), core, Phase::Mix);
            ledger.lap_at(now + Duration::from_secs(2), core, Phase::Idle);
        }
        meters.cores[1].tick_lateness.record_us(3);

        let sample = sampler.sample(now + Duration::from_secs(2)).clone();
        assert_eq!(sample.cores[0].sip_msgs_per_s, 10.0);
        assert_eq!(sample.cores[0].rtp_packets_per_s, 80.0);
        assert_eq!(sample.cores[1].rtp_packets_per_s, 40.0);
        assert_eq!((sample.cores[0].busy, sample.cores[1].busy), (0.25, 0.75));
        assert_eq!(
            (
                sample.cores[0].tick_late_us_p99,
                sample.cores[1].tick_late_us_p99
            ),
            (0, 3)
        );
        // (2·10 + 80) and 0.5·40, of which the first sample counts three tenths.
        assert!((sample.cores[0].load - 30.0).abs() < 1e-9);
        assert!((sample.cores[1].load - 6.0).abs() < 1e-9);
        assert_eq!((load.current(), load.hot()), (36, 0.75));
    }

    #[test]
    fn what_still_fits_follows_from_what_those_here_cost() {
        let (meters, load, mut sampler, mut now) = sampler(Weights::default());
        load.configure(&LoadConfig {
            max: 100_000,
            min: 0,
            hot_max: 0.9,
            weights: Weights::default(),
        });
        now += Duration::from_secs(1);
        sampler.sample(now);
        assert_eq!(load.fits(), 1_000, "by load alone");
        // 200 participants of 100 packets a second use a tenth of each core.
        meters.cores[0].participants.set(200);
        for _ in 0..40 {
            meters.cores[0].rtp_received.add(10_000);
            meters.cores[0].rtp_sent.add(10_000);
            for core in &meters.cores {
                let mut ledger = Ledger::new(now);
                ledger.lap_at(now + Duration::from_millis(100), core, Phase::Mix);
                ledger.lap_at(now + Duration::from_secs(1), core, Phase::Idle);
            }
            now += Duration::from_secs(1);
            sampler.sample(now);
        }
        assert_eq!(load.fits(), 800, "load is scarcer than time");
        load.configure(&LoadConfig {
            max: 1_000_000,
            min: 0,
            hot_max: 0.9,
            weights: Weights::default(),
        });
        now += Duration::from_secs(1);
        sampler.sample(now);
        // Nothing ran in that second: two cores of 0.9 at 0.0007 each and falling.
        assert!((1_600..10_000).contains(&load.fits()), "{}", load.fits());
    }

    #[test]
    fn a_steady_rate_is_reached_and_left_smoothly() {
        let (meters, load, mut sampler, mut now) = sampler(Weights::default());
        for _ in 0..30 {
            meters.cores[0].rtp_received.add(600);
            now += Duration::from_secs(1);
            sampler.sample(now);
        }
        assert_eq!(load.current(), 600);
        assert!(load.is_full());
        for _ in 0..30 {
            now += Duration::from_secs(1);
            sampler.sample(now);
        }
        assert_eq!(load.current(), 0);
        assert!(!load.is_full());
    }

    #[test]
    fn no_time_no_change() {
        let (meters, _, mut sampler, now) = sampler(Weights::default());
        meters.cores[0].rtp_received.add(100);
        let first = sampler.sample(now + Duration::from_secs(1)).clone();
        meters.cores[0].rtp_received.add(100);
        assert_eq!(sampler.sample(now + Duration::from_secs(1)), &first);
    }
}
