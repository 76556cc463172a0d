//! One rule of RFC 3264 and its relatives at a time.

use super::*;

/// The lines of an offer that takes PCMU at 198.51.100.2:6000, with more lines below.
fn pcmu(session: &str, media: &str) -> String {
    format!("c=IN IP4 198.51.100.2\n{session}\nm=audio 6000 RTP/AVP 0\n{media}")
}

fn agreed_for(offer: &str) -> Agreed {
    let offer = description(offer);
    let (answer, agreed) = answer(&offer, &capabilities(), &local()).unwrap();
    check_answer(&offer, &answer);
    check_agreed(&agreed, &capabilities());
    agreed
}

#[test]
fn hold_and_resume() {
    use Direction::*;
    // Offered at session level, at media level, and what we do then.
    for (session, media, direction, held) in [
        ("", "", SendRecv, false),
        ("", "a=sendrecv", SendRecv, false),
        ("", "a=sendonly", RecvOnly, true),
        ("", "a=recvonly", SendOnly, false),
        ("", "a=inactive", Inactive, true),
        ("a=sendonly", "", RecvOnly, true),
        ("a=inactive", "a=sendrecv", SendRecv, false),
        ("a=sendrecv", "a=inactive", Inactive, true),
        // RFC 3264 section 8.4, the old way.
        ("", "c=IN IP4 0.0.0.0", RecvOnly, true),
        ("", "c=IN IP6 ::", RecvOnly, true),
        ("", "c=IN IP4 0.0.0.0\na=sendonly", RecvOnly, true),
        ("", "c=IN IP4 0.0.0.0\na=recvonly", Inactive, true),
        ("", "c=IN IP4 0.0.0.0\na=inactive", Inactive, true),
    ] {
        let expected = format!(
            "m=audio 16384 RTP/AVP 0\na=rtpmap:0 PCMU/8000\na=ptime:20\na={}",
            direction.name()
        );
        let agreed = check(&pcmu(session, media), &expected);
        assert_eq!(
            (agreed.direction, agreed.held),
            (direction, held),
            "{session} {media}"
        );
    }
}

#[test]
fn the_address_of_an_old_style_hold_goes_nowhere() {
    let agreed = agreed_for(&pcmu("", "c=IN IP4 0.0.0.0"));
    assert_eq!(agreed.remote_rtp, socket("0.0.0.0:6000"));
}

#[test]
fn a_disabled_stream_stays_disabled() {
    let agreed = check(
        "m=audio 0 RTP/AVP 8 101\na=rtpmap:101 telephone-event/8000",
        "m=audio 0 RTP/AVP 8 101",
    );
    assert_eq!(agreed.direction, Direction::Inactive);
    assert!(agreed.held);
    assert_eq!(agreed.codec, PCMA);
    assert_eq!(agreed.receive_payload_types, []);
    assert_eq!(agreed.remote_rtp, socket("0.0.0.0:0"));
    // Its formats need not be ours.
    check("m=audio 0 RTP/SAVP 18", "m=audio 0 RTP/SAVP 18");
    // Another line that is open and cannot be served decides.
    check_refused(
        "c=IN IP4 198.51.100.2\nm=audio 0 RTP/AVP 0\nm=audio 6000 RTP/AVP 18",
        Refusal::NoCommonCodec,
    );
}

#[test]
fn a_codec_change_in_a_new_offer() {
    let before = agreed_for("c=IN IP4 198.51.100.2\nm=audio 6000 RTP/AVP 0 8");
    let after = agreed_for(
        "c=IN IP4 198.51.100.3\nm=audio 6002 RTP/AVP 8 96\na=rtpmap:96 telephone-event/8000",
    );
    assert_eq!((before.codec, before.payload_type), (PCMU, 0));
    assert_eq!((after.codec, after.payload_type), (PCMA, 8));
    assert_eq!(after.telephone_event, Some(96));
    assert_eq!(after.remote_rtp, socket("198.51.100.3:6002"));
}

#[test]
fn payload_types_follow_rtpmap() {
    let c = "c=IN IP4 198.51.100.2";
    for (line, codec, payload_type) in [
        (
            "m=audio 6000 RTP/AVP 111\na=rtpmap:111 OPUS/48000/2",
            OPUS,
            111,
        ),
        ("m=audio 6000 RTP/AVP 97\na=rtpmap:97  PCMU/8000", PCMU, 97),
        // RFC 3551 section 6: an rtpmap line overrides the static meaning.
        ("m=audio 6000 RTP/AVP 0 8\na=rtpmap:0 G729/8000", PCMA, 8),
        // An rtpmap line that cannot be read does not.
        ("m=audio 6000 RTP/AVP 0\na=rtpmap:0 PCMU", PCMU, 0),
        ("m=audio 6000 RTP/AVP 9", G722, 9),
        // The clock and the channels are part of a codec's name.
        ("m=audio 6000 RTP/AVP 96 8\na=rtpmap:96 PCMU/16000", PCMA, 8),
        ("m=audio 6000 RTP/AVP 96 8\na=rtpmap:96 opus/48000", PCMA, 8),
        // What is no payload type is no format.
        ("m=audio 6000 RTP/AVP x 128 256 8", PCMA, 8),
    ] {
        let agreed = agreed_for(&format!("{c}\n{line}"));
        assert_eq!(
            (agreed.codec, agreed.payload_type),
            (codec, payload_type),
            "{line}"
        );
        assert_eq!(agreed.receive_payload_types, [(payload_type, codec)]);
    }
}

