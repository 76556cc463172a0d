//! Brings a message into the one form the rest of the stack reads: CRLF, no folding, full header names,
//! one value in a line where headers form lists, no white space around what separates parameters.
//!
//! A message that is in that form already is not copied. One that breaks the form is brought as near to it
//! as it goes, for the sake of its answer, and its fault is told.
//!
//! Not here: whether headers make sense.

use std::borrow::Cow;

use super::Malformed;
use crate::scan::skip_line_ends;

/// Headers in one message, lists counted by value; phones send about 20, proxies add a few each.
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

/// Headers of one address. With [`LISTS`] they are those whose parameters are read.
const ADDRESSES: [&str; 2] = ["From", "To"];

/// What breaks the form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NotText,
    /// Behind the version of a request line (RFC 3261 §25.1 allows none).
    TrailingSpace,
    NoColon,
    TooManyHeaders,
    /// A list of Vias names no hop where one has to stand: the way back is in doubt.
    EmptyVia,
    BadContentLength,
    /// Content-Length promises more than there is.
    BodyCut,
}

impl From<Fault> for Malformed {
    fn from(fault: Fault) -> Self {
        Self(match fault {
            Fault::NotText => "Headers are not text",
            Fault::TrailingSpace => "White space behind the request line",
            Fault::NoColon => "Header without a colon",
            Fault::TooManyHeaders => "Too many headers",
            Fault::EmptyVia => "Empty value among the Vias",
            Fault::BadContentLength => "Bad Content-Length",
            Fault::BodyCut => "Body shorter than Content-Length",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Normal<'a> {
    /// In normal form, the body cut to Content-Length. Where there is a fault, headers that are no headers
    /// are missing, and the body is not to be used.
    pub(crate) text: Cow<'a, [u8]>,
    /// The first one.
    pub(crate) fault: Option<Fault>,
}

/// Brings a message into normal form.
///
/// # Errors
/// There is no text to be read at all, and nothing to be answered.
pub(crate) fn normalise(message: &[u8]) -> Result<Normal<'_>, Malformed> {
    let message = skip_line_ends(message);
    let (head, body) = split(message);
    let head = str::from_utf8(head).map_err(|_| Fault::NotText)?;
    let mut lines = unfold(head);
    let start = lines.next().filter(|line| is_text(line));
    let mut normal = Headers {
        text: Lazy::new(message),
        count: 0,
        content_length: None,
    };
    let mut fault = normal.start(&start.ok_or(Fault::NotText)?).err();
    for line in lines {
        if let Err(broken) = normal.line(&line) {
            fault = fault.or(Some(broken));
            if broken == Fault::TooManyHeaders {
                break;
            }
        }
    }
    let Headers {
        mut text,
        content_length,
        ..
    } = normal;
    text.push(b"\r\n");
    // What follows the body of a datagram is ignored (RFC 3261 §18.3).
    match body.get(..content_length.unwrap_or(body.len())) {
        Some(body) => text.push(body),
        None => fault = fault.or(Some(Fault::BodyCut)),
    }
    Ok(Normal {
        text: text.finish(),
        fault,
    })
}

/// The text as it grows: a stretch of the source for as long as both are the same.
struct Lazy<'a> {
    source: &'a [u8],
    same: usize,
    copy: Option<Vec<u8>>,
}

impl<'a> Lazy<'a> {
    const fn new(source: &'a [u8]) -> Self {
        Self {
            source,
            same: 0,
            copy: None,
        }
    }

    fn push(&mut self, part: &[u8]) {
        if self.copy.is_none() && self.source[self.same..].starts_with(part) {
            self.same += part.len();
            return;
        }
        let copy = self.copy.get_or_insert_with(|| {
            // Room for full names and repeated ones.
            let mut copy = Vec::with_capacity(self.source.len() + 64);
            copy.extend_from_slice(&self.source[..self.same]);
            copy
        });
        copy.extend_from_slice(part);
    }

    fn finish(self) -> Cow<'a, [u8]> {
        match self.copy {
            Some(copy) => Cow::Owned(copy),
            None => Cow::Borrowed(&self.source[..self.same]),
        }
    }
}

/// The header block as it grows.
struct Headers<'a> {
    text: Lazy<'a>,
    count: usize,
    content_length: Option<usize>,
}

