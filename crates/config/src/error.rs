//! Errors in pipeline files, by what their author can do about them.

use std::{borrow::Cow, fmt, path::PathBuf};

use polylance_schema::{ErrorClass, Explain};

/// The location of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In the file.
    File {
        /// The file, as the user named it.
        name: String,
        /// The line, from 1; `None` for the file as a whole.
        line: Option<usize>,
    },
    /// In an override on the command line.
    Override(String),
    /// In the arguments of a command that takes no file.
    Arguments,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => write!(f, "{name}"),
            Self::Override(text) => write!(f, "--set {text}"),
            Self::Arguments => write!(f, "command line"),
        }
    }
}

/// A pipeline file or an override is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be opened: check its name.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The text is not TOML: correct the line.
    #[error("{location}: not TOML: {message}")]
    Syntax {
        /// The location.
        location: Box<Location>,
        /// The TOML parser's message.
        message: String,
    },
    /// The file has another version: use a polylance that reads it.
    #[error("{location}: this file has version {found}; this polylance reads version 1")]
    Version {
        /// The location.
        location: Box<Location>,
        /// The file's version.
        found: String,
    },
    /// There is no such key: use a known one.
    #[error("{location}: unknown key `{key}`")]
    UnknownKey {
        /// The location.
        location: Box<Location>,
        /// The key with its section, `source.uir`.
        key: String,
        /// The section, `[source]` or `the file`.
        section: String,
        /// The known key with the most similar spelling.
        nearest: Option<String>,
        /// All known keys of the section.
        known: Vec<String>,
    },
    /// A required key is missing: add it.
    #[error("{location}: `{key}` is missing")]
    Missing {
        /// The file, or the section's line.
        location: Box<Location>,
        /// The key with its section.
        key: String,
        /// An example of the key.
        example: String,
    },
    /// The value has another type: write it as expected.
    #[error("{location}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// The location.
        location: Box<Location>,
        /// The key with its section.
        key: String,
        /// The expected type, with its article.
        expected: String,
        /// The type found, with its article.
        found: String,
    },
    /// The value is not allowed: choose an allowed one.
    #[error("{location}: `{key}` must be {expected}, found {found}")]
    WrongValue {
        /// The location.
        location: Box<Location>,
        /// The key with its section.
        key: String,
        /// The allowed values.
        expected: String,
        /// The value found.
        found: String,
        /// The allowed value with the most similar spelling.
        nearest: Option<String>,
    },
    /// Two values contradict each other: change one.
    #[error("{location}: {message}")]
    Invalid {
        /// The location.
        location: Box<Location>,
        /// The keys, expected and found.
        message: String,
    },
    /// An override is not `key=value`.
    #[error("--set {text}: expected KEY=VALUE, such as source.text=body or table.commit.rows=1000")]
    Override {
        /// The override.
        text: String,
    },
}

impl Explain for ConfigError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::UnknownKey { section, nearest, known, .. } => {
                let known = known.join(", ");
                Some(match nearest {
                    Some(nearest) => format!("did you mean `{nearest}`? {section} has: {known}"),
                    None => format!("{section} has: {known}"),
                })
            }
            Self::WrongValue { nearest, .. } => nearest.as_ref().map(|nearest| format!("did you mean {nearest:?}?")),
            Self::Missing { example, .. } => Some(format!("add `{example}`")),
            Self::Version { .. } => {
                Some("set `version = 1`, or use the polylance that this file was written for".into())
            }
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Some(
                "paths are relative to the current directory; `polylance embed` works without a pipeline file".into(),
            ),
            _ => None,
        };
        hint.map(Cow::Owned)
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}
