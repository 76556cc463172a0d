//! The media of all callers, on one thread.
//!
//! ```text
//!   harvest ──> by socket and sender: the caller ──> counts, and a close look by some
//!   slots of a millisecond ──> who is due ──> header + payload of his kind ──> flush
//! ```
//! Callers share a few sockets and so a few system calls; a server tells them apart by their ports on
//! its side, or, where it shares ports itself, by the pair.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::io::batch::BatchIo;
use engine::io::{Arrival, HARVEST_MAX, MediaIo, Payload, SocketId, Token};
use engine::random::Random;
use mixer_simd::Kernels;

use super::caller::Caller;
use super::listener::{Heard, Listener};
use super::signalling::Stream;
use super::{BURST, BURST_EVERY, Options, RATE, Scene, Silence, tone};

/// Short against anything measured here.
const TURN: Duration = Duration::from_micros(500);

/// Callers due at the same time.
const SLOT: Duration = Duration::from_millis(1);

pub(crate) struct Media {
    io: BatchIo,
    /// Sockets that callers share, and their addresses.
    sockets: Vec<(SocketId, SocketAddr)>,
    callers: Vec<Caller>,
    /// By place of the socket, and where the packet comes from.
    by_sender: Vec<HashMap<SocketAddr, usize>>,
    /// By phase in the packet interval.
    slots: Vec<Vec<usize>>,
    done: u64,
    start: Instant,
    payloads: Payloads,
    pub(crate) heard: Heard,
    scene: Scene,
    kernels: Kernels,
    random: Random,
    /// Longest time between two turns while measuring.
    pub(crate) gap_max: Duration,
    turned: Instant,
}

/// Where a caller is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) room: usize,
    /// His place among the talkers of the room, if he talks.
    pub(crate) talker: Option<usize>,
    /// The server he is on, where there are several.
    pub(crate) home: usize,
}

/// The payloads there are; all callers of a kind send the same.
struct Payloads {
    silence: Vec<u8>,
    /// By talker: what he sends usually, and in bursts.
    talkers: Vec<[Vec<u8>; 2]>,
}

/// The sockets the callers will share.
pub(crate) struct Sockets {
    io: BatchIo,
    sockets: Vec<(SocketId, SocketAddr)>,
}

impl Sockets {
    pub(crate) fn open(count: usize) -> io::Result<Self> {
        let mut io = BatchIo::new()?;
        let mut sockets = Vec::new();
        for place in 0..count {
            let here = SocketAddr::from(([127, 0, 0, 1], 0));
            let id = io.open(here, Token(place as u64))?;
            sockets.push((id, io.local_address(id)?));
        }
        Ok(Self { io, sockets })
    }

    /// The address of the caller at `index`.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.sockets[index % self.sockets.len()].1
    }
}

impl Media {
    /// Without callers so far, in at most so many rooms.
    pub(crate) fn new(sockets: Sockets, scene: &Scene, rooms: usize) -> Self {
        let kernels = Kernels::detect();
        let ptime = Duration::from_millis(scene.ptime.into());
        let slots = (ptime.as_millis() / SLOT.as_millis()) as usize;
        let now = Instant::now();
        Self {
            io: sockets.io,
            callers: Vec::new(),
            by_sender: vec![HashMap::new(); sockets.sockets.len()],
            sockets: sockets.sockets,
            slots: vec![Vec::new(); slots],
            done: 0,
            start: now,
            payloads: Payloads::new(scene, kernels),
            heard: Heard::new(scene.talkers, rooms),
            scene: scene.clone(),
            kernels,
            random: Random::from_entropy(),
            gap_max: Duration::ZERO,
            turned: now,
        }
    }

    /// With callers in all rooms; `streams` are theirs, room by room.
    pub(super) fn full(
        sockets: Sockets,
        streams: &[Stream],
        options: &Options,
    ) -> Result<Self, String> {
        let mut media = Self::new(sockets, options, options.rooms);
        let listeners = options.listeners.min(streams.len()).max(1);
        for (index, &stream) in streams.iter().enumerate() {
            let seat = index % options.participants;
            let place = Place {
                room: index / options.participants,
                talker: (seat < options.talkers).then_some(seat),
                home: 0,
            };
            // Spread over all rooms, so that of each some listen.
            let listens =
                index * listeners / streams.len() != (index + 1) * listeners / streams.len();
            media.add(index, place, stream, listens)?;
        }
        Ok(media)
    }

