//! A source that was opened: its files, and the types of its columns.

use arrow::datatypes::FieldRef;

use super::{
    columns::{all_types, expect, first_types, keep},
    location::{Location, Store, lance::with_document_id},
    rows::check_codes,
    spec::SourceSpec,
};
use crate::{
    error::SourceError,
    read::{
        columns::{Columns, ReadMode},
        types::{
            TypeRequest,
            exact::{is_id, is_text},
        },
    },
};

/// A corpus whose files are listed and whose columns are checked.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) spec: SourceSpec,
    pub(crate) location: Location,
    pub(crate) columns: Columns,
}

impl Source {
    /// Lists the files and finds the types of the kept columns over all of them.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open(spec: SourceSpec) -> Result<Self, SourceError> {
        Self::open_for(spec, &[]).await
    }

    /// As [`open`](Self::open), for a table that has these kept columns: they keep their types.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open_for(spec: SourceSpec, table: &[FieldRef]) -> Result<Self, SourceError> {
        let mut location = Location::find(&spec.uri, spec.memory).await?;
        location.notes.extend(location.without_validators());
        let spec = match &location.store {
            Store::Table(table) => with_document_id(table, spec).await?,
            _ => spec,
        };
        let all = spec.keep == ["*"];
        let in_table = |name: &String| table.iter().any(|field| field.name() == name);
        let unknown: Vec<String> = spec.keep.iter().filter(|name| !in_table(name)).cloned().collect();
        let mut request = TypeRequest {
            id: spec.id.clone(),
            text: spec.text.clone(),
            keep: (!all).then(|| unknown.clone().into()),
            whole: false,
            max_bytes: spec.max_bytes,
        };
        let (file, format, first) = first_types(&location, &spec, &request).await?;
        location.format = Some(format);
        expect(&file, &first, &spec.text, "text", is_text)?;
        expect(&file, &first, &spec.id, "text or whole numbers", is_id)?;
        // The table has the types of its columns: the files need not be read twice for them.
        let undecided = if all { table.is_empty() } else { !unknown.is_empty() };
        let columns = if undecided {
            request.whole = true;
            all_types(&location, &spec, &request).await?
        } else {
            first.clone()
        };
        let keep = keep(&file, &first, &columns, &spec, table)?;
        let (id, text, max_bytes, csv) = (spec.id.clone(), spec.text.clone(), spec.max_bytes, spec.csv);
        let columns = Columns { id, text, keep, max_bytes, csv, mode: ReadMode::Whole };
        let source = Self { spec, location, columns };
        if source.location.codes.is_some() {
            check_codes(&source.location, &source.columns, &source.spec).await?;
        }
        Ok(source)
    }

    /// The kept columns with the types that they have in the table.
    pub fn keep_fields(&self) -> &[FieldRef] {
        &self.columns.keep
    }

    /// Bytes of all files, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.location.files.iter().map(|file| file.size).sum()
    }

    /// Notes for the user about the files: skipped links, or a server whose answers do not show changes.
    pub fn notes(&self) -> &[String] {
        &self.location.notes
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.location.files.len()
    }
}
