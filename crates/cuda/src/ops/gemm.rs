//! Matrix products: `out = x wᵀ + bias`, both operands with their inner dimension contiguous.

use super::{Operands, WORD};
use crate::{
    error::Result,
    kernel::{KernelName, Parameter},
    launch::{self, COLUMN_STEP, F32_COLUMN_STEP, HOPPER_BOXES, MAX_GRID_Y, padded_rows},
    memory::DeviceSlice,
    number::NumberType,
    pass::Pass,
    tensor_map::Matrix,
};

/// The step after the sum of a matrix product, before it is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing: `out` has the type of the operands.
    None,
    /// GELU in its erf form: `out` has the type of the operands.
    Gelu,
    /// Nothing: `out` is f32.
    F32,
}

/// A matrix product. `x` has room for [`padded_rows`]`(m)` rows: those after `m` may be read. `out` has as many if the
/// Hopper kernel writes it (compute capability 9.0, 16-bit, unless [`Epilogue::F32`]): those after `m` may be
/// overwritten. Otherwise `m` rows of `out` are enough.
///
/// Which kernel computes it depends on `n`, `k` and the device, never on `m`: a row's bits are the same in any batch.
#[derive(Debug, Clone, Copy)]
pub struct Gemm<'a> {
    /// The type of `x` and `w`.
    pub number: NumberType,
    /// `[m, k]`, padded.
    pub x: DeviceSlice<'a>,
    /// `[n, k]`.
    pub w: DeviceSlice<'a>,
    /// f32 `[n]`, added.
    pub bias: Option<DeviceSlice<'a>>,
    /// `[m, n]`, written; padded for the Hopper kernel.
    pub out: DeviceSlice<'a>,
    /// The step after the sum.
    pub epilogue: Epilogue,
    /// Rows of `x`.
    pub m: usize,
    /// Rows of `w`: a multiple of 8, any number where `out` is f32.
    pub n: usize,
    /// Columns of both: a multiple of 8, of 4 in f32.
    pub k: usize,
}

/// The activation of a [`Linear`] map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    None,
    /// GELU in its erf form.
    Gelu,
    /// The hyperbolic tangent.
    Tanh,
}

/// A linear map with few rows or few outputs, in f32: heads and poolers. `out = activation(x wᵀ + bias)`.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// The type of `w`.
    pub number: NumberType,
    /// f32 `[m, k]`.
    pub x: DeviceSlice<'a>,
    /// `[n, k]`.
    pub w: DeviceSlice<'a>,
    /// f32 `[n]`, added.
    pub bias: Option<DeviceSlice<'a>>,
    /// f32 `[m, n]`, written.
    pub out: DeviceSlice<'a>,
    /// The step after the sum.
    pub activation: Activation,
    /// Rows of `x`.
    pub m: usize,
    /// Rows of `w`.
    pub n: usize,
    /// Columns of both: a multiple of 8.
    pub k: usize,
}

