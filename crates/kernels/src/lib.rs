//! The arithmetic of the encoder on CPUs: slices in, slices out, one thread.
//!
//! Every kernel has a portable form, which is its specification, and one form for each [`Isa`] that is faster. Which
//! one runs is decided once, by what the CPU has; `POLYLANCE_KERNELS` names a lower one. A kernel allocates nothing
//! once its thread has run it on inputs of that size, and starts no thread: callers own their cores.
//!
//! The result for a row depends on that row alone, never on how many rows there are beside it: same text, same vector.

#![expect(unsafe_code, reason = "the instructions that this crate exists for are behind it")]
#![expect(clippy::inline_always, reason = "code shared by instruction sets must be compiled for each of them")]

mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod gemm;
mod isa;
mod lanes;
mod math;
mod norm;
mod number;
mod sums;
#[cfg(test)]
mod testing;

pub use aligned::Buffer;
pub use attention::SelfAttention;
pub use gemm::{Epilogue, PackedWeights, Precision, ROW_STEP, Rows, RowsMut, matmul, peak};
pub use isa::{Isa, UnknownIsa};
pub use norm::{LayerNorm, Normed};
