//! Many phones in one thread: they call, follow redirects, let themselves be moved (REFER) and called back
//! (INVITE with Replaces), send a tone or silence, and keep what they hear. They do what phones do by
//! themselves; a test only has them call and hang up, and looks at them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

mod phone;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Server};
use phone::Phone;

pub const FRAME: Duration = Duration::from_millis(20);

/// How often the thread looks for messages and packets.
const LOOK: Duration = Duration::from_millis(1);

/// RMS from which on a packet is no silence.
const LOUD: f64 = 300.0;

/// RMS of a [`Voice::Tone`] as it is sent.
pub const TONE_RMS: f64 = 5_657.0;

/// What a phone can do when a server wants it elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skills {
    /// Takes INVITE with Replaces (RFC 3891), and says so.
    pub replaces: bool,
    /// Takes REFER, and says so.
    pub refer: bool,
}

pub const REPLACES: Skills = Skills {
    replaces: true,
    refer: false,
};
pub const REFER: Skills = Skills {
    replaces: false,
    refer: true,
};
pub const NEITHER: Skills = Skills {
    replaces: false,
    refer: false,
};

/// What a phone says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Voice {
    Silence,
    Tone {
        hz: f64,
    },
    /// Silence, and 200 ms of a tone every 800 ms.
    Bursts,
    /// No packets at all.
    Nothing,
}

/// One packet of sound that a phone got.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    /// Of its samples.
    pub rms: f64,
    pub ssrc: u32,
    pub contributors: Vec<u32>,
}

impl Heard {
    pub fn is_loud(&self) -> bool {
        self.rms > LOUD
    }
}

/// Who has a phone in hand: by the order of their calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who(usize);

/// What has happened to a phone.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// 302 that it has followed.
    pub redirects: u32,
    /// INVITEs with Replaces that it took.
    pub replaced: u32,
    /// REFERs that it took.
    pub referred: u32,
    /// BYEs that it got.
    pub byes: u32,
    /// The last final answer to an INVITE of its.
    pub status: Option<u16>,
    /// Requests that it had no use for.
    pub refused: Vec<String>,
}

pub struct Crowd {
    phones: Arc<Mutex<Vec<Phone>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    pub fn new() -> Self {
        let phones = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, is_over) = (phones.clone(), stop.clone());
        let thread = std::thread::spawn(move || run(&shared, &is_over));
        Self {
            phones,
            stop,
            thread: Some(thread),
        }
    }

    /// A phone that calls `uri`, whose host is an address; from that machine's side of the way there.
    pub fn call(&self, name: &str, uri: &str, skills: Skills, voice: Voice) -> Who {
        let mut phone = Phone::new(name, address_in(uri), skills, voice);
        phone.invite(uri, None);
        let mut phones = self.lock();
        phones.push(phone);
        Who(phones.len() - 1)
    }

    pub fn hang_up(&self, who: Who) {
        self.with(who, Phone::hang_up);
    }

    pub fn hang_up_all(&self) {
        self.lock().iter_mut().for_each(Phone::hang_up);
    }

    /// Changes what a phone says.
    pub fn say(&self, who: Who, voice: Voice) {
        self.with(who, |phone| phone.voice = voice);
    }

    /// Its address of record, as the roster names it.
    pub fn entity(&self, who: Who) -> String {
        self.with(who, |phone| phone.uri())
    }

    /// The SIP address of the server whose call it has, if it has one.
    pub fn server(&self, who: Who) -> Option<SocketAddr> {
        let target = |phone: &mut Phone| phone.leg().map(|leg| address_in(&leg.dialog.target));
        self.with(who, target)
    }

    /// How many have a call with this server.
    pub fn on(&self, server: &Server) -> usize {
        let is_there = |phone: &&Phone| {
            phone
                .leg()
                .is_some_and(|leg| address_in(&leg.dialog.target) == server.sip)
        };
        self.lock().iter().filter(is_there).count()
    }

    /// How many have a call.
    pub fn up(&self) -> usize {
        let is_up = |phone: &&Phone| phone.leg().is_some();
        self.lock().iter().filter(is_up).count()
    }

    pub fn story(&self, who: Who) -> Story {
        self.with(who, |phone| phone.story.clone())
    }

    /// The synchronisation source that its packets have.
    pub fn ssrc(&self, who: Who) -> u32 {
        self.with(who, |phone| phone.ssrc)
    }

    /// The last packets of the call it has.
    pub fn heard(&self, who: Who) -> Vec<Heard> {
        self.with(who, |phone| phone.heard.iter().cloned().collect())
    }

    /// Forgets what was heard, and the longest gap.
    pub fn forget(&self, who: Who) {
        self.with(who, |phone| {
            phone.heard.clear();
            phone.bursts.clear();
            phone.gap_max = 0;
        });
    }

    /// The longest time for which it heard nothing but silence since [`forget`](Self::forget), in steps of
    /// a frame. Time in which this thread itself did not run does not count: then nobody listened.
    pub fn gap(&self, who: Who) -> Duration {
        FRAME * self.with(who, |phone| phone.gap_max)
    }

    /// When the last bursts began.
    pub fn bursts(&self, who: Who) -> Vec<Instant> {
        self.with(who, |phone| phone.bursts.iter().copied().collect())
    }

    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "never: {what}\n{self:?}");
            std::thread::sleep(FRAME);
        }
    }

    fn with<T>(&self, who: Who, act: impl FnOnce(&mut Phone) -> T) -> T {
        act(&mut self.lock()[who.0])
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Phone>> {
        self.phones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Crowd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for phone in self.lock().iter() {
            let target = phone.leg().map(|leg| leg.dialog.target.as_str());
            writeln!(f, "{} {target:?} {:?}", phone.name, phone.story)?;
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A phone that found something to be wrong fails the test.
            let outcome = thread.join();
            if !std::thread::panicking() {
                outcome.expect("the phones found nothing wrong");
            }
        }
        if std::thread::panicking() {
            eprintln!("--- phones\n{self:?}");
        }
    }
}

fn run(phones: &Mutex<Vec<Phone>>, stop: &AtomicBool) {
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut phones = phones.lock().unwrap_or_else(PoisonError::into_inner);
        phones.iter_mut().for_each(Phone::look);
        let now = Instant::now();
        if now >= next {
            // Listening once for all frames that were missed, speaking once for each.
            phones.iter_mut().for_each(Phone::count_silence);
            while now >= next {
                phones.iter_mut().for_each(Phone::speak);
                next += FRAME;
            }
        }
        drop(phones);
        std::thread::sleep(LOOK);
    }
}

/// Host and port of a SIP URI, which are an address.
pub fn address_in(uri: &str) -> SocketAddr {
    let host = uri.split('@').next_back().expect("a host");
    let host = host.split([';', '?', '>']).next().expect("a host");
    host.parse().unwrap_or_else(|_| panic!("{uri}"))
}
