//! `polylance run`

use std::path::PathBuf;

use polylance_config::Pipeline;

use crate::{args::OutputArgs, error::Result, exit::ExitStatus, interrupt::Stopping, jobs, output::Printer};

/// Run a pipeline file: embed what is new or changed in its source, and write it to its table
///
/// Running it again costs only what changed. A run that was stopped or killed continues where its last commit was.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The pipeline file, TOML
    #[arg(value_name = "PIPELINE.toml")]
    pipeline: PathBuf,
    /// Set a key of the file, such as table.uri=s3://bucket/docs.lance
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

const AFTER_HELP: &str = "\
The shortest pipeline file:
  version = 1
  [source]
  uri = \"corpus/*.parquet\"
  [table]
  uri = \"corpus.lance\"

Examples:
  polylance run nightly.toml
  polylance run nightly.toml --set model.devices='[\"cpu:0-3\"]' --set source.text=body
  polylance run nightly.toml --json | jq .rows_written

Relative paths in the file start at the current folder.";

pub(crate) async fn run(args: Args, stopping: &Stopping, printer: &mut Printer) -> Result<ExitStatus> {
    let pipeline = Pipeline::read(&args.pipeline, &args.overrides)?;
    jobs::embed::run(&pipeline, None, &args.output, stopping, printer).await
}
