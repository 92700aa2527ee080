//! Number formats that a model can be computed in.

use std::{fmt, str::FromStr};

use polylance_kernels::{Isa, Precision};
use serde::{Deserialize, Serialize};

use crate::{
    device::Device,
    error::{ModelError, Result},
};

/// The format of weights and states during computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats, on every device.
    #[default]
    F32,
    /// bfloat16, on every device; faster than f32 on GPUs and on CPUs that multiply it at full rate, about as fast on
    /// other CPUs that have AVX2, in half the memory. States between the layers are f32.
    Bf16,
    /// 16-bit IEEE floats, on a GPU. States between the layers are f32.
    F16,
    /// 8-bit integers in the layers' products and bfloat16 between them, on a CPU. Changes vectors measurably.
    Int8,
}

impl Dtype {
    /// Checks that `device` computes in this format.
    ///
    /// # Errors
    /// [`ModelError::Option`] for f16 on a CPU, and for int8 elsewhere.
    pub fn check(self, device: &Device) -> Result<()> {
        match (self, device.is_cpu()) {
            (Self::F16, true) => Err(ModelError::Option("dtype f16 needs a CUDA device; the CPU has bf16".to_owned())),
            (Self::Int8, false) => {
                Err(ModelError::Option("dtype int8 is computed on the CPU alone; a GPU has bf16".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The fastest format that keeps a vector's direction: bf16 where this machine's CPU multiplies it faster than f32,
    /// and f32 elsewhere.
    pub fn of_this_cpu() -> Self {
        if Isa::detect() >= Isa::Avx512Bf16 { Self::Bf16 } else { Self::F32 }
    }

    /// How the layers' weights are packed on a CPU, which computes f16 in f32.
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::F32 | Self::F16 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::Int8 => Precision::Int8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
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
            "int8" => Ok(Self::Int8),
            other => Err(ModelError::Option(format!("unknown dtype {other:?}: expected f32, bf16, int8 or f16"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::Int8] {
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
        }
        assert_eq!(
            "f64".parse::<Dtype>().unwrap_err().to_string(),
            "unknown dtype \"f64\": expected f32, bf16, int8 or f16"
        );
    }

    #[test]
    fn a_cpu_refuses_f16() {
        assert!([Dtype::F32, Dtype::Bf16, Dtype::Int8].iter().all(|dtype| dtype.check(&Device::Cpu).is_ok()));
        let error = Dtype::F16.check(&Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "dtype f16 needs a CUDA device; the CPU has bf16");
    }
}
