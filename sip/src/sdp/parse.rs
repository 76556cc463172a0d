//! Text into a [`SessionDescription`].
//!
//! Strict only where a wrong guess would send media to the wrong place or repeat unclean bytes to
//! the peer: `v=`, `o=`, `c=`, `t=` and `m=` must be readable when present. All else is skipped.

use std::borrow::Cow;
use std::fmt;

use super::{
    Attribute, Direction, FORMATS_MAX, Host, LINES_MAX, MEDIA_MAX, Media, Origin,
    SessionDescription, TEXT_LEN_MAX,
};

/// Reads a description. Lines end in LF or CRLF; bytes that are not UTF-8 become `?`.
///
/// # Errors
/// The first line that cannot be read, or the limit that was passed.
pub fn parse(text: &[u8]) -> Result<SessionDescription, SdpError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(SdpErrorKind::TooLong.at(0));
    }
    let text = readable(text);
    let mut reader = Reader::default();
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        if number > LINES_MAX {
            return Err(SdpErrorKind::TooManyLines.at(number));
        }
        let line = line.trim_end();
        if !line.is_empty() {
            reader.read_line(line).map_err(|kind| kind.at(number))?;
        }
    }
    reader.finish()
}

/// Why a description could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdpError {
    /// Counted from 1; 0 when the whole text is at fault.
    pub line: usize,
    pub kind: SdpErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdpErrorKind {
    /// More than [`TEXT_LEN_MAX`] bytes.
    TooLong,
    /// More than [`LINES_MAX`] lines.
    TooManyLines,
    /// More than [`MEDIA_MAX`] `m=` lines.
    TooManyMedia,
    /// More than [`FORMATS_MAX`] formats on an `m=` line.
    TooManyFormats,
    /// The first line is not `v=0`: another version, or no session description at all.
    NotVersionZero,
    MalformedOrigin,
    MalformedConnection,
    MalformedTime,
    MalformedMedia,
}

impl SdpErrorKind {
    const fn at(self, line: usize) -> SdpError {
        SdpError { line, kind: self }
    }

    /// Whether a limit was passed, rather than a line unreadable.
    pub const fn is_limit(self) -> bool {
        matches!(
            self,
            Self::TooLong | Self::TooManyLines | Self::TooManyMedia | Self::TooManyFormats
        )
    }
}

impl fmt::Display for SdpErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {TEXT_LEN_MAX} bytes"),
            Self::TooManyLines => write!(f, "more than {LINES_MAX} lines"),
            Self::TooManyMedia => write!(f, "more than {MEDIA_MAX} media lines"),
            Self::TooManyFormats => write!(f, "more than {FORMATS_MAX} formats on a media line"),
            Self::NotVersionZero => f.write_str("does not start with v=0"),
            Self::MalformedOrigin => f.write_str("o= is not user, id, version and address"),
            Self::MalformedConnection => f.write_str("c= is not a network and address"),
            Self::MalformedTime => f.write_str("t= is not two numbers"),
            Self::MalformedMedia => f.write_str("m= is not media, port, protocol and formats"),
        }
    }
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "session description: {}", self.kind),
            line => write!(f, "session description, line {line}: {}", self.kind),
        }
    }
}

impl std::error::Error for SdpError {}

/// The text with one `?` for each run of bytes that is not UTF-8, so that it never grows.
fn readable(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut readable = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        readable.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            readable.push('?');
        }
    }
    Cow::Owned(readable)
}

#[derive(Default)]
struct Reader {
    version_seen: bool,
    origin: Option<Origin>,
    session_name: Option<String>,
    connection: Option<Host>,
    times: Vec<(u64, u64)>,
    direction: Option<Direction>,
    attributes: Vec<Attribute>,
    media: Vec<Media>,
}

impl Reader {
    fn read_line(&mut self, line: &str) -> Result<(), SdpErrorKind> {
        if !self.version_seen {
            self.version_seen = line == "v=0";
            return match self.version_seen {
                true => Ok(()),
                false => Err(SdpErrorKind::NotVersionZero),
            };
        }
        let Some((kind, value)) = line.split_once('=') else {
            return Ok(());
        };
        match kind {
            "o" => self.origin = Some(read_origin(value).ok_or(SdpErrorKind::MalformedOrigin)?),
            "s" => self.session_name = Some(value.to_owned()),
            "t" => self
                .times
                .push(read_time(value).ok_or(SdpErrorKind::MalformedTime)?),
            "c" => {
                let host = read_host(value).ok_or(SdpErrorKind::MalformedConnection)?;
                let connection = match self.media.last_mut() {
                    Some(media) => &mut media.connection,
                    None => &mut self.connection,
                };
                // Further addresses are layers of a multicast session (RFC 8866 section 5.7).
                connection.get_or_insert(host);
            }
            "m" => {
                if self.media.len() == MEDIA_MAX {
                    return Err(SdpErrorKind::TooManyMedia);
                }
                self.media.push(read_media(value)?);
            }
            "a" => self.read_attribute(value),
            _ => {}
        }
        Ok(())
    }

