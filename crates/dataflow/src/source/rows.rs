//! The rows of all files of a source, one file after another.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, BooleanArray},
    compute::filter,
    datatypes::{DataType, Field},
};
use datafusion::{
    error::{DataFusionError, Result},
    physical_plan::metrics::Count,
};
use futures::{StreamExt, TryStreamExt, stream};
use polylance_schema::{SourceFormat, file_tail_error};

use super::{file::SourceFile, location::Location, spec::SourceSpec};
use crate::{
    error::SourceError,
    read::{
        columns::{Columns, ReadMode},
        error::ReadError,
        open_file::OpenFile,
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
    mut columns: Columns,
    format: Option<SourceFormat>,
    bytes_read: Count,
) -> impl stream::Stream<Item = Result<(SourceFile, Rows)>> + Send {
    let codes = location.codes.map(|codes| {
        // The selection needs the column of the code even if it is not kept.
        let kept = columns.keep.iter().position(|field| field.name() == CODE);
        let at = kept.unwrap_or(columns.keep.len());
        if kept.is_none() {
            columns.keep.push(Arc::new(Field::new(CODE, DataType::Utf8, true)));
        }
        Codes { wanted: codes, at, extra: kept.is_none() }
    });
    let (store, source_format) = (location.store, location.format);
    let (files, unchanged) = (location.files, location.unchanged);
    stream::iter(0..files.len())
        .map(move |at| {
            let file = files[at].clone();
            let open = OpenFile::new(store.clone(), source_format, file.clone(), bytes_read.clone());
            let is_unchanged = unchanged.get(at).copied().unwrap_or_default();
            let mode = if is_unchanged { ReadMode::IdsOnly } else { ReadMode::Whole };
            let columns = Columns { mode, ..columns.clone() };
            async move {
                let rows = open.rows(&columns, format).await;
                (file, rows, columns)
            }
        })
        .buffered(OPEN_FILES)
        .flat_map(|(file, rows, columns)| {
            contain_errors(rows, columns, file.clone()).map_ok(move |rows| (file.clone(), rows))
        })
        .map(move |found| {
            let (file, rows) = found?;
            match &codes {
                Some(codes) => Ok((file, codes.select(rows)?)),
                None => Ok((file, rows)),
            }
        })
}

/// The rows of a file. An error of the file becomes its last row; an error of the store ends the scan.
fn contain_errors(
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
            Ok(match columns.mode {
                // A format that cannot skip the other columns has read them in vain.
                ReadMode::IdsOnly => Rows::ids_only(rows.id, rows.row, &columns.keep),
                ReadMode::Whole => rows.checked(columns.max_bytes),
            })
        }
        Err(error) if file.is_stdin() => Err(SourceError::stdin(error)),
        Err(error) if error.is_change() => Err(SourceError::Changed { file: file.uri.clone() }),
        Err(error) if file.is_remote() && error.is_store_failure() => {
            Err(SourceError::Store { file: file.uri.clone(), source: Box::new(error) })
        }
        Err(error) => Ok(Rows::refused_file(&columns.keep, next, file_tail_error(&error))),
    })
}

/// Selects translations of the built-in corpus.
struct Codes {
    wanted: Vec<String>,
    /// The position of the code among the kept columns.
    at: usize,
    /// Whether the code is read for the selection alone.
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
pub(super) async fn check_codes(
    location: &Location,
    columns: &Columns,
    spec: &SourceSpec,
) -> std::result::Result<(), SourceError> {
    let Some(codes) = &location.codes else { return Ok(()) };
    let mut missing = codes.clone();
    let everything = Location { codes: None, ..location.clone() };
    let with_code = Columns { keep: vec![Arc::new(Field::new(CODE, DataType::Utf8, true))], ..columns.clone() };
    let rows = file_rows(everything, with_code, spec.format, Count::new());
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
