//! A source that was opened: its files, and the types of its columns.

use std::sync::Arc;

use arrow::datatypes::FieldRef;

use super::{
    columns::{all_types, first_types},
    input_types,
    location::{Location, Store, iceberg::check_row_ids, lance::with_document_id, listing::Scope},
    partitions::Partitions,
    projection::{FileFilter, Keys, Projection, SourceColumns},
    rows::check_codes,
    shard::ShardPlace,
    spec::SourceSpec,
};
use crate::{
    error::SourceError,
    read::types::{FileTypes, TypeRequest},
};

/// A corpus whose files are listed and whose columns are checked.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) spec: SourceSpec,
    pub(crate) location: Location,
    pub(crate) projection: Arc<Projection>,
    /// The number of files that the condition excludes by their partitions.
    pub(crate) files_pruned: usize,
    /// The place of the shard that this is, if it is one.
    pub(crate) shard: Option<Box<ShardPlace>>,
    /// The columns over which the projection was compiled.
    pub(crate) columns: Arc<KnownColumns>,
}

/// The columns of a source, from which its projection is compiled.
#[derive(Debug)]
pub(crate) struct KnownColumns {
    /// The first readable file.
    pub(crate) file: String,
    /// Its columns.
    pub(crate) first: FileTypes,
    /// The columns of all files; of the first one if no others are needed.
    pub(crate) all: FileTypes,
    /// The partitions that are no column of the files.
    pub(crate) partitions: Partitions,
    pub(crate) scope: Scope,
    /// The kept columns that the table has already.
    pub(crate) table: Vec<FieldRef>,
    /// Inputs of SQL whose types an earlier run has decided.
    pub(crate) inputs: Vec<FieldRef>,
}

impl KnownColumns {
    pub(crate) fn as_source(&self) -> SourceColumns<'_> {
        SourceColumns {
            file: &self.file,
            first: &self.first,
            all: &self.all,
            partitions: self.partitions.clone(),
            scope: self.scope.clone(),
            table: &self.table,
            inputs: &self.inputs,
        }
    }
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
        Box::pin(Self::open_with_types(spec, table, None)).await
    }

    /// As [`open_for`](Self::open_for), with the types that an earlier run over this source had as its
    /// [`input_types`](Self::input_types).
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open_with_types(
        spec: SourceSpec,
        table: &[FieldRef],
        input_types: Option<&str>,
    ) -> Result<Self, SourceError> {
        let inputs = input_types.map(input_types::decode).unwrap_or_default();
        let mut location = Location::find(&spec.uri, spec.memory).await?;
        location.notes.extend(location.without_validators());
        let spec = match &location.store {
            Store::Table(table) => with_document_id(table, spec).await?,
            Store::Iceberg(table) => {
                check_row_ids(table, &spec)?;
                spec
            }
            _ => spec,
        };
        let keys = Keys::new(&spec);
        let listed = Arc::clone(&location.files);
        let partitions = Partitions::of(&location);
        // A file that the condition excludes is not even opened for its columns, unless all are excluded.
        exclude(&mut location, &FileFilter::new(&keys, &[], &partitions));
        if location.files.is_empty() {
            location.files = Arc::clone(&listed);
        }
        let all = spec.keep == ["*"];
        let in_table = |name: &String| table.iter().any(|field| field.name() == name);
        let mut request = TypeRequest {
            id: spec.id.clone(),
            text: spec.text.clone(),
            keep: (!all).then(|| spec.keep.iter().filter(|name| !in_table(name)).cloned().collect()),
            whole: false,
            max_bytes: spec.max_bytes,
            header: keys.header(),
        };
        let (file, format, first) = first_types(&location, &spec, &request).await?;
        location.format = Some(format);
        let names: Vec<String> = first.iter().map(|(name, _)| name.clone()).collect();
        let partitions = partitions.without(&names);
        keys.check_first(&file, &first, &partitions)?;
        location.files = listed;
        let files = location.files.len();
        exclude(&mut location, &FileFilter::new(&keys, &names, &partitions));
        let files_pruned = files - location.files.len();

        // The table has the types of its columns: the files need not be read twice for them.
        let undecided = keys.undecided(&first, &partitions, table, &inputs);
        let types: FileTypes = if location.files.is_empty() || undecided.is_empty() && !(all && table.is_empty()) {
            first.clone()
        } else {
            request.whole = true;
            request.keep = (!all).then(|| undecided.into());
            all_types(&location, &spec, &request).await?
        };
        let columns = KnownColumns {
            file,
            first,
            all: types,
            partitions,
            scope: location.scope.clone(),
            table: table.to_vec(),
            inputs,
        };
        let projection = Arc::new(keys.compile(&spec, columns.as_source())?);
        let source = Self { spec, location, projection, files_pruned, shard: None, columns: Arc::new(columns) };
        if source.location.codes.is_some() {
            check_codes(&source.location, &source.spec).await?;
        }
        Ok(source)
    }

    /// The kept columns with the types that they have in the table.
    pub fn keep_fields(&self) -> &[FieldRef] {
        self.projection.fields()
    }

    /// The types in which SQL reads the columns of the files, as text; `None` if there is no such SQL.
    pub fn input_types(&self) -> Option<String> {
        let inputs = self.projection.inputs();
        if inputs.is_empty() { None } else { input_types::encode(inputs).ok() }
    }

    /// The key under which a run records the [`input_types`](Self::input_types) of its source.
    pub fn input_types_key(spec: &SourceSpec) -> String {
        input_types::key(spec)
    }

    /// Whether ids are hashes of the texts, so that rows with equal texts are one document.
    pub fn has_content_ids(&self) -> bool {
        self.projection.has_content_ids()
    }

    /// Whether ids are positions in the files, which no two rows share.
    pub fn has_row_ids(&self) -> bool {
        self.projection.has_row_ids()
    }

    /// The address as messages may show it.
    pub fn address(&self) -> String {
        self.spec.address()
    }

    /// Bytes of the files that are read, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.location.bytes()
    }

    /// Notes for the user about the files: skipped links, or a server whose answers do not show changes.
    pub fn notes(&self) -> &[String] {
        &self.location.notes
    }

    /// Number of files that are read, without those that the condition excludes by their partitions.
    pub fn files(&self) -> usize {
        self.location.read_files().len()
    }
}

/// Removes the files that the condition excludes.
fn exclude(location: &mut Location, filter: &FileFilter) {
    if !location.files.iter().all(|file| filter.keeps(&file.uri)) {
        location.files = location.files.iter().filter(|file| filter.keeps(&file.uri)).cloned().collect();
    }
}
