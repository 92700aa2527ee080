//! The text of a drafted pipeline file.

use std::fmt::Write;

use polylance_dataflow::SourceColumn;
use toml::Value;

use super::{IdChoice, PipelineDraft, choice::CONTENT_ID};

/// The largest number of columns that the comment lists.
const LISTED_COLUMNS: usize = 100;

impl PipelineDraft {
    /// The pipeline file with its comments. `file` is its path in the commands that the last comment lists.
    pub fn to_toml(&self, file: &str) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = self.write(&mut text, file);
        text
    }

    fn write(&self, f: &mut impl Write, file: &str) -> std::fmt::Result {
        let Self { source, table, profile, text, .. } = self;
        let files = if profile.files == 1 { "1 file".to_owned() } else { format!("{} files", profile.files) };
        let (format, size) = (format!("{:?}", profile.format).to_lowercase(), size(profile.bytes));
        writeln!(f, "# A pipeline for {}: {files}, {size}, {format}.", comment(&profile.address))?;
        writeln!(
            f,
            "# Relative paths start at the folder in which polylance runs. Keys that are left out have defaults."
        )?;
        writeln!(f, "version = 1\n\n[source]\nuri = {}", quoted(source))?;
        self.write_columns(f)?;
        let reason = match (text.by_name, profile.sampled_rows) {
            (true, _) => "",
            (false, 0) => " No column has a usual name for it: check this one.",
            (false, _) => " No column has a usual name for it, and this one has the longest values.",
        };
        writeln!(f, "# The column with the text.{reason}\ntext = {}", quoted(&text.column))?;
        self.write_id(f)?;
        let keep = self.keep();
        if !keep.is_empty() {
            let names: Vec<String> = keep.into_iter().map(quoted).collect();
            writeln!(f, "# Columns to copy to the table, for filters and SQL; [\"*\"] copies all.")?;
            writeln!(f, "# keep = [{}]", names.join(", "))?;
        }
        write!(f, "\n{MODEL}\n[table]\n")?;
        writeln!(f, "# Created by the first run. It may also be s3://, gs:// or az://.\nuri = {}", quoted(table))?;
        write!(f, "\n{INDEX}\n# Next:\n#   polylance run {}\n", argument(file))?;
        let (table, columns) = (argument(table), "doc_id, n_tokens, text");
        writeln!(f, "#   polylance search --table {table} \"words to look for\"")?;
        writeln!(f, "#   polylance sql --table t={table} \"SELECT {columns} FROM t LIMIT 10\"")?;
        writeln!(f, "#   polylance serve --table {table}")
    }

    /// A table of the columns, in comments.
    fn write_columns(&self, f: &mut impl Write) -> std::fmt::Result {
        let profile = &self.profile;
        match profile.sampled_rows {
            0 => writeln!(f, "# The columns and their types:")?,
            1 => writeln!(f, "# The columns, with their types and values in the first row:")?,
            rows => writeln!(f, "# The columns, with their types and a value of the first {rows} rows:")?,
        }
        let listed = &profile.columns[..profile.columns.len().min(LISTED_COLUMNS)];
        let names: Vec<String> = listed.iter().map(|column| comment(&column.name)).collect();
        let types: Vec<String> = listed.iter().map(type_name).collect();
        let width = |cells: &[String]| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let (name_width, type_width) = (width(&names), width(&types));
        for ((column, name), kind) in listed.iter().zip(&names).zip(&types) {
            let example = column.sample.as_ref().and_then(|sample| sample.example.as_deref()).unwrap_or_default();
            let line = format!("#   {name:name_width$}  {kind:type_width$}  {}", comment(example));
            writeln!(f, "{}", line.trim_end())?;
        }
        if let more @ 1.. = profile.columns.len() - listed.len() {
            writeln!(f, "#   and {more} more")?;
        }
        Ok(())
    }

    fn write_id(&self, f: &mut impl Write) -> std::fmt::Result {
        writeln!(f, "# The id is unique in the source: by it, a later run finds the documents that changed.")?;
        match &self.id {
            IdChoice::Column(name) => {
                match self.profile.sampled_rows {
                    0 => writeln!(f, "# No row was read: check that each has a different value here.")?,
                    1 => writeln!(f, "# There is one row, so check that each has a different value here.")?,
                    rows => writeln!(f, "# Each of the first {rows} rows has a different value in this column.")?,
                }
                writeln!(f, "id = {}", quoted(name))
            }
            IdChoice::Content { repeated } => {
                if repeated.is_empty() {
                    writeln!(f, "# No column has the name of an id.")?;
                } else {
                    let names: Vec<String> = repeated.iter().map(|name| comment(name)).collect();
                    writeln!(f, "# In the first rows, values are missing or repeated in {}.", names.join(", "))?;
                }
                writeln!(f, "# So the id is a hash of the text: equal texts are one document, a changed one is new.")?;
                writeln!(f, "# \"@row\" names the file and the row instead. If a column is unique, name it here.")?;
                writeln!(f, "id = {}", quoted(CONTENT_ID))
            }
        }
    }
}

