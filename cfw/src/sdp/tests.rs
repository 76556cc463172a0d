use proptest::prelude::*;

use super::*;

fn local(id: &str) -> Local {
    Local {
        session: 7,
        version: 8,
        ..Local::new(
            "192.0.2.1".parse().unwrap(),
            Some(7575),
            id.parse().unwrap(),
        )
    }
}

fn in_tls(mut local: Local) -> Local {
    local.fingerprint = Some(Fingerprint {
        hash: "sha-256".to_owned(),
        bytes: vec![0x4a, 0xad, 0xb9],
    });
    local
}

/// With this and `c=` before the channel's own lines.
const SESSION: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nt=0 0\r\n";

fn sdp(lines: &str) -> String {
    format!("{SESSION}{lines}")
}

const CHANNEL: &str = "c=IN IP4 192.0.2.9\r\nm=application 7563 TCP cfw\r\na=cfw-id:peersOwn01\r\n";

#[test]
fn an_offer_and_its_answer_as_they_are_written() {
    let offered = offer(&local("H839quwhjdhegvdga"), Setup::Active);
    assert_eq!(
        offered,
        "v=0\r\no=- 7 8 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=application 9 TCP cfw\r\na=setup:active\r\na=connection:new\r\n\
         a=cfw-id:H839quwhjdhegvdga\r\n"
    );
    let mut answerer = in_tls(local("answers1"));
    answerer.addr = "2001:db8::1".parse().unwrap();
    let offered = read(offer(&in_tls(local("offers01")), Setup::ActPass).as_bytes()).unwrap();
    let (answered, agreement) = answer(&offered, &answerer, false).unwrap();
    assert_eq!(
        answered,
        "v=0\r\no=- 7 8 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\n\
         m=application 7575 TCP/TLS cfw\r\na=setup:passive\r\na=connection:new\r\n\
         a=cfw-id:answers1\r\na=fingerprint:sha-256 4A:AD:B9\r\n"
    );
    assert_eq!(
        agreement,
        Agreement {
            role: Role::Passive,
            cfw_id: "answers1".parse().unwrap(),
            peer_cfw_id: "offers01".to_owned(),
            peer_host: Some("192.0.2.1".to_owned()),
            peer_port: 7575,
            tls: true,
            peer_fingerprints: offered.fingerprints,
            connection: Connection::New,
        }
    );
}

/// RFC 4145 §4.1: what an answer may say to each offer, and who connects then.
#[test]
fn who_connects() {
    use Setup::{ActPass, Active, HoldConn, Passive};
    for (offered, listens, answered, ours) in [
        (Some(Active), true, Passive, Ok(Role::Passive)),
        (None, true, Passive, Ok(Role::Passive)),
        (Some(Active), false, Passive, Err(Rejection::Setup)),
        (Some(Passive), true, Active, Ok(Role::Active)),
        (Some(Passive), false, Active, Ok(Role::Active)),
        (Some(ActPass), true, Passive, Ok(Role::Passive)),
        (Some(ActPass), false, Active, Ok(Role::Active)),
        (Some(HoldConn), true, HoldConn, Err(Rejection::Setup)),
    ] {
        let mut us = local("answers1");
        us.port = us.port.filter(|_| listens);
        let mut offer = read(sdp(CHANNEL).as_bytes()).unwrap();
        offer.setup = offered;
        let result = answer(&offer, &us, false);
        assert_eq!(result.as_ref().map(|(_, a)| a.role), ours.as_ref().copied());
        let Ok((sdp, _)) = result else { continue };
        let read = read(sdp.as_bytes()).unwrap();
        assert_eq!(read.setup, Some(answered));
        assert_eq!(read.port, if answered == Active { 9 } else { 7575 });
        let theirs = accept(&local("peersOwn01"), offered.unwrap_or(Active), &read).unwrap();
        assert_ne!(theirs.role, ours.unwrap());
    }
}

#[test]
fn the_answer_to_our_offer() {
    let with = |setup: &str| sdp(&format!("{CHANNEL}{setup}"));
    for (offered, answer, role) in [
        (Setup::Active, with(""), Ok(Role::Active)),
        (Setup::Active, with("a=setup:passive\r\n"), Ok(Role::Active)),
        (
            Setup::Passive,
            with("a=setup:active\r\n"),
            Ok(Role::Passive),
        ),
        (
            Setup::ActPass,
            with("a=setup:ACTIVE\r\n"),
            Ok(Role::Passive),
        ),
        (
            Setup::Active,
            with("a=setup:active\r\n"),
            Err(Rejection::Setup),
        ),
        (
            Setup::Active,
            with("a=setup:actpass\r\n"),
            Err(Rejection::Setup),
        ),
        (
            Setup::Active,
            with("a=setup:holdconn\r\n"),
            Err(Rejection::Setup),
        ),
        (
            Setup::Active,
            sdp("m=application 0 TCP cfw\r\n"),
            Err(Rejection::Rejected),
        ),
        (
            Setup::Active,
            sdp("m=application 7563 TCP cfw\r\na=cfw-id:peersOwn01\r\n"),
            Err(Rejection::NoAddress),
        ),
    ] {
        let read = read(answer.as_bytes()).unwrap();
        let agreement = accept(&local("oursOnly1"), offered, &read);
        assert_eq!(agreement.map(|agreement| agreement.role), role, "{answer}");
    }
}

