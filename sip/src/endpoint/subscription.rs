//! Subscriptions of others to events here (RFC 6665): in a dialog of their own, or in that of a call, as a
//! REFER makes them (RFC 3515).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::abilities::SUPPORTED;
use super::client::Purpose;
use super::dialog::{Dialog, Usage};
use super::incoming::{Identity, RETRY_AFTER_S, Refusal};
use super::{CallKey, Endpoint, Event, RequestKey, SlotKey, SubscriptionKey, Wake};
use crate::message::Message;
use crate::message::build::Extra;
use crate::{Body, Flow};

/// Shortest and longest time of a subscription, in seconds; 0 ends it at once.
const EXPIRES_MIN_S: u32 = 60;
const EXPIRES_MAX_S: u32 = 3_600;

/// NOTIFYs that wait for the answer to the one before.
const QUEUE_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) generation: u32,
    dialog: Place,
    /// The event package, with the `id` parameter if there is one, as Event repeats it.
    event: String,
    expires: Instant,
    /// Number of the deadline that counts.
    epoch: u32,
    /// A NOTIFY waits for its answer.
    pending: bool,
    queue: VecDeque<Notice>,
    /// The last NOTIFY has been asked for.
    ending: bool,
}

#[derive(Debug)]
enum Place {
    Own(Box<Dialog>),
    OfCall(CallKey),
}

#[derive(Debug)]
struct Notice {
    /// None: active, for as long as it still is when this is sent.
    ended: Option<&'static str>,
    body: Option<Body>,
}

impl Endpoint {
    /// Accepts a SUBSCRIBE or REFER with 200 (RFC 7647 §5: no 202). `event` is the package as the NOTIFYs
    /// are to name it. A NOTIFY must follow at once. None: nobody asks any more, or there are too many.
    pub fn accept_subscription(
        &mut self,
        now: Instant,
        request: RequestKey,
        event: &str,
        expires_s: u32,
        contact_user: &str,
    ) -> Option<SubscriptionKey> {
        let RequestKey(transaction) = request;
        let server = self.server(transaction)?;
        let (call, dialog, flow) = (server.call, server.dialog.take(), server.template.flow);
        let (is_refer, number) = (server.is_refer, server.cseq);
        let contact = self.contact_value(contact_user, &flow);
        if self.subscriptions.len() >= self.config.calls_max {
            let extra = Extra::default().line("Retry-After", RETRY_AFTER_S);
            self.respond(now, transaction, 503, extra, None);
            return None;
        }
        if call.is_some_and(|call| self.call(call).is_none()) {
            // It ended while the user was thinking.
            self.respond(now, transaction, 481, Extra::default(), None);
            return None;
        }
        let (dialog, event) = match (call, dialog) {
            (Some(key), _) => {
                let call = self.call(key)?;
                call.refers += u32::from(is_refer);
                // Only what is not the first of its kind in the dialog needs a number (RFC 3515 §2.4.6).
                let event = match is_refer && call.refers > 1 {
                    true => format!("{event};id={number}"),
                    false => event.to_owned(),
                };
                (Place::OfCall(key), event)
            }
            (None, Some(mut dialog)) => {
                dialog.contact = contact.clone();
                (Place::Own(dialog), event.to_owned())
            }
            (None, None) => return None,
        };
        let expires_s = expires_s.min(EXPIRES_MAX_S);
        let generation = self.next_generation();
        let own = match &dialog {
            Place::Own(dialog) => Some(dialog.key()),
            Place::OfCall(_) => None,
        };
        let subscription = Subscription {
            generation,
            dialog,
            event,
            expires: now,
            epoch: 0,
            pending: false,
            queue: VecDeque::new(),
            ending: false,
        };
        let key = SubscriptionKey {
            slot: self.subscriptions.insert(Box::new(subscription)) as u32,
            generation,
        };
        if let Some(own) = own {
            self.dialog_of.insert(own, Usage::Subscription(key));
        }
        if let Some(call) = call.and_then(|call| self.call(call)) {
            call.subscriptions.push(key);
        }
        let extra = Extra::default()
            .record_routes()
            .line("Contact", contact)
            .line("Supported", SUPPORTED);
        let extra = match is_refer {
            true => extra,
            false => extra.line("Expires", expires_s),
        };
        self.respond(now, transaction, 200, extra, None);
        self.prolong(now, key, expires_s);
        Some(key)
    }

    /// Tells the subscriber something.
    pub fn notify(&mut self, now: Instant, key: SubscriptionKey, body: Option<Body>) {
        self.enqueue(now, key, Notice { ended: None, body });
    }

