//! Users who go from one server to another: sent by REFER, or fetched by an INVITE with Replaces.
//!
//! ```text
//!   his server              the phone              the other server
//!     Move:     REFER ─────────>  ── INVITE ──────────────>
//!               <── NOTIFY 200 ──
//!               BYE ───────────>
//!     TakeOver:                   <── INVITE, Replaces ────
//!               <── BYE ─────────
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use cfw::SvrId;
use cfw::dist_conf::message::{ConfUser, Reach, UserStatus};
use sip::{CallKey, ClientKey};

use super::call::Phase;
use super::dialing::Dial;
use super::liaison::Report;
use super::{Focus, Means, RoomName};
use crate::config::Access;
use crate::io::MediaIo;

/// How long a phone may take: it has to place a call, or to answer one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Users on their way at once; a server that is emptied sends them in turn.
const ERRANDS_MAX: usize = 4_096;

/// Why the leg of somebody ends who is elsewhere by now, for people who read traces.
const MOVED: &str = "moved";

#[derive(Default)]
pub(super) struct Errands {
    under_way: HashMap<CallKey, Errand>,
    until: VecDeque<(Instant, CallKey)>,
}

struct Errand {
    room: RoomName,
    /// The call that he is to leave, and its server.
    svr_id: SvrId,
    endpoint: String,
    way: Way,
    /// It has taken too long, and the cluster has been told so. Who was sent may get there yet.
    given_up: bool,
}

enum Way {
    /// He has been asked to call elsewhere, and has agreed or not yet.
    Sent { request: ClientKey, agreed: bool },
    /// We call him.
    Fetched,
}

impl Errands {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until.front().map(|(when, _)| *when)
    }

    fn begin(&mut self, now: Instant, call: CallKey, errand: Errand) {
        self.under_way.insert(call, errand);
        self.until.push_back((now + PATIENCE, call));
    }

    fn take(&mut self, call: CallKey) -> Option<Errand> {
        let errand = self.under_way.remove(&call)?;
        self.until.retain(|(_, other)| *other != call);
        Some(errand)
    }

    /// Somebody is on his way, and not too late.
    fn waits(&self, call: CallKey) -> bool {
        let errand = self.under_way.get(&call);
        errand.is_some_and(|errand| !errand.given_up)
    }

    pub(super) fn is_fetched(&self, call: CallKey) -> bool {
        let errand = self.under_way.get(&call);
        errand.is_some_and(|errand| matches!(errand.way, Way::Fetched))
    }
}

impl Focus {
    /// Asks a user to call elsewhere.
    pub(super) fn send_elsewhere<I: MediaIo>(
        &mut self,
        room: RoomName,
        endpoint: String,
        target: &str,
        means: &mut Means<'_, I>,
    ) {
        match self.refer(&room, &endpoint, target, means) {
            Ok((call, request)) => {
                let way = Way::Sent {
                    request,
                    agreed: false,
                };
                let errand = Errand {
                    room,
                    svr_id: self.config.server.id,
                    endpoint,
                    way,
                    given_up: false,
                };
                self.errands.begin(means.now, call, errand);
            }
            Err(status) => self.reports.push(Report::Done {
                room,
                svr_id: self.config.server.id,
                endpoint,
                status,
            }),
        }
    }

    fn refer<I: MediaIo>(
        &mut self,
        room: &RoomName,
        endpoint: &str,
        target: &str,
        means: &mut Means<'_, I>,
    ) -> Result<(CallKey, ClientKey), u16> {
        let key = self.reports.call_of(endpoint).ok_or(481_u16)?;
        let call = self.calls.get(&key).ok_or(481_u16)?;
        let is_up = matches!(call.phase, Phase::Joined { .. }) && call.confirmed;
        if !is_up || !call.is_let_in() || self.errands.waits(key) {
            return Err(491);
        }
        if self.errands.until.len() >= ERRANDS_MAX {
            return Err(503);
        }
        if call.muted || !self.takes_strangers(room) {
            return Err(403);
        }
        let by = [("Referred-By", format!("<{}>", self.uri_of(room)))];
        let request = means.sip.refer(means.now, key, target, &by);
        request.map(|request| (key, request)).ok_or(481)
    }

    /// Whether anybody may come into a room as he pleases. Who is sent elsewhere comes there as a stranger:
    /// he would be asked for the room's number, or find it locked, and nobody would know that he is muted.
    /// Who is fetched comes as whom he was.
    fn takes_strangers(&self, room: &RoomName) -> bool {
        let access = self.config.rooms.access_to(room.as_str());
        !self.elsewhere.is_locked(room) && !matches!(access, Access::Pin(_))
    }

