//! The embedding contract: everything that decides a vector, stored in the table's metadata.
//!
//! Vectors of two contracts must never be compared. So a run whose contract differs from the table's is refused, and a
//! query is embedded under the table's own contract.

use std::{collections::HashMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How token states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token's state.
    Cls,
    /// The mean over all tokens, special tokens included.
    Mean,
    /// The maximum over all tokens, per dimension.
    Max,
    /// The sum over all tokens divided by the square root of their number.
    MeanSqrtLen,
    /// The mean weighted by position, `1, 2, …, n`.
    WeightedMean,
    /// The last token's state.
    LastToken,
}

/// Texts that precede every input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Prompts {
    /// Before every chunk of a document.
    pub passage: String,
    /// Before every query.
    pub query: String,
}

/// Where a document that is too long for the model is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// After the last whole sentence that fits (Unicode sentence boundaries), else after a word.
    #[default]
    Sentence,
    /// After the last whole word that fits.
    Word,
    /// After the last token that fits.
    Token,
}

/// How documents that are too long for the model become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChunkMode {
    /// Such a document becomes several rows.
    #[default]
    Split,
    /// Such a document is cut off at the limit, and `truncated` is true in its row.
    Truncate,
}

/// How documents become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Chunking {
    /// A document longer than the limit becomes several rows.
    Split {
        /// Maximum number of tokens per chunk, prefix and special tokens included.
        max_tokens: usize,
        /// Maximum number of tokens that a chunk repeats from the end of the previous one.
        overlap: usize,
        /// Where to cut.
        cut: Cut,
    },
    /// One row per document; text beyond the limit is cut off, and `truncated` is true.
    Truncate {
        /// Maximum number of tokens per row, prefix and special tokens included.
        max_tokens: usize,
    },
}

impl Chunking {
    /// Maximum number of tokens per row, prefix and special tokens included.
    pub fn max_tokens(&self) -> usize {
        match *self {
            Self::Split { max_tokens, .. } | Self::Truncate { max_tokens } => max_tokens,
        }
    }
}

/// Everything that decides a vector.
///
/// ```
/// # use polylance_schema::{Chunking, Contract, Pooling, Prompts};
/// let contract = Contract {
///     model: "builtin:multilingual-e5-small".into(),
///     weights_hash: "7c1e".into(),
///     tokenizer_hash: "03fa".into(),
///     pooling: Pooling::Mean,
///     normalize: true,
///     prompts: Prompts { passage: "passage: ".into(), query: "query: ".into() },
///     chunking: Chunking::Truncate { max_tokens: 512 },
///     dtype: "f32".into(),
///     dim: 384,
/// };
/// let metadata = contract.to_metadata();
/// assert_eq!(Contract::from_metadata(&metadata).unwrap(), Some(contract));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Contract {
    /// Where the model was found: a hub id, a folder, an address in object storage, or `builtin:…`. Not compared: the
    /// hashes decide.
    pub model: String,
    /// BLAKE3 of the weights, hexadecimal.
    pub weights_hash: String,
    /// BLAKE3 of `tokenizer.json`, hexadecimal.
    pub tokenizer_hash: String,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Whether vectors have length one.
    pub normalize: bool,
    /// Texts that precede every input.
    pub prompts: Prompts,
    /// How documents become rows.
    pub chunking: Chunking,
    /// The arithmetic: `f32`, `bf16`, `f16` or `int8`.
    pub dtype: String,
    /// Dimensions of a vector.
    pub dim: usize,
}

/// A field in which two contracts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractDifference {
    /// The field's name.
    pub field: String,
    /// Its value in the table.
    pub table: String,
    /// Its value in the run.
    pub run: String,
}

