//! `polylance sql`

mod editing;
mod output;
mod prompt;

use std::{
    io::{self, BufWriter, IsTerminal, Read},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;
use arrow::array::AsArray;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use polylance_engine::models::{NamedHead, TableModels};
use polylance_search::{SearchError, SqlSession};

use crate::{
    args::{DeviceArgs, TableModelArgs, named},
    error::{Result, UsageError},
    exit::ExitStatus,
    output::{Printer, batch, whole_file::WholeFile},
};

/// Rows of a table for people; more are for the other formats.
const ROWS: usize = 1000;

/// Query Lance tables, and Parquet files beside them, with SQL, reading only
///
/// Without a name a table is called like its file: udhr.lance is `udhr`. `SHOW TABLES` works, and so does `DESCRIBE udhr`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The query; without one, on a terminal, a prompt asks for one after another
    #[arg(value_name = "SELECT …")]
    sql: Option<String>,
    /// Read the query from a file, or from stdin with `-`
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "sql")]
    file: Option<PathBuf>,
    /// A table and its name; may be given several times
    #[arg(long = "table", value_name = "[NAME=]URI", value_parser = named::table)]
    tables: Vec<(String, String)>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the rows into this file; its ending says the format. The file is whole, or stays what it was
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object a row: as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    model: TableModelArgs,
    /// A head for classify and entities; options stand behind a `?`, as in a pipeline file; may be given several times
    #[arg(long = "head", value_name = "NAME=TASK:MODEL[?OPTION=VALUE&…]", value_parser = named::head)]
    heads: Vec<NamedHead>,
    #[command(flatten)]
    devices: DeviceArgs,
}

const AFTER_HELP: &str = "\
Functions beside those of DataFusion:
  embed(text)                         the text's vector, by the tables' contract
  classify(text, 'head'), entities(text, 'head')   what a --head says
  cosine_similarity(a, b), dot_product(a, b), l2_distance(a, b), truncate_embedding(vector, dims)
As tables, with k = 10 and no condition unless given:
  vector_search('table', 'query', k, 'condition'), and text_search and hybrid_search
  neighbors('table', 'doc_id', k, 'condition')
  spans('table', 'column')            one row a span

Examples:
  polylance sql --table udhr.lance    # asks for statements: Tab completes, \\? helps
  polylance sql --table udhr.lance \"SELECT lang, count(*) FROM udhr GROUP BY lang ORDER BY 2 DESC\"
  polylance sql --table udhr.lance \"SELECT doc_id, score FROM vector_search('udhr', 'right to rest', 5)\"
  polylance sql --table udhr.lance \"SELECT doc_id FROM udhr
      ORDER BY cosine_similarity(embedding, embed('slavery')) DESC LIMIT 5\"
  polylance sql --table udhr.lance --head ner=ner:./entities \"SELECT doc_id, entities(text, 'ner') FROM udhr LIMIT 5\"
  polylance sql --table t=s3://b/docs.lance -o cut.parquet \"SELECT doc_id FROM t WHERE truncated\"
  polylance sql --table q=udhr.quarantine.lance \"SELECT stage, error, count(*) FROM q GROUP BY 1, 2\"";

/// How rows leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One object a line.
    Json,
    /// With a header; lists, objects and vectors are JSON in their cell, bytes hexadecimal.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Whether a terminal can show it.
    fn is_text(self) -> bool {
        matches!(self, Self::Table | Self::Json | Self::Csv)
    }
}

impl Args {
    /// Whether statements are asked for, which the user may interrupt without leaving.
    pub(crate) fn is_prompt(&self) -> bool {
        self.sql.is_none() && self.file.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal()
    }
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let is_prompt = args.is_prompt();
    let format = match (&args.output, args.json) {
        (Some(file), _) => of_file(file)?,
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
        Some(file) => {
            // What cannot be written is refused before there is a file.
            output::check(format, &rows.schema())?;
            let whole = WholeFile::create(&file)?;
            let opened = whole.open()?;
            output::write(rows, format, Box::new(BufWriter::new(opened)))
                .await
                .with_context(|| format!("writing {}", file.display()))?;
            whole.keep()?;
        }
        None => print(rows, format, printer).await?,
    }
    Ok(ExitStatus::Done)
}

