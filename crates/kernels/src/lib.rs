//! The arithmetic of the encoder on CPUs: slices in, slices out, one thread.
//!
//! Every kernel has a portable form, which is its reference, and a form for each [`Isa`] that is faster. The form is
//! chosen once, by what the CPU has; `POLYLANCE_KERNELS` selects a lower one. A kernel allocates nothing after its
//! thread has run it on inputs of that size, and starts no threads: callers own their cores.
//!
//! The result for a row depends on that row alone, never on the other rows of the call: same text, same vector.

#![expect(unsafe_code, reason = "SIMD intrinsics, inline assembly and raw pointers are this crate's work")]
#![expect(clippy::inline_always, reason = "code shared by instruction sets must be compiled for each of them")]

mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod element;
mod gemm;
mod isa;
mod math;
mod norm;
mod reduce;
mod simd;
#[cfg(test)]
mod testing;

pub use aligned::Buffer;
pub use attention::SelfAttention;
pub use gemm::{Epilogue, PackedWeights, Precision, ROW_STEP, Rows, RowsMut, matmul, peak};
pub use isa::{Isa, UnknownIsa};
pub use norm::{LayerNorm, NormOutput};
