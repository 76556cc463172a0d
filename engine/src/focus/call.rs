//! One call as the focus knows it: whose it is, for which room, and how far it has come.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sip::sdp::{Local, SessionDescription};
use sip::{CallKey, SubscriptionKey};

use super::RoomName;
use crate::meters::Pending;
use crate::shard::stage::SeatKey;

/// Keys that may be pressed for a PIN before the caller has to begin anew.
const KEYS_MAX: usize = 24;

/// Wrong PINs after which the call ends.
pub(super) const PIN_TRIES_MAX: u8 = 3;

/// How long a caller may take for his PIN.
pub(super) const PIN_TIME: Duration = Duration::from_secs(60);

/// How long somebody who is called may take to answer.
pub(super) const RING_TIME: Duration = Duration::from_secs(180);

pub(super) struct Call {
    pub(super) seat: SeatKey,
    pub(super) room: RoomName,
    /// The host his SIP comes from.
    pub(super) signalling: IpAddr,
    /// URI of his From header, or the one we called.
    pub(super) entity: String,
    pub(super) display_name: Option<String>,
    pub(super) joined: SystemTime,
    pub(super) local: Local,
    pub(super) phase: Phase,
    /// Until he is in the room.
    pub(super) pending: Option<Pending>,
    /// The last description we sent, to count its version up only when it changes (RFC 3264 §8).
    pub(super) described: Option<SessionDescription>,
    /// We called him.
    pub(super) dialled: Option<Dialled>,
    /// Taken over by this call, which ends as soon as this one is up (RFC 3891 §3).
    pub(super) replaces: Option<CallKey>,
    pub(super) gate: Gate,
    /// He has listened at some time: if he stops, he has put us on hold.
    pub(super) listened: bool,
    /// Another server connects him to us. What that says of itself is not what his phone can do.
    pub(super) relayed: bool,
    /// He wants nobody to hear him.
    pub(super) muted: bool,
    /// What he has pressed since the last command.
    pub(super) keys: String,
    /// He has said ACK, or the 2xx was his.
    pub(super) confirmed: bool,
}

pub(super) enum Phase {
    /// Rings until its time; then this offer is answered, or ours is made.
    Ringing {
        offer: Option<Box<SessionDescription>>,
    },
    /// Our offer is out; its answer comes with the ACK.
    Offering,
    /// We call; our offer is out.
    Calling { alerting: bool },
    /// In the room. With an offer of ours out again after a re-INVITE that brought none.
    Joined { offering: bool },
}

/// A call of ours.
pub(super) struct Dialled {
    /// Whoever asked for it by REFER, and is told how it goes.
    pub(super) referral: Option<SubscriptionKey>,
    /// URI of whoever asked.
    pub(super) by: Option<String>,
    /// How often the far end has sent us on.
    pub(super) redirects: u8,
}

/// Whether he may hear and be heard.
pub(super) enum Gate {
    Open,
    /// He has to key in this number first.
    Pin {
        pin: String,
        tries: u8,
    },
}

impl Call {
    pub(super) fn is_let_in(&self) -> bool {
        matches!(self.gate, Gate::Open)
    }

    /// Takes note of a key; too many without sense are forgotten.
    pub(super) fn press(&mut self, key: char) -> &str {
        if self.keys.len() >= KEYS_MAX {
            self.keys.clear();
        }
        self.keys.push(key);
        &self.keys
    }
}
