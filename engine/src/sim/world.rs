//! The simulation itself: one queue of what happens, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cfw::dist_conf::load::SvrState;

use super::again::AGAIN;
use super::caller::{Caller, Heard, Leg};
use super::clock::{Clock, MS, SECOND, Time};
use super::mutation::Mutation;
use super::net::{Arriving, Host, Net, Piece, StreamId};
use super::report::{Count, Counts, Outcome};
use super::scenario::{
    CallerPlan, EVENING, FIRST_CALLER, LAST_FAULT, NIGHT, Scenario, ServerPlan, Step, caller_host,
    server_host,
};
use super::server::{Act, Server, Setup};
use crate::cluster::{Hook, Wanted};
use crate::random::Random;

mod acts;
mod faults;
mod queue;

use queue::{Dialler, Event, Queued};

/// A machine on which a server runs, or does not.
pub(super) struct Machine {
    pub(super) plan: ServerPlan,
    pub(super) server: Option<Server>,
    pub(super) life: u32,
    /// Its process does not run until then.
    pub(super) frozen_until: Time,
    /// Its power is off: nobody is told of anything.
    pub(super) dark: bool,
    /// The last time something was wrong with it, or with a way to it.
    pub(super) trouble: Time,
    pub(super) draining_since: Option<Time>,
    /// Since when its state is what it is.
    pub(super) state_since: Time,
    /// Time of this computer that the server has taken.
    pub(super) busy: Duration,
    armed: Option<Time>,
}

pub(super) struct Person {
    pub(super) plan: CallerPlan,
    pub(super) caller: Caller,
    pub(super) trouble: Time,
    /// Since when he has heard nothing.
    pub(super) silent_since: Option<Time>,
    /// When he placed the first call of those by which he tries to get in, and whether one was redirected.
    pub(super) placed: Option<(Time, bool)>,
    armed: Option<Time>,
}

/// Somebody has come into a room by himself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Join {
    pub(super) at: Time,
    pub(super) server: Host,
    /// Since his first INVITE.
    pub(super) took: Time,
    pub(super) redirected: bool,
}

pub(super) struct World {
    pub(super) now: Time,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    random: Random,
    pub(super) net: Net,
    pub(super) machines: Vec<Machine>,
    pub(super) people: Vec<Person>,
    pub(super) scenario: Scenario,
    mutation: Mutation,
    pub(super) counts: Counts,
    pub(super) violations: Vec<String>,
    keep_trace: bool,
    /// Whether the time that servers take of this computer is measured.
    pub(super) keep_time: bool,
    pub(super) joins: Vec<Join>,
    trace: Vec<String>,
    digest: DefaultHasher,
    pub(super) is_evening: bool,
    /// When each of what has to be again was so last, since the last fault.
    pub(super) settled_at: [Option<Time>; AGAIN.len()],
    /// When something last went wrong.
    pub(super) last_fault: Time,
    /// Callers of servers that died while nothing else was wrong: when, whose, and on which.
    pub(super) bereaved: Vec<(Time, usize, Leg)>,
}

/// Violations kept of one seed.
const VIOLATIONS_MAX: usize = 20;

/// People have exact clocks.
const PERSONS_CLOCK: Clock = Clock {
    ppm: 0,
    ahead_ms: 0,
};

pub(super) fn run(seed: u64, mutation: Mutation, keep_trace: bool) -> Outcome {
    World::new(seed, Scenario::from_seed(seed), mutation, keep_trace).run(seed)
}

