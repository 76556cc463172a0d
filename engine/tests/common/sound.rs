//! The sound of an agent: a tone or silence as PCMU every 20 ms, keys in between (RFC 4733), and what it
//! hears.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FRAME: Duration = Duration::from_millis(20);
const SAMPLES: u32 = 160;

/// Payload types as the agents' SDP has them.
const PCMU: u8 = 0;
const EVENT: u8 = 101;

const SILENCE: [u8; SAMPLES as usize] = [0xFF; SAMPLES as usize];

/// Sends and hears until dropped.
pub struct Sound {
    shared: Arc<Shared>,
    keys: Sender<char>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    packets: AtomicU64,
    loud: AtomicU64,
    pressed: AtomicU64,
}

impl Sound {
    /// From this socket to what the server's SDP says.
    pub fn start(socket: &UdpSocket, to: SocketAddr, is_tone: bool) -> Self {
        let socket = socket.try_clone().expect("a second handle");
        socket.set_nonblocking(true).expect("an option");
        let shared = Arc::new(Shared::default());
        let (keys, pressed) = channel();
        let with = shared.clone();
        let thread = std::thread::spawn(move || run(&socket, to, is_tone, &pressed, &with));
        Self {
            shared,
            keys,
            thread: Some(thread),
        }
    }

    /// Presses keys one after the other, and comes back when the last one is on its way.
    pub fn press(&self, keys: &str) {
        let count = |shared: &Shared| shared.pressed.load(Ordering::Relaxed);
        let before = count(&self.shared);
        for key in keys.chars() {
            self.keys.send(key).expect("the thread runs");
        }
        while count(&self.shared) < before + keys.len() as u64 {
            std::thread::sleep(FRAME);
        }
    }

    /// Packets of sound heard so far.
    pub fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::Relaxed)
    }

    /// How many of them were no silence.
    pub fn loud(&self) -> u64 {
        self.shared.loud.load(Ordering::Relaxed)
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A loud square wave of 400 Hz.
fn tone() -> [u8; SAMPLES as usize] {
    std::array::from_fn(|i| if i / 10 % 2 == 0 { 0x10 } else { 0x90 })
}

fn run(socket: &UdpSocket, to: SocketAddr, is_tone: bool, keys: &Receiver<char>, shared: &Shared) {
    let payload = if is_tone { tone() } else { SILENCE };
    let mut sequence = 0_u16;
    let mut timestamp = 0_u32;
    let mut next = Instant::now();
    // What is left of a key that is down: the timestamp of its beginning, and the packets to come.
    let mut down: Option<(u8, u32, u16)> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        if down.is_none() {
            let key = keys.try_recv().ok().and_then(event);
            down = key.map(|event| (event, timestamp, 0));
        }
        let packet = match &mut down {
            None => packet(PCMU, false, sequence, timestamp, &payload),
            Some((event, begin, step)) => {
                *step += 1;
                // Down for four packets; its end is said three times.
                let is_end = *step > 4;
                let duration = (*step).min(5) * SAMPLES as u16;
                let [high, low] = duration.to_be_bytes();
                let volume = if is_end { 0x8A } else { 0x0A };
                let payload = [*event, volume, high, low];
                packet(EVENT, *step == 1, sequence, *begin, &payload)
            }
        };
        let _ = socket.send_to(&packet, to);
        if down.is_some_and(|(_, _, step)| step == 7) {
            down = None;
            shared.pressed.fetch_add(1, Ordering::Relaxed);
        }
        sequence = sequence.wrapping_add(1);
        timestamp = timestamp.wrapping_add(SAMPLES);
        listen(socket, shared);
        next += FRAME;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn packet(kind: u8, marker: bool, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    const SSRC: u32 = 0x0A6E_7401;
    let mut packet = vec![0x80, kind | u8::from(marker) << 7];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(SSRC.to_be_bytes());
    packet.extend(payload);
    packet
}

fn listen(socket: &UdpSocket, shared: &Shared) {
    let mut datagram = [0; 2_048];
    while let Ok(len) = socket.recv(&mut datagram) {
        let Some(payload) = datagram[..len].get(12..) else {
            continue;
        };
        if datagram[1] & 0x7F != PCMU {
            continue;
        }
        shared.packets.fetch_add(1, Ordering::Relaxed);
        // In µ-law the small numbers are the loud ones; 7F is silence, of either sign.
        let is_loud = payload.iter().any(|&octet| octet & 0x7F < 0x50);
        shared.loud.fetch_add(u64::from(is_loud), Ordering::Relaxed);
    }
}

/// The number of a key's event (RFC 4733 §3.2).
fn event(key: char) -> Option<u8> {
    let place = "0123456789*#ABCD".find(key)?;
    Some(place as u8)
}
