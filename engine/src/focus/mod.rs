//! The focus: connects SIP dialogs with rooms. It decides and never mixes.
//!
//! ```text
//!   Invite ──> admission ──> seat ──> (ringing) ──> answer ──> Established: spoken to
//!   Reinvite ──> new terms for the member         Ended ──> seat given back
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sip::sdp::{self, Agreed, Capabilities, Local, SessionDescription};
use sip::{Body, CallKey, Endpoint, Event, Invite, Rejection, RequestKey};

use crate::codec::Codec;
use crate::config::Config;
use crate::io::MediaIo;
use crate::io::ports::PortPair;
use crate::load::{Admission, Asked, Refused};
use crate::meters::CoreMeters;
use crate::random::Random;
use crate::room::Newcomer;
use crate::shard::stage::{NoSeat, Remote, SeatKey, Stage};

mod name;
pub mod negotiate;

pub use name::RoomName;

const SDP: &str = "application/sdp";

/// The shard's means, lent to the focus for one event.
pub struct Means<'a, I> {
    pub now: Instant,
    pub wall: SystemTime,
    pub ntp: u64,
    pub sip: &'a mut Endpoint,
    pub stage: &'a mut Stage<I>,
    pub meters: &'a CoreMeters,
}

/// The calls of one shard.
pub struct Focus {
    config: Arc<Config>,
    admission: Admission,
    capabilities: Capabilities,
    random: Random,
    calls: HashMap<CallKey, Call>,
    by_seat: HashMap<SeatKey, CallKey>,
    /// Calls that hear ringing, in the order in which they will be answered.
    ringing: VecDeque<(Instant, CallKey)>,
}

struct Call {
    seat: SeatKey,
    room: RoomName,
    /// The host his INVITE came from.
    signalling: IpAddr,
    entity: String,
    joined: SystemTime,
    local: Local,
    phase: Phase,
    /// The last description we sent, to count its version up only when it changes (RFC 3264 §8).
    described: Option<SessionDescription>,
}

enum Phase {
    /// Rings until its time; then this offer is answered, or ours is made.
    Ringing {
        offer: Option<Box<SessionDescription>>,
    },
    /// Our offer is out; its answer comes with the ACK.
    Offering,
    /// In the room. With an offer of ours out again after a re-INVITE that brought none.
    Joined { offering: bool },
}

impl Focus {
    pub fn new(config: Arc<Config>, admission: Admission, seed: u64) -> Self {
        Self {
            config,
            admission,
            capabilities: negotiate::capabilities(&Codec::ALL),
            random: Random::new(seed),
            calls: HashMap::new(),
            by_seat: HashMap::new(),
            ringing: VecDeque::new(),
        }
    }

    pub fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    pub fn handle_event<I: MediaIo>(&mut self, event: Event, means: &mut Means<'_, I>) {
        match event {
            Event::Invite(invite) => self.on_invite(*invite, means),
            Event::Reinvite { call, body } => self.on_reinvite(call, body, means),
            Event::Established { call, body } => self.on_established(call, body, means),
            Event::Options { request, user } => self.on_options(request, user.as_deref(), means),
            Event::Ended { call, .. } => self.on_ended(call, means),
            // The server places no calls of its own.
            Event::Progress { .. }
            | Event::Accepted { .. }
            | Event::Redirected { .. }
            | Event::Rejected { .. } => {}
            _ => {}
        }
    }

