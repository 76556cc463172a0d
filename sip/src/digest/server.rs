//! Asking for credentials, and judging them (RFC 3261 §22.2, RFC 7616 §3.4.6, RFC 8760 §2.3).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::hash::{self, Hash};
use super::header::{Authorization, Challenge, ParseError, Protection, Qop, QopOffer};
use super::nonce::{NonceFault, Nonces};
use super::quoting::is_quotable;
use super::replay::UseId;
use super::{Algorithm, Request, Secret, uri};

/// Shortest secret that signs nonces, in octets: 128 bits are beyond guessing.
pub const SECRET_LEN_MIN: usize = 16;
/// Longest realm in octets, so that credentials of ours stay far below the bound on headers.
const REALM_LEN_MAX: usize = 256;

/// How to ask for credentials. Servers that share `realm`, `secret` and `nonce_lifetime` take each
/// other's nonces, so a redirected client is challenged once.
#[derive(Clone)]
pub struct Config {
    /// What users see beside the field for their password; part of every HA1.
    pub realm: String,
    /// Signs nonces; at least [`SECRET_LEN_MIN`] octets of good randomness.
    pub secret: Vec<u8>,
    /// How long a nonce can be used, and credentials be replayed where nobody counts.
    pub nonce_lifetime: Duration,
    /// One challenge each, the preferred first: SHA-256, then MD5 for old phones.
    pub algorithms: Vec<Algorithm>,
    /// Offers `auth-int` beside `auth`. Proxies and border controllers that change bodies break it.
    pub qop_auth_int: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("realm", &self.realm)
            .field("nonce_lifetime", &self.nonce_lifetime)
            .field("algorithms", &self.algorithms)
            .field("qop_auth_int", &self.qop_auth_int)
            .finish_non_exhaustive()
    }
}

/// Why there is no [`Authenticator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Empty, too long, or with characters that cannot be sent.
    Realm,
    /// Shorter than [`SECRET_LEN_MIN`].
    Secret,
    /// Zero: every nonce would have expired when it arrives.
    NonceLifetime,
    /// None, or one twice: challenges must differ (RFC 8760 §2.3).
    Algorithms,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Realm => write!(
                f,
                "a realm has 1 to {REALM_LEN_MAX} octets and no control characters"
            ),
            Self::Secret => write!(f, "a secret has at least {SECRET_LEN_MIN} octets"),
            Self::NonceLifetime => f.write_str("the lifetime of nonces is zero"),
            Self::Algorithms => f.write_str("at least one algorithm, none twice"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Whose request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub username: String,
    pub algorithm: Algorithm,
    pub qop: Qop,
    /// When the nonce expires, since 1970.
    pub(super) expiry: Duration,
    pub(super) use_id: UseId,
    pub(super) nonce_count: u32,
}

/// Why credentials are not accepted. Whatever it is, the peer is to be told the same: a challenge,
/// with `stale` as [`is_stale`](Self::is_stale) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Malformed(ParseError),
    /// For somebody else: another value of the header may be for us (RFC 3261 §22.3).
    WrongRealm,
    /// An algorithm that was not offered.
    Algorithm,
    /// No quality of protection, or one that was not offered.
    Qop,
    /// For another URI than the one asked for.
    UriMismatch,
    /// No such user, or none who may use this algorithm.
    UnknownUser,
    /// The wrong password, or a request that was changed on its way.
    BadResponse,
    /// The password is right and the nonce has expired.
    Stale,
    /// The password is right and the nonce not from a server of this secret and realm: made up, or
    /// from before the secret changed.
    ForeignNonce,
}

impl Failure {
    /// The client knows the password: challenged with `stale=true` it asks its user nothing.
    pub const fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::ForeignNonce)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(error) => return write!(f, "malformed credentials: {error}"),
            Self::WrongRealm => "credentials for another realm",
            Self::Algorithm => "an algorithm that was not offered",
            Self::Qop => "a quality of protection that was not offered",
            Self::UriMismatch => "credentials for another URI",
            Self::UnknownUser => "unknown user",
            Self::BadResponse => "wrong response",
            Self::Stale => "an expired nonce",
            Self::ForeignNonce => "a nonce that is not ours",
        })
    }
}

impl std::error::Error for Failure {}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::Malformed(error)
    }
}

/// Challenges, and verifies what comes back. Clones share their parts; it never changes, so threads
/// may share it too.
#[derive(Clone)]
pub struct Authenticator(Arc<Parts>);

