//! Two endpoints, one virtual clock, a network that can be spoiled.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod peer;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::{
    Body, CallKey, Config, Ended, Endpoint, Event, Flow, Invitation, Invite, ListenerIdentity,
    Output, Transport,
};

pub const DELAY: Duration = Duration::from_millis(10);

/// Whether the n-th message (from 0, both directions), which begins with this line, is lost.
pub type Loss = Box<dyn Fn(usize, &str) -> bool>;

pub struct Pair {
    pub now: Instant,
    /// The caller and the callee.
    pub ends: [Endpoint; 2],
    pub events: [VecDeque<Event>; 2],
    pub wire: VecDeque<(Instant, usize, Bytes)>,
    pub transport: Transport,
    pub sent: Vec<String>,
    pub loss: Loss,
}

pub fn address(end: usize) -> SocketAddr {
    ([192, 0, 2, 1 + end as u8], 5060).into()
}

pub fn body(text: &str) -> Body {
    Body {
        content_type: "application/sdp".to_owned(),
        content: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// These lines and an offer.
pub fn sdp_lines<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    [lines, &["Content-Type: application/sdp", "\nv=0\r\n"]].concat()
}

impl Pair {
    pub fn new() -> Self {
        Self::with(Transport::Udp, Box::new(|_, _| false))
    }

    pub fn losing(loss: impl Fn(usize, &str) -> bool + 'static) -> Self {
        Self::with(Transport::Udp, Box::new(loss))
    }

    pub fn with(transport: Transport, loss: Loss) -> Self {
        Self::configured(transport, loss, |_, _| {})
    }

    /// With this done to the configuration of each end.
    pub fn configured(
        transport: Transport,
        loss: Loss,
        change: impl Fn(usize, &mut Config),
    ) -> Self {
        let end = |end: usize| {
            let identity = ListenerIdentity {
                transport,
                sent_by: address(end).to_string(),
            };
            let mut config = Config::new(end as u16, vec![identity], end as u64 + 1);
            change(end, &mut config);
            Endpoint::new(config)
        };
        Self {
            now: Instant::now(),
            ends: [end(0), end(1)],
            events: Default::default(),
            wire: VecDeque::new(),
            transport,
            sent: Vec::new(),
            loss,
        }
    }

    pub fn flow(&self, to: usize) -> Flow {
        let stream = u64::from(self.transport.is_reliable());
        Flow {
            transport: self.transport,
            peer: address(to),
            listener: 0,
            stream,
        }
    }

    pub fn call(&mut self, offer: Option<Body>) -> CallKey {
        let invitation = Invitation {
            target: format!("sip:room@{}", address(1)),
            from: "sip:caller@192.0.2.1".to_owned(),
            contact_user: "caller".to_owned(),
            body: offer,
            ..Invitation::default()
        };
        let flow = self.flow(1);
        self.ends[0].invite(self.now, flow, invitation).unwrap()
    }

    /// Moves what was said onto the wire.
    pub fn collect(&mut self) {
        for end in 0..2 {
            while let Some(output) = self.ends[end].poll_output() {
                match output {
                    Output::Event(event) => self.events[end].push_back(event),
                    Output::Transmit { flow, message } => {
                        assert_eq!(flow.peer, address(1 - end), "sent to the other one");
                        if let Err(error) = rsip::SipMessage::try_from(&message[..]) {
                            panic!("{error}: {}", String::from_utf8_lossy(&message));
                        }
                        let line = String::from_utf8_lossy(&message)
                            .lines()
                            .next()
                            .unwrap_or_default()
                            .to_owned();
                        let lost = (self.loss)(self.sent.len(), &line);
                        self.sent.push(line);
                        if !lost {
                            self.wire.push_back((self.now + DELAY, 1 - end, message));
                        }
                    }
                }
            }
        }
    }

    /// Lets time pass up to `limit`, until `done`.
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        loop {
            self.collect();
            if done(self) {
                return;
            }
            let arrival = self.wire.front().map(|(when, ..)| *when);
            let timeouts = self.ends.iter().filter_map(Endpoint::poll_timeout);
            let Some(next) = timeouts.chain(arrival).min().filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if arrival.is_some_and(|when| when <= self.now) {
                let (_, to, message) = self.wire.pop_front().unwrap();
                let flow = self.flow(1 - to);
                self.ends[to].handle_message(self.now, flow, &message);
            } else {
                self.ends
                    .iter_mut()
                    .for_each(|end| end.handle_timeout(self.now));
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    #[track_caller]
    pub fn expect<T>(&mut self, end: usize, what: impl Fn(Event) -> Option<T>) -> T {
        let mut found = None;
        self.run(Duration::from_secs(100), |pair| {
            found = pair.events[end].pop_front();
            found.is_some()
        });
        let event = found.expect("an event");
        let text = format!("{event:?}");
        what(event).unwrap_or_else(|| panic!("unexpected {text}\n{:#?}", self.sent))
    }

    #[track_caller]
    pub fn expect_invite(&mut self) -> Invite {
        self.expect(1, |event| {
            if let Event::Invite(invite) = event {
                Some(*invite)
            } else {
                None
            }
        })
    }

    #[track_caller]
    pub fn expect_ended(&mut self, end: usize) -> Ended {
        self.expect(end, |event| {
            if let Event::Ended { cause, .. } = event {
                Some(cause)
            } else {
                None
            }
        })
    }

    #[track_caller]
    pub fn expect_established(&mut self) -> Option<Body> {
        self.expect(1, |event| {
            if let Event::Established { body, .. } = event {
                Some(body)
            } else {
                None
            }
        })
    }

    #[track_caller]
    pub fn expect_accepted(&mut self) -> Option<Body> {
        self.expect(0, |event| {
            if let Event::Accepted { body, .. } = event {
                Some(body)
            } else {
                None
            }
        })
    }

    #[track_caller]
    pub fn expect_rejected(&mut self) -> (u16, Option<u32>) {
        self.expect(0, |event| match event {
            Event::Rejected {
                status,
                retry_after_s,
                ..
            } => Some((status, retry_after_s)),
            _ => None,
        })
    }

    /// A call that is up: both ends' names of it.
    pub fn up(&mut self) -> (CallKey, CallKey) {
        let caller = self.call(Some(body("offer")));
        let callee = self.expect_invite().call;
        self.ends[1].accept(self.now, callee, "room", body("answer"));
        assert_eq!(self.expect_accepted(), Some(body("answer")));
        assert_eq!(self.expect_established(), None);
        (caller, callee)
    }

    pub fn count(&self, start: &str) -> usize {
        self.sent
            .iter()
            .filter(|line| line.starts_with(start))
            .count()
    }

    /// Nothing is left behind anywhere.
    pub fn assert_forgotten(&mut self) {
        self.pass(Duration::from_secs(70));
        assert!(
            self.events.iter().all(VecDeque::is_empty),
            "{:?}",
            self.events
        );
        assert!(self.ends.iter().all(Endpoint::is_idle));
        assert!(
            self.ends.iter().all(|end| end.poll_timeout().is_none()),
            "a timer is still armed"
        );
    }
}
