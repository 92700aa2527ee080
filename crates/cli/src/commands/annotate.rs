//! `polylance annotate`

use std::{path::PathBuf, time::Duration};

use polylance_config::{Annotate, Pipeline, Run};
use polylance_engine::{AnnotateRequest, resolve};
use polylance_schema::{CommitPolicy, Dtype, TaskName};

use crate::{
    args::{DeviceArgs, MemoryArgs, ProgressMode, TaskArgs, usage, word},
    error::{Result, UsageError},
    exit::ExitStatus,
    jobs::{self, annotate::FillOptions},
    output::Printer,
    shutdown::ShutdownController,
};

/// Fill a column of a table with the results of a head, in the rows that lack it
///
/// Texts and vectors are not rewritten. A second run fills only new rows; a different head under the same name rebuilds
/// the column. With `--pipeline` the columns are those of the file's `[[annotate]]` entries.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Lance table: local, s3://, gs:// or az:// [default with --pipeline: the file's]
    #[arg(long, value_name = "URI", required_unless_present = "pipeline")]
    table: Option<String>,
    /// Pipeline file with `[[annotate]]` entries
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "model", "task"])]
    pipeline: Option<PathBuf>,
    /// Column to fill
    #[arg(long, value_name = "COLUMN", required_unless_present = "pipeline")]
    name: Option<String>,
    /// Model with the head: a folder (local, s3://, gs:// or az://) or a hub name
    #[arg(long, value_name = "MODEL", required_unless_present = "pipeline")]
    model: Option<String>,
    /// Task to run
    #[arg(long, value_name = "TASK", value_parser = word::<TaskName>(), required_unless_present = "pipeline")]
    task: Option<TaskName>,
    /// qa: question for every row
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// qa: column with each row's question
    #[arg(long, value_name = "COLUMN")]
    question_column: Option<String>,
    /// choose: choices for every row
    #[arg(long, value_name = "TEXT,…", value_delimiter = ',')]
    choices: Option<Vec<String>>,
    /// choose: column with each row's choices
    #[arg(long, value_name = "COLUMN")]
    choices_column: Option<String>,
    /// Arithmetic of the model: f32, bf16, int8 (CPU) or f16 (GPU) [default: the table's]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Number of rows after which a commit is made
    #[arg(long, value_name = "N", default_value_t = CommitPolicy::default().rows)]
    commit_rows: u64,
    /// Print one JSON object per column
    #[arg(long)]
    json: bool,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "MODE")]
    progress: ProgressMode,
    #[command(flatten)]
    options: TaskArgs,
}

const AFTER_HELP: &str = "\
Examples:
  polylance annotate --table docs.lance --name people --task ner --model ./entities
  polylance annotate --table docs.lance --name topic --task zero-shot --model ./xnli --labels sport,economy
  polylance annotate --table docs.lance --name author --task qa --model ./squad --question 'Who wrote it?'
  polylance annotate --pipeline nightly.toml";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let (request, grace) = request(&args).await?;
    let options = FillOptions { progress: args.progress, json: args.json, grace, controller };
    jobs::annotate::fill(request.resolve().await?, &options, printer).await
}

/// The columns, and how long batches in progress may take after a shutdown signal.
async fn request(args: &Args) -> Result<(AnnotateRequest, Duration)> {
    if let Some(path) = &args.pipeline {
        let no_overrides: [&str; 0] = [];
        let pipeline = Pipeline::read(path, &no_overrides)?;
        if pipeline.annotate.is_empty() {
            return Err(UsageError::new(format!("{} has no [[annotate]] entry", path.display())).into());
        }
        let mut pipeline = pipeline;
        if let Some(table) = &args.table {
            pipeline.table.uri.clone_from(table);
        }
        let selection = resolve::select(&pipeline).await?;
        return Ok((AnnotateRequest::new(&pipeline, &selection), Duration::from_secs(pipeline.run.grace)));
    }
    let (Some(table), Some(name), Some(model), Some(task)) = (&args.table, &args.name, &args.model, &args.task) else {
        return Err(UsageError::new("--table, --name, --task and --model are needed".to_owned()).into());
    };
    let annotate = Annotate {
        question: args.question.clone(),
        question_column: args.question_column.clone(),
        choices: args.choices.clone(),
        choices_column: args.choices_column.clone(),
        options: args.options.options(),
        ..Annotate::new(name.clone(), *task, model.clone())
    };
    annotate.task().map_err(usage)?;
    let dtype = match args.dtype {
        Some(dtype) => Some(dtype),
        None => resolve::dtype_of_table(table).await?,
    };
    let request = AnnotateRequest {
        table: table.clone(),
        columns: vec![annotate],
        selection: args.devices.select(dtype)?.with_memory(args.memory.bytes()),
        commit: CommitPolicy { rows: args.commit_rows, seconds: CommitPolicy::default().seconds },
        stall: None,
    };
    Ok((request, Duration::from_secs(Run::default().grace)))
}
