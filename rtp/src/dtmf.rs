//! Telephone events (RFC 4733): keys pressed, told once and never heard.
//!
//! One key press is many packets: the duration grows, the timestamp stays, and the last packet, which
//! bears the end bit, comes three times. A press is told with the first packet of it that arrives,
//! because whoever presses a key waits for an answer; should only an end arrive, that tells it.

/// Ticks that the timestamp of a late packet may lie behind the newest event: 5 s at 8 kHz. What is
/// older does not come from a slow path but from a sender that counts anew.
const OLD_TICKS_MAX: u32 = 40_000;

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtmfEvent {
    /// 0 to 9, 10 = *, 11 = #, 12 to 15 = A to D, 16 = flash; others as RFC 4733 registers them.
    pub event: u8,
    /// How long it has lasted so far, in timestamp units.
    pub duration: u16,
    /// It has ended already: the packets before were lost.
    pub end: bool,
}

impl DtmfEvent {
    /// What is printed on the key; None for an event that is no key.
    pub fn digit(&self) -> Option<char> {
        "0123456789*#ABCD".chars().nth(self.event.into())
    }
}

/// What a packet is to whoever counts key presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    New(DtmfEvent),
    /// A further packet of a press that was told.
    Known,
    Malformed,
}

/// Finds the first packet of each event.
#[derive(Clone, Debug, Default)]
pub(crate) struct DtmfReceiver {
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    ssrc: u32,
    timestamp: u32,
    event: DtmfEvent,
}

impl DtmfReceiver {
    /// A payload is event, flags and volume, duration (RFC 4733 §2.3).
    pub(crate) fn handle(
        &mut self,
        ssrc: u32,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) -> Told {
        let &[event, flags, high, low, ..] = payload else {
            return Told::Malformed;
        };
        let event = DtmfEvent {
            event,
            duration: u16::from_be_bytes([high, low]),
            end: flags & 0x80 != 0,
        };
        let known = self.latest.filter(|latest| latest.ssrc == ssrc);
        if known.is_some_and(|latest| latest.covers(timestamp, &event)) {
            return Told::Known;
        }
        // A long press is cut into segments, the next beginning where the duration was full; only the
        // first bears the marker (RFC 4733 §2.5.1.3).
        let goes_on = !marker
            && known.is_some_and(|latest| {
                latest.event.event == event.event
                    && timestamp.wrapping_sub(latest.timestamp) == u16::MAX.into()
            });
        self.latest = Some(Latest {
            ssrc,
            timestamp,
            event,
        });
        if goes_on {
            Told::Known
        } else {
            Told::New(event)
        }
    }
}

impl Latest {
    /// The packet belongs to this event or to one before, overtaken on its way.
    fn covers(&self, timestamp: u32, event: &DtmfEvent) -> bool {
        let behind = self.timestamp.wrapping_sub(timestamp);
        if behind == 0 {
            event.event == self.event.event
        } else {
            behind <= OLD_TICKS_MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events told of packets (timestamp, marker, event, end), and how many were known.
    fn told(packets: &[(u32, bool, u8, bool)]) -> (Vec<u8>, usize) {
        let mut receiver = DtmfReceiver::default();
        let (mut new, mut known) = (Vec::new(), 0);
        for &(timestamp, marker, event, end) in packets {
            let payload = [event, u8::from(end) << 7 | 10, 3, 32];
            match receiver.handle(1, timestamp, marker, &payload) {
                Told::New(event) => new.push(event.event),
                Told::Known => known += 1,
                Told::Malformed => unreachable!("four octets"),
            }
        }
        (new, known)
    }

    #[test]
    fn one_key_is_one_event_however_often_it_is_told() {
        let press = |timestamp, event| {
            [
                (timestamp, true, event, false),
                (timestamp, false, event, false),
                (timestamp, false, event, true),
                (timestamp, false, event, true),
                (timestamp, false, event, true),
            ]
        };
        let packets = [press(100, 5), press(2_000, 5), press(4_000, 11)].concat();
        assert_eq!(told(&packets), (vec![5, 5, 11], 12));
    }

    #[test]
    fn an_event_is_told_by_whatever_of_it_arrives() {
        let mut receiver = DtmfReceiver::default();
        let expected = DtmfEvent {
            event: 11,
            duration: 800,
            end: true,
        };
        assert_eq!(
            receiver.handle(1, 5, false, &[11, 0x8A, 3, 32]),
            Told::New(expected)
        );
        assert_eq!(expected.digit(), Some('#'));
        let flash = DtmfEvent {
            event: 16,
            ..expected
        };
        assert_eq!(flash.digit(), None);
    }

    #[test]
    fn an_overtaken_end_is_no_second_press() {
        let packets = [
            (100, true, 1, false),
            (900, true, 2, false),
            (100, false, 1, true),
            (900, false, 2, true),
        ];
        assert_eq!(told(&packets), (vec![1, 2], 2));
        // Over the wrap of the timestamp, too.
        let packets = [
            (u32::MAX - 10, true, 1, false),
            (1_000, true, 1, false),
            (u32::MAX - 10, false, 1, true),
        ];
        assert_eq!(told(&packets), (vec![1, 1], 1));
    }

    #[test]
    fn a_long_press_is_one_press() {
        let next = 100 + u32::from(u16::MAX);
        assert_eq!(
            told(&[(100, true, 3, false), (next, false, 3, false)]),
            (vec![3], 1)
        );
        // With a marker, or as another key, it is another press.
        assert_eq!(
            told(&[(100, true, 3, false), (next, true, 3, false)]).0,
            [3, 3]
        );
        assert_eq!(
            told(&[(100, true, 3, false), (next, false, 4, false)]).0,
            [3, 4]
        );
    }

    #[test]
    fn a_sender_that_counts_anew_is_heard() {
        let packets = [(4_000_000, true, 1, true), (100, true, 1, false)];
        assert_eq!(told(&packets).0, [1, 1]);
        let mut receiver = DtmfReceiver::default();
        for ssrc in [1, 2] {
            let heard = receiver.handle(ssrc, 500, true, &[7, 10, 0, 160]);
            assert!(matches!(heard, Told::New(_)), "source {ssrc}: {heard:?}");
        }
    }

    #[test]
    fn what_is_too_short_is_malformed() {
        assert_eq!(
            DtmfReceiver::default().handle(1, 0, true, &[1, 2, 3]),
            Told::Malformed
        );
    }
}