impl Headers<'_> {
    fn start(&mut self, line: &str) -> Result<(), Fault> {
        let trimmed = line.trim_end();
        let is_status_line = line.starts_with("SIP/");
        self.text.push(trimmed.as_bytes());
        // The space before a reason phrase stands even when the phrase is empty (RFC 3261 §7.2).
        if is_status_line && trimmed.matches(' ').count() == 1 {
            self.text.push(b" ");
        }
        self.text.push(b"\r\n");
        if is_status_line || trimmed.len() == line.len() {
            Ok(())
        } else {
            Err(Fault::TrailingSpace)
        }
    }

    /// One header with all its values.
    fn line(&mut self, line: &str) -> Result<(), Fault> {
        if !is_text(line) {
            return Err(Fault::NotText);
        }
        let (name, value) = line.split_once(':').ok_or(Fault::NoColon)?;
        let (name, value) = (full_name(name.trim()), value.trim());
        let is_one_of = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_one_of(&LISTS) {
            return self.list(name, value);
        }
        if is_one_of(&ADDRESSES) {
            return self.push(name, &tidy(value, false));
        }
        if name.eq_ignore_ascii_case("Content-Length") {
            let len = content_len(value)?;
            if self.content_length.is_some_and(|other| other != len) {
                return Err(Fault::BadContentLength);
            }
            self.content_length = Some(len);
        }
        self.push(name, value)
    }

    fn list(&mut self, name: &str, list: &str) -> Result<(), Fault> {
        let is_via = name.eq_ignore_ascii_case("Via");
        let mut result = Ok(());
        for value in values(list) {
            if !value.is_empty() {
                self.push(name, &tidy(value, is_via))?;
            } else if is_via {
                result = Err(Fault::EmptyVia);
            }
        }
        result
    }

    fn push(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        if self.count == HEADERS_MAX {
            return Err(Fault::TooManyHeaders);
        }
        self.count += 1;
        for part in [name, ": ", value, "\r\n"] {
            self.text.push(part.as_bytes());
        }
        Ok(())
    }
}

/// No carriage return, which alone would be a line end to some who read what is copied into a response,
/// and no NUL but one that a quoted string escapes.
fn is_text(line: &str) -> bool {
    if !line.bytes().any(|octet| matches!(octet, b'\0' | b'\r')) {
        return true;
    }
    let mut nesting = Nesting::default();
    line.chars().all(|c| {
        let is_escaped = nesting.escaped;
        nesting.is_outside(c);
        c != '\r' && (c != '\0' || is_escaped)
    })
}

fn content_len(value: &str) -> Result<usize, Fault> {
    // `parse` alone would take a sign.
    if !value.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Fault::BadContentLength);
    }
    value.parse().map_err(|_| Fault::BadContentLength)
}

/// Follows a value: which characters stand inside quotes or angle brackets, and so mean themselves.
#[derive(Default)]
struct Nesting {
    quoted: bool,
    escaped: bool,
    bracketed: bool,
}

impl Nesting {
    /// Whether a character, the next one, stands outside.
    fn is_outside(&mut self, c: char) -> bool {
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.quoted => self.escaped = true,
            '"' if !self.bracketed => self.quoted = !self.quoted,
            '<' if !self.quoted => self.bracketed = true,
            '>' if !self.quoted => self.bracketed = false,
            _ => return !self.quoted && !self.bracketed,
        }
        false
    }
}

/// Without white space around what separates parameters, and of a Via also the parts of its protocol and
/// address, where RFC 3261 §25.1 allows it; one space for the rest.
fn tidy(value: &str, is_via: bool) -> Cow<'_, str> {
    let separates = |c: char| matches!(c, ';' | '=') || is_via && matches!(c, '/' | ':');
    let mut nesting = Nesting::default();
    let mut tidied = String::new();
    // Up to here everything is in `tidied`.
    let mut copied = 0;
    let mut space = None;
    let mut previous = None;
    for (at, c) in value.char_indices() {
        let is_outside = nesting.is_outside(c);
        if is_outside && matches!(c, ' ' | '\t') {
            space = space.or(Some(at));
            continue;
        }
        if let Some(from) = space.take() {
            let is_idle = separates(c) || previous.is_some_and(separates);
            let wanted = if is_idle { "" } else { " " };
            if &value[from..at] != wanted {
                tidied.push_str(&value[copied..from]);
                tidied.push_str(wanted);
                copied = at;
            }
        }
        previous = is_outside.then_some(c);
    }
    if copied == 0 {
        return Cow::Borrowed(value);
    }
    tidied.push_str(&value[copied..]);
    Cow::Owned(tidied)
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
fn unfold(head: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut lines = head.lines().peekable();
    std::iter::from_fn(move || {
        let mut line = Cow::Borrowed(lines.next()?);
        while let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
            let line = line.to_mut();
            line.push(' ');
            line.push_str(more.trim());
        }
        Some(line)
    })
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

/// Values between commas that stand outside quotes and brackets; none of an empty header.
fn values(list: &str) -> impl Iterator<Item = &str> {
    let mut nesting = Nesting::default();
    list.split(move |c| nesting.is_outside(c) && c == ',')
        .map(str::trim)
        .filter(move |value| !value.is_empty() || !list.is_empty())
}

#[cfg(test)]
#[path = "normalise_tests.rs"]
mod tests;
