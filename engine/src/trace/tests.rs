//! Records for the tests of the parts, and the recording itself.

use std::net::UdpSocket;
use std::time::{Duration, UNIX_EPOCH};

use sip::Transport;

use super::*;
use crate::config::Config;
use crate::meters::Meters;

fn flow(transport: Transport) -> Flow {
    Flow {
        transport,
        peer: "192.0.2.1:40000".parse().unwrap(),
        listener: 0,
        stream: 0,
    }
}

pub(super) fn record(message: &str) -> Record {
    Record {
        at: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        direction: Direction::In,
        flow: flow(Transport::Udp),
        local: "192.0.2.9:5060".parse().unwrap(),
        message: Bytes::copy_from_slice(message.as_bytes()),
    }
}

fn tracer(sets: &[&str], watchers: &Watchers) -> Tracer {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let config = Config::load(None, std::iter::empty(), &sets, &[0]).unwrap();
    Tracer::new(&config.trace, &config.sip.listen, watchers.clone()).unwrap()
}

#[test]
fn nothing_is_remembered_unless_somebody_wants_it() {
    let meters = &Meters::new(&[0]).cores[0];
    let watchers = Watchers::default();
    let mut tracer = tracer(&[], &watchers);
    let message = Bytes::from_static(b"INVITE sip:lobby@a SIP/2.0\r\n\r\n");
    let recorded = |tracer: &mut Tracer| {
        tracer.begin(UNIX_EPOCH + Duration::from_secs(5));
        tracer.record(Direction::In, flow(Transport::Udp), &message, meters);
        tracer.keep_house(meters);
        meters.trace_messages.get()
    };
    assert_eq!(recorded(&mut tracer), 0);
    let watch = watchers.watch();
    assert_eq!(recorded(&mut tracer), 1);
    let batch = tracer.since(None);
    assert_eq!(batch.records[0].message, message);
    assert_eq!(batch.records[0].at, UNIX_EPOCH + Duration::from_secs(5));
    assert_eq!(batch.records[0].local, "127.0.0.1:5060".parse().unwrap());
    drop(watch);
    assert_eq!(recorded(&mut tracer), 0, "forgotten with the last watcher");
}

#[test]
fn a_past_is_kept_where_it_is_wanted() {
    let meters = &Meters::new(&[0]).cores[0];
    let watchers = Watchers::default();
    let mut tracer = tracer(&["trace.keep=3"], &watchers);
    let message = Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n");
    let mut record = |times| {
        for _ in 0..times {
            tracer.record(Direction::Out, flow(Transport::Udp), &message, meters);
        }
        tracer.keep_house(meters);
        meters.trace_messages.get()
    };
    assert_eq!(record(10), 3);
    let watch = watchers.watch();
    assert_eq!(record(10), 13, "more while somebody watches");
    drop(watch);
    assert_eq!(record(0), 3);
}

#[test]
fn messages_of_connections_do_not_pin_what_was_read_with_them() {
    let meters = &Meters::new(&[0]).cores[0];
    let watchers = Watchers::default();
    let mut tracer = tracer(&["trace.keep=3"], &watchers);
    let read = Bytes::from(vec![b'x'; 16_384]);
    for transport in [Transport::Tcp, Transport::Udp] {
        tracer.record(Direction::In, flow(transport), &read.slice(..100), meters);
    }
    let records = tracer.since(None).records;
    assert_ne!(records[0].message.as_ptr(), read.as_ptr());
    assert_eq!(
        records[1].message.as_ptr(),
        read.as_ptr(),
        "no copy where none is needed"
    );
}

#[test]
fn a_capture_server_gets_what_is_recorded_and_no_credentials() {
    let meters = &Meters::new(&[0]).cores[0];
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let hep = format!("trace.hep=udp:{}", server.local_addr().unwrap());
    let mut tracer = tracer(&[&hep], &Watchers::default());
    let message =
        "BYE sip:a SIP/2.0\r\nCall-ID: x\r\nAuthorization: Digest response=\"abc\"\r\n\r\n";
    let message = Bytes::from_static(message.as_bytes());
    tracer.record(Direction::In, flow(Transport::Udp), &message, meters);
    let mut packet = [0; 2_048];
    let len = server.recv(&mut packet).unwrap();
    assert!(packet[..len].ends_with(b"Digest response=\"***\"\r\n\r\n"));
    assert_eq!(meters.hep_sent.get(), 1);
    assert!(
        tracer.since(None).records.is_empty(),
        "remembering is another matter"
    );

    let large = Bytes::from(vec![b'x'; 70_000]);
    tracer.record(Direction::In, flow(Transport::Udp), &large, meters);
    assert_eq!((meters.hep_sent.get(), meters.hep_failed.get()), (1, 1));
}
