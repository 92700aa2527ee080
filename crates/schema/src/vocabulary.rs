//! The enums and policies that the pipeline file, the command line and the operators share, each defined once.
//!
//! A value is written as it serializes. The documentation of the values is their description in the JSON Schema of the
//! pipeline file.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::Error},
};

/// Default of a pipeline's `source.max_bytes`: documents with a longer text go to the quarantine.
pub const DEFAULT_MAX_TEXT_BYTES: u64 = 16 << 20;
/// Default of a pipeline's `run.memory`: the memory for document ids and the listing of the source.
pub const DEFAULT_MEMORY_BYTES: u64 = 2 << 30;

/// A text that is not one of the expected words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {found:?}: expected {expected}")]
pub struct UnknownWord {
    /// What the words stand for, such as `dtype`.
    pub what: &'static str,
    /// The text.
    pub found: String,
    /// The expected words.
    pub expected: &'static str,
}

/// Reads a word as a pipeline file writes it.
fn read<T: for<'de> Deserialize<'de>>(
    text: &str,
    what: &'static str,
    expected: &'static str,
) -> Result<T, UnknownWord> {
    let deserializer = IntoDeserializer::<Error>::into_deserializer(text);
    T::deserialize(deserializer).map_err(|_| UnknownWord { what, found: text.to_owned(), expected })
}

/// A file format of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
}

/// How a run treats documents of the table that are no longer in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// They stay.
    #[default]
    Keep,
    /// They are deleted at the end of a run that has read the whole source, including every id.
    Delete,
}

/// How a run treats another run that is writing to the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteConcurrency {
    /// Both write: the later commit checks the table again, so that no document is in it twice.
    #[default]
    Merge,
    /// The later run fails before it reads anything.
    Refuse,
}

// In a pipeline file both are at least 1. For the operators, 0 rows mean no limit, and 0 seconds the longest time that a
// window may stay open.
/// When rows are committed: at the limit that is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommitPolicy {
    /// After this many rows.
    #[schemars(range(min = 1))]
    pub rows: u64,
    /// After this many seconds.
    #[schemars(range(min = 1))]
    pub seconds: u64,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self { rows: 100_000, seconds: 300 }
    }
}

/// The maintenance of a table and of its quarantine at the end of a run that wrote something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Upkeep")]
pub struct MaintenancePolicy {
    /// Merge small fragments when there are more than 16.
    pub compact: bool,
    /// Remove old versions, and files that killed runs left behind at least a week ago.
    pub cleanup: bool,
    /// Keep this many of the newest versions, whatever their age.
    #[schemars(range(min = 1))]
    pub keep_versions: u64,
    /// Keep versions that are younger than this many days.
    pub keep_days: u64,
}

impl MaintenancePolicy {
    /// Leaves the table as it is.
    pub const OFF: Self = Self { compact: false, cleanup: false, ..Self::DEFAULT };

    const DEFAULT: Self = Self { compact: true, cleanup: true, keep_versions: 10, keep_days: 7 };
}

impl Default for MaintenancePolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The stage of a run at which a row failed, as the quarantine names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the source.
    Scan,
    /// Detecting duplicate ids.
    Distinct,
    /// Cutting into chunks and tokens.
    Tokenize,
    /// Computing the vector.
    Encode,
    /// Writing to the table.
    Write,
    /// Computing a head's answer for a row of the table.
    Annotate,
}

impl Stage {
    /// The stage as the quarantine writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Distinct => "distinct",
            Self::Tokenize => "tokenize",
            Self::Encode => "encode",
            Self::Write => "write",
            Self::Annotate => "annotate",
        }
    }
}

/// The number format of weights and states while a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floats, on every device.
    #[default]
    F32,
    /// bfloat16 inside the layers, on every device: vectors within 0.0001 of the cosine of `f32`, several times as fast
    /// on GPUs and on CPUs that multiply it at full rate, in half the memory.
    Bf16,
    /// 16-bit floats, on GPUs. On a CPU, queries of such a table are computed in `f32`.
    F16,
    /// 8-bit integers inside the layers, on CPUs: faster still. Vectors of the built-in model are at a cosine of 0.9997
    /// to those of `f32` on average and of at least 0.998; `polylance bench --dtype int8 --against f32` measures another
    /// model.
    Int8,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Dtype {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        read(text, "dtype", "f32, bf16, int8 or f16")
    }
}

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// By angle.
    #[default]
    Cosine,
    /// By Euclidean distance.
    L2,
    /// By inner product.
    Dot,
}

/// The kind of a vector index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// No index below `min_rows` rows, where an exact search is fast, else `ivf_pq`.
    #[default]
    Auto,
    /// No index: every search compares every vector.
    None,
    /// Inverted lists of whole vectors: exact within the lists that are probed, as large as the vectors.
    IvfFlat,
    /// Inverted lists of 8-bit scalars: a quarter of the size.
    IvfSq,
    /// Inverted lists of product-quantized codes: the smallest.
    IvfPq,
    /// Inverted lists of randomly rotated vectors with one bit per dimension (`RaBitQ`): the fastest build.
    IvfRq,
    /// Inverted lists with a graph each, of 8-bit scalars: the fastest search, the slowest build.
    IvfHnswSq,
    /// Inverted lists with a graph each, of product-quantized codes.
    IvfHnswPq,
}

/// The task of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskName {
    /// The class of a text, by a sequence classifier.
    Classify,
    /// The class of a text among labels of your own, by an entailment model.
    ZeroShot,
    /// Entities, by a token classifier.
    Ner,
    /// An answer that is a part of the text, by an extractive question answering model.
    Qa,
    /// Tokens for masks in the text, by a masked language model.
    FillMask,
    /// A continuation, by a causal language model.
    Generate,
    /// The best of several continuations, by a multiple choice model.
    Choose,
    /// How well passages answer a query, by a sequence classifier over both.
    Rerank,
}

impl TaskName {
    /// The task as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::ZeroShot => "zero-shot",
            Self::Ner => "ner",
            Self::Qa => "qa",
            Self::FillMask => "fill-mask",
            Self::Generate => "generate",
            Self::Choose => "choose",
            Self::Rerank => "rerank",
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_serialize_as_they_are_displayed() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::Int8] {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        let error = "f64".parse::<Dtype>().unwrap_err();
        assert_eq!(error.to_string(), "unknown dtype \"f64\": expected f32, bf16, int8 or f16");
        for stage in [Stage::Scan, Stage::Distinct, Stage::Tokenize, Stage::Encode, Stage::Write, Stage::Annotate] {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
        for task in [TaskName::ZeroShot, TaskName::FillMask, TaskName::Rerank] {
            assert_eq!(serde_json::to_value(task).unwrap(), task.to_string());
        }
    }
}
