//! The description of a split for the machine that embeds it.
//!
//! A machine gets what to embed, and not how: it makes the plan itself, for its own devices and with its own version of
//! the operators. The envelope is the same in every version, so that an executor of another version can answer.

use std::collections::HashMap;

use polylance_dataflow::{SourceSplit, decode_fields, encode_fields};
use polylance_schema::{CommitPolicy, ContentRule, Contract, TextColumn};
use polylance_sink::{TableMark, TableTarget};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::ClusterError;

/// The version of [`SplitTask`]. It is raised whenever an older executor would embed other rows.
pub const TASK_FORMAT: u32 = 1;

/// What of a split is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Its rows in data files, and its ids.
    Rows,
    /// Its ids alone.
    Ids,
}

/// The part of a task that every version reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The version of the rest.
    pub format: u32,
    /// The version of polylance that made it.
    pub version: String,
    /// The table.
    pub table: String,
    /// The run, whose outbox gets the result.
    pub run_id: String,
    /// The name of the result there.
    pub result: String,
}

/// A split, and what to do with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SplitTask {
    /// What is requested.
    pub kind: TaskKind,
    /// The pipeline, for the executor's models alone.
    pub pipeline: String,
    /// The files.
    pub source: SourceSplit,
    /// The table.
    pub target: TaskTarget,
    /// The version of the table whose documents are not embedded again; `None` for a new table.
    pub known_version: Option<u64>,
    /// The object of the outbox with the hashes of ids that earlier splits have; `None` if there are none.
    pub taken: Option<String>,
    /// Memory for the ids of the table's documents, in bytes.
    pub memory: usize,
}

/// [`TableTarget`] as text, without what the envelope has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskTarget {
    text: bool,
    contract: Contract,
    keep: String,
    heads: String,
    table_id: Option<String>,
    rule: HashMap<String, String>,
    properties: HashMap<String, String>,
}

impl Envelope {
    /// The envelope of a task of this version.
    pub fn new(target: &TableTarget, result: String) -> Self {
        Self {
            format: TASK_FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            table: shared_address(&target.uri),
            run_id: target.run_id.clone(),
            result,
        }
    }

    /// The envelope and the rest as bytes.
    ///
    /// # Errors
    /// [`ClusterError::Format`], which is a defect.
    pub fn seal(&self, task: &SplitTask) -> Result<Vec<u8>, ClusterError> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| ClusterError::format("a task", error))?;
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, task).map_err(|error| ClusterError::format("a task", error))?;
        Ok(bytes)
    }

    /// The envelope, and the rest as bytes.
    ///
    /// # Errors
    /// [`ClusterError::Format`] if the bytes are no task.
    pub fn open(bytes: &[u8]) -> Result<(Self, &[u8]), ClusterError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        Ok((parse(&bytes[..end])?, bytes.get(end + 1..).unwrap_or_default()))
    }
}

