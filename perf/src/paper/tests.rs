use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(line: &str) -> Options {
    let words = std::iter::once("paper").chain(line.split_whitespace());
    Line::parse_from(words).options
}

#[test]
fn the_plan_is_the_papers_unless_the_true_scale_is_asked_for() {
    let loads = |line: &str| {
        let plan = options(line).plan().unwrap();
        let loads = plan.iter().map(|series| (series.max_load, series.users()));
        loads.collect::<Vec<_>>()
    };
    assert_eq!(loads(""), [(500, 250), (700, 350)]);
    assert_eq!(loads("--series 700"), [(700, 350)]);
    let scale = "--true-scale --users-per-server 2000 --servers 2";
    assert_eq!(loads(scale), [(200_000, 4_000)]);
    assert_eq!(loads(&format!("{scale} --ptime 40")), [(100_000, 4_000)]);
    assert!(options("--series 600").plan().is_err());
}

#[test]
fn impossible_options_are_refused() {
    for wrong in [
        "--quota 0",
        "--quota 101",
        "--quota NaN",
        "--ptime 15",
        "--dial-rate 0",
        "--period-ms 0",
    ] {
        let words = std::iter::once("paper").chain(wrong.split_whitespace());
        assert!(Line::try_parse_from(words).is_err(), "{wrong}");
    }
    for wrong in [
        "--participants 2 --talkers 3",
        "--participants 10 --talkers 9",
        "--participants 0 --talkers 9",
    ] {
        let error = run(&options(wrong)).unwrap_err();
        assert!(matches!(error, PaperError::Options(_)), "{wrong}: {error}");
    }
}

#[test]
fn the_difference_of_the_load_is_said_first() {
    let said = differences(&options(""), &[]);
    assert!(said[0].contains("10 a user"), "{}", said[0]);
    assert!(said[0].contains("multiplied by 0.1"), "{}", said[0]);
    let said = differences(&options("--true-scale"), &[]);
    assert!(said[0].contains("full at 1500 users"), "{}", said[0]);
}

#[test]
fn the_whole_run_is_a_matter_of_minutes() {
    let lasts = |line: &str| {
        let options = options(line);
        options.lasts(&options.plan().unwrap())
    };
    assert!(lasts("") <= Duration::from_secs(12 * 60));
    assert_eq!(lasts("") / 3, lasts("--rounds 1"));
    assert_eq!(lasts("--arms central"), lasts("") / 2);
}

#[test]
fn a_server_is_not_stopped_in_step_with_packets() {
    for line in ["", "--ptime 10", "--ptime 30", "--period-ms 20"] {
        let options = options(line);
        let packet = f64::from(options.ptime);
        for thousandths in 4..=1_000 {
            let share = f64::from(thousandths) / 1e3;
            let quota = options.quota_of(share);
            let periods = packet / (quota.period_us as f64 / 1e3);
            let ratio = periods.max(periods.recip());
            assert!((ratio - ratio.round()).abs() > 0.03, "{line} {quota}");
            assert!((quota.share() / share - 1.0).abs() < 0.01, "{line} {quota}");
        }
    }
}
