//! Steps that follow a matrix product: bias, GELU, residual.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor};

use super::{RowWork, for_row_blocks, numbers, numbers_mut};

/// `x + bias`, `[rows, width]` and `[width]`.
pub(crate) fn bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.broadcast_add(bias);
    }
    x.inplace_op2(bias, &Bias)?;
    Ok(x)
}

/// `gelu(x + bias)` in the erf form, `[rows, width]` and `[width]`.
pub(crate) fn bias_gelu(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.broadcast_add(bias)?.gelu_erf();
    }
    x.inplace_op2(bias, &BiasGelu)?;
    Ok(x)
}

/// `residual + (x + bias)`, `[rows, width]` twice and `[width]`.
pub(crate) fn bias_residual(x: Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return residual + x.broadcast_add(bias)?;
    }
    x.inplace_op3(bias, residual, &BiasResidual)?;
    Ok(x)
}

struct Bias;

impl InplaceOp2 for Bias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, b: &CpuStorage, b_layout: &Layout) -> Result<()> {
        let bias = numbers(b, b_layout)?;
        for_row_blocks(numbers_mut(x, x_layout)?, bias.len(), &AddBias(bias));
        Ok(())
    }
}

struct AddBias<'a>(&'a [f32]);

impl RowWork for AddBias<'_> {
    #[inline(always)]
    fn run(&self, _: usize, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.0.len()) {
            for (x, bias) in row.iter_mut().zip(self.0) {
                *x += bias;
            }
        }
    }
}

struct BiasGelu;

impl InplaceOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, b: &CpuStorage, b_layout: &Layout) -> Result<()> {
        let bias = numbers(b, b_layout)?;
        for_row_blocks(numbers_mut(x, x_layout)?, bias.len(), &AddBiasGelu(bias));
        Ok(())
    }
}

struct AddBiasGelu<'a>(&'a [f32]);

impl RowWork for AddBiasGelu<'_> {
    #[inline(always)]
    fn run(&self, _: usize, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.0.len()) {
            for (x, bias) in row.iter_mut().zip(self.0) {
                *x = gelu(*x + bias);
            }
        }
    }
}

struct BiasResidual;

impl InplaceOp3 for BiasResidual {
    fn name(&self) -> &'static str {
        "bias-residual"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
        r: &CpuStorage,
        r_layout: &Layout,
    ) -> Result<()> {
        let (bias, residual) = (numbers(b, b_layout)?, numbers(r, r_layout)?);
        for_row_blocks(numbers_mut(x, x_layout)?, bias.len(), &AddBiasResidual { bias, residual });
        Ok(())
    }
}

struct AddBiasResidual<'a> {
    bias: &'a [f32],
    residual: &'a [f32],
}

impl RowWork for AddBiasResidual<'_> {
    #[inline(always)]
    fn run(&self, first: usize, rows: &mut [f32]) {
        let width = self.bias.len();
        let residual = &self.residual[first * width..first * width + rows.len()];
        for (row, residual) in rows.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
            for ((x, bias), residual) in row.iter_mut().zip(self.bias).zip(residual) {
                *x = residual + (*x + bias);
            }
        }
    }
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `erf` as `x P(x²) / Q(x²)`, fitted to a relative error of 1.8e-8 on `[0, 3.9]`, where `erf` rounds to 1.
///
/// Made of additions and multiplications alone, so that the compiler turns a loop of it into vector code.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const P: [f32; 6] = [
        std::f32::consts::FRAC_2_SQRT_PI,
        0.189_650_82,
        0.052_666_012,
        0.003_737_679,
        0.000_285_050_45,
        2.066_633_2e-6,
    ];
    const Q: [f32; 6] = [1.0, 0.501_406_43, 0.113_812_39, 0.014_912_93, 0.001_157_221, 3.827_108e-5];
    // Not `clamp`: it keeps NaN, which must stay visible, but compiles to a branch.
    let x = if x > 3.9 { 3.9 } else { x };
    let x = if x < -3.9 { -3.9 } else { x };
    let z = x * x;
    let p = ((((P[5] * z + P[4]) * z + P[3]) * z + P[2]) * z + P[1]) * z + P[0];
    let q = ((((Q[5] * z + Q[4]) * z + Q[3]) * z + Q[2]) * z + Q[1]) * z + Q[0];
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{largest_difference, random},
        *,
    };

    #[test]
    fn bias_gelu_is_the_erf_form() {
        let (x, b) = (random((67, 100), 6.0), random((1, 100), 1.0).squeeze(0).unwrap());
        let expected = x.broadcast_add(&b).unwrap().gelu_erf().unwrap();
        let found = bias_gelu(x.copy().unwrap(), &b).unwrap();
        assert!(largest_difference(&found, &expected) < 1e-6, "{}", largest_difference(&found, &expected));
    }

    #[test]
    fn gelu_of_not_a_number_is_not_a_number() {
        assert!(gelu(f32::NAN).is_nan());
        assert!((gelu(30.0) - 30.0).abs() < 1e-5 && gelu(-30.0).abs() < 1e-5);
    }

    #[test]
    fn bias_and_residual_are_added() {
        let (x, r) = (random((300, 70), 2.0), random((300, 70), 3.0));
        let b = random((1, 70), 1.0).squeeze(0).unwrap();
        let sum = x.broadcast_add(&b).unwrap();
        assert_eq!(largest_difference(&bias(x.copy().unwrap(), &b).unwrap(), &sum), 0.0);
        let found = bias_residual(x.copy().unwrap(), &b, &r).unwrap();
        assert_eq!(largest_difference(&found, &(&r + &sum).unwrap()), 0.0);
    }
}