impl SplitTask {
    /// The task in an envelope of this version.
    ///
    /// # Errors
    /// [`ClusterError::Format`] for another version.
    pub fn parse(envelope: &Envelope, bytes: &[u8]) -> Result<Self, ClusterError> {
        let (format, version) = (envelope.format, &envelope.version);
        let own = env!("CARGO_PKG_VERSION");
        if format != TASK_FORMAT || version != own {
            let message = format!("the run is of polylance {version} (format {format}), and the executor of {own}");
            return Err(ClusterError::Format { what: "the task".to_owned(), message });
        }
        parse(bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClusterError> {
    serde_json::from_slice(bytes).map_err(|error| ClusterError::format("the task", error))
}

impl TaskTarget {
    /// The target of a run.
    ///
    /// # Errors
    /// [`ClusterError::Format`] if a column has a type that cannot be sent.
    pub fn new(target: &TableTarget) -> Result<Self, ClusterError> {
        let TableTarget { uri: _, text, commit: _, contract, keep, heads, run_id: _, mark, properties } = target;
        Ok(Self {
            text: *text == TextColumn::Kept,
            contract: contract.clone(),
            keep: encode_fields(keep)?,
            heads: encode_fields(heads)?,
            table_id: mark.id.clone(),
            rule: mark.rule.to_metadata().into_iter().collect(),
            properties: properties.clone(),
        })
    }

    /// The contract of the table's vectors.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The target of an executor: all rows of a split are one window, unless it takes too long.
    ///
    /// # Errors
    /// [`ClusterError::Format`] for a rule of hashes that this version does not know.
    pub fn target(self, envelope: &Envelope) -> Result<TableTarget, ClusterError> {
        let rule =
            ContentRule::from_metadata(&self.rule).map_err(|error| ClusterError::format("the task's rule", error))?;
        Ok(TableTarget {
            uri: envelope.table.clone(),
            text: if self.text { TextColumn::Kept } else { TextColumn::LeftOut },
            commit: CommitPolicy { rows: 0, seconds: 0 },
            contract: self.contract,
            keep: decode_fields(&self.keep),
            heads: decode_fields(&self.heads),
            run_id: envelope.run_id.clone(),
            mark: TableMark { id: self.table_id, rule },
            properties: self.properties,
        })
    }
}

/// An address as other machines can use it: a path of this machine becomes absolute.
pub fn shared_address(uri: &str) -> String {
    if uri.contains("://") {
        return uri.to_owned();
    }
    std::path::absolute(uri).map_or_else(|_| uri.to_owned(), |path| path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};
    use polylance_dataflow::{Source, SourceSpec};
    use polylance_schema::Chunking;
    use polylance_testkit::fake_contract;

    use super::*;

    fn target() -> TableTarget {
        TableTarget {
            uri: "s3://b/docs.lance".to_owned(),
            text: TextColumn::LeftOut,
            commit: CommitPolicy::default(),
            contract: fake_contract(4, Chunking::Truncate { max_tokens: 32 }),
            keep: vec![Arc::new(Field::new("lang", DataType::Utf8, true))],
            heads: Vec::new(),
            run_id: "r1".to_owned(),
            mark: TableMark { id: Some("t1".to_owned()), rule: ContentRule::Printed },
            properties: HashMap::from([("a".to_owned(), "b".to_owned())]),
        }
    }

    async fn task() -> (Envelope, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docs.jsonl");
        std::fs::write(&path, "{\"id\":\"a\",\"text\":\"one\"}\n").unwrap();
        let source = Source::open(SourceSpec::new(path.display().to_string())).await.unwrap();
        let task = SplitTask {
            kind: TaskKind::Rows,
            pipeline: "{}".to_owned(),
            source: source.into_splits(1).await.unwrap().get(0).unwrap(),
            target: TaskTarget::new(&target()).unwrap(),
            known_version: Some(3),
            taken: None,
            memory: 1 << 20,
        };
        let envelope = Envelope::new(&target(), "0-0".to_owned());
        let bytes = envelope.seal(&task).unwrap();
        (envelope, bytes)
    }

    #[tokio::test]
    async fn a_task_arrives_as_it_was_sent() {
        let (sent, bytes) = task().await;
        let (envelope, rest) = Envelope::open(&bytes).unwrap();
        assert_eq!(envelope, sent);
        let task = SplitTask::parse(&envelope, rest).unwrap();
        assert_eq!((task.kind, task.known_version, task.memory), (TaskKind::Rows, Some(3), 1 << 20));
        let (expected, found) = (target(), task.target.target(&envelope).unwrap());
        assert_eq!((found.uri, found.text, found.contract), (expected.uri, expected.text, expected.contract));
        assert_eq!((found.keep, found.mark, found.run_id), (expected.keep, expected.mark, expected.run_id));
        assert_eq!((found.properties, found.commit.rows), (expected.properties, 0));
    }

    #[tokio::test]
    async fn the_envelope_of_another_version_is_read_and_its_task_is_not() {
        let (mut envelope, bytes) = task().await;
        let rest = Envelope::open(&bytes).unwrap().1;
        envelope.format += 1;
        let error = SplitTask::parse(&envelope, rest).unwrap_err().to_string();
        assert!(error.contains("(format 2), and the executor of"), "{error}");
        assert!(Envelope::open(b"no json").is_err() && Envelope::open(b"").is_err());
    }

    #[test]
    fn local_tables_have_absolute_addresses_on_other_machines() {
        let local = shared_address("out/docs.lance");
        assert!(std::path::Path::new(&local).is_absolute() && local.ends_with("out/docs.lance"), "{local}");
        assert_eq!(shared_address("s3://b/docs.lance"), "s3://b/docs.lance");
    }
}
