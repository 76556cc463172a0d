//! Points in time as XML Schema writes them (`xs:dateTime`), in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last second of the year 9999, the last year of four digits.
const SECONDS_MAX: u64 = 253_402_300_799;

fn last() -> SystemTime {
    UNIX_EPOCH + Duration::new(SECONDS_MAX, 999_999_999)
}

/// As `2026-03-04T20:00:00.25Z`, with as many digits of a second as it takes. Earlier than 1970 is 1970,
/// later than 9999 is its end.
pub(super) fn write(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time.clamp(UNIX_EPOCH, last()));
    time.format(&Rfc3339)
        .expect("a year of four digits, in UTC")
}

/// Reads a time from 1970 to 9999. Without a zone, which RFC 3339 demands, UTC is meant; digits beyond the
/// ninth are cut off, and a leap second is the end of the one before it.
pub(super) fn read(text: &str) -> Option<SystemTime> {
    let has_zone = text.get(19..)?.contains(['Z', '+', '-']);
    let text = if has_zone { text } else { &format!("{text}Z") };
    // RFC 3339 lets a space stand there, XML Schema does not.
    let is_joined = text.as_bytes().get(10) == Some(&b'T');
    let time = SystemTime::from(OffsetDateTime::parse(text, &Rfc3339).ok()?);
    (is_joined && (UNIX_EPOCH..=last()).contains(&time)).then_some(time)
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
            ("2016-12-31T23:59:60Z", Some(at(1_483_228_799, 999_999_999))),
            ("1970-01-01T00:30:00+01:00", None),
            ("9999-12-31T23:59:60Z", Some(last())),
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
