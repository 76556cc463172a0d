//! SIP messages by method and status, told from their first octets.
//!
//! What has no place of its own is counted with its class, so that nobody can make the list longer.

use super::Counter;

/// Methods with a counter of their own, those of the IANA registry that phones use; the last takes
/// all others.
const METHODS: [&str; 15] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "INFO",
    "PRACK",
    "UPDATE",
    "SUBSCRIBE",
    "NOTIFY",
    "REFER",
    "MESSAGE",
    "PUBLISH",
    "other",
];

/// Statuses with a counter of their own, rising.
const STATUSES: [u16; 38] = [
    100, 180, 181, 182, 183, 200, 202, 204, 300, 301, 302, 305, 400, 401, 403, 404, 405, 406, 407,
    408, 415, 420, 422, 423, 480, 481, 482, 483, 484, 486, 487, 488, 489, 491, 500, 501, 503, 603,
];

/// The others, by their first digit; the last is no status at all.
const CLASSES: [&str; 7] = ["1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "other"];

/// What a message is, at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The place of the method in the list of those counted.
    Request(usize),
    Response(u16),
}

impl Kind {
    /// Looks at the start line only, and not at whether it is right.
    pub fn of(message: &[u8]) -> Self {
        let begin = message
            .iter()
            .position(|octet| !matches!(octet, b'\r' | b'\n'));
        let line = &message[begin.unwrap_or(message.len())..];
        if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
            let status = line.split(|&octet| octet == b' ').nth(1);
            let status = status.and_then(|word| str::from_utf8(word.get(..3)?).ok()?.parse().ok());
            return Self::Response(status.unwrap_or(0));
        }
        // Longer than any known method.
        let word = &line[..line.len().min(16)];
        let len = word.iter().position(|&octet| octet == b' ');
        let method = &word[..len.unwrap_or(word.len())];
        let known = METHODS.iter().position(|known| known.as_bytes() == method);
        Self::Request(known.unwrap_or(METHODS.len() - 1))
    }

    /// A response that ends its transaction (RFC 3261 §7.2).
    pub fn is_final_response(self) -> bool {
        matches!(self, Self::Response(200..))
    }
}

/// Messages of one direction.
#[derive(Debug)]
pub struct SipCounts {
    requests: [Counter; METHODS.len()],
    responses: [Counter; STATUSES.len()],
    other_responses: [Counter; CLASSES.len()],
}

impl Default for SipCounts {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| Counter::default()),
            responses: std::array::from_fn(|_| Counter::default()),
            other_responses: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl SipCounts {
    /// Single writer, see [`Counter`].
    pub fn count(&self, kind: Kind) {
        let counter = match kind {
            Kind::Request(method) => self.requests.get(method),
            Kind::Response(status) => match STATUSES.binary_search(&status) {
                Ok(place) => self.responses.get(place),
                Err(_) => self.other_responses.get(class(status)),
            },
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
    }

    /// Requests by method; what has no counter of its own as `other`.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        METHODS
            .into_iter()
            .zip(self.requests.iter().map(Counter::get))
    }

    /// Responses by status; what has no counter of its own by class.
    pub fn responses(&self) -> impl Iterator<Item = (String, u64)> {
        let own = STATUSES.iter().map(u16::to_string);
        let own = own.zip(self.responses.iter().map(Counter::get));
        let classes = CLASSES.iter().map(|&class| class.to_owned());
        own.chain(classes.zip(self.other_responses.iter().map(Counter::get)))
    }
}

fn class(status: u16) -> usize {
    match status {
        100..700 => usize::from(status / 100) - 1,
        _ => CLASSES.len() - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_from_the_start_line() {
        for (message, kind) in [
            ("INVITE sip:a@b SIP/2.0\r\n", Kind::Request(0)),
            ("\r\n\r\nPUBLISH sip:a SIP/2.0\r\n", Kind::Request(13)),
            ("invite sip:a SIP/2.0\r\n", Kind::Request(14)),
            ("INVITED sip:a SIP/2.0\r\n", Kind::Request(14)),
            ("INVITE", Kind::Request(0)),
            ("", Kind::Request(14)),
            ("\r\n", Kind::Request(14)),
            ("SIP/2.0 180 Ringing\r\n", Kind::Response(180)),
            ("sip/2.0 487\r\n", Kind::Response(487)),
            ("SIP/2.0 99\r\n", Kind::Response(0)),
            ("SIP/2.0 +20 OK\r\n", Kind::Response(20)),
            ("SIP/2.0", Kind::Response(0)),
            ("SIP/2.0 2\u{e4}0 OK", Kind::Response(0)),
        ] {
            assert_eq!(Kind::of(message.as_bytes()), kind, "{message:?}");
        }
        assert!(Kind::Response(487).is_final_response());
        assert!(!Kind::Response(183).is_final_response() && !Kind::Request(0).is_final_response());
    }

    #[test]
    fn what_is_unknown_is_counted_with_its_class() {
        let counts = SipCounts::default();
        for status in [200, 200, 299, 499, 699, 99, 700, 0, u16::MAX] {
            counts.count(Kind::Response(status));
        }
        let of = |label: &str| {
            counts
                .responses()
                .find(|(name, _)| name == label)
                .unwrap()
                .1
        };
        assert_eq!(
            ["200", "2xx", "4xx", "6xx", "other", "1xx"].map(of),
            [2, 1, 1, 1, 4, 0]
        );
        counts.count(Kind::of(b"BYE sip:a SIP/2.0"));
        counts.count(Kind::of(b"BYEBYE sip:a SIP/2.0"));
        let some: Vec<_> = counts.requests().filter(|(_, count)| *count > 0).collect();
        assert_eq!(some, [("BYE", 1), ("other", 1)]);
        assert!(STATUSES.is_sorted());
    }
}
