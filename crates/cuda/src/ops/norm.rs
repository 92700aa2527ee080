//! Embeddings and layer norms: a warp computes a row, in f32.

use super::{Operands, WORD};
use crate::{
    error::Result,
    kernel::{KernelName, Parameter},
    launch,
    memory::DeviceSlice,
    number::NumberType,
    pass::Pass,
};

/// A layer norm's weights.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// f32 `[hidden]`.
    pub weight: DeviceSlice<'a>,
    /// f32 `[hidden]`.
    pub bias: DeviceSlice<'a>,
    /// Added to the variance.
    pub eps: f32,
}

/// The stored results of a sum `r` of the residual stream.
#[derive(Debug, Clone, Copy)]
pub enum Placement<'a> {
    /// The stream keeps the sum: `states = r`, `x = LN(r)`.
    Pre(Norm<'a>),
    /// The stream keeps the norm: `states = x = LN(r)`.
    Post(Norm<'a>),
    /// There is no norm: `states = x = r`.
    None,
}

impl<'a> Placement<'a> {
    fn norm(&self) -> Option<Norm<'a>> {
        match *self {
            Self::Pre(norm) | Self::Post(norm) => Some(norm),
            Self::None => None,
        }
    }

    /// Its number in the kernels.
    fn number(&self) -> i32 {
        match self {
            Self::Pre(_) => 0,
            Self::Post(_) => 1,
            Self::None => 2,
        }
    }

    /// Weight, bias, eps and placement.
    fn parameters(&self) -> [Parameter; 4] {
        let norm = self.norm();
        [
            norm.map(|norm| norm.weight).into(),
            norm.map(|norm| norm.bias).into(),
            norm.map_or(0.0, |norm| norm.eps).into(),
            self.number().into(),
        ]
    }
}

/// The sum of the embeddings of each token, and its norm.
#[derive(Debug, Clone, Copy)]
pub struct Embed<'a> {
    /// The type of the tables and of `x`.
    pub number: NumberType,
    /// Word embeddings `[any, hidden]`. The caller has checked the ids against its rows.
    pub words: DeviceSlice<'a>,
    /// Position embeddings `[any, hidden]`.
    pub position_table: DeviceSlice<'a>,
    /// Token type embeddings `[any, hidden]`.
    pub type_table: DeviceSlice<'a>,
    /// u32 `[tokens]`.
    pub ids: DeviceSlice<'a>,
    /// u32 `[tokens]`.
    pub positions: DeviceSlice<'a>,
    /// u32 `[tokens]`; without them every token has type 0.
    pub types: Option<DeviceSlice<'a>>,
    /// The norm of the sum.
    pub placement: Placement<'a>,
    /// Residual stream, f32 `[tokens, hidden]`, written.
    pub states: DeviceSlice<'a>,
    /// `[tokens, hidden]`, written.
    pub x: Option<DeviceSlice<'a>>,
    /// Rows.
    pub tokens: usize,
    /// Columns: a multiple of 8, at most 8192.
    pub hidden: usize,
}

/// The residual sum `r = states + y + bias` of each row, and its norm.
#[derive(Debug, Clone, Copy)]
pub struct AddNorm<'a> {
    /// The type of `y` and `x`.
    pub number: NumberType,
    /// `[tokens, hidden]`, added.
    pub y: Option<DeviceSlice<'a>>,
    /// f32 `[hidden]`, added.
    pub bias: Option<DeviceSlice<'a>>,
    /// The norm of the sum.
    pub placement: Placement<'a>,
    /// Residual stream, f32 `[tokens, hidden]`, read and written.
    pub states: DeviceSlice<'a>,
    /// `[tokens, hidden]`, written.
    pub x: Option<DeviceSlice<'a>>,
    /// Rows.
    pub tokens: usize,
    /// Columns: a multiple of 8, at most 8192.
    pub hidden: usize,
}

/// The norm of each row: `x = LN(y)`.
#[derive(Debug, Clone, Copy)]
pub struct NormRows<'a> {
    /// The type of `y` and `x`.
    pub number: NumberType,
    /// `[rows, hidden]`.
    pub y: DeviceSlice<'a>,
    /// The norm.
    pub norm: Norm<'a>,
    /// `[rows, hidden]`, written.
    pub x: DeviceSlice<'a>,
    /// Rows.
    pub rows: usize,
    /// Columns: a multiple of 8, at most 8192.
    pub hidden: usize,
}

impl Operands<'_> {
    fn check_norm(&self, norm: Option<Norm<'_>>, hidden: usize) -> Result<()> {
        self.check_optional("norm weight", norm.map(|norm| norm.weight), &[hidden], WORD)?;
        self.check_optional("norm bias", norm.map(|norm| norm.bias), &[hidden], WORD)
    }
}

