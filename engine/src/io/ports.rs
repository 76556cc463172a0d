//! The RTP/RTCP port pairs of one shard.
//!
//! The configured range is split between the shards by pair, so that no shard asks another. A pair that
//! comes back goes to the end of the queue: the longer a port rests, the fewer packets of the call that
//! used it before still reach the next one.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// An even RTP port; RTCP has the next one (RFC 3550 §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortPair(u16);

impl PortPair {
    pub fn rtp(self) -> u16 {
        self.0
    }

    pub fn rtcp(self) -> u16 {
        self.0 + 1
    }
}

#[derive(Debug)]
pub struct Ports {
    free: VecDeque<PortPair>,
}

impl Ports {
    /// The share of shard `index` of `shards` in the range.
    pub fn new(range: RangeInclusive<u16>, index: usize, shards: usize) -> Self {
        let first = range.start().next_multiple_of(2);
        // A pair lies inside the range with both its ports.
        let free = (first..u16::MAX)
            .step_by(2)
            .take_while(|port| port < range.end())
            .enumerate()
            .filter(|(pair, _)| pair % shards == index)
            .map(|(_, port)| PortPair(port))
            .collect();
        Self { free }
    }

    pub fn take(&mut self) -> Option<PortPair> {
        self.free.pop_front()
    }

    pub fn give_back(&mut self, pair: PortPair) {
        debug_assert!(!self.free.contains(&pair), "a pair has one owner");
        self.free.push_back(pair);
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_range_without_overlap() {
        let shares: Vec<Ports> = (0..3).map(|i| Ports::new(16_385..=16_400, i, 3)).collect();
        let mut all: Vec<u16> = shares
            .iter()
            .flat_map(|share| share.free.iter().map(|pair| pair.rtp()))
            .collect();
        all.sort_unstable();
        assert_eq!(
            all,
            [16_386, 16_388, 16_390, 16_392, 16_394, 16_396, 16_398]
        );
        assert!(shares.iter().all(|share| share.free() >= 2));
    }

    #[test]
    fn the_end_of_the_port_space_is_no_special_case() {
        let mut ports = Ports::new(65_530..=65_535, 0, 1);
        let pairs: Vec<(u16, u16)> = std::iter::from_fn(|| ports.take())
            .map(|pair| (pair.rtp(), pair.rtcp()))
            .collect();
        assert_eq!(
            pairs,
            [(65_530, 65_531), (65_532, 65_533), (65_534, 65_535)]
        );
    }

    #[test]
    fn a_returned_pair_rests_longest() {
        let mut ports = Ports::new(10_000..=10_005, 0, 1);
        let first = ports.take().unwrap();
        ports.give_back(first);
        assert_ne!(ports.take(), Some(first));
        assert_ne!(ports.take(), Some(first));
        assert_eq!(ports.take(), Some(first));
        assert_eq!(ports.take(), None);
    }
}
