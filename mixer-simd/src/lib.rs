//! Audio kernels: sum, minus own, limit, gain, level and G.711.
//!
//! ```text
//!   body.rs      every kernel once, as a plain loop: the specification
//!     │ compiled once per instruction set (levels.rs)
//!     ▼
//!   Kernels      a table of functions, chosen once by what the processor has
//! ```
//! Each kernel is a loop over slices without branches that depend on the data, so that the compiler
//! turns the same few lines into SSE2, AVX2, AVX-512 or NEON. The vector forms cannot drift from the
//! scalar one, and `unsafe` is only the call of a function compiled for a processor that is known to
//! be there. Tests still compare every level with the scalar twin, over all lengths and edge values.
//!
//! Not here: allocation, I/O, and what a sum means.

#![deny(unsafe_code)]

mod body;
mod level;
#[expect(
    unsafe_code,
    reason = "calls functions compiled for a level the processor was asked about"
)]
mod levels;
mod limiter;

pub use body::Ramp;
pub use level::Level;
pub use levels::Kernels;
pub use limiter::Limiter;

/// Level of a frame on the scale of RFC 6464: 0 is overload (0 dBov, a full-scale square wave), 127 is
/// silence. `energy` is the sum of squares of `samples` 16-bit samples.
pub fn level_dbov(energy: u64, samples: usize) -> u8 {
    const FULL_SCALE: f64 = 32_768.0 * 32_768.0;
    let mean = energy as f64 / samples.max(1) as f64;
    // Silence has no logarithm; the clamp gives it the end of the scale.
    (-10.0 * (mean / FULL_SCALE).log10())
        .round()
        .clamp(0.0, 127.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_rfc_6464() {
        let level = |amplitude: i16| {
            level_dbov(
                (i64::from(amplitude) * i64::from(amplitude)) as u64 * 160,
                160,
            )
        };
        assert_eq!(level(i16::MIN), 0);
        assert_eq!(level(16_384), 6);
        assert_eq!(level(328), 40);
        assert_eq!(level(1), 90);
        assert_eq!(level(0), 127);
        assert_eq!(level_dbov(0, 0), 127);
    }
}
