//! Reads what a session description says about a channel; the rest of it is stepped over.

use super::{
    Connection, Description, FINGERPRINTS_MAX, Fingerprint, MEDIA_MAX, Rejection, SDP_LEN_MAX,
    Setup, Transport,
};

/// Longest host and longest id.
const WORD_LEN_MAX: usize = 255;

/// Reads an offer or an answer.
///
/// # Errors
/// It is no session description, or has not exactly one channel with an id.
pub fn read(sdp: &[u8]) -> Result<Description, Rejection> {
    let is_short = sdp.len() <= SDP_LEN_MAX;
    let text = str::from_utf8(sdp).ok().filter(|_| is_short);
    let mut lines = text.ok_or(Rejection::Malformed)?.lines();
    if lines.next() != Some("v=0") {
        return Err(Rejection::Malformed);
    }
    let mut session = Level::default();
    let mut channel: Option<(Transport, u16, Level)> = None;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    // Whether the lines belong to a medium that is none of ours.
    let mut is_others = false;
    for line in lines {
        if line.is_empty() {
            continue;
        }
        let (kind, value) = line.split_once('=').ok_or(Rejection::Malformed)?;
        if kind.len() != 1 || value.contains(char::is_control) {
            return Err(Rejection::Malformed);
        }
        if kind != "m" {
            let level = match &mut channel {
                _ if is_others => continue,
                Some((_, _, level)) => level,
                None => &mut session,
            };
            level.read(kind, value)?;
            continue;
        }
        if before.len() + after.len() == MEDIA_MAX {
            return Err(Rejection::Malformed);
        }
        match (media(value)?, &channel) {
            (Some((port, transport)), None) => {
                is_others = false;
                channel = Some((transport, port, Level::default()));
            }
            (Some(_), Some(_)) => return Err(Rejection::ManyChannels),
            (None, None) => {
                is_others = true;
                before.push(value.to_owned());
            }
            (None, Some(_)) => {
                is_others = true;
                after.push(value.to_owned());
            }
        }
    }
    let (transport, port, level) = channel.ok_or(Rejection::NoChannel)?;
    let cfw_id = match level.cfw_id {
        Some(cfw_id) => cfw_id,
        // A channel that is rejected needs none.
        None if port == 0 => String::new(),
        None => return Err(Rejection::CfwId),
    };
    let fingerprints = match level.fingerprints.is_empty() {
        true => session.fingerprints,
        false => level.fingerprints,
    };
    Ok(Description {
        host: level.host.or(session.host),
        port,
        transport,
        setup: level.setup.or(session.setup),
        connection: level.connection.or(session.connection).unwrap_or_default(),
        cfw_id,
        fingerprints,
        media_before: before,
        media_after: after,
    })
}

/// What lines other than `m=` say, of the session or of the channel.
#[derive(Default)]
struct Level {
    host: Option<String>,
    setup: Option<Setup>,
    connection: Option<Connection>,
    cfw_id: Option<String>,
    fingerprints: Vec<Fingerprint>,
}

impl Level {
    fn read(&mut self, kind: &str, value: &str) -> Result<(), Rejection> {
        if kind == "c" {
            self.host = host(value);
            return Ok(());
        }
        let Some((name, value)) = value.split_once(':').filter(|_| kind == "a") else {
            return Ok(());
        };
        // The grammar of cfw-id wants a space here, the examples have none.
        let value = value.trim_matches(' ');
        match name {
            "setup" => {
                let mut all = Setup::ALL.into_iter();
                let setup = all.find(|setup| value.eq_ignore_ascii_case(setup.as_str()));
                self.setup = Some(setup.ok_or(Rejection::Setup)?);
            }
            "connection" => {
                let mut all = [Connection::New, Connection::Existing].into_iter();
                let connection =
                    all.find(|connection| value.eq_ignore_ascii_case(connection.as_str()));
                self.connection = Some(connection.ok_or(Rejection::Malformed)?);
            }
            "cfw-id" => self.cfw_id = Some(cfw_id(value).ok_or(Rejection::CfwId)?),
            "fingerprint" => {
                // What is unknown or too weak is as good as absent.
                let fingerprint = fingerprint(value);
                let has_room = self.fingerprints.len() < FINGERPRINTS_MAX;
                self.fingerprints.extend(fingerprint.filter(|_| has_room));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Port and transport of an `m=` line, if it is a channel's.
fn media(value: &str) -> Result<Option<(u16, Transport)>, Rejection> {
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    let (Some(media), Some(port), Some(proto)) = (words.next(), words.next(), words.next()) else {
        return Err(Rejection::Malformed);
    };
    let transport = |tls, draft| Some(Transport { tls, draft });
    let is_cfw = media == "application" && words.any(|format| format == "cfw");
    let transport = match proto {
        "TCP" if is_cfw => transport(false, false),
        "TCP/TLS" if is_cfw => transport(true, false),
        "TCP/CFW" if media == "application" => transport(false, true),
        "TCP/TLS/CFW" if media == "application" => transport(true, true),
        _ => None,
    };
    let Some(transport) = transport else {
        return Ok(None);
    };
    let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_number);
    Ok(Some((port.ok_or(Rejection::Malformed)?, transport)))
}

/// `IN IP4 192.0.2.1`, or a name in place of the address. None if it is of no use.
fn host(value: &str) -> Option<String> {
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    let (Some("IN"), Some("IP4" | "IP6"), Some(host)) = (words.next(), words.next(), words.next())
    else {
        return None;
    };
    let host = host.split('/').next()?;
    let is_nowhere = matches!(host, "" | "0.0.0.0" | "::");
    (!is_nowhere && host.len() <= WORD_LEN_MAX).then(|| host.to_owned())
}

/// A token as SDP has them (RFC 8866 §9).
fn cfw_id(value: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte);
    // Its value also is to fit into Dialog-ID, whose characters are others.
    let is_dialog_id = |byte: u8| byte.is_ascii_alphanumeric() || b".-+%=/".contains(&byte);
    let is_id = value
        .bytes()
        .all(|byte| is_token(byte) || is_dialog_id(byte));
    (is_id && (1..=WORD_LEN_MAX).contains(&value.len())).then(|| value.to_owned())
}

/// RFC 8122 §5; None for hashes that must not be used.
fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, hex) = value.split_once(' ')?;
    let hash = hash.to_ascii_lowercase();
    let is_weak = matches!(hash.as_str(), "md2" | "md5");
    let is_known_length = hex.len() <= 64 * 3;
    if is_weak || hash.is_empty() || !is_known_length {
        return None;
    }
    let byte = |digits: &str| {
        let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_byte.then(|| u8::from_str_radix(digits, 16).ok())?
    };
    let bytes: Option<Vec<u8>> = hex.trim().split(':').map(byte).collect();
    Some(Fingerprint {
        hash,
        bytes: bytes?,
    })
}