impl Pass<'_> {
    /// Launches [`Embed`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn embed(&mut self, embed: &Embed<'_>) -> Result<()> {
        let Embed { number, placement, tokens, hidden, .. } = *embed;
        let kernel = KernelName::of("embed", number);
        let operands = Operands::new(self, kernel);
        let (rows, columns) = (operands.size("tokens", tokens)?, operands.hidden(hidden)?);
        operands.check("word embeddings", embed.words, &[1, hidden], number.bytes())?;
        operands.check("position embeddings", embed.position_table, &[1, hidden], number.bytes())?;
        operands.check("type embeddings", embed.type_table, &[1, hidden], number.bytes())?;
        operands.check("ids", embed.ids, &[tokens], WORD)?;
        operands.check("positions", embed.positions, &[tokens], WORD)?;
        operands.check_optional("types", embed.types, &[tokens], WORD)?;
        operands.check_norm(placement.norm(), hidden)?;
        operands.check("states", embed.states, &[tokens, hidden], WORD)?;
        operands.check_optional("x", embed.x, &[tokens, hidden], number.bytes())?;
        if tokens == 0 {
            return Ok(());
        }
        let [weight, bias, eps, placement] = placement.parameters();
        let mut parameters = [
            embed.words.into(),
            embed.position_table.into(),
            embed.type_table.into(),
            embed.ids.into(),
            embed.positions.into(),
            embed.types.into(),
            weight,
            bias,
            eps,
            placement,
            embed.states.into(),
            embed.x.into(),
            rows.into(),
            columns.into(),
        ];
        // SAFETY: the parameters of `embed`, each operand checked above.
        unsafe { self.launch(kernel, launch::warp_per_row(rows as u32), &mut parameters) }
    }

    /// Launches [`AddNorm`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn add_norm(&mut self, add_norm: &AddNorm<'_>) -> Result<()> {
        let AddNorm { number, placement, tokens, hidden, .. } = *add_norm;
        // A row that is too long has no kernel, and is refused below.
        let kernel = KernelName::sized("add_norm", number, launch::row_chunks(hidden).unwrap_or_default());
        let operands = Operands::new(self, kernel);
        let (rows, columns) = (operands.size("tokens", tokens)?, operands.hidden(hidden)?);
        operands.check_optional("y", add_norm.y, &[tokens, hidden], number.bytes())?;
        operands.check_optional("bias", add_norm.bias, &[hidden], WORD)?;
        operands.check_norm(placement.norm(), hidden)?;
        operands.check("states", add_norm.states, &[tokens, hidden], WORD)?;
        operands.check_optional("x", add_norm.x, &[tokens, hidden], number.bytes())?;
        if tokens == 0 {
            return Ok(());
        }
        let [weight, norm_bias, eps, placement] = placement.parameters();
        let mut parameters = [
            add_norm.y.into(),
            add_norm.bias.into(),
            weight,
            norm_bias,
            eps,
            placement,
            add_norm.states.into(),
            add_norm.x.into(),
            rows.into(),
            columns.into(),
        ];
        // SAFETY: the parameters of `add_norm`, each operand checked above.
        unsafe { self.launch(kernel, launch::warp_per_row(rows as u32), &mut parameters) }
    }

    /// Launches [`NormRows`].
    ///
    /// # Errors
    ///
    /// [`Misuse`](crate::CudaError::Misuse) if an operand does not fit; [`Lost`](crate::CudaError::Lost).
    pub fn norm_rows(&mut self, norm_rows: &NormRows<'_>) -> Result<()> {
        let NormRows { number, norm, rows, hidden, .. } = *norm_rows;
        let kernel = KernelName::of("norm_rows", number);
        let operands = Operands::new(self, kernel);
        let (count, columns) = (operands.size("rows", rows)?, operands.hidden(hidden)?);
        operands.check("y", norm_rows.y, &[rows, hidden], number.bytes())?;
        operands.check_norm(Some(norm), hidden)?;
        operands.check("x", norm_rows.x, &[rows, hidden], number.bytes())?;
        if rows == 0 {
            return Ok(());
        }
        let mut parameters = [
            norm_rows.y.into(),
            norm.weight.into(),
            norm.bias.into(),
            norm.eps.into(),
            norm_rows.x.into(),
            count.into(),
            columns.into(),
        ];
        // SAFETY: the parameters of `norm_rows`, each operand checked above.
        unsafe { self.launch(kernel, launch::warp_per_row(count as u32), &mut parameters) }
    }
}
