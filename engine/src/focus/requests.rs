//! Requests to a room that are no calls: who subscribes, has somebody called or thrown out, or writes.

use sip::conference_info::EVENT;
use sip::refer::{Method as Asked, ReferTo};
use sip::{Method, Rejection, Request, SubscriptionKey, sipfrag};

use super::access::{Asking, Entry};
use super::call::Call;
use super::dialing::Dial;
use super::{Focus, Means, RoomName, rejection};
use crate::config::Control;
use crate::io::MediaIo;
use crate::load::Refused;

/// How long the asker of a REFER is told how it goes, in seconds.
const REFERRAL_S: u32 = 180;

/// Why somebody is thrown out, for people who read traces.
const EJECTED: &str = "ejected";

/// Longest text relayed to a room.
const MESSAGE_LEN_MAX: usize = 8 * 1_024;

impl Focus {
    pub(super) fn on_request<I: MediaIo>(&mut self, request: Request, means: &mut Means<'_, I>) {
        if self.pass_request_on(&request, means) {
            return;
        }
        let room = match request.call.and_then(|call| self.calls.get(&call)) {
            Some(call) => Ok(call.room.clone()),
            None => self.known_room(request.user.as_deref(), means),
        };
        let done = room.and_then(|room| match request.method {
            Method::Subscribe => self.on_subscribe(&request, &room, means),
            Method::Refer => self.on_refer(&request, &room, means),
            Method::Message => self.on_message(&request, &room, means),
        });
        if let Err(rejection) = done {
            means.sip.refuse_request(means.now, request.key, &rejection);
        }
    }

    /// The room that a URI names, if it is there.
    fn known_room<I: MediaIo>(
        &self,
        user: Option<&str>,
        means: &Means<'_, I>,
    ) -> Result<RoomName, Rejection> {
        let room = user.and_then(RoomName::from_user);
        let exists =
            |room: &RoomName| means.stage.room(room.as_str()).is_some() || self.is_known(room);
        room.filter(exists)
            .ok_or_else(|| rejection(Refused::NoSuchRoom))
    }

    fn on_subscribe<I: MediaIo>(
        &mut self,
        request: &Request,
        room: &RoomName,
        means: &mut Means<'_, I>,
    ) -> Result<(), Rejection> {
        let event = request.header("Event").unwrap_or_default();
        let package = event.split(';').next().unwrap_or_default().trim();
        if !package.eq_ignore_ascii_case(EVENT) {
            let allowed = format!("{EVENT}, refer");
            return Err(Rejection::new(489).header("Allow-Events", allowed));
        }
        let accepts = |value: &str| value.split(',').any(is_conference_info);
        let mut accept = request.headers("Accept").peekable();
        if accept.peek().is_some() && !accept.any(accepts) {
            let accepted = sip::conference_info::MEDIA_TYPE.to_owned();
            return Err(Rejection::new(406).header("Accept", accepted));
        }
        self.may_take_part(request, room, means)?;
        let expires = request
            .header("Expires")
            .and_then(|value| value.parse().ok());
        self.subscribe(request.key, room, event, expires.unwrap_or(3_600), means);
        Ok(())
    }

    fn on_refer<I: MediaIo>(
        &mut self,
        request: &Request,
        room: &RoomName,
        means: &mut Means<'_, I>,
    ) -> Result<(), Rejection> {
        let mut targets = request.headers("Refer-To");
        let (Some(target), None) = (targets.next(), targets.next()) else {
            return Err(Rejection::new(400).warning(399, "exactly one Refer-To is needed"));
        };
        let target = ReferTo::parse(target)
            .map_err(|error| Rejection::new(400).warning(399, &format!("Refer-To: {error}")))?;
        self.may_control(request, means)?;
        let by = request
            .header("Referred-By")
            .map_or_else(|| format!("<{}>", request.from_uri), str::to_owned);
        match target.method {
            Asked::Invite => {
                let referral = self.accept_referral(request, room, means);
                let replaces = target.header("Replaces").map(str::to_owned);
                self.dial(
                    Dial {
                        room: room.clone(),
                        target: target.uri,
                        referral,
                        by: Some(by),
                        replaces,
                        must_replace: false,
                        redirects: 0,
                        taken_over: None,
                    },
                    means,
                );
                Ok(())
            }
            Asked::Bye => {
                let found = self.members_called(room, &target.uri);
                let is_elsewhere = self.want_ended(room, &target.uri, EJECTED);
                if found.is_empty() && !is_elsewhere {
                    return Err(Rejection::new(404));
                }
                let referral = self.accept_referral(request, room, means);
                for call in found {
                    means.sip.bye(means.now, call, Some(EJECTED));
                }
                self.tell_referrer(referral, 200, true, means);
                Ok(())
            }
            Asked::Other(_) => Err(Rejection::new(501)),
        }
    }

