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
use polylance_engine::EmbedOptions;
use polylance_schema::Stage;
use polylance_sink::{
    QuarantineFilter, SinkError, Table, count_quarantined, drop_quarantined, quarantine_uri, quarantined_rows,
    quarantined_sources,
};
use serde::Serialize;

use crate::{
    args::{OutputArgs, word},
    error::{Result, UsageError},
    exit::ExitStatus,
    jobs,
    output::{Printer, counted, rows, thousands},
    shutdown::ShutdownController,
};

/// Default number of rows in a printed list.
const DEFAULT_LISTED_ROWS: usize = 20;

/// The columns of a printed list, in order; `--json` has all.
const PRINTED_COLUMNS: [&str; 7] = ["at", "stage", "source", "row", "doc_id", "attempts", "error"];

/// List, retry or drop the rows that could not be embedded or annotated
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

/// List rows: their place in the source, the error, and the number of attempts
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_HELP)]
struct List {
    /// Lance table that the quarantine belongs to
    #[arg(long, value_name = "URI")]
    table: String,
    /// Only rows that failed at this stage
    #[arg(long, value_name = "STAGE", value_parser = word::<Stage>())]
    stage: Option<Stage>,
    /// Maximum number of rows [default: 20; all with --json]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object per row
    #[arg(long)]
    json: bool,
}

const LIST_HELP: &str = "\
Examples:
  polylance quarantine list --table docs.lance
  polylance quarantine list --table docs.lance --stage scan --json | jq -r .error | sort | uniq -c";

/// Run a pipeline on the quarantined rows of its source only
///
/// The source is read, but only those rows are embedded; rows that succeed leave the quarantine. An ordinary run
/// retries them too, along with everything that is new.
#[derive(Debug, clap::Args)]
#[command(after_help = REPLAY_HELP)]
struct Replay {
    /// Pipeline file (TOML)
    #[arg(value_name = "PIPELINE.toml")]
    pipeline: PathBuf,
    /// Override a key of the file, such as `source.max_bytes='64 MiB'`
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
/// Their documents are not in the table, so a later run tries them again: remove them from the source as well.
#[derive(Debug, clap::Args)]
#[command(after_help = DROP_HELP)]
struct Drop {
    /// Lance table that the quarantine belongs to
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
    /// Do not ask for confirmation
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

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    match args.command {
        Command::List(args) => Box::pin(list(args, printer)).await,
        Command::Replay(args) => Box::pin(replay(*args, controller, printer)).await,
        Command::Drop(args) => Box::pin(drop(args, printer)).await,
    }
}

async fn list(args: List, printer: &mut Printer) -> Result<ExitStatus> {
    check(&args.table).await?;
    let filter = QuarantineFilter { stage: args.stage, doc_id: None };
    let limit = args.limit.or_else(|| (!args.json).then_some(DEFAULT_LISTED_ROWS));
    let mut batches = quarantined_rows(&args.table, &filter, limit).await?;
    let mut lines = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        if args.json {
            printer.bytes(&rows::json_lines(&batch)?)?;
        } else {
            lines.extend(rows::cells(&printed_columns(&batch)?)?);
        }
    }
    if args.json {
        return Ok(ExitStatus::Done);
    }
    let all = count_quarantined(&args.table, &filter).await?;
    if all == 0 {
        printer.message("no matching rows in the quarantine");
        return Ok(ExitStatus::Done);
    }
    let listed = lines.len() as u64;
    printer.table(&PRINTED_COLUMNS.map(str::to_owned), lines)?;
    if listed < all {
        printer.message(format_args!("{} of {} listed; --limit lists more", thousands(listed), counted(all, "row")));
    }
    Ok(ExitStatus::Done)
}

fn printed_columns(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = PRINTED_COLUMNS.map(|name| batch.schema().index_of(name));
    Ok(batch.project(&columns.into_iter().collect::<Result<Vec<_>, _>>()?)?)
}

async fn replay(args: Replay, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let pipeline = Pipeline::read(&args.pipeline, &args.overrides)?;
    let filter = QuarantineFilter { stage: args.stage, doc_id: None };
    let mut only = RowSet::default();
    for row in quarantined_sources(&pipeline.table.uri, &filter).await? {
        only.insert(&row.source, row.row, row.kind);
    }
    if only.is_empty() {
        printer.message("no matching rows in the quarantine: nothing to replay");
        return Ok(ExitStatus::Done);
    }
    let options = EmbedOptions { reread: args.output.reread, only: Some(only), ..EmbedOptions::default() };
    jobs::embed::run(&pipeline, options, &args.output, controller, printer).await
}

#[derive(Debug, Serialize)]
struct Dropped {
    quarantine: String,
    dropped: u64,
}

async fn drop(args: Drop, printer: &mut Printer) -> Result<ExitStatus> {
    check(&args.table).await?;
    let filter = QuarantineFilter { stage: args.stage, doc_id: args.id };
    let quarantine = quarantine_uri(&args.table);
    let matching = count_quarantined(&args.table, &filter).await?;
    if matching > 0 && !args.yes && !confirmed(matching, &quarantine, printer).await? {
        printer.message("nothing was dropped");
        return Ok(ExitStatus::Done);
    }
    let dropped = if matching > 0 { Box::pin(drop_quarantined(&args.table, &filter)).await? } else { 0 };
    if args.json {
        printer.json(&Dropped { quarantine, dropped })?;
    } else {
        printer.line(format_args!("{} dropped", counted(dropped, "row")))?;
    }
    Ok(ExitStatus::Done)
}

/// Refuses a table that does not exist: a misspelled name must not look like an empty quarantine.
async fn check(table: &str) -> Result<()> {
    if Table::open(table).await?.is_none() && Table::open(&quarantine_uri(table)).await?.is_none() {
        return Err(SinkError::NoTable { uri: table.to_owned() }.into());
    }
    Ok(())
}

/// Asks for confirmation; without a terminal, `--yes` is required.
async fn confirmed(matching: u64, quarantine: &str, printer: &mut Printer) -> Result<bool> {
    let rows = counted(matching, "row");
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        let error = UsageError::new(format!(
            "{rows} of {quarantine} would be dropped, and there is no terminal to ask for confirmation"
        ));
        return Err(error.with_hint("add --yes to drop them").into());
    }
    printer.message(format_args!("drop {rows} of {quarantine}? Type yes to drop them:"));
    let mut answer = String::new();
    let answer = tokio::task::spawn_blocking(move || stdin().read_line(&mut answer).map(|_| answer)).await??;
    Ok(matches!(answer.trim(), "y" | "yes"))
}
