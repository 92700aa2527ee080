//! Softmax of scaled attention scores.

use candle_core::{CpuStorage, D, DType, InplaceOp1, Layout, Result, Tensor};

use super::{RowWork, for_row_blocks, norm::sum, numbers_mut};

/// `softmax(scale · x)` over the last dimension, computed in f32 and returned in `x`'s dtype.
pub(crate) fn softmax(x: Tensor, scale: f32) -> Result<Tensor> {
    if !x.device().is_cpu() {
        let dtype = x.dtype();
        let x = (x.to_dtype(DType::F32)? * f64::from(scale))?;
        return candle_nn::ops::softmax_last_dim(&x)?.to_dtype(dtype);
    }
    let width = x.dim(D::Minus1)?;
    x.inplace_op1(&Softmax { width, scale })?;
    Ok(x)
}

struct Softmax {
    width: usize,
    scale: f32,
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        for_row_blocks(numbers_mut(x, layout)?, self.width, self);
        Ok(())
    }
}

impl RowWork for Softmax {
    #[inline(always)]
    fn run(&self, _: usize, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.width) {
            let highest = highest(row);
            for x in row.iter_mut() {
                *x = exp((*x - highest) * self.scale);
            }
            let inverse = 1.0 / sum(row, |x| x);
            for x in row.iter_mut() {
                *x *= inverse;
            }
        }
    }
}

#[inline(always)]
fn highest(row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max)
}

/// `e^x` for `x ≤ 0`, to two units in the last place; 0 below -87.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`; `e^r` by its Taylor series, `2^n` by the exponent's bits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let series = ((((r / 720.0 + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5) * r * r + r + 1.0;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{largest_difference, random},
        *,
    };

    #[test]
    fn softmax_is_candles() {
        for width in [1, 5, 100, 512] {
            let x = random((96, width), 30.0);
            let expected = candle_nn::ops::softmax(&(&x * 0.25).unwrap(), D::Minus1).unwrap();
            assert!(largest_difference(&softmax(x.copy().unwrap(), 0.25).unwrap(), &expected) < 5e-7);
        }
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 3e-7 * expected, "{x}: {} {expected}", exp(x));
        }
        assert_eq!(exp(-90.0), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
