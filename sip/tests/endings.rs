//! What belongs together ends together: transactions with their calls, answers with their own ACKs.

#[path = "transactions/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use sip::{CallKey, Config, Endpoint, Flow, Invitation, ListenerIdentity, Transport};
use watch::{Watched, header, status};

struct End {
    now: Instant,
    watched: Watched,
    flow: Flow,
}

impl End {
    fn new(transport: Transport) -> Self {
        let identity = ListenerIdentity {
            transport,
            sent_by: "192.0.2.1:5060".to_owned(),
        };
        Self {
            now: Instant::now(),
            watched: Watched::new(Config::new(0, vec![identity], 7)),
            flow: Flow {
                transport,
                peer: ([192, 0, 2, 9], 5060).into(),
                listener: 0,
                stream: u64::from(transport.is_reliable()),
            },
        }
    }

    fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.watched.endpoint
    }

    /// What is sent in return.
    fn receive(&mut self, message: &str) -> Vec<String> {
        self.watched
            .receive(self.now, self.flow, message.as_bytes());
        self.drain()
    }

    fn drain(&mut self) -> Vec<String> {
        let sent = self.watched.drain(self.now).into_iter();
        sent.map(|(_, message)| String::from_utf8_lossy(&message).into_owned())
            .collect()
    }

    fn call(&self) -> CallKey {
        self.watched.live_call(0).expect("a call")
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self
            .watched
            .endpoint
            .poll_timeout()
            .filter(|&next| next <= until)
        {
            self.now = next;
            self.endpoint().handle_timeout(next);
            self.drain();
        }
        self.now = until;
    }

    /// Nobody says anything any more, and that is the end of everything.
    #[track_caller]
    fn assert_ends(&mut self) {
        self.pass(Duration::from_secs(3 * 32 + 10));
        self.watched.assert_forgotten();
    }
}

