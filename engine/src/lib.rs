//! The engine behind the binary `plenum`: SIP callers meet in rooms and hear each other, one thread
//! per core.
//!
//! In the order in which a call meets them: [`io`] takes datagrams in, [`shard`] finds whose they are,
//! [`focus`] connects a SIP dialog with a room after asking [`load`], [`room`] mixes through [`codec`],
//! and [`io`] sends. Beside them: [`config`], [`meters`], [`admin`] (HTTP), [`serve`] (start and end).

#![deny(unsafe_code)]

pub mod admin;
pub mod call;
pub mod cli;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod flamegraph;
pub mod focus;
#[expect(unsafe_code, reason = "descriptors handed to glommio")]
pub mod io;
pub mod limits;
pub mod load;
pub mod log;
#[expect(unsafe_code, reason = "the allocator's own interface is C")]
pub mod memory;
pub mod meters;
pub mod random;
pub mod room;
pub mod serve;
pub mod shard;
#[cfg(test)]
mod sim;
pub mod top;
pub mod trace;
pub mod users;
