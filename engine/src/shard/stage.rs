//! The media side of a shard: rooms, the seats in them, and the transports of the seats.
//!
//! A seat is a place in a room and on a transport, taken before a call is answered (the answer names the
//! ports) and given back when the call ends. Who may take one is the focus's decision.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mixer_simd::Kernels;
use slab::Slab;

use super::ShardIndex;
use super::guard::{self, RoomPanic};
use super::phases::{Phases, Slot};
pub use super::transport::Remote;
use super::transport::{TransportKey, Transports};
use crate::io::ports::{PortPair, Ports};
use crate::io::{Arrival, MediaIo};
use crate::meters::{CoreMeters, Ledger, Phase};
use crate::room::{
    CoreEnd, Counts, Handled, Leg, Member, MemberId, Mixer, Newcomer, Room, Trunk, TrunkId,
};

mod harvest;
#[cfg(test)]
mod tests;

/// How often statistics are moved to the meters and vanished peers looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Keys that are acted on in one turn; a flood of them delays nobody's sound.
const KEYS_PER_TURN_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomKey(pub(super) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeatKey(pub(super) u32);

/// Why no seat could be taken.
#[derive(Debug)]
pub enum NoSeat {
    /// All port pairs of this shard are in use.
    Ports,
    Sockets(io::Error),
}

/// A room, and the number of seats taken in it, of those who sit and of those who are about to.
struct Hall {
    room: Room,
    slot: Slot,
    /// Of participants. Without any, the room is there only for its trunks.
    taken: usize,
    /// Of trunks.
    trunks: usize,
}

struct Seat {
    room: RoomKey,
    sitter: Sitter,
    transport: TransportKey,
}

/// Who sits on a seat.
#[derive(Clone, Copy)]
enum Sitter {
    /// A participant is about to.
    Expected,
    Member(MemberId),
    /// A trunk is about to.
    TrunkExpected,
    Trunk(TrunkId),
    /// The room is gone.
    Stranded,
}

impl Sitter {
    fn is_trunk(self) -> bool {
        matches!(self, Self::TrunkExpected | Self::Trunk(_))
    }
}

/// What a turn of the stage asks the focus to act on.
#[derive(Debug, Default)]
pub struct Incidents {
    /// From these nothing came any more.
    pub vanished: Vec<SeatKey>,
    /// The rooms of these panicked and are gone.
    pub stranded: Vec<SeatKey>,
    /// Keys that were pressed, in order.
    pub keys: Vec<(SeatKey, char)>,
    /// Rooms, or parts of them, that opened or closed here (true = opened), in order.
    pub rooms: Vec<(String, bool)>,
}

pub struct Stage<I> {
    io: I,
    transports: Transports,
    halls: Halls,
    by_name: HashMap<String, RoomKey>,
    seats: Slab<Seat>,
    phases: Phases,
    mixer: Mixer,
    counts: Counts,
    talkers_max: usize,
    media_timeout: Option<Duration>,
    next_housekeeping: Instant,
    incidents: Incidents,
}

/// The rooms, and what is under way with them in a turn.
#[derive(Default)]
struct Halls {
    all: Slab<Hall>,
    due: Vec<RoomKey>,
    ticking: Vec<RoomKey>,
    panicked: Vec<(RoomKey, RoomPanic)>,
}

/// The time of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// The wall clock at `now` in NTP format (RFC 3550 §4), for sender reports.
    pub ntp: u64,
    /// The turn comes so late that what is not needed for sound is put off.
    pub pressed: bool,
}

pub struct StageConfig {
    pub address: IpAddr,
    /// Whether participants may share a transport.
    pub shared_ports: bool,
    pub talkers_max: usize,
    /// None: never.
    pub media_timeout: Option<Duration>,
}

