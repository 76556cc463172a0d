//! Rooms on one core and on several: where messages for them go, and how their parts find each other.

use std::time::Instant;

use bytes::Bytes;
use sip::Flow;
use sip::scan::Start;

use super::Core;
use crate::io::MediaIo;
use crate::meters::CoreMeters;
use crate::room::core_link;
use crate::shard::ShardIndex;
use crate::shard::mailbox::{Mail, Sought};
use crate::shard::span::Asked;

impl<I: MediaIo> Core<I> {
    /// Gives a message for a room to the shard that has it or its oldest part, or is to have it.
    pub(super) fn hand_to_room(
        &mut self,
        now: Instant,
        owner: ShardIndex,
        room: String,
        message: (Flow, Bytes),
        meters: &CoreMeters,
    ) {
        let sought = Box::new(Sought {
            room,
            passed: Vec::new(),
        });
        if owner == self.index {
            self.take_part(now, sought, message, meters);
        } else {
            self.pass_on(owner, sought, message, meters);
        }
    }

    /// Handles a message for a room, unless it is for another part of it.
    pub(super) fn take_part(
        &mut self,
        now: Instant,
        mut sought: Box<Sought>,
        (flow, message): (Flow, Bytes),
        meters: &CoreMeters,
    ) {
        let to = self.part_for(now, &sought, &message);
        if to == self.index {
            self.handle(now, flow, &message, meters);
        } else {
            sought.passed.push(self.index);
            self.pass_on(to, sought, (flow, message), meters);
        }
    }

    fn pass_on(
        &mut self,
        to: ShardIndex,
        sought: Box<Sought>,
        (flow, message): (Flow, Bytes),
        meters: &CoreMeters,
    ) {
        let mail = Mail::SipToPart {
            flow,
            message,
            sought,
        };
        self.forward(to, mail, meters);
    }

    fn part_for(&mut self, now: Instant, sought: &Sought, message: &[u8]) -> ShardIndex {
        let Self {
            index,
            common,
            stage,
            spans,
            placement,
            ..
        } = self;
        let span_at = common.config.rooms.span_at as usize;
        if span_at == 0 || common.mailboxes.shards() == 1 {
            return *index;
        }
        let Ok(glance) = sip::scan(message) else {
            return *index;
        };
        let Sought { room, passed } = sought;
        let asked = Asked {
            room,
            call_id: glance.call_id,
            begins: matches!(glance.start, Start::Request { method, .. } if method == b"INVITE"),
            passed,
        };
        let full = stage.taken(room).is_some_and(|taken| taken >= span_at);
        let place =
            |may: &dyn Fn(ShardIndex) -> bool| placement.place_apart(now, &common.meters, may);
        spans.decide(now, *index, asked, full, stage.parts(room), place)
    }

    /// A shard has opened a room whose entry is here, or a part of one: it is joined to all others.
    pub(super) fn room_opened(&mut self, now: Instant, room: String, owner: ShardIndex) {
        for other in self.directory.opened(now, &room, owner) {
            let (left, right) = core_link();
            for (to, part, end) in [(owner, other, left), (other, owner, right)] {
                if to == self.index {
                    self.stage.join_part(&room, part, end);
                } else {
                    let (room, end) = (room.clone(), Box::new(end));
                    self.outbox.post(to, Mail::JoinPart { room, part, end });
                }
            }
        }
    }

    /// Tells of rooms that opened or closed here to those who keep their entries.
    pub(super) fn tell_homes(&mut self, now: Instant) {
        let owner = self.index;
        for (room, opened) in std::mem::take(&mut self.stage.incidents().rooms) {
            let shards = self.common.mailboxes.shards();
            let home = self.common.spread.shard(room.as_bytes(), shards);
            match (home == owner, opened) {
                (true, true) => self.room_opened(now, room, owner),
                (true, false) => self.directory.closed(now, &room, owner),
                (false, true) => drop(self.outbox.post(home, Mail::RoomOpened { room, owner })),
                (false, false) => drop(self.outbox.post(home, Mail::RoomClosed { room, owner })),
            }
        }
    }
}
