//! Which micro-kernel computes a block: one row per instruction set and precision.

use super::{Precision, block::Block, micro_kernels};
use crate::Isa;

/// Multiplies a block.
///
/// # Safety
///
/// The pointers of the block hold as much as its fields say; the CPU has `isa`.
pub(super) unsafe fn multiply(block: &Block, isa: Isa, precision: Precision) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match (isa, precision) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx, Precision::F32) => {
                micro_kernels::avx512::f32(block);
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, Precision::Bf16) => micro_kernels::avx512::bf16(block),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Vnni | Isa::Avx512Bf16, Precision::Int8) => micro_kernels::avx512::int8(block),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Vnni, Precision::Bf16) => micro_kernels::avx512::bf16_by_f32(block),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::F32) => micro_kernels::avx2::f32(block),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, Precision::Bf16) => micro_kernels::avx2::bf16_by_f32(block),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx2, Precision::Int8) => micro_kernels::avx2::int8(block),
            (_, Precision::F32) => micro_kernels::portable::f32(block),
            (_, Precision::Bf16) => micro_kernels::portable::bf16(block),
            (_, Precision::Int8) => micro_kernels::portable::int8(block),
        }
    }
}
