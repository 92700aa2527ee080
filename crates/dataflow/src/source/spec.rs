//! Where a source is, and how it is read.

use polylance_schema::{DEFAULT_MAX_TEXT_BYTES, DEFAULT_MEMORY_BYTES, SourceFormat};
use serde::{Deserialize, Serialize};

use super::uri::{STDIN, redacted};

/// The default column with the document's id.
pub(super) const DEFAULT_ID: &str = "id";
/// The id of a source whose ids are hashes of its texts.
pub(super) const CONTENT_ID: &str = "@content";
/// The id of a source whose ids are positions in its files.
pub(super) const ROW_ID: &str = "@row";

/// The separators of CSV files; those that are not given are detected at the beginning of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CsvSpec {
    /// Separates fields.
    pub delimiter: Option<u8>,
    /// Encloses fields with delimiters and line breaks.
    pub quote: Option<u8>,
    /// Precedes a quote inside of quotes; the quote itself where quotes are doubled.
    pub escape: Option<u8>,
}

/// Where a corpus is, and which of its columns are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceSpec {
    /// A file, a folder, a glob, a Lance table or `builtin:udhr[?codes=…]`; a path or a URL. `-` is standard input.
    pub uri: String,
    /// The format of the files; detected by content unless given.
    pub format: Option<SourceFormat>,
    /// The document's id: a column, SQL over the columns, `@content` (the hash of the text) or `@row` (file and row).
    pub id: String,
    /// The text: a column, or SQL over the columns.
    pub text: String,
    /// Columns to carry over, or SQL with a name, `upper(lang) AS lang`; `["*"]` is all other columns.
    pub keep: Vec<String>,
    /// A SQL condition over the columns; rows for which it is not true are no documents.
    pub condition: Option<String>,
    /// The largest size of a text in bytes; longer ones are refused.
    pub max_bytes: u64,
    /// The separators of CSV files.
    pub csv: CsvSpec,
    /// The bytes of memory that the listing of the files may take.
    pub memory: u64,
}

impl SourceSpec {
    /// A source with the defaults of a pipeline file: columns `id` and `text`, and no others kept.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            format: None,
            id: DEFAULT_ID.to_owned(),
            text: "text".to_owned(),
            keep: Vec::new(),
            condition: None,
            max_bytes: DEFAULT_MAX_TEXT_BYTES,
            csv: CsvSpec::default(),
            memory: DEFAULT_MEMORY_BYTES,
        }
    }

    /// Whether the source is standard input, which can be read once.
    pub fn is_stdin(&self) -> bool {
        self.uri == STDIN
    }

    /// The address as messages may show it: without the query of a URL, which may be a signature.
    pub fn address(&self) -> String {
        redacted(&self.uri)
    }
}
