//! What makes a request belong to a server transaction (RFC 3261 §17.2.3).

use crate::message::{Message, Via};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

impl Key {
    /// The transaction of a request. An ACK belongs to its INVITE.
    pub(crate) fn of(request: &Message<'_>, method: &str, via: &Via) -> Self {
        let method = if method == "ACK" { "INVITE" } else { method };
        match via.unique_branch() {
            Some(branch) => Self(format!("{branch} {} {method}", via.sent_by)),
            // RFC 2543: everything that does not change between a request and its ACK or CANCEL.
            None => {
                let header = |name| request.header(name).unwrap_or_default();
                let number = header("CSeq").split_whitespace().next().unwrap_or_default();
                let via = request.header("Via").unwrap_or_default();
                Self(format!(
                    "{} {} {number} {via} {method}",
                    header("Call-ID"),
                    header("From")
                ))
            }
        }
    }

    /// The INVITE transaction that a CANCEL means.
    pub(crate) fn of_cancelled(cancel: &Message<'_>, via: &Via) -> Self {
        Self::of(cancel, "INVITE", via)
    }
}
