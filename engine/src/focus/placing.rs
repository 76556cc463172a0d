//! Callers who wait until the cluster has said where they go.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sip::{CallKey, Invite, Rejection};

use super::access::{Asking, Entry};
use super::liaison::{Arrival, Closed, Report, Verdict};
use super::marks::Marks;
use super::refusals::Refused;
use super::{Focus, Means, RoomName, rejection};
use crate::io::MediaIo;
use crate::load::Asked;

/// Callers who may wait at once; the next are refused.
const WAITING_MAX: usize = 256;

/// Who has heard nothing by then is refused: most callers ask again after a while, and no proxy has given up
/// yet.
const PATIENCE: Duration = Duration::from_secs(6);

/// Contacts in a 302. Each has its q value, the next a tenth lower.
const CONTACTS_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Placing {
    waiting: HashMap<CallKey, Waiting>,
    until: VecDeque<(Instant, CallKey)>,
}

/// One whose room has a place for him, and who may come in.
struct Waiting {
    invite: Invite,
    entry: Entry,
}

impl Placing {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &CallKey> {
        self.waiting.keys()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until.front().map(|(when, _)| *when)
    }

    fn take(&mut self, call: CallKey) -> Option<Waiting> {
        let waiting = self.waiting.remove(&call)?;
        self.until.retain(|(_, waits)| *waits != call);
        Some(waiting)
    }
}

impl Focus {
    /// Whether it is the cluster's to say where a caller goes. Who takes over or joins a call that is here
    /// stays here.
    pub(super) fn is_to_be_placed(&self, invite: &Invite) -> bool {
        let is_bound = invite.replaces.is_some() || invite.join.is_some();
        // Who was sent to a closed room may be in it, by a call that another server has told him to leave.
        let room = || RoomName::from_user(invite.room_user.as_deref()?);
        let is_closed = || room().is_some_and(|room| self.elsewhere.closed(&room).is_some());
        let may_be_in = || Marks::of(&invite.request_uri).hopped && is_closed();
        self.reports.is_on() && !is_bound && (self.admission.asks_cluster() || may_be_in())
    }

    /// Has a caller wait for the cluster's word.
    ///
    /// # Errors
    /// He would not be taken on any server, or too many wait.
    pub(super) fn ask_cluster<I: MediaIo>(
        &mut self,
        invite: Invite,
        means: &mut Means<'_, I>,
    ) -> Result<(), Rejection> {
        let user = invite.room_user.as_deref();
        // A room that is yet to be made is made where he goes.
        let room = match user {
            Some(RoomName::FACTORY) => RoomName::factory(),
            user => self.room_asked_for(user)?,
        };
        let asked = Asked {
            room: room.as_str(),
            participants: self.participants(&room, user, self.is_moved(&invite, &room), means),
            random: self.random.next_u64(),
        };
        self.admission.ask(&self.config, asked).map_err(rejection)?;
        let hopped = Marks::of(&invite.request_uri).hopped;
        if !hopped {
            self.may_enter(&room)?;
        }
        if self.placing.waiting.len() >= WAITING_MAX {
            return Err(rejection(self.admission.not_now(asked.random)));
        }
        let entry = self.entry(&invite, &room, means)?;
        let call = invite.call;
        let asked = Arrival {
            participants: means.stage.taken(room.as_str()).unwrap_or(0),
            hopped,
            from: invite.from_uri.clone(),
            room,
        };
        self.placing.waiting.insert(call, Waiting { invite, entry });
        self.placing.until.push_back((means.now + PATIENCE, call));
        self.reports.push(Report::Asked { call, asked });
        Ok(())
    }

    /// How a caller comes into a room.
    ///
    /// # Errors
    /// He does not, or has to say first who he is.
    pub(super) fn entry<I: MediaIo>(
        &mut self,
        invite: &Invite,
        room: &RoomName,
        means: &Means<'_, I>,
    ) -> Result<Entry, Rejection> {
        // Another server has asked him who he is.
        if self.is_relayed(invite) {
            return Ok(Entry::Free);
        }
        let asking = Asking {
            address: invite.flow.peer.ip(),
            authorization: &invite.authorization,
            method: "INVITE",
            uri: &invite.request_uri,
            body: invite.body.as_ref().map_or(&[], |body| &body.content),
        };
        let room = room.as_str();
        self.door.ask(means.wall, &self.config, room, asking)
    }

