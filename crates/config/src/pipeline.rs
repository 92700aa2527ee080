//! The sections of a pipeline file and their defaults.

use polylance_schema::{Cut, Pooling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// A job: which corpus, which model, which table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Version of this format; always 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The corpus.
    pub source: Source,
    /// The model.
    #[serde(default)]
    pub model: Model,
    /// How long documents become chunks.
    #[serde(default)]
    pub chunk: Chunk,
    /// The table.
    pub table: Table,
    /// The vector index.
    #[serde(default)]
    pub index: Index,
}

/// The corpus: files of one schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a folder, a glob, or `builtin:udhr`; a local path, `s3://`, `gs://`, `az://` or `http(s)://`.
    /// Relative paths start at the current folder.
    pub uri: String,
    /// The files' format; found by their content unless given.
    #[serde(default)]
    pub format: Format,
    /// The column with the document's id, unique in the corpus: text or whole numbers.
    #[serde(default = "Source::default_id")]
    pub id: String,
    /// The column with the text.
    #[serde(default = "Source::default_text")]
    pub text: String,
    /// Columns to carry over into the table; `["*"]` carries all.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Longer texts go to the quarantine.
    #[serde(default = "Source::default_max_bytes")]
    pub max_bytes: ByteSize,
}

impl Source {
    /// A source with the defaults of a file.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            format: Format::default(),
            id: Self::default_id(),
            text: Self::default_text(),
            keep: Vec::new(),
            max_bytes: Self::default_max_bytes(),
        }
    }

    fn default_id() -> String {
        "id".into()
    }

    fn default_text() -> String {
        "text".into()
    }

    fn default_max_bytes() -> ByteSize {
        ByteSize(16 << 20)
    }
}

/// How the corpus is stored. Compression (gzip, zstd, bzip2, xz) is found by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By content.
    #[default]
    Auto,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
}

/// The model and its devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// `builtin:multilingual-e5-small`, a folder, a `.gguf` file, or a model's name on the hub.
    pub id: String,
    /// The arithmetic.
    pub dtype: Dtype,
    /// `auto`, `cpu`, `cpu:0`, `cpu:0-3` (sets of cores), `cuda:0`; one worker each.
    pub devices: Vec<String>,
    /// Ids in one input at most; the model's own limit unless given.
    pub max_tokens: Option<usize>,
    /// How token states become one vector; as the model says unless given.
    pub pooling: Option<Pooling>,
    /// Whether vectors get length one; as the model says unless given.
    pub normalize: Option<bool>,
    /// Texts before documents and queries; as the model says unless given.
    pub prompts: Option<polylance_schema::Prompts>,
    /// Keep only this many leading dimensions, for models trained for it (Matryoshka).
    pub dims: Option<usize>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            id: "builtin:multilingual-e5-small".into(),
            dtype: Dtype::default(),
            devices: vec!["auto".into()],
            max_tokens: None,
            pooling: None,
            normalize: None,
            prompts: None,
            dims: None,
        }
    }
}

/// The arithmetic of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// Brain floats, where the device has them.
    Bf16,
    /// 16-bit floats, where the device has them.
    F16,
}

/// How long documents become chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chunk {
    /// Several rows a long document, or one row cut off at the limit.
    pub mode: ChunkMode,
    /// Ids a chunk at most, prefix and special tokens included; the model's limit unless given.
    pub tokens: Option<usize>,
    /// Ids that a chunk repeats from the end of the one before, at most.
    pub overlap: usize,
    /// Where to cut.
    pub cut: Cut,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { mode: ChunkMode::default(), tokens: None, overlap: 32, cut: Cut::default() }
    }
}

/// What happens to a document over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkMode {
    /// It becomes several rows.
    #[default]
    Split,
    /// It is cut off, and `truncated` says so.
    Truncate,
}

/// The Lance table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// A local path, `s3://`, `gs://` or `az://`; made when it is not there.
    pub uri: String,
    /// Whether the chunk's text is stored beside its vector.
    #[serde(default = "Table::default_text")]
    pub text: bool,
    /// When to commit.
    #[serde(default)]
    pub commit: Commit,
}

impl Table {
    /// A table with the defaults of a file.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), text: Self::default_text(), commit: Commit::default() }
    }

    fn default_text() -> bool {
        true
    }
}

/// When to commit: whichever comes first. What is committed survives any crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// Rows in a commit.
    #[schemars(range(min = 1))]
    pub rows: u64,
    /// Seconds between commits.
    #[schemars(range(min = 1))]
    pub seconds: u64,
}

impl Default for Commit {
    fn default() -> Self {
        Self { rows: 100_000, seconds: 300 }
    }
}

/// The vector index, kept up to date at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// Which index.
    pub kind: IndexKind,
    /// How vectors are compared.
    pub metric: Metric,
}

/// The kinds of vector index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// None for a small table, whose exact search is quick; `ivf_pq` above.
    #[default]
    Auto,
    /// Exact search always.
    None,
    /// Partitions with whole vectors.
    IvfFlat,
    /// Partitions with product-quantized vectors.
    IvfPq,
    /// Partitions with a graph over scalar-quantized vectors.
    IvfHnswSq,
}

/// How vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// One minus the cosine.
    #[default]
    Cosine,
    /// The squared Euclidean distance.
    L2,
    /// One minus the inner product.
    Dot,
}
