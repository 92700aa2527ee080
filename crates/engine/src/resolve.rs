//! Resolves the settings that a pipeline leaves open, in one order: command line, pipeline file, table, model, machine.
//!
//! A [`Pipeline`] that arrives here has the overrides of the command line already. The table decides the dtype and how
//! its tokenizer reads text, the model decides limits, pooling and prompts, and the machine decides the devices and,
//! for a new table, the fastest dtype.

use std::time::Duration;

use polylance_config::Pipeline;
use polylance_encoder::ModelFiles;
use polylance_schema::{ChunkMode, Chunking, Contract, Dtype, Prompts};
use polylance_sink::Table;
use polylance_worker::{Machine, PoolOptions, SelectedDevices, Selection};

use crate::{
    EngineError, UsageError, devices,
    models::{self, CopyCheck},
};

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Default number of tokens that a chunk repeats from the previous one.
const DEFAULT_OVERLAP_TOKENS: usize = 32;

/// The options with which the pipeline's model is opened.
pub(crate) fn pool_options(pipeline: &Pipeline, selection: &Selection) -> PoolOptions {
    let model = &pipeline.model;
    PoolOptions {
        pooling: model.pooling,
        normalize: model.normalize,
        dims: model.dims,
        tokenizer_threads: model.tokenizer_threads,
        batch_tokens: model.batch_tokens,
        stall: Some(Duration::from_secs(pipeline.run.stall)),
        ..selection.options()
    }
}

/// The devices of a pipeline, and the dtype: that of the file, else that of the table, else the fastest one of the
/// devices.
///
/// # Errors
/// [`EngineError::Pool`] for devices that do not exist, and those of [`dtype_of_table`].
pub async fn select(pipeline: &Pipeline) -> Result<Selection> {
    let dtype = match pipeline.model.dtype {
        None => dtype_of_table(&pipeline.table.uri).await?,
        given => given,
    };
    let selection = devices::select(&pipeline.model.devices, dtype)?;
    Ok(selection.with_memory(pipeline.model.memory.map(|limit| limit.0)))
}

/// The dtype of a pipeline whose texts are embedded on a cluster: that of the file, else that of the table. The devices
/// are those of this machine, if they compute it; the cluster has its own.
///
/// # Errors
/// [`EngineError::Usage`] if neither has a dtype, and those of [`dtype_of_table`].
pub(crate) async fn select_for_cluster(pipeline: &Pipeline) -> Result<Selection> {
    let dtype = match pipeline.model.dtype {
        None => dtype_of_table(&pipeline.table.uri).await?,
        given => given,
    };
    let Some(dtype) = dtype else {
        let message = "`model.dtype` is \"auto\", and this machine cannot decide it for the executors of a cluster";
        let hint =
            "set `dtype` in [model] to \"bf16\" for GPUs, or to \"f32\" or \"int8\" for cores; a table keeps its dtype";
        return Err(UsageError::new(message).with_hint(hint).into());
    };
    let own = polylance_worker::resolve(&pipeline.model.devices, Some(dtype), Machine::this());
    let cores = Selection { devices: SelectedDevices::AllCores, dtype, note: None, memory: None };
    Ok(own.unwrap_or(cores).with_memory(pipeline.model.memory.map(|limit| limit.0)))
}

/// The files of a model that the user has named; they read text as when the table was made.
///
/// # Errors
/// Those of [`models::find`], and [`EngineError::Sink`].
pub async fn files_in_table(model: &str, uri: &str) -> Result<ModelFiles> {
    let files = models::find_checked(model, CopyCheck::Weights).await?;
    let Some(table) = Table::open(uri).await? else { return Ok(files) };
    Ok(match table.contract()? {
        Some(contract) => files.as_in_table(&contract.tokenizer_hash)?,
        None => files,
    })
}

/// The dtype of a table's vectors; `None` where there is no table, or one without a contract.
///
/// # Errors
/// [`EngineError::Sink`], and [`EngineError::Model`] for a dtype that this version does not know.
pub async fn dtype_of_table(uri: &str) -> Result<Option<Dtype>> {
    let Some(table) = Table::open(uri).await? else { return Ok(None) };
    Ok(table.contract()?.map(|contract| contract.dtype.parse()).transpose()?)
}

/// Everything that decides the pipeline's vectors.
pub(crate) fn contract(pipeline: &Pipeline, files: &ModelFiles, options: &PoolOptions) -> Result<Contract> {
    let defaults = files.defaults();
    let chunking = chunking(pipeline, files.name(), defaults.max_tokens)?;
    if let Some(dims) = pipeline.model.dims
        && dims > files.config().hidden_size
    {
        let max = files.config().hidden_size;
        return Err(UsageError::new(format!("`model.dims` is {dims}, and {} has {max}", files.name())).into());
    }
    let overrides = &pipeline.model.prompts;
    let prompts = Prompts {
        passage: overrides.passage.as_ref().unwrap_or(&defaults.prompts.passage).clone(),
        query: overrides.query.as_ref().unwrap_or(&defaults.prompts.query).clone(),
    };
    Ok(polylance_worker::contract(files, options, prompts, chunking)?)
}

/// How documents become rows of at most `limit` tokens, which is that of `name`.
fn chunking(pipeline: &Pipeline, name: &str, limit: usize) -> Result<Chunking> {
    let Pipeline { chunk, model, .. } = pipeline;
    for (key, tokens) in [("model.max_tokens", model.max_tokens), ("chunk.tokens", chunk.tokens)] {
        if let Some(tokens) = tokens.filter(|tokens| *tokens > limit) {
            let error = UsageError::new(format!("`{key}` is {tokens}, and {name} takes at most {limit}"));
            return Err(error.with_hint(format!("leave `{key}` out to use the model's limit")).into());
        }
    }
    let max_tokens = chunk.tokens.or(model.max_tokens).unwrap_or(limit);
    Ok(match chunk.mode {
        ChunkMode::Truncate => Chunking::Truncate { max_tokens },
        ChunkMode::Split => {
            let overlap = chunk.overlap.unwrap_or_else(|| DEFAULT_OVERLAP_TOKENS.min(max_tokens / 4));
            Chunking::Split { max_tokens, overlap, cut: chunk.cut.unwrap_or_default() }
        }
    })
}

#[cfg(test)]
mod tests {
    use polylance_config::{Source, Table};
    use polylance_schema::Cut;

    use super::*;

    fn pipeline() -> Pipeline {
        Pipeline::new(Source::new("docs"), Table::new("docs.lance"))
    }

    #[test]
    fn chunks_have_the_models_limit_by_default() {
        let whole = Chunking::Split { max_tokens: 512, overlap: 32, cut: Cut::Sentence };
        let chunking = |pipeline: &Pipeline, limit| chunking(pipeline, "e5", limit);
        assert_eq!(chunking(&pipeline(), 512).unwrap(), whole);
        let mut short = pipeline();
        short.chunk.tokens = Some(40);
        let chunks = Chunking::Split { max_tokens: 40, overlap: 10, cut: Cut::Sentence };
        assert_eq!(chunking(&short, 512).unwrap(), chunks);
        short.chunk.mode = ChunkMode::Truncate;
        assert_eq!(chunking(&short, 512).unwrap(), Chunking::Truncate { max_tokens: 40 });
    }

    #[test]
    fn chunks_over_the_models_limit_are_refused() {
        let mut long = pipeline();
        long.model.max_tokens = Some(514);
        let error = chunking(&long, "e5", 512).unwrap_err().to_string();
        assert_eq!(error, "`model.max_tokens` is 514, and e5 takes at most 512");
    }
}
