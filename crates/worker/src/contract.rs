//! The contracts of a model's vectors and of a head's annotations, known without loading the model.

use polylance_encoder::{HeadKind, ModelError, ModelFiles};
use polylance_schema::{Chunking, Contract, HeadContract, HeadInputs, Prompts, TaskSpec};

use crate::{
    options::PoolOptions,
    tasks::{fitted_prefix, head_kind},
};

/// Everything that decides the vectors of a job with this model.
///
/// # Errors
/// When the weights or the tokenizer cannot be read.
pub fn contract(
    files: &ModelFiles,
    options: &PoolOptions,
    prompts: Prompts,
    chunking: Chunking,
) -> Result<Contract, ModelError> {
    let defaults = files.defaults();
    Ok(Contract {
        model: files.name().to_owned(),
        weights_hash: files.weights_hash()?,
        tokenizer_hash: files.tokenizer_hash()?,
        pooling: options.pooling.unwrap_or(defaults.pooling),
        normalize: options.normalize.unwrap_or(defaults.normalize),
        prompts,
        chunking,
        dtype: options.dtype.unwrap_or_default().to_string(),
        dim: options.dims.unwrap_or_else(|| files.config().hidden_size),
    })
}

/// Everything that decides the annotations of a head.
///
/// # Errors
/// When the model has no labels where the task needs them, or its files cannot be read.
pub fn head_contract(
    files: &ModelFiles,
    spec: TaskSpec,
    inputs: HeadInputs,
    options: &PoolOptions,
) -> Result<HeadContract, ModelError> {
    let labels = match head_kind(&spec) {
        HeadKind::SequenceClassification | HeadKind::TokenClassification => files.head_config().labels()?.to_vec(),
        _ => Vec::new(),
    };
    Ok(HeadContract {
        model: files.name().to_owned(),
        weights_hash: files.weights_hash()?,
        tokenizer_hash: files.tokenizer_hash()?,
        spec,
        labels,
        prefix: fitted_prefix(files),
        inputs,
        dtype: options.dtype.unwrap_or_default().to_string(),
    })
}