    fn read_attribute(&mut self, text: &str) {
        let (direction, attributes) = match self.media.last_mut() {
            Some(media) => (&mut media.direction, &mut media.attributes),
            None => (&mut self.direction, &mut self.attributes),
        };
        if let Some(found) = Direction::from_name(text) {
            *direction = Some(found);
            return;
        }
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if !name.is_empty() {
            attributes.push(Attribute {
                name: name.to_owned(),
                value,
            });
        }
    }

    fn finish(self) -> Result<SessionDescription, SdpError> {
        if !self.version_seen {
            return Err(SdpErrorKind::NotVersionZero.at(0));
        }
        Ok(SessionDescription {
            origin: self.origin.unwrap_or_else(unknown_origin),
            session_name: self
                .session_name
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "-".to_owned()),
            connection: self.connection,
            times: match self.times.is_empty() {
                true => vec![(0, 0)],
                false => self.times,
            },
            direction: self.direction,
            attributes: self.attributes,
            media: self.media,
        })
    }
}

/// Stands in for an absent `o=`, which no rule of RFC 3264 needs to make an answer.
fn unknown_origin() -> Origin {
    Origin {
        username: "-".to_owned(),
        session_id: 0,
        version: 0,
        address: Host::from_text("0.0.0.0"),
    }
}

fn read_origin(value: &str) -> Option<Origin> {
    let mut words = value.split_whitespace();
    let username = words.next()?.to_owned();
    let session_id = read_big_number(words.next()?)?;
    let version = read_big_number(words.next()?)?;
    let address = read_host_words(&mut words)?;
    Some(Origin {
        username,
        session_id,
        version,
        address,
    })
}

/// RFC 8866 section 5.2 allows any number of digits.
fn read_big_number(word: &str) -> Option<u64> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().unwrap_or(u64::MAX))
}

fn read_time(value: &str) -> Option<(u64, u64)> {
    let mut words = value.split_whitespace();
    Some((
        read_big_number(words.next()?)?,
        read_big_number(words.next()?)?,
    ))
}

pub(super) fn read_host(value: &str) -> Option<Host> {
    read_host_words(&mut value.split_whitespace())
}

/// Reads `IN IP4 address`. The address family is taken from the address itself: phones behind
/// translators are known to write `IP4` before an IPv6 address.
fn read_host_words<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Host> {
    let _network = words.next()?;
    let _family = words.next()?;
    // A multicast address may carry /ttl/count.
    let address = words.next()?.split('/').next()?;
    (!address.is_empty()).then(|| Host::from_text(address))
}

fn read_media(value: &str) -> Result<Media, SdpErrorKind> {
    // These words are repeated in an answer, so control bytes must not pass.
    if !value
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t')
    {
        return Err(SdpErrorKind::MalformedMedia);
    }
    let mut words = value.split_ascii_whitespace();
    let mut word = || words.next().ok_or(SdpErrorKind::MalformedMedia);
    let kind = word()?.to_owned();
    let (port, port_count) = read_ports(word()?).ok_or(SdpErrorKind::MalformedMedia)?;
    let protocol = word()?.to_owned();
    let mut formats = Vec::new();
    for format in words {
        if formats.len() == FORMATS_MAX {
            return Err(SdpErrorKind::TooManyFormats);
        }
        formats.push(format.to_owned());
    }
    Ok(Media {
        kind,
        port,
        port_count,
        protocol,
        formats,
        connection: None,
        direction: None,
        attributes: Vec::new(),
    })
}

