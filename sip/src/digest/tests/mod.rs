mod headers;
mod properties;
mod replay;
mod server;
mod uri;
mod vectors;

use std::time::{Duration, SystemTime};

use super::{
    Algorithm, Authenticator, Config, Credentials, Failure, Request, Secret, Verified, answer,
};

const BOTH: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];
const LIFETIME: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config {
        realm: "conference.example.org".to_owned(),
        secret: b"0123456789abcdef".to_vec(),
        nonce_lifetime: LIFETIME,
        algorithms: BOTH.to_vec(),
        qop_auth_int: true,
    }
}

fn authenticator() -> Authenticator {
    Authenticator::new(config()).unwrap()
}

/// The wall clock, some seconds after an arbitrary start.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

const INVITE: Request<'static> = Request {
    method: "INVITE",
    uri: "sip:lobby@conference.example.org",
    body: b"v=0\r\n",
};

fn alice() -> Credentials {
    Credentials {
        username: "alice".to_owned(),
        password: "open: \"sesame\"".to_owned(),
        realm: None,
    }
}

fn secret() -> Secret {
    Secret::Password(alice().password)
}

/// What Alice sends after being challenged at 0 s, with the algorithm at `index` of [`BOTH`].
fn signed(index: usize) -> String {
    let challenges = authenticator().challenges(at(0), false);
    sign(&challenges[index], &INVITE, 1)
}

fn sign(challenge: &str, request: &Request<'_>, nonce_count: u32) -> String {
    answer([challenge], &alice(), request, "c0ffee", nonce_count)
        .unwrap()
        .value
}

/// A server's verdict at 1 s, when it knows Alice only.
fn verdict(authenticator: &Authenticator, value: &str) -> Result<Verified, Failure> {
    verdict_at(1, authenticator, value)
}

fn verdict_at(
    seconds: u64,
    authenticator: &Authenticator,
    value: &str,
) -> Result<Verified, Failure> {
    let secret = secret();
    let lookup = |name: &str| (name == "alice").then_some(&secret);
    authenticator.verify(at(seconds), value, &INVITE, lookup)
}
