//! What protects an endpoint, from outside: feedback in its responses, refusals without state, and what
//! it knows of a message before handling it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sip::overload::Feedback;
use sip::{Body, Config, Endpoint, Event, Flow, ListenerIdentity, Output, Transport};

const VALIDITY: Duration = Duration::from_secs(2);

fn endpoint() -> Endpoint {
    let identity = ListenerIdentity {
        transport: Transport::Udp,
        sent_by: "192.0.2.1:5060".to_owned(),
    };
    Endpoint::new(Config::new(3, vec![identity], 7))
}

fn flow() -> Flow {
    Flow {
        transport: Transport::Udp,
        peer: ([192, 0, 2, 9], 5060).into(),
        listener: 0,
        stream: 0,
    }
}

fn request(method: &str, branch: &str, to_tag: &str, cseq: u32) -> String {
    format!(
        "{method} sip:room@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK{branch};oc;oc-algo=\"loss,A\"\r\n\
         From: <sip:a@example.test>;tag=f\r\nTo: <sip:room@192.0.2.1>{to_tag}\r\nCall-ID: c1\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:a@192.0.2.9>\r\nContent-Length: 0\r\n\r\n"
    )
}

/// What is sent for a message; calls are accepted.
fn receive(endpoint: &mut Endpoint, message: &str) -> Vec<String> {
    let now = Instant::now();
    endpoint.handle_message(now, flow(), message.as_bytes());
    let mut sent = Vec::new();
    while let Some(output) = endpoint.poll_output() {
        match output {
            Output::Transmit { message, .. } => {
                sent.push(String::from_utf8(message.to_vec()).unwrap())
            }
            Output::Event(Event::Invite(invite)) => {
                let body = Body {
                    content_type: "application/sdp".to_owned(),
                    content: "v=0".into(),
                };
                endpoint.accept(now, invite.call, "room", body);
            }
            Output::Event(_) => {}
        }
    }
    sent
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn feedback_of_the_moment_goes_to_who_asks() {
    let mut endpoint = endpoint();
    let register = |branch: &str| request("REGISTER", branch, "", 1);
    let silent = &receive(&mut endpoint, &register("1"))[0];
    assert!(
        silent.contains(";oc;oc-algo=\"loss,A\";received"),
        "{silent}"
    );

    endpoint.set_overload(Some(Feedback::new(0, VALIDITY, at(5))));
    let idle = &receive(&mut endpoint, &register("2"))[0];
    assert!(
        idle.contains(";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=5.000\r\n"),
        "{idle}"
    );
    endpoint.set_overload(Some(Feedback::new(40, VALIDITY, at(6))));
    let busy = &receive(&mut endpoint, &register("3"))[0];
    assert!(
        busy.contains(";oc=40;oc-algo=\"loss\";oc-validity=2000;oc-seq=6.000\r\n"),
        "{busy}"
    );
    assert!(!busy.contains("loss,A"), "{busy}");

    let plain = register("4").replace(";oc;oc-algo=\"loss,A\"", "");
    let plain = &receive(&mut endpoint, &plain)[0];
    assert!(!plain.contains("oc="), "{plain}");
}

#[test]
fn it_knows_its_dialogs_and_what_it_waits_for() {
    let mut endpoint = endpoint();
    let invite = request("INVITE", "1", "", 1);
    assert!(!endpoint.knows(invite.as_bytes()));
    let ok = receive(&mut endpoint, &invite)
        .into_iter()
        .find(|text| text.starts_with("SIP/2.0 200"))
        .expect("the call is accepted");
    let tag = sip::scan(ok.as_bytes()).unwrap().to_tag.unwrap();
    let tag = format!(";tag={}", String::from_utf8_lossy(tag));
    assert!(!endpoint.knows(invite.as_bytes()), "outside of the dialog");
    assert!(endpoint.knows(request("ACK", "2", &tag, 1).as_bytes()));
    let bye = request("BYE", "3", &tag, 2);
    assert!(endpoint.knows(bye.as_bytes()));
    let forged = request("BYE", "3", ";tag=3-0000000000000000", 2);
    assert!(!endpoint.knows(forged.as_bytes()));
    let foreign = bye.replace("Call-ID: c1", "Call-ID: c2");
    assert!(!endpoint.knows(foreign.as_bytes()));
    assert!(!endpoint.knows(b"BYE"));

    // Our BYE waits for its answer; one to another branch is nobody's.
    receive(&mut endpoint, &request("ACK", "2", &tag, 1));
    let call = {
        let now = Instant::now();
        let invitation = sip::Invitation {
            target: "sip:b@192.0.2.9".to_owned(),
            from: "sip:room@192.0.2.1".to_owned(),
            contact_user: "room".to_owned(),
            ..sip::Invitation::default()
        };
        endpoint.invite(now, flow(), invitation)
    };
    assert!(call.is_ok());
    let sent = std::iter::from_fn(|| endpoint.poll_output()).find_map(|output| match output {
        Output::Transmit { message, .. } => Some(String::from_utf8(message.to_vec()).unwrap()),
        Output::Event(_) => None,
    });
    let sent = sent.expect("our INVITE");
    let via = sent
        .lines()
        .find(|line| line.starts_with("Via:"))
        .unwrap()
        .to_owned();
    let answer = format!(
        "SIP/2.0 180 Ringing\r\n{via}\r\nFrom: <sip:room@192.0.2.1>;tag=x\r\nTo: <sip:b@192.0.2.9>\r\nCall-ID: y\r\nCSeq: 1 INVITE\r\n\r\n"
    );
    assert!(endpoint.knows(answer.as_bytes()));
    assert!(!endpoint.knows(answer.replace("z9hG4bK3-", "z9hG4bK3-f").as_bytes()));
}
