//! Conferences of several servers and cores, on a network that is a list, in virtual time.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use mixer_simd::Kernels;
use proptest::prelude::*;
use rtp::Contributor;
use sip::sdp::{Agreed, Direction};

use super::super::tests::Net;
use super::{LEVELS_EXTENSION_ID, Trunk, TrunkId, core_link};
use crate::codec::Codec;
use crate::focus::negotiate;
use crate::io::SocketId;
use crate::room::{Counts, Leg, Member, MemberId, Mixer, Newcomer, PERIOD_USUAL, Room};

const TALKERS_MAX: usize = 8;
const FRAME_MS: u64 = 20;
const SAMPLES: usize = 160;

/// How long a packet is on its way to another server.
const WAY_MS: u64 = 1;

/// Trunks have sockets from here on.
const TRUNK_SOCKETS: u32 = 1_000;

/// One part of the room.
struct Part {
    room: Room,
    net: Net,
    members: Vec<MemberId>,
    trunks: Vec<Line>,
}

/// One end of a trunk.
struct Line {
    id: TrunkId,
    socket: u32,
    /// The part and the trunk of it at the other end.
    far: (usize, usize),
    /// What it sent, ever.
    log: Vec<Vec<u8>>,
}

struct World {
    start: Instant,
    ms: u64,
    mixer: Mixer,
    parts: Vec<Part>,
    /// What is under way, and when it is there.
    way: Vec<(u64, (usize, usize), Vec<u8>)>,
    sequence: u16,
    /// The next trunk packets of these parts are lost.
    lose: Vec<(usize, usize)>,
}

fn address(number: usize) -> SocketAddr {
    ([192, 0, 2, 1], 4_000 + 2 * number as u16).into()
}

fn member(now: Instant, number: usize, codec: Codec, socket: u32) -> Member {
    let remote = address(number);
    let payload_type = codec.payload_type();
    let agreed = Agreed {
        media_index: 0,
        codec: 0,
        payload_type,
        receive_payload_types: vec![(payload_type, 0)],
        telephone_event: None,
        remote_rtp: remote,
        remote_rtcp: remote,
        rtcp_mux: true,
        ptime_ms: FRAME_MS as u32,
        direction: Direction::SendRecv,
        held: false,
    };
    let leg = Leg {
        codec,
        receives: vec![(payload_type, codec)],
        ptime: Duration::from_millis(FRAME_MS),
        rtcp_mux: true,
        heard: true,
        spoken_to: true,
    };
    let seed = 0xABCD_0000 + number as u64;
    let session = if socket >= TRUNK_SOCKETS {
        negotiate::trunk_session(now, &agreed, codec, seed, remote.ip())
    } else {
        negotiate::session(now, &agreed, seed, Duration::ZERO, remote.ip())
    };
    let newcomer = Newcomer {
        entity: format!("sip:{number}@test"),
        joined: SystemTime::UNIX_EPOCH,
        session,
        leg,
    };
    let sockets = (SocketId(socket), SocketId(u32::MAX));
    let mut member = Member::new(now, socket, newcomer, sockets, Kernels::detect());
    member.confirm();
    member
}

