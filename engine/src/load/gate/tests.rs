use std::time::Duration;

use super::*;

fn config(fault_rate: u32, flood_rate: u32, trusted: &str) -> AbuseConfig {
    AbuseConfig {
        fault_rate,
        mute_s: 60,
        flood_rate,
        trusted: trusted
            .split_whitespace()
            .map(|text| text.parse().unwrap())
            .collect(),
        drop_user_agents: Vec::new(),
    }
}

/// A gate with a clock of its own.
struct Bench {
    gate: Gate,
    now: Instant,
}

impl Bench {
    fn new(config: &AbuseConfig) -> Self {
        let now = Instant::now();
        Self {
            gate: Gate::new(config, now),
            now,
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn faults(&mut self, from: &str, count: usize, what: Unwanted) {
        (0..count).for_each(|_| self.gate.fault(self.now, ip(from), what));
    }

    /// Both answers of the gate, which agree.
    fn is_muted(&mut self, from: &str) -> bool {
        let muted = self.gate.is_muted(self.now, ip(from));
        let pass = self.gate.admit(self.now, ip(from));
        assert_eq!(
            muted,
            pass == Pass::DialogsOnly(Unwanted::Muted),
            "{pass:?}"
        );
        muted
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const EVE: &str = "192.0.2.66";
const BOB: &str = "192.0.2.7";

#[test]
fn who_sends_garbage_is_muted_for_a_while_and_nobody_else() {
    let mut bench = Bench::new(&config(10, 0, ""));
    bench.faults(EVE, 99, Unwanted::Garbage);
    assert!(!bench.is_muted(EVE));
    assert!(bench.gate.take_muted().is_empty());
    bench.faults(EVE, 1, Unwanted::Garbage);
    assert!(bench.is_muted(EVE) && !bench.is_muted(BOB));
    bench.faults(EVE, 1_000, Unwanted::Refused);
    assert_eq!(bench.gate.take_muted(), [ip(EVE)], "told once");
    bench.pass(59_999);
    assert!(bench.is_muted(EVE));
    bench.pass(1);
    assert!(!bench.is_muted(EVE));
    // The bucket has leaked meanwhile: he has all of it again, and can be muted again.
    bench.faults(EVE, 99, Unwanted::Garbage);
    assert!(!bench.is_muted(EVE));
    bench.faults(EVE, 1, Unwanted::Garbage);
    assert!(bench.is_muted(EVE));
    assert_eq!(bench.gate.take_muted(), [ip(EVE)]);
}

#[test]
fn faults_at_the_rate_that_leaks_are_borne_for_ever() {
    let mut bench = Bench::new(&config(10, 0, ""));
    for _ in 0..10_000 {
        bench.faults(EVE, 1, Unwanted::UnknownRoom);
        bench.pass(100);
    }
    assert!(!bench.is_muted(EVE));
    for _ in 0..2_000 {
        bench.faults(BOB, 1, Unwanted::UnknownRoom);
        bench.pass(50);
    }
    assert!(bench.is_muted(BOB));
}

#[test]
fn requests_for_lost_dialogs_cost_a_tenth() {
    let mut bench = Bench::new(&config(10, 0, ""));
    bench.faults(EVE, 990, Unwanted::Stray);
    assert!(!bench.is_muted(EVE));
    bench.faults(EVE, 20, Unwanted::Stray);
    assert!(bench.is_muted(EVE));
}

#[test]
fn what_was_dropped_is_no_further_fault_and_good_messages_cost_nothing() {
    let mut bench = Bench::new(&config(10, 0, ""));
    bench.faults(EVE, 1_000, Unwanted::Muted);
    bench.faults(EVE, 1_000, Unwanted::Flood);
    for _ in 0..100_000 {
        assert_eq!(bench.gate.admit(bench.now, ip(EVE)), Pass::All);
    }
    assert_eq!(occupied(&bench.gate), 0, "and no memory");
}

fn occupied(gate: &Gate) -> usize {
    let entries = gate.sets.iter().flatten();
    entries.filter(|entry| entry.seen != 0).count()
}

#[test]
fn limits_can_be_off_and_some_are_trusted() {
    let mut off = Bench::new(&config(0, 0, ""));
    off.faults(EVE, 100_000, Unwanted::Garbage);
    assert!(!off.is_muted(EVE));

    let mut bench = Bench::new(&config(10, 5, "192.0.2.64/26 2001:db8::/32"));
    for trusted in [EVE, "2001:db8:5::1", "::ffff:192.0.2.66"] {
        bench.faults(trusted, 1_000, Unwanted::Garbage);
        bench.gate.mute(bench.now, ip(trusted));
        for _ in 0..100 {
            assert_eq!(bench.gate.admit(bench.now, ip(trusted)), Pass::All);
        }
        assert!(!bench.is_muted(trusted));
    }
    assert!(bench.gate.take_muted().is_empty());
    // Trust counts at once for who is muted.
    bench.faults(BOB, 1_000, Unwanted::Garbage);
    assert!(bench.is_muted(BOB));
    bench.gate.configure(&config(10, 0, BOB));
    assert!(!bench.is_muted(BOB));
}

#[test]
fn other_shards_mutes_count_here() {
    let mut bench = Bench::new(&config(10, 0, ""));
    bench.gate.mute(bench.now, ip(EVE));
    assert!(bench.is_muted(EVE));
    assert!(bench.gate.take_muted().is_empty(), "no echo");
    bench.pass(60_000);
    assert!(!bench.is_muted(EVE));
}

#[test]
fn a_message_rate_is_held_to_without_a_wait() {
    let mut bench = Bench::new(&config(10, 100, ""));
    let admitted = |bench: &mut Bench, count: usize| {
        (0..count)
            .filter(|_| bench.gate.admit(bench.now, ip(EVE)) == Pass::All)
            .count()
    };
    assert_eq!(admitted(&mut bench, 1_000), 100, "a second's worth at once");
    let flood = bench.gate.admit(bench.now, ip(EVE));
    assert_eq!(flood, Pass::DialogsOnly(Unwanted::Flood));
    let mut over_ten_seconds = 0;
    for _ in 0..1_000 {
        bench.pass(10);
        over_ten_seconds += admitted(&mut bench, 5);
    }
    assert!(
        (990..=1_010).contains(&over_ten_seconds),
        "{over_ten_seconds}"
    );
    assert_eq!(bench.gate.admit(bench.now, ip(BOB)), Pass::All);
}

#[test]
fn a_network_of_ipv6_is_one_source_and_mapped_addresses_are_ipv4() {
    let mut bench = Bench::new(&config(10, 0, ""));
    bench.faults("2001:db8::1", 50, Unwanted::Garbage);
    bench.faults("2001:db8::ffff:2", 50, Unwanted::Garbage);
    assert!(bench.is_muted("2001:db8::3"));
    assert!(!bench.is_muted("2001:db8:0:1::3"));
    bench.faults(EVE, 100, Unwanted::Garbage);
    assert!(bench.is_muted("::ffff:192.0.2.66"));
    // The loopback network is a source like others, though its number is 0.
    assert!(!bench.is_muted("::1"));
    bench.faults("::1", 100, Unwanted::Garbage);
    assert!(bench.is_muted("::1"));
}

#[test]
fn a_flood_of_invented_sources_takes_no_memory_and_frees_nobody_who_is_muted() {
    let mut bench = Bench::new(&config(10, 0, ""));
    bench.faults(EVE, 100, Unwanted::Garbage);
    for number in 0..1_000_000_u32 {
        let invented = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0A00_0000 | number));
        bench.gate.fault(bench.now, invented, Unwanted::Garbage);
    }
    assert_eq!(occupied(&bench.gate), SETS * WAYS);
    assert!(bench.is_muted(EVE));
}

/// Addresses that share a set.
fn neighbours(gate: &Gate, count: usize) -> Vec<IpAddr> {
    let all =
        (0_u32..).map(|number| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0A00_0000 | number)));
    all.filter(|&from| gate.set(source(from)) == 0)
        .take(count)
        .collect()
}

