//! What the messages of the package say, as values.
//!
//! ```text
//! msc-dist-conf ─┬─ request  svr-id epoch seq ── 1..n elements, processed in order
//!                └─ response svr-id seq status ── a result for each operation, perhaps a snapshot
//! ```
//! The paper that the package comes from fixes the elements' names; what it leaves open is optional on
//! input, so that a message written from the paper alone is understood.

use std::time::SystemTime;

use super::load::{SvrLoad, SvrState};
use crate::svr_id::SvrId;

/// An enum whose values are words in the XML. The first is what an absent attribute means.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $(#[$first_doc:meta])* $first:ident = $first_word:literal,
        $($(#[$value_doc:meta])* $value:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            #[default]
            $(#[$first_doc])* $first,
            $($(#[$value_doc])* $value,)*
        }

        impl $name {
            pub const ALL: &[Self] = &[Self::$first, $(Self::$value),*];

            /// As it stands in the XML.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$value => $word,)*
                }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }
    };
}

/// A whole body.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Request(Request),
    Response(Response),
}

/// What one server tells or asks another. In a `CONTROL`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The sender; None where the sender knows the paper only.
    pub svr_id: Option<SvrId>,
    /// Later lives of the sender have higher ones; 0 if it does not say.
    pub epoch: u64,
    /// Rises by one with each request of the sender to this peer; 0 if it does not say.
    pub seq: u64,
    pub elements: Vec<Element>,
}

/// In the 200 to a `CONTROL`, or in a `REPORT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub svr_id: Option<SvrId>,
    /// Of the request that it answers.
    pub seq: u64,
    /// As CCMP has them (RFC 6503 §5.4): 200, 404, 409...
    pub status: u16,
    pub reason: Option<String>,
    pub results: Vec<OpResult>,
    /// What was asked for by [`ConfInfo::query`].
    pub conf_info: Option<ConfInfo>,
    pub load: Option<SvrLoad>,
}

impl Response {
    /// One that says no more than how it went.
    pub const fn new(svr_id: Option<SvrId>, seq: u64, status: u16) -> Self {
        Self {
            svr_id,
            seq,
            status,
            reason: None,
            results: Vec::new(),
            conf_info: None,
            load: None,
        }
    }
}

/// What became of one operation of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct OpResult {
    /// The operation's element name, such as `conf_sys_create`.
    pub op: String,
    pub status: u16,
    pub conf_obj_id: Option<String>,
    pub ver: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// `crt-svr-load`
    Load(SvrLoad),
    /// `crt-conf-info`
    ConfInfo(ConfInfo),
    /// `reserved-svrs`
    Reserved(ReservedSvrs),
    /// `conf_op_sys`, one for each operation in it
    Sys(SysOp),
    /// `conf_op_prtcs`, one for each operation in it
    Participant(ParticipantOp),
}

/// `crt-conf-info`: which servers there are, and who is in which conference.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfInfo {
    /// Everything the sender knows of its own, instead of what changed.
    pub full: bool,
    /// Nothing is told; a snapshot is asked for.
    pub query: bool,
    /// Which part of a snapshot this is, from 1, and how many there are; 1 of 1 if it is whole.
    pub part: u32,
    pub parts: u32,
    pub systems: Vec<System>,
    pub conferences: Vec<Users>,
}

impl Default for ConfInfo {
    /// Whole, and with nothing in it.
    fn default() -> Self {
        Self {
            full: false,
            query: false,
            part: 1,
            parts: 1,
            systems: Vec::new(),
            conferences: Vec::new(),
        }
    }
}

/// `crt-system`: a server of the service.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    pub svr_id: SvrId,
    /// How many servers are active, as the sender counts them.
    pub active_svrs: u32,
    /// Where calls go, such as `sip:192.0.2.1:5060`.
    pub uri: Option<String>,
    /// Where control channels go, such as `sip:cfw@192.0.2.1:5060`.
    pub cfw_uri: Option<String>,
    pub state: SvrState,
    pub epoch: u64,
}

/// `crt-users`: a conference, and those of its users that the sender has.
#[derive(Clone, Debug, PartialEq)]
pub struct Users {
    /// `conf-obj-id`: the room's name.
    pub conf_obj_id: String,
    /// Who decides over the conference's state.
    pub owner: Option<SvrId>,
    /// Rises with each change of the conference's own state by its owner.
    pub ver: u64,
    /// Of the owner when it wrote that version.
    pub epoch: u64,
    pub state: ConfState,
    pub locked: bool,
    pub max_users: Option<u32>,
    pub subject: Option<String>,
    /// All users of the sender there are listed: whoever is not has gone.
    pub full: bool,
    pub users: Vec<ConfUser>,
}

