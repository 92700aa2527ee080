//! `polylance embed`

use polylance_config::{Pipeline, Source, Table};

use crate::{
    args::{DeviceArgs, OutputArgs},
    error::Result,
    exit::ExitStatus,
    interrupt::Stopping,
    jobs,
    output::Printer,
};

/// Embed a source into a table, without a pipeline file
///
/// Running it again costs only what changed. For more settings than these, write a pipeline file for `polylance run`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A file, a folder, a glob or `builtin:udhr`; local, s3://, gs://, az://, http(s)://
    #[arg(long, value_name = "URI")]
    source: String,
    /// The Lance table, made when it is not there: local, s3://, gs://, az://
    #[arg(long, value_name = "URI")]
    table: String,
    /// `builtin:multilingual-e5-small`, a folder, a .gguf file or a name on the hub
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The column with the text [default: text]
    #[arg(long, value_name = "COL")]
    text: Option<String>,
    /// The column that names a document, unique in the source [default: id]
    #[arg(long, value_name = "COL")]
    id: Option<String>,
    /// Columns to carry into the table; `*` carries all
    #[arg(long, value_name = "COL,…", value_delimiter = ',')]
    keep: Vec<String>,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

const AFTER_HELP: &str = "\
Examples:
  polylance embed --source builtin:udhr --table udhr.lance --keep lang,article
  polylance embed --source 's3://corpus/*.parquet' --table s3://tables/corpus.lance --id url
  polylance embed --source docs.jsonl.gz --table docs.lance --model intfloat/multilingual-e5-base";

pub(crate) async fn run(args: Args, stopping: &Stopping, printer: &mut Printer) -> Result<ExitStatus> {
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
    pipeline.source.keep = args.keep;
    pipeline.validate()?;
    jobs::embed::run(&pipeline, None, &args.output, stopping, printer).await
}
