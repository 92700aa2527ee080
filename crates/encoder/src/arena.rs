//! The states and intermediate results of a batch on the CPU, in memory that is kept between batches.

use std::{cell::Cell, mem};

use candle_core::{Device, Tensor};
use half::bf16;
use polylance_kernels::{Buffer, Epilogue, Isa, NormOutput, Precision, ROW_STEP, Rows, RowsMut, SelfAttention};
use rayon::prelude::*;

use crate::{error::Result, linear::Linear, norm::LayerNorm, ops};

/// Buffers of `[tokens, …]`. Between the maps numbers are bf16, unless the precision is f32.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    tokens: usize,
    hidden: usize,
    precision: Precision,
    /// `[tokens, hidden]` in f32.
    states: Buffer,
    /// The input of the next map, unless it reads the states directly.
    input: Buffer,
    /// Whether the next map reads the states directly.
    direct: bool,
    /// The output of a map: queries, keys and values, or the inner states of a feed-forward block.
    wide: Buffer,
    /// Numbers in a row of `wide`.
    width: usize,
    /// `[tokens, hidden]`.
    context: Buffer,
}

thread_local! {
    /// The arena of a device's thread. It is taken while it is in use, so a nested pass on the thread gets its own.
    static THREAD_ARENA: Cell<Option<Arena>> = const { Cell::new(None) };
}

