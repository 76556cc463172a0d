//! The focus: connects SIP dialogs with rooms. It decides and never mixes.
//!
//! ```text
//!   Invite ──> access ──> admission ──> seat ──> (ringing) ──> answer ──> Established: spoken to
//!   Reinvite ──> new terms for the member                Ended ──> seat given back
//!   Request ──> SUBSCRIBE roster · REFER dialing, ejection · MESSAGE to all
//! ```
//! With a cluster, whose word comes as [`liaison::Order`] and which hears of everything by
//! [`liaison::Report`]:
//!
//! ```text
//!   Invite ──> placing: waits for its word ──> in · 302 · relay to another server · refused
//!   Remote ──> elsewhere: the roster and the room's limit count users of other servers
//!   Move, TakeOver ──> moving: REFER · INVITE with Replaces
//!   OpenTrunk ──> trunks: the sound of the room goes to another server
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use sip::sdp::{self, Agreed, Capabilities, Local, SessionDescription};
use sip::{Body, CallKey, Endpoint, Event, Rejection, RequestKey};

use crate::codec::Codec;
use crate::config::Config;
use crate::io::MediaIo;
use crate::io::ports::PortPair;
use crate::load::{Admission, Asked, Refused};
use crate::meters::CoreMeters;
use crate::random::Random;
use crate::shard::stage::{NoSeat, Remote, SeatKey, Stage};

mod access;
mod call;
mod dialing;
mod elsewhere;
mod endpoints;
mod joining;
mod keys;
pub mod liaison;
mod lookups;
mod marks;
mod moving;
mod name;
pub mod negotiate;
mod orders;
mod placing;
mod refusals;
mod relay;
mod reports;
mod requests;
mod roster;
mod trunk_terms;
mod trunks;

pub use access::Access;
use access::Door;
use call::{Call, Phase};
pub use dialing::Dial;
use elsewhere::Elsewhere;
pub use lookups::Lookup;
use lookups::Lookups;
use moving::Errands;
pub use name::RoomName;
use placing::Placing;
use refusals::Refusals;
use relay::Relays;
use reports::Reports;
use roster::Rosters;
use trunks::Trunks;

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
    door: Door,
    capabilities: Capabilities,
    random: Random,
    calls: HashMap<CallKey, Call>,
    by_seat: HashMap<SeatKey, CallKey>,
    /// Calls that hear ringing, in the order in which they will be answered.
    ringing: VecDeque<(Instant, CallKey)>,
    /// Calls that have to key in a number, in the order in which they are given up.
    waiting: VecDeque<(Instant, CallKey)>,
    /// Calls of ours that nobody has answered, in the order in which they are given up.
    calling: VecDeque<(Instant, CallKey)>,
    rosters: Rosters,
    reports: Reports,
    elsewhere: Elsewhere,
    placing: Placing,
    refusals: Refusals,
    errands: Errands,
    relays: Relays,
    trunks: Trunks,
    lookups: Lookups,
}

impl Focus {
    pub fn new(config: Arc<Config>, access: Arc<Access>, admission: Admission, seed: u64) -> Self {
        Self {
            config,
            admission,
            door: Door::new(access),
            capabilities: negotiate::capabilities(&Codec::ALL),
            random: Random::new(seed),
            calls: HashMap::new(),
            by_seat: HashMap::new(),
            ringing: VecDeque::new(),
            waiting: VecDeque::new(),
            calling: VecDeque::new(),
            rosters: Rosters::default(),
            reports: Reports::default(),
            elsewhere: Elsewhere::default(),
            placing: Placing::default(),
            refusals: Refusals::default(),
            errands: Errands::default(),
            relays: Relays::default(),
            trunks: Trunks::default(),
            lookups: Lookups::default(),
        }
    }

    pub fn set_config(&mut self, config: Arc<Config>, access: Arc<Access>) {
        self.config = config;
        self.door.replace(access);
    }

    pub fn calls(&self) -> usize {
        self.calls.len() + self.placing.len() + self.relays.len() + self.trunks.len()
    }

    pub fn handle_event<I: MediaIo>(&mut self, event: Event, means: &mut Means<'_, I>) {
        let passed = self.pass_on(event, means);
        let Some(event) = passed.and_then(|event| self.on_trunk_event(event, means)) else {
            return;
        };
        match event {
            Event::Invite(invite) => self.on_invite(*invite, means),
            Event::Reinvite { call, body } => self.on_reinvite(call, body, means),
            Event::Established { call, body } => self.on_established(call, body, means),
            Event::Options { request, user } => self.on_options(request, user.as_deref(), means),
            Event::Ended { call, .. } => self.forget(call, means),
            Event::Request(request) => self.on_request(*request, means),
            Event::Dtmf { call, digit } => self.on_key_of(call, digit, means),
            Event::Progress { call, status } => self.on_progress(call, status, means),
            Event::Accepted { call, body } => self.on_accepted(call, body, means),
            Event::Redirected { call, contacts } => self.on_redirected(call, contacts, means),
            Event::Rejected { call, status, .. } => self.on_rejected(call, status, means),
            Event::Resubscribed { subscription } => self.on_resubscribed(subscription, means),
            Event::Unsubscribed { subscription, .. } => self.on_unsubscribed(subscription, means),
            Event::SubscriptionLost { subscription } => self.forget_subscription(subscription),
            // Of texts that were relayed: whoever did not get one has hung up or said so to his user.
            Event::Answered { request, status } => self.on_refer_answered(request, status),
            // Only relayed calls are changed by us.
            Event::Changed { .. } => {}
            Event::Referred {
                call,
                status,
                is_over,
            } => self.on_referred(call, status, is_over, means),
        }
    }

