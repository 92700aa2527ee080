//! Where a source is, and how it is read.

use polylance_schema::{DEFAULT_MAX_TEXT_BYTES, DEFAULT_MEMORY_BYTES, SourceFormat};

use super::uri::redacted;

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
        redacted(&self.uri)
    }
}
