use super::*;

fn delay(mean_ms: f64) -> Option<Delay> {
    Some(Delay {
        mean_ms,
        p99_ms: 2.0 * mean_ms,
        count: 100,
    })
}

pub(crate) fn row(users: usize, sip_ms: f64, media_ms: f64) -> Row {
    Row {
        users,
        up: users,
        sip: delay(sip_ms),
        invite: None,
        join: None,
        media: delay(media_ms),
        near: delay(media_ms),
        far: None,
        packets_received: 25_000,
        packets_expected: 25_000,
        packets_lost: 0,
        starved: 0,
        bursts_expected: 100,
        echoes: 0,
        echoes_max: 0,
        options_sent: 100,
        options_failed: 0,
        unanswered: 0,
        redirects: 0,
        refusals: 0,
        given_up: 0,
        hung_up: 0,
        generator_cpu: 0.1,
        generator_gap_ms: 1.0,
        servers: vec![ServerRow {
            name: "A".to_owned(),
            state: "full".to_owned(),
            load: 500,
            participants: 50,
            cpu: 0.05,
            cpu_of_quota: 0.5,
            throttled: 0.0,
        }],
    }
}

/// Both arms of the series 500, the service twice as fast from the second step on.
pub(crate) fn outcome() -> Outcome {
    let series = Series::of_paper(500, 0.1).unwrap();
    let arm = |variant, factor: f64| {
        let rows = series.steps.iter().enumerate().map(|(step, &users)| {
            let slower = 1.0 + step as f64 * factor;
            row(users, 2.0 * slower, 30.0 * slower)
        });
        Arm {
            variant,
            rows: rows.collect(),
        }
    };
    Outcome {
        arms: vec![arm(Variant::Central, 1.0), arm(Variant::Service, 0.0)],
        quota: Some(Quota::new(0.1, std::time::Duration::from_millis(10))),
        series,
    }
}

fn report(outcome: Outcome) -> Report {
    Report {
        held_by: "each held to its quota".to_owned(),
        packets_per_s: 100,
        room_size: 10,
        talkers: 2,
        options_every_ms: 2_000,
        seconds_per_step: 10,
        comparisons: vec![outcome.comparisons()],
        outcomes: vec![outcome],
        differences: vec!["everything".to_owned()],
        figures: Vec::new(),
    }
}

#[test]
fn improvements_stand_beside_those_published() {
    let comparisons = outcome().comparisons();
    let improvements: Vec<_> = comparisons
        .iter()
        .map(|comparison| comparison.sip_improvement.unwrap().round())
        .collect();
    assert_eq!(improvements, [0.0, 50.0, 67.0, 75.0, 80.0]);
    assert_eq!(comparisons[4].published.unwrap().media, Some(43.9));
    let text = report(outcome()).to_string();
    let last = text
        .lines()
        .find(|line| line.trim_start().starts_with("250"))
        .unwrap();
    let columns: Vec<&str> = last.split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "250", "10.0", "2.0", "1", "80.0", "39.5", "150.0", "30.0", "-", "80.0", "43.9"
        ]
    );
    assert!(
        text.contains("at 250 users are those at 50 times 1.00 (SIP)"),
        "{text}"
    );
    assert!(text.contains("- everything"));
}

#[test]
fn who_is_missing_is_said_and_the_run_does_not_hold() {
    let fine = report(outcome());
    assert!(fine.holds());
    assert!(!fine.to_string().contains("users are in"));
    let mut missing = outcome();
    missing.arms[1].rows[4].up = 249;
    missing.arms[0].rows[4].servers[0].throttled = 0.5;
    missing.arms[0].rows[3].generator_gap_ms = 80.0;
    missing.arms[0].rows[2].options_failed = 7;
    // Ticks left out leave no gap.
    missing.arms[0].rows[1].packets_received = 22_300;
    missing.arms[0].rows[1].bursts_expected = 120;
    missing.arms[0].rows[1].starved = 3;
    let missing = report(missing);
    assert!(!missing.holds());
    let text = missing.to_string();
    assert!(
        text.contains("service at 250: 249 of 250 users are in"),
        "{text}"
    );
    for part in ["10.0 % of the packets", "3 times", "100 of 120 bursts"] {
        let at = text.find("central at 100:").unwrap();
        let line = text[at..].lines().next().unwrap();
        assert!(line.contains(part), "{line}");
    }
    assert!(text.contains("central at 150: 7 OPTIONS failed"));
    assert!(text.contains("central at 200: the callers had no processor for 80 ms"));
    assert!(text.contains("central at 250: A is stopped in 50 % of its periods"));
}

#[test]
fn one_arm_alone_is_told_without_improvements() {
    let mut alone = outcome();
    alone.arms.truncate(1);
    let report = report(alone);
    assert!(report.holds());
    let last = report.comparisons[0].last().unwrap();
    assert!(last.sip_improvement.is_none() && last.sip_central_ms.is_some());
    assert!(report.to_json().contains("\"sip_improvement\":null"));
}
