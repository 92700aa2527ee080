//! Heads on the device: only logits are downloaded.

use std::sync::Arc;

use polylance_cuda::{
    DeviceBuffer, DeviceSlice, Gpu, NumberType, Pass,
    ops::{Activation, Epilogue, GatherRows, GatherRowsF32, Gemm, Linear, Norm, NormRows, Pool},
};
use polylance_schema::{Dtype, Pooling};

use super::{
    Logits,
    batch::Block,
    buffers::Places,
    layout::{self, Groups, Layout, Place},
    numbers,
    stage::Stage,
    upload::Source,
};
use crate::{
    batch::CuSeqlens,
    config::ModelConfig,
    embeddings::WORD_EMBEDDINGS,
    error::{ModelError, Result},
    head_config::HeadConfig,
    head_kind::HeadKind,
    heads::{DecoderTensors, language_model_names, pooled_names},
    weights::Weights,
};

/// Where the head of a language model reads word embeddings that are tied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TiedEmbeddings {
    /// Those of the encoder, on the same GPU.
    Shared,
    /// A copy: those of the encoder are on the GPU of its first layers.
    Copied,
}

/// A head of any kind, on a GPU.
#[derive(Debug)]
pub(crate) struct CudaHead {
    weights: DeviceBuffer,
    numbers: NumberType,
    layers: Layers,
    /// Labels, or tokens of the vocabulary.
    width: usize,
}

#[derive(Debug)]
enum Layers {
    /// The first token's state through a map and tanh, and another map: one row per sequence.
    First { dense: layout::Linear, output: layout::Linear },
    /// One map of the pooled vector.
    Pooled { pooling: Pooling, normalize: bool, output: layout::Linear },
    /// One map of each token's state.
    Tokens { output: layout::Linear },
    /// A map, GELU, a norm, and one logit per token of the vocabulary.
    Language {
        dense: layout::Linear,
        norm: layout::Norm,
        /// `[vocab, hidden]`; `None` for the word embeddings of the encoder.
        table: Option<Place>,
        bias: Place,
    },
}

impl CudaHead {
    /// Loads a head from weights whose tensors were checked.
    ///
    /// # Errors
    /// When the device has too little memory or fails.
    pub(crate) fn load(
        kind: HeadKind,
        config: &ModelConfig,
        head: &HeadConfig,
        weights: &Weights,
        dtype: Dtype,
        tied: TiedEmbeddings,
        gpu: &Arc<Gpu>,
    ) -> Result<Self> {
        let numbers = numbers(dtype)?;
        let mut layout = Layout::new(numbers);
        let hidden = Groups::plain(config.hidden_size);
        let mut linear = |name: &str, outputs| layout.linear(&[name.to_owned()], Groups::plain(outputs), hidden);
        let (layers, width) = match kind {
            HeadKind::SequenceClassification => {
                let labels = head.labels()?.len();
                let layers = if let Some(fitted) = head.fitted().filter(|fitted| fitted.head.is_some()) {
                    let output = linear("classifier", labels);
                    Layers::Pooled { pooling: fitted.pooling, normalize: fitted.normalize, output }
                } else {
                    let (dense, output) = pooled_names(config.kind);
                    Layers::First { dense: linear(dense, config.hidden_size), output: linear(output, labels) }
                };
                (layers, labels)
            }
            HeadKind::MultipleChoice => {
                let dense = linear("pooler.dense", config.hidden_size);
                (Layers::First { dense, output: linear("classifier", 1) }, 1)
            }
            HeadKind::TokenClassification => {
                let labels = head.labels()?.len();
                (Layers::Tokens { output: linear("classifier", labels) }, labels)
            }
            HeadKind::QuestionAnswering => (Layers::Tokens { output: linear("qa_outputs", 2) }, 2),
            HeadKind::MaskedLm | HeadKind::CausalLm => {
                let names = language_model_names(config.kind);
                let decoder = DecoderTensors::find(config, head.tie_word_embeddings, weights);
                let dense = linear(names.dense, config.hidden_size);
                let norm = layout.norm(names.norm, config.hidden_size);
                let rows = Groups::plain(config.vocab_size);
                let has_table = decoder.table != WORD_EMBEDDINGS || tied == TiedEmbeddings::Copied;
                let table = has_table.then(|| layout.matrix(vec![decoder.table.to_owned()], rows, hidden));
                let bias = layout.vector(vec![decoder.bias.to_owned()], rows);
                (Layers::Language { dense, norm, table, bias }, config.vocab_size)
            }
        };
        let on_device = DeviceBuffer::new(gpu, layout.bytes)?;
        Source::Files(weights).write(gpu, &[(&layout, on_device.all())])?;
        Ok(Self { weights: on_device, numbers, layers, width })
    }

    pub(crate) fn is_language(&self) -> bool {
        matches!(self.layers, Layers::Language { .. })
    }

    /// # Errors
    /// [`ModelError::Option`] for a head without a vocabulary.
    pub(crate) fn check_language(&self) -> Result<()> {
        if self.is_language() {
            return Ok(());
        }
        Err(ModelError::Option("the head of the model has no vocabulary".to_owned()))
    }

    /// Numbers of the logits of a batch.
    pub(super) fn output_len(&self, block: &Block) -> usize {
        let rows = if matches!(self.layers, Layers::Tokens { .. }) { block.tokens() } else { block.sequences() };
        rows * self.width
    }

