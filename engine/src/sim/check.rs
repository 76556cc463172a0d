//! What must always be, and what must be again when the faults are over.

use std::collections::BTreeSet;

use cfw::dist_conf::load::SvrState;

use super::caller::{Heard, State};
use super::clock::{SECOND, Time};
use super::net::Host;
use super::report::Count;
use super::scenario::{EVENING, LAST_FAULT, Step, caller_host, server_host};
use super::server::{Roster, svr_id};
use super::shard::UNIT;
use super::world::{Machine, Person, World};

/// A drain takes no longer than its deadline, and this.
const DRAIN_MAX: Time = 60 * SECOND + 15 * SECOND;

/// The longest that a caller's trouble explains what goes wrong later: 64·T1 and a session's rest.
const AFTERMATH: Time = 100 * SECOND;

/// So long nothing must have been wrong before a server dies, if all its callers are to be called back.
const CALM: Time = 40 * SECOND;

/// By then the others know that a server drains.
const HEARD_OF: Time = 3 * SECOND;

/// By then they have been.
const CALLED_BACK: Time = 10 * SECOND;

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
            Heard::Refused { from, status, .. } => {
                self.counts.held("a refusal has a reason", 1);
                if ![503, 480].contains(status) && !self.has_excuse(at, from.0) {
                    self.violated(format!("S{} refused c{name} with {status}", from.0));
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

    /// Once a second.
    pub(super) fn check(&mut self) {
        self.check_callers();
        self.check_bereaved();
        self.check_drains();
        if self.now >= LAST_FAULT && self.agreed_at.is_none() && !self.is_evening {
            let disagreement = self.disagreement();
            if disagreement.is_none() {
                self.agreed_at = Some(self.now);
                let took = self.now - LAST_FAULT;
                self.counts.slowest_agreement = self.counts.slowest_agreement.max(took);
            }
        }
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
        self.counts
            .held("nobody is lost without a reason", self.people.len() as u64);
    }

    /// Remembers who loses his server by this fault and should be called back: nothing else is wrong, other
    /// servers have room, and he knows Replaces.
    pub(super) fn bereave(&mut self, fault: &Step) {
        let was_calm = self.last_fault == 0 || self.now > self.last_fault + CALM;
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
        let is_his = |(_, person): &(usize, &Person)| {
            let is_there = matches!(person.caller.state, State::Up(leg) if leg.at == host);
            is_there && person.caller.skills.replaces
        };
        let people = self.people.iter().enumerate().filter(is_his);
        let bereaved = people.map(|(at, _)| (self.now, at, host)).collect();
        self.bereaved = bereaved;
    }

    fn check_bereaved(&mut self) {
        let now = self.now;
        let is_due = |(since, _, _): &(Time, usize, Host)| now >= since + CALLED_BACK;
        let all = std::mem::take(&mut self.bereaved).into_iter();
        let (due, rest): (Vec<_>, Vec<_>) = all.partition(is_due);
        self.bereaved = rest;
        for (_, at, host) in due {
            self.counts
                .held("callers of a dead server are called back", 1);
            if matches!(self.people[at].caller.state, State::Up(leg) if leg.at == host) {
                let name = caller_host(at).0;
                self.violated(format!(
                    "nobody called c{name} back, whose S{} died",
                    host.0
                ));
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

    /// Everybody who is in a conference, by the servers that have them.
    fn truth(&self) -> Roster {
        let mut truth = Roster::new();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(server) = &machine.server else {
                continue;
            };
            let id = svr_id(server_host(at)).to_string();
            let users = server.shard.users();
            truth.extend(users.map(|(room, entity)| (room, entity, id.clone())));
        }
        truth
    }

    /// How a server's view differs from the truth, if one's does.
    fn disagreement(&self) -> Option<String> {
        let truth = self.truth();
        for (at, machine) in self.machines.iter().enumerate() {
            let Some(server) = &machine.server else {
                continue;
            };
            let is_apart = server.cluster().state() == SvrState::Standby && server.channels() == 0;
            if is_apart {
                continue;
            }
            let seen = server.roster();
            if seen != truth {
                let missing: Vec<_> = truth.difference(&seen).take(3).collect();
                let ghosts: Vec<_> = seen.difference(&truth).take(3).collect();
                let name = server_host(at).0;
                return Some(format!(
                    "S{name} misses {missing:?} and sees ghosts {ghosts:?}"
                ));
            }
        }
        None
    }

    /// Before all hang up: the servers have found together again.
    pub(super) fn check_evening(&mut self) {
        debug_assert!(self.now >= EVENING);
        self.counts
            .held("one roster everywhere after the last fault", 1);
        // A move or a drain may be on its way at this moment, but not in every one.
        let disagreement = self.disagreement();
        if self.agreed_at.is_none()
            && let Some(disagreement) = disagreement
        {
            self.violated(format!(
                "no one roster after the last fault: {disagreement}"
            ));
        }
        self.counts.held("the mesh is whole again", 1);
        let active: Vec<usize> = (0..self.machines.len())
            .filter(|at| {
                let server = self.machines[*at].server.as_ref();
                server.is_some_and(|server| server.cluster().state() != SvrState::Standby)
            })
            .collect();
        for &at in &active {
            let Some(server) = &self.machines[at].server else {
                continue;
            };
            let channels = server.channels();
            let alive = self
                .machines
                .iter()
                .filter(|machine| machine.server.is_some());
            let most = alive.count() - 1;
            let name = server_host(at).0;
            if channels + 1 < active.len() || channels > most {
                let (least, active) = (active.len() - 1, active.len());
                self.violated(format!(
                    "S{name} has {channels} channels, and should have {least} to {most} ({active} are active)"
                ));
            }
        }
    }

    /// At the end nothing of any call is left.
    pub(super) fn check_night(&mut self) {
        for at in 0..self.machines.len() {
            let Some(server) = &self.machines[at].server else {
                continue;
            };
            let name = server_host(at).0;
            let sizes = server.shard.sizes();
            let (rest, users) = (server.shard.is_at_rest(), server.roster().len());
            self.counts
                .held("no call, transaction, trunk or user is left", 1);
            if !rest {
                self.violated(format!("S{name} still has {sizes:?}"));
            } else if users > 0 {
                self.violated(format!("S{name} still sees {users} users"));
            }
        }
        let servers: usize = self
            .machines
            .iter()
            .filter_map(|machine| machine.server.as_ref())
            .map(super::server::Server::channels)
            .sum();
        self.counts
            .held("channels have two ends, streams a channel", 1);
        let streams = self.net.streams();
        if servers != 2 * streams {
            self.violated(format!("{streams} streams, but {servers} ends of channels"));
        }
        for at in 0..self.people.len() {
            if !self.people[at].caller.is_at_rest() {
                let name = caller_host(at).0;
                let state = self.people[at].caller.state.clone();
                self.violated(format!("c{name} still has something: {state:?}"));
            }
        }
    }
}
