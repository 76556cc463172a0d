//! A phone and whoever holds it: a real SIP endpoint that follows redirects, lets itself be moved as far
//! as it knows how, and calls again when nobody answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::refer::{DialogId, ReferTo};
use sip::{
    Body, CallKey, Ended, Endpoint, Event, Flow, Invitation, Invite, ListenerIdentity, Method,
    Named, Output, Rejection, Request, SessionPolicy, SubscriptionKey, Transport, sipfrag,
};

use super::net::Host;

/// What a phone can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skills {
    pub(super) refer: bool,
    pub(super) replaces: bool,
}

/// What the world hears of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An INVITE has gone out; to an address that a redirect named, if it is hopped.
    Placed {
        to: Host,
        hopped: bool,
    },
    Redirected {
        from: Host,
        hopped: bool,
    },
    /// No answer but a refusal; 408: none at all. `is_last`: no redirect has named another server.
    Refused {
        from: Host,
        hopped: bool,
        status: u16,
        is_last: bool,
    },
    Up {
        at: Host,
    },
    /// His call is over by BYE of the server's, or because its session was, and he was not on his way to
    /// another server.
    Over {
        at: Host,
        cause: Ended,
    },
    /// He was refused so often that he gives up.
    GaveUp,
    /// Somebody has called him in place of a call of his.
    CalledBack {
        by: Host,
        instead_of: Host,
    },
    /// He was asked to move, and has or has not.
    Referred {
        from: Host,
    },
    Moved {
        from: Host,
        to: Host,
    },
    /// He was asked for something that he never said he could do.
    Disturbed {
        by: Host,
        what: &'static str,
    },
}

/// What he is about.
#[derive(Clone, Debug)]
pub(super) enum State {
    Idle,
    /// Calls again then.
    Waiting {
        until: Instant,
    },
    Calling(Attempt),
    Up(Leg),
}

/// A call that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) call: CallKey,
    pub(super) at: Host,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    call: CallKey,
    pub(super) to: Host,
    pub(super) hopped: bool,
    /// Where a redirect says that he may try next.
    others: VecDeque<String>,
    redirects: u8,
}

/// A move that he was asked for: the new call, and who wants to know how it went.
#[derive(Debug)]
struct Move {
    attempt: Attempt,
    subscription: SubscriptionKey,
    from: Leg,
}

/// Redirects followed in one attempt; nobody should need more than one.
const REDIRECTS_MAX: u8 = 5;

/// Refusals after which he gives up.
const TRIES_MAX: u32 = 6;

/// After he has moved he ends the old call himself, if nobody else does.
const OLD_CALL_LINGERS: Duration = Duration::from_secs(5);

pub(super) struct Caller {
    pub(super) host: Host,
    pub(super) skills: Skills,
    pub(super) room: String,
    /// Servers that he knows, in the order in which he tries them.
    servers: Vec<Host>,
    next_server: usize,
    /// Refusals since he began to want to be in the room.
    pub(super) tries: u32,
    sip: Endpoint,
    pub(super) state: State,
    moving: Option<Move>,
    old: Vec<(Instant, Leg)>,
    sent: Vec<(SocketAddr, Bytes)>,
    heard: Vec<Heard>,
}

