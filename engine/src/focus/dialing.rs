//! Calls that the conference makes itself: asked for by REFER or over HTTP.

use cfw::dist_conf::message::ConfUser;
use sip::sdp::{self, Local};
use sip::{Body, CallKey, Flow, Invitation, SubscriptionKey};

use super::call::{Call, Dialled, Gate, Phase, RING_TIME};
use super::liaison::Report;
use super::lookups::{Host, Then};
use super::{Focus, Means, RoomName, body, remote, set_ports};
use crate::io::MediaIo;
use crate::load::{Asked, Place};

/// Times that one called may send us on.
const REDIRECTS_MAX: u8 = 5;

/// Whom to call, and for whom.
#[derive(Clone, Debug)]
pub struct Dial {
    pub room: RoomName,
    /// The URI to call.
    pub target: String,
    /// Who asked by REFER, and is told how it goes.
    pub referral: Option<SubscriptionKey>,
    /// For Referred-By (RFC 3892).
    pub by: Option<String>,
    /// For Replaces (RFC 3891): the dialog of the one called that this call takes over.
    pub replaces: Option<String>,
    /// Whoever does not know Replaces is to refuse the call rather than ring.
    pub must_replace: bool,
    pub redirects: u8,
    /// The user of another server who is called as whom he is there.
    pub taken_over: Option<Box<ConfUser>>,
}

impl Dial {
    /// Nobody in a conference has asked for it.
    pub fn from_outside(room: RoomName, target: String) -> Self {
        Self {
            room,
            target,
            referral: None,
            by: None,
            replaces: None,
            must_replace: false,
            redirects: 0,
            taken_over: None,
        }
    }
}

impl Focus {
    /// Calls somebody into a room. How it goes is told to the referrer, if there is one. The status says
    /// what became of it at once: 100 if the call is on its way.
    pub fn dial<I: MediaIo>(&mut self, dial: Dial, means: &mut Means<'_, I>) -> u16 {
        if let Some(status) = self.why_not(&dial, means) {
            return self.give_up(&dial, status, means);
        }
        let proxy = self.config.sip.outbound_proxy;
        let flow = match proxy {
            Some(proxy) => means.sip.flow_over(proxy.transport, proxy.address),
            None => means.sip.flow_to(&dial.target),
        };
        match (flow, proxy) {
            (Some(flow), _) => self.dial_over(flow, dial, means),
            (None, Some(_)) => self.give_up(&dial, 503, means),
            (None, None) => match Host::of(&dial.target) {
                Some(host) => match self.lookups.begin(host, Then::Dial(dial)) {
                    Ok(()) => 100,
                    Err(Then::Dial(dial)) => self.give_up(&dial, 503, means),
                    Err(_) => 503,
                },
                None => self.give_up(&dial, 416, means),
            },
        }
    }

    /// The name of the one to be called has been looked up.
    pub(super) fn dial_found<I: MediaIo>(
        &mut self,
        dial: Dial,
        flow: Option<Flow>,
        means: &mut Means<'_, I>,
    ) {
        match (self.why_not(&dial, means), flow) {
            (None, Some(flow)) => self.dial_over(flow, dial, means),
            (Some(status), _) => self.give_up(&dial, status, means),
            (None, None) => self.give_up(&dial, 404, means),
        };
    }

    /// Why a call cannot be made.
    fn why_not<I: MediaIo>(&mut self, dial: &Dial, means: &Means<'_, I>) -> Option<u16> {
        // One that is sent on goes on; it still has its seat. Of users on the move the cluster knows better.
        if dial.redirects > 0 || dial.taken_over.is_some() {
            return None;
        }
        let asked = Asked {
            room: dial.room.as_str(),
            participants: self.participants(&dial.room, None, false, means),
            random: self.random.next_u64(),
        };
        match self.admission.ask(&self.config, asked) {
            Err(refused) => Some(super::rejection(refused).status()),
            // Whoever is called cannot be sent to another server.
            Ok(Place::AskCluster) if self.admission.is_closed() => Some(503),
            Ok(_) => None,
        }
    }

    fn give_up<I: MediaIo>(&mut self, dial: &Dial, status: u16, means: &mut Means<'_, I>) -> u16 {
        self.tell_referrer(dial.referral, status, true, means);
        if let Some(user) = &dial.taken_over {
            self.reports.push(Report::Done {
                room: dial.room.clone(),
                svr_id: user.svr_id.unwrap_or(self.config.server.id),
                endpoint: user.endpoint.clone(),
                status,
            });
        }
        status
    }

