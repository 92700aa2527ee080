//! Documents, plans and metrics for the operators' tests.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array, new_null_array},
    compute::concat_batches,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    catalog::memory::MemorySourceConfig,
    error::Result,
    execution::TaskContext,
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, collect},
    prelude::SessionConfig,
};
use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{
    AnnotateInput, Annotated, Annotator, Backend, BackendHandle, BackendInfo, Chunk, Embeddings, TokenizeSpec,
};
use polylance_schema::{TaskSpec, columns::ERROR, error_fields, source_schema};
use polylance_testkit::{FakeAnnotator, FakeBackend};

/// Documents of one file as a scan yields them, without kept columns: `(id, text)`, each with a hash of its text.
pub(crate) fn documents(rows: &[(&str, &str)]) -> RecordBatch {
    let hash = |text: &str| <[u8; 16]>::try_from(&blake3::hash(text.as_bytes()).as_bytes()[..16]).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(FixedSizeBinaryArray::try_from_iter(rows.iter().map(|row| hash(row.1))).unwrap()),
        Arc::new(StringArray::from(vec!["file"; rows.len()])),
        Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64)),
        new_null_array(&DataType::Struct(error_fields()), rows.len()),
    ];
    RecordBatch::try_new(source_schema(&[]), columns).unwrap()
}

/// A plan that yields these batches.
pub(crate) fn memory(schema: SchemaRef, batches: &[RecordBatch]) -> Arc<dyn ExecutionPlan> {
    MemorySourceConfig::try_new_exec(&[batches.to_vec()], schema, None).unwrap()
}

/// A session with this backend.
pub(crate) fn session(backend: Arc<dyn Backend>) -> Arc<TaskContext> {
    let config = SessionConfig::new().with_extension(Arc::new(BackendHandle(backend)));
    Arc::new(TaskContext::default().with_session_config(config))
}

/// How long a slow device or tokenizer takes for a call.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// A fake device that answers each call after a pause.
#[derive(Debug)]
pub(crate) struct SlowBackend(pub(crate) FakeBackend);

fn later<T: Send + 'static>(answer: BoxFuture<'static, T>) -> BoxFuture<'static, T> {
    tokio::time::sleep(PAUSE).then(|()| answer).boxed()
}

impl Backend for SlowBackend {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }

    fn tokenize(
        &self,
        texts: Vec<String>,
        spec: &TokenizeSpec,
    ) -> BoxFuture<'static, polylance_backend::Result<Vec<Vec<Chunk>>>> {
        later(self.0.tokenize(texts, spec))
    }

    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, polylance_backend::Result<Embeddings>> {
        later(self.0.encode(inputs))
    }
}

/// A fake head that answers each call after a pause.
#[derive(Debug)]
pub(crate) struct SlowAnnotator(pub(crate) FakeAnnotator);

impl Annotator for SlowAnnotator {
    fn spec(&self) -> &TaskSpec {
        self.0.spec()
    }

    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, polylance_backend::Result<Vec<Annotated>>> {
        later(self.0.annotate(inputs))
    }
}

/// All rows of a plan.
pub(crate) async fn rows(plan: &Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<RecordBatch> {
    let batches = collect(Arc::clone(plan), context).await?;
    Ok(concat_batches(&plan.schema(), &batches)?)
}

/// A column of text; `-` for null.
pub(crate) fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    batch[column].as_string::<i32>().iter().map(|value| value.unwrap_or("-").to_owned()).collect()
}

/// The message of each row that was refused.
pub(crate) fn messages(batch: &RecordBatch) -> Vec<Option<String>> {
    let errors = batch[ERROR].as_struct();
    let message = |row| errors.column(1).as_string::<i32>().value(row).to_owned();
    (0..batch.num_rows()).map(|row| errors.is_valid(row).then(|| message(row))).collect()
}

/// The value of a metric in all partitions; a time is in nanoseconds.
pub(crate) fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let metrics = plan.metrics().unwrap();
    let sum = metrics.sum(|metric| metric.value().name() == name);
    sum.unwrap_or_else(|| panic!("no metric {name}: {metrics}")).as_usize()
}

/// An operator on one line, and in a tree.
pub(crate) fn shown(operator: &impl DisplayAs) -> (String, String) {
    (
        Shown(operator, DisplayFormatType::Default).to_string(),
        Shown(operator, DisplayFormatType::TreeRender).to_string(),
    )
}

struct Shown<'a, D>(&'a D, DisplayFormatType);

impl<D: DisplayAs> fmt::Display for Shown<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(self.1, f)
    }
}
