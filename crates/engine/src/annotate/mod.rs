//! Annotation: heads fill columns of a table.

mod job;

use std::{sync::Arc, time::Duration};

use arrow::datatypes::FieldRef;
use polylance_config::{Annotate, Pipeline};
use polylance_encoder::ModelFiles;
use polylance_schema::{CommitPolicy, Contract};
use polylance_sink::Declared;
use polylance_worker::{FusedHead, PoolOptions, Selection, TaskPool, can_fuse, head_contract};

use crate::{EngineError, ShutdownSignal, resolve::files_in_table};

pub use job::{AnnotationJob, AnnotationSummary, OpenAnnotation};

/// Columns to fill, and the devices to use.
#[derive(Debug, Clone)]
pub struct AnnotateRequest {
    /// The table's address.
    pub table: String,
    /// The columns with their heads.
    pub columns: Vec<Annotate>,
    /// Devices and dtype of the heads.
    pub selection: Selection,
    /// When rows are committed.
    pub commit: CommitPolicy,
    /// How long a device's batch may take; `None` for the default of the pool.
    pub stall: Option<Duration>,
}

impl AnnotateRequest {
    /// The columns of a pipeline.
    pub fn new(pipeline: &Pipeline, selection: &Selection) -> Self {
        Self {
            table: pipeline.table.uri.clone(),
            columns: pipeline.annotate.clone(),
            selection: selection.clone(),
            commit: pipeline.table.commit,
            stall: Some(Duration::from_secs(pipeline.run.stall)),
        }
    }

    /// Finds the models of all columns before the first one is filled.
    ///
    /// # Errors
    /// [`EngineError::Task`], [`EngineError::Model`], [`EngineError::Sink`].
    pub async fn resolve(&self) -> Result<Vec<ResolvedColumn>, EngineError> {
        let mut resolved = Vec::with_capacity(self.columns.len());
        for annotate in &self.columns {
            resolved.push(ResolvedColumn::find(annotate, self).await?);
        }
        Ok(resolved)
    }
}

/// A column whose model was found.
#[derive(Debug)]
pub struct ResolvedColumn {
    files: ModelFiles,
    job: AnnotationJob,
    options: PoolOptions,
    /// Whether the embedding's pass fills it; then only older rows can lack a value.
    fused: bool,
}

impl ResolvedColumn {
    async fn find(annotate: &Annotate, request: &AnnotateRequest) -> Result<Self, EngineError> {
        let (spec, inputs) = annotate.task()?;
        let files = files_in_table(&annotate.model, &request.table).await?;
        let options = request.selection.options();
        let (hashed_files, hashed_options) = (files.clone(), options.clone());
        let contract =
            tokio::task::spawn_blocking(move || head_contract(&hashed_files, spec, inputs, &hashed_options)).await??;
        let (table, column) = (request.table.clone(), annotate.name.clone());
        let job = AnnotationJob { table, column, contract, commit: request.commit };
        Ok(Self { files, job, options: PoolOptions { stall: request.stall, ..options }, fused: false })
    }

    /// The column's name.
    pub fn name(&self) -> &str {
        &self.job.column
    }

    /// Whether the embedding's pass fills it in new rows.
    pub fn is_fused(&self) -> bool {
        self.fused
    }

    /// Checks whether the pass of this embedding can fill it.
    pub(crate) async fn fuse(&mut self, embedding: &ModelFiles, contract: &Contract) -> Result<(), EngineError> {
        let (embedding, contract) = (embedding.clone(), contract.clone());
        let (files, head) = (self.files.clone(), self.job.contract.clone());
        let check = move || can_fuse(&embedding, &contract, &files, &head);
        self.fused = tokio::task::spawn_blocking(check).await??;
        Ok(())
    }

    /// The head and its column, if they are part of the embedding's pass.
    pub(crate) fn fused_head(&self) -> Option<(FusedHead, FieldRef)> {
        let AnnotationJob { column, contract, .. } = &self.job;
        let field = contract.field(column).filter(|_| self.fused)?;
        Some((FusedHead { files: self.files.clone(), spec: contract.spec.clone() }, Arc::new(field)))
    }

    /// Declares the column in the table and counts the rows that lack a value.
    ///
    /// # Errors
    /// As [`AnnotationJob::open`].
    pub async fn open(self) -> Result<OpenColumn, EngineError> {
        let open = self.job.clone().open().await?;
        Ok(OpenColumn { column: self, open })
    }
}

/// A column whose missing rows are counted.
#[derive(Debug)]
pub struct OpenColumn {
    column: ResolvedColumn,
    open: OpenAnnotation,
}

impl OpenColumn {
    /// The column's name.
    pub fn name(&self) -> &str {
        self.column.name()
    }

    /// Rows without a value.
    pub fn missing(&self) -> u64 {
        self.open.missing()
    }

    /// How the column was declared in the table.
    pub fn declared(&self) -> Declared {
        self.open.declared()
    }

    /// Fills the rows that lack a value, to the end or until `shutdown`; the model is loaded if there is such a row.
    /// `progress` receives the number of completed rows after each commit.
    ///
    /// # Errors
    /// [`EngineError::Pool`] if the model cannot be opened, and those of [`OpenAnnotation::run`].
    pub async fn fill(
        self,
        shutdown: &ShutdownSignal,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<AnnotationSummary, EngineError> {
        let Self { column: ResolvedColumn { files, job, options, fused }, open } = self;
        let summary = if open.missing() == 0 {
            open.into_empty_summary()
        } else {
            let spec = job.contract.spec;
            let pool = tokio::task::spawn_blocking(move || TaskPool::open(&files, spec, &options)).await??;
            open.run(Arc::new(pool), shutdown, progress).await?
        };
        Ok(AnnotationSummary { fused, ..summary })
    }
}
