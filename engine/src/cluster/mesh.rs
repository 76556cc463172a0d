//! A channel with every server: who dials whom and when, and which of two channels stays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cfw::SvrId;

use super::decisions::What;
use super::exchange::Purpose;
use super::interface::{ChannelId, Lost, Output};
use super::timers::Timer;
use super::{Cluster, DIAL_BUDGET};

/// First wait before a server is dialled again; doubled each time up to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Whoever has the higher svr-id waits so long before he dials, as the other does so too.
const DEFERENCE: Duration = Duration::from_millis(300);

/// A channel that has lasted so long was of use: what failed before it came up is forgotten.
const LASTING: Duration = Duration::from_secs(10);

/// An address that only others have told of is forgotten after so many failures in a row, some minutes.
const FAILURES_MAX: u32 = 20;

/// Most URIs that are dialled, and channels that there are.
const ADDRESSES_MAX: usize = 512;
const LINKS_MAX: usize = 1_024;

/// A channel on which nothing is heard for so long is closed: loads and their answers come each second.
const SILENCE: Duration = Duration::from_secs(10);

/// Requests that a channel may owe answers to before it is too slow to be of use.
pub(super) const UNANSWERED_MAX: usize = 1_000;

/// Where a server is dialled.
#[derive(Clone, Debug, Default)]
pub(super) struct Address {
    /// Who is there, as far as it is known.
    pub(super) svr_id: Option<SvrId>,
    pub(super) is_configured: bool,
    /// This server's own.
    pub(super) is_self: bool,
    dialling: Option<ChannelId>,
    /// Failures in a row, and channels that did not last.
    attempts: u32,
    next: Option<Instant>,
}

/// A channel.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) is_up: bool,
    /// When it came up, or was dialled.
    since: Instant,
    pub(super) svr_id: Option<SvrId>,
    pub(super) heard: Instant,
    /// Of whoever is at the other end, since it said so.
    pub(super) epoch: Option<u64>,
    /// The URI that was dialled.
    uri: Option<String>,
    pub(super) next_id: u64,
    /// Requests that wait for their answers.
    pub(super) asked: BTreeMap<u64, Purpose>,
}

impl Address {
    /// How long to wait before it is dialled again.
    fn backoff(&self, random: u64) -> Duration {
        let wait = BACKOFF_MIN * (1 << self.attempts.min(6));
        let spread = 0.75 + 0.5 * (random % 1_024) as f64 / 1_024.0;
        wait.min(BACKOFF_MAX).mul_f64(spread)
    }
}

impl Link {
    fn new(now: Instant, uri: Option<String>) -> Self {
        Self {
            is_up: false,
            since: now,
            svr_id: None,
            heard: now,
            epoch: None,
            uri,
            next_id: 1,
            asked: BTreeMap::new(),
        }
    }
}

