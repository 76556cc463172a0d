//! What a channel tells its owner.

use std::fmt;
use std::time::Duration;

use super::frame::FrameError;
use super::message::{Code, Content, Status};
use super::token::Token;

/// A CONTROL of ours, by the number that [`Channel::request`](super::Channel::request) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outgoing(pub(super) u64);

/// A CONTROL of the peer that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incoming(pub(super) u64);

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// SYNC is done: requests may be sent, in these packages.
    Ready { packages: Vec<Token> },
    /// To our SYNC the peer said that we have no package in common (422), and what it knows.
    /// [`Channel::sync`](super::Channel::sync) tries again; without that, the channel closes in
    /// [`TRANSACTION_TIMEOUT`](super::TRANSACTION_TIMEOUT).
    NoCommonPackage { supported: Vec<Token> },
    /// Either side has changed the packages.
    Renegotiated { packages: Vec<Token> },
    /// The peer would not change the packages, or did not answer.
    NotRenegotiated,
    /// The peer asks or tells something. To be answered with [`Channel::answer`](super::Channel::answer) or
    /// [`Channel::refuse`](super::Channel::refuse).
    Control {
        id: Incoming,
        package: Token,
        content: Content,
    },
    /// Nobody waits for the answer any more: it took too long, or the peer gave up.
    Abandoned { id: Incoming },
    /// The request is done: by 200, or by the last REPORT.
    Answered { id: Outgoing, content: Content },
    /// The request will take longer (202, or a REPORT without content); more is heard within this time.
    Extended { id: Outgoing, within: Duration },
    /// The request goes on, and this is how (REPORT).
    Updated { id: Outgoing, content: Content },
    /// The request failed.
    Failed { id: Outgoing, failure: Failure },
    /// The last event. The connection is to be closed once [`Channel::output`](super::Channel::output) is
    /// sent or cannot be sent, and the dialog ended by BYE.
    Closed(CloseReason),
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// By another code than 200 and 202.
    Refused(Code),
    /// No answer in time, or no REPORT within the time that the last one told.
    TimedOut,
    /// REPORTs of which one is missing.
    OutOfOrder,
    /// The channel is closed; whether the peer has acted nobody knows.
    Closed,
}

/// Why a channel is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// We wanted it.
    Local,
    /// The connection ended or broke.
    Disconnected,
    /// The peer answered our SYNC with this code.
    SyncRefused(Code),
    /// No SYNC came, or no answer to it.
    SyncTimedOut,
    /// No package in common.
    NoCommonPackage,
    /// The peer began with something else than a SYNC.
    NotSynced,
    /// The peer's first SYNC is one that nobody can accept.
    BadSync,
    /// No dialog has the id in the peer's SYNC.
    UnknownDialog,
    /// Bytes after which the rest makes no sense.
    Malformed(FrameError),
    /// The peer sent or answered no K-ALIVE.
    KeepAlive,
    /// The peer reads more slowly than there is to tell.
    SlowPeer,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("closed by us"),
            Self::Disconnected => f.write_str("connection lost"),
            Self::SyncRefused(code) => write!(f, "SYNC refused with {code}"),
            Self::SyncTimedOut => f.write_str("no SYNC in time"),
            Self::NoCommonPackage => f.write_str("no package in common"),
            Self::NotSynced => f.write_str("the first message is no SYNC"),
            Self::BadSync => f.write_str("a SYNC that cannot be accepted"),
            Self::UnknownDialog => f.write_str("no dialog has the id in SYNC"),
            Self::Malformed(error) => error.fmt(f),
            Self::KeepAlive => f.write_str("no K-ALIVE in time"),
            Self::SlowPeer => f.write_str("the peer reads too slowly"),
        }
    }
}

/// Why something is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendError {
    /// SYNC is not done, or the channel is closed.
    NotReady,
    /// The package is none of those that both sides know.
    UnknownPackage,
    /// As many requests as may be are not answered yet.
    TooMany,
    /// A body longer than [`BODY_LEN_MAX`](super::BODY_LEN_MAX), or a media type that cannot stand in a header.
    Content,
    /// The request is done already, or was never there.
    Gone,
    /// It has been extended by 202, so it can only be answered.
    Extended,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the channel is not ready",
            Self::UnknownPackage => "the peer does not know the package",
            Self::TooMany => "too many requests are not answered yet",
            Self::Content => "content that cannot be sent",
            Self::Gone => "the request is gone",
            Self::Extended => "the request is extended already",
        })
    }
}

impl std::error::Error for SendError {}

/// How a REPORT came, for [`Event`].
pub(super) fn of_report(id: Outgoing, status: Status, within: Duration, content: Content) -> Event {
    match status {
        Status::Terminate => Event::Answered { id, content },
        Status::Update if content.body.is_empty() => Event::Extended { id, within },
        Status::Update => Event::Updated { id, content },
    }
}