#[test]
fn what_is_refused_and_why() {
    let c = "c=IN IP4 198.51.100.2";
    for (offer, refusal) in [
        ("m=audio 6000 RTP/AVP 0", Refusal::UnusableAddress),
        (
            "c=IN IP4 phone.example.com\nm=audio 6000 RTP/AVP 0",
            Refusal::UnusableAddress,
        ),
        (
            "c=IN IP4 224.2.1.1/127\nm=audio 6000 RTP/AVP 0",
            Refusal::UnusableAddress,
        ),
        (
            "c=IN IP4 255.255.255.255\nm=audio 6000 RTP/AVP 0",
            Refusal::UnusableAddress,
        ),
        (
            &format!("{c}\nm=audio 6000 RTP/AVP 18 3 4"),
            Refusal::NoCommonCodec,
        ),
        (
            &format!("{c}\nm=audio 6000 RTP/AVP 101\na=rtpmap:101 telephone-event/8000"),
            Refusal::NoCommonCodec,
        ),
        (
            &format!("{c}\nm=audio 6000 RTP/SAVP 0"),
            Refusal::UnsupportedProtocol,
        ),
        (
            &format!("{c}\nm=audio 6000 TCP/RTP/AVP 0"),
            Refusal::UnsupportedProtocol,
        ),
        (&format!("{c}\nm=video 6000 RTP/AVP 96"), Refusal::NoAudio),
        (c, Refusal::NoAudio),
    ] {
        check_refused(offer, refusal);
    }
}

#[test]
fn a_phone_of_both_families_may_name_the_other_one() {
    let agreed = agreed_for("c=IN IP6 2001:db8::7\nm=audio 6000 RTP/AVP 0");
    assert!(agreed.is_somewhere() && !agreed.held);
    assert_eq!(agreed.remote_rtp, "0.0.0.0:6000".parse().unwrap());
    assert!(agreed.direction.sends() && agreed.direction.receives());
    // On hold, in the old way and switched off it is nowhere.
    for offer in [
        "c=IN IP4 0.0.0.0\nm=audio 6000 RTP/AVP 0",
        "c=IN IP4 198.51.100.2\nm=audio 6000 RTP/AVP 0",
    ] {
        assert!(!agreed_for(offer).is_somewhere(), "{offer}");
    }
}

#[test]
fn refusals_have_the_warning_of_rfc_3261() {
    let codes = [
        Refusal::NoAudio,
        Refusal::NoCommonCodec,
        Refusal::UnusableAddress,
        Refusal::UnsupportedProtocol,
    ]
    .map(Refusal::warning_code);
    assert_eq!(codes, [304, 305, 301, 302]);
    assert_eq!(
        Refusal::NoCommonCodec.to_string(),
        "Incompatible media format: no common audio codec"
    );
}

#[test]
fn other_lines_are_refused_in_their_places() {
    let agreed = check(
        "m=video 7000 RTP/AVP 97 98
        c=IN IP4 198.51.100.2
        m=application 9 TCP/BFCP *
        m=audio 6000 RTP/AVP 3
        c=IN IP4 198.51.100.2
        m=audio 6002 RTP/AVP 8
        c=IN IP4 198.51.100.4
        m=audio 6004 RTP/AVP 8
        c=IN IP4 198.51.100.5
        m=video 0 RTP/AVP",
        "m=video 0 RTP/AVP 97 98
        m=application 0 TCP/BFCP *
        m=audio 0 RTP/AVP 3
        m=audio 16384 RTP/AVP 8
        a=rtpmap:8 PCMA/8000
        a=ptime:20
        a=sendrecv
        m=audio 0 RTP/AVP 8
        m=video 0 RTP/AVP",
    );
    assert_eq!(agreed.media_index, 3);
    assert_eq!(agreed.remote_rtp, socket("198.51.100.4:6002"));
}

#[test]
fn packet_durations() {
    for (lines, ptime_ms) in [
        ("", 20),
        ("a=ptime:20", 20),
        ("a=ptime:30", 30),
        ("a=ptime: 40 ", 40),
        ("a=ptime:5", 10),
        ("a=ptime:25", 20),
        ("a=ptime:2.5", 10),
        ("a=ptime:0", 20),
        ("a=ptime:soon", 20),
        ("a=ptime:100", 60),
        ("a=ptime:4294967296", 20),
        ("a=maxptime:10", 10),
        ("a=maxptime:150", 20),
        ("a=ptime:60\na=maxptime:40", 40),
        ("a=maxptime:5", 10),
    ] {
        assert_eq!(agreed_for(&pcmu("", lines)).ptime_ms, ptime_ms, "{lines}");
    }
}

