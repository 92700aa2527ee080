//! Columns in the names of folders, as Hive and Spark write them: `year=2024/lang=fr/`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::{DataType, Field, FieldRef},
};

use super::location::{Location, Store, listing::Scope};

/// The name of a folder for null, as Hive and Spark write it.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns in the names of a source's folders, by the order in which they occur.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partitions {
    /// The address of the folder in which the partitions are, with a slash at its end.
    root: String,
    pub(crate) fields: Vec<FieldRef>,
}

impl Partitions {
    /// The partitions of the files below the source's folder. A column is of integers if all its values are.
    pub(crate) fn of(location: &Location) -> Self {
        // The folders of an Iceberg table have values that are computed from its columns.
        if matches!(location.store, Store::Iceberg(_)) {
            return Self::default();
        }
        let root = match &location.scope {
            Scope::One => return Self::default(),
            Scope::Below(root) | Scope::Matching(root, _) => root.clone(),
        };
        // A name, whether all values are integers, and whether there is one.
        let mut found: Vec<(String, bool, bool)> = Vec::new();
        for file in location.files.iter() {
            for (name, value) in folders(&root, &file.uri) {
                let at = found.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
                    found.push((name, true, false));
                    found.len() - 1
                });
                if let Some(value) = value {
                    (found[at].1, found[at].2) = (found[at].1 && integer(&value).is_some(), true);
                }
            }
        }
        let field = |(name, integers, any)| {
            let data_type = if integers && any { DataType::Int64 } else { DataType::Utf8 };
            Arc::new(Field::new(name, data_type, true))
        };
        Self { root, fields: found.into_iter().map(field).collect() }
    }

    /// The partitions of a source whose listing another machine has.
    pub(super) fn below(root: String, fields: Vec<FieldRef>) -> Self {
        Self { root, fields }
    }

    /// The partitions that are no column of the files: a column of the files hides a partition of its name.
    pub(crate) fn without(mut self, columns: &[String]) -> Self {
        self.fields.retain(|field| !columns.contains(field.name()));
        self
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name() == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.fields.iter().map(|field| field.name().clone())
    }

    /// The value of each partition for a file, as an array of one row. A file outside of a partition's folders has null.
    pub(crate) fn values(&self, file: &str) -> Vec<ArrayRef> {
        let of_file: Vec<_> = folders(&self.root, file).collect();
        let value = |field: &FieldRef| -> ArrayRef {
            // Of two folders of one name the inner one counts.
            let value =
                of_file.iter().rev().find(|(name, _)| name == field.name()).and_then(|(_, value)| value.clone());
            match field.data_type() {
                DataType::Int64 => Arc::new(Int64Array::from(vec![value.as_deref().and_then(integer)])),
                _ => Arc::new(StringArray::from(vec![value])),
            }
        };
        self.fields.iter().map(value).collect()
    }
}

/// The part of a file's address below the folder of its source; for a source of one file, the name of the file.
pub(crate) fn relative_path<'a>(scope: &Scope, file: &'a str) -> &'a str {
    match scope {
        Scope::One => file.rsplit('/').next().unwrap_or(file),
        Scope::Below(root) | Scope::Matching(root, _) => file.strip_prefix(root.as_str()).unwrap_or(file),
    }
}

/// The names and values of the folders between the root and a file.
fn folders<'a>(root: &str, file: &'a str) -> impl Iterator<Item = (String, Option<String>)> + use<'a> {
    let path = file.strip_prefix(root).unwrap_or_default();
    let folders = path.rsplit_once('/').map(|(folders, _)| folders).unwrap_or_default();
    folders.split('/').filter_map(|folder| {
        let (name, value) = folder.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((decoded(name), (value != NULL).then(|| decoded(value))))
    })
}

/// The integer, if printing it gives the same text: `007` is a code and not a number.
fn integer(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|value| value.to_string() == text)
}

/// The text with `%2F` as `/`. What is no escape, or gives no UTF-8, stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|&digit| (digit as char).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, hex(0), hex(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use arrow::array::{Array, AsArray};

    use super::*;

    async fn partitions(files: &[&str]) -> (Partitions, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let location = Location::find(folder.path().to_str().unwrap(), 1 << 20).await.unwrap();
        let files = location.files.iter().map(|file| file.uri.clone()).collect();
        (Partitions::of(&location), files)
    }

    #[tokio::test]
    async fn partitions_are_integers_only_if_all_their_values_are() {
        let (found, _) = partitions(&[
            "year=2024/month=01/lang=fr/a.csv",
            "year=__HIVE_DEFAULT_PARTITION__/month=12/lang=7/b.csv",
            "plain/c.csv",
        ])
        .await;
        let types: Vec<_> = found.fields.iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
        assert_eq!(types, [("year", DataType::Int64), ("month", DataType::Utf8), ("lang", DataType::Utf8)]);
    }

    #[tokio::test]
    async fn names_and_values_are_decoded_and_the_default_partition_is_null() {
        let (found, files) =
            partitions(&["a%20b=x%2Fy%zz/a.csv", "a%20b=__HIVE_DEFAULT_PARTITION__/b.csv", "c.csv"]).await;
        assert_eq!(found.names().collect::<Vec<_>>(), ["a b"]);
        let value = |file: &str| {
            let value = &found.values(file)[0];
            value.is_valid(0).then(|| value.as_string::<i32>().value(0).to_owned())
        };
        let mut values: Vec<_> = files.iter().map(|file| value(file)).collect();
        values.sort();
        assert_eq!(values, [None, None, Some("x/y%zz".to_owned())]);
    }

    #[test]
    fn a_document_is_named_by_its_path_below_the_source() {
        let below = Scope::Below("s3://b/docs/".to_owned());
        assert_eq!(relative_path(&below, "s3://b/docs/x/a.csv"), "x/a.csv");
        assert_eq!(relative_path(&Scope::One, "/home/docs/a.csv"), "a.csv");
        assert_eq!(relative_path(&Scope::One, "builtin:udhr"), "builtin:udhr");
    }
}
