//! Cuts the bytes of a connection into messages (RFC 6230 §9.1): lines up to an empty one, then as many
//! bytes as `Content-Length` says, none if it is absent. The RFC sets no limits; these are ours.

use std::fmt;

use super::message::{Code, Headers, Kind, Message, number};
use super::token::Token;

/// Longest start line, its end included. The longest that the grammar has is 47 bytes.
pub const START_LINE_LEN_MAX: usize = 256;

/// Longest header block, start line and empty line included.
pub const HEAD_LEN_MAX: usize = 8 * 1024;

pub const HEADERS_MAX: usize = 64;

pub const BODY_LEN_MAX: usize = 1024 * 1024;

/// How much memory a connection keeps between messages, in bytes.
const KEPT_LEN: usize = 16 * 1024;

/// Why the rest of a connection cannot be understood any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// A start line that is none of the framework's, or too long.
    StartLine,
    /// A header block that is too long, has too many headers, or is not in UTF-8.
    Head,
    /// A `Content-Length` that is no number, too big, or there twice with two values.
    ContentLength,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartLine => "not a start line of CFW",
            Self::Head => "a header block that cannot be read",
            Self::ContentLength => "an impossible Content-Length",
        })
    }
}

impl std::error::Error for FrameError {}

/// A framing error, and the request that is still to be answered, if it was one and could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) error: FrameError,
    pub(super) request: Option<Token>,
}

#[derive(Debug)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// Where in the buffer the message that is coming begins; what is before is done with. All other
    /// places count from here.
    start: usize,
    /// Up to here there is no end of a line that has not been seen.
    scanned: usize,
    head: Head,
    pub(super) body_len_max: usize,
}

/// What is known of the message that is coming.
#[derive(Debug, Default)]
struct Head {
    start: Option<(Token, Kind)>,
    /// Where the line that is coming begins.
    line: usize,
    headers: Headers,
    count: usize,
    is_bad: bool,
    content_length: Option<usize>,
    /// Length of the header block, once it is complete.
    len: Option<usize>,
}

impl Framer {
    pub(super) fn new(body_len_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            head: Head::default(),
            body_len_max,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() {
            // One long message is no reason to keep its memory.
            self.buffer.shrink_to(KEPT_LEN);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.scanned = 0;
    }

    /// The next message; None if more bytes are needed for it.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Broken> {
        let head_len = match self.head.len {
            Some(len) => len,
            None => match self.read_head() {
                Ok(Some(len)) => len,
                Ok(None) => return Ok(None),
                Err(error) => {
                    let start = self.head.start.filter(|(_, kind)| is_request(*kind));
                    return Err(Broken {
                        error,
                        request: start.map(|(id, _)| id),
                    });
                }
            },
        };
        let end = head_len + self.head.content_length.unwrap_or(0);
        let is_whole = self.len() >= end;
        let Some((id, kind)) = self.head.start.filter(|_| is_whole) else {
            return Ok(None);
        };
        let head = std::mem::take(&mut self.head);
        let body = self.buffer[self.start..][head_len..end].to_vec();
        self.consume(end);
        Ok(Some(Message {
            id,
            kind,
            headers: (!head.is_bad).then_some(head.headers),
            body,
        }))
    }

    /// Reads lines as far as they are there; the header block's length, once it is complete.
    fn read_head(&mut self) -> Result<Option<usize>, FrameError> {
        loop {
            let bytes = &self.buffer[self.start..];
            let unseen = &bytes[self.scanned..];
            let end = unseen.iter().position(|&byte| byte == b'\n');
            let len = end.map_or(bytes.len(), |end| self.scanned + end + 1);
            self.scanned = len;
            if self.head.start.is_none() && len - self.head.line > START_LINE_LEN_MAX {
                return Err(FrameError::StartLine);
            }
            if len > HEAD_LEN_MAX {
                return Err(FrameError::Head);
            }
            if end.is_none() {
                return Ok(None);
            }
            let line = &bytes[self.head.line..len - 1];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = str::from_utf8(line).map_err(|_| match self.head.start {
                None => FrameError::StartLine,
                Some(_) => FrameError::Head,
            })?;
            if self.head.start.is_some() && line.is_empty() {
                if self.head.content_length.unwrap_or(0) > self.body_len_max {
                    return Err(FrameError::ContentLength);
                }
                self.head.len = Some(len);
                return Ok(Some(len));
            }
            if line.is_empty() {
                // Before a message, empty lines mean nothing.
                self.consume(len);
                continue;
            }
            self.head.line = len;
            match self.head.start {
                None => {
                    self.head.start = Some(start_line(line).ok_or(FrameError::StartLine)?);
                }
                Some(_) => self.head.header(line)?,
            }
        }
    }
}

impl Head {
    fn header(&mut self, line: &str) -> Result<(), FrameError> {
        self.count += 1;
        if self.count > HEADERS_MAX {
            return Err(FrameError::Head);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name.trim_ascii_end().eq_ignore_ascii_case("Content-Length") {
            let len = number(value.trim_ascii()).ok_or(FrameError::ContentLength)?;
            return match self.content_length.replace(len) {
                Some(earlier) if earlier != len => Err(FrameError::ContentLength),
                _ => Ok(()),
            };
        }
        self.is_bad |= self.headers.read(line).is_none();
        Ok(())
    }
}

const fn is_request(kind: Kind) -> bool {
    !matches!(kind, Kind::Response(_))
}

/// `CFW` SP id SP (method / code). Three digits are a code, everything else is a method.
fn start_line(line: &str) -> Option<(Token, Kind)> {
    let mut words = line.split(' ');
    let (Some("CFW"), Some(id), Some(word), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    let kind = match word {
        "SYNC" => Kind::Sync,
        "CONTROL" => Kind::Control,
        "REPORT" => Kind::Report,
        "K-ALIVE" => Kind::KeepAlive,
        "" => return None,
        _ if word.len() == 3 => number(word)
            .map(Code)
            .map_or(Kind::UnknownMethod, Kind::Response),
        _ => Kind::UnknownMethod,
    };
    Some((id.parse().ok()?, kind))
}
