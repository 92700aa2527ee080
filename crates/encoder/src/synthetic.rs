//! Checkpoints whose weights are a pure function of tensor name and index, for tests and for trying sizes.
//!
//! `tests/goldens/make.py` has the same function, so that any geometry can be compared with transformers without
//! committing weights. A number is `splitmix64(fnv1a(name) + index)`, its upper 24 bits as a uniform number in
//! `[-1, 1)`, times a scale: `sqrt(3 / columns)` for matrices of linear maps, 0.05 for biases, 0.1 for embeddings;
//! a norm's weight is `1 + 0.1 x`. Names are those of the bare model, without `roberta.` or `bert.`, whatever a
//! checkpoint stores.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use rayon::prelude::*;
use serde_json::{Value, json};

use crate::{
    config::{ModelConfig, ModelKind},
    error::{ModelError, Result},
    files::ModelFiles,
    head_config::FittedHead,
    head_kind::HeadKind,
    heads::{self, DecoderTensors},
    weights::{TensorSpec, narrow_bf16, tensors},
};

/// Number formats a checkpoint can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// Brain floats.
    Bf16,
}

/// A checkpoint to be written.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    config: ModelConfig,
    format: Format,
    shard_bytes: u64,
    head: Option<Head>,
    names: Names,
    parts: Parts,
    /// Keys of `config.json` in addition to the geometry.
    keys: serde_json::Map<String, Value>,
}

/// How tensors of the backbone are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As saved from the bare model: without a prefix.
    Bare,
    /// As saved from a model with a head: after `roberta.` or `bert.`.
    Prefixed,
}

/// Which tensors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    All,
    Head,
}

#[derive(Debug, Clone)]
struct Head {
    kind: HeadKind,
    labels: usize,
    /// Fitted heads are one linear map.
    fitted: bool,
    tied: bool,
    scale: f32,
}

/// Numbers that are computed at once.
const BLOCK_NUMBERS: usize = 1 << 22;

impl Checkpoint {
    /// A checkpoint of this geometry: f32, one file.
    pub fn new(config: ModelConfig) -> Self {
        let (head, names, parts, keys) = (None, Names::Bare, Parts::All, serde_json::Map::new());
        Self { config, format: Format::F32, shard_bytes: u64::MAX, head, names, parts, keys }
    }

    /// With a head, as the class of transformers saves it: two labels if the kind has labels, the vocabulary tied to
    /// the word embeddings, the backbone's names prefixed.
    #[must_use]
    pub fn head(mut self, kind: HeadKind) -> Self {
        self.keys.insert("architectures".to_owned(), json!([kind.architecture(self.config.kind)]));
        if kind == HeadKind::CausalLm {
            self.keys.insert("is_decoder".to_owned(), true.into());
        }
        let head = Head { kind, labels: 2, fitted: false, tied: true, scale: 1.0 };
        Self { head: Some(head), names: Names::Prefixed, ..self }
    }

    /// With these labels, for a kind of head that has labels.
    #[must_use]
    pub fn labels(mut self, labels: &[&str]) -> Self {
        let by_id = labels.iter().enumerate().map(|(id, label)| (id.to_string(), Value::from(*label)));
        self.keys.insert("id2label".to_owned(), Value::Object(by_id.collect()));
        let by_label = labels.iter().enumerate().map(|(id, label)| ((*label).to_owned(), Value::from(id)));
        self.keys.insert("label2id".to_owned(), Value::Object(by_label.collect()));
        self.with_head(|head| head.labels = labels.len())
    }

    /// With a sequence classifier that is one linear map of the pooled vector, as `polylance fit` writes it.
    #[must_use]
    pub fn fitted(mut self, fitted: &FittedHead) -> Self {
        self.keys.insert("polylance".to_owned(), json!(fitted));
        self.with_head(|head| head.fitted = fitted.head.is_some())
    }

