//! Logits as every head returns them.

use candle_core::Tensor;

use crate::{batch::CuSeqlens, error::Result};

/// The logits of a head: one row-major vector per sequence, or per requested position.
pub type Logits = Vec<Vec<f32>>;

/// `[rows, width]` as one vector per row.
pub(super) fn by_row(logits: &Tensor) -> Result<Logits> {
    Ok(logits.to_vec2()?)
}

/// `[total_tokens, width]` as one row-major vector per sequence.
pub(super) fn by_sequence(logits: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Logits> {
    let width = logits.dim(1)?;
    let numbers = logits.flatten_all()?.to_vec1::<f32>()?;
    Ok(cu_seqlens.ranges().map(|range| numbers[range.start * width..range.end * width].to_vec()).collect())
}
