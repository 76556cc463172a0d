//! Many seeds, and rules broken on purpose.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::caller::Skills;
use super::clock::{Clock, MS, SECOND};
use super::cost;
use super::mutation::Mutation;
use super::report::{Count, Counts, Outcome};
use super::scenario::{CallerPlan, Scenario, ServerPlan, Step, server_host};
use super::world::{World, run};

/// Seeds run when nobody says how many.
const SEEDS: u64 = 200;

/// What is checked; each has to be, at some time.
const INVARIANTS: usize = 15;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on all cores until one fails; gives what they counted, and what failed first.
fn run_seeds(first: u64, seeds: u64, mutation: Mutation) -> (Counts, Option<Outcome>) {
    let next = AtomicU64::new(first);
    let result = Mutex::new((Counts::default(), None::<Outcome>));
    // To see how many fail, and how.
    let keep_going = number("PLENUM_SIM_KEEP_GOING").is_some();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            let outcome = run(seed, mutation, false);
            let mut result = result.lock().unwrap();
            result.0.merge(&outcome.counts);
            if keep_going {
                for violation in &outcome.violations {
                    println!("seed {seed} {violation}");
                }
            } else if !outcome.violations.is_empty() {
                // The least seed, so that the same one is told on every machine.
                let is_less = result.1.as_ref().is_none_or(|other| seed < other.seed);
                if is_less {
                    result.1 = Some(outcome);
                }
                next.store(first + seeds, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    result.into_inner().unwrap()
}

fn tell(outcome: &Outcome) -> String {
    let again = run(outcome.seed, Mutation::None, true);
    let skipped = again.trace.len().saturating_sub(120);
    format!(
        "seed {} breaks:\n  {}\nthe end of its trace:\n  {}\nreplay: PLENUM_SIM_SEED={} make sim",
        outcome.seed,
        outcome.violations.join("\n  "),
        again.trace[skipped..].join("\n  "),
        outcome.seed
    )
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("PLENUM_SIM_SEED") {
        let outcome = run(seed, Mutation::None, true);
        println!("{}\n{}", outcome.trace.join("\n"), outcome.counts);
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        return;
    }
    let first = number("PLENUM_SIM_FIRST").unwrap_or(0);
    let seeds = number("PLENUM_SIM_SEEDS").unwrap_or(SEEDS);
    let began = std::time::Instant::now();
    let (counts, failed) = run_seeds(first, seeds, Mutation::None);
    println!("{counts}{:>10.1} s", began.elapsed().as_secs_f64());
    if let Some(failed) = failed {
        panic!("{}", tell(&failed));
    }
    // A simulation in which nothing happens proves nothing.
    let all = [
        Count::Redirects,
        Count::CallsBack,
        Count::Moves,
        Count::Drains,
        Count::Additions,
        Count::Partitions,
        Count::Hooks,
    ];
    if seeds >= SEEDS {
        for count in all {
            assert!(counts.get(count) > 0, "{count:?}");
        }
        assert_eq!(counts.checks.len(), INVARIANTS, "{counts}");
        assert!(counts.checks.values().all(|&times| times > 0), "{counts}");
    }
}

/// The end of its trunk does not get through to the other server.
#[test]
fn sound_is_shared_again_after_a_cut() {
    let server = ServerPlan {
        clock: Clock::default(),
        max: 10_000,
        min: 0,
        standby: false,
    };
    let caller = |at: usize| CallerPlan {
        skills: Skills::default(),
        servers: vec![server_host(at)],
        patience: 20 * SECOND,
    };
    let join = |caller| Step::Join {
        caller,
        room: "room".to_owned(),
    };
    let ways = vec![(server_host(0), server_host(2))];
    let steps = [
        (2, join(0)),
        (2, join(1)),
        (10, Step::Close { ways: ways.clone() }),
        // Nobody is there any more, and then somebody is again.
        (25, Step::Leave { caller: 1 }),
        (40, join(2)),
        (80, Step::Open { ways }),
    ];
    let scenario = Scenario {
        servers: vec![server; 3],
        callers: [0, 2, 2].map(caller).into(),
        steps: steps.map(|(at, step)| (at * SECOND, step)).into(),
        recall: true,
        hooks: false,
        grow_at: 1.0,
        lossy: false,
    };
    let outcome = World::new(1, scenario, Mutation::None, true).run(1);
    let (violations, trace) = (&outcome.violations, outcome.trace.join("\n"));
    assert!(violations.is_empty(), "{violations:#?}\n{trace}");
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..6 {
        let [once, again] = [0, 1].map(|_| run(seed, Mutation::None, false));
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert_eq!(once.counts, again.counts, "seed {seed}");
    }
}

#[test]
fn broken_rules_are_found() {
    for mutation in Mutation::BROKEN {
        // Some show only where much comes together.
        let (_, failed) = run_seeds(0, 5 * SEEDS, mutation);
        assert!(failed.is_some(), "{mutation:?} goes unnoticed");
    }
}

/// `make sim-cost`.
#[test]
fn costs_and_waits() {
    let sizes: &[usize] = match number("PLENUM_SIM_COST") {
        Some(_) => &[3, 10, 50],
        None => &[3],
    };
    println!("servers  sent by each: bytes/s  messages/s  time of this computer, us/s");
    for &servers in sizes {
        let cost = cost::of_servers(servers);
        println!(
            "{:>7} {:>22.0} {:>11.1} {:>28.0}",
            cost.servers, cost.bytes, cost.messages, cost.busy_us
        );
        // Each tells each of the others its load once a second, and hears that it was told.
        let least = (servers - 1) as f64;
        assert!(
            cost.messages >= least && cost.bytes > 100.0 * least,
            "{cost:?}"
        );
    }
    for grow_at in [0.85, 2.0] {
        let waits = cost::of_callers(grow_at);
        let ms = |time| time as f64 / MS as f64;
        println!(
            "grow_at {grow_at}: join {:.1} ms, redirected {:.1} ms; at the reserved server the first is in {:.1} ms \
             after all were full, {:.1} ms after his INVITE; callers come every 1.5 s, 10 ms one way",
            ms(waits.direct),
            ms(waits.redirected),
            ms(waits.first_at_reserved),
            ms(waits.first_took)
        );
        assert!(waits.direct < waits.redirected, "{waits:?}");
        assert!(waits.first_at_reserved < 6 * SECOND, "{waits:?}");
    }
}
