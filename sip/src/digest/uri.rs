//! Whether the URI in credentials is the one that was asked for (RFC 7616 §3.4.6).

use std::net::Ipv6Addr;

/// Exactly equal texts, or SIP URIs with equal scheme, user, password, host and port.
///
/// Looser than RFC 3261 §19.1.4 where phones are: parameters and headers of the URI do not matter,
/// since phones add `transport` to one of the two only, and a missing port is the scheme's default.
/// Stricter nowhere: scheme and host are compared without case, users with theirs, escapes as what
/// they stand for. Both texts are hashed as written, so leniency lets nobody sign anything new.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    a == b || matches!((Place::of(a), Place::of(b)), (Some(a), Some(b)) if a == b)
}

/// What of a SIP URI says where it leads.
#[derive(PartialEq, Eq)]
struct Place {
    is_secure: bool,
    /// User and password without escapes.
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// In lower case.
    host: String,
    port: u16,
}

impl Place {
    /// None for another scheme, and for what cannot be taken apart.
    fn of(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        let is_secure = scheme.eq_ignore_ascii_case("sips");
        if !is_secure && !scheme.eq_ignore_ascii_case("sip") {
            return None;
        }
        // Users may hold ';' and '?', but no '@' stands unescaped anywhere else.
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let user = user.map(|user| match user.split_once(':') {
            Some((user, password)) => (unescaped(user), Some(unescaped(password))),
            None => (unescaped(user), None),
        });
        let end = rest.find([';', '?']).unwrap_or(rest.len());
        let (host, port) = host_and_port(&rest[..end])?;
        let port = match port {
            Some(port) => port.parse().ok()?,
            None if is_secure => 5061,
            None => 5060,
        };
        Some(Self {
            is_secure,
            user,
            host,
            port,
        })
    }
}

/// Host in its canonical form, and port as written.
fn host_and_port(text: &str) -> Option<(String, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        return Some((host.parse::<Ipv6Addr>().ok()?.to_string(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_name = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    let is_host = !host.is_empty() && host.bytes().all(is_name);
    is_host.then(|| (host.to_ascii_lowercase(), port))
}

/// Escapes that are none stay as they are.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |octet: Option<&u8>| octet.and_then(|&octet| char::from(octet).to_digit(16));
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, digit(tail.first()), digit(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                octets.push((high << 4 | low) as u8);
                rest = &tail[2..];
            }
            _ => {
                octets.push(first);
                rest = tail;
            }
        }
    }
    octets
}
