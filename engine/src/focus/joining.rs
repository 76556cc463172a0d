//! Callers on their way into a room, and the terms they are there on.

use std::time::Duration;

use sip::refer::DialogId;
use sip::sdp::{self, Agreed, Local, SessionDescription};
use sip::{Body, CallKey, Invite, Named, Rejection};

use super::access::Entry;
use super::call::{Call, Gate, PIN_TIME, Phase};
use super::marks::Marks;
use super::refusals::Refused;
use super::{
    Focus, Means, RoomName, body, described_anew, log_no_seat, negotiate, not_acceptable, parse,
    reachable, rejection, remote, set_ports,
};
use crate::codec::Codec;
use crate::io::MediaIo;
use crate::load::Asked;
use crate::room::Newcomer;

/// Where a caller goes, and whom he takes over.
struct Destination {
    room: RoomName,
    replaces: Option<CallKey>,
}

impl Focus {
    pub(super) fn on_invite<I: MediaIo>(&mut self, invite: Invite, means: &mut Means<'_, I>) {
        if let Some(peer) = Marks::of(&invite.request_uri).trunk {
            return self.on_trunk_invite(&invite, peer, means);
        }
        means.meters.calls_total.add(1);
        if !self.is_to_be_placed(&invite) {
            return self.take_in(invite, None, means);
        }
        let (call, refused) = (invite.call, Refused::of(&invite));
        if let Err(rejection) = self.ask_cluster(invite, means) {
            means.meters.calls_rejected.add(1);
            self.tell_refusal(means.now, refused, &rejection, "too many callers wait");
            means.sip.reject(means.now, call, rejection);
        }
    }

    /// Lets a caller in who stays here; by the cluster's word if it is known how.
    pub(super) fn take_in<I: MediaIo>(
        &mut self,
        invite: Invite,
        entry: Option<Entry>,
        means: &mut Means<'_, I>,
    ) {
        let (key, refused) = (invite.call, Refused::of(&invite));
        match self.seat(invite, entry, means) {
            Ok(offer) => {
                let ring = Duration::from_millis(self.config.rooms.answer_after_ms.into());
                if ring.is_zero() {
                    return self.answer(key, offer, means);
                }
                let Some(call) = self.calls.get_mut(&key) else {
                    return;
                };
                call.phase = Phase::Ringing {
                    offer: offer.map(Box::new),
                };
                means.sip.ring(means.now, key, call.room.as_str());
                self.ringing.push_back((means.now + ring, key));
                self.tell_roster(key, means);
            }
            Err(rejection) => {
                means.meters.calls_rejected.add(1);
                let busy = match self.admission.is_closed() {
                    true => "this server takes nobody",
                    false => "no seat is free",
                };
                self.tell_refusal(means.now, refused, &rejection, busy);
                means.sip.reject(means.now, key, rejection);
            }
        }
    }

    /// Finds the caller a seat; gives his offer back, parsed.
    fn seat<I: MediaIo>(
        &mut self,
        invite: Invite,
        entry: Option<Entry>,
        means: &mut Means<'_, I>,
    ) -> Result<Option<SessionDescription>, Rejection> {
        let Destination { room, replaces } = self.destination(&invite, means)?;
        let leaves = replaces.is_some() || self.is_moved(&invite, &room);
        let asked = Asked {
            room: room.as_str(),
            participants: self.participants(&room, invite.room_user.as_deref(), leaves, means),
            random: self.random.next_u64(),
        };
        self.admission.ask(&self.config, asked).map_err(rejection)?;
        // Whoever joins a call that is here cannot be sent on.
        if invite.join.is_some() && self.admission.is_closed() {
            return Err(rejection(self.admission.not_now(asked.random)));
        }
        // Whom the cluster has placed may enter.
        if replaces.is_none() && entry.is_none() {
            self.may_enter(&room)?;
        }
        let signalling = invite.flow.peer.ip();
        let relayed = self.is_relayed(&invite);
        let entry = entry.map_or_else(|| self.entry(&invite, &room, means), Ok)?;
        let was_let_in = replaces
            .and_then(|replaced| self.calls.get(&replaced))
            .is_some_and(Call::is_let_in);
        let gate = match entry {
            Entry::AfterPin(pin) if !was_let_in => {
                let ring = Duration::from_millis(self.config.rooms.answer_after_ms.into());
                let until = means.now + ring + PIN_TIME;
                self.waiting.push_back((until, invite.call));
                Gate::Pin { pin, tries: 0 }
            }
            Entry::AfterPin(_) | Entry::Free => Gate::Open,
        };
        let offer = invite.body.as_ref().map(parse).transpose()?;

        let mut local = Local {
            address: self.media_address(),
            rtp_port: 0,
            rtcp_port: 0,
            session_id: self.random.next_u64() >> 1,
            version: 1,
        };
        let agreed = offer
            .as_ref()
            .map(|offer| {
                let agreed = sdp::preview(offer, &self.capabilities, &local);
                reachable(agreed.map_err(not_acceptable)?, signalling, local.address)
            })
            .transpose()?;
        let remote = agreed
            .as_ref()
            .and_then(|agreed| remote(agreed, signalling));
        let seat = means
            .stage
            .take_seat(means.now, room.as_str(), remote)
            .map_err(|error| {
                log_no_seat(room.as_str(), &error);
                rejection(self.admission.not_now(asked.random))
            })?;
        let pending = Some(self.admission.taken());
        set_ports(&mut local, means.stage.ports_of(seat));
        let call = Call {
            seat,
            room,
            signalling,
            entity: invite.from_uri,
            display_name: invite.from_display,
            joined: means.wall,
            local,
            phase: Phase::Ringing { offer: None },
            pending,
            described: None,
            dialled: None,
            replaces,
            gate,
            listened: false,
            relayed,
            muted: false,
            keys: String::new(),
            confirmed: false,
        };
        self.by_seat.insert(seat, invite.call);
        self.calls.insert(invite.call, call);
        Ok(offer)
    }

