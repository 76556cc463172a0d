//! Telephone events (RFC 4733): keys pressed, recognised once and never heard.

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtmfEvent {
    /// 0 to 9, 10 = *, 11 = #, 12 to 15 = A to D, 16 = flash.
    pub event: u8,
}

/// Finds the first packet of each event: one key press is many packets with one timestamp.
#[derive(Clone, Debug, Default)]
pub(crate) struct DtmfReceiver {
    last: Option<(u32, u8)>,
}

impl DtmfReceiver {
    /// Some for the first packet of an event (RFC 4733 §2.3: event, flags and volume, duration).
    pub(crate) fn handle(&mut self, timestamp: u32, payload: &[u8]) -> Option<DtmfEvent> {
        let &[event, _, _, _, ..] = payload else {
            return None;
        };
        let seen = self.last.replace((timestamp, event));
        (seen != Some((timestamp, event))).then_some(DtmfEvent { event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_one_event_however_often_it_is_told() {
        let mut receiver = DtmfReceiver::default();
        let told: Vec<_> = [(100, 5), (100, 5), (100, 5), (900, 5), (900, 5), (900, 11)]
            .into_iter()
            .filter_map(|(timestamp, event)| receiver.handle(timestamp, &[event, 0x8A, 3, 32]))
            .map(|event| event.event)
            .collect();
        assert_eq!(told, [5, 5, 11]);
        assert_eq!(receiver.handle(2_000, &[1, 2, 3]), None);
    }
}