    /// Bytes of the head's intermediate results for `sequences` sequences.
    pub(super) fn scratch(&self, sequences: usize, hidden: usize) -> usize {
        let vectors = match self.layers {
            Layers::First { .. } => 2,
            Layers::Pooled { .. } => 1,
            Layers::Tokens { .. } | Layers::Language { .. } => 0,
        };
        4 * vectors * vector_room(sequences, hidden)
    }

    /// The logits of each sequence: one row, or one row per token.
    pub(crate) fn by_sequence(&self, logits: &[f32], cu_seqlens: &CuSeqlens) -> Logits {
        if matches!(self.layers, Layers::Tokens { .. }) {
            let of_range =
                |range: std::ops::Range<usize>| logits[range.start * self.width..range.end * self.width].to_vec();
            cu_seqlens.ranges().map(of_range).collect()
        } else {
            logits.chunks(self.width).map(<[f32]>::to_vec).collect()
        }
    }

    /// Launches the head on the states of a batch.
    pub(super) fn launch(
        &self,
        stage: &Stage,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        out: DeviceSlice<'_>,
    ) -> Result<()> {
        let hidden = stage.geometry.hidden;
        let (sequences, room) = (block.sequences(), 4 * vector_room(block.sequences(), hidden));
        let vectors = |at: usize| places.scratch.slice(at * room..(at + 1) * room);
        match &self.layers {
            Layers::First { dense, output } => {
                pass.gather_rows_f32(&GatherRowsF32 {
                    states: places.buffers.states.all(),
                    rows: places.part(block.cu_seqlens)?,
                    out: vectors(0)?,
                    count: sequences,
                    hidden,
                })?;
                self.linear(pass, vectors(0)?, dense, Activation::Tanh, vectors(1)?, sequences)?;
                self.linear(pass, vectors(1)?, output, Activation::None, out, sequences)
            }
            Layers::Pooled { pooling, normalize, output } => {
                let pool: Pool<'_> = stage.pooling(places, block, *pooling, *normalize, hidden, vectors(0)?)?;
                pass.pool(&pool)?;
                self.linear(pass, vectors(0)?, output, Activation::None, out, sequences)
            }
            Layers::Tokens { output } => {
                let states = places.buffers.states.all();
                self.linear(pass, states, output, Activation::None, out, block.tokens())
            }
            Layers::Language { .. } => {
                Err(ModelError::Option("a head with a vocabulary cannot share the pass of an embedding".to_owned()))
            }
        }
    }

    fn linear(
        &self,
        pass: &mut Pass<'_>,
        x: DeviceSlice<'_>,
        linear: &layout::Linear,
        activation: Activation,
        out: DeviceSlice<'_>,
        rows: usize,
    ) -> Result<()> {
        Ok(pass.linear(&Linear {
            number: self.numbers,
            x,
            w: self.weight(linear.weight)?,
            bias: Some(self.weight(linear.bias)?),
            out,
            activation,
            m: rows,
            n: linear.outputs,
            k: linear.inputs,
        })?)
    }

    fn weight(&self, place: Place) -> Result<DeviceSlice<'_>> {
        place.slice(self.weights.all())
    }
}

/// The numbers of one vector per sequence, rounded up to the alignment of the next part.
fn vector_room(sequences: usize, hidden: usize) -> usize {
    (sequences * hidden).next_multiple_of(64)
}

impl Stage {
    /// Bytes of scratch memory for any head of a request.
    pub(super) fn scratch(&self, block: &Block, heads: &[&CudaHead]) -> usize {
        heads.iter().map(|head| head.scratch(block.sequences(), self.geometry.hidden)).max().unwrap_or(0)
    }

    /// Logits over the vocabulary of the batch's rows, `[rows, vocab]` in f32, into the first output.
    pub(super) fn vocabulary(
        &self,
        pass: &mut Pass<'_>,
        places: &Places<'_>,
        block: &Block,
        head: &CudaHead,
    ) -> Result<()> {
        head.check_language()?;
        let (Layers::Language { dense, norm, table, bias }, Some(&out)) = (&head.layers, places.outputs.first()) else {
            return Ok(());
        };
        let (rows, hidden, numbers) = (block.rows.len, self.geometry.hidden, self.numbers);
        let (input, added) = (places.buffers.input.all(), places.buffers.added.all());
        let gemm =
            |x, w, bias, out, epilogue, n| Gemm { number: numbers, x, w, bias, out, epilogue, m: rows, n, k: hidden };
        pass.mark("vocabulary");
        pass.gather_rows(&GatherRows {
            number: numbers,
            states: places.buffers.states.all(),
            rows: places.part(block.rows)?,
            x: added,
            count: rows,
            hidden,
        })?;
        let dense_bias = Some(head.weight(dense.bias)?);
        pass.gemm(&gemm(added, head.weight(dense.weight)?, dense_bias, input, Epilogue::Gelu, hidden))?;
        pass.norm_rows(&NormRows {
            number: numbers,
            y: input,
            norm: Norm {
                weight: head.weight(norm.weight)?,
                bias: head.weight(norm.bias)?,
                eps: self.config.layer_norm_eps as f32,
            },
            x: added,
            rows,
            hidden,
        })?;
        let table = match table {
            Some(table) => head.weight(*table)?,
            None => self.words()?,
        };
        let bias = Some(head.weight(*bias)?);
        Ok(pass.gemm(&gemm(added, table, bias, out, Epilogue::F32, self.config.vocab_size))?)
    }

    /// The word embeddings.
    fn words(&self) -> Result<DeviceSlice<'_>> {
        let Some(embeddings) = &self.tensors.embeddings else {
            return Err(ModelError::Option("the word embeddings that the head reads are on another GPU".to_owned()));
        };
        embeddings.words.slice(self.weights.all())
    }
}
