//! What the engine itself does for a packet in and a packet out, with a network that costs nothing:
//! jitter buffers, hearing, mixing, encoding, headers. The kernel's part is measured by `plenum-perf limit`.
//!
//! Rooms of ten, two talking, PCMU 20 ms. An iteration is a millisecond of such a conference service; the
//! throughput counts pairs, a packet in and a packet out.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use arrayvec::ArrayVec;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::codec::Codec;
use engine::focus::negotiate;
use engine::io::ports::Ports;
use engine::io::{Arena, Arrival, Flushed, MediaIo, Payload, SocketId, Token};
use engine::meters::{Ledger, Meters};
use engine::room::{Leg, Newcomer};
use engine::shard::stage::{Moment, Remote, Stage, StageConfig};
use mixer_simd::Kernels;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ROOM: usize = 10;
const TALKERS: usize = 2;
const FRAME_MS: u64 = 20;
const PACKET_LEN: usize = 12 + 160;

/// Packets of one socket that come together.
const TOGETHER: usize = 16;

/// Callers with as many addresses as one host has sockets in `plenum-perf rooms`.
const ADDRESSES: u16 = 128;

/// A network on which packets come when the clock says so, and go nowhere.
#[derive(Default)]
struct Prepared {
    tokens: HashMap<SocketAddr, Token>,
    arena: Arena,
    /// What the next harvest shows.
    arriving: Vec<Phone>,
    queued: u64,
}

#[derive(Clone)]
struct Phone {
    token: Token,
    from: SocketAddr,
    datagram: [u8; PACKET_LEN],
    sequence: u16,
}

