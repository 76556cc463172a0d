//! Challenges and verdicts.

use super::*;
use crate::digest::hash::ha1;
use crate::digest::{Authorization, Challenge, ConfigError, ParseError, Qop, QopOffer};

#[test]
fn challenges_are_one_per_algorithm_and_differ() {
    let challenges = authenticator().challenges(at(0), false);
    let read: Vec<_> = challenges
        .iter()
        .map(|value| Challenge::parse(value).unwrap())
        .collect();
    let algorithms: Vec<_> = read.iter().map(|challenge| challenge.algorithm).collect();
    assert_eq!(algorithms, BOTH.map(Some));
    assert_ne!(read[0].nonce, read[1].nonce);
    for challenge in &read {
        assert_eq!(challenge.realm, "conference.example.org");
        assert_eq!((challenge.qop, challenge.stale), (QopOffer::Both, false));
        assert!(challenge.opaque.is_some());
    }
    assert!(
        challenges[0].contains(", qop=\"auth,auth-int\", "),
        "{challenges:?}"
    );
    let stale = authenticator().challenges(at(0), true);
    assert!(stale.iter().all(|value| value.ends_with(", stale=true")));

    let md5_only = Authenticator::new(Config {
        algorithms: vec![Algorithm::Md5],
        qop_auth_int: false,
        ..config()
    })
    .unwrap();
    let challenges = md5_only.challenges(at(0), false);
    assert_eq!(challenges.len(), 1);
    assert!(challenges[0].contains(", qop=\"auth\", "));
}

#[test]
fn the_right_password_is_accepted() {
    for (index, algorithm) in BOTH.into_iter().enumerate() {
        let verified = verdict(&authenticator(), &signed(index)).unwrap();
        assert_eq!(verified.username, "alice");
        assert_eq!((verified.algorithm, verified.qop), (algorithm, Qop::Auth));
        // Until the nonce expires, in another server with the same secret, and in big letters.
        assert!(verdict_at(59, &authenticator(), &signed(index)).is_ok());
        let loud = with_response(&signed(index), |response| response.to_ascii_uppercase());
        assert!(verdict(&authenticator(), &loud).is_ok());
    }
}

#[test]
fn hashes_do_for_passwords() {
    let hash = |algorithm| {
        ha1(
            algorithm,
            "alice",
            "conference.example.org",
            &alice().password,
        )
    };
    let sha256: [u8; 32] = hash(Algorithm::Sha256).octets().try_into().unwrap();
    let md5: [u8; 16] = hash(Algorithm::Md5).octets().try_into().unwrap();
    let verdict = |index, secret: &Secret| {
        authenticator()
            .verify(at(1), &signed(index), &INVITE, |_| Some(secret))
            .map(|verified| verified.username)
    };
    let sha256_only = Secret::Ha1 {
        sha256: Some(sha256),
        md5: None,
    };
    let md5_only = Secret::Ha1 {
        sha256: None,
        md5: Some(md5),
    };
    let both = Secret::Ha1 {
        sha256: Some(sha256),
        md5: Some(md5),
    };
    let wrong = Secret::Ha1 {
        sha256: Some([0; 32]),
        md5: Some([0; 16]),
    };
    let yes = Ok("alice".to_owned());
    for (secret, with_sha256, with_md5) in [
        (&both, yes.clone(), yes.clone()),
        (&sha256_only, yes.clone(), Err(Failure::UnknownUser)),
        (&md5_only, Err(Failure::UnknownUser), yes),
        (&wrong, Err(Failure::BadResponse), Err(Failure::BadResponse)),
    ] {
        assert_eq!(
            (verdict(0, secret), verdict(1, secret)),
            (with_sha256, with_md5)
        );
    }
}

/// Where nothing is known, the stand-in for a password must open nothing.
#[test]
fn no_password_is_the_right_one_for_who_has_none() {
    let challenges = authenticator().challenges(at(0), false);
    let nobody = Credentials {
        password: String::new(),
        ..alice()
    };
    let value = answer([challenges[0].as_str()], &nobody, &INVITE, "c", 1)
        .unwrap()
        .value;
    let hashes = Secret::Ha1 {
        sha256: None,
        md5: Some([0; 16]),
    };
    for known in [None, Some(&hashes)] {
        let verdict = authenticator().verify(at(1), &value, &INVITE, |_| known);
        assert_eq!(verdict, Err(Failure::UnknownUser));
    }
}

