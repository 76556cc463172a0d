//! RTCP (RFC 3550 §6): compound packets read without copying, written into a buffer of the caller.

use crate::source::Reception;

/// Longest packet written: report, one block, CNAME and BYE.
pub const RTCP_LEN_MAX: usize = 512;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;

const CNAME: u8 = 1;

/// An SDES item has one octet for its length, and ours leaves room for the rest of the packet.
const CNAME_LEN_MAX: usize = 255;

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
    Bye {
        ssrcs: &'a [u8],
    },
    /// Anything else, which is skipped.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SenderInfo {
    pub(crate) ntp: u64,
    pub(crate) rtp_timestamp: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

/// Report blocks, 24 octets each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks<'a>(&'a [u8]);

/// What a receiver says of one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) ssrc: u32,
    pub(crate) fraction_lost: u8,
    pub(crate) last_sr: u32,
    pub(crate) delay_since_last_sr: u32,
}

const BLOCK_LEN: usize = 24;

impl Blocks<'_> {
    pub(crate) fn iter(self) -> impl Iterator<Item = Block> {
        self.0.as_chunks::<BLOCK_LEN>().0.iter().map(|block| Block {
            ssrc: word(block, 0),
            fraction_lost: block[4],
            last_sr: word(block, 16),
            delay_since_last_sr: word(block, 20),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

/// The parts of a compound packet; None when it is no valid one (RFC 3550 A.2).
pub(crate) fn parse(datagram: &[u8]) -> Option<impl Iterator<Item = Part<'_>>> {
    let mut rest = datagram;
    let mut first = true;
    while !rest.is_empty() {
        let (part, behind) = split(rest)?;
        // It begins with a report, unless of reduced size (RFC 5506), which BYE may be too.
        if first
            && !matches!(
                part[1],
                SENDER_REPORT | RECEIVER_REPORT | BYE | SOURCE_DESCRIPTION
            )
        {
            return None;
        }
        first = false;
        rest = behind;
    }
    if first {
        return None;
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
    let count = usize::from(part[0] & 0x1F);
    let blocks = |at: usize| part.get(at..at + count * BLOCK_LEN).map(Blocks);
    let read = match part[1] {
        SENDER_REPORT if part.len() >= 28 => blocks(28).map(|blocks| Part::SenderReport {
            ssrc: word(part, 4),
            info: SenderInfo {
                ntp: u64::from(word(part, 8)) << 32 | u64::from(word(part, 12)),
                rtp_timestamp: word(part, 16),
                packets: word(part, 20),
                octets: word(part, 24),
            },
            blocks,
        }),
        RECEIVER_REPORT if part.len() >= 8 => blocks(8).map(|blocks| Part::ReceiverReport {
            ssrc: word(part, 4),
            blocks,
        }),
        BYE => part.get(4..4 + count * 4).map(|ssrcs| Part::Bye { ssrcs }),
        _ => None,
    };
    read.unwrap_or(Part::Other)
}

/// Writes one compound packet.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8; RTCP_LEN_MAX],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut [u8; RTCP_LEN_MAX]) -> Self {
        Self { out, len: 0 }
    }

    pub(crate) fn finish(self) -> usize {
        self.len
    }

    /// SR if there is something sent to tell of, else RR.
    pub(crate) fn report(
        &mut self,
        ssrc: u32,
        info: Option<SenderInfo>,
        block: Option<(u32, Reception, u32, u32)>,
    ) {
        let kind = if info.is_some() {
            SENDER_REPORT
        } else {
            RECEIVER_REPORT
        };
        let start = self.begin(kind, u8::from(block.is_some()));
        self.word(ssrc);
        if let Some(info) = info {
            for word in [
                (info.ntp >> 32) as u32,
                info.ntp as u32,
                info.rtp_timestamp,
                info.packets,
                info.octets,
            ] {
                self.word(word);
            }
        }
        if let Some((source, reception, last_sr, delay)) = block {
            let lost = u32::from(reception.fraction_lost) << 24
                | reception.cumulative_lost as u32 & 0xFF_FFFF;
            for word in [
                source,
                lost,
                reception.highest_sequence,
                reception.jitter,
                last_sr,
                delay,
            ] {
                self.word(word);
            }
        }
        self.end(start);
    }

    pub(crate) fn cname(&mut self, ssrc: u32, cname: &str) {
        let start = self.begin(SOURCE_DESCRIPTION, 1);
        self.word(ssrc);
        let cname = &cname.as_bytes()[..cname.len().min(CNAME_LEN_MAX)];
        self.bytes(&[CNAME, cname.len() as u8]);
        self.bytes(cname);
        // A null ends the list, and up to three more fill the word.
        self.bytes(&[0]);
        while !self.len.is_multiple_of(4) {
            self.bytes(&[0]);
        }
        self.end(start);
    }

    pub(crate) fn bye(&mut self, ssrc: u32) {
        let start = self.begin(BYE, 1);
        self.word(ssrc);
        self.end(start);
    }

    fn begin(&mut self, kind: u8, count: u8) -> usize {
        let start = self.len;
        self.bytes(&[2 << 6 | count, kind, 0, 0]);
        start
    }

    fn end(&mut self, start: usize) {
        let words = ((self.len - start) / 4 - 1) as u16;
        self.out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
    }

    fn word(&mut self, word: u32) {
        self.bytes(&word.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEPTION: Reception = Reception {
        fraction_lost: 25,
        cumulative_lost: -1,
        highest_sequence: 70_000,
        jitter: 12,
    };
    const INFO: SenderInfo = SenderInfo {
        ntp: 0x0123_4567_89AB_CDEF,
        rtp_timestamp: 160,
        packets: 7,
        octets: 1_120,
    };

    fn compound(cname: &str) -> Vec<u8> {
        let mut out = [0; RTCP_LEN_MAX];
        let mut writer = Writer::new(&mut out);
        writer.report(1, Some(INFO), Some((2, RECEPTION, 3, 4)));
        writer.cname(1, cname);
        writer.bye(1);
        let len = writer.finish();
        out[..len].to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = compound("a@b");
        let parts: Vec<Part<'_>> = parse(&bytes).unwrap().collect();
        let [
            Part::SenderReport {
                ssrc: 1,
                info: INFO,
                blocks,
            },
            Part::Other,
            Part::Bye {
                ssrcs: [0, 0, 0, 1],
            },
        ] = parts[..]
        else {
            panic!("{parts:?}");
        };
        let block = Block {
            ssrc: 2,
            fraction_lost: 25,
            last_sr: 3,
            delay_since_last_sr: 4,
        };
        assert!(blocks.iter().eq([block]));
    }

    #[test]
    fn the_longest_cname_fits() {
        let bytes = compound(&"x".repeat(300));
        assert!(bytes.len() <= RTCP_LEN_MAX && parse(&bytes).unwrap().count() == 3);
    }

    #[test]
    fn no_damage_panics() {
        let bytes = compound("a@b");
        for len in 0..bytes.len() {
            parse(&bytes[..len]).into_iter().flatten().for_each(drop);
        }
        for at in 0..bytes.len() {
            for value in 0..=255 {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                for part in parse(&damaged).into_iter().flatten() {
                    if let Part::SenderReport { blocks, .. } | Part::ReceiverReport { blocks, .. } =
                        part
                    {
                        blocks.iter().for_each(drop);
                    }
                }
            }
        }
    }
}