struct Parts {
    realm: String,
    algorithms: Vec<Algorithm>,
    qop: QopOffer,
    nonces: Nonces,
    opaque: String,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("realm", &self.0.realm)
            .field("algorithms", &self.0.algorithms)
            .field("qop", &self.0.qop)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// # Errors
    /// The configuration makes no sense or would not be safe.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let Config {
            realm,
            secret,
            nonce_lifetime,
            algorithms,
            qop_auth_int,
        } = config;
        if realm.is_empty() || realm.len() > REALM_LEN_MAX || !realm.chars().all(is_quotable) {
            return Err(ConfigError::Realm);
        }
        if secret.len() < SECRET_LEN_MIN {
            return Err(ConfigError::Secret);
        }
        if nonce_lifetime.is_zero() {
            return Err(ConfigError::NonceLifetime);
        }
        let is_repeated = |(index, algorithm)| algorithms[..index].contains(algorithm);
        if algorithms.is_empty() || algorithms.iter().enumerate().any(is_repeated) {
            return Err(ConfigError::Algorithms);
        }
        let nonces = Nonces::new(&secret, &realm, nonce_lifetime);
        Ok(Self(Arc::new(Parts {
            qop: if qop_auth_int {
                QopOffer::Both
            } else {
                QopOffer::Auth
            },
            opaque: nonces.opaque(),
            realm,
            algorithms,
            nonces,
        })))
    }

    pub fn realm(&self) -> &str {
        &self.0.realm
    }

    /// The values of WWW-Authenticate or Proxy-Authenticate, each for a header line of its own, the
    /// preferred first. `now` is the wall clock, which the servers of a cluster share.
    pub fn challenges(&self, now: SystemTime, stale: bool) -> Vec<String> {
        let now = since_1970(now);
        let challenge = |&algorithm| {
            Challenge {
                realm: self.0.realm.as_str().into(),
                nonce: self.0.nonces.issue(now, algorithm).into(),
                opaque: Some(self.0.opaque.as_str().into()),
                algorithm: Some(algorithm),
                qop: self.0.qop,
                stale,
            }
            .to_string()
        };
        self.0.algorithms.iter().map(challenge).collect()
    }

    /// Judges a value of Authorization or Proxy-Authorization of `request`; `lookup` finds what is
    /// known about a user.
    ///
    /// A name that `lookup` does not find costs as much time as a wrong password, so that names cannot
    /// be told apart by it. A request with several values is the first one's that is not
    /// [`Failure::WrongRealm`]. Whether it is a replay says [`NonceCounts`](super::NonceCounts).
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn verify<'s>(
        &self,
        now: SystemTime,
        credentials: &str,
        request: &Request<'_>,
        lookup: impl FnOnce(&str) -> Option<&'s Secret>,
    ) -> Result<Verified, Failure> {
        let given = Authorization::parse(credentials)?;
        if given.realm != self.0.realm {
            return Err(Failure::WrongRealm);
        }
        let algorithm = given
            .algorithm
            .filter(|algorithm| self.0.algorithms.contains(algorithm))
            .ok_or(Failure::Algorithm)?;
        let protection = given.protection.as_ref().ok_or(Failure::Qop)?;
        if protection.qop == Qop::AuthInt && self.0.qop != QopOffer::Both {
            return Err(Failure::Qop);
        }
        if !uri::is_same(&given.uri, request.uri) {
            return Err(Failure::UriMismatch);
        }
        self.check_response(
            algorithm,
            &given,
            protection,
            request,
            lookup(&given.username),
        )?;
        // Only now: who does not know the password learns nothing about nonces, and is never told
        // to try again without asking its user.
        let expiry = self
            .0
            .nonces
            .expiry(&given.nonce, since_1970(now), algorithm)
            .map_err(|fault| match fault {
                NonceFault::Foreign => Failure::ForeignNonce,
                NonceFault::Expired => Failure::Stale,
            })?;
        let nonce_count = u32::from_str_radix(&protection.nonce_count, 16)
            .map_err(|_| ParseError::Value("nc"))?;
        Ok(Verified {
            use_id: use_id(&given, protection),
            username: given.username.into_owned(),
            algorithm,
            qop: protection.qop,
            expiry,
            nonce_count,
        })
    }

    /// The same work for every user, whatever is known.
    fn check_response(
        &self,
        algorithm: Algorithm,
        given: &Authorization<'_>,
        protection: &Protection<'_>,
        request: &Request<'_>,
        secret: Option<&Secret>,
    ) -> Result<(), Failure> {
        let (password, stored) = match secret {
            Some(Secret::Password(password)) => (Some(password), None),
            Some(Secret::Ha1 { sha256, md5 }) => match algorithm {
                Algorithm::Sha256 => (None, sha256.map(Hash::Sha256)),
                Algorithm::Md5 => (None, md5.map(Hash::Md5)),
            },
            None => (None, None),
        };
        let is_known = password.is_some() || stored.is_some();
        let password = password.map_or("", String::as_str);
        let computed = hash::ha1(algorithm, &given.username, &self.0.realm, password);
        let signed = Request {
            uri: &given.uri,
            ..*request
        };
        let ha1 = stored.unwrap_or(computed);
        let expected = hash::response(algorithm, &ha1, &given.nonce, Some(protection), &signed);
        // Upper case digits are as good; the length is no secret.
        let response = given.response.to_ascii_lowercase();
        let is_right = bool::from(expected.hex().as_bytes().ct_eq(response.as_bytes()));
        match (is_known, is_right) {
            (false, _) => Err(Failure::UnknownUser),
            (true, false) => Err(Failure::BadResponse),
            (true, true) => Ok(()),
        }
    }
}

/// Names a nonce in the hands of one client, with parts that cannot run into each other.
fn use_id(given: &Authorization<'_>, protection: &Protection<'_>) -> UseId {
    let mut hash = Sha256::new();
    for part in [&given.nonce, &given.username, &protection.client_nonce] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// Clocks before 1970 count as 1970.
pub(super) fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
