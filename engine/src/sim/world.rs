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
use crate::cluster::hub::ConnId;
use crate::cluster::{Hook, Wanted};
use crate::random::Random;

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    Datagram {
        to: Host,
        from: Host,
        message: Bytes,
    },
    /// A server is being connected to; the dialler knows at `back`.
    Accept {
        to: Host,
        dialler: Dialler,
        stream: StreamId,
        back: Time,
    },
    Connected {
        dialler: Dialler,
        stream: StreamId,
    },
    Refused {
        dialler: Dialler,
    },
    Stream(Arriving),
    Wake(Host),
    /// A server's load is measured.
    Second {
        server: usize,
        life: u32,
    },
    Step(usize),
    Hook {
        server: usize,
        life: u32,
        hook: Hook,
        target: usize,
    },
    Check,
    Evening,
    Night,
}

/// Who connects: one life of a server.
#[derive(Clone, Copy, Debug)]
struct Dialler {
    server: usize,
    life: u32,
    conn: ConnId,
}

struct Queued {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

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

    /// Does what a server wants done.
    fn after(&mut self, at: usize) {
        let from = server_host(at);
        let life = self.machines[at].life;
        let Some(server) = &mut self.machines[at].server else {
            return;
        };
        let cap = server.cap();
        let accepted = std::mem::take(&mut server.shard.taken);
        let acts = server.take_acts();
        let due = server.poll_timeout();
        for load in accepted {
            self.counts
                .held("load at most the hard cap by admission", 1);
            if load > cap {
                self.violated(format!("S{} took a caller at load {load} of {cap}", from.0));
            }
        }
        for act in acts {
            match act {
                Act::Datagram { to, message } => {
                    if let Some(to) = Host::of(to) {
                        self.send(from, to, message);
                    }
                }
                Act::Connect { conn, to } => {
                    let dialler = Dialler {
                        server: at,
                        life,
                        conn,
                    };
                    let connecting = self.net.connect(self.now, from, to);
                    self.note(|| format!("S{} dials S{}: {connecting:?}", from.0, to.0));
                    if let Some((stream, there, back)) = connecting {
                        let accept = Event::Accept {
                            to,
                            dialler,
                            stream,
                            back,
                        };
                        self.push(there, accept);
                    }
                }
                Act::Say { stream, bytes } => {
                    self.note_said(from, stream, &bytes);
                    let arriving = self.net.say(self.now, stream, from, Piece::Bytes(bytes));
                    self.arrive(arriving);
                }
                Act::End { stream } => {
                    self.note(|| format!("S{} closes {stream:?}", from.0));
                    self.end_stream(from, stream);
                }
                Act::Hook { hook, svr_id } => {
                    let is_it =
                        |other: &usize| super::server::svr_id(server_host(*other)) == svr_id;
                    if let Some(target) = (0..self.machines.len()).find(is_it) {
                        let at_time = self.now + 1_500 * MS;
                        let event = Event::Hook {
                            server: at,
                            life,
                            hook,
                            target,
                        };
                        self.push(at_time, event);
                    }
                }
                Act::Decided(decision) => self.note(|| {
                    let of = |part: &Option<String>| part.clone().unwrap_or_default();
                    format!(
                        "S{} decides {:?} {} {} {}: {}",
                        from.0,
                        decision.what,
                        of(&decision.room),
                        of(&decision.who),
                        of(&decision.server),
                        decision.reason
                    )
                }),
                Act::State(state) => {
                    self.note(|| format!("S{} is {state}", from.0));
                    let was_draining = self.machines[at].draining_since.is_some();
                    let is_added = state == SvrState::Active && !was_draining;
                    self.counts.add(Count::Additions, u64::from(is_added));
                    let machine = &mut self.machines[at];
                    machine.state_since = self.now;
                    machine.draining_since = (state == SvrState::Draining).then_some(self.now);
                    self.counts
                        .add(Count::Drains, u64::from(state == SvrState::Draining));
                }
            }
        }
        if let Some(due) = due {
            let machine = &mut self.machines[at];
            let due = machine.plan.clock.time(due).max(self.now);
            if machine.armed.is_none_or(|armed| due < armed) {
                machine.armed = Some(due);
                self.push(due, Event::Wake(from));
            }
        }
    }

