//! The last map of a language model: from a state to one logit per token of the vocabulary.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::{
    error::{ModelError, Result},
    weights::Weights,
};

/// Numbers of the table that are converted at once: 16 MiB.
const BLOCK_NUMBERS: usize = 4 << 20;

/// Where a table of weights is kept: in its mapped file, converted at every use, or in memory, converted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightPlacement {
    /// Converted in blocks at every use: for uses with many rows, and for models that hardly fit.
    Mapped,
    /// Converted once: generation uses it for one row at a time.
    Resident,
}

/// `x Wᵀ + b` with one row of `W` per token of the vocabulary.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    table: Table,
    /// `[vocab]`.
    bias: Tensor,
}

/// The table is the largest tensor of most models; at most one copy of it exists.
#[derive(Debug, Clone)]
enum Table {
    /// In the file.
    Mapped { weights: Arc<Weights>, name: String, rows: usize, width: usize },
    /// `[vocab, hidden]`.
    Resident(Tensor),
}

impl Vocabulary {
    pub(super) fn resident(table: Tensor, bias: Tensor) -> Self {
        Self { table: Table::Resident(table), bias }
    }

    /// Leaves the table in its file.
    pub(super) fn mapped(weights: &Arc<Weights>, name: &str, (rows, width): (usize, usize), bias: Tensor) -> Self {
        Self { table: Table::Mapped { weights: Arc::clone(weights), name: name.to_owned(), rows, width }, bias }
    }

    /// `x`: `[rows, hidden]`. Returns `[rows, vocab]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let logits = match &self.table {
            Table::Resident(table) => x.matmul(&table.t()?)?,
            Table::Mapped { weights, name, rows, width } => {
                let view = weights.view(name).ok_or_else(|| ModelError::Option(format!("{name} was not loaded")))?;
                let step = (BLOCK_NUMBERS / width).max(1);
                let blocks = (0..*rows).step_by(step).map(|first| {
                    let count = step.min(rows - first);
                    let block = Tensor::from_vec(view.row_range(first, count), (count, *width), &Device::Cpu)?;
                    x.matmul(&block.to_dtype(x.dtype())?.t()?)
                });
                let logits = Tensor::cat(&blocks.collect::<candle_core::Result<Vec<_>>>()?, 1)?;
                weights.release(name);
                // Concatenation along the second dimension leaves a layout that the next operation does not read.
                logits.contiguous()?
            }
        };
        Ok(logits.broadcast_add(&self.bias)?)
    }
}

/// The table's tensor.
pub(super) fn read(weights: &Arc<Weights>, name: &str, shape: (usize, usize)) -> Result<Tensor> {
    Ok(weights.var_builder().get(shape, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ModelConfig,
        embeddings::WORD_EMBEDDINGS,
        synthetic::Checkpoint,
        weights::{WeightFiles, Weights},
    };

    #[test]
    fn mapped_table_matches_the_resident_one() {
        let folder = tempfile::tempdir().unwrap();
        // More rows than a block has.
        let shape = (BLOCK_NUMBERS / 32 + 7, 32);
        let config = ModelConfig { vocab_size: shape.0, hidden_size: shape.1, ..ModelConfig::tiny() };
        Checkpoint::new(config).write(folder.path()).unwrap();
        let files = WeightFiles::Safetensors(vec![folder.path().join("model.safetensors")]);
        let weights = Arc::new(Weights::open(&files).unwrap());
        let bias = Tensor::rand(-1f32, 1., shape.0, &Device::Cpu).unwrap();
        let x = Tensor::rand(-1f32, 1., (3, shape.1), &Device::Cpu).unwrap();

        let table = read(&weights, WORD_EMBEDDINGS, shape).unwrap();
        let expected = Vocabulary::resident(table, bias.clone()).forward(&x).unwrap();
        let found = Vocabulary::mapped(&weights, WORD_EMBEDDINGS, shape, bias).forward(&x).unwrap();
        assert_eq!(found.dims(), [3, shape.0]);
        let apart = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(apart.to_scalar::<f32>().unwrap() < 1e-5);
    }
}