    /// A request of ours in a call is answered; says whether it was a REFER.
    pub(super) fn on_refer_answered(&mut self, request: ClientKey, status: u16) {
        let mut under_way = self.errands.under_way.iter_mut();
        let asked = under_way.find_map(|(&call, errand)| match &mut errand.way {
            Way::Sent {
                request: known,
                agreed,
            } if *known == request => Some((call, agreed)),
            _ => None,
        });
        match asked {
            Some((_, agreed)) if status < 300 => *agreed = true,
            Some((call, _)) => self.errand_done(call, status),
            None => {}
        }
    }

    /// He says how it goes.
    pub(super) fn on_referred<I: MediaIo>(
        &mut self,
        call: CallKey,
        status: Option<u16>,
        is_over: bool,
        means: &mut Means<'_, I>,
    ) {
        let Some(Errand {
            way: Way::Sent { agreed, .. },
            ..
        }) = self.errands.under_way.get_mut(&call)
        else {
            return;
        };
        // The NOTIFY may overtake the answer to the REFER.
        *agreed = true;
        match status {
            Some(status @ 200..300) => {
                self.errand_done(call, status);
                means.sip.bye(means.now, call, Some(MOVED));
            }
            Some(status) if status >= 300 => self.errand_done(call, status),
            // He will say no more, and has not said that he is there.
            _ if is_over => self.errand_done(call, 500),
            _ => {}
        }
    }

    /// Calls a user of another server in place of the call that he has there.
    pub(super) fn take_over<I: MediaIo>(
        &mut self,
        room: RoomName,
        user: Box<ConfUser>,
        reach: &Reach,
        means: &mut Means<'_, I>,
    ) {
        // Seen from him: his tag is the To-tag (RFC 3891 §6.1).
        let Reach {
            contact,
            call_id,
            local_tag,
            remote_tag,
            ..
        } = reach;
        let text = [contact, call_id, local_tag, remote_tag];
        let is_line = |text: &str| !text.contains(char::is_control);
        let refused = if user.status == UserStatus::Pending {
            // He has yet to say that he may come in, and nobody would ask him for it here.
            Some(403)
        } else if self.errands.until.len() >= ERRANDS_MAX {
            Some(503)
        } else if !text.iter().all(|text| is_line(text)) || !is_line(&user.entity) {
            Some(400)
        } else {
            None
        };
        if let Some(status) = refused {
            return self.reports.push(Report::Done {
                room,
                svr_id: user.svr_id.unwrap_or(self.config.server.id),
                endpoint: user.endpoint,
                status,
            });
        }
        let replaces = format!("{call_id};to-tag={remote_tag};from-tag={local_tag}");
        let dial = Dial {
            target: contact.clone(),
            referral: None,
            by: None,
            replaces: Some(replaces),
            must_replace: reach.replaces,
            redirects: 0,
            taken_over: Some(user),
            room,
        };
        self.dial(dial, means);
    }

    pub(super) fn fetch<I>(
        &mut self,
        call: CallKey,
        room: RoomName,
        user: &ConfUser,
        means: &Means<'_, I>,
    ) {
        let errand = Errand {
            room,
            svr_id: user.svr_id.unwrap_or(self.config.server.id),
            endpoint: user.endpoint.clone(),
            way: Way::Fetched,
            given_up: false,
        };
        self.errands.begin(means.now, call, errand);
    }

    /// Tells what has become of a user's move, if he is on one.
    pub(super) fn errand_done(&mut self, call: CallKey, status: u16) {
        let errand = self.errands.take(call).filter(|errand| !errand.given_up);
        if let Some(errand) = errand {
            let Errand {
                room,
                svr_id,
                endpoint,
                ..
            } = errand;
            self.reports.push(Report::Done {
                room,
                svr_id,
                endpoint,
                status,
            });
        }
    }

    /// The call of somebody on the move has ended: some phones hang up themselves once they are elsewhere.
    pub(super) fn errand_ended(&mut self, call: CallKey) {
        let errand = self.errands.under_way.get(&call);
        let has_gone =
            errand.is_some_and(|errand| matches!(errand.way, Way::Sent { agreed: true, .. }));
        self.errand_done(call, if has_gone { 200 } else { 487 });
    }

    /// Gives up what takes too long: who was sent stays until he says that he is there, who is called is
    /// called no more.
    pub(super) fn give_up_errands<I: MediaIo>(&mut self, means: &mut Means<'_, I>) {
        while let Some((when, call)) = self.errands.until.front().copied() {
            if when > means.now {
                break;
            }
            self.errands.until.pop_front();
            if self.errands.is_fetched(call) {
                self.errand_done(call, 408);
                means.sip.bye(means.now, call, Some("no answer"));
            } else if let Some(errand) = self.errands.under_way.get_mut(&call) {
                errand.given_up = true;
                self.reports.push(Report::Done {
                    room: errand.room.clone(),
                    svr_id: errand.svr_id,
                    endpoint: errand.endpoint.clone(),
                    status: 408,
                });
            }
        }
    }
}
