//! SIP messages on their way through a shard: to whoever is to handle them, and out again.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use sip::{Event, Flow, Output, Transport};

use super::{Core, doorman, stream_holder};
use crate::focus::Means;
use crate::io::MediaIo;
use crate::io::stream::StreamEvent;
use crate::meters::{CoreMeters, Kind, Unwanted};
use crate::shard::ShardIndex;
use crate::shard::arrivals::{Arrival, Way};
use crate::shard::mailbox::Mail;
use crate::trace::Direction;

impl<I: MediaIo> Core<I> {
    pub(super) fn take_arrived(&mut self, now: Instant, most: usize, meters: &CoreMeters) {
        for _ in 0..most {
            let Some(arrival) = self.arrived.pop() else {
                return;
            };
            self.last_sip = Some(now);
            self.steer(now, arrival, meters);
        }
    }

    pub(super) fn take_streams(
        &mut self,
        now: Instant,
        streams: &mut Vec<StreamEvent>,
        meters: &CoreMeters,
    ) {
        for event in streams.drain(..) {
            match event {
                StreamEvent::Message { flow, message } => {
                    let Self { gate, common, .. } = self;
                    let mut doorman = doorman(gate, common, meters);
                    if let Some(way) = doorman.look(now, flow.peer.ip(), &message) {
                        let arrival = Arrival { flow, message, way };
                        self.steer(now, arrival, meters);
                    }
                }
                // A new connection was asked for here; of an old one its shard does not know who wants it.
                StreamEvent::Failed { flow } if flow.stream == 0 => {
                    self.sip.handle_flow_failed(now, flow);
                    let hub = self.common.mailboxes.hub();
                    self.outbox.post(hub, Mail::FlowFailed { flow });
                }
                StreamEvent::Failed { flow } | StreamEvent::Closed { flow } => {
                    for shard in 0..=self.common.mailboxes.shards() {
                        self.outbox
                            .post(ShardIndex(shard as u16), Mail::FlowClosed { flow });
                    }
                }
            }
        }
    }

    /// Gives a message that this shard received to whoever is to handle it.
    fn steer(&mut self, now: Instant, arrival: Arrival, meters: &CoreMeters) {
        meters.sip_received.add(1);
        let Arrival { flow, message, way } = arrival;
        meters.sip_received_by.count(Kind::of(&message));
        let to = match way {
            Way::Owner(shard) | Way::Any(shard) => shard,
            Way::Room(room) => {
                let shards = self.common.mailboxes.shards();
                let home = self.common.spread.shard(room.as_str().as_bytes(), shards);
                if home != self.index {
                    let room = room.as_str().to_owned();
                    let mail = Mail::SipToHome {
                        flow,
                        room,
                        message,
                    };
                    return self.forward(home, mail, meters);
                }
                let owner = self.owner_of(now, room.as_str());
                let room = room.as_str().to_owned();
                return self.hand_to_room(now, owner, room, (flow, message), meters);
            }
            Way::Here => self.index,
        };
        self.hand_to(now, to, flow, message, meters);
    }

    pub(super) fn owner_of(&mut self, now: Instant, room: &str) -> ShardIndex {
        let Self {
            directory,
            placement,
            common,
            index,
            ..
        } = self;
        // Rooms that stay when they are empty stay at home: who subscribed to one waits where its next
        // callers come to, however long that takes.
        let is_permanent = || common.config.rooms.names.iter().any(|name| name == room);
        let place = || match is_permanent() {
            true => *index,
            false => placement.place(now, &common.meters),
        };
        directory.owner(now, room, place).unwrap_or(*index)
    }

    pub(super) fn hand_to(
        &mut self,
        now: Instant,
        to: ShardIndex,
        flow: Flow,
        message: Bytes,
        meters: &CoreMeters,
    ) {
        if to == self.index {
            self.handle(now, flow, &message, meters);
        } else {
            self.forward(to, Mail::SipToOwner { flow, message }, meters);
        }
    }

    /// The last look before the stack: of who is muted only what is of a dialog here is handled. The first
    /// look saw no more than a tag that could be one of ours.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        flow: Flow,
        message: &Bytes,
        meters: &CoreMeters,
    ) {
        if self.gate.is_muted(now, flow.peer.ip()) && !self.sip.knows(message) {
            return meters.unwanted.add(Unwanted::Muted);
        }
        self.tracer.record(Direction::In, flow, message, meters);
        self.sip.handle_message(now, flow, message);
    }

    pub(super) fn forward(&mut self, to: ShardIndex, mail: Mail, meters: &CoreMeters) {
        meters.sip_forwarded.add(1);
        if !self.outbox.post(to, mail) {
            meters.mailbox_dropped.add(1);
        }
    }

    /// Lets the focus act on what the stack reports, and sends what the stack has to send, until both rest.
    pub(super) fn drain_sip(
        &mut self,
        now: Instant,
        wall: SystemTime,
        ntp: u64,
        writes: &mut Vec<(Flow, Bytes)>,
        meters: &CoreMeters,
    ) {
        while let Some(output) = self.sip.poll_output() {
            match output {
                Output::Transmit { flow, message } => {
                    self.judge(now, &flow, &message, meters);
                    self.transmit(flow, message, writes, meters);
                }
                Output::Event(event) => {
                    if let Event::Invite(invite) = &event {
                        self.waits.asked(now, &invite.call_id);
                    }
                    let mut means = Means {
                        now,
                        wall,
                        ntp,
                        sip: &mut self.sip,
                        stage: &mut self.stage,
                        meters,
                    };
                    self.focus.handle_event(event, &mut means);
                }
            }
        }
        let malformed = self.sip.counters().malformed;
        meters
            .sip_malformed
            .add(malformed.saturating_sub(meters.sip_malformed.get()));
    }

    /// What we answer tells what was sent to us.
    pub(super) fn judge(&mut self, now: Instant, flow: &Flow, message: &[u8], meters: &CoreMeters) {
        if let Some(what) = Unwanted::of_answer(message) {
            meters.unwanted.add(what);
            self.gate.fault(now, flow.peer.ip(), what);
        }
    }

    pub(super) fn transmit(
        &mut self,
        flow: Flow,
        message: Bytes,
        writes: &mut Vec<(Flow, Bytes)>,
        meters: &CoreMeters,
    ) {
        let kind = Kind::of(&message);
        meters.sip_sent.add(1);
        meters.sip_sent_by.count(kind);
        self.tracer.record(Direction::Out, flow, &message, meters);
        self.waits.sent(kind, &message, meters);
        match flow.transport {
            Transport::Udp => {
                let Some(Some(socket)) = self.sip_sockets.get(usize::from(flow.listener)).copied()
                else {
                    return;
                };
                let payload = self.stage.io().share(&message);
                self.stage.io().queue(socket, flow.peer, &[], payload);
            }
            _ => match stream_holder(flow.stream) {
                holder if flow.stream == 0 || holder == self.index => writes.push((flow, message)),
                holder => drop(self.outbox.post(holder, Mail::Write { flow, message })),
            },
        }
    }
}
