//! Both implementations of [`MediaIo`], held to the same.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::batch::BatchIo;
use super::plain::PlainIo;
use super::{Arrival, Flushed, HARVEST_MAX, MEDIA_LEN_MAX, MediaIo, Token};

/// Runs a check on every implementation.
fn on_all(check: impl Fn(&mut dyn MediaIo)) {
    check(&mut PlainIo::new().unwrap());
    check(&mut BatchIo::new().unwrap());
}

const HERE: &str = "127.0.0.1:0";

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    let patience = Duration::from_secs(5);
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

type Shown = (Token, SocketAddr, Vec<u8>);

/// Harvests until so many have been shown, or a second has passed.
fn harvest(io: &mut dyn MediaIo, expected: usize) -> Vec<Shown> {
    let mut shown = Vec::new();
    let mut keep = |arrival: Arrival<'_>| {
        shown.push((arrival.token, arrival.from, arrival.datagram.to_vec()));
        shown.len()
    };
    let mut count = 0;
    for _ in 0..1_000 {
        io.harvest(&mut |arrivals| arrivals.iter().for_each(|&arrival| count = keep(arrival)))
            .unwrap();
        if count >= expected {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    shown
}

#[test]
fn a_shared_payload_reaches_every_listener_behind_its_own_header() {
    on_all(|io| {
        let senders = [1, 2].map(|token| io.open(HERE.parse().unwrap(), Token(token)).unwrap());
        let listeners: Vec<_> = (0..150).map(|_| socket(HERE)).collect();
        let payload = io.share(b"payload");
        for (i, listener) in listeners.iter().enumerate() {
            let to = listener.local_addr().unwrap();
            io.queue(senders[i % 2], to, &[i as u8; 12], payload);
        }
        let sent = listeners.len() as u64;
        assert_eq!(io.flush(), Flushed { sent, failed: 0 });
        for (i, listener) in listeners.iter().enumerate() {
            let mut datagram = [0; 64];
            let len = listener.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..12], &[i as u8; 12]);
            assert_eq!(&datagram[12..len], b"payload");
        }
        assert_eq!(io.flush(), Flushed::default(), "a flush leaves nothing");
    });
}

#[test]
fn everything_that_arrived_is_shown_with_its_token_and_source() {
    on_all(|io| {
        let ours = socket(HERE);
        let address = ours.local_addr().unwrap();
        io.adopt(ours, Token(7)).unwrap();
        let peers = [socket(HERE), socket(HERE)];
        for i in 0..200_u8 {
            let peer = &peers[usize::from(i) % 2];
            peer.send_to(&[i; 3], address).unwrap();
        }
        let shown = harvest(io, 200);
        assert_eq!(shown.len(), 200);
        for (i, (token, from, datagram)) in shown.iter().enumerate() {
            assert_eq!(*token, Token(7));
            assert_eq!(*from, peers[i % 2].local_addr().unwrap());
            assert_eq!(datagram, &[i as u8; 3]);
        }
        assert!(harvest_once(io).is_empty(), "nothing is shown twice");
    });
}

fn harvest_once(io: &mut dyn MediaIo) -> Vec<Shown> {
    let mut shown = Vec::new();
    let shown_as = |arrival: &Arrival<'_>| (arrival.token, arrival.from, arrival.datagram.to_vec());
    io.harvest(&mut |arrivals| shown.extend(arrivals.iter().map(shown_as)))
        .unwrap();
    shown
}

#[test]
fn datagrams_of_every_length_come_whole() {
    on_all(|io| {
        let ours = socket(HERE);
        let address = ours.local_addr().unwrap();
        io.adopt(ours, Token(0)).unwrap();
        let peer = socket(HERE);
        // Around the border between what a batch holds at once and what it puts together.
        for len in [0, 1, 1_500, 2_239, 2_240, 2_241, 9_000, 65_000] {
            let sent: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            peer.send_to(&sent, address).unwrap();
            let shown = harvest(io, 1);
            assert!(shown[0].2 == sent, "{len}");
        }
    });
}