    fn after_person(&mut self, at: usize) {
        let from = caller_host(at);
        let sent = self.people[at].caller.take_sent();
        let heard = self.people[at].caller.take_heard();
        for (to, message) in sent {
            if let Some(to) = Host::of(to) {
                self.send(from, to, message);
            }
        }
        for heard in heard {
            self.on_heard(at, heard);
        }
        if let Some(due) = self.people[at].caller.poll_timeout() {
            let due = PERSONS_CLOCK.time(due).max(self.now);
            let person = &mut self.people[at];
            if person.armed.is_none_or(|armed| due < armed) {
                person.armed = Some(due);
                self.push(due, Event::Wake(from));
            }
        }
    }

    fn send(&mut self, from: Host, to: Host, message: Bytes) {
        for at in self.net.datagram(self.now, from, to).into_iter().flatten() {
            let message = message.clone();
            self.push(at, Event::Datagram { to, from, message });
        }
    }

    fn on_heard(&mut self, at: usize, heard: Heard) {
        self.note(|| format!("c{} {heard:?}", caller_host(at).0));
        let now = self.now;
        let person = &mut self.people[at];
        match heard {
            Heard::Placed { .. } => drop(person.placed.get_or_insert((now, false))),
            Heard::Redirected { .. } => {
                person.placed = person.placed.map(|(since, _)| (since, true));
            }
            Heard::Up { at: server } => {
                if let Some((since, redirected)) = person.placed.take() {
                    let took = now - since;
                    self.joins.push(Join {
                        at: now,
                        server,
                        took,
                        redirected,
                    });
                }
            }
            _ => person.placed = None,
        }
        self.people[at].silent_since = None;
        self.count_heard(&heard);
        self.judge_heard(at, &heard);
    }

    fn count_heard(&mut self, heard: &Heard) {
        let count = match heard {
            Heard::Placed { .. } => Count::Calls,
            Heard::Redirected { .. } => Count::Redirects,
            Heard::Refused { status: 408, .. } => Count::Timeouts,
            Heard::Refused { .. } => Count::Refusals,
            Heard::Up { .. } => Count::Joins,
            Heard::CalledBack { .. } => Count::CallsBack,
            Heard::Moved { .. } => Count::Moves,
            Heard::Over { .. } => Count::HungUpOn,
            Heard::GaveUp => Count::GivenUp,
            Heard::Referred { .. } | Heard::Disturbed { .. } => return,
        };
        self.counts.add(count, 1);
    }

    fn start(&mut self, at: usize) {
        if self.machines[at].server.is_some() {
            return;
        }
        let host = server_host(at);
        if std::mem::take(&mut self.machines[at].dark) {
            let ways = self.ways_of(host);
            self.open(&ways);
            let broken = self.net.break_streams(self.now, host, None);
            self.arrive(broken);
        }
        let known = |standby: bool| {
            let plans = self.scenario.servers.iter().enumerate();
            plans
                .filter(|(_, plan)| plan.standby == standby)
                .map(|(server, _)| server_host(server))
                .collect::<Vec<Host>>()
        };
        let (peers, reserved) = (known(false), known(true));
        let seed = self.random.next_u64();
        let (now, wall) = self.clock(at);
        let machine = &mut self.machines[at];
        machine.life += 1;
        machine.draining_since = None;
        machine.state_since = self.now;
        let setup = Setup {
            host,
            max: machine.plan.max,
            min: machine.plan.min,
            standby: machine.plan.standby,
            peers: if machine.plan.standby {
                Vec::new()
            } else {
                peers
            },
            reserved,
            hooks: self.scenario.hooks,
            recall: self.scenario.recall,
            grow_at: self.scenario.grow_at,
            mutation: self.mutation,
        };
        let since = wall.duration_since(std::time::UNIX_EPOCH);
        let epoch = since.map_or(1, |since| since.as_millis() as u64);
        machine.server = Some(Server::new(setup, epoch, seed, now, wall));
        let life = machine.life;
        // Seconds of servers do not begin together.
        let first = self.now + self.random.next_u64() % SECOND;
        self.push(first, Event::Second { server: at, life });
        self.after(at);
        self.note(|| format!("S{} starts, epoch {epoch}", host.0));
    }

