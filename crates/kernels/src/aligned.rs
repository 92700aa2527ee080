//! Memory that kernels read and write in whole cache lines.

use std::{
    alloc::{self, Layout},
    fmt, mem,
    ptr::NonNull,
    slice,
};

use half::bf16;

/// Bytes in a cache line, which are also those of a row of a tile and of the widest vector.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Buffers of at least this size are placed on huge pages: a matrix kernel that walks down a panel would otherwise miss
/// in the TLB every few lines.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes that start at a cache line, initially zero.
pub(crate) struct AlignedBytes {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owns its memory like a `Box<[u8]>`, and lends it by the rules of borrowing only.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above: a shared reference lends shared slices only.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` bytes of zero.
    ///
    /// # Panics
    ///
    /// `len` exceeds `isize::MAX`.
    pub(crate) fn zeroed(len: usize) -> Self {
        let align = if len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { CACHE_LINE_BYTES };
        let layout = Layout::from_size_align(len, align).expect("a buffer of at most isize::MAX bytes");
        if len == 0 {
            return Self { start: NonNull::<CacheLine>::dangling().cast(), layout };
        }
        // SAFETY: the size is not zero.
        let start = unsafe { alloc::alloc(layout) };
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        if align == HUGE_PAGE_BYTES {
            // The advice applies to pages that have not been written yet, so it comes before the zeros.
            advise_huge_pages(start, len);
        }
        // SAFETY: `len` bytes were allocated.
        unsafe { start.write_bytes(0, len) };
        Self { start, layout }
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is the start of `len` initialized bytes (or dangling and aligned where `len` is 0).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len()) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the exclusive borrow of `self` is that of its bytes.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len()) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `zeroed` with this layout, and dropped once.
            unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len());
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBytes").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[repr(align(64))]
struct CacheLine;

#[cfg(target_os = "linux")]
fn advise_huge_pages(start: NonNull<u8>, len: usize) {
    // SAFETY: the range starts at a page, is ours and stays mapped; the advice changes no byte of it. An error is
    // harmless: the pages stay small.
    unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: NonNull<u8>, _len: usize) {}

/// Plain old data: numbers without padding and without invalid bit patterns.
///
/// # Safety
///
/// Both must hold, and the alignment of the type must be at most [`CACHE_LINE_BYTES`].
pub(crate) unsafe trait Pod: Copy {}

// SAFETY: integers and floats have no padding and no invalid values.
unsafe impl Pod for u8 {}
// SAFETY: as above.
unsafe impl Pod for i8 {}
// SAFETY: as above.
unsafe impl Pod for u16 {}
// SAFETY: as above.
unsafe impl Pod for u32 {}
// SAFETY: as above.
unsafe impl Pod for i32 {}
// SAFETY: as above.
unsafe impl Pod for f32 {}
// SAFETY: as above: a transparent u16.
unsafe impl Pod for bf16 {}

/// Working memory of a kernel that a thread keeps between calls, as large as its largest call needed.
///
/// Keep one in a `thread_local!` of the kernel's own module, so that kernels that call each other never share one.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: AlignedBytes,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { bytes: AlignedBytes::zeroed(0) }
    }

    /// Memory for slices of these sizes, in bytes. Their contents are arbitrary: write before reading.
    pub(crate) fn slices(&mut self, sizes: &[usize]) -> ScratchSlices<'_> {
        let bytes = sizes.iter().map(|size| size.next_multiple_of(CACHE_LINE_BYTES)).sum();
        if self.bytes.len() < bytes {
            self.bytes = AlignedBytes::zeroed(bytes);
        }
        ScratchSlices { rest: self.bytes.as_mut_slice() }
    }
}

/// Numbers in whole cache lines that a caller keeps between calls. It grows to its largest use and never shrinks.
#[derive(Debug)]
pub struct Buffer {
    bytes: AlignedBytes,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: AlignedBytes::zeroed(0) }
    }
}

impl Buffer {
    /// Memory for `len` numbers. Numbers that were written before are kept unless the buffer grows.
    pub fn f32(&mut self, len: usize) -> &mut [f32] {
        self.numbers(len)
    }

    /// As [`Buffer::f32`], in bf16.
    pub fn bf16(&mut self, len: usize) -> &mut [bf16] {
        self.numbers(len)
    }

    fn numbers<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let bytes = (len * size_of::<T>()).next_multiple_of(CACHE_LINE_BYTES);
        if self.bytes.len() < bytes {
            self.bytes = AlignedBytes::zeroed(bytes);
        }
        ScratchSlices { rest: self.bytes.as_mut_slice() }.take(len)
    }
}

/// Memory that is split into slices which each start at a cache line.
#[derive(Debug)]
pub(crate) struct ScratchSlices<'a> {
    rest: &'a mut [u8],
}

impl<'a> ScratchSlices<'a> {
    /// The next `len` numbers.
    ///
    /// # Panics
    ///
    /// More is taken than [`Scratch::slices`] was given.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> &'a mut [T] {
        let rest = mem::take(&mut self.rest);
        let bytes = (len * size_of::<T>()).next_multiple_of(CACHE_LINE_BYTES);
        let (taken, rest) = rest.split_at_mut(bytes);
        self.rest = rest;
        // SAFETY: `taken` holds at least `len` values and starts at a multiple of CACHE_LINE_BYTES, as every slice
        // before it was a multiple of CACHE_LINE_BYTES long; any bytes are a value of a plain type; the borrow is
        // exclusive.
        unsafe { slice::from_raw_parts_mut(taken.as_mut_ptr().cast(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_start_at_lines_and_do_not_overlap() {
        let mut scratch = Scratch::new();
        let mut slices = scratch.slices(&[3 * 4, 5, 64]);
        let (floats, bytes, pairs) = (slices.take::<f32>(3), slices.take::<u8>(5), slices.take::<bf16>(32));
        for start in [floats.as_ptr().addr(), bytes.as_ptr().addr(), pairs.as_ptr().addr()] {
            assert_eq!(start % CACHE_LINE_BYTES, 0);
        }
        floats.fill(1.0);
        bytes.fill(2);
        pairs.fill(bf16::ONE);
        assert_eq!((floats[2], bytes[4], pairs[31]), (1.0, 2, bf16::ONE));
    }

    #[test]
    fn large_and_empty_buffers_are_zero() {
        for len in [0, 1, HUGE_PAGE_BYTES + 1] {
            let bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.len(), len);
            assert!(bytes.as_slice().iter().all(|byte| *byte == 0));
        }
    }
}
