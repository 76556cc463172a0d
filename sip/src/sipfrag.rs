//! Bodies of the NOTIFYs that tell how a REFER went (RFC 3515 §2.4.5): the start line of a response,
//! as a `message/sipfrag` (RFC 3420).

use bytes::Bytes;

use crate::message::status;

/// Media type of [`write()`]'s result, with the version RFC 3515 asks for.
pub const MEDIA_TYPE: &str = "message/sipfrag;version=2.0";

/// A status line, such as `SIP/2.0 200 OK`. Without a `reason` it gets the usual one. Octets of
/// `reason` that would end the line are left out.
pub fn write(status: u16, reason: &str) -> Bytes {
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    let reason = match reason.is_empty() {
        true => status::reason(status),
        false => &reason,
    };
    format!("SIP/2.0 {status} {reason}\r\n").into()
}

/// The status a fragment begins with; None where it begins with no status line.
pub fn read(fragment: &[u8]) -> Option<u16> {
    let line = fragment.trim_ascii_start().split(|&c| c == b'\n').next()?;
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    if !words.next()?.eq_ignore_ascii_case(b"SIP/2.0") {
        return None;
    }
    match *words.next()? {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            let digit = |octet: u8| u16::from(octet - b'0');
            Some(digit(a) * 100 + digit(b) * 10 + digit(c))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_one_line() {
        for (status, reason, text) in [
            (200, "OK", "SIP/2.0 200 OK\r\n"),
            (100, "", "SIP/2.0 100 Trying\r\n"),
            (486, "Busy\r\nVia: x", "SIP/2.0 486 BusyVia: x\r\n"),
        ] {
            assert_eq!(write(status, reason), text);
            assert_eq!(read(text.as_bytes()), Some(status));
        }
    }

    #[test]
    fn read_as_others_write_it() {
        for (fragment, status) in [
            ("SIP/2.0 200 OK", Some(200)),
            ("SIP/2.0 603\r\n", Some(603)),
            ("\r\nsip/2.0 180 Ringing\nTo: <sip:a@b>\r\n", Some(180)),
            ("SIP/2.0  503  Service Unavailable\r\n\r\n", Some(503)),
            ("", None),
            ("200 OK", None),
            ("SIP/2.0", None),
            ("SIP/2.0\n200", None),
            ("SIP/2.0 99 x", None),
            ("SIP/2.0 700 x", None),
            ("SIP/2.0 2000 x", None),
            ("SIP/2.0 +20 x", None),
            ("SIP/3.0 200 OK", None),
            ("INVITE sip:a@b SIP/2.0", None),
        ] {
            assert_eq!(read(fragment.as_bytes()), status, "{fragment:?}");
        }
    }
}
