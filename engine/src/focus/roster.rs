//! The conference event package (RFC 4575): who subscribes to a room is told who is in it.
//!
//! A room without subscribers has no roster and costs nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cfw::SvrId;
use sip::conference_info::{
    AvailableMedia, Cause, Description, MediaStatus, Roster, Subscriber, User,
};
use sip::{CallKey, RequestKey, SubscriptionKey};

use super::call::Call;
use super::endpoints::{AUDIO, distant_endpoint, endpoint};
use super::liaison::Report;
use super::{Focus, Means, RoomName};
use crate::io::MediaIo;

/// Subscribers of one room.
const SUBSCRIBERS_MAX: usize = 10_000;

/// When to look again whether a slow subscriber has answered.
const LATER: Duration = Duration::from_millis(100);

/// The rooms that somebody subscribes to, and who.
#[derive(Default)]
pub(super) struct Rosters {
    rooms: HashMap<RoomName, Watched>,
    room_of: HashMap<SubscriptionKey, RoomName>,
    /// When the next NOTIFY may be due.
    next: Option<Instant>,
}

struct Watched {
    roster: Roster,
    subscribers: HashMap<SubscriptionKey, Subscriber>,
    /// The calls of each user, by the user's URI.
    present: HashMap<String, Vec<CallKey>>,
}

impl Rosters {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn set_locked(&mut self, now: Instant, room: &RoomName, locked: bool) {
        if let Some(watched) = self.rooms.get_mut(room) {
            watched.roster.set_locked(locked);
            self.due_at(now);
        }
    }

    fn due_at(&mut self, when: Instant) {
        self.next = Some(self.next.map_or(when, |next| next.min(when)));
    }

    /// A subscription is no more; gives the room that nobody subscribes to since then.
    fn forget(&mut self, subscription: SubscriptionKey) -> Option<RoomName> {
        let room = self.room_of.remove(&subscription)?;
        let watched = self.rooms.get_mut(&room)?;
        watched.subscribers.remove(&subscription);
        if !watched.subscribers.is_empty() {
            return None;
        }
        self.rooms.remove(&room);
        Some(room)
    }
}

impl Focus {
    /// `event` is the package as it was asked for, with its number if it has one (RFC 6665 §8.2.1).
    pub(super) fn subscribe<I: MediaIo>(
        &mut self,
        request: RequestKey,
        room: &RoomName,
        event: &str,
        expires_s: u32,
        means: &mut Means<'_, I>,
    ) {
        let full = |watched: &Watched| watched.subscribers.len() >= SUBSCRIBERS_MAX;
        if self.rosters.rooms.get(room).is_some_and(full) {
            let rejection = sip::Rejection::new(503);
            return means.sip.refuse_request(means.now, request, &rejection);
        }
        let accepted =
            means
                .sip
                .accept_subscription(means.now, request, event, expires_s, room.as_str());
        let Some(subscription) = accepted else { return };
        let interval = Duration::from_millis(self.config.rooms.notify_ms.into());
        if !self.rosters.rooms.contains_key(room) {
            let watched = self.watch(room, means);
            self.rosters.rooms.insert(room.clone(), watched);
            self.tell_whether_watched(room.clone(), true);
        }
        self.rosters.room_of.insert(subscription, room.clone());
        let Some(watched) = self.rosters.rooms.get_mut(room) else {
            return;
        };
        let mut subscriber = Subscriber::new(interval);
        let document = subscriber.take(means.now, &watched.roster, Cause::Immediate);
        watched.subscribers.insert(subscription, subscriber);
        if expires_s == 0 {
            // A look, no subscription (RFC 6665 §4.4.3).
            self.forget_subscription(subscription);
            means
                .sip
                .end_subscription(means.now, subscription, "timeout", document);
        } else {
            means.sip.notify(means.now, subscription, document);
        }
    }

