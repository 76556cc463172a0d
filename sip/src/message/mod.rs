//! A message as the stack reads it: lines split once, headers interpreted when they are needed.

use std::fmt;

mod address;
pub(crate) mod build;
pub(crate) mod normalise;
mod parameters;
pub(crate) mod status;
pub(crate) mod uri;
mod via;

pub(crate) use address::{Address, Party};
use parameters::parameter;
pub(crate) use via::Via;

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
    /// What is wrong with the start line although it can be answered.
    pub(crate) fault: Option<Malformed>,
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
        let (start, fault) = start(lines.next().unwrap_or_default())?;
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
            fault,
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
        Via::parse(self.header("Via").ok_or(Malformed("Missing Via"))?)
    }

    /// Where requests of the dialog are to go: the URI of the Contact.
    pub(crate) fn contact(&self) -> Result<Option<String>, Malformed> {
        self.header("Contact")
            .map(|value| address(value).ok_or(Malformed("Bad Contact")))
            .transpose()
    }

    /// Whether the Contacts are addresses, whatever the method makes of them; `*` is REGISTER's.
    pub(crate) fn check_contacts(&self) -> Result<(), Malformed> {
        let mut contacts = self.all("Contact");
        if contacts.all(|value| value == "*" || Address::parse(value).is_some()) {
            Ok(())
        } else {
            Err(Malformed("Bad Contact"))
        }
    }

    /// URIs of all Contacts, by falling q (RFC 3261 §20.10), as a redirect gives them.
    pub(crate) fn contacts(&self) -> Vec<String> {
        let mut contacts: Vec<(f32, String)> = self
            .all("Contact")
            .filter_map(|value| {
                let address = Address::parse(value)?;
                let q = parameter(address.parameters, "q").and_then(|q| q.parse().ok());
                Some((q.unwrap_or(1.0), address.uri.to_owned()))
            })
            .collect();
        contacts.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        contacts.into_iter().map(|(_, uri)| uri).collect()
    }
}

/// The start line; a request line whose parts can be told although it breaks the grammar comes with what
/// is wrong, so that it can be answered.
fn start(line: &str) -> Result<(Start<'_>, Option<Malformed>), Malformed> {
    const BAD: Malformed = Malformed("Bad start line");
    let (first, rest) = line.split_once(' ').ok_or(BAD)?;
    if names_sip(first) {
        let ends = rest.len() == 3 || rest.as_bytes().get(3) == Some(&b' ');
        let status = rest
            .get(..3)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|status| ends && (100..700).contains(status) && is_our_version(first));
        return status
            .map(|status| (Start::Response { status }, None))
            .ok_or(BAD);
    }
    let (uri, version) = rest.rsplit_once(' ').ok_or(BAD)?;
    if first.is_empty() || !names_sip(version) {
        return Err(BAD);
    }
    let start = Start::Request {
        method: first,
        uri,
        version,
    };
    let fault = (uri.is_empty() || uri.contains(char::is_whitespace))
        .then_some(Malformed("White space in or around the Request-URI"));
    Ok((start, fault))
}

/// Some version of SIP.
fn names_sip(version: &str) -> bool {
    version
        .get(..4)
        .is_some_and(|name| name.eq_ignore_ascii_case("SIP/"))
}

/// Whether a version is ours; it is compared without case (RFC 3261 §7.1).
pub(crate) fn is_our_version(version: &str) -> bool {
    version.eq_ignore_ascii_case(VERSION)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CSeq {
    pub(crate) number: u32,
    pub(crate) method: String,
}

/// The URI of an address, exactly as it was written: parameters of URIs are not ours to reorder
/// (RFC 3261 §8.1.3.4).
pub(crate) fn address(value: &str) -> Option<String> {
    Address::parse(value).map(|address| address.uri.to_owned())
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
