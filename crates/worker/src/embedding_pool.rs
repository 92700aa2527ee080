//! An embedding model with its tokenizer threads and its devices, as one backend.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{
    Backend, BackendError, BackendInfo, Chunk, Embeddings, EncodeInput, Encoded, Load, Result, TokenizeSpec,
};
use polylance_encoder::{
    Device as Hardware, Gpu, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch, SentenceEncoder, SharedHead,
};
use polylance_schema::TaskSpec;

use crate::{
    device::Devices,
    error::PoolError,
    finite::check_finite,
    fused_heads::{FusedHead, HeadDecoders, PassOutput, load_heads, outputs_by_sequence},
    options::PoolOptions,
    placement::{DeviceModel, DeviceThreads, PerDevice},
    selection::{Machine, Selection, cores},
    tokenize::TokenizerPool,
};

/// An embedding model with its tokenizer threads and its devices.
#[derive(Debug)]
pub struct DevicePool {
    info: BackendInfo,
    report: LoadReport,
    tokenizers: Arc<TokenizerPool>,
    devices: Arc<Devices<Vec<u32>, PassOutput>>,
    decoders: Arc<HeadDecoders>,
    vocabulary_size: usize,
}

impl DevicePool {
    /// Loads the model onto the devices.
    ///
    /// # Errors
    /// When the model cannot be loaded or a device does not exist.
    pub fn open(files: &ModelFiles, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        Self::open_with_heads(files, &[], options)
    }

    /// Loads the model and its fused heads onto the devices.
    ///
    /// # Errors
    /// When the model or a head cannot be loaded or a device does not exist.
    pub fn open_with_heads(
        files: &ModelFiles,
        heads: &[FusedHead],
        options: &PoolOptions,
    ) -> std::result::Result<Self, PoolError> {
        let machine = Machine::this();
        let selection = Selection::from_options(options, machine)?;
        let threads = options.tokenizer_threads.unwrap_or_else(|| cores().len());
        let tokenizers = TokenizerPool::open(files, threads)?;
        let load_options = LoadOptions {
            dtype: Some(selection.dtype),
            pooling: options.pooling,
            normalize: options.normalize,
            dims: options.dims,
            memory: options.memory,
            batch_tokens: options.batch_tokens,
        };
        let model = EmbeddingModel { files: files.clone(), heads: heads.to_vec(), options: load_options };
        let PerDevice { devices, loaded } = PerDevice::load(model, &selection.devices, options, machine)?;
        let encoder = &loaded.encoder;
        let decoders = HeadDecoders::new(heads, &loaded.heads, tokenizers.tokenizer())?;
        let info = BackendInfo {
            dim: encoder.dim(),
            max_tokens: files.defaults().max_tokens,
            devices: devices.names().to_vec(),
            window_tokens: devices.window_tokens(),
        };
        let vocabulary_size = files.config().vocab_size;
        if tokenizers.vocabulary_size() > vocabulary_size {
            tracing::warn!(
                tokenizer = tokenizers.vocabulary_size(),
                model = vocabulary_size,
                "the tokenizer has more tokens than the model: texts that contain them are refused"
            );
        }
        Ok(Self {
            info,
            report: encoder.report().clone(),
            tokenizers: Arc::new(tokenizers),
            devices: Arc::new(devices),
            decoders: Arc::new(decoders),
            vocabulary_size,
        })
    }

