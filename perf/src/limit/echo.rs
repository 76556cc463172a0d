//! One measurement: an echo on one core, callers on another.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::Kind;
use super::callers::{Callers, Counts};
use super::segments::Bulk;
use crate::process;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    pub(super) sockets: usize,
    pub(super) callers: usize,
    pub(super) caller_sockets: usize,
    pub(super) seconds: u64,
    pub(super) core: usize,
    pub(super) peer_core: usize,
}

/// The server's side of one way through the kernel. Made and used on one thread.
pub(super) trait Way {
    /// Where callers send to.
    fn addresses(&self) -> &[SocketAddr];

    /// Takes in what arrived and sends a packet back for each; returns how many. Never waits, and leaves
    /// the rest of a flood to the next turn, as a server has to.
    fn echo(&mut self) -> io::Result<u64>;
}

/// The callers' side.
pub(super) trait Load {
    /// Takes in what came back and, while `sending`, sends what is due.
    fn turn(&mut self, now: Instant, sending: bool) -> io::Result<()>;

    fn counts(&self) -> Counts;
}

/// As a server's core turns.
const TURN: Duration = Duration::from_millis(1);

/// Until caches, buffers and branch predictors are what they will be.
const WARM: Duration = Duration::from_millis(500);

/// For what is still under way.
const DRAIN: Duration = Duration::from_millis(200);

/// Stages of a measurement, as both threads see them.
const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const DRAINING: u8 = 2;
const OVER: u8 = 3;

#[derive(Clone, Copy, Debug)]
pub(super) struct Echoed {
    pub(super) pairs: u64,
    pub(super) cpu: Duration,
    pub(super) counts: Counts,
    pub(super) echo_cpu: f64,
    pub(super) callers_cpu: f64,
}

impl Echoed {
    pub(super) fn pair_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.pairs.max(1) as f64
    }

    /// Share of the packets that did not come back.
    pub(super) fn lost(&self) -> f64 {
        let Counts { offered, received } = self.counts;
        offered.saturating_sub(received) as f64 / offered.max(1) as f64
    }
}

/// The measured seconds as one thread saw them: a turn that takes long may see a stage late, or never.
#[derive(Default)]
struct Span {
    begin: Option<Mark>,
    end: Option<Mark>,
}

#[derive(Clone, Copy)]
struct Mark {
    count: u64,
    cpu: Duration,
    at: Instant,
}

impl Span {
    fn see(&mut self, stage: u8, count: u64) {
        let mark = || Mark {
            count,
            cpu: thread_cpu(),
            at: Instant::now(),
        };
        if stage >= MEASURING {
            self.begin.get_or_insert_with(mark);
        }
        if stage >= DRAINING {
            self.end.get_or_insert_with(mark);
        }
    }

    /// Count, CPU time and share of the core in these seconds.
    fn told(&self) -> (u64, Duration, f64) {
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return (0, Duration::ZERO, 0.0);
        };
        let cpu = end.cpu - begin.cpu;
        let took = (end.at - begin.at).as_secs_f64();
        // A thread that was in one turn all the time had none to spare.
        let share = if took > 0.0 {
            cpu.as_secs_f64() / took
        } else {
            1.0
        };
        (end.count - begin.count, cpu, share)
    }
}

/// # Errors
/// The kernel does not offer this way (`Unsupported`), or something failed.
pub(super) fn measure(kind: Kind, scene: &Scene) -> io::Result<Echoed> {
    let stage = AtomicU8::new(WARMING);
    let stage = &stage;
    thread::scope(|scope| {
        let (opened, addresses) = mpsc::channel();
        let echo = scope.spawn(move || -> io::Result<_> {
            process::pin(scene.core)?;
            let mut way = kind.open(scene.sockets)?;
            // The other end hangs up only if the measurement is over.
            let _ = opened.send(way.addresses().to_vec());
            run_echo(way.as_mut(), stage)
        });
        let Ok(addresses) = addresses.recv() else {
            return Err(join(echo)
                .err()
                .unwrap_or_else(|| io::Error::other("the echo ended")));
        };
        let callers = scope.spawn(move || -> io::Result<_> {
            process::pin(scene.peer_core)?;
            let mut load: Box<dyn Load> = match kind {
                Kind::Segments => Box::new(Bulk::new(addresses[0], scene.callers)?),
                _ => Box::new(Callers::new(
                    &addresses,
                    scene.callers,
                    scene.caller_sockets,
                )?),
            };
            run_load(load.as_mut(), stage)
        });
        for (next, after) in [
            (MEASURING, WARM),
            (DRAINING, Duration::from_secs(scene.seconds)),
            (OVER, DRAIN),
        ] {
            thread::sleep(after);
            stage.store(next, Ordering::Relaxed);
        }
        let (pairs, cpu, echo_cpu) = join(echo)?;
        let (counts, callers_cpu) = join(callers)?;
        if pairs == 0 {
            return Err(io::Error::other(format!("{kind:?}: nothing came through")));
        }
        Ok(Echoed {
            pairs,
            cpu,
            counts,
            echo_cpu,
            callers_cpu,
        })
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Pairs, CPU time and share of the core while measuring.
fn run_echo(way: &mut dyn Way, stage: &AtomicU8) -> io::Result<(u64, Duration, f64)> {
    let mut next = Instant::now();
    let mut echoed = 0;
    let mut span = Span::default();
    loop {
        echoed += way.echo()?;
        let stage = stage.load(Ordering::Relaxed);
        span.see(stage, echoed);
        if stage == OVER {
            return Ok(span.told());
        }
        rest(&mut next);
    }
}

/// What was offered and came back, and the share of the core while measuring.
fn run_load(load: &mut dyn Load, stage: &AtomicU8) -> io::Result<(Counts, f64)> {
    let mut next = Instant::now();
    let mut span = Span::default();
    loop {
        let stage = stage.load(Ordering::Relaxed);
        span.see(stage, 0);
        if stage == OVER {
            let (_, _, share) = span.told();
            return Ok((load.counts(), share));
        }
        load.turn(Instant::now(), stage < DRAINING)?;
        rest(&mut next);
    }
}

/// Sleeps until the next turn; one that was missed is not made up for.
fn rest(next: &mut Instant) {
    let now = Instant::now();
    *next = (*next + TURN).max(now);
    thread::sleep(*next - now);
}

fn thread_cpu() -> Duration {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32)
}