#[test]
fn changed_credentials_are_refused() {
    let good = signed(0);
    let sign_as = |name: &str, password: &str| {
        let challenges = authenticator().challenges(at(0), false);
        let who = Credentials {
            username: name.to_owned(),
            password: password.to_owned(),
            realm: None,
        };
        answer([challenges[0].as_str()], &who, &INVITE, "c", 1)
            .unwrap()
            .value
    };
    let change = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    let missing = |name| Failure::Malformed(ParseError::Missing(name));
    for (value, failure) in [
        (String::new(), Failure::Malformed(ParseError::NotDigest)),
        (
            "Basic YWxpY2U6".to_owned(),
            Failure::Malformed(ParseError::NotDigest),
        ),
        (change("uri=", "url="), missing("uri")),
        (
            change("conference.example.org\", nonce", "other\", nonce"),
            Failure::WrongRealm,
        ),
        (change("SHA-256", "SHA-512-256"), Failure::Algorithm),
        (change("SHA-256", "MD5"), Failure::BadResponse),
        (change(", qop=auth", ""), Failure::Qop),
        (change("qop=auth", "qop=auth-int"), Failure::BadResponse),
        (change("sip:lobby@", "sip:vault@"), Failure::UriMismatch),
        // As good as the right one, but not what was signed.
        (change("sip:lobby@", "SIP:lobby@"), Failure::BadResponse),
        (change("nc=00000001", "nc=00000002"), Failure::BadResponse),
        (change("c0ffee", "decaff"), Failure::BadResponse),
        (change("\"alice\"", "\"bob\""), Failure::UnknownUser),
        (sign_as("alice", "open"), Failure::BadResponse),
        (sign_as("alice", ""), Failure::BadResponse),
        (sign_as("bob", &alice().password), Failure::UnknownUser),
        (
            with_response(&good, |_| String::new()),
            Failure::BadResponse,
        ),
        (
            with_response(&good, |response| response[..32].to_owned()),
            Failure::BadResponse,
        ),
        (
            with_response(&good, |response| response[1..].to_owned() + "0"),
            Failure::BadResponse,
        ),
        (
            with_response(&good, |response| response.to_owned() + "0"),
            Failure::BadResponse,
        ),
    ] {
        assert_eq!(verdict(&authenticator(), &value), Err(failure), "{value}");
        assert!(!failure.is_stale());
    }
}

/// The method is signed, and with `auth-int` the body.
#[test]
fn changed_requests_are_refused() {
    let auth = signed(0);
    let challenge = authenticator().challenges(at(0), false).remove(0);
    let only_int = challenge.replace("auth,auth-int", "auth-int");
    let auth_int = sign(&only_int, &INVITE, 1);
    let bye = Request {
        method: "BYE",
        ..INVITE
    };
    let body = Request {
        body: b"v=1\r\n",
        ..INVITE
    };
    let secret = secret();
    for (value, request, expected) in [
        (&auth, &INVITE, Ok(Qop::Auth)),
        (&auth, &body, Ok(Qop::Auth)),
        (&auth, &bye, Err(Failure::BadResponse)),
        (&auth_int, &INVITE, Ok(Qop::AuthInt)),
        (&auth_int, &body, Err(Failure::BadResponse)),
        (&auth_int, &bye, Err(Failure::BadResponse)),
    ] {
        let verdict = authenticator().verify(at(1), value, request, |_| Some(&secret));
        assert_eq!(verdict.map(|verified| verified.qop), expected, "{value}");
    }
    let without = Authenticator::new(Config {
        qop_auth_int: false,
        ..config()
    })
    .unwrap();
    assert_eq!(verdict(&without, &auth_int), Err(Failure::Qop));
    assert!(verdict(&without, &auth).is_ok());
}

#[test]
fn algorithms_that_are_not_offered_are_refused() {
    let sha256 = Config {
        algorithms: vec![Algorithm::Sha256],
        ..config()
    };
    let authenticator = Authenticator::new(sha256).unwrap();
    assert_eq!(verdict(&authenticator, &signed(1)), Err(Failure::Algorithm));
    assert!(verdict(&authenticator, &signed(0)).is_ok());
}

