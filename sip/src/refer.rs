//! What a REFER asks for: Refer-To (RFC 3515), and the dialogs that Replaces (RFC 3891) and Join
//! (RFC 3911) name.

use std::fmt;

use crate::message::Address;
use crate::scan::unescape;

/// Longest header value read.
pub const VALUE_LEN_MAX: usize = 4 * 1024;

/// Most headers that a URI may carry.
pub const HEADERS_MAX: usize = 16;

/// A request that somebody is asked to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferTo {
    /// Where the request is to go: without headers and without the parameter `method`, otherwise
    /// as written. Of a scheme other than sip and sips, everything.
    pub uri: String,
    pub method: Method,
    /// Headers that the request is to have, unescaped, names as written. Values hold no control
    /// characters. The pseudo header `body` is not among them (RFC 3261 §19.1.5).
    pub headers: Vec<(String, String)>,
}

/// Method of the request; INVITE where none is named (RFC 3515 §2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Invite,
    Bye,
    Other(String),
}

/// A dialog, as the one who reads the header knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialogId {
    pub call_id: String,
    /// The reader's own tag.
    pub to_tag: String,
    /// The tag of the reader's peer; `0` where the peer has none (RFC 3891 §6.1).
    pub from_tag: String,
    /// Only a dialog that is not confirmed is meant. Always false for Join.
    pub early_only: bool,
}

/// Why a header value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferError {
    /// More than [`VALUE_LEN_MAX`] octets.
    TooLong,
    /// Neither a URI nor a name with a URI in angle brackets.
    Address,
    /// No scheme, no host, or characters that may not stand in a URI.
    Uri,
    /// The method is no token.
    Method,
    /// A header of the URI is no `name=value`, or its escapes are none.
    Header,
    /// More than [`HEADERS_MAX`] headers.
    TooManyHeaders,
    /// A header's value holds a line end or another control character.
    ControlCharacter,
    /// No Call-ID, or one with white space or a comma.
    CallId,
    /// A tag is missing, there twice, or no token.
    Tag,
}

impl fmt::Display for ReferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::Address => "no address",
            Self::Uri => "no URI",
            Self::Method => "bad method",
            Self::Header => "bad header in the URI",
            Self::TooManyHeaders => "too many headers in the URI",
            Self::ControlCharacter => "control character in a header of the URI",
            Self::CallId => "bad Call-ID",
            Self::Tag => "tag missing, there twice or malformed",
        })
    }
}

impl std::error::Error for ReferError {}

impl ReferTo {
    /// Reads the value of a Refer-To. Where a URI with parameters should have been bracketed and
    /// is not, `method` counts all the same: nobody means a header parameter by it, and an INVITE
    /// in place of a BYE would be the opposite of what was asked.
    ///
    /// # Errors
    /// The value cannot be read, or is unsafe to act on.
    pub fn parse(value: &str) -> Result<Self, ReferError> {
        if value.len() > VALUE_LEN_MAX {
            return Err(ReferError::TooLong);
        }
        let address = Address::split(value).ok_or(ReferError::Address)?;
        let is_unsafe = |c: char| c.is_control() || c.is_whitespace() || "<>\"".contains(c);
        if address.uri.contains(is_unsafe) {
            return Err(ReferError::Uri);
        }
        let (scheme, rest) = address.uri.split_once(':').ok_or(ReferError::Uri)?;
        if !is_token(scheme) || rest.is_empty() {
            return Err(ReferError::Uri);
        }
        if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return Ok(Self {
                uri: address.uri.to_owned(),
                method: Method::default(),
                headers: Vec::new(),
            });
        }
        // A user may hold `;` and `?`, so what follows the first `@` is looked at by itself.
        let host_at = rest.find('@').map_or(0, |at| at + 1);
        let (user, rest) = rest.split_at(host_at);
        let (rest, headers) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parameters = rest.split(';');
        let host = parameters.next().unwrap_or_default();
        if host.is_empty() {
            return Err(ReferError::Uri);
        }
        let mut uri = format!("{scheme}:{user}{host}");
        let mut method = Method::default();
        for parameter in parameters {
            match method_of(parameter) {
                Some(named) => method = Method::parse(named)?,
                None => uri.extend([";", parameter]),
            }
        }
        if !address.is_bracketed {
            let mut named = address.parameters.split(';').filter_map(method_of);
            method = named.next().map_or(Ok(method), Method::parse)?;
        }
        Ok(Self {
            uri,
            method,
            headers: read_headers(headers)?,
        })
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// The value of the parameter, where it is the method.
fn method_of(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    name.trim()
        .eq_ignore_ascii_case("method")
        .then(|| value.trim())
}

impl Method {
    fn parse(text: &str) -> Result<Self, ReferError> {
        match text {
            "INVITE" => Ok(Self::Invite),
            "BYE" => Ok(Self::Bye),
            other if is_token(other) => Ok(Self::Other(other.to_owned())),
            _ => Err(ReferError::Method),
        }
    }

