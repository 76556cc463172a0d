//! SYNC and K-ALIVE: how a channel becomes one, and how both ends know that it still is.

use std::time::{Duration, Instant};

use super::message::{Code, Headers, Writer};
use super::token::Token;
use super::{
    Channel, CloseReason, Event, REQUEST_TIMEOUT, Role, SendError, TRANSACTION_TIMEOUT, Use,
    refresh_after,
};

/// Longest interval that may be asked for (RFC 6230 §6.3.4.1).
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(600);

/// What is taken if the peer's SYNC has no Keep-Alive, against the RFC.
const KEEP_ALIVE: Duration = Duration::from_secs(100);

/// How often the passive side says that there is no common package.
const SYNCS_MAX: u32 = 4;

#[derive(Debug)]
pub(super) enum Phase {
    /// Active: SYNC is sent, or refused with 422 and not sent again yet.
    Syncing {
        is_sent: bool,
        deadline: Instant,
    },
    /// Passive: a SYNC is to come.
    Unsynced {
        deadline: Instant,
        tries: u32,
    },
    Ready {
        packages: Vec<Token>,
        keep_alive: KeepAlive,
    },
    Closed,
}

#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    /// When the last one was answered.
    last: Instant,
    /// Active: one is on its way.
    is_asked: bool,
}

impl KeepAlive {
    const fn new(now: Instant, interval: Duration) -> Self {
        Self {
            interval,
            last: now,
            is_asked: false,
        }
    }

    fn expires_at(&self) -> Instant {
        self.last + self.interval
    }

    fn is_due_at(&self) -> Instant {
        self.last + refresh_after(self.interval)
    }
}

impl Phase {
    pub(super) fn deadline(&self, role: Role) -> Option<Instant> {
        match self {
            Self::Syncing { deadline, .. } | Self::Unsynced { deadline, .. } => Some(*deadline),
            Self::Ready { keep_alive, .. } => match role {
                Role::Active if !keep_alive.is_asked => Some(keep_alive.is_due_at()),
                _ => Some(keep_alive.expires_at()),
            },
            Self::Closed => None,
        }
    }
}

impl Channel {
    pub(super) fn send_first_sync(&mut self, now: Instant) {
        self.phase = Phase::Syncing {
            is_sent: true,
            deadline: now + REQUEST_TIMEOUT,
        };
        self.send_sync(true, &self.config.packages.clone());
    }

    pub(super) fn await_first_sync(&mut self, now: Instant) {
        self.phase = Phase::Unsynced {
            deadline: now + TRANSACTION_TIMEOUT,
            tries: 0,
        };
    }

    fn send_sync(&mut self, is_first: bool, packages: &[Token]) {
        let id = self.new_id();
        let mut sync = Writer::new(&id, "SYNC").header("Dialog-ID", self.config.dialog_id);
        if is_first {
            sync = sync.seconds("Keep-Alive", self.config.keep_alive);
        }
        self.ids.insert(id, Use::Sync);
        self.send(sync.packages("Packages", packages).end());
    }

    /// Asks for other packages: after [`Event::NoCommonPackage`], or any time when the channel is ready.
    /// [`Event::Ready`], [`Event::Renegotiated`] or [`Event::NotRenegotiated`] follows.
    ///
    /// # Errors
    /// A SYNC is on its way already, the peer is to send one, or the channel is closed.
    pub fn sync(&mut self, now: Instant, packages: Vec<Token>) -> Result<(), SendError> {
        match &mut self.phase {
            Phase::Syncing { is_sent, deadline } if !*is_sent => {
                (*is_sent, *deadline) = (true, now + REQUEST_TIMEOUT);
                self.send_sync(true, &packages);
                self.config.packages = packages;
                Ok(())
            }
            Phase::Ready { .. } if self.renegotiation.is_none() => {
                self.send_sync(false, &packages);
                if !self.is_closed() {
                    self.renegotiation = Some((packages, now + REQUEST_TIMEOUT));
                }
                Ok(())
            }
            _ => Err(SendError::NotReady),
        }
    }

    /// What of the peer's packages we know, in our order.
    fn common(&self, theirs: &[Token]) -> Vec<Token> {
        let known = |ours: &&Token| theirs.iter().any(|their| their.names_same(ours));
        self.config.packages.iter().filter(known).copied().collect()
    }

    /// Passive: the SYNC that makes the channel (RFC 6230 §6.3.4).
    pub(super) fn on_first_sync(&mut self, now: Instant, id: &Token, headers: &Headers) {
        let asked = headers.keep_alive.map(|s| Duration::from_secs(s.into()));
        let interval = asked.unwrap_or(KEEP_ALIVE);
        let is_theirs = match (&self.config.peer_dialog_id, &headers.dialog_id) {
            (Some(known), Some(told)) => known == told,
            _ => true,
        };
        if !is_theirs {
            self.reply(id, Code::UNKNOWN);
            return self.close_for(CloseReason::UnknownDialog);
        }
        let is_bad = headers.dialog_id.is_none() || headers.packages.is_empty();
        if is_bad || interval.is_zero() || interval > KEEP_ALIVE_MAX {
            self.reply(id, Code::SYNTAX_ERROR);
            return self.close_for(CloseReason::BadSync);
        }
        let packages = self.common(&headers.packages);
        if packages.is_empty() {
            self.reply_no_common_package(id);
            return match &mut self.phase {
                Phase::Unsynced { tries, deadline } if *tries + 1 < SYNCS_MAX => {
                    *tries += 1;
                    *deadline = now + REQUEST_TIMEOUT;
                }
                _ => self.close_for(CloseReason::NoCommonPackage),
            };
        }
        let answer = Writer::new(id, Code::OK).seconds("Keep-Alive", interval);
        self.send(answer.packages("Packages", &packages).end());
        self.become_ready(now, packages, interval);
    }