    fn on_hook(&mut self, server: usize, life: u32, hook: Hook, target: usize) {
        self.counts.add(Count::Hooks, 1);
        match hook {
            Hook::Start => self.start(target),
            Hook::Stop => self.stop(target, false),
        }
        let svr_id = super::server::svr_id(server_host(target));
        self.with_server(server, life, |server, now, wall| {
            server.hook_done(now, wall, hook, svr_id);
        });
    }

    /// All ways of a host.
    fn ways_of(&self, host: Host) -> Vec<(Host, Host)> {
        let servers = (0..self.machines.len()).map(server_host);
        let people = (0..self.people.len()).map(caller_host);
        let others = servers.chain(people).filter(|other| *other != host);
        others.map(|other| (host, other)).collect()
    }

    fn open(&mut self, ways: &[(Host, Host)]) {
        for (a, b) in ways {
            let arriving = self.net.open(self.now, *a, *b);
            self.arrive(arriving);
        }
        self.troubles(ways);
    }

    /// Remembers for whom something was wrong.
    fn troubles(&mut self, ways: &[(Host, Host)]) {
        for host in ways.iter().flat_map(|(a, b)| [*a, *b]) {
            self.trouble(host, self.now);
        }
    }

    fn trouble(&mut self, host: Host, at: Time) {
        if let Some(machine) = Self::server_of(host).and_then(|at| self.machines.get_mut(at)) {
            machine.trouble = machine.trouble.max(at);
        } else if let Some(person) = Self::person_of(host).and_then(|at| self.people.get_mut(at)) {
            person.trouble = person.trouble.max(at);
        }
    }

    fn take_step(&mut self, step: Step) {
        if !matches!(step, Step::Join { .. } | Step::Leave { .. }) {
            self.note(|| {
                let mut text = format!("FAULT {step:?}");
                text.truncate(160);
                text
            });
        }
        let now = PERSONS_CLOCK.instant(self.now);
        if !matches!(step, Step::Join { .. } | Step::Leave { .. }) {
            self.bereave(&step);
        }
        match step {
            Step::Join { caller, room } => {
                self.people[caller].caller.join(now, &room);
                self.after_person(caller);
            }
            Step::Leave { caller } => {
                self.note(|| format!("c{} hangs up", caller_host(caller).0));
                self.people[caller].caller.hang_up(now);
                self.people[caller].silent_since = None;
                self.people[caller].placed = None;
                self.after_person(caller);
            }
            Step::Kill { server, power } => self.kill(server, power),
            Step::Start { server } => {
                if self.machines[server].server.is_none() {
                    self.counts.add(Count::Restarts, 1);
                    self.start(server);
                }
            }
            Step::Freeze { server, until } => {
                let machine = &mut self.machines[server];
                if machine.server.is_some() {
                    self.counts.add(Count::Freezes, 1);
                    machine.frozen_until = machine.frozen_until.max(until);
                    self.trouble(server_host(server), until);
                }
            }
            Step::Close { ways } => {
                let of_people = ways.iter().any(|(a, _)| a.0 >= FIRST_CALLER);
                let count = if of_people {
                    Count::CallerCuts
                } else {
                    Count::Partitions
                };
                self.counts.add(count, 1);
                for (a, b) in &ways {
                    self.net.close(*a, *b);
                }
                self.troubles(&ways);
            }
            Step::Open { ways } => self.open(&ways),
            Step::CutStreams { a, b } => {
                self.counts.add(Count::StreamCuts, 1);
                let broken = self.net.break_streams(self.now, a, Some(b));
                self.arrive(broken);
                self.troubles(&[(a, b)]);
            }
            Step::Slow {
                server,
                bytes_per_s,
            } => {
                let host = server_host(server);
                self.counts
                    .add(Count::SlowPeers, u64::from(bytes_per_s.is_some()));
                self.net.slow_down(host, bytes_per_s);
                self.trouble(host, self.now);
            }
            Step::Weather(weather) => self.net.weather = weather,
            Step::Garbage { server } => self.garbage(server),
            Step::Drain { server } => {
                // Asked for again, it begins anew.
                let machine = &mut self.machines[server];
                machine.draining_since = machine.draining_since.map(|_| self.now);
                self.want(server, Wanted::Drain { deadline: None });
            }
            Step::Undrain { server } => self.want(server, Wanted::Undrain),
        }
    }

