//! The encoder on an NVIDIA GPU: weights on the device, and a pass as a list of kernel launches.
//!
//! A batch is one upload, seven launches per layer and one download. All memory of a batch is allocated at load. The layers
//! of a model that does not fit are copied to the device again for every batch, each while the one before it computes.
//! Several threads may compute at once: while one waits for its batch, the batch of the next is queued, so the GPU is
//! never idle between two batches.
//!
//! A model may be spread over several GPUs, each of which has consecutive layers. A thread takes its batch through all of
//! them, and the states between two GPUs go through page-locked memory of the host.

mod batch;
mod buffers;
mod decode;
mod head;
mod layer_weights;
mod layers;
mod layout;
mod plan;
mod spread;
mod stage;
mod upload;

use std::{fmt, sync::Arc};

use polylance_cuda::{Gpu, KernelTime, NumberType, Pass};
use polylance_schema::{Dtype, Pooling};

use self::{
    batch::Block,
    buffers::{Download, Downloaded, Places, merge_times},
    decode::CachedPass,
    layout::Geometry,
    stage::Stage,
    upload::Source,
};
pub(crate) use self::{
    decode::Cache,
    head::{CudaHead, TiedEmbeddings},
    spread::is_spread,
};
use crate::{
    batch::{CuSeqlens, PackedBatch},
    config::ModelConfig,
    error::{ModelError, Result},
    head_config::HeadConfig,
    head_kind::HeadKind,
    heads::Logits,
    loading::LoadOptions,
    residency::{HeadWeights, Streaming},
    weights::Weights,
};

/// The largest number of rows of logits over the vocabulary in a pass, unless one sequence has more. Each is a
/// megabyte.
const MAX_VOCABULARY_ROWS: usize = 256;

/// The tokens that a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attention {
    /// All of its sequence.
    Both,
    /// Itself and the earlier ones.
    Causal,
}

/// How states become vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vectors {
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    pub(crate) dim: usize,
}

/// The outputs to compute from the last hidden states of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request<'a> {
    pub(crate) vectors: Option<Vectors>,
    pub(crate) heads: &'a [&'a CudaHead],
    /// The hidden states themselves.
    pub(crate) states: bool,
}

/// The computed outputs, in the order of the batch.
#[derive(Debug, Default)]
pub(crate) struct Response {
    /// `[sequences, dim]`, row major.
    pub(crate) vectors: Vec<f32>,
    /// By head and sequence.
    pub(crate) logits: Vec<Logits>,
    /// `[tokens, hidden]`, row major.
    pub(crate) states: Vec<f32>,
}

/// A model's encoder on a GPU, or on several, each of which has consecutive layers.
pub(crate) struct CudaEncoder {
    /// All but the last layers, where the model is on several GPUs.
    earlier: Vec<Stage>,
    /// The last layers, or all.
    last: Stage,
}

impl CudaEncoder {
    /// Loads the weights, and allocates the memory of a batch; by default its number of tokens depends on the free
    /// memory. Memory for the head is left free. Several GPUs have consecutive layers, in their order; if they do not hold
    /// the model, one of them has all.
    ///
    /// # Errors
    /// [`ModelError::DeviceMemory`] and [`ModelError::HostMemory`] when model and batch do not fit,
    /// [`ModelError::Unsupported`] for a geometry that no kernel takes, [`ModelError::Option`] for GPUs that a model cannot
    /// be spread over; when a device fails.
    pub(crate) fn load(
        weights: &Weights,
        config: &ModelConfig,
        options: &LoadOptions,
        head: &HeadWeights,
        gpus: &[Arc<Gpu>],
    ) -> Result<Self> {
        Self::with(Source::Files(weights), config, options, head, gpus)
    }

    /// As [`CudaEncoder::load`], with weights generated on the devices by the formula of [`crate::synthetic`].
    ///
    /// # Errors
    /// As [`CudaEncoder::load`]; [`ModelError::Unsupported`] for a geometry that is padded.
    pub(crate) fn synthetic(config: &ModelConfig, options: &LoadOptions, gpus: &[Arc<Gpu>]) -> Result<Self> {
        Self::with(Source::Formula, config, options, &HeadWeights::default(), gpus)
    }