    /// Whether the subscriber has not answered the last NOTIFY yet: another would wait for that, and too many
    /// are left out.
    pub fn is_behind(&mut self, key: SubscriptionKey) -> bool {
        self.subscription(key)
            .is_some_and(|subscription| subscription.pending)
    }

    /// Tells the subscriber the last thing, and why it is (RFC 6665 §4.1.3: `noresource`, `timeout`...).
    pub fn end_subscription(
        &mut self,
        now: Instant,
        key: SubscriptionKey,
        reason: &'static str,
        body: Option<Body>,
    ) {
        self.enqueue(
            now,
            key,
            Notice {
                ended: Some(reason),
                body,
            },
        );
    }

    fn enqueue(&mut self, now: Instant, key: SubscriptionKey, notice: Notice) {
        let Some(subscription) = self.subscription(key) else {
            return;
        };
        if subscription.ending {
            return;
        }
        subscription.ending = notice.ended.is_some();
        // Who answers too slowly misses what is oldest, never the last word.
        if subscription.queue.len() >= QUEUE_MAX {
            subscription.queue.pop_front();
        }
        subscription.queue.push_back(notice);
        self.send_notice(now, key);
    }

    fn send_notice(&mut self, now: Instant, key: SubscriptionKey) {
        let Some(subscription) = self.subscription(key).filter(|known| !known.pending) else {
            return;
        };
        let Some(notice) = subscription.queue.pop_front() else {
            return;
        };
        subscription.pending = true;
        let left = subscription
            .expires
            .saturating_duration_since(now)
            .as_secs();
        let event = subscription.event.clone();
        let usage = subscription.usage(key);
        let contact = self.dialog(usage).map(|dialog| dialog.contact.clone());
        let extra = Extra::default()
            .line("Contact", contact.unwrap_or_default())
            .line("Event", event);
        let extra = match notice.ended {
            Some(reason) => extra.line(
                "Subscription-State",
                format_args!("terminated;reason={reason}"),
            ),
            None => extra.line("Subscription-State", format_args!("active;expires={left}")),
        };
        let purpose = Purpose::Notify(key);
        let sent = self.send_in_dialog(now, usage, "NOTIFY", extra, notice.body.as_ref(), purpose);
        if sent.is_none() {
            self.lose_subscription(key);
        }
    }

    pub(super) fn on_notified(&mut self, now: Instant, key: SubscriptionKey, status: u16) {
        let Some(subscription) = self.subscription(key) else {
            return;
        };
        subscription.pending = false;
        let is_over = subscription.queue.is_empty() || status >= 300;
        if subscription.ending && is_over {
            // The user is through with it already.
            self.drop_subscription(key);
        } else if status >= 300 {
            // RFC 6665 §4.2.2: whoever refuses a NOTIFY, or does not answer it, wants none.
            self.lose_subscription(key);
        } else {
            self.send_notice(now, key);
        }
    }

    /// A request in the dialog of a subscription: only another SUBSCRIBE makes sense there.
    pub(super) fn on_subscribed_again(
        &mut self,
        now: Instant,
        request: &Message<'_>,
        identity: &Identity,
        key: SubscriptionKey,
        transaction: SlotKey,
        flow: Flow,
    ) -> Result<(), Refusal> {
        let gone = || Refusal::new(481);
        let subscription = self.subscription(key).filter(|known| !known.ending);
        let Some(subscription) = subscription else {
            return Err(gone());
        };
        if let Place::Own(dialog) = &mut subscription.dialog {
            if !dialog.is_with(&identity.from) {
                return Err(gone());
            }
            if dialog
                .remote_cseq
                .is_some_and(|last| identity.cseq.number <= last)
            {
                return Err(Refusal::new(500));
            }
            dialog.remote_cseq = Some(identity.cseq.number);
            dialog.follow(request, flow);
        }
        if identity.cseq.method != "SUBSCRIBE" || !subscription.is_for(request) {
            return Err(gone());
        }
        let expires_s = expires_asked(request)?;
        let usage = subscription.usage(key);
        let target = request.contact()?;
        let Some(dialog) = self.dialog(usage) else {
            return Err(gone());
        };
        if let Some(target) = target {
            dialog.target = target;
        }
        let contact = dialog.contact.clone();
        let extra = Extra::default()
            .line("Expires", expires_s)
            .line("Contact", contact);
        self.respond(now, transaction, 200, extra, None);
        if expires_s == 0 {
            self.tell(Event::Unsubscribed {
                subscription: key,
                expired: false,
            });
        } else {
            self.prolong(now, key, expires_s);
            self.tell(Event::Resubscribed { subscription: key });
        }
        Ok(())
    }

