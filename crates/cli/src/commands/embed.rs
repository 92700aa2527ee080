//! `polylance embed`

use polylance_config::{Pipeline, Source, Table};
use polylance_engine::EmbedOptions;

use crate::{
    args::{DeviceArgs, MemoryArgs, OutputArgs, split_columns},
    error::Result,
    exit::ExitStatus,
    jobs,
    output::Printer,
    shutdown::ShutdownController,
};

/// Embed a source into a table, without a pipeline file
///
/// A second run embeds only what changed. For more settings, write a pipeline file and use `polylance run`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Source: a file, a folder, a glob, a Lance table or `builtin:udhr`; local, s3://, gs://, az://, http(s):// or
    /// hf://; or `-`, standard input
    #[arg(long, value_name = "URI")]
    source: String,
    /// Lance table, created if it does not exist: local, s3://, gs:// or az://
    #[arg(long, value_name = "URI")]
    table: String,
    /// Model: `builtin:multilingual-e5-small`, a folder or .gguf file (local, s3://, gs:// or az://), or a hub name
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Column with the text, or SQL such as "title || ' ' || body" [default: text]
    #[arg(long, value_name = "COL|SQL")]
    text: Option<String>,
    /// Column with the document id, unique in the source; @content makes ids of the texts, and @row of file and row
    /// [default: id]
    #[arg(long, value_name = "COL|SQL")]
    id: Option<String>,
    /// Columns to copy into the table, or SQL such as "upper(lang) AS lang"; `*` copies all columns
    #[arg(long, value_name = "COL,…")]
    keep: Vec<String>,
    /// SQL condition over the columns of the source: other rows are not read
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

const AFTER_HELP: &str = "\
Examples:
  polylance embed --source builtin:udhr --table udhr.lance --keep lang,article
  polylance embed --source 's3://corpus/*.parquet' --table s3://tables/corpus.lance --id url
  polylance embed --source web.parquet --table web.lance --id @content --keep url --where \"lang = 'fr'\"
  polylance embed --source docs.jsonl.gz --table docs.lance --model intfloat/multilingual-e5-base
  jq -c '.[]' docs.json | polylance embed --source - --table docs.lance";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let mut pipeline = Pipeline::new(Source::new(args.source), Table::new(args.table));
    if let Some(model) = args.model {
        pipeline.model.id = model;
    }
    if let Some(text) = args.text {
        pipeline.source.text = text;
    }
    if let Some(id) = args.id {
        pipeline.source.id = id;
    }
    if !args.devices.devices.is_empty() {
        pipeline.model.devices = args.devices.devices;
    }
    pipeline.model.memory = args.memory.model_memory;
    pipeline.source.keep = args.keep.iter().flat_map(|list| split_columns(list)).collect();
    pipeline.source.condition = args.condition;
    pipeline.validate()?;
    let options = EmbedOptions { reread: args.output.reread, ..EmbedOptions::default() };
    jobs::embed::run(&pipeline, options, &args.output, controller, printer).await
}
