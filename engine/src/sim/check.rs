//! What must always be.

use std::collections::BTreeSet;

use cfw::dist_conf::load::SvrState;

use super::caller::{Heard, Leg, State};
use super::clock::{SECOND, Time};
use super::net::Host;
use super::report::Count;
use super::scenario::{Step, caller_host, server_host};
use super::shard::UNIT;
use super::world::{Machine, Person, World};

/// A drain takes no longer than its deadline, and this.
const DRAIN_MAX: Time = 60 * SECOND + 15 * SECOND;

/// The longest that a caller's trouble explains what goes wrong later: 64·T1 and a session's rest.
const AFTERMATH: Time = 100 * SECOND;

/// So long nothing must have been wrong before a server dies, if all its callers are to be called back.
const CALM: Time = 40 * SECOND;

/// Below this share of its maximum a server takes callers.
const ROOMY: f64 = 0.9;

/// By then the others know in what state a server is.
const HEARD_OF: Time = 3 * SECOND;

/// By then they have been.
const CALLED_BACK: Time = 5 * SECOND;

impl World {
    /// What a caller has heard.
    pub(super) fn judge_heard(&mut self, at: usize, heard: &Heard) {
        let name = caller_host(at).0;
        match heard {
            Heard::Redirected { from, hopped } => {
                self.counts
                    .held("who was sent on once is not sent on again", 1);
                let server = self.machines[usize::from(from.0) - 1].server.as_ref();
                let state = server.map(|server| server.cluster().state());
                // A server that takes nobody any more, and has not for long, sends on whoever comes.
                if *hopped && state == Some(SvrState::Active) {
                    self.violated(format!("c{name} was sent on twice, at last by S{}", from.0));
                }
            }
            Heard::Disturbed { by, what } => {
                self.violated(format!(
                    "c{name} got {what} from S{} and never said he could do that",
                    by.0
                ));
            }
            Heard::Refused {
                from, status: 408, ..
            } => {
                self.counts
                    .held("an INVITE to a healthy server is answered", 1);
                if !self.has_excuse(at, from.0) {
                    self.violated(format!("c{name} got no answer from S{}", from.0));
                }
            }
            Heard::Refused {
                from,
                status,
                is_last,
                ..
            } => {
                self.counts.held("a refusal has a reason", 1);
                if ![503, 480].contains(status) && !self.has_excuse(at, from.0) {
                    self.violated(format!("S{} refused c{name} with {status}", from.0));
                }
                if *is_last && let Some(server) = self.has_room_for(at) {
                    self.violated(format!(
                        "S{} refused c{name}, and S{} had room",
                        from.0, server.0
                    ));
                }
            }
            Heard::GaveUp => {
                self.counts.held("who gives up has a reason", 1);
                if let Some(server) = self.has_room_for(at) {
                    self.violated(format!("c{name} gives up, and S{} has room", server.0));
                }
            }
            Heard::Over { at: server, cause } => {
                self.counts.held("a server that hangs up has a reason", 1);
                if !self.has_excuse(at, server.0) {
                    self.violated(format!("S{} hung up on c{name}: {cause:?}", server.0));
                }
            }
            _ => {}
        }
    }

    /// Something was wrong with the server, the caller or the whole network not long ago.
    fn has_excuse(&self, at: usize, server: u16) -> bool {
        let machine = &self.machines[usize::from(server) - 1];
        let recent = |trouble: Time| trouble > 0 && self.now < trouble + AFTERMATH;
        machine.server.is_none()
            || machine.frozen_until > self.now
            || recent(machine.trouble)
            || recent(self.people[at].trouble)
            || self.scenario.lossy
    }

    /// A server that could take this caller, if nothing was wrong with anybody not long ago.
    fn has_room_for(&self, at: usize) -> Option<Host> {
        let is_old = |trouble: Time| trouble == 0 || self.now > trouble + AFTERMATH;
        let machines = self.machines.iter();
        let mut troubles = machines.map(|machine| machine.trouble.max(machine.frozen_until));
        let is_calm = troubles.all(is_old) && is_old(self.people[at].trouble);
        if self.scenario.lossy || !is_calm {
            return None;
        }
        let has_room = |server: &usize| {
            let machine = &self.machines[*server];
            machine.server.as_ref().is_some_and(|server| {
                let load = server.shard.measured().max(server.shard.cost().into());
                server.cluster().state() == SvrState::Active
                    && self.now > machine.state_since + HEARD_OF
                    && load < ROOMY * f64::from(machine.plan.max)
            })
        };
        let found = (0..self.machines.len()).find(has_room);
        found.map(server_host)
    }

    /// Once a second.
    pub(super) fn check(&mut self) {
        self.check_callers();
        self.check_bereaved();
        self.check_drains();
        self.check_again();
    }

