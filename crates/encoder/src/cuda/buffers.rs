//! The memory of a pass: the layers' intermediate results, and the transfers between host and GPU.

use std::{
    ops::Range,
    slice,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use polylance_cuda::{DeviceBuffer, DeviceSlice, Gpu, KernelTime, NumberType, Pass, PinnedBuffer};

use super::{
    batch::{self, Block, Part},
    layout::Geometry,
    plan::{Plan, ROW_STEP},
};
use crate::error::Result;

/// Each part of the outputs starts at a multiple of this many numbers.
const OUTPUT_ALIGNMENT_NUMBERS: usize = 64;

/// Batches in flight: one computes while the host prepares or reads another.
pub(super) const BATCHES_IN_FLIGHT: usize = 2;

/// Buffers of `[tokens, …]` on the device, and slots for the transfers of batches.
#[derive(Debug)]
pub(super) struct Buffers {
    plan: Plan,
    state_bytes: StateBytes,
    /// `[tokens, hidden]` in f32: the residual stream.
    pub(super) states: DeviceBuffer,
    /// `[tokens, hidden]`: the normalized states, the input of the next map.
    pub(super) input: DeviceBuffer,
    /// `[tokens, hidden]`: the output of a block, to be added to the states.
    pub(super) added: DeviceBuffer,
    /// `[tokens, wide]`: queries, keys and values, or the inner states of a feed-forward block.
    pub(super) wide: DeviceBuffer,
    /// `[tokens, heads * padded_head]`.
    pub(super) context: DeviceBuffer,
    /// Outputs, followed by the heads' intermediate results. Grows with the requests; passes use it one at a time, in
    /// the order of the stream.
    outputs: Mutex<DeviceBuffer>,
    slots: Mutex<Slots>,
    given_back: Condvar,
    /// Times of the kernels, if profiling is on.
    times: Mutex<Vec<KernelTime>>,
}

#[derive(Debug)]
struct Slots {
    idle: Vec<Slot>,
    /// Those in use and those idle.
    alive: usize,
}

/// The memory of one batch in flight.
#[derive(Debug)]
struct Slot {
    host_block: PinnedBuffer,
    block: DeviceBuffer,
    /// The states of the GPU before, if there is one.
    host_states: PinnedBuffer,
    /// The states for the next GPU; or the outputs, with which it grows.
    host_outputs: PinnedBuffer,
}

/// Bytes of page-locked memory for the states of one batch on their way between GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StateBytes {
    received: usize,
    sent: usize,
}

impl StateBytes {
    /// On a GPU that has these of `count` layers, for batches of `tokens` tokens.
    pub(super) fn new(layers: &Range<usize>, count: usize, tokens: usize, hidden: usize) -> Self {
        let states = state_bytes(tokens, hidden);
        Self { received: if layers.start > 0 { states } else { 0 }, sent: if layers.end < count { states } else { 0 } }
    }

    /// On all of several GPUs, for all batches in flight.
    pub(super) fn total(gpus: usize, tokens: usize, hidden: usize) -> usize {
        // They are sent by one GPU and received by the next.
        gpus.saturating_sub(1) * 2 * BATCHES_IN_FLIGHT * state_bytes(tokens, hidden)
    }
}

/// Bytes of the states of `tokens` tokens.
fn state_bytes(tokens: usize, hidden: usize) -> usize {
    size_of::<f32>() * tokens * hidden
}

/// The results of a pass that are downloaded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Download<'a> {
    /// This many numbers of the states, for the next GPU.
    States(usize),
    /// Outputs.
    Outputs {
        /// The length of each in numbers.
        lens: &'a [usize],
        /// Bytes of the heads' intermediate results.
        scratch: usize,
    },
}

/// The device memory of a pass: its batch, its outputs and scratch memory.
pub(super) struct Places<'a> {
    pub(super) buffers: &'a Buffers,
    block: &'a DeviceBuffer,
    /// In f32, of the requested length.
    pub(super) outputs: Vec<DeviceSlice<'a>>,
    /// Of the requested size.
    pub(super) scratch: DeviceSlice<'a>,
}

