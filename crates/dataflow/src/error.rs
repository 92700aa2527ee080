//! Errors of a whole source. A single bad file or row is none of them: it goes to the quarantine.

use std::{borrow::Cow, io};

use polylance_hub::HubError;
use polylance_iceberg::AmbiguousMetadata;
use polylance_schema::{ErrorClass, Explain, STORE_REFUSAL_HINT};

use crate::{
    is_store_refusal,
    read::error::ReadError,
    source::uri::{STDIN_NAME, is_glob, is_web},
};

/// The use of a column in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnUse {
    /// Its values are the ids.
    Id,
    /// Its values are the texts.
    Text,
    /// It is kept.
    Other,
}

/// The format of a table that is a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Lance.
    Lance,
    /// Iceberg.
    Iceberg,
}

/// A source that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The URI is invalid or names no source.
    #[error("source `{uri}`: {message}")]
    Uri {
        /// The URI as it was given.
        uri: String,
        /// What is wrong with it.
        message: String,
    },
    /// Nothing exists there.
    #[error("source `{uri}`: no such file, folder or object")]
    NotFound {
        /// The URI as it was given.
        uri: String,
    },
    /// A table cannot be opened.
    #[error("the {kind:?} table {uri} cannot be opened")]
    Table {
        /// The table.
        uri: String,
        /// Its format.
        kind: TableKind,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two metadata files of an Iceberg table may be the newest.
    #[error("the newest version of the Iceberg table {uri} is not known")]
    NewestMetadata {
        /// The table.
        uri: String,
        /// The two files.
        source: AmbiguousMetadata,
    },
    /// A table has no rows.
    #[error("the {kind:?} table {uri} has no rows")]
    EmptyTable {
        /// The table.
        uri: String,
        /// Its format.
        kind: TableKind,
    },
    /// Rows of an Iceberg table are to have their positions as ids, and some were deleted.
    #[error("{uri}: `@row` is no id in an Iceberg table with deletion files, because rows change their positions")]
    DeletedRows {
        /// The table.
        uri: String,
    },
    /// A table of polylance has several rows for a document.
    #[error("{uri}: `doc_id` is not unique, because the table has documents with several chunks")]
    Chunks {
        /// The table.
        uri: String,
    },
    /// Standard input is a terminal.
    #[error("the source `-` is standard input, which is a terminal")]
    Terminal,
    /// Standard input ended before its first byte.
    #[error("standard input is empty")]
    EmptyInput,
    /// Standard input failed, or ended in the middle.
    #[error("standard input could not be read to its end")]
    Input {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system refuses access.
    #[error("source `{uri}` cannot be read")]
    File {
        /// The URI as it was given.
        uri: String,
        /// Why.
        source: io::Error,
    },
    /// A file was replaced or written while it was read.
    #[error("`{file}` changed while it was read: run again")]
    Changed {
        /// The file.
        file: String,
    },
    /// The store refuses access, or is not reached.
    #[error("source `{uri}` cannot be reached")]
    Storage {
        /// The URI as it was given.
        uri: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The dataset on the hub cannot be listed.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The store failed while a file was read, retries included.
    #[error("{file} cannot be read from its store")]
    Store {
        /// The file.
        file: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There are files, and none can be read.
    #[error("{file}: {message}")]
    Unreadable {
        /// The first of them.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A column that is not in the files.
    #[error("{file}: no column `{column}`; the columns are {}", columns.join(", "))]
    MissingColumn {
        /// The file.
        file: String,
        /// The missing column.
        column: String,
        /// The use of its values.
        usage: ColumnUse,
        /// The file's columns.
        columns: Vec<String>,
        /// The file's column nearest in spelling.
        nearest: Option<String>,
    },
    /// SQL that cannot be computed from the columns of one row, or has a type that does not fit its use.
    #[error("`{key}` of the source, `{expression}`: {message}")]
    Expression {
        /// The key in `[source]`.
        key: String,
        /// The SQL.
        expression: String,
        /// What is wrong with it.
        message: String,
    },
    /// A column with a type that does not fit its use.
    #[error("{file}: column `{column}` is {found}, expected {expected}")]
    ColumnType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// The types that fit.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// No column of the files can be the text.
    #[error("{file}: no column has text; the columns are {}", columns.join(", "))]
    NoTextColumn {
        /// The first readable file.
        file: String,
        /// Its columns, each with its type.
        columns: Vec<String>,
    },
    /// A kept column has a name that the table reserves.
    #[error("column `{column}` cannot be kept: the table has a column of this name itself")]
    ReservedColumn {
        /// The column.
        column: String,
    },
    /// A kept column has a name that Lance does not allow.
    #[error("column `{column}` cannot be kept: a name in a Lance table is not empty and has no dot")]
    ColumnName {
        /// The column.
        column: String,
    },
    /// A column is kept twice.
    #[error("column `{column}` is named twice in `keep`")]
    KeptTwice {
        /// The column.
        column: String,
    },
    /// Two columns of a file have one name.
    #[error("{file}: more than one column is named `{column}`")]
    AmbiguousColumn {
        /// The file.
        file: String,
        /// The name.
        column: String,
    },
    /// The listing of a source takes more memory than it may.
    #[error("{uri} has more than {files} files, and their listing takes more than {memory} bytes")]
    Listing {
        /// The source.
        uri: String,
        /// The number of files that fit.
        files: usize,
        /// The bytes that the listing may take.
        memory: u64,
    },
    /// Spilled data could not be written to a temporary file, or not be read again.
    #[error("a temporary file in {folder} failed")]
    Temporary {
        /// The folder for temporary files.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// A translation that the built-in corpus does not have.
    #[error("builtin:udhr has no translation with the code {}", codes.join(", "))]
    UnknownCode {
        /// The codes.
        codes: Vec<String>,
    },
}

/// The store's error among the causes of an error.
fn find_store_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e object_store::Error> {
    match error.downcast_ref::<ReadError>() {
        Some(error) => error.store_error(),
        None => error.downcast_ref(),
    }
}

/// The hint for a refusal, by store.
fn refused(uri: &str) -> &'static str {
    match uri.split_once("://").map(|(scheme, _)| scheme) {
        Some("http" | "https") => {
            "the server refuses access to this address: a signed URL may have expired, or its query may be cut off \
             (put quotes around the URL: a shell interprets `&`)"
        }
        Some("gs") => {
            "Google Cloud Storage refuses these credentials: set GOOGLE_SERVICE_ACCOUNT or \
             GOOGLE_APPLICATION_CREDENTIALS to the file with the key of an account that may read the bucket"
        }
        Some("az") => {
            "Azure refuses these credentials: set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or \
             AZURE_STORAGE_SAS_TOKEN"
        }
        Some("hf") => {
            "the hub refuses access to this dataset: set HF_TOKEN to a token with access to it, and accept the \
             conditions on the dataset's page if it has some"
        }
        _ => STORE_REFUSAL_HINT,
    }
}

/// The hint for a store that is not reached, by store.
fn unreachable_store(uri: &str) -> &'static str {
    match uri.split_once("://").map(|(scheme, _)| scheme) {
        Some("http" | "https") => "check the host and the port of the address, and try again when the server responds",
        Some("hf") => "check the network and HF_ENDPOINT, and try again",
        Some("gs") => "check the bucket and GOOGLE_SERVICE_ACCOUNT in the environment, and try again",
        Some("az") => "check the container and AZURE_STORAGE_ACCOUNT_NAME in the environment, and try again",
        _ => "check the endpoint and the region in the environment, and try again",
    }
}

/// The hint for a store that refuses access or is not reached.
pub fn store_hint(uri: &str, error: &(dyn std::error::Error + 'static)) -> &'static str {
    if is_store_refusal(error) { refused(uri) } else { unreachable_store(uri) }
}

impl SourceError {
    /// The error of standard input: its format, or its premature end.
    pub(crate) fn stdin(error: ReadError) -> Self {
        let unsupported = |error: &io::Error| error.kind() == io::ErrorKind::Unsupported;
        match error {
            ReadError::Content(message) => Self::Unreadable { file: STDIN_NAME.to_owned(), message },
            ReadError::Io(error) if unsupported(&error) => {
                Self::Unreadable { file: STDIN_NAME.to_owned(), message: error.to_string() }
            }
            error => Self::Input { source: Box::new(error) },
        }
    }

    pub(crate) fn temporary(source: io::Error) -> Self {
        Self::Temporary { folder: std::env::temp_dir().display().to_string(), source }
    }
}

impl Explain for SourceError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint: Option<String> = match self {
            Self::Hub(error) => return error.hint(),
            Self::MissingColumn { usage: ColumnUse::Id, nearest, .. } => {
                let nearest = nearest.as_ref().map(|nearest| format!("did you mean `{nearest}`? "));
                Some(format!(
                    "{}name the column with `id = \"…\"` in [source] or --id; without one, `id = \"@content\"` \
                     (--id @content) makes ids of the texts, and `id = \"@row\"` (--id @row) of file and row",
                    nearest.unwrap_or_default()
                ))
            }
            Self::MissingColumn { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::MissingColumn { .. } => {
                Some("name the columns with `text = \"…\"` and `id = \"…\"` in [source], or --text and --id".into())
            }
            Self::NoTextColumn { .. } => Some("name a source in which a column has the texts to embed".into()),
            Self::Expression { .. } => Some(
                "SQL over a source uses the columns of one row, and functions that have one value for it in every run: \
                 no queries, aggregates, random() or now(); a name that is not a plain word is in double quotes"
                    .into(),
            ),
            Self::KeptTwice { .. } => Some("name it once".into()),
            Self::ReservedColumn { .. } | Self::ColumnName { .. } | Self::AmbiguousColumn { .. } => {
                Some("rename the column in the source, or leave it out of `keep`".into())
            }
            Self::NotFound { uri } if is_glob(uri) && !is_web(uri) => Some(
                "`*`, `?`, `[…]` and `{…}` are a glob where nothing has exactly this name; `[*]`, `[?]`, `[[]`, `[{]` \
                 stand for the character itself"
                    .into(),
            ),
            Self::NotFound { uri } if is_web(uri) => {
                Some("a web server has no folders and globs: name one file, with the query of its URL".into())
            }
            Self::NotFound { uri } if uri.contains("://") => {
                Some("write the name of an object as its store prints it; a folder is read whole".into())
            }
            Self::NotFound { .. } => Some("relative paths start at the current folder; a folder is read whole".into()),
            Self::Table { uri, source, .. } if is_store_refusal(source.as_ref()) => Some(refused(uri).into()),
            Self::Table { uri, .. } if uri.contains("://") => Some(unreachable_store(uri).into()),
            Self::Table { .. } => Some("files of it may be missing, or a newer program may have written it".into()),
            Self::NewestMetadata { .. } => {
                Some("one is of a commit that failed: name the file that the table's catalog has as the source".into())
            }
            Self::EmptyTable { .. } => Some("a table without rows is no source: nothing was changed".into()),
            Self::Chunks { .. } => {
                Some("embed the source of that table, or name another column with --id or `id` in [source]".into())
            }
            Self::DeletedRows { .. } => {
                Some("take `@content` or a column as the id, or rewrite the data files of the table".into())
            }
            Self::Terminal => Some(
                "pipe the documents into the command: jq -c '.[]' docs.json | polylance embed --source - --table \
                 docs.lance"
                    .into(),
            ),
            Self::EmptyInput => Some("the command before the pipe wrote nothing: its own messages may show why".into()),
            Self::Input { .. } => Some(
                "the command before the pipe may have failed; committed rows stay, and the next run continues from \
                 there"
                    .into(),
            ),
            Self::File { .. } => Some("the user of this process needs permission to read it and its folder".into()),
            Self::Changed { .. } => Some(
                "let its writer finish, or let it write a new file and rename that; committed rows stay, and the next \
                 run continues from there"
                    .into(),
            ),
            Self::Storage { uri, source } => Some(store_hint(uri, source).into()),
            Self::Store { file, source }
                if find_store_error(source.as_ref()).is_some_and(|error| is_store_refusal(error)) =>
            {
                Some(refused(file).into())
            }
            Self::Store { .. } => {
                Some("run the same command again when the store responds: it continues after the committed rows".into())
            }
            Self::Listing { .. } => Some(
                "raise `memory` in [run], or run parts of the source, such as folders or globs, one after another"
                    .into(),
            ),
            Self::Temporary { .. } => {
                Some("make room there, or name another folder with TMPDIR; then run again".into())
            }
            Self::UnknownCode { .. } => {
                Some("`polylance sql` over the whole corpus lists the codes; a few are eng, fra, cmn_hans".into())
            }
            Self::Uri { .. } => Some(
                "a source is a local path, s3://, gs://, az://, http:// or https://, hf://datasets/OWNER/NAME, or \
                 builtin:udhr; globs may stand in paths"
                    .into(),
            ),
            Self::Unreadable { .. } => {
                Some("Parquet, Arrow, JSONL and CSV are read, texts in UTF-8; a damaged file is fetched again".into())
            }
            Self::ColumnType { .. } => Some("name another column, or change its type in the source".into()),
        };
        hint.map(Cow::Owned)
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Hub(error) => error.class(),
            Self::Storage { .. }
            | Self::Store { .. }
            | Self::Changed { .. }
            | Self::File { .. }
            | Self::Input { .. }
            | Self::Table { .. }
            | Self::Temporary { .. } => ErrorClass::Environment,
            _ => ErrorClass::User,
        }
    }
}
