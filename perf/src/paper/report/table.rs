//! The report for people.

use std::collections::BTreeMap;
use std::fmt;

use super::compare::{Compared, Comparison, Control, Gain, Side};
use super::{Outcome, Report, Row, Typical, Variant};

/// Beyond this the machine was busy with something else, and delays are its own.
const GENERATOR_GAP_MS_MAX: f64 = 25.0;

/// What a table is about.
struct Subject<'a> {
    name: &'static str,
    control: Option<&'a Control>,
    delay: fn(&Side) -> Option<Typical>,
    gain: fn(&Comparison) -> Gain,
    /// The service's delays between servers, where there are such.
    far: Option<fn(&Side) -> Option<Typical>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (outcome, compared) in self.outcomes.iter().zip(&self.compared) {
            write!(f, "max-load {}", outcome.series.max_load)?;
            match outcome.quota {
                Some(quota) => write!(f, ", every server has {quota}")?,
                None => write!(f, ", servers share a processor without quotas")?,
            }
            writeln!(f, "; rounds: {}, of which the median", self.rounds)?;
            let subjects = [
                Subject {
                    name: "SIP",
                    control: compared.sip_control.as_ref(),
                    delay: |side| side.sip,
                    gain: |comparison| comparison.sip,
                    far: None,
                },
                Subject {
                    name: "media",
                    control: compared.media_control.as_ref(),
                    delay: |side| side.media,
                    gain: |comparison| comparison.media,
                    far: Some(|side| side.far),
                },
            ];
            for subject in &subjects {
                table(f, compared, subject)?;
            }
            flatness(f, compared)?;
            trouble(f, outcome)?;
            writeln!(f)?;
        }
        writeln!(f, "Servers: {}.", self.held_by)?;
        writeln!(f, "Where this is not the paper's experiment:")?;
        for difference in &self.differences {
            writeln!(f, "- {difference}")?;
        }
        for figure in &self.figures {
            writeln!(f, "wrote {figure}")?;
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, compared: &Compared, subject: &Subject<'_>) -> fmt::Result {
    let name = subject.name;
    writeln!(
        f,
        "  {name} delay, ms: the median of the seconds' means (and p99)"
    )?;
    let far = subject.far.map_or("", |_| "        (other)");
    writeln!(
        f,
        "  users  servers         central         service{far}  improvement, %  published"
    )?;
    for comparison in &compared.steps {
        writeln!(f, "{}", line(comparison, subject))?;
    }
    let users = compared.steps.first().map_or(0, |step| step.users);
    match subject.control {
        Some(control) => {
            let rounds = control.rounds.iter().map(|round| format!("{round:.1}"));
            let rounds: Vec<String> = rounds.collect();
            writeln!(
                f,
                "  control: at {users} users both are one server, and the service is faster by {} %, which should be 0; \
                 a factor of up to {:.2} is noise",
                rounds.join(", "),
                control.factor
            )
        }
        None => writeln!(
            f,
            "  no control: at {users} users there are not two arms of one server with everybody in"
        ),
    }
}

fn line(comparison: &Comparison, subject: &Subject<'_>) -> String {
    let delay = |delay: Option<Typical>| {
        let text = |delay: Typical| format!("{:.1} ({:.1})", delay.median_second_ms, delay.p99_ms);
        delay.map_or_else(|| "-".to_owned(), text)
    };
    let of = |side: Option<Side>| delay(side.and_then(|side| (subject.delay)(&side)));
    let Comparison {
        users,
        central,
        service,
        ..
    } = *comparison;
    let servers = service.map_or_else(|| "-".to_owned(), |side| side.servers.to_string());
    let gain = (subject.gain)(comparison);
    let here = gain.here.map_or_else(
        || "-".to_owned(),
        |here| format!("{}{here:.1}", if gain.is_noise { "noise: " } else { "" }),
    );
    let published = gain
        .published
        .map_or_else(|| "-".to_owned(), |published| format!("{published:.1}"));
    let mut line = format!(
        "  {users:>5} {servers:>8} {:>15} {:>15}",
        of(central),
        of(service)
    );
    if let Some(far) = subject.far {
        let far = service.and_then(|side| far(&side));
        line += &format!(" {:>14}", delay(far));
    }
    line += &format!(" {here:>15} {published:>10}");
    for (name, side) in [("central", central), ("service", service)] {
        if let Some(side) = side.filter(|side| !side.is_whole()) {
            line += &format!("  {name}: {} of {users} up", side.up);
        }
    }
    line
}

