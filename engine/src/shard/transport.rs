//! The RTP/RTCP port pairs of a shard, each shared by as many participants as can be told apart on it.
//!
//! ```text
//!   datagram ──> transport ──> by its source address: the participant
//!                              of a source nobody has: the newcomer, else one who went astray
//! ```
//! A socket of its own for every participant would mean a system call for every packet; on a shared
//! one, a call moves a batch. Who is on a transport is known by the address his packets come from, so
//! two participants may share one only if these differ. Rules:
//!
//! 1. The address of the SDP is claimed from the start, the address he turns out to send from (behind
//!    a NAT) once his packets have proven it ([`rtp::Latch`]). An address has one claimant per transport.
//! 2. A packet from an address nobody claims can only be of a newcomer: somebody who has not been heard
//!    yet. It is of the only one whose SDP names its host; or, if it names no newcomer's host, of the one
//!    who may come from [`anywhere`](Remote::anywhere), of whom there is at most one. Where several may
//!    be meant, nobody is, until the others have been heard. Each one's latch has the last word.
//! 3. A participant who falls silent may have moved to another address (rule 3 of the latch). He is
//!    listed as astray, and gets packets of unclaimed addresses that carry his SSRC, or any if he is the
//!    only one. Who is never heard at all is astray after [`NEWCOMER_FOR`].
//! 4. An address that was left goes on being claimed by nobody for [`GONE_FOR`]: what is still under way
//!    from a caller who hung up is no newcomer's voice.
//!
//! Who cannot be placed so has a transport of his own. One that nobody is left on stays open for the
//! next call, for making and closing sockets is dearer than all else a call does to the kernel.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use slab::Slab;

use super::stage::{NoSeat, SeatKey};
use crate::io::ports::{PortPair, Ports};
use crate::io::{MediaIo, SocketId, Token};

/// Ports of the range that other programs hold are skipped: up to this many in a row, about a millisecond.
const PORT_TRIES_MAX: usize = 512;

/// Open transports asked before a new one is opened.
const SHARE_TRIES_MAX: usize = 8;

/// Open transports that are kept for the next calls.
const IDLE_MAX: usize = 256;

/// A transport's seats, so that what its socket's buffer holds spans a stall of 100 ms: five packets of
/// 20 ms each, for which the kernel reckons up to 768 bytes.
const BUFFER_PER_SEAT: usize = 5 * 768;
const SEATS_MAX: usize = 1_024;

/// How long somebody may take to be heard.
const NEWCOMER_FOR: Duration = Duration::from_secs(5);

/// The longest a packet of a caller who has hung up is expected to be on its way, or his phone to go on.
const GONE_FOR: Duration = Duration::from_secs(30);

/// Looked through for the SSRC of an unclaimed packet, so that strangers cost a bounded time.
const ASTRAY_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransportKey(u32);

/// Where a participant's SDP says his packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    rtp: SocketAddr,
    rtcp: SocketAddr,
    /// He is probably behind a NAT, which will show him at some other address.
    anywhere: bool,
}

impl Remote {
    /// None for somebody on hold in the old way or with his stream switched off (RFC 3264 §8.4).
    /// `signalling` is where his SIP comes from: a private address that is not that one is believed to
    /// be behind a NAT.
    pub fn new(rtp: SocketAddr, rtcp: SocketAddr, signalling: IpAddr) -> Option<Self> {
        (rtp.port() != 0 && !rtp.ip().is_unspecified()).then(|| Self {
            rtp,
            rtcp,
            anywhere: rtp.ip() != signalling && is_private(rtp.ip()),
        })
    }

    /// The host he can be expected at.
    fn host(&self) -> Option<IpAddr> {
        (!self.anywhere).then(|| self.rtp.ip())
    }
}

