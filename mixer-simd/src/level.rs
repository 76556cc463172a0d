//! Which instruction sets there are.

/// What kernels are compiled for, each including what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of this architecture has.
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// F, BW, VL, DQ and CD.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    #[cfg(target_arch = "x86_64")]
    pub const ALL: &[Self] = &[Self::Scalar, Self::Avx2, Self::Avx512];
    #[cfg(target_arch = "aarch64")]
    pub const ALL: &[Self] = &[Self::Scalar, Self::Neon];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub const ALL: &[Self] = &[Self::Scalar];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512cd")
            }
        }
    }

    /// The best level of this processor, or a lower one that `wanted` names. An unknown name changes
    /// nothing, and none raises it.
    pub fn choose(wanted: Option<&str>) -> Self {
        let here = || Self::ALL.iter().copied().filter(|level| level.is_here());
        let best = here().max().unwrap_or(Self::Scalar);
        here()
            .find(|level| wanted.is_some_and(|name| name.eq_ignore_ascii_case(level.name())))
            .unwrap_or(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lowers_the_level_and_nothing_raises_it() {
        let best = Level::choose(None);
        assert!(best.is_here());
        assert_eq!(Level::choose(Some("scalar")), Level::Scalar);
        assert_eq!(Level::choose(Some(best.name())), best);
        assert_eq!(Level::choose(Some("vliw")), best);
    }
}
