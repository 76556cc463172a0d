//! Sender reports (RFC 3550 §6.4.1).

use super::rr::{BLOCK_LEN, Block, Blocks};
use super::{HEADER_LEN, Part, RECEIVER_REPORT, SENDER_REPORT, SSRC_LEN, Writer, word};

/// What a source says of what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SenderInfo {
    /// The wall clock of this report, in 1/2^32 s since 1900.
    pub(crate) ntp: u64,
    /// The same moment on the media clock.
    pub(crate) rtp_timestamp: u32,
    pub(crate) packets: u32,
    /// Without headers and padding.
    pub(crate) octets: u32,
}

const INFO_LEN: usize = 20;

/// With the one block that we write.
pub(super) const REPORT_LEN_MAX: usize = HEADER_LEN + SSRC_LEN + INFO_LEN + BLOCK_LEN;

pub(super) fn read(count: usize, body: &[u8]) -> Option<Part<'_>> {
    let (ssrc, rest) = word(body)?;
    let (ntp_high, rest) = word(rest)?;
    let (ntp_low, rest) = word(rest)?;
    let (rtp_timestamp, rest) = word(rest)?;
    let (packets, rest) = word(rest)?;
    let (octets, rest) = word(rest)?;
    Some(Part::SenderReport {
        ssrc,
        info: SenderInfo {
            ntp: u64::from(ntp_high) << 32 | u64::from(ntp_low),
            rtp_timestamp,
            packets,
            octets,
        },
        blocks: Blocks::read(count, rest)?,
    })
}

impl Writer<'_> {
    /// A sender report if there is something sent to tell of, else a receiver report.
    pub(crate) fn report(&mut self, ssrc: u32, info: Option<SenderInfo>, block: Option<Block>) {
        let kind = if info.is_some() {
            SENDER_REPORT
        } else {
            RECEIVER_REPORT
        };
        self.part(kind, u8::from(block.is_some()), |writer| {
            writer.words(&[ssrc]);
            if let Some(info) = info {
                writer.words(&[
                    (info.ntp >> 32) as u32,
                    info.ntp as u32,
                    info.rtp_timestamp,
                    info.packets,
                    info.octets,
                ]);
            }
            if let Some(block) = block {
                writer.bytes(&block.write());
            }
        });
    }
}
