//! What servers and callers want done, and what comes of it.

use super::*;

impl World {
    /// Does what a server wants done.
    pub(super) fn after(&mut self, at: usize) {
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
                        |other: &usize| crate::sim::server::svr_id(server_host(*other)) == svr_id;
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

    pub(super) fn after_person(&mut self, at: usize) {
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

    pub(super) fn send(&mut self, from: Host, to: Host, message: Bytes) {
        for at in self.net.datagram(self.now, from, to).into_iter().flatten() {
            let message = message.clone();
            self.push(at, Event::Datagram { to, from, message });
        }
    }

    pub(super) fn on_heard(&mut self, at: usize, heard: Heard) {
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

    pub(super) fn count_heard(&mut self, heard: &Heard) {
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

    /// A caller who has had enough of silence.
    pub(in crate::sim) fn call_again(&mut self, at: usize) {
        let now = PERSONS_CLOCK.instant(self.now);
        self.people[at].caller.call_again(now);
        self.people[at].silent_since = None;
        self.people[at].placed = None;
        self.after_person(at);
    }

    /// What goes over a channel, but for the load of every second and that it has come.
    pub(super) fn note_said(&mut self, from: Host, stream: StreamId, bytes: &[u8]) {
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