    /// A caller whose seat had the address of this index begins to send; returns what
    /// [`remove`](Self::remove) knows him by.
    pub(crate) fn add(
        &mut self,
        index: usize,
        place: Place,
        stream: Stream,
        listens: bool,
    ) -> Result<usize, String> {
        let socket = index % self.sockets.len();
        let caller = self.callers.len();
        if self.by_sender[socket]
            .insert(stream.remote, caller)
            .is_some()
        {
            return Err(format!(
                "the server has two callers of one address at its {}: use more --sockets",
                stream.remote
            ));
        }
        let ptime = Duration::from_millis(self.scene.ptime.into());
        let (id, _) = self.sockets[socket];
        let mut new = Caller::new(place, id, stream, ptime, self.random.next_u64());
        if listens {
            let listener = Listener::new(self.scene.codec, self.kernels);
            new.listener = Some(Box::new(listener));
            self.heard.listens(new.ear(), true);
        }
        let slots = self.slots.len();
        self.slots[self.random.next_u64() as usize % slots].push(caller);
        self.callers.push(new);
        Ok(caller)
    }

    /// Throws away what came while everybody was joining, so that nobody is measured by it.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        loop {
            let mut shown = 0;
            self.io.harvest(&mut |arrivals| shown += arrivals.len())?;
            if shown < HARVEST_MAX / 4 {
                return Ok(());
            }
        }
    }

    /// A caller at this place hangs up: he sends no more, and is not to be counted.
    pub(crate) fn remove(&mut self, caller: usize) {
        for slot in &mut self.slots {
            slot.retain(|&other| other != caller);
        }
        for senders in &mut self.by_sender {
            senders.retain(|_, other| *other != caller);
        }
        let gone = &mut self.callers[caller];
        gone.left = true;
        if gone.listener.take().is_some() {
            self.heard.listens(gone.ear(), false);
        }
    }

    /// All who were added, in that order.
    pub(super) fn callers(&self) -> &[Caller] {
        &self.callers
    }

    /// Those who have not hung up.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter().filter(|caller| !caller.left)
    }

    pub(crate) fn begin_measuring(&mut self) {
        self.callers.iter_mut().for_each(Caller::begin_measuring);
        self.gap_max = Duration::ZERO;
    }

    pub(crate) fn end_measuring(&mut self) {
        self.callers.iter_mut().for_each(Caller::end_measuring);
    }

    /// Takes in what came, sends what is due, and rests for what is left of a turn.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.gap_max = self.gap_max.max(now - self.turned);
        self.turned = now;
        self.receive()?;
        self.send(now);
        self.io.flush();
        if let Some(rest) = TURN.checked_sub(now.elapsed()) {
            std::thread::sleep(rest);
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let Self {
            io,
            callers,
            by_sender,
            heard,
            ..
        } = self;
        // One reading of the clock for all that waited.
        let now = Instant::now();
        let mut receive = |arrival: &Arrival<'_>| {
            let senders = &by_sender[arrival.token.0 as usize];
            // Somebody else's stream to a port that was ours before is not ours to judge.
            let Some(&index) = senders.get(&arrival.from) else {
                return;
            };
            if rtp::classify(arrival.datagram) != rtp::Kind::Rtp {
                return;
            }
            let Ok(packet) = rtp::Packet::parse(arrival.datagram) else {
                return;
            };
            let caller = &mut callers[index];
            caller.count(now, packet.sequence);
            let counting = caller.counting();
            let ear = caller.ear();
            if let Some(listener) = &mut caller.listener {
                listener.listen(now, packet.payload, ear, counting, heard);
            }
        };
        io.harvest(&mut |arrivals| arrivals.iter().for_each(&mut receive))
    }

    fn send(&mut self, now: Instant) {
        let until = ((now - self.start).as_nanos() / SLOT.as_nanos()) as u64;
        // After a stall of the machine, what was missed is not sent in one burst.
        let slots = self.slots.len() as u64;
        let first = (self.done + 1).max((until + 1).saturating_sub(slots));
        let shared = self.payloads.share(&mut self.io);
        for count in first..=until {
            let number = count * SLOT.as_micros() as u64 / BURST_EVERY.as_micros() as u64;
            let since = Duration::from_micros(
                count * SLOT.as_micros() as u64 % BURST_EVERY.as_micros() as u64,
            );
            // The first second is quiet, so that no burst meets a room that is still filling.
            let bursting = number > 0 && since < BURST;
            for &index in &self.slots[(count % slots) as usize] {
                let caller = &mut self.callers[index];
                let payload = match caller.talker {
                    Some(talker) => {
                        if bursting {
                            let Caller { room, home, .. } = *caller;
                            self.heard.bursting(now, room, talker, home, number);
                        }
                        shared.talkers[talker][usize::from(bursting)]
                    }
                    // A first second of packets shows every server where he is.
                    None if self.scene.silence == Silence::None && number > 0 => continue,
                    None => shared.silence,
                };
                let header = caller.next_header();
                self.io
                    .queue(caller.socket, caller.remote(), &header, payload);
            }
        }
        self.done = until;
    }
}

