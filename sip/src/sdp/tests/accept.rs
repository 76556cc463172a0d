//! Our own offers, and what the answers to them amount to.

use super::*;

#[test]
fn what_we_offer() {
    let offer = offer(&capabilities(), &local());
    assert_eq!(
        offer.to_string(),
        "v=0\r\no=plenum 7 3 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 16384 RTP/AVP 96 9 0 8 101\r\n\
         a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n\
         a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
         a=ptime:20\r\na=rtcp-mux\r\na=sendrecv\r\n"
    );
}

#[test]
fn dynamic_numbers_never_meet_the_one_of_events() {
    let opus = capabilities().codecs[OPUS];
    let many = Capabilities {
        codecs: vec![opus; 40],
        ..capabilities()
    };
    let offer = offer(&many, &local());
    let mut formats = offer.media[0].formats.clone();
    assert_eq!(formats.len(), 32);
    formats.sort();
    formats.dedup();
    assert_eq!(formats.len(), 32);
}

/// What the answer's lines amount to, when it answers `what_we_offer`.
fn accepted(lines: &str) -> Result<Agreed, Refusal> {
    let offer = offer(&capabilities(), &local());
    let agreed = accept_answer(&offer, &description(lines), &capabilities());
    if let Ok(agreed) = &agreed {
        check_agreed(agreed, &capabilities());
    }
    agreed
}

#[test]
fn one_codec_chosen() {
    let agreed = accepted(
        "c=IN IP4 203.0.113.7
        m=audio 8000 RTP/AVP 8 101
        a=rtpmap:101 telephone-event/8000
        a=ptime:30
        a=rtcp-mux",
    );
    let expected = Agreed {
        media_index: 0,
        codec: PCMA,
        payload_type: 8,
        receive_payload_types: vec![(8, PCMA)],
        telephone_event: Some(101),
        remote_rtp: socket("203.0.113.7:8000"),
        remote_rtcp: socket("203.0.113.7:8000"),
        rtcp_mux: true,
        ptime_ms: 30,
        direction: Direction::SendRecv,
        held: false,
    };
    assert_eq!(agreed, Ok(expected));
}

#[test]
fn we_send_with_their_numbers_and_receive_with_ours() {
    let agreed = accepted(
        "c=IN IP4 203.0.113.7
        m=audio 8000 RTP/AVP 111 0 97
        a=rtpmap:111 opus/48000/2
        a=rtpmap:97 telephone-event/8000",
    )
    .unwrap();
    assert_eq!((agreed.codec, agreed.payload_type), (OPUS, 111));
    assert_eq!(agreed.receive_payload_types, [(96, OPUS), (0, PCMU)]);
    assert_eq!(agreed.telephone_event, Some(101));
    assert_eq!(agreed.remote_rtcp, socket("203.0.113.7:8001"));
}

#[test]
fn an_answer_without_rtpmap_uses_ours() {
    let agreed = accepted("c=IN IP4 203.0.113.7\nm=audio 8000 RTP/AVP 96 101").unwrap();
    assert_eq!((agreed.codec, agreed.payload_type), (OPUS, 96));
    assert_eq!(agreed.telephone_event, Some(101));
}

#[test]
fn directions_in_answers() {
    use Direction::*;
    for (lines, direction, held) in [
        ("a=sendrecv", SendRecv, false),
        ("a=recvonly", SendOnly, false),
        ("a=sendonly", RecvOnly, true),
        ("a=inactive", Inactive, true),
        ("c=IN IP4 0.0.0.0", RecvOnly, true),
    ] {
        let lines = format!("c=IN IP4 203.0.113.7\nm=audio 8000 RTP/AVP 0\n{lines}");
        let agreed = accepted(&lines).unwrap();
        assert_eq!(
            (agreed.direction, agreed.held),
            (direction, held),
            "{lines}"
        );
    }
}