/// The contract in a table's metadata could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the table's `{key}` metadata is not a contract of this version", key = Contract::METADATA_KEY)]
pub struct ContractError(#[from] serde_json::Error);

impl Contract {
    /// The key in the table's schema metadata.
    pub const METADATA_KEY: &'static str = "polylance.contract";

    /// The contract as schema metadata.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_metadata(&self) -> HashMap<String, String> {
        let json = serde_json::to_string(self).expect("a contract is plain data");
        HashMap::from([(Self::METADATA_KEY.to_owned(), json)])
    }

    /// The contract in schema metadata; `None` when there is none.
    ///
    /// # Errors
    /// When the value of the key is not a contract.
    pub fn from_metadata(metadata: &HashMap<String, String>) -> Result<Option<Self>, ContractError> {
        metadata.get(Self::METADATA_KEY).map(|json| Ok(serde_json::from_str(json)?)).transpose()
    }

    /// The fields in which `run` differs from this table's contract, in declaration order; empty when the vectors are
    /// comparable.
    pub fn differences(&self, run: &Self) -> Vec<ContractDifference> {
        let fields = [
            ("weights_hash", self.weights_hash.clone(), run.weights_hash.clone()),
            ("tokenizer_hash", self.tokenizer_hash.clone(), run.tokenizer_hash.clone()),
            ("pooling", format!("{:?}", self.pooling), format!("{:?}", run.pooling)),
            ("normalize", self.normalize.to_string(), run.normalize.to_string()),
            ("prompts.passage", format!("{:?}", self.prompts.passage), format!("{:?}", run.prompts.passage)),
            ("prompts.query", format!("{:?}", self.prompts.query), format!("{:?}", run.prompts.query)),
            ("chunking", self.chunking.to_string(), run.chunking.to_string()),
            ("dtype", self.dtype.clone(), run.dtype.clone()),
            ("dim", self.dim.to_string(), run.dim.to_string()),
        ];
        fields
            .into_iter()
            .filter(|(_, table, run)| table != run)
            .map(|(field, table, run)| ContractDifference { field: field.to_owned(), table, run })
            .collect()
    }

    /// The contract in one line: model, first digits of the weights hash, pooling, dtype, dimensions.
    pub fn summary(&self) -> String {
        let hash: String = self.weights_hash.chars().take(8).collect();
        let pooling = serde_json::to_string(&self.pooling).unwrap_or_default();
        format!("{} @ {hash}, {}, {}, {}", self.model, pooling.trim_matches('"'), self.dtype, self.dim)
    }
}

impl fmt::Display for Chunking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split { max_tokens, overlap, cut } => {
                write!(f, "split at {max_tokens} tokens, overlap {overlap}, cut by {cut:?}")
            }
            Self::Truncate { max_tokens } => write!(f, "truncate at {max_tokens} tokens"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        Contract {
            model: "builtin:multilingual-e5-small".into(),
            weights_hash: "7c1e0000ffff".into(),
            tokenizer_hash: "03fa".into(),
            pooling: Pooling::Mean,
            normalize: true,
            prompts: Prompts { passage: "passage: ".into(), query: "query: ".into() },
            chunking: Chunking::Split { max_tokens: 512, overlap: 32, cut: Cut::Sentence },
            dtype: "f32".into(),
            dim: 384,
        }
    }

    #[test]
    fn differences_name_the_fields_that_decide_a_vector() {
        let table = contract();
        let run = Contract { dim: 256, normalize: false, ..contract() };
        let fields: Vec<_> = table.differences(&run).into_iter().map(|d| d.field).collect();
        assert_eq!(fields, ["normalize", "dim"]);
        assert!(table.differences(&Contract { model: "./copy".into(), ..contract() }).is_empty());
    }

    #[test]
    fn metadata_of_another_version_is_an_error() {
        let metadata = HashMap::from([(Contract::METADATA_KEY.to_owned(), "{\"model\":1}".to_owned())]);
        assert!(Contract::from_metadata(&metadata).is_err());
        assert_eq!(Contract::from_metadata(&HashMap::new()).unwrap(), None);
    }

    #[test]
    fn summary_names_model_hash_pooling_and_size() {
        assert_eq!(contract().summary(), "builtin:multilingual-e5-small @ 7c1e0000, mean, f32, 384");
    }
}
