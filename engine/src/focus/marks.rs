//! What servers of one service write into the Request-URIs that they call each other by, or send callers
//! to. None of it is part of a room's name.

use cfw::SvrId;

/// Another server has sent the caller here (a 302): he is not sent on.
const HOP: &str = "crt-hop";

/// The caller is the focus of the same conference on this server.
const TRUNK: &str = "crt-trunk";

/// This server has let the caller in and connects him here by a leg of its own.
const RELAY: &str = "crt-relay";

/// The marks of a Request-URI. Anybody can write them: the last two count where they come from a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) hopped: bool,
    pub(super) trunk: Option<SvrId>,
    pub(super) relay: Option<SvrId>,
}

impl Marks {
    pub(super) fn of(uri: &str) -> Self {
        let mut marks = Self::default();
        // A user part may hold semicolons of its own.
        let behind = uri.rsplit_once('@').map_or(uri, |(_, host)| host);
        let parameters = behind.split('?').next().unwrap_or_default().split(';');
        for parameter in parameters.skip(1) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.eq_ignore_ascii_case(HOP) {
                marks.hopped = true;
            } else if name.eq_ignore_ascii_case(TRUNK) {
                marks.trunk = value.parse().ok();
            } else if name.eq_ignore_ascii_case(RELAY) {
                marks.relay = value.parse().ok();
            }
        }
        marks
    }

    /// The URI by which the focus of a conference calls its peer on another server.
    pub(super) fn trunk(uri: &str, own: SvrId) -> String {
        format!("{uri};{TRUNK}={own}")
    }

    /// The URI by which a caller is connected to another server. `own` says that he has been let in.
    pub(super) fn relay(uri: &str, own: Option<SvrId>) -> String {
        let hop = match Self::of(uri).hopped {
            true => String::new(),
            false => format!(";{HOP}=1"),
        };
        match own {
            Some(own) => format!("{uri}{hop};{RELAY}={own}"),
            None => format!("{uri}{hop}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<SvrId> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn marks_are_read_behind_the_host() {
        let none = Marks::default();
        let hopped = Marks {
            hopped: true,
            ..none
        };
        let trunk = Marks {
            trunk: id("A"),
            ..none
        };
        for (uri, expected) in [
            ("sip:lobby@192.0.2.1", none),
            ("sip:lobby@192.0.2.1:5060;transport=tcp;crt-hop=1", hopped),
            ("sip:lobby@[2001:db8::1];CRT-Hop", hopped),
            ("sip:lobby;crt-hop=1@192.0.2.1", none),
            ("sip:lobby@192.0.2.1;xcrt-hop=1", none),
            ("sip:192.0.2.1;crt-hop=1?Subject=a", hopped),
            ("sip:lobby@192.0.2.1?x=;crt-hop=1", none),
            ("sip:lobby@192.0.2.1;crt-trunk=A", trunk),
            ("sip:lobby@192.0.2.1;crt-trunk=", none),
            ("sip:lobby@192.0.2.1;crt-trunk=a/b", none),
        ] {
            assert_eq!(Marks::of(uri), expected, "{uri}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let own = "srv-a".parse().unwrap();
        let uri = "sip:lobby@192.0.2.1:5060";
        assert_eq!(Marks::of(&Marks::trunk(uri, own)).trunk, Some(own));
        for target in [uri.to_owned(), format!("{uri};crt-hop=1")] {
            let marks = Marks::of(&Marks::relay(&target, Some(own)));
            assert!(marks.hopped && marks.relay == Some(own), "{target}");
            let stranger = Marks::relay(&target, None);
            assert_eq!(stranger, format!("{uri};crt-hop=1"));
        }
    }
}
