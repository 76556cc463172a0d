//! What holds for every header, user and request, on random ones.

use proptest::prelude::*;

use crate::digest::fuzz;

/// What a quoted string can hold, with a liking for what must be escaped.
fn text() -> impl Strategy<Value = String> {
    "[ -~\t\"\\\\:,=ü漢🦀\u{85}]{0,40}"
}

/// Pieces of headers, shuffled.
fn header() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "realm",
        "nonce",
        "qop",
        "opaque",
        "algorithm",
        "stale",
        "username",
        "uri",
        "response",
        "nc",
        "cnonce",
        "x",
    ]);
    let value = prop_oneof![
        "[ -~\t]{0,12}",
        "\"[ !#-\\[\\]-~ü]{0,12}\"",
        "\"(\\\\[ -~]|[a-z]){0,8}\"",
        "(auth|auth-int|MD5|SHA-256|true|0000000[0-9A-Fa-f])",
    ];
    prop::collection::vec((name, value), 0..12).prop_map(|parameters| {
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("Digest {}", parameters.join(", "))
    })
}

proptest! {
    #[test]
    fn any_octets_can_be_read(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::headers(&octets);
        fuzz::headers(&[b"Digest ", octets.as_slice()].concat());
    }

    #[test]
    fn any_parameters_can_be_read(header in header(), rest in "\\PC{0,60}") {
        fuzz::headers(header.as_bytes());
        fuzz::headers(format!("{header}{rest}").as_bytes());
    }

    #[test]
    fn who_knows_the_password_is_accepted(
        username in text(),
        password in any::<String>(),
        uri in text(),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        fuzz::check_round_trip(&username, &password, &uri, &body);
    }
}
