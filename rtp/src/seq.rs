//! Sequence numbers beyond 16 bits (RFC 3550 §5.1).

/// The number that ends in `sequence` and lies nearest to `newest`: at most 32,767 above it or 32,768
/// below.
pub(crate) fn extend(newest: i64, sequence: u16) -> i64 {
    newest + i64::from(sequence.wrapping_sub(newest as u16) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_is_meant() {
        let cases = [
            (5, 6, 6),
            (5, 5, 5),
            (65_535, 0, 65_536),
            (65_536, 65_535, 65_535),
            (0, 65_535, -1),
            (0, 32_767, 32_767),
            (0, 32_768, -32_768),
            (1 << 40, 1, (1 << 40) + 1),
        ];
        for (newest, sequence, expected) in cases {
            assert_eq!(extend(newest, sequence), expected, "{newest} {sequence}");
        }
    }

    #[test]
    fn many_wraps_are_followed() {
        let mut newest = 65_000;
        for step in 1..1_000_000_i64 {
            newest = extend(newest, (65_000 + step) as u16);
            assert_eq!(newest, 65_000 + step);
        }
    }
}
