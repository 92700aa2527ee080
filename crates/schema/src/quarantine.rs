//! The kinds of quarantine records, and how its columns encode them.

use std::fmt::Display;

use crate::Stage;

/// How the error of a file that cannot be read to its end begins.
const FILE_TAIL: &str = "the file cannot be read from here on";

/// The kind of a record in the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A row of the source.
    Row,
    /// A row of the source and all rows after it in its file, which could not be read.
    FileTail,
    /// A row of the table for which a head has no answer.
    Annotation,
}

impl RecordKind {
    /// The kind of the record with these columns `stage` and `error`.
    pub fn of(stage: &str, error: &str) -> Self {
        if stage == Stage::Annotate.as_str() {
            Self::Annotation
        } else if error.starts_with(FILE_TAIL) {
            Self::FileTail
        } else {
            Self::Row
        }
    }
}

/// The error of a record that stands for the rest of a file.
pub fn file_tail_error(cause: &dyn Display) -> String {
    format!("{FILE_TAIL}: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_and_error_determine_the_kind() {
        let tail = file_tail_error(&"unexpected end");
        assert_eq!(tail, "the file cannot be read from here on: unexpected end");
        assert_eq!(RecordKind::of("scan", &tail), RecordKind::FileTail);
        assert_eq!(RecordKind::of("scan", "no id"), RecordKind::Row);
        assert_eq!(RecordKind::of("annotate", &tail), RecordKind::Annotation);
    }
}
