//! The pool: a model, its tokenizer threads and its devices as one backend.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{Backend, BackendError, BackendInfo, Chunk, Embeddings, Result, TokenizeSpec};
use polylance_encoder::{
    Device as Hardware, Dtype, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch, SentenceEncoder,
};
use polylance_schema::{Chunking, Contract, Pooling, Prompts};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    PoolError,
    device::DeviceWorker,
    devices::Devices,
    spec::{DeviceSpec, cores},
    tokenizers::Tokenizers,
};

/// Ids in a batch: enough to fill a core's caches, and more where weights have to be read anew for every batch.
const BATCH_TOKENS: usize = 2048;
const BATCH_TOKENS_PER_LAYER: usize = 8192;
const BATCH_TOKENS_CUDA: usize = 16384;

/// How a pool is opened. The default is what the model and the machine suggest.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// Device names, see [`DeviceSpec`]; empty is `auto`.
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
    /// Ids in a batch at most.
    pub batch_tokens: Option<usize>,
}

/// Tokenizer threads and devices with one model.
#[derive(Debug)]
pub struct DevicePool {
    info: BackendInfo,
    report: LoadReport,
    tokenizers: Arc<Tokenizers>,
    devices: Arc<Devices>,
    vocabulary: usize,
}

impl DevicePool {
    /// Loads the model onto the devices.
    ///
    /// # Errors
    /// When the model cannot be loaded or a device does not exist.
    pub fn open(files: &ModelFiles, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        let threads = options.tokenizer_threads.unwrap_or_else(|| cores().len());
        let tokenizers = Tokenizers::open(files.name(), &files.tokenizer_json()?, threads)?;
        let load = LoadOptions {
            dtype: options.dtype,
            pooling: options.pooling,
            normalize: options.normalize,
            dims: options.dims,
            ..LoadOptions::default()
        };
        let mut models = Models { files, load, cpu: None };
        // What `auto` means depends on how the weights lie in memory.
        let per_core = options.devices.iter().all(|name| name == "auto") && !models.cpu()?.report().per_layer;
        let specs = DeviceSpec::list(&options.devices, per_core)?;
        let mut workers = Vec::with_capacity(specs.len());
        let mut loaded = None;
        for spec in &specs {
            let model = models.on(spec)?;
            workers.push(ModelWorker::new(spec, Arc::clone(&model))?);
            loaded = Some(model);
        }
        let model = loaded.ok_or_else(|| ModelError::Option("no device was given".to_owned()))?;
        let suggested = match specs[0] {
            DeviceSpec::Cuda(_) => BATCH_TOKENS_CUDA,
            _ if model.report().per_layer => BATCH_TOKENS_PER_LAYER,
            _ => BATCH_TOKENS,
        };
        let devices = Devices::start(workers, options.batch_tokens.unwrap_or(suggested))?;
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
        let (devices, dim) = (Arc::clone(&self.devices), self.info.dim);
        let (limit, vocabulary) = (self.info.max_tokens, self.vocabulary);
        async move {
            for ids in &inputs {
                check(ids, limit, vocabulary)?;
            }
            Ok(Embeddings { dim, values: devices.embed(inputs).await? })
        }
        .boxed()
    }
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

/// The model on each kind of device: loaded once for all CPU devices, once for each other.
struct Models<'a> {
    files: &'a ModelFiles,
    load: LoadOptions,
    cpu: Option<Arc<SentenceEncoder>>,
}

impl Models<'_> {
    fn cpu(&mut self) -> std::result::Result<Arc<SentenceEncoder>, PoolError> {
        if let Some(model) = &self.cpu {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new(SentenceEncoder::load(self.files, &self.load, &Hardware::Cpu)?);
        self.cpu = Some(Arc::clone(&model));
        Ok(model)
    }

    fn on(&mut self, spec: &DeviceSpec) -> std::result::Result<Arc<SentenceEncoder>, PoolError> {
        let DeviceSpec::Cuda(ordinal) = spec else { return self.cpu() };
        let hardware = Hardware::new_cuda(*ordinal)
            .map_err(|error| PoolError::Device { device: spec.to_string(), message: error.to_string() })?;
        Ok(Arc::new(SentenceEncoder::load(self.files, &self.load, &hardware)?))
    }
}

/// A model on a device, with the threads that are the device's own.
struct ModelWorker {
    name: String,
    model: Arc<SentenceEncoder>,
    threads: ThreadPool,
}

impl ModelWorker {
    fn new(spec: &DeviceSpec, model: Arc<SentenceEncoder>) -> std::result::Result<Self, PoolError> {
        let pinned = match spec {
            DeviceSpec::Cores(cores) => cores.clone(),
            DeviceSpec::Cpu | DeviceSpec::Cuda(_) => Vec::new(),
        };
        let count = match spec {
            DeviceSpec::Cpu => cores().len(),
            DeviceSpec::Cores(cores) => cores.len(),
            DeviceSpec::Cuda(_) => 1,
        };
        let name = spec.to_string();
        let device = name.clone();
        let threads = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(move |at| format!("{device} {at}"))
            .start_handler(move |at| {
                if let Some(&id) = pinned.get(at) {
                    // A thread that may not be pinned still computes.
                    let _pinned: bool = core_affinity::set_for_current(core_affinity::CoreId { id });
                }
            })
            .build()
            .map_err(|error| PoolError::Thread(std::io::Error::other(error)))?;
        Ok(Self { name, model, threads })
    }
}

impl DeviceWorker for ModelWorker {
    fn name(&self) -> &str {
        &self.name
    }

    fn embed(&mut self, batch: &PackedBatch) -> Result<Vec<f32>> {
        let (model, device) = (&self.model, &self.name);
        self.threads.install(|| model.embed(batch)).map_err(|error| match error {
            ModelError::Input { .. } => BackendError::Input(error.to_string()),
            ModelError::OutOfMemory(_) => BackendError::OutOfMemory { device: device.clone() },
            error => BackendError::Device { device: device.clone(), message: error.to_string() },
        })
    }
}
