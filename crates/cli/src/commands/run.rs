//! `polylance run`

use std::path::PathBuf;

use polylance_config::Pipeline;

use crate::{args::OutputArgs, error::Result, exit::ExitStatus, jobs, output::Printer, shutdown::ShutdownController};

/// Run a pipeline file: embed the new and changed documents of its source into its table
///
/// A second run embeds only what changed. A run that was stopped or killed continues from its last commit.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Pipeline file (TOML)
    #[arg(value_name = "PIPELINE.toml")]
    pipeline: PathBuf,
    /// Override a key of the file, such as table.uri=s3://bucket/docs.lance
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

Relative paths in the file are relative to the current folder.";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let pipeline = Pipeline::read(&args.pipeline, &args.overrides)?;
    jobs::embed::run(&pipeline, None, &args.output, controller, printer).await
}
