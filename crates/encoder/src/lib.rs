//! XLM-RoBERTa-XL, XLM-RoBERTa and BERT over packed batches, on CPUs and NVIDIA GPUs.
//!
//! One [`Encoder`] with a norm placement serves all three kinds. A batch is packed: all tokens of all sequences in one
//! `[total_tokens, hidden]` tensor, with [`CuSeqlens`] for the borders, and no padding. [`ModelFiles`] finds a model
//! (built in, a folder, GGUF, the hub), and [`SentenceEncoder`] loads it and turns a [`PackedBatch`] into vectors.
//! [`HeadModel`] loads it with a head of a [`HeadKind`] and returns logits; a [`SharedHead`] reads the hidden states of
//! another model's pass.
//!
//! ```
//! use polylance_encoder::{Device, LoadOptions, ModelConfig, ModelFiles, PackedBatch, SentenceEncoder, synthetic};
//!
//! let folder = tempfile::tempdir()?;
//! let checkpoint = synthetic::Checkpoint::new(ModelConfig::tiny());
//! checkpoint.write(folder.path())?;
//! std::fs::write(folder.path().join("tokenizer.json"), "{}")?;
//!
//! let files = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path"))?;
//! let encoder = SentenceEncoder::load(&files, &LoadOptions::default(), &Device::Cpu)?;
//! let vectors = encoder.embed(&PackedBatch::new(&[vec![0, 5, 6, 2], vec![0, 7, 2]])?)?;
//! assert_eq!(vectors.len(), 2 * encoder.dim());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod attention;
mod available_memory;
mod batch;
mod config;
mod cuda;
mod device;
mod dtype;
mod embeddings;
mod encoder;
mod error;
mod files;
mod generation;
mod head_config;
mod head_info;
mod head_kind;
mod head_model;
mod heads;
mod key_values;
mod layer;
mod layer_stream;
mod linear;
mod loading;
mod norm;
mod ops;
mod packing;
mod pooling;
mod residency;
mod sentence_encoder;
mod shared_head;
pub mod synthetic;
mod weights;

pub use attention::SelfAttention;
pub use batch::{CuSeqlens, PackedBatch};
pub use config::{ModelConfig, ModelKind, NormPlacement};
pub use device::Device;
pub use dtype::{check_dtype, dtype_of_this_cpu};
pub use embeddings::Embeddings;
pub use encoder::Encoder;
pub use error::{ModelError, Result};
pub use files::{
    ANCHOR_FILES, EmbeddingDefaults, HeadTensor, ModelFiles, TokenizerSettings, TruncationSide, is_path_inside,
    needed_files,
};
pub use head_config::{Activation, FittedHead, FittedKind, HeadConfig, ProblemType};
pub use head_info::HeadInfo;
pub use head_kind::HeadKind;
pub use head_model::HeadModel;
pub use heads::{LanguageModelHead, Logits, MultipleChoice, QuestionAnswering, SequenceClassifier, TokenClassifier};
pub use layer::Layer;
pub use linear::Linear;
pub use loading::{LoadOptions, LoadReport};
pub use norm::LayerNorm;
pub use packing::Packing;
pub use polylance_cuda::{CudaError, Gpu, GpuInfo, KernelTime, gpus, gpus_or_why};
pub use polylance_schema::{Generation, Pooling, Prompts};
pub use pooling::pool;
pub use residency::Streaming;
pub use sentence_encoder::SentenceEncoder;
pub use shared_head::SharedHead;