#[test]
fn servers_of_one_secret_take_each_others_nonces() {
    let other = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        Authenticator::new(config).unwrap()
    };
    let same = other(|_| {});
    let verified = verdict(&same, &signed(0)).unwrap();
    assert_eq!(verdict(&same.clone(), &signed(0)).unwrap(), verified);
    let other_secret = other(|config| config.secret[0] ^= 1);
    assert_eq!(
        verdict(&other_secret, &signed(0)),
        Err(Failure::ForeignNonce)
    );
    let other_realm = other(|config| config.realm = "example.net".to_owned());
    assert_eq!(verdict(&other_realm, &signed(0)), Err(Failure::WrongRealm));
    // With a nonce of a realm that has the same secret.
    let nonce =
        |challenges: &[String]| Challenge::parse(&challenges[0]).unwrap().nonce.into_owned();
    let foreign = nonce(&other_realm.challenges(at(0), false));
    assert_eq!(
        verdict(&same, &signed_with_nonce(&foreign)),
        Err(Failure::ForeignNonce)
    );
}

#[test]
fn nonces_expire_and_cannot_be_made_up() {
    let own = Challenge::parse(&authenticator().challenges(at(0), false)[0])
        .unwrap()
        .nonce
        .into_owned();
    let md5 = Challenge::parse(&authenticator().challenges(at(0), false)[1])
        .unwrap()
        .nonce
        .into_owned();
    let mut later = own.clone();
    later.replace_range(14..16, if &own[14..16] == "00" { "01" } else { "00" });
    for (nonce, seconds, failure) in [
        (own.as_str(), 60, Failure::Stale),
        (&own, 1_000_000_000, Failure::Stale),
        (&later, 1, Failure::ForeignNonce),
        (&md5, 1, Failure::ForeignNonce),
        (&own[..32], 1, Failure::ForeignNonce),
        ("", 1, Failure::ForeignNonce),
        (
            "ffffffffffffffff00000000000000000000000000000000",
            1,
            Failure::ForeignNonce,
        ),
    ] {
        let value = signed_with_nonce(nonce);
        let verdict = verdict_at(seconds, &authenticator(), &value);
        assert_eq!(verdict, Err(failure), "{nonce}");
        assert!(failure.is_stale());
    }
    assert!(verdict_at(59, &authenticator(), &signed_with_nonce(&own)).is_ok());
    // A wrong password is never told to try again.
    let wrong = with_response(&signed(0), |response| {
        response.replace(['1', '2', '3'], "0")
    });
    assert_eq!(
        verdict_at(60, &authenticator(), &wrong),
        Err(Failure::BadResponse)
    );
}

/// Clocks of a cluster differ a little.
#[test]
fn nonces_from_the_future() {
    let verdict = |seconds: u64| {
        let challenges = authenticator().challenges(at(1000), false);
        let value = sign(&challenges[0], &INVITE, 1);
        verdict_at(seconds, &authenticator(), &value).map(|verified| verified.username)
    };
    assert_eq!(verdict(941), Ok("alice".to_owned()));
    assert_eq!(verdict(939), Err(Failure::Stale));
}

#[test]
fn configurations_that_make_no_sense() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        Authenticator::new(config).err()
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(
        refused(|config| config.realm.clear()),
        Some(ConfigError::Realm)
    );
    assert_eq!(
        refused(|config| config.realm.push('\n')),
        Some(ConfigError::Realm)
    );
    assert_eq!(
        refused(|config| config.realm = "x".repeat(257)),
        Some(ConfigError::Realm)
    );
    assert_eq!(
        refused(|config| config.secret.truncate(15)),
        Some(ConfigError::Secret)
    );
    assert_eq!(
        refused(|config| config.nonce_lifetime = Duration::ZERO),
        Some(ConfigError::NonceLifetime)
    );
    assert_eq!(
        refused(|config| config.algorithms.clear()),
        Some(ConfigError::Algorithms)
    );
    assert_eq!(
        refused(|config| config.algorithms.push(Algorithm::Sha256)),
        Some(ConfigError::Algorithms)
    );
}

fn signed_with_nonce(nonce: &str) -> String {
    let challenge = authenticator().challenges(at(0), false).remove(0);
    let mut challenge = Challenge::parse(&challenge).unwrap();
    challenge.nonce = nonce.into();
    sign(&challenge.to_string(), &INVITE, 1)
}

fn with_response(value: &str, change: impl FnOnce(&str) -> String) -> String {
    let mut credentials = Authorization::parse(value).unwrap();
    credentials.response = change(&credentials.response).into();
    credentials.to_string()
}
