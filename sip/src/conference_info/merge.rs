//! What a partial element does to what is known (RFC 4575 §4.4). Roster and replica share it: the
//! one asks whether a partial element would do, the other does as it says.

use super::{Endpoint, Joining};

/// Takes what is there and leaves the rest.
pub(super) fn take_text(known: &mut Option<String>, told: Option<&String>) {
    if let Some(told) = told {
        known.replace(told.clone());
    }
}

impl Endpoint {
    /// Everything that `told` has. Media without a counterpart stay, for there is no way to say that
    /// one is gone.
    pub(super) fn merge(&mut self, told: &Self) {
        take_text(&mut self.display_text, told.display_text.as_ref());
        self.status = told.status.or(self.status);
        self.joining_method = told.joining_method.or(self.joining_method);
        if told.joining != Joining::default() {
            self.joining = told.joining.clone();
        }
        if let Some(told) = &told.disconnection {
            let known = self.disconnection.get_or_insert_default();
            known.method = told.method.or(known.method);
            if told.when.is_some() || told.reason.is_some() || told.by.is_some() {
                known.when = told.when;
                known.reason.clone_from(&told.reason);
                known.by.clone_from(&told.by);
            }
        }
        for told in &told.media {
            match self.media.iter_mut().find(|known| known.id == told.id) {
                // A medium is never partial.
                Some(known) => known.clone_from(told),
                None => self.media.push(told.clone()),
            }
        }
    }

    /// Whether merging `told` into this makes it `told`.
    pub(super) fn merges_into(&self, told: &Self) -> bool {
        let mut merged = self.clone();
        merged.merge(told);
        merged == *told
    }
}
