//! The format. Doc comments here are the descriptions in the JSON Schema.

use polylance_schema::{
    CommitPolicy, Cut, DEFAULT_MAX_BYTES, DEFAULT_MEMORY, Dtype, IndexKind, Metric, OnMissing, Pooling, SourceFormat,
    WriteConcurrency,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Annotate, ByteSize, Csv, auto};

/// A pipeline: where texts come from, which model makes vectors of them, and the table they go to.
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
    /// What makes vectors of them.
    #[serde(default)]
    pub model: Model,
    /// How documents become rows.
    #[serde(default)]
    pub chunk: Chunk,
    /// Where the rows go.
    pub table: Table,
    /// The vector index of the table.
    #[serde(default)]
    pub index: Index,
    /// How many bad rows are too many.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// What a run may take, and how it ends when it is told to.
    #[serde(default)]
    pub run: Run,
    /// Columns that heads fill: classes, entities, answers.
    #[serde(default)]
    pub annotate: Vec<Annotate>,
}

/// Where the documents come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a folder, a glob (`corpus/**/*.parquet`), `builtin:udhr` or `builtin:udhr?codes=eng,spa`.
    /// Local paths, `s3://`, `gs://`, `az://`, `http://` and `https://`.
    #[schemars(length(min = 1))]
    pub uri: String,
    /// The files' format; `auto` goes by their content.
    #[serde(default, with = "auto")]
    #[schemars(schema_with = "auto::format")]
    pub format: Option<SourceFormat>,
    /// The column that names a document, unique in the corpus.
    #[serde(default = "default_id")]
    #[schemars(length(min = 1))]
    pub id: String,
    /// The column with the text.
    #[serde(default = "default_text")]
    #[schemars(length(min = 1))]
    pub text: String,
    /// Columns to carry into the table as they are; `["*"]` carries all.
    #[serde(default)]
    pub keep: Vec<String>,
    /// A document larger than this goes to the quarantine.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
    /// What becomes of documents of the table that are no longer in the source.
    #[serde(default)]
    pub removed: OnMissing,
    /// How CSV files are written.
    #[serde(default, skip_serializing_if = "Csv::is_default")]
    pub csv: Csv,
}

/// What makes vectors of texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// `builtin:multilingual-e5-small`, a folder, a GGUF file, or a hub id such as `intfloat/multilingual-e5-base`.
    #[schemars(length(min = 1))]
    pub id: String,
    /// The number format of the computation.
    #[serde(with = "auto")]
    #[schemars(schema_with = "auto::dtype")]
    pub dtype: Option<Dtype>,
    /// Devices that share the work, all of one kind: `cpu`, `cpu:0` (a set of cores), `cuda:0`. `auto` is all GPUs, and
    /// without one all cores.
    #[schemars(length(min = 1))]
    pub devices: Vec<String>,
    /// Ids in one input at most, special tokens included; the model's own limit when left out.
    #[schemars(range(min = 8))]
    pub max_tokens: Option<usize>,
    /// How token states become one vector; the model's own way when left out.
    pub pooling: Option<Pooling>,
    /// Whether vectors get length one; the model's own way when left out.
    pub normalize: Option<bool>,
    /// Texts put before every input; the model's own when left out.
    pub prompts: PromptOverrides,
    /// Keep only the first so many dimensions (for models trained for it).
    #[schemars(range(min = 1))]
    pub dims: Option<usize>,
    /// Threads that tokenize; by the number of cores when left out.
    #[schemars(range(min = 1))]
    pub tokenizer_threads: Option<usize>,
    /// Ids in one batch of a device; by device when left out.
    #[schemars(range(min = 1))]
    pub batch_tokens: Option<usize>,
}

/// Texts put before every input.
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
    /// What happens to a document that is too long for the model.
    pub mode: ChunkMode,
    /// Ids per row at most, prefix and special tokens included; the model's limit when left out.
    #[schemars(range(min = 8))]
    pub tokens: Option<usize>,
    /// Ids that a chunk repeats from the one before, at most; 32 (or a quarter of `tokens`) when left out.
    pub overlap: Option<usize>,
    /// Where to cut; after sentences when left out.
    pub cut: Option<Cut>,
}

/// What happens to a document that is too long for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkMode {
    /// It becomes several rows.
    #[default]
    Split,
    /// Its end is cut off, and `truncated` says so.
    Truncate,
}

/// Where the rows go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The Lance table: a local path, `s3://`, `gs://` or `az://`; made when it is not there.
    #[schemars(length(min = 1))]
    pub uri: String,
    /// Whether the chunks' text is stored beside the vectors.
    #[serde(default = "default_true")]
    pub text: bool,
    /// When rows are committed; a run that is stopped loses only what it had not committed.
    #[serde(default)]
    pub commit: CommitPolicy,
    /// What a run that wrote something does for the table at its end; `polylance compact` does more.
    #[serde(default)]
    pub upkeep: Upkeep,
    /// What happens when another run is writing to the table.
    #[serde(default)]
    pub concurrent: WriteConcurrency,
}

/// How many bad rows are too many: a run with more stops, with what is good committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// So many rows may go to the quarantine in one run; any number when left out.
    pub max_rows: Option<u64>,
    /// This share of the rows read may go to the quarantine; it counts once 1000 rows were read.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_share: f64,
}

/// What a run may take, and how it ends when it is told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// What the ids of the table's documents may take in memory; what is more goes to the folder for temporary files.
    pub memory: ByteSize,
    /// Seconds that a run which is told to stop may take to commit what it has read.
    pub grace: u64,
    /// Seconds after which a device's batch makes no progress, and the input that holds it up is sought; 0 for never.
    pub stall: u64,
}

/// What a run that wrote something does for the table, and for its quarantine, at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upkeep {
    /// Merge small fragments when there are more than 16.
    pub compact: bool,
    /// Remove old versions, and files that killed runs left behind a week ago or earlier.
    pub cleanup: bool,
    /// So many of the newest versions stay, whatever their age.
    #[schemars(range(min = 1))]
    pub keep_versions: u64,
    /// Versions that are younger than so many days stay.
    pub keep_days: u64,
}

/// The vector index of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// Its kind.
    pub kind: IndexKind,
    /// How vectors are compared.
    pub metric: Metric,
    /// With `kind = "auto"`: the number of rows from which there is an index.
    pub min_rows: u64,
    /// Whether the words of the text are indexed too, so that the table can be searched by them.
    pub words: bool,
}

fn default_id() -> String {
    "id".to_owned()
}

fn default_text() -> String {
    "text".to_owned()
}

fn default_max_bytes() -> ByteSize {
    ByteSize(DEFAULT_MAX_BYTES)
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
        Self { memory: ByteSize(DEFAULT_MEMORY), grace: 30, stall: 30 * 60 }
    }
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { compact: true, cleanup: true, keep_versions: 10, keep_days: 7 }
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
            upkeep: Upkeep::default(),
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
            annotate: Vec::new(),
        }
    }
}
