//! What can be wrong with a pipeline file, by what its writer can do about it.

use std::{borrow::Cow, fmt, path::PathBuf};

use polylance_schema::{ErrorClass, Explain};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File {
        /// The file, as it was named.
        name: String,
        /// The line, from 1; `None` for the file as a whole.
        line: Option<usize>,
    },
    /// In an override on the command line.
    Override(String),
    /// In the arguments of a command that takes no file.
    Arguments,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => write!(f, "{name}"),
            Self::Override(text) => write!(f, "--set {text}"),
            Self::Arguments => write!(f, "command line"),
        }
    }
}

/// A pipeline file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be opened: look at its name.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The text is not TOML: repair the line.
    #[error("{place}: not TOML: {message}")]
    Syntax {
        /// Where.
        place: Box<Place>,
        /// The TOML reader's words.
        message: String,
    },
    /// The file is of another version: use a polylance that reads it.
    #[error("{place}: this file has version {found}; this polylance reads version 1")]
    Version {
        /// Where.
        place: Box<Place>,
        /// The version it has.
        found: String,
    },
    /// There is no such key: use a known one.
    #[error("{place}: unknown key `{key}`")]
    UnknownKey {
        /// Where.
        place: Box<Place>,
        /// The key with its section, `source.uir`.
        key: String,
        /// The section, `[source]` or `the file`.
        section: String,
        /// The known key that is spelled most like it.
        nearest: Option<String>,
        /// All known keys of the section.
        known: Vec<String>,
    },
    /// A key that must be there is not: add it.
    #[error("{place}: `{key}` is missing")]
    Missing {
        /// The file, or the section's line.
        place: Box<Place>,
        /// The key with its section.
        key: String,
        /// What to write.
        example: String,
    },
    /// The value is of another type: write it as expected.
    #[error("{place}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// Where.
        place: Box<Place>,
        /// The key with its section.
        key: String,
        /// The expected type, with its article.
        expected: String,
        /// The type found, with its article.
        found: String,
    },
    /// The value is none of those allowed: choose one.
    #[error("{place}: `{key}` must be {expected}, found {found}")]
    WrongValue {
        /// Where.
        place: Box<Place>,
        /// The key with its section.
        key: String,
        /// What is allowed.
        expected: String,
        /// The value found.
        found: String,
        /// The allowed value that is spelled most like it.
        nearest: Option<String>,
    },
    /// Two values do not go together: change one.
    #[error("{place}: {message}")]
    Invalid {
        /// Where.
        place: Box<Place>,
        /// Which keys, expected and found.
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
