//! Fills columns of a table, one head after another, with all that the user sees of it.

use std::time::{Duration, Instant};

use polylance_engine::{AnnotationSummary, Column, Stop};
use polylance_sink::Declared;

use crate::{
    args::ProgressMode,
    error::Result,
    exit::ExitStatus,
    interrupt::{self, Interrupted, Stopping},
    output::{Printer, counted, thousands},
};

/// How often a plain line says how far the work is.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How columns are filled, and what is shown of it.
pub(crate) struct Filling<'a> {
    pub(crate) progress: ProgressMode,
    pub(crate) json: bool,
    /// How long what is in work may take when the command is told to stop.
    pub(crate) grace: Duration,
    pub(crate) stopping: &'a Stopping,
}

/// Says which columns are rebuilt.
pub(crate) fn warn_replaced(column: &str, declared: Declared, printer: &mut Printer) {
    if declared == Declared::Replaced {
        printer.warning(format_args!("column {column} was filled by another head: it is rebuilt"));
    }
}

/// Fills the columns, one after another.
pub(crate) async fn fill(columns: Vec<Column>, filling: &Filling<'_>, printer: &mut Printer) -> Result<ExitStatus> {
    let mut status = ExitStatus::Done;
    for column in columns {
        let open = column.open().await?;
        warn_replaced(open.name(), open.declared(), printer);
        let mut shown = Shown::new(open.name().to_owned(), open.missing(), filling.progress);
        let stop = Stop::default();
        filling.stopping.set(stop.clone(), filling.grace, interrupt::FINISHES);
        let ended = open.fill(&stop, &mut |done| shown.done(done)).await;
        filling.stopping.unset();
        let summary = ended?;
        if filling.json {
            printer.json(&summary)?;
        } else {
            report(&summary, printer)?;
        }
        if summary.rows_quarantined > 0 {
            status = ExitStatus::Quarantined;
            warn(&summary, printer);
        }
        if summary.stopped {
            return Err(Interrupted { resumable: true }.into());
        }
    }
    Ok(status)
}

/// How far the work is, in plain lines on stderr.
struct Shown {
    column: String,
    missing: u64,
    started: Instant,
    last: Instant,
    printer: Option<Printer>,
}

impl Shown {
    fn new(column: String, missing: u64, progress: ProgressMode) -> Self {
        let printer = (progress != ProgressMode::None).then(Printer::new);
        Self { column, missing, started: Instant::now(), last: Instant::now(), printer }
    }

    fn done(&mut self, done: u64) {
        let Some(printer) = self.printer.as_mut().filter(|_| self.last.elapsed() >= PLAIN_EVERY) else { return };
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
        0 if summary.in_pass => "annotated with the embedding".to_owned(),
        0 => "none was missing".to_owned(),
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

fn warn(summary: &AnnotationSummary, printer: &mut Printer) {
    printer.warning(format_args!("{} went to the quarantine", counted(summary.rows_quarantined, "row")));
    printer.hint(format_args!("polylance quarantine list --table {}", summary.table));
}
