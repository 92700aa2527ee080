//! The instruction sets of the kernels, and which of them this CPU runs.

use std::{env, fmt, str::FromStr, sync::OnceLock};

/// Selects a lower instruction set than the detected one, to compare two or to rule one out.
const ISA_VARIABLE: &str = "POLYLANCE_KERNELS";

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
    /// AVX-512 with VNNI and BF16: dot products of pairs of bf16.
    Avx512Bf16,
    /// All of these with AMX: tiles of bf16 and int8.
    Amx,
}

impl Isa {
    /// All instruction sets, from the lowest.
    pub const ALL: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// The instruction set that kernels use: the fastest that the CPU and the system allow, or the one that
    /// `POLYLANCE_KERNELS` names, if they allow it.
    ///
    /// Decided at the first call, for the life of the process. A value that names no instruction set is ignored here;
    /// [`Isa::requested`] returns it as an error, for callers that can show it to the user.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| match Self::requested() {
            Ok(Some(requested)) => requested.min(Self::best()),
            Ok(None) | Err(_) => Self::fastest(),
        })
    }

    /// The instruction set that `POLYLANCE_KERNELS` names; `None` where it is unset or empty.
    ///
    /// # Errors
    ///
    /// The value of the variable names no instruction set.
    pub fn requested() -> Result<Option<Self>, UnknownIsa> {
        match env::var_os(ISA_VARIABLE) {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse().map(Some),
            _ => Ok(None),
        }
    }

    /// The highest instruction set that the CPU and the system allow, whatever the environment.
    ///
    /// On a CPU with tiles, the first call requests the permission to use them from the system.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(best)
    }

    /// The highest instruction set, except where a lower one is faster. Intel's dot product of pairs takes four times
    /// as long as a multiplication of f32, so widening both pairs and multiplying twice is faster; AMD's takes as long
    /// as one multiplication.
    ///
    /// Measured on a Xeon of model 207 without AMX: 187 of 415 GFLOP/s.
    fn fastest() -> Self {
        match Self::best() {
            Self::Avx512Bf16 if !pairs_are_fast() => Self::Avx512Vnni,
            best => best,
        }
    }

    /// The instruction sets that run on this machine, from the lowest.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::best())
    }

    /// Its name in `POLYLANCE_KERNELS`.
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

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        let known = Self::ALL.into_iter().find(|isa| isa.name() == name);
        known.ok_or_else(|| UnknownIsa { name: name.to_owned() })
    }
}

/// A name of no instruction set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIsa {
    name: String,
}

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set '{}', expected", self.name)?;
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
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn unknown_name_error_lists_the_known_names() {
        let error = "sse2".parse::<Isa>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown instruction set 'sse2', expected 'portable', 'avx2', 'avx512', 'avx512vnni', 'avx512bf16', 'amx'"
        );
    }

    #[test]
    fn detected_isa_is_available() {
        assert!(Isa::available().any(|isa| isa == Isa::detect()));
        assert!(Isa::detect() <= Isa::best());
        assert_eq!(Isa::available().next(), Some(Isa::Portable));
    }
}
