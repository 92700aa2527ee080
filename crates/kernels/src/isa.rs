//! Which instructions the kernels use.

use std::{env, fmt, str::FromStr, sync::OnceLock};

/// Names another instruction set of the CPU's than the one that is chosen, to compare or to rule one out.
const VARIABLE: &str = "POLYLANCE_KERNELS";

/// Instruction sets that kernels are written for, each a superset of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, on every machine.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI: dot products of bytes.
    Avx512Vnni,
    /// AVX-512 with BF16 beside it: dot products of pairs of bf16.
    Avx512Bf16,
    /// Tiles of bf16 and int8 (AMX) beside it.
    Amx,
}

impl Isa {
    /// All of them, from the plainest.
    pub const ALL: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// The one that kernels run on: the fastest that the CPU and the system allow, or the one that
    /// `POLYLANCE_KERNELS` names, where they allow it.
    ///
    /// Decided at the first call, for the life of the process. A word that names no instruction set is passed over
    /// here: [`Isa::requested`] tells it, to whoever can show it to the user.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| match Self::requested() {
            Ok(Some(requested)) => requested.min(Self::best()),
            Ok(None) | Err(_) => Self::fastest(),
        })
    }

    /// What `POLYLANCE_KERNELS` asks for; `None` where it is unset or empty.
    ///
    /// # Errors
    ///
    /// The variable holds a word that names no instruction set.
    pub fn requested() -> Result<Option<Self>, UnknownIsa> {
        match env::var_os(VARIABLE) {
            Some(word) if !word.is_empty() => word.to_string_lossy().parse().map(Some),
            _ => Ok(None),
        }
    }

    /// The best that the CPU and the system allow, whatever the environment says.
    ///
    /// The first call asks the system to let this process use tiles, where there are any.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(best)
    }

    /// Intel's dot product of pairs takes four times as long as a multiplication of f32, so that two of those and the
    /// widening before them are done sooner; AMD's takes as long as one.
    ///
    /// Measured on a Xeon of model 207 without AMX: 187 of 415 GFLOP/s.
    fn fastest() -> Self {
        match Self::best() {
            Self::Avx512Bf16 if !pairs_are_fast() => Self::Avx512Vnni,
            best => best,
        }
    }

    /// Those that run on this machine, from the plainest.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::best())
    }

    /// The word for it in `POLYLANCE_KERNELS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(word: &str) -> Result<Self, UnknownIsa> {
        let known = Self::ALL.into_iter().find(|isa| isa.name() == word);
        known.ok_or_else(|| UnknownIsa { word: word.to_owned() })
    }
}

/// A word that names no instruction set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIsa {
    word: String,
}

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set '{}', expected", self.word)?;
        for (i, isa) in Isa::ALL.into_iter().enumerate() {
            let join = if i == 0 { " " } else { ", " };
            write!(f, "{join}'{isa}'")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownIsa {}

#[cfg(not(target_arch = "x86_64"))]
fn best() -> Isa {
    Isa::Portable
}

#[cfg(target_arch = "x86_64")]
fn best() -> Isa {
    macro_rules! has {
        ($($feature:tt),+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
    }
    if !has!("avx2", "fma", "f16c") {
        Isa::Portable
    } else if !has!("avx512f", "avx512bw", "avx512dq", "avx512vl") {
        Isa::Avx2
    } else if !has!("avx512vnni") {
        Isa::Avx512
    } else if !has!("avx512bf16") {
        Isa::Avx512Vnni
    } else if !crate::amx::permitted() {
        Isa::Avx512Bf16
    } else {
        Isa::Amx
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn pairs_are_fast() -> bool {
    true
}

#[cfg(target_arch = "x86_64")]
fn pairs_are_fast() -> bool {
    const INTEL: [&[u8; 4]; 3] = [b"Genu", b"ineI", b"ntel"];
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx] != INTEL.map(|part| u32::from_le_bytes(*part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_word_is_told_with_the_known_ones() {
        let error = "sse2".parse::<Isa>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown instruction set 'sse2', expected 'portable', 'avx2', 'avx512', 'avx512vnni', 'avx512bf16', 'amx'"
        );
    }

    #[test]
    fn what_runs_is_available_and_no_better_than_the_best() {
        assert!(Isa::available().any(|isa| isa == Isa::detect()));
        assert!(Isa::detect() <= Isa::best());
        assert_eq!(Isa::available().next(), Some(Isa::Portable));
    }
}
