//! How bytes become messages: cut anywhere, within bounds (RFC 6230 §9.1).

use crate::pair::{Pair, events, sent};
use cfw::channel::{
    BODY_LEN_MAX, CloseReason, Event, FrameError, HEAD_LEN_MAX, HEADERS_MAX, START_LINE_LEN_MAX,
};
use proptest::prelude::*;

/// Everything that may be said to the passive end of a channel, one after the other.
const STREAM: &[u8] = b"CFW aaaa CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\
    Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhe\r\nl\
    CFW bbbb K-ALIVE\r\n\r\n\r\n\r\nCFW cccc 200\r\n\r\n\
    CFW dddd CONTROL\nControl-Package: msc-ivr/1.0\nContent-Length: 0\n\n\
    CFW eeee SYNC\r\nDialog-ID: active00\r\nPackages: msc-ivr/1.0,msc-dist-conf/1.0\r\n\r\n\
    CFW ffff WHAT\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n\r\n\
    CFW gggg REPORT\r\nSeq: 1\r\nStatus: update\r\n\r\n\
    CFW aaaa CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\n\r\n\
    CFW hhhh CONTROL\r\nControl-Package: msc-dist-conf/1.0\r\nContent-Length: 5000000000\r\n\r\n";

/// What the passive end makes of it: its events and its output.
fn heard<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, String) {
    let mut pair = Pair::new();
    for piece in pieces {
        pair.passive.handle_bytes(pair.now, piece);
    }
    (events(&mut pair.passive), sent(&mut pair.passive))
}

#[test]
fn a_stream_of_messages() {
    let (events, output) = heard([STREAM].into_iter());
    assert_eq!(events.len(), 3, "{events:?}");
    let Event::Control { content, .. } = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(content.body, b"he\r\nl");
    assert!(matches!(events[1], Event::Renegotiated { .. }));
    assert_eq!(
        events[2],
        Event::Closed(CloseReason::Malformed(FrameError::ContentLength))
    );
    assert_eq!(
        output,
        "CFW bbbb 200\r\n\r\nCFW dddd 420\r\n\r\n\
         CFW eeee 200\r\nPackages: msc-dist-conf/1.0\r\n\r\nCFW ffff 500\r\n\r\n\
         CFW gggg 481\r\n\r\nCFW aaaa 423\r\n\r\nCFW hhhh 400\r\n\r\n"
    );
}

#[test]
fn byte_at_a_time() {
    assert_eq!(heard(STREAM.chunks(1)), heard([STREAM].into_iter()));
}

proptest! {
    #[test]
    fn cut_anywhere(cuts in prop::collection::vec(0..STREAM.len(), 0..20)) {
        let mut cuts = cuts;
        cuts.extend([0, STREAM.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &STREAM[cut[0]..cut[1]]);
        prop_assert_eq!(heard(pieces), heard([STREAM].into_iter()));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..STREAM.len()) {
        let _ = heard([&STREAM[..at], &bytes].into_iter());
    }
}

#[test]
fn what_cannot_be_framed_ends_the_channel() {
    let long_line = format!("CFW abcd {}\r\n\r\n", "X".repeat(START_LINE_LEN_MAX - 10));
    let header = "X: y\r\n";
    let many_headers = format!("CFW abcd K-ALIVE\r\n{}\r\n", header.repeat(HEADERS_MAX + 1));
    let big_head = format!(
        "CFW abcd K-ALIVE\r\nX: {}\r\n\r\n",
        "y".repeat(HEAD_LEN_MAX)
    );
    let big_body = format!(
        "CFW abcd K-ALIVE\r\nContent-Length: {}\r\n\r\n",
        BODY_LEN_MAX + 1
    );
    for (bytes, output, error) in [
        (long_line.as_str(), "", FrameError::StartLine),
        ("SIP/2.0 200 OK\r\n", "", FrameError::StartLine),
        ("cfw abcd K-ALIVE\r\n", "", FrameError::StartLine),
        ("CFW abc K-ALIVE\r\n", "", FrameError::StartLine),
        ("CFW abcd\r\n", "", FrameError::StartLine),
        ("CFW abcd \r\n", "", FrameError::StartLine),
        ("CFW abcd K-ALIVE now\r\n", "", FrameError::StartLine),
        (" CFW abcd K-ALIVE\r\n", "", FrameError::StartLine),
        (
            many_headers.as_str(),
            "CFW abcd 400\r\n\r\n",
            FrameError::Head,
        ),
        (big_head.as_str(), "CFW abcd 400\r\n\r\n", FrameError::Head),
        (
            big_body.as_str(),
            "CFW abcd 400\r\n\r\n",
            FrameError::ContentLength,
        ),
        (
            "CFW abcd K-ALIVE\r\nContent-Length: -1\r\n\r\n",
            "CFW abcd 400\r\n\r\n",
            FrameError::ContentLength,
        ),
        (
            "CFW abcd K-ALIVE\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            "CFW abcd 400\r\n\r\n",
            FrameError::ContentLength,
        ),
        // A response is not answered.
        (
            "CFW abcd 200\r\nContent-Length: x\r\n\r\n",
            "",
            FrameError::ContentLength,
        ),
    ] {
        let mut pair = Pair::new();
        pair.passive.handle_bytes(pair.now, bytes.as_bytes());
        assert_eq!(sent(&mut pair.passive), output, "{bytes}");
        let reason = CloseReason::Malformed(error);
        assert_eq!(events(&mut pair.passive), [Event::Closed(reason)]);
    }
    let mut pair = Pair::new();
    pair.passive
        .handle_bytes(pair.now, b"CFW abcd K-ALIVE\r\nX: \xff\r\n");
    assert_eq!(sent(&mut pair.passive), "CFW abcd 400\r\n\r\n");
}

#[test]
fn what_is_just_within_the_bounds() {
    let line = format!("CFW abcd {}\r\n\r\n", "X".repeat(START_LINE_LEN_MAX - 11));
    let headers = format!("CFW abcd K-ALIVE\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX));
    let frame_len = "CFW abcd K-ALIVE\r\nX: \r\n\r\n".len();
    let head = format!(
        "CFW abcd K-ALIVE\r\nX: {}\r\n\r\n",
        "y".repeat(HEAD_LEN_MAX - frame_len)
    );
    let body = format!(
        "CFW abcd K-ALIVE\r\nContent-Length: {BODY_LEN_MAX}\r\n\r\n{}",
        "z".repeat(BODY_LEN_MAX)
    );
    for (bytes, code) in [(line, 500), (headers, 200), (head, 200), (body, 200)] {
        let mut pair = Pair::new();
        pair.passive.handle_bytes(pair.now, bytes.as_bytes());
        let output = sent(&mut pair.passive);
        assert_eq!(output, format!("CFW abcd {code}\r\n\r\n"));
    }
}
