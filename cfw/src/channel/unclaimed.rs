//! A connection that was accepted, before it is known which dialog it belongs to.

use std::time::Instant;

use super::frame::{Broken, Framer};
use super::message::{Code, Kind, Message, Writer};
use super::{BODY_LEN_MAX, Channel, CloseReason, Config, Role, TRANSACTION_TIMEOUT};

/// Most bytes that are read of a connection that nobody has claimed.
const UNCLAIMED_LEN_MAX: usize = 64 * 1024;

/// An accepted connection of which the first message is not there yet, or nobody has claimed it. See the
/// [module](super) for its use.
#[derive(Debug)]
pub struct Unclaimed {
    framer: Framer,
    /// The first message, once it is there.
    sync: Option<Message>,
    deadline: Instant,
}

/// The connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is to be sent before; perhaps nothing.
    pub output: Vec<u8>,
    pub reason: CloseReason,
}

impl Unclaimed {
    pub fn new(now: Instant) -> Self {
        Self {
            // A SYNC has no body.
            framer: Framer::new(0),
            sync: None,
            deadline: now + TRANSACTION_TIMEOUT,
        }
    }

    /// What the peer sent, cut anywhere. Then [`dialog_id`](Self::dialog_id) may be known.
    ///
    /// # Errors
    /// The first message is no SYNC with a Dialog-ID, or there is too much of it.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if self.framer.len() + bytes.len() > UNCLAIMED_LEN_MAX {
            return Err(Refused {
                output: Vec::new(),
                reason: CloseReason::NotSynced,
            });
        }
        self.framer.feed(bytes);
        if self.sync.is_some() {
            return Ok(());
        }
        let message = self.framer.next().map_err(|Broken { error, request }| {
            let id = request.as_ref();
            let answer = id.map(|id| Writer::new(id, Code::SYNTAX_ERROR).end());
            Refused {
                output: answer.unwrap_or_default(),
                reason: CloseReason::Malformed(error),
            }
        })?;
        let Some(message) = message else {
            return Ok(());
        };
        let refused = |code, reason| {
            let output = Writer::new(&message.id, code).end();
            Err(Refused { output, reason })
        };
        match (message.kind, &message.headers) {
            (Kind::Sync, Some(headers)) if headers.dialog_id.is_some() => {
                self.sync = Some(message);
                Ok(())
            }
            (Kind::Sync, _) => refused(Code::SYNTAX_ERROR, CloseReason::BadSync),
            (Kind::Response(_), _) => Err(Refused {
                output: Vec::new(),
                reason: CloseReason::NotSynced,
            }),
            _ => refused(Code::FORBIDDEN, CloseReason::NotSynced),
        }
    }

    /// Of which dialog the peer says that the connection is: the `cfw-id` in the peer's SDP (RFC 6230 §6),
    /// once the SYNC is there. Peers that echo the id of the offer send that.
    pub fn dialog_id(&self) -> Option<&str> {
        let headers = self.sync.as_ref()?.headers.as_ref()?;
        headers.dialog_id.as_deref()
    }

    /// When the connection is to be closed if nobody has claimed it.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Makes it the channel of a dialog, and takes in what has come so far.
    pub fn claim(self, now: Instant, config: Config) -> Channel {
        let Self {
            mut framer, sync, ..
        } = self;
        framer.body_len_max = BODY_LEN_MAX;
        let mut channel = Channel::new(config, Role::Passive, framer);
        channel.await_first_sync(now);
        if let Some(sync) = sync {
            channel.handle_message(now, sync);
            channel.handle_messages(now);
        }
        channel
    }

    /// What is to be sent before the connection is closed, for no dialog has this id: 481, as RFC 7058 §5.4
    /// shows. With 403 the peer may not have a channel although it has a dialog.
    pub fn refuse(self, code: Code) -> Vec<u8> {
        let sync = self.sync.map(|sync| Writer::new(&sync.id, code).end());
        sync.unwrap_or_default()
    }
}
