//! URIs of credentials and of requests.

use super::*;

#[test]
fn uris_are_compared_as_places() {
    for (written, asked, is_same) in [
        ("sip:a@h.example", "sip:a@h.example", true),
        ("sip:a@h.example", "SIP:a@H.EXAMPLE:5060", true),
        ("sip:a@h.example;transport=tcp", "sip:a@h.example", true),
        ("sip:a@h.example:5060;lr?x=y", "sip:a@h.example", true),
        ("sip:%61;x@h", "sip:a;x@h", true),
        ("sip:100%@h", "sip:100%25@h", true),
        ("sips:a@h", "sips:a@h:5061", true),
        ("sip:a@[2001:DB8::1]", "sip:a@[2001:db8:0::1]:5060", true),
        ("tel:+1", "tel:+1", true),
        ("sip:a@h.example", "sips:a@h.example", false),
        ("sip:a@h", "sip:A@h", false),
        ("sip:a@h", "sip:h", false),
        ("sip:a@h", "sip:a@h:5061", false),
        ("sip:a@h", "sip:a@g", false),
        ("sip:a:b@h", "sip:a@h", false),
        ("sip:a:b@h", "sip:a%3ab@h", false),
        ("sip:a@h:1x", "sip:a@h:1y", false),
        ("sip:a@[::1", "sip:a@[::1;", false),
        ("sip:a@", "sip:a@;x", false),
        ("tel:+1", "TEL:+1", false),
        ("", "sip:a@h", false),
    ] {
        let challenge = authenticator().challenges(at(0), false).remove(0);
        let value = sign(
            &challenge,
            &Request {
                uri: written,
                ..INVITE
            },
            1,
        );
        let asked_for = Request {
            uri: asked,
            ..INVITE
        };
        let secret = secret();
        let verdict = authenticator().verify(at(1), &value, &asked_for, |_| Some(&secret));
        let expected = if is_same {
            Ok(())
        } else {
            Err(Failure::UriMismatch)
        };
        assert_eq!(verdict.map(drop), expected, "{written} and {asked}");
    }
}
