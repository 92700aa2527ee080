//! The weights of the layers: all on the device, or in page-locked host memory with two layers on the device, one of
//! which is copied while the other computes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polylance_cuda::{AheadCopy, DeviceBuffer, DeviceSlice, Pass, PinnedBuffer};

use super::{layout::ModelLayout, plan::Residency, upload::Source};
use crate::error::Result;

/// The weights of all layers.
#[derive(Debug)]
pub(super) struct LayerWeights {
    /// All layers one after another, or the two that are on the device.
    on_device: DeviceBuffer,
    layer_bytes: usize,
    count: usize,
    streamed: Option<HostLayers>,
}

/// Layers in the host's memory, which are copied to the device again in every pass.
#[derive(Debug)]
struct HostLayers {
    sources: Vec<Arc<PinnedBuffer>>,
    /// Passes are queued one at a time, and so use it one at a time.
    state: Mutex<StreamState>,
}

#[derive(Debug, Default)]
struct StreamState {
    /// The half of the device memory that has the layer that was walked to last.
    newest_half: usize,
    /// The copy into the other half, and its layer. It may be the first layer for the next pass.
    ahead: Option<(usize, AheadCopy)>,
}

impl LayerWeights {
    /// Writes all layers where they stay, and the tensors outside of them to `outside`. `on_device` has room for the
    /// layers that are on the device.
    pub(super) fn load(
        layout: &ModelLayout,
        source: Source<'_>,
        residency: Residency,
        outside: &DeviceBuffer,
        on_device: DeviceBuffer,
    ) -> Result<Self> {
        let mut weights =
            Self { on_device, layer_bytes: layout.layer_bytes, count: layout.layers.len(), streamed: None };
        let gpu = Arc::clone(outside.gpu());
        let mut on_device = vec![(&layout.outside, outside.all())];
        if residency == Residency::Resident {
            for (number, layout) in layout.layers.iter().enumerate() {
                on_device.push((layout, weights.part(number)?));
            }
        }
        source.write(&gpu, &on_device)?;
        if residency == Residency::Streamed {
            let scratch = weights.part(0)?;
            let locked = |layout| Ok(Arc::new(source.page_locked(&gpu, layout, scratch)?));
            let sources = layout.layers.iter().map(locked).collect::<Result<_>>()?;
            weights.streamed = Some(HostLayers { sources, state: Mutex::default() });
        }
        Ok(weights)
    }

    /// The number of layers.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of one layer.
    pub(super) fn layer_bytes(&self) -> usize {
        self.layer_bytes
    }

    pub(super) fn is_streamed(&self) -> bool {
        self.streamed.is_some()
    }

    /// The layers for one pass, in order.
    pub(super) fn walk(&self) -> LayerWalk<'_> {
        let streamed = self.streamed.as_ref().map(|layers| {
            let state = layers.state.lock().unwrap_or_else(PoisonError::into_inner);
            (&layers.sources[..], state)
        });
        LayerWalk { weights: self, streamed, next: 0 }
    }

    /// A layer's part of the device memory.
    fn part(&self, number: usize) -> Result<DeviceSlice<'_>> {
        Ok(self.on_device.slice(number * self.layer_bytes..(number + 1) * self.layer_bytes)?)
    }
}

/// The layers on their way through a pass.
pub(super) struct LayerWalk<'a> {
    weights: &'a LayerWeights,
    streamed: Option<(&'a [Arc<PinnedBuffer>], MutexGuard<'a, StreamState>)>,
    next: usize,
}

impl<'a> LayerWalk<'a> {
    /// The weights of the next layer, which launches that are queued from now on may read; `None` after the last one.
    pub(super) fn next(&mut self, pass: &mut Pass<'_>) -> Result<Option<DeviceSlice<'a>>> {
        let number = self.next;
        if number == self.weights.count {
            return Ok(None);
        }
        self.next += 1;
        let Some((sources, state)) = &mut self.streamed else { return Ok(Some(self.weights.part(number)?)) };
        let half = 1 - state.newest_half;
        // A pass that failed may have left another layer behind.
        let copy = match state.ahead.take() {
            Some((layer, copy)) if layer == number => copy,
            _ => pass.copy_ahead(&sources[number], self.weights.part(half)?)?,
        };
        pass.await_copy(&copy)?;
        state.newest_half = half;
        Ok(Some(self.weights.part(half)?))
    }

    /// Starts copying the layer after the newest, over the one before the newest, which launches that are queued from
    /// now on must not read. After the last layer the first one follows, for the next pass.
    pub(super) fn copy_ahead(&mut self, pass: &mut Pass<'_>) -> Result<()> {
        let Some((sources, state)) = &mut self.streamed else { return Ok(()) };
        let number = self.next % self.weights.count;
        let copy = pass.copy_ahead(&sources[number], self.weights.part(1 - state.newest_half)?)?;
        state.ahead = Some((number, copy));
        Ok(())
    }
}
