//! `polylance sql`

mod completion;
mod file;
mod format;
mod prompt;
mod terminal;

use std::{
    io::{self, BufWriter, IsTerminal, Read},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;
use polylance_engine::models::{NamedHead, TableModels};
use polylance_search::SqlSession;

use self::format::Format;
use crate::{
    args::{DeviceArgs, TableModelArgs, named},
    error::{Result, UsageError},
    exit::ExitStatus,
    output::{Printer, atomic_file::AtomicFile},
};

/// Query Lance tables and Parquet files with SQL (read-only)
///
/// A table without a name is called after its file: udhr.lance is `udhr`. `SHOW TABLES` and `DESCRIBE udhr` work too.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Query; without one, on a terminal, an interactive prompt starts
    #[arg(value_name = "SELECT …")]
    sql: Option<String>,
    /// Read the query from a file, or from stdin with `-`
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// Table, with an optional name; repeatable
    #[arg(long = "table", value_name = "[NAME=]URI", value_parser = named::table)]
    tables: Vec<(String, String)>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the rows to this file, in the format of its extension. The file is written completely or not at all
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object per row, as with --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    model: TableModelArgs,
    /// Head for classify and entities, with options as in a pipeline file; repeatable
    #[arg(long = "head", value_name = "NAME=TASK:MODEL[?OPTION=VALUE&…]", value_parser = named::head)]
    heads: Vec<NamedHead>,
    #[command(flatten)]
    devices: DeviceArgs,
}

const AFTER_HELP: &str = "\
Functions in addition to those of DataFusion:
  embed(text)                         vector of the text, under the tables' contract
  classify(text, 'head'), entities(text, 'head')   result of a --head
  cosine_similarity(a, b), dot_product(a, b), l2_distance(a, b), truncate_embedding(vector, dims)
Table functions (defaults: k = 10, no condition):
  vector_search('table', 'query', k, 'condition'), and text_search and hybrid_search
  neighbors('table', 'doc_id', k, 'condition')
  spans('table', 'column')            one row per span

Examples:
  polylance sql --table udhr.lance    # interactive prompt: Tab completes, \\? for help
  polylance sql --table udhr.lance \"SELECT lang, count(*) FROM udhr GROUP BY lang ORDER BY 2 DESC\"
  polylance sql --table udhr.lance \"SELECT doc_id, score FROM vector_search('udhr', 'right to rest', 5)\"
  polylance sql --table udhr.lance \"SELECT doc_id FROM udhr
      ORDER BY cosine_similarity(embedding, embed('slavery')) DESC LIMIT 5\"
  polylance sql --table udhr.lance --head ner=ner:./entities \"SELECT doc_id, entities(text, 'ner') FROM udhr LIMIT 5\"
  polylance sql --table t=s3://b/docs.lance -o cut.parquet \"SELECT doc_id FROM t WHERE truncated\"
  polylance sql --table q=udhr.quarantine.lance \"SELECT stage, error, count(*) FROM q GROUP BY 1, 2\"";

impl Args {
    /// Whether the command is an interactive prompt, in which Ctrl-C ends a statement and not the command.
    pub(crate) fn is_prompt(&self) -> bool {
        self.sql.is_none() && self.file.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal()
    }
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let is_prompt = args.is_prompt();
    let format = match (&args.output, args.json) {
        (Some(file), _) => Format::of_file(file)?,
        (None, true) => Format::Json,
        (None, false) => args.format,
    };
    let sql = match (args.sql, &args.file) {
        (Some(sql), _) => Some(sql),
        (None, Some(file)) => Some(read(file).with_context(|| format!("reading {}", file.display()))?),
        (None, None) if is_prompt && args.output.is_none() && format.is_text() => None,
        (None, None) => {
            let error = UsageError::new("a query is needed");
            return Err(error.with_hint("`--file -` reads it from stdin; a prompt is for terminals").into());
        }
    };
    let models = Arc::new(TableModels::new(args.model.into(), None, args.devices.devices).with_heads(args.heads));
    let session = SqlSession::open(&args.tables, Some(models)).await?;
    let Some(sql) = sql else {
        Box::pin(prompt::run(&session, format, printer)).await?;
        return Ok(ExitStatus::Done);
    };
    let rows = Box::pin(session.query(&sql)).await?;
    match args.output {
        Some(path) => {
            // Types that the format does not support are refused before the file is created.
            file::check(format, &rows.schema())?;
            let output = AtomicFile::create(&path)?;
            let writer = Box::new(BufWriter::new(output.open()?));
            file::write(rows, format, writer).await.with_context(|| format!("writing {}", path.display()))?;
            output.persist()?;
        }
        None => terminal::print(rows, format, printer).await?,
    }
    Ok(ExitStatus::Done)
}

fn read(file: &std::path::Path) -> io::Result<String> {
    if file.as_os_str() == "-" {
        let mut sql = String::new();
        io::stdin().read_to_string(&mut sql)?;
        return Ok(sql);
    }
    std::fs::read_to_string(file)
}
