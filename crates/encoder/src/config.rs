//! A model's geometry, from `config.json` or GGUF metadata.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

/// The architectures this encoder computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// XLM-RoBERTa-XL and -XXL: layer norms before each block.
    XlmRobertaXl,
    /// XLM-RoBERTa base and large, and models built on them.
    XlmRoberta,
    /// BERT.
    Bert,
}

/// The position of a layer's norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// `h + block(norm(h))`, and one more norm after the last layer.
    Pre,
    /// `norm(h + block(h))`, and one more norm after the embeddings.
    Post,
}

impl ModelKind {
    /// The position of the norms of this kind.
    pub fn norm_placement(self) -> NormPlacement {
        match self {
            Self::XlmRobertaXl => NormPlacement::Pre,
            Self::XlmRoberta | Self::Bert => NormPlacement::Post,
        }
    }

    /// Hugging Face's `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::XlmRobertaXl => "xlm-roberta-xl",
            Self::XlmRoberta => "xlm-roberta",
            Self::Bert => "bert",
        }
    }
}

/// A model's geometry, checked: sizes are not zero and fit each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The architecture.
    pub kind: ModelKind,
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of a token's state.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer; divides the width.
    pub num_attention_heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the position embeddings; the longest input is [`ModelConfig::max_tokens`].
    pub max_position_embeddings: usize,
    /// Rows of the token type embeddings.
    pub type_vocab_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Id of the padding token; `RoBERTa` counts positions from the one after it.
    pub pad_token_id: usize,
}

/// The largest number of layers: ten times as many as any model of these kinds has.
const MAX_LAYERS: usize = 1024;
/// The largest number of token types; models have one or two.
const MAX_TOKEN_TYPES: usize = 1024;
/// The largest value of any other size, so that the product of two sizes does not overflow.
const MAX_SIZE: usize = 1 << 28;

/// `config.json` as Hugging Face writes it; absent keys take the architecture's defaults.
#[derive(Deserialize)]
struct HfConfig {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: Option<usize>,
    #[serde(default)]
    layer_norm_eps: Option<f64>,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    quantization_config: Option<serde_json::Value>,
    #[serde(default)]
    pruned_heads: Option<serde_json::Map<String, serde_json::Value>>,
}

