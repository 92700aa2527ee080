//! The formats of rows.

use std::path::Path;

use crate::error::{Result, UsageError};

/// The format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// An aligned table.
    Table,
    /// One JSON object per line.
    Json,
    /// CSV with a header; lists, objects and vectors are JSON in their cell, bytes are hexadecimal.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Whether a terminal can display it.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Table | Self::Json | Self::Csv)
    }

    /// The format of a file by its extension.
    pub(super) fn of_file(file: &Path) -> Result<Self> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json" | "jsonl" | "ndjson") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some("arrow" | "arrows") => Ok(Self::Arrow),
            Some("parquet") => Ok(Self::Parquet),
            _ => {
                let error = UsageError::new(format!("the extension of {} is not that of a format", file.display()));
                Err(error.with_hint("extensions are .jsonl, .csv, .arrows and .parquet").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_extension_selects_the_format() {
        assert_eq!(Format::of_file("a/b.parquet".as_ref()).unwrap(), Format::Parquet);
        assert_eq!(Format::of_file("b.jsonl".as_ref()).unwrap(), Format::Json);
        assert!(Format::of_file("b.txt".as_ref()).is_err());
    }
}
