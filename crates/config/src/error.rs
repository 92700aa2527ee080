//! What can be wrong with a pipeline file. All of it is the file's author's to mend.

use std::path::PathBuf;

/// A pipeline file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{file} is not TOML: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A key that means nothing.
    #[error("{file}: unknown key `{key}`")]
    UnknownKey {
        /// The file.
        file: String,
        /// The key's whole path.
        key: String,
        /// The known key nearest in spelling.
        nearest: Option<String>,
        /// All known keys of the section.
        known: Vec<String>,
    },
    /// A value of the wrong type, or a missing key.
    #[error("{file}: {key}: {message}")]
    Value {
        /// The file.
        file: String,
        /// The key's whole path.
        key: String,
        /// Expected and found.
        message: String,
    },
    /// A file of another version of the format.
    #[error("{file}: version {found} is not known to this program, which reads version 1")]
    Version {
        /// The file.
        file: String,
        /// What the file says.
        found: String,
    },
    /// A `--set` that is not `key=value`.
    #[error("`--set {argument}` is not of the form key=value")]
    Override {
        /// What was given.
        argument: String,
    },
}

impl ConfigError {
    /// What to do about it, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest, known, .. } => {
                let did_you_mean = nearest.as_ref().map(|nearest| format!("did you mean `{nearest}`? "));
                Some(format!("{}known keys: {}", did_you_mean.unwrap_or_default(), known.join(", ")))
            }
            Self::Override { .. } => Some("write for example `--set table.uri=out.lance`".into()),
            Self::Version { .. } => Some("the first line of a pipeline file is `version = 1`".into()),
            Self::Read { .. } | Self::Syntax { .. } | Self::Value { .. } => None,
        }
    }
}
