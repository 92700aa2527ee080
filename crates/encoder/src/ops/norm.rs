//! Layer norm.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use polylance_kernels::{Isa, LayerNorm, NormOutput};
use rayon::prelude::*;

use super::numbers;

/// `(x − mean) / sqrt(variance + eps) · weight + bias` for each row. `x` is `[rows, width]`, `weight` and `bias` are
/// `[width]`.
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let eps = eps as f32;
    x.apply_op3_no_bwd(weight, bias, &Norm { eps })
}

/// The numbers of one thread's rows, where `len` numbers are shared.
pub(crate) fn share_rows(len: usize, width: usize) -> usize {
    (len / width).div_ceil(rayon::current_num_threads()).max(1) * width
}

struct Norm {
    eps: f32,
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, norm) = (numbers(x, x_layout)?, LayerNorm::new(numbers(w, w_layout)?, numbers(b, b_layout)?, self.eps));
        let mut out = vec![0.0; x.len()];
        let share = share_rows(x.len(), norm.width());
        let parts = out.par_chunks_mut(share).zip(x.par_chunks(share));
        parts.for_each(|(out, x)| norm.forward(Isa::detect(), x, NormOutput::F32(out)));
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn layer_norm_matches_candle() {
        for width in [16, 37, 384] {
            let random = |shape: &[usize]| Tensor::randn(0_f32, 2.0, shape, &Device::Cpu).unwrap();
            let (x, w, b) = (random(&[90, width]), random(&[width]), random(&[width]));
            let expected = candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-5).unwrap();
            let found = layer_norm(&x, &w, &b, 1e-5).unwrap();
            let difference = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-5);
        }
    }
}
