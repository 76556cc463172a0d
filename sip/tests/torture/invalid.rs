//! RFC 4475 §3.1.2 and §3.2: what breaks the grammar, and a branch that is none.

use super::{Outcome, Torture};

const OFFER: &str = "v=0\r\no=owl 12 12 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

/// An INVITE whose traps are in these parts; `more` are further header lines.
fn invite(name: &'static str, line: &str, to: &str, from: &str, more: &str) -> Vec<u8> {
    format!(
        "{line}\r\n\
         To: {to}\r\n\
         From: {from}\r\n\
         Max-Forwards: 10\r\n\
         Call-ID: {name}.hoot@tree.test\r\n\
         CSeq: 8 INVITE\r\n\
         Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bK{name}\r\n\
         {more}\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{OFFER}",
        OFFER.len()
    )
    .into_bytes()
}

const LINE: &str = "INVITE sip:attic@house.test SIP/2.0";
const TO: &str = "sip:attic@house.test";
const FROM: &str = "sip:owl@tree.test;tag=owl1";
const CONTACT: &str = "Contact: <sip:owl@tree.test>\r\n";

pub(super) fn messages() -> Vec<Torture> {
    vec![
        // Separators with nothing between them.
        Torture::new(
            "badinv01",
            &[400],
            format!(
                "INVITE sip:attic@house.test SIP/2.0\r\n\
                 To: sip:attic@house.test\r\n\
                 From: sip:owl@tree.test;tag=badinv\r\n\
                 Max-Forwards: 7\r\n\
                 Call-ID: badinv01.hoot@tree.test\r\n\
                 CSeq: 8 INVITE\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;;,;,,\r\n\
                 Contact: \"Owl\" <sip:owl@tree.test>;;;;\r\n\
                 Content-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // More promised than there is.
        Torture::new(
            "clerr",
            &[400],
            &String::from_utf8_lossy(&invite("clerr", LINE, TO, FROM, CONTACT))
                .replace("Content-Length: ", "Content-Length: 99")
                .into_bytes(),
        )
        .over_tcp(Outcome::Waits),
        // Less than nothing promised.
        Torture::new(
            "ncl",
            &[400],
            &String::from_utf8_lossy(&invite("ncl", LINE, TO, FROM, CONTACT))
                .replace("Content-Length: ", "Content-Length: -")
                .into_bytes(),
        )
        .over_tcp(Outcome::Closed),
        // Numbers beyond what they may be, in a request.
        Torture::new(
            "scalar02",
            &[400],
            b"REGISTER sip:house.test SIP/2.0\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKscalar02\r\n\
              To: <sip:owl@house.test>\r\n\
              From: <sip:owl@house.test>;tag=sc02\r\n\
              CSeq: 36893488147419103233 REGISTER\r\n\
              Call-ID: scalar02.hoot@tree.test\r\n\
              Max-Forwards: 301\r\n\
              Expires: 70000000000000000000000000000000000000000000000000000000000000000000\r\n\
              Contact: <sip:owl@tree.test>\r\n  ;expires=280297596632816\r\n\
              Content-Length: 0\r\n\r\n",
        ),
        // The same in a response.
        Torture::new(
            "scalarlg",
            &[],
            b"SIP/2.0 503 Asleep\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKscalarlg\r\n\
              To: <sip:owl@tree.test>\r\n\
              From: <sip:attic@house.test>;tag=sclg\r\n\
              CSeq: 9292394834772304023313 OPTIONS\r\n\
              Call-ID: scalarlg.hoot@tree.test\r\n\
              Retry-After: 949302838503028349304023989\r\n\
              Warning: 1812 nest \"Asleep\"\r\n\
              Content-Length: 0\r\n\r\n",
        ),
        // A quote that does not end.
        Torture::new(
            "quotbal",
            &[400],
            &invite(
                "quotbal",
                LINE,
                "\"The attic <sip:attic@house.test>",
                FROM,
                CONTACT,
            ),
        ),
        // Brackets around the Request-URI.
        Torture::new(
            "ltgtruri",
            &[400],
            &invite(
                "ltgtruri",
                "INVITE <sip:attic@house.test> SIP/2.0",
                TO,
                FROM,
                CONTACT,
            ),
        ),
        // White space within the Request-URI, here in a dialog.
        Torture::new(
            "lwsruri",
            &[400],
            &invite(
                "lwsruri",
                "INVITE sip:attic@house.test; lr SIP/2.0",
                "sip:attic@house.test;tag=0ld",
                FROM,
                CONTACT,
            ),
        ),
        // More than one space between the parts of the request line.
        Torture::new(
            "lwsstart",
            &[400],
            &invite(
                "lwsstart",
                "INVITE  sip:attic@house.test  SIP/2.0",
                TO,
                FROM,
                CONTACT,
            ),
        ),
        // White space behind the request line.
        Torture::new(
            "trws",
            &[400],
            b"OPTIONS sip:attic@house.test SIP/2.0  \r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKtrws\r\n\
              To: <sip:attic@house.test>\r\n\
              From: <sip:owl@tree.test>;tag=trws\r\n\
              Call-ID: trws.hoot@tree.test\r\n\
              Accept: application/sdp\r\n\
              CSeq: 238923 OPTIONS\r\n\
              Max-Forwards: 70\r\n\
              Content-Length: 0\r\n\r\n",
        ),
        // Headers in the Request-URI.
        Torture::new(
            "escruri",
            &[400],
            &invite(
                "escruri",
                "INVITE sip:attic@house.test?Route=%3Csip:nest.test%3E SIP/2.0",
                TO,
                FROM,
                CONTACT,
            ),
        ),
        // A date in a time zone of its own; whoever has no use for dates may overlook it.
        Torture::new(
            "baddate",
            &[200],
            &invite(
                "baddate",
                LINE,
                TO,
                FROM,
                &format!("{CONTACT}Date: Sat, 02 Mar 2024 21:07:09 CET\r\n"),
            ),
        ),
        // A URI with headers, without brackets.
        Torture::new(
            "regbadct",
            &[400],
            b"REGISTER sip:house.test SIP/2.0\r\n\
              To: sip:owl@house.test\r\n\
              From: sip:owl@house.test;tag=regb\r\n\
              Max-Forwards: 70\r\n\
              Call-ID: regbadct.hoot@tree.test\r\n\
              CSeq: 998332 REGISTER\r\n\
              Contact: sip:owl@tree.test?Route=%3Csip:nest.test%3E\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKregbadct\r\n\
              L: 0\r\n\r\n",
        ),
        // White space within brackets.
        Torture::new(
            "badaspec",
            &[400],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKbadaspec\r\n\
              Max-Forwards: 70\r\n\
              From: \"Owl, Barn\" < sip:owl@tree.test >;tag=badas\r\n\
              To: \"Attic, Old\" < sip:attic@house.test >\r\n\
              Call-ID: badaspec.hoot@tree.test\r\n\
              CSeq: 3923239 OPTIONS\r\n\
              Content-Length: 0\r\n\r\n",
        ),
        // A comma in a display name without quotes.
        Torture::new(
            "baddn",
            &[400],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKbaddn\r\n\
              Max-Forwards: 70\r\n\
              From: Owl, Barn <sip:owl@tree.test>;tag=baddn\r\n\
              To: Attic, Old <sip:attic@house.test>\r\n\
              Call-ID: baddn.hoot@tree.test\r\n\
              CSeq: 3923253 OPTIONS\r\n\
              L: 0\r\n\r\n",
        ),
        // Another version.
        Torture::new(
            "badvers",
            &[505],
            b"OPTIONS sip:attic@house.test SIP/7.0\r\n\
              Via: SIP/7.0/UDP 192.0.2.9:50701;branch=z9hG4bKbadvers\r\n\
              Max-Forwards: 70\r\n\
              From: Owl <sip:owl@tree.test>;tag=badv\r\n\
              To: Attic <sip:attic@house.test>\r\n\
              Call-ID: badvers.hoot@tree.test\r\n\
              CSeq: 31418 OPTIONS\r\n\
              L: 0\r\n\r\n",
        ),
        // CSeq names another method.
        Torture::new(
            "mismatch01",
            &[400],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              To: sip:attic@house.test\r\n\
              From: sip:owl@tree.test;tag=mism1\r\n\
              Max-Forwards: 6\r\n\
              Call-ID: mismatch01.hoot@tree.test\r\n\
              CSeq: 8 INVITE\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKmismatch01\r\n\
              l: 0\r\n\r\n",
        ),
        // The same, of a method nobody knows.
        Torture::new(
            "mismatch02",
            &[501],
            b"HOOT sip:attic@house.test SIP/2.0\r\n\
              To: sip:attic@house.test\r\n\
              From: sip:owl@tree.test;tag=mism2\r\n\
              Max-Forwards: 6\r\n\
              Call-ID: mismatch02.hoot@tree.test\r\n\
              CSeq: 8 INVITE\r\n\
              Contact: <sip:owl@tree.test>\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKmismatch02\r\n\
              l: 0\r\n\r\n",
        ),
        // A status that would be 200 in 32 bits less.
        Torture::new(
            "bigcode",
            &[],
            b"SIP/2.0 4294967496 count on your talons\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKbigcode\r\n\
              Call-ID: bigcode.hoot@tree.test\r\n\
              CSeq: 353494 INVITE\r\n\
              From: <sip:attic@house.test>;tag=bigc1\r\n\
              To: <sip:owl@tree.test>;tag=bigc2\r\n\
              Content-Length: 0\r\n\
              Contact: <sip:owl@tree.test>\r\n\r\n",
        ),
        // A branch of nothing but the cookie: as good as none, as RFC 2543 has it.
        Torture::new(
            "badbranch",
            &[200],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              To: sip:attic@house.test\r\n\
              From: sip:owl@tree.test;tag=badbr\r\n\
              Max-Forwards: 4\r\n\
              Call-ID: badbranch.hoot@tree.test\r\n\
              CSeq: 33 OPTIONS\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bK\r\n\
              l: 0\r\n\r\n",
        ),
    ]
}
