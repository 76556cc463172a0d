//! SYNC and K-ALIVE: who may speak, in which packages, and for how long (RFC 6230 §6.3.3, §6.3.4).

use std::time::{Duration, Instant};

use crate::pair::{Pair, config, consume, event, events, package, sent};
use cfw::channel::{
    Channel, CloseReason, Code, Config, Content, Event, FrameError, Role, SendError, Token,
    Unclaimed,
};

const SYNC: &str = "CFW 8djae7khauj SYNC\r\nDialog-ID: active00\r\nKeep-Alive: 100\r\n\
                    Packages: msc-dist-conf/1.0\r\n\r\n";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn token(text: &str) -> Token {
    text.parse().unwrap()
}

fn accepted(bytes: &str) -> (Unclaimed, Instant) {
    let now = Instant::now();
    let mut accepted = Unclaimed::new(now);
    accepted.handle_bytes(bytes.as_bytes()).unwrap();
    (accepted, now)
}

#[test]
fn a_sync_and_its_answer_as_they_are_written() {
    let now = Instant::now();
    let mut active = Channel::active(now, config("active00"));
    assert_eq!(active.role(), Role::Active);
    assert_eq!(
        sent(&mut active),
        "CFW a0000001 SYNC\r\nDialog-ID: active00\r\nKeep-Alive: 100\r\n\
         Packages: msc-dist-conf/1.0\r\n\r\n"
    );
    let (accepted, now) = accepted(SYNC);
    assert_eq!(accepted.dialog_id(), Some("active00"));
    let mut passive = accepted.claim(now, config("passive0"));
    assert_eq!(
        sent(&mut passive),
        "CFW 8djae7khauj 200\r\nKeep-Alive: 100\r\nPackages: msc-dist-conf/1.0\r\n\r\n"
    );
    assert_eq!(passive.packages(), [package()]);
}

#[test]
fn what_comes_with_the_sync_is_not_lost() {
    let control = "CFW 1234 CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\r\n";
    let (mut accepted, now) = accepted(&format!("\r\n{SYNC}CFW 1234 CON"));
    accepted.handle_bytes(&control.as_bytes()[12..]).unwrap();
    let mut passive = accepted.claim(now, config("passive0"));
    let events = events(&mut passive);
    assert!(
        matches!(events[..], [Event::Ready { .. }, Event::Control { .. }]),
        "{events:?}"
    );
}

/// What a listener says to who does not begin as he should.
#[test]
fn beginnings_that_nobody_claims() {
    let long_line = "CFW ".to_owned() + &"x".repeat(300);
    let long_body = SYNC.replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\n");
    for (bytes, output, reason) in [
        (
            "CFW abcd CONTROL\r\n\r\n",
            "CFW abcd 403\r\n\r\n",
            CloseReason::NotSynced,
        ),
        (
            "CFW abcd K-ALIVE\r\n\r\n",
            "CFW abcd 403\r\n\r\n",
            CloseReason::NotSynced,
        ),
        ("CFW abcd 200\r\n\r\n", "", CloseReason::NotSynced),
        (
            "CFW abcd SYNC\r\n\r\n",
            "CFW abcd 400\r\n\r\n",
            CloseReason::BadSync,
        ),
        (
            "CFW abcd SYNC\r\nDialog-ID: active00\r\nKeep-Alive: soon\r\n\r\n",
            "CFW abcd 400\r\n\r\n",
            CloseReason::BadSync,
        ),
        (
            "GET / HTTP/1.1\r\n",
            "",
            CloseReason::Malformed(FrameError::StartLine),
        ),
        (
            long_line.as_str(),
            "",
            CloseReason::Malformed(FrameError::StartLine),
        ),
        (
            long_body.as_str(),
            "CFW 8djae7khauj 400\r\n\r\n",
            CloseReason::Malformed(FrameError::ContentLength),
        ),
    ] {
        let mut accepted = Unclaimed::new(Instant::now());
        let refused = accepted.handle_bytes(bytes.as_bytes()).unwrap_err();
        assert_eq!(refused.reason, reason, "{bytes}");
        assert_eq!(String::from_utf8(refused.output).unwrap(), output);
    }
    let (mut accepted, now) = accepted(SYNC);
    assert_eq!(accepted.deadline(), now + seconds(10));
    let refused = accepted.handle_bytes(&[b'x'; 64 * 1024 + 1]).unwrap_err();
    assert_eq!(refused.reason, CloseReason::NotSynced);
}

