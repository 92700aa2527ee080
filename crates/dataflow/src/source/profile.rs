//! The profile of a source that has no pipeline yet: its files, its columns with their types, and its first rows.

use std::collections::HashSet;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use futures::StreamExt;
use polylance_schema::{SourceFormat, columns::RESERVED};

use super::{
    columns::{first_types, open_file, run_error},
    file::SourceFile,
    location::Location,
    rows::check_codes,
    spec::SourceSpec,
};
use crate::{
    error::SourceError,
    read::{
        columns::Columns,
        rows::Rows,
        types::{
            FileTypes, TypeRequest, csv_type,
            exact::{is_id, is_text},
            widen::{plain_type, stored},
        },
    },
};

/// The largest size in bytes of a remote file whose rows are sampled, if its format cannot be read from the beginning.
const MAX_FETCHED_BYTES: u64 = 64 << 20;
/// The largest number of characters of an example.
const EXAMPLE_CHARS: usize = 60;

/// A source as its listing and its first readable file show it.
#[derive(Debug, Clone)]
pub struct SourceProfile {
    /// The address as messages may show it.
    pub address: String,
    /// Number of files.
    pub files: usize,
    /// Bytes of all files, as stored.
    pub bytes: u64,
    /// The format of the first readable file.
    pub format: SourceFormat,
    /// The columns of the first readable file, in its order. A name that two columns have is left out.
    pub columns: Vec<SourceColumn>,
    /// Number of rows at the beginning of that file that were read. It is 0 if that means to fetch a large file.
    pub sampled_rows: usize,
    /// Notes for the user about the files.
    pub notes: Vec<String>,
}

/// A column of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceColumn {
    /// The name.
    pub name: String,
    /// The type that the column has in a table; of a text format, that of the rows that were read.
    pub data_type: DataType,
    /// The values in the first rows; `None` if they were not read.
    pub sample: Option<ColumnSample>,
}

/// The values of a column in the first rows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSample {
    /// Number of values that are neither null nor empty.
    pub filled: usize,
    /// Whether each row has a value, and no two rows have the same.
    pub unique: bool,
    /// Characters of all values.
    pub chars: usize,
    /// The beginning of the first value, on one line.
    pub example: Option<String>,
}

impl SourceColumn {
    /// Whether the column can be the text.
    pub fn is_text(&self) -> bool {
        is_text(&self.data_type)
    }

    /// Whether the column can be the id.
    pub fn is_id(&self) -> bool {
        is_id(&self.data_type)
    }

    /// Whether a table can have a column of this name next to its own.
    pub fn can_be_kept(&self) -> bool {
        let name = self.name.as_str();
        !(name.is_empty() || name.contains('.') || name.starts_with('_') || RESERVED.contains(&name))
    }
}

impl SourceProfile {
    /// Lists the files, and reads the columns and the first rows of the first readable one. The id, the text and the
    /// kept columns of the specification are not used.
    ///
    /// # Errors
    /// See [`SourceError`]; [`SourceError::NoTextColumn`] if no column can be the text.
    pub async fn read(spec: &SourceSpec) -> Result<Self, SourceError> {
        let mut location = Location::find(&spec.uri, spec.memory).await?;
        let (id, text, header) = Default::default();
        let request = TypeRequest { id, text, keep: None, whole: false, max_bytes: spec.max_bytes, header };
        let (file, format, types) = first_types(&location, spec, &request).await?;
        location.format = Some(format);
        let (mut columns, repeated) = unique_columns(&types);
        let read = sampled_columns(spec, &columns, &expect_text(&file, &columns)?);
        check_codes(&location, spec).await?;
        let listed = location.files.iter().find(|listed| listed.uri == file);
        let rows = match listed.filter(|file| is_cheap(file, format)) {
            Some(file) => first_rows(&location, file, spec, &read).await?,
            None => None,
        };
        let sampled_rows = rows.as_ref().map_or(0, |rows| rows.row.len());
        for (field, values) in read.keep.iter().zip(rows.iter().flat_map(|rows| &rows.keep)) {
            let Some(column) = columns.iter_mut().find(|column| column.name == *field.name()) else { continue };
            if format == SourceFormat::Csv {
                column.data_type = csv_type(values.as_string::<i32>().iter().flatten());
            }
            column.sample = Some(ColumnSample::of(values));
        }
        // In a CSV file, every column was text until its rows were read.
        expect_text(&file, &columns)?;
        let mut notes = location.notes.clone();
        let note = |name| format!("{file}: more than one column is named `{name}`, so none of them can be used");
        notes.extend(repeated.into_iter().map(note));
        Ok(Self {
            address: spec.address(),
            files: location.files.len(),
            bytes: location.files.iter().map(|file| file.size).sum(),
            format,
            columns,
            sampled_rows,
            notes,
        })
    }
}

