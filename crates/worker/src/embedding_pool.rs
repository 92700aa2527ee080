//! The pool: a model, its tokenizer threads and its devices as one backend.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{
    Backend, BackendError, BackendInfo, Chunk, Embeddings, EncodeInput, Encoded, Load, Result, TokenizeSpec,
};
use polylance_encoder::{
    Device as Hardware, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch, SentenceEncoder, SharedHead,
};
use polylance_schema::{Chunking, Contract, Dtype, Pooling, Prompts, TaskSpec};

use crate::{
    PoolError,
    device::DeviceWorker,
    device_threads::DeviceThreads,
    devices::Devices,
    machine::Machine,
    placement::{LoadModel, Placed, Placement, place},
    resolve::{Selection, resolve},
    shared_pass::{self, PassHead, Passed, Readers},
    spec::cores,
    tokenizers::Tokenizers,
};

/// How long a batch may take: a large model on a few cores needs many minutes for one.
const STALL: Duration = Duration::from_mins(30);

/// How a pool is opened. The default is what the model and the machine suggest.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// Device names, see [`crate::DeviceSpec`]; empty is `auto`.
    pub devices: Vec<String>,
    /// The arithmetic; f32 unless given.
    pub dtype: Option<Dtype>,
    /// Overrides the model's pooling.
    pub pooling: Option<Pooling>,
    /// Overrides the model's normalization.
    pub normalize: Option<bool>,
    /// Keeps only this many leading dimensions.
    pub dims: Option<usize>,
    /// Threads that tokenize; one a core unless given.
    pub tokenizer_threads: Option<usize>,
    /// Ids in a batch at most; what each device suggests unless given.
    pub batch_tokens: Option<usize>,
    /// A batch that takes longer makes no progress and is given up; half an hour unless given, zero for never.
    pub stall: Option<Duration>,
}

impl PoolOptions {
    /// The devices and the dtype that these options select on a machine.
    pub(crate) fn select(&self, machine: &Machine) -> std::result::Result<Selection, PoolError> {
        resolve(&self.devices, Some(self.dtype.unwrap_or_default()), machine)
    }

    /// How long a batch may take, when there is a limit.
    pub(crate) fn stall(&self) -> Option<Duration> {
        Some(self.stall.unwrap_or(STALL)).filter(|stall| !stall.is_zero())
    }
}

/// Tokenizer threads and devices with one model.
#[derive(Debug)]
pub struct DevicePool {
    info: BackendInfo,
    report: LoadReport,
    tokenizers: Arc<Tokenizers>,
    devices: Arc<Devices<Vec<u32>, Passed>>,
    readers: Arc<Readers>,
    vocabulary: usize,
}

impl DevicePool {
    /// Loads the model onto the devices.
    ///
    /// # Errors
    /// When the model cannot be loaded or a device does not exist.
    pub fn open(files: &ModelFiles, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        Self::open_with_heads(files, &[], options)
    }

    /// Loads the model and heads that share its pass onto the devices.
    ///
    /// # Errors
    /// When the model or a head cannot be loaded or a device does not exist.
    pub fn open_with_heads(
        files: &ModelFiles,
        heads: &[PassHead],
        options: &PoolOptions,
    ) -> std::result::Result<Self, PoolError> {
        let machine = Machine::this();
        let selection = options.select(machine)?;
        let threads = options.tokenizer_threads.unwrap_or_else(|| cores().len());
        let tokenizers = Tokenizers::open(files, threads)?;
        let load = LoadOptions {
            dtype: Some(selection.dtype),
            pooling: options.pooling,
            normalize: options.normalize,
            dims: options.dims,
            batch_tokens: options.batch_tokens,
            ..LoadOptions::default()
        };
        let load = LoadEmbedder { files: files.clone(), heads: heads.to_vec(), options: load };
        let Placement { workers, model: loaded, batch_tokens } =
            place(load, &selection.devices, options.batch_tokens, machine)?;
        let worker = |(threads, placed)| ModelWorker { threads, placed };
        let devices = Devices::start(workers.into_iter().map(worker).collect(), batch_tokens, options.stall())?;
        let model = &loaded.encoder;
        let readers = Readers::new(heads, &loaded.heads, tokenizers.tokenizer())?;
        let info = BackendInfo {
            dim: model.dim(),
            max_tokens: files.defaults().max_tokens,
            devices: devices.names().to_vec(),
            window_tokens: devices.window_tokens(),
        };
        let vocabulary = files.config().vocab_size;
        if tokenizers.vocabulary() > vocabulary {
            tracing::warn!(
                tokenizer = tokenizers.vocabulary(),
                model = vocabulary,
                "the tokenizer has more ids than the model: texts that use them will be refused"
            );
        }
        Ok(Self {
            info,
            report: model.report().clone(),
            tokenizers: Arc::new(tokenizers),
            devices: Arc::new(devices),
            readers: Arc::new(readers),
            vocabulary,
        })
    }

    /// What loading found.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }
}

/// Everything that decides the vectors of a job with this model, known without loading it.
///
/// # Errors
/// When the weights or the tokenizer cannot be read.
pub fn contract(
    files: &ModelFiles,
    options: &PoolOptions,
    prompts: Prompts,
    chunking: Chunking,
) -> std::result::Result<Contract, ModelError> {
    let defaults = files.defaults();
    Ok(Contract {
        model: files.name().to_owned(),
        weights_hash: files.weights_hash()?,
        tokenizer_hash: files.tokenizer_hash()?,
        pooling: options.pooling.unwrap_or(defaults.pooling),
        normalize: options.normalize.unwrap_or(defaults.normalize),
        prompts,
        chunking,
        dtype: options.dtype.unwrap_or_default().to_string(),
        dim: options.dims.unwrap_or_else(|| files.config().hidden_size),
    })
}

