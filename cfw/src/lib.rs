//! The msc-dist-conf/1.0 package of the media control channel framework (RFC 6230), without I/O:
//! what servers of one cluster tell each other, as values and as XML.
//!
//! - [`svr_id`]: how a server is named.
//! - [`dist_conf`]: the elements of the package; so far the load report.

#![forbid(unsafe_code)]

pub mod channel;
pub mod dist_conf;
pub mod sdp;
pub mod svr_id;

pub use svr_id::SvrId;