/// The columns whose names are theirs alone, and the names that several columns have.
fn unique_columns(types: &FileTypes) -> (Vec<SourceColumn>, Vec<String>) {
    let (mut columns, mut repeated) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (name, kind) in types {
        if types.iter().filter(|(other, _)| other == name).take(2).count() == 1 {
            let data_type = plain_type(&kind.data_type());
            columns.push(SourceColumn { name: name.clone(), data_type, sample: None });
        } else if seen.insert(name) {
            repeated.push(name.clone());
        }
    }
    (columns, repeated)
}

/// The first column that can be the text.
fn expect_text(file: &str, columns: &[SourceColumn]) -> Result<String, SourceError> {
    let described = |column: &SourceColumn| format!("{} ({})", column.name, column.data_type);
    columns.iter().find(|column| column.is_text()).map(|column| column.name.clone()).ok_or_else(|| {
        SourceError::NoTextColumn { file: file.to_owned(), columns: columns.iter().map(described).collect() }
    })
}

/// The columns to sample: those with values that a line of text can show.
fn sampled_columns(spec: &SourceSpec, columns: &[SourceColumn], text: &str) -> Columns {
    let is_shown = |column: &&SourceColumn| {
        let binary = matches!(column.data_type, DataType::Binary | DataType::LargeBinary);
        !column.data_type.is_nested() && (!binary || column.name == text)
    };
    Columns {
        text: Some(text.to_owned()),
        keep: columns.iter().filter(is_shown).map(|column| stored(&column.name, &column.data_type)).collect(),
        max_bytes: spec.max_bytes,
        csv: spec.csv,
        header: [text.to_owned()].into(),
        ..Columns::default()
    }
}

/// Whether the first rows can be read without fetching much of the file.
fn is_cheap(file: &SourceFile, format: SourceFormat) -> bool {
    let from_the_beginning = matches!(format, SourceFormat::Jsonl | SourceFormat::Csv);
    from_the_beginning || !file.is_remote() || file.size <= MAX_FETCHED_BYTES
}

/// The first batch of a file; `None` if it has no rows, or none that can be read.
async fn first_rows(
    location: &Location,
    file: &SourceFile,
    spec: &SourceSpec,
    columns: &Columns,
) -> Result<Option<Rows>, SourceError> {
    let first = match open_file(location, file).rows(columns, spec.format).await {
        Ok(mut rows) => rows.next().await.transpose(),
        Err(error) => Err(error),
    };
    match first {
        Ok(rows) => Ok(rows),
        // A run puts the rest of such a file into the quarantine.
        Err(error) => run_error(file, error).map_or(Ok(None), Err),
    }
}

impl ColumnSample {
    fn of(values: &ArrayRef) -> Self {
        let options = FormatOptions::new().with_display_error(true);
        let formatter = ArrayFormatter::try_new(values.as_ref(), &options).ok();
        let value = |row: usize| -> Option<String> {
            if values.is_null(row) {
                return None;
            }
            let bytes = match values.data_type() {
                DataType::Binary => Some(values.as_binary::<i32>().value(row)),
                DataType::LargeBinary => Some(values.as_binary::<i64>().value(row)),
                _ => None,
            };
            match bytes {
                Some(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                None => Some(formatter.as_ref()?.value(row).to_string()),
            }
        };
        let (mut filled, mut chars, mut example, mut distinct) = (0, 0, None, HashSet::new());
        for value in (0..values.len()).filter_map(value).filter(|value| !value.trim().is_empty()) {
            (filled, chars) = (filled + 1, chars + value.chars().count());
            example.get_or_insert_with(|| shortened(&value));
            distinct.insert(value);
        }
        Self { filled, unique: distinct.len() == values.len() && filled > 0, chars, example }
    }
}

/// The beginning of a value on one line.
fn shortened(value: &str) -> String {
    let mut words = value.split_whitespace().flat_map(|word| [" ", word]).skip(1).flat_map(str::chars);
    let mut text: String = words.by_ref().take(EXAMPLE_CHARS).collect();
    if words.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    async fn profile(name: &str, content: &str) -> Result<SourceProfile, SourceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        SourceProfile::read(&SourceSpec::new(path.to_str().unwrap())).await
    }

