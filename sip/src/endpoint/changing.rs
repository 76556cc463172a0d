//! Changes of a call that the user asks for: other terms by re-INVITE (RFC 3261 §14.1), and the answer to an
//! offer that came with a 2xx, which travels in the ACK (§13.2.2.4).

use std::time::Instant;

use super::abilities::SUPPORTED;
use super::call::Call;
use super::client::Purpose;
use super::dialog::Usage;
use super::{CallKey, Ended, Endpoint, Event, SlotKey};
use crate::Body;
use crate::message::Message;
use crate::message::build::Extra;

impl Endpoint {
    /// Sends a re-INVITE with this offer; None asks for the peer's. What comes of it is told by
    /// [`Event::Changed`]. False: there is no such call, or a change of it is under way already.
    pub fn reinvite(&mut self, now: Instant, key: CallKey, offer: Option<&Body>) -> bool {
        let Some(call) = self.call(key).filter(|call| !call.ended) else {
            return false;
        };
        let (running, contact) = (call.session, call.dialog.contact.clone());
        let Some(up) = call.up().filter(|up| !up.is_changing()) else {
            return false;
        };
        up.refreshing = true;
        up.offered = offer.cloned().map(Box::new);
        let extra = Extra::default()
            .line("Contact", contact)
            .line("Allow", self.allow())
            .line("Supported", SUPPORTED);
        let extra = match running {
            Some(_) => self.ask_for_session(extra, running),
            None => extra,
        };
        let (usage, purpose) = (Usage::Call(key), Purpose::Change(key));
        self.send_in_dialog(now, usage, "INVITE", extra, offer, purpose)
            .is_some()
    }

    /// What became of a re-INVITE of the user's.
    pub(super) fn on_changed(
        &mut self,
        now: Instant,
        transaction: SlotKey,
        key: CallKey,
        status: u16,
        response: Option<&Message<'_>>,
    ) {
        if status < 200 || self.is_answered(key, response) {
            return;
        }
        let Some(call) = self.call(key) else { return };
        let Some(up) = call.up() else { return };
        if !std::mem::replace(&mut up.refreshing, false) {
            // The 2xx again, before its ACK has been sent.
            return;
        }
        let offered = up.offered.take();
        let body = response.and_then(body_of);
        if let Some(response) = response.filter(|_| status < 300)
            && let Ok(cseq) = response.cseq()
        {
            let is_offer = offered.is_none() && body.is_some();
            if is_offer {
                up.unacknowledged = Some((transaction, cseq.number));
            } else {
                if let Some(offered) = offered {
                    call.described = Some(*offered);
                }
                self.acknowledge(transaction, key, cseq.number, None);
            }
            self.session_answered(now, key, response);
        }
        let ended = self.call(key).is_none_or(|call| call.ended);
        if !ended {
            self.tell(Event::Changed {
                call: key,
                status,
                body,
            });
        }
        // The peer knows the call no more, or is not there (RFC 3261 §14.1).
        if matches!(status, 408 | 481) {
            self.end(key, Ended::SessionExpired);
            self.send_bye(now, key, Some("no answer to a change"));
        }
    }

    /// Whether a 2xx is one that we have acknowledged, which comes again because its ACK was lost: that is
    /// sent again. Changes are made one after the other, so that only a higher number than the last
    /// acknowledged one can be news.
    pub(super) fn is_answered(&mut self, key: CallKey, response: Option<&Message<'_>>) -> bool {
        let Some(Ok(cseq)) = response.map(Message::cseq) else {
            return false;
        };
        let Some(call) = self.call(key).filter(|_| cseq.method == "INVITE") else {
            return false;
        };
        let flow = call.dialog.flow;
        let Some((last, ack)) = call.up().and_then(|up| up.ack.clone()) else {
            return false;
        };
        if cseq.number == last {
            self.transmit(flow, ack);
        }
        cseq.number <= last
    }

    /// Sends the ACK that waits for our answer to the offer of a 2xx. Without one the peer's offer is lost,
    /// and he will most likely hang up.
    pub fn acknowledge_offer(&mut self, key: CallKey, answer: Option<&Body>) {
        let Some(call) = self.call(key) else { return };
        let waiting = call.up().and_then(|up| up.unacknowledged.take());
        if let Some((transaction, cseq)) = waiting {
            if answer.is_some() {
                call.described = answer.cloned();
            }
            self.acknowledge(transaction, key, cseq, answer);
        }
    }

    /// Tells the caller how far his call has come, by a provisional status from 180 on. `contact_user` is the
    /// user part of our Contact.
    pub fn progress(&mut self, now: Instant, key: CallKey, status: u16, contact_user: &str) {
        let Some(call) = self.call(key) else { return };
        let super::call::Phase::Incoming { invite } = call.phase else {
            return;
        };
        let flow = call.dialog.flow;
        let contact = self.contact_value(contact_user, &flow);
        if let Some(call) = self.call(key) {
            call.dialog.contact = contact;
        }
        self.provisional(now, key, invite, status.clamp(180, 199));
    }
}

impl super::call::Up {
    /// An offer or its answer is on its way, so that another has to wait.
    pub(super) fn is_changing(&self) -> bool {
        self.change.is_some()
            || self.answer.is_some()
            || self.refreshing
            || self.unacknowledged.is_some()
    }
}

impl Call {
    /// The 2xx to our INVITE brings the offer, because the INVITE brought none.
    pub(super) fn is_offered(&self, response: &Message<'_>) -> bool {
        self.described.is_none() && !response.body.is_empty()
    }
}

pub(super) fn body_of(message: &Message<'_>) -> Option<Body> {
    let content_type = message.header("Content-Type");
    content_type
        .filter(|_| !message.body.is_empty())
        .map(|content_type| Body {
            content_type: content_type.to_owned(),
            content: bytes::Bytes::copy_from_slice(message.body),
        })
}
