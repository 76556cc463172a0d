//! Points in time as the documents write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A whole second, written as RFC 3339 says, such as `2005-03-04T20:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Since 1970, at most [`Timestamp::MAX`].
    seconds: u64,
}

impl Timestamp {
    /// The end of the year 9999, the last that has four digits.
    pub const MAX: u64 = 253_402_300_799;

    /// Seconds since 1970, leap seconds not counted. Later than [`Self::MAX`] is that.
    pub fn from_unix(seconds: u64) -> Self {
        Self {
            seconds: seconds.min(Self::MAX),
        }
    }

    /// Seconds since 1970.
    pub const fn unix(self) -> u64 {
        self.seconds
    }
}

impl From<SystemTime> for Timestamp {
    /// Before 1970 is 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH);
        Self::from_unix(since.map_or(0, |since| since.as_secs()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(self.seconds));
        f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// The text is no date and time from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTimestamp;

impl fmt::Display for NoTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a date and time as RFC 3339 writes them")
    }
}

impl std::error::Error for NoTimestamp {}

impl FromStr for Timestamp {
    type Err = NoTimestamp;

    /// Fractions of seconds are cut off, and with them leap seconds. Without a zone, as XML Schema allows, UTC
    /// is meant.
    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        read(text).ok_or(NoTimestamp)
    }
}

fn read(text: &str) -> Option<Timestamp> {
    let has_zone = text.get(19..)?.contains(['Z', '+', '-']);
    let text = if has_zone { text } else { &format!("{text}Z") };
    // RFC 3339 lets a space stand there, XML Schema does not.
    let is_joined = text.as_bytes().get(10) == Some(&b'T');
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = u64::try_from(time.unix_timestamp()).ok()?;
    (is_joined && seconds <= Timestamp::MAX).then_some(Timestamp { seconds })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_109_966_400, "2005-03-04T20:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (Timestamp::MAX, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            let time = Timestamp::from_unix(seconds);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
        let time = UNIX_EPOCH + Duration::from_millis(1999);
        assert_eq!(Timestamp::from(time).unix(), 1);
    }

    #[test]
    fn as_others_write_them() {
        for (text, seconds) in [
            ("2005-03-04T20:00:00", Some(1_109_966_400)),
            ("2005-03-04T20:00:00.987654321Z", Some(1_109_966_400)),
            ("2005-03-04T21:30:00+01:30", Some(1_109_966_400)),
            ("2005-03-04T15:00:00.5-05:00", Some(1_109_966_400)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_799)),
            ("1970-01-01T00:30:00+01:00", None),
            ("9999-12-31T23:59:60Z", Some(Timestamp::MAX)),
            ("", None),
            ("2005-02-29T20:00:00Z", None),
            ("2005-13-01T20:00:00Z", None),
            ("2005-00-01T20:00:00Z", None),
            ("2005-01-00T20:00:00Z", None),
            ("2005-03-04T24:00:00Z", None),
            ("2005-03-04T20:60:00Z", None),
            ("2005-03-04T20:00:61Z", None),
            ("2005-03-04 20:00:00Z", None),
            ("2005-03-04T20:00:00.Z", None),
            ("2005-03-04T20:00:00+1:00", None),
            ("2005-03-04T20:00:00+24:00", None),
            ("2005-03-04T20:00:00ZZ", None),
            ("2005-03-04T20:00:+0Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2005-03-04T20:00:0\u{e9}", None),
            ("2005-03-04T20:00:00+0\u{e9}:0", None),
        ] {
            let time = text.parse().ok().map(Timestamp::unix);
            assert_eq!(time, seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again(seconds in 0..=Timestamp::MAX) {
            let time = Timestamp::from_unix(seconds);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
