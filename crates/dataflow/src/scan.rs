//! Reads the files of a source, one after another.
//!
//! in:  nothing
//! out: `source_schema(keep)`: one row a document, in the order of the files and of their rows
//!
//! A row that no model can embed has its `_error` set. A file that cannot be read, or breaks off, is one such row
//! without an id. Of a file whose rows the table has, only the ids are filled. While a file is read, the next one is being opened.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray},
    compute::filter,
    datatypes::{DataType, Field},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use polylance_schema::{ContentRule, file_tail_error, source_schema};

use crate::{
    Source, SourceError,
    batches::Rows,
    location::SourceFile,
    operator,
    read::{Columns, OpenFile, ReadError, RowStream},
};

/// Name of the metric with the bytes read so far.
pub(crate) const BYTES_READ: &str = "bytes_read";
/// The column of the built-in corpus by which translations are selected.
const CODE: &str = "code";
/// Files that are open at once: the one being read and the next.
const OPEN_FILES: usize = 2;

/// Scans a source.
#[derive(Debug)]
pub struct SourceScanExec {
    source: Source,
    rule: ContentRule,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SourceScanExec {
    /// A scan of a source that was opened, and so checked.
    pub fn new(source: Source) -> Self {
        let properties = operator::properties(source_schema(source.keep_fields()));
        Self { source, rule: ContentRule::default(), properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// Makes the content hashes by the rule of a table.
    #[must_use]
    pub fn with_rule(self, rule: ContentRule) -> Self {
        Self { rule, ..self }
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.source.total_bytes()
    }
}

impl DisplayAs for SourceScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spec, files, bytes) = (&self.source.spec, self.source.files(), self.source.total_bytes());
        let uri = spec.address();
        write!(f, "SourceScanExec: uri={uri}, files={files}, bytes={bytes}, id={}, text={}", spec.id, spec.text)
    }
}

impl ExecutionPlan for SourceScanExec {
    fn name(&self) -> &'static str {
        "SourceScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(DataFusionError::Plan("SourceScanExec has no input".into())) }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let bytes_read = MetricBuilder::new(&self.metrics).counter(BYTES_READ, partition);
        let (schema, source) = (self.schema(), self.source.clone());
        let (batch_schema, rule) = (Arc::clone(&schema), self.rule);
        let batches = documents(source, bytes_read).map(move |item| {
            let (file, rows) = item?;
            let batch = rows.into_batch(rule, &batch_schema, &file.uri)?;
            Ok(batch.record_output(&baseline))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The rows of all files, each batch with the file it is from.
fn documents(source: Source, bytes_read: Count) -> impl stream::Stream<Item = Result<(SourceFile, Rows)>> + Send {
    let Source { spec, location, mut columns } = source;
    let codes = location.codes.map(|codes| {
        // The selection needs its column, whether it is kept or not.
        let kept = columns.keep.iter().position(|field| field.name() == CODE);
        let at = kept.unwrap_or(columns.keep.len());
        if kept.is_none() {
            columns.keep.push(Arc::new(Field::new(CODE, DataType::Utf8, true)));
        }
        Codes { wanted: codes, at, extra: kept.is_none() }
    });
    let (store, others, format) = (location.store, location.format, spec.format);
    let (files, trusted) = (location.files, location.trusted);
    stream::iter(0..files.len())
        .map(move |at| {
            let file = files[at].clone();
            let open = OpenFile::new(store.clone(), others, file.clone(), bytes_read.clone());
            let only_ids = trusted.get(at).copied().unwrap_or_default();
            let columns = Columns { only_ids, ..columns.clone() };
            async move {
                let rows = open.rows(&columns, format).await;
                (file, rows, columns)
            }
        })
        .buffered(OPEN_FILES)
        .flat_map(|(file, rows, columns)| {
            contained(rows, columns, file.clone()).map_ok(move |rows| (file.clone(), rows))
        })
        .map(move |found| {
            let (file, rows) = found?;
            match &codes {
                Some(codes) => Ok((file, codes.select(rows)?)),
                None => Ok((file, rows)),
            }
        })
}

/// The rows of a file; what stops the file becomes its last row, and a store that fails ends the scan.
fn contained(
    rows: std::result::Result<RowStream, ReadError>,
    columns: Columns,
    file: SourceFile,
) -> impl stream::Stream<Item = std::result::Result<Rows, SourceError>> + Send {
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => stream::once(async { Err(error) }).boxed(),
    };
    let mut next = 0;
    rows.map(move |rows| match rows {
        Ok(rows) => {
            next += rows.errors.len() as u64;
            // A format that cannot leave the content unread has read it for nothing.
            Ok(if columns.only_ids {
                Rows::of_ids(rows.id, rows.row, &columns.keep)
            } else {
                rows.checked(columns.max_bytes)
            })
        }
        Err(error) if error.is_change() => Err(SourceError::Changed { file: file.uri.clone() }),
        Err(error) if file.is_remote() && error.is_of_the_store() => {
            Err(SourceError::Store { file: file.uri.clone(), source: Box::new(error) })
        }
        Err(error) => Ok(Rows::of_file(&columns.keep, next, file_tail_error(&error))),
    })
}

/// Translations of the built-in corpus to read.
struct Codes {
    wanted: Vec<String>,
    /// Where the code is among the kept columns.
    at: usize,
    /// Whether it is not one of them.
    extra: bool,
}

impl Codes {
    fn select(&self, mut rows: Rows) -> Result<Rows> {
        let found = rows.keep[self.at].as_string::<i32>();
        let wanted: BooleanArray =
            found.iter().map(|code| Some(code.is_some_and(|code| self.wanted.iter().any(|c| c == code)))).collect();
        let filter = |array: &dyn Array| filter(array, &wanted);
        rows.keep = rows.keep.iter().map(|array| filter(array)).collect::<std::result::Result<_, _>>()?;
        if self.extra {
            rows.keep.pop();
        }
        let mut wanted_errors = wanted.values().iter();
        rows.errors.retain(|_| wanted_errors.next().unwrap_or(false));
        rows.id = filter(&rows.id)?.as_string().clone();
        rows.text = filter(&rows.text)?.as_string().clone();
        rows.row = filter(&rows.row)?.as_primitive().clone();
        Ok(rows)
    }
}

/// Refuses codes that the built-in corpus does not have.
pub(crate) async fn check_codes(source: &Source) -> std::result::Result<(), SourceError> {
    let Some(codes) = &source.location.codes else { return Ok(()) };
    let mut missing = codes.clone();
    let everything =
        Source { location: crate::location::Location { codes: None, ..source.location.clone() }, ..source.clone() };
    let with_code = Columns { keep: vec![Arc::new(Field::new(CODE, DataType::Utf8, true))], ..source.columns.clone() };
    let rows = documents(Source { columns: with_code, ..everything }, Count::new());
    let unreadable =
        |error: DataFusionError| SourceError::Unreadable { file: source.spec.uri.clone(), message: error.to_string() };
    let mut rows = std::pin::pin!(rows);
    while let Some((_, rows)) = rows.try_next().await.map_err(unreadable)? {
        for code in rows.keep[0].as_string::<i32>().iter().flatten() {
            missing.retain(|wanted| wanted != code);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(SourceError::UnknownCode { codes: missing }) }
}