/// How the service's delays at the last step compare with those of its first server alone.
fn flatness(f: &mut fmt::Formatter<'_>, compared: &Compared) -> fmt::Result {
    let side = |step: Option<&Comparison>| step?.service.filter(Side::is_whole);
    let ends = side(compared.steps.first()).zip(side(compared.steps.last()));
    let Some((first, last)) = ends.filter(|(first, last)| first.users < last.users) else {
        return Ok(());
    };
    let times = |delay: fn(&Side) -> Option<Typical>| {
        let times = delay(&first)
            .zip(delay(&last))
            .map(|(first, last)| last.median_second_ms / first.median_second_ms);
        times.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}"))
    };
    writeln!(
        f,
        "  the service's delays at {} users are those at {} times {} (SIP) and {} (media, on one server {})",
        last.users,
        first.users,
        times(|side| side.sip),
        times(|side| side.media),
        times(|side| side.near),
    )
}

/// Who did not get in, what was lost, and what the servers and the generator were short of.
fn trouble(f: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    for (variant, name) in [(Variant::Central, "central"), (Variant::Service, "service")] {
        for &users in &outcome.series.steps {
            let rows: Vec<&Row> = outcome.rows(variant, users).collect();
            let said = troubles(&rows);
            if !said.is_empty() {
                writeln!(f, "  {name} at {users}: {}", said.join("; "))?;
            }
        }
    }
    Ok(())
}

/// Of one step: counts are those of all rounds, shares those of the worst.
fn troubles(rows: &[&Row]) -> Vec<String> {
    let sum = |count: fn(&Row) -> u64| rows.iter().map(|row| count(row)).sum::<u64>();
    let max = |value: fn(&Row) -> f64| rows.iter().map(|row| value(row)).fold(0.0, f64::max);
    let mut said = Vec::new();
    if let Some(row) = rows.iter().min_by_key(|row| row.up)
        && row.up != row.users
    {
        said.push(format!("{} of {} users are in", row.up, row.users));
    }
    let missing = max(Row::missing);
    if missing > 0.001 {
        said.push(format!("{:.1} % of the packets are missing", missing * 1e2));
    }
    let starved = sum(|row| row.starved);
    if starved > 0 {
        said.push(format!("{starved} times a caller got nothing for 100 ms"));
    }
    let answered = |delay: Option<Typical>| delay.map_or(0, |delay| delay.count);
    let (bursts, expected) = (
        rows.iter().map(|row| answered(row.media)).sum::<u64>(),
        sum(|row| row.bursts_expected),
    );
    if (bursts as f64) < 0.95 * expected as f64 {
        said.push(format!("media: {bursts} of {expected} bursts got through"));
    }
    let echoes = sum(|row| row.echoes);
    if echoes > 0 {
        let most = rows.iter().map(|row| row.echoes_max).max().unwrap_or(0);
        said.push(format!(
            "talkers hear themselves in {echoes} packets, {most} of one"
        ));
    }
    let (options, expected) = (
        rows.iter().map(|row| answered(row.sip)).sum::<u64>(),
        sum(|row| row.options_sent),
    );
    if (options as f64) < 0.95 * expected as f64 {
        said.push(format!("{options} of {expected} OPTIONS answered with 200"));
    }
    let failed = sum(|row| row.options_failed);
    if failed > 0 {
        said.push(format!("{failed} OPTIONS failed"));
    }
    let unanswered = sum(|row| row.unanswered as u64);
    if unanswered > 0 {
        said.push(format!("{unanswered} OPTIONS not answered at the end"));
    }
    let cpu = max(|row| row.generator_cpu);
    if cpu > 0.85 {
        let cpu = cpu * 1e2;
        said.push(format!("the callers' processor is {cpu:.0} % busy"));
    }
    let gap_ms = max(|row| row.generator_gap_ms);
    if gap_ms > GENERATOR_GAP_MS_MAX {
        said.push(format!(
            "the callers had no processor for {gap_ms:.0} ms: other programs are in the way"
        ));
    }
    let mut stopped = BTreeMap::<&str, f64>::new();
    for server in rows.iter().flat_map(|row| &row.servers) {
        let worst = stopped.entry(&server.name).or_default();
        *worst = worst.max(server.throttled);
    }
    stopped.retain(|_, share| *share > 0.05);
    said.extend(
        stopped.into_iter().map(|(name, share)| {
            format!("{name} is stopped in {:.0} % of its periods", share * 1e2)
        }),
    );
    said
}
