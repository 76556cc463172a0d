//! The session a caller offers, and what a server's answer makes of it.

use bytes::Bytes;
use engine::codec::Codec;
use engine::focus::negotiate;
use sip::Body;
use sip::sdp::{self, Local, SessionDescription};

use super::signalling::{Seat, Stream};

/// One caller's offer.
pub(crate) struct Offer {
    description: SessionDescription,
    codec: Codec,
}

impl Offer {
    pub(crate) fn new(seat: &Seat, session_id: u64) -> Self {
        let mut capabilities = negotiate::capabilities(&[seat.codec]);
        capabilities.ptime_ms = seat.ptime_ms;
        let local = Local {
            address: seat.local.ip(),
            rtp_port: seat.local.port(),
            rtcp_port: seat.local.port(),
            session_id,
            version: 1,
        };
        Self {
            description: sdp::offer(&capabilities, &local),
            codec: seat.codec,
        }
    }

    pub(crate) fn body(&self) -> Body {
        Body {
            content_type: "application/sdp".to_owned(),
            content: Bytes::from(self.description.to_string()),
        }
    }

    /// # Errors
    /// `body`, the answer, is none, or does not fit the offer.
    pub(crate) fn stream(&self, body: Option<&Body>) -> Result<Stream, String> {
        let body = body.ok_or("it has no session description")?;
        let answer = sdp::parse(&body.content).map_err(|error| error.to_string())?;
        let capabilities = negotiate::capabilities(&[self.codec]);
        let agreed = sdp::accept_answer(&self.description, &answer, &capabilities)
            .map_err(|error| error.to_string())?;
        Ok(Stream {
            remote: agreed.remote_rtp,
            payload_type: agreed.payload_type,
        })
    }
}
