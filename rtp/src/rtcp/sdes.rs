//! Source descriptions (RFC 3550 §6.5): ours is the CNAME, which is all that everyone must say. What a
//! peer calls itself decides nothing here and is not read.

use super::{HEADER_LEN, SOURCE_DESCRIPTION, SSRC_LEN, Writer};

const CNAME: u8 = 1;

/// An item has one octet for its length.
const CNAME_LEN_MAX: usize = 255;

/// Kind and length of the item, and what may follow it: a null that ends the list and up to three more
/// that fill the word.
pub(super) const SOURCE_DESCRIPTION_LEN_MAX: usize = HEADER_LEN + SSRC_LEN + 2 + CNAME_LEN_MAX + 4;

impl Writer<'_> {
    /// The name that stays when our source changes, cut off where the format ends.
    pub(crate) fn cname(&mut self, ssrc: u32, cname: &str) {
        let cname = &cname.as_bytes()[..cname.len().min(CNAME_LEN_MAX)];
        self.part(SOURCE_DESCRIPTION, 1, |writer| {
            writer.words(&[ssrc]);
            writer.bytes(&[CNAME, cname.len() as u8]);
            writer.bytes(cname);
            writer.bytes(&[0]);
            while !writer.len.is_multiple_of(4) {
                writer.bytes(&[0]);
            }
        });
    }
}
