//! A message as the stack reads it: lines split once, headers interpreted when they are needed.

use std::fmt;

use uri::{HostPort, Uri};

pub(crate) mod build;
pub(crate) mod normalise;
pub(crate) mod status;
pub(crate) mod uri;

/// The version this stack speaks.
const VERSION: &str = "SIP/2.0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start<'a> {
    Request {
        method: &'a str,
        uri: &'a str,
        version: &'a str,
    },
    Response {
        status: u16,
    },
}

/// A normalised message (see [`normalise`]); borrows from it.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) start: Start<'a>,
    headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
}

/// What the peer got wrong, in words for a reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'a> Message<'a> {
    pub(crate) fn parse(normal: &'a [u8]) -> Result<Self, Malformed> {
        let end = normal
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .ok_or(Malformed("No end of headers"))?;
        let head =
            str::from_utf8(&normal[..end]).map_err(|_| Malformed("Headers are not UTF-8"))?;
        let mut lines = head.split("\r\n");
        let start = start(lines.next().unwrap_or_default())?;
        let headers = lines
            .map(|line| {
                line.split_once(':')
                    .map(|(name, value)| (name.trim(), value.trim()))
            })
            .collect::<Option<_>>()
            .ok_or(Malformed("Header without a colon"))?;
        Ok(Self {
            start,
            headers,
            body: &normal[end + 4..],
        })
    }

    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    pub(crate) fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a str> + 'b {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.headers.iter().copied()
    }

    /// The words of all headers of this name, which hold comma-separated lists.
    pub(crate) fn words<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a str> + 'b {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
    }

    fn required(&self, name: &str, complaint: &'static str) -> Result<&'a str, Malformed> {
        let mut values = self.all(name);
        let value = values.next().ok_or(Malformed(complaint))?;
        if values.next().is_some() {
            Err(Malformed("Header occurs more than once"))
        } else {
            Ok(value)
        }
    }

    pub(crate) fn call_id(&self) -> Result<&'a str, Malformed> {
        self.required("Call-ID", "Missing Call-ID").and_then(|id| {
            if id.is_empty() {
                Err(Malformed("Empty Call-ID"))
            } else {
                Ok(id)
            }
        })
    }

    pub(crate) fn from(&self) -> Result<Party, Malformed> {
        Party::new(self.required("From", "Missing From")?).ok_or(Malformed("Bad From"))
    }

    pub(crate) fn to(&self) -> Result<Party, Malformed> {
        Party::new(self.required("To", "Missing To")?).ok_or(Malformed("Bad To"))
    }

    pub(crate) fn cseq(&self) -> Result<CSeq, Malformed> {
        let value = self.required("CSeq", "Missing CSeq")?;
        let (number, method) = value
            .split_once(char::is_whitespace)
            .ok_or(Malformed("Bad CSeq"))?;
        let number = number
            .parse()
            .ok()
            .filter(|&number| number < 1 << 31)
            .ok_or(Malformed("Bad CSeq"))?;
        Ok(CSeq {
            number,
            method: method.trim().to_owned(),
        })
    }

    /// The topmost Via.
    pub(crate) fn via(&self) -> Result<Via, Malformed> {
        let value = self.header("Via").ok_or(Malformed("Missing Via"))?;
        Via::parse(value).ok_or(Malformed("Bad Via"))
    }

    /// Where requests of the dialog are to go: the URI of the Contact.
    pub(crate) fn contact(&self) -> Result<Option<String>, Malformed> {
        self.header("Contact")
            .map(|value| address(value).ok_or(Malformed("Bad Contact")))
            .transpose()
    }

    /// URIs of all Contacts, by falling q (RFC 3261 §20.10), as a redirect gives them.
    pub(crate) fn contacts(&self) -> Vec<String> {
        let mut contacts: Vec<(f32, String)> = self
            .all("Contact")
            .filter_map(|value| {
                let Address {
                    uri, parameters, ..
                } = split_address(value)?;
                Uri::parse(uri)?;
                let q = parameter(parameters, "q").and_then(|q| q.parse().ok());
                Some((q.unwrap_or(1.0), uri.to_owned()))
            })
            .collect();
        contacts.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        contacts.into_iter().map(|(_, uri)| uri).collect()
    }
}

/// The parameters behind an address or a hop, by name and value; flags have an empty value.
fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, _)| !name.is_empty())
}

/// The first parameter of this name.
fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    parameters(text)
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn start(line: &str) -> Result<Start<'_>, Malformed> {
    let mut words = line.split(' ');
    let (first, second, third) = (words.next().unwrap_or_default(), words.next(), words.next());
    if first.starts_with("SIP/") {
        let status = second
            .and_then(|status| status.parse().ok())
            .filter(|status| (100..700).contains(status));
        return status
            .map(|status| Start::Response { status })
            .ok_or(Malformed("Bad status line"));
    }
    match (first, second, third, words.next()) {
        (method, Some(uri), Some(version), None) if !method.is_empty() && !uri.is_empty() => {
            Ok(Start::Request {
                method,
                uri,
                version,
            })
        }
        _ => Err(Malformed("Bad request line")),
    }
}

/// Whether a version is ours; it is compared without case (RFC 3261 §7.1).
pub(crate) fn is_our_version(version: &str) -> bool {
    version.eq_ignore_ascii_case(VERSION)
}

/// One end of a dialog as From or To names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    /// The whole header value.
    pub(crate) value: String,
    pub(crate) uri: String,
    pub(crate) display_name: Option<String>,
    pub(crate) tag: Option<String>,
}