    /// Whoever believes to be in a room is in it, or finds out.
    fn check_callers(&mut self) {
        let present: Vec<Option<BTreeSet<(String, String)>>> = self
            .machines
            .iter()
            .map(|machine| {
                let runs = machine.frozen_until <= self.now;
                let server = machine.server.as_ref().filter(|_| runs)?;
                Some(server.shard.users().collect())
            })
            .collect();
        for at in 0..self.people.len() {
            let person = &mut self.people[at];
            let State::Up(leg) = person.caller.state else {
                person.silent_since = None;
                continue;
            };
            self.counts.held("nobody is lost without a reason", 1);
            let server = usize::from(leg.at.0) - 1;
            let key = (person.caller.room.clone(), person.caller.uri());
            let there = present[server]
                .as_ref()
                .is_some_and(|users| users.contains(&key));
            if there {
                person.silent_since = None;
                continue;
            }
            let since = *person.silent_since.get_or_insert(self.now);
            if self.now < since + person.plan.patience || self.is_evening {
                continue;
            }
            let excused = self.has_excuse(at, leg.at.0);
            let name = caller_host(at).0;
            self.counts.add(Count::SilentCalls, 1);
            self.note(|| format!("c{name} hears nothing from S{} and calls again", leg.at.0));
            if !excused {
                self.violated(format!(
                    "c{name} was lost by S{} without a reason",
                    leg.at.0
                ));
            }
            self.call_again(at);
        }
    }

    /// Remembers who loses his server by this fault and should be called back: nothing else is wrong, other
    /// servers have room, and he knows Replaces.
    pub(super) fn bereave(&mut self, fault: &Step) {
        // These keep nobody from anything.
        if matches!(fault, Step::Garbage { .. } | Step::Start { .. }) {
            return;
        }
        let was_calm = self.last_fault == 0 || self.now > self.last_fault + CALM;
        self.last_fault = self.now;
        self.bereaved.clear();
        let &Step::Kill {
            server,
            power: false,
        } = fault
        else {
            return;
        };
        let others = self.machines.iter().enumerate().filter(|(at, machine)| {
            let state = machine
                .server
                .as_ref()
                .map(|server| server.cluster().state());
            *at != server && state == Some(SvrState::Active)
        });
        // Half full at most, all of them.
        let has_room = |(_, machine): (usize, &Machine)| {
            let load = machine
                .server
                .as_ref()
                .map(|server| server.shard.participants());
            load.unwrap_or(0) as u32 * UNIT * 2 <= machine.plan.max
        };
        let (count, has_room) = (others.clone().count(), others.clone().all(has_room));
        if !was_calm || self.scenario.lossy || !self.scenario.recall || count < 2 || !has_room {
            return;
        }
        let host = server_host(server);
        let is_his = |(at, person): (usize, &Person)| match person.caller.state {
            State::Up(leg) if leg.at == host && person.caller.skills.replaces => {
                Some((self.now, at, leg))
            }
            _ => None,
        };
        let people = self.people.iter().enumerate();
        self.bereaved = people.filter_map(is_his).collect();
    }

    fn check_bereaved(&mut self) {
        let now = self.now;
        let is_due = |(since, _, _): &(Time, usize, Leg)| now >= since + CALLED_BACK;
        let all = std::mem::take(&mut self.bereaved).into_iter();
        let (due, rest): (Vec<_>, Vec<_>) = all.partition(is_due);
        self.bereaved = rest;
        for (_, at, lost) in due {
            self.counts
                .held("callers of a dead server are called back", 1);
            if matches!(self.people[at].caller.state, State::Up(leg) if leg == lost) {
                let (name, server) = (caller_host(at).0, lost.at.0);
                self.violated(format!("nobody called c{name} back, whose S{server} died"));
            }
        }
    }

    fn check_drains(&mut self) {
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            let Some(since) = machine.draining_since else {
                continue;
            };
            self.counts.held("a drain ends", 1);
            let frozen = machine.frozen_until > since;
            if self.now > since + DRAIN_MAX && !frozen {
                self.machines[at].draining_since = None;
                self.violated(format!("S{} drains and drains", server_host(at).0));
            }
        }
        self.check_lone_drain();
    }

    /// Two servers may begin at once. As soon as they hear of each other, one takes it back.
    fn check_lone_drain(&mut self) {
        let is_old = |trouble: Time| trouble == 0 || trouble + CALM < self.now;
        let is_calm = |machine: &&Machine| is_old(machine.frozen_until) && is_old(machine.trouble);
        let calm = self.machines.iter().filter(is_calm);
        let drainers = calm.filter(|machine| {
            let server = machine.server.as_ref();
            server.is_some_and(|server| server.cluster().drains_by_itself())
                && machine
                    .draining_since
                    .is_some_and(|since| since + HEARD_OF < self.now)
        });
        let drainers = drainers.count();
        self.counts.held(
            "one server at most has given up by itself",
            u64::from(drainers > 0),
        );
        if drainers > 1 && !self.scenario.lossy {
            self.violated(format!("{drainers} servers drain by themselves"));
        }
    }
}