impl World {
    /// Parts with so many members each, which tick in these phases (in ms).
    fn new(parts: &[(usize, u64)]) -> Self {
        let start = Instant::now();
        let parts = parts.iter().map(|&(members, phase)| {
            let first = start + PERIOD_USUAL + Duration::from_millis(phase % FRAME_MS);
            let mut room = Room::new("test".to_owned(), first);
            let members = (0..members)
                .map(|index| room.join(member(start, index, Codec::L16, index as u32)))
                .collect();
            Part {
                room,
                net: Net::default(),
                members,
                trunks: Vec::new(),
            }
        });
        Self {
            start,
            ms: 0,
            mixer: Mixer::new(Kernels::detect()),
            parts: parts.collect(),
            way: Vec::new(),
            sequence: 0,
            lose: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn trunk(&mut self, left: usize, right: usize, codec: Codec) {
        let ends = [(left, right), (right, left)];
        let places = ends.map(|(part, _)| self.parts[part].trunks.len());
        for ((part, other), far) in ends.into_iter().zip([places[1], places[0]]) {
            let now = self.now();
            let Part { room, trunks, .. } = &mut self.parts[part];
            let socket = TRUNK_SOCKETS + trunks.len() as u32;
            let number = 500 + trunks.len();
            let id = room.add_trunk(Trunk::new(member(now, number, codec, socket)));
            trunks.push(Line {
                id,
                socket,
                far: (other, far),
                log: Vec::new(),
            });
        }
    }

    fn core(&mut self, left: usize, right: usize) {
        let (to_left, to_right) = core_link();
        self.parts[left].room.add_core(right as u16, to_left);
        self.parts[right].room.add_core(left as u16, to_right);
    }

    /// A millisecond. Those who talk (part, member, level) send a packet when the frame begins.
    fn step(&mut self, talkers: &[(usize, usize, i16)]) {
        self.ms += 1;
        let now = self.now();
        if self.ms.is_multiple_of(FRAME_MS) {
            self.sequence += 1;
            for &(part, index, level) in talkers {
                self.say(now, part, index, level);
            }
        }
        self.deliver(now);
        for part in 0..self.parts.len() {
            if self.parts[part].room.next_tick() <= now {
                self.tick(now, part);
            }
        }
    }

    fn steps(&mut self, ms: u64, talkers: &[(usize, usize, i16)]) {
        (0..ms).for_each(|_| self.step(talkers));
    }

    fn say(&mut self, now: Instant, part: usize, index: usize, level: i16) {
        let header = rtp::Header {
            marker: false,
            payload_type: Codec::L16.payload_type(),
            sequence: self.sequence,
            timestamp: u32::from(self.sequence) * SAMPLES as u32,
            ssrc: index as u32,
        };
        let mut datagram = header.write().to_vec();
        Codec::L16
            .encoder(Kernels::detect())
            .encode(&[level; SAMPLES], &mut datagram);
        let Part { room, members, .. } = &mut self.parts[part];
        let member = room.member_mut(members[index]).unwrap();
        member.handle_rtp(now, address(index), &datagram);
    }

    fn deliver(&mut self, now: Instant) {
        let ms = self.ms;
        let (due, way) = std::mem::take(&mut self.way)
            .into_iter()
            .partition::<Vec<_>, _>(|(when, ..)| *when <= ms);
        self.way = way;
        for (_, (part, line), datagram) in due {
            let Part { room, trunks, .. } = &mut self.parts[part];
            let trunk = room.trunk_mut(trunks[line].id).unwrap();
            let from = address(500 + line);
            let handled = match rtp::classify(&datagram) {
                rtp::Kind::Rtcp => trunk.member_mut().handle_rtcp(now, from, &datagram),
                _ => trunk.handle_rtp(now, from, &datagram),
            };
            assert_eq!(handled, crate::room::Handled::Taken);
        }
    }

    fn tick(&mut self, now: Instant, part: usize) {
        let Self { mixer, parts, .. } = self;
        let Part {
            room, net, trunks, ..
        } = &mut parts[part];
        let mut counts = Counts::default();
        room.begin(now).expect("it is due");
        mixer.clear();
        room.hear(now, mixer);
        room.select(TALKERS_MAX);
        room.mix(mixer);
        room.encode(mixer, net);
        room.speak(now, mixer, net, &mut counts);
        room.report(now, self.ms << 22, net, &mut counts);
        for (line, trunk) in trunks.iter_mut().enumerate() {
            for datagram in net.sent.remove(&trunk.socket).into_iter().flatten() {
                trunk.log.push(datagram.clone());
                if let Some(lost) = self.lose.iter().position(|lost| *lost == (part, line)) {
                    self.lose.remove(lost);
                } else {
                    self.way.push((self.ms + WAY_MS, trunk.far, datagram));
                }
            }
        }
    }

    /// What a member heard last: the middle of the frame.
    fn heard(&self, part: usize, index: usize) -> Option<i16> {
        let sent = self.parts[part].net.sent.get(&(index as u32))?;
        let is_rtp = |datagram: &&Vec<u8>| rtp::classify(datagram) == rtp::Kind::Rtp;
        let packet = rtp::Packet::parse(sent.iter().rfind(is_rtp)?).unwrap();
        let mut pcm = Vec::new();
        Codec::L16
            .decoder(Kernels::detect())
            .decode(packet.payload, &mut pcm);
        Some(pcm[pcm.len() / 2])
    }

    fn log(&self, part: usize, line: usize) -> impl DoubleEndedIterator<Item = rtp::Packet<'_>> {
        let log = self.parts[part].trunks[line].log.iter();
        log.filter(|datagram| rtp::classify(datagram) == rtp::Kind::Rtp)
            .map(|datagram| rtp::Packet::parse(datagram).unwrap())
    }

    fn ssrc(&self, part: usize, index: usize) -> u32 {
        let Part { room, members, .. } = &self.parts[part];
        room.member(members[index]).unwrap().session().ssrc()
    }

    /// Everybody hears all who talk, less himself.
    #[track_caller]
    fn check(&self, talkers: &[(usize, usize, i16)]) {
        let all: i32 = talkers.iter().map(|talker| i32::from(talker.2)).sum();
        for (part, Part { members, .. }) in self.parts.iter().enumerate() {
            for index in 0..members.len() {
                let own = talkers
                    .iter()
                    .find(|talker| (talker.0, talker.1) == (part, index));
                let wanted = all - own.map_or(0, |talker| i32::from(talker.2));
                let heard = self.heard(part, index).map(i32::from);
                assert_eq!(heard, Some(wanted), "member {index} of part {part}");
            }
        }
    }
}

#[test]
fn a_talker_on_one_server_is_heard_once_on_all_and_never_by_himself() {
    let mut world = World::new(&[(2, 0), (2, 7), (1, 13)]);
    for (left, right) in [(0, 1), (1, 2), (0, 2)] {
        world.trunk(left, right, Codec::L16);
    }
    let talkers = [(0, 0, 4_000)];
    world.steps(200, &talkers);
    world.check(&talkers);
    assert_eq!(world.heard(0, 0), Some(0));
    // Somebody on each.
    let talkers = [(0, 0, 4_000), (1, 1, 300), (2, 0, 1_000)];
    world.steps(200, &talkers);
    world.check(&talkers);
}

#[test]
fn triangles_of_servers_whose_rooms_span_cores_hear_each_other() {
    // Three servers with three cores each; trunks end on different cores.
    let phases = [0, 3, 9, 1, 14, 19, 6, 6, 12];
    let parts: Vec<_> = phases.map(|phase| (2, phase)).into();
    let mut world = World::new(&parts);
    for server in [0, 3, 6] {
        for (left, right) in [(0, 1), (1, 2), (0, 2)] {
            world.core(server + left, server + right);
        }
    }
    for (left, right) in [(0, 3), (2, 7), (4, 8)] {
        world.trunk(left, right, Codec::L16);
    }
    let talkers: Vec<_> = (0..9)
        .map(|part| (part, 1, 300 + 100 * part as i16))
        .collect();
    world.steps(300, &talkers);
    world.check(&talkers);
    let talkers = [(5, 0, 2_000), (5, 1, 1_000)];
    world.steps(600, &talkers);
    world.check(&talkers);
}

#[test]
fn nothing_is_sent_while_nobody_talks_and_speech_comes_back_at_once() {
    let mut world = World::new(&[(2, 0), (1, 7)]);
    world.trunk(0, 1, Codec::L16);
    world.steps(1_000, &[]);
    assert_eq!(world.log(0, 0).count(), 0);
    world.steps(400, &[(0, 0, 5_000)]);
    world.check(&[(0, 0, 5_000)]);
    // Silence: the pause between words passes, then one packet with nobody in it.
    world.steps(1_000, &[]);
    let sent = world.log(0, 0).count();
    let last = world.log(0, 0).next_back().unwrap();
    assert!(last.csrcs.is_empty() && last.payload.iter().all(|&octet| octet == 0));
    let timestamp = last.timestamp;
    world.steps(5_000, &[]);
    assert_eq!(world.log(0, 0).count(), sent);
    assert_eq!(world.log(1, 0).count(), 0, "nobody talked there");
    let listener = &world.parts[1];
    let trunk = listener.room.trunk(listener.trunks[0].id).unwrap();
    let timeout = Duration::from_secs(1);
    assert!(
        !trunk.is_dead(world.now(), timeout),
        "RTCP says it is there"
    );
    // The next word begins a talk spurt, at the time it is.
    world.steps(100, &[(0, 0, 3_000)]);
    world.check(&[(0, 0, 3_000)]);
    let first = world.log(0, 0).nth(sent).unwrap();
    assert!(first.marker);
    let paused = first.timestamp.wrapping_sub(timestamp) / 8;
    assert!((5_500..6_200).contains(&paused), "{paused} ms");
    let log = &world.parts[0].trunks[0].log;
    let is_rtcp = |datagram: &&Vec<u8>| rtp::classify(datagram) == rtp::Kind::Rtcp;
    assert!(log.iter().any(|datagram| is_rtcp(&datagram)));
}

#[test]
fn packets_name_who_is_in_them_and_how_loud() {
    // Two cores of one server, and another server.
    let mut world = World::new(&[(3, 0), (2, 7), (1, 13)]);
    world.core(0, 1);
    world.trunk(0, 2, Codec::L16);
    world.steps(200, &[(0, 1, 16_384), (1, 0, 328), (2, 0, 1_000)]);
    let last = world.log(0, 0).next_back().unwrap();
    let loud = |part, index, level| Contributor {
        ssrc: world.ssrc(part, index),
        level,
    };
    let talkers = [loud(0, 1, 6), loud(1, 0, 40)];
    assert!(last.contributors(LEVELS_EXTENSION_ID).eq(talkers));
    let Part { room, trunks, .. } = &world.parts[2];
    assert_eq!(room.trunk(trunks[0].id).unwrap().talkers(), talkers);
    assert!(room.talkers_elsewhere().eq(talkers));
    // The part without a trunk knows, too, who is heard.
    let everywhere: Vec<_> = world.parts[1].room.talkers_elsewhere().collect();
    assert_eq!(everywhere, [loud(0, 1, 6), loud(2, 0, 30)]);
    // Who fell silent is named no more.
    world.steps(1_000, &[]);
    assert_eq!(world.parts[1].room.talkers_elsewhere().count(), 0);
    assert_eq!(world.parts[2].room.talkers_elsewhere().count(), 0);
}

#[test]
fn of_many_talkers_the_loudest_are_named_and_all_are_heard() {
    let parts: Vec<_> = (0..4).map(|part| (5, 5 * part)).chain([(1, 3)]).collect();
    let mut world = World::new(&parts);
    for left in 0..4 {
        (left + 1..4).for_each(|right| world.core(left, right));
    }
    world.trunk(0, 4, Codec::L16);
    // Seventeen of them; two are quieter.
    let quiet = [(0, 0, 300), (3, 1, 300)];
    let mut talkers: Vec<_> = (0..17).map(|n| (n % 4, n / 4, 1_000)).collect();
    for (part, index, level) in quiet {
        let known = talkers.iter_mut().find(|t| (t.0, t.1) == (part, index));
        known.unwrap().2 = level;
    }
    world.steps(300, &talkers);
    world.check(&talkers);
    let last = world.log(0, 0).next_back().unwrap();
    let levels: Vec<_> = last
        .contributors(LEVELS_EXTENSION_ID)
        .map(|c| c.level)
        .collect();
    assert_eq!(levels, [30; 15]);
}

#[test]
fn a_trunk_is_no_participant_and_ends_without_a_trace() {
    let mut world = World::new(&[(1, 0), (0, 7)]);
    world.trunk(0, 1, Codec::L16);
    let Part { room, trunks, .. } = &mut world.parts[1];
    assert!(room.is_empty() && room.members().count() == 0);
    assert!(room.remove_trunk(trunks[0].id).is_some());
    assert!(room.links.is_none() && room.remove_trunk(trunks[0].id).is_none());
    // Whoever is left alone talks to nobody, and nothing breaks.
    world.parts[0].trunks[0].far = (0, 0);
    world.steps(100, &[]);
}

#[test]
fn a_lost_packet_of_a_trunk_is_filled() {
    let mut world = World::new(&[(1, 0), (1, 7)]);
    world.trunk(0, 1, Codec::L16);
    let talkers = [(0, 0, 4_000)];
    world.steps(200, &talkers);
    world.lose.push((0, 0));
    for _ in 0..60 {
        world.step(&talkers);
        assert!(world.heard(1, 0).unwrap() > 2_000, "the gap is silent");
    }
    world.check(&talkers);
}

#[test]
fn speech_takes_little_longer_to_other_servers_and_cores_than_home() {
    for phase in 0..FRAME_MS {
        let mut world = World::new(&[(2, 0), (1, phase), (1, phase)]);
        world.trunk(0, 1, Codec::L16);
        world.core(0, 2);
        world.steps(100, &[]);
        let mut heard_at = [None; 3];
        for ms in 0..200 {
            world.step(&[(0, 0, 4_000)]);
            for (place, listener) in [(0, 1), (1, 0), (2, 0)].into_iter().enumerate() {
                if heard_at[place].is_none() && world.heard(listener.0, listener.1) == Some(4_000) {
                    heard_at[place] = Some(ms);
                }
            }
        }
        let [home, server, core] = heard_at.map(|at| at.expect("he was heard"));
        // A tick, and what waits in case that the next comes late.
        assert!(server - home <= 25 + WAY_MS, "{phase}: {}", server - home);
        assert!(core - home <= 24, "{phase}: {}", core - home);
    }
}

#[test]
fn parts_with_other_ticks_hear_each_other() {
    let mut world = World::new(&[(2, 0), (2, 7), (1, 13)]);
    // One of the first part wants packets of 10 ms.
    let Part { room, members, .. } = &mut world.parts[0];
    let leg = Leg {
        ptime: Duration::from_millis(10),
        ..room.member(members[1]).unwrap().leg().clone()
    };
    let kernels = Kernels::detect();
    room.member_mut(members[1]).unwrap().agree(leg, kernels);
    room.agree_on_period();
    world.core(0, 1);
    world.trunk(0, 2, Codec::L16);
    for talkers in [
        &[(0, 0, 4_000)][..],
        &[(1, 0, 2_000)],
        &[(2, 0, 700)],
        &[(0, 1, 400), (1, 1, 500), (2, 0, 600)],
    ] {
        world.steps(500, talkers);
        // Nothing is missing in any frame.
        for _ in 0..100 {
            world.step(talkers);
            world.check(talkers);
        }
        world.steps(1_000, &[]);
        world.check(&[]);
    }
}

#[test]
fn a_part_that_stalls_is_heard_again_without_lasting_delay() {
    let mut world = World::new(&[(1, 0), (1, 7)]);
    world.core(0, 1);
    let talkers = [(0, 0, 4_000)];
    world.steps(200, &talkers);
    // The listener's core stands still for a second.
    for _ in 0..1_000 {
        let next = world.parts[1].room.next_tick();
        world.parts[1].room.next_tick = world.now() + Duration::from_secs(5);
        world.step(&talkers);
        world.parts[1].room.next_tick = next;
    }
    world.steps(200, &talkers);
    world.check(&talkers);
    let mut late = 0;
    while world.heard(1, 0) != Some(2_000) {
        world.step(&[(0, 0, 2_000)]);
        late += 1;
    }
    assert!(late <= 20 + 60 + 20, "{late} ms");
}

#[test]
fn a_part_that_ends_leaves_no_link_behind() {
    let mut world = World::new(&[(1, 0), (1, 7)]);
    world.core(0, 1);
    assert!(world.parts[0].room.parts().eq([1]));
    world.parts.pop();
    world.steps(100, &[(0, 0, 4_000)]);
    world.parts[0].room.drop_abandoned();
    assert!(world.parts[0].room.links.is_none());
}

/// Servers with parts with members, phases of the parts, and who talks (by their place among all).
fn topologies() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<u64>, Vec<bool>)> {
    (
        prop::collection::vec(prop::collection::vec(1..4_usize, 1..4), 1..5),
        prop::collection::vec(0..FRAME_MS, 12),
        prop::collection::vec(any::<bool>(), 36),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_topology_everybody_hears_the_sum_less_his_own(
        (servers, phases, talk) in topologies(),
    ) {
        let sizes: Vec<_> = servers.iter().flatten().copied().zip(phases.iter().copied()).collect();
        let mut world = World::new(&sizes);
        let mut first = 0;
        let mut parts_of = Vec::new();
        for parts in &servers {
            let parts: Vec<_> = (first..first + parts.len()).collect();
            first += parts.len();
            for (place, &left) in parts.iter().enumerate() {
                parts[place + 1..].iter().for_each(|&right| world.core(left, right));
            }
            parts_of.push(parts);
        }
        // A trunk ends on whatever part.
        for left in 0..servers.len() {
            for right in left + 1..servers.len() {
                let end = |server: usize, other: usize| {
                    let parts = &parts_of[server];
                    parts[phases[other] as usize % parts.len()]
                };
                world.trunk(end(left, right), end(right, left), Codec::L16);
            }
        }
        let everybody = sizes.iter().enumerate();
        let everybody = everybody.flat_map(|(part, (members, _))| (0..*members).map(move |m| (part, m)));
        let talkers: Vec<_> = everybody
            .zip(talk)
            .filter(|(_, talks)| *talks)
            .enumerate()
            .map(|(n, ((part, index), _))| (part, index, 300 + 7 * n as i16))
            .collect();
        world.steps(240, &talkers);
        // In every frame from then on.
        for _ in 0..40 {
            world.step(&talkers);
            world.check(&talkers);
        }
    }
}
