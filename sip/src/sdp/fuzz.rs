//! What must hold for any bytes a peer may send as a session description: the body of a fuzz
//! target, and of a test over random bytes. A broken promise panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Agreed, Capabilities, CodecOffer, Local, SessionDescription};

/// Reads the bytes as an offer, as an answer, and as our own writing.
pub fn session_description(text: &[u8]) {
    let Ok(description) = super::parse(text) else {
        return;
    };
    check_rewrite(&description);
    let capabilities = capabilities();
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let local = Local {
            address,
            rtp_port: 16384,
            rtcp_port: 16385,
            session_id: 1,
            version: 1,
        };
        if let Ok((answer, agreed)) = super::answer(&description, &capabilities, &local) {
            check_answer(&description, &answer);
            check_agreed(&agreed, &capabilities);
        }
        let offer = super::offer(&capabilities, &local);
        if let Ok(agreed) = super::accept_answer(&offer, &description, &capabilities) {
            check_agreed(&agreed, &capabilities);
        }
    }
}

/// Written and read again nothing changes, unless absent lines that had to be written or line
/// ends that grew push the text over a limit.
fn check_rewrite(description: &SessionDescription) {
    match super::parse(description.to_string().as_bytes()) {
        Ok(again) => assert_eq!(&again, description),
        Err(error) => assert!(error.kind.is_limit(), "{error}"),
    }
}

/// RFC 3264 section 6: as many lines as offered, in order, with offered formats only.
pub(super) fn check_answer(offer: &SessionDescription, answer: &SessionDescription) {
    assert_eq!(answer.media.len(), offer.media.len());
    assert_eq!(answer.times, offer.times);
    for (answered, offered) in answer.media.iter().zip(&offer.media) {
        assert_eq!(answered.kind, offered.kind);
        assert_eq!(answered.protocol, offered.protocol);
        assert!(answered.port == 0 || offered.port != 0);
        for format in &answered.formats {
            let number = format.parse::<u8>();
            assert!(offered.formats.iter().any(|offered| {
                offered == format || (number.is_ok() && offered.parse() == number)
            }));
        }
        let offers_mux = offered.attribute("rtcp-mux").is_some();
        assert!(offers_mux || answered.attribute("rtcp-mux").is_none());
        let asked = offer.direction_of(offered);
        let given = answer.direction_of(answered);
        if answered.port != 0 {
            assert!(asked.receives() || !given.sends());
            assert!(asked.sends() || !given.receives());
        }
    }
    check_rewrite(answer);
}

pub(super) fn check_agreed(agreed: &Agreed, capabilities: &Capabilities) {
    assert!(agreed.codec < capabilities.codecs.len());
    assert!(agreed.payload_type < 128);
    assert!(capabilities.ptime_range_ms.contains(&agreed.ptime_ms));
    assert_eq!(agreed.ptime_ms % 10, 0);
    for (payload_type, codec) in &agreed.receive_payload_types {
        assert!(*payload_type < 128 && *codec < capabilities.codecs.len());
        assert_ne!(Some(*payload_type), agreed.telephone_event);
    }
    if agreed.direction.sends() {
        assert!(!agreed.held);
        assert!(!agreed.remote_rtp.ip().is_unspecified() || agreed.is_somewhere());
        assert!(!agreed.remote_rtp.ip().is_multicast());
        assert_ne!(agreed.remote_rtp.port(), 0);
        assert_ne!(agreed.remote_rtcp.port(), 0);
    }
}

/// One codec of each kind: static, static with an odd clock, and dynamic with channels.
pub(super) fn capabilities() -> Capabilities {
    let codec = |name, clock_rate, channels, static_payload_type| CodecOffer {
        name,
        clock_rate,
        channels,
        static_payload_type,
        format_parameters: None,
    };
    Capabilities {
        codecs: vec![
            CodecOffer {
                format_parameters: Some("useinbandfec=1"),
                ..codec("opus", 48_000, 2, None)
            },
            codec("G722", 8000, 1, Some(9)),
            codec("PCMU", 8000, 1, Some(0)),
            codec("PCMA", 8000, 1, Some(8)),
        ],
        telephone_event: true,
        ptime_ms: 20,
        ptime_range_ms: 10..=60,
    }
}