#[test]
fn in_a_full_set_who_owes_least_goes_and_the_muted_stay() {
    let mut bench = Bench::new(&config(10, 0, ""));
    let those = neighbours(&bench.gate, WAYS + 2);
    bench.gate.mute(bench.now, those[0]);
    for (faults, &from) in those.iter().enumerate().take(WAYS).skip(1) {
        // The second owes least, though it was not the first to come.
        let faults = if faults == 2 { 5 } else { 10 + faults };
        (0..faults).for_each(|_| bench.gate.fault(bench.now, from, Unwanted::Garbage));
    }
    let is_there = |bench: &Bench| -> Vec<bool> {
        let there = |from: &IpAddr| bench.gate.find(*from).is_some();
        those.iter().map(there).collect()
    };
    (0..50).for_each(|_| bench.gate.fault(bench.now, those[WAYS], Unwanted::Garbage));
    let (yes, no) = (true, false);
    assert_eq!(
        is_there(&bench),
        [yes, yes, no, yes, yes, yes, yes, yes, yes, no]
    );

    // Where all are muted, the one whose mute ends first goes.
    for &from in those[..=WAYS].iter().rev() {
        bench.pass(1_000);
        bench.gate.mute(bench.now, from);
    }
    bench.gate.mute(bench.now, those[WAYS + 1]);
    assert_eq!(
        is_there(&bench),
        [yes, yes, yes, yes, yes, yes, yes, no, no, yes]
    );
}