    /// The report of loading the model.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    fn run(&self, inputs: Vec<Vec<u32>>) -> impl Future<Output = Result<Vec<PassOutput>>> + Send + use<> {
        let devices = Arc::clone(&self.devices);
        let (max_tokens, vocabulary_size) = (self.info.max_tokens, self.vocabulary_size);
        async move {
            for input_ids in &inputs {
                check_input(input_ids, max_tokens, vocabulary_size)?;
            }
            let outputs = devices.run(inputs).await?;
            // The caller bisects a refused batch until the input is found.
            outputs.iter().try_for_each(|output| check_finite(&output.vector).map_err(BackendError::Input))?;
            Ok(outputs)
        }
    }
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
        let outputs = self.run(inputs);
        let dim = self.info.dim;
        async move { Ok(embeddings(dim, &outputs.await?)) }.boxed()
    }

    fn load(&self) -> Load {
        Load { text_bytes: self.tokenizers.waiting_bytes(), ..self.devices.load() }
    }

    fn heads(&self) -> &[TaskSpec] {
        self.decoders.specs()
    }

    fn encode_with_heads(&self, inputs: Vec<EncodeInput>) -> BoxFuture<'static, Result<Encoded>> {
        let outputs = self.run(inputs.iter().map(|input| input.input_ids.clone()).collect());
        let (decoders, tokenizers, dim) = (Arc::clone(&self.decoders), Arc::clone(&self.tokenizers), self.info.dim);
        async move {
            let mut outputs = outputs.await?;
            let embeddings = embeddings(dim, &outputs);
            let logits = outputs.iter_mut().map(|output| std::mem::take(&mut output.logits));
            let inputs: Vec<_> = inputs.into_iter().zip(logits).collect();
            let decode = move |(input, logits)| decoders.decode(input, logits);
            let annotations = tokenizers.threads().map(inputs, decode).await?;
            Ok(Encoded { embeddings, annotations })
        }
        .boxed()
    }
}

fn embeddings(dim: usize, outputs: &[PassOutput]) -> Embeddings {
    Embeddings { dim, values: outputs.iter().flat_map(|output| &output.vector).copied().collect() }
}

/// Refuses an input that no device can compute, before it is queued.
fn check_input(input_ids: &[u32], max_tokens: usize, vocabulary_size: usize) -> Result<()> {
    if input_ids.is_empty() || input_ids.len() > max_tokens {
        return Err(BackendError::Input(format!("{} tokens, expected 1 to {max_tokens}", input_ids.len())));
    }
    match input_ids.iter().find(|&&id| id as usize >= vocabulary_size) {
        Some(id) => Err(BackendError::Input(format!(
            "token id {id} is not below {vocabulary_size}, the size of the model's vocabulary"
        ))),
        None => Ok(()),
    }
}

/// An encoder and the heads fused with it.
struct EmbeddingModel {
    files: ModelFiles,
    heads: Vec<FusedHead>,
    options: LoadOptions,
}

/// The same, loaded onto a device.
struct LoadedEmbedding {
    encoder: SentenceEncoder,
    heads: Vec<SharedHead>,
}

impl DeviceModel for EmbeddingModel {
    type Loaded = LoadedEmbedding;
    type Input = Vec<u32>;
    type Output = PassOutput;

    fn load(&self, device: &Hardware) -> std::result::Result<LoadedEmbedding, ModelError> {
        let encoder = SentenceEncoder::load(&self.files, &self.options, device)?;
        let heads = load_heads(&self.heads, &self.files, &self.options, &encoder.head_device())?;
        Ok(LoadedEmbedding { encoder, heads })
    }

    fn is_spread(&self, gpus: &[Arc<Gpu>]) -> std::result::Result<bool, ModelError> {
        SentenceEncoder::is_spread(&self.files, &self.options, gpus)
    }

    fn report(loaded: &LoadedEmbedding) -> &LoadReport {
        loaded.encoder.report()
    }

    fn batch_tokens(loaded: &LoadedEmbedding) -> Option<usize> {
        loaded.encoder.batch_tokens()
    }

    fn compute(
        &self,
        LoadedEmbedding { encoder, heads }: &LoadedEmbedding,
        threads: &DeviceThreads,
        inputs: &[Vec<u32>],
    ) -> Result<Vec<PassOutput>> {
        let (vectors, logits) = threads.run(|| encoder.embed_with(&PackedBatch::new(inputs)?, heads))?;
        outputs_by_sequence(&vectors, encoder.dim(), logits)
    }
}