#[test]
fn no_dialog_has_the_id() {
    let (accepted, _) = accepted(SYNC);
    let output = accepted.refuse(Code::UNKNOWN);
    assert_eq!(output, b"CFW 8djae7khauj 481\r\n\r\n");
    let early = Unclaimed::new(Instant::now());
    assert_eq!(early.dialog_id(), None);
    assert_eq!(early.refuse(Code::UNKNOWN), b"");
}

/// A peer that echoes the offer's id sends ours; one that does not, its own (RFC 6230 §4.2, RFC 7058 §5.1).
/// The owner finds the dialog by what the peer's SDP said in either case.
#[test]
fn echo_and_own_ids() {
    for peers_id in ["passive0", "active00"] {
        let (accepted, now) = accepted(&SYNC.replace("active00", peers_id));
        assert_eq!(accepted.dialog_id(), Some(peers_id));
        let config = Config {
            peer_dialog_id: Some(peers_id.to_owned()),
            ..config("passive0")
        };
        let mut passive = accepted.claim(now, config);
        assert!(matches!(event(&mut passive), Event::Ready { .. }));
    }
    let (accepted, now) = accepted(SYNC);
    let config = Config {
        peer_dialog_id: Some("another0".to_owned()),
        ..config("passive0")
    };
    let mut passive = accepted.claim(now, config);
    assert_eq!(sent(&mut passive), "CFW 8djae7khauj 481\r\n\r\n");
    assert_eq!(
        event(&mut passive),
        Event::Closed(CloseReason::UnknownDialog)
    );
}

#[test]
fn syncs_that_cannot_be_accepted() {
    for (bytes, code) in [
        (SYNC.replace("Packages: msc-dist-conf/1.0\r\n", ""), 400),
        (SYNC.replace("100", "0"), 400),
        (SYNC.replace("100", "601"), 400),
    ] {
        let (accepted, now) = accepted(&bytes);
        let mut passive = accepted.claim(now, config("passive0"));
        let output = sent(&mut passive);
        assert_eq!(output, format!("CFW 8djae7khauj {code}\r\n\r\n"));
        assert_eq!(event(&mut passive), Event::Closed(CloseReason::BadSync));
        assert_eq!(passive.poll_timeout(), None);
    }
}

#[test]
fn the_interval_is_what_the_active_side_says() {
    for (bytes, interval) in [
        (SYNC.replace("100", "95"), 95),
        (SYNC.replace("100", "600"), 600),
        (SYNC.replace("Keep-Alive: 100\r\n", ""), 100),
    ] {
        let (accepted, now) = accepted(&bytes);
        let mut passive = accepted.claim(now, config("passive0"));
        let output = sent(&mut passive);
        assert!(output.contains(&format!("\r\nKeep-Alive: {interval}\r\n")));
        assert_eq!(passive.poll_timeout(), Some(now + seconds(interval)));
    }
}

#[test]
fn no_package_in_common_and_another_try() {
    let now = Instant::now();
    let both = vec![token("msc-ivr/1.0"), token("msc-mixer/1.0")];
    let mut active = Channel::active(now, Config::new(token("active00"), vec![both[0]]));
    let mut accepted = Unclaimed::new(now);
    accepted.handle_bytes(&consume(&mut active)).unwrap();
    let mut passive = accepted.claim(now, Config::new(token("passive0"), vec![both[1]]));
    assert_eq!(events(&mut passive), []);
    let refused = sent(&mut passive);
    assert_eq!(
        refused,
        "CFW a0000001 422\r\nSupported: msc-mixer/1.0\r\n\r\n"
    );
    active.handle_bytes(now, refused.as_bytes());
    let supported = vec![both[1]];
    assert_eq!(event(&mut active), Event::NoCommonPackage { supported });
    assert_eq!(active.output(), b"");

    active.sync(now, both.clone()).unwrap();
    assert_eq!(active.sync(now, both.clone()), Err(SendError::NotReady));
    passive.handle_bytes(now, &consume(&mut active));
    active.handle_bytes(now, &consume(&mut passive));
    let packages = vec![both[1]];
    assert_eq!(event(&mut active), Event::Ready { packages });
    assert_eq!(active.packages(), passive.packages());
}

