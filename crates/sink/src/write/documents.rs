//! Gathers the rows of one document, so that it goes to the table whole or not at all.
//!
//! Chunks of a document arrive one after the other, over any number of batches. Rows of a document that
//! is still arriving wait here: in memory up to [`SPILL_BYTES`], then in a temporary file, so that a
//! document of any length needs bounded memory and an error in its last chunk still keeps out its first.

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

use super::window::{BadDocument, Document};

/// Bytes of one unfinished document in memory.
const SPILL_BYTES: usize = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// The quarantine's text column holds no more than this.
pub(crate) const MAX_TEXT: usize = 64 << 10;
/// The quarantine's error column holds no more than this.
pub(crate) const MAX_ERROR: usize = 4 << 10;

/// The columns of an encoded batch that say which document a row belongs to and whether it is good.
#[derive(Debug)]
pub(crate) struct Locators<'a> {
    doc_id: &'a StringArray,
    source: &'a StringArray,
    row: &'a UInt64Array,
    text: &'a StringArray,
    embedding: &'a dyn Array,
    error: &'a StructArray,
}

/// Rows of one document in one batch.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rows: Range<usize>,
    /// The first row that has an error.
    pub(crate) bad: Option<usize>,
}

impl<'a> Locators<'a> {
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

    /// The batch cut where a document ends. Two rows of the source are two documents, even with one id.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for row in 0..self.row.len() {
            let bad = self.is_bad(row).then_some(row);
            match runs.last_mut() {
                Some(run) if self.same_document(row - 1, row) => {
                    run.rows.end = row + 1;
                    run.bad = run.bad.or(bad);
                }
                _ => runs.push(Run { rows: row..row + 1, bad }),
            }
        }
        runs
    }

    fn same_document(&self, a: usize, b: usize) -> bool {
        self.row.value(a) == self.row.value(b) && self.source.value(a) == self.source.value(b)
    }

    fn is_bad(&self, row: usize) -> bool {
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

    /// The quarantine record of a bad row.
    pub(crate) fn bad_document(&self, row: usize) -> BadDocument {
        let of = |name: &str| {
            let column = self.error.column_by_name(name)?.as_string_opt::<i32>()?;
            (self.error.is_valid(row) && column.is_valid(row)).then(|| column.value(row))
        };
        let missing = if self.doc_id.is_null(row) { "the row has no id" } else { "the row has no embedding" };
        BadDocument {
            source: self.source.value(row).to_owned(),
            row: self.row.value(row),
            doc_id: self.doc_id.is_valid(row).then(|| self.doc_id.value(row).to_owned()),
            stage: of(STAGE).unwrap_or(Stage::Write.as_str()).to_owned(),
            error: cut(of(MESSAGE).unwrap_or(missing), MAX_ERROR).to_owned(),
            text: self.text.is_valid(row).then(|| cut(self.text.value(row), MAX_TEXT).to_owned()),
        }
    }
}

/// The beginning of `text` in at most `limit` bytes, cut between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Whether `data_type` is how the locators read column `name`.
pub(crate) fn is_readable(name: &str, data_type: &DataType) -> bool {
    match name {
        DOC_ID | SOURCE | TEXT => *data_type == DataType::Utf8,
        SOURCE_ROW => *data_type == DataType::UInt64,
        _ => true,
    }
}

/// A document of which more rows may come.
pub(crate) struct OpenDocument {
    pub(crate) document: Document,
    pub(crate) bad: Option<BadDocument>,
    rows: Vec<RecordBatch>,
    bytes: usize,
    spill: Option<Spill>,
}

impl OpenDocument {
    /// Begins with rows `run` of `batch`.
    pub(crate) async fn begin(
        context: &TaskContext,
        batch: &RecordBatch,
        locators: &Locators<'_>,
        run: &Run,
    ) -> Result<Self> {
        let document = locators.document(run.rows.start);
        let mut open = Self { document, bad: None, rows: Vec::new(), bytes: 0, spill: None };
        open.push(context, batch, locators, run).await?;
        Ok(open)
    }

    /// Whether row `row` of a batch belongs to this document too.
    pub(crate) fn continues(&self, locators: &Locators<'_>, row: usize) -> bool {
        locators.continues(&self.document, row)
    }

    /// Adds more rows.
    pub(crate) async fn push(
        &mut self,
        context: &TaskContext,
        batch: &RecordBatch,
        locators: &Locators<'_>,
        run: &Run,
    ) -> Result<()> {
        if self.bad.is_none() {
            self.bad = run.bad.map(|row| locators.bad_document(row));
        }
        if self.bad.is_some() {
            (self.rows, self.bytes, self.spill) = (Vec::new(), 0, None);
            return Ok(());
        }
        let rows = batch.slice(run.rows.start, run.rows.len());
        self.bytes += slice_bytes(&rows)?;
        self.rows.push(rows);
        if self.bytes > SPILL_BYTES {
            let rows = std::mem::take(&mut self.rows);
            self.bytes = 0;
            self.spill = Some(Spill::append(self.spill.take(), context, rows).await?);
        }
        Ok(())
    }

    /// The rows in order: those on disk, then those in memory.
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

/// The head of a long document in a temporary file.
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

/// Reads a spilled head back, a batch at a time.
pub(crate) struct SpilledRows {
    _file: RefCountedTempFile,
    reader: StreamReader<BufReader<File>>,
}

impl SpilledRows {
    /// The next batch, and the rest.
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