    /// The roster of a room as it is now.
    fn watch<I: MediaIo>(&self, room: &RoomName, means: &mut Means<'_, I>) -> Watched {
        let maximum = self.config.rooms.max_participants;
        let description = Description {
            display_text: Some(room.as_str().to_owned()),
            uris: Vec::new(),
            maximum_user_count: (maximum != 0).then_some(maximum),
            available_media: vec![AvailableMedia {
                label: AUDIO.to_owned(),
                kind: AUDIO.to_owned(),
                status: Some(MediaStatus::SendRecv),
            }],
        };
        let mut watched = Watched {
            roster: Roster::new(self.uri_of(room), description),
            subscribers: HashMap::new(),
            present: HashMap::new(),
        };
        for (&key, call) in &self.calls {
            if call.room == *room {
                let calls = watched.present.entry(call.entity.clone()).or_default();
                calls.push(key);
            }
        }
        let here = watched.present.keys();
        let entities: Vec<String> = here.chain(self.elsewhere.entities(room)).cloned().collect();
        for entity in entities {
            self.describe(&mut watched, room, &entity, means);
        }
        watched.roster.set_locked(self.elsewhere.is_locked(room));
        watched
    }

    /// Something about a call has changed: it came, joined, holds, is muted.
    pub(super) fn tell_roster<I: MediaIo>(&mut self, key: CallKey, means: &mut Means<'_, I>) {
        self.report(key, means);
        let Some(call) = self.calls.get(&key) else {
            return;
        };
        let Some(mut watched) = self.rosters.rooms.remove(&call.room) else {
            return;
        };
        let (room, entity) = (call.room.clone(), call.entity.clone());
        let calls = watched.present.entry(entity.clone()).or_default();
        if !calls.contains(&key) {
            calls.push(key);
        }
        self.describe(&mut watched, &room, &entity, means);
        self.rosters.rooms.insert(room, watched);
        self.rosters.due_at(means.now);
    }

    /// Something about what a user has elsewhere has changed.
    pub(super) fn describe_anew<I: MediaIo>(
        &mut self,
        room: &RoomName,
        entity: &str,
        means: &mut Means<'_, I>,
    ) {
        if let Some(mut watched) = self.rosters.rooms.remove(room) {
            self.describe(&mut watched, room, entity, means);
            self.keep_roster(room, watched, means);
        }
    }

    /// A call has ended and is known no more.
    pub(super) fn tell_roster_of_leaving<I: MediaIo>(
        &mut self,
        key: CallKey,
        call: &Call,
        means: &mut Means<'_, I>,
    ) {
        let Some(mut watched) = self.rosters.rooms.remove(&call.room) else {
            return;
        };
        if let Some(calls) = watched.present.get_mut(&call.entity) {
            calls.retain(|known| *known != key);
            if calls.is_empty() {
                watched.present.remove(&call.entity);
            }
        }
        self.describe(&mut watched, &call.room, &call.entity, means);
        self.keep_roster(&call.room, watched, means);
    }

    /// Puts a roster that has changed back, or ends it with its conference.
    fn keep_roster<I: MediaIo>(
        &mut self,
        room: &RoomName,
        mut watched: Watched,
        means: &mut Means<'_, I>,
    ) {
        let is_open = means.stage.room(room.as_str()).is_some();
        if !is_open && !self.is_known(room) {
            watched.roster.end();
            for (subscription, mut subscriber) in watched.subscribers.drain() {
                let document = subscriber.take(means.now, &watched.roster, Cause::Changed);
                self.rosters.room_of.remove(&subscription);
                means
                    .sip
                    .end_subscription(means.now, subscription, "noresource", document);
            }
            self.tell_whether_watched(room.clone(), false);
            return;
        }
        self.rosters.rooms.insert(room.clone(), watched);
        self.rosters.due_at(means.now);
    }