    /// As it stands in a request line.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Bye => "BYE",
            Self::Other(name) => name,
        }
    }
}

fn read_headers(text: &str) -> Result<Vec<(String, String)>, ReferError> {
    let mut headers = Vec::new();
    for header in text.split('&').filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once('=').ok_or(ReferError::Header)?;
        let name = unescape(name).ok_or(ReferError::Header)?;
        if !is_token(&name) {
            return Err(ReferError::Header);
        }
        // A body may have line ends and is none of our business.
        if name.eq_ignore_ascii_case("body") {
            continue;
        }
        let value = unescape(value).ok_or(ReferError::Header)?;
        if value.contains(char::is_control) {
            return Err(ReferError::ControlCharacter);
        }
        if headers.len() == HEADERS_MAX {
            return Err(ReferError::TooManyHeaders);
        }
        headers.push((name.into_owned(), value.trim().to_owned()));
    }
    Ok(headers)
}

impl DialogId {
    /// Reads the value of a Replaces.
    ///
    /// # Errors
    /// The value cannot be read.
    pub fn replaces(value: &str) -> Result<Self, ReferError> {
        Self::parse(value, true)
    }

    /// Reads the value of a Join.
    ///
    /// # Errors
    /// The value cannot be read.
    pub fn join(value: &str) -> Result<Self, ReferError> {
        Self::parse(value, false)
    }

    fn parse(value: &str, is_replaces: bool) -> Result<Self, ReferError> {
        if value.len() > VALUE_LEN_MAX {
            return Err(ReferError::TooLong);
        }
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().unwrap_or_default();
        let is_unsafe = |c: char| c.is_control() || c.is_whitespace() || c == ',';
        if call_id.is_empty() || call_id.contains(is_unsafe) {
            return Err(ReferError::CallId);
        }
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (name.trim_end(), value.trim_start());
            let tag = match name {
                _ if name.eq_ignore_ascii_case("to-tag") => &mut to_tag,
                _ if name.eq_ignore_ascii_case("from-tag") => &mut from_tag,
                _ => {
                    early_only |= is_replaces && part.eq_ignore_ascii_case("early-only");
                    continue;
                }
            };
            if tag.is_some() || !is_token(value) {
                return Err(ReferError::Tag);
            }
            *tag = Some(value.to_owned());
        }
        Ok(Self {
            call_id: call_id.to_owned(),
            to_tag: to_tag.ok_or(ReferError::Tag)?,
            from_tag: from_tag.ok_or(ReferError::Tag)?,
            early_only,
        })
    }
}

