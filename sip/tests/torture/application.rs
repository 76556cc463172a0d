//! RFC 4475 §3.3 and §3.4: nothing wrong with the grammar; and one request of RFC 2543.

use super::{Outcome, Torture};

const OFFER: &str = "v=0\r\no=owl 13 13 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

/// A request without a body: its name, method and URI, and further header lines.
fn plain(name: &str, method: &str, uri: &str, more: &str) -> Vec<u8> {
    format!(
        "{method} {uri} SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bK{name}\r\n\
         Max-Forwards: 70\r\n\
         To: <sip:attic@house.test>\r\n\
         From: <sip:owl@tree.test>;tag={name}\r\n\
         Call-ID: {name}.hoot@tree.test\r\n\
         CSeq: 3423 {method}\r\n\
         {more}\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

fn register(name: &'static str, more: &str) -> Torture {
    Torture::new(
        name,
        &[405],
        &plain(name, "REGISTER", "sip:house.test", more),
    )
}

pub(super) fn messages() -> Vec<Torture> {
    const ATTIC: &str = "sip:attic@house.test";
    vec![
        // Neither Call-ID nor From nor To.
        Torture::new(
            "insuf",
            &[400],
            format!(
                "INVITE sip:attic@house.test SIP/2.0\r\n\
                 CSeq: 193942 INVITE\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKinsuf\r\n\
                 Content-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // Schemes nobody knows, and one that is known but not here.
        Torture::new(
            "unkscm",
            &[416],
            &plain("unkscm", "OPTIONS", "owlscream:whoowhoo", ""),
        ),
        Torture::new(
            "novelsc",
            &[416],
            &plain("novelsc", "OPTIONS", "soap.bubble://192.0.2.103:3002", ""),
        ),
        // The same in other headers, where they are nobody's business.
        Torture::new(
            "unksm2",
            &[405],
            b"REGISTER sip:house.test SIP/2.0\r\n\
              To: isbn:9780000000002\r\n\
              From: <http://tree.test/owl>;tag=unks\r\n\
              Call-ID: unksm2.hoot@tree.test\r\n\
              CSeq: 234902 REGISTER\r\n\
              Max-Forwards: 70\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKunksm2\r\n\
              Contact: <name:Barn_Owl>\r\n\
              l: 0\r\n\r\n",
        ),
        // Extensions required that nobody has.
        Torture::new(
            "bext01",
            &[420],
            &plain(
                "bext01",
                "OPTIONS",
                ATTIC,
                "Require: nightVision, silentFlight\r\nProxy-Require: softFeathers, thermals\r\n",
            ),
        ),
        // A body of a kind nobody knows.
        Torture::new(
            "invut",
            &[415],
            b"INVITE sip:attic@house.test SIP/2.0\r\n\
              Contact: <sip:owl@tree.test>\r\n\
              To: sip:attic@house.test\r\n\
              From: sip:owl@tree.test;tag=invut\r\n\
              Max-Forwards: 5\r\n\
              Call-ID: invut.hoot@tree.test\r\n\
              CSeq: 8 INVITE\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKinvut\r\n\
              Content-Type: application/pellet\r\n\
              Content-Length: 23\r\n\r\n\
              <bones><fur/></bones>\r\n",
        ),
        // Credentials of a kind nobody knows.
        register(
            "regaut01",
            "Contact: <sip:owl@tree.test>\r\nAuthorization: Hooting thrice, at=\"dusk\" , loud=yes\r\n",
        ),
        // Headers twice that may be there once.
        Torture::new(
            "multi01",
            &[400],
            format!(
                "INVITE sip:attic@house.test SIP/2.0\r\n\
                 Contact: <sip:owl@tree.test>\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKmulti01\r\n\
                 Max-Forwards: 70\r\n\
                 CSeq: 6 INVITE\r\n\
                 Call-ID: multi01.hoot@tree.test\r\n\
                 CSeq: 60 INVITE\r\n\
                 Call-ID: multi01.screech@tree.test\r\n\
                 From: sip:owl@tree.test;tag=multi1\r\n\
                 To: sip:attic@house.test\r\n\
                 To: sip:cellar@house.test\r\n\
                 From: sip:bat@tree.test;tag=multi2\r\n\
                 Content-Type: application/sdp\r\n\
                 l: {}\r\n\
                 Contact: <sip:bat@tree.test>\r\n\
                 Max-Forwards: 5\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // Two lengths.
        Torture::new(
            "mcl01",
            &[400],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKmcl01\r\n\
              To: sip:attic@house.test\r\n\
              From: sip:owl@tree.test;tag=mcl\r\n\
              Call-ID: mcl01.hoot@tree.test\r\n\
              CSeq: 15932 OPTIONS\r\n\
              Content-Length: 12\r\n\
              Max-Forwards: 60\r\n\
              Content-Length: 4\r\n\
              Content-Type: text/plain\r\n\r\n\
              Who could tell where this is to end?\r\n",
        )
        .over_tcp(Outcome::Closed),
        // A response whose way back is to everybody.
        Torture::new(
            "bcast",
            &[],
            format!(
                "SIP/2.0 200 OK\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKbcast\r\n\
                 Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKall\r\n\
                 Call-ID: bcast.hoot@tree.test\r\n\
                 CSeq: 35 INVITE\r\n\
                 From: <sip:attic@house.test>;tag=bcast1\r\n\
                 To: <sip:owl@tree.test>;tag=bcast2\r\n\
                 Contact: <sip:owl@tree.test>\r\n\
                 Content-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // No hop further; but there is none to go.
        Torture::new(
            "zeromf",
            &[200],
            &String::from_utf8_lossy(&plain("zeromf", "OPTIONS", ATTIC, ""))
                .replace("Max-Forwards: 70", "Max-Forwards: 0")
                .into_bytes(),
        ),
        // Parameters of a Contact nobody knows: of the header, of the URI; and headers of the URI.
        register("cparam01", "Contact: sip:+15550100@tree.test;hollow\r\n"),
        register("cparam02", "Contact: <sip:+15550100@tree.test;hollow>\r\n"),
        register(
            "regescrt",
            "Contact: <sip:owl@tree.test?Route=%3Csip:nest.test%3E>\r\n",
        ),
        // An offer is asked for, of a kind nobody knows.
        Torture::new(
            "sdp01",
            &[406],
            &plain(
                "sdp01",
                "INVITE",
                ATTIC,
                "Contact: <sip:owl@tree.test>\r\nAccept: text/hoots\r\n",
            ),
        ),
        // As RFC 2543 wrote it: neither branch nor tag nor Contact nor length.
        Torture::new(
            "inv2543",
            &[200],
            format!(
                "INVITE sip:attic@house.test SIP/2.0\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701\r\n\
                 From: <sip:+15550101@tree.test;user=phone>\r\n\
                 Record-Route: <sip:attic@house.test;maddr=nest.test>\r\n\
                 To: sip:+15550102@house.test;user=phone\r\n\
                 Call-ID: inv2543.hoot@tree.test\r\n\
                 CSeq: 56 INVITE\r\n\
                 Content-Type: application/sdp\r\n\r\n{OFFER}"
            )
            .as_bytes(),
        )
        .over_tcp(Outcome::Closed),
    ]
}
