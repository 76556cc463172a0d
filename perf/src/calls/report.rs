//! What the calls came to, as a table and as one line of JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Options;
use super::tally::Tally;

/// Above this the generator may have caused what it measured.
const OWN_CPU_MAX: f64 = 0.85;

/// Later than this with one INVITE in a hundred, the load was not the one asked for.
const SEND_LAG_P99_MS_MAX: f64 = 10.0;

/// What is known of a run beside its calls.
pub(super) struct Run {
    pub(super) start: Instant,
    pub(super) took: Duration,
    /// CPU seconds per second while calls were begun.
    pub(super) own_cpu: f64,
    pub(super) server_cpu: Option<Duration>,
    /// Datagrams that found our receive buffers full.
    pub(super) dropped: u64,
    pub(super) unsent: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Times {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Times {
    fn of(times_us: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        Self {
            count: times_us.len(),
            p50: ms(times_us.value_at_quantile(0.5)),
            p99: ms(times_us.value_at_quantile(0.99)),
            p999: ms(times_us.value_at_quantile(0.999)),
            max: ms(times_us.max()),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        write!(
            f,
            "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms ({})",
            self.p50, self.p99, self.p999, self.max, self.count
        )
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    server: String,
    /// As asked for.
    rate: f64,
    hold_ms: u64,
    rooms: u64,
    seconds: f64,
    offered: u64,
    succeeded: u64,
    /// Redirects received, followed or not.
    redirected: u64,
    /// Calls that ended with a redirect because none was to be followed.
    sent_elsewhere: u64,
    failed: u64,
    failed_by: BTreeMap<String, u64>,
    /// Calls begun in a second, measured.
    offered_per_s: f64,
    /// Calls answered in a second, from the first INVITE to the last 200.
    answered_per_s: f64,
    invites_repeated: u64,
    byes_repeated: u64,
    late_answers: u64,
    strays: u64,
    invite_to_progress_ms: Times,
    /// As many as there were redirects.
    invite_to_redirect_ms: Times,
    invite_to_answer_ms: Times,
    bye_to_answer_ms: Times,
    send_lag_ms: Times,
    datagrams_dropped: u64,
    datagrams_unsent: u64,
    generator_cpu: f64,
    /// Why the generator, not the server, made these figures.
    generator_limit: Option<&'static str>,
    server_cpu_s: Option<f64>,
    server_cpu_us_per_call: Option<f64>,
}

impl Report {
    pub(super) fn new(options: &Options, run: &Run, tally: &Tally) -> Self {
        let per_s = |count: u64, last: Option<Instant>| {
            let took = last.map_or(Duration::ZERO, |last| last - run.start);
            // A single call has no rate.
            if took.is_zero() {
                0.0
            } else {
                count as f64 / took.as_secs_f64()
            }
        };
        let send_lag_ms = Times::of(&tally.send_lag);
        let generator_limit = if run.own_cpu > OWN_CPU_MAX {
            Some("its core is full")
        } else if run.dropped + run.unsent > 0 {
            Some("it lost datagrams")
        } else if send_lag_ms.p99 > SEND_LAG_P99_MS_MAX {
            Some("it sent late")
        } else {
            None
        };
        Self {
            server: options.server.to_string(),
            rate: options.rate,
            hold_ms: options.hold_ms,
            rooms: options.rooms,
            seconds: run.took.as_secs_f64(),
            offered: tally.offered,
            succeeded: tally.succeeded,
            redirected: tally.to_redirect.len(),
            sent_elsewhere: tally.sent_elsewhere,
            failed: tally.failures(),
            failed_by: tally
                .failed
                .iter()
                .map(|(failure, &count)| (failure.to_string(), count))
                .collect(),
            offered_per_s: per_s(tally.offered, tally.last_offered_at),
            answered_per_s: per_s(tally.to_answer.len(), tally.last_answer_at),
            invites_repeated: tally.invites_repeated,
            byes_repeated: tally.byes_repeated,
            late_answers: tally.late_answers,
            strays: tally.strays,
            invite_to_progress_ms: Times::of(&tally.to_progress),
            invite_to_redirect_ms: Times::of(&tally.to_redirect),
            invite_to_answer_ms: Times::of(&tally.to_answer),
            bye_to_answer_ms: Times::of(&tally.to_end),
            send_lag_ms,
            datagrams_dropped: run.dropped,
            datagrams_unsent: run.unsent,
            generator_cpu: run.own_cpu,
            generator_limit,
            server_cpu_s: run.server_cpu.map(|cpu| cpu.as_secs_f64()),
            server_cpu_us_per_call: run
                .server_cpu
                .map(|cpu| cpu.as_secs_f64() * 1e6 / tally.offered.max(1) as f64),
        }
    }

    /// Every call went through, or was sent elsewhere where that was not to be followed.
    pub(crate) fn holds(&self) -> bool {
        self.failed == 0 && self.offered > 0 && self.succeeded + self.sent_elsewhere == self.offered
    }

    pub(crate) fn to_json(&self) -> String {
        simd_json::to_string(self).expect("numbers and names always have a JSON form")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rooms = match self.rooms {
            0 => "a room each".to_owned(),
            rooms => format!("{rooms} rooms"),
        };
        writeln!(
            f,
            "{} calls at {:.0} a second, {rooms}, held {} ms, {:.1} s",
            self.offered, self.rate, self.hold_ms, self.seconds
        )?;
        writeln!(
            f,
            "  calls      {} succeeded, {} redirects received, {} sent elsewhere, {} failed",
            self.succeeded, self.redirected, self.sent_elsewhere, self.failed
        )?;
        for (name, count) in &self.failed_by {
            writeln!(f, "  failed     {count} with {name}")?;
        }
        writeln!(
            f,
            "  rate       {:.0} offered, {:.0} answered a second",
            self.offered_per_s, self.answered_per_s
        )?;
        writeln!(
            f,
            "  repeated   {} INVITE, {} BYE; {} answers after giving up, {} strays",
            self.invites_repeated, self.byes_repeated, self.late_answers, self.strays
        )?;
        writeln!(f, "  to 1xx     {}", self.invite_to_progress_ms)?;
        if self.redirected > 0 {
            writeln!(f, "  to 3xx     {}", self.invite_to_redirect_ms)?;
        }
        writeln!(f, "  to 200     {}", self.invite_to_answer_ms)?;
        writeln!(f, "  BYE to 200 {}", self.bye_to_answer_ms)?;
        writeln!(f, "  send lag   {}", self.send_lag_ms)?;
        if let (Some(cpu), Some(each)) = (self.server_cpu_s, self.server_cpu_us_per_call) {
            writeln!(f, "  server     {each:.1} µs a call, {cpu:.2} s CPU")?;
        }
        write!(
            f,
            "  generator  {:.1} % of a core",
            self.generator_cpu * 1e2
        )?;
        if self.datagrams_dropped + self.datagrams_unsent > 0 {
            write!(
                f,
                ", lost {} datagrams coming in and {} going out",
                self.datagrams_dropped, self.datagrams_unsent
            )?;
        }
        if let Some(limit) = self.generator_limit {
            write!(f, "; it is the bottleneck: {limit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(change: impl FnOnce(&mut Run, &mut Tally)) -> Report {
        let options = Options {
            server: "127.0.0.1:5060".parse().unwrap(),
            rate: 100.0,
            calls: None,
            seconds: 10,
            hold_ms: 0,
            rooms: 0,
            follow_redirects: false,
            timeout_ms: 32_000,
            core: None,
            pid: None,
        };
        let mut run = Run {
            start: Instant::now(),
            took: Duration::from_secs(10),
            own_cpu: 0.5,
            server_cpu: Some(Duration::from_millis(50)),
            dropped: 0,
            unsent: 0,
        };
        let mut tally = Tally::new();
        (tally.offered, tally.succeeded) = (1_000, 1_000);
        tally.last_offered_at = Some(run.start + Duration::from_secs(5));
        change(&mut run, &mut tally);
        Report::new(&options, &run, &tally)
    }

    #[test]
    fn a_run_holds_when_every_call_came_to_its_end() {
        let fine = report(|_, _| {});
        assert!(fine.holds());
        assert_eq!(fine.offered_per_s, 200.0);
        assert_eq!(fine.server_cpu_us_per_call, Some(50.0));
        assert!(report(|_, tally| (tally.succeeded, tally.sent_elsewhere) = (900, 100)).holds());
        assert!(!report(|_, tally| tally.succeeded = 999).holds());
        assert!(!report(|_, tally| (tally.offered, tally.succeeded) = (0, 0)).holds());
        let failed = report(|_, tally| tally.fail(super::super::tally::Failure::HungUp));
        assert!(!failed.holds());
        assert!(failed.to_string().contains("1 with BYE from the server"));
    }

    #[test]
    fn the_generator_says_when_it_is_in_the_way() {
        #[track_caller]
        fn check(said: Option<&str>, change: impl FnOnce(&mut Run, &mut Tally)) {
            let report = report(change);
            assert_eq!(report.generator_limit, said);
            assert_eq!(report.to_string().contains("bottleneck"), said.is_some());
        }
        let late_by = |ms: u64| {
            move |_: &mut Run, tally: &mut Tally| {
                tally.send_lag.record_n(100, 900).unwrap();
                tally.send_lag.record_n(ms * 1_000, 100).unwrap();
            }
        };
        check(None, late_by(9));
        let late = "it sent late";
        check(Some(late), late_by(11));
        check(Some("its core is full"), |run, _| run.own_cpu = 0.9);
        check(Some("it lost datagrams"), |run, _| run.dropped = 1);
        check(Some("it lost datagrams"), |run, _| run.unsent = 1);
    }
}
