//! CONTROLs of the peer, and our REPORTs to them.

use std::collections::VecDeque;
use std::time::Instant;

use super::message::{Code, Content, Headers, Status, Writer};
use super::outgoing::{check, received_content};
use super::token::Token;
use super::{
    ANSWER_WITHIN_MAX, Channel, EXTEND_AFTER, EXTENDED_TIMEOUT, Event, Incoming, REQUEST_TIMEOUT,
    SendError, Use, refresh_after,
};

/// Most REPORTs to one CONTROL that the peer has not answered.
const REPORTS_MAX: usize = 16;

/// A CONTROL of the peer that is not done.
#[derive(Debug)]
pub(super) struct Received {
    id: Token,
    stage: Stage,
    /// When to do something: extend it, refresh it.
    due: Instant,
    /// When the owner has to have answered.
    end: Instant,
    /// REPORTs that the peer has not answered: their Seq, and until when to wait.
    reports: VecDeque<(u32, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Neither answered nor extended.
    Asked,
    /// 202 is sent, and so many REPORTs.
    Extended(u32),
    /// The last REPORT is sent.
    Ended,
}

impl Received {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = (self.stage != Stage::Ended).then(|| self.due.min(self.end));
        let report = self.reports.front().map(|(_, deadline)| *deadline);
        due.into_iter().chain(report).min()
    }
}

impl Channel {
    pub(super) fn on_control(&mut self, now: Instant, id: Token, headers: Headers, body: Vec<u8>) {
        if self.ids.contains_key(&id) {
            return self.reply(&id, Code::ID_IN_USE);
        }
        let Some(asked) = headers.control_package else {
            return self.reply(&id, Code::SYNTAX_ERROR);
        };
        let mut known = self.packages().iter();
        let Some(package) = known.find(|known| known.names_same(&asked)).copied() else {
            return self.reply(&id, Code::PACKAGE_NOT_VALID);
        };
        if self.received.len() == self.config.transactions_max {
            return self.reply(&id, Code::FORBIDDEN);
        }
        self.count += 1;
        let request = Incoming(self.count);
        self.ids.insert(id, Use::Theirs(request));
        let received = Received {
            id,
            stage: Stage::Asked,
            due: now + EXTEND_AFTER,
            end: now + ANSWER_WITHIN_MAX,
            reports: VecDeque::new(),
        };
        self.received.insert(request, received);
        self.events.push_back(Event::Control {
            id: request,
            package,
            content: received_content(headers, body),
        });
    }

    /// Answers a CONTROL: by 200, or by the last REPORT if it was extended.
    ///
    /// # Errors
    /// The CONTROL is done already, or the content cannot be sent.
    pub fn answer(
        &mut self,
        now: Instant,
        id: Incoming,
        content: Option<Content>,
    ) -> Result<(), SendError> {
        check(content.as_ref())?;
        let received = self.open(id)?;
        if received.stage == Stage::Asked {
            let answer = Writer::new(&received.id, Code::OK);
            self.forget_received(id);
            self.send(match &content {
                Some(_) => answer.content(content.as_ref()),
                None => answer.end(),
            });
            return Ok(());
        }
        self.report(now, id, Status::Terminate, content.as_ref());
        Ok(())
    }

    /// Answers a CONTROL with a code of the framework. What a package has to refuse goes in the content of
    /// an [`answer`](Self::answer) instead (RFC 6230 §7).
    ///
    /// # Errors
    /// The CONTROL is done already, or it was extended: then only an answer can end it.
    pub fn refuse(&mut self, id: Incoming, code: Code) -> Result<(), SendError> {
        let received = self.open(id)?;
        if received.stage != Stage::Asked {
            return Err(SendError::Extended);
        }
        let token = received.id;
        self.forget_received(id);
        self.reply(&token, code);
        Ok(())
    }

