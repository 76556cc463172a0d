//! A conference under way needs no memory it does not have: tested by counting allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use mixer_simd::Kernels;

use super::stage::{Moment, Remote, Stage, StageConfig};
use crate::codec::Codec;
use crate::focus::negotiate;
use crate::io::batch::BatchIo;
use crate::io::ports::Ports;
use crate::meters::{Ledger, Meters};
use crate::room::{Leg, Newcomer};

/// Counts what each thread asks the system for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: passes everything on to the system's allocator; the count is a plain number without a
// destructor, so that reading it allocates nothing and works until the thread's end.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as our caller promised.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// One of those who call: 20 ms of a loud square wave at a time.
struct Phone {
    socket: UdpSocket,
    to: SocketAddr,
    index: u32,
    sequence: u16,
    ptime_ms: u64,
}

impl Phone {
    /// Sends a packet, or, now and then, loses it.
    fn speak(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        if self.sequence % 29 == self.index as u16 {
            return;
        }
        let samples = self.ptime_ms as u32 * 8;
        let header = rtp::Header {
            marker: false,
            payload_type: 0,
            sequence: self.sequence,
            timestamp: u32::from(self.sequence) * samples,
            ssrc: self.index,
        };
        let mut datagram = [0x90; 12 + 480];
        datagram[..12].copy_from_slice(&header.write());
        datagram[12..]
            .chunks_mut(8)
            .step_by(2)
            .for_each(|half| half.fill(0x10));
        let len = 12 + samples as usize;
        self.socket.send_to(&datagram[..len], self.to).unwrap();
    }

    fn listen(&self) -> u64 {
        let mut datagram = [0; 1_500];
        let mut heard = 0;
        while self.socket.recv(&mut datagram).is_ok() {
            heard += 1;
        }
        heard
    }
}

/// Seats a phone in a room of the stage.
fn sit(stage: &mut Stage<BatchIo>, now: Instant, room: &str, index: u32, ptime_ms: u64) -> Phone {
    let socket = UdpSocket::bind((HERE, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let remote = Remote::new(address, address, HERE);
    let seat = stage.take_seat(now, room, remote).unwrap();
    let agreed = sip::sdp::Agreed {
        media_index: 0,
        codec: Codec::Pcmu.index(),
        payload_type: 0,
        receive_payload_types: vec![(0, 0)],
        telephone_event: None,
        remote_rtp: address,
        remote_rtcp: address,
        rtcp_mux: true,
        ptime_ms: ptime_ms as u32,
        direction: sip::sdp::Direction::SendRecv,
        held: false,
    };
    let depth = Duration::from_millis(15);
    let newcomer = Newcomer {
        entity: format!("sip:{index}@test"),
        joined: SystemTime::UNIX_EPOCH,
        session: negotiate::session(now, &agreed, index.into(), depth, HERE),
        leg: Leg {
            codec: Codec::Pcmu,
            receives: vec![(0, Codec::Pcmu)],
            ptime: Duration::from_millis(ptime_ms),
            rtcp_mux: true,
            heard: true,
            spoken_to: true,
        },
    };
    stage.sit(now, seat, newcomer);
    stage.member(seat).unwrap().confirm();
    Phone {
        socket,
        to: (HERE, stage.ports_of(seat).rtp()).into(),
        index,
        sequence: 0,
        ptime_ms,
    }
}

#[test]
fn a_steady_conference_allocates_nothing() {
    const MEASURED_MS: u64 = 20_000;
    let meters = Meters::new(&[0]);
    let meters = &meters.cores[0];
    let start = Instant::now();
    let config = StageConfig {
        address: HERE,
        shared_ports: true,
        talkers_max: 2,
        media_timeout: Some(Duration::from_secs(30)),
    };
    let io = BatchIo::new().unwrap();
    let ports = Ports::new(15_000..=15_999, 0, 1);
    let mut stage = Stage::new(start, io, ports, Kernels::detect(), &config);
    let mut phones = Vec::new();
    for (room, ptimes) in [("plain", [20, 20, 20]), ("mixed", [10, 20, 60])] {
        for ptime in ptimes {
            phones.push(sit(&mut stage, start, room, phones.len() as u32, ptime));
        }
    }

    let mut ledger = Ledger::new(start);
    let mut heard = 0;
    let mut asked = 0;
    // The first half is there to get warm, and to see several RTCP reports: those come every five
    // seconds or so.
    for ms in 1..=2 * MEASURED_MS {
        let now = start + Duration::from_millis(ms);
        for phone in &mut phones {
            if ms % phone.ptime_ms == 0 {
                phone.speak();
            }
        }
        let before = ASKED.get();
        let mut strangers = |_, _, _: &[u8]| unreachable!("there are no other sockets");
        stage.harvest(now, meters, &mut strangers).unwrap();
        let moment = Moment {
            now,
            ntp: ms << 22,
            pressed: false,
        };
        stage.tick(moment, &mut ledger, meters);
        stage.flush(meters);
        if ms > MEASURED_MS {
            asked += ASKED.get() - before;
        }
        heard += phones.iter().map(Phone::listen).sum::<u64>();
    }

    assert!(ASKED.get() > 0, "the conference was made of something");
    assert_eq!(asked, 0, "allocations in {MEASURED_MS} ms");
    // It was a conference: everybody was heard and spoken to, losses were filled, reports sent.
    let packets = 2 * MEASURED_MS / 20 * 4 + 2 * MEASURED_MS / 10 + 2 * MEASURED_MS / 60;
    assert!(meters.rtp_received.get() > packets * 9 / 10);
    assert!(meters.rtp_sent.get() > packets * 9 / 10);
    assert!(heard >= meters.rtp_sent.get());
    assert!(meters.rtcp_sent.get() > 6);
    assert!(meters.rtp_lost.get() > 0);
    assert!(stage.incidents().vanished.is_empty());
}
