//! Receiver reports, and the report blocks of both kinds of report (RFC 3550 §6.4.1, §6.4.2).

use super::{Part, word};

/// What a receiver says of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) ssrc: u32,
    /// In the interval since its last report, in 256ths.
    pub(crate) fraction_lost: u8,
    /// In 24 bits with sign; duplicates make it fewer.
    pub(crate) cumulative_lost: i32,
    /// Extended by the number of wraps.
    pub(crate) highest_sequence: u32,
    /// In timestamp units.
    pub(crate) jitter: u32,
    /// Middle 32 bits of the NTP timestamp of the source's last report; zero if there was none.
    pub(crate) last_sr: u32,
    /// How long ago that arrived, in 1/65,536 s.
    pub(crate) delay_since_last_sr: u32,
}

pub(super) const BLOCK_LEN: usize = 24;

impl Block {
    fn read(bytes: &[u8; BLOCK_LEN]) -> Self {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            ssrc: word(0),
            fraction_lost: bytes[4],
            // The shifts carry the sign of 24 bits on.
            cumulative_lost: (word(4) << 8) as i32 >> 8,
            highest_sequence: word(8),
            jitter: word(12),
            last_sr: word(16),
            delay_since_last_sr: word(20),
        }
    }

    pub(super) fn write(&self) -> [u8; BLOCK_LEN] {
        let lost = u32::from(self.fraction_lost) << 24 | self.cumulative_lost as u32 & 0xFF_FFFF;
        let words = [
            self.ssrc,
            lost,
            self.highest_sequence,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ];
        let mut bytes = [0; BLOCK_LEN];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        bytes
    }
}

/// The blocks of a report, at most 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks<'a>(&'a [[u8; BLOCK_LEN]]);

impl<'a> Blocks<'a> {
    pub(super) fn read(count: usize, bytes: &'a [u8]) -> Option<Self> {
        bytes.as_chunks().0.get(..count).map(Self)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Block> + use<'a> {
        self.0.iter().map(Block::read)
    }
}

pub(super) fn read(count: usize, body: &[u8]) -> Option<Part<'_>> {
    let (ssrc, rest) = word(body)?;
    Some(Part::ReceiverReport {
        ssrc,
        blocks: Blocks::read(count, rest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_keep_their_sign() {
        for cumulative_lost in [0, 1, -1, 0x7F_FFFF, -0x80_0000] {
            let block = Block {
                ssrc: u32::MAX,
                fraction_lost: 255,
                cumulative_lost,
                highest_sequence: 1,
                jitter: 2,
                last_sr: 3,
                delay_since_last_sr: 4,
            };
            assert_eq!(Block::read(&block.write()), block);
        }
    }
}
