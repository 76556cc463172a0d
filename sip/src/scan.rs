//! A look at a message that allocates nothing: enough to tell which endpoint it belongs to.
//!
//! Tolerant on purpose, since what is malformed is found and answered by the endpoint: compact names,
//! names in any case, folded lines, bare line feeds, headers in any order. Work is bounded by the
//! header block.

use std::borrow::Cow;
use std::fmt;

/// Longest header block looked at: no message is longer on UDP, and frames are bounded likewise.
const HEADERS_LEN_MAX: usize = 64 * 1024;

/// Prefix of RFC 3261 branches.
const MAGIC: &[u8] = b"z9hG4bK";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    Request { method: &'a [u8], uri: &'a [u8] },
    Response { code: u16 },
}

/// What a look tells; parts are as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    pub start: Start<'a>,
    pub call_id: &'a [u8],
    pub from_tag: Option<&'a [u8]>,
    pub to_tag: Option<&'a [u8]>,
    /// Of the topmost Via.
    pub branch: Option<&'a [u8]>,
    pub cseq_method: Option<&'a [u8]>,
    /// The To-tag of the dialog that Replaces (RFC 3891) or Join (RFC 3911) names.
    pub named_tag: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// Neither a request line nor a status line.
    StartLine,
    NoCallId,
    HeadersTooLong,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartLine => "no start line",
            Self::NoCallId => "no Call-ID",
            Self::HeadersTooLong => "header block too long",
        })
    }
}

impl std::error::Error for ScanError {}

/// Looks at a message.
///
/// # Errors
/// It has no start line or no Call-ID: no SIP, or not enough of it.
pub fn scan(message: &[u8]) -> Result<Glance<'_>, ScanError> {
    let mut lines = Lines::of(skip_line_ends(message));
    let start = start(lines.next().unwrap_or_default()).ok_or(ScanError::StartLine)?;
    let mut glance = Glance {
        start,
        call_id: &[],
        from_tag: None,
        to_tag: None,
        branch: None,
        cseq_method: None,
        named_tag: None,
    };
    let mut has_via = false;
    for line in &mut lines {
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|&octet| octet == b':') else {
            continue;
        };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        let is = |long: &[u8], short: u8| {
            name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(&[short])
        };
        match name.len() {
            1 | 2 if is(b"To", b't') => {
                glance.to_tag = glance.to_tag.or_else(|| parameter(value, b"tag"))
            }
            1 | 4 if is(b"From", b'f') => {
                glance.from_tag = glance.from_tag.or_else(|| parameter(value, b"tag"))
            }
            1 | 3 if is(b"Via", b'v') && !has_via => {
                has_via = true;
                glance.branch = parameter(first_of_list(value), b"branch");
            }
            1 | 7 if is(b"Call-ID", b'i') && glance.call_id.is_empty() => glance.call_id = value,
            4 if name.eq_ignore_ascii_case(b"CSeq") => {
                glance.cseq_method = value
                    .split(u8::is_ascii_whitespace)
                    .rfind(|word| !word.is_empty());
            }
            4 | 8
                if name.eq_ignore_ascii_case(b"Replaces") || name.eq_ignore_ascii_case(b"Join") =>
            {
                glance.named_tag = glance.named_tag.or_else(|| parameter(value, b"to-tag"));
            }
            _ => {}
        }
    }
    match glance.call_id {
        _ if lines.taken > HEADERS_LEN_MAX => Err(ScanError::HeadersTooLong),
        [] => Err(ScanError::NoCallId),
        _ => Ok(glance),
    }
}

/// The values of a header of `message`, in order and as written; `compact` is its one-letter name.
pub fn headers<'a>(
    message: &'a [u8],
    name: &str,
    compact: Option<u8>,
) -> impl Iterator<Item = &'a [u8]> {
    Lines::of(skip_line_ends(message))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(move |line| {
            let colon = line.iter().position(|&octet| octet == b':')?;
            let written = line[..colon].trim_ascii();
            let is_it = written.eq_ignore_ascii_case(name.as_bytes())
                || compact.is_some_and(|compact| written.eq_ignore_ascii_case(&[compact]));
            is_it.then(|| line[colon + 1..].trim_ascii())
        })
}

