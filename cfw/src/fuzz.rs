//! Bodies of fuzz targets: plain functions that must not panic on any bytes, whatever a peer sends. A
//! broken promise panics. Tests run them too.

// Each run has an epoch of its own; nothing depends on which.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use crate::channel::{Channel, Code, Config, Content, Event, Incoming, Role, Unclaimed};
use crate::dist_conf::message::{Element, Message};
use crate::dist_conf::parts::{Collector, split};
use crate::dist_conf::{self, ReadError, XML_LEN_MAX};
use crate::sdp::{self, Fingerprint, Local, Setup};

/// What stands between pieces of one input. Some time passes there.
const NEXT: &str = "\n----\n";

/// More pieces than a corpus has.
const PIECES_MAX: usize = 32;

/// Pieces of what a peer sends. If they begin with a SYNC, they come to a listener; else to the active end,
/// whose first three messages are SYNC `a0000001` and CONTROLs `a0000002` and `a0000003`.
pub fn channel(bytes: &[u8]) {
    let pieces: Vec<&[u8]> = pieces(bytes).take(PIECES_MAX).collect();
    let now = Instant::now();
    let whole = Peer::new(now).run(&pieces, usize::MAX);
    assert_eq!(Peer::new(now).run(&pieces, 1), whole, "cut into bytes");
    assert_eq!(Peer::new(now).run(&pieces, 7), whole, "cut into sevens");
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let whole = rest?;
        let next = NEXT.as_bytes();
        match whole.windows(next.len()).position(|piece| piece == next) {
            Some(at) => {
                rest = Some(&whole[at + next.len()..]);
                Some(&whole[..at])
            }
            None => rest.take(),
        }
    })
}

/// Whoever the bytes come to, and what came of them.
struct Peer {
    now: Instant,
    channel: Option<Channel>,
    /// Requests that the owner leaves for later.
    open: Vec<Incoming>,
    said: Vec<String>,
}

impl Peer {
    const fn new(now: Instant) -> Self {
        Self {
            now,
            channel: None,
            open: Vec::new(),
            said: Vec::new(),
        }
    }

    fn run(mut self, pieces: &[&[u8]], cut: usize) -> Vec<String> {
        let [first, rest @ ..] = pieces else {
            return self.said;
        };
        let is_sync = first.windows(6).take(64).any(|word| word == b" SYNC\r");
        match is_sync {
            true => self.listen(first, cut),
            false => {
                self.channel = Some(Channel::active(self.now, config()));
                self.take(first, cut);
            }
        }
        for (piece, number) in rest.iter().zip(0_u32..) {
            self.take(piece, cut);
            self.wait(Duration::from_secs(3 * u64::from(number)));
        }
        // Long enough for every deadline.
        self.wait(Duration::from_secs(1000));
        if let Some(channel) = &self.channel {
            assert!(channel.is_closed(), "K-ALIVE has expired");
        }
        self.said
    }

    fn listen(&mut self, bytes: &[u8], cut: usize) {
        let mut accepted = Unclaimed::new(self.now);
        for piece in bytes.chunks(cut.min(bytes.len().max(1))) {
            if let Err(refused) = accepted.handle_bytes(piece) {
                self.said.push(format!("{refused:?}"));
                return;
            }
        }
        self.said.push(format!("{:?}", accepted.dialog_id()));
        if accepted.dialog_id().is_some() {
            self.channel = Some(accepted.claim(self.now, config()));
            self.react();
        }
    }

    fn take(&mut self, bytes: &[u8], cut: usize) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        for piece in bytes.chunks(cut.min(bytes.len().max(1))) {
            channel.handle_bytes(self.now, piece);
        }
        self.react();
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(channel) = &mut self.channel {
            let Some(next) = channel.poll_timeout().filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now);
            channel.handle_timeout(self.now);
            let next = channel.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a deadline stays");
            self.react();
        }
        self.now = end;
    }

    /// The owner does something about each event, in several ways.
    fn react(&mut self) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        while let Some(event) = channel.poll_event() {
            self.said.push(format!("{event:?}"));
            match event {
                Event::Ready { packages } => {
                    for body in [None, Some(Content::new("text/plain", "question"))] {
                        let _ = channel.request(self.now, packages[0], body);
                    }
                }
                Event::NoCommonPackage { supported } if !supported.is_empty() => {
                    let _ = channel.sync(self.now, supported);
                }
                Event::Control { id, content, .. } => match content.body.len() % 5 {
                    0 => {
                        let _ = channel.answer(self.now, id, None);
                    }
                    1 => {
                        let _ = channel.refuse(id, Code::FORBIDDEN);
                    }
                    2 => {
                        let _ = channel.update(self.now, id, content);
                        self.open.push(id);
                    }
                    3 => self.open.push(id),
                    _ => {}
                },
                Event::Updated { .. } => {
                    for id in self.open.drain(..) {
                        let _ = channel.answer(self.now, id, Some(Content::new("", "answer")));
                    }
                }
                Event::Closed(_) => {
                    assert_eq!(channel.poll_event(), None, "an event after the last one");
                }
                _ => {}
            }
        }
        let output = channel.output();
        assert!(output.len() <= config().output_len_max);
        assert!(output.is_empty() || output.starts_with(b"CFW "));
        self.said.push(String::from_utf8_lossy(output).into_owned());
        channel.consume(channel.output().len());
        assert_eq!(channel.is_closed(), channel.poll_timeout().is_none());
        assert!(channel.role() == Role::Active || self.said[0].starts_with("Some"));
    }
}

