//! The values of WWW-Authenticate and Authorization, and of their Proxy- twins, read and written
//! (RFC 3261 §20.7, §20.44, §25.1; RFC 8760 §2.2).
//!
//! Parameters may come in any order, names and keywords in any case; unknown ones are ignored, known
//! ones that come twice are refused.

use std::borrow::Cow;
use std::fmt;

use super::Algorithm;
use super::quoting::{BadParameter, Parameters, Quoted, is_space};

/// Longest value looked at, in octets: four times the longest that phones send.
pub const HEADER_LEN_MAX: usize = 4096;

/// Why a value is no digest challenge or credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Another scheme, such as Basic or Bearer.
    NotDigest,
    /// Longer than [`HEADER_LEN_MAX`].
    TooLong,
    /// Not a list of parameters, or too many of them.
    Syntax,
    /// A known parameter with a value it cannot have.
    Value(&'static str),
    /// A known parameter twice.
    Twice(&'static str),
    /// A parameter that must be there.
    Missing(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDigest => f.write_str("not of the scheme Digest"),
            Self::TooLong => write!(f, "longer than {HEADER_LEN_MAX} octets"),
            Self::Syntax => f.write_str("not a list of parameters"),
            Self::Value(name) => write!(f, "bad value of {name}"),
            Self::Twice(name) => write!(f, "{name} twice"),
            Self::Missing(name) => write!(f, "no {name}"),
        }
    }
}

impl std::error::Error for ParseError {}

impl From<BadParameter> for ParseError {
    fn from(_: BadParameter) -> Self {
        Self::Syntax
    }
}

/// Quality of protection: what is hashed beside method and URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop {
    Auth,
    /// The body too.
    AuthInt,
}

impl Qop {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Auth, Self::AuthInt]
            .into_iter()
            .find(|qop| qop.name().eq_ignore_ascii_case(name))
    }
}

/// What a server's `qop` lets a client choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QopOffer {
    /// No `qop`: a server of the time of RFC 2069.
    Absent,
    Auth,
    AuthInt,
    Both,
    /// Only what we do not know.
    Unknown,
}

impl QopOffer {
    fn from_list(list: &str) -> Self {
        let offers = |qop| {
            list.split(',')
                .any(|name| Qop::from_name(name.trim()) == Some(qop))
        };
        match (offers(Qop::Auth), offers(Qop::AuthInt)) {
            (true, true) => Self::Both,
            (true, false) => Self::Auth,
            (false, true) => Self::AuthInt,
            (false, false) if list.trim().is_empty() => Self::Absent,
            (false, false) => Self::Unknown,
        }
    }

    const fn list(self) -> &'static str {
        match self {
            Self::Absent => "",
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
            Self::Both => "auth,auth-int",
            Self::Unknown => "unknown",
        }
    }
}

/// A value of WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    pub realm: Cow<'a, str>,
    pub nonce: Cow<'a, str>,
    pub opaque: Option<Cow<'a, str>>,
    /// MD5 where the server names none; None for one we do not know.
    pub algorithm: Option<Algorithm>,
    pub qop: QopOffer,
    /// The credentials were right but for their nonce: asking the user again is needless.
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    /// # Errors
    /// It is no digest challenge, or one without realm or nonce.
    pub fn parse(value: &'a str) -> Result<Self, ParseError> {
        let [realm, nonce, opaque, algorithm, qop, stale] = known(
            value,
            ["realm", "nonce", "opaque", "algorithm", "qop", "stale"],
        )?;
        Ok(Self {
            realm: realm.ok_or(ParseError::Missing("realm"))?,
            nonce: nonce.ok_or(ParseError::Missing("nonce"))?,
            opaque,
            algorithm: algorithm_or_md5(algorithm.as_deref()),
            qop: QopOffer::from_list(qop.as_deref().unwrap_or_default()),
            stale: stale.is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }
}

/// What we do not know is written as `unknown`.
impl fmt::Display for Challenge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (realm, nonce) = (Quoted(&self.realm), Quoted(&self.nonce));
        write!(f, "Digest realm={realm}, nonce={nonce}")?;
        if self.qop != QopOffer::Absent {
            write!(f, ", qop={}", Quoted(self.qop.list()))?;
        }
        write_optional(f, "opaque", self.opaque.as_deref())?;
        write!(f, ", algorithm={}", algorithm_name(self.algorithm))?;
        f.write_str(if self.stale { ", stale=true" } else { "" })
    }
}