impl Cluster {
    /// A server may be reached there: it is dialled if there is no channel with it.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        uri: &str,
        svr_id: Option<SvrId>,
        is_configured: bool,
    ) {
        if uri == self.config.cfw_uri || svr_id == Some(self.config.svr_id) {
            return;
        }
        let own = self.config.svr_id;
        let Some(address) = self.address(uri) else {
            return;
        };
        address.is_configured |= is_configured;
        address.svr_id = address.svr_id.or(svr_id);
        let defers = address.svr_id.is_some_and(|id| id < own);
        let wait = match (is_configured, defers) {
            (true, _) | (_, false) => Duration::ZERO,
            (false, true) => DEFERENCE,
        };
        if address.next.is_none() && address.dialling.is_none() {
            self.dial_at(uri, now + wait);
        }
    }

    /// An address' entry, a new one if it has none. None: there are too many.
    fn address(&mut self, uri: &str) -> Option<&mut Address> {
        if !self.addresses.contains_key(uri) && self.addresses.len() >= ADDRESSES_MAX {
            return None;
        }
        Some(self.addresses.entry(uri.to_owned()).or_default())
    }

    /// A server has said where it is: it is not looked for where it was, unless the operator says so.
    pub(super) fn forget_addresses(&mut self, id: SvrId) {
        let peer = self.peers.get(&id);
        let Some(current) = peer.and_then(|peer| peer.cfw_uri.clone()) else {
            return;
        };
        self.addresses.retain(|uri, address| {
            let is_other = address.svr_id == Some(id) && *uri != current;
            !is_other || address.is_configured || address.dialling.is_some()
        });
    }

    pub(super) fn dial_at(&mut self, uri: &str, at: Instant) {
        if let Some(address) = self.addresses.get_mut(uri) {
            address.next = Some(at);
            self.timers.set(at, Timer::Dial(uri.to_owned()));
        }
    }

    /// Dials at once, whatever failed before.
    pub(super) fn dial_now(&mut self, now: Instant, uri: &str) {
        if let Some(address) = self.addresses.get_mut(uri) {
            address.attempts = 0;
            address.next = Some(now);
            self.dial(now, uri);
        }
    }

    /// The time to dial this URI has come, if there is no channel with whoever is there.
    pub(super) fn dial(&mut self, now: Instant, uri: &str) {
        let Some(address) = self.addresses.get_mut(uri) else {
            return;
        };
        let is_due = address.next.is_some_and(|next| next <= now);
        if !is_due || address.is_self || address.dialling.is_some() {
            return;
        }
        address.next = None;
        let svr_id = address.svr_id;
        let peer = svr_id.and_then(|id| self.peers.get(&id));
        if peer.is_some_and(|peer| !peer.links.is_empty()) {
            return;
        }
        let channel = ChannelId::Dialled(self.next_channel);
        self.next_channel += 1;
        address.dialling = Some(channel);
        self.links
            .insert(channel, Link::new(now, Some(uri.to_owned())));
        self.timers.set(now + DIAL_BUDGET, Timer::DialLate(channel));
        self.outputs.push_back(Output::Dial {
            channel,
            uri: uri.to_owned(),
            svr_id,
        });
    }

    /// A channel that is not up by now will not come.
    pub(super) fn on_dial_late(&mut self, now: Instant, channel: ChannelId) {
        if self.links.get(&channel).is_some_and(|link| !link.is_up) {
            self.close(channel, "not up in time");
            self.on_channel_down(now, channel, Lost::Timeout);
        }
    }

    pub(super) fn on_channel_up(
        &mut self,
        now: Instant,
        channel: ChannelId,
        svr_id: Option<SvrId>,
    ) {
        if let ChannelId::Accepted(_) = channel {
            if self.links.len() >= LINKS_MAX {
                self.close(channel, "too many channels");
                return;
            }
            self.links.insert(channel, Link::new(now, None));
        }
        let Some(link) = self.links.get_mut(&channel) else {
            // Given up meanwhile.
            self.close(channel, "not wanted");
            return;
        };
        link.is_up = true;
        link.since = now;
        link.heard = now;
        if let Some(uri) = link.uri.clone()
            && let Some(address) = self.addresses.get_mut(&uri)
        {
            address.dialling = None;
        }
        match svr_id {
            Some(id) => {
                self.bind(now, channel, id);
            }
            None => self.hello(now, channel),
        }
    }

    /// Now it is known who is at the other end. False: somebody who may not be, and the channel is closed.
    pub(super) fn bind(&mut self, now: Instant, channel: ChannelId, id: SvrId) -> bool {
        let Some(link) = self.links.get_mut(&channel) else {
            return false;
        };
        if let Some(bound) = link.svr_id {
            return bound == id;
        }
        let uri = link.uri.clone();
        let address = uri.as_ref().and_then(|uri| self.addresses.get_mut(uri));
        if id == self.config.svr_id {
            if let Some(address) = address {
                address.is_self = true;
            }
            self.deny(now, channel, "it has this server's own svr-id");
            return false;
        }
        let reserved = uri.as_ref().and_then(|uri| self.reserve.id_at(uri));
        if reserved.is_some_and(|reserved| reserved != id) {
            self.deny(now, channel, "another server is configured at its address");
            return false;
        }
        if self.meet(id).is_none() {
            self.deny(now, channel, "too many servers are known");
            return false;
        }
        if let Some(address) = uri.as_ref().and_then(|uri| self.addresses.get_mut(uri)) {
            address.svr_id = Some(id);
        }
        if let Some(link) = self.links.get_mut(&channel) {
            link.svr_id = Some(id);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.links.insert(channel);
        }
        self.on_alive(now, id);
        self.settle_glare(now, id);
        self.choose_link(now, id);
        true
    }

    fn deny(&mut self, now: Instant, channel: ChannelId, why: &str) {
        self.decide(
            now,
            What::Deny,
            None,
            None,
            format!("channel closed: {why}"),
        );
        self.close(channel, why);
        self.on_channel_down(now, channel, Lost::Refused(403));
    }

    /// Of channels dialled by both sides those stay that the lower svr-id dialled. Whoever dialled another
    /// ends it; of two of his own the later.
    fn settle_glare(&mut self, now: Instant, id: SvrId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let is_lower = self.config.svr_id < id;
        let is_dialled = |channel: &ChannelId| matches!(channel, ChannelId::Dialled(_));
        let has_accepted = peer.links.iter().any(|channel| !is_dialled(channel));
        let keep = usize::from(is_lower || !has_accepted);
        let dialled = peer.links.iter().copied().filter(is_dialled);
        let mut surplus: Vec<ChannelId> = dialled.skip(keep).collect();
        // Those that are not up yet are not needed any more either.
        let addresses = self.addresses.values();
        let underway = addresses.filter(|address| address.svr_id == Some(id));
        let keeps_dialling = is_lower && has_accepted && peer.links.len() == 1;
        if !keeps_dialling {
            surplus.extend(underway.filter_map(|address| address.dialling));
        }
        for channel in surplus {
            self.close(channel, "there is another channel");
            self.on_channel_down(now, channel, Lost::Closed);
        }
    }

    /// Talks where both sides prefer it, and begins with a snapshot there.
    pub(super) fn choose_link(&mut self, now: Instant, id: SvrId) {
        let is_lower = self.config.svr_id < id;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let is_preferred =
            |channel: &&ChannelId| matches!(channel, ChannelId::Dialled(_)) == is_lower;
        let chosen = peer.links.iter().find(is_preferred);
        let chosen = chosen.or_else(|| peer.links.first()).copied();
        if chosen == peer.spoken {
            return;
        }
        peer.spoken = chosen;
        if chosen.is_some() {
            self.send_snapshot(now, id);
        }
    }

    pub(super) fn on_channel_down(&mut self, now: Instant, channel: ChannelId, why: Lost) {
        let Some(link) = self.links.remove(&channel) else {
            return;
        };
        let mut dialled = None;
        if let Some(uri) = &link.uri
            && let Some(address) = self.addresses.get_mut(uri)
        {
            if address.dialling == Some(channel) {
                address.dialling = None;
            }
            dialled = address.svr_id;
        }
        if let Some(id) = link.svr_id {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.links.remove(&channel);
                if peer.links.is_empty() {
                    peer.spoken = None;
                    // If it is dead, whoever it had begun to tell of can still be called back.
                    for info in peer.hearing.take() {
                        self.on_conferences(now, id, info);
                    }
                    self.on_lost(now, id, why);
                    self.redial(now, id, now >= link.since + LASTING);
                } else {
                    self.choose_link(now, id);
                }
            }
        } else if let Some(uri) = &link.uri
            && why != Lost::Closed
        {
            self.back_off(now, uri);
            if let Some(id) = dialled {
                self.on_redialled(now, id);
            }
            self.on_claimed_unreachable(now, uri);
        }
        for purpose in link.asked.into_values() {
            self.on_unanswered(now, link.svr_id, purpose, 408);
        }
    }

    /// The channel with a server has been lost: whoever has the lower svr-id dials first. Once that is at once;
    /// a channel that did not last is a failure like others.
    fn redial(&mut self, now: Instant, id: SvrId, has_lasted: bool) {
        let deference = match self.config.svr_id < id {
            true => Duration::ZERO,
            false => DEFERENCE,
        };
        let of_peer = self.peers.get(&id).and_then(|peer| peer.cfw_uri.clone());
        let known = |(_, address): &(&String, &Address)| address.svr_id == Some(id);
        let uri = of_peer.or_else(|| {
            let address = self.addresses.iter().find(known);
            address.map(|(uri, _)| uri.clone())
        });
        let random = self.random.next_u64();
        if let Some(uri) = uri
            && let Some(address) = self.address(&uri)
        {
            address.svr_id = Some(id);
            if has_lasted {
                address.attempts = 0;
            }
            let wait = match address.attempts {
                0 => Duration::ZERO,
                _ => address.backoff(random),
            };
            address.attempts += 1;
            let wait = wait.max(deference);
            self.dial_at(&uri, now + wait);
        }
    }

    fn back_off(&mut self, now: Instant, uri: &str) {
        let random = self.random.next_u64();
        let Some(address) = self.addresses.get_mut(uri) else {
            return;
        };
        let wait = address.backoff(random);
        address.attempts += 1;
        // A server that was there before may live on behind a link that is cut.
        let was_here = address
            .svr_id
            .is_some_and(|id| self.peers.contains_key(&id));
        let is_wanted = was_here || !self.reserve.is_only_reserved(uri, address.is_configured);
        let is_hearsay = !was_here && !address.is_configured;
        if is_wanted && is_hearsay && address.attempts >= FAILURES_MAX {
            self.addresses.remove(uri);
        } else if is_wanted && !address.is_self {
            self.dial_at(uri, now + wait);
        }
    }

    pub(super) fn close(&mut self, channel: ChannelId, reason: &str) {
        self.outputs.push_back(Output::Close {
            channel,
            reason: reason.to_owned(),
        });
    }

    /// Each second: channels on which nobody is heard are closed.
    pub(super) fn check_links(&mut self, now: Instant) {
        let is_silent = |link: &Link| link.is_up && now > link.heard + SILENCE;
        let links = self.links.iter().filter(|(_, link)| is_silent(link));
        let silent: Vec<ChannelId> = links.map(|(channel, _)| *channel).collect();
        for channel in silent {
            self.close(channel, "silent");
            self.on_channel_down(now, channel, Lost::Timeout);
        }
    }

    /// This process was stopped for that long and has heard nobody: that is no one else's silence.
    pub(super) fn excuse(&mut self, stalled: Duration) {
        for link in self.links.values_mut() {
            link.heard += stalled;
        }
    }

    /// Ends all channels with a server.
    pub(super) fn close_links(&mut self, now: Instant, id: SvrId, reason: &str) {
        let links = self.peers.get(&id).map(|peer| peer.links.clone());
        for channel in links.unwrap_or_default() {
            self.close(channel, reason);
            self.on_channel_down(now, channel, Lost::Timeout);
        }
    }
}
