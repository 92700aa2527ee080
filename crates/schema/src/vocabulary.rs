//! The words that a pipeline file, the command line and the operators share, each defined once.
//!
//! A word is written as it serializes. Its documentation here is what the JSON Schema of the pipeline file, the reference
//! and the help of the command line say about it.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value::Error},
};

/// Bytes of a text beyond which its document is refused, unless a pipeline says otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 16 << 20;
/// Bytes that ids and the listing of a source may take in memory, unless a pipeline says otherwise.
pub const DEFAULT_MEMORY: u64 = 2 << 30;

/// A text that is none of the words that were expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {found:?}: expected {expected}")]
pub struct UnknownWord {
    /// What the words are: `dtype`.
    pub what: &'static str,
    /// The text.
    pub found: String,
    /// The words.
    pub expected: &'static str,
}

/// Reads a word as it is written in a pipeline file.
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

/// What happens to documents of the table that are no longer in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// They stay.
    #[default]
    Keep,
    /// They are deleted at the end of a run that has read the whole source and every id in it.
    Delete,
}

/// What happens when another run is writing to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteConcurrency {
    /// Both write: whichever commits later checks again, and no document is there twice.
    #[default]
    Merge,
    /// The later run ends before it reads anything.
    Refuse,
}

// A pipeline file sets both to 1 at least. To the operators 0 rows are no limit, and 0 seconds the longest that a window
// may stay open.
/// When rows are committed: at whichever limit is reached first.
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

/// The step of a run at which a row failed, as the quarantine names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the source.
    Scan,
    /// Looking for ids that are there twice.
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
    /// As the quarantine writes it.
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
    /// No index while an exact search is fast, `ivf_pq` from `min_rows` on.
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

/// What a head does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskName {
    /// The class of a text, by a sequence classifier.
    Classify,
    /// The class of a text among labels of your own, by a model of entailment.
    ZeroShot,
    /// Entities, by a token classifier.
    Ner,
    /// An answer that is a part of the text, by an extractive question answerer.
    Qa,
    /// The words behind masks, by a masked language model.
    FillMask,
    /// A continuation, by a causal language model.
    Generate,
    /// The best of several continuations, by a multiple choice model.
    Choose,
    /// How well passages answer a query, by a sequence classifier over both.
    Rerank,
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classify => "classify",
            Self::ZeroShot => "zero-shot",
            Self::Ner => "ner",
            Self::Qa => "qa",
            Self::FillMask => "fill-mask",
            Self::Generate => "generate",
            Self::Choose => "choose",
            Self::Rerank => "rerank",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
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
