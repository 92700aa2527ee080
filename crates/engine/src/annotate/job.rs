//! The annotation job: one plan from the rows that lack a value, through a head, to the table's column.

use std::{sync::Arc, time::Instant};

use arrow::{array::RecordBatch, datatypes::Field};
use datafusion::{
    error::DataFusionError,
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use polylance_backend::{Annotator, AnnotatorHandle};
use polylance_dataflow::{AnnotateExec, Cancelled, ShutdownSignal};
use polylance_schema::{CommitPolicy, HeadContract};
use polylance_sink::{Declared, FillReport, FillTarget, LanceFillExec, TableRowsExec};
use serde::Serialize;
use uuid::Uuid;

use crate::{EngineError, aborted::TasksBefore};

/// A column of a table and the head that fills it.
#[derive(Debug, Clone)]
pub struct AnnotationJob {
    /// The table's address.
    pub table: String,
    /// The column's name.
    pub column: String,
    /// The contract of the head, which decides the column's values.
    pub contract: HeadContract,
    /// When rows are committed.
    pub commit: CommitPolicy,
}

/// A job whose column is declared and whose missing rows are counted.
#[derive(Debug)]
pub struct OpenAnnotation {
    job: AnnotationJob,
    field: Field,
    declared: Declared,
    missing: u64,
}

/// The result of a run for one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnnotationSummary {
    /// The run's id, as in the properties of its commits.
    pub run_id: String,
    /// The table's address.
    pub table: String,
    /// The column.
    pub column: String,
    /// Whether the embedding's pass fills the column in new rows; the other figures are those of older rows.
    #[serde(rename = "in_pass")]
    pub fused: bool,
    /// The table's version after the last commit; absent if no row was missing.
    pub version: Option<u64>,
    /// Rows without a value before the run.
    pub rows_missing: u64,
    /// Rows that got a value.
    pub rows_annotated: u64,
    /// Rows that went to the quarantine.
    pub rows_quarantined: u64,
    /// Whether the run was stopped before the last row.
    pub stopped: bool,
    /// From the first row to the last commit.
    pub seconds: f64,
}

impl AnnotationJob {
    /// Declares the column, a commit without data, and counts the rows without a value.
    ///
    /// # Errors
    /// [`EngineError::Sink`] if there is no table, or if its column of that name is not an annotation.
    pub async fn open(self) -> Result<OpenAnnotation, EngineError> {
        let field = self
            .contract
            .field(&self.column)
            .ok_or_else(|| DataFusionError::Plan(format!("the task {} has no column", self.contract.spec.name())))?;
        // This comes first: a table that lacks the head's inputs must not be changed.
        TableRowsExec::open(&self.table, &self.column, &self.contract.inputs).await?;
        let declared = polylance_sink::declare_columns(&self.table, std::slice::from_ref(&field)).await?;
        let declared = declared.into_iter().next().unwrap_or(Declared::Kept);
        let missing = polylance_sink::missing_rows(&self.table, &self.column).await?;
        Ok(OpenAnnotation { job: self, field, declared, missing })
    }
}

impl OpenAnnotation {
    /// Rows without a value.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// How the column was declared.
    pub fn declared(&self) -> Declared {
        self.declared
    }

    /// The summary of a run without missing rows.
    pub fn into_empty_summary(self) -> AnnotationSummary {
        self.summary()
    }

    fn summary(&self) -> AnnotationSummary {
        AnnotationSummary {
            run_id: Uuid::now_v7().to_string(),
            table: self.job.table.clone(),
            column: self.job.column.clone(),
            fused: false,
            version: None,
            rows_missing: self.missing,
            rows_annotated: 0,
            rows_quarantined: 0,
            stopped: false,
            seconds: 0.0,
        }
    }

    /// Fills the column, to its end or until `shutdown`. `progress` receives the number of completed rows after each
    /// commit. Dropping the future ends the run at once: committed rows stay, and another run continues from there.
    ///
    /// # Errors
    /// [`EngineError`] when the table or the device fails.
    pub async fn run(
        self,
        annotator: Arc<dyn Annotator>,
        shutdown: &ShutdownSignal,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<AnnotationSummary, EngineError> {
        let started = Instant::now();
        let mut summary = self.summary();
        let Self { job, field, missing, .. } = self;
        let handle = Arc::new(AnnotatorHandle(annotator));
        let mut moved = missing;
        // Rows that a concurrent compaction moves are searched for again.
        while moved > 0 {
            (moved, summary.rows_quarantined) = (0, 0);
            let rows = Arc::new(TableRowsExec::open(&job.table, &job.column, &job.contract.inputs).await?);
            let annotate = Arc::new(AnnotateExec::try_new(rows, &field)?);
            let target = FillTarget {
                uri: job.table.clone(),
                column: field.clone(),
                run_id: summary.run_id.clone(),
                commit: job.commit,
            };
            let plan: Arc<dyn ExecutionPlan> = Arc::new(LanceFillExec::try_new(annotate, target)?);
            let mut config = SessionConfig::new().with_target_partitions(1).with_extension(Arc::clone(&handle));
            config.set_extension(Arc::new(shutdown.clone()));
            let before = TasksBefore::count();
            let mut commits = plan.execute(0, SessionContext::new_with_config(config).task_ctx())?;
            loop {
                match commits.try_next().await {
                    Ok(Some(commit)) => moved += summary.add(&commit)?,
                    Ok(None) => break,
                    Err(error) if Cancelled::is_cause_of(&error) => {
                        (moved, summary.stopped) = (0, true);
                        break;
                    }
                    Err(error) => {
                        drop(commits);
                        before.wait_for_aborted().await;
                        return Err(error.into());
                    }
                }
                progress(summary.rows_annotated + summary.rows_quarantined);
            }
        }
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }
}

impl AnnotationSummary {
    /// Adds the reports of a batch. Returns the number of rows that a compaction had moved.
    fn add(&mut self, batch: &RecordBatch) -> Result<u64, EngineError> {
        let mut moved = 0;
        for report in FillReport::from_batch(batch)? {
            self.version = Some(report.version);
            self.rows_annotated += report.rows;
            self.rows_quarantined += report.quarantined;
            moved += report.moved;
        }
        Ok(moved)
    }
}