    /// Accepts a REFER; with whom to tell how it goes, unless he wants to hear nothing (RFC 4488).
    fn accept_referral<I: MediaIo>(
        &mut self,
        request: &Request,
        room: &RoomName,
        means: &mut Means<'_, I>,
    ) -> Option<SubscriptionKey> {
        let silent = request
            .header("Refer-Sub")
            .is_some_and(|value| value.trim().to_ascii_lowercase().starts_with("false"));
        if silent {
            let headers = [("Refer-Sub", "false".to_owned())];
            means
                .sip
                .respond_request(means.now, request.key, 200, &headers);
            return None;
        }
        let referral = means.sip.accept_subscription(
            means.now,
            request.key,
            "refer",
            REFERRAL_S,
            room.as_str(),
        );
        self.tell_referrer(referral, 100, false, means);
        referral
    }

    pub(super) fn tell_referrer<I: MediaIo>(
        &mut self,
        referral: Option<SubscriptionKey>,
        status: u16,
        is_last: bool,
        means: &mut Means<'_, I>,
    ) {
        let Some(referral) = referral else { return };
        let body = sip::Body {
            content_type: sipfrag::MEDIA_TYPE.to_owned(),
            content: sipfrag::write(status, ""),
        };
        if is_last {
            means
                .sip
                .end_subscription(means.now, referral, "noresource", Some(body));
        } else {
            means.sip.notify(means.now, referral, Some(body));
        }
    }

    /// Whether he may know who is in the room and write to them: who is in it, and who would get in.
    fn may_take_part<I: MediaIo>(
        &mut self,
        request: &Request,
        room: &RoomName,
        means: &Means<'_, I>,
    ) -> Result<(), Rejection> {
        let call = request.call.and_then(|call| self.calls.get(&call));
        if call.is_some_and(Call::is_let_in) {
            return Ok(());
        }
        let authorization = request.authorization();
        let asking = asking(request, &authorization);
        match self
            .door
            .ask(means.wall, &self.config, room.as_str(), asking)?
        {
            Entry::Free => Ok(()),
            // There are no keys in a request.
            Entry::AfterPin(_) => self.door.identify(means.wall, asking),
        }
    }

    fn may_control<I: MediaIo>(
        &mut self,
        request: &Request,
        means: &Means<'_, I>,
    ) -> Result<(), Rejection> {
        let is_member = request
            .call
            .and_then(|call| self.calls.get(&call))
            .is_some_and(|call| call.is_let_in() && call.confirmed);
        match self.config.rooms.control {
            Control::Nobody => Err(Rejection::new(403)),
            Control::Members if is_member => Ok(()),
            Control::Members | Control::Authenticated => {
                let authorization = request.authorization();
                self.door
                    .identify(means.wall, asking(request, &authorization))
            }
        }
    }

    /// Relays a text to all in the room who take texts, except its author.
    fn on_message<I: MediaIo>(
        &mut self,
        request: &Request,
        room: &RoomName,
        means: &mut Means<'_, I>,
    ) -> Result<(), Rejection> {
        let body = request.body.as_ref().ok_or_else(|| Rejection::new(400))?;
        if body.content.len() > MESSAGE_LEN_MAX {
            return Err(Rejection::new(413));
        }
        if !body.content_type.to_ascii_lowercase().starts_with("text/") {
            return Err(Rejection::new(415).header("Accept", "text/plain".to_owned()));
        }
        self.may_take_part(request, room, means)?;
        means.sip.respond_request(means.now, request.key, 202, &[]);
        // From is the room; who wrote says so himself, and nobody vouches for it (RFC 3261 §20.31).
        let author = [("Reply-To", format!("<{}>", request.from_uri))];
        let others = self.calls.iter().filter(|(key, call)| {
            call.room == *room && call.is_let_in() && Some(**key) != request.call
        });
        for (&call, _) in others {
            if means.sip.takes_messages(call) {
                means
                    .sip
                    .request_in_call(means.now, call, "MESSAGE", &author, Some(body));
            }
        }
        Ok(())
    }

    /// The calls in a room of whoever a URI means.
    pub(super) fn members_called(&self, room: &RoomName, uri: &str) -> Vec<sip::CallKey> {
        self.calls
            .iter()
            .filter(|(_, call)| call.room == *room && is_same_user(&call.entity, uri))
            .map(|(&key, _)| key)
            .collect()
    }
}

fn asking<'a>(request: &'a Request, authorization: &'a [String]) -> Asking<'a> {
    Asking {
        address: request.flow.peer.ip(),
        authorization,
        method: request.method.name(),
        uri: &request.request_uri,
        body: request.body.as_ref().map_or(&[], |body| &body.content),
    }
}

fn is_conference_info(range: &str) -> bool {
    let range = range.split(';').next().unwrap_or_default().trim();
    [sip::conference_info::MEDIA_TYPE, "application/*", "*/*"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(range))
}

/// Whether two URIs mean the same user.
pub(super) fn is_same_user(one: &str, other: &str) -> bool {
    bare(one).eq_ignore_ascii_case(bare(other))
}

/// A URI without its parameters and headers.
fn bare(uri: &str) -> &str {
    uri.split([';', '?']).next().unwrap_or_default()
}
