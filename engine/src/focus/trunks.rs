//! Trunks: calls between the foci of one conference on two servers, which carry its sound. They are no
//! participants: nobody hears of them but the cluster.
//!
//! The server whose trunk it is says so in the Request-URI, and is believed where it calls from an address
//! of the service. Then it needs neither password nor number, and no load keeps it out.

use std::collections::{BTreeMap, HashMap};

use cfw::SvrId;
use sip::sdp::{self, Agreed, Local, SessionDescription};
use sip::{Body, CallKey, Event, Flow, Invitation, Invite, Rejection};

use super::liaison::Report;
use super::lookups::{Host, Then};
use super::marks::Marks;
use super::trunk_terms::{capabilities, with_levels};
use super::{
    Focus, Means, RoomName, body, negotiate, not_acceptable, parse, reachable, remote, set_ports,
};
use crate::io::MediaIo;
use crate::room::Newcomer;
use crate::shard::stage::SeatKey;

/// Trunks of one shard: beyond that its sound could not be sent anyway.
pub(super) const TRUNKS_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct Trunks {
    /// In order, so that every run is the same.
    calls: BTreeMap<CallKey, Trunk>,
    /// The newest last: while one takes the place of another, there are two.
    of: HashMap<(RoomName, SvrId), Vec<CallKey>>,
}

struct Trunk {
    room: RoomName,
    peer: SvrId,
    seat: SeatKey,
    local: Local,
    /// Ours, while it waits for its answer.
    offer: Option<SessionDescription>,
    is_up: bool,
}

impl Trunks {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &CallKey> {
        self.calls.keys()
    }

    fn add(&mut self, call: CallKey, trunk: Trunk) {
        let name = (trunk.room.clone(), trunk.peer);
        self.of.entry(name).or_default().push(call);
        self.calls.insert(call, trunk);
    }

    /// Says also whether there is no other to the same server.
    fn remove(&mut self, call: CallKey) -> Option<(Trunk, bool)> {
        let trunk = self.calls.remove(&call)?;
        let name = (trunk.room.clone(), trunk.peer);
        let others = self.of.get_mut(&name)?;
        others.retain(|other| *other != call);
        let was_last = others.is_empty();
        if was_last {
            self.of.remove(&name);
        }
        Some((trunk, was_last))
    }

    fn find(&self, room: &RoomName, peer: SvrId) -> Option<CallKey> {
        self.of.get(&(room.clone(), peer))?.last().copied()
    }
}

impl Focus {
    /// The trunks of this shard: room, the server at the other end, and whether it is up.
    #[cfg(test)]
    pub(crate) fn trunks(&self) -> impl Iterator<Item = (&RoomName, SvrId, bool)> {
        let trunks = self.trunks.calls.values();
        trunks.map(|trunk| (&trunk.room, trunk.peer, trunk.is_up))
    }

    /// Calls the focus of a conference on another server.
    pub(super) fn open_trunk<I: MediaIo>(
        &mut self,
        room: RoomName,
        peer: SvrId,
        target: String,
        means: &mut Means<'_, I>,
    ) {
        if let Some(call) = self.trunks.find(&room, peer) {
            if self
                .trunks
                .calls
                .get(&call)
                .is_some_and(|trunk| trunk.is_up)
            {
                self.tell_of_trunk(room, peer, true);
            }
            return;
        }
        let flow = means.sip.flow_to(&target);
        match Host::of(&target).filter(|_| flow.is_none()) {
            Some(host) => {
                self.lookups.forget_trunk(&room, peer);
                let then = Then::Trunk {
                    room: room.clone(),
                    peer,
                    target,
                };
                if self.lookups.begin(host, then).is_err() {
                    self.tell_of_trunk(room, peer, false);
                }
            }
            None => self.call_trunk(room, peer, target, flow, means),
        }
    }

    pub(super) fn call_trunk<I: MediaIo>(
        &mut self,
        room: RoomName,
        peer: SvrId,
        target: String,
        flow: Option<Flow>,
        means: &mut Means<'_, I>,
    ) {
        // The other server may have called while the name was looked up.
        if self.trunks.find(&room, peer).is_some() {
            return;
        }
        let called =
            flow.is_some_and(|flow| self.call_trunk_over(flow, &room, peer, target, means));
        if !called {
            self.tell_of_trunk(room, peer, false);
        }
    }

