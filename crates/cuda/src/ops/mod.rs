//! One checked launch for every kernel.
//!
//! A launch is a struct of operands and sizes, given to the method of [`Pass`] of the same name. Before the
//! launch, every operand is checked to be on the device, aligned to 16 bytes and large enough for the sizes. Matrices
//! are row by row without gaps. A launch over no rows does nothing.

mod attention;
mod fill;
mod gemm;
mod norm;
mod pool;

use std::fmt;

pub use attention::Attention;
pub use fill::Fill;
pub use gemm::{Activation, Epilogue, Gemm, Linear};
pub use norm::{AddNorm, Embed, Norm, NormRows, Placement};
pub use pool::{GatherRows, GatherRowsF32, Pool, PoolMode};

use crate::{
    error::{CudaError, Result},
    kernel::KernelName,
    launch::{ALIGNMENT, COLUMN_STEP, MAX_HIDDEN},
    memory::DeviceSlice,
    pass::Pass,
};

/// Bytes of an f32 or a u32.
const WORD: usize = 4;

/// Checks the operands of one launch.
struct Operands<'p> {
    pass: &'p Pass<'p>,
    kernel: KernelName,
}

impl<'p> Operands<'p> {
    fn new(pass: &'p Pass<'_>, kernel: KernelName) -> Self {
        Self { pass, kernel }
    }

    /// The operand holds `shape` numbers of `number_bytes` bytes.
    fn check(&self, operand: &str, slice: DeviceSlice<'_>, shape: &[usize], number_bytes: usize) -> Result<()> {
        self.pass.check_device(self.kernel, slice)?;
        if !slice.address().is_multiple_of(ALIGNMENT) {
            return self.error(format_args!("{operand} does not start at a multiple of {ALIGNMENT} bytes"));
        }
        let needed = shape.iter().try_fold(number_bytes, |product, &size| product.checked_mul(size));
        match needed {
            Some(needed) if needed <= slice.bytes() => Ok(()),
            _ => self.error(format_args!(
                "{operand} of {shape:?} numbers of {number_bytes} bytes does not fit {} bytes",
                slice.bytes()
            )),
        }
    }

    /// As [`Operands::check`], for an operand that may be left out.
    fn check_optional(
        &self,
        operand: &str,
        slice: Option<DeviceSlice<'_>>,
        shape: &[usize],
        number_bytes: usize,
    ) -> Result<()> {
        slice.map_or(Ok(()), |slice| self.check(operand, slice, shape, number_bytes))
    }

    /// A size as a parameter of kernels.
    fn size(&self, name: &str, size: usize) -> Result<i32> {
        i32::try_from(size).or_else(|_| self.error(format_args!("{name} of {size} is too large")))
    }

    /// The length of rows of states.
    fn hidden(&self, hidden: usize) -> Result<i32> {
        if hidden == 0 || hidden > MAX_HIDDEN || !hidden.is_multiple_of(COLUMN_STEP) {
            return self.error(format_args!("hidden of {hidden} is no multiple of {COLUMN_STEP} up to {MAX_HIDDEN}"));
        }
        self.size("hidden", hidden)
    }

    fn require(&self, holds: bool, reason: fmt::Arguments<'_>) -> Result<()> {
        if holds { Ok(()) } else { self.error(reason) }
    }

    fn error<T>(&self, reason: fmt::Arguments<'_>) -> Result<T> {
        Err(CudaError::misuse(self.kernel, reason))
    }
}