/// RFC 6230 §4.2 against what RFC 7058 §5.1 shows.
#[test]
fn our_id_differs_from_the_offers_but_an_echo_is_accepted() {
    for id in ["same0000", "same0001"] {
        let offered = read(offer(&local(id), Setup::Active).as_bytes()).unwrap();
        let (answered, agreement) = answer(&offered, &local(id), false).unwrap();
        let answered = read(answered.as_bytes()).unwrap();
        assert_ne!(answered.cfw_id, id);
        assert_eq!(answered.cfw_id, agreement.cfw_id.as_str());
        assert_eq!(agreement.peer_cfw_id, id);
    }
    let echo = read(sdp(CHANNEL).as_bytes()).unwrap();
    let agreement = accept(&local("peersOwn01"), Setup::Active, &echo).unwrap();
    assert_eq!(agreement.peer_cfw_id, agreement.cfw_id.as_str());
}

#[test]
fn descriptions_as_others_write_them() {
    let plain = Transport {
        tls: false,
        draft: false,
    };
    let read = |lines: &str| read(lines.as_bytes()).unwrap();
    // RFC 6230 §4.1's own sample, which has no t=; bare line feeds; a space before the id.
    let bare = read(
        "v=0\no=originator 2890844526 2890842808 IN IP4 controller.example.com\ns=-\n\
         c=IN IP4 controller.example.com\nm=application 49153 TCP cfw\na=setup:active\n\
         a=connection:existing\na=cfw-id: H839quwhjdhegvdga\n",
    );
    assert_eq!(bare.host.as_deref(), Some("controller.example.com"));
    assert_eq!((bare.port, bare.transport), (49153, plain));
    assert_eq!(bare.connection, Connection::Existing);
    assert_eq!(bare.cfw_id, "H839quwhjdhegvdga");

    let mixed = read(&sdp(
        "a=setup:passive\r\na=fingerprint:sha-1 01:02\r\nm=audio 4000 RTP/AVP 0\r\n\
         c=IN IP4 192.0.2.77\r\na=setup:active\r\nm=application 1 TCP/TLS cfw\r\n\
         c=IN IP6 2001:db8::9\r\na=cfw-id:x\r\na=fingerprint:SHA-256 0a:ff\r\n\
         a=fingerprint:md5 00:01\r\na=fingerprint:sha-512 0\r\nm=application 5 UDP bfcp\r\n",
    ));
    assert_eq!(mixed.host.as_deref(), Some("2001:db8::9"));
    assert_eq!(mixed.setup, Some(Setup::Passive));
    assert_eq!(mixed.media_before, ["audio 4000 RTP/AVP 0"]);
    assert_eq!(mixed.media_after, ["application 5 UDP bfcp"]);
    let fingerprint = Fingerprint {
        hash: "sha-256".to_owned(),
        bytes: vec![10, 255],
    };
    assert_eq!(mixed.fingerprints, [fingerprint]);
    let us = in_tls(local("answers1"));
    let (answered, _) = answer(&mixed, &us, false).unwrap();
    let media: Vec<&str> = answered
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(
        media,
        [
            "m=audio 0 RTP/AVP 0",
            "m=application 9 TCP/TLS cfw",
            "m=application 0 UDP bfcp"
        ]
    );
    assert!(reject(&mixed, &us).contains("\r\nm=application 0 TCP/TLS cfw\r\n"));
}

#[test]
fn drafts_are_answered_in_kind() {
    for proto in ["TCP/CFW *", "TCP/TLS/CFW *"] {
        let offered = sdp(&format!(
            "c=IN IP4 h\r\nm=application 7563 {proto}\r\na=cfw-id:old\r\na=fingerprint:sha-1 01\r\n"
        ));
        let us = match proto.contains("TLS") {
            true => in_tls(local("answers1")),
            false => local("answers1"),
        };
        let offered = read(offered.as_bytes()).unwrap();
        let (answered, _) = answer(&offered, &us, false).unwrap();
        assert!(answered.contains(&format!("\r\nm=application 7575 {proto}\r\n")));
    }
}

