//! `polylance quarantine`

use std::{
    io::{IsTerminal, stderr, stdin},
    path::PathBuf,
};

use arrow::array::RecordBatch;
use clap::Subcommand;
use futures::TryStreamExt;
use polylance_config::Pipeline;
use polylance_dataflow::RowSet;
use polylance_sink::{
    QuarantineFilter, SinkError, Table, count_quarantined, drop_quarantined, quarantine_uri, quarantined_rows,
    quarantined_sources,
};
use serde::Serialize;

use polylance_schema::Stage;

use crate::{
    args::{OutputArgs, word},
    error::{Result, UsageError},
    exit::ExitStatus,
    interrupt::Stopping,
    jobs,
    output::{Printer, batch, counted, thousands},
};

/// Rows that a list for people shows unless told otherwise.
const ROWS: usize = 20;

/// The columns that people see, in their order; `--json` has all.
const SHOWN: [&str; 7] = ["at", "stage", "source", "row", "doc_id", "attempts", "error"];

/// Look at the rows that could not be embedded, try them again, or drop them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Replay(Box<Replay>),
    Drop(Drop),
}

/// List rows: where they are in the source, what failed, and how often
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_HELP)]
struct List {
    /// The Lance table that the quarantine belongs to
    #[arg(long, value_name = "URI")]
    table: String,
    /// Only rows that failed at this stage
    #[arg(long, value_name = "STAGE", value_parser = word::<Stage>())]
    stage: Option<Stage>,
    /// Rows at most [default: 20, and all with --json]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object a row
    #[arg(long)]
    json: bool,
}

const LIST_HELP: &str = "\
Examples:
  polylance quarantine list --table docs.lance
  polylance quarantine list --table docs.lance --stage scan --json | jq -r .error | sort | uniq -c";

/// Run a pipeline over the rows of its source that are in the quarantine, and no others
///
/// The source is read, but only those rows are embedded; those that succeed leave the quarantine. An ordinary run
/// tries them too, along with everything that is new.
#[derive(Debug, clap::Args)]
#[command(after_help = REPLAY_HELP)]
struct Replay {
    /// The pipeline file, TOML
    #[arg(value_name = "PIPELINE.toml")]
    pipeline: PathBuf,
    /// Set a key of the file, such as `source.max_bytes='64 MiB'`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Only rows that failed at this stage
    #[arg(long, value_name = "STAGE", value_parser = word::<Stage>())]
    stage: Option<Stage>,
    #[command(flatten)]
    output: OutputArgs,
}

const REPLAY_HELP: &str = "\
Examples:
  polylance quarantine replay nightly.toml
  polylance quarantine replay nightly.toml --stage scan --set source.max_bytes='64 MiB'";

/// Drop rows from the quarantine
///
/// Their documents are not in the table, so a later run tries them again: take them out of the source as well.
#[derive(Debug, clap::Args)]
#[command(after_help = DROP_HELP)]
struct Drop {
    /// The Lance table that the quarantine belongs to
    #[arg(long, value_name = "URI")]
    table: String,
    /// Only rows that failed at this stage
    #[arg(long, value_name = "STAGE", value_parser = word::<Stage>(), required_unless_present_any = ["id", "all"])]
    stage: Option<Stage>,
    /// Only rows of this document
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// All rows
    #[arg(long, conflicts_with_all = ["stage", "id"])]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const DROP_HELP: &str = "\
Examples:
  polylance quarantine drop --table docs.lance --id doc-17
  polylance quarantine drop --table docs.lance --stage scan --yes";

pub(crate) async fn run(args: Args, stopping: &Stopping, printer: &mut Printer) -> Result<ExitStatus> {
    match args.command {
        Command::List(args) => Box::pin(list(args, printer)).await,
        Command::Replay(args) => Box::pin(replay(*args, stopping, printer)).await,
        Command::Drop(args) => Box::pin(drop(args, printer)).await,
    }
}

async fn list(args: List, printer: &mut Printer) -> Result<ExitStatus> {
    check(&args.table).await?;
    let rows = QuarantineFilter { stage: args.stage, doc_id: None };
    let limit = args.limit.or_else(|| (!args.json).then_some(ROWS));
    let mut batches = quarantined_rows(&args.table, &rows, limit).await?;
    let mut lines = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        if args.json {
            printer.bytes(&batch::json_lines(&batch)?)?;
        } else {
            lines.extend(batch::rows(&shown(&batch)?)?);
        }
    }
    if args.json {
        return Ok(ExitStatus::Done);
    }
    let all = count_quarantined(&args.table, &rows).await?;
    if all == 0 {
        printer.message("the quarantine has no such row");
        return Ok(ExitStatus::Done);
    }
    let listed = lines.len() as u64;
    printer.table(&SHOWN.map(str::to_owned), lines)?;
    if listed < all {
        printer.message(format_args!("{} of {}; --limit shows more", thousands(listed), counted(all, "row")));
    }
    Ok(ExitStatus::Done)
}

