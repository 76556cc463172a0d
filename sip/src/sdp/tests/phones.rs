//! What well-known phones, test tools and servers send.

use super::*;

#[test]
fn sipp_and_the_whole_answer() {
    let offer = "v=0\r\no=sipp 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\n\
        c=IN IP4 127.0.0.1\r\nt=3034423619 3042462419\r\nm=audio 6000 RTP/AVP 0\r\n\
        a=rtpmap:0 PCMU/8000\r\n";
    let offer = parse(offer.as_bytes()).unwrap();
    let (answer, agreed) = answer(&offer, &capabilities(), &local()).unwrap();
    assert_eq!(
        answer.to_string(),
        "v=0\r\no=plenum 7 3 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\n\
         t=3034423619 3042462419\r\nm=audio 16384 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n\
         a=ptime:20\r\na=sendrecv\r\n"
    );
    let expected = Agreed {
        media_index: 0,
        codec: PCMU,
        payload_type: 0,
        receive_payload_types: vec![(0, PCMU)],
        telephone_event: None,
        remote_rtp: socket("127.0.0.1:6000"),
        remote_rtcp: socket("127.0.0.1:6001"),
        rtcp_mux: false,
        ptime_ms: 20,
        direction: Direction::SendRecv,
        held: false,
    };
    assert_eq!(agreed, expected);
}

#[test]
fn linphone_with_video_and_events_of_three_clocks() {
    let agreed = check(
        "v=0
        o=alice 3724 2201 IN IP4 198.51.100.20
        s=Talk
        c=IN IP4 198.51.100.20
        t=0 0
        a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics
        a=record:off
        m=audio 7078 RTP/AVPF 96 97 98 0 8 18 101 99 100
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 useinbandfec=1
        a=rtpmap:97 speex/16000
        a=fmtp:97 vbr=on
        a=rtpmap:98 speex/8000
        a=fmtp:98 vbr=on
        a=fmtp:18 annexb=yes
        a=rtpmap:101 telephone-event/48000
        a=rtpmap:99 telephone-event/16000
        a=rtpmap:100 telephone-event/8000
        a=rtcp-fb:* trr-int 5000
        a=rtcp-fb:* ccm tmmbr
        m=video 9078 RTP/AVPF 96
        a=rtpmap:96 VP8/90000
        a=rtcp-fb:* ccm fir",
        "m=audio 16384 RTP/AVPF 96 101
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 useinbandfec=1
        a=rtpmap:101 telephone-event/48000
        a=fmtp:101 0-16
        a=ptime:20
        a=sendrecv
        m=video 0 RTP/AVPF 96",
    );
    assert_eq!(agreed.codec, OPUS);
    assert_eq!(agreed.telephone_event, Some(101));
}

#[test]
fn zoiper_with_gsm_first() {
    let agreed = check(
        "v=0
        o=Z 0 1 IN IP4 203.0.113.7
        s=Z
        c=IN IP4 203.0.113.7
        t=0 0
        m=audio 8000 RTP/AVP 3 110 8 0 98 101
        a=rtpmap:110 speex/8000
        a=rtpmap:98 iLBC/8000
        a=fmtp:98 mode=20
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=sendrecv",
        "m=audio 16384 RTP/AVP 8 101
        a=rtpmap:8 PCMA/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=ptime:20
        a=sendrecv",
    );
    assert_eq!(agreed.codec, PCMA);
    assert_eq!(agreed.receive_payload_types, [(8, PCMA)]);
}

#[test]
fn baresip_over_ipv6() {
    let agreed = check_from(
        &local_ipv6(),
        "v=0
        o=- 1716384812 3892371 IN IP6 2001:db8::7
        s=-
        c=IN IP6 2001:db8::7
        t=0 0
        a=tool:baresip 3.10.1
        m=audio 24374 RTP/AVP 9 96 0 8 101
        b=AS:125
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 stereo=1;sprop-stereo=1
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:9 G722/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=rtcp:24375
        a=sendrecv
        a=label:1
        a=rtcp-rsize
        a=ssrc:1268327431 cname:sip:bob@example.com
        a=ptime:30",
        "m=audio 16384 RTP/AVP 9 101
        a=rtpmap:9 G722/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=ptime:30
        a=sendrecv",
    );
    assert_eq!(agreed.codec, G722);
    assert_eq!(agreed.remote_rtp, socket("[2001:db8::7]:24374"));
    assert_eq!(agreed.remote_rtcp, socket("[2001:db8::7]:24375"));
    assert_eq!(agreed.ptime_ms, 30);
}

