//! What shards tell each other: values, never handles.
//!
//! Each shard has one inbox that it empties once a turn; any thread may post to it without locking. One
//! more, behind those of the shards, is that of the cluster's thread (the hub), which owns dialogs as
//! a shard does but has no sockets.
//! A full inbox never blocks the sender. What must arrive (anything but a SIP datagram, which its
//! sender retransmits, and word of a muted source) waits in the sender's outbox for its next turn.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use sip::Flow;
use tokio::sync::oneshot;

use super::ShardIndex;
use crate::admin::ConferenceView;
use crate::cluster::{self, Decision, Wanted};
use crate::config::Config;
use crate::focus::liaison::{self, Report};
use crate::focus::{Access, RoomName};
use crate::room::CoreEnd;
use crate::trace::Batch;

/// Mail one inbox holds: 16 turns of the largest number of SIP messages a core can handle in 1 ms.
const INBOX_LEN_MAX: usize = 8_192;

/// From here on an inbox takes no new calls: what is left is for calls that are up.
const INBOX_LEN_NEW_CALLS: usize = INBOX_LEN_MAX / 4 * 3;

#[derive(Debug)]
pub enum Mail {
    /// A SIP message of which the receiver is to find the owner: it keeps the directory entry of its room.
    SipToHome {
        flow: Flow,
        room: String,
        message: Bytes,
    },
    /// A SIP message that the receiver is to handle.
    SipToOwner {
        flow: Flow,
        message: Bytes,
    },
    /// A SIP message for a room of which the receiver has a part, or is to have one.
    SipToPart {
        flow: Flow,
        message: Bytes,
        sought: Box<Sought>,
    },
    /// Bytes for a TCP connection that the receiver holds.
    Write {
        flow: Flow,
        message: Bytes,
    },
    /// A TCP connection has ended.
    FlowClosed {
        flow: Flow,
    },
    /// A connection that was asked for could not be made.
    FlowFailed {
        flow: Flow,
    },
    /// A SIP message of the hub's, for whoever holds the connection or has a socket.
    Transmit {
        flow: Flow,
        message: Bytes,
    },
    /// What a shard's focus tells the cluster.
    Reports {
        from: ShardIndex,
        reports: Vec<Report>,
    },
    /// What the cluster tells a shard's focus.
    Orders(Vec<liaison::Order>),
    /// From the admin thread to the hub.
    Hub(HubQuery),
    /// That shard has opened or closed a room, or a part of one, whose directory entry the receiver keeps.
    RoomOpened {
        room: String,
        owner: ShardIndex,
    },
    RoomClosed {
        room: String,
        owner: ShardIndex,
    },
    /// The receiver's part of a room is to be joined to the one on that shard.
    JoinPart {
        room: String,
        part: ShardIndex,
        end: Box<CoreEnd>,
    },
    /// The sender listens to this source no more for a while, and so should all.
    Muted {
        source: IpAddr,
    },
    /// A question from the admin thread.
    Query(Query),
    /// What can change while running has changed.
    Reload(Arc<Config>, Arc<Access>),
    /// Somebody is to be called into a room.
    Dial(Box<DialOrder>),
    /// A name has been looked up.
    Resolved {
        ticket: u64,
        /// The preferred first; none if it could not be found.
        addresses: Vec<SocketAddr>,
    },
    /// Take no new calls; end when the last has gone.
    Drain,
    /// Do not end after all.
    Undrain,
    /// Say BYE to everybody and end.
    Stop,
}

impl Mail {
    /// Nobody else would send it again.
    fn must_arrive(&self) -> bool {
        !matches!(
            self,
            Self::SipToHome { .. }
                | Self::SipToOwner { .. }
                | Self::SipToPart { .. }
                | Self::Muted { .. }
        )
    }
}

/// A room of several parts, one of which is to take a message.
#[derive(Debug)]
pub struct Sought {
    pub room: String,
    /// Parts that are full.
    pub passed: Vec<ShardIndex>,
}

/// Whom to call into which room.
#[derive(Debug)]
pub struct DialOrder {
    pub room: RoomName,
    /// The URI to call.
    pub target: String,
    /// Hears 100 if the call is on its way, else why not.
    pub reply: oneshot::Sender<u16>,
    /// The receiver is the one who has the room, or is to have it.
    pub is_placed: bool,
}

/// What the admin thread wants of the cluster's, with the way back for the answer.
#[derive(Debug)]
pub enum HubQuery {
    /// The operator wants something done; hears what became of it, as an HTTP status with its reason.
    Operator {
        wanted: Wanted,
        reply: oneshot::Sender<(u16, String)>,
    },
    /// Who is in conferences on all servers: in this one, or in all.
    Roster {
        room: Option<String>,
        reply: oneshot::Sender<Vec<cluster::ConferenceView>>,
    },
    /// Why callers went where they did, the oldest first.
    Decisions {
        reply: oneshot::Sender<Vec<Decision>>,
    },
}

