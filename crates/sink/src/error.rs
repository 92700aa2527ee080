//! The errors of this crate, by what a caller can do about them.

use std::{borrow::Cow, fmt};

use polylance_dataflow::is_store_refusal;
use polylance_hub::HubError;
use polylance_schema::{ContractDifference, ContractError, ErrorClass, Explain, HeadContractError, STORE_REFUSAL_HINT};

/// The advice for a table on the hub.
const PUSH_HINT: &str = "write the table elsewhere, then send it with `polylance push TABLE hf://datasets/OWNER/NAME`";

/// A table could not be opened, checked, written or indexed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The address has something else: choose another.
    #[error("{uri} is not a lance table: found {found} there")]
    NotATable {
        /// The address.
        uri: String,
        /// What was found.
        found: String,
    },
    /// The table refers to files outside its folder, as a shallow clone does: copy it whole.
    #[error("{uri} refers to files outside its folder")]
    Elsewhere {
        /// The table.
        uri: String,
    },
    /// The table is on the hub: write a table elsewhere, and push it.
    #[error("{uri} is on the hub, where a table is only read")]
    OnHub {
        /// The table.
        uri: String,
    },
    /// The dataset on the hub cannot be read: check its name and the token.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The Lance table was not made by polylance: choose another address.
    #[error("{uri} is a lance table without an embedding contract: it was not made by polylance")]
    NoContract {
        /// The table.
        uri: String,
    },
    /// The contract in the table's metadata cannot be read: use the version that wrote it.
    #[error("{uri}: the embedding contract in the table's metadata cannot be read")]
    UnreadableContract {
        /// The table.
        uri: String,
        /// The cause.
        source: ContractError,
    },
    /// There is no table: embed first.
    #[error("no table at {uri}")]
    NoTable {
        /// The address.
        uri: String,
    },
    /// The table lacks a required column.
    #[error("{uri} has no column {column:?}")]
    MissingColumn {
        /// The table.
        uri: String,
        /// The column.
        column: String,
    },
    /// The column exists and is not an annotation: choose another name.
    #[error("{uri}: column {column:?} exists and is not an annotation")]
    NotAnAnnotation {
        /// The table.
        uri: String,
        /// The column.
        column: String,
    },
    /// A head's contract in the table's metadata cannot be read: use the version that wrote it.
    #[error("{uri}: a head's contract in the table's metadata cannot be read")]
    UnreadableHead {
        /// The table.
        uri: String,
        /// The cause.
        source: HeadContractError,
    },
    /// Another run has dropped the column or assigned it to another head: decide on one head, and run again.
    #[error("{uri}: column {column:?} was dropped or assigned to another head while this run filled it")]
    ColumnChanged {
        /// The table.
        uri: String,
        /// The column.
        column: String,
    },
    /// The contract of the table's vectors differs: write to a new table.
    #[error(transparent)]
    ContractMismatch(Box<ContractMismatch>),
    /// The features are of another model or another kind of input: delete them, or name another table.
    #[error("{uri} has features of another model, or of another kind of input")]
    OtherFeatures {
        /// The table.
        uri: String,
    },
    /// The table's columns differ from the run's: change `keep` or `text`, or write to a new table.
    #[error("{uri} has other columns than this run: {}", listed(columns))]
    SchemaMismatch {
        /// The table.
        uri: String,
        /// The columns that differ.
        columns: Vec<ColumnDifference>,
    },
    /// The newest version's manifest is empty or truncated, as after a power loss: set it aside.
    #[error("{uri}: version {version} is damaged: {file} {problem}")]
    Damaged {
        /// The table.
        uri: String,
        /// The version.
        version: u64,
        /// Its manifest.
        file: String,
        /// The problem with it.
        problem: String,
    },
    /// Another table has replaced the one that the run began with: run again.
    #[error("{uri} is not the table that this run began with: {what}")]
    Replaced {
        /// The table.
        uri: String,
        /// How it was replaced.
        what: String,
    },
    /// A cleanup has removed data files before their commit: run again.
    #[error("{uri}: data file {file} was removed before it was committed")]
    FilesGone {
        /// The table.
        uri: String,
        /// The first missing file.
        file: String,
    },
    /// A later version of polylance made the table: use that version.
    #[error("{uri} was made by a later version of polylance")]
    LaterTable {
        /// The table.
        uri: String,
        /// The unknown rule.
        source: polylance_schema::UnknownRule,
    },
    /// This machine's clock and the store's differ too much: set the clock.
    #[error("{uri}: the clock of this machine is {ahead} ahead of the store's: young files would count as old")]
    Clock {
        /// The table.
        uri: String,
        /// By how much.
        ahead: String,
    },
    /// Other writers kept changing the table: run again.
    #[error("{uri}: gave up after {attempts} attempts to commit against other writers")]
    Conflict {
        /// The table.
        uri: String,
        /// Attempts to commit.
        attempts: u32,
        /// The last conflict.
        source: Box<lance::Error>,
    },
    /// The store or a file in it failed: check credentials, space, and the file in the message.
    #[error("{uri}: {action} failed")]
    Storage {
        /// The table.
        uri: String,
        /// The action that failed.
        action: &'static str,
        /// Lance's error.
        source: Box<lance::Error>,
    },
    /// The requested index does not fit the table: change its kind or metric.
    #[error("{uri}: {message}")]
    Index {
        /// The table.
        uri: String,
        /// The problem, with the expected and the found value.
        message: String,
    },
    /// Another run holds the lease of the table: wait for it.
    #[error("{uri} is being written by {holder}")]
    Locked {
        /// The table.
        uri: String,
        /// The run that writes, and when it last renewed the lease.
        holder: String,
    },
    /// The store lets two writers create one object, so it cannot keep a lease: let runs merge instead.
    #[error("the store of {uri} has no conditional writes, so it cannot keep a lease")]
    NoLease {
        /// The table.
        uri: String,
    },
    /// Ids could not be written to a temporary file or read from it: check the folder for temporary files.
    #[error("keeping ids in a temporary file failed")]
    Ids {
        /// The cause.
        source: std::io::Error,
    },
    /// An operator upstream sent rows that it must not send: a defect, report it.
    #[error("{uri}: unexpected rows on the way to the table: {message}")]
    Rows {
        /// The table.
        uri: String,
        /// The expectation and what was found.
        message: String,
    },
}

