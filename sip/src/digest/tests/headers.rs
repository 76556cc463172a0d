//! Reading and writing headers.

use super::super::*;

#[test]
fn challenges_are_read_as_phones_and_servers_write_them() {
    let plain = Challenge::parse("Digest realm=\"a\", nonce=\"n\"").unwrap();
    assert_eq!(plain.algorithm, Some(Algorithm::Md5));
    assert_eq!((plain.qop, plain.stale), (QopOffer::Absent, false));
    for same in [
        "digest nonce=n,realm=a",
        "DIGEST\trealm = \"a\" ,\tNONCE =\"n\"",
        "  Digest  ,, Realm=\"\\a\", nonce=\"n\", ",
        "Digest realm=\"a\", domain=\"sip:x, y=\\\"z\\\"\", nonce=\"n\", algorithm=\"md5\", domain=x",
        "Digest realm=\"a\", nonce=\"n\", qop=\"\", stale=false, charset=UTF-8",
    ] {
        assert_eq!(Challenge::parse(same), Ok(plain.clone()), "{same}");
    }
    let full = "Digest realm=\"r, \\\"q\\\" \\\\ ü=\", nonce=\"n=\", qop=\"auth,auth-int\", \
        opaque=\"\", algorithm=SHA-256, stale=true";
    let challenge = Challenge::parse(full).unwrap();
    assert_eq!(challenge.realm, "r, \"q\" \\ ü=");
    assert_eq!(challenge.to_string(), full);
}

#[test]
fn what_a_server_offers() {
    for (list, offer) in [
        ("auth", QopOffer::Auth),
        ("AUTH-INT", QopOffer::AuthInt),
        ("auth-int , auth, auth-conf", QopOffer::Both),
        ("auth-conf", QopOffer::Unknown),
        ("authentic", QopOffer::Unknown),
        (" ", QopOffer::Absent),
    ] {
        let value = format!("Digest realm=\"a\", nonce=\"n\", qop=\"{list}\"");
        assert_eq!(Challenge::parse(&value).unwrap().qop, offer, "{list}");
    }
    for (name, algorithm) in [
        ("sha-256", Some(Algorithm::Sha256)),
        ("SHA-256-sess", None),
        ("MD5-sess", None),
        ("SHA-512-256", None),
    ] {
        let value = format!("Digest realm=\"a\", nonce=\"n\", algorithm={name}");
        assert_eq!(Challenge::parse(&value).unwrap().algorithm, algorithm);
    }
}

#[test]
fn challenges_that_are_refused() {
    let long = format!("Digest realm=\"{}\"", "a".repeat(HEADER_LEN_MAX));
    let many = format!("Digest {}", "a=b, ".repeat(40));
    for (value, error) in [
        ("", ParseError::NotDigest),
        ("Basic realm=\"a\"", ParseError::NotDigest),
        ("Digestrealm=\"a\"", ParseError::NotDigest),
        ("Digest", ParseError::Missing("realm")),
        ("Digest realm=\"a\"", ParseError::Missing("nonce")),
        (
            "Digest realm=a, nonce=b, Realm=c",
            ParseError::Twice("realm"),
        ),
        ("Digest realm", ParseError::Syntax),
        ("Digest =a", ParseError::Syntax),
        ("Digest re alm=a", ParseError::Syntax),
        ("Digest realm=\"a", ParseError::Syntax),
        ("Digest realm=\"a\\", ParseError::Syntax),
        ("Digest realm=\"a\\\"", ParseError::Syntax),
        ("Digest realm=\"a\"b", ParseError::Syntax),
        ("Digest realm=\"a\" nonce=\"n\"", ParseError::Syntax),
        ("Digest realm=a\"b, nonce=n", ParseError::Syntax),
        ("Digest realm=\"a\r\nVia: x\", nonce=n", ParseError::Syntax),
        ("Digest realm=\"a\\\r\", nonce=n", ParseError::Syntax),
        ("Digest realm=a\0, nonce=n", ParseError::Syntax),
        (&long, ParseError::TooLong),
        (&many, ParseError::Syntax),
    ] {
        assert_eq!(Challenge::parse(value), Err(error), "{value}");
    }
}

const CREDENTIALS: &str = "Digest username=\"al\", realm=\"r\", nonce=\"n\", uri=\"sip:a\", \
    response=\"00\", algorithm=MD5, opaque=\"o\", qop=auth, nc=0000000A, cnonce=\"c\"";

#[test]
fn credentials_are_read_and_written() {
    let credentials = Authorization::parse(CREDENTIALS).unwrap();
    assert_eq!(
        credentials.protection.as_ref().unwrap().nonce_count,
        "0000000A"
    );
    assert_eq!(credentials.to_string(), CREDENTIALS);
    // Quoted where they must not be and bare where they must.
    let sloppy = CREDENTIALS
        .replace("qop=auth", "qop=\"auth\"")
        .replace("MD5", "\"MD5\"")
        .replace("0000000A", "\"0000000A\"")
        .replace("\"sip:a\"", "sip:a");
    assert_eq!(Authorization::parse(&sloppy), Ok(credentials));
    let old = Authorization::parse("Digest username=a,realm=r,nonce=n,uri=u,response=0").unwrap();
    assert_eq!(
        (old.algorithm, old.protection),
        (Some(Algorithm::Md5), None)
    );
}