    /// Tells the peer at once that the answer will take longer (202), instead of after [`EXTEND_AFTER`].
    ///
    /// # Errors
    /// The CONTROL is done already.
    pub fn extend(&mut self, now: Instant, id: Incoming) -> Result<(), SendError> {
        let received = self.open(id)?;
        if received.stage == Stage::Asked {
            received.stage = Stage::Extended(0);
            received.due = now + refresh_after(EXTENDED_TIMEOUT);
            let extended = Writer::new(&received.id, Code::EXTENDED);
            self.send(extended.seconds("Timeout", EXTENDED_TIMEOUT).end());
        }
        Ok(())
    }

    /// Tells the peer how a CONTROL goes on (REPORT); extends it first if that is not done.
    ///
    /// # Errors
    /// The CONTROL is done already, the content cannot be sent, or the peer has not answered enough of
    /// the earlier ones.
    pub fn update(
        &mut self,
        now: Instant,
        id: Incoming,
        content: Content,
    ) -> Result<(), SendError> {
        check(Some(&content))?;
        if self.open(id)?.reports.len() == REPORTS_MAX {
            return Err(SendError::TooMany);
        }
        self.extend(now, id)?;
        self.report(now, id, Status::Update, Some(&content));
        Ok(())
    }

    /// A CONTROL that waits for its answer.
    fn open(&mut self, id: Incoming) -> Result<&mut Received, SendError> {
        let received = self.received.get_mut(&id);
        received
            .filter(|received| received.stage != Stage::Ended)
            .ok_or(SendError::Gone)
    }

    fn report(&mut self, now: Instant, id: Incoming, status: Status, content: Option<&Content>) {
        let Ok(received) = self.open(id) else {
            return;
        };
        let Stage::Extended(seq) = received.stage else {
            return;
        };
        let seq = seq + 1;
        received.stage = match status {
            Status::Update => Stage::Extended(seq),
            Status::Terminate => Stage::Ended,
        };
        received.due = now + refresh_after(EXTENDED_TIMEOUT);
        received.reports.push_back((seq, now + REQUEST_TIMEOUT));
        let report = Writer::new(&received.id, "REPORT")
            .header("Seq", seq)
            .header("Status", status.as_str())
            .seconds("Timeout", EXTENDED_TIMEOUT);
        self.send(report.content(content));
    }

    /// The peer has a REPORT of ours, or will not have it (406, 481).
    pub(super) fn on_report_answer(&mut self, id: Incoming, code: Code, headers: &Headers) {
        let Some(received) = self.received.get_mut(&id) else {
            return;
        };
        let Some(&(first, _)) = received.reports.front() else {
            return;
        };
        if code != Code::OK {
            return self.abandon(id);
        }
        // Without a Seq, the earliest is meant.
        let seq = headers.seq.unwrap_or(first);
        received.reports.retain(|(sent, _)| *sent != seq);
        if received.stage == Stage::Ended && received.reports.is_empty() {
            self.forget_received(id);
        }
    }

    pub(super) fn on_received_timeout(&mut self, now: Instant) {
        let is_due = |(id, received): (&Incoming, &Received)| {
            let is_due = received.deadline().is_some_and(|deadline| now >= deadline);
            is_due.then_some(*id)
        };
        let due: Vec<Incoming> = self.received.iter().filter_map(is_due).collect();
        for id in due {
            let Some(received) = self.received.get(&id) else {
                // The output ran over.
                return;
            };
            let report = received.reports.front();
            let is_unheard = report.is_some_and(|(_, deadline)| now >= *deadline);
            // A last REPORT would say that it was done: the peer's Timeout says that it was not.
            if is_unheard || now >= received.end {
                self.abandon(id);
            } else if received.stage == Stage::Asked {
                let _ = self.extend(now, id);
            } else {
                self.report(now, id, Status::Update, None);
            }
        }
    }

    /// Nobody waits for the answer.
    fn abandon(&mut self, id: Incoming) {
        let is_answered = self.open(id).is_err();
        self.forget_received(id);
        if !is_answered {
            self.events.push_back(Event::Abandoned { id });
        }
    }

    fn forget_received(&mut self, id: Incoming) {
        if let Some(received) = self.received.remove(&id) {
            self.ids.remove(&received.id);
        }
    }
}