words! {
    /// Whether a conference is there.
    ConfState {
        Active = "active",
        /// It is over.
        Deleted = "deleted",
    }
}

/// `conf-user`: one way in which somebody is in a conference.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfUser {
    /// Who: the URI of his From header.
    pub entity: String,
    /// Where he is.
    pub svr_id: Option<SvrId>,
    /// Tells his calls apart: unique among the users of that server for as long as the server lives.
    pub endpoint: String,
    pub display_name: Option<String>,
    pub status: UserStatus,
    /// Synchronisation source of his sound, as it stands in CSRC lists.
    pub ssrc: Option<u32>,
    pub codec: Option<String>,
    pub role: Option<String>,
    pub muted: bool,
    /// From 1970 to 9999.
    pub joined: Option<SystemTime>,
    /// How he can be reached when his server is gone.
    pub reach: Option<Reach>,
}

/// Enough to call somebody back, or to take his call over, from another server (RFC 3891).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// His last Contact.
    pub contact: String,
    /// Call-ID and tags of his dialog; the tags as his server sees them.
    pub call_id: String,
    pub local_tag: String,
    pub remote_tag: String,
    /// He takes REFER (`Allow`).
    pub refer: bool,
    /// He knows `Replaces` (`Supported`).
    pub replaces: bool,
}

words! {
    /// As RFC 4575 §5.7.2 has them.
    UserStatus {
        Connected = "connected",
        Disconnected = "disconnected",
        OnHold = "on-hold",
        MutedViaFocus = "muted-via-focus",
        Pending = "pending",
        Alerting = "alerting",
        DialingIn = "dialing-in",
        DialingOut = "dialing-out",
        Disconnecting = "disconnecting",
    }
}

/// `reserved-svrs`: servers that may be added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReservedSvrs {
    pub ver: u64,
    pub servers: Vec<ReservedSvr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReservedSvr {
    pub svr_id: SvrId,
    /// Where its control channel goes.
    pub uri: Option<String>,
    pub state: ReservedState,
    /// Who has claimed it.
    pub by: Option<SvrId>,
}

words! {
    /// What a reserved server is doing.
    ReservedState {
        Free = "free",
        /// Somebody is adding it.
        Claimed = "claimed",
        Active = "active",
    }
}

/// `conf_op_sys`: an operation on a conference.
#[derive(Clone, Debug, PartialEq)]
pub struct SysOp {
    pub op: Op,
    pub conf_obj_id: String,
    /// The version that is to be changed; a conflict is 409.
    pub base_ver: Option<u64>,
    /// `drain`, `own`...
    pub mode: Option<String>,
    pub conf_uri: Option<String>,
    pub max_users: Option<u32>,
    pub locked: Option<bool>,
    pub subject: Option<String>,
}

/// `conf_op_prtcs`: an operation on a user of a conference.
#[derive(Clone, Debug, PartialEq)]
pub struct ParticipantOp {
    pub op: Op,
    pub conf_obj_id: String,
    pub entity: String,
    /// One of his calls; None for all.
    pub endpoint: Option<String>,
    pub svr_id: Option<SvrId>,
    /// The server that he is to go to.
    pub move_to: Option<SvrId>,
    pub muted: Option<bool>,
    pub role: Option<String>,
    /// He is to be called with an INVITE that replaces this dialog of his.
    pub reach: Option<Reach>,
}

/// `_create`, `_mod` and `_del`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Create,
    Modify,
    Delete,
}

impl Op {
    pub const ALL: [Self; 3] = [Self::Create, Self::Modify, Self::Delete];

    /// The element's name in `conf_op_sys`.
    pub const fn sys_name(self) -> &'static str {
        match self {
            Self::Create => "conf_sys_create",
            Self::Modify => "conf_sys_mod",
            Self::Delete => "conf_sys_del",
        }
    }

    /// The element's name in `conf_op_prtcs`.
    pub const fn participant_name(self) -> &'static str {
        match self {
            Self::Create => "conf_prtcs_create",
            Self::Modify => "conf_prtcs_mod",
            Self::Delete => "conf_prtcs_del",
        }
    }
}