    fn types(profile: &SourceProfile) -> Vec<(&str, DataType)> {
        profile.columns.iter().map(|column| (column.name.as_str(), column.data_type.clone())).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn columns_of_a_text_format_have_the_types_of_the_first_rows() {
        let csv = "id;body;stars;code\n1;one, two;4.5;007\n2;three;3.5;008\n";
        let csv = profile("reviews.csv", csv).await.unwrap();
        let expected =
            [("id", DataType::Int64), ("body", DataType::Utf8), ("stars", DataType::Float64), ("code", DataType::Utf8)];
        assert_eq!((types(&csv), csv.format, csv.sampled_rows), (expected.to_vec(), SourceFormat::Csv, 2));
        assert!(csv.columns[0].is_id() && !csv.columns[2].is_id() && csv.columns[1].is_text());

        let jsonl = "{\"n\": 1, \"text\": \"a\", \"tags\": [\"x\"]}\n{\"n\": 1, \"text\": \"\"}\n";
        let jsonl = profile("docs.jsonl", jsonl).await.unwrap();
        assert_eq!((jsonl.files, jsonl.sampled_rows, jsonl.columns.len()), (1, 2, 3));
        let sample = |at: usize| jsonl.columns[at].sample.as_ref();
        assert_eq!((sample(0).unwrap().unique, sample(0).unwrap().filled), (false, 2));
        assert_eq!((sample(1).unwrap().unique, sample(1).unwrap().filled), (false, 1));
        assert_eq!(sample(2), None, "a list is not sampled");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn source_without_text_is_refused_and_a_repeated_name_is_noted() {
        let error = profile("numbers.jsonl", "{\"a\": 1, \"b\": [2]}\n").await.unwrap_err();
        let SourceError::NoTextColumn { columns, .. } = &error else { panic!("{error}") };
        assert_eq!(columns[0], "a (Int64)");
        let error = profile("numbers.csv", "a,b\n1,2\n").await.unwrap_err();
        assert!(error.to_string().ends_with("no column has text; the columns are a (Int64), b (Int64)"), "{error}");
        let twice = profile("twice.csv", "text,lang,lang\none,en,en\n").await.unwrap();
        assert_eq!(types(&twice), [("text", DataType::Utf8)]);
        assert!(twice.notes[0].ends_with("more than one column is named `lang`, so none of them can be used"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn built_in_corpus_is_sampled_and_unknown_codes_are_refused() {
        let udhr = SourceProfile::read(&SourceSpec::new("builtin:udhr?codes=eng")).await.unwrap();
        assert_eq!((udhr.files, udhr.format), (1, SourceFormat::Parquet));
        let column = |name: &str| udhr.columns.iter().find(|column| column.name == name).unwrap();
        assert!(column("id").sample.as_ref().unwrap().unique && column("text").is_text());
        assert!(column("lang").can_be_kept() && !column("text").can_be_kept());
        let unknown = SourceProfile::read(&SourceSpec::new("builtin:udhr?codes=xxx")).await.unwrap_err();
        assert!(matches!(unknown, SourceError::UnknownCode { .. }), "{unknown}");
    }

    #[test]
    fn sample_counts_filled_and_equal_values() {
        let sample = |values: ArrayRef| ColumnSample::of(&values);
        let texts = sample(Arc::new(StringArray::from(vec![Some("a  b\nc"), None, Some(" "), Some("ä")])));
        assert_eq!(texts, ColumnSample { filled: 2, unique: false, chars: 7, example: Some("a b c".to_owned()) });
        assert!(sample(Arc::new(Int64Array::from(vec![3, 1, 2]))).unique);
        assert!(!sample(Arc::new(Int64Array::from(vec![3, 1, 3]))).unique);
        let long = sample(Arc::new(StringArray::from(vec!["é".repeat(100)]))).example.unwrap();
        assert_eq!(long.chars().count(), EXAMPLE_CHARS + 1);
    }
}
