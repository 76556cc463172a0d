use super::*;

fn delay(median_second_ms: f64) -> Option<Typical> {
    Some(Typical {
        median_second_ms,
        p99_ms: 2.0 * median_second_ms,
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
    let series = Series::of_paper(500).unwrap();
    let arm = |variant, factor: f64| {
        let rows = series.steps.iter().enumerate().map(|(step, &users)| {
            let slower = 1.0 + step as f64 * factor;
            row(users, 2.0 * slower, 30.0 * slower)
        });
        Arm {
            variant,
            round: 1,
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
        rounds: 1,
        compared: vec![outcome.compared()],
        outcomes: vec![outcome],
        differences: vec!["everything".to_owned()],
        figures: Vec::new(),
    }
}

#[test]
fn improvements_stand_beside_those_published() {
    let steps = outcome().compared().steps;
    let improvements: Vec<_> = steps
        .iter()
        .map(|step| step.sip.here.unwrap().round())
        .collect();
    assert_eq!(improvements, [0.0, 50.0, 67.0, 75.0, 80.0]);
    assert_eq!(steps[4].media.published, Some(43.9));
    let text = report(outcome()).to_string();
    let last: Vec<String> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("250"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        last,
        [
            "250 1 10.0 (20.0) 2.0 (4.0) 80.0 39.5",
            "250 1 150.0 (300.0) 30.0 (60.0) - 80.0 43.9"
        ]
    );
    assert!(
        text.contains("at 250 users are those at 50 times 1.00 (SIP)"),
        "{text}"
    );
    assert!(text.contains("- everything"));
}

/// So many of [`outcome`], the first step's SIP delays of both arms as stated.
fn rounds(first_sip_ms: &[[f64; 2]]) -> Outcome {
    let mut all = outcome();
    all.arms.clear();
    for (round, sip_ms) in first_sip_ms.iter().enumerate() {
        for (mut arm, sip_ms) in outcome().arms.into_iter().zip(sip_ms) {
            arm.round = 1 + round as u32;
            arm.rows[0].sip = delay(*sip_ms);
            all.arms.push(arm);
        }
    }
    all
}

#[test]
fn the_first_step_is_the_control_and_says_what_is_noise() {
    // In the second round one server was two and a half times as fast as one server.
    let three = rounds(&[[2.0, 2.0], [5.0, 2.0], [2.0, 1.6]]);
    let compared = three.compared();
    let control = compared.sip_control.as_ref().unwrap();
    assert_eq!(control.factor, 2.5);
    let told: Vec<f64> = control.rounds.iter().map(|round| round.round()).collect();
    assert_eq!(told, [0.0, 60.0, 20.0]);
    let noise: Vec<bool> = compared
        .steps
        .iter()
        .map(|step| step.sip.is_noise)
        .collect();
    // Factors of 1, 2, 3, 4, 5.
    assert_eq!(noise, [true, true, false, false, false]);
    // Whichever arm it was.
    let other = rounds(&[[2.0, 2.0], [2.0, 5.0], [2.0, 1.6]]).compared();
    assert_eq!(other.sip_control.unwrap().factor, 2.5);
    assert!(other.steps[1].sip.is_noise && !other.steps[1].media.is_noise);

    let text = report(three).to_string();
    assert!(text.contains("faster by 0.0, 60.0, 20.0 %"), "{text}");
    assert!(text.contains("a factor of up to 2.50 is noise"), "{text}");
    assert!(text.contains("noise: 50.0       17.4"), "{text}");
}

#[test]
fn without_one_server_for_all_at_the_first_step_nothing_is_a_control() {
    let mut two = outcome();
    let second = two.arms[1].rows[0].servers[0].clone();
    two.arms[1].rows[0].servers.push(second);
    assert!(two.compared().sip_control.is_none());
    let mut missing = outcome();
    missing.arms[0].rows[0].up = 49;
    assert!(missing.compared().media_control.is_none());
    let text = report(missing).to_string();
    assert!(text.contains("no control: at 50 users"), "{text}");
}

#[test]
fn the_median_round_counts_and_the_round_with_the_fewest_users() {
    let mut three = rounds(&[[2.0, 1.0], [90.0, 3.0], [4.0, 7.0]]);
    three.arms[2].rows[4].up = 188;
    let compared = three.compared();
    let first = compared.steps[0];
    let ms = |side: Option<Side>| side.unwrap().sip.unwrap().median_second_ms;
    assert_eq!((ms(first.central), ms(first.service)), (4.0, 3.0));
    assert_eq!(first.central.unwrap().sip.unwrap().count, 300);
    let last = compared.steps[4];
    assert!(last.sip.here.is_none() && last.media.here.is_none());
    assert_eq!(last.central.unwrap().up, 188);
    let text = report(three).to_string();
    assert!(text.contains("  central: 188 of 250 up\n"), "{text}");
}

#[test]
fn who_is_missing_is_said_and_the_run_does_not_hold() {
    let fine = report(outcome());
    assert!(fine.holds());
    assert!(!fine.to_string().contains("users are in"));
    let mut missing = outcome();
    missing.arms[1].rows[4].up = 249;
    missing.arms[0].rows[4].servers[0].throttled = 0.5;
    missing.arms[0].rows[4].up = 100;
    missing.arms[0].rows[4].options_sent = 200;
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
    for part in [
        "100 of 250 users are in",
        "100 of 200 OPTIONS answered",
        "A is stopped in 50 % of its periods",
    ] {
        let at = text.find("central at 250:").unwrap();
        let line = text[at..].lines().next().unwrap();
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn only_the_service_has_to_hold() {
    let mut broken = outcome();
    broken.arms[0].rows[4].up = 100;
    assert!(report(broken).holds());
    let mut broken = rounds(&[[2.0, 2.0], [2.0, 2.0]]);
    broken.arms[3].rows[0].up = 49;
    assert!(!report(broken).holds());
}

#[test]
fn one_arm_alone_is_told_without_improvements() {
    let mut alone = outcome();
    alone.arms.truncate(1);
    let report = report(alone);
    assert!(report.holds());
    let last = report.compared[0].steps.last().unwrap();
    assert!(last.sip.here.is_none() && last.central.is_some() && last.service.is_none());
    assert!(report.to_json().contains("\"sip_control\":null"));
}
