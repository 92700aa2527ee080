//! The number formats of kernels.

use std::fmt;

/// How weights and activations are stored on a device. Sums are f32 for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberType {
    /// Brain floats: 8 bits of precision, the range of f32.
    Bf16,
    /// Half floats: 11 bits of precision, up to 65,504.
    F16,
    /// 32-bit floats, multiplied without tensor cores.
    F32,
}

impl NumberType {
    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}