/// A value of Authorization or Proxy-Authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    pub username: Cow<'a, str>,
    pub realm: Cow<'a, str>,
    pub nonce: Cow<'a, str>,
    /// The Request-URI as the client knows it.
    pub uri: Cow<'a, str>,
    /// In hexadecimal digits.
    pub response: Cow<'a, str>,
    /// MD5 where the client names none; None for one we do not know.
    pub algorithm: Option<Algorithm>,
    pub opaque: Option<Cow<'a, str>>,
    /// None in the form of RFC 2069.
    pub protection: Option<Protection<'a>>,
}

/// The parameters that come together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection<'a> {
    pub qop: Qop,
    /// Eight hexadecimal digits, as written.
    pub nonce_count: Cow<'a, str>,
    pub client_nonce: Cow<'a, str>,
}

impl<'a> Authorization<'a> {
    /// # Errors
    /// It is no digest credentials, a parameter is missing, or `qop`, `nc` or `cnonce` is senseless.
    pub fn parse(value: &'a str) -> Result<Self, ParseError> {
        let names = [
            "username",
            "realm",
            "nonce",
            "uri",
            "response",
            "algorithm",
            "opaque",
            "qop",
            "nc",
            "cnonce",
        ];
        let [
            username,
            realm,
            nonce,
            uri,
            response,
            algorithm,
            opaque,
            qop,
            nc,
            cnonce,
        ] = known(value, names)?;
        Ok(Self {
            username: username.ok_or(ParseError::Missing("username"))?,
            realm: realm.ok_or(ParseError::Missing("realm"))?,
            nonce: nonce.ok_or(ParseError::Missing("nonce"))?,
            uri: uri.ok_or(ParseError::Missing("uri"))?,
            response: response.ok_or(ParseError::Missing("response"))?,
            algorithm: algorithm_or_md5(algorithm.as_deref()),
            opaque,
            protection: qop
                .map(|qop| Protection::of(&qop, nc, cnonce))
                .transpose()?,
        })
    }
}

impl<'a> Protection<'a> {
    fn of(
        qop: &str,
        nonce_count: Option<Cow<'a, str>>,
        client_nonce: Option<Cow<'a, str>>,
    ) -> Result<Self, ParseError> {
        let nonce_count = nonce_count.ok_or(ParseError::Missing("nc"))?;
        if nonce_count.len() != 8 || !nonce_count.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ParseError::Value("nc"));
        }
        Ok(Self {
            qop: Qop::from_name(qop).ok_or(ParseError::Value("qop"))?,
            nonce_count,
            client_nonce: client_nonce.ok_or(ParseError::Missing("cnonce"))?,
        })
    }
}

/// What we do not know is written as `unknown`.
impl fmt::Display for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Digest username={}, realm={}, nonce={}, uri={}, response={}, algorithm={}",
            Quoted(&self.username),
            Quoted(&self.realm),
            Quoted(&self.nonce),
            Quoted(&self.uri),
            Quoted(&self.response),
            algorithm_name(self.algorithm),
        )?;
        write_optional(f, "opaque", self.opaque.as_deref())?;
        if let Some(protection) = &self.protection {
            write!(
                f,
                ", qop={}, nc={}, cnonce={}",
                protection.qop.name(),
                protection.nonce_count,
                Quoted(&protection.client_nonce),
            )?;
        }
        Ok(())
    }
}

/// The values of `names` in a list of digest parameters, in the order of `names`.
fn known<'a, const N: usize>(
    value: &'a str,
    names: [&'static str; N],
) -> Result<[Option<Cow<'a, str>>; N], ParseError> {
    if value.len() > HEADER_LEN_MAX {
        return Err(ParseError::TooLong);
    }
    let value = value.trim_matches(is_space);
    let (scheme, list) = value.split_once(is_space).unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("Digest") {
        return Err(ParseError::NotDigest);
    }
    let mut values = [const { None }; N];
    for parameter in Parameters::of(list) {
        let (name, value) = parameter?;
        let known = names
            .iter()
            .position(|known| known.eq_ignore_ascii_case(name));
        let Some(index) = known else { continue };
        if values[index].replace(value).is_some() {
            return Err(ParseError::Twice(names[index]));
        }
    }
    Ok(values)
}

fn algorithm_or_md5(name: Option<&str>) -> Option<Algorithm> {
    name.map_or(Some(Algorithm::Md5), Algorithm::from_name)
}

fn algorithm_name(algorithm: Option<Algorithm>) -> &'static str {
    algorithm.map_or("unknown", Algorithm::name)
}

fn write_optional(f: &mut fmt::Formatter<'_>, name: &str, value: Option<&str>) -> fmt::Result {
    match value {
        Some(value) => write!(f, ", {name}={}", Quoted(value)),
        None => Ok(()),
    }
}
