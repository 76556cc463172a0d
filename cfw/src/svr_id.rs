//! The name of a server, as configuration, XML and status pages show it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// A server's name: 1 to 32 of `A-Z a-z 0-9 . _ -`, ordered by its bytes. Small enough to copy,
/// and clean enough to stand in XML, URIs and metrics as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SvrId {
    /// Zeros after the name, so that comparing the array is comparing the names.
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl SvrId {
    /// Longest name; the limit of the package's schema.
    pub const LEN_MAX: usize = 32;

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)])
            .expect("from_str, the only constructor, lets ASCII in only")
    }
}

/// Why a text is no server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvrIdError {
    Empty,
    /// Longer than [`SvrId::LEN_MAX`]; the length in bytes.
    TooLong(usize),
    /// The first character that may not stand in a name.
    Character(char),
}

impl FromStr for SvrId {
    type Err = SvrIdError;

    fn from_str(text: &str) -> Result<Self, SvrIdError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some(character) = text.chars().find(|character| !is_allowed(*character)) {
            return Err(SvrIdError::Character(character));
        }
        let len = match text.len() {
            0 => return Err(SvrIdError::Empty),
            len if len > Self::LEN_MAX => return Err(SvrIdError::TooLong(len)),
            len => len,
        };
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..len].copy_from_slice(text.as_bytes());
        Ok(Self {
            bytes,
            len: len as u8,
        })
    }
}

impl Hash for SvrId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for SvrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SvrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SvrId({})", self.as_str())
    }
}

impl fmt::Display for SvrIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a server id must not be empty"),
            Self::TooLong(len) => write!(
                f,
                "a server id has at most {} characters, not {len}",
                SvrId::LEN_MAX
            ),
            Self::Character(character) => write!(
                f,
                "a server id consists of A-Z a-z 0-9 . _ -, not {character:?}"
            ),
        }
    }
}

impl std::error::Error for SvrIdError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_every_allowed_kind() {
        let longest = "x".repeat(SvrId::LEN_MAX);
        for name in ["A", "srv-a", "eu.west_1-b", "0", longest.as_str()] {
            assert_eq!(name.parse::<SvrId>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn the_error_says_why() {
        let too_long = "x".repeat(SvrId::LEN_MAX + 1);
        for (name, error) in [
            ("", SvrIdError::Empty),
            (too_long.as_str(), SvrIdError::TooLong(33)),
            ("a b", SvrIdError::Character(' ')),
            ("bücher", SvrIdError::Character('ü')),
            ("a\0", SvrIdError::Character('\0')),
        ] {
            assert_eq!(name.parse::<SvrId>(), Err(error));
        }
        assert_eq!(
            SvrIdError::Character('"').to_string(),
            "a server id consists of A-Z a-z 0-9 . _ -, not '\"'"
        );
    }

    proptest! {
        #[test]
        fn text_and_order_survive(a in "[A-Za-z0-9._-]{1,32}", b in "[A-Za-z0-9._-]{1,32}") {
            let (id_a, id_b): (SvrId, SvrId) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert_eq!(id_a.to_string(), a.clone());
            prop_assert_eq!(id_a.cmp(&id_b), a.cmp(&b));
            prop_assert_eq!(id_a == id_b, a == b);
        }

        #[test]
        fn any_text_is_a_name_or_an_error(text: String) {
            if let Ok(id) = text.parse::<SvrId>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
