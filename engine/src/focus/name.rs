//! Names of rooms.

/// A room's name: the user part of its URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoomName(String);

/// Long enough for a UUID behind any prefix, short enough for a header, a label and a log line.
const NAME_LEN_MAX: usize = 128;

impl RoomName {
    /// Calling this user makes a room with a name of its own (the conference factory of RFC 4579 §5.4).
    pub const FACTORY: &'static str = "conference";

    /// This user takes the INVITEs of control channels (RFC 6230).
    pub const CONTROL: &'static str = "cfw";

    /// None: no room can be called so.
    pub fn from_user(user: &str) -> Option<Self> {
        let fits = (1..=NAME_LEN_MAX).contains(&user.len()) && !user.chars().any(char::is_control);
        let free = user != Self::FACTORY && user != Self::CONTROL;
        (fits && free).then(|| Self(user.to_owned()))
    }

    /// A name nobody else has, made from a random number.
    pub fn invented(random: u64) -> Self {
        Self(format!("{}-{random:016x}", Self::FACTORY))
    }

    /// Stands for a room that is yet to be made; no room is called so.
    pub fn factory() -> Self {
        Self(Self::FACTORY.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert_eq!(RoomName::from_user("lobby").unwrap().as_str(), "lobby");
        assert!(RoomName::from_user("회의실").is_some());
        assert!(RoomName::from_user("").is_none());
        assert!(RoomName::from_user("a\r\nb").is_none());
        assert!(RoomName::from_user(&"x".repeat(NAME_LEN_MAX)).is_some());
        assert!(RoomName::from_user(&"x".repeat(NAME_LEN_MAX + 1)).is_none());
        assert!(RoomName::from_user("conference").is_none());
        assert!(RoomName::from_user(RoomName::invented(7).as_str()).is_some());
    }
}
