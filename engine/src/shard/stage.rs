//! The media side of a shard: rooms, the seats in them, and the sockets of the seats.
//!
//! A seat is a pair of ports with its sockets, taken before a call is answered (the answer names the
//! ports) and given back when the call ends. Who may take one is the focus's decision.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mixer_simd::Kernels;
use slab::Slab;

use super::guard::{self, RoomPanic};
use crate::io::ports::{PortPair, Ports};
use crate::io::{MediaIo, SocketId, Token};
use crate::meters::CoreMeters;
use crate::room::{Counts, Leg, Member, MemberId, Mixer, Newcomer, Room, Tick};

/// Ports of the range that other programs hold are skipped: up to this many in a row, about a millisecond.
const PORT_TRIES_MAX: usize = 512;

/// How often statistics are moved to the meters and vanished peers looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomKey(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeatKey(pub(super) u32);

/// Why no seat could be taken.
#[derive(Debug)]
pub enum NoSeat {
    /// All port pairs of this shard are in use.
    Ports,
    Sockets(io::Error),
}

/// A room and the number of seats taken in it, of those who sit and of those who are about to.
struct Hall {
    room: Room,
    taken: usize,
}

struct Seat {
    room: RoomKey,
    member: Option<MemberId>,
    pair: PortPair,
    rtp: SocketId,
    rtcp: SocketId,
}

/// What a turn of the stage asks the focus to act on.
#[derive(Debug, Default)]
pub struct Incidents {
    /// From these nothing came any more.
    pub vanished: Vec<SeatKey>,
    /// The rooms of these panicked and are gone.
    pub stranded: Vec<SeatKey>,
    /// Rooms that opened or closed (true = opened), in order.
    pub rooms: Vec<(String, bool)>,
}

pub struct Stage<I> {
    io: I,
    address: IpAddr,
    ports: Ports,
    rooms: Slab<Hall>,
    by_name: HashMap<String, RoomKey>,
    seats: Slab<Seat>,
    mixer: Mixer,
    counts: Counts,
    talkers_max: usize,
    media_timeout: Option<Duration>,
    next_housekeeping: Instant,
    incidents: Incidents,
}

pub struct StageConfig {
    pub address: IpAddr,
    pub talkers_max: usize,
    /// None: never.
    pub media_timeout: Option<Duration>,
}

impl<I: MediaIo> Stage<I> {
    pub fn new(now: Instant, io: I, ports: Ports, kernels: Kernels, config: &StageConfig) -> Self {
        Self {
            io,
            address: config.address,
            ports,
            rooms: Slab::new(),
            by_name: HashMap::new(),
            seats: Slab::new(),
            mixer: Mixer::new(kernels),
            counts: Counts::default(),
            talkers_max: config.talkers_max,
            media_timeout: config.media_timeout,
            next_housekeeping: now + HOUSEKEEPING,
            incidents: Incidents::default(),
        }
    }

    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    pub fn set_talkers_max(&mut self, talkers_max: usize) {
        self.talkers_max = talkers_max;
    }

    pub fn kernels(&self) -> Kernels {
        *self.mixer.kernels()
    }

