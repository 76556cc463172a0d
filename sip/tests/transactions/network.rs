//! Two watched endpoints and a network that loses, doubles, delays and reorders.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use sip::{Config, Flow, Invitation, ListenerIdentity, SessionPolicy, Transport};

use super::watch::{Watched, body};

/// What the users do.
#[derive(Clone, Debug)]
pub enum Act {
    Call { with_offer: bool },
    Ring(usize),
    Accept(usize),
    Reject(usize),
    Redirect(usize),
    Cancel(usize),
    Bye(usize),
}

/// An act of one end, after a while.
#[derive(Clone, Debug)]
pub struct Step {
    after_ms: u64,
    end: usize,
    act: Act,
}

/// What becomes of a datagram: the delay of each copy that arrives.
type Fate = Vec<u64>;

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![
        3 => any::<bool>().prop_map(|with_offer| Act::Call { with_offer }),
        2 => (0..4_usize).prop_map(Act::Ring),
        4 => (0..4_usize).prop_map(Act::Accept),
        2 => (0..4_usize).prop_map(Act::Reject),
        1 => (0..4_usize).prop_map(Act::Redirect),
        2 => (0..4_usize).prop_map(Act::Cancel),
        3 => (0..4_usize).prop_map(Act::Bye),
    ];
    let after_ms = prop_oneof![3 => 0..50_u64, 2 => 50..3_000_u64, 1 => 3_000..40_000_u64];
    let step =
        (after_ms, 0..2_usize, act).prop_map(|(after_ms, end, act)| Step { after_ms, end, act });
    prop::collection::vec(step, 1..24)
}

/// In order of sending, again from the beginning when they are used up. No copy lives longer than T4.
pub fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let delay = prop_oneof![6 => 1..40_u64, 2 => 40..900_u64, 1 => 900..4_500_u64];
    let fate = prop_oneof![
        6 => prop::collection::vec(delay.clone(), 1),
        2 => Just(Vec::new()),
        1 => prop::collection::vec(delay, 2..4),
    ];
    prop::collection::vec(fate, 1..48)
}

pub fn sessions() -> impl Strategy<Value = SessionPolicy> {
    prop_oneof![
        Just(SessionPolicy::default()),
        // So short that refreshing falls into everything else.
        Just(SessionPolicy {
            expires_s: 6,
            min_s: 2
        }),
    ]
}

pub struct World {
    now: Instant,
    ends: [Watched; 2],
    fates: Vec<Fate>,
    sent: usize,
    /// By time of arrival, and number, so that none replaces another.
    wire: BTreeMap<(Instant, usize), (usize, Bytes)>,
}

fn address(end: usize) -> SocketAddr {
    ([192, 0, 2, 1 + end as u8], 5060).into()
}

fn flow(to: usize) -> Flow {
    Flow {
        transport: Transport::Udp,
        peer: address(to),
        listener: 0,
        stream: 0,
    }
}

impl World {
    pub fn new(fates: Vec<Fate>, session: SessionPolicy) -> Self {
        let end = |end: usize| {
            let identity = ListenerIdentity {
                transport: Transport::Udp,
                sent_by: address(end).to_string(),
            };
            let config = Config::new(end as u16, vec![identity], end as u64 + 1);
            Watched::new(Config { session, ..config })
        };
        Self {
            now: Instant::now(),
            ends: [end(0), end(1)],
            fates,
            sent: 0,
            wire: BTreeMap::new(),
        }
    }

    pub fn play(&mut self, steps: Vec<Step>) {
        for Step { after_ms, end, act } in steps {
            self.run(Duration::from_millis(after_ms));
            self.act(end, act);
            self.collect();
        }
    }

    fn act(&mut self, end: usize, act: Act) {
        let now = self.now;
        let watched = &mut self.ends[end];
        if let Act::Call { with_offer } = act {
            let invitation = Invitation {
                target: format!("sip:room@{}", address(1 - end)),
                from: format!("sip:caller@{}", address(end).ip()),
                contact_user: "caller".to_owned(),
                body: with_offer.then(body),
                ..Invitation::default()
            };
            let call = watched.endpoint.invite(now, flow(1 - end), invitation);
            return watched.placed(call.expect("there is room"));
        }
        let (Act::Ring(which)
        | Act::Accept(which)
        | Act::Reject(which)
        | Act::Redirect(which)
        | Act::Cancel(which)
        | Act::Bye(which)) = act
        else {
            return;
        };
        let Some(call) = watched.live_call(which) else {
            return;
        };
        match act {
            Act::Call { .. } => {}
            Act::Ring(_) => watched.endpoint.ring(now, call, "room"),
            Act::Accept(_) => watched.accept(now, call),
            Act::Reject(_) => watched.reject(now, call, 486),
            Act::Redirect(_) => watched.redirect(now, call),
            Act::Cancel(_) => watched.endpoint.cancel(now, call),
            Act::Bye(_) => watched.endpoint.bye(now, call, Some("done")),
        }
    }

    fn collect(&mut self) {
        for end in 0..2 {
            for (to, message) in self.ends[end].drain(self.now) {
                assert_eq!(to, flow(1 - end), "sent to the other one");
                for delay in &self.fates[self.sent % self.fates.len()] {
                    let when = self.now + Duration::from_millis(*delay);
                    let number = self.wire.last_key_value().map_or(0, |((_, n), _)| *n);
                    let number = number.max(self.sent * 8) + 1;
                    self.wire.insert((when, number), (1 - end, message.clone()));
                }
                self.sent += 1;
            }
        }
    }

    /// Lets time pass; true when there was something to do until then.
    fn step(&mut self, until: Instant) -> bool {
        self.collect();
        let arrival = self.wire.first_key_value().map(|((when, _), _)| *when);
        let timeouts = self
            .ends
            .iter()
            .filter_map(|end| end.endpoint.poll_timeout());
        let next = timeouts.chain(arrival).min();
        let Some(next) = next.filter(|&next| next <= until) else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|when| when <= self.now) {
            let (_, (to, message)) = self.wire.pop_first().expect("it has come");
            self.ends[to].receive(self.now, flow(1 - to), &message);
        } else {
            for end in &mut self.ends {
                end.endpoint.handle_timeout(self.now);
            }
        }
        true
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..100_000 {
            if !self.step(until) {
                self.now = until;
                return;
            }
        }
        panic!("never at rest within {time:?}");
    }

    /// Everybody hangs up and refuses what comes: within three lives of a transaction it is over.
    pub fn wind_down(&mut self) {
        for end in &mut self.ends {
            end.close(self.now);
        }
        self.run(Duration::from_secs(3 * 32 + 10));
        for end in &self.ends {
            let sizes = end.endpoint.sizes();
            let left = (
                sizes.calls,
                sizes.server_transactions,
                sizes.client_transactions,
            );
            assert_eq!(left, (0, 0, 0), "{sizes:?}");
        }
        // Deadlines that have become meaningless may be far away.
        self.run(Duration::from_secs(100_000));
        self.ends.iter().for_each(Watched::assert_forgotten);
    }
}
