//! The package msc-dist-conf/1.0: its messages as values, and their XML.

pub mod load;
pub mod message;

/// The namespace of the package's elements.
pub const NAMESPACE: &str = "urn:x-msc-dist-conf:1.0";

/// The package's name in SYNC and CONTROL (RFC 6230 §8).
pub const PACKAGE: &str = "msc-dist-conf/1.0";

/// The media type of its bodies.
pub const MEDIA_TYPE: &str = "application/msc-dist-conf+xml";
