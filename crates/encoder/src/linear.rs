//! A linear map over rows.

use candle_core::Tensor;
use candle_nn::VarBuilder;

use crate::{error::Result, ops};

/// `x Wᵀ + b`: `[rows, in]` to `[rows, out]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, as it is stored.
    weight: Tensor,
    /// `[out]`.
    bias: Tensor,
}

impl Linear {
    /// Loads `weight` (`[outputs, inputs]`) and `bias` (`[outputs]`).
    ///
    /// # Errors
    /// When one is missing or of another shape.
    ///
    /// ```
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{Device, Linear};
    ///
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), candle_core::DType::F32, &Device::Cpu);
    /// let linear = Linear::load(3, 5, vb)?;
    /// let x = candle_core::Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu)?;
    /// assert_eq!(linear.forward(&x)?.dims(), [2, 5]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(inputs: usize, outputs: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get((outputs, inputs), "weight")?, bias: vb.get(outputs, "bias")? })
    }

    /// Several maps of one input as one: outputs one after another.
    pub(crate) fn fused(parts: &[Self]) -> Result<Self> {
        let weights: Vec<_> = parts.iter().map(|part| &part.weight).collect();
        let biases: Vec<_> = parts.iter().map(|part| &part.bias).collect();
        Ok(Self { weight: Tensor::cat(&weights, 0)?, bias: Tensor::cat(&biases, 0)? })
    }

    /// `x Wᵀ + b`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::bias(self.product(x)?, &self.bias)?)
    }

    /// `gelu(x Wᵀ + b)` in the erf form.
    pub(crate) fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::bias_gelu(self.product(x)?, &self.bias)?)
    }

    /// `residual + x Wᵀ + b`.
    pub(crate) fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok(ops::bias_residual(self.product(x)?, &self.bias, residual)?)
    }

    fn product(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight.t()?)?)
    }
}
