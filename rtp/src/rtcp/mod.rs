//! RTCP (RFC 3550 §6): compound packets read without copying, written into a buffer of the caller.
//!
//! ```text
//!   ┌ SR or RR ┬ SDES: CNAME ┬ BYE ┬ …      each: version, count, type, length in words less one
//!   └──────────┴─────────────┴─────┘        anything else is skipped by its length
//! ```
//!
//! One file for each kind, with both directions. Not here: when a report is due and what it says
//! (`reporter`), feedback (RFC 4585), reports of reduced size (RFC 5506), which are never negotiated.

mod bye;
mod rr;
mod sdes;
mod sr;

pub(crate) use bye::Bye;
pub(crate) use rr::{Block, Blocks};
pub(crate) use sr::SenderInfo;

/// Longest packet written, generously.
pub const RTCP_LEN_MAX: usize = 512;
const _: () = assert!(
    sr::REPORT_LEN_MAX + sdes::SOURCE_DESCRIPTION_LEN_MAX + bye::BYE_LEN <= RTCP_LEN_MAX,
    "every compound packet of ours fits"
);

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;

/// Version, count, type and length.
const HEADER_LEN: usize = 4;

const SSRC_LEN: usize = 4;

/// One part of a compound packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
        blocks: Blocks<'a>,
    },
    ReceiverReport {
        ssrc: u32,
        blocks: Blocks<'a>,
    },
    Bye(Bye<'a>),
    /// Anything else, or one that is shorter than its count says; it is skipped.
    Other,
}

/// The parts of a compound packet; None when it is no valid one (RFC 3550 A.2): every part is of version
/// 2, the lengths add up to the datagram's, the first is a report and not padded.
pub(crate) fn parse(datagram: &[u8]) -> Option<impl Iterator<Item = Part<'_>>> {
    let &[flags, SENDER_REPORT | RECEIVER_REPORT, ..] = datagram else {
        return None;
    };
    if flags & 0x20 != 0 {
        return None;
    }
    let mut rest = datagram;
    while !rest.is_empty() {
        (_, rest) = split(rest)?;
    }
    let mut rest = datagram;
    Some(std::iter::from_fn(move || {
        let (part, behind) = split(rest)?;
        rest = behind;
        Some(read(part))
    }))
}

/// The first part, whose length is in its header, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[flags, _, high, low, ..] = bytes else {
        return None;
    };
    let len = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
    (flags >> 6 == 2).then(|| bytes.split_at_checked(len))?
}

fn read(part: &[u8]) -> Part<'_> {
    let read = match part {
        [flags, kind, _, _, body @ ..] => {
            let count = usize::from(flags & 0x1F);
            match *kind {
                SENDER_REPORT => sr::read(count, body),
                RECEIVER_REPORT => rr::read(count, body),
                BYE => Bye::read(count, body).map(Part::Bye),
                _ => None,
            }
        }
        _ => None,
    };
    read.unwrap_or(Part::Other)
}

/// The first word, and what follows it.
fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, behind) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*word), behind))
}

