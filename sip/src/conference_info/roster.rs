//! A conference whose changes are numbered, so that anybody can be told what is new since any of
//! them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::entry::Entry;
use super::{
    Conference, ConferenceState, Description, ENDPOINTS_MAX, MEDIA_MAX, State, USERS_MAX, User,
    write,
};

/// Most users who left that are remembered. Who has not been told of an earlier one gets everything.
const LEFT_MAX: usize = 1024;

/// A conference and when each part of it changed. Every change has a revision of its own, counted
/// from 1.
#[derive(Clone, Debug)]
pub struct Roster {
    entity: String,
    revision: u64,
    description: Changing<Description>,
    state: Changing<ConferenceState>,
    /// By the revision in which the user came: the order in which they are told.
    users: BTreeMap<u64, Entry>,
    /// Keys of `users` by entity.
    keys: HashMap<String, u64>,
    /// Keys of `users` by the last change, each once.
    changes: BTreeMap<u64, u64>,
    /// Users who left, by the revision in which they did.
    left: BTreeMap<u64, Left>,
    /// Keys of `left` by entity.
    left_keys: HashMap<String, u64>,
    /// Of the last user who left and is not in `left` any more.
    forgotten: u64,
    /// Octets of all users as full elements.
    users_len: usize,
    participating: u32,
    is_over: bool,
}

#[derive(Clone, Debug)]
struct Changing<T> {
    value: T,
    changed: u64,
    xml: String,
}

#[derive(Clone, Debug)]
struct Left {
    entity: String,
    known_since: u64,
}

/// Why a user cannot be in a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RosterError {
    /// There are [`USERS_MAX`] already.
    TooManyUsers,
    /// More than [`ENDPOINTS_MAX`].
    TooManyEndpoints,
    /// More than [`MEDIA_MAX`] at an endpoint.
    TooManyMedia,
    /// Two endpoints of the same entity, or two media of the same id.
    DuplicateKey,
}

impl fmt::Display for RosterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyUsers => "too many users",
            Self::TooManyEndpoints => "too many endpoints of a user",
            Self::TooManyMedia => "too many media of an endpoint",
            Self::DuplicateKey => "two endpoints or media of the same key",
        })
    }
}

impl std::error::Error for RosterError {}

impl Roster {
    /// A conference without users, active and not locked. `entity` is its URI.
    pub fn new(entity: String, description: Description) -> Self {
        let state = ConferenceState {
            user_count: Some(0),
            active: Some(true),
            locked: Some(false),
        };
        Self {
            entity,
            revision: 1,
            description: Changing::new(description, 1, write::description),
            state: Changing::new(state, 1, write::state),
            users: BTreeMap::new(),
            keys: HashMap::new(),
            changes: BTreeMap::new(),
            left: BTreeMap::new(),
            left_keys: HashMap::new(),
            forgotten: 0,
            users_len: 0,
            participating: 0,
            is_over: false,
        }
    }

    /// Adds a user, or changes the one of the same entity. Changing nothing is no change.
    ///
    /// # Errors
    /// There is too much of something, or keys are not unique. Nothing changed.
    pub fn update_user(&mut self, user: User) -> Result<(), RosterError> {
        check(&user)?;
        match self.keys.get(&user.entity).copied() {
            Some(key) => self.change_user(key, user),
            None if self.users.len() == USERS_MAX => return Err(RosterError::TooManyUsers),
            None => self.add_user(user),
        }
        Ok(())
    }

    fn add_user(&mut self, user: User) {
        let revision = self.next_revision();
        // Some may not have been told yet that the user was gone.
        let left = self.left_keys.remove(&user.entity);
        let left = left.and_then(|key| self.left.remove(&key));
        let entry = Entry::new(user, revision, left.map(|left| left.known_since));
        self.users_len += entry.xml.len();
        self.participating += u32::from(entry.is_participating());
        self.keys.insert(entry.user.entity.clone(), revision);
        self.changes.insert(revision, revision);
        self.users.insert(revision, entry);
        self.count();
    }

    fn change_user(&mut self, key: u64, user: User) {
        let Some(entry) = self.users.get_mut(&key) else {
            return;
        };
        if entry.user == user {
            return;
        }
        self.revision += 1;
        self.changes.remove(&entry.marks.changed);
        self.changes.insert(self.revision, key);
        self.users_len -= entry.xml.len();
        self.participating -= u32::from(entry.is_participating());
        entry.change(user, self.revision);
        self.users_len += entry.xml.len();
        self.participating += u32::from(entry.is_participating());
        self.count();
    }

    /// Takes a user out; false if there is none of this entity.
    pub fn remove_user(&mut self, entity: &str) -> bool {
        let Some(key) = self.keys.remove(entity) else {
            return false;
        };
        let revision = self.next_revision();
        if let Some(entry) = self.users.remove(&key) {
            self.changes.remove(&entry.marks.changed);
            self.users_len -= entry.xml.len();
            self.participating -= u32::from(entry.is_participating());
            if self.left.len() == LEFT_MAX
                && let Some((forgotten, left)) = self.left.pop_first()
            {
                self.left_keys.remove(&left.entity);
                self.forgotten = forgotten;
            }
            self.left_keys.insert(entity.to_owned(), revision);
            let left = Left {
                entity: entity.to_owned(),
                known_since: entry.known_since,
            };
            self.left.insert(revision, left);
        }
        self.count();
        true
    }

