//! The users' SIP: each calls the service, goes where it sends him, and asks it something from time to time.
//!
//! ```text
//!            ┌─────────── 302: the Contact ──────────┐
//!            ▼                                       │
//!   due ──> INVITE ──> 200 ──> up ──> OPTIONS, each `options_every`
//!            ▲           │
//!            └─ 503, Retry-After
//! ```
//! Times count from when a request was due, not from when it could be sent. The Contact of a 302 is called
//! as it is written, with all its parameters (RFC 3261 §8.1.3.4): by one of them servers know a caller who
//! has been sent on before.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::io::batch::BatchIo;
use engine::io::{MediaIo, SocketId, Token};
use engine::random::Random;
use sip::{
    CallKey, ClientKey, Endpoint, Event, Flow, Invitation, ListenerIdentity, Output, Transport,
};

use super::delays::{Delays, record};
use crate::rooms::{Offer, Seat, Stream};

/// More in a row is a loop.
const REDIRECTS_MAX: u32 = 5;

/// A caller who was refused so often gives up.
const REFUSALS_MAX: u32 = 10;

/// Who is refused without a hint waits for so long.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// What came of a request of a caller, for whoever plays the media and shows what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    Joined {
        user: usize,
        server: SocketAddr,
        stream: Joined,
    },
    Redirected {
        user: usize,
        from: SocketAddr,
        to: SocketAddr,
    },
    Refused {
        user: usize,
        by: SocketAddr,
        status: u16,
    },
    /// He was in, and is not any more.
    HungUp { user: usize },
}

/// A stream that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) remote: SocketAddr,
    pub(super) payload_type: u8,
}

impl From<Joined> for Stream {
    fn from(joined: Joined) -> Self {
        Self {
            remote: joined.remote,
            payload_type: joined.payload_type,
        }
    }
}

/// What became of all callers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) dialled: usize,
    pub(super) up: usize,
    pub(super) redirects: u64,
    pub(super) refusals: u64,
    /// Refused for good, or sent in circles.
    pub(super) given_up: usize,
    pub(super) hung_up: usize,
    /// OPTIONS sent within calls.
    pub(super) options_sent: u64,
    /// Of them, those that got another answer than 2xx, or none until their transaction ended.
    pub(super) options_failed: u64,
}

struct User {
    offer: Offer,
    room: usize,
    state: State,
    /// His first INVITE was due.
    since: Instant,
    redirects: u32,
    refusals: u32,
}

#[derive(Clone, Copy)]
enum State {
    /// Waits for his next try.
    Waiting,
    Calling {
        server: SocketAddr,
        due: Instant,
    },
    Up {
        call: CallKey,
    },
    Gone,
}

pub(super) struct Callers {
    /// Whom everybody calls first.
    entry: SocketAddr,
    options_every: Duration,
    io: BatchIo,
    socket: SocketId,
    endpoint: Endpoint,
    users: Vec<User>,
    by_call: HashMap<CallKey, usize>,
    asked: HashMap<ClientKey, Instant>,
    /// Users who have something to do, and when.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    random: Random,
    arrived: Vec<(SocketAddr, Bytes)>,
    happenings: Vec<Happening>,
    pub(super) delays: Delays,
    pub(super) tally: Tally,
}

