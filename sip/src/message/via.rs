//! The topmost Via (RFC 3261 §20.42): the way back, read for every message that comes in.

use super::parameters::parameters;
use super::uri::HostPort;
use super::{Malformed, is_our_version, names_sip};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Via {
    /// Host and port as written.
    pub(crate) sent_by: String,
    pub(crate) port: Option<u16>,
    pub(crate) branch: Option<String>,
    pub(crate) asks_for_rport: bool,
    /// It is of the version this stack speaks.
    pub(crate) is_our_version: bool,
    /// What is wrong with it although the way back can be read: to be answered with 400.
    pub(crate) fault: Option<Malformed>,
}

/// Branches of RFC 3261 begin so; others are of RFC 2543 and not unique.
const MAGIC: &str = "z9hG4bK";

impl Via {
    /// The branch, if it is one that nobody else uses (RFC 3261 §8.1.1.7).
    pub(crate) fn unique_branch(&self) -> Option<&str> {
        let is_unique = |branch: &&str| branch.len() > MAGIC.len() && branch.starts_with(MAGIC);
        self.branch.as_deref().filter(is_unique)
    }

    /// The branch names its transaction, and does so alone.
    pub(crate) fn is_rfc_3261(&self) -> bool {
        self.unique_branch().is_some()
    }

    /// Reads one value in normal form.
    ///
    /// # Errors
    /// It names no hop to answer to.
    pub(crate) fn parse(value: &str) -> Result<Self, Malformed> {
        const BAD: Malformed = Malformed("Bad Via");
        let (protocol, rest) = value.split_once(' ').ok_or(BAD)?;
        let (version, transport) = protocol.rsplit_once('/').ok_or(BAD)?;
        let is_sip = names_sip(version) && !version[4..].contains('/') && !transport.is_empty();
        let (sent_by, rest) = match rest.split_once(';') {
            Some((sent_by, rest)) => (sent_by.trim_end(), Some(rest)),
            None => (rest, None),
        };
        let sent = HostPort::parse(sent_by).filter(|_| is_sip).ok_or(BAD)?;
        let mut via = Self {
            sent_by: sent_by.to_owned(),
            port: sent.port,
            branch: None,
            asks_for_rport: false,
            is_our_version: is_our_version(version),
            fault: None,
        };
        for (name, value) in rest.into_iter().flat_map(parameters) {
            if name.is_empty() {
                via.fault = Some(BAD);
            } else if name.eq_ignore_ascii_case("branch") && via.branch.is_none() {
                via.branch = (!value.is_empty()).then(|| value.to_owned());
            } else if name.eq_ignore_ascii_case("rport") {
                via.asks_for_rport = true;
            }
        }
        Ok(via)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_read_in_whatever_order() {
        for (value, sent_by, port, branch, asks_for_rport) in [
            ("SIP/2.0/UDP h", "h", None, None, false),
            (
                "SIP/2.0/TCP h:5062;rport;branch=z9hG4bK1",
                "h:5062",
                Some(5062),
                Some("z9hG4bK1"),
                true,
            ),
            (
                "SIP/2.0/UDP 192.0.2.1;received=2001:db8::9;branch=z9hG4bKx",
                "192.0.2.1",
                None,
                Some("z9hG4bKx"),
                false,
            ),
            (
                "sip/2.0/UNKNOWN [2001:db8::1]:5;x=\"a;branch=no\";Branch=b;RPORT=5;ttl=1;maddr=h",
                "[2001:db8::1]:5",
                Some(5),
                Some("b"),
                true,
            ),
        ] {
            let expected = Via {
                sent_by: sent_by.to_owned(),
                port,
                branch: branch.map(str::to_owned),
                asks_for_rport,
                is_our_version: true,
                fault: None,
            };
            assert_eq!(Via::parse(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_but_answerable_is_told() {
        let other_version = Via::parse("SIP/7.0/UDP h;branch=b").unwrap();
        assert!(!other_version.is_our_version && other_version.fault.is_none());
        for value in ["SIP/2.0/UDP h;;branch=b", "SIP/2.0/UDP h;"] {
            assert!(Via::parse(value).unwrap().fault.is_some(), "{value}");
        }
    }

    #[test]
    fn a_way_back_that_cannot_be_read_is_none() {
        for value in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0 h",
            "SIP/2.0/ h",
            "SIP/2.0/UDP/x h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP ;branch=b",
            "SIP/2.0/UDP h i",
            "SIP/2.0/UDP h:x",
            "SIP/2.0/UDP 2001:db8::1",
        ] {
            assert!(Via::parse(value).is_err(), "{value}");
        }
    }
}
