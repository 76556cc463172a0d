//! Two ends of a channel and a clock that only the test moves.

use std::time::{Duration, Instant};

use cfw::channel::{Channel, Config, Event, Token, Unclaimed};

/// The package that both ends of a [`Pair`] know.
pub(crate) fn package() -> Token {
    "msc-dist-conf/1.0".parse().unwrap()
}

pub(crate) fn config(dialog_id: &str) -> Config {
    Config::new(dialog_id.parse().unwrap(), vec![package()])
}

/// Two ends that are connected.
pub(crate) struct Pair {
    pub(crate) active: Channel,
    pub(crate) passive: Channel,
    pub(crate) now: Instant,
}

impl Pair {
    /// After SYNC.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let mut active = Channel::active(now, config("active00"));
        let mut accepted = Unclaimed::new(now);
        accepted.handle_bytes(active.output()).unwrap();
        consume(&mut active);
        let mut pair = Self {
            active,
            passive: accepted.claim(now, config("passive0")),
            now,
        };
        pair.exchange();
        let packages = vec![package()];
        let ready = [Event::Ready { packages }];
        assert_eq!(events(&mut pair.active), ready);
        assert_eq!(events(&mut pair.passive), ready);
        pair
    }

    /// Carries bytes until nobody has any.
    pub(crate) fn exchange(&mut self) {
        while !self.active.output().is_empty() || !self.passive.output().is_empty() {
            let bytes = consume(&mut self.active);
            self.passive.handle_bytes(self.now, &bytes);
            let bytes = consume(&mut self.passive);
            self.active.handle_bytes(self.now, &bytes);
        }
    }

    /// Lets so much time pass, with each end looking at the clock whenever it wants to.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadlines = [self.active.poll_timeout(), self.passive.poll_timeout()];
            let next = deadlines.into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            self.active.handle_timeout(self.now);
            self.passive.handle_timeout(self.now);
            self.exchange();
        }
        self.now = end;
    }
}

pub(crate) fn consume(channel: &mut Channel) -> Vec<u8> {
    let bytes = channel.output().to_vec();
    channel.consume(bytes.len());
    bytes
}

pub(crate) fn sent(channel: &mut Channel) -> String {
    String::from_utf8(consume(channel)).unwrap()
}

pub(crate) fn events(channel: &mut Channel) -> Vec<Event> {
    std::iter::from_fn(|| channel.poll_event()).collect()
}

/// The only event.
pub(crate) fn event(channel: &mut Channel) -> Event {
    let mut events = events(channel);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}