    fn reply_no_common_package(&mut self, id: &Token) {
        let answer = Writer::new(id, Code::NO_COMMON_PACKAGE);
        self.send(answer.packages("Supported", &self.config.packages).end());
    }

    fn become_ready(&mut self, now: Instant, packages: Vec<Token>, interval: Duration) {
        if self.is_closed() {
            return;
        }
        self.phase = Phase::Ready {
            packages: packages.clone(),
            keep_alive: KeepAlive::new(now, interval),
        };
        self.events.push_back(Event::Ready { packages });
    }

    /// A SYNC that changes the packages (RFC 6230 §6.3.4.2), from either side.
    pub(super) fn on_later_sync(&mut self, id: &Token, headers: &Headers) {
        if self.ids.contains_key(id) {
            return self.reply(id, Code::ID_IN_USE);
        }
        // Two at the same time would leave the ends with different packages.
        if !self.config.renegotiates || self.renegotiation.is_some() {
            return self.reply(id, Code::NO_RENEGOTIATION);
        }
        if headers.packages.is_empty() {
            return self.reply(id, Code::SYNTAX_ERROR);
        }
        if let (Some(known), Some(told)) = (&self.config.peer_dialog_id, &headers.dialog_id)
            && known != told
        {
            return self.reply(id, Code::UNKNOWN);
        }
        let common = self.common(&headers.packages);
        if common.is_empty() {
            return self.reply_no_common_package(id);
        }
        let answer = Writer::new(id, Code::OK).packages("Packages", &common);
        self.send(answer.end());
        self.renegotiated(common);
    }

    fn renegotiated(&mut self, common: Vec<Token>) {
        if let Phase::Ready { packages, .. } = &mut self.phase {
            packages.clone_from(&common);
            let packages = common;
            self.events.push_back(Event::Renegotiated { packages });
        }
    }

    pub(super) fn on_sync_answer(&mut self, now: Instant, id: Token, code: Code, headers: Headers) {
        self.ids.remove(&id);
        let is_first = matches!(self.phase, Phase::Syncing { .. });
        let offered = match self.renegotiation.take() {
            Some((packages, _)) => packages,
            None => self.config.packages.clone(),
        };
        // A peer that does not say which ones knows all.
        let common = match headers.packages.as_slice() {
            [] => offered,
            theirs => {
                let known = |ours: &Token| theirs.iter().any(|their| their.names_same(ours));
                offered.into_iter().filter(known).collect()
            }
        };
        match (is_first, code) {
            (true, Code::OK) if common.is_empty() => self.close_for(CloseReason::NoCommonPackage),
            // The peer copies our interval; it cannot change it.
            (true, Code::OK) => self.become_ready(now, common, self.config.keep_alive),
            (true, Code::NO_COMMON_PACKAGE) => {
                self.phase = Phase::Syncing {
                    is_sent: false,
                    deadline: now + TRANSACTION_TIMEOUT,
                };
                let supported = headers.supported;
                self.events.push_back(Event::NoCommonPackage { supported });
            }
            (true, code) => self.close_for(CloseReason::SyncRefused(code)),
            (false, Code::OK) if !common.is_empty() => self.renegotiated(common),
            (false, _) => self.events.push_back(Event::NotRenegotiated),
        }
    }

    /// Only this sets the clock back, not what else is said (RFC 6230 §6.3.3).
    pub(super) fn on_keep_alive(&mut self, now: Instant, id: &Token) {
        if self.role == Role::Passive
            && let Phase::Ready { keep_alive, .. } = &mut self.phase
        {
            keep_alive.last = now;
        }
        self.reply(id, Code::OK);
    }

    /// Nothing but 200 is valid; after another code the channel expires.
    pub(super) fn on_keep_alive_answer(&mut self, now: Instant, id: Token, code: Code) {
        self.ids.remove(&id);
        if code == Code::OK
            && let Phase::Ready { keep_alive, .. } = &mut self.phase
        {
            keep_alive.last = now;
            keep_alive.is_asked = false;
        }
    }

    pub(super) fn on_phase_timeout(&mut self, now: Instant) {
        if let Some((_, deadline)) = &self.renegotiation
            && now >= *deadline
        {
            self.renegotiation = None;
            self.ids.retain(|_, used| *used != Use::Sync);
            self.events.push_back(Event::NotRenegotiated);
        }
        match &mut self.phase {
            Phase::Syncing { is_sent, deadline } if now >= *deadline => {
                let reason = match *is_sent {
                    true => CloseReason::SyncTimedOut,
                    false => CloseReason::NoCommonPackage,
                };
                self.close_for(reason);
            }
            Phase::Unsynced { deadline, tries } if now >= *deadline => {
                let reason = match *tries {
                    0 => CloseReason::SyncTimedOut,
                    _ => CloseReason::NoCommonPackage,
                };
                self.close_for(reason);
            }
            Phase::Ready { keep_alive, .. } if now >= keep_alive.expires_at() => {
                self.close_for(CloseReason::KeepAlive);
            }
            Phase::Ready { keep_alive, .. }
                if self.role == Role::Active
                    && !keep_alive.is_asked
                    && now >= keep_alive.is_due_at() =>
            {
                keep_alive.is_asked = true;
                let id = self.new_id();
                self.ids.insert(id, Use::KeepAlive);
                self.send(Writer::new(&id, "K-ALIVE").end());
            }
            _ => {}
        }
    }
}