    /// Answers the calls that have rung long enough, gives up those without their number and those of ours
    /// without an answer, and tells subscribers what is due.
    pub fn handle_timeout<I: MediaIo>(&mut self, means: &mut Means<'_, I>) {
        while let Some((when, call)) = self.ringing.front().copied() {
            if when > means.now {
                break;
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
        while let Some((when, call)) = self.waiting.front().copied() {
            if when > means.now {
                break;
            }
            self.waiting.pop_front();
            if self.calls.get(&call).is_some_and(|call| !call.is_let_in()) {
                means.sip.bye(means.now, call, Some("no PIN"));
            }
        }
        while let Some((when, call)) = self.calling.front().copied() {
            if when > means.now {
                break;
            }
            self.calling.pop_front();
            self.give_up_calling(call, means);
        }
        self.give_up_waiting(means);
        self.give_up_errands(means);
        self.notify_subscribers(means);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = |queue: &VecDeque<(Instant, CallKey)>| queue.front().map(|(when, _)| *when);
        [
            first(&self.ringing),
            first(&self.waiting),
            first(&self.calling),
            self.rosters.poll_timeout(),
            self.placing.poll_timeout(),
            self.errands.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends the call on this seat, for a reason of ours.
    pub fn end<I: MediaIo>(&mut self, seat: SeatKey, reason: &str, means: &mut Means<'_, I>) {
        if let Some(&call) = self.by_seat.get(&seat) {
            means.sip.bye(means.now, call, Some(reason));
        }
    }

    pub fn end_all<I: MediaIo>(&mut self, reason: &str, means: &mut Means<'_, I>) {
        let others = self.placing.calls().chain(self.relays.calls());
        let others = others.chain(self.trunks.calls());
        for &call in self.calls.keys().chain(others) {
            means.sip.bye(means.now, call, Some(reason));
        }
    }

    fn forget<I: MediaIo>(&mut self, key: CallKey, means: &mut Means<'_, I>) {
        self.withdraw(key);
        self.errand_ended(key);
        if let Some(call) = self.calls.remove(&key) {
            self.by_seat.remove(&call.seat);
            means
                .stage
                .leave(means.now, means.ntp, call.seat, means.meters);
            // Nobody has answered, and nobody will: taken back.
            let referral = call.dialled.as_ref().and_then(|dialled| dialled.referral);
            self.tell_referrer(referral, 487, true, means);
            // Of a room on several cores a trunk is of all, whichever it ends on.
            let room = call.room.as_str();
            let is_empty = means.stage.taken(room).is_none();
            if is_empty && means.stage.parts(room).next().is_none() {
                self.close_trunks_of(&call.room, means);
            }
            self.reports.tell_of_leaving(key);
            self.tell_roster_of_leaving(key, &call, means);
        }
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

    /// The room is there whether anybody is in it or not.
    fn is_permanent(&self, room: &RoomName) -> bool {
        self.config
            .rooms
            .names
            .iter()
            .any(|name| name == room.as_str())
    }

    /// The room is there although nobody is in it on this shard.
    fn is_known(&self, room: &RoomName) -> bool {
        self.is_permanent(room) || self.elsewhere.has(room)
    }

    fn uri_of(&self, room: &RoomName) -> String {
        let address = crate::serve::public_address(&self.config, 0);
        format!("sip:{}@{address}", room.as_str())
    }

    fn on_options<I: MediaIo>(
        &mut self,
        request: RequestKey,
        user: Option<&str>,
        means: &mut Means<'_, I>,
    ) {
        // RFC 3261 §11.2: the status that an INVITE would get. Without a user part the server itself is meant.
        let refused = match user {
            // A proxy asks so whether it is to send calls here.
            None if self.admission.is_closed() => {
                Some(rejection(self.admission.not_now(self.random.next_u64())))
            }
            None | Some(RoomName::CONTROL) => None,
            Some(user) => self
                .room_asked_for(Some(user))
                .and_then(|room| {
                    let asked = Asked {
                        room: room.as_str(),
                        participants: self.participants(&room, Some(user), false, means),
                        random: self.random.next_u64(),
                    };
                    let place = self.admission.ask(&self.config, asked);
                    place.map(drop).map_err(rejection)
                })
                .err(),
        };
        means.sip.respond_options(means.now, request, refused);
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

/// Whether there may be sound on these terms: a peer of the other address family can be reached only if it
/// has ours as well, which its signalling shows.
fn reachable(agreed: Agreed, signalling: IpAddr, ours: IpAddr) -> Result<Agreed, Rejection> {
    if agreed.is_somewhere() && signalling.to_canonical().is_ipv4() != ours.is_ipv4() {
        return Err(not_acceptable(sdp::Refusal::UnusableAddress));
    }
    Ok(agreed)
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
