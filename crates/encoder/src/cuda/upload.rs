//! Weights in the layout of a GPU: read from the files and narrowed, or generated on the device by a formula.

use std::sync::Arc;

use half::{bf16, f16};
use polylance_cuda::{DeviceSlice, Gpu, NumberType, PinnedBuffer, Uploader, ops::Fill};
use rayon::prelude::*;

use super::layout::{Groups, Item, Layout};
use crate::{
    error::{ModelError, Result},
    synthetic,
    weights::{Stored, TensorView, Weights},
};

/// Bytes that are narrowed and uploaded at once.
const CHUNK_BYTES: usize = 32 << 20;

/// Where weights come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// Files.
    Files(&'a Weights),
    /// The formula of [`synthetic`].
    Formula,
}

impl Source<'_> {
    /// Writes every tensor of some layouts to device memory.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for a layout with padding by formula; when the device fails.
    pub(super) fn write(self, gpu: &Arc<Gpu>, layouts: &[(&Layout, DeviceSlice<'_>)]) -> Result<()> {
        match self {
            Self::Files(weights) => upload(gpu, layouts, weights),
            Self::Formula => layouts.iter().try_for_each(|(layout, to)| synthesize(gpu, layout, *to)),
        }
    }

    /// Every tensor of a layout in page-locked memory. `scratch` is device memory of the same size, whose contents are
    /// lost.
    ///
    /// # Errors
    /// As [`Source::write`]; when the system locks no more memory.
    pub(super) fn page_locked(self, gpu: &Arc<Gpu>, layout: &Layout, scratch: DeviceSlice<'_>) -> Result<PinnedBuffer> {
        let mut pinned = PinnedBuffer::new(gpu, layout.bytes)?;
        match self {
            Self::Files(weights) => {
                let bytes = pinned.as_mut_slice::<u8>();
                for item in &layout.items {
                    narrow(item, weights, &mut bytes[item.place.offset..item.place.offset + item.place.bytes()]);
                }
            }
            Self::Formula => {
                synthesize(gpu, layout, scratch)?;
                gpu.download(scratch, pinned.as_mut_slice())?;
            }
        }
        Ok(pinned)
    }
}

/// Writes every tensor of the layouts to the device.
fn upload(gpu: &Arc<Gpu>, layouts: &[(&Layout, DeviceSlice<'_>)], weights: &Weights) -> Result<()> {
    let mut uploader = Uploader::new(gpu, CHUNK_BYTES)?;
    let items = layouts.iter().flat_map(|(layout, to)| layout.items.iter().map(move |item| (item, *to)));
    let mut bytes = Vec::new();
    for (item, to) in items {
        let mut write = |offset: usize, bytes: &[u8]| uploader.upload(bytes, to.slice(offset..offset + bytes.len())?);
        let views = views(item, weights);
        if let Some(stored) = stored_as_computed(item, &views) {
            for (at, part) in stored.chunks(CHUNK_BYTES).enumerate() {
                write(item.place.offset + at * CHUNK_BYTES, part)?;
            }
        } else {
            let row_bytes = item.columns.total() * item.place.numbers.bytes();
            let step = (CHUNK_BYTES / row_bytes).max(1);
            for first in (0..item.rows.total()).step_by(step) {
                let count = step.min(item.rows.total() - first);
                bytes.resize(count * row_bytes, 0);
                narrow_rows(item, &views, first, &mut bytes);
                write(item.place.offset + first * row_bytes, &bytes)?;
            }
        }
        release(item, weights);
    }
    Ok(uploader.finish()?)
}

/// Writes a tensor to `bytes`.
fn narrow(item: &Item, weights: &Weights, bytes: &mut [u8]) {
    let views = views(item, weights);
    match stored_as_computed(item, &views) {
        Some(stored) => bytes.copy_from_slice(stored),
        None => narrow_rows(item, &views, 0, bytes),
    }
    release(item, weights);
}

/// Generates every tensor of a layout on the device.
fn synthesize(gpu: &Arc<Gpu>, layout: &Layout, to: DeviceSlice<'_>) -> Result<()> {
    let mut pass = gpu.begin()?;
    for item in &layout.items {
        if !item.rows.is_plain() || !item.columns.is_plain() {
            let reason = "heads of 32, 64, 80, 96 or 128 and a feed-forward block of a multiple of 8 are";
            return Err(ModelError::unsupported("a geometry that is padded on a GPU", reason));
        }
        let rows = item.rows.total() / item.sources.len();
        for (at, name) in item.sources.iter().enumerate() {
            let shape = [rows, item.columns.total()];
            let formula = synthetic::formula(name, if shape[1] == 1 { &shape[..1] } else { &shape });
            let (count, width) = (shape[0] * shape[1], item.place.numbers.bytes());
            let start = item.place.offset + at * count * width;
            pass.fill(&Fill {
                number: item.place.numbers,
                out: to.slice(start..start + count * width)?,
                seed: formula.seed,
                first: 0,
                count,
                offset: formula.offset,
                scale: formula.scale,
            })?;
        }
    }
    pass.finish()?.wait()?;
    Ok(())
}

/// The tensors of the files that an item is made from; one that is not in the files is zero.
fn views<'a>(item: &Item, weights: &'a Weights) -> Vec<Option<TensorView<'a>>> {
    item.sources.iter().map(|name| weights.read(name)).collect()
}

/// Releases the pages of an item's tensors.
fn release(item: &Item, weights: &Weights) {
    for name in &item.sources {
        weights.release(name);
    }
}

/// The bytes in the file, where the tensor has the same on the GPU.
fn stored_as_computed<'a>(item: &Item, views: &[Option<TensorView<'a>>]) -> Option<&'a [u8]> {
    match views {
        [Some(view)] if is_stored_as_computed(view.stored, item) => Some(view.bytes),
        _ => None,
    }
}

