//! What the focus of a shard and the cluster tell each other, as values that travel by mail.
//!
//! The focus takes a caller on its own word while the server is below its maximum. Otherwise the cluster
//! decides, which sees all servers: the caller hears 100 until then. The cluster hears of everybody who is
//! in a conference here, and tells the focus of everybody who is in it elsewhere: on other servers, and on
//! the other shards of this one.

use cfw::SvrId;
use cfw::dist_conf::message::{ConfUser, Reach};
use sip::CallKey;

use super::RoomName;

/// From a focus to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A caller is here and may not simply be taken; [`Order::Placed`] answers.
    Asked { call: CallKey, asked: Arrival },
    /// The caller has gone before the answer came.
    Withdrawn { call: CallKey },
    /// A caller was refused without the cluster's word, with this status and for this reason; and so many others
    /// since the last who was told.
    Refused {
        room: RoomName,
        from: String,
        status: u16,
        why: String,
        others: u32,
    },
    /// A user of a conference here is new or has changed.
    User { room: RoomName, user: Box<ConfUser> },
    /// A user of a conference here has gone.
    UserGone { room: RoomName, endpoint: String },
    /// Somebody subscribes to a room on this shard, or nobody does any more: the shard is told of all users
    /// even while none of them is here.
    Watched { room: RoomName, watched: bool },
    /// What became of [`Order::Move`], [`Order::TakeOver`]: a SIP status, 200 if it is done. The endpoint is
    /// that of the call he has or had on this server.
    Done {
        room: RoomName,
        svr_id: SvrId,
        endpoint: String,
        status: u16,
    },
    /// A trunk to this server is up, or is no more (whoever ended it).
    Trunk {
        room: RoomName,
        peer: SvrId,
        up: bool,
    },
    /// Somebody here asked for something that concerns a user elsewhere (REFER with BYE, HTTP).
    Wanted {
        room: RoomName,
        endpoint: Option<String>,
        entity: String,
        what: Wish,
    },
}

/// A caller, as far as it matters for where he is to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    pub room: RoomName,
    /// Participants of the room on this shard.
    pub participants: usize,
    /// Another server has sent him here (`crt-hop`): he is not sent on.
    pub hopped: bool,
    /// URI of his From header, for the record of decisions.
    pub from: String,
}

/// From the cluster to the focus of a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Where a caller goes.
    Placed {
        call: CallKey,
        verdict: Verdict,
    },
    /// Somebody is in the conference on another server or shard, or has changed.
    Remote {
        room: RoomName,
        user: Box<ConfUser>,
    },
    RemoteGone {
        room: RoomName,
        svr_id: SvrId,
        endpoint: String,
    },
    /// A user is to go to another server: asked by REFER to call this URI, then ended when he is there.
    Move {
        room: RoomName,
        endpoint: String,
        target: String,
    },
    /// A user of another server is to be called in place of the call that he has there, or had there.
    TakeOver {
        room: RoomName,
        user: Box<ConfUser>,
        reach: Reach,
    },
    /// A wish about a user who is here.
    Wish {
        room: RoomName,
        endpoint: String,
        what: Wish,
    },
    /// The conference's sound is to be shared with another server: call its focus at this URI.
    OpenTrunk {
        room: RoomName,
        peer: SvrId,
        target: String,
    },
    CloseTrunk {
        room: RoomName,
        peer: SvrId,
    },
    /// That server is dead: who was connected to it by a leg of ours hears that it is over.
    ServerLost(SvrId),
    /// The room takes nobody new, and why; None: it does again.
    Closed {
        room: RoomName,
        why: Option<Closed>,
    },
}

/// Why a room takes nobody new, on any server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Somebody has locked it.
    Locked,
    /// It has as many users as it may, on all servers together. Who came at the same time elsewhere may be in
    /// beside them.
    Full,
}

/// Where a caller goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// He stays here.
    Accept,
    /// 302, to these Contacts in this order.
    Redirect { contacts: Vec<String> },
    /// He is connected to this URI of that server by a leg of ours, because whoever is before us follows
    /// no 302.
    Relay { target: String, server: SvrId },
    /// No server takes him.
    Refuse { status: u16, retry_after_s: u32 },
}

/// What may be done with a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Mute(bool),
    /// BYE, with this reason.
    End(String),
}
