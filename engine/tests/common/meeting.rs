//! A conference with alice in it, who has others called.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use simd_json::prelude::*;
use sip::sipfrag;

use crate::agent::{Agent, Dialog, Message, check_nothing_left, participants_of, serve};
use crate::common::Server;

/// Trusts those who refer from outside.
pub const TRUSTING: &str = "auth.trusted=127.0.0.0/8";

/// The name of the conference.
const ROOM: &str = "staff";

pub struct Meeting {
    pub server: Server,
    /// The URI of the conference.
    pub room: String,
    pub alice: Agent,
    /// Her call to the conference.
    pub call: Dialog,
}

impl Meeting {
    /// Alice has called a server with these settings.
    #[track_caller]
    pub fn new(sets: &[&str]) -> Self {
        let server = serve(sets);
        let room = server.uri(ROOM);
        let mut alice = Agent::new(&server, "alice");
        let call = alice.call(&room);
        Self {
            server,
            room,
            alice,
            call,
        }
    }

    /// Somebody else, who is not in the conference.
    pub fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.server, name)
    }

    /// The final answer to a request within alice's call.
    #[track_caller]
    pub fn ask(&mut self, method: &str, lines: &[&str]) -> Message {
        self.alice.ask(&mut self.call, method, lines, None)
    }

    /// Alice asks for a call to `target`.
    #[track_caller]
    pub fn refer(&mut self, target: &str) {
        refer(&mut self.alice, &mut self.call, target);
    }

    /// What the next NOTIFY tells alice of a call, and whether it is the last of it.
    #[track_caller]
    pub fn told(&mut self) -> (u16, bool) {
        told(&mut self.alice)
    }

    /// How a call went, as the NOTIFYs tell alice.
    #[track_caller]
    pub fn progress(&mut self) -> Vec<u16> {
        progress(&mut self.alice)
    }

    /// Waits until somebody is in the conference.
    #[track_caller]
    pub fn is_in(&self, agent: &Agent) {
        is_in(&self.server, ROOM, agent);
    }

    pub fn participants(&self) -> Vec<simd_json::OwnedValue> {
        participants_of(&self.server, ROOM)
    }

    /// Alice hangs up, and nothing is left.
    #[track_caller]
    pub fn end(mut self) {
        self.alice.hang_up(self.call);
        check_nothing_left(&self.server);
    }
}

#[track_caller]
pub fn check(message: &Message, status: u16) {
    assert_eq!(message.status(), Some(status), "{message:#?}");
}

/// Asks for a call to `target`, within `dialog`.
#[track_caller]
pub fn refer(agent: &mut Agent, dialog: &mut Dialog, target: &str) {
    let line = format!("Refer-To: <{target}>");
    let answer = agent.ask(dialog, "REFER", &[&line], None);
    // RFC 7647 §5: no 202.
    check(&answer, 200);
}

/// What the next NOTIFY says of a call, and whether it is the last of it.
#[track_caller]
pub fn told(agent: &mut Agent) -> (u16, bool) {
    let notify = agent.accept("NOTIFY");
    assert!(notify.header("Event").starts_with("refer"), "{notify:?}");
    let kind = notify.header("Content-Type");
    assert!(kind.starts_with("message/sipfrag"), "{kind}");
    let status = sipfrag::read(notify.body.as_bytes()).expect("a status line");
    let state = notify.header("Subscription-State");
    let is_last = state.starts_with("terminated;reason=noresource");
    assert!(is_last || state.starts_with("active;expires="), "{state}");
    (status, is_last)
}

/// How a call went, as the NOTIFYs say.
#[track_caller]
pub fn progress(agent: &mut Agent) -> Vec<u16> {
    let mut statuses = Vec::new();
    loop {
        let (status, is_last) = told(agent);
        statuses.push(status);
        if is_last {
            return statuses;
        }
    }
}

/// Rings, is picked up, and gives its end of the call.
#[track_caller]
pub fn pick_up(callee: &mut Agent) -> Dialog {
    let invite = callee.request("INVITE");
    callee.reply(&invite, 180, &[], None);
    callee.pick_up(&invite)
}

#[track_caller]
pub fn is_in(server: &Server, room: &str, agent: &Agent) {
    let uri = agent.uri();
    server.wait_until("the one called is in", |server| {
        let all = participants_of(server, room);
        all.iter().any(|one| one["entity"] == uri.as_str())
    });
}
