//! Messages of the framework as values, and how they are written (RFC 6230 §9.1).

use std::fmt;
use std::time::Duration;

use super::token::Token;

/// A result of a transaction (RFC 6230 §7), three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl Code {
    pub const OK: Self = Self(200);
    /// The transaction takes longer; REPORTs follow.
    pub const EXTENDED: Self = Self(202);
    pub const SYNTAX_ERROR: Self = Self(400);
    pub const FORBIDDEN: Self = Self(403);
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    pub const OUT_OF_ORDER: Self = Self(406);
    pub const PACKAGE_NOT_VALID: Self = Self(420);
    pub const NO_RENEGOTIATION: Self = Self(421);
    pub const NO_COMMON_PACKAGE: Self = Self(422);
    pub const ID_IN_USE: Self = Self(423);
    pub const UNKNOWN: Self = Self(481);
    pub const NOT_UNDERSTOOD: Self = Self(500);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A body and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Media type, such as `application/msc-dist-conf+xml`; empty if the sender does not say.
    pub media_type: String,
    pub body: Vec<u8>,
}

impl Content {
    pub fn new(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            body: body.into(),
        }
    }
}

/// Whether a REPORT is the last one of its transaction (RFC 6230 §6.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Update,
    Terminate,
}

impl Status {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Terminate => "terminate",
        }
    }
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) id: Token,
    pub(super) kind: Kind,
    /// None if a header that is known has a value that it cannot have, or a line is no header.
    pub(super) headers: Option<Headers>,
    pub(super) body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sync,
    Control,
    Report,
    KeepAlive,
    UnknownMethod,
    Response(Code),
}

/// Most packages in a list.
const PACKAGES_MAX: usize = 32;

/// The headers that are known (RFC 6230 §9.1); others are ignored (§11).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Headers {
    pub(super) dialog_id: Option<String>,
    pub(super) keep_alive: Option<u32>,
    pub(super) packages: Vec<Token>,
    pub(super) supported: Vec<Token>,
    pub(super) control_package: Option<Token>,
    pub(super) seq: Option<u32>,
    pub(super) status: Option<Status>,
    pub(super) timeout: Option<u32>,
    pub(super) content_type: Option<String>,
}

impl Headers {
    /// Takes a line of a header block; None if it is no header or has an impossible value. Of a header that
    /// is there twice the last one counts, unless it is a list.
    pub(super) fn read(&mut self, line: &str) -> Option<()> {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']);
        let is = |known: &str| name.trim_ascii_end().eq_ignore_ascii_case(known);
        if is("Dialog-ID") {
            self.dialog_id = Some(value.to_owned());
        } else if is("Keep-Alive") {
            self.keep_alive = Some(number(value)?);
        } else if is("Packages") {
            read_packages(&mut self.packages, value)?;
        } else if is("Supported") {
            read_packages(&mut self.supported, value)?;
        } else if is("Control-Package") {
            self.control_package = Some(value.parse().ok()?);
        } else if is("Seq") {
            self.seq = Some(number(value)?);
        } else if is("Status") {
            let mut all = [Status::Update, Status::Terminate].into_iter();
            let status = all.find(|status| value.eq_ignore_ascii_case(status.as_str()));
            self.status = Some(status?);
        } else if is("Timeout") {
            self.timeout = Some(number(value)?);
        } else if is("Content-Type") {
            self.content_type = Some(value.to_owned());
        }
        Some(())
    }
}

fn read_packages(packages: &mut Vec<Token>, list: &str) -> Option<()> {
    for name in list.split(',').map(str::trim_ascii) {
        if name.is_empty() {
            continue;
        }
        if packages.len() == PACKAGES_MAX {
            return None;
        }
        packages.push(name.parse().ok()?);
    }
    Some(())
}

/// Digits alone, where `parse` would take a sign too.
pub(super) fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

/// Writes one message.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// `what` is a method or a code.
    pub(super) fn new(id: &Token, what: impl fmt::Display) -> Self {
        Self {
            bytes: format!("CFW {id} {what}\r\n").into_bytes(),
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl fmt::Display) -> Self {
        let line = format!("{name}: {value}\r\n");
        self.bytes.extend_from_slice(line.as_bytes());
        self
    }

    pub(super) fn packages(self, name: &str, packages: &[Token]) -> Self {
        let names: Vec<&str> = packages.iter().map(Token::as_str).collect();
        self.header(name, names.join(","))
    }

    pub(super) fn seconds(self, name: &str, duration: Duration) -> Self {
        self.header(name, duration.as_secs())
    }

    /// The end, for a message that says how long its body is even if it has none (RFC 6230 §6.1).
    pub(super) fn content(self, content: Option<&Content>) -> Vec<u8> {
        let Some(Content { media_type, body }) = content else {
            return self.header("Content-Length", 0).end();
        };
        let typed = match media_type.as_str() {
            "" => self,
            media_type => self.header("Content-Type", media_type),
        };
        let mut bytes = typed.header("Content-Length", body.len()).end();
        bytes.extend_from_slice(body);
        bytes
    }

    /// The end of a message without a body.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }
}