    /// The subscription within a call's dialog that a SUBSCRIBE there means.
    pub(super) fn subscription_in_call(
        &mut self,
        call: CallKey,
        request: &Message<'_>,
    ) -> Option<SubscriptionKey> {
        let keys = self.call(call)?.subscriptions.clone();
        keys.into_iter().find(|&key| {
            self.subscription(key)
                .is_some_and(|subscription| subscription.is_for(request))
        })
    }

    fn prolong(&mut self, now: Instant, key: SubscriptionKey, expires_s: u32) {
        let epoch = self.next_generation();
        let expires = now + Duration::from_secs(expires_s.into());
        if let Some(subscription) = self.subscription(key) {
            subscription.expires = expires;
            subscription.epoch = epoch;
            self.arm_far(now, expires, Wake::Subscription(key, epoch));
        }
    }

    pub(super) fn on_subscription_due(&mut self, now: Instant, key: SubscriptionKey, epoch: u32) {
        let known = self.subscription(key);
        let Some(known) = known.filter(|known| known.epoch == epoch && !known.ending) else {
            return;
        };
        let expires = known.expires;
        if expires > now {
            self.arm_far(now, expires, Wake::Subscription(key, epoch));
        } else {
            self.tell(Event::Unsubscribed {
                subscription: key,
                expired: true,
            });
        }
    }

    pub(super) fn subscription(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        self.subscriptions
            .get_mut(key.slot as usize)
            .map(|subscription| &mut **subscription)
            .filter(|subscription| subscription.generation == key.generation)
    }

    pub(super) fn subscription_dialog(&mut self, key: SubscriptionKey) -> Option<&mut Dialog> {
        let call = match &self.subscription(key)?.dialog {
            Place::Own(_) => None,
            Place::OfCall(call) => Some(*call),
        };
        match call {
            Some(call) => self.call(call).map(|call| &mut call.dialog),
            None => match &mut self.subscription(key)?.dialog {
                Place::Own(dialog) => Some(dialog),
                Place::OfCall(_) => None,
            },
        }
    }

    /// The subscriber is out of reach; the user is told.
    pub(super) fn lose_subscription(&mut self, key: SubscriptionKey) {
        if self.subscription(key).is_some() {
            self.drop_subscription(key);
            self.tell(Event::SubscriptionLost { subscription: key });
        }
    }

    fn drop_subscription(&mut self, key: SubscriptionKey) {
        if self.subscription(key).is_none() {
            return;
        }
        let subscription = self.subscriptions.remove(key.slot as usize);
        match subscription.dialog {
            Place::Own(dialog) => drop(self.dialog_of.remove(&dialog.key())),
            Place::OfCall(call) => {
                if let Some(call) = self.call(call) {
                    call.subscriptions.retain(|known| *known != key);
                }
            }
        }
    }

    /// Subscribers over a connection that has gone are reached anew, or lost with their next NOTIFY.
    pub(super) fn on_subscribers_flow_closed(&mut self, flow: Flow) {
        for (_, subscription) in &mut self.subscriptions {
            if let Place::Own(dialog) = &mut subscription.dialog
                && dialog.flow.stream == flow.stream
                && dialog.flow.transport == flow.transport
                && let Some(anew) = dialog.reached_anew(&self.config.listeners)
            {
                dialog.flow = anew;
            }
        }
    }
}

impl Subscription {
    fn usage(&self, key: SubscriptionKey) -> Usage {
        match self.dialog {
            Place::Own(_) => Usage::Subscription(key),
            Place::OfCall(call) => Usage::Call(call),
        }
    }

    fn is_for(&self, request: &Message<'_>) -> bool {
        let asked = request.header("Event").unwrap_or_default();
        event_and_id(asked) == event_and_id(&self.event)
    }
}

/// What tells subscriptions of one dialog apart (RFC 6665 §8.2.1); other parameters do not.
fn event_and_id(value: &str) -> (String, Option<&str>) {
    let mut parts = value.split(';').map(str::trim);
    let package = parts.next().unwrap_or_default().to_ascii_lowercase();
    let id = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("id"))
        .map(|(_, id)| id.trim());
    (package, id)
}

/// The seconds a SUBSCRIBE asks for: 0, or within what is given here.
pub(super) fn expires_asked(request: &Message<'_>) -> Result<u32, Refusal> {
    let Some(value) = request.header("Expires") else {
        return Ok(EXPIRES_MAX_S);
    };
    // RFC 3261 §20.19: what cannot be read counts as 3600.
    match value.parse::<u32>().unwrap_or(EXPIRES_MAX_S) {
        0 => Ok(0),
        short if short < EXPIRES_MIN_S => Err(Refusal::with(
            423,
            "Min-Expires",
            &EXPIRES_MIN_S.to_string(),
        )),
        expires => Ok(expires.min(EXPIRES_MAX_S)),
    }
}