impl World {
    pub(super) fn new(seed: u64, scenario: Scenario, mutation: Mutation, keep_trace: bool) -> Self {
        let mut random = Random::new(seed);
        let machine = |plan: &ServerPlan| Machine {
            plan: plan.clone(),
            server: None,
            life: 0,
            frozen_until: 0,
            dark: false,
            trouble: 0,
            draining_since: None,
            state_since: 0,
            busy: Duration::ZERO,
            armed: None,
        };
        let machines = scenario.servers.iter().map(machine).collect();
        let person = |(at, plan): (usize, &CallerPlan)| Person {
            plan: plan.clone(),
            caller: Caller::new(
                caller_host(at),
                plan.skills,
                plan.servers.clone(),
                random.next_u64(),
            ),
            trouble: 0,
            silent_since: None,
            placed: None,
            armed: None,
        };
        let people = scenario.callers.iter().enumerate().map(person).collect();
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            net: Net::new(random.next_u64()),
            random,
            machines,
            people,
            scenario,
            mutation,
            counts: Counts::default(),
            violations: Vec::new(),
            keep_trace,
            keep_time: false,
            joins: Vec::new(),
            trace: Vec::new(),
            digest: DefaultHasher::new(),
            is_evening: false,
            settled_at: [None; AGAIN.len()],
            last_fault: 0,
            bereaved: Vec::new(),
        }
    }

    pub(super) fn run(mut self, seed: u64) -> Outcome {
        self.begin();
        self.push(SECOND, Event::Check);
        self.push(EVENING, Event::Evening);
        self.push(NIGHT, Event::Night);
        while self.violations.len() < VIOLATIONS_MAX && self.go_on() {}
        if self.violations.is_empty() {
            self.check_night();
        }
        let Self {
            mut counts, net, ..
        } = self;
        counts.seeds = 1;
        counts.virtual_time = self.now;
        counts.add(Count::DatagramsLost, net.lost);
        counts.add(Count::DatagramsDoubled, net.doubled);
        let clocks = self
            .scenario
            .servers
            .iter()
            .filter(|plan| plan.clock.ppm != 0);
        counts.add(Count::SkewedClocks, clocks.count() as u64);
        Outcome {
            seed,
            counts,
            violations: self.violations,
            trace: self.trace,
            digest: self.digest.finish(),
        }
    }

    /// Every server starts, and what is to happen is going to.
    pub(super) fn begin(&mut self) {
        for server in 0..self.machines.len() {
            if !(self.scenario.hooks && self.machines[server].plan.standby) {
                self.start(server);
            }
        }
        for step in 0..self.scenario.steps.len() {
            let at = self.scenario.steps[step].0;
            self.push(at, Event::Step(step));
        }
    }

    /// The next thing happens; false: nothing will any more.
    pub(super) fn go_on(&mut self) -> bool {
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        let is_over = matches!(event, Event::Night);
        if !is_over {
            self.dispatch(event);
        }
        !is_over
    }

    fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        let (at, order) = (at.max(self.now), self.order);
        self.queue.push(Reverse(Queued { at, order, event }));
    }

    /// Remembers something for whoever replays this seed.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.keep_trace {
            let seconds = self.now as f64 / SECOND as f64;
            self.trace.push(format!("{seconds:9.3} {}", what()));
        }
    }

    pub(super) fn violated(&mut self, what: String) {
        let seconds = self.now as f64 / SECOND as f64;
        self.note(|| format!("VIOLATED: {what}"));
        self.violations.push(format!("at {seconds:.3} s: {what}"));
    }

    fn dispatch(&mut self, event: Event) {
        let (kind, host) = match &event {
            Event::Datagram { to, message, .. } => (message.len() as u64, to.0),
            Event::Accept { to, .. } => (1, to.0),
            Event::Connected { dialler, .. } => (2, server_host(dialler.server).0),
            Event::Refused { dialler } => (3, server_host(dialler.server).0),
            Event::Stream(arriving) => (4, arriving.to.0),
            Event::Wake(host) => (5, host.0),
            Event::Second { server, .. } => (6, server_host(*server).0),
            Event::Hook { server, .. } => (7, server_host(*server).0),
            Event::Step(step) => (8, self.scenario.host_of(*step).map_or(0, |host| host.0)),
            Event::Check | Event::Evening | Event::Night => (8, 0),
        };
        (self.now, kind, host).hash(&mut self.digest);
        // A stopped process finds everything when it goes on.
        if (1..FIRST_CALLER).contains(&host)
            && let Some(machine) = self.machines.get(usize::from(host) - 1)
            && machine.frozen_until > self.now
        {
            let until = machine.frozen_until;
            return self.push(until, event);
        }
        match event {
            Event::Datagram { to, from, message } => self.on_datagram(to, from, &message),
            Event::Accept {
                to,
                dialler,
                stream,
                back,
            } => self.on_accept(to, dialler, stream, back),
            Event::Connected { dialler, stream } => {
                let Dialler { server, life, conn } = dialler;
                let connected = self.with_server(server, life, |server, now, wall| {
                    server.connected(now, wall, conn, stream);
                });
                if !connected {
                    self.end_stream(server_host(server), stream);
                }
            }
            Event::Refused { dialler } => {
                let Dialler { server, life, conn } = dialler;
                self.with_server(server, life, |server, now, wall| {
                    server.refused(now, wall, conn);
                });
            }
            Event::Stream(arriving) => self.on_stream(arriving),
            Event::Wake(host) => self.on_wake(host),
            Event::Second { server, life } => {
                let is_time = self.now / SECOND == LAST_FAULT / SECOND + 30;
                if self.mutation == Mutation::ForgetTheHere && is_time {
                    self.with_server(server, life, Server::forget_somebody);
                }
                if self.with_server(server, life, Server::measure) {
                    let at = self.now + SECOND;
                    self.push(at, Event::Second { server, life });
                }
            }
            Event::Step(step) => {
                let step = self.scenario.steps[step].1.clone();
                self.take_step(step);
            }
            Event::Hook {
                server,
                life,
                hook,
                target,
            } => self.on_hook(server, life, hook, target),
            Event::Check => {
                self.check();
                let at = self.now + SECOND;
                self.push(at, Event::Check);
                let broken = self.net.expire(self.now);
                self.arrive(broken);
            }
            Event::Evening => {
                self.check_evening();
                self.is_evening = true;
                let now = PERSONS_CLOCK.instant(self.now);
                for person in 0..self.people.len() {
                    self.people[person].caller.hang_up(now);
                    self.after_person(person);
                }
            }
            Event::Night => {}
        }
    }

    fn clock(&self, server: usize) -> (Instant, SystemTime) {
        let machine = self.machines.get(server);
        let clock = machine.map_or(PERSONS_CLOCK, |machine| machine.plan.clock);
        (clock.instant(self.now), clock.wall(self.now))
    }

    /// Lets a server do something, if it is still the one of this life, and then what it wants done.
    fn with_server(
        &mut self,
        at: usize,
        life: u32,
        work: impl FnOnce(&mut Server, Instant, SystemTime),
    ) -> bool {
        let (now, wall) = self.clock(at);
        let Some(machine) = self.machines.get_mut(at) else {
            return false;
        };
        let Some(server) = machine.server.as_mut().filter(|_| machine.life == life) else {
            return false;
        };
        let began = self.keep_time.then(Instant::now);
        work(server, now, wall);
        if let Some(began) = began {
            machine.busy += began.elapsed();
        }
        self.after(at);
        true
    }

    /// The same, whichever life it is in.
    fn with_any(&mut self, at: usize, work: impl FnOnce(&mut Server, Instant, SystemTime)) -> bool {
        let life = self.machines.get(at).map_or(0, |machine| machine.life);
        self.with_server(at, life, work)
    }

    fn server_of(host: Host) -> Option<usize> {
        (1..FIRST_CALLER)
            .contains(&host.0)
            .then(|| usize::from(host.0) - 1)
    }

    fn person_of(host: Host) -> Option<usize> {
        host.0.checked_sub(FIRST_CALLER).map(usize::from)
    }

    fn on_datagram(&mut self, to: Host, from: Host, message: &Bytes) {
        if let Some(at) = Self::server_of(to) {
            self.with_any(at, |server, now, wall| {
                server.take_datagram(now, wall, from.address(), message);
            });
        } else if let Some(at) = Self::person_of(to)
            && let Some(person) = self.people.get_mut(at)
        {
            let now = PERSONS_CLOCK.instant(self.now);
            person.caller.take_datagram(now, from.address(), message);
            self.after_person(at);
        }
    }

    fn on_accept(&mut self, to: Host, dialler: Dialler, stream: StreamId, back: Time) {
        let Some(at) = Self::server_of(to) else {
            return;
        };
        let by = server_host(dialler.server);
        let is_dark = self.machines.get(at).is_none_or(|machine| machine.dark);
        if self.with_any(at, |server, now, wall| server.accept(now, wall, by, stream)) {
            self.push(back, Event::Connected { dialler, stream });
        } else if !is_dark {
            self.push(back, Event::Refused { dialler });
        }
    }

    fn on_stream(&mut self, arriving: Arriving) {
        let Arriving {
            stream, to, piece, ..
        } = arriving;
        let Some(at) = Self::server_of(to) else {
            return;
        };
        let knows = |server: &Server| server.knows(stream);
        let server = self
            .machines
            .get(at)
            .and_then(|machine| machine.server.as_ref());
        match piece {
            Piece::Bytes(bytes) if server.is_some_and(knows) => {
                self.with_any(at, |server, now, wall| {
                    server.hear(now, wall, stream, &bytes);
                });
            }
            // A kernel that knows nothing of this connection.
            Piece::Bytes(_) => self.end_stream(to, stream),
            Piece::End => {
                self.with_any(at, |server, now, wall| server.broken(now, wall, stream));
            }
        }
    }

    fn end_stream(&mut self, host: Host, stream: StreamId) {
        let arriving = self.net.say(self.now, stream, host, Piece::End);
        self.arrive(arriving);
    }

    fn arrive(&mut self, arriving: impl IntoIterator<Item = Arriving>) {
        for arriving in arriving {
            self.push(arriving.at, Event::Stream(arriving));
        }
    }

    fn on_wake(&mut self, host: Host) {
        if let Some(at) = Self::server_of(host) {
            let machine = &mut self.machines[at];
            if machine.armed.is_some_and(|armed| armed <= self.now) {
                machine.armed = None;
                self.with_any(at, Server::handle_timeout);
            } else {
                self.after(at);
            }
        } else if let Some(at) = Self::person_of(host) {
            let now = PERSONS_CLOCK.instant(self.now);
            let person = &mut self.people[at];
            if person.armed.is_some_and(|armed| armed <= self.now) {
                person.armed = None;
                person.caller.handle_timeout(now);
            }
            self.after_person(at);
        }
    }
}
