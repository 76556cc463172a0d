//! RTP, RTCP and the jitter buffer without I/O.
