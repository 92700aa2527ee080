//! `polylance index`

use std::time::Duration;

use polylance_schema::{IndexKind, Metric};
use polylance_search::{Effort, MeasuredEffort, SearchTable, TuneReport, TuneRequest};
use polylance_sink::{
    FullTextIndexOutcome, FullTextUpdate, IndexAction, IndexSpec, set_search_params, update_full_text_index,
    update_index,
};
use serde::Serialize;

use crate::{
    args::word,
    error::{Result, UsageError},
    exit::ExitStatus,
    output::{Printer, advice::advise, counted, thousands},
};

/// Build and tune the indices of a table
///
/// Runs keep indices up to date by themselves; see `index` in pipeline files. These commands are for tables without an
/// index, or with a different one.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  polylance index vectors --table docs.lance
  polylance index words --table docs.lance
  polylance index tune --table docs.lance --recall 0.98";

#[derive(Debug, clap::Subcommand)]
enum Command {
    Vectors(VectorsArgs),
    Words(WordsArgs),
    Tune(TuneArgs),
}

/// Build the vector index, or add new rows to it
#[derive(Debug, clap::Args)]
struct VectorsArgs {
    /// Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Kind of index; auto: `ivf_pq` from --min-rows rows on, none below, where exact search is fast
    #[arg(long, value_parser = word::<IndexKind>(), default_value = "auto")]
    kind: IndexKind,
    /// Distance between vectors
    #[arg(long, value_parser = word::<Metric>(), default_value = "cosine")]
    metric: Metric,
    /// With --kind auto: number of rows from which an index is built
    #[arg(long, value_name = "N", default_value_t = IndexSpec::default().min_rows)]
    min_rows: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Build the full-text index, or add new rows to it
///
/// Words of all languages and any length are indexed; those of Thai, Japanese and Chinese are segmented by dictionary.
/// Comparison ignores case, accents and optional vowel signs. A word ends at an apostrophe (l'homme contains the word
/// homme). An index of an older version of polylance is rebuilt.
#[derive(Debug, clap::Args)]
struct WordsArgs {
    /// Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Find the fastest search settings that reach a recall target, and store them in the table
///
/// Rows of the table serve as queries, and the hits of an exact search are the ground truth. The fastest setting that
/// reaches the target is stored in the table, and searches use it from then on.
#[derive(Debug, clap::Args)]
struct TuneArgs {
    /// Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Target recall: share of an exact search's hits that must be found
    #[arg(long, value_name = "SHARE", default_value_t = TuneRequest::default().recall)]
    recall: f64,
    /// Number of hits per search
    #[arg(short = 'k', value_name = "N", default_value_t = TuneRequest::default().k)]
    k: usize,
    /// Number of rows that serve as queries
    #[arg(long, value_name = "N", default_value_t = TuneRequest::default().queries)]
    queries: usize,
    /// Measure only; do not change the table
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    match args.command {
        Command::Vectors(args) => vectors(args, printer).await,
        Command::Words(args) => words(args, printer).await,
        Command::Tune(args) => tune(args, printer).await,
    }
}

async fn vectors(args: VectorsArgs, printer: &mut Printer) -> Result<ExitStatus> {
    let spec = IndexSpec { kind: args.kind, metric: args.metric, min_rows: args.min_rows, ..IndexSpec::default() };
    let index = Box::pin(update_index(&args.table, &spec)).await?;
    if args.json {
        printer.json(&index)?;
        return Ok(ExitStatus::Done);
    }
    let rows = index.indexed_rows + index.unindexed_rows;
    let (rows, least) = (thousands(rows), thousands(spec.min_rows));
    let state = match (index.action, &index.kind) {
        (IndexAction::Dropped, _) => "dropped (exact search)".to_owned(),
        (IndexAction::Postponed, _) => format!("none: {rows} rows are too few to train it"),
        (_, None) if spec.kind == IndexKind::Auto => {
            format!("none (exact search): {rows} rows, an index is built from {least} on")
        }
        (_, None) => "none".to_owned(),
        (action, Some(kind)) => {
            format!("{kind}, {} ({})", done(action), covered(index.indexed_rows, index.unindexed_rows))
        }
    };
    printer.fields(&[("table", args.table.clone()), ("vectors", state)])?;
    if let Some(retrain) = index.retrain {
        advise(retrain, &args.table, printer);
    }
    Ok(ExitStatus::Done)
}

async fn words(args: WordsArgs, printer: &mut Printer) -> Result<ExitStatus> {
    let words = Box::pin(update_full_text_index(&args.table, FullTextUpdate::Create)).await?;
    if args.json {
        printer.json(&words)?;
    } else if let Some(FullTextIndexOutcome { action, indexed_rows, unindexed_rows, .. }) = words {
        let state = format!("{} ({})", done(action), covered(indexed_rows, unindexed_rows));
        printer.fields(&[("table", args.table), ("full-text", state)])?;
    }
    Ok(ExitStatus::Done)
}

fn done(action: IndexAction) -> &'static str {
    match action {
        IndexAction::Built => "built",
        IndexAction::Extended => "extended",
        IndexAction::Unchanged => "up to date",
        IndexAction::None | IndexAction::Dropped | IndexAction::Postponed => "none",
    }
}

fn covered(indexed: u64, unindexed: u64) -> String {
    match unindexed {
        0 => counted(indexed, "row"),
        unindexed => format!("{}, {} not covered", counted(indexed, "row"), thousands(unindexed)),
    }
}

/// The measurements, and whether the best setting was stored.
#[derive(Debug, Serialize)]
struct Report {
    table: String,
    recall_wanted: f64,
    written: bool,
    #[serde(flatten)]
    tuning: TuneReport,
}

async fn tune(args: TuneArgs, printer: &mut Printer) -> Result<ExitStatus> {
    if !(0.0..=1.0).contains(&args.recall) {
        let error = UsageError::new(format!("--recall must be a share from 0 to 1, found {}", args.recall));
        return Err(error.with_hint("0.95 finds 95 of 100 hits of an exact search").into());
    }
    let table = SearchTable::open(&args.table).await?;
    let request = TuneRequest { queries: args.queries, k: args.k, recall: args.recall };
    let tuning = Box::pin(table.tune(&request)).await?;
    let Effort { nprobes, refine, ef } = tuning.best.effort;
    if !args.dry_run {
        set_search_params(&args.table, nprobes, refine, ef).await?;
    }
    let report = Report { table: args.table, recall_wanted: args.recall, written: !args.dry_run, tuning };
    if args.json {
        printer.json(&report)?;
    } else {
        report.print(printer)?;
    }
    Ok(ExitStatus::Done)
}

impl Report {
    fn print(&self, printer: &mut Printer) -> Result<()> {
        let TuneReport { tried, best, enough, exact } = &self.tuning;
        let header = ["", "nprobes", "refine", "recall", "median", "p99"].map(str::to_owned);
        let row = |tuned: &MeasuredEffort| {
            let number = |number: Option<usize>| number.map(|number| number.to_string()).unwrap_or_default();
            vec![
                if tuned == best { "→" } else { "" }.to_owned(),
                number(tuned.effort.nprobes),
                number(tuned.effort.refine.map(|refine| refine as usize)),
                format!("{:.3}", tuned.recall),
                milliseconds(tuned.median),
                milliseconds(tuned.p99),
            ]
        };
        printer.table(&header, tried.iter().map(row).collect::<Vec<_>>())?;
        printer.line(format_args!("exact search: {}", milliseconds(*exact)))?;
        if !enough {
            let wanted = self.recall_wanted;
            printer.warning(format_args!(
                "no setting reaches a recall of {wanted}: an index of whole vectors (--kind ivf_flat) or of 8-bit ones \
                 (ivf_sq) has a higher recall"
            ));
        }
        Ok(())
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
