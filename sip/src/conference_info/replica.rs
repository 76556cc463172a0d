//! The conference as a subscriber puts it together from documents (RFC 4575 §4.4 and §5.2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use super::merge::take_text;
use super::{
    Conference, Document, ENDPOINTS_MAX, Endpoint, EndpointUpdate, MEDIA_MAX, State, USERS_MAX,
    User, UserUpdate,
};

/// What is known from the documents of one subscription. A new subscription begins with a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Of the last document that was applied.
    version: Option<u32>,
    conference: Option<Conference>,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// Not newer than what is known; nothing changed.
    Stale,
    /// The conference is over.
    Deleted,
}

/// Something is missing between what is known and the document. Nothing changed; the subscription is
/// to be refreshed, which brings a full document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap;

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document is missing before this one")
    }
}

impl std::error::Error for Gap {}

impl Replica {
    /// None before the first full document and after the end.
    pub fn conference(&self) -> Option<&Conference> {
        self.conference.as_ref()
    }

    /// Version of the last document that was applied.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// Applies a document.
    ///
    /// # Errors
    /// It is partial, and not the one after the last; or the whole would have too many users,
    /// endpoints or media.
    pub fn apply(&mut self, document: Document) -> Result<Applied, Gap> {
        if let (Some(known), Some(told)) = (self.version, document.version)
            && told <= known
        {
            return Ok(Applied::Stale);
        }
        let version = document.version;
        let conference = match document.state {
            State::Full => Some(merge(Conference::default(), document)?),
            State::Deleted => None,
            State::Partial => {
                let known = self.conference.as_ref().ok_or(Gap)?;
                let is_next = self.version.and_then(|known| known.checked_add(1));
                if is_next != version || known.entity != document.entity {
                    return Err(Gap);
                }
                Some(merge(known.clone(), document)?)
            }
        };
        self.version = version.or(self.version);
        self.conference = conference;
        match self.conference {
            Some(_) => Ok(Applied::Done),
            None => Ok(Applied::Deleted),
        }
    }
}

fn merge(mut known: Conference, told: Document) -> Result<Conference, Gap> {
    known.entity = told.entity;
    // Neither can be partial.
    known.description = told.description.unwrap_or(known.description);
    known.state = told.conference_state.unwrap_or(known.state);
    known.users = match told.users {
        Some((State::Partial, updates)) => merge_users(known.users, updates)?,
        Some((State::Full, updates)) => merge_users(Vec::new(), updates)?,
        Some((State::Deleted, _)) => Vec::new(),
        None => known.users,
    };
    Ok(known)
}

fn merge_users(known: Vec<User>, updates: Vec<UserUpdate>) -> Result<Vec<User>, Gap> {
    let mut users: Vec<Option<User>> = known.into_iter().map(Some).collect();
    let mut places: HashMap<String, usize> = HashMap::with_capacity(users.len());
    for (place, user) in users.iter().flatten().enumerate() {
        places.insert(user.entity.clone(), place);
    }
    for update in updates {
        if update.state == State::Deleted {
            if let Some(place) = places.remove(&update.entity) {
                users[place] = None;
            }
            continue;
        }
        let place = match places.entry(update.entity.clone()) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                users.push(None);
                *place.insert(users.len() - 1)
            }
        };
        let known = users[place]
            .take()
            .filter(|_| update.state == State::Partial);
        users[place] = Some(merge_user(known, update)?);
    }
    match places.len() <= USERS_MAX {
        true => Ok(users.into_iter().flatten().collect()),
        false => Err(Gap),
    }
}

/// Without a known user: one that is new or takes the place of another.
fn merge_user(known: Option<User>, told: UserUpdate) -> Result<User, Gap> {
    let mut user = known.unwrap_or_default();
    user.entity = told.entity;
    take_text(&mut user.display_text, told.display_text.as_ref());
    for EndpointUpdate { state, endpoint } in told.endpoints {
        let mut known = user.endpoints.iter();
        let place = known.position(|known| known.entity == endpoint.entity);
        match (place, state) {
            (Some(place), State::Deleted) => drop(user.endpoints.remove(place)),
            (None, State::Deleted) => {}
            (Some(place), State::Full) => user.endpoints[place] = settled(endpoint),
            (Some(place), State::Partial) => user.endpoints[place].merge(&endpoint),
            (None, State::Full | State::Partial) => user.endpoints.push(settled(endpoint)),
        }
    }
    let is_small = |endpoint: &Endpoint| endpoint.media.len() <= MEDIA_MAX;
    match user.endpoints.len() <= ENDPOINTS_MAX && user.endpoints.iter().all(is_small) {
        true => Ok(user),
        false => Err(Gap),
    }
}

/// With each medium once.
fn settled(told: Endpoint) -> Endpoint {
    let mut endpoint = Endpoint {
        entity: told.entity.clone(),
        ..Endpoint::default()
    };
    endpoint.merge(&told);
    endpoint
}
