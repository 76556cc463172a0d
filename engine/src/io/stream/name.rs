//! Whose certificate a connection that we make must show.

use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::ServerName;
use sip::scan::{Start, headers, scan};

/// The host that `message` is addressed to (RFC 5922 §7.1): of a request the topmost Route or else the
/// Request-URI. An address where it names none, and for responses.
pub(super) fn expected(message: &[u8], peer: SocketAddr) -> ServerName<'static> {
    let uri = headers(message, "Route", None)
        .next()
        .or_else(|| match scan(message).ok()?.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        });
    uri.and_then(host)
        // An address in the URI is the one we connect to, unless something on the way translates.
        .filter(|host| host.parse::<IpAddr>().is_err())
        .and_then(|host| ServerName::try_from(host.to_owned()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(peer.ip().to_canonical().into()))
}

/// The host of the first URI in a Route header or request line.
fn host(uri: &[u8]) -> Option<&str> {
    let uri = str::from_utf8(uri).ok()?;
    // A display name may stand before the brackets.
    let uri = uri.split_once('<').map_or(uri, |(_, uri)| uri);
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    let rest = rest.split(['>', ',', '?', ' ']).next()?;
    let authority = rest.split_once('@').map_or(rest, |(_, host)| host);
    authority.split([':', ';']).next()
}

#[cfg(test)]
mod tests {
    use super::expected;

    #[test]
    fn certificates_are_for_the_host_that_is_addressed() {
        let peer = "192.0.2.7:5061".parse().unwrap();
        let address = "192.0.2.7";
        for (start, route, host) in [
            (
                "INVITE sip:a@example.org;transport=tls SIP/2.0",
                "",
                "example.org",
            ),
            ("BYE sips:example.org:5061 SIP/2.0", "", "example.org"),
            ("BYE sip:a@192.0.2.9 SIP/2.0", "", address),
            ("BYE sip:a@[2001:db8::1]:5061 SIP/2.0", "", address),
            ("BYE tel:+1 SIP/2.0", "", address),
            ("SIP/2.0 200 OK", "", address),
            ("nonsense", "", address),
            (
                "BYE sip:a@example.org SIP/2.0",
                "Route: \"edge\" <sip:edge.example.net;lr>, <sip:b.example.org>\r\n",
                "edge.example.net",
            ),
        ] {
            let message = format!("{start}\r\nCall-ID: 1\r\n{route}\r\n");
            let name = expected(message.as_bytes(), peer);
            assert_eq!(name.to_str(), host, "{start}");
        }
    }
}