impl Glance<'_> {
    /// The endpoint whose tag or branch this message carries: of a request the To-tag, of a response the
    /// branch.
    pub fn owner(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => owner_in(self.to_tag?),
            Start::Response { .. } => owner_in(self.branch?.strip_prefix(MAGIC)?),
        }
    }

    /// The endpoint of the dialog that a new call is to replace or join.
    pub fn named_owner(&self) -> Option<u16> {
        self.named_tag.and_then(owner_in)
    }

    /// User part of the Request-URI, unescaped.
    pub fn user(&self) -> Option<Cow<'_, str>> {
        match self.start {
            Start::Request { uri, .. } => user_of(str::from_utf8(uri).ok()?),
            Start::Response { .. } => None,
        }
    }

    /// It is for a room rather than for a dialog: who handles it follows from the room.
    pub fn is_for_room(&self) -> bool {
        let Start::Request { method, .. } = self.start else {
            return false;
        };
        let is_for_room = matches!(
            method,
            b"INVITE" | b"CANCEL" | b"ACK" | b"SUBSCRIBE" | b"REFER" | b"MESSAGE"
        );
        self.to_tag.is_none() && is_for_room
    }
}

/// User part of a `sip:` URI, without password and parameters, unescaped.
pub fn user_of(uri: &str) -> Option<Cow<'_, str>> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    let user = rest.split_once('@')?.0.split([':', ';']).next()?;
    if user.is_empty() {
        return None;
    }
    unescape(user)
}

/// Resolves `%` escapes; None where one is malformed or the result is not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok().map(Cow::Owned)
}

/// Reads the number before the first `-`.
fn owner_in(text: &[u8]) -> Option<u16> {
    let digits = text.split(|&octet| octet == b'-').next()?;
    // Everything of ours has the rest as well, and is in lower case; the conversion alone would take a sign.
    let is_digit = |octet: &u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() > 4 || digits.len() == text.len() || !digits.iter().all(is_digit) {
        return None;
    }
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// What follows the line ends before a start line (RFC 3261 §7.5).
pub(crate) fn skip_line_ends(message: &[u8]) -> &[u8] {
    let is_text = |octet: &u8| !matches!(octet, b'\r' | b'\n');
    &message[message.iter().position(is_text).unwrap_or(message.len())..]
}

/// Lines of the header block, each with its folded continuations.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    taken: usize,
}

impl<'a> Lines<'a> {
    pub(crate) const fn of(rest: &'a [u8]) -> Self {
        Self { rest, taken: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || self.taken > HEADERS_LEN_MAX {
            return None;
        }
        let line_end = |from: usize| {
            let feed = self.rest[from..].iter().position(|&octet| octet == b'\n');
            feed.map_or(self.rest.len(), |feed| from + feed + 1)
        };
        let mut end = line_end(0);
        // A line that begins with white space continues the one before (RFC 3261 §7.3.1); the empty line has
        // none to continue. Continuations are not looked at again, or many would cost their square.
        if !self.rest[..end].trim_ascii().is_empty() {
            while matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                end = line_end(end);
            }
        }
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.taken += end;
        Some(line.trim_ascii())
    }
}

fn start(line: &[u8]) -> Option<Start<'_>> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let first = words.next()?;
    let second = words.next()?;
    if first.len() > 4 && first[..4].eq_ignore_ascii_case(b"SIP/") {
        return Some(Start::Response {
            code: str::from_utf8(second).ok()?.parse().ok()?,
        });
    }
    let version = line
        .trim_ascii_end()
        .rsplit(u8::is_ascii_whitespace)
        .next()?;
    let is_sip = version.len() > 4 && version[..4].eq_ignore_ascii_case(b"SIP/");
    is_sip.then_some(Start::Request {
        method: first,
        uri: second,
    })
}

/// What comes before the first comma that separates values.
fn first_of_list(value: &[u8]) -> &[u8] {
    let (mut quoted, mut escaped) = (false, false);
    let end = value.iter().position(|&octet| {
        quoted ^= octet == b'"' && !escaped;
        escaped = octet == b'\\' && quoted && !escaped;
        octet == b',' && !quoted
    });
    &value[..end.unwrap_or(value.len())]
}

