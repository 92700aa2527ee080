//! `polylance run`

use std::{path::PathBuf, sync::Arc};

use polylance_ballista::{BallistaEngine, SchedulerAddress};
use polylance_config::Pipeline;
use polylance_engine::{ClusterOptions, EmbedOptions};

use crate::{
    args::{ClusterArg, OutputArgs, ShardArg},
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
    /// Embed on the executors of the scheduler at this address, instead of the devices of this machine
    ///
    /// The table has the rows of a run without --cluster, in the same order. Without it, the address is that in the
    /// variable `POLYLANCE_CLUSTER` or the key `cluster.url`; --cluster none and --shard ignore both.
    #[arg(long, value_name = "URL")]
    cluster: Option<ClusterArg>,
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
  polylance run nightly.toml --cluster http://scheduler:50050

Relative paths in the file are relative to the current folder.";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let pipeline = Pipeline::read(&args.pipeline, &args.overrides)?;
    let shard = args.shard.map(ShardArg::resolve).transpose()?;
    let url: Option<SchedulerAddress> = match args.cluster {
        // A shard is for machines without a cluster.
        None if shard.is_some() => None,
        None => match ClusterArg::of_environment()? {
            Some(given) => given.address(),
            None => pipeline.cluster.url.as_deref().map(str::parse).transpose()?,
        },
        Some(given) => given.address(),
    };
    let engine = url.map(BallistaEngine::new).transpose()?;
    let cluster = engine.map(|engine| ClusterOptions::new(Arc::new(engine), &pipeline.cluster));
    let options = EmbedOptions { reread: args.output.reread, shard, cluster, ..EmbedOptions::default() };
    jobs::embed::run(&pipeline, options, &args.output, controller, printer).await
}
