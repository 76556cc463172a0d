//! Points in time as the documents write them.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

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

const DAY: u64 = 24 * 60 * 60;

/// Days from the first of January 1970 to the first of January of `year`, which is 1970 or later.
const fn days_before(year: u64) -> u64 {
    let years = year - 1;
    years * 365 + years / 4 - years / 100 + years / 400 - 719_162
}

const fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + is_leap(year) as u64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut day, second) = (self.seconds / DAY, self.seconds % DAY);
        // Never too late: no year has more than 366 days. Then at most 20 steps for all of them.
        let mut year = 1970 + day / 366;
        while days_before(year + 1) <= day {
            year += 1;
        }
        day -= days_before(year);
        let mut month = 1;
        while day >= days_in(year, month) {
            day -= days_in(year, month);
            month += 1;
        }
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let day = day + 1;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
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

    /// Fractions of seconds are cut off. Without a zone, as XML Schema allows, UTC is meant.
    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        read(text).ok_or(NoTimestamp)
    }
}

fn read(text: &str) -> Option<Timestamp> {
    let (main, rest) = text.split_at_checked(19)?;
    let bytes = main.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, c)| bytes[at] != c) {
        return None;
    }
    let [year, month, day] = [
        number(&main[..4])?,
        number(&main[5..7])?,
        number(&main[8..10])?,
    ];
    let hour = number(&main[11..13])?;
    let [minute, second] = [number(&main[14..16])?, number(&main[17..])?];
    // A leap second is told as the one after it.
    let is_date = year >= 1970 && (1..=12).contains(&month) && day >= 1;
    if !is_date || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days: u64 = (1..month).map(|month| days_in(year, month)).sum();
    let days = days_before(year) + days + day - 1;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (zone.len() < fraction.len()).then_some(zone)?
        }
        None => rest,
    };
    let seconds = match zone.as_bytes() {
        [] | [b'Z'] => seconds,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone.get(1..3)?)?, number(zone.get(4..)?)?);
            let offset = (hours <= 23 && minutes <= 59).then_some(hours * 3600 + minutes * 60)?;
            match sign {
                b'+' => seconds.checked_sub(offset)?,
                _ => seconds + offset,
            }
        }
        _ => return None,
    };
    (seconds <= Timestamp::MAX).then_some(Timestamp { seconds })
}

/// Digits alone, where `parse` would take a sign too.
fn number(digits: &str) -> Option<u64> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
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
        let time = UNIX_EPOCH + std::time::Duration::from_millis(1999);
        assert_eq!(Timestamp::from(time).unix(), 1);
    }

    #[test]
    fn as_others_write_them() {
        for (text, seconds) in [
            ("2005-03-04T20:00:00", Some(1_109_966_400)),
            ("2005-03-04T20:00:00.987654321Z", Some(1_109_966_400)),
            ("2005-03-04T21:30:00+01:30", Some(1_109_966_400)),
            ("2005-03-04T15:00:00.5-05:00", Some(1_109_966_400)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800)),
            ("1970-01-01T00:30:00+01:00", None),
            ("9999-12-31T23:59:60Z", None),
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
