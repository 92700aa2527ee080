//! From a pipeline to a job, and the job's run with all that the user sees of it.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;
use indicatif::HumanBytes;
use polylance_backend::BackendHandle;
use polylance_config::{self as config, ChunkMode, Pipeline};
use polylance_dataflow::{CsvSpec, Format, RowSet, SourceSpec};
use polylance_encoder::{Dtype, ModelFiles};
use polylance_schema::{Chunking, Contract, Prompts, TextColumn};
use polylance_sink::{CommitPolicy, IndexKind, IndexSpec, Metric, Retention, Table, UpkeepPolicy, Upkept};
use polylance_worker::{PoolOptions, Selection};

use crate::{
    advice::advise,
    annotate::{self, Column, Columns},
    backend::LazyPool,
    error::{Result, UsageError},
    exit::ExitStatus,
    interrupt::{self, Interrupted, Stopping},
    job::{Job, Limits, OpenJob, RunSummary},
    known_models, model_args,
    printer::{Printer, counted, thousands},
    progress,
};

/// Ids that a chunk repeats from the one before, unless the file says otherwise.
const OVERLAP: usize = 32;

/// What `run` and `embed` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// End with one JSON object on stdout, and one more for each column of a head
    #[arg(long)]
    json: bool,
    /// How progress is shown on stderr
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "MODE")]
    progress: ProgressMode,
    /// Read the source even if no file of it changed since a run finished it
    #[arg(long)]
    reread: bool,
    /// Print the plan and stop
    #[arg(long, conflicts_with = "json")]
    explain: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// A line now and then
    Plain,
    /// Not at all
    None,
}

/// Runs a pipeline without a word but its progress, and says how many rows went to the quarantine.
pub(crate) async fn embed_quietly(pipeline: &Pipeline, progress: ProgressMode) -> Result<u64> {
    let selection = select(pipeline).await?;
    let open = job(pipeline).open().await?;
    let files = files_in_table(&pipeline.model.id, &pipeline.table.uri).await?;
    let options = pool_options(pipeline, &selection);
    let contract = contract(pipeline, &files, &options)?;
    let pool = Arc::new(LazyPool::new(files, Vec::new(), options, &selection.devices));
    let planned = open.plan(&BackendHandle(Arc::<LazyPool>::clone(&pool)), contract, Vec::new()).await?;
    let mut observer = progress::observer(progress);
    let result = planned.run(observer.as_mut()).await;
    drop(observer);
    match (result, pool.failure()) {
        (Ok(summary), _) => Ok(summary.rows_quarantined),
        (Err(_), Some(failure)) => Err(failure.into()),
        (Err(error), None) => Err(error.into()),
    }
}

/// Runs a pipeline: configuration, source, table and contract are checked before the model is loaded.
pub(crate) async fn run(
    pipeline: &Pipeline,
    output: &OutputArgs,
    stopping: &Stopping,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let job = Job { reread: output.reread, ..job(pipeline) };
    run_open(job.open().await?, pipeline, output, stopping, printer).await
}

/// Runs a pipeline over some rows of its source.
pub(crate) async fn run_only(
    rows: RowSet,
    pipeline: &Pipeline,
    output: &OutputArgs,
    stopping: &Stopping,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    run_open(job(pipeline).open().await?.only(rows), pipeline, output, stopping, printer).await
}

async fn run_open(
    open: OpenJob,
    pipeline: &Pipeline,
    output: &OutputArgs,
    stopping: &Stopping,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let selection = select(pipeline).await?;
    let files = files_in_table(&pipeline.model.id, &pipeline.table.uri).await?;
    let options = pool_options(pipeline, &selection);
    let contract = contract(pipeline, &files, &options)?;
    let columns = Columns::of(pipeline, &selection);
    let mut heads = annotate::prepare(&columns).await?;
    annotate::share(&mut heads, &files, &contract).await?;
    let (of_pass, fields): (Vec<_>, Vec<_>) = heads.iter().filter_map(Column::of_pass).unzip();
    let pool = Arc::new(LazyPool::new(files, of_pass, options, &selection.devices));
    let planned = open.plan(&BackendHandle(Arc::<LazyPool>::clone(&pool)), contract, fields.clone()).await?;
    if output.explain {
        printer.line(planned.to_string().trim_end())?;
        return Ok(ExitStatus::Done);
    }
    if !heads.is_empty() && output.progress != ProgressMode::None {
        printer.message(annotate::cost(&heads));
    }
    for (field, declared) in fields.iter().zip(planned.declare().await?) {
        annotate::warn_replaced(field.name(), declared, printer);
    }
    stopping.set(planned.stop(), Duration::from_secs(pipeline.run.grace), interrupt::FINISHES);
    let mut observer = progress::observer(output.progress);
    let result = planned.run(observer.as_mut()).await;
    stopping.unset();
    drop(observer);
    let summary = match (result, pool.failure()) {
        (Ok(summary), _) => summary,
        (Err(_), Some(failure)) => return Err(failure.into()),
        (Err(error), None) => return Err(error.into()),
    };
    report(&summary, output, printer)?;
    if summary.stopped {
        printer.message(remaining(&summary));
        return Err(Interrupted { resumable: true }.into());
    }
    // What the embedding found is on screen before the heads begin.
    printer.flush()?;
    let annotated = annotate::fill(heads, &columns, output.progress, output.json, stopping, printer).await?;
    Ok(if summary.rows_quarantined > 0 { ExitStatus::Quarantined } else { annotated })
}

