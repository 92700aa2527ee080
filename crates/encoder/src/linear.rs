//! A linear map over rows.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use polylance_kernels::{Epilogue, PackedWeights, Precision, Rows, RowsMut};

use crate::{
    error::Result,
    ops::{self, Product},
    packing::Packing,
};

/// `x Wᵀ + b`: `[rows, in]` to `[rows, out]`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, packed for our CPU kernels.
    weight: Arc<PackedWeights>,
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
    /// use candle_core::Device;
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::Linear;
    ///
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), candle_core::DType::F32, &Device::Cpu);
    /// let linear = Linear::load(3, 5, vb)?;
    /// let x = candle_core::Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu)?;
    /// assert_eq!(linear.forward(&x)?.dims(), [2, 5]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(inputs: usize, outputs: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Self::load_joined(inputs, outputs, &[vb], None)
    }

    /// Loads several maps of one input as one, with their outputs one after another, packed by `packing`, or in f32
    /// without one.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub(crate) fn load_joined(
        inputs: usize,
        outputs: usize,
        parts: &[VarBuilder<'_>],
        packing: Option<&Packing>,
    ) -> Result<Self> {
        let biases = parts.iter().map(|vb| vb.get(outputs, "bias")).collect::<candle_core::Result<Vec<_>>>()?;
        let weight = match packing {
            Some(packing) => packing.pack(inputs, outputs, parts)?,
            None => Packing::from(Precision::F32).pack(inputs, outputs, parts)?,
        };
        Ok(Self { weight: Arc::new(weight), bias: Tensor::cat(&biases, 0)? })
    }

    /// Bytes in memory of a map with these sizes, packed in `precision`.
    pub(crate) fn bytes_for(precision: Precision, inputs: usize, outputs: usize) -> u64 {
        (PackedWeights::bytes_for(precision, outputs, inputs) + outputs * size_of::<f32>()) as u64
    }

    /// `x Wᵀ + b`. The result of packed weights of fewer bits than f32 is bf16.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(between(&self.weight, false).forward(x, &self.bias)?)
    }

    /// Numbers in a row of the result.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.elem_count()
    }

    /// Multiplies with the packed weights; `epilogue` gets the bias.
    pub(crate) fn multiply(
        &self,
        x: Rows<'_>,
        epilogue: impl Fn(&[f32]) -> Epilogue<'_>,
        out: RowsMut<'_>,
    ) -> Result<()> {
        Ok(ops::with_numbers(&self.bias, |bias| ops::multiply(x, &self.weight, epilogue(bias), out))?)
    }

    /// `gelu(x Wᵀ + b)` in the erf form. The result of packed weights of fewer bits than f32 is bf16.
    pub(crate) fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(between(&self.weight, true).forward(x, &self.bias)?)
    }

    /// `residual + x Wᵀ + b`, in the format of `residual`.
    pub(crate) fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let product = Product { weights: &self.weight, gelu: false, out: DType::F32 };
        Ok(product.forward_residual(x, &self.bias, residual)?)
    }
}

/// A product whose result is read only by another product or by attention. It is rounded, because they would round it.
fn between(weights: &PackedWeights, gelu: bool) -> Product<'_> {
    let out = if weights.precision() == Precision::F32 { DType::F32 } else { DType::BF16 };
    Product { weights, gelu, out }
}