    /// Brings the roster's entry of a user up to date.
    fn describe<I: MediaIo>(
        &self,
        watched: &mut Watched,
        room: &RoomName,
        entity: &str,
        means: &mut Means<'_, I>,
    ) {
        let keys = watched.present.get(entity).map_or(&[][..], Vec::as_slice);
        let elsewhere = self.elsewhere.of(room, entity);
        if keys.is_empty() && elsewhere.is_empty() {
            watched.roster.remove_user(entity);
            return;
        }
        let mut display_text = None;
        let mut endpoints = Vec::with_capacity(keys.len() + elsewhere.len());
        for &key in keys {
            let Some(call) = self.calls.get(&key) else {
                continue;
            };
            display_text = display_text.or_else(|| call.display_name.clone());
            let name = match self.reports.is_on() {
                true => self.endpoint_name(None, &self.reports.endpoint(key)),
                false => call.seat.number().to_string(),
            };
            endpoints.push(endpoint(call, &name, means));
        }
        for user in elsewhere {
            display_text = display_text.or_else(|| user.display_name.clone());
            let name = self.endpoint_name(user.svr_id, &user.endpoint);
            endpoints.push(distant_endpoint(user, &name));
        }
        let user = User {
            entity: entity.to_owned(),
            display_text,
            endpoints,
        };
        // More users or calls of one than a roster holds: those who subscribe see the first of them.
        if let Err(error) = watched.roster.update_user(user) {
            tracing::debug!(entity, %error, "not in the roster");
        }
    }

    /// The name of a call that is the same in every server's roster.
    fn endpoint_name(&self, svr_id: Option<SvrId>, endpoint: &str) -> String {
        format!("{}.{endpoint}", svr_id.unwrap_or(self.config.server.id))
    }

    /// Tells the subscribers what is news to them and may be told now.
    pub(super) fn notify_subscribers<I: MediaIo>(&mut self, means: &mut Means<'_, I>) {
        if self.rosters.next.is_none_or(|next| next > means.now) {
            return;
        }
        let mut next: Option<Instant> = None;
        for watched in self.rosters.rooms.values_mut() {
            for (&subscription, subscriber) in &mut watched.subscribers {
                if means.sip.is_behind(subscription) {
                    // What changes meanwhile goes into one document.
                    if subscriber.due(means.now, &watched.roster).is_some() {
                        let due = means.now + LATER;
                        next = Some(next.map_or(due, |next| next.min(due)));
                    }
                    continue;
                }
                let document = subscriber.take(means.now, &watched.roster, Cause::Changed);
                if document.is_some() {
                    means.sip.notify(means.now, subscription, document);
                }
                if let Some(due) = subscriber.due(means.now, &watched.roster) {
                    next = Some(next.map_or(due, |next| next.min(due)));
                }
            }
        }
        self.rosters.next = next;
    }

    pub(super) fn on_resubscribed<I: MediaIo>(
        &mut self,
        subscription: SubscriptionKey,
        means: &mut Means<'_, I>,
    ) {
        let document = self.whole(subscription, means.now);
        means.sip.notify(means.now, subscription, document);
    }

    pub(super) fn on_unsubscribed<I: MediaIo>(
        &mut self,
        subscription: SubscriptionKey,
        means: &mut Means<'_, I>,
    ) {
        let document = self.whole(subscription, means.now);
        self.forget_subscription(subscription);
        means
            .sip
            .end_subscription(means.now, subscription, "timeout", document);
    }

    pub(super) fn forget_subscription(&mut self, subscription: SubscriptionKey) {
        if let Some(room) = self.rosters.forget(subscription) {
            self.tell_whether_watched(room, false);
        }
    }

    fn tell_whether_watched(&mut self, room: RoomName, watched: bool) {
        self.reports.push(Report::Watched { room, watched });
    }

    fn whole(&mut self, subscription: SubscriptionKey, now: Instant) -> Option<sip::Body> {
        let room = self.rosters.room_of.get(&subscription)?;
        let watched = self.rosters.rooms.get_mut(room)?;
        let subscriber = watched.subscribers.get_mut(&subscription)?;
        subscriber.take(now, &watched.roster, Cause::Immediate)
    }
}
