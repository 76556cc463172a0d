//! What the rooms came to, as a table and as one line of JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::caller::{Caller, Counts, Heard};

/// Above this the generator may have caused what it measured.
const OWN_CPU_MAX: f64 = 0.85;

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
    spacing_deviation_ms: f64,
    /// CPU seconds per second.
    generator_cpu: f64,
    server_cpu: Option<f64>,
    server_cpu_us_per_participant_second: Option<f64>,
    server_resident_mib: Option<f64>,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        took: Duration,
        callers: &[Caller],
        heard: &Heard,
        own_cpu: f64,
        server: Option<(f64, u64)>,
    ) -> Self {
        let mut all = Counts::default();
        for counts in callers.iter().map(Caller::counts) {
            all.received += counts.received;
            all.lost += counts.lost;
            all.late += counts.late;
            // Who got nothing at all has no gaps to count.
            all.starved += counts.starved + u64::from(counts.received == 0);
            all.missing += counts.missing;
            all.echoes += counts.echoes;
            all.deviation_us += counts.deviation_us;
        }
        let delay_ms = |quantile| heard.delays_us.value_at_quantile(quantile) as f64 / 1e3;
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
            packets_received: all.received,
            packets_lost: all.lost,
            packets_late: all.late,
            starved: all.starved,
            talker_missing: all.missing,
            self_heard: all.echoes,
            delay_ms_p50: delay_ms(0.5),
            delay_ms_p99: delay_ms(0.99),
            delay_ms_p999: delay_ms(0.999),
            delay_samples: heard.delays_us.len(),
            spacing_deviation_ms: all.deviation_us as f64 / all.received.max(1) as f64 / 1e3,
            generator_cpu: own_cpu,
            server_cpu: server.map(|(cpu, _)| cpu),
            server_cpu_us_per_participant_second: server
                .map(|(cpu, _)| cpu * 1e6 / callers.len() as f64),
            server_resident_mib: server.map(|(_, bytes)| bytes as f64 / f64::from(1 << 20)),
        }
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
            "  spacing    {:.2} ms from ptime on average",
            self.spacing_deviation_ms
        )?;
        if let (Some(cpu), Some(each), Some(memory)) = (
            self.server_cpu,
            self.server_cpu_us_per_participant_second,
            self.server_resident_mib,
        ) {
            writeln!(
                f,
                "  server     {:.1} % of a core, {each:.0} µs per participant and second, {memory:.1} MiB",
                cpu * 1e2
            )?;
        }
        write!(
            f,
            "  generator  {:.1} % of a core",
            self.generator_cpu * 1e2
        )?;
        if self.generator_cpu > OWN_CPU_MAX {
            write!(f, ": it is the bottleneck, these figures are its own")?;
        }
        Ok(())
    }
}
