//! Gathers the rows of one document, so that it goes to the table whole or not at all.
//!
//! Chunks of a document arrive one after the other, over any number of batches. The rows of an incomplete document wait
//! here: in memory up to [`MAX_DOCUMENT_BYTES_IN_MEMORY`], then in a temporary file. So a document of any length needs
//! bounded memory, and an error in its last chunk still keeps out its first.

use std::{fs::File, io::BufReader, io::BufWriter, ops::Range, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, StructArray, UInt64Array},
    datatypes::{DataType, SchemaRef, UInt64Type},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use datafusion::{
    common::runtime::SpawnedTask,
    error::{DataFusionError, Result},
    execution::{
        TaskContext,
        disk_manager::{DiskManager, RefCountedTempFile},
    },
};
use polylance_schema::{
    Stage,
    columns::{DOC_ID, EMBEDDING, ERROR, MESSAGE, SOURCE, SOURCE_ROW, STAGE, TEXT},
};

use super::window::{Document, FailedDocument};

/// Bytes of one incomplete document in memory; more spills to a temporary file.
const MAX_DOCUMENT_BYTES_IN_MEMORY: usize = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// Maximum bytes of a text in the quarantine.
pub(crate) const MAX_QUARANTINED_TEXT_BYTES: usize = 64 << 10;
/// Maximum bytes of an error in the quarantine.
pub(crate) const MAX_QUARANTINED_ERROR_BYTES: usize = 4 << 10;

/// The columns of an encoded batch that identify the document of a row and show whether the row is good.
#[derive(Debug)]
pub(crate) struct DocumentColumns<'a> {
    doc_id: &'a StringArray,
    source: &'a StringArray,
    row: &'a UInt64Array,
    text: &'a StringArray,
    embedding: &'a dyn Array,
    error: &'a StructArray,
}

/// Rows of one document in one batch.
#[derive(Debug)]
pub(crate) struct DocumentRows {
    pub(crate) rows: Range<usize>,
    /// The first row with an error.
    pub(crate) failed_row: Option<usize>,
}

impl<'a> DocumentColumns<'a> {
    /// `batch` has the encoded schema: `LanceWriteExec::try_new` has checked it.
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("a batch without `{name}`")))
        };
        Ok(Self {
            doc_id: column(DOC_ID)?.as_string(),
            source: column(SOURCE)?.as_string(),
            row: column(SOURCE_ROW)?.as_primitive::<UInt64Type>(),
            text: column(TEXT)?.as_string(),
            embedding: column(EMBEDDING)?.as_ref(),
            error: column(ERROR)?.as_struct(),
        })
    }

    /// The documents of the batch. Two rows of the source are two documents, even with the same id.
    pub(crate) fn documents(&self) -> Vec<DocumentRows> {
        let mut documents: Vec<DocumentRows> = Vec::new();
        for row in 0..self.row.len() {
            let failed_row = self.has_failed(row).then_some(row);
            match documents.last_mut() {
                Some(document) if self.same_document(row - 1, row) => {
                    document.rows.end = row + 1;
                    document.failed_row = document.failed_row.or(failed_row);
                }
                _ => documents.push(DocumentRows { rows: row..row + 1, failed_row }),
            }
        }
        documents
    }

    fn same_document(&self, a: usize, b: usize) -> bool {
        self.row.value(a) == self.row.value(b) && self.source.value(a) == self.source.value(b)
    }

    fn has_failed(&self, row: usize) -> bool {
        self.error.is_valid(row) || self.doc_id.is_null(row) || self.embedding.is_null(row)
    }

    fn continues(&self, document: &Document, row: usize) -> bool {
        self.row.value(row) == document.row && self.source.value(row) == document.source
    }

    pub(crate) fn document(&self, row: usize) -> Document {
        Document {
            doc_id: if self.doc_id.is_null(row) { String::new() } else { self.doc_id.value(row).to_owned() },
            source: self.source.value(row).to_owned(),
            row: self.row.value(row),
        }
    }

    /// The quarantine record of a failed row.
    pub(crate) fn failed_document(&self, row: usize) -> FailedDocument {
        let reported = |name: &str| {
            let column = self.error.column_by_name(name)?.as_string_opt::<i32>()?;
            (self.error.is_valid(row) && column.is_valid(row)).then(|| column.value(row))
        };
        let missing = if self.doc_id.is_null(row) { "the row has no id" } else { "the row has no embedding" };
        FailedDocument {
            source: self.source.value(row).to_owned(),
            row: self.row.value(row),
            doc_id: self.doc_id.is_valid(row).then(|| self.doc_id.value(row).to_owned()),
            stage: reported(STAGE).unwrap_or(Stage::Write.as_str()).to_owned(),
            error: cut(reported(MESSAGE).unwrap_or(missing), MAX_QUARANTINED_ERROR_BYTES).to_owned(),
            text: self.text.is_valid(row).then(|| cut(self.text.value(row), MAX_QUARANTINED_TEXT_BYTES).to_owned()),
        }
    }
}