    fn dial_over<I: MediaIo>(&mut self, flow: Flow, dial: Dial, means: &mut Means<'_, I>) -> u16 {
        if self.is_itself(flow, &dial) {
            return self.give_up(&dial, 482, means);
        }
        let seat = match means.stage.take_seat(means.now, dial.room.as_str(), None) {
            Ok(seat) => seat,
            Err(error) => {
                super::log_no_seat(dial.room.as_str(), &error);
                return self.give_up(&dial, 503, means);
            }
        };
        let mut local = Local {
            address: self.media_address(),
            rtp_port: 0,
            rtcp_port: 0,
            session_id: self.random.next_u64() >> 1,
            version: 1,
        };
        set_ports(&mut local, means.stage.ports_of(seat));
        let offer = sdp::offer(&self.capabilities, &local);
        let mut headers = Vec::new();
        if let Some(by) = &dial.by {
            headers.push(("Referred-By", by.clone()));
        }
        if let Some(replaces) = &dial.replaces {
            headers.push(("Replaces", replaces.clone()));
        }
        if dial.must_replace {
            headers.push(("Require", "replaces".to_owned()));
        }
        let invitation = Invitation {
            target: dial.target.clone(),
            from: self.uri_of(&dial.room),
            from_display: None,
            contact_user: dial.room.as_str().to_owned(),
            body: Some(body(&offer)),
            headers,
            credentials: Some(self.config.sip.outbound.clone())
                .filter(|credentials| !credentials.username.is_empty()),
        };
        let Ok(key) = means.sip.invite(means.now, flow, invitation) else {
            means.stage.leave(means.now, means.ntp, seat, means.meters);
            return self.give_up(&dial, 503, means);
        };
        means.meters.calls_total.add(1);
        let pending = Some(self.admission.taken());
        let user = dial.taken_over;
        if let Some(user) = &user {
            self.fetch(key, dial.room.clone(), user, means);
        }
        let joined = user.as_ref().and_then(|user| user.joined);
        let muted = user.as_ref().is_some_and(|user| user.muted);
        let (entity, display_name) = match user {
            Some(user) => (user.entity, user.display_name),
            None => (dial.target, None),
        };
        let call = Call {
            seat,
            room: dial.room,
            signalling: flow.peer.ip(),
            entity,
            display_name,
            joined: joined.unwrap_or(means.wall),
            local,
            phase: Phase::Calling { alerting: false },
            pending,
            described: Some(offer),
            dialled: Some(Dialled {
                referral: dial.referral,
                by: dial.by,
                redirects: dial.redirects,
            }),
            replaces: None,
            gate: Gate::Open,
            listened: false,
            relayed: false,
            muted,
            keys: String::new(),
            confirmed: false,
        };
        self.by_seat.insert(seat, key);
        self.calls.insert(key, call);
        self.calling.push_back((means.now + RING_TIME, key));
        self.tell_roster(key, means);
        100
    }

    /// A room that called itself would hear itself for ever.
    fn is_itself(&self, flow: Flow, dial: &Dial) -> bool {
        let listen = &self.config.sip.listen;
        let is_ours = listen.iter().any(|listen| {
            let own = listen.address;
            own == flow.peer || own.ip().is_unspecified() && own.port() == flow.peer.port()
        });
        let user = sip::scan::user_of(&dial.target);
        is_ours && user.as_deref() == Some(dial.room.as_str())
    }

    /// Somebody has rung for too long; most likely nobody is there any more.
    pub(super) fn give_up_calling<I: MediaIo>(&mut self, key: CallKey, means: &mut Means<'_, I>) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };
        if !matches!(call.phase, Phase::Calling { .. }) {
            return;
        }
        let referral = call.dialled.as_ref().and_then(|dialled| dialled.referral);
        self.tell_referrer(referral, 408, true, means);
        means.sip.bye(means.now, key, Some("no answer"));
    }

    pub(super) fn on_progress<I: MediaIo>(
        &mut self,
        key: CallKey,
        status: u16,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        if let Phase::Calling { alerting } = &mut call.phase {
            *alerting = true;
        }
        let referral = call.dialled.as_ref().and_then(|dialled| dialled.referral);
        self.tell_referrer(referral, status, false, means);
        self.tell_roster(key, means);
    }

    pub(super) fn on_accepted<I: MediaIo>(
        &mut self,
        key: CallKey,
        answer: Option<Body>,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let referral = call
            .dialled
            .as_mut()
            .and_then(|dialled| dialled.referral.take());
        let agreed = answer
            .as_ref()
            .and_then(|answer| sdp::parse(&answer.content).ok())
            .zip(call.described.as_ref())
            .and_then(|(answer, offer)| {
                sdp::accept_answer(offer, &answer, &self.capabilities).ok()
            });
        // Our ports are in the offer; an answer that would need others cannot be had.
        let agreed = agreed.filter(|agreed| {
            let remote = remote(agreed, call.signalling);
            let ports = means.stage.expect(means.now, call.seat, remote);
            ports.is_ok_and(|ports| ports.rtp() == call.local.rtp_port)
        });
        let Some(agreed) = agreed else {
            self.tell_referrer(referral, 488, true, means);
            self.errand_done(key, 488);
            let reason = Some("no usable answer to the offer");
            return means.sip.bye(means.now, key, reason);
        };
        self.join(key, &agreed, means);
        if let Some(call) = self.calls.get_mut(&key) {
            call.confirmed = true;
        }
        self.admit(key, means);
        self.tell_referrer(referral, 200, true, means);
        self.errand_done(key, 200);
        self.tell_roster(key, means);
    }

    pub(super) fn on_rejected<I: MediaIo>(
        &mut self,
        key: CallKey,
        status: u16,
        means: &mut Means<'_, I>,
    ) {
        let call = self.calls.get(&key);
        let referral = call.and_then(|call| call.dialled.as_ref()?.referral);
        self.tell_referrer(referral, status, true, means);
        self.errand_done(key, status);
        self.forget(key, means);
    }

    /// The one called is elsewhere (RFC 3261 §8.1.3.4).
    pub(super) fn on_redirected<I: MediaIo>(
        &mut self,
        key: CallKey,
        contacts: Vec<String>,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        let is_fetched = self.errands.is_fetched(key);
        let Some(dialled) = call.dialled.as_mut() else {
            return;
        };
        let next = contacts
            .into_iter()
            .next()
            // What a dialog is replaced by must come to where that dialog is.
            .filter(|_| dialled.redirects < REDIRECTS_MAX && !is_fetched);
        let Some(target) = next else {
            return self.on_rejected(key, 302, means);
        };
        let dial = Dial {
            room: call.room.clone(),
            target,
            referral: dialled.referral.take(),
            by: dialled.by.clone(),
            replaces: None,
            must_replace: false,
            redirects: dialled.redirects + 1,
            taken_over: None,
        };
        self.dial(dial, means);
        self.forget(key, means);
    }
}