/// Writes one compound packet: a report, then what else there is to say.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8; RTCP_LEN_MAX],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut [u8; RTCP_LEN_MAX]) -> Self {
        Self { out, len: 0 }
    }

    /// Octets written.
    pub(crate) fn finish(self) -> usize {
        self.len
    }

    /// One part, whose length is put into its header when its body is there.
    fn part(&mut self, kind: u8, count: u8, body: impl FnOnce(&mut Self)) {
        let start = self.len;
        self.bytes(&[2 << 6 | count, kind, 0, 0]);
        body(self);
        let words = ((self.len - start) / 4 - 1) as u16;
        self.out[start + 2..start + HEADER_LEN].copy_from_slice(&words.to_be_bytes());
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.bytes(&word.to_be_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Block = Block {
        ssrc: 2,
        fraction_lost: 25,
        cumulative_lost: -1,
        highest_sequence: 70_000,
        jitter: 12,
        last_sr: 3,
        delay_since_last_sr: 4,
    };
    const INFO: SenderInfo = SenderInfo {
        ntp: 0x0123_4567_89AB_CDEF,
        rtp_timestamp: 160,
        packets: 7,
        octets: 1_120,
    };

    fn compound(info: Option<SenderInfo>, block: Option<Block>, cname: &str) -> Vec<u8> {
        let mut out = [0; RTCP_LEN_MAX];
        let mut writer = Writer::new(&mut out);
        writer.report(1, info, block);
        writer.cname(1, cname);
        writer.bye(1);
        let len = writer.finish();
        out[..len].to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = compound(Some(INFO), Some(BLOCK), "a@b");
        let parts: Vec<Part<'_>> = parse(&bytes).unwrap().collect();
        let [
            Part::SenderReport {
                ssrc: 1,
                info: INFO,
                blocks,
            },
            Part::Other,
            Part::Bye(bye),
        ] = parts[..]
        else {
            panic!("{parts:?}");
        };
        assert!(blocks.iter().eq([BLOCK]));
        assert!(bye.contains(1) && !bye.contains(2));
    }

    #[test]
    fn who_sends_nothing_reports_as_a_receiver() {
        let bytes = compound(None, None, "a@b");
        let parts: Vec<Part<'_>> = parse(&bytes).unwrap().collect();
        let Part::ReceiverReport { ssrc: 1, blocks } = parts[0] else {
            panic!("{parts:?}");
        };
        assert_eq!(blocks.iter().count(), 0);
    }

    #[test]
    fn the_octets_are_those_of_the_standard() {
        let expected = [
            &[0x81, 200, 0, 12, 0, 0, 0, 1][..],
            &[0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF],
            &[0, 0, 0, 160, 0, 0, 0, 7, 0, 0, 4, 96],
            &[0, 0, 0, 2, 25, 0xFF, 0xFF, 0xFF, 0, 1, 0x11, 0x70],
            &[0, 0, 0, 12, 0, 0, 0, 3, 0, 0, 0, 4],
            // CNAME, its length, and zeroes up to the next word, at least one.
            &[0x81, 202, 0, 3, 0, 0, 0, 1, 1, 3, b'a', b'@', b'b', 0, 0, 0],
            &[0x81, 203, 0, 1, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(compound(Some(INFO), Some(BLOCK), "a@b"), expected);
    }

    #[test]
    fn the_longest_cname_fits() {
        for len in [0, 1, 2, 3, 254, 255, 256, 300] {
            let bytes = compound(Some(INFO), Some(BLOCK), &"x".repeat(len));
            assert!(bytes.len() <= RTCP_LEN_MAX);
            assert_eq!(parse(&bytes).unwrap().count(), 3, "CNAME of {len}");
        }
    }

    #[test]
    fn what_is_no_compound_packet_is_refused() {
        let valid = compound(None, Some(BLOCK), "a@b");
        assert!(parse(&valid).is_some());
        let damaged = |at: usize, value: u8| {
            let mut bytes = valid.clone();
            bytes[at] = value;
            parse(&bytes).is_none()
        };
        assert!(damaged(0, 0x41), "version 1");
        assert!(damaged(0, 0xA1), "padding in the first part");
        assert!(damaged(1, SOURCE_DESCRIPTION), "no report first");
        assert!(damaged(1, BYE), "a bare BYE");
        assert!(damaged(3, 6), "lengths that do not add up");
        assert!(damaged(32, 0x01), "version of a later part");
        assert!(parse(&[]).is_none());
        for len in 0..valid.len() {
            // Cut between two parts, the rest is whole.
            let whole = [32, 32 + 16].contains(&len);
            assert_eq!(parse(&valid[..len]).is_some(), whole, "cut at {len}");
        }
    }

    #[test]
    fn unknown_parts_are_skipped() {
        let mut bytes = compound(None, None, "a@b");
        bytes.extend([0x80, 204, 0, 1, b'n', b'a', b'm', b'e']);
        bytes.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        bytes.extend([0x81, 203, 0, 1, 0, 0, 0, 9]);
        let parts: Vec<Part<'_>> = parse(&bytes).unwrap().collect();
        assert_eq!(parts.len(), 6);
        assert_eq!(parts[3..5], [Part::Other; 2]);
        assert!(matches!(parts[5], Part::Bye(bye) if bye.contains(9)));
    }

    #[test]
    fn a_count_beyond_the_part_is_not_believed() {
        let mut bytes = compound(None, Some(BLOCK), "a@b");
        bytes[0] = 0x80 | 31;
        assert_eq!(parse(&bytes).unwrap().next(), Some(Part::Other));
    }
}