fn shown(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = SHOWN.map(|name| batch.schema().index_of(name));
    Ok(batch.project(&columns.into_iter().collect::<Result<Vec<_>, _>>()?)?)
}

async fn replay(args: Replay, stopping: &Stopping, printer: &mut Printer) -> Result<ExitStatus> {
    let pipeline = Pipeline::read(&args.pipeline, &args.overrides)?;
    let rows = QuarantineFilter { stage: args.stage, doc_id: None };
    let mut only = RowSet::default();
    for held in quarantined_sources(&pipeline.table.uri, &rows).await? {
        only.insert(&held.source, held.row, held.kind);
    }
    if only.is_empty() {
        printer.message("the quarantine has no such row: nothing to replay");
        return Ok(ExitStatus::Done);
    }
    jobs::embed::run(&pipeline, Some(only), &args.output, stopping, printer).await
}

#[derive(Debug, Serialize)]
struct Dropped {
    quarantine: String,
    dropped: u64,
}

async fn drop(args: Drop, printer: &mut Printer) -> Result<ExitStatus> {
    check(&args.table).await?;
    let rows = QuarantineFilter { stage: args.stage, doc_id: args.id };
    let quarantine = quarantine_uri(&args.table);
    let held = count_quarantined(&args.table, &rows).await?;
    if held > 0 && !args.yes && !confirmed(held, &quarantine, printer).await? {
        printer.message("nothing was dropped");
        return Ok(ExitStatus::Done);
    }
    let dropped = if held > 0 { Box::pin(drop_quarantined(&args.table, &rows)).await? } else { 0 };
    if args.json {
        printer.json(&Dropped { quarantine, dropped })?;
    } else {
        printer.line(format_args!("{} dropped", counted(dropped, "row")))?;
    }
    Ok(ExitStatus::Done)
}

/// A misspelled table has no quarantine either: that must not look like an empty one.
async fn check(table: &str) -> Result<()> {
    if Table::open(table).await?.is_none() && Table::open(&quarantine_uri(table)).await?.is_none() {
        return Err(SinkError::NoTable { uri: table.to_owned() }.into());
    }
    Ok(())
}

/// Asks a person; where there is none to ask, `--yes` must have been given.
async fn confirmed(held: u64, quarantine: &str, printer: &mut Printer) -> Result<bool> {
    let rows = counted(held, "row");
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        let error = UsageError::new(format!("{rows} of {quarantine} would be dropped, and there is nobody to ask"));
        return Err(error.with_hint("add --yes to drop them").into());
    }
    printer.message(format_args!("drop {rows} of {quarantine}? Type yes to drop them:"));
    let mut answer = String::new();
    let answer = tokio::task::spawn_blocking(move || stdin().read_line(&mut answer).map(|_| answer)).await??;
    Ok(matches!(answer.trim(), "y" | "yes"))
}
