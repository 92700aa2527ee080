//! Fills columns of a table, one head after another, with all that the user sees of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::FieldRef;
use polylance_config::{Annotate, Pipeline};
use polylance_encoder::ModelFiles;
use polylance_schema::Contract;
use polylance_sink::{CommitPolicy, Declared};
use polylance_worker::{PassHead, PoolOptions, Selection, TaskPool, head_contract, shares_pass};

use crate::{
    annotation::{AnnotationJob, AnnotationSummary, OpenAnnotation},
    error::Result,
    exit::ExitStatus,
    interrupt::{self, Interrupted, Stopping},
    job::Stop,
    pipeline::{ProgressMode, files_in_table},
    printer::{Printer, counted, thousands},
    task_args::usage,
};

/// How often a plain line says how far the work is.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Columns to fill, and on what.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "columns of a table: there is no shorter word")]
pub(crate) struct Columns {
    pub(crate) table: String,
    pub(crate) columns: Vec<Annotate>,
    /// What the heads are computed on, and in which arithmetic.
    pub(crate) selection: Selection,
    pub(crate) commit_rows: u64,
    pub(crate) commit_seconds: u64,
    /// How long what is in work may take when the command is told to stop.
    pub(crate) grace: Duration,
    /// How long a device's batch may take; the pool's own limit unless given.
    pub(crate) stall: Option<Duration>,
}

impl Columns {
    /// Those of a pipeline file.
    pub(crate) fn of(pipeline: &Pipeline, selection: &Selection) -> Self {
        Self {
            table: pipeline.table.uri.clone(),
            columns: pipeline.annotate.clone(),
            selection: selection.clone(),
            commit_rows: pipeline.table.commit.rows,
            commit_seconds: pipeline.table.commit.seconds,
            grace: Duration::from_secs(pipeline.run.grace),
            stall: Some(Duration::from_secs(pipeline.run.stall)),
        }
    }
}

/// Finds the models of all columns, before the first one is computed.
pub(crate) async fn prepare(columns: &Columns) -> Result<Vec<Column>> {
    let mut prepared = Vec::with_capacity(columns.columns.len());
    for annotate in &columns.columns {
        prepared.push(Column::open(annotate, columns).await?);
    }
    Ok(prepared)
}

/// Finds the heads that can be asked in the pass of this embedding.
pub(crate) async fn share(prepared: &mut [Column], embedding: &ModelFiles, contract: &Contract) -> Result<()> {
    for column in prepared {
        let (embedding, contract) = (embedding.clone(), contract.clone());
        let (files, asked) = (column.files.clone(), column.job.contract.clone());
        let shares = move || shares_pass(&embedding, &contract, &files, &asked);
        column.in_pass = tokio::task::spawn_blocking(shares).await??;
    }
    Ok(())
}

/// What a new row costs, in words.
pub(crate) fn cost(prepared: &[Column]) -> String {
    let names = |in_pass: bool| {
        let names = prepared.iter().filter(|column| column.in_pass == in_pass).map(|column| column.job.column.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let passes = 1 + prepared.iter().filter(|column| !column.in_pass).count();
    let with = if passes > prepared.len() { String::new() } else { format!(" with {}", names(true)) };
    match passes {
        1 => format!("a new row costs one pass: the embedding with {}", names(true)),
        _ => format!("a new row costs {passes} passes: the embedding{with}, then one each for {}", names(false)),
    }
}

/// Says which columns begin anew.
pub(crate) fn warn_replaced(column: &str, declared: Declared, printer: &mut Printer) {
    if declared == Declared::Replaced {
        printer.warning(format_args!("column {column} was filled by another head: it begins anew"));
    }
}

/// Fills the columns, one after another.
pub(crate) async fn fill(
    prepared: Vec<Column>,
    columns: &Columns,
    progress: ProgressMode,
    json: bool,
    stopping: &Stopping,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let mut status = ExitStatus::Done;
    for column in prepared {
        let open = column.job.clone().open().await?;
        warn_replaced(&column.job.column, open.declared(), printer);
        let in_pass = column.in_pass;
        let summary = AnnotationSummary { in_pass, ..column.fill(open, columns, progress, stopping).await? };
        if json {
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

/// A column whose model was found.
#[derive(Debug)]
pub(crate) struct Column {
    files: ModelFiles,
    job: AnnotationJob,
    /// Whether the embedding's pass fills it; only rows that were there before are then missing.
    in_pass: bool,
}

impl Column {
    async fn open(annotate: &Annotate, columns: &Columns) -> Result<Self> {
        let (spec, inputs) = annotate.task().map_err(usage)?;
        let files = files_in_table(&annotate.model, &columns.table).await?;
        let options = columns.selection.options();
        let hashed = files.clone();
        let contract = tokio::task::spawn_blocking(move || head_contract(&hashed, spec, inputs, &options)).await??;
        let commit = CommitPolicy { rows: columns.commit_rows, seconds: columns.commit_seconds };
        let job = AnnotationJob { table: columns.table.clone(), column: annotate.name.clone(), contract, commit };
        Ok(Self { files, job, in_pass: false })
    }

    /// The head and its column, when they are part of the embedding's pass.
    pub(crate) fn of_pass(&self) -> Option<(PassHead, FieldRef)> {
        let AnnotationJob { column, contract, .. } = &self.job;
        let field = contract.field(column).filter(|_| self.in_pass)?;
        Some((PassHead { files: self.files.clone(), spec: contract.spec.clone() }, Arc::new(field)))
    }

    /// Loads the model when there is a row to annotate.
    async fn fill(
        self,
        open: OpenAnnotation,
        columns: &Columns,
        progress: ProgressMode,
        stopping: &Stopping,
    ) -> Result<AnnotationSummary> {
        let missing = open.missing();
        if missing == 0 {
            return Ok(open.nothing());
        }
        let spec = self.job.contract.spec.clone();
        let options = PoolOptions { stall: columns.stall, ..columns.selection.options() };
        let files = self.files;
        let pool = tokio::task::spawn_blocking(move || TaskPool::open(&files, spec, &options)).await??;
        let mut shown = Shown::new(self.job.column, missing, progress);
        let stop = Stop::default();
        stopping.set(stop.clone(), columns.grace, interrupt::FINISHES);
        let ended = open.run(Arc::new(pool), &stop, &mut |done| shown.done(done)).await;
        stopping.unset();
        Ok(ended?)
    }
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