impl Callers {
    pub(super) fn new(entry: SocketAddr, options_every: Duration) -> std::io::Result<Self> {
        let mut io = BatchIo::new()?;
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: socket.local_addr()?.to_string(),
        };
        let mut random = Random::from_entropy();
        let seed = random.next_u64();
        Ok(Self {
            entry,
            options_every,
            socket: io.adopt(socket, Token(0))?,
            io,
            endpoint: Endpoint::new(sip::Config::new(0, vec![identity], seed)),
            users: Vec::new(),
            by_call: HashMap::new(),
            asked: HashMap::new(),
            due: BinaryHeap::new(),
            random,
            arrived: Vec::new(),
            happenings: Vec::new(),
            delays: Delays::new(),
            tally: Tally::default(),
        })
    }

    /// One more caller, due now.
    pub(super) fn dial(&mut self, now: Instant, seat: &Seat) {
        let user = self.users.len();
        self.users.push(User {
            offer: Offer::new(seat, user as u64 + 1),
            room: seat.room,
            state: State::Waiting,
            since: now,
            redirects: 0,
            refusals: 0,
        });
        self.tally.dialled += 1;
        self.due.push(Reverse((now, user)));
    }

    /// OPTIONS that nobody has answered yet.
    pub(super) fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// What has happened since this was last asked.
    pub(super) fn happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    /// Takes in what came and sends what is due; takes less than a millisecond.
    pub(super) fn turn(&mut self, now: Instant) -> std::io::Result<()> {
        let Self { io, arrived, .. } = self;
        io.harvest(&mut |arrivals| {
            let datagrams = arrivals
                .iter()
                .map(|arrival| (arrival.from, Bytes::copy_from_slice(arrival.datagram)));
            arrived.extend(datagrams);
        })?;
        for (from, message) in std::mem::take(&mut self.arrived) {
            if let Some(flow) = self.flow(from) {
                self.endpoint.handle_message(now, flow, &message);
            }
        }
        self.endpoint.handle_timeout(now);
        while let Some(&Reverse((at, user))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            self.act(now, at, user);
        }
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { flow, message } => {
                    let payload = self.io.share(&message);
                    self.io.queue(self.socket, flow.peer, &[], payload);
                }
                Output::Event(event) => self.on_event(now, event),
            }
        }
        self.io.flush();
        Ok(())
    }

    /// Ends all calls, at so many a second; waits no longer than `patience` for answers.
    pub(super) fn leave(
        &mut self,
        rate: f64,
        patience: Duration,
        mut meanwhile: impl FnMut() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        self.due.clear();
        let start = Instant::now();
        let mut calls: Vec<CallKey> = self.by_call.keys().copied().collect();
        let until = start + Duration::from_secs_f64(calls.len() as f64 / rate) + patience;
        let all = calls.len();
        while !(calls.is_empty() && self.endpoint.is_idle()) {
            let now = Instant::now();
            if now > until {
                break;
            }
            let due = ((now - start).as_secs_f64() * rate) as usize;
            while all - calls.len() < due.min(all) {
                if let Some(call) = calls.pop() {
                    self.endpoint.bye(now, call, None);
                }
            }
            self.turn(now)?;
            self.happenings.clear();
            meanwhile()?;
        }
        Ok(())
    }

    fn flow(&self, peer: SocketAddr) -> Option<Flow> {
        self.endpoint.flow_over(Transport::Udp, peer)
    }

    fn act(&mut self, now: Instant, due: Instant, user: usize) {
        match self.users[user].state {
            State::Waiting => {
                let target = format!("sip:perf{}@{}", self.users[user].room, self.entry);
                self.call(now, due, user, self.entry, target);
            }
            State::Up { call } => {
                let asked = self
                    .endpoint
                    .request_in_call(now, call, "OPTIONS", &[], None);
                if let Some(key) = asked {
                    self.asked.insert(key, due);
                    self.tally.options_sent += 1;
                }
                self.due.push(Reverse((due + self.options_every, user)));
            }
            State::Calling { .. } | State::Gone => {}
        }
    }

    fn call(
        &mut self,
        now: Instant,
        due: Instant,
        user: usize,
        server: SocketAddr,
        target: String,
    ) {
        let invitation = Invitation {
            target,
            from: format!("sip:caller{user}@127.0.0.1"),
            contact_user: format!("caller{user}"),
            body: Some(self.users[user].offer.body()),
            ..Invitation::default()
        };
        let call = self
            .flow(server)
            .and_then(|flow| self.endpoint.invite(now, flow, invitation).ok());
        match call {
            Some(call) => {
                self.by_call.insert(call, user);
                self.users[user].state = State::Calling { server, due };
            }
            None => self.give_up(user),
        }
    }

    fn give_up(&mut self, user: usize) {
        self.users[user].state = State::Gone;
        self.tally.given_up += 1;
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Accepted { call, body } => {
                let Some(&user) = self.by_call.get(&call) else {
                    return;
                };
                let State::Calling { server, due } = self.users[user].state else {
                    return;
                };
                record(&mut self.delays.invite, now, due);
                record(&mut self.delays.join, now, self.users[user].since);
                let Ok(stream) = self.users[user].offer.stream(body.as_ref()) else {
                    self.endpoint.bye(now, call, None);
                    self.by_call.remove(&call);
                    return self.give_up(user);
                };
                self.users[user].state = State::Up { call };
                self.tally.up += 1;
                // Spread, or all who came in one second would ask in one second.
                let share = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
                let first = now + self.options_every.mul_f64(share);
                self.due.push(Reverse((first, user)));
                let stream = Joined {
                    remote: stream.remote,
                    payload_type: stream.payload_type,
                };
                self.happenings.push(Happening::Joined {
                    user,
                    server,
                    stream,
                });
            }
            Event::Redirected { call, contacts } => {
                let Some((user, from, due)) = self.called(call) else {
                    return;
                };
                record(&mut self.delays.invite, now, due);
                self.tally.redirects += 1;
                self.users[user].redirects += 1;
                let target = contacts
                    .into_iter()
                    .find_map(|uri| Some((self.endpoint.flow_to(&uri)?.peer, uri)))
                    .filter(|(to, _)| to.ip().is_loopback());
                match target {
                    Some((to, uri)) if self.users[user].redirects <= REDIRECTS_MAX => {
                        self.happenings
                            .push(Happening::Redirected { user, from, to });
                        self.call(now, now, user, to, uri);
                    }
                    _ => self.give_up(user),
                }
            }
            Event::Rejected {
                call,
                status,
                retry_after_s,
            } => {
                let Some((user, by, _)) = self.called(call) else {
                    return;
                };
                self.tally.refusals += 1;
                self.happenings
                    .push(Happening::Refused { user, by, status });
                let refused = &mut self.users[user];
                refused.refusals += 1;
                refused.redirects = 0;
                if status == 503 && refused.refusals <= REFUSALS_MAX {
                    refused.state = State::Waiting;
                    let after =
                        retry_after_s.map_or(RETRY_AFTER, |s| Duration::from_secs(s.into()));
                    self.due.push(Reverse((now + after, user)));
                } else {
                    self.give_up(user);
                }
            }
            Event::Ended { call, .. } => {
                if let Some(user) = self.by_call.remove(&call)
                    && let State::Up { .. } = self.users[user].state
                {
                    self.users[user].state = State::Gone;
                    self.tally.up -= 1;
                    self.tally.hung_up += 1;
                    self.happenings.push(Happening::HungUp { user });
                }
            }
            Event::Answered { request, status } => {
                if let Some(due) = self.asked.remove(&request) {
                    // An error is fast, and a 408 of our own transaction is nobody's answer.
                    match status {
                        200..300 => record(&mut self.delays.options, now, due),
                        _ => self.tally.options_failed += 1,
                    }
                }
            }
            _ => {}
        }
    }

    /// Whose INVITE this was, to whom, and when it was due: it has its final answer.
    fn called(&mut self, call: CallKey) -> Option<(usize, SocketAddr, Instant)> {
        let user = self.by_call.remove(&call)?;
        let State::Calling { server, due } = self.users[user].state else {
            return None;
        };
        Some((user, server, due))
    }
}

#[cfg(test)]
mod tests;
