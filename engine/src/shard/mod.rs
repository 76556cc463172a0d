//! One shard: a pinned thread that owns its rooms outright.
//!
//! ```text
//!   harvest ─> tick rooms ─> flush ─> streams ─> mail ─> SIP ─> focus ─> flush       one turn, about 1 ms
//! ```
//! [`core`] is the whole turn without a runtime; [`run`] drives it on a glommio executor. Shards know
//! each other only through [`mailbox`].

mod arrivals;
pub mod core;
pub mod directory;
pub mod guard;
pub mod mailbox;
mod phases;
pub mod place;
pub mod run;
mod span;
pub mod stage;
#[cfg(test)]
#[expect(unsafe_code, reason = "an allocator that counts")]
mod steady;
mod transport;
mod view;
mod waits;

/// A shard's number, from 0: its place in meters and mailboxes, and the owner number in SIP tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardIndex(pub u16);
