//! The format of the pipeline file. Doc comments are the descriptions in the JSON Schema.

use polylance_schema::{
    ChunkMode, CommitPolicy, Cut, DEFAULT_MAX_TEXT_BYTES, DEFAULT_MEMORY_BYTES, Dtype, IndexKind, MaintenancePolicy,
    Metric, OnMissing, Pooling, SourceFormat, WriteConcurrency,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Annotate, ByteSize, Cluster, Csv, auto};

/// A pipeline: the source of the texts, the model that embeds them, and the table for the rows.
///
/// Relative paths are relative to the directory in which polylance is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Where the documents come from.
    pub source: Source,
    /// The model that embeds them.
    #[serde(default)]
    pub model: Model,
    /// How documents become rows.
    #[serde(default)]
    pub chunk: Chunk,
    /// The table for the rows.
    pub table: Table,
    /// The vector index of the table.
    #[serde(default)]
    pub index: Index,
    /// Limits on the number of rows that fail.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// Memory and time limits of a run.
    #[serde(default)]
    pub run: Run,
    /// The cluster that embeds the texts, instead of the devices of this machine.
    #[serde(default, skip_serializing_if = "Cluster::is_default")]
    pub cluster: Cluster,
    /// Columns that heads fill: classes, entities, answers.
    #[serde(default)]
    pub annotate: Vec<Annotate>,
}

/// Where the documents come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a folder, a glob (`corpus/**/*.parquet`), a Lance table (`docs.lance`), `builtin:udhr` or
    /// `builtin:udhr?codes=eng,spa`. Local paths, `s3://`, `gs://`, `az://`, `http://`, `https://` and
    /// `hf://datasets/OWNER/NAME`; `-` is standard input.
    #[schemars(length(min = 1))]
    pub uri: String,
    /// The format of the files; `auto` detects it from their content.
    #[serde(default, with = "auto")]
    #[schemars(schema_with = "auto::format")]
    pub format: Option<SourceFormat>,
    /// The column with the document's id, unique in the corpus; or SQL over the columns. `@content` makes ids of the
    /// texts, so that rows with equal texts are one document, and `@row` of file and row.
    #[serde(default = "default_id")]
    #[schemars(length(min = 1))]
    pub id: String,
    /// The column with the text, or SQL over the columns: `title || E'\n\n' || body`.
    #[serde(default = "default_text")]
    #[schemars(length(min = 1))]
    pub text: String,
    /// Columns to copy to the table unchanged, or SQL with a name: `url AS link`, `upper(lang) AS lang`; `["*"]` copies
    /// all columns.
    #[serde(default)]
    pub keep: Vec<String>,
    /// A SQL condition over the columns, such as `lang = 'fr'`. Rows for which it is not true are not read.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub condition: Option<String>,
    /// A document larger than this goes to the quarantine.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
    /// How a run treats documents of the table that are no longer in the source.
    #[serde(default)]
    pub removed: OnMissing,
    /// The dialect of CSV files.
    #[serde(default, skip_serializing_if = "Csv::is_default")]
    pub csv: Csv,
}

/// The model that embeds the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// `builtin:multilingual-e5-small`, a folder or a GGUF file, local or at s3://, gs:// or az://, or a hub id such as
    /// `intfloat/multilingual-e5-base`.
    #[schemars(length(min = 1))]
    pub id: String,
    /// The number format of the computation.
    #[serde(with = "auto")]
    #[schemars(schema_with = "auto::dtype")]
    pub dtype: Option<Dtype>,
    /// Devices that share the work, all of one kind: `cpu`, `cpu:0` (a set of cores), `cuda:0`. `auto` stands for all GPUs,
    /// or for all cores when there is no GPU.
    #[schemars(length(min = 1))]
    pub devices: Vec<String>,
    /// Maximum number of tokens in an input, special tokens included; the model's limit when left out.
    #[schemars(range(min = 8))]
    pub max_tokens: Option<usize>,
    /// How token states become one vector; the model's setting when left out.
    pub pooling: Option<Pooling>,
    /// Whether vectors are normalized to length one; the model's setting when left out.
    pub normalize: Option<bool>,
    /// Texts that precede every input; the model's prompts when left out.
    pub prompts: PromptOverrides,
    /// Keep only this many first dimensions (for models that are trained for it).
    #[schemars(range(min = 1))]
    pub dims: Option<usize>,
    /// Number of tokenizer threads; depends on the number of cores when left out.
    #[schemars(range(min = 1))]
    pub tokenizer_threads: Option<usize>,
    /// Maximum number of tokens in a device's batch; depends on the device when left out.
    #[schemars(range(min = 1))]
    pub batch_tokens: Option<usize>,
    /// Maximum memory for the model's weights on the CPU, such as `"4 GiB"`; three quarters of the available memory when
    /// left out. The layers of a larger model are streamed from their files, with the same vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