impl ModelConfig {
    /// Reads Hugging Face's `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a missing or impossible value, [`ModelError::Unsupported`] for another architecture.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        let hf: HfConfig = serde_json::from_slice(json).map_err(|error| ModelError::config(path, error.to_string()))?;
        let kind = match hf.model_type.as_deref() {
            Some("xlm-roberta-xl") => ModelKind::XlmRobertaXl,
            Some("xlm-roberta") => ModelKind::XlmRoberta,
            Some("bert") => ModelKind::Bert,
            other => {
                return Err(ModelError::unsupported(
                    format!("model_type {:?} in {}", other.unwrap_or_default(), path.display()),
                    "expected xlm-roberta-xl, xlm-roberta or bert",
                ));
            }
        };
        let only = |key: &str, value: Option<&str>, supported: &str| match value {
            Some(found) if found != supported => Err(ModelError::unsupported(
                format!("{key} {found:?} in {}", path.display()),
                format!("expected {supported:?}"),
            )),
            _ => Ok(()),
        };
        only("hidden_act", hf.hidden_act.as_deref(), "gelu")?;
        only("position_embedding_type", hf.position_embedding_type.as_deref(), "absolute")?;
        let changes_weights = [
            ("quantization_config", hf.quantization_config.is_some()),
            ("pruned_heads", hf.pruned_heads.is_some_and(|heads| !heads.is_empty())),
        ];
        if let Some((key, _)) = changes_weights.into_iter().find(|(_, set)| *set) {
            return Err(ModelError::unsupported(format!("{key} in {}", path.display()), "expected no value"));
        }
        let bert = kind == ModelKind::Bert;
        Self {
            kind,
            vocab_size: hf.vocab_size,
            hidden_size: hf.hidden_size,
            num_hidden_layers: hf.num_hidden_layers,
            num_attention_heads: hf.num_attention_heads,
            intermediate_size: hf.intermediate_size,
            max_position_embeddings: hf.max_position_embeddings,
            type_vocab_size: hf.type_vocab_size.unwrap_or(if bert { 2 } else { 1 }),
            layer_norm_eps: hf.layer_norm_eps.unwrap_or(if bert { 1e-12 } else { 1e-5 }),
            pad_token_id: hf.pad_token_id.unwrap_or_else(|| usize::from(!bert)),
        }
        .checked(path)
    }

    /// Reads GGUF metadata with llama.cpp's keys for BERT; `path` is named in errors.
    ///
    /// llama.cpp stores XLM-RoBERTa as BERT too, with only the position embeddings that are in use.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a missing or impossible value, [`ModelError::Unsupported`] for another architecture.
    pub(crate) fn from_gguf(content: &Content, path: &Path) -> Result<Self> {
        let value = |key: &str| {
            content.metadata.get(key).ok_or_else(|| ModelError::config(path, format!("missing metadata key {key:?}")))
        };
        let architecture = value("general.architecture")?.to_string().cloned().unwrap_or_default();
        if architecture != "bert" {
            return Err(ModelError::unsupported(
                format!("architecture {architecture:?} in {}", path.display()),
                "expected \"bert\"",
            ));
        }
        let size = |key: &str| {
            let found = value(key)?;
            unsigned(found).ok_or_else(|| ModelError::config(path, format!("{key} is {found:?}, expected a size")))
        };
        let rows = |tensor: &str| content.tensor_infos.get(tensor).and_then(|info| info.shape.dims().first().copied());
        let epsilon = value("bert.attention.layer_norm_epsilon")?;
        Self {
            kind: ModelKind::Bert,
            vocab_size: rows("token_embd.weight")
                .ok_or_else(|| ModelError::config(path, "missing tensor \"token_embd.weight\""))?,
            hidden_size: size("bert.embedding_length")?,
            num_hidden_layers: size("bert.block_count")?,
            num_attention_heads: size("bert.attention.head_count")?,
            intermediate_size: size("bert.feed_forward_length")?,
            max_position_embeddings: rows("position_embd.weight").map_or_else(|| size("bert.context_length"), Ok)?,
            type_vocab_size: rows("token_types.weight").unwrap_or(1),
            layer_norm_eps: epsilon.to_f32().map(f64::from).or_else(|_| epsilon.to_f64()).map_err(|_| {
                ModelError::config(path, format!("bert.attention.layer_norm_epsilon is {epsilon:?}, expected a float"))
            })?,
            pad_token_id: content.metadata.get("tokenizer.ggml.padding_token_id").and_then(unsigned).unwrap_or(0),
        }
        .checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::config(path, format!("{key} is 0")));
        }
        // The expected tensors are listed from these sizes before they are compared with the weights.
        let limits = [
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("type_vocab_size", self.type_vocab_size, MAX_TOKEN_TYPES),
            ("vocab_size", self.vocab_size, MAX_SIZE),
            ("hidden_size", self.hidden_size, MAX_SIZE),
            ("intermediate_size", self.intermediate_size, MAX_SIZE),
            ("max_position_embeddings", self.max_position_embeddings, MAX_SIZE),
        ];
        if let Some((key, size, max)) = limits.iter().find(|(_, size, max)| size > max) {
            return Err(ModelError::config(path, format!("{key} is {size}, expected at most {max}")));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ModelError::config(
                path,
                format!(
                    "hidden_size {} is no multiple of num_attention_heads {}",
                    self.hidden_size, self.num_attention_heads
                ),
            ));
        }
        if self.max_position_embeddings <= self.first_position() {
            return Err(ModelError::config(
                path,
                format!(
                    "max_position_embeddings {} leaves no position: the first is {}",
                    self.max_position_embeddings,
                    self.first_position()
                ),
            ));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return Err(ModelError::config(path, format!("layer_norm_eps is {}", self.layer_norm_eps)));
        }
        Ok(self)
    }

    /// The row of the position embeddings of a sequence's first token.
    pub fn first_position(&self) -> usize {
        match self.kind {
            ModelKind::XlmRobertaXl | ModelKind::XlmRoberta => self.pad_token_id.saturating_add(1),
            ModelKind::Bert => 0,
        }
    }

    /// The rows of the position embeddings of one sequence's tokens.
    ///
    /// The `RoBERTa` kinds do not count padding tokens, even inside a text (`<pad>` in a page about machine learning):
    /// such a token takes the padding row, and the token after it takes the next free row. Source:
    /// `create_position_ids_from_input_ids` in transformers 5.24; `BertEmbeddings` there counts every token.
    pub(crate) fn positions<'a>(&self, ids: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let padding = match self.kind {
            ModelKind::XlmRobertaXl | ModelKind::XlmRoberta => u32::try_from(self.pad_token_id).ok(),
            ModelKind::Bert => None,
        };
        let mut next = self.first_position() as u32;
        ids.iter().map(move |&id| match padding {
            Some(padding) if padding == id => padding,
            _ => {
                next += 1;
                next - 1
            }
        })
    }

    /// The largest number of tokens in one input, special tokens included: 512 where `RoBERTa` has 514 position
    /// embeddings.
    pub fn max_tokens(&self) -> usize {
        self.max_position_embeddings - self.first_position()
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// A BERT of toy size, for examples and tests.
    pub fn tiny() -> Self {
        Self {
            kind: ModelKind::Bert,
            vocab_size: 32,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 24,
            max_position_embeddings: 20,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
        }
    }

    /// The geometry of `facebook/xlm-roberta-xl`.
    pub fn xl() -> Self {
        Self {
            kind: ModelKind::XlmRobertaXl,
            vocab_size: 250_880,
            hidden_size: 2560,
            num_hidden_layers: 36,
            num_attention_heads: 32,
            intermediate_size: 10_240,
            max_position_embeddings: 514,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            pad_token_id: 1,
        }
    }

    /// The geometry of `facebook/xlm-roberta-xxl`.
    pub fn xxl() -> Self {
        Self { hidden_size: 4096, num_hidden_layers: 48, intermediate_size: 16_384, ..Self::xl() }
    }

    /// The geometry as Hugging Face's `config.json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "model_type": self.kind.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.layer_norm_eps,
            "pad_token_id": self.pad_token_id,
            "hidden_act": "gelu",
        })
    }
}

