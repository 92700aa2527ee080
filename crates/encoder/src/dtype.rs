//! The number formats that a device computes in.

use polylance_kernels::{Isa, Precision};
use polylance_schema::Dtype;

use crate::{
    device::Device,
    error::{ModelError, Result},
};

/// Checks that `device` computes in this format.
///
/// # Errors
/// [`ModelError::Option`] for f16 on a CPU, and for int8 on a GPU.
pub fn check_dtype(dtype: Dtype, device: &Device) -> Result<()> {
    match (dtype, device.is_cpu()) {
        (Dtype::F16, true) => Err(ModelError::Option("dtype f16 needs a CUDA device; the CPU has bf16".to_owned())),
        (Dtype::Int8, false) => {
            Err(ModelError::Option("dtype int8 is computed on the CPU alone; a GPU has bf16".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The fastest format that preserves a vector's direction: bf16 where this machine's CPU multiplies it faster than f32,
/// and f32 elsewhere.
pub fn dtype_of_this_cpu() -> Dtype {
    if Isa::detect() >= Isa::Avx512Bf16 { Dtype::Bf16 } else { Dtype::F32 }
}

/// The precision of the layers' packed weights on a CPU, which computes f16 in f32.
pub(crate) fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 | Dtype::F16 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
        Dtype::Int8 => Precision::Int8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_refuses_f16() {
        assert!([Dtype::F32, Dtype::Bf16, Dtype::Int8].iter().all(|dtype| check_dtype(*dtype, &Device::Cpu).is_ok()));
        let error = check_dtype(Dtype::F16, &Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "dtype f16 needs a CUDA device; the CPU has bf16");
    }
}
