//! What really goes over loopback between servers: SIP datagrams, and control channels put together from
//! their TCP segments. Read here by other code than the server's own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::common::skip;

/// As it stands in a packet socket's protocol, in network order.
const ETH_P_ALL: u16 = 3;
const ETHERNET_LEN: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Packets of media that are kept.
const MEDIA_MAX: usize = 2_000;

/// One direction of a connection, or of a datagram flow.
pub type Flow = (SocketAddr, SocketAddr);

/// Records until dropped or asked for.
pub struct Capture {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// SIP, in order, without what came twice in a row: loopback shows every packet twice.
    datagrams: Vec<(Flow, Vec<u8>)>,
    streams: HashMap<Flow, Stream>,
    /// The last packets between media ports of two servers.
    media: VecDeque<(Flow, Vec<u8>)>,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// SIP from and to these addresses, and TCP between any of their hosts.
    pub sip: Vec<SocketAddr>,
    /// Media from one of these ranges of ports to another.
    pub rtp: Vec<(u16, u16)>,
}

#[derive(Default)]
struct Stream {
    /// Sequence number of its first octet; None if its beginning was not seen.
    begin: Option<u32>,
    segments: BTreeMap<u32, Vec<u8>>,
}

impl Capture {
    /// None where that is not allowed.
    pub fn start(filter: Filter) -> Option<Self> {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = match Socket::new(Domain::PACKET, Type::RAW, Some(protocol)) {
            Ok(socket) => socket,
            Err(error) => {
                skip(&format!(
                    "no packet socket ({error}): only root may capture"
                ));
                return None;
            }
        };
        // Beyond what the machine allows others: whoever may capture may have it.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)
            .expect("an option");
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).expect("an option");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, is_over) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut packet = vec![0; 1 << 17];
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(len) = (&socket).read(&mut packet) {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.take(&packet[..len], &filter);
                }
            }
        });
        Some(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// The SIP messages so far.
    pub fn sip(&self) -> Vec<(Flow, String)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let datagrams = seen.datagrams.iter();
        datagrams
            .map(|(flow, octets)| (*flow, text(octets)))
            .collect()
    }

    /// The last packets that servers sent to each other's media ports.
    pub fn media(&self) -> Vec<(Flow, Vec<u8>)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.media.iter().cloned().collect()
    }

    /// What one side of a connection has said so far; None if it was not seen from its beginning.
    pub fn stream(&self, flow: Flow) -> Option<Vec<u8>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = seen.streams.get(&flow)?;
        let begin = stream.begin?;
        let mut octets = Vec::new();
        // Sequence numbers may pass zero.
        let offset = |sequence: u32| sequence.wrapping_sub(begin) as usize;
        let mut segments: Vec<_> = stream.segments.iter().collect();
        segments.sort_by_key(|(sequence, _)| offset(**sequence));
        for (&sequence, segment) in segments {
            let known = octets.len().checked_sub(offset(sequence))?;
            octets.extend(segment.get(known..).unwrap_or_default());
        }
        Some(octets)
    }

    /// Connections to this address: both directions, the one towards it first.
    pub fn connections_to(&self, listener: SocketAddr) -> Vec<(Flow, Flow)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let flows = seen.streams.keys().filter(|flow| flow.1 == listener);
        flows.map(|&(from, to)| ((from, to), (to, from))).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn take(&mut self, frame: &[u8], Filter { sip, rtp }: &Filter) -> Option<()> {
        let ip = frame.get(ETHERNET_LEN..)?;
        if frame[12..ETHERNET_LEN] != [8, 0] {
            return None;
        }
        let header_len = usize::from(ip.first()? & 0x0F) * 4;
        let len = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
        // A segment that the kernel has not cut up yet says 0 or less than it is.
        let len = if len < header_len { ip.len() } else { len };
        let ip = ip.get(..len.min(ip.len()))?;
        let payload = ip.get(header_len..)?;
        let address = |at: usize, port: usize| {
            let host: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
            let port: [u8; 2] = payload.get(port..port + 2)?.try_into().ok()?;
            let host = IpAddr::V4(Ipv4Addr::from(host));
            Some(SocketAddr::new(host, u16::from_be_bytes(port)))
        };
        let (from, to) = (address(12, 0)?, address(16, 2)?);
        let is_host = |one: SocketAddr| sip.iter().any(|sip| sip.ip() == one.ip());
        match ip[9] {
            UDP if sip.contains(&from) || sip.contains(&to) => {
                let datagram = ((from, to), payload.get(8..)?.to_vec());
                if self.datagrams.last() != Some(&datagram) {
                    self.datagrams.push(datagram);
                }
            }
            UDP if is_between(rtp, from.port(), to.port()) => {
                let datagram = ((from, to), payload.get(8..)?.to_vec());
                if self.media.back() != Some(&datagram) {
                    if self.media.len() == MEDIA_MAX {
                        self.media.pop_front();
                    }
                    self.media.push_back(datagram);
                }
            }
            TCP if is_host(from) && is_host(to) => {
                let sequence = u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?);
                let is_begin = payload.get(13)? & 0x02 != 0;
                let data = payload.get(usize::from(payload.get(12)? >> 4) * 4..)?;
                let stream = self.streams.entry((from, to)).or_default();
                if is_begin {
                    stream.begin = Some(sequence.wrapping_add(1));
                } else if !data.is_empty() && stream.begin.is_some() {
                    let known = stream.segments.entry(sequence).or_default();
                    if known.len() < data.len() {
                        *known = data.to_vec();
                    }
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// Two different ones of the ranges.
fn is_between(ranges: &[(u16, u16)], from: u16, to: u16) -> bool {
    let of = |port| {
        ranges
            .iter()
            .position(|&(low, high)| (low..=high).contains(&port))
    };
    matches!((of(from), of(to)), (Some(from), Some(to)) if from != to)
}

/// A message of RFC 6230 §9.1, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub trans_id: String,
    /// A method, or a status.
    pub what: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Frame {
    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        let found = self.headers.iter().find(is_it);
        found.map(|(_, value)| value.as_str())
    }

    pub fn is_response(&self) -> bool {
        self.what.len() == 3 && self.what.bytes().all(|octet| octet.is_ascii_digit())
    }
}

/// All whole messages of a stream, as strictly as the RFC has them.
#[track_caller]
pub fn frames(stream: &[u8]) -> Vec<Frame> {
    let mut rest = stream;
    let mut frames = Vec::new();
    while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = str::from_utf8(&rest[..end]).expect("UTF-8");
        let mut lines = head.split("\r\n");
        let start: Vec<&str> = lines.next().expect("a line").split(' ').collect();
        let [protocol, trans_id, what] = start[..] else {
            panic!("{start:?}");
        };
        assert_eq!(protocol, "CFW");
        assert!((4..=32).contains(&trans_id.len()), "{trans_id}");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut frame = Frame {
            trans_id: trans_id.to_owned(),
            what: what.to_owned(),
            headers,
            body: String::new(),
        };
        let length = frame.header("Content-Length");
        let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
        let Some(body) = rest[end + 4..].get(..length) else {
            break;
        };
        frame.body = String::from_utf8(body.to_vec()).expect("UTF-8");
        frames.push(frame);
        rest = &rest[end + 4 + length..];
    }
    frames
}
