//! Blanks out of a message what could be used to log in or to decrypt.
//!
//! Octet for octet, so that lengths stay true. Credentials (RFC 3261 §22, RFC 7616): the digest
//! itself, which a dictionary turns into the password, and whatever follows any other scheme. SDP:
//! `a=crypto` keys (RFC 4568 §9.1), `a=ice-pwd` (RFC 8839 §5.4), `k=` (RFC 8866 §5.12).

use std::borrow::Cow;
use std::ops::Range;

const BLANK: u8 = b'*';

/// The message without its secrets; borrowed when there are none.
pub(super) fn redact(message: &[u8]) -> Cow<'_, [u8]> {
    let secrets = secrets(message);
    if secrets.is_empty() {
        return Cow::Borrowed(message);
    }
    let mut copy = message.to_vec();
    for octet in secrets.into_iter().flatten() {
        if !matches!(copy[octet], b'\r' | b'\n') {
            copy[octet] = BLANK;
        }
    }
    Cow::Owned(copy)
}

fn secrets(message: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    // Line ends may stand before the start line (RFC 3261 §7.5).
    let (mut begun, mut in_body) = (false, false);
    // Where a header with credentials began, while its folded lines go on.
    let mut credentials: Option<usize> = None;
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        let start = at;
        at += line.len();
        if in_body {
            found.extend(of_sdp(line).map(|secret| secret.start + start..secret.end + start));
            continue;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            continue;
        }
        if let Some(from) = credentials.take() {
            of_credentials(message, from..start, &mut found);
        }
        let name = line.split(|&octet| octet == b':').next().unwrap_or(&[]);
        let is = |other: &str| name.trim_ascii().eq_ignore_ascii_case(other.as_bytes());
        if name.len() < line.len() && (is("Authorization") || is("Proxy-Authorization")) {
            credentials = Some(start + name.len() + 1);
        }
        let empty = line.trim_ascii().is_empty();
        in_body = begun && empty;
        begun |= !empty;
    }
    if let Some(from) = credentials {
        of_credentials(message, from..message.len(), &mut found);
    }
    found
}

/// `value` of a header: `Digest name=value, …`, or another scheme with its token.
fn of_credentials(message: &[u8], value: Range<usize>, found: &mut Vec<Range<usize>>) {
    let text = &message[value.clone()];
    let scheme_at = text.len() - text.trim_ascii_start().len();
    let rest_at = text[scheme_at..]
        .iter()
        .position(u8::is_ascii_whitespace)
        .map_or(text.len(), |len| scheme_at + len);
    if !text[scheme_at..rest_at].eq_ignore_ascii_case(b"Digest") {
        // Line ends stay, whatever is between them.
        return found.push(value.start + rest_at..value.end);
    }
    let mut at = rest_at;
    while at < text.len() {
        let end = parameter_end(text, at);
        let parameter = &text[at..end];
        if let Some(equals) = parameter.iter().position(|&octet| octet == b'=')
            && parameter[..equals]
                .trim_ascii()
                .eq_ignore_ascii_case(b"response")
        {
            let secret = &parameter[equals + 1..];
            let quoted = |octet: &u8| *octet != b'"' && !octet.is_ascii_whitespace();
            let first = secret.iter().position(quoted).unwrap_or(secret.len());
            let last = secret
                .iter()
                .rposition(quoted)
                .map_or(first, |last| last + 1);
            let base = value.start + at + equals + 1;
            found.push(base + first..base + last);
        }
        at = end + 1;
    }
}

/// Where the parameter that begins at `from` ends: at a comma outside quotes.
fn parameter_end(text: &[u8], from: usize) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &octet) in text.iter().enumerate().skip(from) {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn of_sdp(line: &[u8]) -> Option<Range<usize>> {
    let len = line.trim_ascii_end().len();
    let find = |part: &[u8]| line.windows(part.len()).position(|window| window == part);
    if line.starts_with(b"a=ice-pwd:") {
        Some(b"a=ice-pwd:".len()..len)
    } else if line.starts_with(b"k=") {
        Some(2..len)
    } else if line.starts_with(b"a=crypto:") {
        // Several keys stand in one line; what is between them may go with them.
        find(b"inline:").map(|at| at + b"inline:".len()..len)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: &str) {
        let redacted = redact(message.as_bytes());
        assert_eq!(str::from_utf8(&redacted).unwrap(), expected);
        assert_eq!(redacted.len(), message.len());
    }

    #[test]
    fn credentials_are_blanked_and_the_rest_is_not() {
        check(
            "REGISTER sip:a SIP/2.0\r\nAuthorization: Digest username=\"bob\", realm=\"a,response=\\\"x\\\"\", \
             response=\"0123abcd\", uri=\"sip:a\"\r\nCSeq: 1 REGISTER\r\n\r\n",
            "REGISTER sip:a SIP/2.0\r\nAuthorization: Digest username=\"bob\", realm=\"a,response=\\\"x\\\"\", \
             response=\"********\", uri=\"sip:a\"\r\nCSeq: 1 REGISTER\r\n\r\n",
        );
        check(
            "BYE sip:a SIP/2.0\r\nPROXY-authorization :  digest\r\n Response = abc\r\n\r\n",
            "BYE sip:a SIP/2.0\r\nPROXY-authorization :  digest\r\n Response = ***\r\n\r\n",
        );
        check(
            "BYE sip:a SIP/2.0\r\nAuthorization: Basic Ym9iOng=\r\nTo: b\r\n\r\n",
            "BYE sip:a SIP/2.0\r\nAuthorization: Basic*********\r\nTo: b\r\n\r\n",
        );
        check(
            "\r\n\r\nBYE sip:a SIP/2.0\r\nAuthorization: Bearer b\r\n",
            "\r\n\r\nBYE sip:a SIP/2.0\r\nAuthorization: Bearer**\r\n",
        );
        check(
            "BYE sip:a SIP/2.0\r\nAuthorization: Digest uri=\"sip:a\", response=\"abc\" \r\n\r\n",
            "BYE sip:a SIP/2.0\r\nAuthorization: Digest uri=\"sip:a\", response=\"***\" \r\n\r\n",
        );
        // Cut off in the middle.
        check(
            "BYE sip:a SIP/2.0\r\nAuthorization: Digest response=\"ab",
            "BYE sip:a SIP/2.0\r\nAuthorization: Digest response=\"**",
        );
    }

    #[test]
    fn keys_of_a_description_are_blanked() {
        check(
            "SIP/2.0 200 OK\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc|2^20\r\n\
             a=ice-pwd:hush\r\na=ice-ufrag:ab\r\nk=clear:me\r\n",
            "SIP/2.0 200 OK\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:********\r\n\
             a=ice-pwd:****\r\na=ice-ufrag:ab\r\nk=********\r\n",
        );
    }

    #[test]
    fn what_has_no_secret_is_not_copied() {
        for message in [
            "SIP/2.0 200 OK\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n\r\nk2=x",
            "Authorization",
            "",
            "\r\n\r\n",
            "k=1\r\na=ice-pwd:no-body\r\n",
        ] {
            assert!(
                matches!(redact(message.as_bytes()), Cow::Borrowed(_)),
                "{message}"
            );
        }
    }
}