    /// With a vocabulary that is not tied to the word embeddings, for a language model.
    #[must_use]
    pub fn untied(mut self) -> Self {
        self.keys.insert("tie_word_embeddings".to_owned(), false.into());
        self.with_head(|head| head.tied = false)
    }

    /// With the head's matrices and biases scaled: a larger scale makes logits differ more.
    #[must_use]
    pub fn head_scale(self, scale: f32) -> Self {
        self.with_head(|head| head.scale = scale)
    }

    /// Without the backbone, for a head on another model's states.
    #[must_use]
    pub fn head_only(self) -> Self {
        Self { parts: Parts::Head, ..self }
    }

    /// With this naming of the backbone's tensors.
    #[must_use]
    pub fn names(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// With one more key in `config.json`.
    #[must_use]
    pub fn key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    fn with_head(mut self, change: impl FnOnce(&mut Head)) -> Self {
        if let Some(head) = &mut self.head {
            change(head);
        }
        self
    }

    /// In this number format.
    #[must_use]
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// In files of about this size.
    #[must_use]
    pub fn shards(self, shard_bytes: u64) -> Self {
        Self { shard_bytes, ..self }
    }

    /// Writes the checkpoint with an empty tokenizer, and finds it: a model for batches of token ids.
    ///
    /// # Errors
    /// When the folder cannot be written, or the checkpoint is no model.
    pub fn write_model(&self, folder: &Path) -> Result<ModelFiles> {
        self.write(folder)?;
        let tokenizer = folder.join("tokenizer.json");
        fs::write(&tokenizer, "{}").map_err(ModelError::io(&tokenizer))?;
        ModelFiles::at(&folder.display().to_string(), folder)
    }

    /// Writes `config.json` and the weights as safetensors, one tensor at a time. The caller writes the tokenizer.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let io = |path: &Path| ModelError::io(path.to_owned());
        fs::create_dir_all(folder).map_err(io(folder))?;
        let config = folder.join("config.json");
        let mut json = self.config.to_json();
        if let Some(object) = json.as_object_mut() {
            object.extend(self.keys.clone());
        }
        fs::write(&config, format!("{json:#}")).map_err(io(&config))?;

        let shards = self.split();
        let mut map = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            let name = if shards.len() == 1 {
                "model.safetensors".to_owned()
            } else {
                format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len())
            };
            let path = folder.join(&name);
            self.write_shard(shard, &path).map_err(io(&path))?;
            map.extend(shard.iter().map(|spec| (self.stored_name(spec), name.clone())));
        }
        if shards.len() > 1 {
            let total: u64 = shards.iter().flatten().map(|spec| self.bytes(spec)).sum();
            let index = json!({"metadata": {"total_size": total}, "weight_map": map});
            let path = folder.join("model.safetensors.index.json");
            fs::write(&path, format!("{index:#}")).map_err(io(&path))?;
        }
        Ok(())
    }

    fn bytes(&self, spec: &TensorSpec) -> u64 {
        let width = match self.format {
            Format::F32 => 4,
            Format::Bf16 => 2,
        };
        spec.shape.iter().map(|size| *size as u64).product::<u64>() * width
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = match self.parts {
            Parts::All => tensors(&self.config),
            Parts::Head => Vec::new(),
        };
        let Some(Head { kind, labels, fitted, tied, .. }) = self.head else { return specs };
        specs.extend(match kind {
            HeadKind::MaskedLm | HeadKind::CausalLm if !tied => {
                heads::language_model_tensors(&self.config, &DecoderTensors::untied(&self.config))
            }
            _ => {
                let shape = if fitted { heads::Shape::Fitted { labels } } else { heads::Shape::Plain { labels } };
                heads::tensors(kind, &self.config, shape)
            }
        });
        specs
    }

    /// The pooler belongs to the bare model, as in transformers.
    fn of_backbone(name: &str) -> bool {
        ["embeddings.", "encoder.", "pooler."].iter().any(|part| name.starts_with(part))
    }

    fn stored_name(&self, spec: &TensorSpec) -> String {
        let prefix = match self.config.kind {
            _ if self.names == Names::Bare || !Self::of_backbone(&spec.name) => "",
            ModelKind::XlmRobertaXl | ModelKind::XlmRoberta => "roberta.",
            ModelKind::Bert => "bert.",
        };
        format!("{prefix}{}", spec.name)
    }

    /// The head's scale; 1 for the backbone, and for norms.
    fn scale(&self, spec: &TensorSpec) -> f32 {
        let plain = Self::of_backbone(&spec.name) || is_norm(&spec.name);
        self.head.as_ref().filter(|_| !plain).map_or(1.0, |head| head.scale)
    }

    fn split(&self) -> Vec<Vec<TensorSpec>> {
        let mut shards: Vec<Vec<TensorSpec>> = Vec::new();
        let mut filled = u64::MAX;
        for spec in self.tensors() {
            let bytes = self.bytes(&spec);
            match shards.last_mut() {
                Some(shard) if filled.saturating_add(bytes) <= self.shard_bytes => {
                    shard.push(spec);
                    filled += bytes;
                }
                _ => {
                    shards.push(vec![spec]);
                    filled = bytes;
                }
            }
        }
        shards
    }

    fn write_shard(&self, shard: &[TensorSpec], path: &Path) -> std::io::Result<()> {
        let dtype = match self.format {
            Format::F32 => "F32",
            Format::Bf16 => "BF16",
        };
        let mut header = serde_json::Map::new();
        let mut start = 0;
        for spec in shard {
            let end = start + self.bytes(spec);
            let entry = json!({"dtype": dtype, "shape": spec.shape, "data_offsets": [start, end]});
            header.insert(self.stored_name(spec), entry);
            start = end;
        }
        let mut header = Value::Object(header).to_string();
        // The data starts at a multiple of eight bytes.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for spec in shard {
            let total: usize = spec.shape.iter().product();
            for first in (0..total).step_by(BLOCK_NUMBERS) {
                let mut numbers = numbers(&spec.name, &spec.shape, first, BLOCK_NUMBERS.min(total - first));
                let scale = self.scale(spec);
                if scale != 1.0 {
                    for number in &mut numbers {
                        *number *= scale;
                    }
                }
                match self.format {
                    Format::F32 => {
                        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                        file.write_all(&bytes)?;
                    }
                    Format::Bf16 => file.write_all(&narrow_bf16(&numbers))?,
                }
            }
        }
        file.flush()
    }
}

