//! RTP packets (RFC 3550 §5), and telling them from what else comes to the same port.

use std::fmt;

/// Length of the fixed header, which is all of the header that participants get.
pub const HEADER_LEN: usize = 12;

/// A packet as it came; borrows from the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Whom a mixer has put into this packet.
    pub csrcs: Csrcs<'a>,
    pub extension: Option<Extension<'a>>,
    /// Without padding.
    pub payload: &'a [u8],
}

/// Contributing sources (RFC 3550 §5.1), at most 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Csrcs<'a>(&'a [[u8; 4]]);

impl<'a> Csrcs<'a> {
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.0.iter().copied().map(u32::from_be_bytes)
    }

    pub fn len(self) -> usize {
        self.0.len()
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// A header extension (RFC 3550 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    pub profile: u16,
    pub data: &'a [u8],
}

/// Why a datagram is no RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// A part of it lies beyond its end.
    Short,
    Version,
    Padding,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "packet is shorter than it says",
            Self::Version => "not RTP version 2",
            Self::Padding => "padding is longer than the payload",
        })
    }
}

impl std::error::Error for PacketError {}

impl<'a> Packet<'a> {
    /// Reads a datagram; every length in it is checked, the padding is removed.
    ///
    /// # Errors
    /// The datagram is no RTP packet.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, PacketError> {
        let (header, rest) = datagram
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(PacketError::Short)?;
        let [
            flags,
            kind,
            seq_high,
            seq_low,
            t0,
            t1,
            t2,
            t3,
            s0,
            s1,
            s2,
            s3,
        ] = *header;
        if flags >> 6 != 2 {
            return Err(PacketError::Version);
        }
        let csrcs_len = usize::from(flags & 0x0F) * 4;
        let (csrcs, mut rest) = rest.split_at_checked(csrcs_len).ok_or(PacketError::Short)?;
        let mut extension = None;
        if flags & 0x10 != 0 {
            let ([p0, p1, l0, l1], behind) =
                rest.split_first_chunk::<4>().ok_or(PacketError::Short)?;
            let len = usize::from(u16::from_be_bytes([*l0, *l1])) * 4;
            let (data, behind) = behind.split_at_checked(len).ok_or(PacketError::Short)?;
            extension = Some(Extension {
                profile: u16::from_be_bytes([*p0, *p1]),
                data,
            });
            rest = behind;
        }
        if flags & 0x20 != 0 {
            // The last octet counts the padding, itself included.
            let padding = usize::from(*rest.last().ok_or(PacketError::Padding)?);
            if padding == 0 || padding > rest.len() {
                return Err(PacketError::Padding);
            }
            rest = &rest[..rest.len() - padding];
        }
        Ok(Self {
            marker: kind & 0x80 != 0,
            payload_type: kind & 0x7F,
            sequence: u16::from_be_bytes([seq_high, seq_low]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            csrcs: Csrcs(csrcs.as_chunks().0),
            extension,
            payload: rest,
        })
    }
}

/// The header of a packet of ours: no padding; contributing sources only by [`Header::write_mixed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Header {
    /// In network byte order. A payload type has seven bits; further ones are cut off.
    pub fn write(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = 2 << 6;
        header[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7F;
        header[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        header
    }
}

/// What a datagram on a media port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rtp,
    Rtcp,
    Stun,
    Dtls,
    Other,
}

/// By the first octet (RFC 7983 §7) and, for RTCP on the RTP port, the second (RFC 5761 §4).
pub fn classify(datagram: &[u8]) -> Kind {
    match (datagram.first(), datagram.get(1)) {
        (Some(0..=3), _) => Kind::Stun,
        (Some(20..=63), _) => Kind::Dtls,
        (Some(128..=191), Some(192..=223)) => Kind::Rtcp,
        (Some(128..=191), Some(_)) => Kind::Rtp,
        _ => Kind::Other,
    }
}

/// The source of what looks like an RTP packet, without reading the rest of it.
pub fn ssrc(datagram: &[u8]) -> Option<u32> {
    let field = datagram.get(8..12)?.try_into().ok()?;
    (classify(datagram) == Kind::Rtp).then_some(u32::from_be_bytes(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_a_header_is_read() {
        let mut datagram = vec![0x80 | 0x20 | 0x10 | 2, 0x80 | 8, 0x12, 0x34];
        datagram.extend([0, 0, 1, 0, 0xDE, 0xAD, 0xBE, 0xEF]);
        datagram.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        datagram.extend([0xBE, 0xDE, 0, 1, 9, 9, 9, 9]);
        datagram.extend(b"audio");
        datagram.extend([0, 0, 3]);
        let packet = Packet::parse(&datagram).unwrap();
        assert_eq!(ssrc(&datagram), Some(packet.ssrc));
        assert_eq!(ssrc(&datagram[..11]), None);
        assert_eq!(
            (packet.marker, packet.payload_type, packet.sequence),
            (true, 8, 0x1234)
        );
        assert_eq!((packet.timestamp, packet.ssrc), (256, 0xDEAD_BEEF));
        assert!(packet.csrcs.iter().eq([1, 2]) && packet.csrcs.len() == 2);
        assert!(!packet.csrcs.is_empty());
        assert_eq!(
            packet.extension,
            Some(Extension {
                profile: 0xBEDE,
                data: &[9; 4]
            })
        );
        assert_eq!(packet.payload, b"audio");
        // Cut within header, sources or extension, it is refused.
        let payload_at = datagram.len() - b"audio".len() - 3;
        for len in 0..payload_at {
            assert_eq!(Packet::parse(&datagram[..len]), Err(PacketError::Short));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let header = Header {
            marker: true,
            payload_type: 101,
            sequence: 65_535,
            timestamp: u32::MAX,
            ssrc: 7,
        };
        let packet_bytes = [&header.write()[..], b"x"].concat();
        let packet = Packet::parse(&packet_bytes).unwrap();
        assert_eq!(
            (packet.marker, packet.payload_type, packet.sequence),
            (true, 101, 65_535)
        );
        assert_eq!(
            (packet.timestamp, packet.ssrc, packet.payload),
            (u32::MAX, 7, b"x".as_slice())
        );
    }

    #[test]
    fn wrong_packets_are_refused() {
        assert_eq!(Packet::parse(&[0x80; 11]), Err(PacketError::Short));
        assert_eq!(Packet::parse(&[0x40; 12]), Err(PacketError::Version));
        let padded = |padding: u8| [&[0xA0][..], &[0; 11], &[padding]].concat();
        assert_eq!(Packet::parse(&padded(0)), Err(PacketError::Padding));
        assert_eq!(Packet::parse(&padded(2)), Err(PacketError::Padding));
        assert_eq!(Packet::parse(&padded(1)).unwrap().payload, b"");
    }

    #[test]
    fn ports_are_shared_without_confusion() {
        let kinds = [
            [0, 1],
            [22, 254],
            [0x80, 0],
            [0x80, 0x80 | 96],
            [0x80, 200],
            [0x81, 207],
            [0xFF, 0],
        ]
        .map(|d| classify(&d));
        assert_eq!(
            kinds,
            [
                Kind::Stun,
                Kind::Dtls,
                Kind::Rtp,
                Kind::Rtp,
                Kind::Rtcp,
                Kind::Rtcp,
                Kind::Other
            ]
        );
        assert_eq!(
            (classify(&[]), classify(&[0x80])),
            (Kind::Other, Kind::Other)
        );
    }
}