fn read_ports(word: &str) -> Option<(u16, u16)> {
    match word.split_once('/') {
        Some((port, count)) => Some((port.parse().ok()?, count.parse().ok()?)),
        None => Some((word.parse().ok()?, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (usize, SdpErrorKind) {
        let error = parse(text.as_bytes()).unwrap_err();
        (error.line, error.kind)
    }

    #[test]
    fn the_error_says_which_line_and_why() {
        use SdpErrorKind::*;
        let too_many_media = format!("v=0\n{}", "m=audio 1 RTP/AVP 0\n".repeat(MEDIA_MAX + 1));
        let too_many_formats = format!("v=0\nm=audio 1 RTP/AVP{}", " 0".repeat(FORMATS_MAX + 1));
        for (text, line, kind) in [
            ("", 0, NotVersionZero),
            ("\r\n\r\n", 0, NotVersionZero),
            ("hello", 1, NotVersionZero),
            ("\nv=1", 2, NotVersionZero),
            ("v=0\no=", 2, MalformedOrigin),
            ("v=0\no=- 1 IN IP4 1.2.3.4", 2, MalformedOrigin),
            ("v=0\no=- a 1 IN IP4 1.2.3.4", 2, MalformedOrigin),
            ("v=0\no=- 1 1 IN IP4", 2, MalformedOrigin),
            ("v=0\ns=-\nc=IN IP4", 3, MalformedConnection),
            ("v=0\ns=-\nc=IN IP4 /127", 3, MalformedConnection),
            ("v=0\nt=0", 2, MalformedTime),
            ("v=0\nt=now later", 2, MalformedTime),
            ("v=0\n\nm=audio", 3, MalformedMedia),
            ("v=0\nm=audio 70000 RTP/AVP 0", 2, MalformedMedia),
            ("v=0\nm=audio -1 RTP/AVP 0", 2, MalformedMedia),
            ("v=0\nm=audio 1/x RTP/AVP 0", 2, MalformedMedia),
            ("v=0\nm=audio 1", 2, MalformedMedia),
            ("v=0\nm=audio 1 RTP/AVP 0\0", 2, MalformedMedia),
            ("v=0\nm=audio 1 RTP/AVP 0\r1", 2, MalformedMedia),
            (&too_many_media, MEDIA_MAX + 2, TooManyMedia),
            (&too_many_formats, 2, TooManyFormats),
            (
                &format!("v=0{}", "\n".repeat(LINES_MAX)),
                LINES_MAX + 1,
                TooManyLines,
            ),
            (&" ".repeat(TEXT_LEN_MAX + 1), 0, TooLong),
        ] {
            assert_eq!(error(text), (line, kind), "{text:?}");
        }
        assert_eq!(
            parse(b"v=0\r\nt=0").unwrap_err().to_string(),
            "session description, line 2: t= is not two numbers"
        );
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        let formats = " 0".repeat(FORMATS_MAX);
        let media = format!("m=audio 1 RTP/AVP{formats}\n").repeat(MEDIA_MAX);
        let head = format!("v=0\n{media}a=x:");
        let text = format!("{head}{}", "y".repeat(TEXT_LEN_MAX - head.len()));
        let description = parse(text.as_bytes()).unwrap();
        assert_eq!(description.media.len(), MEDIA_MAX);
        assert_eq!(description.media[0].formats.len(), FORMATS_MAX);
    }

    #[test]
    fn absent_lines_have_defaults() {
        let description = parse(b"v=0").unwrap();
        assert_eq!(
            description.to_string(),
            "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
        );
    }

    #[test]
    fn all_line_ends_and_odd_lines_are_read() {
        let odd = "v=0 \r\r\n\no=a 1 99999999999999999999999 IN IP4 h.example\ns=\r\nnonsense\n\
            x=unknown\na=\na=:5\nb=AS:64\nc=IN IP4 224.2.1.1/127/3\nc=IN IP4 1.1.1.1\n\
            a=recvonly\na=sendonly\nm=audio 6000/2  RTP/AVP\t0  8 \na=ptime:20\na=fmtp:8 x:y";
        let plain = "v=0\r\no=a 1 18446744073709551615 IN IP4 h.example\r\ns=-\r\n\
            c=IN IP4 224.2.1.1\r\nt=0 0\r\na=sendonly\r\nm=audio 6000/2 RTP/AVP 0 8\r\n\
            a=ptime:20\r\na=fmtp:8 x:y\r\n";
        assert_eq!(parse(odd.as_bytes()).unwrap().to_string(), plain);
    }

    #[test]
    fn bytes_that_are_no_text_become_question_marks() {
        let description = parse(b"v=0\ns=caf\xe9 \xff\xfe!\na=x:\x80").unwrap();
        assert_eq!(description.session_name, "caf? ??!");
        assert_eq!(description.attributes, [Attribute::new("x", "?")]);
    }

    #[test]
    fn the_address_tells_its_own_family() {
        let description = parse(b"v=0\nc=IN IP4 2001:db8::1").unwrap();
        assert_eq!(
            description.to_string().lines().nth(3),
            Some("c=IN IP6 2001:db8::1")
        );
    }

    #[test]
    fn an_address_may_stand_in_brackets() {
        for (text, host) in [
            ("[::1]", Host::Ip("::1".parse().unwrap())),
            ("[::1", Host::Name("[::1".to_owned())),
        ] {
            let description = parse(format!("v=0\nc=IN IP6 {text}").as_bytes()).unwrap();
            assert_eq!(description.connection, Some(host), "{text}");
        }
    }
}
