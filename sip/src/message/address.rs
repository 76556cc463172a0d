//! Addresses with their names and parameters, as From, To and Contact hold them (RFC 3261 §20.10).

use super::parameters::{is_token, parameter};
use super::uri::Uri;

/// One end of a dialog as From or To names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    /// The whole header value.
    pub(crate) value: String,
    pub(crate) uri: String,
    /// For people: without quotes and control characters.
    pub(crate) display_name: Option<String>,
    pub(crate) tag: Option<String>,
}

impl Party {
    pub(crate) fn new(value: &str) -> Option<Self> {
        let address = Address::parse(value)?;
        let tag = parameter(address.parameters, "tag").filter(|tag| !tag.is_empty());
        if tag.is_some_and(|tag| !is_token(tag)) {
            return None;
        }
        let mut name = address.name.trim_matches('"').to_owned();
        name.retain(|c| !c.is_control());
        Some(Self {
            value: value.to_owned(),
            uri: address.uri.to_owned(),
            display_name: (!name.is_empty()).then_some(name),
            tag: tag.map(str::to_owned),
        })
    }
}

/// A name-addr or addr-spec with the parameters of its header; parts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// With its quotes.
    pub(crate) name: &'a str,
    pub(crate) uri: &'a str,
    /// What follows the first semicolon behind the address.
    pub(crate) parameters: &'a str,
    pub(crate) is_bracketed: bool,
}

impl<'a> Address<'a> {
    /// Takes one value in normal form apart; None: it has no URI, or what follows it is no parameter.
    pub(crate) fn split(value: &'a str) -> Option<Self> {
        let address = match bracket(value) {
            Some(open) => {
                let (uri, rest) = value[open + 1..].split_once('>')?;
                let rest = rest.trim_start();
                Self {
                    name: value[..open].trim_end(),
                    uri,
                    parameters: match rest.strip_prefix(';') {
                        Some(parameters) => parameters,
                        None if rest.is_empty() => "",
                        None => return None,
                    },
                    is_bracketed: true,
                }
            }
            // Without brackets, parameters belong to the header.
            None => {
                let (uri, parameters) = value.split_once(';').unwrap_or((value, ""));
                Self {
                    name: "",
                    uri: uri.trim_end(),
                    parameters,
                    is_bracketed: false,
                }
            }
        };
        (!address.uri.is_empty() && is_name(address.name)).then_some(address)
    }

    /// Takes a value apart and judges it; None: it breaks the grammar where that would be misread.
    pub(crate) fn parse(value: &'a str) -> Option<Self> {
        let address = Self::split(value)?;
        Uri::parse(address.uri)?;
        // Without brackets, a question mark or a comma is nobody's.
        (address.is_bracketed || !address.uri.contains(['?', ','])).then_some(address)
    }
}

/// Where the URI's bracket opens, outside quotes.
fn bracket(value: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    value.bytes().position(|octet| {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => return octet == b'<' && !quoted,
        }
        false
    })
}

/// One quoted string, or words without what separates addresses and their parts. Other separators are
/// let through, since phones write names like `Ann (desk)` bare.
fn is_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('"') else {
        return !name.contains(['"', ',', ';', ':', '@', '?', '=', '>']);
    };
    let mut escaped = false;
    let end = rest.bytes().position(|octet| {
        let ends = octet == b'"' && !escaped;
        escaped = octet == b'\\' && !escaped;
        ends
    });
    end.is_some_and(|end| end + 1 == rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_meant() {
        for (value, name, uri, parameters) in [
            ("sip:a@h", "", "sip:a@h", ""),
            ("sip:a@h;tag=1;x", "", "sip:a@h", "tag=1;x"),
            ("<sip:a@h;lr?x=y>;tag=1", "", "sip:a@h;lr?x=y", "tag=1"),
            ("Ann Lee (desk) <sip:a@h>", "Ann Lee (desk)", "sip:a@h", ""),
            ("Ann<sip:a@h>;tag=1", "Ann", "sip:a@h", "tag=1"),
            (
                "\"<sip:no@h>, \\\"\" <sip:a@h>",
                "\"<sip:no@h>, \\\"\"",
                "sip:a@h",
                "",
            ),
            ("Zoë <tel:+1>", "Zoë", "tel:+1", ""),
            ("\"\" <isbn:1>", "\"\"", "isbn:1", ""),
        ] {
            let expected = Address {
                name,
                uri,
                parameters,
                is_bracketed: value.contains('<'),
            };
            assert_eq!(Address::parse(value), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        for value in [
            "",
            "<>",
            "a",
            "sip:",
            "sip:a@h?Route=%3Csip:x%3E",
            "sip:a@h,sip:b@h",
            "\"Ann <sip:a@h>",
            "Ann\" <sip:a@h>",
            "\"Ann\" Lee <sip:a@h>",
            "Lee, Ann <sip:a@h>",
            "Ann < sip:a@h >",
            "<sip:a@h",
            "<sip:a@h> tag=1",
            "<sip:a@h>;tag=<",
            "<sip:a@h>;tag=a b",
        ] {
            assert_eq!(Party::new(value), None, "{value}");
        }
    }

    #[test]
    fn names_are_fit_to_be_shown() {
        let name = |value| Party::new(value).and_then(|party| party.display_name);
        assert_eq!(
            name("\"A\\\0B\u{7F}C\" <sip:a@h>").as_deref(),
            Some("A\\BC")
        );
        assert_eq!(name("\"\" <sip:a@h>"), None);
        assert_eq!(name("<sip:a@h>"), None);
    }
}