impl<I: MediaIo> Stage<I> {
    pub fn new(now: Instant, io: I, ports: Ports, kernels: Kernels, config: &StageConfig) -> Self {
        Self {
            io,
            transports: Transports::new(config.address, ports, config.shared_ports),
            halls: Halls::default(),
            by_name: HashMap::new(),
            seats: Slab::new(),
            phases: Phases::new(now),
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

    /// The room called `name`, if anybody is in it or about to be.
    pub fn room(&self, name: &str) -> Option<&Room> {
        self.hall(name).map(|hall| &hall.room)
    }

    /// How many seats of a room are taken by participants, of those who sit and of those who are about to.
    pub fn taken(&self, name: &str) -> Option<usize> {
        self.hall(name).map(|hall| hall.taken)
    }

    fn hall(&self, name: &str) -> Option<&Hall> {
        let key = self.by_name.get(name)?;
        let hall = &self.halls.all[key.0 as usize];
        (hall.taken > 0).then_some(hall)
    }

    /// Joins the part of the room called `name` that is here to the one on another core. Without a part
    /// here the other end learns that it is alone.
    pub fn join_part(&mut self, name: &str, part: ShardIndex, end: CoreEnd) {
        if let Some(key) = self.by_name.get(name) {
            self.halls.all[key.0 as usize].room.add_core(part.0, end);
        }
    }

    /// Where the other parts are of a room that has one here.
    pub fn parts(&self, name: &str) -> impl Iterator<Item = ShardIndex> {
        let key = self.by_name.get(name).into_iter();
        key.flat_map(|key| self.halls.all[key.0 as usize].room.parts())
            .map(ShardIndex)
    }

    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.halls.all.iter().map(|(_, hall)| &hall.room)
    }

    /// Takes a seat in the room called `name`, opening the room if nobody is in it. `remote` is where
    /// the caller's SDP says his packets come from, if there is one that says so.
    ///
    /// # Errors
    /// No ports or no descriptors are left.
    pub fn take_seat(
        &mut self,
        now: Instant,
        name: &str,
        remote: Option<Remote>,
    ) -> Result<SeatKey, NoSeat> {
        self.take(now, name, remote, Sitter::Expected)
    }

    /// Takes a seat for a trunk: the sound of the same conference on another server. It is no participant:
    /// nobody sees a room that only trunks are in, and it is counted nowhere. All else is as
    /// for a participant: [`sit`](Self::sit) with an agreement over one of [`Codec::TRUNK`], confirm,
    /// [`agree`](Self::agree), [`leave`](Self::leave).
    ///
    /// [`Codec::TRUNK`]: crate::codec::Codec::TRUNK
    ///
    /// # Errors
    /// No ports or no descriptors are left.
    pub fn take_trunk_seat(
        &mut self,
        now: Instant,
        name: &str,
        remote: Option<Remote>,
    ) -> Result<SeatKey, NoSeat> {
        self.take(now, name, remote, Sitter::TrunkExpected)
    }

    fn take(
        &mut self,
        now: Instant,
        name: &str,
        remote: Option<Remote>,
        sitter: Sitter,
    ) -> Result<SeatKey, NoSeat> {
        let key = SeatKey(self.seats.vacant_key() as u32);
        let transport = self.transports.place(now, &mut self.io, key, remote)?;
        let room = match self.by_name.get(name) {
            Some(&room) => room,
            None => self.open_room(now, name),
        };
        let hall = &mut self.halls.all[room.0 as usize];
        if sitter.is_trunk() {
            hall.trunks += 1;
        } else {
            hall.taken += 1;
        }
        self.phases.seat_taken(hall.slot);
        self.seats.insert(Seat {
            room,
            sitter,
            transport,
        });
        Ok(key)
    }

    pub fn ports_of(&self, seat: SeatKey) -> PortPair {
        self.transports.pair(self.seats[seat.0 as usize].transport)
    }

    /// The caller says by SDP that his packets come from elsewhere. Gives the ports at which he is now
    /// expected: others than before if somebody else on his transport sends from there.
    ///
    /// # Errors
    /// He would need other ports, and there are none; he stays where he is.
    pub fn expect(
        &mut self,
        now: Instant,
        key: SeatKey,
        remote: Option<Remote>,
    ) -> Result<PortPair, NoSeat> {
        let before = self.seats[key.0 as usize].transport;
        if let Some(remote) = remote
            && !self.transports.expect(before, key, remote)
        {
            let transport = self
                .transports
                .place(now, &mut self.io, key, Some(remote))?;
            self.transports.leave(now, &mut self.io, before, key);
            self.seats[key.0 as usize].transport = transport;
            let sockets = self.transports.sockets(transport);
            if let Some(member) = self.member(key) {
                member.set_sockets(sockets);
            }
        }
        Ok(self.ports_of(key))
    }

    /// The newcomer takes his seat: from now on he is heard and, once confirmed, spoken to.
    pub fn sit(&mut self, now: Instant, seat: SeatKey, newcomer: Newcomer) {
        let kernels = self.kernels();
        let place = &mut self.seats[seat.0 as usize];
        let sockets = self.transports.sockets(place.transport);
        let member = Member::new(now, seat.0, newcomer, sockets, kernels);
        let room = &mut self.halls.all[place.room.0 as usize].room;
        place.sitter = if place.sitter.is_trunk() {
            Sitter::Trunk(room.add_trunk(Trunk::new(member)))
        } else {
            Sitter::Member(room.join(member))
        };
    }

    /// Who sits there; of a trunk, its leg.
    pub fn member(&mut self, seat: SeatKey) -> Option<&mut Member> {
        seated(&self.seats, &mut self.halls.all, seat).map(Seated::member)
    }

    /// New terms for somebody who sits already (re-INVITE).
    pub fn agree(&mut self, seat: SeatKey, leg: Leg) {
        let kernels = self.kernels();
        if let Some(member) = self.member(seat) {
            member.agree(leg, kernels);
        }
        if let Some(seat) = self.seats.get(seat.0 as usize)
            && let Some(hall) = self.halls.all.get_mut(seat.room.0 as usize)
        {
            hall.room.agree_on_period();
        }
    }

    /// Gives the seat back: says goodbye, leaves the transport, and closes the room when it was the last.
    pub fn leave(&mut self, now: Instant, ntp: u64, key: SeatKey, meters: &CoreMeters) {
        let Some(seat) = self.seats.try_remove(key.0 as usize) else {
            return;
        };
        let hall = match seat.sitter {
            // Another room may have the key by now.
            Sitter::Stranded => None,
            _ => self.halls.all.get_mut(seat.room.0 as usize),
        };
        if let Some(hall) = hall {
            let left = match seat.sitter {
                Sitter::Member(id) => hall.room.leave(id),
                Sitter::Trunk(id) => hall.room.remove_trunk(id).map(Trunk::into_member),
                _ => None,
            };
            if let Some(mut member) = left {
                member.say_bye(now, ntp, &mut self.io, &mut self.counts);
                count(&mut member, meters);
            }
            self.phases.seat_left(hall.slot);
            if seat.sitter.is_trunk() {
                hall.trunks -= 1;
            } else {
                hall.taken -= 1;
            }
            if hall.taken + hall.trunks == 0 {
                self.close_room(seat.room);
            }
        }
        self.transports
            .leave(now, &mut self.io, seat.transport, key);
    }

    /// Mixes the rooms whose time has come, each step with all of them.
    pub fn tick(&mut self, moment: Moment, ledger: &mut Ledger, meters: &CoreMeters) {
        let Moment { now, ntp, pressed } = moment;
        self.phases.due(now, &mut self.halls.due);
        while self.begin(now, meters) {
            let Self {
                io,
                halls,
                mixer,
                counts,
                ..
            } = self;
            mixer.clear();
            halls.step(|room| room.hear(now, mixer));
            ledger.lap(meters, Phase::Hear);
            halls.step(|room| room.select(self.talkers_max));
            ledger.lap(meters, Phase::Select);
            halls.step(|room| room.mix(mixer));
            ledger.lap(meters, Phase::Mix);
            halls.step(|room| room.encode(mixer, io));
            ledger.lap(meters, Phase::Encode);
            halls.step(|room| room.speak(now, mixer, io, counts));
            if !pressed {
                halls.step(|room| room.report(now, ntp, io, counts));
            }
            ledger.lap(meters, Phase::Speak);
            // Who is a whole period late ticks again.
            std::mem::swap(&mut halls.due, &mut halls.ticking);
            self.bury(meters);
        }
        self.halls.due.clear();
        if now >= self.next_housekeeping && !pressed {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.keep_house(now, meters);
            ledger.lap(meters, Phase::House);
        }
    }

    pub fn flush(&mut self, meters: &CoreMeters) {
        let flushed = self.io.flush();
        meters.send_failed.add(flushed.failed);
        let counts = std::mem::take(&mut self.counts);
        meters.rtp_sent.add(counts.rtp_sent);
        meters.rtcp_sent.add(counts.rtcp_sent);
        meters.ticks.add(counts.ticks);
        meters.ports_free.set(self.transports.free() as u64);
    }

    /// When rooms may have to tick next.
    pub fn next_tick(&self) -> Option<Instant> {
        self.phases.next()
    }

    pub fn incidents(&mut self) -> &mut Incidents {
        &mut self.incidents
    }

    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// Moves the rooms that are due to those that tick; false if there is none.
    fn begin(&mut self, now: Instant, meters: &CoreMeters) -> bool {
        let Halls {
            all, due, ticking, ..
        } = &mut self.halls;
        ticking.clear();
        for key in due.drain(..) {
            if let Some(hall) = all.get_mut(key.0 as usize)
                && let Some(late) = hall.room.begin(now)
            {
                meters.tick_lateness.record_us(late.as_micros() as u64);
                ticking.push(key);
            }
        }
        !ticking.is_empty()
    }

    fn open_room(&mut self, now: Instant, name: &str) -> RoomKey {
        let (slot, first_tick) = self.phases.place(now);
        let key = RoomKey(self.halls.all.insert(Hall {
            room: Room::new(name.to_owned(), first_tick),
            slot,
            taken: 0,
            trunks: 0,
        }) as u32);
        self.phases.open(slot, key);
        self.by_name.insert(name.to_owned(), key);
        self.incidents.rooms.push((name.to_owned(), true));
        key
    }

    fn close_room(&mut self, key: RoomKey) {
        let Some(Hall { room, slot, .. }) = self.halls.all.try_remove(key.0 as usize) else {
            return;
        };
        self.phases.close(slot, key);
        self.by_name.remove(room.name());
        self.incidents.rooms.push((room.name().to_owned(), false));
    }

    /// A room that panicked is gone, whatever state it was in; its callers are told by the focus.
    fn bury(&mut self, meters: &CoreMeters) {
        for (key, panic) in std::mem::take(&mut self.halls.panicked) {
            let Some(Hall { room, slot, .. }) = self.halls.all.get(key.0 as usize) else {
                continue;
            };
            meters.room_panics.add(1);
            tracing::error!(room = room.name(), %panic, participants = room.len(), "a room failed and is closed");
            let slot = *slot;
            self.close_room(key);
            let stranded = self
                .seats
                .iter_mut()
                .filter(|(_, seat)| seat.room == key && !matches!(seat.sitter, Sitter::Stranded));
            for (index, seat) in stranded {
                seat.sitter = Sitter::Stranded;
                self.phases.seat_left(slot);
                self.incidents.stranded.push(SeatKey(index as u32));
            }
        }
    }

    fn keep_house(&mut self, now: Instant, meters: &CoreMeters) {
        for (_, Hall { room, .. }) in &mut self.halls.all {
            for member in room.members_mut() {
                count(member, meters);
                if self
                    .media_timeout
                    .is_some_and(|timeout| member.silent_for(now) >= timeout)
                {
                    self.incidents.vanished.push(SeatKey(member.badge()));
                }
            }
            for trunk in room.trunks_mut() {
                count(trunk.member_mut(), meters);
                if self
                    .media_timeout
                    .is_some_and(|timeout| trunk.is_dead(now, timeout))
                {
                    let seat = SeatKey(trunk.member().badge());
                    self.incidents.vanished.push(seat);
                }
            }
            room.drop_abandoned();
        }
        let Self {
            transports,
            seats,
            halls,
            ..
        } = self;
        transports.keep_house(now, |seat| {
            seated(seats, &mut halls.all, seat)
                .is_some_and(|sitter| sitter.member().session().is_open(now))
        });
    }
}

impl Halls {
    /// Does `work` on each room that ticks; one that panics drops out.
    fn step(&mut self, mut work: impl FnMut(&mut Room)) {
        let Self {
            all,
            ticking,
            panicked,
            ..
        } = self;
        ticking.retain(|&key| {
            let Some(hall) = all.get_mut(key.0 as usize) else {
                return false;
            };
            let result = guard::room(|| work(&mut hall.room));
            result.map_err(|panic| panicked.push((key, panic))).is_ok()
        });
    }
}

impl SeatKey {
    /// Its number, which no other seat of the shard has while it is taken.
    pub fn number(self) -> u32 {
        self.0
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who sits on a seat, found.
enum Seated<'a> {
    Member(&'a mut Member),
    Trunk(&'a mut Trunk),
}

impl<'a> Seated<'a> {
    fn member(self) -> &'a mut Member {
        match self {
            Self::Member(member) => member,
            Self::Trunk(trunk) => trunk.member_mut(),
        }
    }

    fn handle(
        &mut self,
        now: Instant,
        kind: rtp::Kind,
        arrival: &Arrival<'_>,
        meters: &CoreMeters,
    ) -> Handled {
        let Arrival { from, datagram, .. } = *arrival;
        match kind {
            rtp::Kind::Rtp => {
                meters.rtp_received.add(1);
                match self {
                    Self::Member(member) => member.handle_rtp(now, from, datagram),
                    Self::Trunk(trunk) => trunk.handle_rtp(now, from, datagram),
                }
            }
            rtp::Kind::Rtcp => {
                meters.rtcp_received.add(1);
                match self {
                    Self::Member(member) => member.handle_rtcp(now, from, datagram),
                    Self::Trunk(trunk) => trunk.member_mut().handle_rtcp(now, from, datagram),
                }
            }
            // STUN and DTLS belong to transports that no participant here uses.
            _ => Handled::Discarded,
        }
    }
}

fn member_at<'a>(seats: &Slab<Seat>, halls: &'a Slab<Hall>, seat: SeatKey) -> Option<&'a Member> {
    let seat = seats.get(seat.index())?;
    let room = &halls.get(seat.room.0 as usize)?.room;
    match seat.sitter {
        Sitter::Member(id) => room.member(id),
        Sitter::Trunk(id) => room.trunk(id).map(Trunk::member),
        _ => None,
    }
}

fn seated<'a>(seats: &Slab<Seat>, halls: &'a mut Slab<Hall>, seat: SeatKey) -> Option<Seated<'a>> {
    let seat = seats.get(seat.index())?;
    let room = &mut halls.get_mut(seat.room.0 as usize)?.room;
    match seat.sitter {
        Sitter::Member(id) => room.member_mut(id).map(Seated::Member),
        Sitter::Trunk(id) => room.trunk_mut(id).map(Seated::Trunk),
        _ => None,
    }
}

fn count(member: &mut Member, meters: &CoreMeters) {
    let delta = member.count();
    meters.rtp_lost.add(delta.lost);
    meters.rtp_late.add(delta.late);
}