/// Two contracts that cannot share a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractMismatch {
    /// The table.
    pub uri: String,
    /// The table's contract, in one line.
    pub table: String,
    /// The run's contract, in one line.
    pub run: String,
    /// The fields that differ.
    pub differences: Vec<ContractDifference>,
}

impl std::error::Error for ContractMismatch {}

impl fmt::Display for ContractMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let another_model = self.differences.iter().any(|d| d.field == "weights_hash");
        let what = if another_model { "model" } else { "contract" };
        let width = self.uri.chars().count().max("this run".len());
        writeln!(f, "the table was made with another {what}")?;
        writeln!(f, "  table   {:width$}   {}", self.uri, self.table)?;
        write!(f, "  run     {:width$}   {}", "this run", self.run)?;
        for ContractDifference { field, table, run } in &self.differences {
            write!(f, "\n  differs in {field}: {table} in the table, {run} in the run")?;
        }
        Ok(())
    }
}

/// A column in which the table and the run differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDifference {
    /// The column's name.
    pub column: String,
    /// Its type in the table; `None` when the table lacks it.
    pub table: Option<String>,
    /// Its type in the run; `None` when the run lacks it.
    pub run: Option<String>,
}

impl fmt::Display for ColumnDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { column, table, run } = self;
        match (table, run) {
            (Some(table), Some(run)) => write!(f, "`{column}` is {table} in the table and {run} in the run"),
            (Some(_), None) => write!(f, "`{column}` is only in the table"),
            _ => write!(f, "`{column}` is only in the run"),
        }
    }
}