impl Arena {
    /// Computes layers on states, `[tokens, hidden]` in f32 on the CPU.
    pub(crate) fn compute(
        states: &Tensor,
        precision: Precision,
        layers: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Tensor> {
        let mut arena = Self::of_thread(states.dims2()?, precision);
        ops::with_numbers(states, |states| arena.start(states))?;
        layers(&mut arena)?;
        let numbers = arena.states.f32(arena.tokens * arena.hidden);
        let states = Tensor::from_slice(numbers, states.dims(), &Device::Cpu)?;
        THREAD_ARENA.set(Some(arena));
        Ok(states)
    }

    /// Computes layers on states that wait outside of the arena before and after; they are moved, not copied.
    pub(crate) fn resume(
        states: &mut WaitingStates,
        precision: Precision,
        layers: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let mut arena = Self::of_thread((states.tokens, states.hidden), precision);
        mem::swap(&mut arena.states, &mut states.numbers);
        arena.round_states();
        let computed = layers(&mut arena);
        mem::swap(&mut arena.states, &mut states.numbers);
        THREAD_ARENA.set(Some(arena));
        computed
    }

    /// Takes the arena of this thread, for states of this shape.
    fn of_thread((tokens, hidden): (usize, usize), precision: Precision) -> Self {
        let arena = THREAD_ARENA.take().unwrap_or_default();
        Self { tokens, hidden, precision, direct: precision != Precision::Bf16, ..arena }
    }

    fn start(&mut self, states: &[f32]) {
        // Padded to whole tiles from the start, because a buffer loses its contents when it grows.
        self.states.f32(padded(self.tokens) * self.hidden)[..states.len()].copy_from_slice(states);
        self.round_states();
    }

    /// Rounds the states to the input of the next map, unless it reads the states directly.
    fn round_states(&mut self) {
        if self.direct {
            return;
        }
        let (numbers, padded_numbers) = (self.tokens * self.hidden, padded(self.tokens) * self.hidden);
        let (states, share) = (&*self.states.f32(numbers), ops::share_rows(numbers, self.hidden));
        let input = &mut self.input.bf16(padded_numbers)[..numbers];
        let parts = input.par_chunks_mut(share).zip(states.par_chunks(share));
        parts.for_each(|(input, states)| {
            input.iter_mut().zip(states).for_each(|(to, from)| *to = bf16::from_f32(*from));
        });
    }

    /// Normalizes the states into the input of the next map, and leaves them unchanged.
    pub(crate) fn norm_input(&mut self, norm: &LayerNorm) -> Result<()> {
        self.direct = false;
        let (numbers, padded_numbers) = (self.tokens * self.hidden, padded(self.tokens) * self.hidden);
        let (states, share) = (&*self.states.f32(numbers), ops::share_rows(numbers, self.hidden));
        norm.with(|norm| {
            if self.precision == Precision::Bf16 {
                let out = &mut self.input.bf16(padded_numbers)[..numbers];
                let parts = out.par_chunks_mut(share).zip(states.par_chunks(share));
                parts.for_each(|(out, states)| norm.forward(Isa::detect(), states, NormOutput::Bf16(out)));
            } else {
                let out = &mut self.input.f32(padded_numbers)[..numbers];
                let parts = out.par_chunks_mut(share).zip(states.par_chunks(share));
                parts.for_each(|(out, states)| norm.forward(Isa::detect(), states, NormOutput::F32(out)));
            }
        })
    }

    /// Normalizes the states in place, and into the input of the next map where that is rounded.
    pub(crate) fn norm_states(&mut self, norm: &LayerNorm) -> Result<()> {
        let (numbers, padded_numbers) = (self.tokens * self.hidden, padded(self.tokens) * self.hidden);
        let (states, share) = (self.states.f32(numbers), ops::share_rows(numbers, self.hidden));
        self.direct = self.precision != Precision::Bf16;
        norm.with(|norm| {
            if self.direct {
                states.par_chunks_mut(share).for_each(|states| norm.forward_in_place(Isa::detect(), states, None));
            } else {
                let out = &mut self.input.bf16(padded_numbers)[..numbers];
                let parts = states.par_chunks_mut(share).zip(out.par_chunks_mut(share));
                parts.for_each(|(states, out)| norm.forward_in_place(Isa::detect(), states, Some(out)));
            }
        })
    }

    /// `wide = input Wᵀ + b`.
    pub(crate) fn project(&mut self, linear: &Linear) -> Result<()> {
        self.widen(linear, |bias| Epilogue::Bias(bias))
    }

    /// `wide = gelu(input Wᵀ + b)`.
    pub(crate) fn project_gelu(&mut self, linear: &Linear) -> Result<()> {
        self.widen(linear, |bias| Epilogue::BiasGelu(bias))
    }

    fn widen(&mut self, linear: &Linear, epilogue: impl Fn(&[f32]) -> Epilogue<'_>) -> Result<()> {
        self.width = linear.outputs();
        let (rows, numbers) = (padded(self.tokens), self.tokens * self.width);
        let input = match self.precision {
            _ if self.direct => Rows::F32(self.states.f32(rows * self.hidden)),
            Precision::Bf16 => Rows::Bf16(self.input.bf16(rows * self.hidden)),
            Precision::F32 | Precision::Int8 => Rows::F32(self.input.f32(rows * self.hidden)),
        };
        let out = match self.precision {
            Precision::F32 => RowsMut::F32(&mut self.wide.f32(rows * self.width)[..numbers]),
            Precision::Bf16 | Precision::Int8 => RowsMut::Bf16(&mut self.wide.bf16(rows * self.width)[..numbers]),
        };
        linear.multiply(input, epilogue, out)
    }

    /// `context = attention(wide)`.
    pub(crate) fn attend(&mut self, attention: &SelfAttention, cu_seqlens: &[u32]) {
        let (wide, numbers) = (self.tokens * self.width, self.tokens * self.hidden);
        let padded_numbers = padded(self.tokens) * self.hidden;
        if self.precision == Precision::F32 {
            let context = &mut self.context.f32(padded_numbers)[..numbers];
            ops::attend(attention, self.wide.f32(wide), cu_seqlens, context);
        } else {
            let context = &mut self.context.bf16(padded_numbers)[..numbers];
            ops::attend(attention, self.wide.bf16(wide), cu_seqlens, context);
        }
    }

    /// `states += context Wᵀ + b`.
    pub(crate) fn add_context(&mut self, linear: &Linear) -> Result<()> {
        let (hidden, f32) = (self.hidden, self.precision == Precision::F32);
        add(&mut self.context, f32, [self.tokens, hidden, hidden], linear, &mut self.states)
    }

    /// `states += wide Wᵀ + b`.
    pub(crate) fn add_wide(&mut self, linear: &Linear) -> Result<()> {
        let f32 = self.precision == Precision::F32;
        add(&mut self.wide, f32, [self.tokens, self.width, self.hidden], linear, &mut self.states)
    }
}

/// The states of a batch between two layers, outside of an arena.
#[derive(Debug)]
pub(crate) struct WaitingStates {
    tokens: usize,
    hidden: usize,
    /// `[tokens, hidden]` in f32, padded to whole tiles.
    numbers: Buffer,
}

impl WaitingStates {
    /// States, `[tokens, hidden]` in f32 on the CPU.
    pub(crate) fn new(states: &Tensor) -> Result<Self> {
        let (tokens, hidden) = states.dims2()?;
        let mut numbers = Buffer::default();
        let padded_numbers = numbers.f32(padded(tokens) * hidden);
        ops::with_numbers(states, |states| padded_numbers[..states.len()].copy_from_slice(states))?;
        Ok(Self { tokens, hidden, numbers })
    }

    /// The states as a tensor.
    pub(crate) fn into_tensor(mut self) -> Result<Tensor> {
        let numbers = self.numbers.f32(self.tokens * self.hidden);
        Ok(Tensor::from_slice(numbers, (self.tokens, self.hidden), &Device::Cpu)?)
    }
}

/// `states += from Wᵀ + b`, where `from` is `[tokens, width]`, in f32 if `f32` and otherwise in bf16, and states are
/// `[tokens, hidden]`.
fn add(
    from: &mut Buffer,
    f32: bool,
    [tokens, width, hidden]: [usize; 3],
    linear: &Linear,
    states: &mut Buffer,
) -> Result<()> {
    let len = padded(tokens) * width;
    let from = if f32 { Rows::F32(from.f32(len)) } else { Rows::Bf16(from.bf16(len)) };
    linear.multiply(from, |bias| Epilogue::BiasAdd(bias), RowsMut::F32(states.f32(tokens * hidden)))
}

/// Rows of a buffer that products read without a copy.
fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(ROW_STEP)
}
