//! What arrives, and whose it is.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use arrayvec::ArrayVec;
use slab::Slab;

use super::{Hall, KEYS_PER_TURN_MAX, Seat, SeatKey, Stage, member_at, seated};
use crate::io::{Arrival, MediaIo, TOGETHER_MAX};
use crate::meters::CoreMeters;
use crate::room::Handled;
use crate::shard::guard;
use crate::shard::transport::{Port, TransportKey, Transports, Whose};

impl<I: MediaIo> Stage<I> {
    /// Hands what arrived to the members it is for; what came to other sockets goes to `other`.
    pub fn harvest(
        &mut self,
        now: Instant,
        meters: &CoreMeters,
        other: &mut dyn FnMut(u64, SocketAddr, &[u8]),
    ) -> io::Result<()> {
        let Self {
            io,
            transports,
            halls,
            seats,
            incidents,
            ..
        } = self;
        let result = io.harvest(&mut |arrivals| {
            // First where each belongs, then the work: what the work needs is then on its way from memory
            // for all of them at once, instead of for one after the other.
            let mut belongs = ArrayVec::<Belongs, TOGETHER_MAX>::new();
            for arrival in arrivals {
                let place = Belongs::find(arrival, transports, seats, &halls.all);
                belongs.push(place);
            }
            for (arrival, place) in arrivals.iter().zip(belongs) {
                match place {
                    Belongs::Elsewhere(value) => other(value, arrival.from, arrival.datagram),
                    Belongs::ToNobody => meters.rtp_discarded.add(1),
                    Belongs::To {
                        seat,
                        kind,
                        transport,
                        perhaps,
                    } => {
                        let Some(mut sitter) = seated(seats, &mut halls.all, seat) else {
                            continue;
                        };
                        // Damage by a packet is damage to the room whose member it is for.
                        let handled = guard::room(|| sitter.handle(now, kind, arrival, meters));
                        match handled {
                            Ok(Handled::Taken) => {}
                            Ok(Handled::Discarded) => meters.rtp_discarded.add(1),
                            Ok(Handled::Key(key)) => {
                                if incidents.keys.len() < KEYS_PER_TURN_MAX {
                                    incidents.keys.push((seat, key));
                                }
                            }
                            Err(panic) => {
                                let room = seats[seat.index()].room;
                                halls.panicked.push((room, panic));
                                continue;
                            }
                        }
                        if perhaps && sitter.member().session().is_latched(arrival.from) {
                            transports.latched(transport, seat, arrival.from);
                        }
                    }
                }
            }
        });
        self.bury(meters);
        result
    }
}

/// Where a datagram belongs.
#[derive(Clone, Copy)]
enum Belongs {
    /// To a socket that is none of media.
    Elsewhere(u64),
    To {
        seat: SeatKey,
        kind: rtp::Kind,
        transport: TransportKey,
        /// Only his session can tell whether it is his.
        perhaps: bool,
    },
    ToNobody,
}

impl Belongs {
    fn find(
        arrival: &Arrival<'_>,
        transports: &Transports,
        seats: &Slab<Seat>,
        halls: &Slab<Hall>,
    ) -> Self {
        let (from, datagram) = (arrival.from, arrival.datagram);
        let (transport, kind, whose) = match Port::of(arrival.token) {
            Port::Other(value) => return Self::Elsewhere(value),
            Port::Rtp(transport) => {
                let ssrc_of = |seat| member_at(seats, halls, seat)?.session().heard_ssrc();
                let ssrc = rtp::ssrc(datagram);
                let whose = transports.whose_rtp(transport, from, ssrc, ssrc_of);
                (transport, rtp::classify(datagram), whose)
            }
            Port::Rtcp(transport) => {
                let whose = transports.whose_rtcp(transport, from);
                (transport, rtp::Kind::Rtcp, whose)
            }
        };
        let (seat, perhaps) = match whose {
            Whose::His(seat) => (seat, false),
            Whose::Perhaps(seat) => (seat, true),
            Whose::Nobodys => return Self::ToNobody,
        };
        Self::To {
            seat,
            kind,
            transport,
            perhaps,
        }
    }
}
