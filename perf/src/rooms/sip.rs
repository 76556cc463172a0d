//! Callers of a SIP server: an INVITE each, over UDP from one socket.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::io::batch::BatchIo;
use engine::io::{MediaIo, SocketId, Token};
use engine::random::Random;
use sip::{CallKey, Endpoint, Event, Flow, Invitation, ListenerIdentity, Output, Transport};

use super::offer::Offer;
use super::signalling::{Seat, Signalling, Stream};

/// No call is answered for this long: the server is not going to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Beyond the time that saying goodbye at the rate of dialling takes.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// While joining and leaving.
const TURN: Duration = Duration::from_micros(250);

pub(crate) struct SipCallers {
    server: SocketAddr,
    /// Calls placed a second.
    dial_rate: u32,
    io: BatchIo,
    socket: SocketId,
    endpoint: Endpoint,
    calls: HashMap<CallKey, Call>,
    streams: Vec<Option<Stream>>,
    joined: usize,
    failure: Option<String>,
    arrived: Vec<Bytes>,
}

struct Call {
    seat: usize,
    offer: Offer,
}

impl SipCallers {
    pub(crate) fn new(server: SocketAddr, dial_rate: u32) -> std::io::Result<Self> {
        let mut io = BatchIo::new()?;
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
        let identity = ListenerIdentity {
            transport: Transport::Udp,
            sent_by: socket.local_addr()?.to_string(),
        };
        let seed = Random::from_entropy().next_u64();
        Ok(Self {
            server,
            dial_rate,
            socket: io.adopt(socket, Token(0))?,
            io,
            endpoint: Endpoint::new(sip::Config::new(0, vec![identity], seed)),
            calls: HashMap::new(),
            streams: Vec::new(),
            joined: 0,
            failure: None,
            arrived: Vec::new(),
        })
    }

    fn flow(&self) -> Flow {
        Flow {
            transport: Transport::Udp,
            peer: self.server,
            listener: 0,
            stream: 0,
        }
    }

    fn dial(&mut self, now: Instant, index: usize, seat: &Seat) -> Result<(), String> {
        let offer = Offer::new(seat, index as u64 + 1);
        let invitation = Invitation {
            target: format!("sip:perf{}@{}", seat.room, self.server),
            from: format!("sip:caller{index}@127.0.0.1"),
            contact_user: format!("caller{index}"),
            body: Some(offer.body()),
            ..Invitation::default()
        };
        let key = self
            .endpoint
            .invite(now, self.flow(), invitation)
            .map_err(|error| error.to_string())?;
        let call = Call { seat: index, offer };
        self.calls.insert(key, call);
        Ok(())
    }

    fn turn(&mut self, now: Instant) -> Result<(), String> {
        let Self { io, arrived, .. } = self;
        io.harvest(&mut |arrivals| {
            let datagrams = arrivals
                .iter()
                .map(|arrival| Bytes::copy_from_slice(arrival.datagram));
            arrived.extend(datagrams);
        })
        .map_err(|error| error.to_string())?;
        let flow = self.flow();
        for message in self.arrived.drain(..) {
            self.endpoint.handle_message(now, flow, &message);
        }
        self.endpoint.handle_timeout(now);
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { flow, message } => {
                    let payload = self.io.share(&message);
                    self.io.queue(self.socket, flow.peer, &[], payload);
                }
                Output::Event(event) => self.on_event(event),
            }
        }
        self.io.flush();
        self.failure.take().map_or(Ok(()), Err)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Accepted { call, body } => {
                let Some(call) = self.calls.get(&call) else {
                    return;
                };
                match call.offer.stream(body.as_ref()) {
                    Ok(stream) => {
                        self.joined += usize::from(self.streams[call.seat].is_none());
                        self.streams[call.seat] = Some(stream);
                    }
                    Err(reason) => {
                        self.failure = Some(format!("an answer cannot be used: {reason}"));
                    }
                }
            }
            Event::Rejected { status, .. } => {
                self.failure = Some(format!("a call was refused with {status}"));
            }
            _ => {}
        }
    }
}

impl Signalling for SipCallers {
    fn join(&mut self, seats: &[Seat]) -> Result<Vec<Stream>, String> {
        self.streams = vec![None; seats.len()];
        self.joined = 0;
        let start = Instant::now();
        let mut progress = (0, start);
        let mut dialled = 0;
        while self.joined < seats.len() {
            let now = Instant::now();
            let due = (now - start).as_secs_f64() * f64::from(self.dial_rate);
            while dialled < seats.len() && (dialled as f64) < due {
                self.dial(now, dialled, &seats[dialled])?;
                dialled += 1;
            }
            self.turn(now)?;
            if self.joined > progress.0 {
                progress = (self.joined, now);
            } else if now - progress.1 > PATIENCE {
                return Err(format!(
                    "only {} of {} callers were answered",
                    self.joined,
                    seats.len()
                ));
            }
            std::thread::sleep(TURN);
        }
        Ok(self.streams.iter().copied().flatten().collect())
    }

    fn keep(&mut self) -> Result<(), String> {
        self.turn(Instant::now())
    }

    fn leave(&mut self) -> Result<(), String> {
        let start = Instant::now();
        let keys: Vec<CallKey> = self.calls.drain().map(|(key, _)| key).collect();
        let mut ended = 0;
        let needed = Duration::from_secs_f64(keys.len() as f64 / f64::from(self.dial_rate));
        let until = start + needed + HANG_UP_TIMEOUT;
        while (ended < keys.len() || !self.endpoint.is_idle()) && Instant::now() < until {
            let now = Instant::now();
            let due = (now - start).as_secs_f64() * f64::from(self.dial_rate);
            while ended < keys.len() && (ended as f64) < due {
                self.endpoint.bye(now, keys[ended], None);
                ended += 1;
            }
            self.turn(now)?;
            std::thread::sleep(TURN);
        }
        Ok(())
    }
}
