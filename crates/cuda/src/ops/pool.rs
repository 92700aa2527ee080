//! Pooling and selection of rows: from token states to results.

use super::{Operands, WORD};
use crate::{error::Result, kernel::KernelName, launch, memory::DeviceSlice, number::NumberType, pass::Pass};

/// How a sequence's states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// The first token's.
    Cls,
    /// Their mean.
    Mean,
    /// The largest number of each column.
    Max,
    /// Their sum, divided by the square root of their number.
    MeanSqrtLen,
    /// Their mean, weighted by position from 1 on.
    WeightedMean,
    /// The last token's.
    LastToken,
}

/// One vector for each sequence.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// f32 `[tokens, hidden]`.
    pub states: DeviceSlice<'a>,
    /// The start of each sequence, and the end of the last: u32 `[sequences + 1]`, the last at most `tokens`.
    pub cu_seqlens: DeviceSlice<'a>,
    /// f32 `[sequences, dim]`, written.
    pub out: DeviceSlice<'a>,
    /// Rows of `states`.
    pub tokens: usize,
    /// Rows of `out`.
    pub sequences: usize,
    /// Columns of `states`: a multiple of 8, at most 8192.
    pub hidden: usize,
    /// The number of leading columns to keep.
    pub dim: usize,
    /// How the states are pooled.
    pub mode: PoolMode,
    /// Whether the result is divided by its length.
    pub normalize: bool,
}

/// Rows of the states, rounded: `x[i] = states[rows[i]]`.
#[derive(Debug, Clone, Copy)]
pub struct GatherRows<'a> {
    /// The type of `x`.
    pub number: NumberType,
    /// f32 `[any, hidden]`. The caller has checked the row numbers against its rows.
    pub states: DeviceSlice<'a>,
    /// u32 `[count]`.
    pub rows: DeviceSlice<'a>,
    /// `[count, hidden]`, written.
    pub x: DeviceSlice<'a>,
    /// Rows of `x`.
    pub count: usize,
    /// Columns: a multiple of 8, at most 8192.
    pub hidden: usize,
}

/// Rows of the states as they are: `out[i] = states[rows[i]]`.
#[derive(Debug, Clone, Copy)]
pub struct GatherRowsF32<'a> {
    /// f32 `[any, hidden]`. The caller has checked the row numbers against its rows.
    pub states: DeviceSlice<'a>,
    /// u32 `[count]`.
    pub rows: DeviceSlice<'a>,
    /// f32 `[count, hidden]`, written.
    pub out: DeviceSlice<'a>,
    /// Rows of `out`.
    pub count: usize,
    /// Columns: a multiple of 8, at most 8192.
    pub hidden: usize,
}

impl Pass<'_> {
    /// Launches [`Pool`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn pool(&mut self, pool: &Pool<'_>) -> Result<()> {
        let Pool { states, cu_seqlens, out, tokens, sequences, hidden, dim, mode, normalize } = *pool;
        let kernel = KernelName::new("pool");
        let operands = Operands::new(self, kernel);
        let columns = operands.hidden(hidden)?;
        operands
            .require(dim > 0 && dim <= hidden, format_args!("dim of {dim} is not between 1 and hidden of {hidden}"))?;
        let count = operands.size("sequences", sequences)?;
        operands.check("states", states, &[tokens, hidden], WORD)?;
        operands.check("cu_seqlens", cu_seqlens, &[sequences.saturating_add(1)], WORD)?;
        operands.check("out", out, &[sequences, dim], WORD)?;
        if sequences == 0 {
            return Ok(());
        }
        let mode = match mode {
            PoolMode::Cls => 0,
            PoolMode::Mean => 1,
            PoolMode::Max => 2,
            PoolMode::MeanSqrtLen => 3,
            PoolMode::WeightedMean => 4,
            PoolMode::LastToken => 5,
        };
        let mut parameters = [
            states.into(),
            cu_seqlens.into(),
            out.into(),
            columns.into(),
            (dim as i32).into(),
            mode.into(),
            i32::from(normalize).into(),
        ];
        // SAFETY: the parameters of `pool`, each operand checked above.
        unsafe { self.launch(kernel, launch::pool(count as u32, dim as u32), &mut parameters) }
    }

    /// Launches [`GatherRows`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn gather_rows(&mut self, gather: &GatherRows<'_>) -> Result<()> {
        let GatherRows { number, states, rows, x, count, hidden } = *gather;
        self.gather(KernelName::of("gather_rows", number), states, rows, x, [count, hidden], number.bytes())
    }

    /// Launches [`GatherRowsF32`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn gather_rows_f32(&mut self, gather: &GatherRowsF32<'_>) -> Result<()> {
        let GatherRowsF32 { states, rows, out, count, hidden } = *gather;
        self.gather(KernelName::new("gather_rows_out_f32"), states, rows, out, [count, hidden], WORD)
    }

    fn gather(
        &mut self,
        kernel: KernelName,
        states: DeviceSlice<'_>,
        rows: DeviceSlice<'_>,
        out: DeviceSlice<'_>,
        [count, hidden]: [usize; 2],
        out_bytes: usize,
    ) -> Result<()> {
        let operands = Operands::new(self, kernel);
        let (row_count, columns) = (operands.size("count", count)?, operands.hidden(hidden)?);
        operands.check("states", states, &[1, hidden], WORD)?;
        operands.check("rows", rows, &[count], WORD)?;
        operands.check("out", out, &[count, hidden], out_bytes)?;
        if count == 0 {
            return Ok(());
        }
        let mut parameters = [states.into(), rows.into(), out.into(), row_count.into(), columns.into()];
        // SAFETY: the parameters of the `gather_rows` kernels, each operand checked above.
        unsafe { self.launch(kernel, launch::warp_per_row(row_count as u32), &mut parameters) }
    }
}