impl Party {
    fn new(value: &str) -> Option<Self> {
        let Address {
            name,
            uri,
            parameters,
            is_bracketed: _,
        } = split_address(value)?;
        Uri::parse(uri)?;
        let tag = parameter(parameters, "tag").filter(|tag| !tag.is_empty());
        let name = name.trim().trim_matches('"');
        Some(Self {
            value: value.to_owned(),
            uri: uri.to_owned(),
            display_name: (!name.is_empty()).then(|| name.to_owned()),
            tag: tag.map(str::to_owned),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CSeq {
    pub(crate) number: u32,
    pub(crate) method: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    /// Host and port as written.
    pub(crate) sent_by: String,
    pub(crate) port: Option<u16>,
    pub(crate) branch: Option<String>,
    pub(crate) asks_for_rport: bool,
}

impl Via {
    /// The branch names its transaction, and does so alone (RFC 3261 §8.1.1.7).
    pub(crate) fn is_rfc_3261(&self) -> bool {
        self.branch
            .as_deref()
            .is_some_and(|branch| branch.starts_with("z9hG4bK"))
    }

    /// `SIP/2.0/transport sent-by;parameters` (RFC 3261 §20.42), in normal form.
    fn parse(value: &str) -> Option<Self> {
        let (protocol, rest) = value.split_once(' ')?;
        let (sent_by, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        let mut parts = protocol.split('/');
        let parts = (parts.next()?, parts.next()?, parts.next()?, parts.next());
        if parts.0.is_empty() || parts.1.is_empty() || parts.2.is_empty() || parts.3.is_some() {
            return None;
        }
        let port = HostPort::parse(sent_by)?.port;
        Some(Self {
            sent_by: sent_by.to_owned(),
            port,
            branch: parameter(parameters, "branch").map(str::to_owned),
            asks_for_rport: parameter(parameters, "rport").is_some(),
        })
    }
}

/// A name-addr or addr-spec with the parameters of its header (RFC 3261 §20.10).
pub(crate) struct Address<'a> {
    /// As written, quotes and all.
    name: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) parameters: &'a str,
    pub(crate) is_bracketed: bool,
}

pub(crate) fn split_address(value: &str) -> Option<Address<'_>> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => {
                let (uri, parameters) = value[at + 1..].split_once('>')?;
                let address = Address {
                    name: &value[..at],
                    uri: uri.trim(),
                    parameters,
                    is_bracketed: true,
                };
                return (!address.uri.is_empty()).then_some(address);
            }
            _ => {}
        }
    }
    // Without brackets, parameters belong to the header.
    let (uri, parameters) = value.split_once(';').unwrap_or((value, ""));
    (!uri.trim().is_empty() && !value.contains('"')).then_some(Address {
        name: "",
        uri: uri.trim(),
        parameters,
        is_bracketed: false,
    })
}

/// The URI of an address, exactly as it was written: parameters of URIs are not ours to reorder
/// (RFC 3261 §8.1.3.4).
pub(crate) fn address(value: &str) -> Option<String> {
    split_address(value).map(|address| address.uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:lobby@h SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bKa;rport\r\nMax-Forwards: 70\r\n\
        From: \"A;tag=no\" <sip:a@b;x=1>;tag=yes\r\nTo: sip:lobby@h\r\nCall-ID: i\r\nCSeq: 1 INVITE\r\n\
        Contact: <sip:a@10.0.0.1:5062;ob>;q=0.5\r\nSupported: timer, replaces\r\n\r\nbody";

    #[test]
    fn headers_are_read_as_they_are_meant() {
        let message = Message::parse(INVITE.as_bytes()).unwrap();
        assert_eq!(
            message.start,
            Start::Request {
                method: "INVITE",
                uri: "sip:lobby@h",
                version: "SIP/2.0"
            }
        );
        let from = message.from().unwrap();
        assert_eq!(
            (from.uri.as_str(), from.tag.as_deref()),
            ("sip:a@b;x=1", Some("yes"))
        );
        assert_eq!(from.display_name.as_deref(), Some("A;tag=no"));
        assert_eq!(message.to().unwrap().tag, None);
        let via = message.via().unwrap();
        assert_eq!(
            (via.sent_by.as_str(), via.port, via.asks_for_rport),
            ("10.0.0.1:5062", Some(5062), true)
        );
        assert_eq!(via.branch.as_deref(), Some("z9hG4bKa"));
        assert_eq!(
            message.contact().unwrap().as_deref(),
            Some("sip:a@10.0.0.1:5062;ob")
        );
        assert!(message.words("supported").eq(["timer", "replaces"]));
        assert_eq!(message.body, b"body");
    }

    #[test]
    fn redirect_targets_are_ordered_by_q() {
        let text = "SIP/2.0 302 Moved\r\nContact: <sip:a@h;crt-hop=1>;q=0.2\r\nContact: <sip:b@h>;q=0.9\r\nContact: sip:c@h\r\n\r\n";
        let message = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(
            message.contacts(),
            ["sip:c@h", "sip:b@h", "sip:a@h;crt-hop=1"]
        );
    }

    #[test]
    fn what_is_missing_or_twice_is_malformed() {
        for text in [
            "",
            "\r\n\r\n",
            "INVITE\r\n\r\n",
            "SIP/2.0 99 X\r\n\r\n",
            "SIP/2.0 abc\r\n\r\n",
            "INVITE sip:a@b SIP/2.0\r\nno colon\r\n\r\n",
        ] {
            assert!(Message::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        let twice = Message::parse(b"INVITE sip:a@b SIP/2.0\r\nCall-ID: a\r\nCall-ID: b\r\nCSeq: 36893488147419103232 INVITE\r\n\r\n").unwrap();
        assert!(
            twice.call_id().is_err()
                && twice.cseq().is_err()
                && twice.from().is_err()
                && twice.via().is_err()
        );
    }
}
