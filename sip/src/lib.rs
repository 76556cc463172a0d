//! SIP and SDP without I/O.
