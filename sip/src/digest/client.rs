//! Answering challenges (RFC 3261 §22.2, RFC 7616 §3.4, RFC 8760 §2.4).

use std::fmt;

use super::hash;
use super::header::{Authorization, Challenge, Protection, Qop, QopOffer};
use super::quoting::is_quotable;
use super::{Algorithm, Request};

/// Who to be, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Answers the challenges of this realm only; None: of any.
    pub realm: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// An answered challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The value of Authorization after 401, of Proxy-Authorization after 407.
    pub value: String,
    /// The server says that only the nonce was wrong. A second challenge that is not stale means a
    /// wrong password: answering it again is pointless.
    pub stale: bool,
}

/// Answers the topmost of `challenges` that it can: the server prefers it. None if there is none, or
/// the credentials cannot be written.
///
/// `challenges` are the values of one kind of header in the order of the message. `request` has the
/// URI that will be the Request-URI. `client_nonce` is fresh randomness of the caller, `nonce_count`
/// says how often the nonce of the challenge is used with this request: 1 for its first. `auth` is
/// preferred to `auth-int`, and servers without `qop` get the form of RFC 2069.
pub fn answer<'c>(
    challenges: impl IntoIterator<Item = &'c str>,
    credentials: &Credentials,
    request: &Request<'_>,
    client_nonce: &str,
    nonce_count: u32,
) -> Option<Answer> {
    let can_be_written = |text: &str| text.chars().all(is_quotable);
    if ![&credentials.username, request.uri, client_nonce]
        .into_iter()
        .all(can_be_written)
    {
        return None;
    }
    challenges
        .into_iter()
        .filter_map(|value| Challenge::parse(value).ok())
        .filter(|challenge| {
            let realm = credentials.realm.as_deref();
            realm.is_none_or(|realm| realm == challenge.realm)
        })
        .find_map(|challenge| {
            let algorithm = challenge.algorithm?;
            let qop = match challenge.qop {
                QopOffer::Auth | QopOffer::Both => Some(Qop::Auth),
                QopOffer::AuthInt => Some(Qop::AuthInt),
                QopOffer::Absent => None,
                QopOffer::Unknown => return None,
            };
            let protection = qop.map(|qop| Protection {
                qop,
                nonce_count: format!("{nonce_count:08x}").into(),
                client_nonce: client_nonce.into(),
            });
            Some(answer_one(
                challenge,
                algorithm,
                protection,
                credentials,
                request,
            ))
        })
}

fn answer_one(
    challenge: Challenge<'_>,
    algorithm: Algorithm,
    protection: Option<Protection<'_>>,
    credentials: &Credentials,
    request: &Request<'_>,
) -> Answer {
    let Credentials {
        username, password, ..
    } = credentials;
    let ha1 = hash::ha1(algorithm, username, &challenge.realm, password);
    let response = hash::response(
        algorithm,
        &ha1,
        &challenge.nonce,
        protection.as_ref(),
        request,
    )
    .hex();
    let value = Authorization {
        username: username.into(),
        realm: challenge.realm,
        nonce: challenge.nonce,
        uri: request.uri.into(),
        response: response.into(),
        algorithm: Some(algorithm),
        opaque: challenge.opaque,
        protection,
    }
    .to_string();
    Answer {
        value,
        stale: challenge.stale,
    }
}
