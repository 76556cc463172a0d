//! What other threads see of the cluster.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use cfw::dist_conf::message::ReservedSvr;

use crate::cluster::ServerView;

/// The cluster at one moment.
#[derive(Debug, Default)]
pub struct Glimpse {
    /// When it was so; None = nobody has looked yet.
    pub at: Option<Instant>,
    pub servers: Vec<ServerView>,
    pub reserved: Vec<ReservedSvr>,
}

/// The last glimpse, written by the cluster's thread several times a second.
#[derive(Debug, Default)]
pub struct Board(ArcSwap<Glimpse>);

impl Board {
    pub fn look(&self) -> Arc<Glimpse> {
        self.0.load_full()
    }

    pub(super) fn show(&self, glimpse: Glimpse) {
        self.0.store(Arc::new(glimpse));
    }
}