/// RFC 3261 §25.1.
fn is_token(text: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&c);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refer(uri: &str, method: Method, headers: &[(&str, &str)]) -> ReferTo {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        ReferTo {
            uri: uri.to_owned(),
            method,
            headers: headers.iter().map(own).collect(),
        }
    }

    #[test]
    fn targets_as_phones_write_them() {
        let many: String = (0..HEADERS_MAX).map(|n| format!("&a{n}=")).collect();
        for (value, expected) in [
            ("sip:bob@h", refer("sip:bob@h", Method::Invite, &[])),
            ("<sip:h>", refer("sip:h", Method::Invite, &[])),
            (
                "\"Bob; <x>\" <sips:bob@h:5061;transport=tcp;method=BYE;lr>;x=1",
                refer("sips:bob@h:5061;transport=tcp;lr", Method::Bye, &[]),
            ),
            (
                // RFC 3515 §2.1.
                "<sip:carol@cleveland.example.org;method=SUBSCRIBE>",
                refer(
                    "sip:carol@cleveland.example.org",
                    Method::Other("SUBSCRIBE".to_owned()),
                    &[],
                ),
            ),
            (
                "<sip:dave@denver.example.org?Replaces=12345%40192.168.118.3%3B\
                 to-tag%3D12345%3Bfrom-tag%3D5FFE-3994>",
                refer(
                    "sip:dave@denver.example.org",
                    Method::Invite,
                    &[(
                        "Replaces",
                        "12345@192.168.118.3;to-tag=12345;from-tag=5FFE-3994",
                    )],
                ),
            ),
            (
                "<sip:a;b?c@h;METHOD=INVITE?Subject=a%20b&&priority=&Replaces=x@y%3bto-tag=1>",
                refer(
                    "sip:a;b?c@h",
                    Method::Invite,
                    &[
                        ("Subject", "a b"),
                        ("priority", ""),
                        ("Replaces", "x@y;to-tag=1"),
                    ],
                ),
            ),
            (
                "<sip:a@h?body=v%3D0%0D%0A&X=1>",
                refer("sip:a@h", Method::Invite, &[("X", "1")]),
            ),
            // Not bracketed, as it should be.
            ("sip:a@h;method=BYE", refer("sip:a@h", Method::Bye, &[])),
            (
                "sip:a@h?X=1",
                refer("sip:a@h", Method::Invite, &[("X", "1")]),
            ),
            (
                "<sip:a@h>;method=BYE",
                refer("sip:a@h", Method::Invite, &[]),
            ),
            (
                "<tel:+49301234;method=BYE>",
                refer("tel:+49301234;method=BYE", Method::Invite, &[]),
            ),
        ] {
            assert_eq!(ReferTo::parse(value), Ok(expected), "{value}");
        }
        let many = ReferTo::parse(&format!("<sip:h?{many}>")).unwrap();
        assert_eq!(many.headers.len(), HEADERS_MAX);
        let named = ReferTo::parse("<sip:h?a=1&REPLACES=2&replaces=3>").unwrap();
        assert_eq!(named.header("Replaces"), Some("2"));
        assert_eq!(named.header("Join"), None);
    }

    #[test]
    fn targets_that_cannot_be_read() {
        let long = format!("<sip:{}@h>", "a".repeat(VALUE_LEN_MAX));
        let many: String = (0..=HEADERS_MAX).map(|n| format!("&a{n}=")).collect();
        let many = format!("<sip:h?{many}>");
        for (value, error) in [
            (long.as_str(), ReferError::TooLong),
            ("", ReferError::Address),
            ("<>", ReferError::Address),
            ("\"Bob\" <sip:a@h", ReferError::Address),
            ("bob", ReferError::Uri),
            ("<:a@h>", ReferError::Uri),
            ("<sip:>", ReferError::Uri),
            ("<sip:a@>", ReferError::Uri),
            ("<sip:a@;lr>", ReferError::Uri),
            ("<sip:a b@h>", ReferError::Uri),
            ("<sip:a@h\r\nX: 1>", ReferError::Uri),
            ("<sip:a@h;method=>", ReferError::Method),
            ("<sip:a@h;method=B/E>", ReferError::Method),
            ("sip:a@h;method=B E", ReferError::Method),
            ("<sip:a@h?X>", ReferError::Header),
            ("<sip:a@h?X=%4>", ReferError::Header),
            ("<sip:a@h?X=%zz>", ReferError::Header),
            ("<sip:a@h?X=%ff>", ReferError::Header),
            ("<sip:a@h?=1>", ReferError::Header),
            ("<sip:a@h?X%3A=1>", ReferError::Header),
            ("<sip:a@h?X=1%0D%0AVia=2>", ReferError::ControlCharacter),
            ("<sip:a@h?X=%00>", ReferError::ControlCharacter),
            (many.as_str(), ReferError::TooManyHeaders),
        ] {
            assert_eq!(ReferTo::parse(value), Err(error), "{value}");
        }
    }

    #[test]
    fn dialogs() {
        let dialog = |call_id: &str, to_tag: &str, from_tag: &str, early_only| DialogId {
            call_id: call_id.to_owned(),
            to_tag: to_tag.to_owned(),
            from_tag: from_tag.to_owned(),
            early_only,
        };
        let long = "a".repeat(VALUE_LEN_MAX + 1);
        for (value, expected) in [
            (
                // RFC 3891 §6.1.
                "98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff",
                Ok(dialog(
                    "98732@sip.example.com",
                    "ff87ff",
                    "r33th4x0r",
                    false,
                )),
            ),
            (
                "12adf2f34456gs5 ;\tTO-tag = 12345; from-tag=54321 ;early-only;x=1;y",
                Ok(dialog("12adf2f34456gs5", "12345", "54321", true)),
            ),
            ("a;to-tag=1;from-tag=0", Ok(dialog("a", "1", "0", false))),
            ("a;to-tag=1", Err(ReferError::Tag)),
            ("a;from-tag=1", Err(ReferError::Tag)),
            ("a;to-tag;from-tag=1", Err(ReferError::Tag)),
            ("a;to-tag=;from-tag=1", Err(ReferError::Tag)),
            ("a;to-tag=1;from-tag=2;to-tag=1", Err(ReferError::Tag)),
            ("a;to-tag=1 2;from-tag=1", Err(ReferError::Tag)),
            ("a;to-tag=1;from-tag=2, b;to-tag=1", Err(ReferError::Tag)),
            ("", Err(ReferError::CallId)),
            (";to-tag=1;from-tag=2", Err(ReferError::CallId)),
            ("a b;to-tag=1;from-tag=2", Err(ReferError::CallId)),
            ("a,b;to-tag=1;from-tag=2", Err(ReferError::CallId)),
            ("a\0;to-tag=1;from-tag=2", Err(ReferError::CallId)),
            (long.as_str(), Err(ReferError::TooLong)),
        ] {
            assert_eq!(DialogId::replaces(value), expected, "{value}");
            // Join is the same without early-only.
            let joined = expected.map(|dialog| DialogId {
                early_only: false,
                ..dialog
            });
            assert_eq!(DialogId::join(value), joined, "{value}");
        }
    }
}
