//! Softmax attention within packed sequences.

use super::{Operands, WORD};
use crate::{
    error::Result,
    kernel::{KernelName, Parameter},
    launch::{self, ATTENTION_HEAD_SIZES, MAX_GRID_Y, MAX_HEAD_SIZE},
    memory::DeviceSlice,
    number::NumberType,
    pass::Pass,
};

/// `out = softmax(scale · q kᵀ) v`, for every head, within each sequence.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// The type of `qkv` and `out`.
    pub number: NumberType,
    /// Queries, keys and values of each token in one row: `[tokens, 3 · heads · head_size]`.
    pub qkv: DeviceSlice<'a>,
    /// The start of each sequence, and the end of the last: u32 `[sequences + 1]`, the last at most `tokens`.
    pub cu_seqlens: DeviceSlice<'a>,
    /// Sequence and first query row within it, for every tile of up to 64 query rows: u32 `[tiles, 2]`.
    pub tile_list: DeviceSlice<'a>,
    /// `[tokens, heads · head_size]`, written.
    pub out: DeviceSlice<'a>,
    /// Rows.
    pub tokens: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Number of tiles.
    pub tiles: usize,
    /// Number of heads.
    pub heads: usize,
    /// Numbers of a head as stored: 32, 64, 80, 96 or 128; in f32 any number up to 128.
    pub head_size: usize,
    /// Applied to the products, usually `1 / sqrt(true head size)`.
    pub scale: f32,
    /// Whether a token attends only to itself and earlier ones.
    pub causal: bool,
}

impl Pass<'_> {
    /// Launches [`Attention`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn attention(&mut self, attention: &Attention<'_>) -> Result<()> {
        let Attention { number, tokens, sequences, tiles, heads, head_size, scale, causal, .. } = *attention;
        let in_f32 = number == NumberType::F32;
        let kernel = match number {
            NumberType::F32 => KernelName::of("attention", number),
            _ => KernelName::sized("attention", number, head_size as u32),
        };
        let operands = Operands::new(self, kernel);
        let head_fits =
            if in_f32 { (1..=MAX_HEAD_SIZE).contains(&head_size) } else { ATTENTION_HEAD_SIZES.contains(&head_size) };
        operands.require(head_fits, format_args!("no kernel for heads of {head_size}"))?;
        let (heads_parameter, tile_count) = (operands.size("heads", heads)?, operands.size("tiles", tiles)?);
        let heads_fit = heads > 0 && heads <= MAX_GRID_Y as usize;
        operands.require(heads_fit, format_args!("{heads} heads are not between 1 and {MAX_GRID_Y}"))?;
        operands.size("tokens", tokens)?;
        operands.check("qkv", attention.qkv, &[tokens, 3, heads, head_size], number.bytes())?;
        operands.check("cu_seqlens", attention.cu_seqlens, &[sequences.saturating_add(1)], WORD)?;
        operands.check("tile list", attention.tile_list, &[tiles, 2], WORD)?;
        operands.check("out", attention.out, &[tokens, heads, head_size], number.bytes())?;
        if tiles == 0 {
            return Ok(());
        }
        let launch = launch::attention(number, tile_count as u32, heads_parameter as u32, head_size as u32);
        let mut parameters = vec![
            attention.qkv.into(),
            attention.cu_seqlens.into(),
            attention.tile_list.into(),
            attention.out.into(),
            heads_parameter.into(),
            scale.into(),
            i32::from(causal).into(),
        ];
        if in_f32 {
            parameters.push(Parameter::from(head_size as i32));
        }
        // SAFETY: the parameters of the `attention` kernels, each operand checked above.
        unsafe { self.launch(kernel, launch, &mut parameters) }
    }
}
