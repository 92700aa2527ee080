//! The columns of a source: which of them its files have, and of which types.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::DataType;
use futures::{StreamExt, stream};
use polylance_schema::{SourceFormat, columns::RESERVED};

use super::{file::SourceFile, location::Location, spec::SourceSpec};
use crate::{
    error::{ColumnUse, SourceError},
    read::{
        error::ReadError,
        open_file::{OpenFile, ReadCounts},
        types::{ColumnType, FileTypes, TypeRequest},
    },
};

/// Files whose columns are read at the same time.
const FILES_IN_FLIGHT: usize = 8;

pub(super) fn open_file(location: &Location, file: &SourceFile) -> OpenFile {
    OpenFile::new(location.store.clone(), location.format, file.clone(), ReadCounts::default())
}

/// The address of the first readable file, its format and its columns.
pub(super) async fn first_types(
    location: &Location,
    spec: &SourceSpec,
    request: &TypeRequest,
) -> Result<(String, SourceFormat, FileTypes), SourceError> {
    let mut first_error = None;
    for file in location.files.iter() {
        match open_file(location, file).types(spec.format, spec.csv, request).await {
            Ok((format, columns)) => return Ok((file.uri.clone(), format, columns)),
            Err(error) => match run_error(file, error) {
                Ok(error) => return Err(error),
                Err(error) => {
                    first_error
                        .get_or_insert(SourceError::Unreadable { file: file.uri.clone(), message: error.to_string() });
                }
            },
        }
    }
    Err(first_error.unwrap_or(SourceError::NotFound { uri: String::new() }))
}

/// An error that ends the run: the store failed, or the file changed meanwhile. Any other error is returned as it is.
pub(super) fn run_error(file: &SourceFile, error: ReadError) -> Result<SourceError, ReadError> {
    if file.is_stdin() {
        return Ok(SourceError::stdin(error));
    }
    if error.is_change() {
        return Ok(SourceError::Changed { file: file.uri.clone() });
    }
    if file.is_remote() && error.is_store_failure() {
        return Ok(SourceError::Store { file: file.uri.clone(), source: Box::new(error) });
    }
    Err(error)
}

/// The columns of all readable files, each with the type that holds its values in all of them.
pub(super) async fn all_types(
    location: &Location,
    spec: &SourceSpec,
    request: &TypeRequest,
) -> Result<FileTypes, SourceError> {
    let files = Arc::clone(&location.files);
    let types = |at: usize| {
        let (open, format, csv) = (open_file(location, &files[at]), spec.format, spec.csv);
        async move {
            match open.types(format, csv, request).await {
                Ok((_, columns)) => Ok(columns),
                Err(error) => match run_error(&open.file, error) {
                    Ok(error) => Err(error),
                    // The scan turns a file that cannot be read into a refused row.
                    Err(_) => Ok(FileTypes::new()),
                },
            }
        }
    };
    let mut found = stream::iter(0..files.len()).map(types).buffered(FILES_IN_FLIGHT);
    let (mut columns, mut positions) = (FileTypes::new(), HashMap::new());
    while let Some(file) = found.next().await {
        for (name, kind) in file? {
            if let Some(&at) = positions.get(&name) {
                let (_, known): &mut (String, ColumnType) = &mut columns[at];
                *known = known.clone().join(kind);
            } else {
                positions.insert(name.clone(), columns.len());
                columns.push((name, kind));
            }
        }
    }
    Ok(columns)
}

pub(super) fn find(columns: &FileTypes, name: &str) -> Option<DataType> {
    columns.iter().find(|(column, _)| column == name).map(|(_, kind)| kind.data_type())
}

/// Refuses a name that two columns have.
pub(super) fn expect_unique(file: &str, columns: &FileTypes, name: &str) -> Result<(), SourceError> {
    if columns.iter().filter(|(column, _)| column == name).count() < 2 {
        return Ok(());
    }
    Err(SourceError::AmbiguousColumn { file: file.to_owned(), column: name.to_owned() })
}

pub(super) fn missing(file: &str, columns: &FileTypes, column: &str, usage: ColumnUse) -> SourceError {
    let names = || columns.iter().map(|(name, _)| name.clone());
    SourceError::MissingColumn {
        file: file.to_owned(),
        column: column.to_owned(),
        usage,
        nearest: names()
            .map(|name| (strsim::damerau_levenshtein(&name, column), name))
            .filter(|(d, _)| *d <= 2)
            .min()
            .map(|(_, n)| n),
        columns: names().collect(),
    }
}

pub(super) fn expect(
    file: &str,
    columns: &FileTypes,
    column: &str,
    usage: ColumnUse,
    expected: &'static str,
    fits: impl Fn(&DataType) -> bool,
) -> Result<(), SourceError> {
    let found = find(columns, column).ok_or_else(|| missing(file, columns, column, usage))?;
    expect_unique(file, columns, column)?;
    if fits(&found) {
        return Ok(());
    }
    Err(SourceError::ColumnType {
        file: file.to_owned(),
        column: column.to_owned(),
        expected,
        found: found.to_string(),
    })
}

/// Whether the table has a column of this name itself.
pub(super) fn reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with('_')
}

/// Refuses a name that a kept column cannot have in the table.
pub(super) fn check_name(name: &str) -> Result<(), SourceError> {
    if reserved(name) {
        return Err(SourceError::ReservedColumn { column: name.to_owned() });
    }
    if name.is_empty() || name.contains('.') {
        return Err(SourceError::ColumnName { column: name.to_owned() });
    }
    Ok(())
}
