//! Every way sends back what came, to whom it came from.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use super::callers::Counts;
use super::echo::{Echoed, Scene};
use super::{Kind, LimitError, Options, PACKET_LEN, Row, check};

/// What callers get back for one packet each, by way: in the order of the callers.
fn echoes(kind: Kind, sockets: usize, callers: usize) -> Option<Vec<Vec<u8>>> {
    let mut way = match kind.open(sockets) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            eprintln!("{kind:?} is not tested: {error}");
            return None;
        }
        way => way.unwrap(),
    };
    assert_eq!(way.addresses().len(), sockets);
    // Those that have to say first that they want to receive.
    way.echo().unwrap();
    let phones: Vec<UdpSocket> = (0..callers)
        .map(|caller| {
            let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
            phone
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let server = way.addresses()[caller % sockets];
            phone.send_to(&[7; PACKET_LEN], server).unwrap();
            phone.send_to(&[7; PACKET_LEN - 1], server).unwrap();
            phone
        })
        .collect();
    let mut echoed = 0;
    for _ in 0..1_000 {
        echoed += way.echo().unwrap();
        if echoed == callers as u64 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(echoed, callers as u64, "{kind:?}");
    let answers = phones.iter().enumerate().map(|(caller, phone)| {
        let mut answer = vec![0; 2 * PACKET_LEN];
        let (len, from) = phone.recv_from(&mut answer).unwrap();
        assert_eq!(from, way.addresses()[caller % sockets], "{kind:?}");
        answer.truncate(len);
        answer
    });
    Some(answers.collect())
}

#[test]
fn every_way_answers_every_caller_alike() {
    for (sockets, callers) in [(1, 300), (7, 200), (50, 50)] {
        let plain = echoes(Kind::Plain, sockets, callers).unwrap();
        assert_eq!(echoes(Kind::Batches, sockets, callers).unwrap(), plain);
        if let Some(ring) = echoes(Kind::Ring, sockets, callers) {
            assert_eq!(ring, plain);
        }
    }
}

#[test]
fn segments_come_back_to_one_who_sends_one() {
    if let Some(answers) = echoes(Kind::Segments, 1, 20) {
        assert_eq!(answers, vec![vec![0xD5; PACKET_LEN]; 20]);
    }
}

const OPTIONS: Options = Options {
    callers: 100,
    caller_sockets: 10,
    seconds: 1,
    runs: 1,
    core: 0,
    peer_core: 1,
    only: None,
};

#[test]
fn options_that_cannot_be_measured_are_refused_with_a_reason() {
    let wrong = [
        (
            Options {
                callers: 0,
                ..OPTIONS
            },
            "nobody",
        ),
        (
            Options {
                seconds: 0,
                ..OPTIONS
            },
            "no time",
        ),
        (
            Options {
                peer_core: 0,
                ..OPTIONS
            },
            "the same",
        ),
        (
            Options {
                core: 1_023,
                ..OPTIONS
            },
            "--core 1023",
        ),
        (
            Options {
                core: 1_000_000,
                ..OPTIONS
            },
            "--core 1000000",
        ),
    ];
    for (options, told) in wrong {
        match check::options(&options) {
            Err(LimitError::Options(reason)) => assert!(reason.contains(told), "{reason}"),
            other => panic!("{options:?}: {other:?}"),
        }
    }
}

#[test]
fn a_row_is_the_median_and_says_what_was_lost_and_who_was_full() {
    let run = |pair_ns: u64, received: u64, echo_cpu: f64, callers_cpu: f64| Echoed {
        pairs: 1_000,
        cpu: Duration::from_nanos(1_000 * pair_ns),
        counts: Counts {
            offered: 1_000,
            received,
        },
        echo_cpu,
        callers_cpu,
    };
    let scene = Scene {
        sockets: 7,
        callers: 20,
        caller_sockets: 3,
        seconds: 1,
        core: 0,
        peer_core: 1,
    };
    let at_ease = [
        run(4_000, 1_000, 0.2, 0.2),
        run(1_000, 1_000, 0.2, 0.2),
        run(2_000, 1_000, 0.2, 0.2),
    ];
    let row = Row::new(Kind::Plain, &scene, &at_ease);
    assert!((row.participants_per_core() - 10_000.0).abs() < 1e-6);
    let told = row.to_string();
    assert!(told.contains("2000 ns a pair (1000 to 4000)"), "{told}");
    assert!(told.contains("0.000 % lost"), "{told}");
    assert!(!told.contains("full"), "{told}");
    let hard_pressed = [run(2_000, 1_000, 0.2, 0.2), run(2_000, 750, 0.96, 0.91)];
    let told = Row::new(Kind::Plain, &scene, &hard_pressed).to_string();
    assert!(told.contains("25.000 % lost"), "{told}");
    assert!(told.contains("(the core was full)"), "{told}");
    assert!(told.contains("(the callers' core was full)"), "{told}");
}
