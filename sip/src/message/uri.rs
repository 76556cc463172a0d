//! URIs as the stack needs them: which scheme, and of SIP's own the host and port.

use std::net::{IpAddr, Ipv6Addr};

/// A URI in an address or a request line; borrows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uri<'a> {
    /// `sip:` or `sips:` (RFC 3261 §19.1.1). Host and port, brackets and all.
    Sip(HostPort<'a>),
    /// Any other scheme, such as `tel:`: an absolute URI may name a party (RFC 3261 §20.20, §20.39).
    Other,
}

impl<'a> Uri<'a> {
    /// None of what is no URI, or a SIP URI without a host.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let is_printed = |c: char| !c.is_whitespace() && !c.is_control();
        if !text.chars().all(is_printed)
            || text.contains(['<', '>', '"'])
            || !escapes_are_whole(text)
        {
            return None;
        }
        let (scheme, rest) = text.split_once(':')?;
        if rest.is_empty() || !is_scheme(scheme) {
            return None;
        }
        if !["sip", "sips"]
            .map(|known| scheme.eq_ignore_ascii_case(known))
            .contains(&true)
        {
            return Some(Self::Other);
        }
        // A user part may hold what ends a host, and nothing behind it may hold an "@".
        let host_on = match rest.split_once('@') {
            Some(("", _)) => return None,
            Some((_, host_on)) if host_on.contains('@') => return None,
            Some((_, host_on)) => host_on,
            None => rest,
        };
        let end = host_on.find([';', '?']).unwrap_or(host_on.len());
        HostPort::parse(&host_on[..end]).map(Self::Sip)
    }
}

/// Whether a SIP URI brings headers along, as a Request-URI must not (RFC 3261 §19.1.1, table 1).
pub(crate) fn has_headers(uri: &str) -> bool {
    // A user part may hold a question mark of its own.
    uri.split_once('@')
        .map_or(uri, |(_, host_on)| host_on)
        .contains('?')
}

/// Every `%` stands before two digits.
fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|behind| {
        let digits = behind.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
}

/// `host [":" port]` (RFC 3261 §25.1), where a host is a name, an IPv4 address or an IPv6 address in
/// brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPort<'a> {
    /// As written, an IPv6 address in its brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

impl<'a> HostPort<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let end = match text.strip_prefix('[') {
            Some(address) => {
                let len = address.find(']')?;
                address[..len].parse::<Ipv6Addr>().ok()?;
                len + 2
            }
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(end);
        let is_name = |host: &str| {
            // Underscores are in no host name by the standard, and in many all the same.
            !host.is_empty()
                && host
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c))
        };
        if !host.starts_with('[') && !is_name(host) {
            return None;
        }
        let port = match rest.strip_prefix(':') {
            // `parse` alone would take a sign.
            Some(port) if port.bytes().all(|c| c.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self { host, port })
    }

    /// The address that stands for the host, if it is no name.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_behind_whatever_stands_around_them() {
        for (uri, host, port) in [
            ("sip:lobby@192.0.2.1:5070", "192.0.2.1", Some(5070)),
            ("SIPS:example.com", "example.com", None),
            ("sip:[::1]", "[::1]", None),
            (
                "sip:a@[2001:db8::10]:5080;transport=tcp",
                "[2001:db8::10]",
                Some(5080),
            ),
            (
                "sip:a@[::ffff:192.0.2.2]?Subject=x",
                "[::ffff:192.0.2.2]",
                None,
            ),
            ("sip:a;b=c?d/e:secret@h;lr", "h", None),
            ("sip:a_b@under_score.local:0", "under_score.local", Some(0)),
        ] {
            assert_eq!(
                Uri::parse(uri),
                Some(Uri::Sip(HostPort { host, port })),
                "{uri}"
            );
        }
        for uri in [
            "tel:+4930123456",
            "mailto:a@b",
            "urn:service:sos",
            "nobodyKnowsThisScheme:opaque",
        ] {
            assert_eq!(Uri::parse(uri), Some(Uri::Other), "{uri}");
        }
    }

    #[test]
    fn what_names_no_host_is_no_sip_uri() {
        for uri in [
            "",
            "sip",
            "sip:",
            ":a@b",
            "5ip:a@b",
            "sip:@h",
            "sip:a@",
            "sip:a@:5060",
            "sip:a@h:",
            "sip:a@h:+1",
            "sip:a@h:65536",
            "sip:a@h:5060x",
            "sip:a@[::1",
            "sip:a@[]",
            "sip:a@[10.0.0.1]",
            "sip:a@[::1]5060",
            "sip:a@[fe80::1%25eth0]",
            "sip:a@::1",
            "sip:a b@h",
            "<sip:a@h>",
            "sip:a@h;x=\"",
            "sip:a@h\u{7f}",
            "sip:a@höst",
            "sip:%zz@h",
            "sip:a@h;x=%4",
            "sip:a@b@c",
        ] {
            assert_eq!(Uri::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn headers_are_told_from_users() {
        assert!(has_headers("sip:a@h;lr?To=x") && has_headers("sip:h?To=x"));
        assert!(!has_headers("sip:a?b@h;lr") && !has_headers("sip:h"));
    }

    #[test]
    fn addresses_are_told_from_names() {
        for (text, ip) in [
            ("[::1]:5060", Some("::1")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("example.com:5060", None),
            ("300.1.1.1", None),
        ] {
            let expected = ip.map(|ip| ip.parse().unwrap());
            assert_eq!(HostPort::parse(text).unwrap().ip(), expected, "{text}");
        }
    }
}
