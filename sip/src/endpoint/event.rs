//! What the endpoint tells its user, and the values that go with it.

use super::{CallKey, ClientKey, RequestKey, SubscriptionKey};
use crate::{Body, Flow};

#[derive(Debug)]
pub enum Event {
    /// Somebody calls. To be answered by `accept`, `reject` or `redirect`, perhaps after `ring`.
    Invite(Box<Invite>),
    /// The peer wants other terms, by re-INVITE or UPDATE; None: it wants our offer. To be answered by
    /// `accept` or `reject`.
    Reinvite { call: CallKey, body: Option<Body> },
    /// The ACK of an accepted INVITE has come, with the answer if the offer was ours.
    Established { call: CallKey, body: Option<Body> },
    /// A provisional response to a call of ours.
    Progress { call: CallKey, status: u16 },
    /// What became of [`Endpoint::reinvite`](super::Endpoint::reinvite), and the description that came with
    /// it. With a 2xx to a re-INVITE without an offer it is an offer, which the user answers by
    /// [`Endpoint::acknowledge_offer`](super::Endpoint::acknowledge_offer).
    Changed {
        call: CallKey,
        status: u16,
        body: Option<Body>,
    },
    /// Our call is answered. Where our INVITE had a description the ACK is on its way; where it had none the
    /// body is an offer, which the user answers by
    /// [`Endpoint::acknowledge_offer`](super::Endpoint::acknowledge_offer).
    Accepted { call: CallKey, body: Option<Body> },
    /// Our call is to be placed elsewhere, at one of these URIs, the preferred first. The call is over.
    Redirected {
        call: CallKey,
        contacts: Vec<String>,
    },
    /// Our call is refused, or (408) nobody answered. The call is over.
    Rejected {
        call: CallKey,
        status: u16,
        retry_after_s: Option<u32>,
    },
    /// A call that was offered, answered or placed is over; said once.
    Ended { call: CallKey, cause: Ended },
    /// Somebody asks what could be had here. To be answered by `respond_options`.
    Options {
        request: RequestKey,
        user: Option<String>,
    },
    /// A request whose meaning is the user's. To be answered by `respond` or, where it subscribes, by
    /// `accept_subscription`.
    Request(Box<Request>),
    /// The peer pressed a key and says so by INFO.
    Dtmf { call: CallKey, digit: char },
    /// A request that the user sent has got its final response; 408 if none came.
    Answered { request: ClientKey, status: u16 },
    /// How the peer of a call does with what a REFER of ours asked of him (RFC 3515 §2.4.5): the status that
    /// he has got, if he says it, and whether he will say more.
    Referred {
        call: CallKey,
        status: Option<u16>,
        is_over: bool,
    },
    /// The subscriber asked again and is owed the whole state.
    Resubscribed { subscription: SubscriptionKey },
    /// The subscriber wants no more, or has let his time run out. To be ended by `end_subscription`.
    Unsubscribed {
        subscription: SubscriptionKey,
        expired: bool,
    },
    /// The subscriber cannot be reached any more: the subscription is gone.
    SubscriptionLost { subscription: SubscriptionKey },
}

/// An incoming call.
#[derive(Debug)]
pub struct Invite {
    pub call: CallKey,
    /// User part of the Request-URI.
    pub room_user: Option<String>,
    pub request_uri: String,
    /// URI and name of the From header.
    pub from_uri: String,
    pub from_display: Option<String>,
    pub call_id: String,
    pub flow: Flow,
    /// Whoever sent it to `flow`'s peer did so through proxies: there is more than one Via.
    pub proxied: bool,
    /// None: the caller expects our offer in the 200.
    pub body: Option<Body>,
    /// Values of Authorization and Proxy-Authorization.
    pub authorization: Vec<String>,
    /// The value of Replaces (RFC 3891).
    pub replaces: Option<String>,
    /// The value of Join (RFC 3911).
    pub join: Option<String>,
}

/// Requests whose meaning is the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Subscribe,
    Refer,
    Message,
}

impl Method {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "SUBSCRIBE",
            Self::Refer => "REFER",
            Self::Message => "MESSAGE",
        }
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        let all = [Self::Subscribe, Self::Refer, Self::Message];
        all.into_iter().find(|method| method.name() == name)
    }
}

/// A request whose meaning is the user's.
#[derive(Debug)]
pub struct Request {
    pub key: RequestKey,
    pub method: Method,
    /// The call within whose dialog it came.
    pub call: Option<CallKey>,
    /// User part of the Request-URI.
    pub user: Option<String>,
    pub request_uri: String,
    /// URI and name of the From header.
    pub from_uri: String,
    pub from_display: Option<String>,
    pub flow: Flow,
    pub body: Option<Body>,
    pub(super) headers: Vec<(String, String)>,
}

impl Request {
    /// The values of a header, in order.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Values of Authorization and Proxy-Authorization.
    pub fn authorization(&self) -> Vec<String> {
        let names = ["Authorization", "Proxy-Authorization"];
        let values = names.into_iter().flat_map(|name| self.headers(name));
        values.map(str::to_owned).collect()
    }
}

/// Why a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer said BYE.
    PeerBye,
    /// The caller cancelled before there was an answer.
    Cancelled,
    /// We said BYE.
    LocalBye,
    /// Our 200 was never acknowledged (RFC 3261 §13.3.1.4).
    AckTimeout,
    /// Our provisional response was never acknowledged (RFC 3262 §3).
    PrackTimeout,
    /// Nobody refreshed the session (RFC 4028 §10), or the peer knows it no more.
    SessionExpired,
    /// The connection it depends on is gone.
    TransportFailed,
}

/// A refusal, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Rejection {
    /// `status` is a final status that is no success.
    pub fn new(status: u16) -> Self {
        debug_assert!((300..700).contains(&status));
        Self {
            status,
            headers: Vec::new(),
        }
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn retry_after(self, seconds: u32) -> Self {
        self.header("Retry-After", seconds.to_string())
    }

    /// A warn-code of RFC 3261 §20.43 with its text.
    pub fn warning(self, code: u16, text: &str) -> Self {
        let text = text.replace(['"', '\\', '\r', '\n'], "'");
        self.header("Warning", format!("{code} plenum \"{text}\""))
    }

    /// The values of a header, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// `value` is one line.
    pub fn header(mut self, name: &'static str, value: String) -> Self {
        debug_assert!(!value.contains(['\r', '\n']));
        self.headers.push((name, value));
        self
    }
}

/// A call to place.
#[derive(Clone, Debug, Default)]
pub struct Invitation {
    /// The URI to call.
    pub target: String,
    /// Our own URI.
    pub from: String,
    /// The name that goes with it.
    pub from_display: Option<String>,
    /// User part of our Contact.
    pub contact_user: String,
    pub body: Option<Body>,
    /// Further header lines, each value one line.
    pub headers: Vec<(&'static str, String)>,
    /// For a challenge on the way.
    pub credentials: Option<crate::digest::Credentials>,
}

/// Since the endpoint was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that could not be understood, answered with 400 or dropped.
    pub malformed: u64,
    /// Requests that came again.
    pub retransmissions_received: u64,
    /// Requests dropped because the table of transactions was full.
    pub dropped: u64,
}
