//! What is going to happen, in the order of virtual time.

use bytes::Bytes;

use crate::cluster::Hook;
use crate::cluster::hub::ConnId;
use crate::sim::clock::Time;
use crate::sim::net::{Arriving, Host, StreamId};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    Datagram {
        to: Host,
        from: Host,
        message: Bytes,
    },
    /// A server is being connected to; the dialler knows at `back`.
    Accept {
        to: Host,
        dialler: Dialler,
        stream: StreamId,
        back: Time,
    },
    Connected {
        dialler: Dialler,
        stream: StreamId,
    },
    Refused {
        dialler: Dialler,
    },
    Stream(Arriving),
    Wake(Host),
    /// A server's load is measured.
    Second {
        server: usize,
        life: u32,
    },
    Step(usize),
    Hook {
        server: usize,
        life: u32,
        hook: Hook,
        target: usize,
    },
    Check,
    Evening,
    Night,
}

/// Who connects: one life of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialler {
    pub(super) server: usize,
    pub(super) life: u32,
    pub(super) conn: ConnId,
}

pub(super) struct Queued {
    pub(super) at: Time,
    pub(super) order: u64,
    pub(super) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
