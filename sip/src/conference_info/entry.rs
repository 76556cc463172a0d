//! A user whose changes are numbered, and those of its endpoints.

use super::{Endpoint, State, Status, User, write};

/// Most endpoints that left their user that are remembered. Who has not been told of an earlier one
/// gets the whole user.
const ENDPOINTS_LEFT_MAX: usize = 16;

/// A user of a roster.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) user: User,
    /// As a full element.
    pub(super) xml: String,
    /// Since when others may know the user. Earlier than `marks.whole` if it came back.
    pub(super) known_since: u64,
    pub(super) marks: Marks,
    /// Of `user.endpoints`, in that order.
    endpoints: Vec<Marks>,
    /// Endpoints that left, with the revision in which they did.
    left: Vec<(String, u64)>,
}

/// When something changed last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// In a way that a partial element cannot tell, as by coming into being.
    whole: u64,
    /// In any way.
    pub(super) changed: u64,
}

impl Marks {
    const fn new(revision: u64) -> Self {
        Self {
            whole: revision,
            changed: revision,
        }
    }
}

impl Entry {
    pub(super) fn new(user: User, revision: u64, known_since: Option<u64>) -> Self {
        let mut xml = String::new();
        write::full_user(&mut xml, &user);
        Self {
            xml,
            known_since: known_since.unwrap_or(revision),
            marks: Marks::new(revision),
            endpoints: vec![Marks::new(revision); user.endpoints.len()],
            left: Vec::new(),
            user,
        }
    }

    pub(super) fn change(&mut self, user: User, revision: u64) {
        self.marks.changed = revision;
        if user.display_text.is_none() && self.user.display_text.is_some() {
            self.marks.whole = revision;
        }
        let mut endpoints = Vec::with_capacity(user.endpoints.len());
        for endpoint in &user.endpoints {
            endpoints.push(self.marks_of(endpoint, revision));
            self.left.retain(|(entity, _)| *entity != endpoint.entity);
        }
        for Endpoint { entity, .. } in &self.user.endpoints {
            if user.endpoints.iter().any(|kept| kept.entity == *entity) {
                continue;
            }
            if self.left.len() == ENDPOINTS_LEFT_MAX {
                // Who does not know that this one left must not get a partial user.
                self.marks.whole = self.marks.whole.max(self.left.remove(0).1);
            }
            self.left.push((entity.clone(), revision));
        }
        self.endpoints = endpoints;
        self.user = user;
        self.xml.clear();
        write::full_user(&mut self.xml, &self.user);
    }

    /// Of an endpoint that is to take the place of the one of its entity.
    fn marks_of(&self, endpoint: &Endpoint, revision: u64) -> Marks {
        let mut known = self.user.endpoints.iter().zip(&self.endpoints);
        match known.find(|(known, _)| known.entity == endpoint.entity) {
            None => Marks::new(revision),
            Some((known, marks)) if known == endpoint => *marks,
            Some((known, marks)) if known.merges_into(endpoint) => Marks {
                whole: marks.whole,
                changed: revision,
            },
            Some(_) => Marks::new(revision),
        }
    }

    /// For who knows the user as of the revision `told`.
    pub(super) fn write_since(&self, xml: &mut String, told: u64) {
        if self.marks.whole > told {
            return xml.push_str(&self.xml);
        }
        write::user_start(xml, &self.user, State::Partial);
        for (entity, _) in self.left.iter().filter(|(_, left)| *left > told) {
            write::deleted_endpoint(xml, entity);
        }
        for (endpoint, marks) in self.user.endpoints.iter().zip(&self.endpoints) {
            if marks.whole > told {
                write::endpoint(xml, endpoint, State::Full);
            } else if marks.changed > told {
                write::endpoint(xml, endpoint, State::Partial);
            }
        }
        write::user_end(xml);
    }

    /// Whether any endpoint is connected, as far as is known.
    pub(super) fn is_participating(&self) -> bool {
        self.user.endpoints.iter().any(|endpoint| {
            endpoint.status.is_none_or(|status| {
                matches!(
                    status,
                    Status::Connected | Status::MutedViaFocus | Status::OnHold
                )
            })
        })
    }
}