#[test]
fn what_is_too_long_for_media_is_left_out() {
    on_all(|io| {
        let id = io.open(HERE.parse().unwrap(), Token(0)).unwrap();
        let address = io.local_address(id).unwrap();
        // Where other datagrams may be long.
        let other = socket(HERE);
        let elsewhere = other.local_addr().unwrap();
        io.adopt(other, Token(1)).unwrap();
        let peer = socket(HERE);
        for len in [MEDIA_LEN_MAX + 1, MEDIA_LEN_MAX, 9_000, 20] {
            peer.send_to(&vec![7; len], address).unwrap();
        }
        peer.send_to(&[7; 9_000], elsewhere).unwrap();
        let mut lens: Vec<_> = harvest(io, 3)
            .iter()
            .map(|(token, _, datagram)| (token.0, datagram.len()))
            .collect();
        lens.sort_unstable();
        assert_eq!(lens, [(0, 20), (0, MEDIA_LEN_MAX), (1, 9_000)]);
    });
}

#[test]
fn both_families_are_spoken() {
    on_all(|io| {
        // Containers often have no IPv6, not even for themselves.
        let families = ["127.0.0.1:0", "[::1]:0"];
        for here in families
            .into_iter()
            .filter(|here| UdpSocket::bind(here).is_ok())
        {
            let peer = socket(here);
            let ours = socket(here);
            let address = ours.local_addr().unwrap();
            let id = io.adopt(ours, Token(0)).unwrap();
            peer.send_to(b"in", address).unwrap();
            assert_eq!(harvest(io, 1)[0].1, peer.local_addr().unwrap());
            let payload = io.share(b"out");
            io.queue(id, peer.local_addr().unwrap(), b"", payload);
            assert_eq!(io.flush().sent, 1);
            let mut datagram = [0; 8];
            assert_eq!(peer.recv_from(&mut datagram).unwrap(), (3, address));
        }
    });
}

#[test]
fn what_cannot_be_sent_is_counted_and_holds_up_nothing() {
    on_all(|io| {
        let listener = socket(HERE);
        let sender = io.open(HERE.parse().unwrap(), Token(0)).unwrap();
        let to = listener.local_addr().unwrap();
        let payload = io.share(b"x");
        io.queue(sender, to, b"", payload);
        io.queue(sender, "[::1]:9".parse().unwrap(), b"", payload);
        io.queue(sender, to, b"", payload);
        assert_eq!(io.flush(), Flushed { sent: 2, failed: 1 });
        for _ in 0..2 {
            assert_eq!(listener.recv(&mut [0; 8]).unwrap(), 1);
        }
    });
}

#[test]
fn a_closed_socket_gives_its_port_back_and_a_queue_to_it_is_dropped() {
    on_all(|io| {
        let ours = socket(HERE);
        let address = ours.local_addr().unwrap();
        let id = io.adopt(ours, Token(0)).unwrap();
        let payload = io.share(b"late");
        io.queue(id, address, b"", payload);
        io.close(id);
        io.flush();
        UdpSocket::bind(address).expect("the port is free again");
        let payload = io.share(b"later");
        io.queue(id, address, b"", payload);
        assert_eq!(io.flush().failed, 0);
    });
}

#[test]
fn a_flooded_socket_starves_no_other() {
    on_all(|io| {
        let peer = socket(HERE);
        let flooded = io.open(HERE.parse().unwrap(), Token(1)).unwrap();
        assert!(io.receive_buffer(flooded) > 100_000);
        let quiet = socket(HERE);
        let (loud, victim) = (socket(HERE), quiet.local_addr().unwrap());
        let address = loud.local_addr().unwrap();
        io.adopt(loud, Token(2)).unwrap();
        io.adopt(quiet, Token(3)).unwrap();
        peer.send_to(b"quiet", victim).unwrap();
        let mut seen = false;
        for _ in 0..10 {
            for _ in 0..HARVEST_MAX / 4 {
                peer.send_to(b"loud", address).unwrap();
            }
            seen |= harvest_once(io)
                .iter()
                .any(|(token, ..)| *token == Token(3));
        }
        assert!(seen);
    });
}

#[test]
fn a_socket_on_any_port_says_which() {
    on_all(|io| {
        let id = io.open(HERE.parse().unwrap(), Token(9)).unwrap();
        let address = io.local_address(id).unwrap();
        socket(HERE).send_to(b"there", address).unwrap();
        assert_eq!(harvest(io, 1)[0].0, Token(9));
        io.close(id);
        assert!(io.local_address(id).is_err());
    });
}
