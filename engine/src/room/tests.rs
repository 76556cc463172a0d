//! A room with members on a network that is a list.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use mixer_simd::Kernels;

use super::{Counts, Leg, Member, MemberId, Mixer, Newcomer, PERIOD_USUAL, Room};
use crate::codec::{Codec, SAMPLE_RATE};
use crate::focus::negotiate;
use crate::io::{Arena, Arrival, Flushed, MediaIo, Payload, SocketId, Token};

/// Keeps what was sent, by socket.
#[derive(Default)]
pub(super) struct Net {
    arena: Arena,
    pub(super) sent: HashMap<u32, Vec<Vec<u8>>>,
    shared: usize,
}

impl MediaIo for Net {
    fn open(&mut self, _: SocketAddr, _: Token) -> io::Result<SocketId> {
        unreachable!("rooms open nothing")
    }

    fn adopt(&mut self, _: UdpSocket, _: Token) -> io::Result<SocketId> {
        unreachable!("rooms open nothing")
    }

    fn close(&mut self, _: SocketId) {}

    fn local_address(&self, _: SocketId) -> io::Result<SocketAddr> {
        unreachable!("rooms do not ask")
    }

    fn receive_buffer(&self, _: SocketId) -> usize {
        0
    }

    fn harvest(&mut self, _: &mut dyn FnMut(&[Arrival<'_>])) -> io::Result<()> {
        Ok(())
    }

    fn share(&mut self, payload: &[u8]) -> Payload {
        self.shared += 1;
        self.arena.put(payload)
    }

    fn queue(&mut self, socket: SocketId, _: SocketAddr, header: &[u8], payload: Payload) {
        let datagram = [header, self.arena.piece(payload)].concat();
        self.sent.entry(socket.0).or_default().push(datagram);
    }

    fn flush(&mut self) -> Flushed {
        Flushed::default()
    }
}

struct Scene {
    room: Room,
    net: Net,
    mixer: Mixer,
    now: Instant,
    sequence: u16,
    ids: Vec<MemberId>,
}

const SAMPLES: usize = SAMPLE_RATE as usize / 50;

impl Scene {
    /// Members who get these codecs and packet durations (ms).
    fn new(members: &[(Codec, u64)]) -> Self {
        let now = Instant::now();
        let mut room = Room::new("test".to_owned(), now + PERIOD_USUAL);
        let ids = members
            .iter()
            .enumerate()
            .map(|(index, &(codec, ptime))| {
                let remote: SocketAddr = ([192, 0, 2, 1], 4_000 + 2 * index as u16).into();
                let leg = Leg {
                    codec,
                    receives: vec![(0, Codec::Pcmu)],
                    ptime: Duration::from_millis(ptime),
                    rtcp_mux: true,
                    heard: true,
                    spoken_to: true,
                };
                let agreed = sip::sdp::Agreed {
                    media_index: 0,
                    codec: codec.index(),
                    payload_type: codec.payload_type(),
                    receive_payload_types: vec![(0, 0)],
                    telephone_event: None,
                    remote_rtp: remote,
                    remote_rtcp: remote,
                    rtcp_mux: true,
                    ptime_ms: ptime as u32,
                    direction: sip::sdp::Direction::SendRecv,
                    held: false,
                };
                let session =
                    negotiate::session(now, &agreed, index as u64, Duration::ZERO, remote.ip());
                let newcomer = Newcomer {
                    entity: format!("sip:{index}@test"),
                    joined: SystemTime::UNIX_EPOCH,
                    session,
                    leg,
                };
                let sockets = (SocketId(index as u32), SocketId(1_000));
                let mut member =
                    Member::new(now, index as u32, newcomer, sockets, Kernels::detect());
                member.confirm();
                room.join(member)
            })
            .collect();
        Self {
            room,
            net: Net::default(),
            mixer: Mixer::new(Kernels::detect()),
            now,
            sequence: 0,
            ids,
        }
    }

    /// 20 ms in which these members send a constant level.
    fn frame(&mut self, talkers: &[(usize, i16)], talkers_max: usize) {
        self.sequence += 1;
        for &(index, level) in talkers {
            let header = rtp::Header {
                marker: false,
                payload_type: 0,
                sequence: self.sequence,
                timestamp: u32::from(self.sequence) * SAMPLES as u32,
                ssrc: index as u32,
            };
            let mut datagram = header.write().to_vec();
            Codec::Pcmu
                .encoder(Kernels::detect())
                .encode(&[level; SAMPLES], &mut datagram);
            let from = ([192, 0, 2, 1], 4_000 + 2 * index as u16).into();
            let member = self.room.member_mut(self.ids[index]).unwrap();
            let handled = member.handle_rtp(self.now, from, &datagram);
            assert_eq!(handled, crate::room::Handled::Taken);
        }
        self.now += Duration::from_millis(20);
        self.tick(talkers_max);
    }

    fn tick(&mut self, talkers_max: usize) {
        while self.room.next_tick() <= self.now {
            let mut counts = Counts::default();
            self.room.begin(self.now).expect("it is due");
            self.mixer.clear();
            self.room.hear(self.now, &mut self.mixer);
            self.room.select(talkers_max);
            self.room.mix(&mut self.mixer);
            self.room.encode(&mut self.mixer, &mut self.net);
            self.room
                .speak(self.now, &self.mixer, &mut self.net, &mut counts);
        }
    }

    /// The level in the last RTP packet a member got, and the packet's duration in samples.
    fn heard(&self, index: usize, codec: Codec) -> (i16, usize) {
        let is_rtp = |datagram: &&Vec<u8>| rtp::classify(datagram) == rtp::Kind::Rtp;
        let datagram = self.net.sent[&(index as u32)]
            .iter()
            .rfind(is_rtp)
            .expect("he was sent something");
        let packet = rtp::Packet::parse(datagram).unwrap();
        assert_eq!(packet.payload_type, codec.payload_type());
        let mut pcm = Vec::new();
        codec
            .decoder(Kernels::detect())
            .decode(packet.payload, &mut pcm);
        (pcm[pcm.len() / 2], pcm.len())
    }
}

#[track_caller]
fn assert_close(got: i16, wanted: i32) {
    // G.711 keeps about 4 bits: within a sixteenth.
    assert!(
        (i32::from(got) - wanted).abs() <= wanted.abs() / 16 + 8,
        "{got} for {wanted}"
    );
}

#[test]
fn everybody_hears_the_others_and_not_himself() {
    let mut scene = Scene::new(&[
        (Codec::Pcmu, 20),
        (Codec::Pcmu, 20),
        (Codec::Pcma, 20),
        (Codec::Pcmu, 20),
    ]);
    for _ in 0..5 {
        scene.frame(&[(0, 4_000), (1, 2_000)], 8);
    }
    assert_close(scene.heard(0, Codec::Pcmu).0, 2_000);
    assert_close(scene.heard(1, Codec::Pcmu).0, 4_000);
    assert_close(scene.heard(2, Codec::Pcma).0, 6_000);
    assert_close(scene.heard(3, Codec::Pcmu).0, 6_000);
}

#[test]
fn listeners_share_one_frame_per_codec() {
    let mut members = vec![(Codec::Pcmu, 20); 50];
    members.extend([(Codec::Pcma, 20); 50]);
    let mut scene = Scene::new(&members);
    for _ in 0..3 {
        scene.frame(&[(0, 4_000)], 8);
    }
    let before = scene.net.shared;
    scene.frame(&[(0, 4_000)], 8);
    assert_eq!(
        scene.net.shared - before,
        3,
        "the talker's own, and one for each codec"
    );
}

#[test]
fn only_the_loudest_are_mixed() {
    let mut scene = Scene::new(&[(Codec::Pcmu, 20); 4]);
    for _ in 0..20 {
        scene.frame(&[(0, 4_000), (1, 1_000), (2, 2_000)], 2);
    }
    assert_close(scene.heard(3, Codec::Pcmu).0, 6_000);
    // Who is not mixed hears those who are.
    assert_close(scene.heard(1, Codec::Pcmu).0, 6_000);
    assert_close(scene.heard(0, Codec::Pcmu).0, 2_000);
}

#[test]
fn a_sum_beyond_16_bits_is_limited_and_does_not_wrap() {
    let mut scene = Scene::new(&[(Codec::Pcmu, 20); 4]);
    for _ in 0..10 {
        scene.frame(&[(0, 30_000), (1, 30_000), (2, 30_000)], 8);
    }
    assert!(scene.heard(3, Codec::Pcmu).0 > 30_000);
}

#[test]
fn every_ptime_gets_packets_of_its_length() {
    let ptimes = [10, 20, 30, 40, 50, 60];
    let members: Vec<_> = ptimes.iter().map(|&ptime| (Codec::Pcmu, ptime)).collect();
    let mut scene = Scene::new(&members);
    for _ in 0..30 {
        scene.frame(&[(0, 4_000)], 8);
    }
    for (index, &ptime) in ptimes.iter().enumerate() {
        assert_eq!(scene.heard(index, Codec::Pcmu).1, ptime as usize * 8);
        let packets = scene.net.sent[&(index as u32)]
            .iter()
            .filter(|d| rtp::classify(d) == rtp::Kind::Rtp)
            .count();
        // The first tick of 10 ms comes after 20.
        assert_eq!(packets, 590 / ptime as usize, "{ptime} ms");
    }
}

#[test]
fn who_has_not_acknowledged_is_sent_nothing() {
    let mut scene = Scene::new(&[(Codec::Pcmu, 20); 2]);
    scene.room.member_mut(scene.ids[1]).unwrap().confirmed = false;
    scene.frame(&[(0, 4_000)], 8);
    assert!(scene.net.sent.contains_key(&0) && !scene.net.sent.contains_key(&1));
}

#[test]
fn a_lost_packet_is_filled() {
    let mut scene = Scene::new(&[(Codec::Pcmu, 20); 2]);
    for _ in 0..10 {
        scene.frame(&[(0, 4_000)], 8);
    }
    scene.frame(&[], 8);
    assert!(scene.heard(1, Codec::Pcmu).0 > 1_500, "the gap is silent");
}