#[test]
fn nobody_tries_for_ever() {
    let now = Instant::now();
    let other = SYNC.replace("msc-dist-conf", "msc-ivr");
    let (accepted, _) = accepted(&other);
    let mut passive = accepted.claim(now, config("passive0"));
    for _ in 0..3 {
        assert_eq!(events(&mut passive), []);
        passive.handle_bytes(now, other.as_bytes());
    }
    assert_eq!(
        event(&mut passive),
        Event::Closed(CloseReason::NoCommonPackage)
    );

    let mut active = Channel::active(now, config("active00"));
    active.handle_bytes(now, b"CFW a0000001 422\r\nSupported: msc-ivr/1.0\r\n\r\n");
    assert!(matches!(event(&mut active), Event::NoCommonPackage { .. }));
    active.handle_timeout(now + seconds(10));
    assert_eq!(
        event(&mut active),
        Event::Closed(CloseReason::NoCommonPackage)
    );
}

#[test]
fn answers_to_a_sync() {
    let refused = |code| CloseReason::SyncRefused(Code(code));
    for (answer, closed) in [
        ("CFW a0000001 200\r\n\r\n", None),
        (
            "CFW a0000001 200\r\nKeep-Alive: 100\r\nPackages: MSC-dist-conf/1.0, msc-ivr/1.0\r\n\r\n",
            None,
        ),
        (
            "CFW a0000001 200\r\nPackages: msc-ivr/1.0\r\n\r\n",
            Some(CloseReason::NoCommonPackage),
        ),
        ("CFW a0000001 481\r\n\r\n", Some(refused(481))),
        ("CFW a0000001 403\r\n\r\n", Some(refused(403))),
        ("CFW a0000001 400\r\n\r\n", Some(refused(400))),
        ("CFW abcd K-ALIVE\r\n\r\n", Some(CloseReason::NotSynced)),
    ] {
        let now = Instant::now();
        let mut active = Channel::active(now, config("active00"));
        active.handle_bytes(now, answer.as_bytes());
        match closed {
            None => assert!(matches!(event(&mut active), Event::Ready { .. })),
            Some(reason) => assert_eq!(event(&mut active), Event::Closed(reason)),
        }
    }
    let now = Instant::now();
    let mut active = Channel::active(now, config("active00"));
    assert_eq!(active.poll_timeout(), Some(now + seconds(20)));
    assert_eq!(
        active.request(now, package(), None),
        Err(SendError::NotReady)
    );
    active.handle_bytes(now, b"CFW nobodys1 200\r\n\r\n");
    active.handle_timeout(now + seconds(20));
    assert_eq!(event(&mut active), Event::Closed(CloseReason::SyncTimedOut));
}

#[test]
fn either_side_changes_the_packages() {
    let ivr = token("msc-ivr/1.0");
    let mut pair = Pair::new();
    // Nothing in common: all stays as it was.
    pair.passive.sync(pair.now, vec![ivr]).unwrap();
    pair.exchange();
    assert_eq!(event(&mut pair.passive), Event::NotRenegotiated);
    assert_eq!(events(&mut pair.active), []);
    assert_eq!(pair.passive.packages(), [package()]);

    pair.passive.sync(pair.now, vec![ivr, package()]).unwrap();
    pair.exchange();
    let packages = vec![package()];
    let renegotiated = Event::Renegotiated { packages };
    assert_eq!(event(&mut pair.passive), renegotiated);
    assert_eq!(event(&mut pair.active), renegotiated);

    // Both at the same time: neither.
    pair.passive.sync(pair.now, vec![package()]).unwrap();
    pair.active.sync(pair.now, vec![package()]).unwrap();
    pair.exchange();
    assert_eq!(event(&mut pair.passive), Event::NotRenegotiated);
    assert_eq!(event(&mut pair.active), Event::NotRenegotiated);

    // No answer in time.
    pair.active.sync(pair.now, vec![package()]).unwrap();
    consume(&mut pair.active);
    pair.advance(seconds(20));
    assert_eq!(event(&mut pair.active), Event::NotRenegotiated);
    pair.active.sync(pair.now, vec![package()]).unwrap();
    pair.exchange();
    assert!(matches!(
        event(&mut pair.active),
        Event::Renegotiated { .. }
    ));
}

