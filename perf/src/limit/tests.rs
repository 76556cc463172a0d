//! Every way sends back what came, to whom it came from.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use super::{Kind, PACKET_LEN};

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