    /// Changes what the conference is called and how it is reached.
    pub fn set_description(&mut self, description: Description) {
        if self.description.value != description {
            let revision = self.next_revision();
            self.description = Changing::new(description, revision, write::description);
        }
    }

    /// Whether who calls the conference's URI gets in.
    pub fn set_active(&mut self, active: bool) {
        let active = Some(active);
        self.set_state(ConferenceState {
            active,
            ..self.state.value
        });
    }

    /// Whether the conference takes nobody else.
    pub fn set_locked(&mut self, locked: bool) {
        let locked = Some(locked);
        self.set_state(ConferenceState {
            locked,
            ..self.state.value
        });
    }

    /// The conference is over: everybody is told so at once, and nothing else any more.
    pub fn end(&mut self) {
        if !self.is_over {
            self.is_over = true;
            self.revision += 1;
        }
    }

    /// Tells how many users there are, after any change of theirs.
    fn count(&mut self) {
        self.set_state(ConferenceState {
            user_count: Some(self.participating),
            ..self.state.value
        });
    }

    fn set_state(&mut self, state: ConferenceState) {
        if self.state.value != state {
            let revision = self.next_revision();
            self.state = Changing::new(state, revision, write::state);
        }
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Number of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    pub fn user(&self, entity: &str) -> Option<&User> {
        let entry = self.users.get(self.keys.get(entity)?)?;
        Some(&entry.user)
    }

    /// In the order in which they came.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|entry| &entry.user)
    }

    /// A copy of everything.
    pub fn conference(&self) -> Conference {
        Conference {
            entity: self.entity.clone(),
            description: self.description.value.clone(),
            state: self.state.value,
            users: self.users().cloned().collect(),
        }
    }

    /// The whole as a document, without rendering users again.
    pub(super) fn full(&self, version: u32) -> String {
        let mut xml = write::head(&self.entity, State::Full, version);
        xml.reserve(self.full_len() + write::END.len());
        xml.push_str(&self.description.xml);
        xml.push_str(&self.state.xml);
        write::users(&mut xml, State::Full);
        xml.extend(self.users.values().map(|entry| entry.xml.as_str()));
        write::users_end(&mut xml);
        xml.push_str(write::END);
        xml
    }

    /// Octets of a full document's content, except for the element `users` itself.
    fn full_len(&self) -> usize {
        self.description.xml.len() + self.state.xml.len() + self.users_len
    }

    /// What changed since the revision `told`; None if a full document is needed or is shorter.
    pub(super) fn partial(&self, told: u64, version: u32) -> Option<String> {
        if told < self.forgotten {
            return None;
        }
        let mut xml = write::head(&self.entity, State::Partial, version);
        let len_max = xml.len() + self.full_len();
        if self.description.changed > told {
            xml.push_str(&self.description.xml);
        }
        if self.state.changed > told {
            xml.push_str(&self.state.xml);
        }
        let left = self.left.range(told + 1..).map(|(_, left)| left);
        // Who came and went in between was never heard of.
        let mut left = left.filter(|left| left.known_since <= told).peekable();
        let mut changes = self.changes.range(told + 1..).peekable();
        if left.peek().is_some() || changes.peek().is_some() {
            write::users(&mut xml, State::Partial);
            left.for_each(|left| write::deleted_user(&mut xml, &left.entity));
            for (_, key) in changes {
                self.users.get(key)?.write_since(&mut xml, told);
                if xml.len() > len_max {
                    return None;
                }
            }
            write::users_end(&mut xml);
        }
        if xml.len() > len_max {
            return None;
        }
        xml.push_str(write::END);
        Some(xml)
    }

    /// That the conference is over.
    pub(super) fn deleted(&self, version: u32) -> String {
        write::head(&self.entity, State::Deleted, version) + write::END
    }
}

impl<T> Changing<T> {
    fn new(value: T, changed: u64, write: fn(&mut String, &T)) -> Self {
        let mut xml = String::new();
        write(&mut xml, &value);
        Self {
            value,
            changed,
            xml,
        }
    }
}

fn check(user: &User) -> Result<(), RosterError> {
    if user.endpoints.len() > ENDPOINTS_MAX {
        return Err(RosterError::TooManyEndpoints);
    }
    for (place, endpoint) in user.endpoints.iter().enumerate() {
        let before = &user.endpoints[..place];
        if before.iter().any(|other| other.entity == endpoint.entity) {
            return Err(RosterError::DuplicateKey);
        }
        if endpoint.media.len() > MEDIA_MAX {
            return Err(RosterError::TooManyMedia);
        }
        for (place, media) in endpoint.media.iter().enumerate() {
            let before = &endpoint.media[..place];
            if before.iter().any(|other| other.id == media.id) {
                return Err(RosterError::DuplicateKey);
            }
        }
    }
    Ok(())
}
