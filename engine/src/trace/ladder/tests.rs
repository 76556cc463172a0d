//! Ladders as they are printed.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

const START_S: u64 = 1_700_000_000;

fn message(at_ms: u64, direction: Direction, start: &str, call_id: &str, rest: &str) -> SipMessage {
    SipMessage {
        time: UNIX_EPOCH + Duration::from_millis(START_S * 1_000 + at_ms),
        core: 0,
        direction,
        transport: "UDP".into(),
        peer: "192.0.2.1:40000".parse().unwrap(),
        local: "192.0.2.9:5060".parse().unwrap(),
        call_id: call_id.to_owned(),
        text: format!(
            "{start}\r\nFrom: \"Al\" <sip:alice@h>;tag=1\r\nt: sip:lobby@h\r\nCall-ID: {call_id}\r\n{rest}\r\n"
        ),
    }
}

fn call(call_id: &str, from_ms: u64) -> Vec<SipMessage> {
    use Direction::{In, Out};
    let sdp = "CSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n";
    let next = |ms| from_ms + ms;
    vec![
        message(next(0), In, "INVITE sip:lobby@h SIP/2.0", call_id, sdp),
        message(
            next(1),
            Out,
            "SIP/2.0 100 Trying",
            call_id,
            "CSeq: 1 INVITE\r\n",
        ),
        message(next(2), Out, "SIP/2.0 200 OK", call_id, sdp),
        message(next(502), Out, "SIP/2.0 200 OK", call_id, sdp),
        message(
            next(504),
            In,
            "ACK sip:lobby@h SIP/2.0",
            call_id,
            "CSeq: 1 ACK\r\n",
        ),
        message(
            next(2_504),
            Out,
            "BYE sip:alice@h SIP/2.0",
            call_id,
            "CSeq: 7 BYE\r\n",
        ),
        message(
            next(2_510),
            In,
            "SIP/2.0 200 OK",
            call_id,
            "CSeq: 7 BYE\r\n",
        ),
    ]
}

const ONE_CALL: &str = "\
call one@h from sip:alice@h to sip:lobby@h at 2023-11-14T22:13:20.000Z
            peer 192.0.2.1:40000                server 192.0.2.9:5060
    +0.000  │──────── INVITE with SDP ────────>│  1 INVITE  UDP
    +0.001  │<────────── 100 Trying ───────────│  1 INVITE  UDP
    +0.002  │<─────── 200 OK with SDP ─────────│  1 INVITE  UDP
    +0.502  │<─────── 200 OK with SDP ─────────│  1 INVITE  UDP  again
    +0.504  │────────────── ACK ──────────────>│  1 ACK  UDP
    +2.504  │<───────────── BYE ───────────────│  7 BYE  UDP
    +2.510  │───────────── 200 OK ────────────>│  7 BYE  UDP
";

#[test]
fn a_call_is_a_ladder() {
    assert_eq!(draw_all(call("one@h", 0), false), ONE_CALL);
}

#[test]
fn calls_that_interleave_are_drawn_one_after_the_other() {
    let (one, two) = (call("one@h", 0), call("two@h", 1));
    let mixed: Vec<SipMessage> = one
        .into_iter()
        .rev()
        .zip(two)
        .flat_map(|(one, two)| [two, one])
        .collect();
    let two = ONE_CALL
        .replace("one@h", "two@h")
        .replace("20.000Z", "20.001Z");
    assert_eq!(draw_all(mixed, false), format!("{ONE_CALL}\n{two}"));
}

#[test]
fn messages_drawn_as_they_come_name_their_call_when_it_changes() {
    let mut ladder = Ladder::new(false);
    let (one, two) = (call("one@h", 0), call("two@h", 0));
    let drawn: String = [&one[0], &two[0], &one[1], &one[4]]
        .map(|message| ladder.draw(message))
        .concat();
    assert_eq!(
        drawn,
        "\
call one@h from sip:alice@h to sip:lobby@h at 2023-11-14T22:13:20.000Z
            peer 192.0.2.1:40000                server 192.0.2.9:5060
    +0.000  │──────── INVITE with SDP ────────>│  1 INVITE  UDP

call two@h from sip:alice@h to sip:lobby@h at 2023-11-14T22:13:20.000Z
            peer 192.0.2.1:40000                server 192.0.2.9:5060
    +0.000  │──────── INVITE with SDP ────────>│  1 INVITE  UDP

call one@h
    +0.001  │<────────── 100 Trying ───────────│  1 INVITE  UDP
    +0.504  │────────────── ACK ──────────────>│  1 ACK  UDP
"
    );
}

#[test]
fn whole_messages_and_peers_that_moved_are_shown() {
    let mut ladder = Ladder::new(true);
    let mut bye = message(
        0,
        Direction::In,
        "BYE sip:lobby@h SIP/2.0",
        "a",
        "CSeq: 2 BYE\r\n",
    );
    ladder.draw(&bye);
    bye.peer = "192.0.2.7:40001".parse().unwrap();
    bye.transport = "TCP".into();
    assert_eq!(
        ladder.draw(&bye),
        "    \
    +0.000  │────────────── BYE ──────────────>│  2 BYE  TCP  again  peer 192.0.2.7:40001
              BYE sip:lobby@h SIP/2.0
              From: \"Al\" <sip:alice@h>;tag=1
              t: sip:lobby@h
              Call-ID: a
              CSeq: 2 BYE

"
    );
}

#[test]
fn no_message_commands_the_terminal_or_breaks_the_line() {
    let evil = "X\u{1b}[2J\u{9b}31m sip:\u{7}a SIP/2.0";
    let mut hostile = message(
        0,
        Direction::Out,
        evil,
        "\u{1b}]0;x\u{7}",
        "CSeq: \u{1b}c 1\r\n",
    );
    hostile.transport = "\u{1b}".into();
    let drawn = draw_all(vec![hostile], true);
    assert!(
        !drawn.contains(|c: char| c.is_control() && c != '\n'),
        "{drawn:?}"
    );

    let long = format!("SIP/2.0 200 {}", "x".repeat(500));
    let drawn = draw_all(
        vec![message(0, Direction::In, &long, &"c".repeat(500), "")],
        false,
    );
    let rung = drawn.lines().last().unwrap();
    assert_eq!(
        rung,
        "    +0.000  │─── 200 xxxxxxxxxxxxxxxxxxxxx… ──>│  ?  UDP"
    );
    assert_eq!(rung.chars().filter(|&c| c == '│').count(), 2);

    let mut nothing = message(0, Direction::In, "", "", "");
    nothing.text = String::new();
    assert!(draw_all(vec![nothing], true).contains("call without a Call-ID"));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut ladder = Ladder::new(false);
    for call in 0..=CALLS_MAX {
        ladder.draw(&message(
            0,
            Direction::In,
            "BYE sip:a SIP/2.0",
            &call.to_string(),
            "",
        ));
    }
    assert_eq!(
        (ladder.calls.len(), ladder.oldest.len()),
        (CALLS_MAX, CALLS_MAX)
    );
    for cseq in 0..=2 * SEEN_MAX {
        ladder.draw(&message(
            0,
            Direction::In,
            "BYE sip:a SIP/2.0",
            "x",
            &format!("CSeq: {cseq}\r\n"),
        ));
    }
    assert!(ladder.calls["x"].seen.len() <= SEEN_MAX);
}