impl Phone {
    fn next(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.datagram[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        let timestamp = u32::from(self.sequence) * 160;
        self.datagram[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }
}

impl MediaIo for Prepared {
    fn open(&mut self, address: SocketAddr, token: Token) -> io::Result<SocketId> {
        self.tokens.insert(address, token);
        Ok(SocketId(self.tokens.len() as u32 - 1))
    }

    fn adopt(&mut self, _: UdpSocket, _: Token) -> io::Result<SocketId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close(&mut self, _: SocketId) {}

    fn local_address(&self, _: SocketId) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn receive_buffer(&self, _: SocketId) -> usize {
        4 << 20
    }

    fn harvest(&mut self, arrived: &mut dyn FnMut(&[Arrival<'_>])) -> io::Result<()> {
        for phones in self.arriving.chunks(TOGETHER) {
            let arrivals: ArrayVec<Arrival<'_>, TOGETHER> = phones
                .iter()
                .map(|phone| Arrival {
                    token: phone.token,
                    from: phone.from,
                    datagram: &phone.datagram,
                })
                .collect();
            arrived(&arrivals);
        }
        Ok(())
    }

    fn share(&mut self, payload: &[u8]) -> Payload {
        self.arena.put(payload)
    }

    fn queue(&mut self, _: SocketId, _: SocketAddr, header: &[u8], _: Payload) {
        self.arena.put(header);
        self.queued += 1;
    }

    fn flush(&mut self) -> Flushed {
        self.arena.clear();
        Flushed::default()
    }
}

struct Service {
    stage: Stage<Prepared>,
    meters: Meters,
    ledger: Ledger,
    now: Instant,
    ms: u64,
    /// By phase in the frame interval.
    phones: Vec<Vec<Phone>>,
}

impl Service {
    fn new(callers: usize) -> Self {
        let now = Instant::now();
        let config = StageConfig {
            address: HERE,
            shared_ports: true,
            talkers_max: 8,
            media_timeout: None,
        };
        let ports = Ports::new(1_024..=65_535, 0, 1);
        let mut stage = Stage::new(now, Prepared::default(), ports, Kernels::detect(), &config);
        let mut phones = vec![Vec::new(); FRAME_MS as usize];
        for caller in 0..callers {
            let talks = caller % ROOM < TALKERS;
            let from = SocketAddr::from((HERE, 2_000 + caller as u16 % ADDRESSES));
            let phase = caller * 7_919 % FRAME_MS as usize;
            phones[phase].push(Self::join(&mut stage, now, caller, from, talks));
        }
        Self {
            stage,
            meters: Meters::new(&[0]),
            ledger: Ledger::new(now),
            now,
            ms: 0,
            phones,
        }
    }

    fn join(
        stage: &mut Stage<Prepared>,
        now: Instant,
        caller: usize,
        from: SocketAddr,
        talks: bool,
    ) -> Phone {
        let room = format!("room-{}", caller / ROOM);
        let seat = stage
            .take_seat(now, &room, Remote::new(from, from, HERE))
            .expect("there are ports");
        let agreed = sip::sdp::Agreed {
            media_index: 0,
            codec: Codec::Pcmu.index(),
            payload_type: 0,
            receive_payload_types: vec![(0, 0)],
            telephone_event: None,
            remote_rtp: from,
            remote_rtcp: from,
            rtcp_mux: true,
            ptime_ms: FRAME_MS as u32,
            direction: sip::sdp::Direction::SendRecv,
            held: false,
        };
        let depth = Duration::from_millis(15);
        let newcomer = Newcomer {
            entity: format!("sip:{caller}@bench"),
            joined: SystemTime::UNIX_EPOCH,
            session: negotiate::session(now, &agreed, caller as u64, depth, HERE),
            leg: Leg {
                codec: Codec::Pcmu,
                receives: vec![(0, Codec::Pcmu)],
                ptime: Duration::from_millis(FRAME_MS),
                rtcp_mux: true,
                heard: true,
                spoken_to: true,
            },
        };
        stage.sit(now, seat, newcomer);
        stage.member(seat).expect("he sits").confirm();
        let mut datagram = [0xFF; PACKET_LEN];
        datagram[..2].copy_from_slice(&[0x80, 0]);
        datagram[8..12].copy_from_slice(&(caller as u32).to_be_bytes());
        if talks {
            for (place, octet) in datagram[12..].iter_mut().enumerate() {
                *octet = if place / 10 % 2 == 0 { 0x90 } else { 0x10 };
            }
        }
        let ours = SocketAddr::from((HERE, stage.ports_of(seat).rtp()));
        Phone {
            token: stage.io().tokens[&ours],
            from,
            datagram,
            sequence: 0,
        }
    }
}

impl Service {
    /// A millisecond.
    fn turn(&mut self) {
        self.ms += 1;
        self.now += Duration::from_millis(1);
        let meters = &self.meters.cores[0];
        let due = &mut self.phones[(self.ms % FRAME_MS) as usize];
        due.iter_mut().for_each(Phone::next);
        std::mem::swap(&mut self.stage.io().arriving, due);
        let mut strangers = |_, _, _: &[u8]| unreachable!("there are no other sockets");
        self.stage
            .harvest(self.now, meters, &mut strangers)
            .expect("nothing can fail");
        std::mem::swap(&mut self.stage.io().arriving, due);
        let moment = Moment {
            now: self.now,
            ntp: self.ms << 22,
            pressed: false,
        };
        self.stage.tick(moment, &mut self.ledger, meters);
        self.stage.flush(meters);
    }
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for callers in [200, 1_000, 4_000, 8_000] {
        let mut service = Service::new(callers);
        (0..2_000).for_each(|_| service.turn());
        let (received, sent) = (
            service.meters.cores[0].rtp_received.get(),
            service.stage.io().queued,
        );
        assert!(
            received.abs_diff(callers as u64 * 100) <= callers as u64
                && received.abs_diff(sent) < received / 20,
            "{received} in and {sent} out are no conference of {callers}"
        );
        group.throughput(Throughput::Elements(callers as u64 / FRAME_MS));
        group.bench_function(BenchmarkId::from_parameter(callers), |bencher| {
            bencher.iter(|| service.turn());
        });
    }
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
