//! How many watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Watchers at a time: each has the shards answer ten times a second.
const WATCHERS_MAX: usize = 8;

/// Shared by the shards, which look whether anybody watches, and the HTTP side.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<AtomicUsize>);

/// Shards record while it lives.
#[derive(Debug)]
pub struct Watch(Watchers);

impl Watchers {
    #[inline]
    pub fn any(&self) -> bool {
        // Relaxed: a message more or less at the beginning and the end makes no difference.
        self.0.load(Ordering::Relaxed) > 0
    }

    pub fn len(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        !self.any()
    }

    /// None: as many watch as may.
    pub fn watch(&self) -> Option<Watch> {
        let one_more = |watchers| (watchers < WATCHERS_MAX).then_some(watchers + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Watch(self.clone()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let watchers = Watchers::default();
        assert!(!watchers.any());
        let watches: Vec<Watch> = std::iter::from_fn(|| watchers.watch()).collect();
        assert_eq!(
            (watches.len(), watchers.len()),
            (WATCHERS_MAX, WATCHERS_MAX)
        );
        drop(watches);
        assert!(!watchers.any());
        assert!(watchers.watch().is_some());
    }
}
