//! Generation: the keys and values of a sequence's tokens are cached on the device, so that each is computed once.

use polylance_cuda::{DeviceBuffer, DeviceSlice, padded_rows};

use super::{Attention, CudaEncoder, CudaHead, batch::Block, buffers::Download, stage::Stage};
use crate::error::{ModelError, Result};

/// The queries, keys and values of the tokens of one sequence.
#[derive(Debug)]
pub(crate) struct Cache {
    /// One for each GPU.
    stages: Vec<StageCache>,
}

/// The part of the cache on a GPU, for its layers: `[layers, rows, 3 * context]`.
#[derive(Debug)]
struct StageCache {
    buffer: DeviceBuffer,
    layer_bytes: usize,
}

/// The cache in a pass that appends tokens after `before` earlier ones.
#[derive(Clone, Copy)]
pub(super) struct CachedPass<'a> {
    cache: &'a Cache,
    before: usize,
}

/// The part of the cache on a GPU in such a pass.
pub(super) struct LayerCache<'a> {
    cache: &'a StageCache,
    before: usize,
}

impl<'a> CachedPass<'a> {
    /// The part of the cache for the GPU at this place among those of the model.
    pub(super) fn stage(&self, at: usize) -> Option<LayerCache<'a>> {
        Some(LayerCache { cache: self.cache.stages.get(at)?, before: self.before })
    }
}

impl<'a> LayerCache<'a> {
    /// A layer's rows, and the number of cached ones. Layers are counted from the first one of the GPU.
    pub(super) fn layer(&self, number: usize) -> Result<(DeviceSlice<'a>, usize)> {
        let StageCache { buffer, layer_bytes } = self.cache;
        Ok((buffer.slice(number * layer_bytes..(number + 1) * layer_bytes)?, self.before))
    }
}

impl Stage {
    /// A cache for the longest sequence of the model.
    fn cache(&self) -> Result<StageCache> {
        // Products may touch rows after the newest.
        let rows = padded_rows(self.config.max_tokens() + padded_rows(1));
        let layer_bytes = rows * 3 * self.geometry.context() * self.numbers.bytes();
        Ok(StageCache { buffer: DeviceBuffer::new(&self.gpu, self.layers.count() * layer_bytes)?, layer_bytes })
    }
}

impl CudaEncoder {
    /// A cache for the longest sequence of the model.
    ///
    /// # Errors
    /// When a device has too little memory or fails.
    pub(crate) fn cache(&self) -> Result<Cache> {
        Ok(Cache { stages: self.stages().map(Stage::cache).collect::<Result<_>>()? })
    }

    /// The logits after the last of these tokens, `[vocab]`; `before` earlier ones are cached.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an id that the model does not have; when the device fails.
    pub(crate) fn next_logits(
        &self,
        ids: &[u32],
        before: usize,
        cache: &mut Cache,
        head: &CudaHead,
    ) -> Result<Vec<f32>> {
        let config = &self.last.config;
        if before + ids.len() > config.max_tokens() {
            let message = format!("{} tokens, the model takes at most {}", before + ids.len(), config.max_tokens());
            return Err(ModelError::Input { sequence: 0, message });
        }
        let block = Block::next(config, ids, before)?;
        let cached = CachedPass { cache, before };
        let download = Download::Outputs { lens: &[config.vocab_size], scratch: 0 };
        let downloaded = self.run(&block, Attention::Causal, Some(cached), download, |pass, places| {
            self.last.vocabulary(pass, places, &block, head)
        })?;
        Ok(downloaded.outputs().next().unwrap_or_default().to_vec())
    }
}