/// RFC 4145 §5: the first connection is new, whatever was offered.
#[test]
fn existing_connections() {
    let offered = sdp(&format!("{CHANNEL}a=connection:existing\r\n"));
    let offered = read(offered.as_bytes()).unwrap();
    for (is_connected, connection) in [(false, Connection::New), (true, Connection::Existing)] {
        let (answered, agreement) = answer(&offered, &local("answers1"), is_connected).unwrap();
        assert_eq!(agreement.connection, connection);
        assert_eq!(read(answered.as_bytes()).unwrap().connection, connection);
    }
}

#[test]
fn what_is_no_channel() {
    let too_long = sdp(&"a=x\r\n".repeat(SDP_LEN_MAX / 5));
    let too_many = sdp(&"m=audio 0 RTP/AVP 0\r\n".repeat(MEDIA_MAX + 1));
    let long_id = format!("{}{}", CHANNEL.trim_end(), "x".repeat(256));
    for (lines, rejection) in [
        (String::new(), Rejection::Malformed),
        ("hello".to_owned(), Rejection::Malformed),
        ("v=1\r\n".to_owned(), Rejection::Malformed),
        (too_long, Rejection::Malformed),
        (too_many, Rejection::Malformed),
        (sdp("m=application\r\n"), Rejection::Malformed),
        (sdp("m=application 70000 TCP cfw\r\n"), Rejection::Malformed),
        (sdp("m=application +1 TCP cfw\r\n"), Rejection::Malformed),
        (sdp("m=application 1\t2 TCP cfw\r\n"), Rejection::Malformed),
        (sdp(""), Rejection::NoChannel),
        (sdp("m=audio 1 RTP/AVP 0\r\n"), Rejection::NoChannel),
        (sdp("m=application 1 TCP bfcp\r\n"), Rejection::NoChannel),
        (sdp("m=audio 1 TCP cfw\r\n"), Rejection::NoChannel),
        (sdp(&CHANNEL.repeat(2)), Rejection::ManyChannels),
        (sdp("m=application 1 TCP cfw\r\n"), Rejection::CfwId),
        (
            sdp("m=application 1 TCP cfw\r\na=cfw-id:\r\n"),
            Rejection::CfwId,
        ),
        (
            sdp("m=application 1 TCP cfw\r\na=cfw-id:a b\r\n"),
            Rejection::CfwId,
        ),
        (sdp(&long_id), Rejection::CfwId),
        (sdp(&format!("{CHANNEL}a=setup:both\r\n")), Rejection::Setup),
        (
            sdp(&format!("{CHANNEL}a=connection:old\r\n")),
            Rejection::Malformed,
        ),
    ] {
        assert_eq!(read(lines.as_bytes()), Err(rejection), "{lines}");
        let status = if rejection == Rejection::Malformed {
            400
        } else {
            488
        };
        assert_eq!(rejection.status(), status);
    }
}

#[test]
fn tls_is_wanted_by_both_or_neither() {
    let plain = read(sdp(CHANNEL).as_bytes()).unwrap();
    let tls = sdp(&CHANNEL.replace("TCP", "TCP/TLS"));
    let tls = read(tls.as_bytes()).unwrap();
    let us = local("answers1");
    for (offer, us, rejection) in [
        (&plain, in_tls(us.clone()), Rejection::TlsRequired),
        (&tls, us.clone(), Rejection::NoTls),
        (&tls, in_tls(us), Rejection::NoFingerprint),
    ] {
        assert_eq!(answer(offer, &us, false), Err(rejection));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_description_or_a_rejection(bytes: Vec<u8>) {
        let _ = read(&bytes);
    }

    #[test]
    fn what_is_offered_is_read(
        addr: IpAddr,
        port in proptest::option::of(1..u16::MAX),
        random: [u8; 12],
        setup in proptest::sample::select(&Setup::ALL),
        bytes in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let mut us = Local::new(addr, port, cfw_id(random));
        us.fingerprint = Some(Fingerprint { hash: "sha-256".to_owned(), bytes });
        let read = read(offer(&us, setup).as_bytes()).unwrap();
        prop_assert_eq!(read.setup, Some(setup));
        prop_assert_eq!(read.cfw_id, us.cfw_id.as_str());
        prop_assert_eq!(read.fingerprints, Vec::from_iter(us.fingerprint));
        let is_nowhere = addr.is_unspecified();
        prop_assert_eq!(read.host, (!is_nowhere).then(|| addr.to_string()));
    }
}