#[test]
fn an_offer_to_send_only_never_receives() {
    let mut offer = offer(&capabilities(), &local());
    offer.media[0].direction = Some(Direction::SendOnly);
    let answer = description("c=IN IP4 203.0.113.7\nm=audio 8000 RTP/AVP 0\na=sendrecv");
    let agreed = accept_answer(&offer, &answer, &capabilities()).unwrap();
    assert_eq!(agreed.direction, Direction::SendOnly);
    assert!(!agreed.held);
}

#[test]
fn answers_of_no_use() {
    let c = "c=IN IP4 203.0.113.7";
    for (lines, refusal) in [
        (c.to_owned(), Refusal::NoAudio),
        (format!("{c}\nm=audio 0 RTP/AVP 0"), Refusal::NoAudio),
        (format!("{c}\nm=video 8000 RTP/AVP 0"), Refusal::NoAudio),
        (
            format!("{c}\nm=audio 8000 RTP/SAVP 0"),
            Refusal::UnsupportedProtocol,
        ),
        (
            format!("{c}\nm=audio 8000 RTP/AVP 18"),
            Refusal::NoCommonCodec,
        ),
        (
            format!("{c}\nm=audio 8000 RTP/AVP 101"),
            Refusal::NoCommonCodec,
        ),
        (
            "m=audio 8000 RTP/AVP 0".to_owned(),
            Refusal::UnusableAddress,
        ),
    ] {
        assert_eq!(accepted(&lines), Err(refusal), "{lines}");
    }
}

#[test]
fn a_codec_we_did_not_offer_is_not_accepted() {
    let only_pcmu = Capabilities {
        codecs: vec![capabilities().codecs[PCMU]],
        ..capabilities()
    };
    let offer = offer(&only_pcmu, &local());
    let answer = description("c=IN IP4 203.0.113.7\nm=audio 8000 RTP/AVP 8 0");
    let agreed = accept_answer(&offer, &answer, &capabilities()).unwrap();
    assert_eq!((agreed.codec, agreed.payload_type), (PCMU, 0));
    assert_eq!(agreed.receive_payload_types, [(0, PCMU)]);
}

#[test]
fn events_of_the_codec_s_own_clock_go_first() {
    let offer = description(
        "c=IN IP4 192.0.2.1
        m=audio 0 RTP/AVP 0
        m=audio 16384 RTP/AVP 96 0 100 101
        a=rtpmap:96 opus/48000/2
        a=rtpmap:100 telephone-event/48000
        a=rtpmap:101 telephone-event/8000",
    );
    for (formats, event) in [("96 100 101", 100), ("0 100 101", 101), ("96 101", 101)] {
        let answer = description(&format!(
            "c=IN IP4 203.0.113.7\nm=audio 0 RTP/AVP 0\nm=audio 8000 RTP/AVP {formats}"
        ));
        let agreed = accept_answer(&offer, &answer, &capabilities()).unwrap();
        assert_eq!(agreed.media_index, 1);
        assert_eq!(agreed.telephone_event, Some(event), "{formats}");
    }
}

#[test]
fn two_of_us_agree() {
    let caller = local();
    let callee = Local {
        address: "198.51.100.77".parse().unwrap(),
        rtp_port: 30000,
        rtcp_port: 30001,
        ..local()
    };
    let offer = offer(&capabilities(), &caller);
    let (answer, theirs) = answer(&offer, &capabilities(), &callee).unwrap();
    let ours = accept_answer(&offer, &answer, &capabilities()).unwrap();
    assert_eq!(ours.remote_rtp, socket("198.51.100.77:30000"));
    assert_eq!(theirs.remote_rtp, socket("192.0.2.1:16384"));
    assert_eq!((ours.codec, theirs.codec), (OPUS, OPUS));
    assert!(ours.rtcp_mux && theirs.rtcp_mux);
    let mirrored = Agreed {
        remote_rtp: theirs.remote_rtp,
        remote_rtcp: theirs.remote_rtcp,
        ..ours
    };
    assert_eq!(mirrored, theirs);
}
