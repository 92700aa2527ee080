//! Which columns of a source are the text and the id.

use polylance_dataflow::SourceColumn;

/// The id that is a hash of the text.
pub(super) const CONTENT_ID: &str = "@content";
/// Names of columns with the text, the likeliest first.
const TEXT_NAMES: [&str; 13] = [
    "text",
    "body",
    "content",
    "contents",
    "document",
    "passage",
    "paragraph",
    "sentence",
    "message",
    "comment",
    "review",
    "abstract",
    "description",
];
/// Names of columns with the id, the likeliest first.
const ID_NAMES: [&str; 13] =
    ["id", "_id", "doc_id", "docid", "document_id", "uuid", "guid", "url", "uri", "key", "sha256", "hash", "path"];

/// The column with the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextChoice {
    /// The column.
    pub column: String,
    /// Whether its name is a usual one for texts. Otherwise its values are the longest.
    pub by_name: bool,
}

/// The column with the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdChoice {
    /// A column that is named like an id, with a different value in each row that was read.
    Column(String),
    /// There is none: the id is a hash of the text.
    Content {
        /// Columns that are named like an id and have missing or equal values.
        repeated: Vec<String>,
    },
}

impl TextChoice {
    /// The column with a usual name, or else the one with the longest values; an empty name if no column has text.
    pub(super) fn among(columns: &[SourceColumn]) -> Self {
        let texts: Vec<&SourceColumn> = columns.iter().filter(|column| column.is_text()).collect();
        let is_empty = |column: &SourceColumn| column.sample.as_ref().is_some_and(|sample| sample.filled == 0);
        let is_named = |column: &&&SourceColumn| !is_empty(column) && name_rank(&column.name, &TEXT_NAMES).is_some();
        let named = texts.iter().filter(is_named).min_by_key(|column| name_rank(&column.name, &TEXT_NAMES));
        let chars = |column: &&&SourceColumn| column.sample.as_ref().map_or(0, |sample| sample.chars);
        // `max_by_key` returns the last of equal maxima: the first column comes last.
        let longest = || texts.iter().rev().max_by_key(chars);
        let column = named.or_else(longest).map(|column| column.name.clone()).unwrap_or_default();
        Self { column, by_name: named.is_some() }
    }
}

impl IdChoice {
    /// The column with a usual name and a different value in each row.
    pub(super) fn among(columns: &[SourceColumn], text: &str) -> Self {
        let is_named = |column: &&SourceColumn| {
            column.is_id() && column.name != text && name_rank(&column.name, &ID_NAMES).is_some()
        };
        let mut named: Vec<&SourceColumn> = columns.iter().filter(is_named).collect();
        named.sort_by_key(|column| name_rank(&column.name, &ID_NAMES));
        let is_unique = |column: &&&SourceColumn| column.sample.as_ref().is_none_or(|sample| sample.unique);
        match named.iter().find(is_unique) {
            Some(column) => Self::Column(column.name.clone()),
            None => Self::Content { repeated: named.into_iter().map(|column| column.name.clone()).collect() },
        }
    }
}

/// The position of a name among the usual ones, whatever its case; after them come names that end with one of them,
/// such as `page_content`.
fn name_rank(name: &str, usual: &[&str]) -> Option<usize> {
    let name = name.to_lowercase();
    let whole = usual.iter().position(|usual| name == *usual);
    let end = || {
        let is_end = |usual: &&str| name.strip_suffix(*usual).is_some_and(|start| start.ends_with(['_', '-', '.']));
        Some(usual.len() + usual.iter().position(is_end)?)
    };
    whole.or_else(end)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use polylance_dataflow::ColumnSample;

    use super::*;

    fn column(name: &str, data_type: DataType, chars: usize, unique: bool) -> SourceColumn {
        let sample = ColumnSample { filled: usize::from(chars > 0), unique, chars, example: None };
        SourceColumn { name: name.to_owned(), data_type, sample: Some(sample) }
    }

    fn text(name: &str, chars: usize) -> SourceColumn {
        column(name, DataType::Utf8, chars, true)
    }

    #[test]
    fn text_is_the_column_with_a_usual_name_or_else_with_the_longest_values() {
        let choice = |columns: &[SourceColumn]| {
            let choice = TextChoice::among(columns);
            (choice.column, choice.by_name)
        };
        let found = |name: &str, by_name| (name.to_owned(), by_name);
        assert_eq!(choice(&[text("title", 90), text("Body", 9), text("text_b", 9)]), found("Body", true));
        assert_eq!(choice(&[text("content", 9), text("text", 5)]), found("text", true));
        assert_eq!(choice(&[text("title", 90), text("page_content", 9)]), found("page_content", true));
        assert_eq!(choice(&[text("nombre", 9), text("cuerpo", 90), text("apellido", 20)]), found("cuerpo", false));
        assert_eq!(choice(&[text("text", 0), text("cuerpo", 9)]), found("cuerpo", false), "an empty column");
        assert_eq!(choice(&[column("text", DataType::Int64, 5, true), text("a", 1)]), found("a", false));
        assert_eq!(choice(&[text("a", 0), text("b", 0)]), found("a", false));
    }

    #[test]
    fn id_has_a_usual_name_and_different_values() {
        let number = |name: &str, unique| column(name, DataType::Int64, 9, unique);
        let choice = |columns: &[SourceColumn]| IdChoice::among(columns, "text");
        let found = |name: &str| IdChoice::Column(name.to_owned());
        assert_eq!(choice(&[text("url", 9), number("ID", true), text("text", 9)]), found("ID"));
        assert_eq!(choice(&[number("id", false), text("url", 9)]), found("url"));
        assert_eq!(choice(&[number("author_id", false), number("page_id", true)]), found("page_id"));
        let none =
            |repeated: &[&str]| IdChoice::Content { repeated: repeated.iter().map(ToString::to_string).collect() };
        assert_eq!(choice(&[number("id", false), text("title", 9)]), none(&["id"]));
        assert_eq!(choice(&[column("id", DataType::Float64, 9, true), number("paid", true)]), none(&[]));
        let unread = SourceColumn { sample: None, ..number("id", false) };
        assert_eq!(choice(&[unread]), found("id"));
    }
}
