//! The messages of RFC 4475, each written anew: the same trap, other words. With what is to come of them.
//!
//! Every topmost Via names [`HERE`] as the way back, so that who sends them can put his own address there;
//! the length of a header changes nothing.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

mod application;
mod invalid;
mod valid;

/// Where responses are to go, as the messages write it.
pub const HERE: &str = "192.0.2.9:50701";

/// What comes of a message that was sent to a user agent which is a conference, and no registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Final responses of these statuses, in order; none: it is dropped.
    Answers(&'static [u16]),
    /// The stream has no message boundaries any more: it is closed.
    Closed,
    /// The rest of the message is waited for.
    Waits,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Torture {
    /// As RFC 4475 calls it.
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub udp: Outcome,
    pub tcp: Outcome,
}

impl Torture {
    fn new(name: &'static str, outcome: &'static [u16], bytes: &[u8]) -> Self {
        Self {
            name,
            bytes: bytes.to_vec(),
            udp: Outcome::Answers(outcome),
            tcp: Outcome::Answers(outcome),
        }
    }

    fn over_tcp(self, tcp: Outcome) -> Self {
        Self { tcp, ..self }
    }

    /// The message with another way back.
    pub fn sent_from(&self, here: &str) -> Vec<u8> {
        let Some(at) = self
            .bytes
            .windows(HERE.len())
            .position(|window| window == HERE.as_bytes())
        else {
            return self.bytes.clone();
        };
        let (before, behind) = self.bytes.split_at(at);
        [before, here.as_bytes(), &behind[HERE.len()..]].concat()
    }
}

/// All 49, in the order of RFC 4475 §3.
pub fn messages() -> Vec<Torture> {
    let all = [
        valid::messages(),
        invalid::messages(),
        application::messages(),
    ]
    .concat();
    assert_eq!(all.len(), 49, "RFC 4475 has 49 messages");
    all
}

pub fn message(name: &str) -> Torture {
    let mut all = messages().into_iter();
    all.find(|message| message.name == name)
        .unwrap_or_else(|| panic!("RFC 4475 has no {name}"))
}
