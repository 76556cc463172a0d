//! What the rooms came to, as a table and as one line of JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::caller::Caller;
use super::media::Media;

/// Above these the generator may have caused what it measured.
const OWN_CPU_MAX: f64 = 0.9;
const OWN_GAP_MAX: Duration = Duration::from_millis(20);

/// What the server's process used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    /// CPU seconds per second.
    pub(super) cpu: f64,
    pub(super) resident_bytes: u64,
    /// Since before anybody called.
    pub(super) grown_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    server: String,
    rooms: usize,
    participants: usize,
    talkers: usize,
    codec: &'static str,
    ptime_ms: u32,
    seconds: f64,
    packets_expected: u64,
    packets_received: u64,
    packets_lost: u64,
    packets_late: u64,
    /// Times a listener got nothing for 100 ms.
    starved: u64,
    /// Packets in which a talker of the room was not to be heard.
    talker_missing: u64,
    /// Packets in which a talker heard himself.
    self_heard: u64,
    delay_ms_p50: f64,
    delay_ms_p99: f64,
    delay_ms_p999: f64,
    delay_samples: u64,
    /// RFC 3550 A.8, the median caller's and the worst one's.
    jitter_ms_p50: f64,
    jitter_ms_max: f64,
    /// CPU seconds per second.
    generator_cpu: f64,
    /// Longest time in which the generator neither sent nor received.
    generator_gap_ms: f64,
    server_cpu: Option<f64>,
    server_cpu_us_per_participant_second: Option<f64>,
    /// As many as one core would carry if all of its time went the same way.
    server_participants_per_core: Option<f64>,
    server_resident_mib: Option<f64>,
    server_kib_per_participant: Option<f64>,
    /// The end of the histogram's bucket.
    server_tick_lateness_ms_p999: Option<f64>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        took: Duration,
        media: &Media,
        own_cpu: f64,
        server: Option<Server>,
        server_tick_lateness_ms_p999: Option<f64>,
    ) -> Self {
        let callers = media.callers();
        let heard = &media.heard;
        let sum = |count: fn(&Caller) -> u64| callers.iter().map(count).sum::<u64>();
        let mut jitter_us: Vec<f64> = callers
            .iter()
            .map(|caller| caller.counts().jitter_us)
            .collect();
        jitter_us.sort_unstable_by(f64::total_cmp);
        let delay_ms = |quantile| heard.delays_us.value_at_quantile(quantile) as f64 / 1e3;
        let each = |whole: f64| whole / callers.len() as f64;
        Self {
            server: options.server.to_string(),
            rooms: options.rooms,
            participants: callers.len(),
            talkers: options.talkers,
            codec: options.codec.name(),
            ptime_ms: options.ptime,
            seconds: took.as_secs_f64(),
            packets_expected: (took.as_millis() as u64 / u64::from(options.ptime))
                * callers.len() as u64,
            packets_received: sum(|caller| caller.counts().received),
            packets_lost: sum(|caller| caller.counts().lost),
            packets_late: sum(|caller| caller.counts().late),
            starved: sum(Caller::starved),
            talker_missing: heard.missing,
            self_heard: sum(Caller::echoes),
            delay_ms_p50: delay_ms(0.5),
            delay_ms_p99: delay_ms(0.99),
            delay_ms_p999: delay_ms(0.999),
            delay_samples: heard.delays_us.len(),
            jitter_ms_p50: jitter_us[jitter_us.len() / 2] / 1e3,
            jitter_ms_max: jitter_us.last().map_or(0.0, |worst| worst / 1e3),
            generator_cpu: own_cpu,
            generator_gap_ms: media.gap_max.as_secs_f64() * 1e3,
            server_cpu: server.map(|server| server.cpu),
            server_cpu_us_per_participant_second: server.map(|server| each(server.cpu * 1e6)),
            server_participants_per_core: server.map(|server| callers.len() as f64 / server.cpu),
            server_resident_mib: server
                .map(|server| server.resident_bytes as f64 / f64::from(1 << 20)),
            server_kib_per_participant: server
                .map(|server| each(server.grown_bytes as f64 / 1024.0)),
            server_tick_lateness_ms_p999,
        }
    }

    pub(crate) fn participants(&self) -> usize {
        self.participants
    }

    pub(crate) fn delay_ms_p50(&self) -> f64 {
        self.delay_ms_p50
    }

    pub(crate) fn kib_per_participant(&self) -> Option<f64> {
        self.server_kib_per_participant
    }

    pub(crate) fn delay_ms_p99(&self) -> f64 {
        self.delay_ms_p99
    }

    /// Share of the packets that a listener missed.
    pub(crate) fn loss(&self) -> f64 {
        let missing = self.packets_expected.saturating_sub(
            // A packet may fall on either side of each end of the measurement.
            self.packets_received + 2 * self.participants as u64,
        );
        self.packets_lost.max(missing) as f64 / self.packets_expected.max(1) as f64
    }

    pub(crate) fn starved(&self) -> u64 {
        self.starved
    }

    pub(crate) fn tick_lateness_ms_p999(&self) -> Option<f64> {
        self.server_tick_lateness_ms_p999
    }

    pub(crate) fn server_cpu(&self) -> Option<f64> {
        self.server_cpu
    }

    pub(crate) fn participants_per_core(&self) -> Option<f64> {
        self.server_participants_per_core
    }

    /// The generator had no time left, so that these figures are its own.
    pub(crate) fn generator_is_the_bottleneck(&self) -> bool {
        self.generator_cpu > OWN_CPU_MAX || self.generator_gap_ms > OWN_GAP_MAX.as_secs_f64() * 1e3
    }

    /// Everybody got everything: every talker in every packet, nobody himself.
    pub(crate) fn holds(&self) -> bool {
        let nothing_wrong = [
            self.packets_lost,
            self.starved,
            self.talker_missing,
            self.self_heard,
        ] == [0; 4];
        // A packet may fall on either side of each end of the measurement.
        nothing_wrong
            && self.packets_received + 2 * self.participants as u64 >= self.packets_expected
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and names always have a JSON form")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rooms,
            participants,
            talkers,
            codec,
            ptime_ms,
            seconds,
            ..
        } = self;
        writeln!(
            f,
            "{participants} callers in {rooms} rooms, {talkers} talkers each, {codec} {ptime_ms} ms, {seconds:.1} s"
        )?;
        writeln!(
            f,
            "  packets    {} of {}, {} lost, {} late, {} starved listeners",
            self.packets_received,
            self.packets_expected,
            self.packets_lost,
            self.packets_late,
            self.starved
        )?;
        writeln!(
            f,
            "  heard      {} packets without a talker, {} with oneself",
            self.talker_missing, self.self_heard
        )?;
        writeln!(
            f,
            "  delay      p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms ({} bursts)",
            self.delay_ms_p50, self.delay_ms_p99, self.delay_ms_p999, self.delay_samples
        )?;
        writeln!(
            f,
            "  jitter     {:.2} ms for half of them, {:.2} ms at worst",
            self.jitter_ms_p50, self.jitter_ms_max
        )?;
        if let (Some(cpu), Some(each), Some(core), Some(memory), Some(own)) = (
            self.server_cpu,
            self.server_cpu_us_per_participant_second,
            self.server_participants_per_core,
            self.server_resident_mib,
            self.server_kib_per_participant,
        ) {
            writeln!(
                f,
                "  server     {:.1} % of a core, {each:.0} µs per participant and second: {core:.0} per core; {memory:.1} MiB, {own:.1} KiB each",
                cpu * 1e2
            )?;
        }
        if let Some(ms) = self.server_tick_lateness_ms_p999 {
            writeln!(f, "  ticks      p99.9 at most {ms:.1} ms late")?;
        }
        write!(
            f,
            "  generator  {:.1} % of a core, away for {:.1} ms at most",
            self.generator_cpu * 1e2,
            self.generator_gap_ms
        )?;
        if self.generator_is_the_bottleneck() {
            write!(f, ": it is the bottleneck, these figures are its own")?;
        }
        Ok(())
    }
}
