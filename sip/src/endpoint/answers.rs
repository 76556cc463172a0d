//! Responses to requests of ours.

use std::time::Instant;

use super::call::{Call, Phase};
use super::outgoing::cancel_key;
use super::{CallKey, ClientMachine, Ended, Endpoint, Event};
use crate::Body;
use crate::message::Message;
use crate::message::build::{Extra, follow_up};
use crate::transaction::{Acts, is_success};

impl Endpoint {
    pub(super) fn on_response(&mut self, now: Instant, response: &Message<'_>, status: u16) {
        let (Ok(via), Ok(to)) = (response.via(), response.to()) else {
            self.counters.malformed += 1;
            return;
        };
        let (Some(branch), Ok(cseq)) = (via.branch, response.cseq()) else {
            return;
        };
        let name = if cseq.method == "CANCEL" {
            cancel_key(&branch)
        } else {
            branch
        };
        let Some(&key) = self.client_of.get(&name) else {
            return;
        };
        let Some(client) = self.client(key) else {
            return;
        };
        let mut acts = Acts::default();
        let call = match &mut client.machine {
            ClientMachine::Invite { machine, call } => {
                let request = machine.request().clone();
                let ack = || match Message::parse(&request) {
                    Ok(request) => follow_up(&request, "ACK", &to.value),
                    Err(_) => unreachable!("we wrote it"),
                };
                machine.on_response(status, ack, &mut acts);
                Some(*call)
            }
            ClientMachine::Other { machine } => {
                machine.on_response(status, &mut acts);
                None
            }
        };
        let deliver = acts.deliver;
        self.act_client(now, key, &mut acts);
        if let (true, Some(call)) = (deliver, call) {
            self.on_answer(now, call, response, status);
        }
    }

    /// Nobody answered our INVITE.
    pub(super) fn on_no_answer(&mut self, now: Instant, key: CallKey) {
        self.on_refusal(now, key, 408, None, Vec::new());
    }

    /// A response to our INVITE that is news.
    fn on_answer(&mut self, now: Instant, key: CallKey, response: &Message<'_>, status: u16) {
        let Some(call) = self.call(key) else { return };
        if let Phase::Up { ack: Some(ack), .. } = &call.phase {
            // The 2xx came again: its ACK was lost.
            let (flow, ack) = (call.flow, ack.clone());
            return self.transmit(flow, ack);
        }
        match status {
            100..200 => self.on_progress(now, key, status),
            200..300 => self.on_accepted(now, key, response),
            _ => {
                let retry_after = response.header("Retry-After").and_then(|value| {
                    value
                        .split(|c: char| !c.is_ascii_digit())
                        .next()
                        .and_then(|seconds| seconds.parse().ok())
                });
                let contacts = if status / 100 == 3 {
                    response.contacts()
                } else {
                    Vec::new()
                };
                self.on_refusal(now, key, status, retry_after, contacts);
            }
        }
    }

    fn on_progress(&mut self, now: Instant, key: CallKey, status: u16) {
        if let Some(Call {
            phase: Phase::Outgoing {
                cancelling: true, ..
            },
            ..
        }) = self.call(key)
        {
            // It could not be cancelled before (RFC 3261 §9.1).
            return self.send_cancel(now, key);
        }
        if status > 100 {
            self.tell(Event::Progress { call: key, status });
        }
    }

    fn on_accepted(&mut self, now: Instant, key: CallKey, response: &Message<'_>) {
        let (Ok(to), Ok(cseq)) = (response.to(), response.cseq()) else {
            return;
        };
        let target = response.contact().ok().flatten();
        let mut routes: Vec<String> = response.all("Record-Route").map(str::to_owned).collect();
        routes.reverse();
        let branch = self.new_branch();
        let Some(call) = self.call(key) else { return };
        let Phase::Outgoing { cancelling, .. } = call.phase else {
            return;
        };
        call.remote = to.value;
        call.remote_tag = to.tag;
        call.routes = routes;
        if let Some(target) = target {
            call.target = target;
        }
        let flow = call.flow;
        // RFC 3261 §13.2.2.4: the ACK of a 2xx is a request of its own.
        let ack = self.in_dialog(key, "ACK", &branch, cseq.number, Extra::default(), None);
        self.transmit(flow, ack.clone());
        if let Some(call) = self.call(key) {
            call.phase = Phase::Up {
                answer: None,
                reinvite: None,
                ack: Some(ack),
                bye: None,
            };
        }
        if cancelling {
            // Answer and CANCEL crossed.
            self.end(now, key, Ended::Cancelled);
            return self.send_bye(now, key, None);
        }
        let content_type = response
            .header("Content-Type")
            .filter(|_| !response.body.is_empty());
        let body = content_type.map(|content_type| Body {
            content_type: content_type.to_owned(),
            content: bytes::Bytes::copy_from_slice(response.body),
        });
        self.tell(Event::Accepted { call: key, body });
    }

    fn on_refusal(
        &mut self,
        now: Instant,
        key: CallKey,
        status: u16,
        retry_after_s: Option<u32>,
        contacts: Vec<String>,
    ) {
        let Some(Call {
            phase: Phase::Outgoing { cancelling, .. },
            ..
        }) = self.call(key)
        else {
            return;
        };
        if *cancelling {
            self.end(now, key, Ended::Cancelled);
        } else if contacts.is_empty() {
            self.tell(Event::Rejected {
                call: key,
                status,
                retry_after_s,
            });
        } else {
            self.tell(Event::Redirected {
                call: key,
                contacts,
            });
        }
        debug_assert!(!is_success(status));
        self.drop_call(key);
    }
}
