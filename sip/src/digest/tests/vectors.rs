//! Numbers that others have computed.

use super::super::hash::{ha1, hex};
use super::super::*;

const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
const OPAQUE: &str = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS";
const CLIENT_NONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

fn mufasa(password: &str) -> Credentials {
    Credentials {
        username: "Mufasa".to_owned(),
        password: password.to_owned(),
        realm: None,
    }
}

const GET: Request<'static> = Request {
    method: "GET",
    uri: "/dir/index.html",
    body: b"",
};

fn response_to(challenge: &str, who: &Credentials, request: &Request<'_>, cnonce: &str) -> String {
    let answer = answer([challenge], who, request, cnonce, 1).unwrap();
    Authorization::parse(&answer.value)
        .unwrap()
        .response
        .into_owned()
}

/// RFC 7616 §3.9.1, with the answers as the RFC writes them.
#[test]
fn the_examples_of_rfc_7616() {
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        (
            "SHA-256",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
    ] {
        let challenge = format!(
            "Digest\n  realm=\"http-auth@example.org\",\n  qop=\"auth, auth-int\",\n  \
             algorithm={algorithm},\n  nonce=\"{NONCE}\",\n  opaque=\"{OPAQUE}\""
        )
        .replace('\n', "");
        let who = mufasa("Circle of Life");
        let answer = answer([challenge.as_str()], &who, &GET, CLIENT_NONCE, 1).unwrap();
        let theirs = format!(
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
             uri=\"/dir/index.html\", algorithm={algorithm}, nonce=\"{NONCE}\", nc=00000001, \
             cnonce=\"{CLIENT_NONCE}\", qop=auth, response=\"{response}\", opaque=\"{OPAQUE}\""
        );
        assert_eq!(
            Authorization::parse(&answer.value),
            Authorization::parse(&theirs)
        );
    }
}

/// RFC 2617 §3.5.
#[test]
fn the_example_of_rfc_2617() {
    let challenge = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
        nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
    assert_eq!(
        response_to(challenge, &mufasa("Circle Of Life"), &GET, "0a4f113b"),
        "6629fae49393a05397450978507c4ef1"
    );
}

/// Computed apart from this code, by the formulas of RFC 7616 §3.4 and RFC 2069 §2.1.2.
#[test]
fn other_forms() {
    let invite = Request {
        method: "INVITE",
        uri: "sip:bob@biloxi.com",
        body: b"v=0\r\n",
    };
    let bob = Credentials {
        username: "bob".to_owned(),
        password: "zanzibar".to_owned(),
        realm: None,
    };
    for (parameters, response) in [
        (
            "qop=\"auth-int\", algorithm=MD5",
            "5f802710d5eda7ca9e6aace8a344aead",
        ),
        (
            "qop=\"auth-int\", algorithm=SHA-256",
            "1be56e3d758ae9de7f5c5dd4313ef1fe61b6359417e88735f9a9bd36f52085c4",
        ),
        ("algorithm=MD5", "c178477f832a64804f0ee4ad83a8e8eb"),
        (
            "algorithm=SHA-256",
            "4a941d0b4b1bf126916cad64c893ce282092e07f6e8cfef245b808fe15bf9212",
        ),
    ] {
        let challenge = format!("Digest realm=\"biloxi.com\", nonce=\"dcd98b71\", {parameters}");
        assert_eq!(
            response_to(&challenge, &bob, &invite, "0a4f113b"),
            response,
            "{parameters}"
        );
    }
}

#[test]
fn h_of_a1() {
    let md5 = ha1(
        Algorithm::Md5,
        "Mufasa",
        "testrealm@host.com",
        "Circle Of Life",
    );
    assert_eq!(md5.hex(), "939e7578ed9e3c518a452acee763bce9");
    assert_eq!(hex(&[0, 0x9f, 0xff]), "009fff");
}
