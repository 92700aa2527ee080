//! Generation: the keys and values of a sequence's tokens are cached on the device, so that each is computed once.

use polylance_cuda::{DeviceBuffer, DeviceSlice, padded_rows};

use super::{Attention, CudaEncoder, CudaHead, batch::Block};
use crate::error::{ModelError, Result};

/// Queries, keys and values of the tokens of one sequence, `[layers, rows, 3 * context]`.
#[derive(Debug)]
pub(crate) struct Cache {
    buffer: DeviceBuffer,
    layer_bytes: usize,
}

/// The cache in a pass that appends tokens after `before` earlier ones.
pub(super) struct LayerCache<'a> {
    cache: &'a Cache,
    before: usize,
}

impl<'a> LayerCache<'a> {
    /// A layer's rows, and the number of cached ones.
    pub(super) fn layer(&self, number: usize) -> Result<(DeviceSlice<'a>, usize)> {
        let Cache { buffer, layer_bytes } = self.cache;
        Ok((buffer.slice(number * layer_bytes..(number + 1) * layer_bytes)?, self.before))
    }
}

impl CudaEncoder {
    /// A cache for the longest sequence of the model.
    ///
    /// # Errors
    /// When the device has too little memory or fails.
    pub(crate) fn cache(&self) -> Result<Cache> {
        // Products may touch rows after the newest.
        let rows = padded_rows(self.config.max_tokens() + padded_rows(1));
        let layer_bytes = rows * 3 * self.geometry.context() * self.numbers.bytes();
        Ok(Cache { buffer: DeviceBuffer::new(&self.gpu, self.config.num_hidden_layers * layer_bytes)?, layer_bytes })
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
        if before + ids.len() > self.config.max_tokens() {
            let message =
                format!("{} tokens, the model takes at most {}", before + ids.len(), self.config.max_tokens());
            return Err(ModelError::Input { sequence: 0, message });
        }
        let block = Block::next(&self.config, ids, before)?;
        let layers = LayerCache { cache, before };
        let downloaded = self.buffers.run(&self.gpu, &block, &[self.config.vocab_size], 0, |pass, places| {
            self.layers(pass, places, &block, Attention::Causal, Some(&layers))?;
            self.vocabulary(pass, places, &block, head)
        })?;
        Ok(downloaded.outputs().next().unwrap_or_default().to_vec())
    }
}