/// Addresses that mean different hosts in different networks (RFC 1918, 3927, 4193, 4291, 6598).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xC0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// His by a claimed address.
    His(SeatKey),
    /// Perhaps his; when his session believes it, [`Transports::latched`] is to be told.
    Perhaps(SeatKey),
    Nobodys,
}

#[derive(Clone, Copy, Debug)]
enum Claim {
    Seat { seat: SeatKey, heard: bool },
    Gone { since: Instant },
}

#[derive(Debug)]
struct Transport {
    pair: PortPair,
    rtp: SocketId,
    rtcp: SocketId,
    seats_max: usize,
    seats: HashMap<SeatKey, Claims>,
    rtp_claims: HashMap<SocketAddr, Claim>,
    rtcp_claims: HashMap<SocketAddr, SeatKey>,
    newcomers: Vec<Newcomer>,
    astray: Vec<SeatKey>,
    /// Somebody without a known address is on it: shared with nobody.
    alone: bool,
    /// It is in the list of those that take newcomers.
    listed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Newcomer {
    seat: SeatKey,
    since: Instant,
    /// The host his SDP names, if he can be expected there.
    host: Option<IpAddr>,
}

/// What a seat claims.
#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    remote: Option<Remote>,
    /// Where he was found to be, if elsewhere.
    latched: Option<SocketAddr>,
}

pub(super) struct Transports {
    address: IpAddr,
    ports: Ports,
    shared: bool,
    transports: Slab<Transport>,
    /// Those that may take a newcomer; the one used last is asked first, so that few become full.
    vacant: Vec<TransportKey>,
    /// Open and empty; the one that rested longest is used first.
    idle: VecDeque<TransportKey>,
}

impl Transports {
    /// Without `shared`, everybody has a transport of his own.
    pub(super) fn new(address: IpAddr, ports: Ports, shared: bool) -> Self {
        Self {
            address,
            ports,
            shared,
            transports: Slab::new(),
            vacant: Vec::new(),
            idle: VecDeque::new(),
        }
    }

    /// Port pairs nobody is on.
    pub(super) fn free(&self) -> usize {
        self.ports.free() + self.idle.len()
    }

    pub(super) fn pair(&self, key: TransportKey) -> PortPair {
        self.transports[key.0 as usize].pair
    }

    /// The sockets for RTP and RTCP.
    pub(super) fn sockets(&self, key: TransportKey) -> (SocketId, SocketId) {
        let transport = &self.transports[key.0 as usize];
        (transport.rtp, transport.rtcp)
    }

    /// Finds a transport for `seat`: a shared one if it is known where his packets will come from.
    ///
    /// # Errors
    /// No ports or no descriptors are left.
    pub(super) fn place(
        &mut self,
        now: Instant,
        io: &mut impl MediaIo,
        seat: SeatKey,
        remote: Option<Remote>,
    ) -> Result<TransportKey, NoSeat> {
        let shared = remote.and_then(|remote| self.find_shared(&remote));
        let key = match shared.or_else(|| self.idle.pop_front()) {
            Some(key) => key,
            None => self.open(io)?,
        };
        let transport = &mut self.transports[key.0 as usize];
        transport.alone = remote.is_none() || !self.shared;
        transport.newcomers.push(Newcomer {
            seat,
            since: now,
            host: remote.and_then(|remote| remote.host()),
        });
        transport.seats.insert(seat, Claims::default());
        transport.claim(seat, remote);
        self.list(key);
        Ok(key)
    }