    /// Does what the cluster has said of a caller.
    pub(super) fn on_placed<I: MediaIo>(
        &mut self,
        call: CallKey,
        verdict: Verdict,
        means: &mut Means<'_, I>,
    ) {
        let Some(Waiting { invite, entry }) = self.placing.take(call) else {
            return;
        };
        match verdict {
            Verdict::Accept => self.take_in(invite, Some(entry), means),
            Verdict::Redirect { contacts } => {
                let q = |index: usize| 1.0 - index as f32 / 10.0;
                let contacts: Vec<(String, f32)> = contacts
                    .into_iter()
                    .take(CONTACTS_MAX)
                    .enumerate()
                    .map(|(index, uri)| (uri, q(index)))
                    .collect();
                if contacts.is_empty() {
                    return self.turn_away(call, means);
                }
                means.meters.calls_redirected.add(1);
                means.sip.redirect(means.now, call, &contacts);
            }
            Verdict::Relay { target, server } => {
                means.meters.calls_redirected.add(1);
                self.relay(invite, &entry, &target, server, means);
            }
            Verdict::Refuse {
                status,
                retry_after_s,
            } => {
                let status = if (400..700).contains(&status) {
                    status
                } else {
                    503
                };
                let refused = Rejection::new(status).retry_after(retry_after_s);
                means.meters.calls_rejected.add(1);
                means.sip.reject(means.now, call, refused);
            }
        }
    }

    /// Nobody has a place for him now.
    pub(super) fn turn_away<I: MediaIo>(&mut self, call: CallKey, means: &mut Means<'_, I>) {
        let refused = rejection(self.admission.not_now(self.random.next_u64()));
        means.meters.calls_rejected.add(1);
        means.sip.reject(means.now, call, refused);
    }

    /// A caller has hung up, perhaps one who waits.
    pub(super) fn withdraw(&mut self, call: CallKey) {
        if self.placing.take(call).is_some() {
            self.reports.push(Report::Withdrawn { call });
        }
    }

    /// Gives up those who have waited for too long.
    pub(super) fn give_up_waiting<I: MediaIo>(&mut self, means: &mut Means<'_, I>) {
        while let Some((when, call)) = self.placing.until.front().copied() {
            if when > means.now {
                break;
            }
            let waiting = self.placing.waiting.get(&call);
            let refused = waiting.map(|waiting| Refused::of(&waiting.invite));
            self.withdraw(call);
            if let Some(refused) = refused {
                let why = "the cluster has not said in time where he goes";
                self.tell_refusal(means.now, refused, &Rejection::new(503), why);
                self.turn_away(call, means);
            }
        }
    }

    /// Whether another server of the service has let the caller in, and calls for him.
    pub(super) fn is_relayed(&self, invite: &Invite) -> bool {
        Marks::of(&invite.request_uri).relay.is_some() && self.is_of_peer(invite)
    }

    /// Whether another server of the service calls. Servers call each other without a proxy between: what
    /// one brings may be of anybody, though it be a neighbour.
    pub(super) fn is_of_peer(&self, invite: &Invite) -> bool {
        !invite.proxied && self.is_peer(invite.flow.peer.ip())
    }

    /// Whether another server of the service may call from this address: one that is trusted, or of a server
    /// that the configuration names by its address. Where it names hosts, their network has to be trusted.
    fn is_peer(&self, address: IpAddr) -> bool {
        let cluster = &self.config.cluster;
        let reserved = cluster.reserved.iter().map(|(_, uri)| uri);
        let mut known = cluster.peers.iter().chain(reserved);
        let mut trusted = cluster.trusted.iter();
        self.reports.is_on()
            && (trusted.any(|network| network.contains(address))
                || known.any(|uri| address_in(uri) == Some(address)))
    }

    /// Another server has sent the caller here, and he is in the room by the call that he has there.
    pub(super) fn is_moved(&self, invite: &Invite, room: &RoomName) -> bool {
        Marks::of(&invite.request_uri).hopped && self.elsewhere.has_user(room, &invite.from_uri)
    }

    /// # Errors
    /// The room takes nobody new.
    pub(super) fn may_enter(&self, room: &RoomName) -> Result<(), Rejection> {
        let (status, text) = match self.elsewhere.closed(room) {
            Some(Closed::Locked) => (403, "The conference is locked"),
            Some(Closed::Full) => (486, "The conference has as many users as it may"),
            None => return Ok(()),
        };
        Err(Rejection::new(status).warning(399, text))
    }
}

/// The address in a URI such as `sip:cfw@192.0.2.1:5060;transport=tcp`; None if it names a host.
fn address_in(uri: &str) -> Option<IpAddr> {
    let host = uri.rsplit_once('@').map_or(uri, |(_, host)| host);
    let host = host.split([';', '?']).next().unwrap_or(host);
    let with_port = host.parse::<SocketAddr>().map(|address| address.ip());
    with_port
        .ok()
        .or_else(|| host.trim_matches(['[', ']']).parse().ok())
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn servers_are_known_by_the_addresses_that_are_configured() {
        let table = [
            ("sip:cfw@192.0.2.1:5060", Some("192.0.2.1")),
            ("sip:cfw@192.0.2.1;transport=tcp", Some("192.0.2.1")),
            (
                "sips:cfw@[2001:db8::1]:5061;transport=tls",
                Some("2001:db8::1"),
            ),
            ("sip:cfw@[2001:db8::1]", Some("2001:db8::1")),
            ("sip:cfw@one.example.org:5060", None),
            ("", None),
        ];
        for (uri, expected) in table {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(address_in(uri), expected, "{uri}");
        }
    }
}
