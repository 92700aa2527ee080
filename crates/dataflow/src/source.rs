//! A source that has been looked at: its files, and the types of its columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::physical_plan::metrics::Count;
use polylance_schema::columns::RESERVED;

use crate::{
    Format, SourceError,
    batches::plain_type,
    location::{Location, public},
    read::{Columns, OpenFile},
};

/// Where a corpus is and which of its columns matter.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// A file, a folder, a glob or `builtin:udhr[?codes=…]`; a path or a URL.
    pub uri: String,
    /// The files' format; by content unless given.
    pub format: Option<Format>,
    /// The column with the document's id.
    pub id: String,
    /// The column with the text.
    pub text: String,
    /// Columns to carry over; `["*"]` is all others.
    pub keep: Vec<String>,
    /// Longer texts are refused, in bytes.
    pub max_bytes: u64,
}

impl SourceSpec {
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
    /// Lists the files and reads the schema of the first one that can be read.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open(spec: SourceSpec) -> Result<Self, SourceError> {
        let mut location = Location::find(&spec.uri).await?;
        let (file, format, schema) = first_schema(&location, spec.format).await?;
        location.format = Some(format);
        expect(&file, &schema, &spec.text, "text", is_text)?;
        expect(&file, &schema, &spec.id, "text or whole numbers", |found| is_text(found) || found.is_integer())?;
        let keep = keep(&file, &schema, &spec)?;
        let (id, text, max_bytes) = (spec.id.clone(), spec.text.clone(), spec.max_bytes);
        let columns = Columns { id, text, keep, max_bytes, only_ids: false };
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

/// The first file that can be read, its format and its columns.
async fn first_schema(
    location: &Location,
    format: Option<Format>,
) -> Result<(String, Format, Arc<Schema>), SourceError> {
    let mut first_error = None;
    for file in &location.files {
        let open = OpenFile::new(location.store.clone(), None, file.clone(), Count::new());
        match open.schema(format).await {
            Ok((format, schema)) => return Ok((file.uri.clone(), format, schema)),
            Err(error) if error.is_change() => return Err(SourceError::Changed { file: file.uri.clone() }),
            Err(error) if file.is_remote() && error.is_of_the_store() => {
                return Err(SourceError::Store { file: file.uri.clone(), source: Box::new(error) });
            }
            Err(error) => {
                first_error
                    .get_or_insert(SourceError::Unreadable { file: file.uri.clone(), message: error.to_string() });
            }
        }
    }
    Err(first_error.unwrap_or(SourceError::NotFound { uri: String::new() }))
}

fn is_text(found: &DataType) -> bool {
    plain_type(found) == DataType::Utf8
}

fn field<'a>(file: &str, schema: &'a Schema, column: &str) -> Result<&'a FieldRef, SourceError> {
    let columns = || schema.fields().iter().map(|field| field.name().clone());
    schema.fields().find(column).map(|(_, field)| field).ok_or_else(|| SourceError::MissingColumn {
        file: file.to_owned(),
        column: column.to_owned(),
        nearest: columns()
            .map(|name| (strsim::damerau_levenshtein(&name, column), name))
            .filter(|(d, _)| *d <= 2)
            .min()
            .map(|(_, n)| n),
        columns: columns().collect(),
    })
}

fn expect(
    file: &str,
    schema: &Schema,
    column: &str,
    expected: &'static str,
    fits: impl Fn(&DataType) -> bool,
) -> Result<(), SourceError> {
    let found = field(file, schema, column)?.data_type();
    if fits(found) {
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
fn keep(file: &str, schema: &Schema, spec: &SourceSpec) -> Result<Vec<FieldRef>, SourceError> {
    let stored = |field: &FieldRef| Arc::new(Field::new(field.name(), plain_type(field.data_type()), true));
    if spec.keep == ["*"] {
        let free = |field: &&FieldRef| {
            let name = field.name().as_str();
            name != spec.id && name != spec.text && !RESERVED.contains(&name) && !name.starts_with('_')
        };
        return Ok(schema.fields().iter().filter(free).map(stored).collect());
    }
    spec.keep
        .iter()
        .map(|column| {
            if RESERVED.contains(&column.as_str()) || column.starts_with('_') {
                return Err(SourceError::ReservedColumn { column: column.clone() });
            }
            Ok(stored(field(file, schema, column)?))
        })
        .collect()
}
