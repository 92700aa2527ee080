//! The layout of a model's tensors in GPU memory, and the tensors of the files that each is made from.
//!
//! Weights are padded with zeros to sizes that the kernels support: heads to one of a few sizes, the feed-forward block
//! to a multiple of eight. Padding is multiplied by zero, so results do not change.

use std::ops::Range;

use polylance_cuda::{DeviceSlice, NumberType};

use crate::{
    config::{ModelConfig, NormPlacement},
    embeddings::WORD_EMBEDDINGS,
    error::{ModelError, Result},
};

/// Head sizes that the attention kernels are compiled for.
const ATTENTION_HEAD_SIZES: [usize; 5] = [32, 64, 80, 96, 128];

/// Each tensor starts at a multiple of this many bytes.
const TENSOR_ALIGNMENT_BYTES: usize = 256;

/// The sizes that the kernels compute with, padding included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    /// Numbers of a head in the files.
    pub(super) head_size: usize,
    /// Numbers of a head on the GPU.
    pub(super) padded_head: usize,
    pub(super) intermediate: usize,
    /// The feed-forward block's width on the GPU.
    pub(super) padded_intermediate: usize,
}

impl Geometry {
    /// # Errors
    /// [`ModelError::Unsupported`] for a head or a width that no kernel takes.
    pub(super) fn new(config: &ModelConfig, numbers: NumberType) -> Result<Self> {
        let head_size = config.head_size();
        let unsupported = |what: String, reason: &str| Err(ModelError::unsupported(what, reason));
        let padded_head = match numbers {
            NumberType::F32 if head_size <= 128 => head_size.next_multiple_of(8),
            NumberType::F32 => return unsupported(format!("a head of {head_size} numbers on a GPU"), "at most 128"),
            NumberType::Bf16 | NumberType::F16 => match ATTENTION_HEAD_SIZES.iter().find(|&&size| size >= head_size) {
                Some(&size) => size,
                None => return unsupported(format!("a head of {head_size} numbers on a GPU"), "at most 128"),
            },
        };
        if !config.hidden_size.is_multiple_of(8) || config.hidden_size > 8192 {
            let what = format!("hidden_size {} on a GPU", config.hidden_size);
            return unsupported(what, "expected a multiple of 8, at most 8192");
        }
        Ok(Self {
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            head_size,
            padded_head,
            intermediate: config.intermediate_size,
            padded_intermediate: config.intermediate_size.next_multiple_of(8),
        })
    }

    /// The width of all heads' contexts together.
    pub(super) fn context(&self) -> usize {
        self.heads * self.padded_head
    }

    /// Numbers that a token takes in the widest buffer.
    pub(super) fn wide(&self) -> usize {
        (3 * self.context()).max(self.padded_intermediate)
    }
}

/// Indices in groups, each of which is followed by padding on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) count: usize,
    pub(super) size: usize,
    pub(super) padded: usize,
}

impl Groups {
    pub(super) fn plain(size: usize) -> Self {
        Self { count: 1, size, padded: size }
    }

    /// Indices on the GPU.
    pub(super) fn total(self) -> usize {
        self.count * self.padded
    }

    /// The index in the files of an index on the GPU; `None` in the padding.
    pub(super) fn source(self, at: usize) -> Option<usize> {
        let (group, within) = (at / self.padded, at % self.padded);
        (within < self.size).then_some(group * self.size + within)
    }

    pub(super) fn is_plain(self) -> bool {
        self.size == self.padded
    }
}

/// A tensor's range in the weights of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// In bytes.
    pub(super) offset: usize,
    pub(super) numbers: NumberType,
    /// The number of numbers, padding included.
    pub(super) count: usize,
}

impl Place {
    pub(super) fn bytes(&self) -> usize {
        self.count * self.numbers.bytes()
    }

    /// The tensor in the weights of its layout.
    pub(super) fn slice<'a>(&self, weights: DeviceSlice<'a>) -> Result<DeviceSlice<'a>> {
        Ok(weights.slice(self.offset..self.offset + self.bytes())?)
    }
}

/// A tensor on the GPU, and the tensors of the files that it is made from, one below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) sources: Vec<String>,
    pub(super) rows: Groups,
    /// A vector has one column.
    pub(super) columns: Groups,
}

/// Places tensors one after another.
#[derive(Debug)]
pub(super) struct Layout {
    numbers: NumberType,
    pub(super) items: Vec<Item>,
    /// Of all tensors.
    pub(super) bytes: usize,
}

impl Layout {
    pub(super) fn new(numbers: NumberType) -> Self {
        Self { numbers, items: Vec::new(), bytes: 0 }
    }