    fn call_trunk_over<I: MediaIo>(
        &mut self,
        flow: Flow,
        room: &RoomName,
        peer: SvrId,
        target: String,
        means: &mut Means<'_, I>,
    ) -> bool {
        let Ok(seat) = self.trunk_seat(room, None, means) else {
            return false;
        };
        let local = self.trunk_local(seat, means);
        let offer = with_levels(sdp::offer(&capabilities(&self.trunk_codecs()), &local));
        let target = match Marks::of(&target).trunk {
            None => Marks::trunk(&target, self.config.server.id),
            Some(_) => target,
        };
        let invitation = Invitation {
            target,
            from: self.uri_of(room),
            contact_user: room.as_str().to_owned(),
            body: Some(body(&offer)),
            ..Invitation::default()
        };
        let Ok(call) = means.sip.invite(means.now, flow, invitation) else {
            means.stage.leave(means.now, means.ntp, seat, means.meters);
            return false;
        };
        self.by_seat.insert(seat, call);
        let trunk = Trunk {
            room: room.clone(),
            peer,
            seat,
            local,
            offer: Some(offer),
            is_up: false,
        };
        self.trunks.add(call, trunk);
        true
    }

    pub(super) fn close_trunk<I: MediaIo>(
        &mut self,
        room: &RoomName,
        peer: SvrId,
        means: &mut Means<'_, I>,
    ) {
        self.lookups.forget_trunk(room, peer);
        if let Some(call) = self.trunks.find(room, peer) {
            means.sip.bye(means.now, call, Some("trunk not needed"));
        }
    }

    /// A room is empty here: there is no sound to share.
    pub(super) fn close_trunks_of<I: MediaIo>(
        &mut self,
        room: &RoomName,
        means: &mut Means<'_, I>,
    ) {
        let of_room = |(_, trunk): &(&CallKey, &Trunk)| trunk.room == *room;
        let calls: Vec<CallKey> = self
            .trunks
            .calls
            .iter()
            .filter(of_room)
            .map(|(&call, _)| call)
            .collect();
        for call in calls {
            means.sip.bye(means.now, call, Some("conference empty"));
        }
    }

    /// The focus of a conference on another server calls.
    pub(super) fn on_trunk_invite<I: MediaIo>(
        &mut self,
        invite: &Invite,
        peer: SvrId,
        means: &mut Means<'_, I>,
    ) {
        let call = invite.call;
        if let Err(rejection) = self.answer_trunk(invite, peer, means) {
            means.sip.reject(means.now, call, rejection);
        }
    }

    fn answer_trunk<I: MediaIo>(
        &mut self,
        invite: &Invite,
        peer: SvrId,
        means: &mut Means<'_, I>,
    ) -> Result<(), Rejection> {
        let signalling = invite.flow.peer.ip();
        if !self.is_of_peer(invite) {
            return Err(Rejection::new(403));
        }
        let own = self.config.server.id;
        if peer == own {
            return Err(Rejection::new(482));
        }
        let room = invite.room_user.as_deref().and_then(RoomName::from_user);
        let room = room.ok_or_else(|| Rejection::new(404))?;
        let before = self.trunks.find(&room, peer);
        let ours = before.and_then(|call| self.trunks.calls.get(&call));
        // Both have called: that of the lower name counts.
        if ours.is_some_and(|ours| ours.offer.is_some()) && own < peer {
            return Err(Rejection::new(491));
        }
        let offer = invite.body.as_ref().map(parse).transpose()?;
        let offer = offer.ok_or_else(|| Rejection::new(488))?;
        let mut local = self.trunk_address();
        let capabilities = capabilities(&self.trunk_codecs());
        let agreed = sdp::preview(&offer, &capabilities, &local).map_err(not_acceptable)?;
        let agreed = reachable(agreed, signalling, local.address)?;
        let seat = self.trunk_seat(&room, remote(&agreed, signalling), means)?;
        set_ports(&mut local, means.stage.ports_of(seat));
        let answer = match sdp::answer(&offer, &capabilities, &local) {
            Ok((answer, _)) => with_levels(answer),
            Err(refusal) => {
                means.stage.leave(means.now, means.ntp, seat, means.meters);
                return Err(not_acceptable(refusal));
            }
        };
        self.by_seat.insert(seat, invite.call);
        let trunk = Trunk {
            room: room.clone(),
            peer,
            seat,
            local,
            offer: None,
            is_up: false,
        };
        self.trunks.add(invite.call, trunk);
        self.sit_trunk(invite.call, &agreed, means);
        let answer = body(&answer);
        means
            .sip
            .accept(means.now, invite.call, room.as_str(), answer);
        // The peer has begun anew and knows nothing of the one before.
        if let Some(before) = before {
            means.sip.bye(means.now, before, Some("replaced"));
        }
        Ok(())
    }

