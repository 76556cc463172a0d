//! Challenges that requests of ours meet (RFC 3261 §22): answered once, and not against a closed door.

mod common;

use std::time::{Duration, SystemTime};

use common::peer::{Peer, answer, cseq, header, headers, uri};
use sip::digest::{Algorithm, Authenticator, Config, Credentials, Failure, Request, Secret};
use sip::{CallKey, Ended, Event, Invitation};

const SECOND: Duration = Duration::from_secs(1);

/// The far end, which knows `alice`.
struct Door {
    authenticator: Authenticator,
    now: SystemTime,
}

impl Door {
    fn new(algorithms: &[Algorithm]) -> Self {
        let authenticator = Authenticator::new(Config {
            realm: "example.test".to_owned(),
            secret: vec![7; 32],
            nonce_lifetime: SECOND * 30,
            algorithms: algorithms.to_vec(),
            qop_auth_int: false,
        });
        Self {
            authenticator: authenticator.unwrap(),
            now: SystemTime::UNIX_EPOCH + SECOND * 1_000_000,
        }
    }

    /// 401 or 407 to a request.
    fn challenge(&self, request: &str, status: u16, stale: bool) -> String {
        let name = ["WWW-Authenticate", "Proxy-Authenticate"][usize::from(status == 407)];
        let lines: Vec<String> = self
            .authenticator
            .challenges(self.now, stale)
            .iter()
            .map(|value| format!("{name}: {value}"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        answer(request, status, "door", &lines)
    }

    fn verify(&self, request: &str, name: &str) -> Result<Algorithm, Failure> {
        let secret = Secret::Password("open sesame".to_owned());
        let signed = Request {
            method: request.split(' ').next().unwrap(),
            uri: uri(request),
            body: common::peer::body_of(request).as_bytes(),
        };
        let lookup = |user: &str| (user == "alice").then_some(&secret);
        let verified =
            self.authenticator
                .verify(self.now, header(request, name), &signed, lookup)?;
        Ok(verified.algorithm)
    }
}

fn with_password(password: &str) -> impl FnOnce(&mut Invitation) {
    let credentials = Credentials {
        username: "alice".to_owned(),
        password: password.to_owned(),
        realm: None,
    };
    |invitation| invitation.credentials = Some(credentials)
}

/// The ACK of a refusal: of the same transaction.
#[track_caller]
fn acknowledged(peer: &mut Peer, invite: &str) {
    let ack = peer.next("ACK");
    assert_eq!(header(&ack, "Via"), header(invite, "Via"));
    assert_eq!(cseq(&ack), cseq(invite));
    assert!(header(&ack, "To").ends_with(";tag=door"));
}

#[track_caller]
fn refused(peer: &mut Peer, call: CallKey, expected: u16) {
    match peer.event() {
        Event::Rejected {
            call: c, status, ..
        } => assert_eq!((c, status), (call, expected)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_challenge_is_answered_by_the_same_call_with_the_next_number() {
    for (status, name) in [(401, "Authorization"), (407, "Proxy-Authorization")] {
        for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
            let door = Door::new(&[algorithm]);
            let mut peer = Peer::new();
            let (call, invite) = peer.call(with_password("open sesame"));
            peer.say(&door.challenge(&invite, status, false));
            acknowledged(&mut peer, &invite);
            let again = peer.next("INVITE");
            assert_eq!(door.verify(&again, name), Ok(algorithm));
            assert_eq!((cseq(&invite), cseq(&again)), (1, 2));
            for same in ["Call-ID", "From", "To", "Contact"] {
                assert_eq!(header(&again, same), header(&invite, same));
            }
            assert_ne!(header(&again, "Via"), header(&invite, "Via"));
            peer.nothing();
            // The refusal again is acknowledged again, and is no news.
            peer.say(&door.challenge(&invite, status, false));
            acknowledged(&mut peer, &invite);
            peer.nothing();
            peer.say(&answer(&again, 200, "peer", &[]));
            let ack = peer.next("ACK");
            assert_eq!(cseq(&ack), 2);
            // RFC 3261 §13.2.2.4: the ACK has what the INVITE had.
            assert_eq!(header(&ack, name), header(&again, name));
            assert!(matches!(peer.event(), Event::Accepted { .. }));
            peer.hang_up(call);
        }
    }
}

#[test]
fn the_preferred_algorithm_is_taken() {
    let door = Door::new(&[Algorithm::Sha256, Algorithm::Md5]);
    let mut peer = Peer::new();
    let (_, invite) = peer.call(with_password("open sesame"));
    peer.say(&door.challenge(&invite, 401, false));
    acknowledged(&mut peer, &invite);
    let again = peer.next("INVITE");
    assert_eq!(door.verify(&again, "Authorization"), Ok(Algorithm::Sha256));
}

#[test]
fn a_proxy_and_the_far_end_may_both_ask() {
    let door = Door::new(&[Algorithm::Sha256]);
    let mut peer = Peer::new();
    let (call, invite) = peer.call(with_password("open sesame"));
    peer.say(&door.challenge(&invite, 407, false));
    acknowledged(&mut peer, &invite);
    let second = peer.next("INVITE");
    peer.say(&door.challenge(&second, 401, false));
    acknowledged(&mut peer, &second);
    let third = peer.next("INVITE");
    assert!(door.verify(&third, "Authorization").is_ok());
    assert!(door.verify(&third, "Proxy-Authorization").is_ok());
    assert_eq!(cseq(&third), 3);
    peer.say(&answer(&third, 200, "peer", &[]));
    let ack = peer.next("ACK");
    assert_eq!(headers(&ack, "Authorization").len(), 1);
    assert_eq!(headers(&ack, "Proxy-Authorization").len(), 1);
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    peer.hang_up(call);
}

#[test]
fn a_wrong_password_is_tried_once() {
    let door = Door::new(&[Algorithm::Sha256, Algorithm::Md5]);
    let mut peer = Peer::new();
    let (call, invite) = peer.call(with_password("wrong"));
    peer.say(&door.challenge(&invite, 401, false));
    acknowledged(&mut peer, &invite);
    let again = peer.next("INVITE");
    assert_eq!(
        door.verify(&again, "Authorization"),
        Err(Failure::BadResponse)
    );
    peer.say(&door.challenge(&again, 401, false));
    acknowledged(&mut peer, &again);
    refused(&mut peer, call, 401);
    peer.assert_forgotten();
}

#[test]
fn a_stale_nonce_is_worth_another_try_but_not_for_ever() {
    let mut door = Door::new(&[Algorithm::Sha256]);
    let mut peer = Peer::new();
    let (call, invite) = peer.call(with_password("open sesame"));
    peer.say(&door.challenge(&invite, 401, false));
    acknowledged(&mut peer, &invite);
    let mut last = peer.next("INVITE");
    for _ in 0..2 {
        door.now += SECOND * 60;
        assert_eq!(door.verify(&last, "Authorization"), Err(Failure::Stale));
        peer.say(&door.challenge(&last, 401, true));
        acknowledged(&mut peer, &last);
        let again = peer.next("INVITE");
        assert!(door.verify(&again, "Authorization").is_ok());
        assert_eq!(cseq(&again), cseq(&last) + 1);
        last = again;
    }
    peer.say(&door.challenge(&last, 401, true));
    acknowledged(&mut peer, &last);
    refused(&mut peer, call, 401);
    peer.assert_forgotten();
}

#[test]
fn who_has_no_password_or_one_for_elsewhere_is_refused() {
    let door = Door::new(&[Algorithm::Sha256]);
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    peer.say(&door.challenge(&invite, 401, false));
    acknowledged(&mut peer, &invite);
    refused(&mut peer, call, 401);
    let (call, invite) = peer.call(|invitation| {
        invitation.credentials = Some(Credentials {
            username: "alice".to_owned(),
            password: "open sesame".to_owned(),
            realm: Some("elsewhere.test".to_owned()),
        });
    });
    peer.say(&door.challenge(&invite, 401, false));
    acknowledged(&mut peer, &invite);
    refused(&mut peer, call, 401);
    // A challenge without one.
    let (call, invite) = peer.call(with_password("open sesame"));
    peer.say(&answer(&invite, 401, "door", &[]));
    acknowledged(&mut peer, &invite);
    refused(&mut peer, call, 401);
    peer.assert_forgotten();
}

#[test]
fn cancel_after_a_retry_means_the_retry() {
    let door = Door::new(&[Algorithm::Sha256]);
    let mut peer = Peer::new();
    let (call, invite) = peer.call(with_password("open sesame"));
    peer.say(&door.challenge(&invite, 401, false));
    acknowledged(&mut peer, &invite);
    let again = peer.next("INVITE");
    peer.say(&answer(&again, 100, "", &[]));
    peer.endpoint.cancel(peer.now, call);
    let cancel = peer.next("CANCEL");
    assert_eq!(header(&cancel, "Via"), header(&again, "Via"));
    assert_eq!(cseq(&cancel), 2);
    // Ringing after that is no reason for another one.
    peer.say(&answer(&again, 180, "peer", &[]));
    peer.nothing();
    peer.say(&answer(&cancel, 200, "door", &[]));
    peer.say(&answer(&again, 487, "door", &[]));
    acknowledged(&mut peer, &again);
    assert!(matches!(
        peer.event(),
        Event::Ended {
            cause: Ended::Cancelled,
            ..
        }
    ));
    peer.assert_forgotten();
}

#[test]
fn a_call_that_is_not_wanted_any_more_does_not_answer_a_challenge() {
    let door = Door::new(&[Algorithm::Sha256]);
    for status in [401, 422] {
        let mut peer = Peer::new();
        let (call, invite) = peer.call(with_password("open sesame"));
        peer.endpoint.cancel(peer.now, call);
        peer.nothing();
        if status == 401 {
            peer.say(&door.challenge(&invite, 401, false));
        } else {
            peer.say(&answer(&invite, 422, "door", &["Min-SE: 3600"]));
        }
        acknowledged(&mut peer, &invite);
        assert!(matches!(
            peer.event(),
            Event::Ended {
                cause: Ended::Cancelled,
                ..
            }
        ));
        peer.assert_forgotten();
    }
}

#[test]
fn a_cancel_that_nothing_comes_of_ends_the_call_all_the_same() {
    let mut peer = Peer::new();
    let (call, invite) = peer.call(|_| {});
    peer.say(&answer(&invite, 180, "peer", &[]));
    assert!(matches!(peer.event(), Event::Progress { .. }));
    peer.endpoint.cancel(peer.now, call);
    let cancel = peer.next("CANCEL");
    peer.say(&answer(&cancel, 200, "peer", &[]));
    // RFC 3261 §9.1: 64*T1.
    assert_eq!(peer.wait(SECOND * 40), SECOND * 32);
    assert!(matches!(
        peer.event(),
        Event::Ended {
            cause: Ended::Cancelled,
            ..
        }
    ));
    peer.assert_forgotten();
}

#[test]
fn requests_within_the_call_are_challenged_too() {
    let door = Door::new(&[Algorithm::Sha256]);
    let mut peer = Peer::new();
    let (call, invite) = peer.call(with_password("open sesame"));
    let lines = ["Require: 100rel", "RSeq: 1"];
    peer.say(&answer(&invite, 180, "peer", &lines));
    let prack = peer.next("PRACK");
    peer.say(&door.challenge(&prack, 407, false));
    let again = peer.next("PRACK");
    assert!(door.verify(&again, "Proxy-Authorization").is_ok());
    assert!(cseq(&again) > cseq(&prack));
    assert!(matches!(peer.event(), Event::Progress { .. }));
    peer.say(&answer(&again, 200, "", &[]));

    let lines = ["Session-Expires: 200;refresher=uac", "Allow: UPDATE"];
    peer.say(&answer(&invite, 200, "peer", &lines));
    peer.next("ACK");
    assert!(matches!(peer.event(), Event::Accepted { .. }));
    peer.pass(SECOND * 100);
    let update = peer.next("UPDATE");
    peer.say(&door.challenge(&update, 407, false));
    let again = peer.next("UPDATE");
    assert!(door.verify(&again, "Proxy-Authorization").is_ok());
    peer.say(&answer(&again, 200, "", &lines));

    let key =
        peer.endpoint
            .request_in_call(peer.now, call, "MESSAGE", &[], Some(&common::body("hello")));
    let message = peer.next("MESSAGE");
    peer.say(&door.challenge(&message, 407, false));
    let again = peer.next("MESSAGE");
    assert!(door.verify(&again, "Proxy-Authorization").is_ok());
    assert!(again.ends_with("\r\n\r\nhello"));
    peer.say(&answer(&again, 200, "", &[]));
    match peer.event() {
        Event::Answered { request, status } => assert_eq!((Some(request), status), (key, 200)),
        other => panic!("{other:?}"),
    }

    // The call is over for its user, and the far end is to know it.
    peer.endpoint.bye(peer.now, call, None);
    assert!(matches!(peer.event(), Event::Ended { .. }));
    let bye = peer.next("BYE");
    peer.say(&door.challenge(&bye, 407, false));
    let again = peer.next("BYE");
    assert!(door.verify(&again, "Proxy-Authorization").is_ok());
    assert_eq!(cseq(&again), cseq(&bye) + 1);
    // Theirs crosses it.
    let to = format!("To: {}", header(&bye, "From"));
    let from = format!("From: {}", header(&bye, "To"));
    let call_id = format!("Call-ID: {}", header(&bye, "Call-ID"));
    let theirs = peer.make("BYE", &[&to, &from, &call_id, "CSeq: 9 BYE"]);
    peer.say(&theirs);
    peer.next("SIP/2.0 200");
    peer.say(&answer(&again, 200, "", &[]));
    peer.assert_forgotten();
}
