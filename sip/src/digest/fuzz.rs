//! What must hold for any header a peer may send: the body of a fuzz target, and of a test over random
//! text. A broken promise panics.

use std::time::{Duration, SystemTime};

use super::{
    Algorithm, Authenticator, Authorization, Challenge, Config, Credentials, NonceCounts, QopOffer,
    Request, Secret, answer,
};

/// Reads every line as a challenge and as credentials; the first lines also as a user's name,
/// password and URI, who then signs the rest.
pub fn headers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    for line in lines.clone().take(64) {
        challenge(line);
        credentials(line);
    }
    let mut line = || lines.next().unwrap_or_default();
    check_round_trip(line(), line(), line(), bytes);
}

fn challenge(value: &str) {
    let Ok(challenge) = Challenge::parse(value) else {
        return;
    };
    if challenge.algorithm.is_some() && challenge.qop != QopOffer::Unknown {
        check_rewrite(&challenge.to_string(), |text| {
            assert_eq!(Challenge::parse(text), Ok(challenge.clone()));
        });
    }
    let who = Credentials {
        username: "alice".to_owned(),
        password: "secret".to_owned(),
        realm: None,
    };
    let Some(answer) = answer([value], &who, &request(), "c0", 1) else {
        return;
    };
    assert_eq!(answer.stale, challenge.stale);
    check_rewrite(&answer.value, |text| {
        let Ok(written) = Authorization::parse(text) else {
            panic!("unreadable: {text}");
        };
        assert_eq!(written.nonce, challenge.nonce);
        assert_eq!(written.realm, challenge.realm);
        assert_eq!(written.opaque, challenge.opaque);
        let has_qop = challenge.qop != QopOffer::Absent;
        assert_eq!(written.protection.is_some(), has_qop);
    });
}

fn credentials(value: &str) {
    let secret = Secret::Password("secret".to_owned());
    // Nobody can have signed anything with the key of the authenticator here.
    let verified = authenticator().verify(now(), value, &request(), |_| Some(&secret));
    assert!(verified.is_err(), "{verified:?}");
    if let Ok(authorization) = Authorization::parse(value)
        && authorization.algorithm.is_some()
    {
        check_rewrite(&authorization.to_string(), |text| {
            assert_eq!(Authorization::parse(text), Ok(authorization.clone()));
        });
    }
}

/// Escapes and names that were absent may push what we write over the bound.
fn check_rewrite(text: &str, check: impl FnOnce(&str)) {
    if text.len() <= super::HEADER_LEN_MAX {
        check(text);
    }
}

/// Whoever answers our challenges with the right password is who they say; with another, nobody.
pub(super) fn check_round_trip(username: &str, password: &str, uri: &str, body: &[u8]) {
    let authenticator = authenticator();
    let request = Request {
        method: "INVITE",
        uri,
        body,
    };
    let challenges = authenticator.challenges(now(), false);
    let secret = Secret::Password(password.to_owned());
    for challenge in &challenges {
        let sign = |password: &str| {
            let who = Credentials {
                username: username.to_owned(),
                password: password.to_owned(),
                realm: Some(authenticator.realm().to_owned()),
            };
            answer([challenge.as_str()], &who, &request, "c0", 7)
        };
        let (Some(right), Some(wrong)) = (sign(password), sign(&format!("{password}x"))) else {
            return;
        };
        check_rewrite(&right.value, |value| {
            let verify = |value: &str| {
                authenticator.verify(now(), value, &request, |name| {
                    assert_eq!(name, username);
                    Some(&secret)
                })
            };
            let verified = match verify(value) {
                Ok(verified) => verified,
                Err(failure) => panic!("{failure}: {value}"),
            };
            assert_eq!(verified.username, username);
            let mut counts = NonceCounts::new(1);
            assert!(counts.admit(now(), &verified));
            assert!(!counts.admit(now(), &verified));
            assert!(verify(&wrong.value).is_err());
        });
    }
}

fn request() -> Request<'static> {
    Request {
        method: "INVITE",
        uri: "sip:lobby@example.org",
        body: b"",
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn authenticator() -> Authenticator {
    let config = Config {
        realm: "example.org".to_owned(),
        secret: vec![7; 32],
        nonce_lifetime: Duration::from_secs(60),
        algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
        qop_auth_int: true,
    };
    match Authenticator::new(config) {
        Ok(authenticator) => authenticator,
        Err(error) => unreachable!("{error}"),
    }
}