    /// A new SDP says that `seat` is elsewhere now. False when somebody else on the transport claims that
    /// address; then nothing has changed and he has to be placed anew.
    pub(super) fn expect(&mut self, key: TransportKey, seat: SeatKey, remote: Remote) -> bool {
        let transport = &mut self.transports[key.0 as usize];
        let known = transport.seats.get(&seat).and_then(|claims| claims.remote);
        if known == Some(remote) {
            return true;
        }
        if !transport.is_free(&remote, Some(seat)) {
            return false;
        }
        transport.unclaim(seat, None);
        transport.claim(seat, Some(remote));
        // Who came without an address has one now.
        transport.alone = !self.shared;
        let mut newcomers = transport.newcomers.iter_mut();
        if let Some(newcomer) = newcomers.find(|newcomer| newcomer.seat == seat) {
            newcomer.host = newcomer.host.or_else(|| remote.host());
        }
        // His latch begins anew, so he may be heard from anywhere.
        let is_newcomer = transport
            .newcomers
            .iter()
            .any(|newcomer| newcomer.seat == seat);
        if !is_newcomer && !transport.astray.contains(&seat) {
            transport.astray.push(seat);
        }
        self.list(key);
        true
    }

    /// Takes `seat` off its transport.
    pub(super) fn leave(
        &mut self,
        now: Instant,
        io: &mut impl MediaIo,
        key: TransportKey,
        seat: SeatKey,
    ) {
        let transport = &mut self.transports[key.0 as usize];
        transport.unclaim(seat, Some(now));
        transport.seats.remove(&seat);
        transport.forget_wait(seat);
        if !transport.seats.is_empty() {
            return self.list(key);
        }
        transport.alone = false;
        self.idle.push_back(key);
        if self.idle.len() > IDLE_MAX
            && let Some(key) = self.idle.pop_front()
        {
            let transport = self.transports.remove(key.0 as usize);
            self.vacant.retain(|&vacant| vacant != key);
            io.close(transport.rtp);
            io.close(transport.rtcp);
            self.ports.give_back(transport.pair);
        }
    }

    /// Whose an RTP packet is. `ssrc_of` says which source a seat was last heard with.
    pub(super) fn whose_rtp(
        &self,
        key: TransportKey,
        from: SocketAddr,
        ssrc: Option<u32>,
        ssrc_of: impl Fn(SeatKey) -> Option<u32>,
    ) -> Whose {
        let Some(transport) = self.transports.get(key.0 as usize) else {
            return Whose::Nobodys;
        };
        match transport.rtp_claims.get(&from) {
            Some(&Claim::Seat { seat, heard: true }) => Whose::His(seat),
            Some(&Claim::Seat { seat, heard: false }) => Whose::Perhaps(seat),
            Some(Claim::Gone { .. }) => Whose::Nobodys,
            None => transport
                .newcomer_at(from.ip())
                .or_else(|| transport.astray_with(ssrc, ssrc_of))
                .map_or(Whose::Nobodys, Whose::Perhaps),
        }
    }

    /// Whose an RTCP packet on the RTCP port is: his who announced its address, or whose RTP comes from
    /// the port below (RFC 3550 §11).
    pub(super) fn whose_rtcp(&self, key: TransportKey, from: SocketAddr) -> Whose {
        let Some(transport) = self.transports.get(key.0 as usize) else {
            return Whose::Nobodys;
        };
        if let Some(&seat) = transport.rtcp_claims.get(&from) {
            return Whose::His(seat);
        }
        let below = SocketAddr::new(from.ip(), from.port().wrapping_sub(1));
        match transport.rtp_claims.get(&below) {
            Some(&Claim::Seat { seat, .. }) => Whose::His(seat),
            Some(Claim::Gone { .. }) => Whose::Nobodys,
            // Where there is only one, there is nobody to be mistaken for.
            None if transport.seats.len() == 1 => transport
                .seats
                .keys()
                .next()
                .map_or(Whose::Nobodys, |&seat| Whose::His(seat)),
            None => Whose::Nobodys,
        }
    }

    /// `seat` has been heard, and `from` is where he is.
    pub(super) fn latched(&mut self, key: TransportKey, seat: SeatKey, from: SocketAddr) {
        self.transports[key.0 as usize].latched(seat, from);
    }

