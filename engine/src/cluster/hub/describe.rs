//! What the hub says of its end of a channel, in SDP, and where URIs lead.

use std::net::IpAddr;

use bytes::Bytes;
use cfw::channel::Token;
use cfw::sdp::{self, Agreement, Description, Fingerprint, Local, Rejection, Setup};
use sip::{Body, Transport};

const SDP: &str = "application/sdp";

/// Where connections of channels come in, as others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: IpAddr,
    pub port: u16,
    /// Of our certificate, if channels speak TLS.
    pub fingerprint: Option<Fingerprint>,
}

impl Place {
    /// Of one channel. `session` tells descriptions of one dialog from those of others.
    pub(super) fn local(&self, cfw_id: Token, session: u64) -> Local {
        Local {
            fingerprint: self.fingerprint.clone(),
            session: session >> 1,
            ..Local::new(self.address, Some(self.port), cfw_id)
        }
    }
}

/// Who calls also connects: he knows that the other side is there (RFC 6230 §4.1).
const OFFERED: Setup = Setup::Active;

pub(super) fn offer(local: &Local) -> Body {
    body(sdp::offer(local, OFFERED))
}

pub(super) fn read(body: &Body) -> Result<Description, Rejection> {
    sdp::read(&body.content)
}

pub(super) fn answer(
    offer: &Description,
    local: &Local,
    is_connected: bool,
) -> Result<(Body, Agreement), Rejection> {
    let (text, agreement) = sdp::answer(offer, local, is_connected)?;
    Ok((body(text), agreement))
}

pub(super) fn accept(local: &Local, answer: &Body) -> Result<Agreement, Rejection> {
    sdp::accept(local, OFFERED, &read(answer)?)
}

fn body(text: String) -> Body {
    Body {
        content_type: SDP.to_owned(),
        content: Bytes::from(text),
    }
}

/// Where a URI leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) transport: Transport,
}

impl Host {
    /// None: the URI is none that a channel could be at.
    pub(super) fn of(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix("sip:")?;
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let mut parts = rest.split(';');
        let host_port = parts.next()?;
        let transport = match parts.find_map(|part| part.strip_prefix("transport=")) {
            None | Some("udp") => Transport::Udp,
            Some("tcp") => Transport::Tcp,
            Some("tls") => Transport::Tls,
            Some(_) => return None,
        };
        // The colon behind an address in brackets, or behind a name.
        let end = host_port.rfind(']').map_or(0, |bracket| bracket + 1);
        let (name, port) = match host_port[end..].find(':') {
            Some(colon) => {
                let (name, port) = host_port.split_at(end + colon);
                (name, port[1..].parse().ok()?)
            }
            None => (host_port, transport.default_port()),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        (!name.is_empty()).then(|| Self {
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
    fn hosts_of_uris() {
        let host = |name: &str, port, transport| {
            let name = name.to_owned();
            Some(Host {
                name,
                port,
                transport,
            })
        };
        for (uri, expected) in [
            (
                "sip:cfw@127.0.0.1:5070",
                host("127.0.0.1", 5070, Transport::Udp),
            ),
            ("sip:cfw@b.example", host("b.example", 5060, Transport::Udp)),
            (
                "sip:cfw@b.example;transport=tls",
                host("b.example", 5061, Transport::Tls),
            ),
            (
                "sip:cfw@[::1]:5070;x;transport=tcp",
                host("::1", 5070, Transport::Tcp),
            ),
            ("sip:[::1]", host("::1", 5060, Transport::Udp)),
            ("sip:cfw@a;transport=ws", None),
            ("sip:cfw@a:99999", None),
            ("sip:cfw@", None),
            ("tel:1", None),
        ] {
            assert_eq!(Host::of(uri), expected, "{uri}");
        }
    }
}