fn unsigned(value: &Value) -> Option<usize> {
    let number = match value {
        Value::U8(n) => u64::from(*n),
        Value::U16(n) => u64::from(*n),
        Value::U32(n) => u64::from(*n),
        Value::U64(n) => *n,
        Value::I8(n) => u64::try_from(*n).ok()?,
        Value::I16(n) => u64::try_from(*n).ok()?,
        Value::I32(n) => u64::try_from(*n).ok()?,
        Value::I64(n) => u64::try_from(*n).ok()?,
        _ => return None,
    };
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<ModelConfig> {
        ModelConfig::from_json(json.to_string().as_bytes(), Path::new("config.json"))
    }

    fn with(key: &str, value: serde_json::Value) -> Result<ModelConfig> {
        let mut json = ModelConfig::tiny().to_json();
        json[key] = value;
        read(json)
    }

    #[test]
    fn json_round_trips() {
        assert_eq!(read(ModelConfig::tiny().to_json()).unwrap(), ModelConfig::tiny());
    }

    #[test]
    fn max_tokens_excludes_the_rows_up_to_padding() {
        let xl = ModelConfig {
            kind: ModelKind::XlmRobertaXl,
            max_position_embeddings: 514,
            pad_token_id: 1,
            ..ModelConfig::tiny()
        };
        assert_eq!((xl.max_tokens(), xl.first_position()), (512, 2));
        let bert = ModelConfig { max_position_embeddings: 512, ..ModelConfig::tiny() };
        assert_eq!((bert.max_tokens(), bert.first_position()), (512, 0));
    }

    #[test]
    fn roberta_positions_skip_padding_tokens() {
        let ids = [0, 5, 1, 1, 6, 2, 1];
        for kind in [ModelKind::XlmRoberta, ModelKind::XlmRobertaXl] {
            let config = ModelConfig { kind, pad_token_id: 1, ..ModelConfig::tiny() };
            assert_eq!(config.positions(&ids).collect::<Vec<_>>(), [2, 3, 1, 1, 4, 5, 1]);
            let other = ModelConfig { pad_token_id: 3, ..config };
            assert_eq!(other.positions(&[0, 3, 2]).collect::<Vec<_>>(), [4, 3, 5]);
        }
        let bert = ModelConfig { pad_token_id: 1, ..ModelConfig::tiny() };
        assert_eq!(bert.positions(&ids).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (key, value, expected) in [
            ("num_attention_heads", 3.into(), "hidden_size 16 is no multiple of num_attention_heads 3"),
            ("hidden_size", 0.into(), "hidden_size is 0"),
            ("max_position_embeddings", 0.into(), "max_position_embeddings 0 leaves no position: the first is 0"),
            ("hidden_act", "relu".into(), "hidden_act \"relu\" in config.json is not supported: expected \"gelu\""),
            (
                "model_type",
                "gpt2".into(),
                "model_type \"gpt2\" in config.json is not supported: expected xlm-roberta-xl, xlm-roberta or bert",
            ),
            ("vocab_size", "many".into(), "expected usize"),
            (
                "quantization_config",
                serde_json::json!({"quant_method": "gptq"}),
                "quantization_config in config.json is not supported: expected no value",
            ),
            ("pruned_heads", serde_json::json!({"0": [1]}), "pruned_heads in config.json is not supported"),
        ] {
            let message = with(key, value).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
