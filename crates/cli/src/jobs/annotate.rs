//! Fills columns of a table, one head after another, with progress and summaries.

use std::time::{Duration, Instant};

use polylance_engine::{AnnotationSummary, ResolvedColumn, ShutdownSignal};
use polylance_sink::Declared;

use crate::{
    args::ProgressMode,
    error::Result,
    exit::ExitStatus,
    output::{Printer, counted, thousands},
    shutdown::{FINISH_AND_COMMIT, Interrupted, ShutdownController, ShutdownPlan},
};

/// Time between two progress lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How columns are filled and reported.
pub(crate) struct FillOptions<'a> {
    pub(crate) progress: ProgressMode,
    pub(crate) json: bool,
    /// How long batches in progress may take after a shutdown signal.
    pub(crate) grace: Duration,
    pub(crate) controller: &'a ShutdownController,
}

/// Warns about a column that is rebuilt.
pub(crate) fn warn_replaced(column: &str, declared: Declared, printer: &mut Printer) {
    if declared == Declared::Replaced {
        printer.warning(format_args!("column {column} was filled by another head: it is rebuilt"));
    }
}

/// Fills the columns, one after another.
pub(crate) async fn fill(
    columns: Vec<ResolvedColumn>,
    options: &FillOptions<'_>,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let mut status = ExitStatus::Done;
    for column in columns {
        let open = column.open().await?;
        warn_replaced(open.name(), open.declared(), printer);
        let mut progress = ProgressLines::new(open.name().to_owned(), open.missing(), options.progress);
        let signal = ShutdownSignal::default();
        options.controller.set(ShutdownPlan {
            signal: signal.clone(),
            grace: options.grace,
            description: FINISH_AND_COMMIT,
        });
        let ended = open.fill(&signal, &mut |done| progress.done(done)).await;
        options.controller.clear();
        let summary = ended?;
        if options.json {
            printer.json(&summary)?;
        } else {
            report(&summary, printer)?;
        }
        if summary.rows_quarantined > 0 {
            status = ExitStatus::Quarantined;
            warn_quarantined(&summary, printer);
        }
        if summary.stopped {
            return Err(Interrupted { resumable: true }.into());
        }
    }
    Ok(status)
}

/// Progress as plain lines on stderr.
struct ProgressLines {
    column: String,
    missing: u64,
    started: Instant,
    last: Instant,
    printer: Option<Printer>,
}

impl ProgressLines {
    fn new(column: String, missing: u64, progress: ProgressMode) -> Self {
        let printer = (progress != ProgressMode::None).then(Printer::new);
        Self { column, missing, started: Instant::now(), last: Instant::now(), printer }
    }

    fn done(&mut self, done: u64) {
        let Some(printer) = self.printer.as_mut().filter(|_| self.last.elapsed() >= LINE_INTERVAL) else { return };
        self.last = Instant::now();
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let left = Duration::from_secs_f64(self.missing.saturating_sub(done) as f64 / rate.max(0.001));
        let (column, done, missing) = (&self.column, thousands(done), thousands(self.missing));
        let left = indicatif::HumanDuration(left);
        printer.message(format_args!("{column}: {done} of {missing} rows, {rate:.0} rows/s, {left} left"));
    }
}

fn report(summary: &AnnotationSummary, printer: &mut Printer) -> Result<()> {
    let rows = match summary.rows_missing {
        0 if summary.fused => "annotated with the embedding".to_owned(),
        0 => "0 missing".to_owned(),
        missing if summary.stopped => {
            let (done, missing) = (thousands(summary.rows_annotated), thousands(missing));
            format!("{done} of {missing} annotated in {:.1} s, then stopped", summary.seconds)
        }
        _ => format!("{} annotated in {:.1} s", thousands(summary.rows_annotated), summary.seconds),
    };
    printer.fields(&[
        (
            "table",
            summary.version.map_or_else(|| summary.table.clone(), |v| format!("{} (version {v})", summary.table)),
        ),
        ("column", summary.column.clone()),
        ("rows", rows),
    ])?;
    Ok(())
}

fn warn_quarantined(summary: &AnnotationSummary, printer: &mut Printer) {
    printer.warning(format_args!("{} went to the quarantine", counted(summary.rows_quarantined, "row")));
    printer.hint(format_args!("polylance quarantine list --table {}", summary.table));
}