    /// A matrix in the number format of the computation.
    pub(super) fn matrix(&mut self, sources: Vec<String>, rows: Groups, columns: Groups) -> Place {
        self.add(sources, self.numbers, rows, columns)
    }

    /// A vector in f32.
    pub(super) fn vector(&mut self, sources: Vec<String>, rows: Groups) -> Place {
        self.add(sources, NumberType::F32, rows, Groups::plain(1))
    }

    /// The weight and the bias of a linear map.
    pub(super) fn linear(&mut self, sources: &[String], rows: Groups, columns: Groups) -> Linear {
        let named = |part: &str| sources.iter().map(|name| format!("{name}.{part}")).collect();
        Linear {
            weight: self.matrix(named("weight"), rows, columns),
            bias: self.vector(named("bias"), rows),
            outputs: rows.total(),
            inputs: columns.total(),
        }
    }

    /// The weight and the bias of a layer norm.
    pub(super) fn norm(&mut self, name: &str, width: usize) -> Norm {
        let mut vector = |part: &str| self.vector(vec![format!("{name}.{part}")], Groups::plain(width));
        Norm { weight: vector("weight"), bias: vector("bias") }
    }

    fn add(&mut self, sources: Vec<String>, numbers: NumberType, rows: Groups, columns: Groups) -> Place {
        let place = Place { offset: self.bytes, numbers, count: rows.total() * columns.total() };
        self.bytes = (place.offset + place.bytes()).next_multiple_of(TENSOR_ALIGNMENT_BYTES);
        self.items.push(Item { place, sources, rows, columns });
        place
    }
}

/// A linear map on the GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linear {
    /// `[outputs, inputs]`.
    pub(super) weight: Place,
    /// `[outputs]`.
    pub(super) bias: Place,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

/// A layer norm on the GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub(super) weight: Place,
    pub(super) bias: Place,
}

/// The tensors of a layer, in the layout of any layer: all are placed alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    /// Before the attention, or after it.
    pub(super) attention_norm: Norm,
    pub(super) query_key_value: Linear,
    pub(super) attention_output: Linear,
    /// Before the feed-forward block, or after it.
    pub(super) feed_forward_norm: Norm,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
}

/// The tables of embeddings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Embeddings {
    /// `[vocab_size, hidden]`.
    pub(super) words: Place,
    /// `[max_position_embeddings, hidden]`.
    pub(super) positions: Place,
    /// `[type_vocab_size, hidden]`.
    pub(super) types: Place,
    /// After the sum, of the post-norm kinds.
    pub(super) norm: Option<Norm>,
}

/// The tensors of an encoder, or of consecutive layers of it.
#[derive(Debug)]
pub(super) struct Tensors {
    /// With the first layer.
    pub(super) embeddings: Option<Embeddings>,
    /// After the last layer, of the pre-norm kinds.
    pub(super) last_norm: Option<Norm>,
    /// In the layout of a layer; the others are in that of the tensors outside of the layers.
    pub(super) layer: Layer,
}

/// The layouts of consecutive layers of a model, and of the tensors that are read with them.
#[derive(Debug)]
pub(super) struct ModelLayout {
    pub(super) tensors: Tensors,
    /// The tensors outside of the layers.
    pub(super) outside: Layout,
    /// All of the same size.
    pub(super) layers: Vec<Layout>,
    /// Bytes of one layer.
    pub(super) layer_bytes: usize,
}

impl ModelLayout {
    pub(super) fn new(config: &ModelConfig, geometry: &Geometry, numbers: NumberType, layers: Range<usize>) -> Self {
        let pre = config.kind.norm_placement() == NormPlacement::Pre;
        let is_end = layers.end == config.num_hidden_layers;
        let mut outside = Layout::new(numbers);
        let embeddings = (layers.start == 0).then(|| embeddings(&mut outside, config, geometry, pre));
        let last_norm = (pre && is_end).then(|| outside.norm("encoder.LayerNorm", geometry.hidden));
        let of_layer = |number: usize| {
            let mut layout = Layout::new(numbers);
            let tensors = layer(&mut layout, geometry, number, pre);
            (layout, tensors)
        };
        let (first, layer) = of_layer(layers.start);
        let layers = layers.map(|number| of_layer(number).0).collect();
        Self { tensors: Tensors { embeddings, last_norm, layer }, outside, layers, layer_bytes: first.bytes }
    }
}

fn embeddings(layout: &mut Layout, config: &ModelConfig, geometry: &Geometry, pre: bool) -> Embeddings {
    let hidden = Groups::plain(geometry.hidden);
    let mut table = |name: &str, rows: usize| layout.matrix(vec![name.to_owned()], Groups::plain(rows), hidden);
    Embeddings {
        words: table(WORD_EMBEDDINGS, config.vocab_size),
        positions: table("embeddings.position_embeddings.weight", config.max_position_embeddings),
        types: table("embeddings.token_type_embeddings.weight", config.type_vocab_size),
        norm: (!pre).then(|| layout.norm("embeddings.LayerNorm", geometry.hidden)),
    }
}