/// Texts that precede every input.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptOverrides {
    /// Before every chunk of a document.
    pub passage: Option<String>,
    /// Before every query.
    pub query: Option<String>,
}

/// How documents become rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chunk {
    /// How documents that are too long for the model become rows.
    pub mode: ChunkMode,
    /// Maximum number of tokens per row, prefix and special tokens included; the model's limit when left out.
    #[schemars(range(min = 8))]
    pub tokens: Option<usize>,
    /// Maximum number of tokens that a chunk repeats from the previous one; when left out, 32 or a quarter of `tokens`, if
    /// that is less.
    pub overlap: Option<usize>,
    /// Where to cut; after sentences when left out.
    pub cut: Option<Cut>,
}

/// The table for the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The Lance table: a local path, `s3://`, `gs://` or `az://`; created when it does not exist.
    #[schemars(length(min = 1))]
    pub uri: String,
    /// Whether the table stores the text of the chunks.
    #[serde(default = "default_true")]
    pub text: bool,
    /// When rows are committed; a run that is stopped loses only uncommitted rows.
    #[serde(default)]
    pub commit: CommitPolicy,
    /// The maintenance of the table at the end of a run that wrote something; `polylance compact` does more.
    #[serde(default)]
    pub upkeep: MaintenancePolicy,
    /// How a run treats another run that is writing to the table.
    #[serde(default)]
    pub concurrent: WriteConcurrency,
}

/// Limits on the number of rows that fail. A run that exceeds one stops, with all good rows committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// Maximum number of rows that one run may put into the quarantine; unlimited when left out.
    pub max_rows: Option<u64>,
    /// Maximum share of the rows read that may go to the quarantine; applies once 1000 rows were read.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_share: f64,
}

/// Memory and time limits of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Memory budget for the ids of the table's documents; the excess spills to the folder for temporary files.
    pub memory: ByteSize,
    /// Seconds that a run may take to commit the rows it has read after a signal to stop.
    pub grace: u64,
    /// Seconds after which a device's batch counts as stalled, and its inputs are tried one by one; 0 for never.
    pub stall: u64,
}

/// The vector index of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// The kind of index.
    pub kind: IndexKind,
    /// How vectors are compared.
    pub metric: Metric,
    /// With `kind = "auto"`: the number of rows from which on the table gets an index.
    pub min_rows: u64,
    /// Whether the text gets a full-text index.
    pub words: bool,
}

fn default_id() -> String {
    "id".to_owned()
}

fn default_text() -> String {
    "text".to_owned()
}

fn default_max_bytes() -> ByteSize {
    ByteSize(DEFAULT_MAX_TEXT_BYTES)
}

fn default_true() -> bool {
    true
}

impl Default for Model {
    fn default() -> Self {
        Self {
            id: "builtin:multilingual-e5-small".to_owned(),
            dtype: None,
            devices: vec!["auto".to_owned()],
            max_tokens: None,
            pooling: None,
            normalize: None,
            prompts: PromptOverrides::default(),
            dims: None,
            tokenizer_threads: None,
            batch_tokens: None,
            memory: None,
        }
    }
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { max_rows: None, max_share: 0.5 }
    }
}

impl Default for Run {
    fn default() -> Self {
        Self { memory: ByteSize(DEFAULT_MEMORY_BYTES), grace: 30, stall: 30 * 60 }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self { kind: IndexKind::default(), metric: Metric::default(), min_rows: 20_000, words: false }
    }
}

impl Source {
    /// A source with the defaults of a file.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            format: None,
            id: default_id(),
            text: default_text(),
            keep: Vec::new(),
            condition: None,
            max_bytes: default_max_bytes(),
            removed: OnMissing::default(),
            csv: Csv::default(),
        }
    }
}

impl Table {
    /// A table with the defaults of a file.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            text: true,
            commit: CommitPolicy::default(),
            upkeep: MaintenancePolicy::default(),
            concurrent: WriteConcurrency::default(),
        }
    }
}

impl Pipeline {
    /// A pipeline with the defaults of a file.
    pub fn new(source: Source, table: Table) -> Self {
        Self {
            version: 1,
            source,
            model: Model::default(),
            chunk: Chunk::default(),
            table,
            index: Index::default(),
            quarantine: Quarantine::default(),
            run: Run::default(),
            cluster: Cluster::default(),
            annotate: Vec::new(),
        }
    }
}
