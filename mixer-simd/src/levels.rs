//! The kernels compiled for each level, and the table that calls them.

use crate::body::{self, Ramp};
use crate::level::Level;

/// Environment variable that lowers the level, for comparing and for finding faults.
const LEVEL_VARIABLE: &str = "MIXER_SIMD";

/// The list of kernels, handed to the macro `$make` behind `[$argument...]`. `where` names slices that
/// must be equally long.
macro_rules! with_kernels {
    ($make:ident [$($argument:tt)*]) => {
        $make! {
            [$($argument)*]
            /// `sum[i] += input[i]`. Exact for up to 65,536 inputs.
            fn add(sum: &mut [i32], input: &[i16]) where sum == input;
            /// `out[i] = sum[i] - own[i]`: the mix of everybody but one.
            fn minus(out: &mut [i32], sum: &[i32], own: &[i16]) where out == sum, own;
            /// The largest magnitude in `sum`.
            fn peak(sum: &[i32]) -> u32;
            /// Narrows to 16 bits under a ramp, saturating. [`Ramp::UNITY`] is exact where nothing saturates.
            fn pack(out: &mut [i16], sum: &[i32], ramp: Ramp) where out == sum;
            /// Scales by a ramp, saturating.
            fn gain(samples: &mut [i16], ramp: Ramp);
            /// The sum of squares.
            fn energy(samples: &[i16]) -> u64;
            /// ITU-T G.711 µ-law, one octet per sample.
            fn ulaw_encode(out: &mut [u8], pcm: &[i16]) where out == pcm;
            /// ITU-T G.711 µ-law, one sample per octet.
            fn ulaw_decode(out: &mut [i16], law: &[u8]) where out == law;
            /// ITU-T G.711 A-law, one octet per sample.
            fn alaw_encode(out: &mut [u8], pcm: &[i16]) where out == pcm;
            /// ITU-T G.711 A-law, one sample per octet.
            fn alaw_decode(out: &mut [i16], law: &[u8]) where out == law;
        }
    };
}

/// The table and its methods.
macro_rules! declare {
    (
        []
        $($(#[$documentation:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $(where $first:ident == $($same:ident),+)?;)*
    ) => {
        /// The kernels of one level. Copied freely: a few pointers.
        #[derive(Clone, Copy)]
        pub struct Kernels {
            level: Level,
            $($name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        impl Kernels {
            $(
                $(#[$documentation])*
                #[inline]
                pub fn $name(&self, $($argument: $type),*) $(-> $result)? {
                    $($(assert_eq!($first.len(), $same.len(), "slices of one frame are equally long");)+)?
                    // SAFETY: `at` put this function in the table after asking whether the processor has the
                    // level it was compiled for, and that is all a target feature demands.
                    unsafe { (self.$name)($($argument),*) }
                }
            )*
        }
    };
}

/// Every kernel for a level that has `$features`.
macro_rules! compile {
    (
        [$features:literal]
        $($(#[$documentation:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $(where $first:ident == $($same:ident),+)?;)*
    ) => {
        $(
            #[target_feature(enable = $features)]
            pub(super) fn $name($($argument: $type),*) $(-> $result)? {
                body::$name($($argument),*)
            }
        )*
    };
}

/// The table of the functions in `$module`.
macro_rules! table {
    (
        [$level:ident $module:ident]
        $($(#[$documentation:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $(where $first:ident == $($same:ident),+)?;)*
    ) => {
        Kernels { level: Level::$level, $($name: $module::$name,)* }
    };
}

with_kernels!(declare []);

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::*;
    with_kernels!(compile["neon"]);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    with_kernels!(compile["avx2"]);
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::*;
    with_kernels!(compile["avx2,avx512f,avx512bw,avx512vl,avx512dq,avx512cd"]);
}

impl Kernels {
    /// The best kernels for this processor, or those that `MIXER_SIMD` names.
    pub fn detect() -> Self {
        let level = Level::choose(std::env::var(LEVEL_VARIABLE).ok().as_deref());
        Self::at(level).expect("only levels that are here are chosen")
    }

    /// The kernels of `level`; None when this processor lacks it.
    pub fn at(level: Level) -> Option<Self> {
        if !level.is_here() {
            return None;
        }
        Some(match level {
            Level::Scalar => with_kernels!(table [Scalar body]),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => with_kernels!(table [Neon neon]),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => with_kernels!(table [Avx2 avx2]),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => with_kernels!(table [Avx512 avx512]),
        })
    }

    pub fn level(&self) -> Level {
        self.level
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.level.name())
    }
}
