//! A linear map over rows.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Storage, Tensor, bail};
use candle_nn::VarBuilder;
use polylance_kernels::{Epilogue, PackedWeights, Precision, Rows, RowsMut};

use crate::{
    error::Result,
    ops::{self, Product},
};

/// `x Wᵀ + b`: `[rows, in]` to `[rows, out]`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    /// `[out]`.
    bias: Tensor,
}

/// `[out, in]`.
#[derive(Debug, Clone)]
enum Weight {
    /// On a device with its own products.
    Tensor(Tensor),
    /// For the CPU's kernels.
    Packed(Arc<PackedWeights>),
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
        let precision = vb.device().is_cpu().then_some(Precision::F32);
        Self::load_joined(inputs, outputs, &[vb], precision)
    }

    /// Loads several maps of one input as one, outputs one after another; packed for the CPU's kernels in `precision`
    /// where it is given.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub(crate) fn load_joined(
        inputs: usize,
        outputs: usize,
        parts: &[VarBuilder<'_>],
        precision: Option<Precision>,
    ) -> Result<Self> {
        let weights =
            parts.iter().map(|vb| vb.get((outputs, inputs), "weight")).collect::<candle_core::Result<Vec<_>>>()?;
        let biases = parts.iter().map(|vb| vb.get(outputs, "bias")).collect::<candle_core::Result<Vec<_>>>()?;
        let weight = match precision {
            Some(precision) => Weight::Packed(Arc::new(pack(precision, inputs, outputs, &weights)?)),
            None => Weight::Tensor(Tensor::cat(&weights, 0)?),
        };
        Ok(Self { weight, bias: Tensor::cat(&biases, 0)? })
    }

    /// `x Wᵀ + b`. Packed weights of fewer bits than f32 give bf16.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.weight {
            Weight::Packed(weights) => between(weights, false).forward(x, &self.bias)?,
            Weight::Tensor(weight) => x.matmul(&weight.t()?)?.broadcast_add(&self.bias)?,
        })
    }

    /// Numbers in a row of the result.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.elem_count()
    }

    /// Multiplies packed weights; `epilogue` takes the bias.
    pub(crate) fn multiply(
        &self,
        x: Rows<'_>,
        epilogue: impl Fn(&[f32]) -> Epilogue<'_>,
        out: RowsMut<'_>,
    ) -> Result<()> {
        let Weight::Packed(weights) = &self.weight else {
            return Err(candle_core::Error::Msg("expected packed weights".to_owned()).into());
        };
        Ok(ops::with_numbers(&self.bias, |bias| ops::multiply(x, weights, epilogue(bias), out))?)
    }

    /// `gelu(x Wᵀ + b)` in the erf form. Packed weights of fewer bits than f32 give bf16.
    pub(crate) fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.weight {
            Weight::Packed(weights) => between(weights, true).forward(x, &self.bias)?,
            Weight::Tensor(weight) => x.matmul(&weight.t()?)?.broadcast_add(&self.bias)?.gelu_erf()?,
        })
    }

    /// `residual + x Wᵀ + b`, in the format of `residual`.
    pub(crate) fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok(match &self.weight {
            Weight::Packed(weights) => {
                let product = Product { weights, gelu: false, out: DType::F32 };
                product.forward_residual(x, &self.bias, residual)?
            }
            Weight::Tensor(weight) => (residual + x.matmul(&weight.t()?)?.broadcast_add(&self.bias)?)?,
        })
    }
}

/// A product whose result is read by another one alone, or by attention: rounded, since that rounds it anyway.
fn between(weights: &PackedWeights, gelu: bool) -> Product<'_> {
    let out = if weights.precision() == Precision::F32 { DType::F32 } else { DType::BF16 };
    Product { weights, gelu, out }
}

/// Packs matrices in f32, each `[outputs, inputs]`, one below the other.
fn pack(precision: Precision, inputs: usize, outputs: usize, parts: &[Tensor]) -> candle_core::Result<PackedWeights> {
    let stored: Vec<_> = parts.iter().map(Tensor::storage_and_layout).collect();
    let numbers = stored.iter().map(|(storage, layout)| match (&**storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("expected weights in f32 on the CPU"),
    });
    let numbers = numbers.collect::<candle_core::Result<Vec<_>>>()?;
    Ok(PackedWeights::new(precision, parts.len() * outputs, inputs, |row, to| {
        to.copy_from_slice(&numbers[row / outputs][row % outputs * inputs..][..inputs]);
    }))
}