    pub fn room(&self, name: &str) -> Option<&Room> {
        self.by_name
            .get(name)
            .map(|key| &self.rooms[key.0 as usize].room)
    }

    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.rooms.iter().map(|(_, hall)| &hall.room)
    }

    /// Takes a seat in the room called `name`, opening the room if nobody is in it.
    ///
    /// # Errors
    /// No ports or no descriptors are left.
    pub fn take_seat(&mut self, now: Instant, name: &str) -> Result<SeatKey, NoSeat> {
        let seat = SeatKey(self.seats.vacant_key() as u32);
        let (pair, rtp, rtcp) = self.open_pair(seat)?;
        let room = match self.by_name.get(name) {
            Some(&room) => room,
            None => self.open_room(now, name),
        };
        self.rooms[room.0 as usize].taken += 1;
        self.seats.insert(Seat {
            room,
            member: None,
            pair,
            rtp,
            rtcp,
        });
        Ok(seat)
    }

    pub fn ports_of(&self, seat: SeatKey) -> PortPair {
        self.seats[seat.0 as usize].pair
    }

    /// The newcomer takes his seat: from now on he is heard and, once confirmed, spoken to.
    pub fn sit(&mut self, now: Instant, seat: SeatKey, newcomer: Newcomer) {
        let kernels = self.kernels();
        let place = &mut self.seats[seat.0 as usize];
        let member = Member::new(now, seat.0, newcomer, (place.rtp, place.rtcp), kernels);
        place.member = Some(self.rooms[place.room.0 as usize].room.join(member));
    }

    pub fn member(&mut self, seat: SeatKey) -> Option<&mut Member> {
        let seat = self.seats.get(seat.0 as usize)?;
        self.rooms
            .get_mut(seat.room.0 as usize)?
            .room
            .member_mut(seat.member?)
    }

    /// New terms for somebody who sits already (re-INVITE).
    pub fn agree(&mut self, seat: SeatKey, leg: Leg) {
        let kernels = self.kernels();
        if let Some(member) = self.member(seat) {
            member.agree(leg, kernels);
        }
        if let Some(seat) = self.seats.get(seat.0 as usize)
            && let Some(hall) = self.rooms.get_mut(seat.room.0 as usize)
        {
            hall.room.agree_on_period();
        }
    }

    /// Gives the seat back: says goodbye, closes the sockets, returns the ports, and closes the room
    /// when it was the last.
    pub fn leave(&mut self, now: Instant, ntp: u64, key: SeatKey, meters: &CoreMeters) {
        let Some(seat) = self.seats.try_remove(key.0 as usize) else {
            return;
        };
        let hall = self.rooms.get_mut(seat.room.0 as usize);
        if let Some(mut member) = hall.and_then(|hall| hall.room.leave(seat.member?)) {
            member.say_bye(now, ntp, &mut self.io, &mut self.counts);
            count(&mut member, meters);
            // The goodbye leaves before its socket is closed.
            self.flush(meters);
        }
        self.io.close(seat.rtp);
        self.io.close(seat.rtcp);
        self.ports.give_back(seat.pair);
        if let Some(hall) = self.rooms.get_mut(seat.room.0 as usize) {
            hall.taken -= 1;
            if hall.taken == 0 {
                self.close_room(seat.room);
            }
        }
    }

    /// Hands what arrived to the members it is for; what came to other sockets goes to `other`.
    pub fn harvest(
        &mut self,
        now: Instant,
        meters: &CoreMeters,
        other: &mut dyn FnMut(u64, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        let Self {
            io, rooms, seats, ..
        } = self;
        let mut panicked = Vec::new();
        let result = io.harvest(&mut |arrival| {
            let (kind, seat) = match Port::of(arrival.token) {
                Port::Other(value) => return other(value, arrival.from, arrival.datagram),
                Port::Rtp(seat) => (rtp::classify(arrival.datagram), seat),
                Port::Rtcp(seat) => (rtp::Kind::Rtcp, seat),
            };
            let Some(seat) = seats.get(seat as usize) else {
                return;
            };
            let Some(member) = seat
                .member
                .and_then(|id| rooms.get_mut(seat.room.0 as usize)?.room.member_mut(id))
            else {
                return;
            };
            // Damage by a packet is damage to the room whose member it is for.
            let handled = guard::room(|| match kind {
                rtp::Kind::Rtp => {
                    meters.rtp_received.add(1);
                    member.handle_rtp(now, arrival.from, arrival.datagram)
                }
                rtp::Kind::Rtcp => {
                    meters.rtcp_received.add(1);
                    member.handle_rtcp(now, arrival.from, arrival.datagram)
                }
                // STUN and DTLS belong to transports that no participant here uses.
                _ => false,
            });
            match handled {
                Ok(true) => {}
                Ok(false) => meters.rtp_discarded.add(1),
                Err(panic) => panicked.push((seat.room, panic)),
            }
        });
        for (room, panic) in panicked {
            self.bury(room, &panic, meters);
        }
        result
    }

    /// Mixes the rooms whose time has come.
    pub fn tick(&mut self, now: Instant, ntp: u64, meters: &CoreMeters) {
        for key in 0..self.rooms.capacity() {
            let Some(Hall { room, .. }) = self.rooms.get_mut(key) else {
                continue;
            };
            if room.next_tick() > now {
                continue;
            }
            let mut tick = Tick {
                now,
                ntp,
                io: &mut self.io,
                mixer: &mut self.mixer,
                talkers_max: self.talkers_max,
                counts: &mut self.counts,
            };
            match guard::room(|| room.tick(&mut tick)) {
                Ok(Some(late)) => meters.tick_lateness.record_us(late.as_micros() as u64),
                Ok(None) => {}
                Err(panic) => self.bury(RoomKey(key as u32), &panic, meters),
            }
        }
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.keep_house(now, meters);
        }
    }

    pub fn flush(&mut self, meters: &CoreMeters) {
        let flushed = self.io.flush();
        meters.send_failed.add(flushed.failed);
        let counts = std::mem::take(&mut self.counts);
        meters.rtp_sent.add(counts.rtp_sent);
        meters.rtcp_sent.add(counts.rtcp_sent);
        meters.ticks.add(counts.ticks);
        meters.ports_free.set(self.ports.free() as u64);
    }

    pub fn next_tick(&self) -> Option<Instant> {
        self.rooms
            .iter()
            .map(|(_, hall)| hall.room.next_tick())
            .min()
    }

    pub fn incidents(&mut self) -> &mut Incidents {
        &mut self.incidents
    }

    fn open_pair(&mut self, seat: SeatKey) -> Result<(PortPair, SocketId, SocketId), NoSeat> {
        let mut last = None;
        for _ in 0..PORT_TRIES_MAX {
            let Some(pair) = self.ports.take() else { break };
            match self.open_sockets(pair, seat) {
                Ok((rtp, rtcp)) => return Ok((pair, rtp, rtcp)),
                Err(error) => {
                    self.ports.give_back(pair);
                    let taken = error.kind() == io::ErrorKind::AddrInUse;
                    last = Some(error);
                    if !taken {
                        break;
                    }
                }
            }
        }
        Err(last.map_or(NoSeat::Ports, NoSeat::Sockets))
    }

    fn open_sockets(&mut self, pair: PortPair, seat: SeatKey) -> io::Result<(SocketId, SocketId)> {
        let rtp = self.io.open(
            SocketAddr::new(self.address, pair.rtp()),
            Port::Rtp(seat.0).token(),
        )?;
        match self.io.open(
            SocketAddr::new(self.address, pair.rtcp()),
            Port::Rtcp(seat.0).token(),
        ) {
            Ok(rtcp) => Ok((rtp, rtcp)),
            Err(error) => {
                self.io.close(rtp);
                Err(error)
            }
        }
    }

    fn open_room(&mut self, now: Instant, name: &str) -> RoomKey {
        let key = RoomKey(self.rooms.insert(Hall {
            room: Room::new(name.to_owned(), now),
            taken: 0,
        }) as u32);
        self.by_name.insert(name.to_owned(), key);
        self.incidents.rooms.push((name.to_owned(), true));
        key
    }

    fn close_room(&mut self, key: RoomKey) {
        let Some(Hall { room, .. }) = self.rooms.try_remove(key.0 as usize) else {
            return;
        };
        self.by_name.remove(room.name());
        self.incidents.rooms.push((room.name().to_owned(), false));
    }

    /// A room that panicked is gone, whatever state it was in; its callers are told by the focus.
    fn bury(&mut self, key: RoomKey, panic: &RoomPanic, meters: &CoreMeters) {
        let Some(Hall { room, .. }) = self.rooms.get(key.0 as usize) else {
            return;
        };
        meters.room_panics.add(1);
        tracing::error!(room = room.name(), %panic, participants = room.len(), "a room failed and is closed");
        self.close_room(key);
        let stranded = self.seats.iter_mut().filter(|(_, seat)| seat.room == key);
        self.incidents
            .stranded
            .extend(stranded.map(|(index, seat)| {
                seat.member = None;
                SeatKey(index as u32)
            }));
    }

    fn keep_house(&mut self, now: Instant, meters: &CoreMeters) {
        for (_, Hall { room, .. }) in &mut self.rooms {
            for member in room.members_mut() {
                count(member, meters);
                if self
                    .media_timeout
                    .is_some_and(|timeout| member.silent_for(now) >= timeout)
                {
                    self.incidents.vanished.push(SeatKey(member.badge()));
                }
            }
        }
    }
}

