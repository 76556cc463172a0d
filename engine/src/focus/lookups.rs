//! Names that calls of ours need the addresses of. Whoever has the focus looks them up: a resolver waits.

use std::collections::HashMap;
use std::net::SocketAddr;

use cfw::SvrId;
use sip::{CallKey, Flow, Invitation, Transport};

use super::dialing::Dial;
use super::{Focus, Means, RoomName};
use crate::io::MediaIo;

/// Names that are being looked up at once.
const LOOKUPS_MAX: usize = 64;

/// A name whose address is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub ticket: u64,
    pub host: String,
    pub port: u16,
}

/// Calls that wait for an address.
#[derive(Default)]
pub(super) struct Lookups {
    waiting: HashMap<u64, (Then, Transport)>,
    next: u64,
    /// Not yet given out.
    wanted: Vec<Lookup>,
}

/// What is to be done then.
pub(super) enum Then {
    Dial(Dial),
    Trunk {
        room: RoomName,
        peer: SvrId,
        target: String,
    },
    Relay {
        caller: CallKey,
        server: SvrId,
        invitation: Box<Invitation>,
    },
}

impl Lookups {
    /// # Errors
    /// Too many names are being looked up.
    pub(super) fn begin(&mut self, host: Host, then: Then) -> Result<(), Then> {
        if self.waiting.len() >= LOOKUPS_MAX {
            return Err(then);
        }
        let ticket = self.next;
        self.next += 1;
        self.wanted.push(Lookup {
            ticket,
            host: host.name,
            port: host.port,
        });
        self.waiting.insert(ticket, (then, host.transport));
        Ok(())
    }

    /// The trunk is not wanted any more.
    pub(super) fn forget_trunk(&mut self, room: &RoomName, peer: SvrId) {
        self.waiting.retain(|_, (then, _)| {
            !matches!(then, Then::Trunk { room: of, peer: to, .. } if of == room && *to == peer)
        });
    }
}

impl Focus {
    /// Names to be looked up since the last time; the answers go to [`resolved`](Self::resolved).
    pub fn lookups(&mut self) -> Vec<Lookup> {
        std::mem::take(&mut self.lookups.wanted)
    }

    /// A name has been looked up.
    pub fn resolved<I: MediaIo>(
        &mut self,
        ticket: u64,
        addresses: &[SocketAddr],
        means: &mut Means<'_, I>,
    ) {
        let Some((then, transport)) = self.lookups.waiting.remove(&ticket) else {
            return;
        };
        // The first that one of our listeners can speak to.
        let flow: Option<Flow> = addresses
            .iter()
            .find_map(|&peer| means.sip.flow_over(transport, peer));
        match then {
            Then::Dial(dial) => self.dial_found(dial, flow, means),
            Then::Trunk { room, peer, target } => {
                self.call_trunk(room, peer, target, flow, means);
            }
            Then::Relay {
                caller,
                server,
                invitation,
            } => {
                self.relay_over(caller, server, *invitation, flow, means);
            }
        }
    }
}

/// A host that is a name.
pub(super) struct Host {
    name: String,
    port: u16,
    transport: Transport,
}

impl Host {
    pub(super) fn of(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        let is_secure = scheme.eq_ignore_ascii_case("sips");
        if !is_secure && !scheme.eq_ignore_ascii_case("sip") {
            return None;
        }
        let rest = rest.split('?').next()?;
        let (address, parameters) = match rest.rsplit_once('@') {
            Some((_, host)) => host.split_once(';').unwrap_or((host, "")),
            None => rest.split_once(';').unwrap_or((rest, "")),
        };
        let asked = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.eq_ignore_ascii_case("transport").then_some(value)
        });
        let transport = match asked.map(str::to_ascii_lowercase).as_deref() {
            None if is_secure => Transport::Tls,
            None | Some("udp") => Transport::Udp,
            Some("tcp") => Transport::Tcp,
            Some("tls") => Transport::Tls,
            Some(_) => return None,
        };
        let (name, port) = match address.split_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (address, transport.default_port()),
        };
        let is_name = !name.is_empty() && name.parse::<std::net::IpAddr>().is_err();
        is_name.then(|| Self {
            name: name.to_owned(),
            port,
            transport,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_nothing_else() {
        for (uri, expected) in [
            (
                "sip:bob@example.org",
                Some(("example.org", 5060, Transport::Udp)),
            ),
            (
                "sip:bob@example.org:5070;transport=TCP",
                Some(("example.org", 5070, Transport::Tcp)),
            ),
            (
                "sips:bob@example.org",
                Some(("example.org", 5061, Transport::Tls)),
            ),
            (
                "SIP:example.org;x=1?Subject=a@b",
                Some(("example.org", 5060, Transport::Udp)),
            ),
            (
                "sip:a@b@example.org",
                Some(("example.org", 5060, Transport::Udp)),
            ),
            ("sip:bob@192.0.2.1", None),
            ("sip:bob@[2001:db8::1]:5060", None),
            ("sip:bob@example.org:70000", None),
            ("sip:bob@example.org;transport=ws", None),
            ("sip:", None),
            ("tel:+491234", None),
        ] {
            let host = Host::of(uri);
            let found = host
                .as_ref()
                .map(|host| (host.name.as_str(), host.port, host.transport));
            assert_eq!(found, expected, "{uri}");
        }
    }
}