    fn want(&mut self, server: usize, wanted: Wanted) {
        self.trouble(server_host(server), self.now);
        self.with_any(server, |server, now, wall| server.want(now, wall, wanted));
    }

    fn kill(&mut self, at: usize, power: bool) {
        if self.machines[at].server.is_some() {
            self.counts.add(Count::Crashes, 1);
            self.stop(at, power);
        }
    }

    fn stop(&mut self, at: usize, power: bool) {
        let host = server_host(at);
        let machine = &mut self.machines[at];
        machine.server = None;
        machine.frozen_until = 0;
        machine.draining_since = None;
        machine.armed = None;
        machine.trouble = self.now;
        if power {
            machine.dark = true;
            let ways = self.ways_of(host);
            for (a, b) in ways {
                self.net.close(a, b);
            }
        } else {
            let broken = self.net.break_streams(self.now, host, None);
            self.arrive(broken);
        }
    }

    /// Bytes that are no SIP, or nearly are, from a stranger.
    fn garbage(&mut self, server: usize) {
        let to = server_host(server);
        let stranger = Host(0xFFFF);
        for _ in 0..20 {
            self.counts.add(Count::Garbage, 1);
            let number = self.random.next_u64();
            let message = match number % 4 {
                0 => Bytes::from(number.to_be_bytes().repeat(1 + (number >> 8) as usize % 90)),
                1 => Bytes::from(format!("INVITE sip:cfw@{} SIP/2.0\r\n\r\n", to.address())),
                2 => Bytes::from(format!(
                    "BYE sip:room0@{} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.255.255;branch=z9hG4bK{number:x}\r\n\
                     From: <sip:x@y>;tag=1\r\nTo: <sip:room0@z>;tag=0-{number:016x}\r\nCall-ID: {number}\r\n\
                     CSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
                    to.address()
                )),
                _ => Bytes::from(format!("SIP/2.0 200 OK\r\nCall-ID: {number}\r\n\r\n")),
            };
            let from = stranger;
            self.push(self.now, Event::Datagram { to, from, message });
        }
    }
}

impl World {
    /// A caller who has had enough of silence.
    pub(super) fn call_again(&mut self, at: usize) {
        let now = PERSONS_CLOCK.instant(self.now);
        self.people[at].caller.call_again(now);
        self.people[at].silent_since = None;
        self.people[at].placed = None;
        self.after_person(at);
    }
}

impl World {
    /// What goes over a channel, but for the load of every second and that it has come.
    fn note_said(&mut self, from: Host, stream: StreamId, bytes: &[u8]) {
        if !self.keep_trace {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let is_load = text.contains("<crt-svr-load") && !text.contains("<crt-conf-info");
        let is_answer = text
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(" 200"));
        if is_load || is_answer {
            return;
        }
        let body = text.split("version=\"1.0\">").last().unwrap_or_default();
        let body: String = body.chars().take(240).collect();
        self.note(|| format!("S{} on {stream:?}: {}", from.0, body.replace("\r\n", " ")));
    }
}
