//! Goodbyes (RFC 3550 §6.6). The reason that may follow is for people and is not read.

use super::{BYE, HEADER_LEN, SSRC_LEN, Writer};

pub(super) const BYE_LEN: usize = HEADER_LEN + SSRC_LEN;

/// The sources that end, at most 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bye<'a>(&'a [[u8; SSRC_LEN]]);

impl<'a> Bye<'a> {
    pub(super) fn read(count: usize, body: &'a [u8]) -> Option<Self> {
        body.as_chunks().0.get(..count).map(Self)
    }

    pub(crate) fn contains(self, ssrc: u32) -> bool {
        self.0.contains(&ssrc.to_be_bytes())
    }
}

impl Writer<'_> {
    pub(crate) fn bye(&mut self, ssrc: u32) {
        self.part(BYE, 1, |writer| writer.words(&[ssrc]));
    }
}