fn config() -> Config {
    let packages = ["msc-dist-conf/1.0", "msc-ivr/1.0"];
    let packages = packages.map(|name| name.parse().expect("a token"));
    Config {
        output_len_max: 16 * 1024,
        transactions_max: 8,
        ..Config::new("ourOwnId".parse().expect("a token"), packages.to_vec())
    }
}

/// A body of the package.
pub fn dist_conf(bytes: &[u8]) {
    let message = match dist_conf::read(bytes) {
        Ok(message) => message,
        Err(error) => {
            let svr_id = "A".parse().expect("a name");
            if let Some(response) = error.response(svr_id) {
                check_rewrite(&Message::Response(response));
            }
            let _ = error.to_string();
            return;
        }
    };
    check_rewrite(&message);
    let Message::Request(request) = message else {
        return;
    };
    let mut collector = Collector::default();
    for element in request.elements {
        if let Element::ConfInfo(info) = element {
            let users = |info: &dist_conf::message::ConfInfo| -> usize {
                let conferences = info.conferences.iter();
                conferences.map(|users| users.users.len()).sum()
            };
            let parts = split(info.clone(), 1024);
            assert_eq!(parts.iter().map(users).sum::<usize>(), users(&info));
            for part in parts {
                let _ = collector.handle(part);
            }
            let _ = collector.handle(info);
        }
    }
}

/// Written and read again, a message is the same, unless escapes made it too long.
fn check_rewrite(message: &Message) {
    let xml = dist_conf::write(message);
    match dist_conf::read(xml.as_bytes()) {
        Ok(read) => assert_eq!(read, *message, "{xml}"),
        Err(error) => assert!(
            matches!(error, ReadError::Malformed(_)) && xml.len() > XML_LEN_MAX,
            "{error}: {xml}"
        ),
    }
}

/// A session description, as an offer and as an answer.
pub fn sdp(bytes: &[u8]) {
    let Ok(description) = sdp::read(bytes) else {
        return;
    };
    let addr = [192, 0, 2, 1].into();
    let id = sdp::cfw_id([7; 12]);
    let fingerprint = Fingerprint {
        hash: "sha-256".to_owned(),
        bytes: vec![1, 2, 3],
    };
    let plain = Local::new(addr, Some(sdp::PORT), id);
    let connecting = Local::new(addr, None, id);
    let in_tls = Local {
        fingerprint: Some(fingerprint),
        ..plain.clone()
    };
    for local in [plain, connecting, in_tls] {
        for setup in [Setup::Active, Setup::Passive, Setup::ActPass] {
            let _ = sdp::accept(&local, setup, &description);
        }
        let rejection = sdp::reject(&description, &local);
        let rejection = sdp::read(rejection.as_bytes()).expect("what is written is read");
        assert_eq!(rejection.port, 0);
        let Ok((answer, ours)) = sdp::answer(&description, &local, true) else {
            continue;
        };
        let answer = sdp::read(answer.as_bytes()).expect("what is written is read");
        assert_eq!(answer.cfw_id, ours.cfw_id.as_str());
        assert_ne!(answer.cfw_id, description.cfw_id);
        assert_eq!(answer.transport, description.transport);
        assert_eq!(
            answer.media_before.len() + answer.media_after.len(),
            description.media_before.len() + description.media_after.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    type Body = fn(&[u8]);

    /// The seeds of the fuzz targets, as ordinary inputs.
    #[test]
    fn seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf/fuzz/corpus-seeds");
        let targets: [(&str, Body); 3] = [
            ("cfw_channel", super::channel),
            ("dist_conf", super::dist_conf),
            ("cfw_sdp", super::sdp),
        ];
        for (target, body) in targets {
            let files = seeds.join(target).read_dir().unwrap();
            let mut count = 0;
            for file in files {
                body(&std::fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 2, "{target} has {count} seeds");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            super::channel(&bytes);
            super::dist_conf(&bytes);
            super::sdp(&bytes);
        }
    }
}
