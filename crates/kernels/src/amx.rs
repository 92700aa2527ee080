//! Tiles: eight registers of 16 rows by 64 bytes, and products of them.
//!
//! The compiler does not use tile registers, so only the functions here touch them, and a tile keeps its contents
//! between calls. Tiles must be configured first ([`Tiles::configure`]), once for each stretch of work: a thread that
//! leaves them configured pays for their 8 KiB at every context switch.

use std::{arch::asm, arch::x86_64, marker::PhantomData};

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Bytes in a row of a tile: 16 f32 or i32, 32 bf16, 64 int8.
pub(crate) const TILE_ROW_BYTES: usize = 64;

/// Whether the CPU has tiles of bf16 and int8 and the system lets this process use them. Requests the permission, which
/// applies to all threads of the process.
pub(crate) fn permitted() -> bool {
    cpu_has_tiles() && system_saves_tiles() && request_permission()
}

fn cpu_has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let wanted = BF16 | TILE | INT8;
    x86_64::__cpuid(0).eax >= 7 && x86_64::__cpuid_count(7, 0).edx & wanted == wanted
}

/// Whether the system saves the tile configuration (bit 17) and the tiles (bit 18) when it switches threads.
fn system_saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 0b11 << 17;
    if x86_64::__cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE means that `xgetbv` is enabled, and register 0 always exists.
    let enabled = unsafe { read_xcr0() };
    enabled & TILE_STATE == TILE_STATE
}

#[target_feature(enable = "xsave")]
fn read_xcr0() -> u64 {
    // SAFETY: the feature is enabled here, and register 0 is the one that always exists.
    unsafe { x86_64::_xgetbv(0) }
}

/// Linux gives tiles only to processes that request them: their saved state is larger than old signal stacks.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: takes two integers and writes to no memory of ours; a kernel without the call returns an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// The shape of each tile, as `ldtilecfg` reads it.
#[repr(C, align(64))]
#[derive(Debug, Clone)]
pub(crate) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// All eight tiles at full size.
    pub(crate) const fn full() -> Self {
        let mut config = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            config.row_bytes[tile] = TILE_ROW_BYTES as u16;
            config.rows[tile] = TILE_ROWS as u8;
            tile += 1;
        }
        config
    }
}

/// Configured tiles, released on drop.
///
/// The configuration is the thread's own, so the guard stays on its thread; a second one on the same thread replaces
/// the first.
#[derive(Debug)]
pub(crate) struct Tiles {
    this_thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Configures the tiles of this thread.
    ///
    /// # Safety
    ///
    /// [`permitted`] has returned true in this process.
    #[inline]
    pub(crate) unsafe fn configure(config: &TileConfig) -> Self {
        // SAFETY: the instruction reads 64 bytes, the size of the struct; palette 1 with at most 16 rows of 64 bytes
        // is what every CPU with tiles has, and the caller vouches for the permission.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, preserves_flags, readonly)) };
        Self { this_thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: a guard exists only after tiles were configured, so the CPU has the instruction.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Sets tile `T` to zero.
///
/// # Safety
///
/// A [`Tiles`] guard lives on this thread.
#[inline(always)]
pub(crate) unsafe fn zero<const T: u8>() {
    // SAFETY: tiles are configured (the caller's promise); the instruction touches tile `T` only.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags, nomem)) };
}

/// Loads tile `T`: row `r` from `from + r * stride` bytes.
///
/// # Safety
///
/// A [`Tiles`] guard lives on this thread, and every configured row can be read there.
#[inline(always)]
pub(crate) unsafe fn load<const T: u8>(from: *const u8, stride: usize) {
    // SAFETY: reads the rows that the caller vouches for, writes tile `T` only.
    unsafe {
        asm!("tileloadd tmm{t}, [{from} + {stride}]", t = const T, from = in(reg) from, stride = in(reg) stride,
            options(nostack, preserves_flags, readonly));
    }
}

/// Stores tile `T`: row `r` to `to + r * stride` bytes.
///
/// # Safety
///
/// A [`Tiles`] guard lives on this thread, and every configured row can be written there.
#[inline(always)]
pub(crate) unsafe fn store<const T: u8>(to: *mut u8, stride: usize) {
    // SAFETY: writes the rows that the caller vouches for and nothing else.
    unsafe {
        asm!("tilestored [{to} + {stride}], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride,
            options(nostack, preserves_flags));
    }
}

/// `C += A * B` in f32, `A` of bf16 `[16, 32]`, `B` of bf16 pairs `[16, 16, 2]`.
///
/// Each pair of `k` is added in order, so the sum of a row does not depend on the other rows of the tiles.
///
/// # Safety
///
/// A [`Tiles`] guard lives on this thread.
#[inline(always)]
pub(crate) unsafe fn dot_bf16<const C: u8, const A: u8, const B: u8>() {
    // SAFETY: tiles are configured (the caller's promise); the instruction touches registers only.
    unsafe {
        asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
            options(nostack, preserves_flags, nomem));
    }
}

/// `C += A * B` in i32, `A` of u8 `[16, 64]`, `B` of i8 quads `[16, 16, 4]`.
///
/// # Safety
///
/// A [`Tiles`] guard lives on this thread.
#[inline(always)]
pub(crate) unsafe fn dot_u8_i8<const C: u8, const A: u8, const B: u8>() {
    // SAFETY: tiles are configured (the caller's promise); the instruction touches registers only.
    unsafe {
        asm!("tdpbusd tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B,
            options(nostack, preserves_flags, nomem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// `A` is the identity in its first 16 columns, so `C` must be the rows of `B`.
    #[test]
    fn product_with_the_identity_is_the_other_operand() {
        if Isa::best() < Isa::Amx {
            return;
        }
        let a: [[u8; 64]; 16] = std::array::from_fn(|r| std::array::from_fn(|k| u8::from(r == k)));
        let b: [[[i8; 4]; 16]; 16] =
            std::array::from_fn(|q| std::array::from_fn(|n| std::array::from_fn(|i| ((q * 4 + i) * 3 + n) as i8)));
        let mut c = [[0_i32; 16]; 16];

        // SAFETY: the best instruction set has tiles, so the permission is given; the arrays hold whole tiles.
        unsafe {
            let _tiles = Tiles::configure(&TileConfig::full());
            zero::<0>();
            load::<1>(a.as_ptr().cast(), 64);
            load::<2>(b.as_ptr().cast(), 64);
            dot_u8_i8::<0, 1, 2>();
            store::<0>(c.as_mut_ptr().cast(), 64);
        }

        let expected: [[i32; 16]; 16] = std::array::from_fn(|k| std::array::from_fn(|n| i32::from((k * 3 + n) as i8)));
        assert_eq!(c, expected);
    }
}
