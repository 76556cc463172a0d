//! Media control channels (RFC 6230), and the package msc-dist-conf/1.0 by which conference servers share
//! conferences and load over them. Without I/O: bytes, values and time go in; bytes, values and deadlines
//! come out.
//!
//! ```text
//!   INVITE with SDP ─> sdp ─────────> who connects, and the two ids
//!   TCP or TLS ──────> channel ─────> requests of the peer, answers to ours
//!   bodies ──────────> dist_conf ───> loads, servers, conferences and their users
//! ```
//! - [`sdp`]: offer and answer of a control channel, with its TLS (RFC 8122) and who connects (RFC 4145).
//! - [`channel`]: one end of a channel: SYNC, CONTROL, REPORT and K-ALIVE. Good for any package.
//! - [`dist_conf`]: the messages of the package, as values and as XML; its schema is
//!   [`dist_conf::SCHEMA`].
//! - [`svr_id`]: how a server is named.
//! - [`fuzz`]: what must hold for any bytes.
//!
//! The three parts do not depend on one another's state, and nothing here knows SIP: who uses the crate
//! brings a SIP stack for the dialog that each channel belongs to, sockets, and a clock. `examples/two_ends.rs`
//! shows all of it, with memory in place of the network.
//!
//! Limits are public constants: what a peer can make an end keep is bounded. Malformed input is an error
//! value, never a panic.

#![forbid(unsafe_code)]

pub mod channel;
pub mod dist_conf;
pub mod fuzz;
pub mod sdp;
pub mod svr_id;

pub use svr_id::SvrId;
