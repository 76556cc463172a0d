//! Session timers (RFC 4028): a session that nobody refreshes is over, so that no call outlives a peer that
//! vanished.

use std::time::{Duration, Instant};

use super::abilities::SUPPORTED;
use super::call::{Abilities, Call};
use super::client::Purpose;
use super::dialog::Usage;
use super::incoming::Refusal;
use super::{CallKey, Ended, Endpoint, SlotKey, Wake};
use crate::message::build::Extra;
use crate::message::{CSeq, Message};

/// Longest interval worth timing: a day.
pub(super) const LONGEST: Duration = Duration::from_secs(86_400);

/// How sessions are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    /// Interval asked for, in seconds; 0: none unless the peer asks.
    pub expires_s: u32,
    /// Shortest interval accepted, in seconds (RFC 4028 §5: no less than 90 outside of tests).
    pub min_s: u32,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            expires_s: 1_800,
            min_s: 90,
        }
    }
}

/// What a message says of the session timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) expires: Option<u32>,
    min: u32,
    refresher: Option<Refresher>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresher {
    /// Of the transaction that carries the header.
    Uac,
    Uas,
}

/// A session that is timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    interval: Duration,
    /// We refresh it.
    ours: bool,
    /// When something is to be done, by the deadline of this number.
    due: Instant,
    epoch: u32,
    /// When it is over, should no refresh have succeeded.
    ends: Instant,
}

impl Wish {
    pub(super) fn of(message: &Message<'_>) -> Self {
        let Some(value) = message.header("Session-Expires") else {
            return Self {
                min: min_se(message),
                ..Self::default()
            };
        };
        let mut parts = value.split(';').map(str::trim);
        let expires = parts.next().and_then(|seconds| seconds.parse().ok());
        let refresher = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("refresher"))
            .and_then(|(_, who)| match who.trim() {
                who if who.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
                who if who.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
                _ => None,
            });
        Self {
            expires,
            min: min_se(message),
            refresher,
        }
    }
}

fn min_se(message: &Message<'_>) -> u32 {
    let value = message.header("Min-SE").unwrap_or_default();
    let seconds = value.split(';').next().unwrap_or_default().trim();
    seconds.parse().unwrap_or(0)
}

impl Endpoint {
    /// What an INVITE or UPDATE of the peer wants, if that can be had (RFC 4028 §9).
    pub(super) fn wish(&self, request: &Message<'_>, peer: Abilities) -> Result<Wish, Refusal> {
        let wish = Wish::of(request);
        let least = self.config.session.min_s;
        match wish.expires {
            Some(expires) if expires < least && peer.timer => {
                Err(Refusal::with(422, "Min-SE", &least.to_string()))
            }
            _ => Ok(wish),
        }
    }

    /// Agrees on a timer in our 2xx to a request of the peer: starts it, and gives the lines that say so.
    pub(super) fn agree_on_session(&mut self, now: Instant, key: CallKey, extra: Extra) -> Extra {
        let policy = self.config.session;
        let Some(call) = self.call(key) else {
            return extra;
        };
        let (wish, timer) = (call.wish, call.peer.timer);
        let own = policy.expires_s.max(policy.min_s).max(wish.min);
        let expires = match wish.expires {
            // A proxy may have put in an interval for a peer that knows of none; it is raised as need be.
            // The UAS may lower one, though not below what the UAC wants at least (RFC 4028 §9).
            Some(expires) => expires
                .max(policy.min_s)
                .min((LONGEST.as_secs() as u32).max(wish.min)),
            None if timer && policy.expires_s != 0 => own,
            None => {
                call.session = None;
                return extra;
            }
        };
        let refresher = match wish.refresher {
            Some(chosen) if timer => chosen,
            None if timer => Refresher::Uac,
            // Who knows no timer cannot be the one (RFC 4028 §9, table 2).
            _ => Refresher::Uas,
        };
        self.time_session(now, key, expires, refresher == Refresher::Uas);
        let name = match refresher {
            Refresher::Uac => "uac",
            Refresher::Uas => "uas",
        };
        let extra = extra.line(
            "Session-Expires",
            format_args!("{expires};refresher={name}"),
        );
        if refresher == Refresher::Uac && timer {
            extra.line("Require", "timer")
        } else {
            extra
        }
    }

    /// The lines of an INVITE or UPDATE of ours that ask for a timer.
    pub(super) fn ask_for_session(&self, extra: Extra, running: Option<Session>) -> Extra {
        let policy = self.config.session;
        let (expires, refresher) = match running {
            Some(session) => {
                let refresher = if session.ours {
                    ";refresher=uac"
                } else {
                    ";refresher=uas"
                };
                (session.interval.as_secs() as u32, refresher)
            }
            None if policy.expires_s == 0 => return extra,
            None => (policy.expires_s.max(policy.min_s), ""),
        };
        extra
            .line("Session-Expires", format_args!("{expires}{refresher}"))
            .line("Min-SE", policy.min_s)
    }

