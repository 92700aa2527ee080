//! The models that are measured, and how much there is to compute in them.

use std::fmt;

use clap::ValueEnum;
use polylance_encoder::{ModelConfig, ModelKind};

/// A model's sizes. The weights are made by a formula: speed does not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Geometry {
    /// facebook/xlm-roberta-xl: 3.5 billion parameters
    Xl,
    /// FacebookAI/xlm-roberta-large: 560 million parameters
    XlmrLarge,
    /// intfloat/multilingual-e5-small: 118 million parameters
    E5Small,
    /// A toy of XL's kind, for machines without a GPU
    Tiny,
}

impl Geometry {
    /// The configuration; `layers` overrides how many there are.
    pub(crate) fn config(self, layers: Option<usize>) -> ModelConfig {
        let config = match self {
            Self::Xl => roberta(ModelKind::XlmRobertaXl, 250_880, [2560, 36, 32, 10_240]),
            Self::XlmrLarge => roberta(ModelKind::XlmRoberta, 250_002, [1024, 24, 16, 4096]),
            Self::Tiny => roberta(ModelKind::XlmRobertaXl, 1000, [64, 2, 2, 128]),
            Self::E5Small => ModelConfig {
                kind: ModelKind::Bert,
                vocab_size: 250_037,
                hidden_size: 384,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                intermediate_size: 1536,
                max_position_embeddings: 512,
                type_vocab_size: 2,
                layer_norm_eps: 1e-12,
                pad_token_id: 0,
            },
        };
        ModelConfig { num_hidden_layers: layers.unwrap_or(config.num_hidden_layers), ..config }
    }

    /// How many layers of the true geometry a check takes: all of a small model's, some of XL's.
    pub(crate) fn layers_of_a_check(self) -> usize {
        match self {
            Self::Xl | Self::XlmrLarge => 4,
            Self::E5Small | Self::Tiny => self.config(None).num_hidden_layers,
        }
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xl => "xl",
            Self::XlmrLarge => "xlmr-large",
            Self::E5Small => "e5-small",
            Self::Tiny => "tiny",
        })
    }
}

fn roberta(kind: ModelKind, vocab_size: usize, [hidden, layers, heads, ffn]: [usize; 4]) -> ModelConfig {
    ModelConfig {
        kind,
        vocab_size,
        hidden_size: hidden,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: ffn,
        max_position_embeddings: 514,
        type_vocab_size: 1,
        layer_norm_eps: 1e-5,
        pad_token_id: 1,
    }
}

/// Multiplications and additions of one batch, by the label that the engine gives to the launch; all layers together.
/// Embeddings, norms and pooling count nothing: they are bound by memory.
pub(crate) fn operations_by_label(config: &ModelConfig, lengths: &[usize]) -> [(&'static str, f64); 5] {
    let tokens: f64 = lengths.iter().map(|&length| length as f64).sum();
    let pairs: f64 = lengths.iter().map(|&length| (length * length) as f64).sum();
    let [hidden, wide, layers] =
        [config.hidden_size, config.intermediate_size, config.num_hidden_layers].map(|size| size as f64);
    let product = |outputs: f64, inputs: f64| layers * tokens * 2.0 * outputs * inputs;
    [
        ("query, key, value", product(3.0 * hidden, hidden)),
        ("attention", layers * pairs * 4.0 * hidden),
        ("attention output", product(hidden, hidden)),
        ("up", product(wide, hidden)),
        ("down", product(hidden, wide)),
    ]
}

/// Multiplications and additions of one batch: those of the maps for each id, and those of attention for each pair.
pub(crate) fn operations(config: &ModelConfig, lengths: &[usize]) -> f64 {
    operations_by_label(config, lengths).iter().map(|(_, operations)| operations).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_formula_of_the_peer() {
        let config = Geometry::Xl.config(None);
        let (hidden, wide) = (2560.0, 10_240.0);
        let of_length =
            |length: f64| 36.0 * length * (2.0 * (4.0 * hidden * hidden + 2.0 * hidden * wide) + 4.0 * length * hidden);
        let expected = of_length(128.0) + of_length(512.0);
        let found = operations(&config, &[128, 512]);
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn geometries_are_complete_configurations() {
        for geometry in [Geometry::Xl, Geometry::XlmrLarge, Geometry::E5Small, Geometry::Tiny] {
            let config = geometry.config(Some(3));
            assert_eq!((config.num_hidden_layers, config.max_tokens()), (3, 512), "{geometry}");
            assert!(config.hidden_size.is_multiple_of(config.num_attention_heads));
        }
    }
}
