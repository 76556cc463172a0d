//! The package msc-dist-conf/1.0: its messages as values, and their XML.
//!
//! ```text
//!  Message ──write──> bytes of a CONTROL, 200 or REPORT ──read──> Message
//!  ConfInfo ──parts::split──> ConfInfo, ConfInfo... ──parts::Collector──> ConfInfo
//! ```
//! Output is strict: valid by the schema that this crate ships, [`SCHEMA`]. Input is not: what only this
//! package has in addition to the paper it comes from may be missing, and what is unknown is stepped over.
//!
//! ```
//! use cfw::dist_conf::message::{Element, Message, Request};
//! use cfw::dist_conf::{self, load::{SvrLoad, SvrState}};
//!
//! let load = SvrLoad {
//!     svr_id: "srv-a".parse()?,
//!     current: 431,
//!     max_load: 500,
//!     min_load: 50,
//!     state: SvrState::Active,
//!     hot: None,
//! };
//! let message = Message::Request(Request {
//!     svr_id: Some(load.svr_id),
//!     epoch: 7,
//!     seq: 912,
//!     elements: vec![Element::Load(load)],
//! });
//! let xml = dist_conf::write(&message);
//! assert_eq!(dist_conf::read(xml.as_bytes()), Ok(message));
//!
//! // What the paper alone would have its reader write.
//! let xml = br#"<crt-svr-load svr-id="srv-a" max-load="500" min-load="50">431</crt-svr-load>"#;
//! assert!(dist_conf::read(xml).is_ok());
//! # Ok::<(), cfw::svr_id::SvrIdError>(())
//! ```

pub mod load;
pub mod message;
pub mod parts;
pub mod read;
mod time;
pub mod write;
mod xml;

pub use read::{ReadError, read};
pub use write::write;

/// The namespace of the package's elements.
pub const NAMESPACE: &str = "urn:x-msc-dist-conf:1.0";

/// The package's name in SYNC and CONTROL (RFC 6230 §8).
pub const PACKAGE: &str = "msc-dist-conf/1.0";

/// The media type of its bodies.
pub const MEDIA_TYPE: &str = "application/msc-dist-conf+xml";

/// The XML schema of what [`write()`] writes.
pub const SCHEMA: &str = include_str!("../../msc-dist-conf.xsd");

/// Longest body that is read, in bytes; the channel takes no longer one either.
pub const XML_LEN_MAX: usize = 1024 * 1024;

/// Most elements of a body: a snapshot's part of 256 KiB has some 2000.
pub const ELEMENTS_MAX: usize = 16 * 1024;

/// Deepest nesting of elements, of others' too. The package needs six levels.
pub const DEPTH_MAX: usize = 16;
