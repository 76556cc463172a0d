//! The conference event package (RFC 4575): who is in a conference, told to those who subscribe.
//!
//! ```text
//!   joins, leaves, changes ─> Roster ──┬─> Subscriber ─> NOTIFY body ─> Replica
//!   (one per conference)               ├─> Subscriber       (full, then partial)
//!                                      └─> Subscriber
//! ```
//! A [`Roster`] is the conference with a revision for everything in it. A [`Subscriber`] remembers
//! one revision only, so hundreds of them cost no more than numbers. A [`Replica`] is the other end:
//! it puts the documents together again.
//!
//! What a document says is chosen for phones as they are (liblinphone, IMS clients), within the RFC:
//! - A user who is new to the subscriber has `state="full"`. One who changed has `state="partial"`,
//!   holding only the endpoints that changed, each of them complete. Where something vanished that a
//!   partial element cannot take back (a medium, a text), the element is `full` instead (§4.4).
//! - A user who left is `state="deleted"` at once. How they left may be told before, by a last
//!   [`Roster::update_user`] with [`Status::Disconnected`] and a [`Disconnection`]; within the
//!   interval between two NOTIFYs only the end is told.
//! - `call-info` is never written, because tags and Call-IDs allow taking over a call.
//!
//! Not here: subscriptions and their dialogs, clocks, who may see whom.

mod entry;
pub mod fuzz;
mod merge;
mod model;
mod read;
mod replica;
mod roster;
mod subscriber;
#[cfg(test)]
mod tests;
mod timestamp;
mod write;
mod xml;

pub use model::{
    AvailableMedia, Conference, ConferenceState, Description, Disconnection, DisconnectionMethod,
    Endpoint, Joining, JoiningMethod, Media, MediaStatus, Status, User, anonymous,
};
pub use read::{Document, EndpointUpdate, ReadError, State, UserUpdate, XML_LEN_MAX, read};
pub use replica::{Applied, Gap, Replica};
pub use roster::{Roster, RosterError};
pub use subscriber::{Cause, MIN_INTERVAL, Subscriber};
pub use timestamp::{NoTimestamp, Timestamp};

/// Name of the package in Event (RFC 4575 §3.1).
pub const EVENT: &str = "conference";

/// Media type of the documents (RFC 4575 §9.2).
pub const MEDIA_TYPE: &str = "application/conference-info+xml";

/// Namespace of the documents' elements.
pub const NAMESPACE: &str = "urn:ietf:params:xml:ns:conference-info";

/// Most users of a conference.
pub const USERS_MAX: usize = 4096;

/// Most endpoints of a user.
pub const ENDPOINTS_MAX: usize = 16;

/// Most media of an endpoint, and most media and URIs of a conference.
pub const MEDIA_MAX: usize = 16;