    /// To be called every second or so. `silent` says whether a seat's latch is open to others.
    pub(super) fn keep_house(&mut self, now: Instant, mut silent: impl FnMut(SeatKey) -> bool) {
        let since = |then: Instant| now.saturating_duration_since(then);
        for (_, transport) in &mut self.transports {
            transport.rtp_claims.retain(|_, claim| match *claim {
                Claim::Seat { .. } => true,
                Claim::Gone { since: gone } => since(gone) < GONE_FOR,
            });
            let Transport {
                newcomers,
                astray,
                seats,
                ..
            } = transport;
            newcomers.retain(|newcomer| since(newcomer.since) < NEWCOMER_FOR);
            astray.clear();
            astray.extend(seats.keys().copied().filter(|&seat| {
                silent(seat) && newcomers.iter().all(|newcomer| newcomer.seat != seat)
            }));
        }
    }

    fn find_shared(&mut self, remote: &Remote) -> Option<TransportKey> {
        let mut tries = 0;
        for place in (0..self.vacant.len()).rev() {
            let key = self.vacant[place];
            let transport = &mut self.transports[key.0 as usize];
            if !transport.is_vacant() {
                transport.listed = false;
                self.vacant.remove(place);
            } else if transport.takes(remote) {
                return Some(key);
            } else {
                tries += 1;
                if tries == SHARE_TRIES_MAX {
                    break;
                }
            }
        }
        None
    }