fn request(method: &str, number: u32, to_tag: Option<&str>) -> String {
    let tag = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
    format!(
        "{method} sip:room@192.0.2.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK{method}{number}\r\n\
         From: <sip:a@192.0.2.9>;tag=f\r\n\
         To: <sip:room@192.0.2.1>{tag}\r\n\
         Call-ID: c\r\n\
         CSeq: {number} {method}\r\n\
         Contact: <sip:a@192.0.2.9>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

fn to_tag(message: &str) -> String {
    let (_, tag) = header(message, "To").unwrap().split_once(";tag=").unwrap();
    tag.to_owned()
}

/// The response of a far end that has a tag.
fn respond(request: &str, status: u16) -> String {
    let line = |name: &str| format!("{name}: {}\r\n", header(request, name).unwrap());
    let lines: String = ["Via", "From", "Call-ID", "CSeq"].map(line).concat();
    let to = header(request, "To").unwrap();
    format!("SIP/2.0 {status} X\r\n{lines}To: {to};tag=far\r\nContent-Length: 0\r\n\r\n")
}

/// A call that is up: our tag.
fn up(end: &mut End) -> String {
    assert!(end.receive(&request("INVITE", 10, None)).is_empty());
    let call = end.call();
    end.watched.accept(end.now, call);
    let tag = to_tag(&end.drain()[0]);
    assert!(end.receive(&request("ACK", 10, Some(&tag))).is_empty());
    tag
}

#[test]
fn an_answer_waits_for_the_ack_of_its_own_request() {
    for between in ["INFO", "OPTIONS", "UPDATE"] {
        let mut end = End::new(Transport::Udp);
        end.receive(&request("INVITE", 10, None));
        let (call, now) = (end.call(), end.now);
        end.endpoint().ring(now, call, "room");
        let tag = to_tag(&end.drain()[0]);
        let answers = end.receive(&request(between, 11, Some(&tag)));
        assert_eq!(status(&answers[0]), Some(200), "{between}");
        end.watched.accept(now, call);
        assert_eq!(end.drain().len(), 1);
        end.receive(&request("ACK", 10, Some(&tag)));
        // Acknowledged, it is not sent again, nor is the call ended.
        end.pass(Duration::from_secs(40));
        assert_eq!(end.call(), call, "{between}");
    }
}

fn place_call(end: &mut End) -> (CallKey, String) {
    let (now, flow) = (end.now, end.flow);
    let invitation = Invitation {
        target: "sip:far@192.0.2.9".to_owned(),
        from: "sip:room@192.0.2.1".to_owned(),
        contact_user: "room".to_owned(),
        ..Invitation::default()
    };
    let call = end.endpoint().invite(now, flow, invitation).unwrap();
    end.watched.placed(call);
    (call, end.drain().remove(0))
}

#[test]
fn a_call_taken_back_is_over_although_nobody_says_so() {
    let mut end = End::new(Transport::Udp);
    let now = end.now;
    let (call, invite) = place_call(&mut end);
    assert!(end.receive(&respond(&invite, 180)).is_empty());
    end.endpoint().cancel(now, call);
    let cancel = end.drain().remove(0);
    assert!(cancel.starts_with("CANCEL "), "{cancel}");
    assert!(end.receive(&respond(&cancel, 200)).is_empty());
    // One CANCEL is enough, however often it rings.
    assert!(end.receive(&respond(&invite, 180)).is_empty());
    end.assert_ends();
}

#[test]
fn a_change_that_waits_ends_with_its_call() {
    let mut end = End::new(Transport::Udp);
    let tag = up(&mut end);
    assert!(end.receive(&request("INVITE", 11, Some(&tag))).is_empty());
    let (now, call) = (end.now, end.call());
    end.endpoint().bye(now, call, None);
    let sent = end.drain();
    assert!(sent[0].starts_with("BYE "), "{sent:?}");
    assert_eq!(status(&sent[1]), Some(487), "{sent:?}");
    end.assert_ends();

    let mut end = End::new(Transport::Udp);
    let tag = up(&mut end);
    end.receive(&request("INVITE", 11, Some(&tag)));
    let answers = end.receive(&request("BYE", 12, Some(&tag)));
    let statuses: Vec<_> = answers.iter().map(|answer| status(answer)).collect();
    assert_eq!(statuses, [Some(200), Some(487)]);
    end.assert_ends();
}

#[test]
fn a_caller_whose_connection_closes_is_forgotten() {
    let mut end = End::new(Transport::Tcp);
    end.receive(&request("INVITE", 10, None));
    let (now, flow) = (end.now, end.flow);
    end.endpoint().handle_flow_closed(now, flow);
    end.drain();
    end.assert_ends();
}

#[test]
fn a_call_that_is_over_has_no_keys_pressed() {
    let mut end = End::new(Transport::Udp);
    end.receive(&request("INVITE", 10, None));
    let (now, call) = (end.now, end.call());
    end.watched.accept(now, call);
    let tag = to_tag(&end.drain()[0]);
    // The BYE waits for the ACK; what comes meanwhile finds no call.
    end.endpoint().bye(now, call, None);
    assert!(end.drain().is_empty());
    let answers = end.receive(&request("INFO", 11, Some(&tag)));
    assert_eq!(status(&answers[0]), Some(481));
    let sent = end.receive(&request("ACK", 10, Some(&tag)));
    assert!(sent[0].starts_with("BYE "), "{sent:?}");
    end.assert_ends();
}

#[test]
fn a_session_of_no_time_at_all_is_not_refreshed_without_end() {
    let mut end = End::new(Transport::Udp);
    let (_, invite) = place_call(&mut end);
    let lines = "Session-Expires: 0;refresher=uac\r\nRequire: timer\r\nContent-Length";
    let ok = respond(&invite, 200).replace("Content-Length", lines);
    let sent = end.receive(&ok);
    assert!(sent.len() == 1 && sent[0].starts_with("ACK "), "{sent:?}");
    end.pass(Duration::from_secs(40));
    end.call();
}
