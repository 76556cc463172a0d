//! What this machine's cores carry, measured at the start: so that an operator never has to guess.
//!
//! A packet is sent, taken in, decoded, judged and encoded, some ten thousand times on the first of the
//! server's cores, which takes a few hundredths of a second of its CPU time. A core's maximum follows by
//! two shares: what a shard has been found to reach of that (its rooms, jitter buffers and callers of many
//! addresses cost more), and what of it is promised.
//!
//! The figure is kept in a file for the next start, as long as the processor, the kernel and this program
//! are the same.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mixer_simd::Kernels;
use serde::{Deserialize, Serialize};

use crate::codec::{Codec, SAMPLE_RATE};
use crate::io::batch::BatchIo;
use crate::io::{MediaIo, TOGETHER_MAX, Token};

/// Of pairs as they are measured here, so many a shard was found to manage: `plenum-perf capacity` found
/// 6,000 participants, 300,000 pairs a second, on a core where this measured 1,080 ns.
const REACHED: f64 = 0.32;

/// The share of what a core can do that is promised. Calls come in bursts, and neighbours on the machine
/// take their share.
const PROMISED: f64 = 0.8;

/// Measurements, of which the median counts, and batches in each.
const ROUNDS: usize = 15;
const BATCHES: usize = 10;

const SAMPLES: usize = SAMPLE_RATE as usize / 50;

/// The outcome, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    version: String,
    processor: String,
    kernel: String,
    /// CPU time for a packet in and a packet out.
    pair_ns: f64,
}

impl Calibration {
    /// From the file of an earlier start, or measured now and kept for the next.
    ///
    /// # Errors
    /// The network or the thread could not be had.
    pub fn find(core: usize) -> io::Result<Self> {
        let file = cache_file();
        let here = Self::unmeasured();
        let kept = file
            .as_ref()
            .and_then(|file| std::fs::read_to_string(file).ok())
            .and_then(|text| toml::from_str::<Self>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.is_of(&here)) {
            return Ok(kept);
        }
        let measured = Self {
            pair_ns: measure_on(core)?,
            ..here
        };
        if let Some(file) = file
            && let Err(error) = measured.keep(&file)
        {
            tracing::debug!(file = %file.display(), %error, "the calibration is not kept");
        }
        Ok(measured)
    }

    /// Load units (packets a second) that a core is trusted with.
    pub fn units_per_core(&self) -> u32 {
        (2e9 / self.pair_ns * REACHED * PROMISED) as u32
    }

    fn unmeasured() -> Self {
        let kernel = rustix::system::uname();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processor: processor(),
            kernel: kernel.release().to_string_lossy().into_owned(),
            pair_ns: f64::NAN,
        }
    }

    /// Measured with this program, on this processor and kernel, and a figure that can be.
    fn is_of(&self, here: &Self) -> bool {
        let same = |of: fn(&Self) -> &String| of(self) == of(here);
        same(|of| &of.version)
            && same(|of| &of.processor)
            && same(|of| &of.kernel)
            && (10.0..1e6).contains(&self.pair_ns)
    }

    fn keep(&self, file: &std::path::Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Two servers may start at once; a reader sees the one or the other.
        let new = file.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, file)
    }
}

/// As systemd gives it to services, else where users keep caches.
fn cache_file() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
    folder("CACHE_DIRECTORY")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("plenum")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/plenum")))
        .map(|folder| folder.join("calibration.toml"))
}

/// What the kernel calls the processor.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    field("model name")
        .or_else(|| field("CPU part"))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn measure_on(core: usize) -> io::Result<f64> {
    let measured = std::thread::Builder::new()
        .name("calibration".to_owned())
        .spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
            measure()
        })?
        .join();
    measured.unwrap_or_else(|_| Err(io::Error::other("the calibration failed")))
}

/// CPU time for a packet in and a packet out on this thread, in nanoseconds.
fn measure() -> io::Result<f64> {
    let kernels = Kernels::detect();
    let mut io = BatchIo::new()?;
    let here = ([127, 0, 0, 1], 0).into();
    let (caller, server) = (io.open(here, Token(0))?, io.open(here, Token(1))?);
    let server = io.local_address(server)?;
    let mut decoder = Codec::Pcmu.decoder(kernels);
    let mut encoder = Codec::Pcmu.encoder(kernels);
    let (mut pcm, mut payload) = (Vec::new(), vec![0x55; SAMPLES]);
    let mut rounds = Vec::new();
    // The first round is warm-up.
    for _ in 0..=ROUNDS {
        let before = thread_cpu();
        let mut pairs = 0;
        for _ in 0..BATCHES {
            let shared = io.share(&payload);
            for _ in 0..TOGETHER_MAX {
                io.queue(caller, server, &[0x80; rtp::HEADER_LEN], shared);
            }
            io.flush();
            io.harvest(&mut |arrivals| {
                for arrival in arrivals {
                    pcm.clear();
                    decoder.decode(&arrival.datagram[rtp::HEADER_LEN..], &mut pcm);
                    payload.clear();
                    encoder.encode(&pcm, &mut payload);
                    std::hint::black_box(kernels.energy(&pcm));
                }
                pairs += arrivals.len();
            })?;
        }
        if pairs == 0 {
            return Err(io::Error::other("nothing comes through on loopback"));
        }
        rounds.push((thread_cpu() - before).as_nanos() as f64 / pairs as f64);
    }
    rounds.remove(0);
    rounds.sort_unstable_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

fn thread_cpu() -> Duration {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_carries_something() {
        let measured = Calibration {
            pair_ns: measure_on(0).unwrap(),
            ..Calibration::unmeasured()
        };
        assert!(measured.is_of(&Calibration::unmeasured()));
        assert!(measured.units_per_core() > 1_000, "{measured:?}");
    }

    #[test]
    fn what_was_kept_elsewhere_is_not_believed() {
        let here = Calibration {
            pair_ns: 1_000.0,
            ..Calibration::unmeasured()
        };
        let folder = std::env::temp_dir().join(format!("plenum-test-{}", std::process::id()));
        let file = folder.join("cache/calibration.toml");
        here.keep(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        let kept: Calibration = toml::from_str(&text).unwrap();
        assert_eq!(kept, here);
        assert!(kept.is_of(&Calibration::unmeasured()));
        for other in [
            Calibration {
                version: "0".to_owned(),
                ..here.clone()
            },
            Calibration {
                processor: "Z80".to_owned(),
                ..here.clone()
            },
            Calibration {
                kernel: "2.6".to_owned(),
                ..here.clone()
            },
            Calibration {
                pair_ns: 0.0,
                ..here.clone()
            },
            Calibration {
                pair_ns: f64::INFINITY,
                ..here.clone()
            },
        ] {
            assert!(!other.is_of(&here), "{other:?}");
        }
    }

    #[test]
    fn units_follow_from_the_cost() {
        let at = |pair_ns| {
            Calibration {
                pair_ns,
                ..Calibration::unmeasured()
            }
            .units_per_core()
        };
        assert_eq!(at(1_000.0), (2e6 * REACHED * PROMISED) as u32);
        assert!(at(500.0) > at(1_000.0));
    }
}
