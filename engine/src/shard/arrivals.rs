//! SIP messages between their arrival and their turn: who is to have them, and in what order.
//!
//! A message is looked at once, when it comes in. What belongs to a dialog is handled before anything
//! that would begin one, and is the last to be dropped when more comes than can be handled.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use sip::Flow;
use sip::scan::{Glance, Start, headers};

use super::ShardIndex;
use super::directory::Spread;
use crate::focus::RoomName;
use crate::load::gate::{Gate, Pass};
use crate::meters::{CoreMeters, Unwanted};

/// SIP messages that may wait for a later turn; beyond it they are dropped, as a full socket would.
const WAITING_MAX: usize = 4_096;

/// Whose a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Of a dialog or a transaction of this shard.
    Owner(ShardIndex),
    /// Of whoever has the room, or will have it.
    Room(RoomName),
    /// Of nobody yet: of the shard on which its Call-ID falls, or which has the dialog that it names, or of the
    /// hub.
    Any(ShardIndex),
    /// Of whoever received it: no SIP, which the stack answers with 400 if there is enough to answer to, or
    /// a REGISTER, which it refuses.
    Here,
}

/// What the gate needs to look at a message.
pub(super) struct Doorman<'a> {
    pub(super) gate: &'a mut Gate,
    pub(super) meters: &'a CoreMeters,
    pub(super) spread: &'a Spread,
    pub(super) shards: usize,
    /// Of the programs that get no answer, in lower case.
    pub(super) drop_user_agents: &'a [String],
}

impl Doorman<'_> {
    /// Whose a message is; None if it is dropped.
    pub(super) fn look(&mut self, now: Instant, from: IpAddr, message: &[u8]) -> Option<Way> {
        let pass = self.gate.admit(now, from);
        let glance = sip::scan(message);
        let owner = glance.ok().as_ref().and_then(Glance::owner);
        // One more than there are shards: the hub owns dialogs as well.
        if let Some(owner) = owner.filter(|&owner| usize::from(owner) <= self.shards) {
            return Some(Way::Owner(ShardIndex(owner)));
        }
        if let Pass::DialogsOnly(dropped) = pass {
            self.meters.unwanted.add(dropped);
            return None;
        }
        let Ok(glance) = glance else {
            self.fault(now, from, Unwanted::Garbage);
            return Some(Way::Here);
        };
        let any = || Way::Any(self.spread.shard(glance.call_id, self.shards));
        let Start::Request { method, .. } = glance.start else {
            return Some(any());
        };
        if self.is_ignored(message) && !self.gate.is_trusted(from) {
            self.fault(now, from, Unwanted::UserAgent);
            return None;
        }
        if method == b"REGISTER" {
            return Some(Way::Here);
        }
        // A call that is to replace or join another goes to where that is, whatever room it asks for. Its
        // CANCEL names no dialog and may not find it: it is answered and ended then.
        let named = glance.named_owner().filter(|_| method == b"INVITE");
        if let Some(owner) = named.filter(|&owner| usize::from(owner) < self.shards) {
            return Some(Way::Any(ShardIndex(owner)));
        }
        let user = glance.user();
        if user.as_deref() == Some(RoomName::CONTROL) && is_for_channels(method) {
            return Some(Way::Any(ShardIndex(self.shards as u16)));
        }
        let room = user
            .filter(|_| glance.is_for_room())
            .and_then(|user| RoomName::from_user(&user));
        Some(room.map_or_else(any, Way::Room))
    }

    fn fault(&mut self, now: Instant, from: IpAddr, what: Unwanted) {
        self.meters.unwanted.add(what);
        self.gate.fault(now, from, what);
    }

    fn is_ignored(&self, message: &[u8]) -> bool {
        let names = self.drop_user_agents;
        !names.is_empty()
            && headers(message, "User-Agent", None).any(|agent| {
                names.iter().any(|name| {
                    let start = agent.get(..name.len());
                    start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
                })
            })
    }
}

/// What control channels need outside of their dialogs; all else is refused by a shard.
fn is_for_channels(method: &[u8]) -> bool {
    matches!(method, b"INVITE" | b"CANCEL" | b"ACK" | b"OPTIONS")
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) flow: Flow,
    pub(super) message: Bytes,
    pub(super) way: Way,
}

/// What waits, at most [`WAITING_MAX`] in all.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    dialogs: VecDeque<Arrival>,
    others: VecDeque<Arrival>,
}

impl Arrivals {
    /// Whether a message on this way would be kept; asked before it is copied.
    pub(super) fn has_room(&self, way: &Way) -> bool {
        self.len() < WAITING_MAX || (is_dialogs(way) && !self.others.is_empty())
    }

    /// Says whether a message is lost by it: in a full queue this one, or, if this one is of a dialog, the
    /// latest that is not.
    pub(super) fn push(&mut self, arrival: Arrival) -> bool {
        let kept = self.has_room(&arrival.way);
        let displaces = kept && self.len() >= WAITING_MAX;
        if displaces {
            self.others.pop_back();
        }
        if kept {
            let queue = if is_dialogs(&arrival.way) {
                &mut self.dialogs
            } else {
                &mut self.others
            };
            queue.push_back(arrival);
        }
        !kept || displaces
    }

    /// Dialogs first; otherwise in the order in which they came.
    pub(super) fn pop(&mut self) -> Option<Arrival> {
        self.dialogs.pop_front().or_else(|| self.others.pop_front())
    }

    pub(super) fn len(&self) -> usize {
        self.dialogs.len() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_dialogs(way: &Way) -> bool {
    matches!(way, Way::Owner(_))
}

#[cfg(test)]
mod tests;
