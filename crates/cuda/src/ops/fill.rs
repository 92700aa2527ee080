//! Weights by formula, made on the device.

use super::Operands;
use crate::{error::Result, kernel::KernelName, launch, memory::DeviceSlice, number::NumberType, pass::Pass};

/// Numbers that depend on a seed and their index: `offset + scale · u`, with `u` uniform in `[-1, 1)` from the upper 24
/// bits of `splitmix64(seed + first + index)`.
#[derive(Debug, Clone, Copy)]
pub struct Fill<'a> {
    /// The type of `out`.
    pub number: NumberType,
    /// `[count]`, written.
    pub out: DeviceSlice<'a>,
    /// The seed, usually a hash of the tensor's name.
    pub seed: u64,
    /// The index of the first number.
    pub first: u64,
    /// Number of numbers.
    pub count: usize,
    /// Added to every number.
    pub offset: f32,
    /// The largest distance from `offset`.
    pub scale: f32,
}

impl Pass<'_> {
    /// Launches [`Fill`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if `out` does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn fill(&mut self, fill: &Fill<'_>) -> Result<()> {
        let Fill { number, out, seed, first, count, offset, scale } = *fill;
        let kernel = KernelName::of("fill", number);
        Operands::new(self, kernel).check("out", out, &[count], number.bytes())?;
        if count == 0 {
            return Ok(());
        }
        let mut parameters =
            [out.into(), seed.into(), first.into(), (count as u64).into(), offset.into(), scale.into()];
        // SAFETY: the parameters of `fill`, the operand checked above.
        unsafe { self.launch(kernel, launch::fill(count as u64), &mut parameters) }
    }
}