fn report(summary: &RunSummary, output: &OutputArgs, printer: &mut Printer) -> Result<()> {
    if output.json {
        printer.json(summary)?;
    } else {
        let n = |number| thousands(number);
        let RunSummary { rows_read, rows_skipped, rows_written, chunks_written, tokens, .. } = *summary;
        let rows = if summary.source_unchanged {
            format!("{} already there: no file of the source changed", n(rows_skipped))
        } else {
            format!("{} read, {} already there, {} written", n(rows_read), n(rows_skipped), n(rows_written))
        };
        let rate = n(summary.tokens_per_second.round() as u64);
        let index = summary.index.as_ref().map(|index| match &index.kind {
            Some(kind) => format!("{kind}, {} not covered", counted(index.unindexed_rows, "row")),
            None => "none: every search compares every row".to_owned(),
        });
        let mut fields = vec![
            ("table", format!("{} (version {})", summary.table, summary.version)),
            ("documents", rows),
            ("chunks", format!("{} written", n(chunks_written))),
            ("tokens", format!("{} in {:.1} s ({rate} a second)", n(tokens), summary.seconds)),
        ];
        if summary.files_unchanged > 0 && !summary.source_unchanged {
            let files = counted(summary.files_unchanged, "file");
            fields.push(("unchanged", format!("{files}, of which only the ids were read")));
        }
        if summary.documents_removed > 0 {
            fields.push(("removed", counted(summary.documents_removed, "document")));
        }
        if summary.records_dropped > 0 {
            let records = counted(summary.records_dropped, "record");
            fields.push(("quarantine", format!("{records} dropped: those rows are good now, or gone from the source")));
        }
        fields.extend(summary.peak_memory.map(|bytes| ("memory", format!("{} at most", HumanBytes(bytes)))));
        fields.extend(index.map(|index| ("index", index)));
        fields.extend(upkept(&summary.upkeep).map(|done| ("upkeep", done)));
        printer.fields(&fields)?;
    }
    for note in &summary.source_notes {
        printer.warning(note);
    }
    if let Some(reason) = &summary.removal_skipped {
        printer.warning(format_args!("no document was taken out of the table: {reason}"));
    }
    if let Some(failure) = &summary.upkeep_failure {
        printer.warning(format_args!("the rows are committed, but the table's upkeep failed: {failure}"));
    }
    if let Some(retrain) = summary.index.as_ref().and_then(|index| index.retrain) {
        advise(retrain, &summary.table, printer);
    }
    if summary.rows_quarantined > 0 {
        let rows = counted(summary.rows_quarantined, "row");
        printer.warning(format_args!("{rows} went to the quarantine"));
        printer.hint(format_args!("polylance quarantine list --table {}", summary.table));
    }
    Ok(())
}

/// How much of the source a run that was stopped has not looked at.
fn remaining(summary: &RunSummary) -> String {
    let left = summary.bytes_total.saturating_sub(summary.bytes_read);
    let share = 100.0 * left as f64 / summary.bytes_total.max(1) as f64;
    format!("about {share:.0} % of the source remains ({} of {})", HumanBytes(left), HumanBytes(summary.bytes_total))
}

/// What was done for the table, when anything was.
fn upkept(done: &Upkept) -> Option<String> {
    let mut said = Vec::new();
    if done.fragments_merged > 0 {
        said.push(format!("{} merged", counted(done.fragments_merged, "small fragment")));
    }
    if done.files_removed > 0 {
        let (versions, files) = (counted(done.versions_removed, "version"), counted(done.files_removed, "file"));
        said.push(format!("{versions} and {files} ({}) removed", HumanBytes(done.bytes_removed)));
    }
    (!said.is_empty()).then(|| said.join(", "))
}