/// The first `max_bytes` bytes of `text`, or fewer: it is cut between characters.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Whether [`DocumentColumns`] can read the column `name` with this type.
pub(crate) fn is_readable(name: &str, data_type: &DataType) -> bool {
    match name {
        DOC_ID | SOURCE | TEXT => *data_type == DataType::Utf8,
        SOURCE_ROW => *data_type == DataType::UInt64,
        _ => true,
    }
}

/// A document of which more rows may arrive.
pub(crate) struct OpenDocument {
    pub(crate) document: Document,
    pub(crate) failed: Option<FailedDocument>,
    rows: Vec<RecordBatch>,
    bytes: usize,
    spill: Option<Spill>,
}

impl OpenDocument {
    /// Begins with `rows` of `batch`.
    pub(crate) async fn begin(
        context: &TaskContext,
        batch: &RecordBatch,
        columns: &DocumentColumns<'_>,
        rows: &DocumentRows,
    ) -> Result<Self> {
        let document = columns.document(rows.rows.start);
        let mut open = Self { document, failed: None, rows: Vec::new(), bytes: 0, spill: None };
        open.push(context, batch, columns, rows).await?;
        Ok(open)
    }

    /// Whether row `row` of a batch belongs to this document too.
    pub(crate) fn continues(&self, columns: &DocumentColumns<'_>, row: usize) -> bool {
        columns.continues(&self.document, row)
    }

    /// Adds more rows.
    pub(crate) async fn push(
        &mut self,
        context: &TaskContext,
        batch: &RecordBatch,
        columns: &DocumentColumns<'_>,
        rows: &DocumentRows,
    ) -> Result<()> {
        if self.failed.is_none() {
            self.failed = rows.failed_row.map(|row| columns.failed_document(row));
        }
        if self.failed.is_some() {
            (self.rows, self.bytes, self.spill) = (Vec::new(), 0, None);
            return Ok(());
        }
        let rows = batch.slice(rows.rows.start, rows.rows.len());
        self.bytes += slice_bytes(&rows)?;
        self.rows.push(rows);
        if self.bytes > MAX_DOCUMENT_BYTES_IN_MEMORY {
            let rows = std::mem::take(&mut self.rows);
            self.bytes = 0;
            self.spill = Some(Spill::append(self.spill.take(), context, rows).await?);
        }
        Ok(())
    }

    /// The rows in their order: first those on disk, then those in memory.
    pub(crate) async fn into_rows(self) -> Result<(Option<SpilledRows>, Vec<RecordBatch>)> {
        let spilled = match self.spill {
            Some(spill) => Some(spill.read().await?),
            None => None,
        };
        Ok((spilled, self.rows))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = SpawnedTask::spawn_blocking(work).join_unwind().await;
    joined.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
}

fn slice_bytes(batch: &RecordBatch) -> Result<usize> {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    Ok(sizes.sum::<Result<usize, _>>()?)
}

/// The first rows of a long document, in a temporary file.
struct Spill {
    file: RefCountedTempFile,
    writer: StreamWriter<BufWriter<File>>,
}

impl Spill {
    async fn append(spill: Option<Self>, context: &TaskContext, rows: Vec<RecordBatch>) -> Result<Self> {
        let disk = Arc::clone(&context.runtime_env().disk_manager);
        let write = move || {
            let mut spill = match spill {
                Some(spill) => spill,
                None => Self::create(&disk, &rows[0].schema())?,
            };
            for batch in &rows {
                spill.writer.write(batch)?;
            }
            Ok(spill)
        };
        blocking(write).await
    }

    fn create(disk: &Arc<DiskManager>, schema: &SchemaRef) -> Result<Self> {
        let file = disk.create_tmp_file("a long document")?;
        let handle = File::options().write(true).open(file.path())?;
        Ok(Self { writer: StreamWriter::try_new(BufWriter::new(handle), schema)?, file })
    }

    async fn read(mut self) -> Result<SpilledRows> {
        let open = move || {
            self.writer.finish()?;
            self.writer.flush()?;
            let reader = StreamReader::try_new(BufReader::new(File::open(self.file.path())?), None)?;
            Ok(SpilledRows { _file: self.file, reader })
        };
        blocking(open).await
    }
}

/// Reads spilled rows back, batch by batch.
pub(crate) struct SpilledRows {
    _file: RefCountedTempFile,
    reader: StreamReader<BufReader<File>>,
}

impl SpilledRows {
    /// The next batch, and the reader of the rest.
    pub(crate) async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        let read = move || match self.reader.next() {
            Some(batch) => Ok(Some((batch?, self))),
            None => Ok(None),
        };
        blocking(read).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aéb", 2), "a");
        assert_eq!(cut("aéb", 3), "aé");
        assert_eq!(cut("aéb", 99), "aéb");
        assert_eq!(cut("", 0), "");
    }
}
