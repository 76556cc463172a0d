//! Points in time as XML Schema writes them (`xs:dateTime`), in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// The last second of the year 9999, the last year of four digits.
const SECONDS_MAX: u64 = 253_402_300_799;

/// As `2026-03-04T20:00:00.25Z`, with as many digits of a second as it takes. Earlier than 1970 is 1970,
/// later than 9999 is its end.
pub(super) fn write(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = since.min(Duration::new(SECONDS_MAX, 999_999_999));
    let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match since.subsec_nanos() {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days from the first of January 1970 to the first of January of `year`, which is 1970 or later.
const fn days_before(year: u64) -> u64 {
    let years = year - 1;
    years * 365 + years / 4 - years / 100 + years / 400 - 719_162
}

const fn days_in(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day, the two from 1, of a day counted from 1970.
fn date(mut day: u64) -> (u64, u64, u64) {
    // Never too late, for no year has more than 366 days; and at most some 20 years too early.
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
    (year, month, day + 1)
}

/// Reads a time from 1970 to 9999. Without a zone, UTC is meant; digits beyond the ninth are cut off.
pub(super) fn read(text: &str) -> Option<SystemTime> {
    let (main, rest) = text.split_at_checked(19)?;
    let bytes = main.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !main.is_ascii() || separators.iter().any(|&(at, byte)| bytes[at] != byte) {
        return None;
    }
    let (year, month, day) = (
        number(&main[..4])?,
        number(&main[5..7])?,
        number(&main[8..10])?,
    );
    let (hour, minute, second) = (
        number(&main[11..13])?,
        number(&main[14..16])?,
        number(&main[17..])?,
    );
    let is_date = year >= 1970 && (1..=12).contains(&month) && day >= 1;
    // A leap second is told as the one after it.
    if !is_date || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days: u64 = (1..month).map(|month| days_in(year, month)).sum();
    let days = days_before(year) + days + day - 1;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
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
    let is_in_time = seconds <= SECONDS_MAX;
    is_in_time.then(|| UNIX_EPOCH + Duration::new(seconds, nanos))
}

/// Nanoseconds, and what follows the digits.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let zone = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - zone.len()];
    let nanos = number(&format!("{:0<9}", &digits[..digits.len().min(9)]))?;
    (!digits.is_empty()).then_some((nanos as u32, zone))
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

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn known_times() {
        for (time, text) in [
            (at(0, 0), "1970-01-01T00:00:00Z"),
            (at(951_782_400, 1), "2000-02-29T00:00:00.000000001Z"),
            (at(951_868_799, 250_000_000), "2000-02-29T23:59:59.25Z"),
            (at(1_109_966_400, 0), "2005-03-04T20:00:00Z"),
            (at(4_107_542_400, 0), "2100-03-01T00:00:00Z"),
            (at(SECONDS_MAX, 0), "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(write(time), text);
            assert_eq!(read(text), Some(time), "{text}");
        }
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(write(before), "1970-01-01T00:00:00Z");
        let after = at(SECONDS_MAX + 1, 0);
        assert_eq!(write(after), "9999-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn as_others_write_them() {
        for (text, time) in [
            ("2005-03-04T20:00:00", Some(at(1_109_966_400, 0))),
            ("2005-03-04T21:30:00+01:30", Some(at(1_109_966_400, 0))),
            (
                "2005-03-04T15:00:00.50-05:00",
                Some(at(1_109_966_400, 500_000_000)),
            ),
            (
                "2005-03-04T20:00:00.0000000019Z",
                Some(at(1_109_966_400, 1)),
            ),
            ("2016-12-31T23:59:60Z", Some(at(1_483_228_800, 0))),
            ("1970-01-01T00:30:00+01:00", None),
            ("9999-12-31T23:59:60Z", None),
            ("", None),
            ("2005-02-29T20:00:00Z", None),
            ("2005-13-01T20:00:00Z", None),
            ("2005-00-01T20:00:00Z", None),
            ("2005-01-00T20:00:00Z", None),
            ("2005-03-04T24:00:00Z", None),
            ("2005-03-04 20:00:00Z", None),
            ("2005-03-04T20:00:00.Z", None),
            ("2005-03-04T20:00:00+24:00", None),
            ("2005-03-04T20:00:00ZZ", None),
            ("1969-12-31T23:59:59Z", None),
            ("2005-03-04T20:00:0\u{e9}", None),
            ("2005-03\u{e9}04T20:00:00", None),
            ("2005-03-04T20:00:00+0\u{e9}:0", None),
        ] {
            assert_eq!(read(text), time, "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again(seconds in 0..=SECONDS_MAX, nanos in 0..1_000_000_000_u32) {
            let time = at(seconds, nanos);
            prop_assert_eq!(read(&write(time)), Some(time));
        }
    }
}
