//! `polylance run`

use std::path::PathBuf;

use polylance_config::Pipeline;
use polylance_engine::EmbedOptions;

use crate::{
    args::{OutputArgs, ShardArg},
    error::Result,
    exit::ExitStatus,
    jobs,
    output::Printer,
    shutdown::ShutdownController,
};

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
    /// Embed only one part of the source: 3/8 is the fourth of eight; `auto` reads the part from the environment of a
    /// Slurm array or a Kubernetes Indexed Job
    ///
    /// A run without --shard after all parts embeds what is missing, deletes, indexes and maintains.
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<ShardArg>,
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
  polylance run nightly.toml --shard 3/8

Relative paths in the file are relative to the current folder.";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let pipeline = Pipeline::read(&args.pipeline, &args.overrides)?;
    let shard = args.shard.map(ShardArg::resolve).transpose()?;
    let options = EmbedOptions { reread: args.output.reread, only: None, shard };
    jobs::embed::run(&pipeline, options, &args.output, controller, printer).await
}