const MODEL: &str = "\
[model]
# This one is in the program: 384 dimensions, about 100 languages.
id = \"builtin:multilingual-e5-small\"
# Or a name on the Hugging Face hub, from which the first run downloads it:
# id = \"intfloat/multilingual-e5-base\"
# id = \"intfloat/multilingual-e5-large\"
# id = \"BAAI/bge-m3\"
# id = \"facebook/xlm-roberta-xl\"
# Or a folder with a model, or a .gguf file:
# id = \"./models/mine\"
";

const INDEX: &str = "\
# A full-text index next to the vectors, for full-text and hybrid search:
# [index]
# words = true
";

/// A TOML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text for a comment: without line breaks and other control characters.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An argument of a command in a comment, in quotes where a shell needs them.
fn argument(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    let text = comment(text);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The type of a column, without the fields of a nested one.
fn type_name(column: &SourceColumn) -> String {
    use arrow::datatypes::DataType::{FixedSizeList, LargeList, List, Map, Struct};

    match &column.data_type {
        List(_) | LargeList(_) | FixedSizeList(..) => "List".to_owned(),
        Struct(_) => "Struct".to_owned(),
        Map(..) => "Map".to_owned(),
        plain => plain.to_string(),
    }
}

fn size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((name, factor)) => format!("{:.1} {name}", bytes as f64 / *factor as f64),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use polylance_config::Pipeline;
    use polylance_dataflow::{ColumnSample, SourceProfile};
    use polylance_schema::SourceFormat;

    use super::*;
    use crate::draft::TextChoice;

    fn column(name: &str, example: &str) -> SourceColumn {
        let sample = ColumnSample { filled: 1, unique: true, chars: 9, example: Some(example.to_owned()) };
        SourceColumn { name: name.to_owned(), data_type: DataType::Utf8, sample: Some(sample) }
    }

    fn draft(source: &str, columns: Vec<SourceColumn>, id: IdChoice) -> PipelineDraft {
        let text = TextChoice { column: columns[0].name.clone(), by_name: false };
        let profile = SourceProfile {
            address: source.to_owned(),
            files: 2,
            bytes: 1536,
            format: SourceFormat::Csv,
            columns,
            sampled_rows: 3,
            notes: Vec::new(),
        };
        PipelineDraft { source: source.to_owned(), table: "my docs.lance".to_owned(), profile, text, id }
    }

    #[test]
    fn names_and_values_of_any_kind_make_a_valid_file() {
        let odd = "a \"b\"\n# c\u{7f}\\\t[x]";
        let columns = vec![column(odd, "one\nuri = 3"), column("lang", "en"), column("a.b", "x"), column("text", "y")];
        let draft = draft(&format!("{odd}/*.csv"), columns, IdChoice::Column("lang".to_owned()));
        let text = draft.to_toml("my file.toml");
        let pipeline = Pipeline::parse("p.toml", &text, &[""; 0]).unwrap();
        assert_eq!((pipeline.source.uri.as_str(), pipeline.source.text.as_str()), (draft.source.as_str(), odd));
        assert_eq!((pipeline.source.id.as_str(), pipeline.table.uri.as_str()), ("lang", "my docs.lance"));
        assert!(text.contains("#   polylance run 'my file.toml'\n"), "{text}");
        assert!(text.contains("--table 'my docs.lance' \"words to look for\"\n"), "{text}");
        assert!(text.contains(": 2 files, 1.5 KiB, csv.\n"), "{text}");
    }

    #[test]
    fn every_commented_key_is_valid_without_its_comment_sign() {
        let draft = draft(
            "docs",
            vec![column("body", "a"), column("lang", "en"), column("n", "1")],
            IdChoice::Content { repeated: vec!["lang".to_owned()] },
        );
        let text = draft.to_toml("p.toml");
        assert!(text.contains("# keep = [\"lang\", \"n\"]\n"), "{text}");
        let model = "# id = \"BAAI/bge-m3\"\n";
        let with = text.replace("# keep", "keep").replace("# [index]", "[index]").replace("# words", "words");
        let with = with.replace("id = \"builtin:multilingual-e5-small\"\n", "").replace(model, &model[2..]);
        let pipeline = Pipeline::parse("p.toml", &with, &[""; 0]).unwrap();
        assert_eq!((pipeline.source.keep.len(), pipeline.index.words), (2, true));
        assert_eq!((pipeline.source.id.as_str(), pipeline.model.id.as_str()), (CONTENT_ID, "BAAI/bge-m3"));
    }
}
