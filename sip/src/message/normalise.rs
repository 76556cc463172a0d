//! Brings a message into the one form the rest of the stack reads: CRLF, no folding, full header names,
//! one value in a line where headers form lists.

use std::borrow::Cow;
use std::fmt;

/// Headers in one message; phones send about 20, proxies add a few each.
const HEADERS_MAX: usize = 256;

/// Compact forms (RFC 3261 §7.3.3 and the registry of header fields).
const COMPACT: [(u8, &str); 19] = [
    (b'a', "Accept-Contact"),
    (b'b', "Referred-By"),
    (b'c', "Content-Type"),
    (b'd', "Request-Disposition"),
    (b'e', "Content-Encoding"),
    (b'f', "From"),
    (b'i', "Call-ID"),
    (b'j', "Reject-Contact"),
    (b'k', "Supported"),
    (b'l', "Content-Length"),
    (b'm', "Contact"),
    (b'n', "Identity-Info"),
    (b'o', "Event"),
    (b'r', "Refer-To"),
    (b's', "Subject"),
    (b't', "To"),
    (b'u', "Allow-Events"),
    (b'v', "Via"),
    (b'x', "Session-Expires"),
];

/// Headers whose values are addresses or hops, read one by one.
const LISTS: [&str; 4] = ["Via", "Route", "Record-Route", "Contact"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormaliseError {
    NotText,
    NoColon,
    TooManyHeaders,
    BadContentLength,
    /// Content-Length promises more than there is.
    BodyCut,
}

impl fmt::Display for NormaliseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotText => "headers are not text",
            Self::NoColon => "a header without a colon",
            Self::TooManyHeaders => "too many headers",
            Self::BadContentLength => "bad Content-Length",
            Self::BodyCut => "the body is shorter than Content-Length",
        })
    }
}

/// The message in normal form, its body cut to Content-Length.
pub(crate) fn normalise(message: &[u8]) -> Result<Cow<'_, [u8]>, NormaliseError> {
    let message = skip_leading_line_ends(message);
    let (head, body) = split(message);
    let head = str::from_utf8(head).map_err(|_| NormaliseError::NotText)?;
    if head.contains('\0') {
        return Err(NormaliseError::NotText);
    }
    let lines = unfold(head);
    if lines.len() > HEADERS_MAX {
        return Err(NormaliseError::TooManyHeaders);
    }
    let mut normal = String::with_capacity(head.len() + 64);
    let mut content_length = None;
    for (index, line) in lines.iter().enumerate() {
        if index == 0 {
            normal.push_str(line.trim_end());
            normal.push_str("\r\n");
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(NormaliseError::NoColon)?;
        let (name, value) = (full_name(name.trim()), plain_space(value.trim()));
        let value = value.as_ref();
        if name.eq_ignore_ascii_case("Content-Length") {
            let len: usize = value
                .parse()
                .map_err(|_| NormaliseError::BadContentLength)?;
            if content_length
                .replace(len)
                .is_some_and(|other| other != len)
            {
                return Err(NormaliseError::BadContentLength);
            }
        }
        if LISTS.iter().any(|list| list.eq_ignore_ascii_case(name)) {
            values(value).for_each(|value| push(&mut normal, name, value));
        } else {
            push(&mut normal, name, value);
        }
    }
    normal.push_str("\r\n");
    let body = match content_length {
        // What follows the body of a datagram is ignored (RFC 3261 §18.3).
        Some(len) => body.get(..len).ok_or(NormaliseError::BodyCut)?,
        None => body,
    };
    let mut normal = normal.into_bytes();
    normal.extend_from_slice(body);
    Ok(if normal == message {
        Cow::Borrowed(message)
    } else {
        Cow::Owned(normal)
    })
}