impl Backend for DevicePool {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>> {
        let (tokenizers, spec) = (Arc::clone(&self.tokenizers), spec.clone());
        async move { tokenizers.chunks(texts, spec).await }.boxed()
    }

    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>> {
        let passed = self.pass(inputs);
        let dim = self.info.dim;
        async move { Ok(embeddings(dim, &passed.await?)) }.boxed()
    }

    fn load(&self) -> Load {
        Load { text_bytes: self.tokenizers.waiting(), ..self.devices.load() }
    }

    fn heads(&self) -> &[TaskSpec] {
        self.readers.specs()
    }

    fn encode_with_heads(&self, inputs: Vec<EncodeInput>) -> BoxFuture<'static, Result<Encoded>> {
        let passed = self.pass(inputs.iter().map(|input| input.input_ids.clone()).collect());
        let (readers, tokenizers, dim) = (Arc::clone(&self.readers), Arc::clone(&self.tokenizers), self.info.dim);
        async move {
            let mut passed = passed.await?;
            let embeddings = embeddings(dim, &passed);
            let logits = passed.iter_mut().map(|one| std::mem::take(&mut one.logits));
            let asked: Vec<_> = inputs.into_iter().zip(logits).collect();
            let annotations =
                tokenizers.threads().map(asked, move |(input, logits)| readers.read(input, logits)).await?;
            Ok(Encoded { embeddings, annotations })
        }
        .boxed()
    }
}

impl DevicePool {
    fn pass(&self, inputs: Vec<Vec<u32>>) -> impl Future<Output = Result<Vec<Passed>>> + Send + use<> {
        let devices = Arc::clone(&self.devices);
        let (limit, vocabulary) = (self.info.max_tokens, self.vocabulary);
        async move {
            for ids in &inputs {
                check(ids, limit, vocabulary)?;
            }
            let passed = devices.run(inputs).await?;
            // A caller finds the input by asking for parts: numbers that mean nothing must reach no table.
            passed.iter().try_for_each(|one| finite(&one.vector).map_err(BackendError::Input))?;
            Ok(passed)
        }
    }
}

/// Refuses what no reader could use: a distance to it is no number.
pub(crate) fn finite(numbers: &[f32]) -> std::result::Result<(), String> {
    match numbers.iter().filter(|number| !number.is_finite()).count() {
        0 => Ok(()),
        bad => Err(format!("the model gave {bad} of {} numbers that are not finite", numbers.len())),
    }
}

fn embeddings(dim: usize, passed: &[Passed]) -> Embeddings {
    Embeddings { dim, values: passed.iter().flat_map(|one| &one.vector).copied().collect() }
}

/// Refuses an input that no device can compute, before it reaches one.
fn check(ids: &[u32], limit: usize, vocabulary: usize) -> Result<()> {
    if ids.is_empty() || ids.len() > limit {
        return Err(BackendError::Input(format!("{} ids, expected 1 to {limit}", ids.len())));
    }
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => Err(BackendError::Input(format!("id {id} is not below the model's vocabulary of {vocabulary}"))),
        None => Ok(()),
    }
}

/// The model and its heads on a device.
struct Embedder {
    encoder: SentenceEncoder,
    heads: Vec<SharedHead>,
}

struct LoadEmbedder {
    files: ModelFiles,
    heads: Vec<PassHead>,
    options: LoadOptions,
}

impl LoadModel for LoadEmbedder {
    type Model = Embedder;

    fn on(&self, device: &Hardware) -> std::result::Result<Embedder, ModelError> {
        let encoder = SentenceEncoder::load(&self.files, &self.options, device)?;
        Ok(Embedder { encoder, heads: shared_pass::load(&self.heads, &self.files, &self.options, device)? })
    }

    fn report(model: &Embedder) -> &LoadReport {
        model.encoder.report()
    }

    fn batch_tokens(model: &Embedder) -> Option<usize> {
        model.encoder.batch_tokens()
    }
}

/// A model on a device.
struct ModelWorker {
    threads: DeviceThreads,
    placed: Placed<LoadEmbedder>,
}

impl DeviceWorker for ModelWorker {
    type Input = Vec<u32>;
    type Output = Passed;

    fn name(&self) -> &str {
        self.threads.name()
    }

    fn run(&self, inputs: &[Vec<u32>]) -> Result<Vec<Passed>> {
        self.placed.pass(|Embedder { encoder, heads }| {
            let (vectors, logits) = self.threads.run(|| encoder.embed_with(&PackedBatch::new(inputs)?, heads))?;
            shared_pass::by_sequence(&vectors, encoder.dim(), logits)
        })
    }

    fn another(&self) -> Result<Self> {
        Ok(Self { threads: self.threads.another()?, placed: self.placed.another() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_a_limit_unless_it_is_switched_off() {
        let stall = |stall| PoolOptions { stall, ..PoolOptions::default() }.stall();
        assert_eq!(stall(None), Some(STALL));
        assert_eq!(stall(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(stall(Some(Duration::ZERO)), None);
    }
}
