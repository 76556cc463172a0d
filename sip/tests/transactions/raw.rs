//! Requests made by hand, in any order and at any time, thrown at one watched endpoint.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sip::{CallKey, Config, Flow, ListenerIdentity, Transport};

use super::watch::{VARIANT, Watched, header, status};

/// A request, right or wrong in each of its parts.
#[derive(Clone, Debug)]
pub struct Shot {
    method: &'static str,
    branch: Choice,
    call_id: usize,
    from_tag: u8,
    to: To,
    cseq: Choice,
    /// Lines beyond those that every request has.
    more: &'static str,
    has_body: bool,
}

/// A branch or a number.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// What a client would take: another one, or that of the last INVITE for what follows it.
    Right,
    OfInvite,
    Some(u32),
}

#[derive(Clone, Copy, Debug)]
enum To {
    Untagged,
    /// The tag of the last response in this Call-ID.
    Learned,
    Stranger,
}

#[derive(Clone, Debug)]
pub enum Step {
    Shot(Shot),
    /// The last one again.
    Again,
    Wait(u64),
    Ring(usize),
    Accept(usize),
    Reject(usize),
    Bye(usize),
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let method = prop_oneof![
        5 => Just("INVITE"),
        4 => Just("ACK"),
        3 => Just("CANCEL"),
        3 => Just("BYE"),
        2 => prop::sample::select(vec![
            "OPTIONS", "INFO", "UPDATE", "PRACK", "MESSAGE", "REFER", "SUBSCRIBE", "REGISTER", "HOOT",
        ]),
    ];
    let to = prop_oneof![
        3 => Just(To::Untagged),
        4 => Just(To::Learned),
        1 => Just(To::Stranger),
    ];
    let more = prop_oneof![
        6 => Just(""),
        1 => Just("Require: 100rel\r\n"),
        1 => Just("Supported: timer\r\nSession-Expires: 90\r\n"),
        1 => Just("Require: hooting\r\n"),
        1 => Just("Content-Type: application/dtmf-relay\r\n"),
        1 => Just("Event: conference\r\nExpires: 60\r\n"),
        1 => Just("Replaces: c0;to-tag=1;from-tag=2\r\n"),
    ];
    let choice = prop_oneof![
        6 => Just(Choice::Right),
        1 => Just(Choice::OfInvite),
        1 => (1..6_u32).prop_map(Choice::Some),
    ];
    let call_id = prop_oneof![5 => Just(0_usize), 1 => Just(1)];
    let from_tag = prop_oneof![9 => Just(0_u8), 1 => Just(1)];
    let parts = (
        method,
        choice.clone(),
        call_id,
        from_tag,
        to,
        choice,
        more,
        any::<bool>(),
    );
    let shot = parts.prop_map(
        |(method, branch, call_id, from_tag, to, cseq, more, has_body)| Shot {
            method,
            branch,
            call_id,
            from_tag,
            to,
            cseq,
            more,
            has_body,
        },
    );
    let wait = prop::sample::select(vec![0_u64, 10, 210, 600, 2_000, 5_100, 16_000, 33_000]);
    let step = prop_oneof![
        10 => shot.prop_map(Step::Shot),
        2 => Just(Step::Again),
        3 => wait.prop_map(Step::Wait),
        1 => (0..3_usize).prop_map(Step::Ring),
        3 => (0..3_usize).prop_map(Step::Accept),
        1 => (0..3_usize).prop_map(Step::Reject),
        1 => (0..3_usize).prop_map(Step::Bye),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a client knows of a Call-ID.
#[derive(Debug, Default)]
struct Dialog {
    /// To-tag and RSeq of the last response that had one.
    to_tag: Option<String>,
    rseq: Option<String>,
    /// Branch and number of the last INVITE, and the highest ones.
    invite: (u32, u32),
    last: (u32, u32),
}

impl Dialog {
    fn branch(&mut self, method: &str, choice: Choice) -> u32 {
        match choice {
            Choice::Right if method != "CANCEL" => {
                self.last.0 += 1;
                100 + self.last.0
            }
            Choice::Right | Choice::OfInvite => self.invite.0,
            Choice::Some(branch) => branch,
        }
    }

    fn cseq(&mut self, method: &str, choice: Choice) -> u32 {
        match choice {
            Choice::Right if !["ACK", "CANCEL"].contains(&method) => {
                self.last.1 += 1;
                self.last.1
            }
            Choice::Right | Choice::OfInvite => self.invite.1,
            Choice::Some(number) => number,
        }
    }
}

impl Shot {
    fn write(&self, dialogs: &mut [Dialog; 2]) -> String {
        let Self {
            method,
            call_id,
            from_tag,
            more,
            has_body,
            ..
        } = self;
        let dialog = &mut dialogs[*call_id];
        let branch = dialog.branch(method, self.branch);
        let cseq = dialog.cseq(method, self.cseq);
        if *method == "INVITE" {
            dialog.invite = (branch, cseq);
        }
        let to = match (self.to, &dialog.to_tag) {
            (To::Learned, Some(tag)) => format!(";tag={tag}"),
            (To::Stranger, _) => ";tag=stranger".to_owned(),
            (To::Untagged | To::Learned, _) => String::new(),
        };
        let rack = match &dialog.rseq {
            Some(rseq) if *method == "PRACK" => {
                format!("RAck: {rseq} {} INVITE\r\n", dialog.invite.1)
            }
            _ => String::new(),
        };
        let (kind, body) = match *method {
            "INVITE" | "ACK" | "UPDATE" if *has_body => {
                ("Content-Type: application/sdp\r\n", "v=0\r\n")
            }
            "INFO" => ("", "Signal=5\r\n"),
            _ => ("", ""),
        };
        let rest = format!(
            "Max-Forwards: 70\r\n\
             From: <sip:raw@192.0.2.9>;tag=f{from_tag}\r\n\
             To: <sip:room@192.0.2.1>{to}\r\n\
             Call-ID: c{call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:raw@192.0.2.9>\r\n\
             {more}{rack}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // Told apart by a number in the Via, which responses repeat.
        let mut hasher = DefaultHasher::new();
        rest.hash(&mut hasher);
        format!(
            "{method} sip:room@192.0.2.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK{call_id}-{branch};{VARIANT}={:x}\r\n{rest}",
            hasher.finish()
        )
    }
}

pub struct Range {
    now: Instant,
    target: Watched,
    dialogs: [Dialog; 2],
    last: String,
}

impl Range {
    pub fn new(focus: bool) -> Self {
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: "192.0.2.1:5060".to_owned(),
        };
        let config = Config::new(0, vec![identity], 7);
        Self {
            now: Instant::now(),
            target: Watched::new(Config { focus, ..config }),
            dialogs: Default::default(),
            last: String::new(),
        }
    }

    pub fn play(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Shot(shot) => {
                    self.last = shot.write(&mut self.dialogs);
                    self.fire();
                }
                Step::Again => self.fire(),
                Step::Wait(ms) => self.run(Duration::from_millis(ms)),
                Step::Ring(which) => self.with_call(which, |target, now, call| {
                    target.endpoint.ring(now, call, "room");
                }),
                Step::Accept(which) => self.with_call(which, Watched::accept),
                Step::Reject(which) => self.with_call(which, |target, now, call| {
                    target.reject(now, call, 486);
                }),
                Step::Bye(which) => self.with_call(which, |target, now, call| {
                    target.endpoint.bye(now, call, None);
                }),
            }
            self.collect();
        }
    }

