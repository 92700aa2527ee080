//! Pooling: from token states to one vector.

use candle_core::{DType, Tensor};
use polylance_schema::Pooling;

use crate::{batch::CuSeqlens, error::Result};

/// Pools each sequence of `hidden_states` (`[total_tokens, hidden]`) to `[sequences, hidden]`, row major, in f32.
///
/// Source: `Pooling` in sentence-transformers 6.2, over all tokens, special tokens included.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use polylance_encoder::{CuSeqlens, Pooling, pool};
///
/// let states = Tensor::new(&[[1f32, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?;
/// let vectors = pool(&states, &CuSeqlens::new(vec![0, 2, 3], 3)?, Pooling::Mean)?;
/// assert_eq!(vectors, [2., 3., 5., 6.]);
/// # Ok::<(), polylance_encoder::ModelError>(())
/// ```
///
/// # Errors
/// When the states cannot be copied to the host.
pub fn pool(hidden_states: &Tensor, cu_seqlens: &CuSeqlens, pooling: Pooling) -> Result<Vec<f32>> {
    let width = hidden_states.dim(1)?;
    let states = hidden_states.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let mut vectors = Vec::with_capacity(cu_seqlens.sequences() * width);
    for range in cu_seqlens.ranges() {
        let rows = states[range.start * width..range.end * width].chunks_exact(width);
        vectors.extend(one(rows, range.len(), width, pooling));
    }
    Ok(vectors)
}

fn one<'a>(mut rows: impl Iterator<Item = &'a [f32]>, count: usize, width: usize, pooling: Pooling) -> Vec<f32> {
    match pooling {
        Pooling::Cls => rows.next().unwrap_or_default().to_vec(),
        Pooling::LastToken => rows.last().unwrap_or_default().to_vec(),
        Pooling::Max => rows.fold(vec![f32::NEG_INFINITY; width], |mut most, row| {
            most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x));
            most
        }),
        Pooling::Mean => sum(rows.map(|row| (row, 1.0)), width, count as f32),
        Pooling::MeanSqrtLen => sum(rows.map(|row| (row, 1.0)), width, (count as f32).sqrt()),
        Pooling::WeightedMean => {
            let weights = (1..=count).map(|position| position as f32);
            sum(rows.zip(weights), width, (count * (count + 1) / 2) as f32)
        }
    }
}

fn sum<'a>(rows: impl Iterator<Item = (&'a [f32], f32)>, width: usize, divisor: f32) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for (row, weight) in rows {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
    for sum in &mut sum {
        *sum /= divisor;
    }
    sum
}

/// Scales a vector to length one; the zero vector is unchanged. Source: `torch.nn.functional.normalize`.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    for x in vector {
        *x /= length;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_mode_pools_as_named() {
        let states = Tensor::new(&[[1f32, 6.], [2., 4.], [6., 2.]], &Device::Cpu).unwrap();
        let borders = CuSeqlens::new(vec![0, 3], 3).unwrap();
        for (pooling, expected) in [
            (Pooling::Cls, [1., 6.]),
            (Pooling::LastToken, [6., 2.]),
            (Pooling::Max, [6., 6.]),
            (Pooling::Mean, [3., 4.]),
            (Pooling::MeanSqrtLen, [9. / 3f32.sqrt(), 12. / 3f32.sqrt()]),
            (Pooling::WeightedMean, [23. / 6., 20. / 6.]),
        ] {
            assert_eq!(pool(&states, &borders, pooling).unwrap(), expected, "{pooling:?}");
        }
    }
}
