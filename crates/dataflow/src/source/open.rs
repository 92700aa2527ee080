//! A source that was opened: its files, and the types of its columns.

use arrow::datatypes::FieldRef;

use super::{
    columns::{all_types, expect, first_types, keep},
    location::Location,
    rows::check_codes,
    spec::SourceSpec,
};
use crate::{
    error::SourceError,
    read::{
        columns::Columns,
        types::{
            Wanted,
            exact::{is_id, is_text},
        },
    },
};

/// A corpus whose files were found and whose columns were checked.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) spec: SourceSpec,
    pub(crate) location: Location,
    pub(crate) columns: Columns,
}

impl Source {
    /// Lists the files and finds out the types of the kept columns, over all files.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open(spec: SourceSpec) -> Result<Self, SourceError> {
        Self::open_for(spec, &[]).await
    }

    /// As [`open`](Self::open), for a table that has these kept columns already: they stay of the types they have.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open_for(spec: SourceSpec, table: &[FieldRef]) -> Result<Self, SourceError> {
        let mut location = Location::find(&spec.uri, spec.memory).await?;
        location.notes.extend(location.without_validators());
        let all = spec.keep == ["*"];
        let known = |name: &String| table.iter().any(|field| field.name() == name);
        let unknown: Vec<String> = spec.keep.iter().filter(|name| !known(name)).cloned().collect();
        let mut wanted = Wanted {
            id: spec.id.clone(),
            text: spec.text.clone(),
            keep: (!all).then(|| unknown.clone().into()),
            whole: false,
            max_bytes: spec.max_bytes,
        };
        let (file, format, first) = first_types(&location, &spec, &wanted).await?;
        location.format = Some(format);
        expect(&file, &first, &spec.text, "text", is_text)?;
        expect(&file, &first, &spec.id, "text or whole numbers", is_id)?;
        // A table that exists has decided already, and is no reason to read everything twice.
        let undecided = if all { table.is_empty() } else { !unknown.is_empty() };
        let columns = if undecided {
            wanted.whole = true;
            all_types(&location, &spec, &wanted).await?
        } else {
            first.clone()
        };
        let keep = keep(&file, &first, &columns, &spec, table)?;
        let (id, text, max_bytes, csv) = (spec.id.clone(), spec.text.clone(), spec.max_bytes, spec.csv);
        let columns = Columns { id, text, keep, max_bytes, csv, only_ids: false };
        let source = Self { spec, location, columns };
        if source.location.codes.is_some() {
            check_codes(&source.location, &source.columns, &source.spec).await?;
        }
        Ok(source)
    }

    /// The kept columns as the table will have them.
    pub fn keep_fields(&self) -> &[FieldRef] {
        &self.columns.keep
    }

    /// Bytes of all files, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.location.files.iter().map(|file| file.size).sum()
    }

    /// What a user is to know about the files: links that were passed over, a server that does not tell of changes.
    pub fn notes(&self) -> &[String] {
        &self.location.notes
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.location.files.len()
    }
}
