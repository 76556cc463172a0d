//! SIP messages that did a caller no good, by what they were.

use super::Counter;

/// Why a message counts as unwanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unwanted {
    /// No SIP message.
    Garbage,
    /// REGISTER: there is no registrar here.
    Register,
    /// A room that does not exist and is not made by calling it.
    UnknownRoom,
    /// Refused as broken, forbidden or none of our methods.
    Refused,
    /// Said to be of a dialog that is not here.
    Stray,
    /// From a program that the operator does not talk to; dropped.
    UserAgent,
    /// From a source that is muted; dropped.
    Muted,
    /// Beyond what one source may send; dropped.
    Flood,
}

impl Unwanted {
    pub const ALL: [Self; 8] = [
        Self::Garbage,
        Self::Register,
        Self::UnknownRoom,
        Self::Refused,
        Self::Stray,
        Self::UserAgent,
        Self::Muted,
        Self::Flood,
    ];

    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Register => "register",
            Self::UnknownRoom => "unknown_room",
            Self::Refused => "refused",
            Self::Stray => "stray",
            Self::UserAgent => "user_agent",
            Self::Muted => "muted",
            Self::Flood => "flood",
        }
    }

    /// What a message of ours, if it is a response, says of the request that it answers. None: nothing
    /// bad; a full room, a busy server, terms that do not fit and a wanted password happen to everybody.
    pub fn of_answer(message: &[u8]) -> Option<Self> {
        let status = message.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
        match status {
            b"404" => Some(Self::UnknownRoom),
            b"481" => Some(Self::Stray),
            b"405"
                if sip::scan(message)
                    .is_ok_and(|answer| answer.cseq_method == Some(b"REGISTER")) =>
            {
                Some(Self::Register)
            }
            b"400" | b"403" | b"405" | b"416" | b"501" | b"505" => Some(Self::Refused),
            _ => None,
        }
    }
}

/// One core's counts; written by its thread alone.
#[derive(Debug, Default)]
pub struct UnwantedCounts([Counter; Unwanted::ALL.len()]);

impl UnwantedCounts {
    #[inline]
    pub fn add(&self, what: Unwanted) {
        self.0[what as usize].add(1);
    }

    pub fn get(&self, what: Unwanted) -> u64 {
        self.0[what as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_count_and_a_name_of_its_own() {
        let counts = UnwantedCounts::default();
        for (index, what) in Unwanted::ALL.into_iter().enumerate() {
            (0..=index).for_each(|_| counts.add(what));
        }
        let read = Unwanted::ALL.map(|what| counts.get(what));
        assert_eq!(read, [1, 2, 3, 4, 5, 6, 7, 8]);
        let mut names = Unwanted::ALL.map(Unwanted::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Unwanted::ALL.len());
    }

    #[test]
    fn what_happens_to_everybody_is_no_fault() {
        let of = |status: u16, method: &str| {
            let answer = format!("SIP/2.0 {status} X\r\nCall-ID: i\r\nCSeq: 1 {method}\r\n\r\n");
            Unwanted::of_answer(answer.as_bytes())
        };
        for status in [
            100, 200, 302, 401, 407, 420, 482, 486, 487, 488, 491, 500, 503, 603,
        ] {
            assert_eq!(of(status, "INVITE"), None, "{status}");
        }
        assert_eq!(of(404, "INVITE"), Some(Unwanted::UnknownRoom));
        assert_eq!(of(481, "BYE"), Some(Unwanted::Stray));
        assert_eq!(of(405, "PUBLISH"), Some(Unwanted::Refused));
        assert_eq!(of(405, "REGISTER"), Some(Unwanted::Register));
        let request = b"BYE sip:404@h SIP/2.0\r\nCall-ID: i\r\n\r\n";
        assert_eq!(Unwanted::of_answer(request), None);
        assert_eq!(Unwanted::of_answer(b"SIP/2.0 40"), None);
    }
}