fn listed(columns: &[ColumnDifference]) -> String {
    columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl SinkError {
    /// Adds the table and the action to an error of Lance.
    pub(crate) fn storage(uri: &str, action: &'static str) -> impl FnOnce(lance::Error) -> Self {
        move |source| Self::Storage { uri: uri.to_owned(), action, source: Box::new(source) }
    }

    /// The error for rows that no operator may send.
    pub(crate) fn rows(uri: &str, message: impl Into<String>) -> Self {
        Self::Rows { uri: uri.to_owned(), message: message.into() }
    }
}

impl Explain for SinkError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Hub(error) => return error.hint(),
            Self::OnHub { .. } => PUSH_HINT,
            Self::Elsewhere { .. } => "a shallow clone has no files of its own: copy the table as a whole",
            Self::ContractMismatch(_) => {
                "vectors of two contracts cannot be compared: write to a new table, or set what differs as the table has it"
            }
            Self::SchemaMismatch { .. } => {
                "set `keep` in [source] and `text` in [table] as for the table, or write to a new table; columns that \
                 others add to a table must be nullable"
            }
            Self::OtherFeatures { .. } => "name another table with --features, or delete this one",
            Self::NotATable { .. } | Self::NoContract { .. } => "write to an address where nothing is yet",
            Self::UnreadableContract { .. } | Self::UnreadableHead { .. } | Self::LaterTable { .. } => {
                "use the version of polylance that wrote the table"
            }
            Self::NoTable { .. } => "`polylance embed` and `polylance run` make tables",
            Self::MissingColumn { .. } => {
                "`polylance show` lists the table's columns; texts are there unless `text = false` in [table] left them out"
            }
            Self::NotAnAnnotation { .. } => "choose another name for the annotation",
            Self::ColumnChanged { .. } => "let one run at a time fill a column, then run again",
            Self::Damaged { .. } => {
                "`polylance compact --repair` sets the file aside, after which the version before it is the latest"
            }
            Self::Replaced { .. } | Self::FilesGone { .. } => {
                "run the same command again: it begins with what is there now"
            }
            Self::Clock { .. } => "set the clock of this machine, then clean up",
            Self::Conflict { .. } => "run the same command again: it continues from what is committed",
            Self::Storage { .. } if is_store_refusal(self) => STORE_REFUSAL_HINT,
            Self::Storage { .. } => {
                "look at space, permissions and credentials, then run again: it continues from what is committed"
            }
            Self::Locked { .. } => {
                "wait for it, or let runs write side by side with `concurrent = \"merge\"` in [table]; \
                 a run that died is forgotten after a minute"
            }
            Self::NoLease { .. } => "let runs write side by side with `concurrent = \"merge\"` in [table]",
            Self::Ids { .. } => "look at the space in the folder for temporary files (TMPDIR), then run again",
            Self::Index { .. } => "the rows are committed; change `kind` or `metric` in [index] and run again",
            Self::Rows { .. } => "this is a defect of polylance: please report it",
        };
        Some(Cow::Borrowed(hint))
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Hub(error) => error.class(),
            Self::ContractMismatch(_)
            | Self::OnHub { .. }
            | Self::Elsewhere { .. }
            | Self::SchemaMismatch { .. }
            | Self::OtherFeatures { .. }
            | Self::NotATable { .. }
            | Self::NoContract { .. }
            | Self::NoTable { .. }
            | Self::MissingColumn { .. }
            | Self::NotAnAnnotation { .. } => ErrorClass::User,
            Self::Rows { .. } => ErrorClass::Internal,
            _ => ErrorClass::Environment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_mismatch_shows_both_sides_in_columns() {
        let mismatch = ContractMismatch {
            uri: "s3://corpus/docs.lance".into(),
            table: "multilingual-e5-small @ 7c1e, mean, f32, 384".into(),
            run: "xlm-roberta-xl @ 03fa, mean, f32, 2560".into(),
            differences: vec![ContractDifference {
                field: "weights_hash".into(),
                table: "7c1e".into(),
                run: "03fa".into(),
            }],
        };
        let expected = "the table was made with another model
  table   s3://corpus/docs.lance   multilingual-e5-small @ 7c1e, mean, f32, 384
  run     this run                 xlm-roberta-xl @ 03fa, mean, f32, 2560
  differs in weights_hash: 7c1e in the table, 03fa in the run";
        assert_eq!(SinkError::ContractMismatch(Box::new(mismatch)).to_string(), expected);
    }

    #[test]
    fn schema_mismatch_names_each_column() {
        let columns = vec![
            ColumnDifference { column: "lang".into(), table: Some("Utf8".into()), run: Some("Int32".into()) },
            ColumnDifference { column: "text".into(), table: Some("Utf8".into()), run: None },
            ColumnDifference { column: "title".into(), table: None, run: Some("Utf8".into()) },
        ];
        let error = SinkError::SchemaMismatch { uri: "t.lance".into(), columns };
        assert_eq!(
            error.to_string(),
            "t.lance has other columns than this run: `lang` is Utf8 in the table and Int32 in the run, \
             `text` is only in the table, `title` is only in the run"
        );
    }
}