impl<'a> Places<'a> {
    /// A part of the batch on the device.
    pub(super) fn part(&self, part: Part) -> Result<DeviceSlice<'a>> {
        Ok(self.block.slice(4 * part.start..4 * (part.start + part.len))?)
    }
}

/// The outputs of a finished pass.
pub(super) struct Downloaded<'a> {
    lease: Lease<'a>,
    ranges: Vec<Range<usize>>,
}

impl Downloaded<'_> {
    /// The numbers of each requested output, in order.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &[f32]> {
        let numbers = self.lease.slot.as_ref().map_or(&[][..], |slot| slot.host_outputs.as_slice::<f32>());
        self.ranges.iter().map(move |range| &numbers[range.clone()])
    }
}

/// A slot in use, returned on drop. A slot that is lost with its device is replaced by a new one.
struct Lease<'a> {
    buffers: &'a Buffers,
    slot: Option<Slot>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut slots = self.buffers.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match self.slot.take() {
            Some(slot) => slots.idle.push(slot),
            None => slots.alive -= 1,
        }
        self.buffers.given_back.notify_one();
    }
}

impl Slot {
    fn new(gpu: &Arc<Gpu>, plan: Plan, states: StateBytes) -> Result<Self> {
        let bytes = 4 * batch::capacity(plan.tokens, plan.sequences);
        Ok(Self {
            host_block: PinnedBuffer::new(gpu, bytes)?,
            block: DeviceBuffer::new(gpu, bytes)?,
            host_states: PinnedBuffer::new(gpu, states.received)?,
            host_outputs: PinnedBuffer::new(gpu, states.sent)?,
        })
    }
}