/// Questions about the shard's conferences and messages, with the way back for the answer.
#[derive(Debug)]
pub enum Query {
    Conferences {
        reply: oneshot::Sender<Vec<ConferenceView>>,
    },
    Conference {
        id: String,
        reply: oneshot::Sender<Option<ConferenceView>>,
    },
    /// What SIP messages were recorded from this one on; None: from the oldest.
    Trace {
        from: Option<u64>,
        reply: oneshot::Sender<Batch>,
    },
}

/// The inboxes of all shards, and that of the hub. Cloned into every thread that posts.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    inboxes: Arc<[ArrayQueue<Mail>]>,
}

impl Mailboxes {
    pub fn new(shards: usize) -> Self {
        Self {
            inboxes: (0..=shards)
                .map(|_| ArrayQueue::new(INBOX_LEN_MAX))
                .collect(),
        }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.inboxes.len() - 1
    }

    /// The inbox of the cluster's thread, and its owner number in SIP tags.
    pub fn hub(&self) -> ShardIndex {
        ShardIndex(self.shards() as u16)
    }

    /// # Errors
    /// Gives the mail back when the inbox is full.
    pub fn post(&self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        self.inboxes[to.0 as usize].push(mail)
    }

    /// Mail that this shard has not read yet.
    pub fn waiting(&self, to: ShardIndex) -> usize {
        self.inboxes[to.0 as usize].len()
    }

    pub fn read(&self, own: ShardIndex) -> Option<Mail> {
        self.inboxes[own.0 as usize].pop()
    }
}

/// One shard's way to the others.
#[derive(Debug)]
pub struct Outbox {
    mailboxes: Mailboxes,
    /// Mail that must arrive and found its inbox full, oldest first.
    waiting: VecDeque<(ShardIndex, Mail)>,
}

impl Outbox {
    pub fn new(mailboxes: Mailboxes) -> Self {
        Self {
            mailboxes,
            waiting: VecDeque::new(),
        }
    }

    /// False when the mail was dropped.
    pub fn post(&mut self, to: ShardIndex, mail: Mail) -> bool {
        if !mail.must_arrive() {
            let is_new_call = matches!(mail, Mail::SipToHome { .. });
            let too_full = is_new_call && self.mailboxes.waiting(to) >= INBOX_LEN_NEW_CALLS;
            return !too_full && self.mailboxes.post(to, mail).is_ok();
        }
        // Mail to one shard must not overtake older mail to it.
        if self.waiting.iter().any(|(waiting, _)| *waiting == to) {
            self.waiting.push_back((to, mail));
        } else if let Err(mail) = self.mailboxes.post(to, mail) {
            self.waiting.push_back((to, mail));
        }
        true
    }

    /// Tries again what found no room; once a turn.
    pub fn retry(&mut self) {
        let mut still_full: Vec<ShardIndex> = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some((to, mail)) = self.waiting.pop_front() else {
                return;
            };
            let result = if still_full.contains(&to) {
                Err(mail)
            } else {
                self.mailboxes.post(to, mail)
            };
            if let Err(mail) = result {
                still_full.push(to);
                self.waiting.push_back((to, mail));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(room: usize) -> Mail {
        Mail::RoomClosed {
            room: room.to_string(),
            owner: ShardIndex(0),
        }
    }

    #[test]
    fn mail_that_must_arrive_outlives_a_full_inbox_in_order() {
        let mailboxes = Mailboxes::new(2);
        let mut outbox = Outbox::new(mailboxes.clone());
        let to = ShardIndex(1);
        for room in 0..INBOX_LEN_MAX + 10 {
            assert!(outbox.post(to, closed(room)));
        }
        let mut read = Vec::new();
        while read.len() < INBOX_LEN_MAX + 10 {
            while let Some(Mail::RoomClosed { room, .. }) = mailboxes.read(to) {
                read.push(room.parse::<usize>().unwrap());
            }
            outbox.retry();
        }
        assert!(read.iter().copied().eq(0..INBOX_LEN_MAX + 10));
    }

    #[test]
    fn sip_is_dropped_by_a_full_inbox_because_its_sender_repeats_it() {
        let mut outbox = Outbox::new(Mailboxes::new(1));
        let flow = Flow {
            transport: sip::Transport::Udp,
            peer: "127.0.0.1:5060".parse().unwrap(),
            listener: 0,
            stream: 0,
        };
        let mut post = |is_new: bool| {
            let message = Bytes::new();
            let mail = if is_new {
                Mail::SipToHome {
                    flow,
                    room: "r".to_owned(),
                    message,
                }
            } else {
                Mail::SipToOwner { flow, message }
            };
            outbox.post(ShardIndex(0), mail)
        };
        // New calls leave room for those that are up.
        assert!((0..INBOX_LEN_NEW_CALLS).all(|_| post(true)));
        assert!(!post(true));
        assert!((INBOX_LEN_NEW_CALLS..INBOX_LEN_MAX).all(|_| post(false)));
        assert!(!post(false));
    }
}