impl Caller {
    pub(super) fn new(host: Host, skills: Skills, servers: Vec<Host>, seed: u64) -> Self {
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: host.address().to_string(),
        };
        let mut config = sip::Config::new(host.0, vec![identity], seed);
        // Only so it takes REFER; what phones do not say of themselves is taken out again.
        config.focus = true;
        config.session = SessionPolicy {
            expires_s: 90,
            min_s: 90,
        };
        Self {
            host,
            skills,
            room: String::new(),
            servers,
            next_server: 0,
            tries: 0,
            sip: Endpoint::new(config),
            state: State::Idle,
            moving: None,
            old: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
        }
    }

    pub(super) fn uri(&self) -> String {
        entity(self.host)
    }

    /// He wants to be in this room from now on.
    pub(super) fn join(&mut self, now: Instant, room: &str) {
        if matches!(self.state, State::Idle) {
            room.clone_into(&mut self.room);
            self.tries = 0;
            self.call_a_server(now);
        }
    }

    fn call_a_server(&mut self, now: Instant) {
        let to = self.servers[self.next_server % self.servers.len()];
        let target = format!("sip:{}@{}", self.room, to.address());
        self.state = match self.place(now, target, 0, VecDeque::new()) {
            Some(attempt) => State::Calling(attempt),
            None => State::Idle,
        };
    }

    fn place(
        &mut self,
        now: Instant,
        target: String,
        redirects: u8,
        others: VecDeque<String>,
    ) -> Option<Attempt> {
        let to = host_of(&target)?;
        let hopped = target.contains("crt-hop");
        let invitation = Invitation {
            target,
            from: self.uri(),
            contact_user: format!("c{}", self.host.0),
            body: Some(self.sdp()),
            ..Invitation::default()
        };
        let call = self.sip.invite(now, flow(to.address()), invitation).ok()?;
        self.heard.push(Heard::Placed { to, hopped });
        Some(Attempt {
            call,
            to,
            hopped,
            others,
            redirects,
        })
    }

    fn sdp(&self) -> Body {
        let ip = self.host.address().ip();
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
        );
        Body {
            content_type: "application/sdp".to_owned(),
            content: text.into(),
        }
    }

    /// He has had enough: of this call or of waiting for it.
    pub(super) fn hang_up(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle | State::Waiting { .. } => {}
            State::Calling(attempt) => self.sip.bye(now, attempt.call, None),
            State::Up(leg) => self.sip.bye(now, leg.call, None),
        }
        if let Some(moving) = self.moving.take() {
            self.sip.bye(now, moving.attempt.call, None);
        }
        for (_, leg) in std::mem::take(&mut self.old) {
            self.sip.bye(now, leg.call, None);
        }
    }

    /// He hears nothing any more: hangs up, and calls again.
    pub(super) fn call_again(&mut self, now: Instant) {
        self.hang_up(now);
        self.next_server += 1;
        self.tries = 0;
        self.call_a_server(now);
    }

    pub(super) fn take_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &Bytes) {
        self.sip.handle_message(now, flow(from), datagram);
        self.listen(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.sip.handle_timeout(now);
        if let State::Waiting { until } = self.state
            && now >= until
        {
            self.call_a_server(now);
        }
        let lingers = |(until, _): &(Instant, Leg)| *until > now;
        let (stay, go): (Vec<_>, Vec<_>) = self.old.drain(..).partition(lingers);
        self.old = stay;
        for (_, leg) in go {
            self.sip.bye(now, leg.call, None);
        }
        self.listen(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = match self.state {
            State::Waiting { until } => Some(until),
            _ => None,
        };
        let old = self.old.iter().map(|(until, _)| *until).min();
        [self.sip.poll_timeout(), waiting, old]
            .into_iter()
            .flatten()
            .min()
    }

    /// What he has sent since he was asked last.
    pub(super) fn take_sent(&mut self) -> Vec<(SocketAddr, Bytes)> {
        self.drain();
        std::mem::take(&mut self.sent)
    }

    pub(super) fn take_heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// Nothing is left of any call, transaction or deadline.
    pub(super) fn is_at_rest(&self) -> bool {
        self.sip.is_empty()
    }

    /// What he does may have events of its own: whoever hangs up loses what he subscribed to by that call.
    fn listen(&mut self, now: Instant) {
        loop {
            let events = self.drain();
            if events.is_empty() {
                return;
            }
            for event in events {
                self.on_event(now, event);
            }
        }
    }

    /// Keeps what is to be sent, gives what has happened.
    fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(output) = self.sip.poll_output() {
            match output {
                Output::Transmit { flow, message } => {
                    let message = self.spoken(&message);
                    self.sent.push((flow.peer, message));
                }
                // He said so himself.
                Output::Event(Event::Ended {
                    cause: Ended::LocalBye,
                    ..
                }) => {}
                Output::Event(event) => events.push(event),
            }
        }
        events
    }

    /// The message as a phone of his skills says it.
    fn spoken(&self, message: &Bytes) -> Bytes {
        let text = String::from_utf8_lossy(message);
        let mut text = text.replacen(";isfocus", "", 1);
        for (header, word, has) in [
            ("Allow: ", ", SUBSCRIBE", false),
            ("Allow: ", ", MESSAGE", false),
            ("Allow: ", ", REFER", self.skills.refer),
            ("Supported: ", " replaces,", self.skills.replaces),
        ] {
            let line = text.lines().find(|line| line.starts_with(header));
            if let Some(line) = line.filter(|_| !has).map(str::to_owned) {
                text = text.replacen(&line, &line.replacen(word, "", 1), 1);
            }
        }
        text.into()
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Accepted { call, .. } => self.on_accepted(now, call),
            Event::Redirected { call, contacts } => self.on_redirected(now, call, contacts),
            Event::Rejected {
                call,
                status,
                retry_after_s,
            } => self.on_rejected(now, call, status, retry_after_s),
            Event::Ended { call, cause } => self.on_ended(now, call, cause),
            Event::Invite(invite) => self.on_invite(now, *invite),
            Event::Request(request) => self.on_request(now, *request),
            Event::Reinvite { call, .. } => {
                let body = self.sdp();
                self.sip
                    .accept(now, call, &format!("c{}", self.host.0), body);
            }
            Event::Options { request, .. } => self.sip.respond_options(now, request, None),
            Event::Unsubscribed { subscription, .. } => {
                self.sip
                    .end_subscription(now, subscription, "timeout", None);
            }
            Event::Established { .. }
            | Event::Changed { .. }
            | Event::Referred { .. }
            | Event::Progress { .. }
            | Event::Dtmf { .. }
            | Event::Answered { .. }
            | Event::Resubscribed { .. }
            | Event::SubscriptionLost { .. } => {}
        }
    }

    fn on_accepted(&mut self, now: Instant, call: CallKey) {
        match &self.state {
            State::Calling(attempt) if attempt.call == call => {
                let at = attempt.to;
                self.state = State::Up(Leg { call, at });
                self.tries = 0;
                return self.heard.push(Heard::Up { at });
            }
            _ => {}
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.attempt.call == call) {
            let leg = Leg {
                call,
                at: moving.attempt.to,
            };
            self.tell_mover(now, &moving, 200);
            self.heard.push(Heard::Moved {
                from: moving.from.at,
                to: leg.at,
            });
            if let State::Up(old) = self.state {
                self.old.push((now + OLD_CALL_LINGERS, old));
            }
            self.state = State::Up(leg);
        } else {
            // He hung up while it was being answered.
            self.sip.bye(now, call, None);
        }
    }

    fn tell_mover(&mut self, now: Instant, moving: &Move, status: u16) {
        let body = Body {
            content_type: sipfrag::MEDIA_TYPE.to_owned(),
            content: sipfrag::write(status, ""),
        };
        self.sip
            .end_subscription(now, moving.subscription, "noresource", Some(body));
    }

    fn on_redirected(&mut self, now: Instant, call: CallKey, contacts: Vec<String>) {
        if let State::Calling(attempt) = &self.state
            && attempt.call == call
        {
            self.heard.push(Heard::Redirected {
                from: attempt.to,
                hopped: attempt.hopped,
            });
            let redirects = attempt.redirects + 1;
            self.state = match self.follow(now, contacts.into(), redirects) {
                Some(attempt) => State::Calling(attempt),
                None => self.try_later(now, None),
            };
            return;
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.attempt.call == call) {
            self.heard.push(Heard::Redirected {
                from: moving.attempt.to,
                hopped: moving.attempt.hopped,
            });
            match self.follow(now, contacts.into(), moving.attempt.redirects + 1) {
                Some(attempt) => self.moving = Some(Move { attempt, ..moving }),
                None => self.tell_mover(now, &moving, 480),
            }
        }
    }

    fn follow(
        &mut self,
        now: Instant,
        mut contacts: VecDeque<String>,
        redirects: u8,
    ) -> Option<Attempt> {
        if redirects > REDIRECTS_MAX {
            return None;
        }
        let target = contacts.pop_front()?;
        self.place(now, target, redirects, contacts)
    }

    fn on_rejected(
        &mut self,
        now: Instant,
        call: CallKey,
        status: u16,
        retry_after_s: Option<u32>,
    ) {
        if let Some(moving) = self.moving.take_if(|moving| moving.attempt.call == call) {
            return self.tell_mover(now, &moving, status);
        }
        let attempt = match &self.state {
            State::Calling(attempt) if attempt.call == call => attempt.clone(),
            _ => return,
        };
        self.heard.push(Heard::Refused {
            from: attempt.to,
            hopped: attempt.hopped,
            status,
            is_last: attempt.others.is_empty(),
        });
        // RFC 3261 §8.1.3.4: the next of those that the redirect named.
        self.state = match self.follow(now, attempt.others, attempt.redirects) {
            Some(attempt) => State::Calling(attempt),
            None => self.try_later(now, retry_after_s),
        };
    }

    fn try_later(&mut self, now: Instant, retry_after_s: Option<u32>) -> State {
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            self.heard.push(Heard::GaveUp);
            return State::Idle;
        }
        self.next_server += 1;
        let wait = Duration::from_secs(retry_after_s.unwrap_or(1).into());
        State::Waiting { until: now + wait }
    }

    fn on_ended(&mut self, now: Instant, call: CallKey, cause: Ended) {
        self.old.retain(|(_, leg)| leg.call != call);
        match self.state {
            State::Up(leg) if leg.call == call => {
                // A move under way is what he is on now.
                self.state = match self.moving.take() {
                    Some(moving) => State::Calling(moving.attempt),
                    None => {
                        self.heard.push(Heard::Over { at: leg.at, cause });
                        self.try_later(now, None)
                    }
                };
            }
            _ => {}
        }
    }

    /// Somebody calls him, in place of a call that he has.
    fn on_invite(&mut self, now: Instant, invite: Invite) {
        let by = Host::of(invite.flow.peer).unwrap_or(self.host);
        let replaced = match invite.replaces.as_deref().map(DialogId::replaces) {
            Some(Ok(id)) => self.sip.named(&id.call_id, &id.to_tag, &id.from_tag),
            Some(Err(_)) | None => {
                self.heard.push(Heard::Disturbed { by, what: "INVITE" });
                return self.sip.reject(now, invite.call, Rejection::new(486));
            }
        };
        let (replaced, state) = match (self.skills.replaces, &self.state) {
            // A phone that knows nothing of Replaces rings, and whoever hears silence picks it up.
            (false, State::Up(leg)) => (Named::Confirmed(leg.call), self.state.clone()),
            _ => (replaced, self.state.clone()),
        };
        let (replaced, leg) = match (replaced, state) {
            (Named::Confirmed(call), State::Up(leg)) if leg.call == call => (call, leg),
            (Named::Over, _) => return self.sip.reject(now, invite.call, Rejection::new(603)),
            _ => return self.sip.reject(now, invite.call, Rejection::new(481)),
        };
        let body = self.sdp();
        self.sip
            .accept(now, invite.call, &format!("c{}", self.host.0), body);
        let new = Leg {
            call: invite.call,
            at: by,
        };
        self.state = State::Up(new);
        self.heard.push(Heard::CalledBack {
            by,
            instead_of: leg.at,
        });
        // RFC 3891 §3: whoever accepts ends the call that is replaced.
        self.sip.bye(now, replaced, None);
    }

    fn on_request(&mut self, now: Instant, request: Request) {
        let by = Host::of(request.flow.peer).unwrap_or(self.host);
        let leg = match (request.method, &self.state) {
            (Method::Refer, State::Up(leg)) if request.call == Some(leg.call) => *leg,
            _ => {
                return self
                    .sip
                    .refuse_request(now, request.key, &Rejection::new(481));
            }
        };
        if !self.skills.refer {
            let what = "REFER";
            self.heard.push(Heard::Disturbed { by, what });
            return self
                .sip
                .refuse_request(now, request.key, &Rejection::new(405));
        }
        let target = request.header("Refer-To").map(ReferTo::parse);
        let (Some(Ok(target)), None) = (target, &self.moving) else {
            return self
                .sip
                .refuse_request(now, request.key, &Rejection::new(400));
        };
        self.heard.push(Heard::Referred { from: leg.at });
        let contact = format!("c{}", self.host.0);
        let accepted = self
            .sip
            .accept_subscription(now, request.key, "refer", 120, &contact);
        let Some(subscription) = accepted else { return };
        let trying = Body {
            content_type: sipfrag::MEDIA_TYPE.to_owned(),
            content: sipfrag::write(100, ""),
        };
        self.sip.notify(now, subscription, Some(trying));
        if let Some(attempt) = self.place(now, target.uri, 0, VecDeque::new()) {
            self.moving = Some(Move {
                attempt,
                subscription,
                from: leg,
            });
        }
    }
}

/// The URI by which a caller is known.
pub(super) fn entity(host: Host) -> String {
    format!("sip:c{}@{}", host.0, host.address().ip())
}

pub(super) fn flow(peer: SocketAddr) -> Flow {
    Flow {
        transport: Transport::Udp,
        peer,
        listener: 0,
        stream: 0,
    }
}

/// Whose address a URI names.
pub(super) fn host_of(uri: &str) -> Option<Host> {
    let rest = uri.split_once('@').map_or(uri, |(_, rest)| rest);
    let rest = rest.trim_start_matches("sip:");
    let address = rest.split([';', '?', '>']).next()?;
    Host::of(address.parse().ok()?)
}
