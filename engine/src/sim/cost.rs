//! What being in a cluster costs, and how long its callers wait, measured in the simulation.

use super::caller::Skills;
use super::clock::{Clock, MS, SECOND, Time};
use super::mutation::Mutation;
use super::net::Weather;
use super::scenario::{CallerPlan, Scenario, ServerPlan, Step, server_host};
use super::world::World;

/// One way, in every simulation here.
const DELAY: Time = 10 * MS;

/// Users of each server while its costs are measured, and how long each stays in a room.
const USERS: usize = 10;
const STAY: Time = 30 * SECOND;

/// What the control plane costs each server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) servers: usize,
    /// Sent, in a second.
    pub(super) bytes: f64,
    pub(super) messages: f64,
    /// Of this computer, in a second, in microseconds: SIP of callers, focus and rules included, as this build
    /// is optimised.
    pub(super) busy_us: f64,
}

/// How long callers wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    /// From INVITE to 200.
    pub(super) direct: Time,
    pub(super) redirected: Time,
    /// From the moment all servers are full to the first caller of the reserved one.
    pub(super) first_at_reserved: Time,
    /// From his INVITE.
    pub(super) first_took: Time,
}

fn scenario(servers: Vec<ServerPlan>, callers: usize, grow_at: f64) -> Scenario {
    let known: Vec<_> = (0..servers.len())
        .filter(|at| !servers[*at].standby)
        .map(server_host)
        .collect();
    let caller = |at: usize| {
        let mut servers = known.clone();
        servers.rotate_left(at % known.len());
        CallerPlan {
            skills: Skills {
                refer: true,
                replaces: true,
            },
            servers,
            patience: 20 * SECOND,
        }
    };
    let weather = Weather {
        delay_min: DELAY,
        delay_max: DELAY + 1,
        ..Weather::default()
    };
    Scenario {
        servers,
        callers: (0..callers).map(caller).collect(),
        steps: vec![(0, Step::Weather(weather))],
        recall: true,
        hooks: false,
        grow_at,
        lossy: false,
    }
}

fn plan(max: u32, standby: bool) -> ServerPlan {
    ServerPlan {
        clock: Clock::default(),
        max,
        min: 0,
        standby,
    }
}

/// With all servers in use, each with users who come and go in conferences of all servers.
pub(super) fn of_servers(servers: usize) -> Cost {
    const SETTLED: Time = 15 * SECOND;
    // Many say much in a short time.
    let end = SETTLED + if servers > 10 { 5 } else { 15 } * SECOND;
    let users = USERS * servers;
    let mut scenario = scenario(vec![plan(10_000, false); servers], users, 2.0);
    for caller in 0..users {
        let room = format!("room{}", caller % 7);
        // They come one after the other, and leave so.
        let first = 2 * SECOND + STAY * caller as Time / users as Time;
        for round in 0..2 {
            let at = first + round * (STAY + SECOND);
            let room = room.clone();
            scenario.steps.push((at, Step::Join { caller, room }));
            scenario.steps.push((at + STAY, Step::Leave { caller }));
        }
    }
    let mut world = World::new(1, scenario, Mutation::None, false);
    world.keep_time = true;
    world.begin();
    let read = |world: &World| {
        let machines = world.machines.iter();
        machines.fold((0, 0, 0.0), |(bytes, messages, busy), machine| {
            let counters = machine.server.as_ref().map(super::server::Server::counters);
            let counters = counters.unwrap_or_default();
            let busy = busy + machine.busy.as_secs_f64();
            (
                bytes + counters.bytes_out,
                messages + counters.messages_out,
                busy,
            )
        })
    };
    while world.now < SETTLED && world.go_on() {}
    let before = read(&world);
    while world.now < end && world.go_on() {}
    let after = read(&world);
    let seconds = (end - SETTLED) as f64 / SECOND as f64 * servers as f64;
    Cost {
        servers,
        bytes: (after.0 - before.0) as f64 / seconds,
        messages: (after.1 - before.1) as f64 / seconds,
        busy_us: (after.2 - before.2) * 1e6 / seconds,
    }
}

/// Two servers fill up, and a third is there for when they have. `grow_at` as in the configuration: above 1
/// it is added when the first caller finds no place, and not before.
pub(super) fn of_callers(grow_at: f64) -> Waits {
    const MAX: u32 = 1_000;
    let servers = vec![plan(MAX, false), plan(MAX, false), plan(MAX, true)];
    let mut scenario = scenario(servers, 30, grow_at);
    for caller in &mut scenario.callers {
        // All know one of them only.
        caller.servers.sort();
    }
    for caller in 0..30 {
        let at = 5 * SECOND + caller as Time * 1_500 * MS;
        let room = "hall".to_owned();
        scenario.steps.push((at, Step::Join { caller, room }));
    }
    let mut world = World::new(1, scenario, Mutation::None, false);
    world.begin();
    let mut all_full = None;
    while world.now < 60 * SECOND && world.go_on() {
        let is_full = |at: usize| {
            let server = world.machines[at].server.as_ref();
            server.is_some_and(|server| server.shard.participants() as u32 * 100 >= MAX)
        };
        if all_full.is_none() && is_full(0) && is_full(1) {
            all_full = Some(world.now);
        }
    }
    let mean = |redirected: bool| {
        let took = world
            .joins
            .iter()
            .filter(|join| join.redirected == redirected);
        let took: Vec<Time> = took.map(|join| join.took).collect();
        took.iter().sum::<Time>() / took.len().max(1) as Time
    };
    let reserved = world
        .joins
        .iter()
        .find(|join| join.server == server_host(2));
    let first = reserved.map_or(Time::MAX, |join| join.at);
    // Added early, it has its first caller before the others are full.
    let all_full = all_full.unwrap_or(first);
    Waits {
        direct: mean(false),
        redirected: mean(true),
        first_took: reserved.map_or(Time::MAX, |join| join.took),
        first_at_reserved: if reserved.is_some() {
            first.saturating_sub(all_full)
        } else {
            Time::MAX
        },
    }
}