fn layer(layout: &mut Layout, geometry: &Geometry, number: usize, pre: bool) -> Layer {
    let Geometry { hidden, heads, head_size, padded_head, intermediate, padded_intermediate } = *geometry;
    let name = |part: &str| format!("encoder.layer.{number}.{part}");
    let (attention_norm, feed_forward_norm) = if pre {
        (name("attention.self_attn_layer_norm"), name("LayerNorm"))
    } else {
        (name("attention.output.LayerNorm"), name("output.LayerNorm"))
    };
    let plain = Groups::plain(hidden);
    let inner = Groups { count: 1, size: intermediate, padded: padded_intermediate };
    let of_heads = |count| Groups { count, size: head_size, padded: padded_head };
    let parts = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
    Layer {
        attention_norm: layout.norm(&attention_norm, hidden),
        query_key_value: layout.linear(&parts, of_heads(3 * heads), plain),
        attention_output: layout.linear(&[name("attention.output.dense")], plain, of_heads(heads)),
        feed_forward_norm: layout.norm(&feed_forward_norm, hidden),
        intermediate: layout.linear(&[name("intermediate.dense")], inner, plain),
        output: layout.linear(&[name("output.dense")], plain, inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelKind;

    fn config() -> ModelConfig {
        ModelConfig { hidden_size: 96, num_attention_heads: 8, intermediate_size: 250, ..ModelConfig::tiny() }
    }

    #[test]
    fn heads_and_inner_width_are_padded() {
        let geometry = Geometry::new(&config(), NumberType::Bf16).unwrap();
        assert_eq!((geometry.padded_head, geometry.padded_intermediate, geometry.context()), (32, 256, 256));
        let exact = Geometry::new(&config(), NumberType::F32).unwrap();
        assert_eq!((exact.padded_head, exact.wide()), (16, 384));
        let xl = ModelConfig { hidden_size: 2560, num_attention_heads: 32, ..config() };
        assert_eq!(Geometry::new(&xl, NumberType::Bf16).unwrap().padded_head, 80);
        let wide = ModelConfig { num_attention_heads: 1, hidden_size: 256, ..config() };
        let error = Geometry::new(&wide, NumberType::Bf16).unwrap_err().to_string();
        assert_eq!(error, "a head of 256 numbers on a GPU is not supported: at most 128");
    }

    #[test]
    fn padding_has_no_source() {
        let groups = Groups { count: 2, size: 3, padded: 4 };
        let sources: Vec<_> = (0..groups.total()).map(|at| groups.source(at)).collect();
        assert_eq!(sources, [Some(0), Some(1), Some(2), None, Some(3), Some(4), Some(5), None]);
    }

    #[test]
    fn layouts_have_every_tensor_once_without_overlap() {
        let kinds = [ModelKind::XlmRobertaXl, ModelKind::XlmRoberta, ModelKind::Bert];
        for (kind, split) in kinds.into_iter().flat_map(|kind| [(kind, 0), (kind, 1), (kind, 3)]) {
            let config = ModelConfig { kind, pad_token_id: 1, num_hidden_layers: 4, ..config() };
            let geometry = Geometry::new(&config, NumberType::Bf16).unwrap();
            let layout = |layers| ModelLayout::new(&config, &geometry, NumberType::Bf16, layers);
            let layouts = if split == 0 { vec![layout(0..4)] } else { vec![layout(0..split), layout(split..4)] };
            let all = || layouts.iter().flat_map(|layout| layout.layers.iter().chain([&layout.outside]));
            for layout in all() {
                let mut end = 0;
                for item in &layout.items {
                    assert!(item.place.offset >= end && item.place.offset % TENSOR_ALIGNMENT_BYTES == 0);
                    end = item.place.offset + item.place.bytes();
                }
                assert!(end <= layout.bytes);
            }
            let layer_bytes = layouts[0].layer_bytes;
            assert!(layouts.iter().flat_map(|layout| &layout.layers).all(|of_layer| of_layer.bytes == layer_bytes));
            let items = all().flat_map(|layout| &layout.items);
            let mut named: Vec<_> = items.flat_map(|item| item.sources.clone()).collect();
            let mut expected: Vec<_> = crate::weights::tensors(&config).into_iter().map(|spec| spec.name).collect();
            named.sort();
            expected.sort();
            assert_eq!(named, expected, "{kind:?} {split}");
        }
    }
}
