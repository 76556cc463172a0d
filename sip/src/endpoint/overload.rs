//! What protects the endpoint: feedback to the proxies before it, and a look whether a message is of
//! something that is under way here.

use super::Endpoint;
use super::client::cancel_key;
use super::dialog::DialogKey;
use crate::overload::Feedback;
use crate::scan::{Start, scan};

impl Endpoint {
    /// What proxies that take part in overload control (RFC 7339) are told from now on, in responses to
    /// requests that come in from now on. None: nothing, as by a server that takes no part.
    pub fn set_overload(&mut self, feedback: Option<Feedback>) {
        self.overload = feedback;
    }

    /// Whether `message` is of a dialog that is here, or answers a request that waits here. Requests
    /// outside dialogs are unknown, even those that come again.
    pub fn knows(&self, message: &[u8]) -> bool {
        let Ok(glance) = scan(message) else {
            return false;
        };
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        match glance.start {
            Start::Request { .. } => glance.to_tag.is_some_and(|tag| {
                self.dialog_of.contains_key(&DialogKey {
                    call_id: text(glance.call_id),
                    local_tag: text(tag),
                })
            }),
            Start::Response { .. } => glance.branch.is_some_and(|branch| {
                let branch = text(branch);
                self.client_of.contains_key(&branch)
                    || self.client_of.contains_key(&cancel_key(&branch))
            }),
        }
    }
}
