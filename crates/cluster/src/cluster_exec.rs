//! Embeds a source on a cluster.
//!
//! in:  nothing
//! out: `window_schema()`, in the order of the source: what [`LanceWriteExec`](polylance_sink::LanceWriteExec) yields
//!      over the plan of the same source on this machine
//!
//! The commit operator above it is that of a local run. A [`ShutdownSignal`] lets the splits in flight end; one that is
//! forced cancels them. Windows that are complete and in order are yielded before any error.

use std::{fmt, sync::Arc, time::Duration};

use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchReceiverStream,
    },
};
use polylance_dataflow::{
    ShutdownSignal, Source, SourceIds, SplitMetrics,
    operator::{fmt_operator, properties},
};
use polylance_sink::{QUARANTINED_METRIC, TableTarget, window_schema};

use crate::{driver::Driver, engine::Engine, error::ClusterError};

/// Settings of a run on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Bytes of the source in a split, as stored.
    pub split_bytes: u64,
    /// How long a run waits for a cluster that is not reached, or has no executor.
    pub patience: Duration,
    /// Whether all machines see the same files at the same paths.
    pub shared_files: bool,
}

/// What of a run is the same for all its splits.
#[derive(Debug)]
pub struct ClusterSpec {
    /// The queue of the cluster.
    pub engine: Arc<dyn Engine>,
    /// Settings of the run.
    pub settings: ClusterSettings,
    /// The pipeline, for the executors' models.
    pub pipeline: String,
    /// The table.
    pub target: TableTarget,
    /// The version of the table whose documents are not embedded again; `None` for a new table.
    pub known_version: Option<u64>,
    /// Memory of an executor for the ids of the table's documents, in bytes.
    pub memory: usize,
}

/// Embeds on a cluster.
#[derive(Debug)]
pub struct ClusterExec {
    source: Source,
    spec: Arc<ClusterSpec>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    split_metrics: SplitMetrics,
    quarantined: Count,
}

impl ClusterExec {
    /// Over a source that was opened, and so checked.
    ///
    /// # Errors
    /// [`ClusterError::NotShared`] if other machines do not see the source or the table.
    pub fn try_new(source: Source, spec: ClusterSpec) -> Result<Self, ClusterError> {
        let not_shared = |uri: String, reason: &str| ClusterError::NotShared { uri, reason: reason.to_owned() };
        if let Some(reason) = source.refuses_splits(spec.settings.shared_files) {
            return Err(not_shared(source.address(), reason));
        }
        let table = &spec.target.uri;
        if !spec.settings.shared_files && (!table.contains("://") || table.starts_with("file://")) {
            return Err(not_shared(table.clone(), "the table is on the disks of this machine"));
        }
        let metrics = ExecutionPlanMetricsSet::new();
        let split_metrics = SplitMetrics::new(&metrics, source.total_bytes());
        let quarantined = MetricBuilder::new(&metrics).counter(QUARANTINED_METRIC, 0);
        let properties = properties(window_schema());
        Ok(Self { source, spec: Arc::new(spec), properties, metrics, split_metrics, quarantined })
    }
}

impl DisplayAs for ClusterExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uri, table) = (self.source.address(), &self.spec.target.uri);
        let (files, bytes) = (self.source.files(), self.source.total_bytes());
        let split = self.spec.settings.split_bytes;
        let fields: [(&str, &dyn fmt::Display); 5] =
            [("uri", &uri), ("files", &files), ("bytes", &bytes), ("table", table), ("split_bytes", &split)];
        fmt_operator(format, f, self.name(), &fields)
    }
}

impl ExecutionPlan for ClusterExec {
    fn name(&self) -> &'static str {
        "ClusterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(DataFusionError::Plan("ClusterExec has no input".into())) }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut builder = RecordBatchReceiverStream::builder(window_schema(), 1);
        let driver = Driver {
            spec: Arc::clone(&self.spec),
            source: self.source.clone(),
            shutdown: ShutdownSignal::of(&context),
            source_ids: SourceIds::of(&context),
            metrics: self.split_metrics.clone(),
            quarantined: self.quarantined.clone(),
            output: builder.tx(),
        };
        let output = builder.tx();
        builder.spawn(Box::pin(async move {
            // Through the queue, so that the error does not overtake a window.
            if let Err(error) = driver.run().await {
                output.send(Err(error)).await.ok();
            }
            Ok(())
        }));
        Ok(builder.build())
    }
}
