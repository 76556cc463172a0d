//! Snapshots in parts: a `crt-conf-info` that would be too long for one message is told in several, and put
//! together again before anybody looks at it.
//!
//! ```text
//!  split:      [ A's conferences ............. ]  ->  part 1/3, part 2/3, part 3/3
//!  Collector:  1/3  delta  2/3  3/3               ->  the whole, then the delta
//! ```

use std::fmt;
use std::mem;

use super::message::{ConfInfo, Users};
use super::write;

/// Longest part, in bytes of its XML, for messages between which others get their turn.
pub const PART_LEN_MAX: usize = 256 * 1024;

/// Most parts of a snapshot; together with [`PART_LEN_MAX`] the bound of what a peer can make us keep. With
/// half a kilobyte each, a quarter of a million users fit.
pub const PARTS_MAX: u32 = 512;

/// Most servers, conferences and users, and changes of them, that wait for the end of a snapshot: what
/// [`PARTS_MAX`] parts have with 128 bytes for each.
pub const ITEMS_MAX: usize = PARTS_MAX as usize * (PART_LEN_MAX / 128);

/// Room in a part for the elements around its servers and conferences.
const ENVELOPE_LEN: usize = 512;

/// `>` and `</crt-users>`
const USERS_END_LEN: usize = 13;

/// Cuts a snapshot, or a change, into parts of at most `len_max` bytes of XML (usually
/// [`PART_LEN_MAX`]), each with its number; one that is short enough stays whole. A conference may be cut
/// between its users: then each part of it repeats the conference's own attributes.
///
/// Each part is to be sent when the one before is answered: what waits in a channel is bounded, and loads
/// and changes go in between.
///
/// A single user or server that is longer than that makes its part longer, and what does not fit into
/// [`PARTS_MAX`] parts makes the last one longer.
pub fn split(info: ConfInfo, len_max: usize) -> Vec<ConfInfo> {
    let mut splitter = Splitter {
        head: ConfInfo {
            systems: Vec::new(),
            conferences: Vec::new(),
            ..info
        },
        budget: len_max.saturating_sub(ENVELOPE_LEN),
        len: 0,
        parts: Vec::new(),
    };
    splitter.next_part();
    let mut xml = String::new();
    for system in info.systems {
        write::system(&mut xml, &system);
        splitter.make_room(mem::take(&mut xml).len());
        splitter.part().systems.push(system);
    }
    for conference in info.conferences {
        splitter.add(conference);
    }
    let mut parts = splitter.parts;
    let count = parts.len() as u32;
    for (part, number) in parts.iter_mut().zip(1..) {
        part.part = number;
        part.parts = count;
    }
    parts
}

struct Splitter {
    /// What every part begins as.
    head: ConfInfo,
    budget: usize,
    /// Of the last part, without what is around its servers and conferences.
    len: usize,
    /// Never empty.
    parts: Vec<ConfInfo>,
}

impl Splitter {
    fn next_part(&mut self) {
        self.parts.push(self.head.clone());
        self.len = 0;
    }

    fn part(&mut self) -> &mut ConfInfo {
        self.parts.last_mut().expect("split begins with a part")
    }

    /// Begins a part if the last one has no room, unless it has nothing else in it either. True if so.
    fn make_room(&mut self, len: usize) -> bool {
        let is_full = self.len > 0 && self.len + len > self.budget;
        let is_next = is_full && self.parts.len() < PARTS_MAX as usize;
        if is_next {
            self.next_part();
        }
        self.len += len;
        is_next
    }

    fn add(&mut self, conference: Users) {
        let mut xml = String::new();
        write::users_start(&mut xml, &conference);
        let start_len = xml.len() + USERS_END_LEN;
        let (mut head, users) = (conference, Vec::new());
        let users = mem::replace(&mut head.users, users);
        self.make_room(start_len);
        self.part().conferences.push(head.clone());
        for user in users {
            xml.clear();
            write::user(&mut xml, &user);
            if self.make_room(xml.len()) {
                self.len += start_len;
                self.part().conferences.push(head.clone());
            }
            let conferences = &mut self.part().conferences;
            let conference = conferences.last_mut().expect("pushed above");
            conference.users.push(user);
        }
    }
}

/// Puts the parts of one peer's snapshots together. Changes that come between the parts wait, so that
/// what comes out can be applied in that order.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// The parts so far, as one; its `part` is the last one that came.
    collected: Option<ConfInfo>,
    /// Changes since the first part.
    waiting: Vec<ConfInfo>,
    /// Servers, conferences and users in both; each change counts too.
    items: usize,
}

/// Why a snapshot is given up. A new one is to be asked for, by [`ConfInfo::query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectError {
    /// A part is missing, or parts of different snapshots are mixed.
    Gap,
    /// It has more than [`ITEMS_MAX`] items, with what waits for it.
    TooMuch,
}

impl fmt::Display for CollectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gap => "a part of a snapshot is missing",
            Self::TooMuch => "a snapshot, or what waits for it, is too long",
        })
    }
}

impl std::error::Error for CollectError {}

impl Collector {
    /// Takes what came, and returns what can be applied now, in this order. A query is not for the
    /// collector, and comes out at once.
    ///
    /// # Errors
    /// The snapshot that was being put together, and what waited for it, are gone.
    pub fn handle(&mut self, info: ConfInfo) -> Result<Vec<ConfInfo>, CollectError> {
        if info.query {
            return Ok(vec![info]);
        }
        if info.parts > 1 {
            return self.handle_part(info);
        }
        if info.full {
            // It says all that the other one would have said, and what waited.
            self.clear();
        }
        if self.collected.is_none() {
            return Ok(vec![info]);
        }
        self.count(&info)?;
        self.waiting.push(info);
        Ok(Vec::new())
    }

    /// No more will come: what there is of a snapshot, as a change, and what waited for the rest.
    pub fn take(&mut self) -> Vec<ConfInfo> {
        let Self {
            collected, waiting, ..
        } = mem::take(self);
        let collected = collected.map(|info| ConfInfo {
            full: false,
            part: 1,
            parts: 1,
            ..info
        });
        collected.into_iter().chain(waiting).collect()
    }

    fn handle_part(&mut self, mut info: ConfInfo) -> Result<Vec<ConfInfo>, CollectError> {
        if info.part == 1 {
            self.clear();
            self.count(&info)?;
            self.collected = Some(info);
            return Ok(Vec::new());
        }
        self.count(&info)?;
        let is_next = |collected: &&mut ConfInfo| {
            info.part == collected.part + 1
                && info.parts == collected.parts
                && info.full == collected.full
        };
        let Some(collected) = self.collected.as_mut().filter(is_next) else {
            self.clear();
            return Err(CollectError::Gap);
        };
        collected.part = info.part;
        collected.systems.append(&mut info.systems);
        for mut users in info.conferences {
            match collected.conferences.last_mut() {
                Some(last) if last.conf_obj_id == users.conf_obj_id => {
                    last.users.append(&mut users.users);
                }
                _ => collected.conferences.push(users),
            }
        }
        if collected.part < collected.parts {
            return Ok(Vec::new());
        }
        (collected.part, collected.parts) = (1, 1);
        let Self {
            collected, waiting, ..
        } = mem::take(self);
        Ok(collected.into_iter().chain(waiting).collect())
    }

    fn count(&mut self, info: &ConfInfo) -> Result<(), CollectError> {
        let users = info.conferences.iter().map(|users| 1 + users.users.len());
        self.items += 1 + info.systems.len() + users.sum::<usize>();
        if self.items > ITEMS_MAX {
            self.clear();
            return Err(CollectError::TooMuch);
        }
        Ok(())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