/// The value of a parameter of the header itself: behind the address, outside quotes and brackets.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    let mut at = 0;
    while at < value.len() {
        match value[at] {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !bracketed => quoted = !quoted,
            b'<' if !quoted => bracketed = true,
            b'>' if !quoted => bracketed = false,
            b';' if !quoted && !bracketed => {
                let rest = &value[at + 1..];
                let end = rest
                    .iter()
                    .position(|octet| matches!(octet, b';' | b',' | b'>'))
                    .unwrap_or(rest.len());
                if let Some(equals) = rest[..end].iter().position(|&octet| octet == b'=')
                    && rest[..equals].trim_ascii().eq_ignore_ascii_case(name)
                {
                    return Some(rest[equals + 1..end].trim_ascii())
                        .filter(|value| !value.is_empty());
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INVITE: &[u8] = b"\r\nINVITE sip:lobby;x=1:pw@h SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK2f-abc;x=\",\\\"\";rport, SIP/2.0/UDP b;branch=no\r\n\
        Via: SIP/2.0/UDP c;branch=no\r\nFROM : \"x;tag=no \\\" <\" <sip:a@b;tag=no>\r\n ;tag=yes\r\nt: sip:lobby@h;tag=1a-77\r\n\
        i:  id@x \r\nCSeq: 1   INVITE\nMax-Forwards: 70\r\n\r\nCall-ID: body";

    #[test]
    fn a_glance_sees_through_every_way_of_writing() {
        let glance = scan(INVITE).unwrap();
        assert_eq!(glance.call_id, b"id@x");
        assert_eq!(glance.from_tag, Some(b"yes".as_slice()));
        assert_eq!(glance.to_tag, Some(b"1a-77".as_slice()));
        assert_eq!(glance.branch, Some(b"z9hG4bK2f-abc".as_slice()));
        assert_eq!(glance.cseq_method, Some(b"INVITE".as_slice()));
        assert_eq!((glance.owner(), glance.is_for_room()), (Some(0x1a), false));
        assert_eq!(glance.user().as_deref(), Some("lobby"));
    }

    #[test]
    fn a_response_is_owned_by_its_branch() {
        let owner = |branch: &str| {
            let text = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch={branch}\r\nTo: <sip:a@b>;tag=7-x\r\nCall-ID: i\r\n\r\n"
            );
            scan(text.as_bytes()).unwrap().owner()
        };
        assert_eq!(owner("z9hG4bK2-00ff"), Some(2));
        assert_eq!(owner("z9hG4bKffff-0"), Some(0xffff));
        for foreign in [
            "z9hG4bK-524287-1-",
            "z9hG4bKabcdef",
            "z9hG4bK12345-1",
            "2-00ff",
            "z9hG4bKxy-1",
            "z9hG4bK+1-1",
            "z9hG4bK1A-1",
            "z9hG4bK-1",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_dialog_to_be_replaced_or_joined_is_seen() {
        let named = |line: &str| {
            let text = format!("INVITE sip:a@b SIP/2.0\r\nCall-ID: i\r\n{line}\r\n\r\n");
            let glance = scan(text.as_bytes()).unwrap();
            (glance.named_owner(), glance.owner())
        };
        let here = (Some(0x1f), None);
        assert_eq!(named("Replaces: x@y;from-tag=2-a;to-tag=1f-b"), here);
        assert_eq!(named("JOIN: x ; to-tag=1f-b;from-tag=2-a"), here);
        assert_eq!(
            named("replaces: x;to-tag=theirs;from-tag=1f-b"),
            (None, None)
        );
        assert_eq!(named("Join: x;from-tag=1f-b"), (None, None));
        assert_eq!(named("Subject: x;to-tag=1f-b"), (None, None));
    }

    #[test]
    fn headers_are_found_by_either_name_and_in_order() {
        let values = |name, compact| -> Vec<String> {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            headers(INVITE, name, compact).map(text).collect()
        };
        let vias = values("Via", Some(b'v'));
        assert_eq!(vias.len(), 2);
        assert!(vias[0].starts_with("SIP/2.0/UDP a;") && vias[1].starts_with("SIP/2.0/UDP c;"));
        assert_eq!(values("call-id", Some(b'i')), ["id@x"], "none of the body");
        assert_eq!(values("Contact", None), [""; 0]);
    }

    #[test]
    fn users_are_unescaped() {
        assert_eq!(user_of("sip:%6cobby@h").as_deref(), Some("lobby"));
        assert_eq!(user_of("SIP:a%20b@h").as_deref(), Some("a b"));
        for none in [
            "sip:h",
            "tel:+1@x",
            "sip:@h",
            "sip:%zz@h",
            "sip:%f@h",
            "sip:%ff@h",
            "lobby",
        ] {
            assert_eq!(user_of(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_sip_is_told() {
        assert_eq!(scan(b""), Err(ScanError::StartLine));
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r\n"), Err(ScanError::StartLine));
        assert_eq!(scan(b"SIP/2.0 abc\r\n\r\n"), Err(ScanError::StartLine));
        assert_eq!(
            scan(b"BYE sip:a@b SIP/2.0\r\n\r\nCall-ID: x\r\n"),
            Err(ScanError::NoCallId)
        );
        let endless = [
            b"BYE sip:a@b SIP/2.0\r\nCall-ID: x\r\nA: ".as_slice(),
            &vec![b'a'; 70_000],
        ]
        .concat();
        assert_eq!(scan(&endless), Err(ScanError::HeadersTooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(glance) = scan(&bytes) {
                let _ = (glance.owner(), glance.user());
            }
        }

        #[test]
        fn no_damage_panics(at in 0..INVITE.len(), octet in any::<u8>(), cut in 0..INVITE.len()) {
            let mut bytes = INVITE.to_vec();
            bytes[at] = octet;
            if let Ok(glance) = scan(&bytes[..cut]) {
                let _ = (glance.owner(), glance.user());
            }
        }
    }
}