    fn with(
        source: Source<'_>,
        config: &ModelConfig,
        options: &LoadOptions,
        head: &HeadWeights,
        gpus: &[Arc<Gpu>],
    ) -> Result<Self> {
        let numbers = numbers(options.dtype.unwrap_or_default())?;
        let geometry = Geometry::new(config, numbers)?;
        let (stages, plan) = spread::place(gpus, config, &geometry, options, head)?;
        let load = |(gpu, layers)| Stage::load(gpu, source, config, geometry, numbers, layers, plan);
        let mut stages = stages.into_iter().map(load).collect::<Result<Vec<_>>>()?;
        let Some(last) = stages.pop() else { return Err(ModelError::Option("no GPU was given".to_owned())) };
        Ok(Self { earlier: stages, last })
    }

    /// Loads a head next to the last layers.
    ///
    /// # Errors
    /// When the device has too little memory or fails.
    pub(crate) fn load_head(
        &self,
        kind: HeadKind,
        head: &HeadConfig,
        weights: &Weights,
        dtype: Dtype,
    ) -> Result<CudaHead> {
        let tied = if self.earlier.is_empty() { TiedEmbeddings::Shared } else { TiedEmbeddings::Copied };
        CudaHead::load(kind, &self.last.config, head, weights, dtype, tied, self.last_gpu())
    }

    /// The GPU of the last layers: heads have to be there.
    pub(crate) fn last_gpu(&self) -> &Arc<Gpu> {
        &self.last.gpu
    }

    /// The sizes of a model whose layers are streamed; `None` if they are on the device.
    pub(crate) fn streaming(&self) -> Option<Streaming> {
        let layers = &self.last.layers;
        let layer_bytes = layers.layer_bytes() as u64;
        layers.is_streamed().then(|| Streaming { layer_bytes, state_tokens: self.batch_tokens() })
    }

    /// Times of the kernels on all GPUs since the last call, if profiling is on.
    pub(crate) fn take_kernel_times(&self) -> Vec<KernelTime> {
        let mut times = Vec::new();
        self.stages().for_each(|stage| merge_times(&mut times, &stage.buffers.take_times()));
        times
    }

