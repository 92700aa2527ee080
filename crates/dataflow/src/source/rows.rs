//! The rows of all files of a source, one file after another.

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray},
    datatypes::{DataType, Field},
    error::ArrowError,
};
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use polylance_schema::{SourceFormat, file_tail_error};

use super::{
    file::SourceFile,
    location::Location,
    projection::{Projection, ReadMode},
    spec::SourceSpec,
};
use crate::{
    error::SourceError,
    read::{
        columns::Columns,
        error::ReadError,
        open_file::{OpenFile, ReadCounts},
        rows::{RowStream, Rows},
    },
};

/// The column of the built-in corpus by which translations are selected.
const CODE: &str = "code";
/// Files that are open at the same time: the one that is read and the next one.
const OPEN_FILES: usize = 2;

/// The rows of all files, each batch with the file that it is from.
pub(crate) fn file_rows(
    location: Location,
    projection: Arc<Projection>,
    format: Option<SourceFormat>,
    counts: ReadCounts,
) -> impl stream::Stream<Item = Result<(SourceFile, Rows)>> + Send {
    let codes = location.codes.clone().map(Arc::<[String]>::from);
    stream::iter(location.read_files())
        .map(move |at| {
            let file = location.files[at].clone();
            let open = OpenFile::new(location.store.clone(), location.format, file.clone(), counts.clone());
            let open = open.with_row_groups(location.row_groups(at));
            let mode = location.mode(at);
            let documents = Documents { projection: Arc::clone(&projection), mode, codes: codes.clone(), file };
            async move {
                let rows = open.rows(&documents.columns(), format).await;
                (rows, documents)
            }
        })
        .buffered(OPEN_FILES)
        .flat_map(|(rows, documents)| documents.of(rows))
}

/// Makes documents of the rows of a file.
struct Documents {
    projection: Arc<Projection>,
    mode: ReadMode,
    /// The translations of the built-in corpus to read.
    codes: Option<Arc<[String]>>,
    file: SourceFile,
}

impl Documents {
    /// The columns to read. The selection of translations needs that of the code, which comes last.
    fn columns(&self) -> Columns {
        let mut columns = self.projection.columns(self.mode).clone();
        if self.codes.is_some() {
            columns.keep.push(Arc::new(Field::new(CODE, DataType::Utf8, true)));
        }
        columns
    }

    /// The documents. An error of the file becomes its last row; an error of the store ends the scan.
    fn of(
        self,
        rows: std::result::Result<RowStream, ReadError>,
    ) -> impl stream::Stream<Item = Result<(SourceFile, Rows)>> + Send {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => stream::once(async { Err(error) }).boxed(),
        };
        let mut next = 0;
        rows.map(move |rows| {
            let file = &self.file;
            let documents = match rows {
                Ok(rows) => {
                    next = rows.row.values().last().map_or(next, |last| last + 1);
                    self.documents(rows)?
                }
                Err(error) => {
                    let error = source_failure(file, error)?;
                    Rows::refused_file(self.projection.fields(), next, file_tail_error(&error))
                }
            };
            Ok((file.clone(), documents))
        })
        // A condition may drop all rows of a batch.
        .try_filter(|(_, rows)| std::future::ready(!rows.errors.is_empty()))
    }

    fn documents(&self, rows: Rows) -> std::result::Result<Rows, ArrowError> {
        let rows = match &self.codes {
            Some(codes) => select(rows, codes)?,
            None => rows,
        };
        self.projection.apply(self.mode, rows, &self.file.uri)
    }
}

/// Returns the error of a file if it concerns this file alone.
///
/// # Errors
/// That of the source, if the run cannot go on.
pub(super) fn source_failure(file: &SourceFile, error: ReadError) -> std::result::Result<ReadError, SourceError> {
    if file.is_stdin() {
        return Err(SourceError::stdin(error));
    }
    if error.is_change() {
        return Err(SourceError::Changed { file: file.uri.clone() });
    }
    if file.is_remote() && error.is_store_failure() {
        return Err(SourceError::Store { file: file.uri.clone(), source: Box::new(error) });
    }
    Ok(error)
}

/// Selects translations of the built-in corpus by the last column, which is removed.
fn select(mut rows: Rows, codes: &[String]) -> std::result::Result<Rows, ArrowError> {
    let Some(found) = rows.keep.pop() else { return Ok(rows) };
    let is_wanted = |code: Option<&str>| Some(code.is_some_and(|code| codes.iter().any(|wanted| wanted == code)));
    let wanted: BooleanArray = found.as_string::<i32>().iter().map(is_wanted).collect();
    rows.filter(&wanted)
}

/// Refuses codes that the built-in corpus does not have.
pub(super) async fn check_codes(location: &Location, spec: &SourceSpec) -> std::result::Result<(), SourceError> {
    let Some(codes) = &location.codes else { return Ok(()) };
    let mut missing = codes.clone();
    let everything = Location { codes: None, ..location.clone() };
    let keep = vec![Arc::new(Field::new(CODE, DataType::Utf8, true))];
    let with_code = Columns { keep, max_bytes: spec.max_bytes, ..Columns::default() };
    let projection = Arc::new(Projection::plain(with_code));
    let rows = file_rows(everything, projection, spec.format, ReadCounts::default());
    let unreadable =
        |error: DataFusionError| SourceError::Unreadable { file: spec.uri.clone(), message: error.to_string() };
    let mut rows = std::pin::pin!(rows);
    while let Some((_, rows)) = rows.try_next().await.map_err(unreadable)? {
        for code in rows.keep[0].as_string::<i32>().iter().flatten() {
            missing.retain(|wanted| wanted != code);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(SourceError::UnknownCode { codes: missing }) }
}
