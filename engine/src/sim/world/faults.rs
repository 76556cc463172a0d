//! What is done to servers and to the network between them.

use super::*;

impl World {
    pub(super) fn start(&mut self, at: usize) {
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

    pub(super) fn on_hook(&mut self, server: usize, life: u32, hook: Hook, target: usize) {
        self.counts.add(Count::Hooks, 1);
        match hook {
            Hook::Start => self.start(target),
            Hook::Stop => self.stop(target, false),
        }
        let svr_id = crate::sim::server::svr_id(server_host(target));
        self.with_server(server, life, |server, now, wall| {
            server.hook_done(now, wall, hook, svr_id);
        });
    }

    /// All ways of a host.
    pub(super) fn ways_of(&self, host: Host) -> Vec<(Host, Host)> {
        let servers = (0..self.machines.len()).map(server_host);
        let people = (0..self.people.len()).map(caller_host);
        let others = servers.chain(people).filter(|other| *other != host);
        others.map(|other| (host, other)).collect()
    }

    pub(super) fn open(&mut self, ways: &[(Host, Host)]) {
        for (a, b) in ways {
            let arriving = self.net.open(self.now, *a, *b);
            self.arrive(arriving);
        }
        self.troubles(ways);
    }

    /// Remembers for whom something was wrong.
    pub(super) fn troubles(&mut self, ways: &[(Host, Host)]) {
        for host in ways.iter().flat_map(|(a, b)| [*a, *b]) {
            self.trouble(host, self.now);
        }
    }

    pub(super) fn trouble(&mut self, host: Host, at: Time) {
        if let Some(machine) = Self::server_of(host).and_then(|at| self.machines.get_mut(at)) {
            machine.trouble = machine.trouble.max(at);
        } else if let Some(person) = Self::person_of(host).and_then(|at| self.people.get_mut(at)) {
            person.trouble = person.trouble.max(at);
        }
    }

    pub(super) fn take_step(&mut self, step: Step) {
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

    pub(super) fn want(&mut self, server: usize, wanted: Wanted) {
        self.trouble(server_host(server), self.now);
        self.with_any(server, |server, now, wall| server.want(now, wall, wanted));
    }

    pub(super) fn kill(&mut self, at: usize, power: bool) {
        if self.machines[at].server.is_some() {
            self.counts.add(Count::Crashes, 1);
            self.stop(at, power);
        }
    }

    pub(super) fn stop(&mut self, at: usize, power: bool) {
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
    pub(super) fn garbage(&mut self, server: usize) {
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
