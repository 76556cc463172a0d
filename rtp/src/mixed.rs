//! Who is in a packet, and how loud: contributing sources (RFC 3550 §5.1) and their audio levels
//! (RFC 6465) in a header extension of the one-byte form (RFC 8285 §4.2).
//!
//! ```text
//!   fixed header, CC = n │ n × CSRC │ 0xBEDE, length │ ID, n-1 │ n × level │ padding
//! ```

use crate::packet::{Extension, HEADER_LEN, Header, Packet};

/// Contributing sources of one packet at most: their count has four bits.
pub const CONTRIBUTORS_MAX: usize = 15;

/// The longest header that [`Header::write_mixed`] makes.
pub const MIXED_HEADER_LEN_MAX: usize =
    HEADER_LEN + 4 * CONTRIBUTORS_MAX + EXTENSION_HEADER_LEN + LEVELS_LEN_MAX;

const EXTENSION_HEADER_LEN: usize = 4;

/// The octet with ID and length, and a level for each, in whole words.
const LEVELS_LEN_MAX: usize = (1 + CONTRIBUTORS_MAX).next_multiple_of(4);

/// What the profile field of a header extension says when its elements have the one-byte form.
const ONE_BYTE_FORM: u16 = 0xBEDE;

/// An ID that ends the elements, whatever follows (RFC 8285 §4.2).
const ID_END: u8 = 15;

/// A source that a mixer has put into a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contributor {
    pub ssrc: u32,
    /// In -dBov as in RFC 6465 §3: 0 is overload, 127 silence or not said.
    pub level: u8,
}

impl Contributor {
    pub const SILENCE: u8 = 127;
}

impl Header {
    /// As [`write`](Self::write), with contributing sources and their levels; gives the length. Without
    /// sources it is the same header. `levels_id` is the number of the extension, 1 to 14, as agreed on
    /// by SDP. Sources beyond [`CONTRIBUTORS_MAX`] are left out.
    pub fn write_mixed(
        &self,
        contributors: &[Contributor],
        levels_id: u8,
        out: &mut [u8; MIXED_HEADER_LEN_MAX],
    ) -> usize {
        let contributors = &contributors[..contributors.len().min(CONTRIBUTORS_MAX)];
        let count = contributors.len();
        let (fixed, rest) = out.split_at_mut(HEADER_LEN);
        fixed.copy_from_slice(&self.write());
        if count == 0 {
            return HEADER_LEN;
        }
        fixed[0] |= 0x10 | count as u8;
        let (csrcs, extension) = rest.split_at_mut(4 * count);
        for (field, contributor) in csrcs.chunks_exact_mut(4).zip(contributors) {
            field.copy_from_slice(&contributor.ssrc.to_be_bytes());
        }
        let levels_len = (1 + count).next_multiple_of(4);
        let extension = &mut extension[..EXTENSION_HEADER_LEN + levels_len];
        extension.fill(0);
        extension[..2].copy_from_slice(&ONE_BYTE_FORM.to_be_bytes());
        extension[3] = (levels_len / 4) as u8;
        extension[4] = levels_id << 4 | (count - 1) as u8;
        for (field, contributor) in extension[5..].iter_mut().zip(contributors) {
            *field = contributor.level.min(Contributor::SILENCE);
        }
        HEADER_LEN + 4 * count + EXTENSION_HEADER_LEN + levels_len
    }
}

impl<'a> Packet<'a> {
    /// Who is in this packet. Levels count only if there is one for each source, as RFC 6465 §3 wants.
    pub fn contributors(
        &self,
        levels_id: u8,
    ) -> impl ExactSizeIterator<Item = Contributor> + use<'a> {
        let levels = self
            .extension
            .and_then(|extension| extension.element(levels_id))
            .filter(|levels| levels.len() == self.csrcs.len())
            .unwrap_or_default();
        self.csrcs
            .iter()
            .enumerate()
            .map(move |(place, ssrc)| Contributor {
                ssrc,
                // The first bit is reserved.
                level: levels.get(place).map_or(Contributor::SILENCE, |l| l & 0x7F),
            })
    }
}