impl Pass<'_> {
    /// Launches [`Gemm`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn gemm(&mut self, gemm: &Gemm<'_>) -> Result<()> {
        let Gemm { number, x, w, bias, out, epilogue, m, n, k } = *gemm;
        let hopper = self.gpu().uses_hopper_gemm() && number != NumberType::F32 && epilogue != Epilogue::F32;
        let family = match (epilogue, hopper) {
            (Epilogue::None, false) => "gemm",
            (Epilogue::Gelu, false) => "gemm_gelu",
            (Epilogue::F32, false) if number == NumberType::F32 => "gemm",
            (Epilogue::F32, _) => "gemm_out_f32",
            (Epilogue::None, true) => "gemm_sm90",
            (Epilogue::Gelu, true) => "gemm_gelu_sm90",
        };
        let kernel = KernelName::of(family, number);
        let operands = Operands::new(self, kernel);
        let out_bytes = if epilogue == Epilogue::F32 { WORD } else { number.bytes() };
        let sizes = [operands.size("m", m)?, operands.size("n", n)?, operands.size("k", k)?];
        // Rows that are written or read 16 bytes at a time.
        let (n_step, k_step) = match (number, epilogue) {
            (NumberType::F32, _) => (1, F32_COLUMN_STEP),
            (_, Epilogue::F32) => (1, COLUMN_STEP),
            _ => (COLUMN_STEP, COLUMN_STEP),
        };
        operands.require(
            n > 0 && k > 0 && n.is_multiple_of(n_step) && k.is_multiple_of(k_step),
            format_args!("n of {n} and k of {k} are no multiples of {n_step} and {k_step}"),
        )?;
        operands.check("x", x, &[padded_rows(m), k], number.bytes())?;
        operands.check("w", w, &[n, k], number.bytes())?;
        operands.check_optional("bias", bias, &[n], WORD)?;
        // Only the Hopper kernel stores boxes of rows.
        let out_rows = if hopper { padded_rows(m) } else { m };
        operands.check("out", out, &[out_rows, n], out_bytes)?;
        let launch = launch::gemm(number, m as u32, n as u32);
        operands.require(launch.grid[1] <= MAX_GRID_Y, format_args!("{m} by {n} has too many tiles"))?;
        if m == 0 {
            return Ok(());
        }
        let [m_parameter, n_parameter, k_parameter] = sizes.map(Parameter::from);
        if !hopper {
            let mut parameters = [x.into(), w.into(), bias.into(), out.into(), m_parameter, n_parameter, k_parameter];
            // SAFETY: the parameters of the `gemm` kernels, each operand checked above.
            return unsafe { self.launch(kernel, launch, &mut parameters) };
        }
        let map = |slice: DeviceSlice<'_>, [rows, columns]: [usize; 2], copied_box| {
            let matrix = Matrix { start: slice.address(), number, rows, columns, copied_box };
            self.gpu().tensor_map(matrix).map(Parameter::Map)
        };
        self.gpu().enter()?;
        // Padded rows exist in memory, and padding bounds the number of different maps.
        let mut parameters = [
            map(x, [padded_rows(m), k], HOPPER_BOXES.x)?,
            map(w, [n, k], HOPPER_BOXES.w)?,
            map(out, [padded_rows(m), n], HOPPER_BOXES.out)?,
            bias.into(),
            m_parameter,
            n_parameter,
            k_parameter,
        ];
        let launch = launch::hopper_gemm(self.gpu().info().multiprocessors, m as u32, n as u32);
        // SAFETY: the parameters of the `gemm_sm90` kernels, each operand checked above.
        unsafe { self.launch(kernel, launch, &mut parameters) }
    }

    /// Launches [`Linear`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn linear(&mut self, linear: &Linear<'_>) -> Result<()> {
        let Linear { number, x, w, bias, out, activation, m, n, k } = *linear;
        let kernel = KernelName::of("linear", number);
        let operands = Operands::new(self, kernel);
        let (rows, columns) = (operands.size("m", m)?, operands.size("n", n)?);
        let inner = operands.size("k", k)?;
        let whole = k > 0 && k.is_multiple_of(COLUMN_STEP);
        operands.require(whole, format_args!("k of {k} is no multiple of {COLUMN_STEP}"))?;
        operands.check("x", x, &[m, k], WORD)?;
        operands.check("w", w, &[n, k], number.bytes())?;
        operands.check_optional("bias", bias, &[n], WORD)?;
        operands.check("out", out, &[m, n], WORD)?;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let activation = match activation {
            Activation::None => 0,
            Activation::Gelu => 1,
            Activation::Tanh => 2,
        };
        let mut parameters =
            [x.into(), w.into(), bias.into(), out.into(), rows.into(), columns.into(), inner.into(), activation.into()];
        // SAFETY: the parameters of `linear`, each operand checked above.
        unsafe { self.launch(kernel, launch::linear(rows as u32, columns as u32), &mut parameters) }
    }
}