impl Buffers {
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        geometry: &Geometry,
        numbers: NumberType,
        plan: Plan,
        state_bytes: StateBytes,
    ) -> Result<Self> {
        // A continued sequence starts at any row, and products may touch rows after its end.
        let rows = plan.tokens.next_multiple_of(ROW_STEP) + ROW_STEP;
        let of = |width: usize, bytes: usize| DeviceBuffer::new(gpu, rows * width * bytes);
        let idle = (0..BATCHES_IN_FLIGHT).map(|_| Slot::new(gpu, plan, state_bytes)).collect::<Result<_>>()?;
        Ok(Self {
            plan,
            state_bytes,
            states: of(geometry.hidden, 4)?,
            input: of(geometry.hidden, numbers.bytes())?,
            added: of(geometry.hidden, numbers.bytes())?,
            wide: of(geometry.wide(), numbers.bytes())?,
            context: of(geometry.context(), numbers.bytes())?,
            outputs: Mutex::new(DeviceBuffer::new(gpu, 0)?),
            slots: Mutex::new(Slots { idle, alive: BATCHES_IN_FLIGHT }),
            given_back: Condvar::new(),
            times: Mutex::default(),
        })
    }

    /// The largest number of tokens in a pass.
    pub(super) fn tokens(&self) -> usize {
        self.plan.tokens
    }

    /// The largest number of sequences in a pass.
    pub(super) fn sequences(&self) -> usize {
        self.plan.sequences
    }

    /// Uploads a batch, and its `states` after the layers of the GPU before, queues the launches of `queue`, and waits
    /// for the download.
    pub(super) fn run(
        &self,
        gpu: &Arc<Gpu>,
        batch: &Block,
        states: Option<Downloaded<'_>>,
        download: Download<'_>,
        queue: impl FnOnce(&mut Pass<'_>, &Places<'_>) -> Result<()>,
    ) -> Result<Downloaded<'_>> {
        let (lens, scratch) = match &download {
            Download::States(len) => (slice::from_ref(len), 0),
            Download::Outputs { lens, scratch } => (*lens, *scratch),
        };
        let mut used = 0;
        let mut range = |&len: &usize| {
            let start = used;
            used = (start + len).next_multiple_of(OUTPUT_ALIGNMENT_NUMBERS);
            start..start + len
        };
        let ranges: Vec<Range<usize>> = lens.iter().map(&mut range).collect();
        let downloaded = 4 * used;
        let mut lease = self.lease(gpu)?;
        let Some(Slot { mut host_block, block, mut host_states, mut host_outputs }) = lease.slot.take() else {
            return Ok(Downloaded { lease, ranges: Vec::new() });
        };
        host_block.as_mut_slice::<u32>()[..batch.words.len()].copy_from_slice(&batch.words);
        let states_bytes = states.map_or(0, |states| copy_states(&states, &mut host_states));
        if host_outputs.bytes() < downloaded {
            host_outputs = PinnedBuffer::new(gpu, downloaded.next_power_of_two())?;
        }
        let mut device_outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs_bytes = if let Download::Outputs { .. } = download { downloaded } else { 0 };
        if device_outputs.bytes() < outputs_bytes + scratch {
            *device_outputs = DeviceBuffer::new(gpu, (outputs_bytes + scratch).next_power_of_two())?;
        }
        let mut pass = gpu.begin()?;
        let (from, states, to) = (pass.hold(host_block)?, pass.hold(host_states)?, pass.hold(host_outputs)?);
        pass.upload(from, 0, block.slice(0..4 * batch.words.len())?)?;
        pass.upload(states, 0, self.states.slice(0..states_bytes)?)?;
        let outputs = device_outputs.slice(0..outputs_bytes)?;
        let slice = |range: &Range<usize>| outputs.slice(4 * range.start..4 * range.end);
        let places = Places {
            buffers: self,
            block: &block,
            outputs: match download {
                Download::States(_) => Vec::new(),
                Download::Outputs { .. } => ranges.iter().map(slice).collect::<std::result::Result<_, _>>()?,
            },
            scratch: device_outputs.slice(outputs_bytes..outputs_bytes + scratch)?,
        };
        queue(&mut pass, &places)?;
        let results = match download {
            Download::States(len) => self.states.slice(0..4 * len)?,
            Download::Outputs { .. } => outputs,
        };
        pass.download(results, to, 0)?;
        let pending = pass.finish()?;
        drop(device_outputs);
        let mut done = pending.wait()?;
        self.add_times(done.times());
        if let (Some(host_block), Some(host_states), Some(host_outputs)) =
            (done.take(from), done.take(states), done.take(to))
        {
            lease.slot = Some(Slot { host_block, block, host_states, host_outputs });
        }
        Ok(Downloaded { lease, ranges })
    }

    /// Times of the kernels since the last call, by label and kernel.
    pub(super) fn take_times(&self) -> Vec<KernelTime> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add_times(&self, of_pass: &[KernelTime]) {
        if !of_pass.is_empty() {
            merge_times(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner), of_pass);
        }
    }

    fn lease(&self, gpu: &Arc<Gpu>) -> Result<Lease<'_>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(slot) = slots.idle.pop() {
                return Ok(Lease { buffers: self, slot: Some(slot) });
            }
            if slots.alive < BATCHES_IN_FLIGHT {
                let slot = Slot::new(gpu, self.plan, self.state_bytes)?;
                slots.alive += 1;
                return Ok(Lease { buffers: self, slot: Some(slot) });
            }
            slots = self.given_back.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Adds times of kernels to those with the same label and kernel.
pub(super) fn merge_times(times: &mut Vec<KernelTime>, more: &[KernelTime]) {
    for time in more {
        match times.iter_mut().find(|known| known.label == time.label && known.kernel == time.kernel) {
            Some(known) => {
                known.launches += time.launches;
                known.milliseconds += time.milliseconds;
            }
            None => times.push(time.clone()),
        }
    }
}

/// Copies states to the page-locked memory of another GPU, and returns their size in bytes.
fn copy_states(states: &Downloaded<'_>, to: &mut PinnedBuffer) -> usize {
    let numbers = states.outputs().next().unwrap_or_default();
    to.as_mut_slice::<f32>()[..numbers.len()].copy_from_slice(numbers);
    size_of_val(numbers)
}