    /// Answers the calls that have rung long enough.
    pub fn handle_timeout<I: MediaIo>(&mut self, means: &mut Means<'_, I>) {
        while let Some((when, call)) = self.ringing.front().copied() {
            if when > means.now {
                return;
            }
            self.ringing.pop_front();
            if let Some(Call {
                phase: Phase::Ringing { offer },
                ..
            }) = self.calls.get_mut(&call)
            {
                let offer = offer.take().map(|offer| *offer);
                self.answer(call, offer, means);
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ringing.front().map(|(when, _)| *when)
    }

    /// Ends the call on this seat, for a reason of ours.
    pub fn end<I: MediaIo>(&mut self, seat: SeatKey, reason: &str, means: &mut Means<'_, I>) {
        if let Some(&call) = self.by_seat.get(&seat) {
            means.sip.bye(means.now, call, Some(reason));
        }
    }

    pub fn end_all<I: MediaIo>(&mut self, reason: &str, means: &mut Means<'_, I>) {
        for &call in self.calls.keys() {
            means.sip.bye(means.now, call, Some(reason));
        }
    }

    fn on_invite<I: MediaIo>(&mut self, invite: Invite, means: &mut Means<'_, I>) {
        let call = invite.call;
        means.meters.calls_total.add(1);
        match self.seat(invite, means) {
            Ok(offer) => {
                let ring = Duration::from_millis(self.config.rooms.answer_after_ms.into());
                if ring.is_zero() {
                    return self.answer(call, offer, means);
                }
                if let Some(call) = self.calls.get_mut(&call) {
                    call.phase = Phase::Ringing {
                        offer: offer.map(Box::new),
                    };
                }
                let user = self.calls.get(&call).map(|call| call.room.clone());
                means
                    .sip
                    .ring(means.now, call, user.as_ref().map_or("", RoomName::as_str));
                self.ringing.push_back((means.now + ring, call));
            }
            Err(rejection) => {
                means.meters.calls_rejected.add(1);
                means.sip.reject(means.now, call, rejection);
            }
        }
    }

    /// Finds the caller a seat; gives his offer back, parsed.
    fn seat<I: MediaIo>(
        &mut self,
        invite: Invite,
        means: &mut Means<'_, I>,
    ) -> Result<Option<SessionDescription>, Rejection> {
        let room = self.room_asked_for(invite.room_user.as_deref())?;
        let asked = Asked {
            room: room.as_str(),
            participants: means.stage.room(room.as_str()).map(crate::room::Room::len),
            random: self.random.next_u64(),
        };
        self.admission.ask(&self.config, asked).map_err(rejection)?;
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
            .map(|offer| sdp::preview(offer, &self.capabilities, &local))
            .transpose()
            .map_err(not_acceptable)?;
        let signalling = invite.flow.peer.ip();
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
        set_ports(&mut local, means.stage.ports_of(seat));
        let call = Call {
            seat,
            room,
            signalling,
            entity: invite.from_uri,
            joined: means.wall,
            local,
            phase: Phase::Ringing { offer: None },
            described: None,
        };
        self.by_seat.insert(seat, invite.call);
        self.calls.insert(invite.call, call);
        Ok(offer)
    }

    fn room_asked_for(&mut self, user: Option<&str>) -> Result<RoomName, Rejection> {
        let no_such_room = || rejection(Refused::NoSuchRoom);
        match user {
            Some(RoomName::FACTORY) => Ok(RoomName::invented(self.random.next_u64())),
            // The address of control channels, which are no calls (RFC 6230).
            Some(RoomName::CONTROL) => Err(no_such_room()),
            Some(user) => RoomName::from_user(user).ok_or_else(no_such_room),
            None => Err(no_such_room()),
        }
    }

    /// Answers the offer, or makes one where there was none.
    fn answer<I: MediaIo>(
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
    }

    /// The caller enters the room on these terms.
    fn join<I: MediaIo>(&mut self, key: CallKey, agreed: &Agreed, means: &mut Means<'_, I>) {
        let host = self.media_address();
        let jitter_depth = Duration::from_millis(self.config.rtp.jitter_ms.into());
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        call.phase = Phase::Joined { offering: false };
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
    }

    fn on_established<I: MediaIo>(
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
        let Some(call) = self.calls.get(&key) else {
            return;
        };
        if let Some(member) = means.stage.member(call.seat) {
            member.confirm();
        }
    }

    fn on_reinvite<I: MediaIo>(
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
        let Some(call) = self.calls.get(&key) else {
            return;
        };
        means
            .stage
            .agree(call.seat, negotiate::leg(agreed, &Codec::ALL));
        if let Some(member) = means.stage.member(call.seat) {
            member
                .session_mut()
                .reconfigure(means.now, negotiate::changes(agreed));
        }
    }

    fn on_options<I: MediaIo>(
        &mut self,
        request: RequestKey,
        user: Option<&str>,
        means: &mut Means<'_, I>,
    ) {
        // RFC 3261 §11.2: the status that an INVITE would get. Without a user part the server itself is meant.
        let refused = match user {
            None | Some(RoomName::CONTROL) => None,
            Some(user) => self
                .room_asked_for(Some(user))
                .and_then(|room| {
                    let participants = means.stage.room(room.as_str()).map(crate::room::Room::len);
                    let asked = Asked {
                        room: room.as_str(),
                        participants,
                        random: self.random.next_u64(),
                    };
                    self.admission.ask(&self.config, asked).map_err(rejection)
                })
                .err(),
        };
        means.sip.respond_options(means.now, request, refused);
    }

    fn on_ended<I: MediaIo>(&mut self, call: CallKey, means: &mut Means<'_, I>) {
        self.forget(call, means);
    }

    fn forget<I: MediaIo>(&mut self, call: CallKey, means: &mut Means<'_, I>) {
        if let Some(call) = self.calls.remove(&call) {
            self.by_seat.remove(&call.seat);
            means
                .stage
                .leave(means.now, means.ntp, call.seat, means.meters);
        }
    }

    fn media_address(&self) -> IpAddr {
        self.config.rtp.advertise.unwrap_or(self.config.rtp.address)
    }
}

/// Describes with the next version, unless that says the same as the last description.
fn described_anew(
    call: &mut Call,
    describe: impl Fn(&Local) -> SessionDescription,
) -> SessionDescription {
    let same = describe(&call.local);
    if call.described.as_ref() == Some(&same) {
        return same;
    }
    call.local.version += 1;
    describe(&call.local)
}

fn log_no_seat(room: &str, error: &NoSeat) {
    match error {
        NoSeat::Ports => tracing::warn!(room, "no RTP ports left"),
        NoSeat::Sockets(error) => tracing::warn!(room, %error, "cannot open RTP sockets"),
    }
}

/// Where his packets will come from.
fn remote(agreed: &Agreed, signalling: IpAddr) -> Option<Remote> {
    Remote::new(agreed.remote_rtp, agreed.remote_rtcp, signalling)
}

fn set_ports(local: &mut Local, ports: PortPair) {
    local.rtp_port = ports.rtp();
    local.rtcp_port = ports.rtcp();
}

fn body(description: &SessionDescription) -> Body {
    Body {
        content_type: SDP.to_owned(),
        content: Bytes::from(description.to_string()),
    }
}

fn parse(body: &Body) -> Result<SessionDescription, Rejection> {
    sdp::parse(&body.content).map_err(|error| Rejection::new(400).warning(399, &error.to_string()))
}

fn not_acceptable(refusal: sdp::Refusal) -> Rejection {
    Rejection::new(488).warning(refusal.warning_code(), &refusal.to_string())
}

fn rejection(refused: Refused) -> Rejection {
    match refused {
        Refused::NoSuchRoom => Rejection::new(404),
        Refused::RoomFull => Rejection::new(486),
        Refused::NotNow { retry_after_s } => Rejection::new(503).retry_after(retry_after_s),
    }
}