    fn sit_trunk<I: MediaIo>(&mut self, call: CallKey, agreed: &Agreed, means: &mut Means<'_, I>) {
        let host = self.media_address();
        let seed = self.random.next_u64();
        let codecs = self.trunk_codecs();
        let Some(trunk) = self.trunks.calls.get(&call) else {
            return;
        };
        let codec = codecs[agreed.codec];
        let newcomer = Newcomer {
            entity: format!("trunk to {}", trunk.peer),
            joined: means.wall,
            session: negotiate::trunk_session(means.now, agreed, codec, seed, host),
            leg: negotiate::leg(agreed, &codecs),
        };
        means.stage.sit(means.now, trunk.seat, newcomer);
    }

    /// Acts on what happens on trunks; gives back what is not of one.
    pub(super) fn on_trunk_event<I: MediaIo>(
        &mut self,
        event: Event,
        means: &mut Means<'_, I>,
    ) -> Option<Event> {
        let is_one = |call: &CallKey| self.trunks.calls.contains_key(call);
        match event {
            Event::Accepted { call, body } if is_one(&call) => {
                self.on_trunk_accepted(call, body, means);
            }
            Event::Established { call, .. } if is_one(&call) => self.trunk_is_up(call, means),
            Event::Ended { call, .. }
            | Event::Rejected { call, .. }
            | Event::Redirected { call, .. }
                if is_one(&call) =>
            {
                self.forget_trunk(call, means);
            }
            // The terms of a trunk stay.
            Event::Reinvite { call, .. } if is_one(&call) => {
                means.sip.reject(means.now, call, Rejection::new(488));
            }
            Event::Progress { call, .. } | Event::Dtmf { call, .. } if is_one(&call) => {}
            other => return Some(other),
        }
        None
    }

    fn on_trunk_accepted<I: MediaIo>(
        &mut self,
        call: CallKey,
        answer: Option<Body>,
        means: &mut Means<'_, I>,
    ) {
        let codecs = self.trunk_codecs();
        let Some(trunk) = self.trunks.calls.get_mut(&call) else {
            return;
        };
        let peer = means.sip.flow_of(call).map(|flow| flow.peer.ip());
        let capabilities = capabilities(&codecs);
        let agreed = answer
            .and_then(|answer| sdp::parse(&answer.content).ok())
            .zip(trunk.offer.take())
            .and_then(|(answer, offer)| sdp::accept_answer(&offer, &answer, &capabilities).ok())
            .zip(peer);
        // Our ports are in the offer; an answer that would need others cannot be had.
        let agreed = agreed.filter(|(agreed, peer)| {
            let ports = means
                .stage
                .expect(means.now, trunk.seat, remote(agreed, *peer));
            ports.is_ok_and(|ports| ports.rtp() == trunk.local.rtp_port)
        });
        match agreed {
            Some((agreed, _)) => {
                self.sit_trunk(call, &agreed, means);
                self.trunk_is_up(call, means);
            }
            None => means
                .sip
                .bye(means.now, call, Some("no usable answer to the offer")),
        }
    }

    fn trunk_is_up<I: MediaIo>(&mut self, call: CallKey, means: &mut Means<'_, I>) {
        let Some(trunk) = self.trunks.calls.get_mut(&call) else {
            return;
        };
        if let Some(member) = means.stage.member(trunk.seat) {
            member.confirm();
        }
        if !std::mem::replace(&mut trunk.is_up, true) {
            let (room, peer) = (trunk.room.clone(), trunk.peer);
            self.tell_of_trunk(room, peer, true);
        }
    }

    fn forget_trunk<I: MediaIo>(&mut self, call: CallKey, means: &mut Means<'_, I>) {
        if let Some((trunk, was_last)) = self.trunks.remove(call) {
            self.by_seat.remove(&trunk.seat);
            means
                .stage
                .leave(means.now, means.ntp, trunk.seat, means.meters);
            if was_last {
                self.tell_of_trunk(trunk.room, trunk.peer, false);
            }
        }
    }

    fn tell_of_trunk(&mut self, room: RoomName, peer: SvrId, up: bool) {
        self.reports.push(Report::Trunk { room, peer, up });
    }
}