/// The parameters of the function that makes the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Formula {
    /// Added to a number's index before it is mixed.
    pub(crate) seed: u64,
    /// The middle of the numbers' range, and half its width.
    pub(crate) offset: f32,
    pub(crate) scale: f32,
}

/// The formula of a tensor, by name and shape.
pub(crate) fn formula(name: &str, shape: &[usize]) -> Formula {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let (offset, scale) = if is_norm(name) && name.ends_with(".weight") {
        (1.0, 0.1)
    } else if name.contains("embeddings.") && shape.len() == 2 {
        (0.0, 0.1)
    } else if let [_, columns] = shape {
        (0.0, (3.0 / *columns as f32).sqrt())
    } else {
        (0.0, 0.05)
    };
    Formula { seed, offset, scale }
}

/// Numbers `first..first + count` of a tensor.
pub fn numbers(name: &str, shape: &[usize], first: usize, count: usize) -> Vec<f32> {
    let Formula { seed, offset, scale } = formula(name, shape);
    let number = |index: usize| {
        let bits = splitmix64(seed.wrapping_add(index as u64)) >> 40;
        offset + scale * (bits as f32 / (1 << 23) as f32 - 1.0)
    };
    (first..first + count).into_par_iter().with_min_len(1 << 14).map(number).collect()
}

fn is_norm(name: &str) -> bool {
    ["LayerNorm", "layer_norm"].iter().any(|norm| name.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with(norm)))
}

pub(crate) fn splitmix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