#[test]
fn telephone_events() {
    let c = "c=IN IP4 198.51.100.2";
    for (lines, expected) in [
        ("a=rtpmap:99 telephone-event/8000", Some("0-16")),
        (
            "a=rtpmap:99 telephone-event/8000\na=fmtp:99 0-16",
            Some("0-16"),
        ),
        (
            "a=rtpmap:99 telephone-event/8000\na=fmtp:99 0-11",
            Some("0-11"),
        ),
        (
            "a=rtpmap:99 telephone-event/8000\na=fmtp:99 0-11,16,66-70",
            Some("0-11,16"),
        ),
        (
            "a=rtpmap:99 telephone-event/8000\na=fmtp:99 10-40",
            Some("10-16"),
        ),
        (
            "a=rtpmap:99 telephone-event/8000\na=fmtp:99 9-2,5",
            Some("5"),
        ),
        (
            "a=rtpmap:99 telephone-event/8000\na=fmtp:99 all of them",
            Some("0-16"),
        ),
        ("a=rtpmap:99 telephone-event/8000\na=fmtp:99 32-40", None),
        ("a=rtpmap:99 telephone-event/16000", None),
        ("", None),
    ] {
        let offer = description(&format!("{c}\nm=audio 6000 RTP/AVP 0 99\n{lines}"));
        let (answer, agreed) = answer(&offer, &capabilities(), &local()).unwrap();
        check_answer(&offer, &answer);
        assert_eq!(agreed.telephone_event, expected.map(|_| 99), "{lines}");
        assert_eq!(
            answer.media[0].formats.len(),
            1 + usize::from(expected.is_some())
        );
        let fmtp = expected.map(|events| format!("99 {events}"));
        assert_eq!(
            answer.media[0].attribute("fmtp"),
            fmtp.as_deref(),
            "{lines}"
        );
    }
}

#[test]
fn telephone_events_only_when_we_can() {
    let offer =
        "c=IN IP4 198.51.100.2\nm=audio 6000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000";
    let capabilities = Capabilities {
        telephone_event: false,
        ..capabilities()
    };
    let (answer, agreed) = answer(&description(offer), &capabilities, &local()).unwrap();
    assert_eq!(agreed.telephone_event, None);
    assert_eq!(answer.media[0].formats, ["0"]);
}

#[test]
fn where_rtcp_goes() {
    for (lines, rtcp) in [
        ("", "198.51.100.2:6001"),
        ("a=rtcp:7000", "198.51.100.2:7000"),
        ("a=rtcp:7000 IN IP4 198.51.100.9", "198.51.100.9:7000"),
        ("a=rtcp:7000 IN IP4 224.0.0.1", "198.51.100.2:7000"),
        ("a=rtcp:7000 IN IP6 ::1", "198.51.100.2:7000"),
        ("a=rtcp:0", "198.51.100.2:6001"),
        ("a=rtcp:7000\na=rtcp-mux", "198.51.100.2:6000"),
    ] {
        assert_eq!(
            agreed_for(&pcmu("", lines)).remote_rtcp,
            socket(rtcp),
            "{lines}"
        );
    }
    let last_port = agreed_for("c=IN IP4 198.51.100.2\nm=audio 65535 RTP/AVP 0");
    assert_eq!(last_port.remote_rtcp, socket("198.51.100.2:65535"));
}

#[test]
fn rtcp_mux_is_answered_when_offered() {
    let agreed = check(
        &pcmu("", "a=rtcp-mux"),
        "m=audio 16384 RTP/AVP 0
        a=rtpmap:0 PCMU/8000
        a=ptime:20
        a=rtcp-mux
        a=sendrecv",
    );
    assert!(agreed.rtcp_mux);
    assert!(!agreed_for(&pcmu("a=rtcp-mux", "")).rtcp_mux);
    // RFC 5761 section 4: payload type 72 with the marker bit looks like a sender report.
    let lookalike =
        "c=IN IP4 198.51.100.2\nm=audio 6000 RTP/AVP 72\na=rtpmap:72 PCMU/8000\na=rtcp-mux";
    assert!(!agreed_for(lookalike).rtcp_mux);
}

#[test]
fn our_rtcp_port_is_told_when_it_is_not_the_next_one() {
    let local = Local {
        rtcp_port: 20000,
        ..local()
    };
    check_from(
        &local,
        &pcmu("", ""),
        "m=audio 16384 RTP/AVP 0
        a=rtpmap:0 PCMU/8000
        a=ptime:20
        a=rtcp:20000
        a=sendrecv",
    );
}

#[test]
fn mapped_addresses_are_ipv4() {
    let agreed = agreed_for("c=IN IP6 ::ffff:198.51.100.2\nm=audio 6000 RTP/AVP 0");
    assert_eq!(agreed.remote_rtp, socket("198.51.100.2:6000"));
}