    /// How many are in the room of a call, here and elsewhere, or on their way: without the one that its
    /// caller `leaves` for it. The factory's rooms are there as soon as they are asked for.
    pub(super) fn participants<I: MediaIo>(
        &self,
        room: &RoomName,
        user: Option<&str>,
        leaves: bool,
        means: &Means<'_, I>,
    ) -> Option<usize> {
        let taken = means.stage.taken(room.as_str());
        let is_made = user == Some(RoomName::FACTORY);
        let elsewhere = self.elsewhere.participants(room);
        let there = match taken {
            None if elsewhere == 0 && !is_made => return None,
            taken => taken.unwrap_or(0) + elsewhere,
        };
        Some(there - usize::from(leaves).min(there))
    }

    /// The room that an INVITE is for: of its Request-URI, or that of the call it joins or replaces.
    fn destination<I: MediaIo>(
        &mut self,
        invite: &Invite,
        means: &mut Means<'_, I>,
    ) -> Result<Destination, Rejection> {
        let malformed =
            |error: sip::refer::ReferError| Rejection::new(400).warning(399, &error.to_string());
        if let Some(replaces) = &invite.replaces {
            let id = DialogId::replaces(replaces).map_err(malformed)?;
            let replaced = match means.sip.named(&id.call_id, &id.to_tag, &id.from_tag) {
                Named::Confirmed(_) if id.early_only => return Err(Rejection::new(486)),
                Named::Confirmed(call) => call,
                Named::Over => return Err(Rejection::new(603)),
                // Only calls of ours may be taken over before they are answered (RFC 3891 §3), and whoever
                // takes over a conference's call is the conference.
                Named::Early(_) | Named::Unknown => return Err(Rejection::new(481)),
            };
            let call = self.calls.get(&replaced);
            let call = call.ok_or_else(|| Rejection::new(481))?;
            return Ok(Destination {
                room: call.room.clone(),
                replaces: Some(replaced),
            });
        }
        let room = match &invite.join {
            Some(join) => {
                let id = DialogId::join(join).map_err(malformed)?;
                let joined = match means.sip.named(&id.call_id, &id.to_tag, &id.from_tag) {
                    Named::Confirmed(call) => self.calls.get(&call),
                    _ => None,
                };
                joined.ok_or_else(|| Rejection::new(481))?.room.clone()
            }
            None => self.room_asked_for(invite.room_user.as_deref())?,
        };
        Ok(Destination {
            room,
            replaces: None,
        })
    }

    /// Answers the offer, or makes one where there was none.
    pub(super) fn answer<I: MediaIo>(
        &mut self,
        key: CallKey,
        offer: Option<SessionDescription>,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let description = match offer {
            None => {
                call.phase = Phase::Offering;
                sdp::offer(&self.capabilities, &call.local)
            }
            Some(offer) => match sdp::answer(&offer, &self.capabilities, &call.local) {
                Ok((answer, agreed)) => {
                    self.join(key, &agreed, means);
                    answer
                }
                Err(refusal) => {
                    means.meters.calls_rejected.add(1);
                    means.sip.reject(means.now, key, not_acceptable(refusal));
                    return self.forget(key, means);
                }
            },
        };
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let body = body(&description);
        call.described = Some(description);
        means.sip.accept(means.now, key, call.room.as_str(), body);
        self.tell_roster(key, means);
    }

