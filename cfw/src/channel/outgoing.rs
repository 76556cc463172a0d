//! CONTROLs of ours, and the REPORTs to them.

use std::time::{Duration, Instant};

use super::event::of_report;
use super::message::{Code, Content, Headers, Writer};
use super::token::Token;
use super::{
    BODY_LEN_MAX, Channel, Event, Failure, Outgoing, REQUEST_TIMEOUT, SendError, Status,
    TRANSACTION_TIMEOUT, Use,
};

/// Longest time between REPORTs that a peer may ask for.
const EXTENDED_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// A CONTROL that is not done.
#[derive(Debug)]
pub(super) struct Sent {
    id: Token,
    /// What Seq the next REPORT has to have, once it is extended.
    seq: Option<u32>,
    deadline: Instant,
}

impl Sent {
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Channel {
    /// Sends a CONTROL. [`Event::Answered`] or [`Event::Failed`] follows, if not at once then within
    /// [`REQUEST_TIMEOUT`] or as long as the peer extends it.
    ///
    /// # Errors
    /// Nothing has been sent, and there is no event.
    pub fn request(
        &mut self,
        now: Instant,
        package: Token,
        content: Option<Content>,
    ) -> Result<Outgoing, SendError> {
        if self.packages().is_empty() {
            return Err(SendError::NotReady);
        }
        let mut known = self.packages().iter();
        let Some(package) = known.find(|known| known.names_same(&package)).copied() else {
            return Err(SendError::UnknownPackage);
        };
        if self.sent.len() == self.config.transactions_max {
            return Err(SendError::TooMany);
        }
        check(content.as_ref())?;
        let id = self.new_id();
        let request = Outgoing(self.count);
        let control = Writer::new(&id, "CONTROL").header("Control-Package", package);
        self.send(control.content(content.as_ref()));
        if self.is_closed() {
            return Err(SendError::NotReady);
        }
        self.ids.insert(id, Use::Ours(request));
        let sent = Sent {
            id,
            seq: None,
            deadline: now + REQUEST_TIMEOUT,
        };
        self.sent.insert(request, sent);
        Ok(request)
    }

    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        id: Outgoing,
        code: Code,
        headers: Headers,
        body: Vec<u8>,
    ) {
        match code {
            Code::OK => {
                self.forget_sent(id);
                let content = received_content(headers, body);
                self.events.push_back(Event::Answered { id, content });
            }
            Code::EXTENDED => {
                let Some(sent) = self.sent.get_mut(&id) else {
                    return;
                };
                let within = timeout(&headers);
                sent.seq.get_or_insert(1);
                sent.deadline = now + within;
                self.events.push_back(Event::Extended { id, within });
            }
            code => self.fail(id, Failure::Refused(code)),
        }
    }

    /// A REPORT of the peer to a CONTROL of ours (RFC 6230 §6.3.2).
    pub(super) fn on_report(&mut self, now: Instant, id: &Token, headers: Headers, body: Vec<u8>) {
        let request = match self.ids.get(id) {
            Some(Use::Ours(request)) => *request,
            _ => return self.reply(id, Code::UNKNOWN),
        };
        let sent = self.sent.get_mut(&request);
        let Some((sent, expected)) = sent.and_then(|sent| sent.seq.map(|seq| (sent, seq))) else {
            // Without a 202 nobody waits for REPORTs.
            return self.reply(id, Code::UNKNOWN);
        };
        let (Some(seq), Some(status)) = (headers.seq, headers.status) else {
            return self.reply(id, Code::SYNTAX_ERROR);
        };
        if seq != expected {
            self.reply(id, Code::OUT_OF_ORDER);
            return self.fail(request, Failure::OutOfOrder);
        }
        let within = timeout(&headers);
        sent.seq = Some(seq.saturating_add(1));
        sent.deadline = now + within;
        if status == Status::Terminate {
            self.forget_sent(request);
        }
        let content = received_content(headers, body);
        let event = of_report(request, status, within, content);
        self.events.push_back(event);
        self.send(Writer::new(id, Code::OK).header("Seq", seq).end());
    }

    pub(super) fn on_sent_timeout(&mut self, now: Instant) {
        let is_due = |(id, sent): (&Outgoing, &Sent)| (now >= sent.deadline).then_some(*id);
        let due: Vec<Outgoing> = self.sent.iter().filter_map(is_due).collect();
        for id in due {
            self.fail(id, Failure::TimedOut);
        }
    }

    fn fail(&mut self, id: Outgoing, failure: Failure) {
        self.forget_sent(id);
        self.events.push_back(Event::Failed { id, failure });
    }

    fn forget_sent(&mut self, id: Outgoing) {
        if let Some(sent) = self.sent.remove(&id) {
            self.ids.remove(&sent.id);
        }
    }
}

/// How long the peer says that it may take to the next REPORT.
fn timeout(headers: &Headers) -> Duration {
    let told = headers.timeout.map(|s| Duration::from_secs(s.into()));
    told.unwrap_or(TRANSACTION_TIMEOUT)
        .min(EXTENDED_TIMEOUT_MAX)
}

pub(super) fn received_content(headers: Headers, body: Vec<u8>) -> Content {
    Content {
        media_type: headers.content_type.unwrap_or_default(),
        body,
    }
}

/// Whether it can stand in a message.
pub(super) fn check(content: Option<&Content>) -> Result<(), SendError> {
    let is_bad = |content: &Content| {
        content.body.len() > BODY_LEN_MAX
            || content.media_type.len() > 256
            || content.media_type.contains(char::is_control)
    };
    match content.is_some_and(is_bad) {
        true => Err(SendError::Content),
        false => Ok(()),
    }
}