/// Writes rows to stdout.
async fn print(rows: SendableRecordBatchStream, format: Format, printer: &mut Printer) -> Result<()> {
    match format {
        Format::Table => for_people(rows, printer).await,
        format => {
            output::check(format, &rows.schema())?;
            output::write(rows, format, Box::new(BufWriter::new(io::stdout()))).await
        }
    }
}

fn read(file: &std::path::Path) -> io::Result<String> {
    if file.as_os_str() == "-" {
        let mut sql = String::new();
        io::stdin().read_to_string(&mut sql)?;
        return Ok(sql);
    }
    std::fs::read_to_string(file)
}

fn of_file(file: &std::path::Path) -> Result<Format> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("json" | "jsonl" | "ndjson") => Ok(Format::Json),
        Some("csv") => Ok(Format::Csv),
        Some("arrow" | "arrows") => Ok(Format::Arrow),
        Some("parquet") => Ok(Format::Parquet),
        _ => {
            let error = UsageError::new(format!("the ending of {} names no format", file.display()));
            Err(error.with_hint("endings are .jsonl, .csv, .arrows and .parquet").into())
        }
    }
}

async fn for_people(mut batches: SendableRecordBatchStream, printer: &mut Printer) -> Result<()> {
    let header = batches.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    if header == PLAN {
        return plans(batches, printer).await;
    }
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(SearchError::from)? {
        let room = ROWS - rows.len();
        rows.extend(batch::rows(&batch.slice(0, batch.num_rows().min(room)))?);
        if batch.num_rows() > room {
            printer.table(&header, rows)?;
            printer.warning(format_args!("only the first {ROWS} rows are shown; --json prints all of them"));
            return Ok(());
        }
    }
    Ok(printer.table(&header, rows)?)
}

/// The columns of `EXPLAIN`.
const PLAN: [&str; 2] = ["plan_type", "plan"];

/// A plan is a tree of lines, not cells of a table.
async fn plans(mut batches: SendableRecordBatchStream, printer: &mut Printer) -> Result<()> {
    while let Some(batch) = batches.try_next().await.map_err(SearchError::from)? {
        let (kinds, plans) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        for (kind, plan) in kinds.iter().zip(plans) {
            printer.line(kind.unwrap_or_default())?;
            for line in plan.unwrap_or_default().lines() {
                printer.line(format_args!("  {}", without_vectors(line)))?;
            }
        }
    }
    Ok(())
}

/// With the first two numbers of each long list of numbers: a vector tells a person nothing.
fn without_vectors(line: &str) -> String {
    let mut short = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        short.push_str(before);
        short.push('[');
        rest = after;
        let Some((list, behind)) = after.split_once(']') else { break };
        let mut items = list.splitn(3, ',');
        let numbers = list.split(',').all(|item| item.trim().parse::<f64>().is_ok());
        if let (true, Some(first), Some(second), Some(_)) = (numbers, items.next(), items.next(), items.next()) {
            short.extend([first, ",", second, ", …]"]);
            rest = behind;
        }
    }
    short + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_in_a_plan_is_cut() {
        let line = "SortExec: expr=[similarity(embedding@1, [0.5, -1e-3, 2, 4]) DESC], fetch=[3]";
        assert_eq!(without_vectors(line), "SortExec: expr=[similarity(embedding@1, [0.5, -1e-3, …]) DESC], fetch=[3]");
        for line in ["no list", "an [open one", "projection=[doc_id, chunk, text]", "[1, 2]"] {
            assert_eq!(without_vectors(line), line);
        }
    }

    #[test]
    fn the_ending_says_the_format() {
        assert_eq!(of_file("a/b.parquet".as_ref()).unwrap(), Format::Parquet);
        assert_eq!(of_file("b.jsonl".as_ref()).unwrap(), Format::Json);
        assert!(of_file("b.txt".as_ref()).is_err());
    }
}