/// Tabs are as good as spaces (RFC 3261 §7.3.1), and around the separators of parameters neither counts.
fn plain_space(value: &str) -> Cow<'_, str> {
    if !value.contains(['\t', ' ']) || value.contains('"') {
        return value.into();
    }
    let spaced = value.replace('\t', " ");
    let parts: Vec<&str> = spaced.split(';').map(str::trim).collect();
    let plain = parts.join(";").replace(" =", "=").replace("= ", "=");
    if plain == value {
        value.into()
    } else {
        plain.into()
    }
}

fn push(normal: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        normal.push_str(part);
    }
}

fn skip_leading_line_ends(message: &[u8]) -> &[u8] {
    let start = message
        .iter()
        .position(|octet| !matches!(octet, b'\r' | b'\n'))
        .unwrap_or(message.len());
    &message[start..]
}

/// Headers, without the empty line, and body.
fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(feed) = message[at..].iter().position(|&octet| octet == b'\n') {
        let next = at + feed + 1;
        let rest = &message[next..];
        let empty = if rest.starts_with(b"\r\n") {
            2
        } else {
            usize::from(rest.starts_with(b"\n"))
        };
        if empty > 0 {
            return (&message[..next], &rest[empty..]);
        }
        at = next;
    }
    (message, &[])
}

/// Lines with their continuations joined by one space (RFC 3261 §7.3.1).
fn unfold(head: &str) -> Vec<Cow<'_, str>> {
    let mut lines: Vec<Cow<'_, str>> = Vec::with_capacity(24);
    for line in head.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                let last = last.to_mut();
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.into()),
        }
    }
    lines
}

fn full_name(name: &str) -> &str {
    let [letter] = name.as_bytes() else {
        return name;
    };
    let known = COMPACT
        .iter()
        .find(|(short, _)| short.eq_ignore_ascii_case(letter));
    known.map_or(name, |(_, full)| full)
}

/// Values between commas that stand outside quotes and brackets.
fn values(list: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    list.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ',' => return !quoted && !bracketed,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: Result<&str, NormaliseError>) {
        let normal = normalise(message.as_bytes())
            .map(|normal| String::from_utf8(normal.into_owned()).unwrap());
        assert_eq!(normal.as_deref().map_err(|error| *error), expected);
    }

    #[test]
    fn a_message_in_normal_form_is_not_copied() {
        let message = b"BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCSeq: 1 BYE\r\nContent-Length: 2\r\n\r\nxy";
        assert!(matches!(normalise(message), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn every_way_of_writing_becomes_one() {
        check(
            "\r\n\nINVITE sip:a@b SIP/2.0\nv : SIP/2.0/UDP a ,\r\n SIP/2.0/UDP b\r\nm: \"x, y\" <sip:a,b@c>, <sip:d@e>\r\nSubject: a, b\r\n c\nL: 3\r\n\nbodyrest",
            Ok(
                "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nVia: SIP/2.0/UDP b\r\nContact: \"x, y\" <sip:a,b@c>\r\nContact: <sip:d@e>\r\nSubject: a, b c\r\nContent-Length: 3\r\n\r\nbod",
            ),
        );
        check("BYE a SIP/2.0", Ok("BYE a SIP/2.0\r\n\r\n"));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        check(
            "A b SIP/2.0\r\nnothing\r\n\r\n",
            Err(NormaliseError::NoColon),
        );
        check(
            "A b SIP/2.0\r\nX: a\0b\r\n\r\n",
            Err(NormaliseError::NotText),
        );
        check(
            "A b SIP/2.0\r\nl: 5\r\n\r\nabc",
            Err(NormaliseError::BodyCut),
        );
        check(
            "A b SIP/2.0\r\nl: -5\r\n\r\nabc",
            Err(NormaliseError::BadContentLength),
        );
        check(
            "A b SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\nabc",
            Err(NormaliseError::BadContentLength),
        );
        check(
            &format!("A b SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(300)),
            Err(NormaliseError::TooManyHeaders),
        );
        assert_eq!(
            normalise(b"A b SIP/2.0\r\nX: \xff\r\n\r\n"),
            Err(NormaliseError::NotText)
        );
    }
}
