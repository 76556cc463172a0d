//! The line between a fault in one room and a fault in the server.
//!
//! Rooms are owned data without locks, so a panic while working on one damages that room only: it is
//! caught, and the room is closed. Any other panic on a shard ends the process at once and loudly; half
//! a server that goes on answering would be worse than one that restarts.

use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    static IN_ROOM: Cell<bool> = const { Cell::new(false) };
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

/// What a room's panic said.
#[derive(Debug)]
pub struct RoomPanic(String);

impl fmt::Display for RoomPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Does `work` on one room.
///
/// # Errors
/// The work panicked: the room must not be used again.
pub fn room<T>(work: impl FnOnce() -> T) -> Result<T, RoomPanic> {
    IN_ROOM.with(|in_room| in_room.set(true));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IN_ROOM.with(|in_room| in_room.set(false));
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        RoomPanic(
            text.or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default(),
        )
    })
}

/// From here on this thread is a shard: a panic outside [`room`] aborts the process.
pub fn this_thread_is_a_shard() {
    IS_SHARD.set(true);
}

/// To be called once per process, before the first shard starts.
pub fn install() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if IN_ROOM.get() {
            // Where it happened; what it did to the room is logged by whoever catches it.
            tracing::error!(
                location = info.location().map(tracing::field::display),
                "panic in a room"
            );
            return;
        }
        report(info);
        if IS_SHARD.get() {
            eprintln!("plenum: a shard has failed; ending the whole server");
            std::process::abort();
        }
    }));
}