#[test]
fn freeswitch_with_encryption_offered_beside() {
    // One line with keys, one without, for peers to choose from.
    let agreed = check(
        "v=0
        o=FreeSWITCH 1700000000 1700000001 IN IP4 203.0.113.9
        s=FreeSWITCH
        c=IN IP4 203.0.113.9
        t=0 0
        m=audio 22810 RTP/SAVP 102 9 0 8 103 101
        a=rtpmap:102 opus/48000/2
        a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj
        m=audio 22810 RTP/AVP 102 9 0 8 103 101 13
        a=rtpmap:102 opus/48000/2
        a=fmtp:102 useinbandfec=1; maxaveragebitrate=30000; maxplaybackrate=48000; ptime=20
        a=rtpmap:9 G722/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:103 telephone-event/48000
        a=fmtp:103 0-15
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=rtcp:22811 IN IP4 203.0.113.9
        a=ptime:20",
        "m=audio 0 RTP/SAVP 102 9 0 8 103 101
        m=audio 16384 RTP/AVP 102 103
        a=rtpmap:102 opus/48000/2
        a=fmtp:102 useinbandfec=1
        a=rtpmap:103 telephone-event/48000
        a=fmtp:103 0-15
        a=ptime:20
        a=sendrecv",
    );
    assert_eq!(agreed.media_index, 1);
    assert_eq!(agreed.payload_type, 102);
}

#[test]
fn desk_phone_with_attributes_we_do_not_know() {
    let agreed = check(
        "v=0
        o=- 20013 20013 IN IP4 10.1.3.33
        s=SDP data
        i=a phone
        c=IN IP4 10.1.3.33
        b=CT:64
        t=0 0
        k=clear:no
        m=audio 11780/2 RTP/AVP 9 0 8 18 101
        a=rtpmap:9 g722/8000
        a=rtpmap:0 pcmu/8000/1
        a=rtpmap:8 PCMA/8000
        a=rtpmap:18 G729/8000
        a=fmtp:18 annexb=no
        a=fmtp:101 0-15
        a=rtpmap:101 TELEPHONE-EVENT/8000
        a=ptime:20
        a=ice-ufrag:F7gI
        a=ice-pwd:x9cml/YzichV2+XlhiMu8g
        a=candidate:1 1 UDP 2130706431 10.1.3.33 11780 typ host
        a=fingerprint:sha-256 00
        a=setup:actpass
        a=mid:0
        a=sendrecv",
        "m=audio 16384 RTP/AVP 9 101
        a=rtpmap:9 G722/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=ptime:20
        a=sendrecv",
    );
    assert_eq!(agreed.remote_rtp, socket("10.1.3.33:11780"));
}

#[test]
fn browser_offers_need_dtls() {
    check_refused(
        "v=0
        o=- 4611731400430051336 2 IN IP4 127.0.0.1
        s=-
        t=0 0
        a=group:BUNDLE 0
        a=msid-semantic: WMS
        m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8
        c=IN IP4 0.0.0.0
        a=rtcp-mux
        a=rtpmap:111 opus/48000/2",
        Refusal::UnsupportedProtocol,
    );
}

#[test]
fn control_channels_have_no_audio() {
    check_refused(
        "v=0
        o=controller 2890844526 2890842807 IN IP4 controller.example.com
        s=-
        c=IN IP4 controller.example.com
        m=application 49153 TCP cfw
        a=setup:active
        a=connection:new
        a=cfw-id:H839quwhjdhegvdga",
        Refusal::NoAudio,
    );
}
