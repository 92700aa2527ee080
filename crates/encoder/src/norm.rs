//! Layer norm.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::{error::Result, ops};

/// Layer norm over rows: `[rows, width]` to `[rows, width]`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Loads `weight` and `bias` (`[width]`).
    ///
    /// # Errors
    /// When one is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::LayerNorm;
    ///
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let norm = LayerNorm::load(4, 1e-5, vb)?;
    /// assert_eq!(norm.forward(&Tensor::ones((2, 4), DType::F32, &Device::Cpu)?)?.dims(), [2, 4]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(width: usize, eps: f64, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get(width, "weight")?, bias: vb.get(width, "bias")?, eps })
    }

    /// Bytes in memory of a norm of this width.
    pub(crate) fn bytes_for(width: usize) -> u64 {
        (2 * width * size_of::<f32>()) as u64
    }

    /// Calls `work` with the CPU kernel of this norm.
    pub(crate) fn with<T>(&self, work: impl FnOnce(polylance_kernels::LayerNorm<'_>) -> T) -> Result<T> {
        let norm = |weight: &[f32]| {
            let norm = |bias: &[f32]| work(polylance_kernels::LayerNorm::new(weight, bias, self.eps as f32));
            ops::with_numbers(&self.bias, norm)
        };
        Ok(ops::with_numbers(&self.weight, norm)??)
    }

    /// Normalizes each row.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}
