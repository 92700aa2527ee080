//! What a pipeline leaves open, decided in one place and in one order: the command line, else the pipeline file, else
//! the table, else the model, else the machine.
//!
//! The command line has been written over the file's values when a [`Pipeline`] arrives here. The table decides the
//! dtype and how its tokenizer reads text, the model its limits, pooling and prompts, the machine its devices and, for a
//! new table, the dtype that they are fastest at.

use std::time::Duration;

use polylance_config::{CsvByte, Pipeline};
use polylance_dataflow::{CsvSpec, SourceSpec};
use polylance_encoder::ModelFiles;
use polylance_schema::{ChunkMode, Chunking, Contract, Dtype, Prompts, TextColumn};
use polylance_sink::{IndexSpec, Table};
use polylance_worker::{Machine, PoolOptions, Selection};

use crate::{EngineError, Job, Limits, UsageError, models};

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Tokens that a chunk repeats from the one before, unless the file says otherwise.
const OVERLAP: usize = 32;

/// The job of a pipeline.
pub(crate) fn job(pipeline: &Pipeline) -> Job {
    let Pipeline { source, table, index, .. } = pipeline;
    Job {
        source: SourceSpec {
            uri: source.uri.clone(),
            format: source.format,
            id: source.id.clone(),
            text: source.text.clone(),
            keep: source.keep.clone(),
            max_bytes: source.max_bytes.0,
            csv: CsvSpec {
                delimiter: source.csv.delimiter.map(CsvByte::byte),
                quote: source.csv.quote.map(CsvByte::byte),
                escape: source.csv.escape.map(CsvByte::byte),
            },
            memory: pipeline.run.memory.0,
        },
        table: table.uri.clone(),
        text: if table.text { TextColumn::Kept } else { TextColumn::LeftOut },
        commit: table.commit,
        index: IndexSpec { kind: index.kind, metric: index.metric, min_rows: index.min_rows, words: index.words },
        upkeep: table.upkeep,
        on_missing: source.removed,
        concurrency: table.concurrent,
        reread: false,
        limits: Limits { rows: pipeline.quarantine.max_rows, share: pipeline.quarantine.max_share },
        memory: usize::try_from(pipeline.run.memory.0).unwrap_or(usize::MAX),
    }
}

/// How the pipeline's model is opened on its devices.
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

/// The devices of a pipeline and their dtype: the file's, else the table's own, on whatever machine a run continues, and
/// for a new table what the devices are fastest at.
///
/// # Errors
/// [`EngineError::Pool`] for devices that are not there, and those of [`dtype_of_table`].
pub async fn select(pipeline: &Pipeline) -> Result<Selection> {
    let dtype = match pipeline.model.dtype {
        None => dtype_of_table(&pipeline.table.uri).await?,
        given => given,
    };
    select_devices(&pipeline.model.devices, dtype)
}

/// The devices of these names on this machine, and their dtype: the given one, else what the devices are fastest at.
/// Both are logged.
///
/// # Errors
/// [`EngineError::Pool`] for devices that are not there or do not fit together.
pub fn select_devices(devices: &[String], dtype: Option<Dtype>) -> Result<Selection> {
    let selection = polylance_worker::resolve(devices, dtype, Machine::this())?;
    selection.log();
    Ok(selection)
}

/// The devices and the dtype for queries of a table.
///
/// # Errors
/// As [`select_devices`], and [`EngineError::Model`] for a dtype that this version does not know.
pub fn select_for_queries(devices: &[String], contract: &Contract) -> Result<Selection> {
    let selection = polylance_worker::resolve_query(devices, contract.dtype.parse()?, Machine::this())?;
    selection.log();
    Ok(selection)
}

/// A model that the user has named, as a table was made with it when its tokenizer is the table's.
///
/// # Errors
/// [`EngineError::Model`], [`EngineError::Sink`].
pub async fn files_in_table(model: &str, uri: &str) -> Result<ModelFiles> {
    let files = models::find(model)?;
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
    let chunking = chunking(pipeline, defaults.max_tokens)?;
    if let Some(dims) = pipeline.model.dims
        && dims > files.config().hidden_size
    {
        let most = files.config().hidden_size;
        return Err(UsageError::new(format!("`model.dims` is {dims}, and {} has {most}", files.name())).into());
    }
    let set = &pipeline.model.prompts;
    let prompts = Prompts {
        passage: set.passage.as_ref().unwrap_or(&defaults.prompts.passage).clone(),
        query: set.query.as_ref().unwrap_or(&defaults.prompts.query).clone(),
    };
    Ok(polylance_worker::contract(files, options, prompts, chunking)?)
}

/// How documents become rows of at most `limit` ids.
fn chunking(pipeline: &Pipeline, limit: usize) -> Result<Chunking> {
    let Pipeline { chunk, model, .. } = pipeline;
    for (key, tokens) in [("model.max_tokens", model.max_tokens), ("chunk.tokens", chunk.tokens)] {
        if let Some(tokens) = tokens.filter(|tokens| *tokens > limit) {
            let error = UsageError::new(format!("`{key}` is {tokens}, and {} takes at most {limit}", model.id));
            return Err(error.with_hint(format!("leave `{key}` out to use the model's limit")).into());
        }
    }
    let max_tokens = chunk.tokens.or(model.max_tokens).unwrap_or(limit);
    Ok(match chunk.mode {
        ChunkMode::Truncate => Chunking::Truncate { max_tokens },
        ChunkMode::Split => {
            let overlap = chunk.overlap.unwrap_or_else(|| OVERLAP.min(max_tokens / 4));
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
    fn chunks_are_as_long_as_the_model_takes_unless_told() {
        let whole = Chunking::Split { max_tokens: 512, overlap: 32, cut: Cut::Sentence };
        assert_eq!(chunking(&pipeline(), 512).unwrap(), whole);
        let mut short = pipeline();
        short.chunk.tokens = Some(40);
        let chunks = Chunking::Split { max_tokens: 40, overlap: 10, cut: Cut::Sentence };
        assert_eq!(chunking(&short, 512).unwrap(), chunks);
        short.chunk.mode = ChunkMode::Truncate;
        assert_eq!(chunking(&short, 512).unwrap(), Chunking::Truncate { max_tokens: 40 });
    }

    #[test]
    fn chunks_longer_than_the_model_takes_are_refused() {
        let mut long = pipeline();
        long.model.max_tokens = Some(514);
        let error = chunking(&long, 512).unwrap_err().to_string();
        assert_eq!(error, "`model.max_tokens` is 514, and builtin:multilingual-e5-small takes at most 512");
    }
}