#[test]
fn later_syncs_as_others_send_them() {
    let two = vec![package(), token("msc-ivr/1.0")];
    for (renegotiates, bytes, output) in [
        (false, SYNC.to_owned(), "CFW 8djae7khauj 421\r\n\r\n"),
        (
            true,
            SYNC.replace("active00", "changed0"),
            "CFW 8djae7khauj 481\r\n\r\n",
        ),
        (
            true,
            "CFW abcd SYNC\r\n\r\n".to_owned(),
            "CFW abcd 400\r\n\r\n",
        ),
        (
            true,
            SYNC.replace("dist-conf", "mixer"),
            "CFW 8djae7khauj 422\r\nSupported: msc-dist-conf/1.0,msc-ivr/1.0\r\n\r\n",
        ),
        // Without Keep-Alive in the answer.
        (
            true,
            SYNC.replace("dist-conf", "ivr"),
            "CFW 8djae7khauj 200\r\nPackages: msc-ivr/1.0\r\n\r\n",
        ),
    ] {
        let (accepted, now) = accepted(SYNC);
        let config = Config {
            renegotiates,
            peer_dialog_id: Some("active00".to_owned()),
            ..Config::new(token("passive0"), two.clone())
        };
        let mut passive = accepted.claim(now, config);
        consume(&mut passive);
        passive.handle_bytes(now, bytes.as_bytes());
        assert_eq!(sent(&mut passive), output);
        let is_changed = output.contains(" 200\r\n");
        let package = if is_changed { two[1] } else { two[0] };
        assert_eq!(passive.packages(), [package]);
        // What is no longer a package gets 420.
        let control = "CFW 1234 CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\r\n";
        passive.handle_bytes(now, control.as_bytes());
        let code = if is_changed {
            "CFW 1234 420\r\n\r\n"
        } else {
            ""
        };
        assert_eq!(sent(&mut passive), code);
    }
}

#[test]
fn a_channel_lives_as_long_as_both_ends_do() {
    let mut pair = Pair::new();
    pair.advance(seconds(3600));
    assert_eq!(events(&mut pair.active), []);
    assert_eq!(events(&mut pair.passive), []);
}

/// RFC 6230 §6.3.3: only K-ALIVE sets the clocks back, whatever else is said.
#[test]
fn traffic_does_not_stand_for_k_alive() {
    let Pair {
        mut active,
        mut passive,
        now,
    } = Pair::new();
    let passive_expires = now + seconds(100);
    for second in 0..100 {
        let now = now + seconds(second);
        let control =
            format!("CFW x{second:04} CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\r\n");
        passive.handle_timeout(now);
        passive.handle_bytes(now, control.as_bytes());
        let Event::Control { id, .. } = event(&mut passive) else {
            panic!("no CONTROL");
        };
        passive.answer(now, id, None).unwrap();
    }
    passive.handle_timeout(passive_expires);
    assert_eq!(event(&mut passive), Event::Closed(CloseReason::KeepAlive));

    // The active end: its K-ALIVE of 80 s is not answered, but the peer goes on talking.
    assert_eq!(active.poll_timeout(), Some(now + seconds(80)));
    active.handle_timeout(now + seconds(80));
    assert_eq!(sent(&mut active), "CFW a0000002 K-ALIVE\r\n\r\n");
    assert_eq!(active.poll_timeout(), Some(now + seconds(100)));
    active.handle_bytes(
        now + seconds(99),
        b"CFW 1234 K-ALIVE\r\n\r\nCFW a0000002 500\r\n\r\n",
    );
    assert_eq!(sent(&mut active), "CFW 1234 200\r\n\r\n");
    active.handle_timeout(now + seconds(100));
    assert_eq!(event(&mut active), Event::Closed(CloseReason::KeepAlive));
}

#[test]
fn an_answered_k_alive_sets_the_clock_back() {
    let Pair {
        mut active,
        mut passive,
        now,
    } = Pair::new();
    active.handle_timeout(now + seconds(80));
    passive.handle_bytes(now + seconds(81), &consume(&mut active));
    assert_eq!(passive.poll_timeout(), Some(now + seconds(181)));
    active.handle_bytes(now + seconds(82), &consume(&mut passive));
    assert_eq!(active.poll_timeout(), Some(now + seconds(82 + 80)));
}

#[test]
fn the_end_of_a_channel() {
    let mut pair = Pair::new();
    let content = Content::new("text/plain", "?");
    pair.active
        .request(pair.now, package(), Some(content))
        .unwrap();
    pair.active.handle_disconnect();
    let last = events(&mut pair.active);
    assert!(
        matches!(
            last[..],
            [
                Event::Failed { .. },
                Event::Closed(CloseReason::Disconnected)
            ]
        ),
        "{last:?}"
    );
    pair.active.close();
    pair.active.handle_timeout(pair.now + seconds(1000));
    pair.active.handle_bytes(pair.now, SYNC.as_bytes());
    assert_eq!(events(&mut pair.active), []);
    assert!(pair.active.is_closed());
    pair.passive.close();
    assert_eq!(event(&mut pair.passive), Event::Closed(CloseReason::Local));
}