fn count(member: &mut Member, meters: &CoreMeters) {
    let delta = member.count();
    meters.rtp_lost.add(delta.lost);
    meters.rtp_late.add(delta.late);
}

/// What a datagram's [`Token`] says: the seat it is for, or a number of the shard's own.
enum Port {
    Rtp(u32),
    Rtcp(u32),
    Other(u64),
}

impl Port {
    const KIND_SHIFT: u32 = 62;

    fn of(token: Token) -> Self {
        match token.0 >> Self::KIND_SHIFT {
            1 => Self::Rtp(token.0 as u32),
            2 => Self::Rtcp(token.0 as u32),
            _ => Self::Other(token.0),
        }
    }

    fn token(&self) -> Token {
        Token(match *self {
            Self::Rtp(seat) => 1 << Self::KIND_SHIFT | u64::from(seat),
            Self::Rtcp(seat) => 2 << Self::KIND_SHIFT | u64::from(seat),
            Self::Other(value) => value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::plain::PlainIo;
    use crate::meters::Meters;

    fn stage(now: Instant, ports: std::ops::RangeInclusive<u16>) -> Stage<PlainIo> {
        let config = StageConfig {
            address: IpAddr::from([127, 0, 0, 1]),
            talkers_max: 8,
            media_timeout: None,
        };
        Stage::new(
            now,
            PlainIo::new().unwrap(),
            Ports::new(ports, 0, 1),
            Kernels::detect(),
            &config,
        )
    }

    #[test]
    fn a_room_that_panics_is_closed_and_the_others_go_on() {
        let meters = Meters::new(&[0]);
        let meters = &meters.cores[0];
        let now = Instant::now();
        let mut stage = stage(now, 33_000..=33_999);
        let free = stage.ports.free();
        let bad = [
            stage.take_seat(now, "bad").unwrap(),
            stage.take_seat(now, "bad").unwrap(),
        ];
        let good = stage.take_seat(now, "good").unwrap();
        let key = stage.by_name["bad"];
        stage.rooms[key.0 as usize].room.panics_on_next_tick = true;

        stage.tick(now + Duration::from_millis(25), 0, meters);

        assert_eq!(meters.room_panics.get(), 1);
        assert!(stage.room("bad").is_none() && stage.room("good").is_some());
        assert_eq!(
            stage.incidents().stranded,
            bad,
            "their callers are to get BYE"
        );
        assert_eq!(
            meters.ticks.get() + stage.counts.ticks,
            1,
            "the good room was mixed"
        );
        // The seats of the stranded are given back as any others.
        for seat in bad.into_iter().chain([good]) {
            stage.leave(now, 0, seat, meters);
        }
        assert_eq!(stage.ports.free(), free);
        assert_eq!(stage.rooms().count(), 0);
        let opened_and_closed: Vec<_> = stage
            .incidents()
            .rooms
            .iter()
            .map(|(room, opened)| (room.as_str(), *opened))
            .collect();
        assert_eq!(
            opened_and_closed,
            [
                ("bad", true),
                ("good", true),
                ("bad", false),
                ("good", false)
            ]
        );
        // A new room of the same name starts afresh.
        assert!(stage.take_seat(now, "bad").is_ok());
    }

    #[test]
    fn seats_end_with_the_ports() {
        let now = Instant::now();
        let mut stage = stage(now, 34_000..=34_003);
        stage.take_seat(now, "r").unwrap();
        stage.take_seat(now, "r").unwrap();
        assert!(matches!(stage.take_seat(now, "r"), Err(NoSeat::Ports)));
    }
}
