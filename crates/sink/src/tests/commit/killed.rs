use datafusion::{error::DataFusionError, physical_plan::stream::RecordBatchStreamAdapter};
use futures::{StreamExt, stream};

use crate::Table;
use crate::tests::*;

fn docs(range: std::ops::Range<u64>) -> Vec<RecordBatch> {
    range.map(|i| batch(&[Doc::new(i, &format!("d{i}"), &["t"])])).collect()
}

#[tokio::test]
async fn killed_before_commit_leaves_no_row() {
    let fixture = TestTable::new();
    let plan = plan(docs(0..50), fixture.target("r1", 1_000));
    let mut commits = plan.execute(0, SessionContext::new().task_ctx()).unwrap();
    // Poll until data files are being written, then drop the run.
    let _ = futures::poll!(commits.next());
    tokio::task::yield_now().await;
    drop(commits);
    assert!(Table::open(&fixture.uri()).await.unwrap().is_none());

    run(docs(0..50), fixture.target("r2", 1_000)).await.unwrap();
    assert_eq!(fixture.rows().await.iter().filter(|row| row.3 == "r2").count(), 50);
}

#[tokio::test]
async fn killed_between_windows_keeps_what_was_committed() {
    let fixture = TestTable::new();
    let plan = plan(docs(0..10), fixture.target("r1", 3));
    let mut commits = plan.execute(0, SessionContext::new().task_ctx()).unwrap();
    commits.next().await.unwrap().unwrap();
    drop(commits);
    let keys = fixture.keys().await;
    assert_eq!(keys, (0..3).map(|i| (format!("d{i}"), 0)).collect::<Vec<_>>());

    run(docs(3..10), fixture.target("r2", 3)).await.unwrap();
    assert_eq!(fixture.keys().await, (0..10).map(|i| (format!("d{i}"), 0)).collect::<Vec<_>>());
}

#[tokio::test]
async fn error_upstream_keeps_every_complete_document() {
    let fixture = TestTable::new();
    let target = fixture.target("r1", 2);
    let failing = Arc::new(FailingExec::new(docs(0..4)));
    let error = collect(plan_commit(failing, target).unwrap(), SessionContext::new().task_ctx()).await.unwrap_err();
    assert!(error.to_string().contains("device failed"), "{error}");
    // The last document may be incomplete.
    assert_eq!(fixture.keys().await, (0..3).map(|i| (format!("d{i}"), 0)).collect::<Vec<_>>());
    assert_eq!(fixture.dataset().await.version_id(), 2);
}

/// Yields its batches, then an error.
#[derive(Debug)]
struct FailingExec {
    batches: Vec<RecordBatch>,
    inner: Arc<dyn ExecutionPlan>,
}

impl FailingExec {
    fn new(batches: Vec<RecordBatch>) -> Self {
        let inner = MemorySourceConfig::try_new_exec(&[vec![]], input_schema(), None).unwrap();
        Self { batches, inner }
    }
}

impl datafusion::physical_plan::DisplayAs for FailingExec {
    fn fmt_as(
        &self,
        _: datafusion::physical_plan::DisplayFormatType,
        f: &mut std::fmt::Formatter<'_>,
    ) -> std::fmt::Result {
        write!(f, "FailingExec")
    }
}

impl ExecutionPlan for FailingExec {
    fn name(&self) -> &'static str {
        "FailingExec"
    }

    fn properties(&self) -> &Arc<datafusion::physical_plan::PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        _: usize,
        _: Arc<datafusion::execution::TaskContext>,
    ) -> datafusion::error::Result<datafusion::execution::SendableRecordBatchStream> {
        let error = DataFusionError::Execution("device failed".to_owned());
        let batches: Vec<_> = self.batches.iter().cloned().map(Ok).chain([Err(error)]).collect();
        Ok(Box::pin(RecordBatchStreamAdapter::new(input_schema(), stream::iter(batches))))
    }
}
