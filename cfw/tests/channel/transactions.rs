//! CONTROL, 202 and REPORT (RFC 6230 §6.3.1, §6.3.2), and the codes that refuse them.

use std::time::Duration;

use crate::pair::{Pair, config, consume, event, events, package, sent};
use cfw::channel::{
    BODY_LEN_MAX, Channel, CloseReason, Code, Content, Event, Failure, Incoming, SendError,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn text(body: &str) -> Content {
    Content::new("text/plain", body)
}

/// Who asks, what is asked on both sides, and the pair.
fn asked() -> (Pair, cfw::channel::Outgoing, Incoming) {
    let mut pair = Pair::new();
    let asked = pair
        .active
        .request(pair.now, package(), Some(text("question")))
        .unwrap();
    pair.exchange();
    let Event::Control { id, content, .. } = event(&mut pair.passive) else {
        panic!("no CONTROL");
    };
    assert_eq!(content, text("question"));
    (pair, asked, id)
}

const CONTROL: &str = "CFW peer1234 CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\r\n";

#[test]
fn a_control_and_its_answer_as_they_are_written() {
    let mut pair = Pair::new();
    pair.active
        .request(pair.now, package(), Some(text("question")))
        .unwrap();
    let control = sent(&mut pair.active);
    assert_eq!(
        control,
        "CFW a0000002 CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\
         Content-Type: text/plain\r\nContent-Length: 8\r\n\r\nquestion"
    );
    pair.active.request(pair.now, package(), None).unwrap();
    assert_eq!(
        sent(&mut pair.active),
        "CFW a0000003 CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\nContent-Length: 0\r\n\r\n"
    );
    pair.passive.handle_bytes(pair.now, control.as_bytes());
    let Event::Control { id, .. } = event(&mut pair.passive) else {
        panic!("no CONTROL");
    };
    pair.passive
        .answer(pair.now, id, Some(text("answer")))
        .unwrap();
    assert_eq!(
        sent(&mut pair.passive),
        "CFW a0000002 200\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nanswer"
    );
    assert_eq!(
        pair.passive.answer(pair.now, id, None),
        Err(SendError::Gone)
    );
}

#[test]
fn both_ends_ask_and_answers_come_in_any_order() {
    let mut pair = Pair::new();
    let request =
        |channel: &mut Channel, body| channel.request(pair.now, package(), Some(text(body)));
    let first = request(&mut pair.active, "1").unwrap();
    let second = request(&mut pair.active, "2").unwrap();
    let back = request(&mut pair.passive, "3").unwrap();
    pair.exchange();
    let [
        Event::Control { id: one, .. },
        Event::Control { id: two, .. },
    ] = events(&mut pair.passive)[..]
    else {
        panic!("not two CONTROLs");
    };
    let Event::Control { id: three, .. } = event(&mut pair.active) else {
        panic!("no CONTROL");
    };
    pair.passive.answer(pair.now, two, Some(text("b"))).unwrap();
    pair.active.answer(pair.now, three, None).unwrap();
    pair.passive.answer(pair.now, one, Some(text("a"))).unwrap();
    pair.exchange();
    let answered = |id, content| Event::Answered { id, content };
    assert_eq!(
        events(&mut pair.active),
        [answered(second, text("b")), answered(first, text("a"))]
    );
    let nothing = Content::new("", "");
    assert_eq!(event(&mut pair.passive), answered(back, nothing));
}

#[test]
fn an_answer_that_takes_long_is_extended_and_refreshed() {
    let (mut pair, request, id) = asked();
    pair.advance(seconds(5));
    let within = seconds(15);
    assert_eq!(
        event(&mut pair.active),
        Event::Extended {
            id: request,
            within
        }
    );
    // Every 12 s an empty REPORT.
    pair.advance(seconds(50));
    assert_eq!(events(&mut pair.active).len(), 4);
    pair.passive
        .answer(pair.now, id, Some(text("at last")))
        .unwrap();
    assert_eq!(
        pair.passive.answer(pair.now, id, None),
        Err(SendError::Gone)
    );
    pair.exchange();
    assert_eq!(
        event(&mut pair.active),
        Event::Answered {
            id: request,
            content: text("at last")
        }
    );
    // Nothing is left: only K-ALIVE is ahead.
    pair.advance(seconds(300));
    assert_eq!(events(&mut pair.active), []);
    assert_eq!(events(&mut pair.passive), []);
}

#[test]
fn reports_as_they_are_written() {
    let mut pair = Pair::new();
    let passive = &mut pair.passive;
    passive.handle_bytes(pair.now, CONTROL.as_bytes());
    let Event::Control { id, .. } = event(passive) else {
        panic!("no CONTROL");
    };
    passive.extend(pair.now, id).unwrap();
    assert_eq!(sent(passive), "CFW peer1234 202\r\nTimeout: 15\r\n\r\n");
    passive.extend(pair.now, id).unwrap();
    assert_eq!(sent(passive), "");
    assert_eq!(passive.refuse(id, Code(500)), Err(SendError::Extended));
    passive.update(pair.now, id, text("ringing")).unwrap();
    assert_eq!(
        sent(passive),
        "CFW peer1234 REPORT\r\nSeq: 1\r\nStatus: update\r\nTimeout: 15\r\n\
         Content-Type: text/plain\r\nContent-Length: 7\r\n\r\nringing"
    );
    passive.answer(pair.now, id, None).unwrap();
    assert_eq!(
        sent(passive),
        "CFW peer1234 REPORT\r\nSeq: 2\r\nStatus: terminate\r\nTimeout: 15\r\n\
         Content-Length: 0\r\n\r\n"
    );
    // The id is in use until both are answered.
    passive.handle_bytes(pair.now, CONTROL.as_bytes());
    assert_eq!(sent(passive), "CFW peer1234 423\r\n\r\n");
    passive.handle_bytes(pair.now, b"CFW peer1234 200\r\nSeq: 2\r\n\r\n");
    passive.handle_bytes(pair.now, CONTROL.as_bytes());
    assert_eq!(sent(passive), "CFW peer1234 423\r\n\r\n");
    passive.handle_bytes(pair.now, b"CFW peer1234 200\r\n\r\n");
    passive.handle_bytes(pair.now, CONTROL.as_bytes());
    assert!(matches!(event(passive), Event::Control { .. }));
}

#[test]
fn the_owner_tells_how_it_goes_on() {
    let (mut pair, request, id) = asked();
    for body in ["ringing", "still"] {
        pair.passive.update(pair.now, id, text(body)).unwrap();
    }
    pair.exchange();
    let heard = events(&mut pair.active);
    let updated = |body| Event::Updated {
        id: request,
        content: text(body),
    };
    assert!(matches!(heard[0], Event::Extended { .. }));
    assert_eq!(heard[1..], [updated("ringing"), updated("still")]);
}

/// What our end says to each REPORT, after a 202 to its CONTROL a0000002.
#[test]
fn reports_that_are_not_in_order() {
    let report = |headers: &str| format!("CFW a0000002 REPORT\r\n{headers}\r\n");
    let failed = |failure| Some(failure);
    for (reports, output, failure) in [
        (
            report("Seq: 2\r\nStatus: update\r\nTimeout: 10\r\n"),
            "CFW a0000002 406\r\n\r\n",
            failed(Failure::OutOfOrder),
        ),
        (
            report("Seq: 1\r\nStatus: update\r\n") + &report("Seq: 1\r\nStatus: update\r\n"),
            "CFW a0000002 200\r\nSeq: 1\r\n\r\nCFW a0000002 406\r\n\r\n",
            failed(Failure::OutOfOrder),
        ),
        (
            report("Seq: 1\r\nStatus: update\r\n") + &report("Seq: 3\r\nStatus: terminate\r\n"),
            "CFW a0000002 200\r\nSeq: 1\r\n\r\nCFW a0000002 406\r\n\r\n",
            failed(Failure::OutOfOrder),
        ),
        // The transaction goes on when the REPORT cannot be read.
        (
            report("Status: update\r\n"),
            "CFW a0000002 400\r\n\r\n",
            None,
        ),
        (report("Seq: 1\r\n"), "CFW a0000002 400\r\n\r\n", None),
        (
            report("Seq: one\r\nStatus: update\r\n"),
            "CFW a0000002 400\r\n\r\n",
            None,
        ),
        (
            report("Seq: 1\r\nStatus: done\r\n"),
            "CFW a0000002 400\r\n\r\n",
            None,
        ),
        (
            "CFW a0000009 REPORT\r\nSeq: 1\r\nStatus: update\r\n\r\n".to_owned(),
            "CFW a0000009 481\r\n\r\n",
            None,
        ),
    ] {
        let mut pair = Pair::new();
        let active = &mut pair.active;
        let id = active.request(pair.now, package(), None).unwrap();
        consume(active);
        active.handle_bytes(pair.now, b"CFW a0000002 202\r\nTimeout: 10\r\n\r\n");
        assert!(matches!(event(active), Event::Extended { .. }));
        active.handle_bytes(pair.now, reports.as_bytes());
        assert_eq!(sent(active), output, "{reports}");
        let failed = events(active).into_iter().find_map(|event| match event {
            Event::Failed {
                id: failed,
                failure,
            } if failed == id => Some(failure),
            _ => None,
        });
        assert_eq!(failed, failure, "{reports}");
        if failure.is_some() {
            active.handle_bytes(pair.now, report("Seq: 3\r\nStatus: update\r\n").as_bytes());
            assert_eq!(sent(active), "CFW a0000002 481\r\n\r\n");
        }
    }
}

#[test]
fn a_report_without_a_202_is_to_nothing() {
    let mut pair = Pair::new();
    pair.active.request(pair.now, package(), None).unwrap();
    consume(&mut pair.active);
    pair.active.handle_bytes(
        pair.now,
        b"CFW a0000002 REPORT\r\nSeq: 1\r\nStatus: terminate\r\n\r\n",
    );
    assert_eq!(sent(&mut pair.active), "CFW a0000002 481\r\n\r\n");
    pair.active
        .handle_bytes(pair.now, b"CFW a0000002 200\r\n\r\n");
    assert!(matches!(event(&mut pair.active), Event::Answered { .. }));
}

#[test]
fn requests_that_nobody_answers() {
    let mut pair = Pair::new();
    let now = pair.now;
    let id = pair.active.request(now, package(), None).unwrap();
    assert_eq!(pair.active.poll_timeout(), Some(now + seconds(20)));
    pair.active.handle_timeout(now + seconds(20));
    let failure = Failure::TimedOut;
    assert_eq!(event(&mut pair.active), Event::Failed { id, failure });
    // Too late.
    pair.active.handle_bytes(now, b"CFW a0000002 200\r\n\r\n");
    assert_eq!(events(&mut pair.active), []);

    // Extended, and then nothing.
    let id = pair.active.request(now, package(), None).unwrap();
    pair.active
        .handle_bytes(now, b"CFW a0000003 202\r\nTimeout: 30\r\n\r\n");
    assert!(matches!(event(&mut pair.active), Event::Extended { .. }));
    pair.active.handle_timeout(now + seconds(29));
    assert_eq!(events(&mut pair.active), []);
    pair.active.handle_timeout(now + seconds(30));
    assert_eq!(event(&mut pair.active), Event::Failed { id, failure });
}

#[test]
fn an_owner_that_never_answers_is_not_waited_for() {
    let (mut pair, request, id) = asked();
    pair.advance(seconds(119));
    assert_eq!(events(&mut pair.passive), []);
    pair.advance(seconds(1));
    assert_eq!(event(&mut pair.passive), Event::Abandoned { id });
    // It is no success for who asked: it has failed once the last REPORT's Timeout is over.
    let is_done = |event: &Event| !matches!(event, Event::Extended { .. });
    assert!(!events(&mut pair.active).iter().any(is_done));
    pair.advance(seconds(15));
    let failed = Event::Failed {
        id: request,
        failure: Failure::TimedOut,
    };
    assert_eq!(event(&mut pair.active), failed);
    assert_eq!(
        pair.passive.answer(pair.now, id, None),
        Err(SendError::Gone)
    );
}

#[test]
fn an_owner_that_looks_at_the_clock_too_late() {
    let (mut pair, _, id) = asked();
    let late = pair.now + seconds(130);
    let mut passive = pair.passive;
    // K-ALIVE has expired by then; the channel lives if one came.
    passive.handle_bytes(late, b"CFW abcd K-ALIVE\r\n\r\n");
    passive.handle_timeout(late);
    assert_eq!(event(&mut passive), Event::Abandoned { id });
    assert!(passive.poll_timeout().unwrap() > late);
    pair.active.handle_bytes(late, &consume(&mut passive));
}

#[test]
fn reports_that_the_peer_does_not_want() {
    for answer in ["406\r\nSeq: 1", "481"] {
        let mut pair = Pair::new();
        let passive = &mut pair.passive;
        passive.handle_bytes(pair.now, CONTROL.as_bytes());
        let Event::Control { id, .. } = event(passive) else {
            panic!("no CONTROL");
        };
        passive.update(pair.now, id, text("x")).unwrap();
        let answer = format!("CFW peer1234 {answer}\r\n\r\n");
        passive.handle_bytes(pair.now, answer.as_bytes());
        assert_eq!(event(passive), Event::Abandoned { id });
        assert_eq!(passive.answer(pair.now, id, None), Err(SendError::Gone));
    }
    // Nor answers.
    let mut pair = Pair::new();
    let passive = &mut pair.passive;
    passive.handle_bytes(pair.now, CONTROL.as_bytes());
    let Event::Control { id, .. } = event(passive) else {
        panic!("no CONTROL");
    };
    for _ in 0..16 {
        passive.update(pair.now, id, text("x")).unwrap();
    }
    let more = passive.update(pair.now, id, text("x"));
    assert_eq!(more, Err(SendError::TooMany));
    passive.handle_timeout(pair.now + seconds(20));
    assert_eq!(event(passive), Event::Abandoned { id });
}

/// Requests to a channel that is ready, and the code that each gets.
#[test]
fn requests_that_are_refused() {
    for (request, output) in [
        (
            "CFW abcd CONTROL\r\nControl-Package: msc-ivr/1.0\r\n\r\n",
            "CFW abcd 420\r\n\r\n",
        ),
        ("CFW abcd CONTROL\r\n\r\n", "CFW abcd 400\r\n\r\n"),
        (
            "CFW abcd CONTROL\r\nControl-Package: ?\r\n\r\n",
            "CFW abcd 400\r\n\r\n",
        ),
        (
            "CFW abcd CONTROL\r\nno header\r\nContent-Length: 3\r\n\r\nabc",
            "CFW abcd 400\r\n\r\n",
        ),
        ("CFW abcd AUTH\r\n\r\n", "CFW abcd 500\r\n\r\n"),
        ("CFW abcd control\r\n\r\n", "CFW abcd 500\r\n\r\n"),
        (
            "CFW abcd REPORT\r\nSeq: 1\r\nStatus: update\r\n\r\n",
            "CFW abcd 481\r\n\r\n",
        ),
        ("CFW abcd K-ALIVE\r\n\r\n", "CFW abcd 200\r\n\r\n"),
        ("CFW abcd 200\r\n\r\n", ""),
    ] {
        let mut pair = Pair::new();
        pair.passive.handle_bytes(pair.now, request.as_bytes());
        assert_eq!(sent(&mut pair.passive), output, "{request}");
        assert_eq!(events(&mut pair.passive), []);
        // It still works.
        pair.passive.handle_bytes(pair.now, CONTROL.as_bytes());
        assert!(matches!(event(&mut pair.passive), Event::Control { .. }));
    }
}

#[test]
fn unknown_headers_are_ignored_and_names_have_no_case() {
    let mut pair = Pair::new();
    let control = "CFW abcd CONTROL\r\ncontrol-PACKAGE : MSC-DIST-CONF/1.0\r\nX-Weather: fine\r\n\
                   content-length:  2 \r\nCONTENT-TYPE: text/plain\r\n\r\nhi";
    pair.passive.handle_bytes(pair.now, control.as_bytes());
    let Event::Control {
        package: named,
        content,
        ..
    } = event(&mut pair.passive)
    else {
        panic!("no CONTROL");
    };
    assert_eq!((named, content), (package(), text("hi")));
}

#[test]
fn answers_that_refuse() {
    for code in [400, 403, 405, 420, 423, 481, 500, 599] {
        let (mut pair, request, id) = asked();
        pair.passive.refuse(id, Code(code)).unwrap();
        assert_eq!(pair.passive.refuse(id, Code(code)), Err(SendError::Gone));
        pair.exchange();
        let failure = Failure::Refused(Code(code));
        let failed = Event::Failed {
            id: request,
            failure,
        };
        assert_eq!(event(&mut pair.active), failed);
    }
}

/// An id that is in use for something else is refused, even if it is ours.
#[test]
fn ids_in_use() {
    let mut pair = Pair::new();
    pair.active.request(pair.now, package(), None).unwrap();
    consume(&mut pair.active);
    let ours = CONTROL.replace("peer1234", "a0000002");
    pair.active.handle_bytes(pair.now, ours.as_bytes());
    assert_eq!(sent(&mut pair.active), "CFW a0000002 423\r\n\r\n");

    // And we take none that the peer uses.
    let next = CONTROL.replace("peer1234", "a0000004");
    pair.active.handle_bytes(pair.now, next.as_bytes());
    pair.active.request(pair.now, package(), None).unwrap();
    assert!(pair.active.output().starts_with(b"CFW a0000005 CONTROL"));
}

#[test]
fn what_is_not_sent() {
    let mut pair = Pair::new();
    let unknown = "msc-ivr/1.0".parse().unwrap();
    let request = |channel: &mut Channel, content| channel.request(pair.now, package(), content);
    let active = &mut pair.active;
    assert_eq!(
        active.request(pair.now, unknown, None),
        Err(SendError::UnknownPackage)
    );
    let too_long = Content::new("text/plain", vec![b'x'; BODY_LEN_MAX + 1]);
    assert_eq!(request(active, Some(too_long)), Err(SendError::Content));
    let two_lines = Content::new("text/plain\r\nX: y", "x");
    assert_eq!(request(active, Some(two_lines)), Err(SendError::Content));
    assert_eq!(active.output(), b"");
    let longest = Content::new("text/plain", vec![b'x'; BODY_LEN_MAX]);
    request(active, Some(longest)).unwrap();
    pair.exchange();
    assert!(matches!(event(&mut pair.passive), Event::Control { .. }));
}

#[test]
fn outstanding_requests_are_bounded() {
    let mut pair = Pair::new();
    let max = config("any0").transactions_max;
    for _ in 0..max {
        pair.active.request(pair.now, package(), None).unwrap();
    }
    let more = pair.active.request(pair.now, package(), None);
    assert_eq!(more, Err(SendError::TooMany));
    pair.exchange();
    assert_eq!(events(&mut pair.passive).len(), max);
    pair.passive.handle_bytes(pair.now, CONTROL.as_bytes());
    assert_eq!(sent(&mut pair.passive), "CFW peer1234 403\r\n\r\n");
}

#[test]
fn a_peer_that_does_not_read_loses_its_channel() {
    let mut pair = Pair::new();
    let body = Content::new("text/plain", vec![b'x'; BODY_LEN_MAX]);
    let max = config("any0").output_len_max;
    let requested = (0..max / BODY_LEN_MAX)
        .map(|_| pair.active.request(pair.now, package(), Some(body.clone())))
        .filter(Result::is_ok)
        .count();
    assert_eq!(requested, max / BODY_LEN_MAX - 1);
    assert!(pair.active.output().len() <= max);
    let last = events(&mut pair.active);
    assert_eq!(last.len(), requested + 1);
    assert_eq!(last.last(), Some(&Event::Closed(CloseReason::SlowPeer)));

    // Answers count too.
    let mut sent = 0;
    while !pair.passive.is_closed() {
        pair.passive
            .handle_bytes(pair.now, b"CFW abcd K-ALIVE\r\n\r\n");
        sent += 1;
        assert!(sent < max);
    }
    assert!(pair.passive.output().len() <= max);
}
