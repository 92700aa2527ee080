//! Number formats that a model can be computed in.

use std::{fmt, str::FromStr};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

/// The format of weights and states during computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats, on every device.
    #[default]
    F32,
    /// bfloat16, on CUDA.
    Bf16,
    /// 16-bit IEEE floats, on CUDA.
    F16,
}

impl Dtype {
    /// Checks that `device` computes in this format.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a half-precision format on a CPU.
    pub fn check(self, device: &Device) -> Result<()> {
        if self == Self::F32 || device.is_cuda() {
            return Ok(());
        }
        Err(ModelError::Option(format!("dtype {self} needs a CUDA device; the CPU computes in f32")))
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::BF16,
            Dtype::F16 => Self::F16,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Dtype {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            other => Err(ModelError::Option(format!("unknown dtype {other:?}: expected f32, bf16 or f16"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
        }
        assert_eq!("f64".parse::<Dtype>().unwrap_err().to_string(), "unknown dtype \"f64\": expected f32, bf16 or f16");
    }

    #[test]
    fn a_cpu_refuses_half_precision() {
        assert!(Dtype::F32.check(&Device::Cpu).is_ok());
        let error = Dtype::Bf16.check(&Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "dtype bf16 needs a CUDA device; the CPU computes in f32");
    }
}