#[test]
fn credentials_that_are_refused() {
    for (from, to, error) in [
        (
            "username=\"al\"",
            "username*=UTF-8''al",
            ParseError::Missing("username"),
        ),
        ("realm=", "real=", ParseError::Missing("realm")),
        ("nonce=\"n\"", "n=n", ParseError::Missing("nonce")),
        ("uri=", "url=", ParseError::Missing("uri")),
        ("response=", "res=", ParseError::Missing("response")),
        ("nc=", "nonce-count=", ParseError::Missing("nc")),
        (", cnonce=\"c\"", "", ParseError::Missing("cnonce")),
        ("0000000A", "1", ParseError::Value("nc")),
        ("0000000A", "+000000A", ParseError::Value("nc")),
        ("0000000A", "00000000A", ParseError::Value("nc")),
        ("qop=auth", "qop=auth-conf", ParseError::Value("qop")),
        (
            "qop=auth",
            "qop=\"auth,auth-int\"",
            ParseError::Value("qop"),
        ),
        ("opaque=\"o\"", "NC=00000001", ParseError::Twice("nc")),
    ] {
        let value = CREDENTIALS.replace(from, to);
        assert_eq!(Authorization::parse(&value), Err(error), "{value}");
    }
}

/// A client answers the topmost challenge it can (RFC 8760 §2.4).
#[test]
fn which_challenge_is_answered() {
    let with = |more: &str| format!("Digest realm=\"r\", nonce=\"n\"{more}");
    let sha512 = with(", algorithm=SHA-512-256, qop=\"auth\"");
    let sha = with(", algorithm=SHA-256, qop=\"auth-int,auth\"");
    let md5 = with(", algorithm=MD5, qop=\"auth-int\", stale=TRUE");
    let conf = with(", algorithm=SHA-256, qop=\"auth-conf\"");
    let old = with("");
    let other = "Digest realm=\"other\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"".to_owned();
    let basic = "Basic realm=\"r\"".to_owned();
    let auth = |algorithm| Some((algorithm, Some(Qop::Auth), false));
    for (challenges, expected) in [
        (vec![&sha, &md5], auth(Algorithm::Sha256)),
        (
            vec![&basic, &sha512, &conf, &other, &sha, &md5],
            auth(Algorithm::Sha256),
        ),
        (
            vec![&md5, &sha],
            Some((Algorithm::Md5, Some(Qop::AuthInt), true)),
        ),
        (vec![&old, &sha], Some((Algorithm::Md5, None, false))),
        (vec![&basic, &sha512, &conf, &other], None),
        (vec![], None),
    ] {
        let who = Credentials {
            username: "a".to_owned(),
            password: "b".to_owned(),
            realm: Some("r".to_owned()),
        };
        let values = challenges.iter().map(|value| value.as_str());
        let answer = answer(values, &who, &super::INVITE, "c", 0x1234_abcd);
        let answered = answer.map(|answer| {
            let written = Authorization::parse(&answer.value).unwrap();
            if let Some(protection) = &written.protection {
                assert_eq!(protection.nonce_count, "1234abcd");
            }
            let qop = written.protection.map(|protection| protection.qop);
            (written.algorithm.unwrap(), qop, answer.stale)
        });
        assert_eq!(answered, expected, "{challenges:?}");
    }
}

#[test]
fn names_that_cannot_be_written_answer_nothing() {
    let challenge = "Digest realm=\"r\", nonce=\"n\"";
    let who = |name: &str| Credentials {
        username: name.to_owned(),
        password: "any\r\n".to_owned(),
        realm: None,
    };
    let answers = |name, uri, cnonce| {
        let request = Request {
            uri,
            ..super::INVITE
        };
        answer([challenge], &who(name), &request, cnonce, 1).is_some()
    };
    assert!(answers("a\"\\ü", "sip:a", "c"));
    assert!(!answers("a\r\nVia: x", "sip:a", "c"));
    assert!(!answers("a", "sip:a\n", "c"));
    assert!(!answers("a", "sip:a", "\0"));
}

#[test]
fn passwords_are_not_shown() {
    let secret = Secret::Password("sesame".to_owned());
    let config = super::config();
    let authenticator = super::authenticator();
    let shown = format!(
        "{secret:?} {:?} {config:?} {authenticator:?}",
        super::alice()
    );
    assert!(!shown.contains("sesame"), "{shown}");
    // As octets of a list, that is "01".
    assert!(!shown.contains("48, 49"), "{shown}");
}
