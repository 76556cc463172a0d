//! SIP and SDP without I/O.

pub mod sdp;
