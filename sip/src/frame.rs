//! SIP over a stream: messages by Content-Length (RFC 3261 §18.3), keep-alives between them (RFC 5626).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::scan::Lines;

/// Longest header block: a datagram's worth, so that streams carry nothing larger than UDP can.
const HEADERS_LEN_MAX: usize = 64 * 1024;

/// Longest body: session descriptions and rosters are far below; a stream's buffer is bounded by both.
const BODY_LEN_MAX: usize = 64 * 1024;

/// Something whole from a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Message(Bytes),
    /// A double CRLF, to be answered by one (RFC 5626 §4.4.1).
    Ping,
}

/// Why a stream cannot be read on: there is no point to resume from, so it is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    HeadersTooLong,
    BodyTooLong,
    /// Not a number, or two different ones.
    BadContentLength,
    /// Without it a stream has no message boundaries (RFC 3261 §20.14).
    NoContentLength,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadersTooLong => "header block too long",
            Self::BodyTooLong => "body too long",
            Self::BadContentLength => "bad Content-Length",
            Self::NoContentLength => "no Content-Length",
        })
    }
}

impl std::error::Error for FrameError {}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// Octets in which no end of headers begins, so that nothing is looked at twice.
    searched: usize,
    /// Length of the message whose headers are complete.
    wanted: Option<usize>,
    /// Line ends skipped since the last message.
    line_ends: usize,
}

impl Framer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; None: more bytes are needed.
    ///
    /// # Errors
    /// The stream cannot be read on.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is no end"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.wanted.is_none() {
            if self.searched == 0 && self.skip_line_ends() {
                return Ok(Some(Frame::Ping));
            }
            if self.buffer[..] == b"\r"[..] {
                return Ok(None);
            }
            self.wanted = self.find_end()?;
        }
        let Some(len) = self.wanted.filter(|&len| len <= self.buffer.len()) else {
            return Ok(None);
        };
        self.wanted = None;
        self.searched = 0;
        Ok(Some(Frame::Message(self.buffer.split_to(len).freeze())))
    }

    /// Part of a message has come, and the rest has not.
    pub fn is_within(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// True when a ping was skipped.
    fn skip_line_ends(&mut self) -> bool {
        while self.buffer.starts_with(b"\r\n") {
            self.buffer.advance(2);
            self.line_ends += 1;
            if self.line_ends == 2 {
                self.line_ends = 0;
                return true;
            }
        }
        if !self.buffer.is_empty() && self.buffer[..] != b"\r"[..] {
            self.line_ends = 0;
        }
        false
    }

    /// Length of the message at the start of the buffer, once its headers are whole.
    fn find_end(&mut self) -> Result<Option<usize>, FrameError> {
        let from = self.searched.saturating_sub(3);
        let Some(at) = self.buffer[from..]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        else {
            self.searched = self.buffer.len();
            return if self.searched > HEADERS_LEN_MAX {
                Err(FrameError::HeadersTooLong)
            } else {
                Ok(None)
            };
        };
        let headers = from + at + 4;
        if headers > HEADERS_LEN_MAX {
            return Err(FrameError::HeadersTooLong);
        }
        let body = content_length(&self.buffer[..headers])?;
        if body > BODY_LEN_MAX {
            Err(FrameError::BodyTooLong)
        } else {
            Ok(Some(headers + body))
        }
    }
}

fn content_length(headers: &[u8]) -> Result<usize, FrameError> {
    let mut found = None;
    // Continuations belong to the line before: one that reads like a Content-Length is none.
    for line in Lines::of(headers).take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|&octet| octet == b':') else {
            continue;
        };
        let name = line[..colon].trim_ascii();
        if !name.eq_ignore_ascii_case(b"Content-Length") && !name.eq_ignore_ascii_case(b"l") {
            continue;
        }
        let digits = line[colon + 1..].trim_ascii();
        // `parse` alone would take a sign.
        let value = str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()));
        let value: usize = match value.map(str::parse) {
            Some(Ok(value)) => value,
            // More digits than fit are a length too long.
            Some(Err(_)) if !digits.is_empty() => return Err(FrameError::BodyTooLong),
            _ => return Err(FrameError::BadContentLength),
        };
        if found.replace(value).is_some_and(|other| other != value) {
            return Err(FrameError::BadContentLength);
        }
    }
    found.ok_or(FrameError::NoContentLength)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(framer: &mut Framer) -> Result<Vec<Frame>, FrameError> {
        let mut all = Vec::new();
        while let Some(frame) = framer.next()? {
            all.push(frame);
        }
        Ok(all)
    }

    fn all_at_once(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut framer = Framer::default();
        framer.push(bytes);
        frames(&mut framer)
    }

    const TWO: &[u8] = b"\r\nOPTIONS a SIP/2.0\r\nContent-Length:\r\n 5\r\n\r\nhello\r\n\r\nBYE a SIP/2.0\r\nl : 0\r\n\r\n\r\n\r\n";

    #[test]
    fn messages_and_pings_come_out_whole() {
        let message = |text: &'static str| Frame::Message(Bytes::from_static(text.as_bytes()));
        let expected = [
            message("OPTIONS a SIP/2.0\r\nContent-Length:\r\n 5\r\n\r\nhello"),
            Frame::Ping,
            message("BYE a SIP/2.0\r\nl : 0\r\n\r\n"),
            Frame::Ping,
        ];
        assert_eq!(all_at_once(TWO).unwrap(), expected);
    }

    #[test]
    fn what_has_no_boundary_is_an_error() {
        let check = |header: &str, error| {
            assert_eq!(
                all_at_once(format!("A b SIP/2.0\r\n{header}\r\n\r\n").as_bytes()),
                Err(error),
                "{header}"
            );
        };
        check("X: 1", FrameError::NoContentLength);
        check("Content-Length: nonsense", FrameError::BadContentLength);
        check("Content-Length: -1", FrameError::BadContentLength);
        check("Content-Length:", FrameError::BadContentLength);
        check("Content-Length: 1\r\nl: 2", FrameError::BadContentLength);
        check("Subject: folded\r\n l: 0", FrameError::NoContentLength);
        check("X: 1\n\nl: 0", FrameError::NoContentLength);
        check("Content-Length: 65537", FrameError::BodyTooLong);
        check(
            "Content-Length: 99999999999999999999999",
            FrameError::BodyTooLong,
        );
        assert_eq!(
            all_at_once(&vec![b'x'; HEADERS_LEN_MAX + 1]),
            Err(FrameError::HeadersTooLong)
        );
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_frames(cuts in proptest::collection::vec(1_usize..9, 0..200)) {
            let mut framer = Framer::default();
            let mut rest = TWO;
            let mut all = Vec::new();
            for cut in cuts.into_iter().chain(std::iter::repeat(1)) {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                framer.push(piece);
                all.extend(frames(&mut framer).unwrap());
                rest = behind;
            }
            prop_assert_eq!(all, all_at_once(TWO).unwrap());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = all_at_once(&bytes);
        }
    }
}