    /// The GPUs' parts, in the order of their layers.
    fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.earlier.iter().chain([&self.last])
    }

    /// The largest number of tokens in a pass; a larger batch is computed in several.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.last.buffers.tokens()
    }

    /// Computes a batch.
    ///
    /// # Errors
    /// [`ModelError::Input`] when an input cannot be computed; when the device fails.
    pub(crate) fn compute(&self, batch: &PackedBatch, attention: Attention, request: Request<'_>) -> Result<Response> {
        let mut response = Response { logits: vec![Logits::new(); request.heads.len()], ..Response::default() };
        for part in self.parts(batch, &[])? {
            let cu_seqlens = CuSeqlens::new(part.batch.cu_seqlens.clone(), part.batch.input_ids.len())?;
            let tokens = if request.states { part.batch.input_ids.len() as u32 } else { 0 };
            let block = self.block(&part, &cu_seqlens, &(0..tokens).collect::<Vec<_>>())?;
            let lens = self.last.output_lens(&block, &request);
            let download = Download::Outputs { lens: &lens, scratch: self.last.scratch(&block, request.heads) };
            let downloaded = self.run(&block, attention, None, download, |pass, places| {
                self.last.outputs(pass, places, &block, &request)
            })?;
            let mut outputs = downloaded.outputs();
            if request.vectors.is_some() {
                response.vectors.extend_from_slice(outputs.next().unwrap_or_default());
            }
            for (head, logits) in request.heads.iter().zip(&mut response.logits) {
                logits.extend(head.by_sequence(outputs.next().unwrap_or_default(), &cu_seqlens));
            }
            if request.states {
                response.states.extend_from_slice(outputs.next().unwrap_or_default());
            }
        }
        Ok(response)
    }

    /// A language model's logits for some rows of the states, `[vocab]` each; `rows` ascend.
    ///
    /// # Errors
    /// As [`CudaEncoder::compute`].
    pub(crate) fn vocabulary_logits(
        &self,
        batch: &PackedBatch,
        attention: Attention,
        head: &CudaHead,
        rows: &[u32],
    ) -> Result<Logits> {
        let mut logits = Logits::with_capacity(rows.len());
        for part in self.parts(batch, rows)? {
            let cu_seqlens = CuSeqlens::new(part.batch.cu_seqlens.clone(), part.batch.input_ids.len())?;
            let first = part.first_token as u32;
            let rows: Vec<u32> = part.rows.iter().map(|row| row - first).collect();
            if rows.is_empty() {
                continue;
            }
            let block = self.block(&part, &cu_seqlens, &rows)?;
            let vocab_size = self.last.config.vocab_size;
            let len = rows.len() * vocab_size;
            let download = Download::Outputs { lens: &[len], scratch: 0 };
            let downloaded = self.run(&block, attention, None, download, |pass, places| {
                self.last.vocabulary(pass, places, &block, head)
            })?;
            let numbers = downloaded.outputs().next().unwrap_or_default();
            logits.extend(numbers.chunks(vocab_size).map(<[f32]>::to_vec));
        }
        Ok(logits)
    }

    /// Passes a batch through all layers. `queue` queues the launches that read its last states.
    fn run(
        &self,
        block: &Block,
        attention: Attention,
        cached: Option<CachedPass<'_>>,
        download: Download<'_>,
        queue: impl FnOnce(&mut Pass<'_>, &Places<'_>) -> Result<()>,
    ) -> Result<Downloaded<'_>> {
        let cache = |at: usize| cached.and_then(|cached| cached.stage(at));
        let mut states = None;
        for (at, stage) in self.earlier.iter().enumerate() {
            let of_all = Download::States(block.tokens() * stage.geometry.hidden);
            let downloaded = stage.buffers.run(&stage.gpu, block, states, of_all, |pass, places| {
                stage.layers(pass, places, block, attention, cache(at).as_ref())
            })?;
            states = Some(downloaded);
        }
        let (last, cache) = (&self.last, cache(self.earlier.len()));
        last.buffers.run(&last.gpu, block, states, download, |pass, places| {
            last.layers(pass, places, block, attention, cache.as_ref())?;
            queue(pass, places)
        })
    }

    fn block(&self, part: &BatchPart, cu_seqlens: &CuSeqlens, rows: &[u32]) -> Result<Block> {
        Block::new(&self.last.config, &part.batch, cu_seqlens, rows).map_err(|error| match error {
            ModelError::Input { sequence, message } => {
                ModelError::Input { sequence: part.first_sequence + sequence, message }
            }
            error => error,
        })
    }

    /// The batch, split into runs of sequences that fit into a pass.
    fn parts<'a>(&self, batch: &PackedBatch, rows: &'a [u32]) -> Result<Vec<BatchPart<'a>>> {
        let borders = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let ranges: Vec<_> = borders.ranges().collect();
        let rows_before = |token: usize| rows.partition_point(|&row| (row as usize) < token);
        let mut parts = Vec::new();
        let mut first = 0;
        while first < ranges.len() {
            let start = ranges[first].start;
            let fits = |last: usize| {
                let end = ranges[last].end;
                end - start <= self.last.buffers.tokens()
                    && last - first < self.last.buffers.sequences()
                    && rows_before(end) - rows_before(start) <= MAX_VOCABULARY_ROWS
            };
            // A single sequence is within the model's limit, for which the buffers are large enough.
            let last = (first + 1..ranges.len()).take_while(|&last| fits(last)).last().unwrap_or(first);
            let end = ranges[last].end;
            let part = PackedBatch {
                input_ids: batch.input_ids[start..end].to_vec(),
                cu_seqlens: borders.as_slice()[first..=last + 1].iter().map(|border| border - start as u32).collect(),
                token_types: batch
                    .token_types
                    .as_ref()
                    .map(|types| types.get(start..end.min(types.len())).map(<[u32]>::to_vec).unwrap_or_default()),
            };
            let rows = &rows[rows_before(start)..rows_before(end)];
            parts.push(BatchPart { batch: part, first_sequence: first, first_token: start, rows });
            first = last + 1;
        }
        Ok(parts)
    }
}

impl fmt::Debug for CudaEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpus: Vec<u32> = self.stages().map(|stage| stage.gpu.info().ordinal).collect();
        f.debug_struct("CudaEncoder")
            .field("gpus", &gpus)
            .field("numbers", &self.last.numbers)
            .field("batch_tokens", &self.batch_tokens())
            .finish_non_exhaustive()
    }
}

/// Sequences of a batch that are computed in one pass.
struct BatchPart<'a> {
    batch: PackedBatch,
    first_sequence: usize,
    first_token: usize,
    /// Rows of the whole batch's states that are in this part.
    rows: &'a [u32],
}

/// The format that a GPU computes a dtype in.
fn numbers(dtype: Dtype) -> Result<NumberType> {
    match dtype {
        Dtype::F32 => Ok(NumberType::F32),
        Dtype::Bf16 => Ok(NumberType::Bf16),
        Dtype::F16 => Ok(NumberType::F16),
        Dtype::Int8 => Err(ModelError::Option("dtype int8 is computed on the CPU alone; a GPU has bf16".to_owned())),
    }
}