    /// Puts a transport on the list of those that take newcomers, if it does.
    fn list(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key.0 as usize];
        if transport.is_vacant() && !transport.listed {
            transport.listed = true;
            self.vacant.push(key);
        }
    }

    fn open(&mut self, io: &mut impl MediaIo) -> Result<TransportKey, NoSeat> {
        let mut last = None;
        for _ in 0..PORT_TRIES_MAX {
            let Some(pair) = self.ports.take() else { break };
            match self.open_pair(io, pair) {
                Ok(key) => return Ok(key),
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

    fn open_pair(&mut self, io: &mut impl MediaIo, pair: PortPair) -> io::Result<TransportKey> {
        let entry = self.transports.vacant_entry();
        let key = TransportKey(entry.key() as u32);
        let at = |port| SocketAddr::new(self.address, port);
        let rtp = io.open(at(pair.rtp()), Port::Rtp(key).token())?;
        let rtcp = match io.open(at(pair.rtcp()), Port::Rtcp(key).token()) {
            Ok(rtcp) => rtcp,
            Err(error) => {
                io.close(rtp);
                return Err(error);
            }
        };
        entry.insert(Transport {
            pair,
            rtp,
            rtcp,
            seats_max: (io.receive_buffer(rtp) / BUFFER_PER_SEAT).clamp(1, SEATS_MAX),
            seats: HashMap::new(),
            rtp_claims: HashMap::new(),
            rtcp_claims: HashMap::new(),
            newcomers: Vec::new(),
            astray: Vec::new(),
            alone: false,
            listed: false,
        });
        Ok(key)
    }
}

impl Transport {
    /// Somebody may join those who are here.
    fn is_vacant(&self) -> bool {
        !self.alone && (1..self.seats_max).contains(&self.seats.len())
    }

    /// A newcomer from there can be told from everybody here.
    fn takes(&self, remote: &Remote) -> bool {
        let wanderer = || {
            self.newcomers
                .iter()
                .any(|newcomer| newcomer.host.is_none())
        };
        self.is_free(remote, None) && !(remote.anywhere && wanderer())
    }

    /// The newcomer who must be meant by a packet from that host (rule 2).
    fn newcomer_at(&self, host: IpAddr) -> Option<SeatKey> {
        let with_host = |wanted: Option<IpAddr>| {
            let newcomers = self.newcomers.iter();
            newcomers.filter(move |newcomer| newcomer.host == wanted)
        };
        let mut named = with_host(Some(host));
        match (named.next(), named.next()) {
            (Some(only), None) => Some(only.seat),
            (Some(_), Some(_)) => None,
            (None, _) => with_host(None).next().map(|newcomer| newcomer.seat),
        }
    }

    /// The one who went astray and is heard with this source, or is the only one (rule 3).
    fn astray_with(
        &self,
        ssrc: Option<u32>,
        ssrc_of: impl Fn(SeatKey) -> Option<u32>,
    ) -> Option<SeatKey> {
        match self.astray[..] {
            [only] => Some(only),
            ref several => several
                .iter()
                .copied()
                .take(ASTRAY_MAX)
                .find(|&seat| ssrc.is_some() && ssrc_of(seat) == ssrc),
        }
    }

    /// Nobody but `seat` claims these addresses.
    fn is_free(&self, remote: &Remote, seat: Option<SeatKey>) -> bool {
        let rtp_free = match self.rtp_claims.get(&remote.rtp) {
            Some(&Claim::Seat { seat: claimant, .. }) => Some(claimant) == seat,
            Some(Claim::Gone { .. }) | None => true,
        };
        let rtcp = self.rtcp_claims.get(&remote.rtcp);
        rtp_free && rtcp.is_none_or(|&claimant| Some(claimant) == seat)
    }

    fn claim(&mut self, seat: SeatKey, remote: Option<Remote>) {
        if let Some(remote) = remote {
            let claim = Claim::Seat { seat, heard: false };
            self.rtp_claims.insert(remote.rtp, claim);
            self.rtcp_claims.insert(remote.rtcp, seat);
        }
        if let Some(claims) = self.seats.get_mut(&seat) {
            claims.remote = remote;
        }
    }

    /// Gives up all claims of a seat; from a seat that is left, what still comes is known as such.
    fn unclaim(&mut self, seat: SeatKey, left: Option<Instant>) {
        let Some(claims) = self.seats.get_mut(&seat).map(std::mem::take) else {
            return;
        };
        let rtp = claims.remote.map(|remote| remote.rtp);
        for address in rtp.into_iter().chain(claims.latched) {
            match left {
                Some(since) => self.rtp_claims.insert(address, Claim::Gone { since }),
                None => self.rtp_claims.remove(&address),
            };
        }
        if let Some(remote) = claims.remote {
            self.rtcp_claims.remove(&remote.rtcp);
        }
    }

    fn latched(&mut self, seat: SeatKey, from: SocketAddr) {
        self.forget_wait(seat);
        let Some(claims) = self.seats.get_mut(&seat) else {
            return;
        };
        if claims.remote.is_none_or(|remote| remote.rtp != from)
            && let Some(before) = claims.latched.replace(from)
            && before != from
        {
            self.rtp_claims.remove(&before);
        }
        let claim = Claim::Seat { seat, heard: true };
        self.rtp_claims.insert(from, claim);
    }

    /// He is no newcomer, nor astray.
    fn forget_wait(&mut self, seat: SeatKey) {
        self.newcomers.retain(|newcomer| newcomer.seat != seat);
        self.astray.retain(|&astray| astray != seat);
    }
}

/// What a datagram's [`Token`] says: the transport it came to, or a number of the shard's own.
pub(super) enum Port {
    Rtp(TransportKey),
    Rtcp(TransportKey),
    Other(u64),
}

impl Port {
    const KIND_SHIFT: u32 = 62;

    pub(super) fn of(token: Token) -> Self {
        let key = TransportKey(token.0 as u32);
        match token.0 >> Self::KIND_SHIFT {
            1 => Self::Rtp(key),
            2 => Self::Rtcp(key),
            _ => Self::Other(token.0),
        }
    }

    fn token(&self) -> Token {
        Token(match *self {
            Self::Rtp(TransportKey(key)) => 1 << Self::KIND_SHIFT | u64::from(key),
            Self::Rtcp(TransportKey(key)) => 2 << Self::KIND_SHIFT | u64::from(key),
            Self::Other(value) => value,
        })
    }
}

#[cfg(test)]
mod tests;
