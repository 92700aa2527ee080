//! A device pool that loads its model when it is first used.
//!
//! Everything that a plan needs is known from the model's files. So a run that finds nothing new never loads the model,
//! and neither does a run whose source or table is refused.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use polylance_backend::{
    Backend, BackendError, BackendInfo, Chunk, Embeddings, EncodeInput, Encoded, Load, TokenizeSpec,
};
use polylance_encoder::ModelFiles;
use polylance_schema::TaskSpec;
use polylance_worker::{
    DevicePool, FusedHead, GPU_LANES, Machine, PoolOptions, SelectedDevices, streamed_window_tokens,
};
use tokio::sync::OnceCell;

/// Estimated tokens in a batch of a CPU worker.
const CPU_BATCH_TOKENS: usize = 2048;
/// Estimated tokens in a batch of a GPU. The real number depends on the model and on the GPU's free memory, which are
/// known once the model is loaded.
const GPU_BATCH_TOKENS: usize = 32 * 1024;
/// Batches per worker that a plan collects before it requests vectors.
const BATCHES_PER_WORKER: usize = 2;

/// A [`DevicePool`] that is opened at the first request.
#[derive(Debug)]
pub(crate) struct LazyPool {
    info: BackendInfo,
    heads: Vec<TaskSpec>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    files: ModelFiles,
    heads: Vec<FusedHead>,
    options: PoolOptions,
    pool: OnceCell<DevicePool>,
    /// The error of the first attempt to load the model: there is no second one.
    failure: Mutex<Option<BackendError>>,
}

impl LazyPool {
    /// `devices` are the selected devices of `options`.
    pub(crate) fn new(
        files: ModelFiles,
        heads: Vec<FusedHead>,
        options: PoolOptions,
        devices: &SelectedDevices,
    ) -> Self {
        let (max_tokens, machine) = (files.defaults().max_tokens, Machine::this());
        let window_tokens = match streamed_window_tokens(&files, &options, devices, machine) {
            Some(streamed) => full_window_tokens(streamed, max_tokens),
            None => window_tokens(devices, options.batch_tokens, machine),
        };
        let info = BackendInfo {
            dim: options.dims.unwrap_or_else(|| files.config().hidden_size),
            max_tokens,
            window_tokens,
            // A model that is spread over GPUs makes them one device, which is known once it is loaded.
            devices: devices.names(),
        };
        let specs = heads.iter().map(|head| head.spec.clone()).collect();
        let state = State { files, heads, options, pool: OnceCell::new(), failure: Mutex::new(None) };
        Self { info, heads: specs, state: Arc::new(state) }
    }
}

/// Number of tokens that keeps all devices busy, estimated without opening them.
fn window_tokens(devices: &SelectedDevices, batch_tokens: Option<usize>, machine: &Machine) -> usize {
    let (workers, usual) = match devices {
        SelectedDevices::AllCores => (machine.cores().len(), CPU_BATCH_TOKENS),
        SelectedDevices::Cpu(specs) => (specs.len(), CPU_BATCH_TOKENS),
        SelectedDevices::Cuda(gpus) => (gpus.len() * GPU_LANES, GPU_BATCH_TOKENS),
    };
    workers.saturating_mul(batch_tokens.unwrap_or(usual)).saturating_mul(BATCHES_PER_WORKER)
}

/// The number of tokens that closes a window of at most `streamed` tokens, which pass through streamed layers together:
/// the last input exceeds it.
fn full_window_tokens(streamed: usize, max_tokens: usize) -> usize {
    streamed.saturating_sub(max_tokens).max(streamed / 2)
}

impl State {
    async fn pool(self: &Arc<Self>) -> Result<&DevicePool, BackendError> {
        let loading = || async {
            if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                return Err(failure.clone());
            }
            let state = Arc::clone(self);
            let open = move || DevicePool::open_with_heads(&state.files, &state.heads, &state.options);
            let opened = match tokio::task::spawn_blocking(open).await {
                Ok(opened) => opened.map_err(|error| BackendError::Load(Arc::new(error))),
                Err(panicked) => Err(BackendError::Load(Arc::new(panicked))),
            };
            opened.inspect_err(|failure| {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
            })
        };
        self.pool.get_or_try_init(loading).await
    }
}

impl Backend for LazyPool {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn tokenize(
        &self,
        texts: Vec<String>,
        spec: &TokenizeSpec,
    ) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>, BackendError>> {
        // A batch of refused rows alone does not load the model.
        if texts.is_empty() {
            return ready(Ok(Vec::new())).boxed();
        }
        let (state, spec) = (Arc::clone(&self.state), spec.clone());
        async move { state.pool().await?.tokenize(texts, &spec).await }.boxed()
    }

    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings, BackendError>> {
        if inputs.is_empty() {
            return ready(Ok(Embeddings { dim: self.info.dim, values: Vec::new() })).boxed();
        }
        let state = Arc::clone(&self.state);
        async move { state.pool().await?.encode(inputs).await }.boxed()
    }

    fn load(&self) -> Load {
        self.state.pool.get().map(DevicePool::load).unwrap_or_default()
    }

    fn heads(&self) -> &[TaskSpec] {
        &self.heads
    }

    fn encode_with_heads(&self, inputs: Vec<EncodeInput>) -> BoxFuture<'static, Result<Encoded, BackendError>> {
        let state = Arc::clone(&self.state);
        async move { state.pool().await?.encode_with_heads(inputs).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use polylance_worker::{VisibleGpu, resolve};

    use super::*;

    #[test]
    fn window_has_batches_for_every_device() {
        let gpu = |ordinal| VisibleGpu { ordinal, name: "GPU".to_owned(), compute: (9, 0), near_cores: None };
        let without = Machine::new(vec![0, 1, 2], Ok(Vec::new()));
        let with = Machine::new(vec![0, 1, 2], Ok(vec![gpu(0), gpu(1)]));
        let window = |names: &[&str], batch_tokens, machine| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            window_tokens(&resolve(&names, None, machine).unwrap().devices, batch_tokens, machine)
        };
        assert_eq!(window(&["cpu:0", "cpu:1"], None, &with), 8192);
        assert_eq!(window(&["cpu:0"], Some(100), &with), 200);
        assert_eq!(window(&["auto"], None, &without), 3 * 4096);
        assert_eq!(window(&["cuda:1"], None, &with), 128 * 1024);
        assert_eq!(window(&["auto"], None, &with), 2 * 128 * 1024);
        assert_eq!(window(&["auto"], Some(1000), &with), 8000);
    }

    #[test]
    fn window_of_streamed_layers_is_one_batch() {
        assert_eq!(full_window_tokens(4096, 512), 3584);
        assert_eq!(full_window_tokens(64, 512), 32);
    }
}