/// Whether the tensor has the same bytes in the file and on the GPU.
fn is_stored_as_computed(stored: &Stored, item: &Item) -> bool {
    let same = matches!(
        (stored, item.place.numbers),
        (Stored::Bf16, NumberType::Bf16) | (Stored::F16, NumberType::F16) | (Stored::F32, NumberType::F32)
    );
    same && item.rows.is_plain() && item.columns.is_plain()
}

/// Rows of a tensor from `first` on in the layout of the GPU; a source that is not in the files is zero.
fn narrow_rows(item: &Item, views: &[Option<TensorView<'_>>], first: usize, bytes: &mut [u8]) {
    let (columns, width) = (item.columns, item.place.numbers.bytes());
    let rows_of_source = item.rows.count * item.rows.size / views.len();
    let vectors: Vec<Option<Vec<f32>>> =
        views.iter().map(|view| view.filter(|view| view.shape.len() == 1).map(TensorView::to_f32)).collect();
    let row_numbers = |buffer: &mut [f32], row: usize| -> bool {
        let Some(logical) = item.rows.source(row) else { return false };
        let (source, row) = (logical / rows_of_source, logical % rows_of_source);
        match (&vectors[source], views[source]) {
            (Some(vector), _) => buffer[0] = vector[row],
            (None, Some(view)) => view.row(row, buffer),
            (None, None) => return false,
        }
        true
    };
    let stored_columns = columns.count * columns.size;
    let row_bytes = columns.total() * width;
    // Enough rows per task to amortize its overhead for vectors, whose rows are single numbers.
    let task = ((1 << 16) / columns.total().max(1)).max(1);
    bytes.par_chunks_mut(task * row_bytes).enumerate().for_each(|(at, bytes)| {
        let mut numbers = vec![0.0; stored_columns];
        for (row, bytes) in bytes.chunks_mut(row_bytes).enumerate() {
            if row_numbers(&mut numbers, first + at * task + row) {
                scatter(&numbers, columns, item.place.numbers, bytes);
            } else {
                bytes.fill(0);
            }
        }
    });
}

/// The numbers of a row as bytes, with zeros after each group.
fn scatter(numbers: &[f32], columns: Groups, format: NumberType, bytes: &mut [u8]) {
    let width = format.bytes();
    let groups = bytes.chunks_mut(columns.padded * width).zip(numbers.chunks(columns.size));
    for (bytes, numbers) in groups {
        let (filled, padding) = bytes.split_at_mut(columns.size * width);
        padding.fill(0);
        match format {
            NumberType::F32 => {
                for (bytes, number) in filled.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                    *bytes = number.to_le_bytes();
                }
            }
            NumberType::Bf16 => {
                for (bytes, number) in filled.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
                    *bytes = bf16::from_f32(*number).to_le_bytes();
                }
            }
            NumberType::F16 => {
                for (bytes, number) in filled.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
                    *bytes = f16::from_f32(*number).to_le_bytes();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::layout::Place;

    fn item(numbers: NumberType, rows: Groups, columns: Groups, sources: usize) -> Item {
        let place = Place { offset: 0, numbers, count: rows.total() * columns.total() };
        Item { place, sources: vec![String::new(); sources], rows, columns }
    }

    fn bytes_of(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn f32s(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn rows_and_columns_are_padded_with_zeros() {
        let stored = [bytes_of(&[1., 2., 3., 4.]), bytes_of(&[5., 6., 7., 8.])];
        let shape = [2, 2];
        let view = |bytes| Some(TensorView { stored: &Stored::F32, shape: &shape, bytes });
        let rows = Groups { count: 2, size: 2, padded: 3 };
        let columns = Groups { count: 2, size: 1, padded: 2 };
        let item = item(NumberType::F32, rows, columns, 2);
        let mut bytes = vec![0xff; 6 * 4 * 4];
        narrow_rows(&item, &[view(&stored[0]), view(&stored[1])], 0, &mut bytes);
        let expected = [
            [1., 0., 2., 0.],
            [3., 0., 4., 0.],
            [0., 0., 0., 0.],
            [5., 0., 6., 0.],
            [7., 0., 8., 0.],
            [0., 0., 0., 0.],
        ];
        assert_eq!(f32s(&bytes), expected.concat());
        let mut later = vec![0xff; 2 * 4 * 4];
        narrow_rows(&item, &[view(&stored[0]), view(&stored[1])], 3, &mut later);
        assert_eq!(f32s(&later), expected[3..5].concat());
    }

    #[test]
    fn vectors_are_joined_and_missing_sources_are_zero() {
        let stored = bytes_of(&[1., 2.]);
        let view = TensorView { stored: &Stored::F32, shape: &[2], bytes: &stored };
        let item = item(NumberType::F32, Groups::plain(4), Groups::plain(1), 2);
        let mut bytes = vec![0xff; 16];
        narrow_rows(&item, &[Some(view), None], 0, &mut bytes);
        assert_eq!(f32s(&bytes), [1., 2., 0., 0.]);
    }

    #[test]
    fn half_formats_are_rounded_to_nearest() {
        let stored = bytes_of(&[1.003_906_3, -0.1]);
        let view = TensorView { stored: &Stored::F32, shape: &[1, 2], bytes: &stored };
        for numbers in [NumberType::Bf16, NumberType::F16] {
            let item = item(numbers, Groups::plain(1), Groups::plain(2), 1);
            let mut bytes = vec![0; 4];
            narrow_rows(&item, &[Some(view)], 0, &mut bytes);
            let expected: Vec<u8> = match numbers {
                NumberType::Bf16 => [1.003_906_3, -0.1].iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
                _ => [1.003_906_3, -0.1].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            };
            assert_eq!(bytes, expected);
        }
    }
}
