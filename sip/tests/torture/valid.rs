//! RFC 4475 §3.1.1: well-formed, however odd; what comes of them is a question of methods and users.

use super::{Outcome, Torture};

const OFFER: &str = "v=0\r\no=owl 11 11 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

pub(super) fn messages() -> Vec<Torture> {
    vec![
        // White space wherever it may stand, folding, an empty header, leading zeros, either name of a
        // header in any case, quotes in quotes. The dialog it names is none of ours.
        Torture::new(
            "wsinv",
            &[481],
            format!(
                "INVITE sip:attic@house.test;weather=fine SIP/2.0\r\n\
                 tO :\r\n sip:attic@house.test ;   tag    = 5t4le\r\n\
                 fROM   : \"Owl \\\\\\\"\"       <sip:owl@tree.test>\r\n\t\x20;\r\n  tag = 0wl\r\n\
                 mAX-FORWARDS: 0070\r\n\
                 Call-ID: wsinv.hoot@tree.test\r\n\
                 Content-Length   : {}\r\n\
                 CSEQ: 0021\r\n  INVITE\r\n\
                 Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.9:50701;branch=3twigs\r\n\
                 s :\r\n\
                 Wind:   from the west\r\n later from the north\r\n\
                 Feathers: ,;;,,;;,;\r\n\
                 Content-Type: application/sdp\r\n\
                 Route:\r\n <sip:nest.test;lr;soft=very;dry>\r\n\
                 V:  SIP  / 2.0  / TCP     branch.test   ;\r\n  branch  =   z9hG4bKleaf  ,\r\n SIP  /    2.0   / UDP  192.0.2.77   ; branch=\r\n z9hG4bKroot\r\n\
                 M:\"Owl \\\"\\\"\" <sip:owl@tree.test> ; mood =\r\n      good ;\r\n  awake ; q = 0.5\r\n\
                 \r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // Every character that a token, a word, a user part and a quoted string may have.
        Torture::new(
            "intmeth",
            &[501],
            b"!Odd~Method'0_1*2`3+4.%5- sip:0_odd.User~(so-it!is)&isn't+it$/well?,/;;*:&a=b,c!*se$cret_(d.e')@house.test SIP/2.0\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bK!~'_*`+.%6-\r\n\
              To: \"bell \\\x07 nothing \\\0 rubout \\\x7F\" <sip:0_odd.User~(so-it!is)&isn't+it$/well?,/;;*@house.test>\r\n\
              From: one1~` two2'+_ three3*%!.- <sip:plain@tree.test> ;p'~+*_!.-%=\"\xD0\xB4\xD0\xBE\xD0\xBC\";tag=~_1'+`*%!-.\r\n\
              Call-ID: intmeth.a%B-!.*_+'@c`~)(><:\\/\"][?}{\r\n\
              CSeq: 77 !Odd~Method'0_1*2`3+4.%5-\r\n\
              Max-Forwards: 255\r\n\
              odd-Name_!.%*+`'~: \xE5\xAE\xB6\xEF\xBB\xBF\r\n\
              Content-Length: 0\r\n\r\n",
        ),
        // Escapes in user parts; what they hide separates nothing.
        Torture::new(
            "esc01",
            &[200],
            format!(
                "INVITE sip:sips%3Aattic%40nest.test@house.test SIP/2.0\r\n\
                 To: sip:%61ttic@house.test\r\n\
                 From: <sip:two%20words@tree.test>;tag=esc1\r\n\
                 Max-Forwards: 80\r\n\
                 Call-ID: esc01.hoot@tree.test\r\n\
                 Contact: <sip:t%77o@tree.test:50701;%6C%72;p=1%3B2>\r\n\
                 CSeq: 5 INVITE\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKesc01\r\n\
                 Content-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // An escaped NUL.
        Torture::new(
            "escnull",
            &[405],
            b"REGISTER sip:house.test SIP/2.0\r\n\
              To: sip:hollow-%00-tree@house.test\r\n\
              From: sip:hollow-%00-tree@house.test;tag=esc0\r\n\
              Max-Forwards: 41\r\n\
              Call-ID: escnull.hoot@tree.test\r\n\
              CSeq: 6 REGISTER\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKescnull\r\n\
              Contact: <sip:%00@tree.test>\r\n\
              Contact: <sip:%00%00@tree.test>\r\n\
              L:0\r\n\r\n",
        ),
        // A percent sign where it escapes nothing: in a method and in a display name.
        Torture::new(
            "esc02",
            &[501],
            b"O%50TI%4FNS sip:house.test SIP/2.0\r\n\
              To: \"%4f%77%6c\" <sip:attic@house.test>\r\n\
              From: \"%4f%77%6c\" <sip:owl@tree.test>;tag=esc2\r\n\
              Max-Forwards: 70\r\n\
              Call-ID: esc02.hoot@tree.test\r\n\
              CSeq: 234 O%50TI%4FNS\r\n\
              Contact: <sip:owl@tree.test>\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKesc02\r\n\
              Content-Length: 0\r\n\r\n",
        ),
        // No white space between a display name and its bracket.
        Torture::new(
            "lwsdisp",
            &[200],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              To: sip:attic@house.test\r\n\
              From: owl<sip:owl@tree.test>;tag=lwsd\r\n\
              Max-Forwards: 70\r\n\
              Call-ID: lwsdisp.hoot@tree.test\r\n\
              CSeq: 60 OPTIONS\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKlwsdisp\r\n\
              l: 0\r\n\r\n",
        ),
        longreq(),
        // Two requests in one datagram, of which the second is only noise; on a stream it is a request.
        Torture::new(
            "dblreq",
            &[405],
            format!(
                "REGISTER sip:house.test SIP/2.0\r\n\
                 To: sip:owl@house.test\r\n\
                 From: sip:owl@house.test;tag=dbl1\r\n\
                 Max-Forwards: 8\r\n\
                 Call-ID: dblreq.first@tree.test\r\n\
                 CSeq: 8 REGISTER\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKdbl1\r\n\
                 Content-Length: 0\r\n\r\n\
                 INVITE sip:attic@house.test SIP/2.0\r\n\
                 t: sip:attic@house.test\r\n\
                 From: sip:owl@tree.test;tag=dbl2\r\n\
                 Max-Forwards: 70\r\n\
                 Call-ID: dblreq.second@tree.test\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKdbl2\r\n\
                 CSeq: 8 INVITE\r\n\
                 Contact: <sip:owl@tree.test>\r\n\
                 Content-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        )
        .over_tcp(Outcome::Answers(&[405, 200])),
        // A semicolon in the user part begins no parameter of the URI.
        Torture::new(
            "semiuri",
            &[200],
            b"OPTIONS sip:attic;floor=up%40roof.test@house.test SIP/2.0\r\n\
              To: sip:attic_owl@house.test\r\n\
              From: sip:owl@tree.test;tag=semi\r\n\
              Max-Forwards: 3\r\n\
              Call-ID: semiuri.hoot@tree.test\r\n\
              CSeq: 9 OPTIONS\r\n\
              Accept: application/sdp, application/feather,\r\n        multipart/nest, message/twig\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKsemiuri\r\n\
              l: 0\r\n\r\n",
        ),
        // Transports known and unknown along the way.
        Torture::new(
            "transports",
            &[200],
            b"OPTIONS sip:attic@house.test SIP/2.0\r\n\
              To: sip:attic@house.test\r\n\
              From: <sip:owl@tree.test>;tag=trans\r\n\
              Max-Forwards: 70\r\n\
              Call-ID:  transports.hoot@tree.test\r\n\
              Accept: application/sdp\r\n\
              CSeq: 60 OPTIONS\r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKone\r\n\
              Via: SIP/2.0/SCTP two.test;branch=z9hG4bKtwo\r\n\
              Via: SIP/2.0/TLS three.test;branch=z9hG4bKthree\r\n\
              Via: SIP/2.0/FEATHER four.test;branch=z9hG4bKfour\r\n\
              Via: SIP/2.0/TCP five.test;branch=z9hG4bKfive\r\n\
              l: 0\r\n\r\n",
        ),
        mpart01(),
        // A reason phrase of any characters. No request of ours is meant.
        Torture::new(
            "unreason",
            &[],
            format!(
                "SIP/2.0 200 = 5**2 * 2**3 и это двести\r\n\
                 Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKunreason\r\n\
                 Call-ID: unreason.hoot@tree.test\r\n\
                 CSeq: 35 INVITE\r\n\
                 From: <sip:attic@house.test>;tag=unr1\r\n\
                 To: <sip:owl@tree.test>;tag=unr2\r\n\
                 Contact: <sip:owl@tree.test>\r\n\
                 Content-Type: application/sdp\r\n\
                 Content-Length: {}\r\n\r\n{OFFER}",
                OFFER.len()
            )
            .as_bytes(),
        ),
        // No reason phrase.
        Torture::new(
            "noreason",
            &[],
            b"SIP/2.0 100 \r\n\
              Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKnoreason\r\n\
              Call-ID: noreason.hoot@tree.test\r\n\
              CSeq: 35 INVITE\r\n\
              From: <sip:attic@house.test>;tag=nor1\r\n\
              To: <sip:owl@tree.test>;tag=nor2\r\n\
              Content-Length: 0\r\n\
              Contact: <sip:owl@tree.test>\r\n\r\n",
        ),
    ]
}

/// Long names and values, and many hops.
fn longreq() -> Torture {
    let long = |word: &str, times: usize| word.repeat(times);
    let mut text = format!(
        "INVITE sip:attic@house.test SIP/2.0\r\n\
         To: \"{name}\" <sip:attic@house.test:6000;{p}=1;long={v};{p}two=2>\r\n\
         F: sip:{user}@tree.test;tag=l0ng{v};{p}={v};{p}{p}\r\n\
         Call-ID: longreq.{id}\r\n\
         CSeq: 3882340 INVITE\r\n\
         {header}-Name: {value}; {p} = {v}\r\n\
         Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bK{branch}\r\n",
        name = long("a name as long as the night ", 12),
        user = long("whowhowho", 40),
        p = long("feathered", 14),
        v = long("verysoft", 24),
        id = long("hoot-and-again-", 20),
        header = long("Long", 25),
        value = long("unread-", 60),
        branch = long("twigontwig", 20),
    );
    for hop in (1..34).rev() {
        text += &format!("Via: SIP/2.0/TCP hop{hop}.test;branch=z9hG4bK{hop}\r\n");
    }
    text += &format!(
        "v: SIP/2.0/TCP tree.test;received=192.0.2.5;branch={}\r\n\
         Max-Forwards: 70\r\n\
         Contact: <sip:{}@tree.test>\r\n\
         Content-Type: application/sdp\r\n\
         l: {}\r\n\r\n{OFFER}",
        long("oldtwig", 40),
        long("whowhowho", 40),
        OFFER.len()
    );
    Torture::new("longreq", &[200], text.as_bytes())
}

/// A body of several parts, one of them octets of every kind.
fn mpart01() -> Torture {
    let body = b"--feather\r\n\
        Content-Type: text/plain\r\n\
        Content-Transfer-Encoding: binary\r\n\r\n\
        Whoo goes there?\r\n\
        --feather\r\n\
        Content-Type: application/octet-stream\r\n\
        Content-Transfer-Encoding: binary\r\n\r\n\
        0\x82\x01\0\x06\x09*\x86H\x86\xF7\r\n\r\n\xFF\xFE\0\0\0\x80\x0B\x1B\x7F\xC0\xC1\r\n\
        --feather--\r\n";
    let head = format!(
        "MESSAGE sip:attic@house.test SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.9:50701;branch=z9hG4bKmpart01\r\n\
         Max-Forwards: 70\r\n\
         Route: <sip:house.test;lr>\r\n\
         Identity: \"{}\"\r\n\
         Content-Type: multipart/mixed;boundary=feather\r\n\
         From: \"\" <sip:owl@tree.test>;tag=mpart\r\n\
         To: <sip:attic@house.test>\r\n\
         Call-ID: mpart01.hoot@tree.test\r\n\
         CSeq: 127 MESSAGE\r\n\
         Content-Length: {}\r\n\r\n",
        "r5mwreLuyDRYBi/0T".repeat(8),
        body.len()
    );
    Torture::new("mpart01", &[405], &[head.as_bytes(), body].concat())
}