impl<'a> Extension<'a> {
    /// What the element with this ID holds, if the extension has the one-byte form and the element.
    pub fn element(&self, id: u8) -> Option<&'a [u8]> {
        if self.profile != ONE_BYTE_FORM {
            return None;
        }
        let mut rest = self.data;
        while let [head, behind @ ..] = rest {
            let found = head >> 4;
            if *head == 0 {
                rest = behind;
                continue;
            }
            // An ID of 0 with a length is nobody's, either.
            if found == 0 || found == ID_END {
                return None;
            }
            let (data, behind) = behind.split_at_checked(usize::from(head & 0x0F) + 1)?;
            if found == id {
                return Some(data);
            }
            rest = behind;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        marker: true,
        payload_type: 96,
        sequence: 7,
        timestamp: 8,
        ssrc: 9,
    };

    fn contributors(count: u8) -> Vec<Contributor> {
        (0..count)
            .map(|n| Contributor {
                ssrc: 0xA000_0000 | u32::from(n),
                level: n * 9,
            })
            .collect()
    }

    #[test]
    fn who_is_written_is_read_with_his_level() {
        for count in 0..=CONTRIBUTORS_MAX as u8 {
            let wanted = contributors(count);
            let mut header = [0xFF; MIXED_HEADER_LEN_MAX];
            let len = HEADER.write_mixed(&wanted, 1, &mut header);
            let datagram = [&header[..len], b"sound"].concat();
            let packet = Packet::parse(&datagram).unwrap();
            assert_eq!(packet.payload, b"sound");
            assert_eq!((packet.sequence, packet.marker), (7, true));
            assert!(packet.contributors(1).eq(wanted), "{count}");
        }
    }

    #[test]
    fn without_sources_it_is_the_plain_header() {
        let mut header = [0; MIXED_HEADER_LEN_MAX];
        let len = HEADER.write_mixed(&[], 1, &mut header);
        assert_eq!(header[..len], HEADER.write());
    }

    #[test]
    fn the_wire_is_that_of_the_standard() {
        let mut header = [0; MIXED_HEADER_LEN_MAX];
        let len = HEADER.write_mixed(&contributors(3), 5, &mut header);
        assert_eq!(len, 12 + 12 + 4 + 4);
        assert_eq!(header[0], 0x80 | 0x10 | 3);
        assert_eq!(header[20..24], [0xA0, 0, 0, 2]);
        assert_eq!(
            header[24..len],
            [0xBE, 0xDE, 0, 1, 5 << 4 | 2, 0, 9, 18],
            "levels in the order of the sources"
        );
    }

    #[test]
    fn more_sources_than_fit_are_left_out_and_levels_beyond_the_scale_are_silence() {
        let mut many = contributors(15);
        many[0].level = 200;
        many.push(many[1]);
        let mut header = [0; MIXED_HEADER_LEN_MAX];
        let len = HEADER.write_mixed(&many, 1, &mut header);
        assert_eq!(len, MIXED_HEADER_LEN_MAX);
        let packet = Packet::parse(&header).unwrap();
        assert_eq!(packet.contributors(1).len(), CONTRIBUTORS_MAX);
        assert_eq!(packet.contributors(1).next().unwrap().level, 127);
    }

    #[test]
    fn levels_of_another_number_than_the_sources_say_nothing() {
        let levels = |extension: &[u8]| -> Vec<u8> {
            let mut datagram = vec![0x80 | 0x10 | 2];
            datagram.extend([0; 11]);
            datagram.extend([0, 0, 0, 1, 0, 0, 0, 2]);
            datagram.extend(extension);
            let packet = Packet::parse(&datagram).unwrap();
            packet.contributors(1).map(|c| c.level).collect()
        };
        assert_eq!(levels(&[0xBE, 0xDE, 0, 1, 0x11, 30, 40, 0]), [30, 40]);
        assert_eq!(levels(&[0xBE, 0xDE, 0, 1, 0x10, 30, 0, 0]), [127, 127]);
        assert_eq!(levels(&[0xBE, 0xDE, 0, 1, 0x12, 1, 2, 3]), [127, 127]);
        // Another element, padding, and a length beyond the end.
        assert_eq!(
            levels(&[0xBE, 0xDE, 0, 2, 0x20, 9, 0, 0x11, 30, 0x80 | 40, 0, 0]),
            [30, 40]
        );
        assert_eq!(levels(&[0xBE, 0xDE, 0, 1, 0x20, 9, 0, 0x11]), [127, 127]);
        assert_eq!(levels(&[0xBE, 0xDE, 0, 1, 0xF0, 0x11, 30, 40]), [127, 127]);
        assert_eq!(levels(&[0xBE, 0xDE, 0, 1, 0x01, 0x11, 30, 40]), [127, 127]);
        assert_eq!(levels(&[0x10, 0x00, 0, 1, 0x11, 30, 40, 0]), [127, 127]);
    }
}
