//! What this endpoint can do: its methods, options and bodies, as it says of itself and as it judges others.

use bytes::Bytes;

use super::Endpoint;
use super::incoming::Refusal;
use crate::Body;
use crate::message::Message;
use crate::message::build::Extra;

/// What every endpoint does; a focus does [`FOCUS_ALLOW`] as well. The rest of [`KNOWN`] is 405, everything
/// else 501 (RFC 3261 §8.2.1).
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, PRACK, UPDATE";
const FOCUS_ALLOW: &str =
    "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, PRACK, UPDATE, SUBSCRIBE, NOTIFY, REFER, MESSAGE";
const KNOWN: [&str; 7] = [
    "REGISTER",
    "SUBSCRIBE",
    "NOTIFY",
    "REFER",
    "PUBLISH",
    "MESSAGE",
    "BENOTIFY",
];

/// Options this endpoint knows (RFC 3262, 4028, 3891, 3911, 4488).
pub(super) const SUPPORTED: &str = "100rel, timer, replaces, join, norefersub";

pub(super) const SDP: &str = "application/sdp";

impl Endpoint {
    /// Some method that is known here, done or not (RFC 3261 §8.2.1).
    pub(super) fn recognises(&self, method: &str) -> bool {
        KNOWN.contains(&method) || self.allow().split(", ").any(|known| known == method)
    }

    /// The methods this endpoint takes.
    pub(super) fn allow(&self) -> &'static str {
        if self.config.focus {
            FOCUS_ALLOW
        } else {
            ALLOW
        }
    }
}

/// What a 200 to OPTIONS tells (RFC 3261 §11.2).
pub(super) fn capabilities(allow: &str) -> Extra {
    Extra::default()
        .line("Allow", allow)
        .line("Accept", SDP)
        .line("Accept-Encoding", "identity")
        .line("Supported", SUPPORTED)
}

/// The body, if it is a session description; None without a body.
pub(super) fn session_description(message: &Message<'_>) -> Result<Option<Body>, Refusal> {
    if message.body.is_empty() {
        return Ok(None);
    }
    if message
        .words("Content-Encoding")
        .any(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Err(Refusal::with(415, "Accept-Encoding", "identity"));
    }
    match message.header("Content-Type") {
        Some(kind) if is_media_type(kind, SDP) => Ok(Some(Body {
            content_type: SDP.to_owned(),
            content: Bytes::copy_from_slice(message.body),
        })),
        _ => Err(Refusal::with(415, "Accept", SDP)),
    }
}

/// Whether a response may have a body of this kind: without Accept that is SDP (RFC 3261 §20.1).
pub(super) fn accepts(request: &Message<'_>, wanted: &str) -> bool {
    let Some((kind, _)) = wanted
        .split_once('/')
        .filter(|_| request.header("Accept").is_some())
    else {
        return true;
    };
    let any = format!("{kind}/*");
    request.words("Accept").any(|range| {
        [wanted, &any, "*/*"]
            .iter()
            .any(|known| is_media_type(range, known))
    })
}

pub(super) fn is_media_type(value: &str, wanted: &str) -> bool {
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(wanted)
}
