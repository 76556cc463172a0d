//! Whole descriptions of phones as they come, and what we answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::fuzz::{capabilities, check_agreed, check_answer};
use super::*;

fn local() -> Local {
    Local {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        rtp_port: 16384,
        rtcp_port: 16385,
        session_id: 7,
        version: 3,
    }
}

#[test]
fn pcmu_is_answered_with_pcmu() {
    let offer = b"v=0\r\no=- 1 1 IN IP4 198.51.100.2\r\ns=-\r\nc=IN IP4 198.51.100.2\r\nt=0 0\r\n\
        m=audio 6000 RTP/AVP 0\r\n";
    let offer = parse(offer).unwrap();
    let (answer, agreed) = answer(&offer, &capabilities(), &local()).unwrap();
    check_answer(&offer, &answer);
    check_agreed(&agreed, &capabilities());
    assert_eq!(agreed.payload_type, 0);
    assert_eq!(
        agreed.remote_rtp,
        SocketAddr::from(([198, 51, 100, 2], 6000))
    );
}
