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
use crate::meters::{CoreMeters, Ledger, Meters};
use crate::room::{Leg, Newcomer, core_link};
use crate::shard::ShardIndex;

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

/// Joins the rooms of this name on both stages by a trunk, as if they were two servers.
fn trunk(stages: &mut [Stage<BatchIo>; 2], now: Instant, room: &str, codec: Codec) {
    let seats = stages
        .each_mut()
        .map(|stage| stage.take_trunk_seat(now, room, None).unwrap());
    let address = |stage: usize| {
        let ports = stages[stage].ports_of(seats[stage]);
        SocketAddr::from((HERE, ports.rtp()))
    };
    let far = [address(1), address(0)];
    for ((stage, seat), remote) in stages.iter_mut().zip(seats).zip(far) {
        let agreed = sip::sdp::Agreed {
            media_index: 0,
            codec: 0,
            payload_type: codec.payload_type(),
            receive_payload_types: vec![(codec.payload_type(), 0)],
            telephone_event: None,
            remote_rtp: remote,
            remote_rtcp: remote,
            rtcp_mux: true,
            ptime_ms: 20,
            direction: sip::sdp::Direction::SendRecv,
            held: false,
        };
        let seed = remote.port().into();
        let newcomer = Newcomer {
            entity: "trunk".to_owned(),
            joined: SystemTime::UNIX_EPOCH,
            session: negotiate::trunk_session(now, &agreed, codec, seed, HERE),
            leg: negotiate::leg(&agreed, &[codec]),
        };
        stage
            .expect(now, seat, Remote::new(remote, remote, HERE))
            .unwrap();
        stage.sit(now, seat, newcomer);
        stage.member(seat).unwrap().confirm();
    }
}

/// Joins the rooms of this name on both stages, as if they were two cores.
fn link(stages: &mut [Stage<BatchIo>; 2], room: &str) {
    let (left, right) = core_link();
    stages[0].join_part(room, ShardIndex(1), left);
    stages[1].join_part(room, ShardIndex(0), right);
}

#[test]
fn a_steady_conference_allocates_nothing() {
    const MEASURED_MS: u64 = 20_000;
    const LINKED: [&str; 3] = ["parts", "l16", "opus"];
    let meters = Meters::new(&[0, 1]);
    let start = Instant::now();
    let config = StageConfig {
        address: HERE,
        shared_ports: true,
        talkers_max: 2,
        media_timeout: Some(Duration::from_secs(30)),
    };
    let mut stages = [0, 1].map(|index| {
        let io = BatchIo::new().unwrap();
        let ports = Ports::new(15_000..=15_999, index, 2);
        Stage::new(start, io, ports, Kernels::detect(), &config)
    });
    let mut phones = Vec::new();
    let alone = [("plain", [20, 20, 20]), ("mixed", [10, 20, 60])];
    for (room, ptimes) in alone {
        for ptime in ptimes {
            let index = phones.len() as u32;
            phones.push(sit(&mut stages[0], start, room, index, ptime));
        }
    }
    for room in LINKED {
        for stage in &mut stages {
            let index = phones.len() as u32;
            phones.push(sit(stage, start, room, index, 20));
        }
    }
    link(&mut stages, "parts");
    trunk(&mut stages, start, "l16", Codec::L16);
    trunk(&mut stages, start, "opus", Codec::Opus);

    let mut ledgers = [0, 1].map(|_| Ledger::new(start));
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
        for ((stage, ledger), meters) in stages.iter_mut().zip(&mut ledgers).zip(&meters.cores) {
            let mut strangers = |_, _, _: &[u8]| unreachable!("there are no other sockets");
            stage.harvest(now, meters, &mut strangers).unwrap();
            let moment = Moment {
                now,
                ntp: ms << 22,
                pressed: false,
            };
            stage.tick(moment, ledger, meters);
            stage.flush(meters);
        }
        if ms > MEASURED_MS {
            asked += ASKED.get() - before;
        }
        heard += phones.iter().map(Phone::listen).sum::<u64>();
    }

    assert!(ASKED.get() > 0, "the conference was made of something");
    assert_eq!(asked, 0, "allocations in {MEASURED_MS} ms");
    // It was a conference: everybody was heard and spoken to, losses were filled, reports sent.
    let frames = 2 * MEASURED_MS / 20;
    let sum = |counter: fn(&CoreMeters) -> u64| meters.cores.iter().map(counter).sum();
    let received: u64 = sum(|meters| meters.rtp_received.get());
    let sent: u64 = sum(|meters| meters.rtp_sent.get());
    // Six phones in linked rooms and four ends of trunks besides.
    let packets = frames * (4 + 6 + 4) + 2 * MEASURED_MS / 10 + 2 * MEASURED_MS / 60;
    assert!(received > packets * 9 / 10);
    assert!(sent > packets * 9 / 10);
    assert!(heard >= (sent - frames * 4) * 9 / 10);
    assert!(sum(|meters| meters.rtcp_sent.get()) > 6);
    assert!(sum(|meters| meters.rtp_lost.get()) > 0);
    for stage in &mut stages {
        assert!(stage.incidents().vanished.is_empty());
        for room in LINKED {
            let room = stage.room(room).unwrap();
            assert_eq!(room.talkers_elsewhere().count(), 1, "{}", room.name());
        }
    }
}