    fn with_call(&mut self, which: usize, act: impl FnOnce(&mut Watched, Instant, CallKey)) {
        if let Some(call) = self.target.live_call(which) {
            act(&mut self.target, self.now, call);
        }
    }

    fn fire(&mut self) {
        let flow = Flow {
            transport: Transport::Udp,
            peer: ([192, 0, 2, 9], 5060).into(),
            listener: 0,
            stream: 0,
        };
        let message = self.last.clone();
        self.target.receive(self.now, flow, message.as_bytes());
        self.collect();
    }

    fn collect(&mut self) {
        for (_, message) in self.target.drain(self.now) {
            let text = String::from_utf8_lossy(&message);
            let Some(call_id) = status(&text).and_then(|_| header(&text, "Call-ID")) else {
                continue;
            };
            let tag = header(&text, "To").and_then(|to| to.split(";tag=").nth(1));
            let dialog = &mut self.dialogs[usize::from(call_id == "c1")];
            dialog.to_tag = tag.map(str::to_owned).or_else(|| dialog.to_tag.take());
            let rseq = header(&text, "RSeq").map(str::to_owned);
            dialog.rseq = rseq.or_else(|| dialog.rseq.take());
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..100_000 {
            self.collect();
            let next = self.target.endpoint.poll_timeout();
            let Some(next) = next.filter(|&next| next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            self.target.endpoint.handle_timeout(self.now);
        }
        panic!("never at rest within {time:?}");
    }

    pub fn wind_down(&mut self) {
        self.target.close(self.now);
        // Nobody acknowledges, nobody answers our BYE, and the traces of all that are kept.
        self.run(Duration::from_secs(3 * 32 + 10));
        let sizes = self.target.endpoint.sizes();
        let left = (
            sizes.calls,
            sizes.server_transactions,
            sizes.client_transactions,
        );
        assert_eq!(left, (0, 0, 0), "{sizes:?}");
        self.run(Duration::from_secs(100_000));
        self.target.assert_forgotten();
    }
}