/// The payloads in the send arena of this turn.
struct Shared {
    silence: Payload,
    talkers: [[Payload; 2]; tone::TALKERS_MAX],
}

impl Payloads {
    fn new(scene: &Scene, kernels: Kernels) -> Self {
        let samples = scene.ptime as usize * RATE as usize / 1_000;
        let amplitude = tone::amplitude(scene.talkers.max(1));
        let pitch = |hz| tone::payload(scene.codec, kernels, hz, amplitude, samples);
        let pitch_of_nobody = || tone::payload(scene.codec, kernels, 0.0, 0.0, samples);
        Self {
            silence: match scene.silence {
                Silence::Packets | Silence::None => pitch_of_nobody(),
                Silence::Noise => tone::noise(scene.codec, kernels, 1, samples),
            },
            talkers: (0..scene.talkers)
                .map(|talker| [pitch(tone::tone_hz(talker)), pitch(tone::burst_hz(talker))])
                .collect(),
        }
    }

    fn share(&self, io: &mut BatchIo) -> Shared {
        let silence = io.share(&self.silence);
        let mut talkers = [[silence; 2]; tone::TALKERS_MAX];
        for (shared, payloads) in talkers.iter_mut().zip(&self.talkers) {
            *shared = [io.share(&payloads[0]), io.share(&payloads[1])];
        }
        Shared { silence, talkers }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A server by hand, a talker and a listener of one room at it.
    fn room() -> (UdpSocket, Media, [usize; 2]) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let scene = Scene {
            talkers: 1,
            ..scene()
        };
        let mut media = Media::new(Sockets::open(2).unwrap(), &scene, 1);
        let stream = || Stream {
            remote: server.local_addr().unwrap(),
            payload_type: 0,
        };
        let callers = [Some(0), None].map(|talker| {
            let place = Place {
                room: 0,
                talker,
                home: 0,
            };
            let index = talker.map_or(1, |_| 0);
            media.add(index, place, stream(), true).unwrap()
        });
        (server, media, callers)
    }

    fn scene() -> Scene {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            scene: Scene,
        }
        <Line as clap::Parser>::parse_from(["rooms"]).scene
    }

    fn senders(server: &UdpSocket) -> std::collections::HashSet<SocketAddr> {
        let mut datagram = [0; 2_048];
        std::iter::from_fn(|| server.recv_from(&mut datagram).ok())
            .map(|(_, from)| from)
            .collect()
    }

    #[test]
    fn who_has_hung_up_sends_no_more_and_does_not_count() {
        let (server, mut media, [talker, listener]) = room();
        let addresses: Vec<SocketAddr> = media.sockets.iter().map(|socket| socket.1).collect();
        let packet = media.scene.ptime.into();
        let later = |media: &mut Media, ms: u64| {
            let at = media.start + Duration::from_millis(ms);
            media.send(at);
            media.io.flush();
        };
        later(&mut media, packet);
        assert_eq!(senders(&server).len(), 2);
        media.remove(listener);
        later(&mut media, 2 * packet);
        assert_eq!(senders(&server), [addresses[0]].into());
        assert_eq!(media.present().count(), 1);
        // Whoever has his address next is nobody's double.
        let place = Place {
            room: 0,
            talker: None,
            home: 0,
        };
        let stream = Stream {
            remote: server.local_addr().unwrap(),
            payload_type: 0,
        };
        assert!(media.add(1, place, stream, true).is_ok());
        assert!(media.add(0, place, stream, true).is_err());
        media.remove(talker);
        assert_eq!(media.present().count(), 1);
    }

    #[test]
    fn every_burst_is_expected_by_all_who_listen_to_its_talker() {
        let (_server, mut media, [_, listener]) = room();
        let bursts = |media: &mut Media, second: u32| {
            media.heard.clear();
            let from = media.start + BURST_EVERY * second;
            for ms in 0..1_000 {
                media.send(from + Duration::from_millis(ms));
            }
            media.heard.bursts_expected
        };
        assert_eq!(bursts(&mut media, 0), 0);
        assert_eq!(bursts(&mut media, 1), 1);
        media.remove(listener);
        // The talker does not listen to himself.
        assert_eq!(bursts(&mut media, 2), 0);
    }
}
