//! A source that has been looked at: its files, and the types of its columns.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, FieldRef};
use datafusion::physical_plan::metrics::Count;
use futures::{StreamExt, stream};
use polylance_schema::{DEFAULT_MAX_TEXT_BYTES, DEFAULT_MEMORY_BYTES, SourceFormat, columns::RESERVED};

use crate::{
    SourceError,
    location::{Location, SourceFile, public},
    read::{ColumnType, Columns, FileTypes, OpenFile, ReadError, Wanted, is_id, is_text},
    widen::stored,
};

/// Files whose columns are looked at together.
const LOOKED_AT: usize = 8;

/// How CSV files are written; what is not given is found in each file's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CsvSpec {
    /// What separates fields.
    pub delimiter: Option<u8>,
    /// What stands around fields with delimiters and line breaks.
    pub quote: Option<u8>,
    /// What stands before a quote inside of quotes; a quote for doubled ones.
    pub escape: Option<u8>,
}

/// Where a corpus is and which of its columns matter.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// A file, a folder, a glob or `builtin:udhr[?codes=…]`; a path or a URL.
    pub uri: String,
    /// The files' format; by content unless given.
    pub format: Option<SourceFormat>,
    /// The column with the document's id.
    pub id: String,
    /// The column with the text.
    pub text: String,
    /// Columns to carry over; `["*"]` is all others.
    pub keep: Vec<String>,
    /// Longer texts are refused, in bytes.
    pub max_bytes: u64,
    /// How CSV files are written.
    pub csv: CsvSpec,
    /// Bytes that the listing of the files may take in memory.
    pub memory: u64,
}

impl SourceSpec {
    /// A source with what a pipeline file says unless it is told: columns `id` and `text`, and no others kept.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            format: None,
            id: "id".to_owned(),
            text: "text".to_owned(),
            keep: Vec::new(),
            max_bytes: DEFAULT_MAX_TEXT_BYTES,
            csv: CsvSpec::default(),
            memory: DEFAULT_MEMORY_BYTES,
        }
    }

    /// The address as messages may show it: the query of a URL may be a signature.
    pub fn address(&self) -> String {
        public(&self.uri)
    }
}

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
            crate::scan::check_codes(&source).await?;
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

fn open_file(location: &Location, file: &SourceFile) -> OpenFile {
    OpenFile::new(location.store.clone(), location.format, file.clone(), Count::new())
}

/// The first file that can be read, its format and its columns.
async fn first_types(
    location: &Location,
    spec: &SourceSpec,
    wanted: &Wanted,
) -> Result<(String, SourceFormat, FileTypes), SourceError> {
    let mut first_error = None;
    for file in location.files.iter() {
        match open_file(location, file).types(spec.format, spec.csv, wanted).await {
            Ok((format, columns)) => return Ok((file.uri.clone(), format, columns)),
            Err(error) => match of_the_store(file, error) {
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

/// An error that ends the run: the store's own, or that of a file that changed meanwhile. Any other is given back.
fn of_the_store(file: &SourceFile, error: ReadError) -> Result<SourceError, ReadError> {
    if error.is_change() {
        return Ok(SourceError::Changed { file: file.uri.clone() });
    }
    if file.is_remote() && error.is_of_the_store() {
        return Ok(SourceError::Store { file: file.uri.clone(), source: Box::new(error) });
    }
    Err(error)
}

/// The columns of all files that can be read, each of the type that its values in all of them have.
async fn all_types(location: &Location, spec: &SourceSpec, wanted: &Wanted) -> Result<FileTypes, SourceError> {
    let files = Arc::clone(&location.files);
    let look = |at: usize| {
        let (open, format, csv) = (open_file(location, &files[at]), spec.format, spec.csv);
        async move {
            match open.types(format, csv, wanted).await {
                Ok((_, columns)) => Ok(columns),
                Err(error) => match of_the_store(&open.file, error) {
                    Ok(error) => Err(error),
                    // A file that cannot be read is a refused row when its turn comes.
                    Err(_) => Ok(FileTypes::new()),
                },
            }
        }
    };
    let mut found = stream::iter(0..files.len()).map(look).buffered(LOOKED_AT);
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

fn find(columns: &FileTypes, name: &str) -> Option<DataType> {
    columns.iter().find(|(column, _)| column == name).map(|(_, kind)| kind.data_type())
}

/// Refuses a name that is there twice: nobody can know which one is meant.
fn once(file: &str, columns: &FileTypes, name: &str) -> Result<(), SourceError> {
    if columns.iter().filter(|(column, _)| column == name).count() < 2 {
        return Ok(());
    }
    Err(SourceError::AmbiguousColumn { file: file.to_owned(), column: name.to_owned() })
}

fn missing(file: &str, columns: &FileTypes, column: &str) -> SourceError {
    let names = || columns.iter().map(|(name, _)| name.clone());
    SourceError::MissingColumn {
        file: file.to_owned(),
        column: column.to_owned(),
        nearest: names()
            .map(|name| (strsim::damerau_levenshtein(&name, column), name))
            .filter(|(d, _)| *d <= 2)
            .min()
            .map(|(_, n)| n),
        columns: names().collect(),
    }
}

fn expect(
    file: &str,
    columns: &FileTypes,
    column: &str,
    expected: &'static str,
    fits: impl Fn(&DataType) -> bool,
) -> Result<(), SourceError> {
    let found = find(columns, column).ok_or_else(|| missing(file, columns, column))?;
    once(file, columns, column)?;
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

/// The kept columns with the types they have in the table; all of them may be null there.
fn keep(
    file: &str,
    first: &FileTypes,
    columns: &FileTypes,
    spec: &SourceSpec,
    table: &[FieldRef],
) -> Result<Vec<FieldRef>, SourceError> {
    let reserved = |name: &str| RESERVED.contains(&name) || name.starts_with('_');
    let names: Vec<String> = if spec.keep == ["*"] {
        let mut names: Vec<String> = table.iter().map(|field| field.name().clone()).collect();
        for (name, _) in columns {
            if *name != spec.id && *name != spec.text && !reserved(name) && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    } else {
        spec.keep.clone()
    };
    let field = |(at, name): (usize, &String)| {
        if reserved(name) {
            return Err(SourceError::ReservedColumn { column: name.clone() });
        }
        if name.is_empty() || name.contains('.') {
            return Err(SourceError::ColumnName { column: name.clone() });
        }
        if names[..at].contains(name) {
            return Err(SourceError::KeptTwice { column: name.clone() });
        }
        once(file, first, name)?;
        if let Some(field) = table.iter().find(|field| field.name() == name) {
            return Ok(Arc::clone(field));
        }
        let found = find(columns, name).ok_or_else(|| missing(file, first, name))?;
        Ok(stored(name, &found))
    };
    names.iter().enumerate().map(field).collect()
}