    /// The caller enters the room on these terms.
    pub(super) fn join<I: MediaIo>(
        &mut self,
        key: CallKey,
        agreed: &Agreed,
        means: &mut Means<'_, I>,
    ) {
        let host = self.media_address();
        let jitter_depth = Duration::from_millis(self.config.rtp.jitter_ms.into());
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        call.phase = Phase::Joined { offering: false };
        if let Some(pending) = call.pending.take() {
            pending.begin();
        }
        call.listened = !agreed.held;
        let session = negotiate::session(
            means.now,
            agreed,
            self.random.next_u64(),
            jitter_depth,
            host,
        );
        let newcomer = Newcomer {
            entity: call.entity.clone(),
            joined: call.joined,
            session,
            leg: negotiate::leg(agreed, &Codec::ALL),
        };
        means.stage.sit(means.now, call.seat, newcomer);
        // Before his ACK: who still has to key in a number is not heard for a moment.
        self.admit(key, means);
    }

    pub(super) fn on_established<I: MediaIo>(
        &mut self,
        key: CallKey,
        answer: Option<Body>,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let offering = matches!(
            call.phase,
            Phase::Offering | Phase::Joined { offering: true }
        );
        if offering {
            let Some(offer) = &call.described else { return };
            let agreed = answer
                .as_ref()
                .ok_or(())
                .and_then(|body| sdp::parse(&body.content).map_err(drop))
                .and_then(|answer| {
                    sdp::accept_answer(offer, &answer, &self.capabilities).map_err(drop)
                });
            // The offer has named our ports; an answer that would need others cannot be had.
            let agreed = agreed.and_then(|agreed| {
                let ports =
                    means
                        .stage
                        .expect(means.now, call.seat, remote(&agreed, call.signalling));
                let same = ports.is_ok_and(|ports| ports.rtp() == call.local.rtp_port);
                same.then_some(agreed).ok_or(())
            });
            match (agreed, &mut call.phase) {
                (Ok(agreed), Phase::Joined { offering }) => {
                    *offering = false;
                    self.agree(key, &agreed, means);
                }
                (Ok(agreed), _) => self.join(key, &agreed, means),
                // A refused change leaves the session as it was (RFC 3264 §8); a refused beginning ends it.
                (Err(()), Phase::Joined { offering }) => *offering = false,
                (Err(()), _) => {
                    return means
                        .sip
                        .bye(means.now, key, Some("no usable answer to the offer"));
                }
            }
        }
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        call.confirmed = true;
        if let Some(replaced) = call.replaces.take() {
            means.sip.bye(means.now, replaced, Some("replaced"));
        }
        self.admit(key, means);
        self.tell_roster(key, means);
    }

    pub(super) fn on_reinvite<I: MediaIo>(
        &mut self,
        key: CallKey,
        offer: Option<Body>,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let Some(offer) = offer else {
            // The offer we would make for a new call, now for this one (RFC 3261 §14.2).
            let description = described_anew(call, |local| sdp::offer(&self.capabilities, local));
            call.phase = Phase::Joined { offering: true };
            let body = body(&description);
            call.described = Some(description);
            return means.sip.accept(means.now, key, call.room.as_str(), body);
        };
        let answered = parse(&offer).and_then(|offer| {
            let agreed =
                sdp::preview(&offer, &self.capabilities, &call.local).map_err(not_acceptable)?;
            let agreed = reachable(agreed, call.signalling, call.local.address)?;
            let ports = means
                .stage
                .expect(means.now, call.seat, remote(&agreed, call.signalling))
                .map_err(|error| {
                    log_no_seat(call.room.as_str(), &error);
                    rejection(self.admission.not_now(self.random.next_u64()))
                })?;
            set_ports(&mut call.local, ports);
            Ok((offer, agreed))
        });
        match answered {
            Ok((offer, agreed)) => {
                let description = described_anew(call, |local| {
                    let answer = sdp::answer(&offer, &self.capabilities, local);
                    answer
                        .expect("previewed just before; only version and ports differ")
                        .0
                });
                let body = body(&description);
                call.described = Some(description);
                means.sip.accept(means.now, key, call.room.as_str(), body);
                self.agree(key, &agreed, means);
            }
            Err(rejection) => means.sip.reject(means.now, key, rejection),
        }
    }

    /// New terms for a member.
    fn agree<I: MediaIo>(&mut self, key: CallKey, agreed: &Agreed, means: &mut Means<'_, I>) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let mut leg = negotiate::leg(agreed, &Codec::ALL);
        // What somebody sends who has put us on hold is music, which nobody in the room has asked for.
        leg.heard &= !(agreed.held && call.listened);
        call.listened |= !agreed.held;
        means.stage.agree(call.seat, leg);
        if let Some(member) = means.stage.member(call.seat) {
            member
                .session_mut()
                .reconfigure(means.now, negotiate::changes(agreed));
        }
        self.tell_roster(key, means);
    }
}