    /// What the peer's 2xx to a request of ours says (RFC 4028 §7.2).
    pub(super) fn session_answered(&mut self, now: Instant, key: CallKey, response: &Message<'_>) {
        let wish = Wish::of(response);
        // Nobody may go below our Min-SE; who does would have us refresh without a pause.
        let least = self.config.session.min_s;
        match wish.expires.map(|expires| expires.max(least)) {
            Some(expires) => {
                let ours = wish.refresher != Some(Refresher::Uas);
                // A peer that wants to be refreshed all the time is refreshed no more often than others.
                let expires = expires.max(self.config.session.min_s);
                self.time_session(now, key, expires, ours);
            }
            None => {
                if let Some(call) = self.call(key) {
                    call.session = None;
                }
            }
        }
    }

    fn time_session(&mut self, now: Instant, key: CallKey, expires_s: u32, ours: bool) {
        let interval = Duration::from_secs(expires_s.into()).min(LONGEST);
        let epoch = self.next_generation();
        let ends = now + interval - (interval / 3).min(Duration::from_secs(32));
        let due = if ours { now + interval / 2 } else { ends };
        let Some(call) = self.call(key) else { return };
        call.session = Some(Session {
            interval,
            ours,
            due,
            epoch,
            ends,
        });
        self.arm_far(now, due, Wake::Session(key, epoch));
    }

    pub(super) fn on_session_due(&mut self, now: Instant, key: CallKey, epoch: u32) {
        let Some(call) = self.call(key) else { return };
        let Some(session) = call.session.filter(|session| session.epoch == epoch) else {
            return;
        };
        if session.due > now {
            return self.arm_far(now, session.due, Wake::Session(key, epoch));
        }
        if session.ours && now < session.ends {
            self.refresh(now, key);
        } else {
            self.end(key, Ended::SessionExpired);
            self.send_bye(now, key, Some("session expired"));
        }
    }

    /// Refreshes by UPDATE where the peer knows it, else by an INVITE with the description it has.
    fn refresh(&mut self, now: Instant, key: CallKey) {
        let Some(call) = self.call(key) else { return };
        let (running, by_update, contact) =
            (call.session, call.peer.update, call.dialog.contact.clone());
        let described = call.described.clone();
        let Some(up) = call.up() else { return };
        if up.is_changing() {
            // Their change refreshes as well; should it fail, it is tried once more.
            return self.try_refresh_again(now, key, Duration::from_secs(2));
        }
        up.refreshing = true;
        let extra = Extra::default()
            .line("Contact", contact)
            .line("Supported", SUPPORTED);
        let extra = self.ask_for_session(extra, running);
        let (usage, purpose) = (Usage::Call(key), Purpose::Refresh(key));
        if by_update {
            self.send_in_dialog(now, usage, "UPDATE", extra, None, purpose);
        } else {
            let extra = extra.line("Allow", self.allow());
            self.send_in_dialog(now, usage, "INVITE", extra, described.as_ref(), purpose);
        }
    }

    fn try_refresh_again(&mut self, now: Instant, key: CallKey, after: Duration) {
        let epoch = self.next_generation();
        if let Some(Call {
            session: Some(session),
            ..
        }) = self.call(key)
        {
            let due = (now + after).min(session.ends.max(now));
            session.epoch = epoch;
            session.due = due;
            self.arm_far(now, due, Wake::Session(key, epoch));
        }
    }

    pub(super) fn on_refreshed(
        &mut self,
        now: Instant,
        transaction: SlotKey,
        key: CallKey,
        status: u16,
        response: Option<&Message<'_>>,
    ) {
        if status < 200 || self.is_answered(key, response) {
            return;
        }
        let Some(call) = self.call(key) else { return };
        let interval = call.session.map(|session| session.interval);
        let Some(up) = call.up() else { return };
        up.refreshing = false;
        match status {
            200..300 => {
                if let Some(response) = response {
                    // The 2xx of an INVITE wants an ACK; its description is the one we have, for ours was.
                    if let Ok(CSeq { number, method }) = response.cseq()
                        && method == "INVITE"
                    {
                        self.acknowledge(transaction, key, number, None);
                    }
                    self.session_answered(now, key, response);
                }
            }
            // The peer knows the call no more, or is not there (RFC 3261 §12.2.1.2).
            408 | 481 => {
                self.end(key, Ended::SessionExpired);
                self.send_bye(now, key, Some("session not refreshed"));
            }
            // He said that he takes UPDATE, and does not.
            405 | 501 if call.peer.update => {
                call.peer.update = false;
                self.try_refresh_again(now, key, Duration::ZERO);
            }
            // RFC 3261 §14.1: both at once. Whoever made the Call-ID waits longer; we take the middle.
            491 => {
                let after = Duration::from_millis(2_100 + self.random() % 1_900);
                self.try_refresh_again(now, key, after);
            }
            _ => {
                // The session stands until it expires; there is time for one or two more attempts.
                let after = interval.unwrap_or(LONGEST) / 6;
                self.try_refresh_again(now, key, after);
            }
        }
    }
}