fn job(pipeline: &Pipeline) -> Job {
    let Pipeline { source, table, index, .. } = pipeline;
    Job {
        source: SourceSpec {
            uri: source.uri.clone(),
            format: match source.format {
                config::Format::Auto => None,
                config::Format::Parquet => Some(Format::Parquet),
                config::Format::Arrow => Some(Format::Arrow),
                config::Format::Jsonl => Some(Format::Jsonl),
                config::Format::Csv => Some(Format::Csv),
            },
            id: source.id.clone(),
            text: source.text.clone(),
            keep: source.keep.clone(),
            max_bytes: source.max_bytes.0,
            csv: CsvSpec {
                delimiter: source.csv.delimiter.map(config::CsvByte::byte),
                quote: source.csv.quote.map(config::CsvByte::byte),
                escape: source.csv.escape.map(config::CsvByte::byte),
            },
        },
        table: table.uri.clone(),
        text: if table.text { TextColumn::Kept } else { TextColumn::LeftOut },
        commit: CommitPolicy { rows: table.commit.rows, seconds: table.commit.seconds },
        index: IndexSpec {
            kind: match index.kind {
                config::IndexKind::Auto => IndexKind::Auto,
                config::IndexKind::None => IndexKind::None,
                config::IndexKind::IvfFlat => IndexKind::IvfFlat,
                config::IndexKind::IvfSq => IndexKind::IvfSq,
                config::IndexKind::IvfPq => IndexKind::IvfPq,
                config::IndexKind::IvfRq => IndexKind::IvfRq,
                config::IndexKind::IvfHnswSq => IndexKind::IvfHnswSq,
                config::IndexKind::IvfHnswPq => IndexKind::IvfHnswPq,
            },
            metric: match index.metric {
                config::Metric::Cosine => Metric::Cosine,
                config::Metric::L2 => Metric::L2,
                config::Metric::Dot => Metric::Dot,
            },
            min_rows: index.min_rows,
            words: index.words,
        },
        upkeep: upkeep(&table.upkeep),
        remove: source.removed == config::Removed::Delete,
        alone: table.concurrent == config::Concurrent::Refuse,
        reread: false,
        limits: Limits { rows: pipeline.quarantine.max_rows, share: pipeline.quarantine.max_share },
        memory: usize::try_from(pipeline.run.memory.0).unwrap_or(usize::MAX),
    }
}

fn upkeep(upkeep: &config::Upkeep) -> UpkeepPolicy {
    let retention = Retention {
        older_than: Duration::from_secs(upkeep.keep_days.saturating_mul(24 * 3600)),
        keep_versions: usize::try_from(upkeep.keep_versions).unwrap_or(usize::MAX),
        unnamed: Retention::WEEK,
    };
    UpkeepPolicy { compact: upkeep.compact, retention: upkeep.cleanup.then_some(retention) }
}

fn pool_options(pipeline: &Pipeline, selection: &Selection) -> PoolOptions {
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

/// The devices of a pipeline and their dtype: the file's, else the table's own, on whatever machine a run goes on, and
/// for a new table what the devices are fastest at.
pub(crate) async fn select(pipeline: &Pipeline) -> Result<Selection> {
    let dtype = match pipeline.model.dtype {
        config::Dtype::Auto => dtype_of_table(&pipeline.table.uri).await?,
        config::Dtype::F32 => Some(Dtype::F32),
        config::Dtype::Bf16 => Some(Dtype::Bf16),
        config::Dtype::F16 => Some(Dtype::F16),
        config::Dtype::Int8 => Some(Dtype::Int8),
    };
    model_args::select(&pipeline.model.devices, dtype)
}

/// A model that the user has named, as a table was made with it when its tokenizer is the table's.
pub(crate) async fn files_in_table(model: &str, uri: &str) -> Result<ModelFiles> {
    let files = known_models::find(model)?;
    let Some(table) = Table::open(uri).await? else { return Ok(files) };
    Ok(match table.contract()? {
        Some(contract) => files.as_in_table(&contract.tokenizer_hash)?,
        None => files,
    })
}

/// The dtype of a table's vectors; `None` where there is no table, or one without a contract.
pub(crate) async fn dtype_of_table(uri: &str) -> Result<Option<Dtype>> {
    let Some(table) = Table::open(uri).await? else { return Ok(None) };
    Ok(table.contract()?.map(|contract| contract.dtype.parse()).transpose()?)
}

/// Everything that decides the pipeline's vectors.
fn contract(pipeline: &Pipeline, files: &ModelFiles, options: &PoolOptions) -> Result<Contract> {
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
