//! Samples of 16 bits in network order (RFC 3551 §4.5.11): nothing is lost, at twice the octets of G.711.

use super::{Decode, Encode};

pub(super) struct L16;

impl Encode for L16 {
    fn encode(&mut self, pcm: &[i16], payload: &mut Vec<u8>) {
        let start = payload.len();
        payload.resize(start + 2 * pcm.len(), 0);
        let (octets, _) = payload[start..].as_chunks_mut();
        for (octets, sample) in octets.iter_mut().zip(pcm) {
            *octets = sample.to_be_bytes();
        }
    }
}

impl Decode for L16 {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        let (samples, _) = payload.as_chunks();
        pcm.extend(samples.iter().map(|&octets| i16::from_be_bytes(octets)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_as_they_were_in_network_order() {
        let samples = [0, 1, -1, 0x1234, i16::MIN, i16::MAX];
        let mut payload = vec![7];
        L16.encode(&samples, &mut payload);
        assert_eq!(payload[..1 + 8], [7, 0, 0, 0, 1, 0xFF, 0xFF, 0x12, 0x34]);
        let mut pcm = vec![9];
        L16.decode(&payload[1..], &mut pcm);
        assert_eq!(pcm[1..], samples);
    }

    #[test]
    fn half_a_sample_is_none() {
        let mut pcm = Vec::new();
        L16.decode(&[0, 1, 2], &mut pcm);
        assert_eq!(pcm, [1]);
        L16.decode(&[], &mut pcm);
        assert_eq!(pcm.len(), 1);
    }
}
